//! Starts the command after `--`, held until its probes are in place.

#![allow(unsafe_code)] // fork, and what a child may do between fork and exec

use crate::discovery::image::candidates;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, User, getgrouplist, pipe2};
use std::ffi::{CString, OsStr, OsString, c_char};
use std::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;

/// Who the command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    pub uid: u32,
    pub gid: u32,
    /// All groups of the user, `gid` among them.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub user: String,
}

impl RunAs {
    /// `user` is a name or a number that is in the user database.
    pub fn lookup(user: &str) -> Result<RunAs> {
        let by_name = User::from_name(user).with_context(|| format!("look up user {user:?}"))?;
        let found = match (by_name, user.parse()) {
            (Some(found), _) => Some(found),
            (None, Ok(uid)) => User::from_uid(Uid::from_raw(uid))
                .with_context(|| format!("look up user {user}"))?,
            (None, Err(_)) => None,
        };
        let found = found.with_context(|| format!("there is no user {user:?} to run as"))?;
        let name = CString::new(found.name.as_str())
            .with_context(|| format!("user {user:?} has a NUL in its name"))?;
        let groups = getgrouplist(&name, found.gid)
            .with_context(|| format!("look up the groups of user {user:?}"))?;
        Ok(RunAs {
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            home: found.dir,
            user: found.name,
        })
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// Why the command could not be started.
#[derive(Debug)]
pub struct ExecError {
    command: OsString,
    error: Error,
    /// For exec; otherwise becoming the user failed.
    in_exec: bool,
}

impl ExecError {
    /// What a shell would exit with: 127 when there is no such command, else 126.
    pub fn exit_code(&self) -> i32 {
        match self.error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) if self.in_exec => 127,
            _ => 126,
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = &self.command;
        let is_path = command.as_bytes().contains(&b'/');
        if !self.in_exec {
            return write!(
                f,
                "become the user that {command:?} shall run as: {}",
                self.error
            );
        }
        match self.error.kind() {
            ErrorKind::NotFound if !is_path => write!(f, "run {command:?}: command not found"),
            ErrorKind::NotFound if Path::new(command).exists() => {
                write!(
                    f,
                    "run {command:?}: the interpreter that it names does not exist"
                )
            }
            _ => write!(f, "run {command:?}: {}", self.error),
        }
    }
}

impl std::error::Error for ExecError {}

/// What the command reads and writes by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    Ours,
    /// Likewise, but /dev/null where that is a terminal: it is used for something else.
    WithoutTerminal,
}

/// A command, before and after its exec.
///
/// It is in our process group, so that what the terminal sends (Ctrl-C) reaches it as well. When
/// it is dropped before [`Child::release`], or we end, the command never starts.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    command: OsString,
    /// Taken by `release`: to let it go, and to hear what became of it.
    held: Option<(File, File)>,
    status: Option<Status>,
}

