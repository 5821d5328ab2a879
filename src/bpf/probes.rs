//! What probes run, and how they are put in place.

use super::program::Program;
use super::syscall::{End, Place, UprobeEvents, link_probes};
use super::{Bpf, waiting};
use anyhow::{Context, Result};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const RUSTLS_TOO_OLD: &str = "rustls needs Linux 5.15 or later";

/// How large a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    pub name: String,
    /// In instructions, functions that it calls included.
    pub length: u64,
    /// How many the verifier has walked, over all paths.
    pub verified: u64,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A call whose return matters, as a session.
    Call,
    /// The two ends of such a call where there are no sessions.
    Enter,
    Return,
    /// A call without.
    Event,
    /// The beginning and the return of a Go function.
    GoEnter,
    GoReturn,
    /// A write to rustls as a session, its two ends, and all else in rustls.
    RustlsCall,
    RustlsEnter,
    RustlsReturn,
    RustlsEvent,
    /// To hold a thread that has just mapped libraries.
    Hold,
    /// Where a call returns to that had begun before.
    Waited,
}

impl Kind {
    /// Whether addresses come from the sockets that its calls use. Go's come from its structures.
    fn uses_sockets(self) -> bool {
        !matches!(self, Kind::GoEnter | Kind::GoReturn | Kind::Hold)
    }

    fn end(self) -> End {
        match self {
            Kind::Call | Kind::RustlsCall => End::Both,
            Kind::Return | Kind::RustlsReturn => End::Return,
            _ => End::Begin,
        }
    }
}

impl Bpf {
    /// Whether the kernel takes the programs without which there is no capture.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<()> {
        if self.features.cookies {
            self.program(Kind::Event)?.fd()?;
        }
        if self.features.sessions {
            self.program(Kind::Call)?.fd()?;
        }
        Ok(())
    }

    /// What a probe of this kind runs.
    ///
    /// # Errors
    /// This kernel is too old for it.
    pub fn has_program(&self, kind: Kind) -> Result<()> {
        self.program(kind).map(drop)
    }

    fn program(&self, kind: Kind) -> Result<&'static Program> {
        let (name, lacks) = match kind {
            Kind::Call => ("tls_call", "a kernel without sessions"),
            Kind::Enter => ("tls_enters", "a kernel with sessions"),
            Kind::Return => ("tls_returns", "a kernel with sessions"),
            Kind::Event => ("tls_event", ""),
            Kind::GoEnter => ("go_enters", ""),
            Kind::GoReturn => ("go_returns", ""),
            Kind::RustlsCall => ("rustls_write", RUSTLS_TOO_OLD),
            Kind::RustlsEnter => ("rustls_write_enters", RUSTLS_TOO_OLD),
            Kind::RustlsReturn => ("rustls_write_returns", RUSTLS_TOO_OLD),
            Kind::RustlsEvent => ("rustls_event", RUSTLS_TOO_OLD),
            Kind::Hold => ("libraries_mapped", ""),
            Kind::Waited => ("waited_returns", waiting::TOO_OLD),
        };
        self.parts.program(name).context(lacks)
    }

    /// Puts probes in place, in a file at these offsets and with these cookies, for one process or for
    /// all (0). They are there until what this returns is dropped.
    ///
    /// # Errors
    /// The kernel refuses one of them, or the program.
    pub fn link(
        &mut self,
        kind: Kind,
        path: &CStr,
        pid: u32,
        sites: &[(u64, u64)],
    ) -> Result<Vec<OwnedFd>> {
        let program = self.program(kind)?;
        if kind.uses_sockets() {
            self.see_sockets();
        }
        if self.features.multi {
            let fd = program.fd()?;
            return Ok(vec![link_probes(fd, path, pid, kind.end(), sites)?]);
        }
        let events = match self.events {
            Some(events) => events,
            None => *self.events.insert(UprobeEvents::of_kernel()?),
        };
        let links = sites.iter().map(|(offset, cookie)| {
            let place = Place {
                path: path.to_owned(),
                offset: *offset,
                returns: kind.end() == End::Return,
                pid,
            };
            if self.features.cookies {
                events.link(program.fd()?, &place, *cookie)
            } else {
                self.copies.attach(kind, program, *cookie, &place, events)
            }
        });
        links.collect()
    }

    /// Of the programs that this kernel uses. Loads those that nothing has needed yet.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn program_sizes(&self) -> Result<Vec<ProgramSize>> {
        let mut sizes = Vec::new();
        for program in self.parts.programs {
            let fd = program.fd()?;
            sizes.extend(program_size(program, fd));
        }
        Ok(sizes)
    }
}

/// As the kernel has it; `None` where it does not tell.
fn program_size(program: &Program, fd: BorrowedFd<'_>) -> Option<ProgramSize> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = std::fs::read_to_string(path).ok()?;
    let verified = info
        .lines()
        .find_map(|line| line.strip_prefix("verified_insns:"))?;
    Some(ProgramSize {
        name: program.name.to_string_lossy().into_owned(),
        length: program.code.instructions.len() as u64,
        verified: verified.trim().parse().ok()?,
    })
}
