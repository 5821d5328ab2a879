//! nginx under load: every byte seen, or its loss counted.

mod lab;

use lab::servers::{self, Server};
use lab::{Capture, Conn, LIMIT, Running, Sniff};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use test_tag::tag;

/// Bytes received and sent on each connection, by the address of the client.
type Totals = BTreeMap<String, (u64, u64)>;

fn logged_totals(server: &Server) -> Totals {
    let mut totals = Totals::new();
    for request in servers::access_log(server) {
        let entry = totals.entry(request.remote).or_default();
        entry.0 += request.received;
        entry.1 += request.sent;
    }
    totals
}

/// Waits until the server has logged this many requests: it logs after it has answered.
fn wait_for_log(server: &Server, requests: usize) {
    lab::wait_until("every request is in the log", LIMIT, || {
        servers::access_log(server).len() >= requests
    });
}

/// What the capture accounts for, seen or known to be lost, by the address of the client.
fn captured_totals(capture: &Capture) -> Totals {
    let mut totals = Totals::new();
    for conn in capture.conns.values() {
        if conn.out.len() + conn.input.len() == 0 {
            continue;
        }
        let remote = conn
            .remote
            .clone()
            .unwrap_or_else(|| panic!("no address: {conn:?}"));
        assert_eq!(conn.role.as_deref(), Some("server"));
        let entry = totals.entry(remote).or_default();
        entry.0 += conn.input.len();
        entry.1 += conn.out.len();
    }
    totals
}

fn assert_totals(capture: &Capture, server: &Server) {
    let (logged, captured) = (logged_totals(server), captured_totals(capture));
    let wrong: Vec<_> = logged
        .iter()
        .filter(|(remote, total)| captured.get(*remote) != Some(total))
        .map(|(remote, total)| {
            format!(
                "{remote}: log {total:?}, captured {:?}",
                captured.get(remote)
            )
        })
        .collect();
    let first: Vec<_> = wrong.iter().take(5).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} connections differ: {first:#?} {:?}",
        wrong.len(),
        logged.len(),
        capture.stats
    );
    let unknown = captured
        .keys()
        .filter(|remote| !logged.contains_key(*remote))
        .count();
    assert_eq!(unknown, 0, "captured connections that are not in the log");
}

/// `ab` sends each request to the end and counts them.
fn ab(server: &Server, dir: &Path, args: &[&str]) {
    let mut command = Command::new("/usr/bin/ab");
    command.args(["-q", "-s", "30"]).args(args);
    command.arg(format!("https://{}/small", server.address()));
    let mut running = Running::start(&mut command, dir);
    running.wait_success(LIMIT);
    let text = running.stdout_text();
    assert!(text.contains("Failed requests:        0"), "{text}");
}

#[tag(root)]
#[test]
fn a_thousand_short_connections_to_nginx_are_captured_to_the_byte() {
    let test = "a_thousand_short_connections_to_nginx_are_captured_to_the_byte";
    if !lab::can_capture(test) || !lab::installed(test, &["nginx", "ab"]) {
        return;
    }
    let server = servers::nginx(2);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-p", &server.pid_list()]);
    ab(&server, dir.path(), &["-n", "1000", "-c", "20"]);
    wait_for_log(&server, 1000);
    let capture = sniff.stop();
    assert_totals(&capture, &server);
    capture.assert_complete();
    assert_eq!(servers::access_log(&server).len(), 1000);
    let served: Vec<&Conn> = capture
        .conns
        .values()
        .filter(|c| c.input.len() > 0)
        .collect();
    // By connection: over the loopback a client may get a port of an earlier connection again.
    assert_eq!(served.len(), 1000);
    for conn in served {
        assert!(
            conn.input.bytes.starts_with(b"GET /small HTTP/1.0\r\n"),
            "{}",
            conn.input.text()
        );
        assert!(
            conn.out.bytes.ends_with(&lab::body(1000)),
            "{}",
            conn.out.text()
        );
    }
}

#[tag(root)]
#[test]
fn a_thousand_keep_alive_connections_to_nginx_are_captured_to_the_byte() {
    let test = "a_thousand_keep_alive_connections_to_nginx_are_captured_to_the_byte";
    if !lab::can_capture(test) || !lab::installed(test, &["nginx", "wrk"]) {
        return;
    }
    let server = servers::nginx(2);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-p", &server.pid_list()]);
    let mut wrk = Command::new("/usr/bin/wrk");
    wrk.args(["-t", "2", "-c", "1000", "-d", "3s", "--timeout", "20s"]);
    wrk.arg(format!("https://{}/small", server.address()));
    let mut running = Running::start(&mut wrk, dir.path());
    running.wait_success(LIMIT);
    // what was on its way when wrk left is still served and logged
    let mut before = usize::MAX;
    lab::wait_until("nginx has logged the last request", LIMIT, || {
        std::thread::sleep(Duration::from_millis(300));
        let now = servers::access_log(&server).len();
        let is_still = now == before;
        before = now;
        is_still
    });
    let capture = sniff.stop();
    assert_totals(&capture, &server);
    // seen, or lost and counted: the totals above hold either way
    let lost = lost(&capture);
    assert_eq!(lost, capture.stats.dropped_bytes);
    eprintln!("{lost} bytes lost");
    // all of the thousand have been served at least once, or wrk had too little time for them
    assert!(
        logged_totals(&server).len() > 500,
        "{}",
        running.stdout_text()
    );
}

