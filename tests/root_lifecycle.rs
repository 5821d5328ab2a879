//! Starting, ending and failing: processes, libraries and `tlssniff` itself come and go.

mod lab;

use lab::sniff::command;
use lab::{Capture, Checks, LIMIT, Running, Sniff, Truth, oracle};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use test_tag::tag;

/// `odd` at its gate.
fn waiting_odd(dir: &Path, scenario: &str, gate: &str) -> Running {
    let mut odd = Command::new(lab::odd());
    let mut running = Running::start(odd.arg(scenario).env("ODD_GATE", gate), dir);
    running.wait_line(LIMIT, |line| line == "ready");
    running
}

/// Lets it go, waits for its end and compares the capture with its books.
fn assert_captured(mut odd: Running, sniff: Sniff) {
    odd.go();
    odd.wait_success(LIMIT);
    let capture = sniff.stop();
    let truths = Truth::parse_all(&odd.stdout_text());
    oracle::assert_equal(&capture, &truths, Checks::default());
}

/// A `tlssniff` that is expected to end by itself: exit code, stdout, stderr.
fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut running = Running::start(&mut command(args), dir);
    let status = running.wait(LIMIT);
    (status.code(), running.stdout_text(), running.stderr_text())
}

// ---- processes ----

#[tag(root)]
#[test]
fn a_target_that_is_killed_ends_the_capture_and_loses_nothing() {
    if !lab::can_capture("a_target_that_is_killed_ends_the_capture_and_loses_nothing") {
        return;
    }
    let dir = lab::new_dir();
    let comm = lab::unique_comm("kil");
    let program = lab::renamed(lab::odd(), dir.path(), &comm);
    let watcher = Sniff::comm(dir.path(), &comm);
    // it stops after its first chat, with its connection open
    let mut odd = Command::new(program);
    let mut victim = Running::start(odd.arg("plain").env("ODD_GATE", "open"), dir.path());
    victim.wait_line(LIMIT, |line| line == "ready");
    let by_pid = Sniff::pid(dir.path(), victim.pid());
    victim.signal(Signal::SIGKILL);
    victim.wait(LIMIT);
    let (status, _, capture) = by_pid.ends(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    assert!(capture.of(victim.pid()).is_empty());
    let capture = watcher.stop();
    let mut lengths: Vec<(u64, u64)> = capture
        .of(victim.pid())
        .iter()
        .map(|conn| (conn.out.len(), conn.input.len()))
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [(5017, 70100), (70100, 5017)]);
    for conn in capture.of(victim.pid()) {
        assert!(conn.closed, "its process has gone: {}", conn.addresses());
    }
    capture.assert_complete();
}

#[tag(root)]
#[test]
fn a_pid_that_does_not_exist_is_an_error_that_names_it() {
    if !lab::can_capture("a_pid_that_does_not_exist_is_an_error_that_names_it") {
        return;
    }
    let dir = lab::new_dir();
    let mut gone = Running::start(&mut Command::new("/bin/true"), dir.path());
    gone.wait(LIMIT);
    let pid = gone.pid().to_string();
    let (code, stdout, stderr) = run(dir.path(), &["-p", &pid]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.starts_with("tlssniff: ") && stderr.contains(&pid),
        "{stderr}"
    );
    assert_eq!(stdout, "");
}

#[tag(root)]
#[test]
fn a_capture_of_pids_ends_with_the_last_of_them() {
    if !lab::can_capture("a_capture_of_pids_ends_with_the_last_of_them") {
        return;
    }
    let dir = lab::new_dir();
    let mut first = waiting_odd(dir.path(), "plain", "start");
    let mut second = waiting_odd(dir.path(), "plain", "start");
    let pids = format!("{},{}", first.pid(), second.pid());
    let mut sniff = Sniff::start(dir.path(), &["-p", &pids]);
    first.go();
    first.wait_success(LIMIT);
    std::thread::sleep(Duration::from_millis(300));
    assert!(sniff.running.ended().is_none(), "one process still runs");
    second.go();
    second.wait_success(LIMIT);
    let (status, _, capture) = sniff.ends(Duration::from_secs(10));
    assert!(status.success());
    let mut truths = Truth::parse_all(&first.stdout_text());
    truths.extend(Truth::parse_all(&second.stdout_text()));
    oracle::assert_equal(&capture, &truths, Checks::default());
}