impl Child {
    /// Forks a process that waits for [`Child::release`]. Its environment is ours, with HOME, USER
    /// and LOGNAME of `run_as`; its signals are unblocked and at their defaults, except that
    /// SIGHUP, SIGINT and SIGQUIT stay ignored where we ignore them (`nohup`).
    ///
    /// # Errors
    /// When there is no command, or no process can be made. Whether it can be executed, and as
    /// that user, is found out by `release`.
    pub fn spawn(argv: &[OsString], run_as: Option<&RunAs>, stdio: Stdio) -> Result<Child> {
        let command = argv
            .first()
            .context("run a command: there is none after --")?
            .clone();
        let mut plan = ExecPlan::new(argv, run_as)?;
        if stdio == Stdio::WithoutTerminal {
            plan.keep_from_terminal()?;
        }
        let (go_read, go_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("make a pipe")?;
        let (told_read, told_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("make a pipe")?;
        // SAFETY: the child calls only what is async-signal-safe: `ExecPlan::run` promises it.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            plan.run(
                go_read.as_raw_fd(),
                go_write.as_raw_fd(),
                told_write.as_raw_fd(),
            );
        }
        if pid < 0 {
            return Err(Error::last_os_error()).context("make a process for the command");
        }
        // SAFETY: plain system call; `pid` is our child and not yet waited for.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let pidfd = match RawFd::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
            _ => {
                let error = Error::last_os_error();
                kill_and_reap(pid);
                return Err(error).context("open a pidfd for the command");
            }
        };
        let held = Some((File::from(go_write), File::from(told_read)));
        Ok(Child {
            pid,
            pidfd,
            command,
            held,
            status: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Readable for poll(2) when the command has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets the command start, and returns when it has: its exec is done, or has failed. A second
    /// call does nothing.
    ///
    /// # Errors
    /// When it cannot be executed; the process has ended then.
    pub fn release(&mut self) -> std::result::Result<(), ExecError> {
        let Some((mut go, mut told)) = self.held.take() else {
            return Ok(());
        };
        // A child that was killed meanwhile does not read this; `wait` will tell.
        let _ = go.write_all(&[1]);
        let mut report = [0; 8];
        // The end of the pipe without a report: exec has closed it.
        if told.read_exact(&mut report).is_err() {
            return Ok(());
        }
        let [a, b, c, d, stage, ..] = report;
        let error = Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
        Err(ExecError {
            command: self.command.clone(),
            error,
            in_exec: stage == STAGE_EXEC,
        })
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// When it is still held.
    pub fn wait(&mut self) -> Result<Status> {
        if self.held.is_some() {
            bail!("wait for {:?}, which was not let go", self.command);
        }
        loop {
            if let Some(status) = self.reap(0)? {
                return Ok(status);
            }
        }
    }

    /// How the command ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<Status>> {
        self.reap(libc::WNOHANG)
    }

    fn reap(&mut self, options: libc::c_int) -> Result<Option<Status>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let mut raw = 0;
        // SAFETY: `raw` is valid for the write of an int.
        match unsafe { libc::waitpid(self.pid, &raw mut raw, options) } {
            0 => return Ok(None),
            -1 => {
                let error = Error::last_os_error();
                if error.kind() == ErrorKind::Interrupted {
                    return Ok(None);
                }
                return Err(error).with_context(|| format!("wait for {:?}", self.command));
            }
            _ => {}
        }
        self.status = if libc::WIFEXITED(raw) {
            Some(Status::Exited(libc::WEXITSTATUS(raw)))
        } else if libc::WIFSIGNALED(raw) {
            Some(Status::Signaled(libc::WTERMSIG(raw)))
        } else {
            None
        };
        Ok(self.status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.held.is_some() && self.status.is_none() {
            kill_and_reap(self.pid);
        }
    }
}

fn kill_and_reap(pid: libc::pid_t) {
    // SAFETY: `pid` is a child of ours that was not waited for, so that nobody else can have it.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        while libc::waitpid(pid, ptr::null_mut(), 0) < 0
            && Error::last_os_error().kind() == ErrorKind::Interrupted
        {}
    }
}

/// Ends us as the command ended: with its exit code, or by its signal (without a core file of
/// ours). Flush everything before.
pub fn pass_on(status: Status) -> ! {
    let signal = match status {
        Status::Exited(code) => std::process::exit(code),
        Status::Signaled(signal) => signal,
    };
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: no handler is installed, `set` is written before it is read, and the signal is sent
    // to ourselves.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        libc::raise(signal);
    }
    std::process::exit(128_i32.saturating_add(signal))
}

const STAGE_USER: u8 = 0;
const STAGE_EXEC: u8 = 1;

/// A C array of strings that ends with a null pointer.
struct CArray {
    pointers: Vec<*const c_char>,
    /// What `pointers` point into: the heap, so that it may move.
    _strings: Vec<CString>,
}

