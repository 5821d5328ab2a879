//! Well-known servers and clients: both ends captured, to the byte.

mod lab;

use lab::servers::{self, Server};
use lab::{Capture, Checks, Conn, LIMIT, Running, Sniff, Truth, oracle};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use test_tag::tag;

/// A client that trusts the lab's certificate and prints only the body.
fn curl(url: &str, more: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/curl");
    command.args(["-sS", "--noproxy", "*", "--max-time", "30", "--cacert"]);
    command.arg(&lab::certificate().cert).args(more).arg(url);
    command
}

/// The only connection of a process.
fn only(capture: &Capture, pid: u32) -> &Conn {
    let conns = capture.of(pid);
    assert_eq!(conns.len(), 1, "connections of {pid}: {conns:?}");
    conns[0]
}

/// Waits for the books of `count` connections that a server prints when they end.
fn books(server: &Server, count: usize) -> Vec<Truth> {
    lab::wait_until("the server has closed its books", LIMIT, || {
        Truth::parse_all(&server.running.stdout_text()).len() >= count
    });
    Truth::parse_all(&server.running.stdout_text())
}

/// What the other end of a connection has done, from this end's books.
fn mirrored(truth: &Truth, pid: u32, sni: &str, alpn: &str) -> Truth {
    Truth {
        pid,
        role: if truth.role == "server" {
            "client"
        } else {
            "server"
        }
        .into(),
        local: truth.remote.clone(),
        remote: truth.local.clone(),
        out: truth.input,
        input: truth.out,
        sni: sni.into(),
        alpn: alpn.into(),
        ..truth.clone()
    }
}

/// Fails unless two captured ends are the two ends of one connection, byte for byte.
fn assert_mirror(client: &Conn, server: &Conn) {
    assert_eq!(
        client.role.as_deref(),
        Some("client"),
        "{}",
        client.addresses()
    );
    assert_eq!(
        server.role.as_deref(),
        Some("server"),
        "{}",
        server.addresses()
    );
    assert!(
        client.local.is_some() && client.remote.is_some(),
        "{}",
        client.addresses()
    );
    assert_eq!(
        (&client.local, &client.remote),
        (&server.remote, &server.local)
    );
    assert_eq!(client.version, server.version);
    assert_eq!(client.alpn, server.alpn);
    assert!(
        client.out.bytes == server.input.bytes,
        "client to server differs"
    );
    assert!(
        server.out.bytes == client.input.bytes,
        "server to client differs"
    );
}

// ---- curl ----

#[tag(root)]
#[test]
fn curl_http1_is_captured_by_running_it() {
    if !lab::can_capture("curl_http1_is_captured_by_running_it") {
        return;
    }
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let url = format!("https://{}/1000000", server.address());
    let (mut running, capture) = Sniff::run(dir.path(), &[], &mut curl(&url, &["--http1.1"]));
    running.wait_success(LIMIT);
    assert!(running.stdout() == lab::body(1_000_000));
    let conns: Vec<&Conn> = capture.conns.values().collect();
    assert_eq!(conns.len(), 1);
    let truth = mirrored(&books(&server, 1)[0], conns[0].pid, "", "");
    oracle::assert_equal(&capture, &[truth], Checks::default());
    assert_eq!(conns[0].comm, "curl");
    assert_eq!(conns[0].exe.as_deref(), Some("/usr/bin/curl"));
    capture.assert_complete();
}

#[tag(root)]
#[test]
fn curl_started_later_is_captured() {
    if !lab::can_capture("curl_started_later_is_captured") {
        return;
    }
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let comm = lab::unique_comm("curl");
    let program = lab::renamed(Path::new("/usr/bin/curl"), dir.path(), &comm);
    let sniff = Sniff::comm(dir.path(), &comm);
    let url = format!("https://{}/30000", server.address());
    let template = curl(&url, &["--http1.1"]);
    let mut client = Running::start(Command::new(program).args(template.get_args()), dir.path());
    client.wait_success(LIMIT);
    let capture = sniff.stop();
    let truth = mirrored(&books(&server, 1)[0], client.pid(), "", "");
    oracle::assert_equal(&capture, &[truth], Checks::default());
    capture.assert_complete();
}

