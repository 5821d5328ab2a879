//! Signals as a file descriptor, and what each of them asks for.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Stop capturing: the signal.
    Stop(Signal),
    /// Print the counts and go on.
    Counts,
    /// Hand all output on to the operating system and go on.
    Flush,
}

/// Signals that are taken from a descriptor from now on.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
        set.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals(
            SignalFd::with_flags(&set, flags).context("open a signalfd")?,
        ))
    }

    /// From now on signals do again what they do by default.
    pub fn restore() -> Result<()> {
        SigSet::all().thread_unblock().context("unblock signals")
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next request that is waiting.
    pub fn next(&mut self) -> Option<Request> {
        let info = self.0.read_signal().ok()??;
        match Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()? {
            Signal::SIGUSR1 => Some(Request::Counts),
            Signal::SIGUSR2 => Some(Request::Flush),
            signal => Some(Request::Stop(signal)),
        }
    }
}