impl CArray {
    fn new(strings: Vec<CString>) -> CArray {
        let pointers = strings
            .iter()
            .map(|text| text.as_ptr())
            .chain(std::iter::once(ptr::null()))
            .collect();
        CArray {
            pointers,
            _strings: strings,
        }
    }
}

/// All that the child needs after fork, prepared before it: no memory may be allocated then.
struct ExecPlan {
    /// In the order in which to try them.
    paths: Vec<CString>,
    argv: CArray,
    /// For each path: how the shell is to run it when the kernel does not know its format.
    shell_argv: Vec<CArray>,
    env: CArray,
    run_as: Option<RunAs>,
    /// /dev/null, and for which of the first three descriptors.
    null: Option<(File, [bool; 3])>,
    /// Dispositions up to this signal number are reset.
    last_signal: libc::c_int,
}

impl ExecPlan {
    fn new(argv: &[OsString], run_as: Option<&RunAs>) -> Result<ExecPlan> {
        let command = argv.first().map(OsString::as_os_str).unwrap_or_default();
        let path_env = std::env::var_os("PATH");
        let paths = candidates(command, path_env.as_deref())
            .into_iter()
            .map(|path| c_string(path.as_os_str()))
            .collect::<Result<Vec<_>>>()?;
        let args = argv
            .iter()
            .map(|arg| c_string(arg))
            .collect::<Result<Vec<_>>>()?;
        let shell_argv = paths
            .iter()
            .map(|path| {
                let mut shell = vec![SHELL.to_owned(), path.clone()];
                shell.extend(args.iter().skip(1).cloned());
                CArray::new(shell)
            })
            .collect();
        // Already that user: nothing to change, and no privilege needed for it.
        let run_as = run_as
            .filter(|user| user.uid != Uid::effective().as_raw())
            .cloned();
        Ok(ExecPlan {
            paths,
            argv: CArray::new(args),
            shell_argv,
            env: CArray::new(environment(run_as.as_ref())?),
            run_as,
            null: None,
            last_signal: libc::SIGRTMAX(),
        })
    }

    fn keep_from_terminal(&mut self) -> Result<()> {
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("open /dev/null for the command")?;
        let is_terminal = [
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        ];
        self.null = Some((null, is_terminal));
        Ok(())
    }

    /// The child's life from fork to exec. Async-signal-safe: only system calls, no allocation, no
    /// lock, no panic.
    fn run(&self, go: RawFd, go_write: RawFd, told: RawFd) -> ! {
        // SAFETY: descriptors and pointers are those that the parent prepared; they are valid in
        // this copy of its memory, which has this one thread.
        unsafe {
            // Else the end of the parent would not end the read below.
            libc::close(go_write);
            self.reset_signals();
            if let Some((null, is_terminal)) = &self.null {
                for (fd, is_terminal) in (0..).zip(is_terminal) {
                    if *is_terminal {
                        libc::dup2(null.as_raw_fd(), fd);
                    }
                }
            }
            let mut byte = 0u8;
            loop {
                match libc::read(go, (&raw mut byte).cast(), 1) {
                    1 => break,
                    -1 if *libc::__errno_location() == libc::EINTR => {}
                    _ => libc::_exit(1),
                }
            }
            if !self.become_user() {
                report(told, STAGE_USER, *libc::__errno_location());
            }
            report(told, STAGE_EXEC, self.exec())
        }
    }