/// The bodies of the DATA frames of each stream, RFC 9113 section 6.1.
fn http2_bodies(mut bytes: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let mut bodies = BTreeMap::new();
    while !bytes.is_empty() {
        assert!(bytes.len() >= 9, "half a frame header: {bytes:?}");
        let len = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let (kind, flags) = (bytes[3], bytes[4]);
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
        assert!(bytes.len() >= 9 + len, "half a frame");
        assert!(kind <= 9, "not a frame type of RFC 9113: {kind}");
        if kind == 0 {
            assert_eq!(flags & 8, 0, "padding");
            let body: &mut Vec<u8> = bodies.entry(stream).or_default();
            body.extend_from_slice(&bytes[9..9 + len]);
        }
        bytes = &bytes[9 + len..];
    }
    bodies
}

#[tag(root)]
#[test]
fn curl_http2_and_nginx_are_captured_at_both_ends() {
    let test = "curl_http2_and_nginx_are_captured_at_both_ends";
    if !lab::can_capture(test) || !lab::installed(test, &["nginx"]) {
        return;
    }
    let server = servers::nginx(1);
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-p", &server.pid_list()]);
    let url = format!("https://lab.test:{}/large", server.port);
    let resolve = format!("lab.test:{}:127.0.0.1", server.port);
    let mut client = curl(&url, &["--http2", "--resolve", &resolve]);
    let (mut running, at_client) = Sniff::run(dir.path(), &[], &mut client);
    running.wait_success(LIMIT);
    let large = lab::body(5_000_000);
    assert!(running.stdout() == large, "curl itself got the wrong body");
    let at_server = sniff.stop();
    let clients: Vec<&Conn> = at_client.conns.values().collect();
    assert_eq!(clients.len(), 1);
    let servers: Vec<&Conn> = at_server.conns.values().collect();
    assert_eq!(servers.len(), 1);
    assert_mirror(clients[0], servers[0]);
    assert_eq!(clients[0].alpn.as_deref(), Some("h2"));
    assert_eq!(clients[0].sni.as_deref(), Some("lab.test"));
    assert_eq!(servers[0].sni.as_deref(), Some("lab.test"));
    assert_eq!(clients[0].version.as_deref(), Some("1.3"));
    assert!(
        clients[0]
            .out
            .bytes
            .starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    );
    let bodies = http2_bodies(&clients[0].input.bytes);
    assert_eq!(bodies.len(), 1);
    assert!(
        bodies.values().next() == Some(&large),
        "the captured body differs"
    );
    at_client.assert_complete();
    at_server.assert_complete();
}

// ---- rustls ----

#[tag(root)]
#[test]
fn a_client_with_rustls_is_captured() {
    let test = "a_client_with_rustls_is_captured";
    if !lab::can_capture(test) {
        return;
    }
    if lab::kernel() < (5, 15) {
        eprintln!("NOT RUN: {test} (probes of rustls need cookies, Linux 5.15)");
        return;
    }
    let Some(client) = lab::rustls_client() else {
        eprintln!("NOT RUN: {test} (the crates of the client cannot be had)");
        return;
    };
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let mut command = Command::new(client);
    for length in [10, 300_000] {
        command.arg(format!("https://{}/{length}", server.address()));
    }
    command.env("NO_PROXY", "*");
    let (mut running, capture) = Sniff::run(dir.path(), &[], &mut command);
    running.wait_success(LIMIT);
    let conns: Vec<&Conn> = capture.conns.values().collect();
    assert_eq!(conns.len(), 1);
    let truth = mirrored(&books(&server, 1)[0], conns[0].pid, "", "");
    oracle::assert_equal(&capture, &[truth], Checks { facts: false });
    assert_eq!(conns[0].lib.as_deref(), Some("rustls"));
    capture.assert_complete();
}

// ---- openssl s_client and s_server ----

fn s_client(server: &Server, more: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["s_client", "-quiet", "-connect", &server.address()]);
    command
        .args(["-servername", "lab.test", "-no_ign_eof"])
        .args(more);
    command
}

/// Talks to `s_server -rev` under a capture of both ends.
fn reversed(more_client: &[&str]) -> (Capture, Capture) {
    let server = servers::s_server(&["-rev"]);
    let dir = lab::new_dir();
    let at_server = Sniff::pid(dir.path(), server.pid());
    let comm = lab::unique_comm("ssl");
    let program = lab::renamed(Path::new("/usr/bin/openssl"), dir.path(), &comm);
    let at_client = Sniff::comm(dir.path(), &comm);
    let template = s_client(&server, more_client);
    let mut client = Running::start(Command::new(program).args(template.get_args()), dir.path());
    client.say("desserts\n");
    client.wait_line(LIMIT, |line| line == "stressed");
    client.say("drawer\n");
    client.wait_line(LIMIT, |line| line == "reward");
    client.close_stdin();
    client.wait(LIMIT);
    // the server sees the end a moment later
    std::thread::sleep(Duration::from_millis(200));
    (at_client.stop(), at_server.stop())
}

