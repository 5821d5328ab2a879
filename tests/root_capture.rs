//! Every odd thing a program can do with libssl: what is captured equals what it passed, to the byte.

mod lab;

use lab::{Capture, Checks, LIMIT, Running, Sniff, Truth, oracle};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::SystemTime;
use test_tag::tag;

/// When the capture begins, as seen from the program.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    /// `tlssniff -- odd …`
    RunsIt,
    /// `tlssniff -p PID -f`, before the program's first TLS connection.
    Attaches,
    /// `tlssniff -p PID -f`, while its first connection is open and has carried data.
    AttachesLate,
    /// `tlssniff --comm NAME`, then the program starts.
    WaitsForIt,
}

const ALL: [Start; 3] = [Start::RunsIt, Start::Attaches, Start::WaitsForIt];

/// Runs `odd` with these arguments under one capture; returns its books and what was captured.
fn capture_odd(start: Start, args: &[&str]) -> (Vec<Truth>, Capture) {
    let dir = lab::new_dir();
    let comm = lab::unique_comm("odd");
    let program = lab::renamed(lab::odd(), dir.path(), &comm);
    let mut odd = Command::new(&program);
    odd.args(args);
    let (program, capture) = match start {
        Start::RunsIt => {
            let (mut running, capture) = Sniff::run(dir.path(), &["-f"], &mut odd);
            running.wait_success(LIMIT);
            (running, capture)
        }
        Start::Attaches | Start::AttachesLate => {
            let gate = if start == Start::Attaches {
                "start"
            } else {
                "open"
            };
            let mut running = Running::start(odd.env("ODD_GATE", gate), dir.path());
            running.wait_line(LIMIT, |line| line == "ready");
            let sniff = Sniff::start(dir.path(), &["-f", "-p", &running.pid().to_string()]);
            running.go();
            running.wait_success(LIMIT);
            (running, sniff.stop())
        }
        Start::WaitsForIt => {
            let sniff = Sniff::comm(dir.path(), &comm);
            let mut running = Running::start(&mut odd, dir.path());
            running.wait_success(LIMIT);
            (running, sniff.stop())
        }
    };
    capture.assert_complete();
    (Truth::parse_all(&program.stdout_text()), capture)
}

/// Captures the scenario in each of the ways and compares; returns the last capture.
fn check(starts: &[Start], args: &[&str]) -> (Vec<Truth>, Capture) {
    let mut last = None;
    for start in starts {
        let (truths, capture) = capture_odd(*start, args);
        eprintln!("{start:?} {args:?}: {} lines", capture.lines.len());
        oracle::assert_equal(&capture, &truths, Checks::default());
        last = Some((truths, capture));
    }
    last.expect("at least one way to start")
}

macro_rules! odd_tests {
    ($($name:ident: $starts:expr, $args:expr;)*) => {$(
        #[tag(root)]
        #[test]
        fn $name() {
            if lab::can_capture(stringify!($name)) {
                check(&$starts, &$args);
            }
        }
    )*};
}