    /// # Safety
    /// Between fork and exec only.
    unsafe fn reset_signals(&self) {
        // SAFETY: no handler is installed, and what is read was written before.
        unsafe {
            for signal in 1..=self.last_signal {
                let mut old: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(signal, ptr::null(), &raw mut old) != 0 {
                    continue;
                }
                let kept = matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT)
                    && old.sa_sigaction == libc::SIG_IGN;
                if !kept {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        }
    }

    /// # Safety
    /// Between fork and exec only.
    unsafe fn become_user(&self) -> bool {
        let Some(user) = &self.run_as else {
            return true;
        };
        // System calls and not the functions of libc, which look after other threads with locks.
        // SAFETY: `groups` is valid for as many ids as it says.
        unsafe {
            libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) == 0
                && libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) == 0
                && libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) == 0
        }
    }

    /// As execvp(3); returns the error number when nothing could be executed.
    ///
    /// # Safety
    /// Between fork and exec only.
    unsafe fn exec(&self) -> i32 {
        let env = self.env.pointers.as_ptr();
        let mut error = libc::ENOENT;
        for (path, shell_argv) in self.paths.iter().zip(&self.shell_argv) {
            // SAFETY: strings and arrays end with NUL and null, and live as long as `self`.
            let failed = unsafe {
                libc::execve(path.as_ptr(), self.argv.pointers.as_ptr(), env);
                if *libc::__errno_location() == libc::ENOEXEC {
                    libc::execve(SHELL.as_ptr(), shell_argv.pointers.as_ptr(), env);
                }
                *libc::__errno_location()
            };
            match failed {
                // Elsewhere there may be another one.
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV => {}
                // Unless there is, this is what to tell.
                libc::EACCES => error = failed,
                _ => return failed,
            }
        }
        error
    }
}

const SHELL: &std::ffi::CStr = c"/bin/sh";

/// # Safety
/// Between fork and exec only; `told` is open for writing.
unsafe fn report(told: RawFd, stage: u8, error: i32) -> ! {
    let [a, b, c, d] = error.to_ne_bytes();
    let report = [a, b, c, d, stage, 0, 0, 0];
    // SAFETY: the buffer is valid for its length. Eight bytes are written to a pipe as one.
    unsafe {
        libc::write(told, report.as_ptr().cast(), report.len());
        libc::_exit(if error == libc::ENOENT { 127 } else { 126 })
    }
}