#[tag(root)]
#[test]
fn openssl_s_client_and_s_server_rev_are_captured_at_both_ends() {
    if !lab::can_capture("openssl_s_client_and_s_server_rev_are_captured_at_both_ends") {
        return;
    }
    for version in ["-tls1_3", "-tls1_2"] {
        let (at_client, at_server) = reversed(&[version]);
        let clients: Vec<&Conn> = at_client.conns.values().collect();
        let servers: Vec<&Conn> = at_server.conns.values().collect();
        assert_eq!((clients.len(), servers.len()), (1, 1));
        assert_eq!(clients[0].out.text(), "desserts\ndrawer\n");
        assert_eq!(clients[0].input.text(), "stressed\nreward\n");
        assert_mirror(clients[0], servers[0]);
        assert_eq!(clients[0].sni.as_deref(), Some("lab.test"));
        let expected = if version == "-tls1_3" { "1.3" } else { "1.2" };
        assert_eq!(clients[0].version.as_deref(), Some(expected));
    }
}

#[tag(root)]
#[test]
fn openssl_s_server_www_is_captured_at_both_ends() {
    if !lab::can_capture("openssl_s_server_www_is_captured_at_both_ends") {
        return;
    }
    let server = servers::s_server(&["-www"]);
    let dir = lab::new_dir();
    let at_server = Sniff::pid(dir.path(), server.pid());
    let url = format!("https://{}/", server.address());
    let (running, at_client) = Sniff::run(dir.path(), &[], &mut curl(&url, &["--http1.0"]));
    std::thread::sleep(Duration::from_millis(200));
    let at_server = at_server.stop();
    let page = running.stdout();
    assert!(page.starts_with(b"<HTML>"), "{}", running.stdout_text());
    let clients: Vec<&Conn> = at_client.conns.values().collect();
    assert_eq!(clients.len(), 1);
    assert!(clients[0].out.bytes.starts_with(b"GET / HTTP/1.0\r\n"));
    assert!(
        clients[0].input.bytes.ends_with(&page),
        "the captured page differs"
    );
    let server_conn = only(&at_server, server.pid());
    assert_mirror(clients[0], server_conn);
}

#[tag(root)]
#[test]
fn openssl_s_server_run_by_tlssniff_is_captured() {
    if !lab::can_capture("openssl_s_server_run_by_tlssniff_is_captured") {
        return;
    }
    let client_books = servers::python_threaded();
    let dir = lab::new_dir();
    let address = client_books.address();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!(
        "printf 'GET /20000 HTTP/1.1\\r\\nHost: lab\\r\\nConnection: close\\r\\n\\r\\n' | \
         openssl s_client -quiet -ign_eof -connect {address}"
    ));
    let (running, capture) = Sniff::run(dir.path(), &["-f"], &mut command);
    assert!(running.stdout().ends_with(&lab::body(20000)));
    let conns = capture.of_comm("openssl");
    assert_eq!(conns.len(), 1);
    let truth = mirrored(&books(&client_books, 1)[0], conns[0].pid, "", "");
    oracle::assert_equal(&capture, &[truth], Checks::default());
}

// ---- Python ----

#[tag(root)]
#[test]
fn python_urllib_and_a_threaded_server_are_captured_at_both_ends() {
    if !lab::can_capture("python_urllib_and_a_threaded_server_are_captured_at_both_ends") {
        return;
    }
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let at_server = Sniff::pid(dir.path(), server.pid());
    let port = server.port.to_string();
    let mut client = servers::python("url_client.py");
    client.args(["127.0.0.1", &port, "5", "100000", "3000000"]);
    let (mut running, at_client) = Sniff::run(dir.path(), &[], &mut client);
    running.wait_success(LIMIT);
    let truths = Truth::parse_all(&running.stdout_text());
    assert_eq!(truths.len(), 3);
    oracle::assert_equal(&at_client, &truths, Checks::default());
    let truths = books(&server, 3);
    oracle::assert_equal(&at_server.stop(), &truths, Checks::default());
}

