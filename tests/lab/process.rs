//! A started program: output in files, a limit on every wait, killed with its group when dropped.

use super::{certificate, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` in a process group of its own, with its output in files in `dir` and the
    /// certificate of the lab in its environment.
    pub fn start(command: &mut Command, dir: &Path) -> Running {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let stdout = dir.join(format!("{n}.stdout"));
        let stderr = dir.join(format!("{n}.stderr"));
        let child = command
            .env("LAB_CERT", &certificate().cert)
            .env("LAB_KEY", &certificate().key)
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Running {
            child,
            stdout,
            stderr,
            status: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> Vec<u8> {
        fs::read(&self.stdout).unwrap()
    }

    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout()).into_owned()
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// The exit status if the program has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Waits for the end; a program that does not end is a failure.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.child.stdin = None;
        let limit = limit * super::place::patience();
        let end = std::time::Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if std::time::Instant::now() > end {
                let stderr = self.stderr_text();
                panic!(
                    "process {} did not end in {limit:?}; stderr:\n{stderr}",
                    self.pid()
                );
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Waits for the end and fails unless the program was content.
    pub fn wait_success(&mut self, limit: Duration) {
        let status = self.wait(limit);
        assert!(
            status.success(),
            "{status}; stderr:\n{}",
            self.stderr_text()
        );
    }

    /// Waits until a line of stdout or stderr, without its end, satisfies `wanted`; returns it.
    pub fn wait_line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let end = std::time::Instant::now() + limit;
        loop {
            let ended = self.ended();
            let text = self.stdout_text() + &self.stderr_text();
            let complete = text.rfind('\n').map_or("", |last| &text[..last]);
            if let Some(line) = complete.lines().find(|line| wanted(line)) {
                return line.to_owned();
            }
            let late = std::time::Instant::now() > end;
            assert!(
                ended.is_none() && !late,
                "no such line from process {} (status {ended:?}, late: {late}); it said:\n{text}",
                self.pid()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Lets a program pass its gate.
    pub fn go(&mut self) {
        self.say("go\n");
    }

    pub fn say(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is open");
        stdin.write_all(text.as_bytes()).unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// To this process only, not to its group.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// The pids of the children that live now.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Waits until `comm` is what the kernel calls it: the fork has become the program.
    pub fn wait_comm(&self, comm: &str) {
        let path = format!("/proc/{}/comm", self.pid());
        wait_until(&format!("{path} is {comm}"), Duration::from_secs(5), || {
            fs::read_to_string(&path).is_ok_and(|text| text.trim_end() == comm)
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // the group first: workers of a server that has already gone
        let group = Pid::from_raw(-self.pid().cast_signed());
        let _ = kill(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