// ---- commands ----

#[tag(root)]
#[test]
fn the_exit_status_of_the_command_is_passed_on() {
    if !lab::can_capture("the_exit_status_of_the_command_is_passed_on") {
        return;
    }
    let dir = lab::new_dir();
    for code in [0, 1, 42, 255] {
        let (passed, ..) = run(dir.path(), &["--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(passed, Some(code));
    }
}

#[tag(root)]
#[test]
fn the_signal_that_ended_the_command_is_passed_on() {
    if !lab::can_capture("the_signal_that_ended_the_command_is_passed_on") {
        return;
    }
    let dir = lab::new_dir();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGABRT] {
        let script = format!("kill -{} $$", signal as i32);
        let mut running = Running::start(&mut command(&["--", "sh", "-c", &script]), dir.path());
        let status = running.wait(LIMIT);
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
    }
}

#[tag(root)]
#[test]
fn a_command_that_does_not_exist_is_an_error_that_names_it() {
    if !lab::can_capture("a_command_that_does_not_exist_is_an_error_that_names_it") {
        return;
    }
    let dir = lab::new_dir();
    let (code, _, stderr) = run(dir.path(), &["--", "/nonexistent/program"]);
    assert!(code.is_some_and(|code| code != 0), "{stderr}");
    assert!(stderr.contains("/nonexistent/program"), "{stderr}");
}

#[tag(root)]
#[test]
fn a_shell_command_with_f_captures_what_the_shell_starts() {
    if !lab::can_capture("a_shell_command_with_f_captures_what_the_shell_starts") {
        return;
    }
    let dir = lab::new_dir();
    let odd = lab::odd().display();
    let script = format!("({odd} plain); {odd} peek & wait");
    let mut shell = Command::new("sh");
    let (mut running, capture) = Sniff::run(dir.path(), &["-f"], shell.args(["-c", &script]));
    running.wait_success(LIMIT);
    let truths = Truth::parse_all(&running.stdout_text());
    assert_eq!(truths.len(), 4);
    oracle::assert_equal(&capture, &truths, Checks::default());
}

#[tag(root)]
#[test]
fn a_daemon_left_behind_by_the_command_does_not_hold_the_capture_open() {
    if !lab::can_capture("a_daemon_left_behind_by_the_command_does_not_hold_the_capture_open") {
        return;
    }
    let dir = lab::new_dir();
    let begin = Instant::now();
    let script = "setsid sleep 20 >/dev/null 2>&1 & exit 7";
    let (code, ..) = run(dir.path(), &["--", "sh", "-c", script]);
    assert_eq!(code, Some(7));
    assert!(begin.elapsed() < Duration::from_secs(15));
}

// ---- the end ----

#[tag(root)]
#[test]
fn an_interrupt_ends_with_a_summary_and_success() {
    if !lab::can_capture("an_interrupt_ends_with_a_summary_and_success") {
        return;
    }
    let dir = lab::new_dir();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let odd = waiting_odd(dir.path(), "plain", "start");
        let sniff = Sniff::pid(dir.path(), odd.pid());
        sniff.running.signal(signal);
        let (status, stderr, capture) = sniff.ends(Duration::from_secs(5));
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("0 events captured"), "{stderr}");
        assert!(stderr.contains("0 events dropped"), "{stderr}");
        assert_eq!(capture.stats.captured, 0);
    }
}

#[tag(root)]
#[test]
fn a_second_interrupt_does_no_harm() {
    if !lab::can_capture("a_second_interrupt_does_no_harm") {
        return;
    }
    let dir = lab::new_dir();
    let odd = waiting_odd(dir.path(), "plain", "start");
    let sniff = Sniff::pid(dir.path(), odd.pid());
    let pid = nix::unistd::Pid::from_raw(sniff.running.pid().cast_signed());
    for _ in 0..2 {
        // the second may come when it has gone already
        let _ = nix::sys::signal::kill(pid, Signal::SIGINT);
    }
    let mut running = sniff.running;
    let status = running.wait(Duration::from_secs(5));
    let by_signal = status.signal() == Some(Signal::SIGINT as i32);
    assert!(status.success() || by_signal, "{status}");
    assert!(
        !running.stderr_text().contains("panicked"),
        "{}",
        running.stderr_text()
    );
}

