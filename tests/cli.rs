//! The command line from outside, without privileges: help, refusals, exit codes, closed pipes.

use nix::pty::openpty;
use nix::unistd::{Uid, pipe};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const NOBODY: u32 = 65534;

fn tlssniff(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlssniff"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    tlssniff(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs without privileges, from a place that anybody may read.
fn run_as_nobody(args: &[&str]) -> Output {
    let dir = TempDir::with_prefix_in("tlssniff-", "/tmp").unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = dir.path().join("tlssniff");
    std::fs::copy(env!("CARGO_BIN_EXE_tlssniff"), &binary).unwrap();
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null()).current_dir("/");
    if Uid::effective().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    loop {
        match command.output() {
            // A child of another test has the copy still open, between its fork and its exec.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
            output => return output.unwrap(),
        }
    }
}

fn assert_usage_error(output: &Output, part: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
    assert!(stderr.contains("try '--help'"), "{stderr}");
}

#[test]
fn help_goes_to_stdout_and_shows_the_filter() {
    for option in ["-h", "--help"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        let help = text(&output.stdout);
        assert!(
            help.contains("[FILTER]... [-- COMMAND [ARGS]...]"),
            "{help}"
        );
        assert!(help.contains("--framing"), "{help}");
        assert!(!help.contains("--generate"), "{help}");
    }
}

#[test]
fn version_is_that_of_the_package() {
    for option in ["-V", "--version"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        let expected = concat!("tlssniff ", env!("CARGO_PKG_VERSION"));
        assert_eq!(text(&output.stdout).lines().next(), Some(expected));
    }
}

#[test]
fn usage_errors_end_with_two_and_nothing_on_stdout() {
    assert_usage_error(&run(&["--no-such-option"]), "--no-such-option");
    assert_usage_error(&run(&["-p", "x"]), "'x' is not a process number");
    assert_usage_error(&run(&["-f"]), "give them with -p");
    assert_usage_error(&run(&["-i", "eth0"]), "captures processes, not interfaces");
    assert_usage_error(&run(&["-r", "x", "-p", "1"]), "use a filter instead");
}

#[test]
fn a_filter_error_shows_the_filter_with_a_mark_under_it() {
    let output = run(&["port", "443", "and", "port", "bogus"]);
    assert_usage_error(&output, "filter: ");
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    let at = lines
        .iter()
        .position(|&line| line == "  port 443 and port bogus")
        .unwrap();
    assert_eq!(lines[at + 1].trim_start(), "^");
    assert_eq!(lines[at + 1].find('^'), lines[at].find("bogus"));
}

#[test]
fn a_missing_filter_file_ends_with_one_and_is_named() {
    let output = run(&["-F", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("tlssniff: read the filter file /no/such/file: "));
}

#[test]
fn a_capture_to_a_terminal_is_refused() {
    let terminal = openpty(None, None).unwrap();
    let child = tlssniff(&["-w", "-"])
        .stdout(Stdio::from(terminal.slave))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_usage_error(&output, "standard output is a terminal");
}

#[test]
fn a_reader_that_has_gone_ends_it_quietly() {
    for args in [["--help"].as_slice(), &["--generate", "man"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let child = tlssniff(args)
            .stdout(Stdio::from(writer))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None, "{args:?}: {output:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn a_full_disk_is_an_error_of_its_own() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = tlssniff(&["--generate", "man"])
        .stdout(Stdio::from(full))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("write to standard output"));
}

#[test]
fn without_privileges_the_missing_capabilities_are_named() {
    let output = run_as_nobody(&["--duration", "100ms"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("tlssniff: "), "{stderr}");
    for part in ["root", "CAP_BPF", "CAP_PERFMON"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn reading_back_needs_no_privileges_and_names_a_missing_file() {
    let output = run_as_nobody(&["-r", "/no/such/file.pcapng"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("tlssniff: "), "{stderr}");
    assert!(stderr.contains("/no/such/file.pcapng"), "{stderr}");
    assert!(!stderr.contains("CAP_"), "{stderr}");
}
