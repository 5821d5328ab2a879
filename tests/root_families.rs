//! Libraries other than OpenSSL: both ends of each connection captured, to the byte.

mod lab;

use lab::{Checks, LIMIT, Running, Sniff, Truth, oracle};
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
    if lab::can_capture("gnutls_writes_that_are_corked_or_refused_count_once") {
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
