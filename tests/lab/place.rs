//! Where the program, the test programs and scratch files are.
//!
//! Normally below Cargo's target directory, where test programs are built when they are wanted. In
//! a virtual machine (scripts/test-kernels) `LAB_HOME` names a directory that holds them all, built
//! beforehand; nothing is built there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of prebuilt programs, if they are prebuilt.
pub fn prebuilt() -> Option<PathBuf> {
    env::var_os("LAB_HOME").map(PathBuf::from)
}

/// By how much limits are longer: a virtual machine may emulate its processor.
pub fn patience() -> u32 {
    if prebuilt().is_some() { 3 } else { 1 }
}

/// For what tests build and write.
pub fn scratch() -> PathBuf {
    let dir = prebuilt().unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    fs::create_dir_all(&dir).unwrap();
    dir
}

pub fn tlssniff() -> PathBuf {
    match prebuilt() {
        Some(dir) => dir.join("tlssniff"),
        None => env!("CARGO_BIN_EXE_tlssniff").into(),
    }
}

/// The directory of the test programs' sources.
pub fn programs() -> PathBuf {
    match prebuilt() {
        Some(dir) => dir.join("programs"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs"),
    }
}
