//! Connections whose TLS and socket are apart: the right addresses, from the first byte on.

mod lab;

use lab::{Capture, Conn, LIMIT, Running, Sniff, servers};
use std::process::Command;
use test_tag::tag;

const ROUNDS: usize = 4;

/// False, after one line that says so, where what is sent cannot be compared with what TLS made.
fn can_tell(test: &str) -> bool {
    let can = lab::kernel() >= (5, 15);
    if !can {
        eprintln!("NOT RUN: {test} (before Linux 5.15 there is no way to the bytes that are sent)");
    }
    can && lab::can_capture(test)
}

/// Pairs of connections of asyncio: an emulated processor has not the time for more.
fn pairs() -> usize {
    if lab::place::prebuilt().is_some() {
        10
    } else {
        100
    }
}

fn node(count: usize, version: Option<&str>) -> Command {
    let mut command = Command::new("/usr/bin/node");
    command.arg(lab::programs().join("apart.js"));
    command.args([count.to_string(), ROUNDS.to_string()]);
    command.args(version);
    with_certificate(command)
}

fn asyncio(count: usize, how: &[&str]) -> Command {
    let mut command = servers::python("apart.py");
    command
        .args([count.to_string(), ROUNDS.to_string()])
        .args(how);
    with_certificate(command)
}

fn with_certificate(mut command: Command) -> Command {
    let certificate = lab::certificate();
    command.env("LAB_CERT", &certificate.cert);
    command.env("LAB_KEY", &certificate.key);
    command
}

/// What an end says that has these ports.
fn speech(role: &str, local: &str, remote: &str) -> String {
    let line = |number| format!("{role} {local} {remote} {number}\n");
    (0..ROUNDS).map(line).collect()
}

/// The ports of a connection, as its own plaintext tells them.
fn ports(conn: &Conn) -> (String, String, String) {
    let text = conn.out.text();
    let mut words = text.split(' ').map(str::to_owned);
    let mut next = || {
        words
            .next()
            .unwrap_or_else(|| panic!("no such line: {text:?}"))
    };
    (next(), next(), next())
}

/// Fails unless there are so many connections, each with the addresses that it says itself, in each
/// line that was told of it, and with every byte.
fn assert_addresses(capture: &Capture, count: usize) {
    assert_eq!(capture.conns.len(), count);
    capture.assert_complete();
    for conn in capture.conns.values() {
        let (role, local, remote) = ports(conn);
        let address = |port: &str| Some(format!("127.0.0.1:{port}"));
        assert_eq!(
            (conn.local.clone(), conn.remote.clone()),
            (address(&local), address(&remote)),
            "#{} is the {role} {local} {remote}",
            conn.id
        );
        assert_eq!(conn.role.as_deref(), Some(role.as_str()));
        let other = if role == "client" { "server" } else { "client" };
        assert_eq!(conn.out.text(), speech(&role, &local, &remote));
        // Past a relay the peer has other ports.
        assert_eq!(conn.input.text().lines().count(), ROUNDS);
        assert!(conn.input.text().starts_with(other));
    }
    let late = capture
        .lines
        .iter()
        .filter(|line| line["type"] == "data" && line["conn"]["local"].is_null());
    assert_eq!(late.count(), 0, "lines without an address");
}

fn begins_under_capture(mut command: Command, count: usize) {
    let dir = lab::new_dir();
    let (mut running, capture) = Sniff::run(dir.path(), &[], &mut command);
    running.wait_success(LIMIT);
    assert_addresses(&capture, count);
}

/// The connections exist when the capture begins.
fn is_older(mut command: Command, count: usize) {
    let dir = lab::new_dir();
    let mut running = Running::start(command.env("ODD_GATE", "start"), dir.path());
    running.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), running.pid());
    running.go();
    running.wait_success(LIMIT);
    assert_addresses(&sniff.stop(), count);
}

#[tag(root)]
#[test]
fn addresses_of_node_are_right_past_relays_and_through_proxies() {
    let test = "addresses_of_node_are_right_past_relays_and_through_proxies";
    if !can_tell(test) || !lab::installed(test, &["node"]) {
        return;
    }
    for version in [None, Some("TLSv1.2")] {
        begins_under_capture(node(25, version), 200);
    }
}

#[tag(root)]
#[test]
fn addresses_of_older_connections_of_node_are_right() {
    let test = "addresses_of_older_connections_of_node_are_right";
    if !can_tell(test) || !lab::installed(test, &["node"]) {
        return;
    }
    for version in [None, Some("TLSv1.2")] {
        is_older(node(25, version), 200);
    }
}

#[tag(root)]
#[test]
fn addresses_of_asyncio_are_right_also_where_tls_begins_late() {
    if !can_tell("addresses_of_asyncio_are_right_also_where_tls_begins_late") {
        return;
    }
    for how in [&[][..], &["1.2"], &["starttls"]] {
        begins_under_capture(asyncio(pairs(), how), 2 * pairs());
    }
}

#[tag(root)]
#[test]
fn addresses_of_older_connections_of_asyncio_are_right() {
    if !can_tell("addresses_of_older_connections_of_asyncio_are_right") {
        return;
    }
    for how in [&[][..], &["1.2"], &["starttls"]] {
        is_older(asyncio(pairs(), how), 2 * pairs());
    }
}
