//! Starts `tlssniff`, waits until it listens, stops it, and hands over what it captured.

use super::{Capture, LIMIT, Running};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// A running `tlssniff … --json --raw -o FILE`.
#[derive(Debug)]
pub struct Sniff {
    pub running: Running,
    pub json: PathBuf,
}

/// A `tlssniff` with these arguments, not started yet.
pub fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(super::tlssniff());
    command.args(args);
    command.env_remove("SUDO_USER");
    command
}

/// A file in `dir` that no other capture of the test uses.
fn new_json(dir: &Path) -> PathBuf {
    tempfile::Builder::new()
        .prefix("capture")
        .suffix(".json")
        .tempfile_in(dir)
        .unwrap()
        .into_temp_path()
        .to_path_buf()
}

impl Sniff {
    /// Starts a capture with JSON output and waits until it is complete in place.
    pub fn start<S: AsRef<OsStr>>(dir: &Path, args: &[S]) -> Sniff {
        let json = new_json(dir);
        let mut command = command(&["--json", "--raw", "-o"]);
        command.arg(&json).args(args);
        if std::env::var_os("LAB_DEBUG").is_some() {
            command.arg("--debug");
        }
        let mut running = Running::start(&mut command, dir);
        running.wait_line(LIMIT, |line| line.starts_with("tlssniff: listening"));
        Sniff { running, json }
    }

    /// Captures one process that already runs.
    pub fn pid(dir: &Path, pid: u32) -> Sniff {
        Sniff::start(dir, &["-p", &pid.to_string()])
    }

    /// Captures everything with this command name, now and later.
    pub fn comm(dir: &Path, comm: &str) -> Sniff {
        Sniff::start(dir, &["--comm", comm])
    }

    /// Runs a command under `tlssniff` to its end. Returns the process, with the command's
    /// standard output as its own, and the capture.
    pub fn run(dir: &Path, args: &[&str], target: &mut Command) -> (Running, Capture) {
        let json = new_json(dir);
        let mut command = command(&["--json", "--raw", "-o"]);
        command.arg(&json).args(args).arg("--");
        command.arg(target.get_program()).args(target.get_args());
        for (name, value) in target.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut running = Running::start(&mut command, dir);
        running.wait(LIMIT);
        let capture = Capture::read(&json);
        (running, capture)
    }

    /// Ends the capture as a user does, and reads it.
    pub fn stop(mut self) -> Capture {
        self.running.signal(Signal::SIGINT);
        let status = self.running.wait(LIMIT);
        // Shown when the test fails; LAB_DEBUG=1 makes it say more.
        eprintln!("{}", self.running.stderr_text());
        assert!(status.success(), "{status}");
        Capture::read(&self.json)
    }

    /// Waits for an end that comes by itself, and reads what was captured.
    pub fn ends(mut self, limit: Duration) -> (ExitStatus, String, Capture) {
        let status = self.running.wait(limit);
        let stderr = self.running.stderr_text();
        (status, stderr, Capture::read(&self.json))
    }
}