#[tag(root)]
#[test]
fn python_urllib_that_runs_already_is_captured() {
    if !lab::can_capture("python_urllib_that_runs_already_is_captured") {
        return;
    }
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let port = server.port.to_string();
    let mut client = servers::python("url_client.py");
    client
        .args(["127.0.0.1", &port, "5", "100000"])
        .env("ODD_GATE", "start");
    let mut running = Running::start(&mut client, dir.path());
    running.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), running.pid());
    running.go();
    running.wait_success(LIMIT);
    let truths = Truth::parse_all(&running.stdout_text());
    oracle::assert_equal(&sniff.stop(), &truths, Checks::default());
}

#[tag(root)]
#[test]
fn an_asyncio_server_is_captured_with_its_addresses() {
    if !lab::can_capture("an_asyncio_server_is_captured_with_its_addresses") {
        return;
    }
    let server = servers::python_asyncio();
    let dir = lab::new_dir();
    let sniff = Sniff::pid(dir.path(), server.pid());
    for length in [5, 100_000, 2_000_000] {
        let url = format!("https://{}/{length}", server.address());
        let mut client = Running::start(&mut curl(&url, &["--http1.1"]), dir.path());
        client.wait_success(LIMIT);
        assert!(client.stdout() == lab::body(length));
    }
    let truths = books(&server, 3);
    oracle::assert_equal(&sniff.stop(), &truths, Checks::default());
}

// ---- node ----

#[tag(root)]
#[test]
fn a_node_client_is_captured_however_it_starts() {
    let test = "a_node_client_is_captured_however_it_starts";
    if !lab::can_capture(test) || !lab::installed(test, &["node"]) {
        return;
    }
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let script = lab::programs().join("node_client.js");
    let args = |command: &mut Command| {
        command
            .arg(&script)
            .args(["127.0.0.1", &server.port.to_string()]);
        command.args(["5", "100000", "100"]);
    };

    let mut client = Command::new("/usr/bin/node");
    args(&mut client);
    let (mut running, capture) = Sniff::run(dir.path(), &[], &mut client);
    running.wait_success(LIMIT);
    let pid = capture.of_comm("node").first().map_or(0, |conn| conn.pid);
    assert_node(&capture, &books(&server, 1)[0], pid);

    let mut client = Command::new("/usr/bin/node");
    args(client.env("ODD_GATE", "start"));
    let mut running = Running::start(&mut client, dir.path());
    running.wait_line(LIMIT, |line| line == "ready");
    let sniff = Sniff::pid(dir.path(), running.pid());
    running.go();
    running.wait_success(LIMIT);
    assert_node(&sniff.stop(), &books(&server, 2)[1], running.pid());

    let comm = lab::unique_comm("nod");
    let program = lab::renamed(Path::new("/usr/bin/node"), dir.path(), &comm);
    // node is large: only once one has been seen does the next one miss nothing
    let mut idle = Command::new(&program);
    let idle = Running::start(idle.args(["-e", "setInterval(() => 0, 1000)"]), dir.path());
    idle.wait_comm(&comm);
    let sniff = Sniff::comm(dir.path(), &comm);
    let mut client = Command::new(program);
    args(&mut client);
    let mut running = Running::start(&mut client, dir.path());
    running.wait_success(LIMIT);
    assert_node(&sniff.stop(), &books(&server, 3)[2], running.pid());
}

/// node moves the records itself; its main thread renames itself, so only the pid is sure.
fn assert_node(capture: &Capture, books: &Truth, pid: u32) {
    eprintln!("node[{pid}]: {} lines", capture.lines.len());
    let truth = mirrored(books, pid, "", "");
    oracle::assert_equal(capture, &[truth], Checks { facts: false });
    capture.assert_complete();
}

#[tag(root)]
#[test]
fn a_node_server_is_captured_to_the_byte() {
    let test = "a_node_server_is_captured_to_the_byte";
    if !lab::can_capture(test) || !lab::installed(test, &["node"]) {
        return;
    }
    let server = servers::node();
    let dir = lab::new_dir();
    let sniff = Sniff::pid(dir.path(), server.pid());
    let port = server.port.to_string();
    let mut client = servers::python("url_client.py");
    client.args(["127.0.0.1", &port, "5", "100000", "3000000"]);
    let mut running = Running::start(&mut client, dir.path());
    running.wait_success(LIMIT);
    std::thread::sleep(Duration::from_millis(100));
    let truths: Vec<Truth> = Truth::parse_all(&running.stdout_text())
        .iter()
        .map(|truth| mirrored(truth, server.pid(), "", ""))
        .collect();
    assert_eq!(truths.len(), 3);
    oracle::assert_equal(&sniff.stop(), &truths, Checks { facts: false });
}