#[tag(root)]
#[test]
fn sigusr1_prints_the_counts_and_goes_on() {
    if !lab::can_capture("sigusr1_prints_the_counts_and_goes_on") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = waiting_odd(dir.path(), "plain", "start");
    let mut sniff = Sniff::pid(dir.path(), odd.pid());
    sniff.running.signal(Signal::SIGUSR1);
    sniff
        .running
        .wait_line(LIMIT, |line| line.contains("0 events captured"));
    odd.go();
    odd.wait_success(LIMIT);
    let (_, stderr, capture) = sniff.ends(LIMIT);
    assert_eq!(capture.of(odd.pid()).len(), 2);
    let last = format!("{} events captured", capture.stats.captured);
    assert!(stderr.contains(&last), "{stderr}");
}

#[tag(root)]
#[test]
fn a_count_ends_the_capture_after_that_many_events() {
    if !lab::can_capture("a_count_ends_the_capture_after_that_many_events") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = waiting_odd(dir.path(), "peek", "start");
    let sniff = Sniff::start(dir.path(), &["-c", "7", "-p", &odd.pid().to_string()]);
    odd.go();
    let (status, _, capture) = sniff.ends(Duration::from_secs(10));
    assert!(status.success());
    assert_eq!(capture.lines_of("data").count(), 7);
    assert_eq!(capture.stats.shown, 7);
    odd.wait_success(LIMIT);
}

#[tag(root)]
#[test]
fn a_duration_ends_the_capture() {
    if !lab::can_capture("a_duration_ends_the_capture") {
        return;
    }
    let dir = lab::new_dir();
    let odd = waiting_odd(dir.path(), "plain", "start");
    let args = ["--duration", "1s", "-p", &odd.pid().to_string()];
    let sniff = Sniff::start(dir.path(), &args);
    let begin = Instant::now();
    let (status, ..) = sniff.ends(Duration::from_secs(10));
    assert!(status.success());
    let took = begin.elapsed();
    assert!(
        took > Duration::from_millis(700) && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[tag(root)]
#[test]
fn a_closed_pipe_ends_it_quietly() {
    if !lab::can_capture("a_closed_pipe_ends_it_quietly") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = waiting_odd(dir.path(), "tiny", "start");
    let script = format!(
        "{} -l -p {} 2>{err} | head -1; echo ${{PIPESTATUS[0]}}",
        lab::tlssniff().display(),
        odd.pid(),
        err = dir.path().join("pipe.err").display(),
    );
    let mut shell = Running::start(Command::new("bash").args(["-c", &script]), dir.path());
    lab::wait_until("it listens", LIMIT, || {
        let text = std::fs::read_to_string(dir.path().join("pipe.err"));
        text.is_ok_and(|text| text.contains("tlssniff: listening"))
    });
    odd.go();
    shell.wait_success(LIMIT);
    let stdout = shell.stdout_text();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    assert_eq!(lines[1], "0", "exit code");
    let stderr = std::fs::read_to_string(dir.path().join("pipe.err")).unwrap();
    assert!(!stderr.to_lowercase().contains("pipe"), "{stderr}");
}

#[tag(root)]
#[test]
fn a_full_disk_leaves_a_readable_file_and_a_message() {
    if !lab::can_capture("a_full_disk_leaves_a_readable_file_and_a_message") {
        return;
    }
    let dir = lab::new_dir();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&mount)
        .status()
        .unwrap();
    if !mounted.success() {
        eprintln!("NOT RUN: a_full_disk_leaves_a_readable_file_and_a_message (no tmpfs)");
        return;
    }
    let file = mount.join("out.pcapng");
    let mut odd = waiting_odd(dir.path(), "big", "start");
    let mut args = command(&["-p", &odd.pid().to_string(), "-w"]);
    let mut sniff = Running::start(args.arg(&file), dir.path());
    sniff.wait_line(LIMIT, |line| line.starts_with("tlssniff: listening"));
    odd.go();
    odd.wait_success(LIMIT);
    let status = sniff.wait(LIMIT);
    let stderr = sniff.stderr_text();
    let read = Command::new(lab::tlssniff())
        .args(["--json", "--raw", "-r"])
        .arg(&file)
        .output()
        .unwrap();
    let kept = std::fs::metadata(&file).unwrap().len();
    let unmounted = Command::new("umount")
        .arg("-l")
        .arg(&mount)
        .status()
        .unwrap();
    assert!(unmounted.success());
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("o space left"), "{stderr}");
    assert!(stderr.contains("out.pcapng"), "{stderr}");
    assert!(kept > 500_000, "{kept}");
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    let capture = Capture::parse(&String::from_utf8(read.stdout).unwrap());
    let seen: u64 = capture
        .conns
        .values()
        .map(|conn| conn.out.len() + conn.input.len())
        .sum();
    assert!(seen > 300_000, "{seen}");
}

