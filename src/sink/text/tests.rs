//! Golden lines: one for each form.

use super::*;
use crate::event::{AddrSource, Flavor, Lib, Nanos, Proc, Transport};
use std::rc::Rc;

/// 2026-11-22 12:31:04.118203456 UTC.
const TS: Nanos = 1_795_350_664_118_203_456;

fn conn() -> Conn {
    Conn {
        id: 17,
        proc: Rc::new(Proc {
            pid: 4242,
            comm: "curl".into(),
            exe: Some("/usr/bin/curl".into()),
            uid: Some(1000),
            ..Proc::default()
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: "/usr/lib/libssl.so.3".into(),
            version: Some("OpenSSL 3.0.17 1 Jul 2025".into()),
        }),
        transport: Transport::Tcp {
            local: "10.0.0.2:43210".parse().unwrap(),
            remote: "93.184.216.34:443".parse().unwrap(),
        },
        addr_source: Some(AddrSource::Socket),
        unseen: None,
        role: Some(Role::Client),
        version: Some(0x0304),
        sni: Some("example.com".into()),
        alpn: None,
    }
}

fn data(dir: Dir, bytes: &[u8]) -> Kind<'_> {
    let len = bytes.len() as u64;
    Kind::Data(Data {
        dir,
        off: 0,
        len,
        call_len: len,
        call_off: 0,
        goid: 0,
        bytes,
    })
}

fn piece(bytes: &[u8], len: u64, call_len: u64, call_off: u64) -> Kind<'_> {
    Kind::Data(Data {
        dir: Dir::Out,
        off: 1000 + call_off,
        len,
        call_len,
        call_off,
        goid: 0,
        bytes,
    })
}

fn event<'a>(conn: &'a Conn, kind: Kind<'a>) -> Event<'a> {
    Event {
        ts: TS,
        conn,
        tid: 4243,
        func: "SSL_write",
        kind,
    }
}