odd_tests! {
    plain_tls_1_3_is_captured_to_the_byte: ALL, ["plain"];
    plain_tls_1_2_is_captured_to_the_byte: ALL, ["plain", "--tls1.2"];
    ipv6_addresses_are_right: ALL, ["plain", "--host", "::1"];
    other_loopback_addresses_are_right: [Start::WaitsForIt], ["plain", "--host", "127.3.2.1"];
    a_connection_opened_before_the_start_is_captured_from_there_on:
        [Start::AttachesLate], ["plain"];
    a_connection_opened_before_the_start_is_captured_over_ipv6:
        [Start::AttachesLate], ["plain", "--host", "::1", "--tls1.2"];
    a_retried_write_with_a_moving_buffer_counts_once: ALL, ["want-write-moving"];
    a_retried_partial_write_counts_what_was_taken: ALL, ["want-write-partial"];
    a_retried_partial_write_with_a_moving_buffer_counts_what_was_taken: ALL, ["want-write-both"];
    peeked_bytes_count_once: ALL, ["peek"];
    ex_functions_count_once_beside_the_plain_ones: ALL, ["ex"];
    memory_that_was_not_resident_is_captured: ALL, ["mapped"];
    early_data_is_part_of_its_connection: ALL, ["early-data"];
    data_after_a_half_close_is_captured: ALL, ["half-close"];
    renegotiation_leaves_no_trace_in_the_data: ALL, ["renegotiate", "--tls1.2"];
    key_updates_leave_no_trace_in_the_data: ALL, ["key-update"];
    the_bytes_of_a_forked_child_are_its_own: ALL, ["fork"];
    parent_and_child_that_write_in_turn_do_not_mix: ALL, ["fork-both"];
    a_connection_open_before_the_start_and_forked_after_it_is_captured:
        [Start::AttachesLate], ["fork"];
    a_reused_ssl_address_is_a_new_connection: ALL, ["reuse"];
    a_cleared_ssl_object_is_a_new_connection: ALL, ["clear"];
    threads_with_many_connections_do_not_mix: ALL, ["threads"];
    an_exec_ends_the_old_connection_and_the_new_one_is_seen: ALL, ["exec"];
    a_socket_used_by_the_verify_callback_is_not_taken_for_the_connection:
        ALL, ["verify-socket"];
    a_tls_connection_inside_the_verify_callback_is_kept_apart: ALL, ["verify-tls"];
    tls_in_tls_through_memory_keeps_both_layers_apart: ALL, ["tls-in-tls-memory"];
    tls_in_tls_through_an_ssl_bio_keeps_both_layers_apart: ALL, ["tls-in-tls-bio"];
    tls_in_tls_whose_outer_layer_was_open_before_the_start_is_captured:
        [Start::AttachesLate], ["tls-in-tls-memory"];
    a_socketpair_is_named_a_unix_socket: ALL, ["socketpair"];
    pipes_are_named_pipes: ALL, ["pipe"];
    memory_bios_get_the_right_address_or_none: ALL, ["memory"];
    a_bio_pair_gets_the_right_address_or_none: ALL, ["bio-pair"];
    programs_that_use_an_ssl_bio_are_seen: ALL, ["ssl-bio"];
}

#[tag(root)]
#[test]
fn a_retried_write_counts_once() {
    if !lab::can_capture("a_retried_write_counts_once") {
        return;
    }
    let (truths, _) = check(&ALL, &["want-write"]);
    assert!(
        truths.iter().any(|truth| truth.retries >= 10),
        "no retries happened"
    );
}

#[tag(root)]
#[test]
fn ten_mebibytes_in_one_write_arrive_complete() {
    if !lab::can_capture("ten_mebibytes_in_one_write_arrive_complete") {
        return;
    }
    let (truths, capture) = check(&ALL, &["big"]);
    assert!(truths.iter().any(|truth| truth.out.0 == 10 << 20));
    for conn in capture.conns.values() {
        assert_eq!(conn.out.cut + conn.input.cut, 0);
    }
}

#[tag(root)]
#[test]
fn ten_thousand_writes_of_one_byte_are_ten_thousand_lines() {
    if !lab::can_capture("ten_thousand_writes_of_one_byte_are_ten_thousand_lines") {
        return;
    }
    let (_, capture) = check(&ALL, &["tiny"]);
    let writes: Vec<_> = capture
        .lines_of("data")
        .filter(|line| line["dir"] == "out")
        .collect();
    assert_eq!(writes.len(), 10_000);
    for line in writes {
        assert_eq!(line["len"], 1, "{line}");
    }
}

#[tag(root)]
#[test]
fn the_snapshot_length_cuts_bytes_but_not_lengths() {
    if !lab::can_capture("the_snapshot_length_cuts_bytes_but_not_lengths") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = Command::new(lab::odd());
    let (running, capture) = Sniff::run(dir.path(), &["-s", "100"], odd.arg("plain"));
    let truths = Truth::parse_all(&running.stdout_text());
    assert_eq!(truths.len(), 2);
    for truth in &truths {
        let found = capture.of(truth.pid).into_iter().any(|conn| {
            (conn.out.len(), conn.input.len()) == (truth.out.0, truth.input.0)
                && conn.out.lost() + conn.input.lost() == 0
        });
        assert!(found, "no connection has the lengths of {truth:?}");
    }
    let long = capture
        .lines_of("data")
        .filter(|line| line["len"].as_u64() > Some(100));
    let mut seen = 0;
    for line in long {
        assert_eq!(line["truncated"], true, "{line}");
        assert_eq!(lab::capture::payload(&line["data"]).len(), 100, "{line}");
        seen += 1;
    }
    assert!(seen > 0);
    assert_eq!(capture.stats.truncated, seen);
}