// ---- libraries ----

/// A directory with a copy of the system's libssl, and `odd` waiting at its gate with it mapped.
fn odd_with_copy(dir: &Path, strip: bool) -> (PathBuf, Running) {
    let copies = dir.join("libraries");
    std::fs::create_dir(&copies).unwrap();
    let copy = copies.join("libssl.so.3");
    std::fs::copy(lab::system_libssl(), &copy).unwrap();
    if strip {
        let stripped = Command::new("strip")
            .arg("--strip-all")
            .arg(&copy)
            .status()
            .unwrap();
        assert!(stripped.success());
    }
    let mut odd = Command::new(lab::odd());
    odd.arg("plain")
        .env("ODD_GATE", "start")
        .env("LD_LIBRARY_PATH", &copies);
    let mut running = Running::start(&mut odd, dir);
    running.wait_line(LIMIT, |line| line == "ready");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    assert!(maps.contains(&*copy.to_string_lossy()), "{maps}");
    (copy, running)
}

#[tag(root)]
#[test]
fn a_stripped_library_is_captured_by_its_exported_names() {
    if !lab::can_capture("a_stripped_library_is_captured_by_its_exported_names") {
        return;
    }
    let dir = lab::new_dir();
    let (_, odd) = odd_with_copy(dir.path(), true);
    let sniff = Sniff::pid(dir.path(), odd.pid());
    assert_captured(odd, sniff);
}

#[tag(root)]
#[test]
fn a_library_replaced_under_a_running_process_is_captured() {
    if !lab::can_capture("a_library_replaced_under_a_running_process_is_captured") {
        return;
    }
    let dir = lab::new_dir();
    let (copy, odd) = odd_with_copy(dir.path(), false);
    let newer = copy.with_extension("new");
    std::fs::copy(lab::system_libssl(), &newer).unwrap();
    std::fs::rename(&newer, &copy).unwrap();
    let sniff = Sniff::pid(dir.path(), odd.pid());
    assert_captured(odd, sniff);
}

#[tag(root)]
#[test]
fn a_deleted_library_is_captured() {
    if !lab::can_capture("a_deleted_library_is_captured") {
        return;
    }
    let dir = lab::new_dir();
    let (copy, odd) = odd_with_copy(dir.path(), false);
    std::fs::remove_file(&copy).unwrap();
    let sniff = Sniff::pid(dir.path(), odd.pid());
    assert_captured(odd, sniff);
}

#[tag(root)]
#[test]
fn a_library_replaced_during_the_capture_is_captured_in_old_and_new_processes() {
    let test = "a_library_replaced_during_the_capture_is_captured_in_old_and_new_processes";
    if !lab::can_capture(test) {
        return;
    }
    let dir = lab::new_dir();
    let (copy, mut old) = odd_with_copy(dir.path(), false);
    let newer = copy.with_extension("new");
    std::fs::copy(lab::system_libssl(), &newer).unwrap();
    let mut odd = Command::new(lab::odd());
    odd.arg("plain")
        .env("LD_LIBRARY_PATH", copy.parent().unwrap());
    let sniff = Sniff::comm(dir.path(), "odd*");
    std::fs::rename(&newer, &copy).unwrap();
    // the gate gives the capture the time to notice the new file
    let mut new = Running::start(odd.env("ODD_GATE", "start"), dir.path());
    new.wait_line(LIMIT, |line| line == "ready");
    std::thread::sleep(Duration::from_millis(500));
    for running in [&mut old, &mut new] {
        running.go();
        running.wait_success(LIMIT);
    }
    let capture = sniff.stop();
    let mut truths = Truth::parse_all(&old.stdout_text());
    truths.extend(Truth::parse_all(&new.stdout_text()));
    oracle::assert_equal(&capture, &truths, Checks::default());
}