/// What is printed with the time left out (`-t`), unless the options want another.
fn print_all(options: TextOptions, events: &[Event<'_>]) -> String {
    let mut out = Vec::new();
    let mut sink = TextSink::new(&mut out, options);
    sink.clock = Clock::in_zone(options.time, options.nano, crate::time::utc);
    for event in events {
        sink.event(event).unwrap();
    }
    sink.finish(&Totals::default()).unwrap();
    String::from_utf8(out).unwrap()
}

fn untimed() -> TextOptions {
    TextOptions {
        time: TimeStyle::None,
        ..TextOptions::default()
    }
}

fn print(conn: &Conn, kind: Kind<'_>) -> String {
    print_all(untimed(), &[event(conn, kind)])
}

#[test]
fn written_data_goes_from_local_to_remote() {
    let conn = conn();
    assert_eq!(
        print_all(
            TextOptions::default(),
            &[event(&conn, data(Dir::Out, &[b'x'; 58]))]
        ),
        "12:31:04.118203 🔓 curl[4242] 10.0.0.2:43210 > 93.184.216.34:443 #17 tls > 58 bytes\n"
    );
}

#[test]
fn read_data_goes_from_remote_to_local() {
    let conn = Conn {
        alpn: Some("h2".into()),
        ..conn()
    };
    assert_eq!(
        print(&conn, data(Dir::In, b"abc")),
        "🔓 curl[4242] 93.184.216.34:443 > 10.0.0.2:43210 #17 h2 < 3 bytes\n"
    );
}

#[test]
fn ascii_option_leaves_no_byte_outside_ascii() {
    let conn = conn();
    let options = TextOptions {
        ascii: true,
        ..untimed()
    };
    let line = print_all(options, &[event(&conn, data(Dir::Out, b"a"))]);
    assert_eq!(
        line,
        "TLS curl[4242] 10.0.0.2:43210 > 93.184.216.34:443 #17 tls > 1 bytes\n"
    );
    assert!(line.is_ascii());
}

#[test]
fn short_leaves_out_addresses_and_number() {
    let conn = conn();
    let options = TextOptions {
        short: true,
        ..untimed()
    };
    let gap = Kind::Gap {
        dir: Dir::In,
        off: 0,
        len: 5,
        cause: GapCause::Dropped,
    };
    assert_eq!(
        print_all(
            options,
            &[event(&conn, data(Dir::In, b"a")), event(&conn, gap)]
        ),
        "🔓 curl[4242] tls < 1 bytes\n🔓 curl[4242] tls ! 5 bytes dropped (ring buffer full) <\n"
    );
}

#[test]
fn lines_are_numbered_and_timed() {
    let conn = conn();
    let options = TextOptions {
        number: true,
        nano: true,
        short: true,
        ..TextOptions::default()
    };
    let events = [
        event(&conn, data(Dir::In, b"a")),
        event(&conn, data(Dir::Out, b"b")),
    ];
    assert_eq!(
        print_all(options, &events),
        "1 12:31:04.118203456 🔓 curl[4242] tls < 1 bytes\n\
         2 12:31:04.118203456 🔓 curl[4242] tls > 1 bytes\n"
    );
}

#[test]
fn colour_is_on_time_and_mark_only() {
    let conn = conn();
    let options = TextOptions {
        color: true,
        short: true,
        ..TextOptions::default()
    };
    let gap = Kind::Gap {
        dir: Dir::In,
        off: 0,
        len: 5,
        cause: GapCause::Dropped,
    };
    let events = [event(&conn, data(Dir::In, b"a")), event(&conn, gap)];
    assert_eq!(
        print_all(options, &events),
        "\x1b[2m12:31:04.118203\x1b[0m 🔓 curl[4242] tls \x1b[36m<\x1b[0m 1 bytes\n\
         \x1b[2m12:31:04.118203\x1b[0m 🔓 curl[4242] tls \x1b[31m!\x1b[0m 5 bytes dropped \
         (ring buffer full) <\n"
    );
}

#[test]
fn every_gap_says_how_much_and_why() {
    let conn = conn();
    let gap = |dir, cause| {
        print(
            &conn,
            Kind::Gap {
                dir,
                off: 0,
                len: 500,
                cause,
            },
        )
    };
    let (out, back) = (
        "10.0.0.2:43210 > 93.184.216.34:443",
        "93.184.216.34:443 > 10.0.0.2:43210",
    );
    assert_eq!(
        gap(Dir::In, GapCause::Dropped),
        format!("🔓 curl[4242] {back} #17 tls ! 500 bytes dropped (ring buffer full)\n")
    );
    assert_eq!(
        gap(Dir::Out, GapCause::Unreadable),
        format!(
            "🔓 curl[4242] {out} #17 tls ! 500 bytes unreadable (not in memory when the call \
             returned)\n"
        )
    );
    assert_eq!(
        gap(Dir::Out, GapCause::Sendfile),
        format!("🔓 curl[4242] {out} #17 tls ! 500 bytes sent from a file (sendfile)\n")
    );
}

#[test]
fn truncation_is_marked_and_counted() {
    assert_eq!(
        print(&conn(), piece(&[b'x'; 200], 4000, 4000, 0)),
        "🔓 curl[4242] 10.0.0.2:43210 > 93.184.216.34:443 #17 tls > 4000 bytes [|tls] 200 kept\n"
    );
}

#[test]
fn a_call_in_pieces_is_one_line() {
    let conn = conn();
    let options = TextOptions {
        short: true,
        payload: Payload::Ascii,
        ..untimed()
    };
    let events = [
        event(&conn, piece(b"aa", 2, 5, 0)),
        event(&conn, piece(b"bb", 2, 5, 2)),
        event(&conn, piece(b"c", 1, 5, 4)),
    ];
    assert_eq!(
        print_all(options, &events),
        "🔓 curl[4242] tls > 5 bytes\n\taa\n\tbb\n\tc\n"
    );
    let options = TextOptions {
        payload: Payload::None,
        ..options
    };
    assert_eq!(print_all(options, &events), "🔓 curl[4242] tls > 5 bytes\n");
}

#[test]
fn a_later_piece_never_stands_under_a_foreign_line() {
    let (conn, other) = (conn(), Conn { id: 18, ..conn() });
    let options = TextOptions {
        short: true,
        payload: Payload::Hex,
        ..untimed()
    };
    let events = [
        event(&conn, piece(b"aa", 2, 4, 0)),
        event(&other, data(Dir::Out, b"zz")),
        event(&conn, piece(b"bb", 2, 4, 2)),
    ];
    assert_eq!(
        print_all(options, &events),
        "🔓 curl[4242] tls > 4 bytes\n\t0x0000:  6161\n\
         🔓 curl[4242] tls > 2 bytes\n\t0x0000:  7a7a\n\
         🔓 curl[4242] tls > continued at 2 of 4\n\t0x0002:  6262\n"
    );
}

#[test]
fn a_lost_first_piece_leaves_a_gap_line_and_a_line_for_the_rest() {
    let conn = conn();
    let options = TextOptions {
        short: true,
        ..untimed()
    };
    let gap = Kind::Gap {
        dir: Dir::Out,
        off: 1000,
        len: 2,
        cause: GapCause::Dropped,
    };
    let events = [
        event(&conn, gap),
        event(&conn, piece(b"bb", 2, 5, 2)),
        event(&conn, piece(b"c", 1, 5, 4)),
    ];
    assert_eq!(
        print_all(options, &events),
        "🔓 curl[4242] tls ! 2 bytes dropped (ring buffer full) >\n\
         🔓 curl[4242] tls > 3 bytes (the rest of 5)\n"
    );
}

#[test]
fn a_later_piece_that_was_cut_is_not_silent() {
    let conn = conn();
    let options = TextOptions {
        short: true,
        ..untimed()
    };
    let events = [
        event(&conn, piece(b"aa", 2, 9, 0)),
        event(&conn, piece(b"b", 7, 9, 2)),
    ];
    assert_eq!(
        print_all(options, &events),
        "🔓 curl[4242] tls > 9 bytes\n🔓 curl[4242] tls ! 7 more bytes [|tls] 1 kept\n"
    );
}

#[test]
fn payload_is_indented_in_every_form() {
    let conn = conn();
    let show = |payload| {
        let options = TextOptions {
            payload,
            short: true,
            ..untimed()
        };
        let all = print_all(options, &[event(&conn, data(Dir::Out, b"a\r\n\x1b[2Jb"))]);
        all.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(show(Payload::None), "");
    assert_eq!(show(Payload::Ascii), "\ta\n\t\\x1b[2Jb\n");
    assert_eq!(show(Payload::Hex), "\t0x0000:  610d 0a1b 5b32 4a62\n");
    let padding = " ".repeat(22);
    let want = format!("\t0x0000:  610d 0a1b 5b32 4a62{padding}a...[2Jb\n");
    assert_eq!(show(Payload::HexAscii), want);
}

#[test]
fn connection_lines_need_verbose() {
    let conn = Conn {
        alpn: Some("h2".into()),
        ..conn()
    };
    let events = [Kind::Open, Kind::Shutdown, Kind::Close].map(|kind| event(&conn, kind));
    assert_eq!(print_all(untimed(), &events), "");
    let options = TextOptions {
        verbose: 1,
        ..untimed()
    };
    let head = "🔓 curl[4242] 10.0.0.2:43210 > 93.184.216.34:443 #17 h2 *";
    assert_eq!(
        print_all(options, &events),
        format!(
            "{head} open, TLS 1.3, client, sni example.com, alpn h2\n\
             \texe /usr/bin/curl\n\
             \tuid 1000\n\
             \tlibrary openssl /usr/lib/libssl.so.3 (OpenSSL 3.0.17 1 Jul 2025)\n\
             \taddress from socket\n\
             {head} shutdown\n\
             {head} close, TLS 1.3, client, sni example.com, alpn h2\n"
        )
    );
}

#[test]
fn a_server_is_opened_by_the_other_side() {
    let conn = Conn {
        role: Some(Role::Server),
        version: Some(0x7f1c),
        sni: None,
        ..conn()
    };
    let options = TextOptions {
        verbose: 1,
        ..untimed()
    };
    assert_eq!(
        print_all(options, &[event(&conn, Kind::Close)]),
        "🔓 curl[4242] 93.184.216.34:443 > 10.0.0.2:43210 #17 tls * close, version 0x7f1c, server\n"
    );
}

#[test]
fn very_verbose_names_function_thread_and_offset() {
    let conn = conn();
    let options = TextOptions {
        verbose: 2,
        short: true,
        ..untimed()
    };
    assert_eq!(
        print_all(options, &[event(&conn, piece(b"ab", 2, 2, 0))]),
        "🔓 curl[4242] tls > 2 bytes\n\tSSL_write thread 4243 offset 1000\n"
    );
}

#[test]
fn every_transport_has_a_name() {
    let ends = |transport, role| {
        let conn = Conn {
            transport,
            role,
            ..conn()
        };
        let line = print(&conn, data(Dir::Out, b"a"));
        let line = line.strip_prefix("🔓 curl[4242] ").unwrap();
        line.strip_suffix(" #17 tls > 1 bytes\n")
            .unwrap()
            .to_owned()
    };
    let tcp = |local: &str, remote: &str| Transport::Tcp {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    let unix = |path: &str| Transport::Unix {
        path: Some(path.into()),
    };
    assert_eq!(ends(Transport::Unknown, None), "? > ?");
    assert_eq!(
        ends(tcp("[::1]:5", "[2001:db8::1]:443"), None),
        "[::1]:5 > [2001:db8::1]:443"
    );
    assert_eq!(
        ends(tcp("[::ffff:10.0.0.1]:5", "[::ffff:10.0.0.2]:443"), None),
        "10.0.0.1:5 > 10.0.0.2:443"
    );
    assert_eq!(
        ends(unix("/run/x y"), Some(Role::Client)),
        r"unix > unix:/run/x\x20y"
    );
    assert_eq!(
        ends(unix("/run/x"), Some(Role::Server)),
        "unix:/run/x > unix"
    );
    assert_eq!(ends(Transport::Unix { path: None }, None), "unix > unix");
    assert_eq!(ends(Transport::Pipe, None), "pipe > pipe");
    assert_eq!(ends(Transport::Tls { conn: 16 }, None), "tls#16 > tls#16");
    assert_eq!(
        ends(Transport::Other("vsock".into()), None),
        "vsock > vsock"
    );
}

#[test]
fn foreign_names_can_neither_shift_columns_nor_drive_the_terminal() {
    let base = conn();
    let conn = Conn {
        proc: Rc::new(Proc {
            comm: "a b\x1b]0;x\x07".into(),
            exe: Some("/x\r/y".into()),
            ..(*base.proc).clone()
        }),
        lib: Rc::new(Lib {
            path: "/l\n1".into(),
            version: Some("v\u{202e}".into()),
            ..(*base.lib).clone()
        }),
        sni: Some("s\u{9b}2J".into()),
        alpn: Some("h 2\n".into()),
        transport: Transport::Unix {
            path: Some("/\x1b[H".into()),
        },
        ..base
    };
    let options = TextOptions {
        verbose: 2,
        ..TextOptions::default()
    };
    let kinds = [Kind::Open, data(Dir::Out, b"\x1b"), Kind::Close];
    let text = print_all(options, &kinds.map(|kind| event(&conn, kind)));
    assert!(
        !text.contains(|ch: char| ch.is_control() && ch != '\n' && ch != '\t'),
        "{text:?}"
    );
    assert!(!text.contains('\u{202e}'));
    for line in text.lines().filter(|line| !line.starts_with('\t')) {
        let columns: Vec<&str> = line.split(' ').collect();
        assert_eq!(columns[2], r"a\x20b\x1b]0;x\x07[4242]");
        assert_eq!(columns[4], ">");
        assert_eq!(columns[6], "#17");
        assert_eq!(columns[7], r"h\x202\x0a");
    }
}

#[test]
fn nothing_is_written_before_a_flush_unless_line_buffered() {
    let conn = conn();
    for (line_buffered, want) in [(false, false), (true, true)] {
        let mut out = Vec::new();
        let mut sink = TextSink::new(
            &mut out,
            TextOptions {
                line_buffered,
                ..untimed()
            },
        );
        sink.event(&event(&conn, data(Dir::Out, b"a"))).unwrap();
        drop(sink);
        assert_eq!(!out.is_empty(), want);
    }
}

#[test]
fn a_connection_that_was_seen_too_late_is_trouble_and_an_older_one_a_detail() {
    let late = Conn {
        unseen: Some(Unseen::Late),
        ..conn()
    };
    assert_eq!(
        print(&late, Kind::Open),
        "🔓 curl[4242] 10.0.0.2:43210 > 93.184.216.34:443 #17 tls ! first bytes may be missing (the \
         program ran before its probes were in place)\n"
    );
    let older = Conn {
        unseen: Some(Unseen::Older),
        ..conn()
    };
    assert_eq!(print(&older, Kind::Open), "");
    let verbose = TextOptions {
        verbose: 1,
        ..untimed()
    };
    let shown = print_all(verbose, &[event(&older, Kind::Open)]);
    assert!(
        shown.ends_with("\tmay be older than the capture: first bytes may be missing\n"),
        "{shown}"
    );
}