#[tag(root)]
#[test]
fn each_connection_is_opened_and_closed_once() {
    if !lab::can_capture("each_connection_is_opened_and_closed_once") {
        return;
    }
    let (_, capture) = check(&ALL, &["reuse"]);
    for conn in capture.conns.values() {
        assert!(conn.opened && conn.closed && conn.shut, "{conn:?}");
    }
    let opens = capture.lines_of("open").count();
    assert_eq!(opens, capture.conns.len());
}

#[tag(root)]
#[test]
fn times_lie_within_the_run_and_a_request_is_never_later_than_its_response() {
    if !lab::can_capture("times_lie_within_the_run_and_a_request_is_never_later_than_its_response")
    {
        return;
    }
    let nanos = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_nanos()
    };
    let before = nanos(SystemTime::now());
    let (_, capture) = capture_odd(Start::RunsIt, &["peek"]);
    let after = nanos(SystemTime::now());
    let mut previous = 0;
    let mut data = 0;
    for line in capture.lines_of("data") {
        let time = parse_time(line["ts"].as_str().expect("ts"));
        assert!((before..=after).contains(&time), "{line}");
        // one thread writes, reads and answers in turn
        assert!(time >= previous, "earlier than the line before: {line}");
        previous = time;
        data += 1;
    }
    assert_eq!(data, 20 * 5);
}

/// RFC 3339 with nanoseconds in UTC, as nanoseconds since the epoch.
fn parse_time(text: &str) -> u128 {
    assert_eq!(text.len(), "2026-11-22T12:31:04.118203456Z".len(), "{text}");
    assert!(text.ends_with('Z'), "{text}");
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // days from civil: years that begin in March put the leap day last
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    u128::try_from(seconds).unwrap() * 1_000_000_000 + u128::try_from(number(20..29)).unwrap()
}

#[tag(root)]
#[test]
fn threads_are_told_apart() {
    if !lab::can_capture("threads_are_told_apart") {
        return;
    }
    let (_, capture) = capture_odd(Start::RunsIt, &["threads"]);
    let writers: BTreeSet<u64> = capture
        .lines_of("data")
        .filter(|line| line["dir"] == "out")
        .map(|line| line["proc"]["tid"].as_u64().expect("tid"))
        .collect();
    assert_eq!(writers.len(), 16);
}

#[tag(root)]
#[test]
fn a_process_outside_the_wanted_ones_is_not_captured() {
    if !lab::can_capture("a_process_outside_the_wanted_ones_is_not_captured") {
        return;
    }
    let dir = lab::new_dir();
    let start = |gate: &str| {
        let mut odd = Command::new(lab::odd());
        let mut running = Running::start(odd.arg("plain").env("ODD_GATE", gate), dir.path());
        running.wait_line(LIMIT, |line| line == "ready");
        running
    };
    let (mut wanted, mut other) = (start("start"), start("start"));
    let sniff = Sniff::pid(dir.path(), wanted.pid());
    other.go();
    other.wait_success(LIMIT);
    wanted.go();
    wanted.wait_success(LIMIT);
    let capture = sniff.stop();
    let pids: BTreeSet<u32> = capture.conns.values().map(|conn| conn.pid).collect();
    assert_eq!(pids, BTreeSet::from([wanted.pid()]));
}

#[tag(root)]
#[test]
fn without_f_a_forked_child_is_not_captured() {
    if !lab::can_capture("without_f_a_forked_child_is_not_captured") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = Command::new(lab::odd());
    let mut running = Running::start(odd.arg("fork").env("ODD_GATE", "start"), dir.path());
    running.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), running.pid());
    running.go();
    running.wait_success(LIMIT);
    let capture = sniff.stop();
    let truths: Vec<Truth> = Truth::parse_all(&running.stdout_text())
        .into_iter()
        .filter(|truth| truth.pid == running.pid())
        .collect();
    oracle::assert_equal(&capture, &truths, Checks::default());
    assert!(capture.conns.values().all(|conn| conn.pid == running.pid()));
}

#[tag(root)]
#[test]
fn a_library_loaded_late_by_a_command_is_captured_from_its_first_byte() {
    let test = "a_library_loaded_late_by_a_command_is_captured_from_its_first_byte";
    if !lab::can_capture(test) || !lab::holds(test) {
        return;
    }
    for _ in 0..5 {
        let dir = lab::new_dir();
        let library = lab::fresh_libssl(dir.path());
        let mut late = Command::new(lab::late());
        let (mut running, capture) = Sniff::run(dir.path(), &[], late.arg(&library));
        running.wait_success(LIMIT);
        let truths = Truth::parse_all(&running.stdout_text());
        oracle::assert_equal(&capture, &truths, Checks::default());
    }
}

