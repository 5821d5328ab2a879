//! What is written of real traffic: read by tshark, tcpdump, a terminal and `tlssniff -r`.

mod lab;

use lab::servers::{self, Server};
use lab::sniff::command;
use lab::{Capture, Checks, LIMIT, Running, Sniff, Truth, oracle};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use test_tag::tag;

/// Runs curl on this path of a server under `tlssniff` with these options; the body is checked.
fn sniffed_curl(
    dir: &Path,
    server: &Server,
    path: &str,
    options: &[&str],
    curl: &[&str],
) -> Running {
    let mut args: Vec<String> = options.iter().map(ToString::to_string).collect();
    let target = [
        "--",
        "curl",
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        "30",
        "--cacert",
    ];
    args.extend(target.iter().map(ToString::to_string));
    args.push(lab::certificate().cert.display().to_string());
    args.extend(["-o", "/dev/null"].iter().map(ToString::to_string));
    args.extend(curl.iter().map(ToString::to_string));
    args.push(format!("https://{}/{path}", server.address()));
    let mut running = Running::start(&mut command(&args), dir);
    running.wait_success(LIMIT);
    running
}

/// The lines tshark prints for a file, with nothing but a display filter and fields.
fn tshark(file: &Path, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("/usr/bin/tshark");
    // no settings of the user: they could help
    let home = file.parent().unwrap();
    command.env("HOME", home).env("XDG_CONFIG_HOME", home);
    command.arg("-r").arg(file).args(args);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

fn assert_nothing_wrong(file: &Path) {
    let wrong = tshark(file, &["-Y", "tcp.analysis.flags"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let wrong = tshark(
        file,
        &[
            "-o",
            "tcp.check_checksum:TRUE",
            "-Y",
            "tcp.checksum.status == 0",
        ],
    );
    assert!(wrong.is_empty(), "checksums: {wrong:#?}");
    let wrong = tshark(file, &["-Y", "_ws.malformed"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tag(root)]
#[test]
fn tshark_decodes_http1_and_exports_the_exact_body() {
    let test = "tshark_decodes_http1_and_exports_the_exact_body";
    if !lab::can_capture(test) || !lab::installed(test, &["tshark"]) {
        return;
    }
    let server = servers::python_threaded();
    for framing in ["tls", "raw"] {
        let dir = lab::new_dir();
        let file = dir.path().join("out.pcapng");
        let name = file.display().to_string();
        let options = ["--framing", framing, "-w", &name];
        sniffed_curl(dir.path(), &server, "300000", &options, &["--http1.1"]);
        // Raw HTTP on a port that is nobody's: Wireshark must be told what it is.
        let decode = format!("tcp.port=={},http", server.port);
        let told: &[&str] = if framing == "raw" {
            &["-d", &decode]
        } else {
            &[]
        };
        let with = |args: &[&str]| tshark(&file, &[told, args].concat());
        let fields = [
            "-Y",
            "http.request",
            "-T",
            "fields",
            "-e",
            "http.request.method",
        ];
        let requests = with(&[&fields[..], &["-e", "http.request.uri"]].concat());
        assert_eq!(requests, ["GET\t/300000"], "{framing}");
        let fields = [
            "-Y",
            "http.response",
            "-T",
            "fields",
            "-e",
            "http.response.code",
        ];
        assert_eq!(with(&fields), ["200"], "{framing}");
        let exported = dir.path().join("exported");
        let to = format!("http,{}", exported.display());
        with(&["-q", "--export-objects", &to]);
        let body = std::fs::read(exported.join("300000")).unwrap();
        assert!(
            body == lab::body(300_000),
            "{framing}: {} bytes",
            body.len()
        );
        assert_nothing_wrong(&file);
    }
}

#[tag(root)]
#[test]
fn tshark_decodes_http2_without_options() {
    let test = "tshark_decodes_http2_without_options";
    if !lab::can_capture(test) || !lab::installed(test, &["tshark", "nginx"]) {
        return;
    }
    let server = servers::nginx(1);
    let dir = lab::new_dir();
    let file = dir.path().join("out.pcapng");
    sniffed_curl(
        dir.path(),
        &server,
        "small",
        &["-w", &file.display().to_string()],
        &["--http2"],
    );
    let request = [
        "-Y",
        "http2.headers.method",
        "-T",
        "fields",
        "-e",
        "http2.headers.method",
    ];
    let request = tshark(
        &file,
        &[&request[..], &["-e", "http2.headers.path"]].concat(),
    );
    assert_eq!(request, ["GET\t/small"]);
    let status = [
        "-Y",
        "http2.headers.status",
        "-T",
        "fields",
        "-e",
        "http2.headers.status",
    ];
    assert_eq!(tshark(&file, &status), ["200"]);
    let data = [
        "-Y",
        "http2.data.data",
        "-T",
        "fields",
        "-e",
        "http2.data.data",
    ];
    let data = tshark(&file, &data).concat();
    let expected: String = lab::body(1000)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(data.replace([':', ','], "") == expected, "{data}");
    assert_nothing_wrong(&file);
}

#[tag(root)]
#[test]
fn the_addresses_and_names_in_the_file_are_the_real_ones() {
    let test = "the_addresses_and_names_in_the_file_are_the_real_ones";
    if !lab::can_capture(test) || !lab::installed(test, &["tshark"]) {
        return;
    }
    for host in ["127.0.0.1", "::1"] {
        let dir = lab::new_dir();
        let file = dir.path().join("out.pcapng");
        let mut args = command(&["-w"]);
        args.arg(&file)
            .arg("--")
            .arg(lab::odd())
            .args(["plain", "--host", host]);
        let mut running = Running::start(&mut args, dir.path());
        running.wait_success(LIMIT);
        let truths = Truth::parse_all(&running.stdout_text());
        let ip = if host == "::1" { "ipv6" } else { "ip" };
        let fields = [
            "-Y",
            "tcp.flags.syn == 1 && tcp.flags.ack == 0",
            "-T",
            "fields",
        ];
        let more = [
            "-E",
            "separator= ",
            "-e",
            &format!("{ip}.src"),
            "-e",
            "tcp.srcport",
            "-e",
            &format!("{ip}.dst"),
            "-e",
            "tcp.dstport",
        ];
        // both ends are in one process: the connection is captured twice, from either side
        let client = truths.iter().find(|truth| truth.role == "client").unwrap();
        let plain = |address: &str| {
            let (host, port) = address.rsplit_once(':').unwrap();
            format!("{} {port}", host.trim_matches(['[', ']']))
        };
        let expected = format!("{} {}", plain(&client.local), plain(&client.remote));
        let opened = tshark(&file, &[&fields[..], &more[..]].concat());
        assert!(!opened.is_empty());
        assert!(
            opened.iter().all(|line| *line == expected),
            "{opened:?}, not {expected}"
        );
        let sni = ["-Y", "tls.handshake.extensions_server_name", "-T", "fields"];
        let more = ["-e", "tls.handshake.extensions_server_name"];
        let sni = tshark(&file, &[&sni[..], &more[..]].concat());
        assert!(
            sni.iter().all(|name| name == "odd.lab.test") && !sni.is_empty(),
            "{sni:?}"
        );
    }
}

#[tag(root)]
#[test]
fn tshark_shows_the_gap_of_an_incomplete_capture() {
    let test = "tshark_shows_the_gap_of_an_incomplete_capture";
    if !lab::can_capture(test) || !lab::installed(test, &["tshark", "nginx", "wrk"]) {
        return;
    }
    let server = servers::nginx(1);
    let dir = lab::new_dir();
    let file = dir.path().join("out.pcapng");
    let mut args = command(&["-B", "256", "-p", &server.pid_list(), "-w"]);
    let mut sniff = Running::start(args.arg(&file), dir.path());
    sniff.wait_line(LIMIT, |line| line.starts_with("tlssniff: listening"));
    let mut wrk = Command::new("/usr/bin/wrk");
    wrk.args(["-t", "1", "-c", "2", "-d", "2s"]);
    wrk.arg(format!("https://{}/small", server.address()));
    let mut running = Running::start(&mut wrk, dir.path());
    std::thread::sleep(Duration::from_millis(500));
    sniff.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    sniff.signal(Signal::SIGCONT);
    running.wait_success(LIMIT);
    sniff.signal(Signal::SIGINT);
    sniff.wait_success(LIMIT);
    let lost = tshark(&file, &["-Y", "tcp.analysis.lost_segment"]);
    assert!(!lost.is_empty(), "{}", sniff.stderr_text());
}

/// What must be the same live and read back.
fn essence(line: &Value) -> Value {
    serde_json::json!([
        line["type"],
        line["ts"],
        line["dir"],
        line["off"],
        line["len"],
        line["data"],
        line["truncated"],
        line["proc"]["pid"],
        line["proc"]["comm"],
        line["conn"]["local"],
        line["conn"]["remote"],
        line["conn"]["role"],
        line["tls"]["sni"],
        line["tls"]["alpn"],
        line["tls"]["version"],
    ])
}

/// Captures `odd` into a file and, at the same time, as JSON.
fn capture_both(dir: &Path, file: &Path, scenario: &str, more: &[&str]) -> (Vec<Truth>, Capture) {
    let json = dir.join("live.json");
    let mut args = command(&["--json", "--raw", "--print", "-o"]);
    args.arg(&json).arg("-w").arg(file).args(more);
    args.arg("--").arg(lab::odd()).arg(scenario);
    let mut running = Running::start(&mut args, dir);
    running.wait_success(LIMIT);
    (
        Truth::parse_all(&running.stdout_text()),
        Capture::read(&json),
    )
}

fn read_back(file: &Path, args: &[&str]) -> String {
    let mut command = command(args);
    let output = command.arg("-r").arg(file).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tag(root)]
#[test]
fn a_file_read_back_gives_the_events_of_the_live_capture() {
    if !lab::can_capture("a_file_read_back_gives_the_events_of_the_live_capture") {
        return;
    }
    for (scenario, more) in [
        ("plain", &[][..]),
        ("reuse", &[]),
        ("big", &[]),
        ("socketpair", &[]),
        ("tls-in-tls-bio", &[]),
        ("peek", &["--framing", "raw"]),
        ("plain", &["-s", "100"]),
    ] {
        let dir = lab::new_dir();
        let file = dir.path().join("out.pcapng");
        let (truths, live) = capture_both(dir.path(), &file, scenario, more);
        let read = Capture::parse(&read_back(&file, &["--json", "--raw"]));
        if !more.contains(&"-s") {
            oracle::assert_equal(&live, &truths, Checks::default());
            oracle::assert_equal(&read, &truths, Checks::default());
        }
        let lines =
            |capture: &Capture| -> Vec<Value> { capture.lines_of("data").map(essence).collect() };
        let (live_lines, read_lines) = (lines(&live), lines(&read));
        assert!(live_lines.len() > 5, "{scenario}");
        for (live, read) in live_lines.iter().zip(&read_lines) {
            assert!(
                live == read,
                "{scenario} {more:?}:\n live {live:.400}\n read {read:.400}"
            );
        }
        assert_eq!(live_lines.len(), read_lines.len(), "{scenario} {more:?}");
    }
}

#[tag(root)]
#[test]
fn a_file_is_read_back_without_any_privilege() {
    if !lab::can_capture("a_file_is_read_back_without_any_privilege") {
        return;
    }
    let dir = lab::new_dir();
    let file = dir.path().join("out.pcapng");
    let (_, live) = capture_both(dir.path(), &file, "plain", &[]);
    let mode = file.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600, "secrets are in it");
    let output = command(&["--json", "--raw", "-r", "-"])
        .uid(65534)
        .gid(65534)
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = Capture::parse(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(read.lines_of("data").count(), live.lines_of("data").count());
}

#[tag(root)]
#[test]
fn tcpdump_and_capinfos_read_every_format() {
    let test = "tcpdump_and_capinfos_read_every_format";
    if !lab::can_capture(test) || !lab::installed(test, &["tcpdump", "capinfos"]) {
        return;
    }
    for (name, kind) in [("out.pcapng", "pcapng"), ("out.pcap", "pcap")] {
        let dir = lab::new_dir();
        let file = dir.path().join(name);
        capture_both(dir.path(), &file, "plain", &[]);
        // tcpdump gives up root before it opens the file
        lab::open_to_all(&file);
        let output = Command::new("/usr/bin/tcpdump")
            .arg("-nvr")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            text.lines().count() > 15 && !text.contains("bad cksum") && !text.contains("incorrect"),
            "{text}"
        );
        let output = Command::new("/usr/bin/capinfos")
            .arg("-tE")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains(kind) && text.contains("Ethernet"), "{text}");
    }
}

#[tag(root)]
#[test]
fn packets_go_into_a_pipe_to_tcpdump() {
    let test = "packets_go_into_a_pipe_to_tcpdump";
    if !lab::can_capture(test) || !lab::installed(test, &["tcpdump"]) {
        return;
    }
    let dir = lab::new_dir();
    let script = format!(
        "{sniff} -w - -- sh -c 'exec {odd} plain >&2' | tcpdump -nr -",
        sniff = lab::tlssniff().display(),
        odd = lab::odd().display(),
    );
    let mut shell = Running::start(Command::new("sh").args(["-c", &script]), dir.path());
    shell.wait_success(LIMIT);
    let truths = Truth::parse_all(&shell.stderr_text());
    let port = |address: &str| address.replacen(':', ".", 1);
    let text = shell.stdout_text();
    let wanted = format!(
        "{} > {}: Flags [S]",
        port(&truths[0].local),
        port(&truths[0].remote)
    );
    assert!(text.contains(&wanted), "no {wanted} in {text}");
}

#[tag(root)]
#[test]
fn packets_to_a_terminal_are_refused() {
    let test = "packets_to_a_terminal_are_refused";
    if !lab::can_capture(test) || !lab::installed(test, &["script"]) {
        return;
    }
    let dir = lab::new_dir();
    let line = format!("{} -w - -- true", lab::tlssniff().display());
    let mut script = Command::new("script");
    let mut running = Running::start(script.args(["-qec", &line, "/dev/null"]), dir.path());
    let status = running.wait(LIMIT);
    assert!(!status.success(), "{}", running.stdout_text());
    assert!(
        running.stdout_text().contains("terminal"),
        "{}",
        running.stdout_text()
    );
}

// ---- text ----

/// Fails unless a line has the form `TIME LOCK COMM[PID] SRC > DST #CONN PROTO MARK TEXT`.
fn assert_line(line: &str, lock: &str) {
    let words: Vec<&str> = line.splitn(10, ' ').collect();
    let [
        time,
        mark,
        who,
        source,
        arrow,
        destination,
        conn,
        proto,
        direction,
        text,
    ] = words[..]
    else {
        panic!("not ten words: {line}");
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_time = time.len() == 15
        && time.bytes().enumerate().all(|(i, byte)| match i {
            2 | 5 => byte == b':',
            8 => byte == b'.',
            _ => byte.is_ascii_digit(),
        });
    assert!(is_time, "time: {line}");
    assert_eq!(mark, lock, "{line}");
    let pid = who
        .strip_suffix(']')
        .and_then(|who| who.rsplit_once('['))
        .map(|(_, pid)| pid);
    assert!(pid.is_some_and(is_digits), "who: {line}");
    for address in [source, destination] {
        assert!(
            address.parse::<std::net::SocketAddr>().is_ok(),
            "{address}: {line}"
        );
    }
    assert_eq!(arrow, ">", "{line}");
    assert!(
        conn.strip_prefix('#').is_some_and(is_digits),
        "conn: {line}"
    );
    assert!(!proto.is_empty(), "{line}");
    assert!([">", "<"].contains(&direction), "mark: {line}");
    let bytes = text.strip_suffix(" bytes").or(text.strip_suffix(" byte"));
    assert!(bytes.is_some_and(is_digits), "text: {line}");
}

/// Text output of `odd plain` in a file, lines of it.
fn text_of(dir: &Path, args: &[&str], scenario: &[&str]) -> (Vec<Truth>, Vec<String>) {
    let file = dir.join("out.txt");
    let mut command = command(args);
    command
        .arg("-o")
        .arg(&file)
        .arg("--")
        .arg(lab::odd())
        .args(scenario);
    let mut running = Running::start(&mut command, dir);
    running.wait_success(LIMIT);
    let text = std::fs::read_to_string(&file).unwrap();
    let truths = Truth::parse_all(&running.stdout_text());
    (truths, text.lines().map(ToOwned::to_owned).collect())
}

#[tag(root)]
#[test]
fn each_read_and_write_is_one_line_for_grep_and_cut() {
    if !lab::can_capture("each_read_and_write_is_one_line_for_grep_and_cut") {
        return;
    }
    for (args, scenario, lock) in [
        (&[][..], &["plain"][..], "\u{1f513}"),
        (&["--ascii"], &["plain"], "TLS"),
        (&["--ascii"], &["plain", "--host", "::1"], "TLS"),
    ] {
        let dir = lab::new_dir();
        let (truths, lines) = text_of(dir.path(), args, scenario);
        // the reads of 70,000 bytes come in records
        assert!(lines.len() >= 9, "{lines:#?}");
        for line in &lines {
            assert_line(line, lock);
        }
        // the sender is always on the left
        let client = truths.iter().find(|truth| truth.role == "client").unwrap();
        let asked = format!(" {} > {} ", client.local, client.remote);
        let answered = format!(" {} > {} ", client.remote, client.local);
        let sum = |route: &str, mark: &str| -> u64 {
            lines
                .iter()
                .filter(|line| line.contains(route))
                .filter(|line| line.split(' ').nth(8) == Some(mark))
                .map(|line| line.split(' ').nth(9).unwrap().parse::<u64>().unwrap())
                .sum()
        };
        assert_eq!(sum(&asked, ">"), client.out.0);
        assert_eq!(sum(&asked, "<"), client.out.0);
        assert_eq!(sum(&answered, "<"), client.input.0);
        assert_eq!(sum(&answered, ">"), client.input.0);
    }
}

/// Everything a terminal could obey.
fn assert_harmless(bytes: &[u8], what: &str) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (line, n) in text.lines().zip(1..) {
        for character in line.chars() {
            let is_bad = (character.is_control() && character != '\t')
                || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{2069}' | '\u{feff}');
            assert!(!is_bad, "{what}: {character:?} in line {n}: {line:?}");
        }
    }
}

#[tag(root)]
#[test]
fn no_byte_of_a_stranger_can_drive_the_terminal() {
    if !lab::can_capture("no_byte_of_a_stranger_can_drive_the_terminal") {
        return;
    }
    let server = servers::python_threaded();
    let dir = lab::new_dir();
    let mut evil: Vec<u8> = (0..=255).collect();
    evil.extend("\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{202e}\u{200b}\r\n\x7f".bytes());
    let posted = dir.path().join("evil");
    std::fs::write(&posted, &evil).unwrap();
    let program = lab::renamed(Path::new("/usr/bin/curl"), dir.path(), "e\x1b[31m\nv[1] l");
    for args in [
        &["-A"][..],
        &["-X"],
        &["-x"],
        &["-v", "-A"],
        &["-vvv"],
        &["--json"],
        &["--json", "--raw"],
        &["-q"],
    ] {
        let file: PathBuf = dir.path().join("out.txt");
        let mut command = command(args);
        command.arg("-o").arg(&file).arg("--").arg(&program);
        command.args([
            "-sS",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "--cacert",
        ]);
        command.arg(&lab::certificate().cert);
        command
            .arg("--data-binary")
            .arg(format!("@{}", posted.display()));
        command.arg(format!("https://{}/", server.address()));
        let mut running = Running::start(&mut command, dir.path());
        running.wait_success(LIMIT);
        let text = std::fs::read(&file).unwrap();
        assert!(text.len() > 100, "{args:?}: nothing was shown");
        assert_harmless(&text, &format!("{args:?}"));
        assert_harmless(
            running.stderr_text().as_bytes(),
            &format!("stderr of {args:?}"),
        );
        if args == ["--json", "--raw"] {
            let capture = Capture::read(&file);
            let conn = capture.conns.values().next().unwrap();
            assert!(conn.out.bytes.ends_with(&evil) && conn.input.bytes.ends_with(&evil));
        }
    }
}

#[tag(root)]
#[test]
fn a_filter_chooses_what_is_shown_but_not_what_is_counted() {
    if !lab::can_capture("a_filter_chooses_what_is_shown_but_not_what_is_counted") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = Command::new(lab::odd());
    let (_, all) = Sniff::run(dir.path(), &[], odd.arg("plain"));
    let mut odd = Command::new(lab::odd());
    let (_, sent) = Sniff::run(
        dir.path(),
        &["out", "and", "host", "127.0.0.1"],
        odd.arg("plain"),
    );
    let mut odd = Command::new(lab::odd());
    let (_, none) = Sniff::run(dir.path(), &["port", "1"], odd.arg("plain"));
    assert!(sent.lines_of("data").all(|line| line["dir"] == "out"));
    assert_eq!(sent.lines_of("data").count() as u64, sent.stats.shown);
    assert_eq!(sent.lines_of("data").count(), 4);
    assert_eq!((none.stats.shown, none.lines_of("data").count()), (0, 0));
    assert_eq!(all.stats.captured, all.stats.shown);
    assert!(none.stats.captured >= 9 && sent.stats.captured > sent.stats.shown);
}

#[tag(root)]
#[test]
fn the_list_of_targets_names_process_library_and_reason() {
    if !lab::can_capture("the_list_of_targets_names_process_library_and_reason") {
        return;
    }
    let dir = lab::new_dir();
    let mut odd = Command::new(lab::odd());
    let mut odd = Running::start(odd.arg("plain").env("ODD_GATE", "start"), dir.path());
    odd.wait_line(LIMIT, |line| line == "ready");
    let pid = odd.pid().to_string();
    let output = command(&["-D", "-p", &pid])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(&pid));
    let line = line.unwrap_or_else(|| panic!("{pid} is not in {text}"));
    for word in ["odd", "OpenSSL", "libssl.so.3"] {
        assert!(line.contains(word), "no {word} in {line}");
    }
}
