//! Libraries other than OpenSSL: both ends of each connection captured, to the byte.

mod lab;

use lab::{Capture, Checks, Conn, LIMIT, Running, Sniff, Truth, oracle, servers};
use std::process::Command;
use test_tag::tag;

/// Role, version and names are told only where the library lets them be learnt.
const BYTES_AND_ADDRESSES: Checks = Checks { facts: false };

/// The program that talks to itself by this library; its arguments are the lab's certificate.
fn family(library: &str) -> Command {
    let mut command = Command::new(lab::family(library));
    command.args([&lab::certificate().cert, &lab::certificate().key]);
    command
}

/// Runs it under a capture and compares, with all features and without the newer ones.
fn check(library: &str, func: &str) {
    for without in ["", "sessions,exact_records"] {
        let dir = lab::new_dir();
        let mut program = family(library);
        program.env("TLSSNIFF_WITHOUT", without);
        let (mut running, capture) = Sniff::run(dir.path(), &[], &mut program);
        running.wait_success(LIMIT);
        capture.assert_complete();
        let truths = Truth::parse_all(&running.stdout_text());
        assert_eq!(truths.len(), 4, "{library}");
        oracle::assert_equal(&capture, &truths, BYTES_AND_ADDRESSES);
        let seen = capture.lines_of("data").any(|line| line["fn"] == func);
        assert!(seen, "{library}: no call of {func}");
    }
}

#[tag(root)]
#[test]
fn gnutls_writes_that_are_corked_or_refused_count_once() {
    let test = "gnutls_writes_that_are_corked_or_refused_count_once";
    if lab::can_capture(test) && lab::holds(test) {
        check("gnutls", "gnutls_record_send2");
    }
}

#[tag(root)]
#[test]
fn wolfssl_is_captured_and_its_peeks_are_not() {
    if lab::can_capture("wolfssl_is_captured_and_its_peeks_are_not") {
        check("wolfssl", "wolfSSL_read");
    }
}

#[tag(root)]
#[test]
fn mbedtls_is_captured_shared_or_static() {
    if lab::can_capture("mbedtls_is_captured_shared_or_static") {
        check("mbedtls", "mbedtls_ssl_write");
        check("mbedtls-static", "mbedtls_ssl_write");
    }
}

#[tag(root)]
#[test]
fn pieces_of_one_call_are_one_stream_however_much_of_them_is_taken() {
    if lab::can_capture("pieces_of_one_call_are_one_stream_however_much_of_them_is_taken") {
        check("s2n", "s2n_sendv_with_offset");
        check("nss", "ssl_WriteV");
    }
}

#[tag(root)]
#[test]
fn a_connection_of_gnutls_is_seen_by_a_capture_that_comes_later() {
    if !lab::can_capture("a_connection_of_gnutls_is_seen_by_a_capture_that_comes_later") {
        return;
    }
    let dir = lab::new_dir();
    let mut program = Running::start(family("gnutls").env("ODD_GATE", "start"), dir.path());
    program.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), program.pid());
    program.go();
    program.wait_success(LIMIT);
    let capture = sniff.stop();
    capture.assert_complete();
    let truths = Truth::parse_all(&program.stdout_text());
    oracle::assert_equal(&capture, &truths, BYTES_AND_ADDRESSES);
}

/// The only connection that carried anything.
fn only(capture: &Capture) -> &Conn {
    let mut conns = capture.conns.values().filter(|conn| conn.out.len() > 0);
    let conn = conns.next().expect("a connection with data");
    assert!(conns.next().is_none(), "{:?}", capture.conns);
    conn
}

/// Fails unless these are the two ends of one connection, byte for byte.
fn assert_mirror(client: &Conn, server: &Conn) {
    assert!(client.local.is_some() && client.remote.is_some());
    assert_eq!(client.local, server.remote);
    assert_eq!(client.remote, server.local);
    assert_eq!(client.version, server.version);
    assert!(client.out.bytes == server.input.bytes, "to the server");
    assert!(client.input.bytes == server.out.bytes, "to the client");
}