#[tag(root)]
#[test]
fn a_library_loaded_late_by_a_running_process_is_captured_from_its_first_byte() {
    let test = "a_library_loaded_late_by_a_running_process_is_captured_from_its_first_byte";
    if !lab::can_capture(test) || !lab::holds(test) {
        return;
    }
    for _ in 0..5 {
        let dir = lab::new_dir();
        let library = lab::fresh_libssl(dir.path());
        let mut late = Command::new(lab::late());
        let late = late.arg(&library).env("ODD_GATE", "start");
        let mut running = Running::start(late, dir.path());
        running.wait_line(LIMIT, |line| line == "ready");
        let sniff = Sniff::pid(dir.path(), running.pid());
        running.go();
        running.wait_success(LIMIT);
        let capture = sniff.stop();
        let truths = Truth::parse_all(&running.stdout_text());
        oracle::assert_equal(&capture, &truths, Checks::default());
    }
}

#[tag(root)]
#[test]
fn a_library_nobody_had_mapped_is_captured_machine_wide_from_its_first_byte() {
    let test = "a_library_nobody_had_mapped_is_captured_machine_wide_from_its_first_byte";
    if !lab::can_capture(test) || !lab::holds(test) {
        return;
    }
    let dir = lab::new_dir();
    let library = lab::fresh_libssl(dir.path());
    let comm = lab::unique_comm("lat");
    let program = lab::renamed(lab::late(), dir.path(), &comm);
    let sniff = Sniff::comm(dir.path(), &comm);
    // The first one is held until the file is attached, the second one is not.
    let mut truths = Vec::new();
    for _ in 0..2 {
        let mut late = Running::start(Command::new(&program).arg(&library), dir.path());
        late.wait_success(LIMIT);
        truths.extend(Truth::parse_all(&late.stdout_text()));
    }
    let capture = sniff.stop();
    assert_eq!(truths.len(), 4, "two ends of two connections");
    oracle::assert_equal(&capture, &truths, Checks::default());
}

#[tag(root)]
#[test]
fn a_library_with_the_inode_of_a_deleted_file_is_captured() {
    let test = "a_library_with_the_inode_of_a_deleted_file_is_captured";
    if !lab::can_capture(test) || !lab::installed(test, &["cc"]) || !lab::holds(test) {
        return;
    }
    let dir = lab::new_dir();
    let comm = lab::unique_comm("ino");
    let program = lab::renamed(lab::late(), dir.path(), &comm);
    // Code without TLS, of which the capture has taken notice when it goes.
    let other = dir.path().join("other.so");
    let status = Command::new("cc")
        .args(["-shared", "-o"])
        .arg(&other)
        .args(["-x", "c", "/dev/null"])
        .status();
    assert!(status.unwrap().success());
    let sniff = Sniff::comm(dir.path(), &comm);
    let system = lab::system_libssl();
    let mut first = Command::new(&program);
    first.arg(&system).env("LD_PRELOAD", &other);
    let mut first = Running::start(&mut first, dir.path());
    first.wait_success(LIMIT);
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    let before = inode(&other);
    std::fs::remove_file(&other).unwrap();
    let library = lab::fresh_libssl(dir.path());
    if inode(&library) != before {
        eprintln!("NOT RUN: {test} (the file system gave another inode)");
        return;
    }
    let mut second = Running::start(Command::new(&program).arg(&library), dir.path());
    second.wait_success(LIMIT);
    let capture = sniff.stop();
    let mut truths = Truth::parse_all(&first.stdout_text());
    truths.extend(Truth::parse_all(&second.stdout_text()));
    assert_eq!(truths.len(), 4, "two ends of two connections");
    oracle::assert_equal(&capture, &truths, Checks::default());
}