/// `NAME=value` of each of our variables, and of those that `run_as` changes.
fn environment(run_as: Option<&RunAs>) -> Result<Vec<CString>> {
    let mut vars: std::collections::BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    if let Some(user) = run_as {
        vars.insert("HOME".into(), user.home.clone().into());
        vars.insert("USER".into(), user.user.clone().into());
        vars.insert("LOGNAME".into(), user.user.clone().into());
    }
    vars.into_iter()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(&name)
        })
        .collect()
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.to_os_string().into_vec())
        .with_context(|| format!("run a command: {text:?} has a NUL inside"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};
    use test_tag::tag;

    fn spawn(argv: &[&str]) -> Child {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        Child::spawn(&argv, None, Stdio::Ours).unwrap()
    }

    fn sh(script: &str) -> Child {
        spawn(&["sh", "-c", script])
    }

    fn is_readable(fd: BorrowedFd<'_>, timeout_ms: u16) -> bool {
        let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, timeout_ms).unwrap() == 1
    }

    fn exe(pid: u32) -> PathBuf {
        fs::read_link(format!("/proc/{pid}/exe")).unwrap()
    }

    #[test]
    fn nothing_of_the_command_runs_before_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let mut child = spawn(&["touch", mark.to_str().unwrap()]);
        assert_eq!(exe(child.pid()), std::env::current_exe().unwrap());
        assert!(!is_readable(child.pidfd(), 100));
        assert!(child.wait().is_err() && child.try_wait().unwrap().is_none());
        assert!(!mark.exists());
        child.release().unwrap();
        assert_eq!(child.wait().unwrap(), Status::Exited(0));
        assert!(mark.exists());
        assert_eq!(child.try_wait().unwrap(), Some(Status::Exited(0)));
    }

    #[test]
    fn when_release_returns_the_command_is_what_runs() {
        let mut child = spawn(&["sleep", "20"]);
        child.release().unwrap();
        child.release().unwrap();
        let running = exe(child.pid());
        assert_ne!(running, std::env::current_exe().unwrap());
        assert_eq!(child.try_wait().unwrap(), None);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.pid),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        assert!(is_readable(child.pidfd(), 5000));
        assert_eq!(child.wait().unwrap(), Status::Signaled(libc::SIGTERM));
    }

    #[test]
    fn codes_and_signals_are_told_apart() {
        let end = |script| {
            let mut child = sh(script);
            child.release().unwrap();
            child.wait().unwrap()
        };
        assert_eq!(end("exit 7"), Status::Exited(7));
        assert_eq!(end("exit 143"), Status::Exited(143));
        assert_eq!(end("kill -KILL $$"), Status::Signaled(libc::SIGKILL));
        let realtime = format!("kill -{} $$", libc::SIGRTMIN() + 3);
        assert_eq!(end(&realtime), Status::Signaled(libc::SIGRTMIN() + 3));
    }

    #[test]
    fn a_held_command_that_is_dropped_never_runs_and_leaves_no_zombie() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let child = spawn(&["touch", mark.to_str().unwrap()]);
        let pid = child.pid();
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!mark.exists());
    }

    #[test]
    fn a_command_that_was_let_go_outlives_its_handle() {
        let mut child = spawn(&["sleep", "20"]);
        child.release().unwrap();
        let pid = child.pid;
        drop(child);
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        kill_and_reap(pid);
    }

    #[test]
    fn what_cannot_be_executed_is_reported_as_shells_do() {
        let fails = |command: &str| {
            let mut child = spawn(&[command]);
            let error = child.release().unwrap_err();
            assert_eq!(child.wait().unwrap(), Status::Exited(error.exit_code()));
            (error.exit_code(), error.to_string())
        };
        let (code, text) = fails("no-such-command");
        assert_eq!(
            (code, &*text),
            (127, "run \"no-such-command\": command not found")
        );
        let (code, text) = fails("/no/such/command");
        assert_eq!(code, 127);
        assert!(text.contains("No such file"), "{text}");
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        let (code, text) = fails(script.to_str().unwrap());
        assert_eq!(code, 126);
        assert!(text.contains("ermission denied"), "{text}");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let (code, text) = fails(script.to_str().unwrap());
        assert_eq!(code, 127);
        assert!(text.contains("interpreter"), "{text}");
        assert_eq!(fails("").0, 127);
        assert!(Child::spawn(&[], None, Stdio::Ours).is_err());
    }

    #[test]
    fn a_script_without_a_first_line_is_run_by_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "exit $(($1 + 1))\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = spawn(&[script.to_str().unwrap(), "41"]);
        child.release().unwrap();
        assert_eq!(child.wait().unwrap(), Status::Exited(42));
    }

    #[test]
    fn the_command_has_default_signals_our_group_and_no_descriptor_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!(
            "grep -E '^Sig(Blk|Ign)' /proc/self/status >{0}; cut -d' ' -f5 /proc/$$/stat >>{0}; \
             ls /proc/$$/fd >>{0}",
            out.display()
        );
        let status = std::process::Command::new("sh")
            .args(["-c", &script])
            .status();
        assert!(status.unwrap().success());
        let by_std = fs::read_to_string(&out).unwrap();
        // Rust ignores SIGPIPE by itself; blocked signals are what signalfd needs.
        let mut usr1 = nix::sys::signal::SigSet::empty();
        usr1.add(nix::sys::signal::Signal::SIGUSR1);
        usr1.thread_block().unwrap();
        let mut child = sh(&script);
        child.release().unwrap();
        child.wait().unwrap();
        usr1.thread_unblock().unwrap();
        let text = fs::read_to_string(&out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "SigBlk:\t0000000000000000");
        // Only SIGHUP, SIGINT and SIGQUIT may be ignored, if whoever started us ignores them; 32
        // and 33 are glibc's own, which it lets nobody change.
        let ignored = u64::from_str_radix(lines[1].trim_start_matches("SigIgn:\t"), 16).unwrap();
        assert_eq!(ignored & !(0b111 | 0b11 << 31), 0, "{text}");
        assert_eq!(lines[2], nix::unistd::getpgrp().to_string());
        // What we were given ourselves is passed on, and nothing else.
        let by_std: Vec<&str> = by_std.lines().collect();
        assert_eq!(lines[3..], by_std[3..]);
    }

    /// Runs only in the process that the tests below start.
    #[test]
    fn act_here_when_asked() {
        match std::env::var("CHILD_IN_TEST").as_deref() {
            Ok("signal") => pass_on(Status::Signaled(libc::SIGTERM)),
            Ok("code") => pass_on(Status::Exited(9)),
            Ok("abandon") => {
                let child = sh("exit 0");
                println!("pid {}", child.pid());
                std::mem::forget(child);
                std::process::exit(0);
            }
            _ => {}
        }
    }

    fn act(what: &str) -> std::process::Output {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "child::tests::act_here_when_asked",
                "--exact",
                "--nocapture",
            ])
            .env("CHILD_IN_TEST", what)
            .output()
            .unwrap()
    }

    #[test]
    fn we_end_as_the_command_ended() {
        assert_eq!(act("code").status.code(), Some(9));
        let status = act("signal").status;
        assert_eq!(
            (status.signal(), status.core_dumped()),
            (Some(libc::SIGTERM), false)
        );
    }

    #[test]
    fn a_held_command_ends_with_us() {
        // Not a pipe: a command that is held for ever would keep it open.
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "child::tests::act_here_when_asked",
                "--exact",
                "--nocapture",
            ])
            .env("CHILD_IN_TEST", "abandon")
            .stdout(File::create(&out).unwrap())
            .status();
        assert!(status.unwrap().success());
        let text = fs::read_to_string(&out).unwrap();
        let at = text.find("pid ").unwrap() + 4;
        let pid: String = text[at..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let limit = Instant::now() + Duration::from_secs(5);
        // A zombie until init takes it.
        let lives = || {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        while lives() {
            if Instant::now() > limit {
                kill_and_reap(pid.parse().unwrap());
                panic!("process {pid} is still held");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = RunAs::lookup("root").unwrap();
        assert_eq!((root.uid, root.user.as_str()), (0, "root"));
        assert_eq!(RunAs::lookup("0").unwrap(), root);
        let error = RunAs::lookup("no-such-user").unwrap_err().to_string();
        assert!(error.contains("no user \"no-such-user\""), "{error}");
    }

    #[tag(root)]
    #[test]
    fn the_command_runs_as_the_user_with_its_groups_and_home() {
        let mut nobody = RunAs::lookup("nobody").unwrap();
        nobody.groups.push(4242);
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let out = dir.path().join("out");
        let script = format!(
            "grep -E '^(Uid|Gid|Groups|Cap(Prm|Eff))' /proc/$$/status >{0}; echo $HOME $USER $LOGNAME >>{0}",
            out.display()
        );
        let argv: Vec<OsString> = ["sh", "-c", &script].iter().map(OsString::from).collect();
        let mut child = Child::spawn(&argv, Some(&nobody), Stdio::Ours).unwrap();
        child.release().unwrap();
        assert_eq!(child.wait().unwrap(), Status::Exited(0));
        let text = fs::read_to_string(&out).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let (uid, gid) = (nobody.uid, nobody.gid);
        assert_eq!(lines[0], format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(lines[1], format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"));
        assert_eq!(lines[2], format!("Groups:\t4242 {gid}"));
        assert_eq!(lines[3], "CapPrm:\t0000000000000000");
        assert_eq!(lines[4], "CapEff:\t0000000000000000");
        assert_eq!(lines[5], format!("{} nobody nobody", nobody.home.display()));
    }
}
