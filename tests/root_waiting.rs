//! What a program waits for in a blocking read when the capture begins.

mod lab;

use lab::{Capture, Checks, LIMIT, Running, Sniff, Truth, oracle, servers};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use test_tag::tag;

/// Waits until so many threads sleep in a system call that reads.
fn wait_sleepers(pid: u32, least: usize) {
    let reads = |task: &std::path::Path| {
        let text = std::fs::read_to_string(task.join("syscall")).unwrap_or_default();
        // read, recvfrom and recvmsg: on x86-64, and read and recvfrom on arm64.
        ["0 ", "45 ", "47 ", "63 ", "207 "]
            .iter()
            .any(|number| text.starts_with(number))
    };
    lab::wait_until("threads sleep in reads", LIMIT, || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.flatten().filter(|task| reads(&task.path())).count() >= least
    });
}

/// What `odd waiting` did, and the capture that has begun when all its threads slept.
fn sniffed_while_waiting(options: &[&str]) -> (Vec<Truth>, Capture) {
    let dir = lab::new_dir();
    let mut odd = Command::new(lab::odd());
    odd.arg("waiting").args(options).env("ODD_GATE", "waiting");
    let mut odd = Running::start(&mut odd, dir.path());
    odd.wait_line(LIMIT, |line| line == "ready");
    wait_sleepers(odd.pid(), 6);
    let sniff = Sniff::pid(dir.path(), odd.pid());
    odd.go();
    odd.wait_success(LIMIT);
    let capture = sniff.stop();
    (Truth::parse_all(&odd.stdout_text()), capture)
}

#[tag(root)]
#[test]
fn reads_that_had_begun_before_the_capture_are_seen_whole() {
    let test = "reads_that_had_begun_before_the_capture_are_seen_whole";
    if !lab::can_capture(test) {
        return;
    }
    if lab::kernel() < (5, 15) || cfg!(target_arch = "aarch64") {
        eprintln!("NOT RUN: {test} (such reads are found on x86-64 from Linux 5.15 on)");
        return;
    }
    for options in [&[][..], &["--tls1.2"]] {
        let (truths, capture) = sniffed_while_waiting(options);
        // Threads that were in SSL_read, SSL_read_ex, a BIO, SSL_peek, and in no TLS call at all,
        // but on the socket of one.
        assert_eq!(truths.len(), 12);
        oracle::assert_equal(&capture, &truths, Checks::default());
    }
}

#[tag(root)]
#[test]
fn a_request_that_a_python_server_waits_for_is_seen_with_its_address() {
    let test = "a_request_that_a_python_server_waits_for_is_seen_with_its_address";
    if !lab::can_capture(test) {
        return;
    }
    let server = servers::python_threaded();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-ign_eof",
            "-connect",
            &server.address(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut exchange = |length: usize| {
        let request = format!("GET /{length} HTTP/1.1\r\nHost: lab.test\r\n\r\n");
        input.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            output.read_line(&mut line).unwrap();
        }
        let mut body = vec![0; length];
        output.read_exact(&mut body).unwrap();
        request
    };
    exchange(10);
    wait_sleepers(server.pid(), 1);
    let sniff = Sniff::pid(server.dir.path(), server.pid());
    let sent = [exchange(20), exchange(30)].concat();
    client.kill().unwrap();
    client.wait().unwrap();
    let capture = sniff.stop();
    let conns = capture.of(server.pid());
    let [conn] = conns.as_slice() else {
        panic!("{conns:?}");
    };
    assert_eq!(conn.input.text(), sent);
    assert_eq!(conn.local.as_deref(), Some(server.address().as_str()));
    capture.assert_complete();
}

#[tag(root)]
#[test]
fn a_read_of_gnutls_that_had_begun_is_seen_with_its_address() {
    let test = "a_read_of_gnutls_that_had_begun_is_seen_with_its_address";
    if !lab::can_capture(test) {
        return;
    }
    let dir = lab::new_dir();
    let certificate = lab::certificate();
    let mut program = Command::new(lab::family("gnutls"));
    program.args([&certificate.cert, &certificate.key]);
    let mut program = Running::start(program.env("ODD_GATE", "waiting"), dir.path());
    program.wait_line(LIMIT, |line| line == "ready");
    // The main thread reads what says go.
    wait_sleepers(program.pid(), 2);
    let sniff = Sniff::pid(dir.path(), program.pid());
    program.go();
    program.wait_success(LIMIT);
    let truths = Truth::parse_all(&program.stdout_text());
    oracle::assert_equal(&sniff.stop(), &truths, Checks { facts: false });
}

#[tag(root)]
#[test]
fn what_each_of_hundreds_of_threads_waits_for_is_seen() {
    let test = "what_each_of_hundreds_of_threads_waits_for_is_seen";
    if !lab::can_capture(test) {
        return;
    }
    let server = servers::python_threaded();
    let script = "
import socket, ssl, sys
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
all = []
for i in range(200):
    s = c.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))))
    s.sendall(b'GET /5 HTTP/1.1\\r\\n\\r\\n'); n = b''
    while not n.endswith(b'\\n') or len(n) < 60:
        n += s.recv(1000)
        if len(n) > 60: break
    all.append(s)
print('ready', flush=True)
sys.stdin.readline()
for s in all: s.sendall(b'GET /6 HTTP/1.1\\r\\n\\r\\n')
for s in all: s.recv(1000)
print('done', flush=True)
sys.stdin.readline()
";
    let mut client = Command::new("/usr/bin/python3");
    client.args(["-c", script, &server.port.to_string()]);
    let mut client = Running::start(&mut client, server.dir.path());
    client.wait_line(LIMIT, |line| line == "ready");
    wait_sleepers(server.pid(), 200);
    let sniff = Sniff::pid(server.dir.path(), server.pid());
    client.go();
    client.wait_line(LIMIT, |line| line == "done");
    let capture = sniff.stop();
    let conns = capture.of(server.pid());
    assert_eq!(conns.len(), 200);
    for conn in conns {
        assert_eq!(conn.input.text(), "GET /6 HTTP/1.1\r\n\r\n");
    }
    capture.assert_complete();
}
