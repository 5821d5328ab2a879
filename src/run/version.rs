//! `--version`; with `--verbose` also what the running kernel offers, and what is done with it.

use crate::bpf::Features;
use anyhow::Result;
use std::io::Write;

/// # Errors
/// The output failed.
pub fn print(out: &mut impl Write, verbose: bool) -> Result<()> {
    writeln!(out, "tlssniff {}", env!("CARGO_PKG_VERSION"))?;
    if !verbose {
        return Ok(());
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    writeln!(
        out,
        "kernel: Linux {} {}",
        release.trim(),
        std::env::consts::ARCH
    )?;
    match Features::of_kernel() {
        Ok(features) => {
            for (what, how) in features.describe() {
                writeln!(out, "{what}: {how}")?;
            }
        }
        Err(error) => writeln!(out, "no capture is possible: {error:#}")?,
    }
    Ok(())
}