#[tag(root)]
#[test]
fn twenty_thousand_requests_at_full_speed_are_each_seen() {
    let test = "twenty_thousand_requests_at_full_speed_are_each_seen";
    if !lab::can_capture(test) || !lab::installed(test, &["nginx", "ab"]) {
        return;
    }
    let server = servers::nginx(2);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-p", &server.pid_list()]);
    ab(&server, dir.path(), &["-k", "-n", "20000", "-c", "50"]);
    wait_for_log(&server, 20_000);
    let capture = sniff.stop();
    assert_totals(&capture, &server);
    // seen, or lost and counted: the sums above hold either way, and the totals must tell
    let lost = lost(&capture);
    assert_eq!(lost, capture.stats.dropped_bytes);
    let requests = servers::access_log(&server).len();
    assert!(requests >= 20_000);
    if lost == 0 {
        let seen: usize = capture
            .conns
            .values()
            .map(|conn| conn.input.text().matches("GET /small HTTP/1.0\r\n").count())
            .sum();
        assert_eq!(seen, requests);
    }
    eprintln!("{requests} requests, {lost} bytes lost");
}

/// Bytes received and sent, summed up over all connections.
fn sum(totals: &Totals) -> u64 {
    totals
        .values()
        .map(|(received, sent)| received + sent)
        .sum()
}

/// Bytes that the gaps of all connections stand for.
fn lost(capture: &Capture) -> u64 {
    let conns = capture.conns.values();
    conns.map(|conn| conn.out.lost() + conn.input.lost()).sum()
}

#[tag(root)]
#[test]
fn a_gap_has_the_place_and_the_length_of_what_was_lost() {
    let test = "a_gap_has_the_place_and_the_length_of_what_was_lost";
    if !lab::can_capture(test) || !lab::installed(test, &["nginx", "wrk"]) {
        return;
    }
    let server = servers::nginx(1);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-B", "256", "-p", &server.pid_list()]);
    // five connections that live before, during and after a time when nobody empties the ring
    let mut wrk = Command::new("/usr/bin/wrk");
    wrk.args(["-t", "1", "-c", "5", "-d", "4s"]);
    wrk.arg(format!("https://{}/small", server.address()));
    let mut running = Running::start(&mut wrk, dir.path());
    std::thread::sleep(Duration::from_millis(1000));
    sniff.running.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1000));
    sniff.running.signal(Signal::SIGCONT);
    running.wait_success(LIMIT);
    std::thread::sleep(Duration::from_millis(500));
    let capture = sniff.stop();
    assert!(
        lost(&capture) > 100_000,
        "the overload was none: {:?}",
        capture.stats
    );
    assert_eq!(lost(&capture), capture.stats.dropped_bytes);
    assert!(capture.stats.dropped > 0);
    assert_totals(&capture, &server);
    for gap in capture.conns.values().flat_map(|conn| &conn.out.gaps) {
        assert_eq!(gap.cause, "dropped");
    }
    // The bytes that were seen are where they belong: every answer has the same length.
    let answers: Vec<&Conn> = capture.conns.values().filter(|c| c.out.len() > 0).collect();
    for conn in answers {
        let step = conn.out.text().find("\r\n\r\n").expect("a header") + 4 + 1000;
        let body = lab::body(1000);
        for (start, answer) in (0..).step_by(step).zip(conn.out.bytes.chunks_exact(step)) {
            let end = start + step as u64;
            let is_whole = |gap: &lab::capture::Gap| gap.off >= end || gap.off + gap.len <= start;
            if conn.out.gaps.iter().all(is_whole) {
                assert!(
                    answer.ends_with(&body),
                    "#{} at {start}: the wrong bytes",
                    conn.id
                );
            }
        }
    }
}

#[tag(root)]
#[test]
fn loss_of_whole_connections_is_in_the_totals_to_the_byte() {
    let test = "loss_of_whole_connections_is_in_the_totals_to_the_byte";
    if !lab::can_capture(test) || !lab::installed(test, &["nginx", "ab"]) {
        return;
    }
    let server = servers::nginx(1);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-B", "256", "-p", &server.pid_list()]);
    ab(&server, dir.path(), &["-k", "-n", "100", "-c", "5"]);
    sniff.running.signal(Signal::SIGSTOP);
    ab(&server, dir.path(), &["-k", "-n", "2000", "-c", "5"]);
    sniff.running.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(300));
    ab(&server, dir.path(), &["-k", "-n", "100", "-c", "5"]);
    wait_for_log(&server, 2200);
    let capture = sniff.stop();
    let seen = sum(&captured_totals(&capture)) - lost(&capture);
    assert!(capture.stats.dropped_bytes > 100_000, "{:?}", capture.stats);
    assert_eq!(
        seen + capture.stats.dropped_bytes,
        sum(&logged_totals(&server))
    );
    assert!(lost(&capture) <= capture.stats.dropped_bytes);
}