/// The client runs under a capture of its own, within two seconds or as long as an emulated processor
/// needs, beside one of the server.
fn ends(server: &servers::Server, client: &[&str], input: &[u8]) -> (Capture, Capture) {
    let dir = lab::new_dir();
    let file = dir.path().join("input");
    std::fs::write(&file, input).unwrap();
    let sniff = Sniff::pid(dir.path(), server.pid());
    let mut command = Command::new("/usr/bin/timeout");
    let seconds = lab::place::patience().pow(2);
    let script = format!(
        "(cat {}; sleep {seconds}) | {}",
        file.display(),
        client.join(" ")
    );
    command.args([&(2 * seconds).to_string(), "/bin/sh", "-c", &script]);
    let (_, of_client) = Sniff::run(dir.path(), &["-f"], &mut command);
    (of_client, sniff.stop())
}

#[tag(root)]
#[test]
fn the_tools_of_gnutls_are_captured_at_both_ends() {
    let name = "the_tools_of_gnutls_are_captured_at_both_ends";
    if !lab::can_capture(name)
        || !lab::installed(name, &["gnutls-cli", "gnutls-serv"])
        || !lab::holds(name)
    {
        return;
    }
    let server = servers::gnutls_echo();
    let port = server.port.to_string();
    let client = ["gnutls-cli", "--insecure", "-p", &port, "localhost"];
    let said = lab::body(40_000);
    let (of_client, of_server) = ends(&server, &client, &said);
    let (client, server) = (only(&of_client), only(&of_server));
    assert_mirror(client, server);
    assert!(client.out.bytes == said);
    assert_eq!(client.role.as_deref(), Some("client"));
    assert_eq!(server.role.as_deref(), Some("server"));
    assert_eq!(client.lib.as_deref(), Some("gnutls"));
    assert_eq!(client.version.as_deref(), Some("1.3"));
}

#[tag(root)]
#[test]
fn the_tools_of_nss_are_captured_at_both_ends_though_stripped() {
    let name = "the_tools_of_nss_are_captured_at_both_ends_though_stripped";
    if !lab::can_capture(name) || !lab::installed(name, &["tstclnt", "selfserv", "certutil"]) {
        return;
    }
    let server = servers::selfserv();
    let (port, database) = (
        server.port.to_string(),
        format!("sql:{}", server.dir.path().display()),
    );
    let client = [
        "tstclnt",
        "-o",
        "-h",
        "localhost",
        "-p",
        &port,
        "-d",
        &database,
    ];
    let (of_client, of_server) = ends(&server, &client, b"GET / HTTP/1.0\r\n\r\n");
    let client = only(&of_client);
    assert_mirror(client, only(&of_server));
    assert_eq!(client.out.text(), "GET / HTTP/1.0\r\n\r\n");
    assert!(client.input.text().starts_with("HTTP/1.0 200 OK\r\n"));
    assert_eq!(client.lib.as_deref(), Some("nss"));
}

#[tag(root)]
#[test]
fn what_is_said_through_nss_before_tls_begins_is_not_captured() {
    let name = "what_is_said_through_nss_before_tls_begins_is_not_captured";
    if !lab::can_capture(name) || !std::path::Path::new("/usr/include/nss/ssl.h").exists() {
        return;
    }
    let dir = lab::new_dir();
    let mut program = Command::new(lab::starttls());
    program.args([&lab::certificate().cert, &lab::certificate().key]);
    let (mut running, capture) = Sniff::run(dir.path(), &[], &mut program);
    running.wait_success(LIMIT);
    capture.assert_complete();
    let truths = Truth::parse_all(&running.stdout_text());
    assert_eq!(truths.len(), 2);
    oracle::assert_equal(&capture, &truths, BYTES_AND_ADDRESSES);
}

#[tag(root)]
#[test]
fn wget_gets_what_a_server_of_another_library_sent() {
    let name = "wget_gets_what_a_server_of_another_library_sent";
    if !lab::can_capture(name) || !lab::installed(name, &["wget", "nginx"]) {
        return;
    }
    let server = servers::nginx(1);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-p", &server.pid_list()]);
    let mut wget = Command::new("/usr/bin/wget");
    wget.args(["-q", "-O", "/dev/null", "--no-proxy", "--ca-certificate"]);
    wget.arg(&lab::certificate().cert);
    wget.arg(format!("https://localhost:{}/large", server.port));
    let (mut running, of_client) = Sniff::run(dir.path(), &[], &mut wget);
    running.wait_success(LIMIT);
    let of_server = sniff.stop();
    let client = only(&of_client);
    assert_mirror(client, only(&of_server));
    assert!(client.input.bytes.ends_with(&lab::body(5_000_000)));
}