// ---- apache ----

#[tag(root)]
#[test]
fn apache_and_curl_are_captured_at_both_ends() {
    let test = "apache_and_curl_are_captured_at_both_ends";
    if !lab::can_capture(test) || !lab::installed(test, &["apache2"]) {
        return;
    }
    let server = servers::apache();
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-f", "-p", &server.pid_list()]);
    let url = format!("https://{}/large", server.address());
    let (mut running, at_client) = Sniff::run(dir.path(), &[], &mut curl(&url, &["--http1.1"]));
    running.wait_success(LIMIT);
    let large = lab::body(5_000_000);
    assert!(running.stdout() == large);
    std::thread::sleep(Duration::from_millis(200));
    let at_server = sniff.stop();
    let clients: Vec<&Conn> = at_client.conns.values().collect();
    let servers: Vec<&Conn> = at_server
        .conns
        .values()
        .filter(|conn| conn.input.len() > 0)
        .collect();
    assert_eq!((clients.len(), servers.len()), (1, 1));
    assert!(clients[0].input.bytes.ends_with(&large));
    // apache's input filter reads through memory, so it may know no address
    if servers[0].local.is_some() {
        assert_mirror(clients[0], servers[0]);
    }
    assert!(clients[0].out.bytes == servers[0].input.bytes);
    assert!(servers[0].out.bytes == clients[0].input.bytes);
    at_server.assert_complete();
}

// ---- databases ----

#[tag(root)]
#[test]
fn redis_and_redis_cli_are_captured_at_both_ends() {
    let test = "redis_and_redis_cli_are_captured_at_both_ends";
    if !lab::can_capture(test) || !lab::installed(test, &["redis-server", "redis-cli"]) {
        return;
    }
    let server = servers::redis();
    let dir = lab::new_dir();
    let sniff = Sniff::pid(dir.path(), server.pid());
    let value = String::from_utf8(lab::body(50_000)).unwrap();
    let cli = |args: &[&str]| {
        let mut client = Command::new("/usr/bin/redis-cli");
        client
            .args(["--tls", "--cacert"])
            .arg(&lab::certificate().cert);
        client
            .args(["-h", "127.0.0.1", "-p", &server.port.to_string()])
            .args(args);
        let (mut running, capture) = Sniff::run(dir.path(), &[], &mut client);
        running.wait_success(LIMIT);
        capture
    };
    let set = cli(&["SET", "key", &value]);
    let get = cli(&["GET", "key"]);
    std::thread::sleep(Duration::from_millis(100));
    let at_server = sniff.stop();
    let servers = at_server.of(server.pid());
    assert_eq!(servers.len(), 2);
    for (client, at_server) in [&set, &get].into_iter().zip(servers) {
        let clients: Vec<&Conn> = client.conns.values().collect();
        assert_eq!(clients.len(), 1);
        assert_mirror(clients[0], at_server);
    }
    let conn = |capture: &Capture| {
        let conn = capture.conns.values().next().unwrap();
        (conn.out.text(), conn.input.text())
    };
    let said = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$50000\r\n{value}\r\n");
    assert!(conn(&set) == (said, "+OK\r\n".into()));
    let said = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n".to_owned();
    assert!(conn(&get) == (said, format!("$50000\r\n{value}\r\n")));
}

/// The length of one `PostgreSQL` message is its own bytes 1..5: the stream must be a row of them.
fn assert_postgres_messages(mut bytes: &[u8], first_has_no_type: bool) {
    if first_has_no_type {
        let len = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        bytes = &bytes[len as usize..];
    }
    while !bytes.is_empty() {
        assert!(
            bytes.len() >= 5 && bytes[0].is_ascii_alphanumeric(),
            "no message: {bytes:?}"
        );
        let len = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert!(bytes.len() > len as usize, "half a message");
        bytes = &bytes[1 + len as usize..];
    }
}

