//! Wireshark, tcpdump and capinfos, without options, read what `-w` writes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use tempfile::TempDir;
use tlssniff::event::{
    AddrSource, Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Proc, Role, Totals, Transport,
};
use tlssniff::sink::Sink;
use tlssniff::sink::pcapng::{Format, Framing, Options, PcapSink};
use tlssniff::sink::rotate::{Output, Rotation};

/// Runs a tool, or says that it is not there.
fn run(tool: &str, args: &[&str], file: &Path) -> Option<String> {
    let mut command = Command::new(tool);
    let output = match command.args(args).arg(file).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "NOT RUN: {tool} {} ({tool} is not installed)",
                args.join(" ")
            );
            return None;
        }
        Err(error) => panic!("{tool}: {error}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {args:?}: {stderr}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The fields of the packets that a display filter selects, a line for each packet.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Option<Vec<String>> {
    let mut args = vec!["-n", "-Y", filter, "-T", "fields"];
    for field in fields {
        args.extend(["-e", field]);
    }
    args.push("-r");
    Some(
        run("tshark", &args, file)?
            .lines()
            .map(str::to_owned)
            .collect(),
    )
}

/// A capture in a file of its own; each event is a millisecond later.
struct Capture {
    dir: TempDir,
    sink: PcapSink,
    now: u64,
    offsets: std::collections::HashMap<(u64, Dir), u64>,
}

impl Capture {
    fn new(format: Format, framing: Framing, rotation: Rotation) -> Capture {
        let dir = tempfile::tempdir().unwrap();
        let name_at = Box::new(|pattern: &str, _| pattern.to_owned());
        let output = Output::create(&dir.path().join("f"), rotation, name_at, 0).unwrap();
        let options = Options {
            format,
            framing,
            hardware: "x86_64".to_owned(),
            os: "Linux 6.18".to_owned(),
            comment: "tlssniff -w f".to_owned(),
            filter: Some("port 443".to_owned()),
            packet_buffered: false,
            may_join_late: false,
        };
        let sink = PcapSink::new(output, options).unwrap();
        let now = 1_790_000_000_000_000_000;
        Capture {
            dir,
            sink,
            now,
            offsets: std::collections::HashMap::new(),
        }
    }

    fn event(&mut self, conn: &Conn, kind: Kind<'_>) {
        self.now += 1_000_000;
        let event = Event {
            ts: self.now,
            conn,
            tid: conn.proc.pid,
            func: "SSL_write",
            kind,
        };
        self.sink.event(&event).unwrap();
    }

    /// One call of `len` bytes of which `bytes` were kept.
    fn call(&mut self, conn: &Conn, dir: Dir, bytes: &[u8], len: u64) {
        const PIECE: usize = 256 * 1024;
        let off = self.offsets.entry((conn.id, dir)).or_default();
        let start = *off;
        *off += len;
        for call_off in (0..len).step_by(PIECE) {
            let rest = bytes.get(call_off as usize..).unwrap_or_default();
            let piece = (len - call_off).min(PIECE as u64);
            let data = Data {
                dir,
                off: start + call_off,
                len: piece,
                call_len: len,
                call_off,
                goid: 0,
                bytes: &rest[..rest.len().min(piece as usize)],
            };
            self.event(conn, Kind::Data(data));
        }
    }

    fn send(&mut self, conn: &Conn, dir: Dir, bytes: &[u8]) {
        self.call(conn, dir, bytes, bytes.len() as u64);
    }

    fn gap(&mut self, conn: &Conn, dir: Dir, len: u64) {
        let off = self.offsets.entry((conn.id, dir)).or_default();
        let start = *off;
        *off += len;
        self.event(
            conn,
            Kind::Gap {
                dir,
                off: start,
                len,
                cause: GapCause::Dropped,
            },
        );
    }

    fn finish(mut self) -> (TempDir, PathBuf) {
        let totals = Totals {
            captured: 10,
            shown: 9,
            dropped: 3,
            ..Totals::default()
        };
        self.sink.finish(&totals).unwrap();
        let path = self.dir.path().join("f");
        (self.dir, path)
    }
}