#[tag(root)]
#[test]
fn a_library_in_another_mount_namespace_is_captured() {
    if !lab::can_capture("a_library_in_another_mount_namespace_is_captured") {
        return;
    }
    let dir = lab::new_dir();
    let hidden = dir.path().join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    let script = format!(
        "mount -t tmpfs tmpfs {hidden} && cp {lib} {hidden}/libssl.so.3 && \
         LD_LIBRARY_PATH={hidden} exec {odd} plain",
        hidden = hidden.display(),
        lib = lab::system_libssl().display(),
        odd = lab::odd().display(),
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    let mut odd = Running::start(command.env("ODD_GATE", "start"), dir.path());
    odd.wait_line(LIMIT, |line| line == "ready");
    assert!(
        !hidden.join("libssl.so.3").exists(),
        "the namespace hides nothing"
    );
    let sniff = Sniff::pid(dir.path(), odd.pid());
    assert_captured(odd, sniff);
}

// ---- many, and several ----

#[tag(root)]
#[test]
fn two_thousand_connections_one_after_the_other_are_captured() {
    if !lab::can_capture("two_thousand_connections_one_after_the_other_are_captured") {
        return;
    }
    let dir = lab::new_dir();
    let odd = waiting_odd(dir.path(), "many", "start");
    let sniff = Sniff::pid(dir.path(), odd.pid());
    assert_captured(odd, sniff);
}

#[tag(root)]
#[test]
fn two_thousand_connections_at_the_same_time_are_captured() {
    if !lab::can_capture("two_thousand_connections_at_the_same_time_are_captured") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = Command::new("bash");
    let script = format!("ulimit -n 8192; exec {} crowd", lab::odd().display());
    odd.args(["-c", &script]).env("ODD_GATE", "start");
    let mut odd = Running::start(&mut odd, dir.path());
    odd.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), odd.pid());
    assert_captured(odd, sniff);
}

/// More commands at a time than processors: whoever waits for its probes must not keep the
/// processor from the one that puts them in place.
#[tag(root)]
#[test]
fn commands_run_side_by_side_lose_no_first_byte() {
    if !lab::can_capture("commands_run_side_by_side_lose_no_first_byte") {
        return;
    }
    let run_one = |_| {
        let dir = lab::new_dir();
        let mut odd = Command::new(lab::odd());
        let (mut running, capture) = Sniff::run(dir.path(), &[], odd.arg("plain"));
        running.wait_success(LIMIT);
        let truths = Truth::parse_all(&running.stdout_text());
        oracle::assert_equal(&capture, &truths, Checks::default());
    };
    let workers: Vec<_> = (0..3)
        .map(|_| std::thread::spawn(move || (0..8).for_each(run_one)))
        .collect();
    let failed = workers
        .into_iter()
        .filter_map(|worker| worker.join().err())
        .count();
    assert_eq!(failed, 0, "of 3 workers");
}

#[tag(root)]
#[test]
fn two_captures_of_one_process_see_the_same() {
    if !lab::can_capture("two_captures_of_one_process_see_the_same") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = waiting_odd(dir.path(), "plain", "start");
    let first = Sniff::pid(dir.path(), odd.pid());
    let second = Sniff::pid(dir.path(), odd.pid());
    odd.go();
    odd.wait_success(LIMIT);
    let truths = Truth::parse_all(&odd.stdout_text());
    for sniff in [first, second] {
        oracle::assert_equal(&sniff.stop(), &truths, Checks::default());
    }
}

#[tag(root)]
#[test]
fn a_capture_that_ends_leaves_the_other_one_complete() {
    if !lab::can_capture("a_capture_that_ends_leaves_the_other_one_complete") {
        return;
    }
    let dir = lab::new_dir();
    let odd = waiting_odd(dir.path(), "plain", "start");
    let staying = Sniff::pid(dir.path(), odd.pid());
    Sniff::pid(dir.path(), odd.pid()).stop();
    assert_captured(odd, staying);
}