fn assert_postgres(at_client: &Capture, at_server: &Capture) {
    let clients: Vec<&Conn> = at_client
        .conns
        .values()
        .filter(|conn| conn.out.len() > 0)
        .collect();
    let servers: Vec<&Conn> = at_server
        .conns
        .values()
        .filter(|conn| conn.input.len() > 0)
        .collect();
    assert_eq!((clients.len(), servers.len()), (1, 1));
    assert_mirror(clients[0], servers[0]);
    assert_postgres_messages(&clients[0].out.bytes, true);
    assert_postgres_messages(&clients[0].input.bytes, false);
    assert!(clients[0].out.text().contains("generate_series(1, 5000)"));
    assert!(clients[0].input.text().contains("row-4999-of-the-table"));
    at_client.assert_complete();
    at_server.assert_complete();
}

const QUERY: &str = "select 'row-' || n || '-of-the-table' from generate_series(1, 5000) n";

#[tag(root)]
#[test]
fn psql_and_postgres_are_captured_at_both_ends() {
    let test = "psql_and_postgres_are_captured_at_both_ends";
    if !lab::can_capture(test) || !lab::installed(test, &["psql"]) {
        return;
    }
    if servers::postgres_programs().is_none() {
        eprintln!("NOT RUN: {test} (no PostgreSQL server)");
        return;
    }
    let server = servers::postgres();
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-f", "-p", &server.pid().to_string()]);
    let mut client = Command::new(psql());
    client.arg(format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=require",
        server.port
    ));
    client.args(["-X", "-A", "-t", "-c", QUERY]);
    let (mut running, at_client) = Sniff::run(dir.path(), &["-f"], &mut client);
    running.wait_success(LIMIT);
    assert_eq!(running.stdout_text().lines().count(), 5000);
    std::thread::sleep(Duration::from_millis(200));
    assert_postgres(&at_client, &sniff.stop());
}

/// The program itself, not Debian's wrapper in Perl that picks a version.
fn psql() -> std::path::PathBuf {
    servers::postgres_programs()
        .map(|directory| directory.join("psql"))
        .filter(|path| path.exists())
        .or_else(|| lab::find_program("psql"))
        .expect("psql is installed")
}

#[tag(root)]
#[test]
fn a_psycopg_wheel_with_its_own_libssl_is_captured() {
    let test = "a_psycopg_wheel_with_its_own_libssl_is_captured";
    if !lab::can_capture(test) {
        return;
    }
    let Some(python) = psycopg() else {
        eprintln!("NOT RUN: {test} (no psycopg wheel: pip failed)");
        return;
    };
    if servers::postgres_programs().is_none() {
        eprintln!("NOT RUN: {test} (no PostgreSQL server)");
        return;
    }
    let server = servers::postgres();
    let dir = lab::new_dir();
    let sniff = Sniff::start(dir.path(), &["-f", "-p", &server.pid().to_string()]);
    let script = format!(
        "import psycopg\n\
         with psycopg.connect('host=127.0.0.1 port={} user=postgres sslmode=require') as c:\n\
         \x20   rows = c.execute(\"{QUERY}\").fetchall()\n\
         assert len(rows) == 5000\n",
        server.port
    );
    let mut client = Command::new(python);
    let (mut running, at_client) = Sniff::run(dir.path(), &[], client.args(["-c", &script]));
    running.wait_success(LIMIT);
    std::thread::sleep(Duration::from_millis(200));
    assert_postgres(&at_client, &sniff.stop());
}

/// A virtual environment with a psycopg wheel, made once.
fn psycopg() -> Option<std::path::PathBuf> {
    let directory = lab::place::scratch().join("psycopg");
    let python = directory.join("bin/python3");
    let works = || {
        let import = Command::new(&python)
            .args(["-c", "import psycopg"])
            .output();
        import.is_ok_and(|output| output.status.success())
    };
    if works() {
        return Some(python);
    }
    let dir = lab::new_dir();
    let mut venv = Command::new("/usr/bin/python3");
    venv.args(["-m", "venv"]).arg(&directory);
    let made = Running::start(&mut venv, dir.path()).wait(LIMIT).success();
    let mut pip = Command::new(directory.join("bin/pip"));
    pip.args(["install", "-q", "psycopg[binary]"]);
    let made = made
        && Running::start(&mut pip, dir.path())
            .wait(2 * LIMIT)
            .success();
    (made && works()).then_some(python)
}