fn complete(framing: Framing) -> Capture {
    Capture::new(Format::Pcapng, framing, Rotation::default())
}

fn conn(id: u64, local: &str, remote: &str, role: Role) -> Conn {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    Conn {
        id,
        proc: Rc::new(Proc {
            pid: 4000 + id as u32,
            comm: "curl".to_owned(),
            exe: Some("/usr/bin/curl".to_owned()),
            uid: Some(1000),
            ..Proc::default()
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: "/usr/lib/libssl.so.3".to_owned(),
            version: Some("OpenSSL 3.0.17 1 Jul 2025".to_owned()),
        }),
        transport: Transport::Tcp {
            local: addr(local),
            remote: addr(remote),
        },
        addr_source: Some(AddrSource::Socket),
        role: Some(role),
        version: Some(0x0304),
        sni: Some("api.example.com".to_owned()),
        alpn: None,
    }
}

fn client(id: u64, port: u16) -> Conn {
    let local = format!("10.0.0.2:{}", 40_000 + id);
    conn(id, &local, &format!("93.184.216.34:{port}"), Role::Client)
}

const GET: &[u8] = b"GET /v1/users?id=7 HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn exchange(capture: &mut Capture, conn: &Conn) {
    let (request, response) = match conn.role {
        Some(Role::Server) => (Dir::In, Dir::Out),
        _ => (Dir::Out, Dir::In),
    };
    capture.send(conn, request, GET);
    capture.send(conn, response, OK);
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// HPACK: GET, https, /, and the authority as a literal.
fn http2_request(stream: u32) -> Vec<u8> {
    let mut headers = vec![0x82, 0x87, 0x84, 0x01, 9];
    headers.extend_from_slice(b"a.example");
    frame(1, 5, stream, &headers)
}

/// What Wireshark would complain about, with every checksum checked.
fn assert_flawless(file: &Path) {
    let flaws = "tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0 \
                 || _ws.malformed";
    let checked = [
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ];
    let args = [&checked[..], &["-n", "-Y", flaws, "-r"]].concat();
    if let Some(found) = run("tshark", &args, file) {
        assert_eq!(found, "");
    }
}

#[test]
fn http1_is_decoded_on_any_port() {
    for framing in [Framing::Tls, Framing::Raw] {
        let mut capture = complete(framing);
        let conn = client(1, 8443);
        capture.event(&conn, Kind::Open);
        exchange(&mut capture, &conn);
        capture.event(&conn, Kind::Shutdown);
        capture.event(&conn, Kind::Close);
        let (_dir, file) = capture.finish();
        let Some(found) = tshark(
            &file,
            "http",
            &["http.request.method", "http.response.code"],
        ) else {
            return;
        };
        assert_eq!(found, ["GET\t", "\t200"], "{framing:?}");
        assert_flawless(&file);
    }
}

#[test]
fn http2_is_decoded_on_443_also_when_joined_without_its_preface() {
    let mut capture = complete(Framing::Tls);
    for id in [1, 2] {
        let conn = Conn {
            alpn: Some("h2".to_owned()),
            ..client(id, 443)
        };
        if id == 1 {
            let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            start.extend(frame(4, 0, 0, &[]));
            capture.event(&conn, Kind::Open);
            capture.send(&conn, Dir::Out, &start);
        }
        capture.send(&conn, Dir::Out, &http2_request(1));
        capture.send(&conn, Dir::In, &frame(1, 5, 1, &[0x88]));
    }
    let (_dir, file) = capture.finish();
    let fields = ["tcp.stream", "http2.headers.method", "http2.headers.status"];
    let Some(found) = tshark(&file, "http2.type == 1", &fields) else {
        return;
    };
    assert_eq!(found, ["0\tGET\t", "0\t\t200", "1\tGET\t", "1\t\t200"]);
    let hellos = tshark(
        &file,
        "tls.handshake.type == 1",
        &["tls.handshake.extensions_server_name"],
    );
    assert_eq!(hellos.unwrap(), ["api.example.com"; 2]);
    assert_flawless(&file);
}

