//! rustls, with symbols and without, beside an OpenSSL in the same file: both ends, to the byte.

mod lab;

use lab::{Checks, LIMIT, Running, Sniff, Truth, oracle, rust};
use std::path::PathBuf;
use std::process::Command;
use test_tag::tag;

/// rustls tells neither role nor version.
const BYTES_AND_ADDRESSES: Checks = Checks { facts: false };

/// The program in both forms, unless it cannot be built or captured.
fn programs(test: &str) -> &'static [PathBuf] {
    if !lab::can_capture(test) {
        return &[];
    }
    match rust::rustls() {
        Some(programs) => programs,
        None => {
            eprintln!("NOT RUN: {test} (its crates are not there)");
            &[]
        }
    }
}

fn command(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.args([&lab::certificate().cert, &lab::certificate().key]);
    command
}

#[tag(root)]
#[test]
fn rustls_and_an_openssl_in_one_file_are_both_captured_though_stripped() {
    for program in programs("rustls_and_an_openssl_in_one_file_are_both_captured_though_stripped") {
        for without in ["", "sessions,exact_records"] {
            let dir = lab::new_dir();
            let mut run = command(program);
            run.env("TLSSNIFF_WITHOUT", without);
            let (mut running, capture) = Sniff::run(dir.path(), &[], &mut run);
            running.wait_success(LIMIT);
            capture.assert_complete();
            let truths = Truth::parse_all(&running.stdout_text());
            assert_eq!(truths.len(), 12, "{program:?}");
            oracle::assert_equal(&capture, &truths, BYTES_AND_ADDRESSES);
            for (lib, count) in [("rustls", 8), ("openssl", 4)] {
                let conns = capture.conns.values();
                let of_lib = conns.filter(|conn| conn.lib.as_deref() == Some(lib));
                assert_eq!(of_lib.count(), count, "{program:?}: {lib}");
            }
        }
    }
}

#[tag(root)]
#[test]
fn rustls_is_captured_by_one_that_comes_later() {
    for program in programs("rustls_is_captured_by_one_that_comes_later") {
        let dir = lab::new_dir();
        let mut running = Running::start(command(program).env("ODD_GATE", "start"), dir.path());
        running.wait_line(LIMIT, |line| line == "ready");
        let sniff = Sniff::pid(dir.path(), running.pid());
        running.go();
        running.wait_success(LIMIT);
        let capture = sniff.stop();
        capture.assert_complete();
        let truths = Truth::parse_all(&running.stdout_text());
        oracle::assert_equal(&capture, &truths, BYTES_AND_ADDRESSES);
    }
}