#[tag(root)]
#[test]
fn the_target_lives_on_unharmed_when_the_capture_is_killed() {
    if !lab::can_capture("the_target_lives_on_unharmed_when_the_capture_is_killed") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = waiting_odd(dir.path(), "tiny", "open");
    let mut sniff = Sniff::pid(dir.path(), odd.pid());
    odd.go();
    sniff.running.signal(Signal::SIGKILL);
    sniff.running.wait(LIMIT);
    odd.wait_success(LIMIT);
    let truths = Truth::parse_all(&odd.stdout_text());
    assert_eq!(truths.len(), 2, "it got to its end");
}

#[tag(root)]
#[test]
fn a_capture_that_is_stopped_delays_new_programs_only_once() {
    if !lab::can_capture("a_capture_that_is_stopped_delays_new_programs_only_once") {
        return;
    }
    let dir = lab::new_dir();
    let comm = lab::unique_comm("stp");
    let program = lab::renamed(lab::late(), dir.path(), &comm);
    // a file of its own, in a place of its own under the same name
    std::fs::create_dir(dir.path().join("static")).unwrap();
    let without_linker = dir.path().join("static").join(&comm);
    std::fs::copy(lab::odd_static(), &without_linker).unwrap();
    let sniff = Sniff::comm(dir.path(), &comm);
    sniff.running.signal(Signal::SIGSTOP);
    let took = |program: &Path, argument: &Path| {
        let start = Instant::now();
        let mut running = Running::start(Command::new(program).arg(argument), dir.path());
        running.wait_success(LIMIT);
        start.elapsed()
    };
    let check = |what: &str, first: Duration, second: Duration| {
        let held = first > Duration::from_millis(200);
        assert!(held, "{what}: nobody was held: {first:?}");
        assert!(first < Duration::from_secs(3), "{what}: {first:?}");
        let again = "held again";
        assert!(second < first / 2, "{what}: {again}: {first:?}, {second:?}");
    };
    // the program and what it is linked with, then a library that it loads
    let system = lab::system_libssl();
    let first = took(&program, &system);
    check("a program", first, took(&program, &system));
    let fresh = lab::fresh_libssl(dir.path());
    let first = took(&program, &fresh);
    check("a library", first, took(&program, &fresh));
    if lab::kernel() >= (6, 18) {
        let scenario = Path::new("tiny");
        let first = took(&without_linker, scenario);
        check("a static program", first, took(&without_linker, scenario));
    }
    sniff.running.signal(Signal::SIGCONT);
    sniff.running.signal(Signal::SIGINT);
    let (status, stderr, _) = sniff.ends(LIMIT);
    assert!(status.success(), "{status}");
    assert!(
        stderr.contains("went on before its new libraries"),
        "{stderr}"
    );
}

#[tag(root)]
#[test]
fn a_command_is_not_held_longer_than_its_probes_take() {
    if !lab::can_capture("a_command_is_not_held_longer_than_its_probes_take") {
        return;
    }
    let dir = lab::new_dir();
    // A hold that nobody ends takes a second; a busy machine may be slow once.
    let is_quick = || {
        let (code, _, stderr) = run(dir.path(), &["--", "/bin/true"]);
        assert_eq!(code, Some(0), "{stderr}");
        !stderr.contains("went on before its new libraries")
    };
    assert!((0..3).any(|_| is_quick()));
}

// ---- the end of tlssniff ----

#[tag(root)]
#[test]
fn probes_of_many_libraries_are_taken_out_as_fast_as_of_one() {
    let test = "probes_of_many_libraries_are_taken_out_as_fast_as_of_one";
    if !lab::can_capture(test) || !lab::installed(test, &["python3"]) {
        return;
    }
    let dir = lab::new_dir();
    let copies = (0..60).map(|n| dir.path().join(format!("libssl-{n}.so.3")));
    let copies: Vec<PathBuf> = copies
        .inspect(|copy| std::fs::copy(lab::system_libssl(), copy).map(drop).unwrap())
        .collect();
    let load = "import ctypes, sys\n\
                for path in sys.argv[1:]: ctypes.CDLL(path)\n\
                print('ready', flush=True)\n\
                sys.stdin.read()";
    let mut python = Command::new("python3");
    let mut python = Running::start(python.args(["-c", load]).args(&copies), dir.path());
    python.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), python.pid());
    let begun = Instant::now();
    sniff.stop();
    // One after the other they took 5 s on an idle machine, all at once 0.1 s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    python.close_stdin();
    python.wait_success(LIMIT);
}