#[test]
fn complete_captures_have_no_flaw() {
    for (format, framing) in [
        (Format::Pcapng, Framing::Tls),
        (Format::Pcapng, Framing::Raw),
        (Format::Pcap, Framing::Tls),
    ] {
        // In one stream out, in the other in.
        let big = vec![b'x'; 10 << 20];
        let mut capture = Capture::new(format, framing, Rotation::default());
        let six = conn(
            500,
            "[2001:db8::2]:40000",
            "[2001:db8::1]:443",
            Role::Client,
        );
        let four = client(501, 443);
        for conn in [&six, &four] {
            capture.event(conn, Kind::Open);
            exchange(&mut capture, conn);
            capture.send(conn, if conn.id == 500 { Dir::Out } else { Dir::In }, &big);
            for _ in 0..500 {
                capture.send(conn, Dir::In, b"tick");
            }
        }
        // A fork goes on with the connection; the parent's end of it is not the end.
        let child = Conn {
            id: 502,
            ..six.clone()
        };
        capture.event(&child, Kind::Open);
        exchange(&mut capture, &child);
        capture.event(&six, Kind::Shutdown);
        capture.event(&six, Kind::Close);
        exchange(&mut capture, &child);
        capture.event(&child, Kind::Close);
        for id in 1..200 {
            let conn = client(id, 443);
            if id % 2 == 0 {
                capture.event(&conn, Kind::Open);
            }
            exchange(&mut capture, &conn);
            if id % 3 == 0 {
                capture.event(&conn, Kind::Shutdown);
                capture.send(&conn, Dir::In, b"after");
            }
            if id % 5 != 0 {
                capture.event(&conn, Kind::Close);
            }
        }
        let (_dir, file) = capture.finish();
        assert_flawless(&file);
        let Some(requests) = tshark(
            &file,
            "tcp.flags.syn == 1 && tcp.flags.ack == 0",
            &["ip.src"],
        ) else {
            return;
        };
        assert_eq!(
            requests.len(),
            201,
            "one SYN for each connection, none for the fork"
        );
    }
}

#[test]
fn a_gap_is_shown_and_the_next_message_decoded() {
    for framing in [Framing::Tls, Framing::Raw] {
        let mut capture = complete(framing);
        let conn = client(1, 443);
        capture.event(&conn, Kind::Open);
        exchange(&mut capture, &conn);
        capture.gap(&conn, Dir::Out, 500);
        exchange(&mut capture, &conn);
        capture.gap(&conn, Dir::In, 70_000);
        exchange(&mut capture, &conn);
        let (_dir, file) = capture.finish();
        let Some(lost) = tshark(&file, "tcp.analysis.lost_segment", &["tcp.dstport"]) else {
            return;
        };
        assert_eq!(lost, ["443", "40001"], "{framing:?}");
        // The next answer acknowledges what is missing: of a real gap that is true.
        let gap = "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment";
        let other = format!("tcp.analysis.flags && !({gap})");
        assert_eq!(
            tshark(&file, &other, &["_ws.expert.message"]).unwrap(),
            [""; 0]
        );
        let decoded = tshark(&file, "http.request", &["http.request.method"]).unwrap();
        assert_eq!(decoded, ["GET"; 3], "{framing:?}");
        let notes = tshark(
            &file,
            "frame.comment contains \"event=gap\"",
            &["frame.comment"],
        );
        let notes = notes.unwrap();
        assert!(
            notes[1].contains("dir=in") && notes[1].contains("len=70000"),
            "{notes:?}"
        );
    }
}

#[test]
fn truncated_data_are_packets_cut_short() {
    for framing in [Framing::Tls, Framing::Raw] {
        let mut capture = complete(framing);
        let conn = client(1, 443);
        capture.call(&conn, Dir::Out, &[b'x'; 64], 200_000);
        capture.call(&conn, Dir::In, &[b'x'; 64], 100);
        exchange(&mut capture, &conn);
        let (_dir, file) = capture.finish();
        let Some(cut) = tshark(&file, "frame.cap_len < frame.len", &["tcp.srcport"]) else {
            return;
        };
        assert_eq!(
            cut,
            ["40001", "40001", "40001", "40001", "443"],
            "{framing:?}"
        );
        assert_eq!(
            tshark(&file, "tcp.analysis.flags", &["frame.number"]).unwrap(),
            [""; 0]
        );
    }
}