#[tag(root)]
#[test]
fn a_static_program_is_captured_from_its_first_byte() {
    let test = "a_static_program_is_captured_from_its_first_byte";
    if !lab::can_capture(test) {
        return;
    }
    if lab::kernel() < (6, 18) {
        eprintln!("NOT RUN: {test} (only Linux 6.18 and later can hold a static program)");
        return;
    }
    let dir = lab::new_dir();
    // Files of their own, so that nothing has been attached to them yet.
    let copy = |name: &str| {
        let path = dir.path().join(name);
        std::fs::copy(lab::odd_static(), &path).unwrap();
        path
    };
    let program = copy("child");
    let script = format!("{} plain; true", program.display());
    let (running, capture) = Sniff::run(
        dir.path(),
        &["-f"],
        Command::new("/bin/sh").args(["-c", &script]),
    );
    let truths = Truth::parse_all(&running.stdout_text());
    oracle::assert_equal(&capture, &truths, Checks::default());

    let comm = lab::unique_comm("sta");
    let program = copy(&comm);
    let sniff = Sniff::comm(dir.path(), &comm);
    let mut running = Running::start(Command::new(&program).arg("plain"), dir.path());
    running.wait_success(LIMIT);
    let truths = Truth::parse_all(&running.stdout_text());
    oracle::assert_equal(&sniff.stop(), &truths, Checks::default());
}

/// The oracle checked against itself: what one end wrote, the other has read.
#[test]
fn both_ends_of_each_odd_connection_agree() {
    let dir = lab::new_dir();
    let scenarios = Command::new(lab::odd()).output().unwrap().stdout;
    let scenarios = String::from_utf8(scenarios).unwrap();
    assert!(scenarios.lines().count() > 25);
    for scenario in scenarios.lines() {
        // unreadable for any peer; needs the first half; slow
        if ["fork-both", "exec-second", "many", "crowd"].contains(&scenario) {
            continue;
        }
        let mut odd = Command::new(lab::odd());
        odd.arg(scenario);
        if scenario == "renegotiate" {
            odd.arg("--tls1.2");
        }
        let mut running = Running::start(&mut odd, dir.path());
        running.wait_success(LIMIT);
        let truths = Truth::parse_all(&running.stdout_text());
        let names: BTreeSet<&str> = truths.iter().map(|truth| truth.name.as_str()).collect();
        assert!(!names.is_empty(), "{scenario}");
        for name in names {
            assert_ends_agree(&truths, name);
        }
    }
}

/// A forked child writes the second part of its parent's stream, whose sum is not known; and an
/// outer TLS layer ends with a `close_notify` of the inner one that nobody reads.
fn assert_ends_agree(truths: &[Truth], name: &str) {
    let total = |role: &str, out: bool| -> (u64, Option<u32>) {
        let ends: Vec<_> = truths
            .iter()
            .filter(|truth| truth.name == name && truth.role == role)
            .map(|truth| if out { truth.out } else { truth.input })
            .collect();
        let sum = if let [(_, crc)] = ends[..] {
            Some(crc)
        } else {
            None
        };
        (ends.iter().map(|(len, _)| len).sum(), sum)
    };
    for (writer, reader) in [("client", "server"), ("server", "client")] {
        let (written, read) = (total(writer, true), total(reader, false));
        if name == "outer" {
            assert!(
                written.0 - read.0 < 100,
                "{name}: {writer} wrote {written:?}, {read:?} read"
            );
            continue;
        }
        assert_eq!(written.0, read.0, "{name}: {writer} to {reader}");
        if let (Some(written), Some(read)) = (written.1, read.1) {
            assert_eq!(written, read, "{name}: {writer} to {reader}");
        }
    }
}

/// What is done without features that older kernels lack, on one that has them.
#[tag(root)]
#[test]
fn without_newer_features_the_same_is_captured() {
    if !lab::can_capture("without_newer_features_the_same_is_captured") {
        return;
    }
    for without in [
        "sessions",
        "multi",
        "exact_records",
        "multi,exact_records",
        "growing",
        "cookies",
        "cookies,growing",
    ] {
        for scenario in [
            "plain",
            "peek",
            "big",
            "threads",
            "tls-in-tls-bio",
            "want-write",
        ] {
            let dir = lab::new_dir();
            let mut odd = Command::new(lab::odd());
            odd.arg(scenario).env("TLSSNIFF_WITHOUT", without);
            let (mut running, capture) = Sniff::run(dir.path(), &["-f"], &mut odd);
            running.wait_success(LIMIT);
            capture.assert_complete();
            let truths = Truth::parse_all(&running.stdout_text());
            assert!(!truths.is_empty(), "{without} {scenario}");
            oracle::assert_equal(&capture, &truths, Checks::default());
        }
    }
}
