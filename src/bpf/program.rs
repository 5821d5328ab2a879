//! Programs, and when they are loaded: those that probes run when the first probe needs them, since
//! to have the kernel verify them is most of what a start takes.

use super::Features;
use super::syscall::{Code, code_of, load_probe};
use anyhow::{Result, anyhow};
use libbpf_rs::{Object, OpenProgramMut, libbpf_sys};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::thread;

/// A program as libbpf has prepared it: its maps exist, and its offsets are those of this kernel.
#[derive(Debug)]
pub struct Program {
    pub name: CString,
    pub code: Code,
    /// A probe runs it; else an event of the kernel, or another program that goes on with it.
    pub is_of_probe: bool,
    loaded: OnceLock<Result<OwnedFd, String>>,
}

impl Program {
    /// `types` are those of its object, which must have been prepared.
    pub fn of(
        program: &OpenProgramMut<'_>,
        types: Option<Arc<OwnedFd>>,
        features: Features,
    ) -> Program {
        let name = program.name().to_string_lossy();
        let section = program.section().to_string_lossy();
        let mut code = code_of(program, types);
        code.attach_type = attach_type(&section, features);
        if features.sleepable {
            code.flags = libbpf_sys::BPF_F_SLEEPABLE;
        }
        Program {
            name: CString::new(name.as_bytes()).unwrap_or_default(),
            code,
            is_of_probe: section.starts_with("uprobe") && !name.ends_with("_finishes"),
            loaded: OnceLock::new(),
        }
    }

    /// Loads it, unless it is.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        match self.loaded.get_or_init(|| self.load()) {
            Ok(fd) => Ok(fd.as_fd()),
            Err(error) => Err(anyhow!("{error}")),
        }
    }

    fn load(&self) -> Result<OwnedFd, String> {
        load_probe(&self.name, &self.code).map_err(|error| {
            format!(
                "load the BPF program {} (tlssniff --debug shows the kernel's own words): {error}",
                self.name.to_string_lossy()
            )
        })
    }
}

/// What is a session is said in the section's name.
fn attach_type(section: &str, features: Features) -> u32 {
    match (section.starts_with("uprobe.session"), features.multi) {
        (true, _) => libbpf_sys::BPF_TRACE_UPROBE_SESSION,
        (false, true) => libbpf_sys::BPF_TRACE_UPROBE_MULTI,
        (false, false) => 0,
    }
}

/// Loads those of these names in another thread, while this one finds what to look at.
pub fn load_meanwhile(programs: &'static [Program], names: &'static [&str]) {
    let load = move || {
        for program in programs {
            if names
                .iter()
                .any(|name| program.name.as_bytes() == name.as_bytes())
            {
                // Whoever needs it is told of an error.
                let _ = program.fd();
            }
        }
    };
    if let Err(error) = thread::Builder::new().spawn(load) {
        log::debug!("programs are loaded when they are needed: {error}");
    }
}

/// libbpf has loaded these.
pub fn are_loaded(programs: &[Program], object: &Object) {
    for loaded in object.progs_mut() {
        let mut known = programs.iter().filter(|program| !program.is_of_probe);
        let known = known.find(|known| known.name.as_bytes() == loaded.name().as_encoded_bytes());
        if let Some(known) = known
            && let Ok(fd) = loaded.as_fd().try_clone_to_owned()
        {
            let _ = known.loaded.set(Ok(fd));
        }
    }
}