#[test]
fn two_views_of_one_connection_are_one_stream() {
    for client_first in [true, false] {
        let mut capture = complete(Framing::Tls);
        let client = conn(1, "127.0.0.1:40000", "127.0.0.1:8443", Role::Client);
        let mapped = ("[::ffff:127.0.0.1]:8443", "[::ffff:127.0.0.1]:40000");
        let server = conn(2, mapped.0, mapped.1, Role::Server);
        let both = if client_first {
            [&client, &server]
        } else {
            [&server, &client]
        };
        for conn in both {
            capture.event(conn, Kind::Open);
        }
        for _ in 0..3 {
            for conn in both {
                exchange(&mut capture, conn);
            }
        }
        // The owner ends; what the other end still has stays out of the stream.
        capture.event(both[0], Kind::Close);
        exchange(&mut capture, both[1]);
        capture.event(both[1], Kind::Close);
        let (_dir, file) = capture.finish();
        let Some(requests) = tshark(&file, "http.request", &["tcp.stream"]) else {
            return;
        };
        assert_eq!(requests, ["0"; 3]);
        assert_flawless(&file);
        let text = format!(
            "frame.comment contains \"same bytes as conn {}\"",
            both[0].id
        );
        let hidden = tshark(
            &file,
            &format!("eth.type == 0x88b5 && {text}"),
            &["frame.number"],
        );
        assert_eq!(hidden.unwrap().len(), 2 * 4 + 2);
    }
}

#[test]
fn the_late_view_of_an_ended_connection_is_no_second_one() {
    let mut capture = complete(Framing::Tls);
    let client = conn(1, "127.0.0.1:40000", "127.0.0.1:8443", Role::Client);
    let server = conn(2, "127.0.0.1:8443", "127.0.0.1:40000", Role::Server);
    exchange(&mut capture, &client);
    capture.event(&client, Kind::Close);
    exchange(&mut capture, &server);
    capture.event(&server, Kind::Close);
    let (_dir, file) = capture.finish();
    let Some(requests) = tshark(&file, "http.request", &["tcp.stream"]) else {
        return;
    };
    assert_eq!(requests, ["0"]);
    assert_flawless(&file);
}

#[test]
fn the_same_ports_after_a_close_are_another_connection() {
    let mut capture = complete(Framing::Tls);
    for id in [1, 2] {
        let conn = Conn {
            id,
            ..client(1, 443)
        };
        exchange(&mut capture, &conn);
        capture.event(&conn, Kind::Close);
    }
    let (_dir, file) = capture.finish();
    let Some(requests) = tshark(&file, "http.request", &["tcp.stream"]) else {
        return;
    };
    assert_eq!(requests, ["0", "1"]);
    // Which Wireshark notes, and nothing else.
    let other = "tcp.analysis.flags && !tcp.analysis.reused_ports";
    assert_eq!(tshark(&file, other, &["frame.number"]).unwrap(), [""; 0]);
}

#[test]
fn a_connection_without_addresses_has_made_up_ones() {
    let mut capture = complete(Framing::Tls);
    let unix = Transport::Unix {
        path: Some("/run/x y".to_owned()),
    };
    for (id, transport) in [(1, unix), (2, Transport::Unknown), (3, Transport::Pipe)] {
        exchange(
            &mut capture,
            &Conn {
                transport,
                ..client(id, 443)
            },
        );
    }
    // Its own addresses are learnt too late for the packets.
    exchange(&mut capture, &client(2, 443));
    let (_dir, file) = capture.finish();
    let fields = ["tcp.stream", "ip.src", "ip.dst"];
    let Some(found) = tshark(&file, "http.request", &fields) else {
        return;
    };
    let line = |stream| format!("{stream}\t192.0.2.1\t192.0.2.254");
    assert_eq!(found, [line(0), line(1), line(2), line(1)]);
    let comments = tshark(&file, "http.request", &["frame.comment"]).unwrap();
    assert!(
        comments[0].contains("transport=unix path=/run/x%20y"),
        "{comments:?}"
    );
    assert!(
        comments[0].ends_with("made up: it runs over a Unix socket"),
        "{comments:?}"
    );
    assert!(comments[3].contains("local=10.0.0.2:40002"), "{comments:?}");
    assert_flawless(&file);
}

