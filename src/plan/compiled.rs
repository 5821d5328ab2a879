//! Tests only: libraries made from C, for both instruction sets.

use crate::discovery::elf::Machine;
use std::process::Command;

pub(crate) const BOTH: [Machine; 2] = [Machine::X86_64, Machine::Aarch64];

/// A shared library without a C library.
///
/// # Panics
/// There is no compiler for the machine, or the source is wrong.
pub(crate) fn library(machine: Machine, source: &str, options: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.c"), dir.path().join("out.so"));
    std::fs::write(&input, source).unwrap();
    let mut command = match machine {
        Machine::X86_64 => Command::new("cc"),
        _ => {
            let mut command = Command::new("clang");
            command.args(["--target=aarch64-linux-gnu", "-fuse-ld=lld"]);
            command
        }
    };
    let done = command
        .args(["-w", "-shared", "-fPIC", "-nostdlib", "-o"])
        .args([&output, &input])
        .args(options)
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
    std::fs::read(&output).unwrap()
}
