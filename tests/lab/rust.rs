//! A program with rustls in it, built from crates.io.

use super::{place, programs};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// `tests/programs/rustls` with its symbols and without, built once; `None` where its crates cannot be
/// had.
pub fn rustls() -> Option<&'static [PathBuf; 2]> {
    static BUILT: OnceLock<Option<[PathBuf; 2]>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref()
}

fn build() -> Option<[PathBuf; 2]> {
    if place::prebuilt().is_some() {
        return None;
    }
    let target = place::scratch().join("rustls");
    let program = target.join("release/rustls-program");
    let built = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["build", "--release", "--locked", "--quiet"])
        .arg("--manifest-path")
        .arg(programs().join("rustls/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .ok()?;
    if !built.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&built.stderr));
        return None;
    }
    // built aside and renamed: another test crate may be running the old one
    let bare = program.with_extension("bare");
    let aside = program.with_extension(std::process::id().to_string());
    let stripped = Command::new("strip")
        .arg("-o")
        .args([&aside, &program])
        .status()
        .ok()?;
    assert!(stripped.success());
    std::fs::rename(&aside, &bare).unwrap();
    Some([program, bare])
}