#[test]
fn each_file_of_a_series_is_decoded_by_itself() {
    let rotation = Rotation {
        size: Some(20_000),
        ..Rotation::default()
    };
    let mut capture = Capture::new(Format::Pcapng, Framing::Tls, rotation);
    let conn = client(1, 443);
    capture.event(&conn, Kind::Open);
    for _ in 0..100 {
        exchange(&mut capture, &conn);
    }
    capture.event(&conn, Kind::Close);
    let (dir, _) = capture.finish();
    let mut requests = 0;
    let files: Vec<PathBuf> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let Some(found) = tshark(&file, "http.request", &["frame.number"]) else {
            return;
        };
        assert!(!found.is_empty());
        requests += found.len();
        assert_flawless(&file);
    }
    assert_eq!(requests, 100);
}

#[test]
fn the_file_says_where_packets_come_from() {
    let mut capture = complete(Framing::Tls);
    let conn = client(1, 443);
    capture.event(&conn, Kind::Open);
    exchange(&mut capture, &conn);
    let (_dir, file) = capture.finish();
    let fields = ["frame.interface_name", "frame.interface_description"];
    let Some(found) = tshark(&file, "http.request", &fields) else {
        return;
    };
    let description = "/usr/bin/curl, OpenSSL 3.0.17 1 Jul 2025 (/usr/lib/libssl.so.3), pid 4001";
    assert_eq!(found, [format!("curl[4001]\t{description}")]);
    let outbound =
        "frame.packet_flags_direction == 2 && http && frame.comment contains \"pid=4001\"";
    assert_eq!(
        tshark(&file, outbound, &["http.request.method"]).unwrap(),
        ["GET"]
    );
    let synthetic = "frame.comment contains \"synthetic: written by tlssniff, not on the wire\"";
    let hellos = format!("tls.handshake && {synthetic}");
    assert_eq!(tshark(&file, &hellos, &["frame.number"]).unwrap().len(), 2);
}

#[test]
fn tcpdump_and_capinfos_read_both_formats() {
    for format in [Format::Pcapng, Format::Pcap] {
        let mut capture = Capture::new(format, Framing::Raw, Rotation::default());
        for id in [1, 2] {
            let conn = client(id, 443);
            capture.event(&conn, Kind::Open);
            exchange(&mut capture, &conn);
            capture.event(&conn, Kind::Close);
        }
        let (_dir, file) = capture.finish();
        if let Some(text) = run("tcpdump", &["-nn", "-A", "-v", "-r"], &file) {
            assert!(
                text.contains("10.0.0.2.40001 > 93.184.216.34.443"),
                "{text}"
            );
            assert!(text.contains("GET /v1/users?id=7 HTTP/1.1"), "{text}");
            assert!(!text.contains("incorrect"), "{text}");
        }
        if let Some(text) = run("capinfos", &[], &file) {
            assert!(text.contains("nanoseconds"), "{text}");
            if format == Format::Pcapng {
                assert!(
                    text.contains("tlssniff -w f") && text.contains("Linux 6.18"),
                    "{text}"
                );
                assert!(text.contains("curl[4001]"), "{text}");
                assert!(text.contains("tlssniff 0."), "{text}");
            }
        }
    }
}

#[test]
fn an_empty_capture_can_be_opened() {
    for format in [Format::Pcapng, Format::Pcap] {
        let (_dir, file) = Capture::new(format, Framing::Tls, Rotation::default()).finish();
        assert_eq!(
            tshark(&file, "frame", &["frame.number"]).unwrap_or_default(),
            [""; 0]
        );
        run("tcpdump", &["-r"], &file);
        run("capinfos", &[], &file);
    }
}

/// Runs tlssniff on a file; what it prints.
fn tlssniff(args: &[&str], file: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlssniff"));
    let output = command.arg("-q").args(args).arg("-r").arg(file).output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The file that a filter makes of another.
fn filtered(file: &Path, filter: &str) -> PathBuf {
    let to = file.with_extension("filtered");
    tlssniff(&["-w", to.to_str().unwrap(), "-Y", filter], file);
    to
}

#[test]
fn a_filter_on_messages_writes_whole_exchanges_without_holes() {
    const FAILED: &[u8] = b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nno!";
    for format in [Format::Pcapng, Format::Pcap] {
        let mut capture = Capture::new(format, Framing::Tls, Rotation::default());
        let (some, none) = (client(1, 443), client(2, 443));
        for conn in [&some, &none] {
            capture.event(conn, Kind::Open);
            exchange(&mut capture, conn);
            exchange(&mut capture, conn);
        }
        for _ in 0..2 {
            capture.send(
                &some,
                Dir::Out,
                b"POST /fail HTTP/1.1\r\nHost: api.example.com\r\n",
            );
            exchange(&mut capture, &none);
            capture.send(&some, Dir::Out, b"Content-Length: 0\r\n\r\n");
            capture.send(&some, Dir::In, FAILED);
            exchange(&mut capture, &some);
        }
        for conn in [&some, &none] {
            capture.event(conn, Kind::Shutdown);
            capture.event(conn, Kind::Close);
        }
        let (_dir, file) = capture.finish();
        let written = filtered(&file, "status >= 500 and method == POST");
        assert_flawless(&written);
        let fields = ["http.request.method", "http.response.code", "tcp.stream"];
        if let Some(found) = tshark(&written, "http", &fields) {
            assert_eq!(
                found,
                ["POST\t\t0", "\t500\t0", "POST\t\t0", "\t500\t0"],
                "{format:?}"
            );
        }
        let shown = tlssniff(&["-v", "--raw"], &written);
        assert!(
            !shown.contains("dropped") && !shown.contains("#2 "),
            "{shown}"
        );
        let shown = tlssniff(&["-v"], &written);
        let lines: Vec<&str> = shown.lines().filter(|l| !l.starts_with('\t')).collect();
        assert_eq!(lines.len(), 7, "{shown}");
        assert!(
            lines[0].contains("open") && lines[6].contains("close"),
            "{shown}"
        );
        let shown = tlssniff(&["--raw", "status >= 500"], &file);
        assert_eq!(shown.lines().count(), 6, "{shown}");
    }
}

#[test]
fn a_filter_on_messages_writes_a_connection_whole_whose_headers_depend_on_each_other() {
    let mut capture = complete(Framing::Tls);
    let h2 = |id| Conn {
        alpn: Some("h2".to_owned()),
        ..client(id, 443)
    };
    let (some, none) = (h2(1), h2(2));
    for (conn, status) in [(&some, 0x8e), (&none, 0x88)] {
        capture.event(conn, Kind::Open);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        capture.send(conn, Dir::Out, &[preface, &*frame(4, 0, 0, &[])].concat());
        for (stream, status) in [(1, 0x88), (3, status), (5, 0x88)] {
            capture.send(conn, Dir::Out, &http2_request(stream));
            capture.send(conn, Dir::In, &frame(1, 5, stream, &[status]));
        }
        capture.event(conn, Kind::Close);
    }
    let (_dir, file) = capture.finish();
    let written = filtered(&file, "status in {500..599}");
    assert_flawless(&written);
    let fields = ["http2.headers.status", "tcp.stream"];
    if let Some(found) = tshark(&written, "http2.headers.status", &fields) {
        assert_eq!(found, ["200\t0", "500\t0", "200\t0"]);
    }
}

#[test]
fn a_filter_on_single_reads_leaves_no_holes_either() {
    let mut capture = complete(Framing::Tls);
    let conn = client(1, 443);
    capture.event(&conn, Kind::Open);
    for _ in 0..3 {
        exchange(&mut capture, &conn);
    }
    capture.send(&conn, Dir::Out, b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    capture.send(&conn, Dir::In, OK);
    capture.event(&conn, Kind::Close);
    let (_dir, file) = capture.finish();
    let written = filtered(&file, "payload contains secret");
    assert_flawless(&written);
    let shown = tlssniff(&["--raw"], &written);
    assert_eq!(shown.lines().count(), 2, "{shown}");
}
