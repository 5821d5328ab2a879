//! What passes and what does not.

use crate::event::{Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Proc, Role, Transport};
use crate::filter::Filter;
use crate::proto::message::Header;
use crate::proto::{Asked, At, Body, Http, Message, Part, Protocol, Subject};
use std::rc::Rc;

fn conn(local: &str, remote: &str) -> Conn {
    Conn {
        id: 1,
        proc: Rc::new(Proc {
            pid: 42,
            comm: "my prog".into(),
            exe: None,
            uid: Some(33),
            ..Proc::default()
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: String::new(),
            version: None,
        }),
        transport: Transport::Tcp {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        },
        addr_source: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    }
}

fn data(dir: Dir) -> Kind<'static> {
    Kind::Data(Data {
        dir,
        off: 0,
        len: 1,
        call_len: 1,
        call_off: 0,
        goid: 0,
        bytes: b"x",
    })
}

fn passes(words: &str, conn: &Conn, kind: Kind<'_>) -> bool {
    let filter = Filter::parse_with(words, &|name| (name == "web").then_some(33)).unwrap();
    filter.matches(&Event {
        ts: 0,
        conn,
        tid: 0,
        func: "",
        kind,
    })
}

/// Answers for written data, read data and the opening, as `101`.
fn answers(words: &str, conn: &Conn) -> String {
    [data(Dir::Out), data(Dir::In), Kind::Open]
        .map(|kind| if passes(words, conn, kind) { '1' } else { '0' })
        .iter()
        .collect()
}

#[test]
fn src_and_dst_are_sender_and_receiver() {
    let conn = conn("10.0.0.2:43210", "93.184.216.34:443");
    for (words, want) in [
        ("port 443", "111"),
        ("dst port 443", "101"),
        ("src port 443", "011"),
        ("src host 10.0.0.2", "101"),
        ("dst host 10.0.0.2", "011"),
        ("src net 93.0.0.0/8", "011"),
        ("host 10.0.0.3", "000"),
        ("port 1-442", "000"),
        ("port 1,443", "111"),
        ("net 10.0.0.0/30", "111"),
        ("src host 10.0.0.2 and dst port 443", "101"),
        ("src port 43210 or src port 443", "111"),
    ] {
        assert_eq!(answers(words, &conn), want, "{words}");
    }
}

#[test]
fn direction_is_the_programs() {
    let conn = conn("10.0.0.2:1", "10.0.0.3:2");
    assert_eq!(answers("in", &conn), "011");
    assert_eq!(answers("out", &conn), "101");
    assert_eq!(answers("not in", &conn), "101");
    assert_eq!(answers("in and out", &conn), "000", "never both at once");
    assert!(passes("out", &conn, Kind::Shutdown));
    assert!(!passes("in", &conn, Kind::Shutdown));
    assert!(passes("in", &conn, Kind::Close));
    let gap = Kind::Gap {
        dir: Dir::In,
        off: 0,
        len: 1,
        cause: GapCause::Dropped,
    };
    assert!(passes("in", &conn, gap));
    assert!(!passes("out", &conn, gap));
}

#[test]
fn process_words_look_at_the_process() {
    let conn = conn("10.0.0.2:1", "10.0.0.3:2");
    for (words, want) in [
        ("pid 42", "111"),
        ("pid 1,40-50", "111"),
        ("pid 43", "000"),
        ("uid 33", "111"),
        ("uid 0", "000"),
        ("comm \"my prog\"", "111"),
        ("comm my*", "111"),
        ("comm my", "000"),
        ("not comm my*", "000"),
        ("", "111"),
    ] {
        assert_eq!(answers(words, &conn), want, "{words}");
    }
}

#[test]
fn ipv6_and_mapped_addresses_are_found() {
    let six = conn("[2001:db8::1]:5", "[::ffff:10.1.2.3]:443");
    assert_eq!(answers("host 2001:db8::1", &six), "111");
    assert_eq!(answers("net 2001:db8::/32", &six), "111");
    assert_eq!(answers("host 10.1.2.3", &six), "111");
    assert_eq!(answers("dst net 10.0.0.0/8", &six), "101");
}

#[test]
fn a_test_on_something_unknown_fails() {
    let mut conn = conn("10.0.0.2:1", "10.0.0.3:2");
    conn.transport = Transport::Unix { path: None };
    conn.proc = Rc::new(Proc {
        uid: None,
        ..(*conn.proc).clone()
    });
    assert_eq!(
        answers("net 0.0.0.0/0 or net ::/0 or port 0-65535", &conn),
        "000"
    );
    assert_eq!(answers("uid 0-4294967295", &conn), "000");
    assert_eq!(answers("not port 443", &conn), "111");
}

/// A header of these fields.
fn headers(fields: &[(&str, &str)]) -> Vec<Header> {
    let header = |(name, value): &(&str, &str)| Header {
        name: name.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
    };
    fields.iter().map(header).collect()
}

fn message(part: Part, http: Http, body: &[u8]) -> Message {
    let dir = match part {
        Part::Response => Dir::In,
        _ => Dir::Out,
    };
    let at = At {
        ts: 1_000_000_000,
        tid: 43,
        goid: 0,
    };
    let subject = Rc::new(Subject::Http(http));
    let mut message = Message::begin(Protocol::Http1, part, dir, at, subject);
    message.body = Body {
        kept: body.to_vec(),
        size: body.len() as u64,
        lost: 0,
    };
    message
}

fn request() -> Message {
    let http = Http {
        version: "1.1",
        method: Some(b"POST".to_vec()),
        url: Some(b"https://Api.example.com:8443/v1/users?id=7".to_vec()),
        target: Some(b"/v1/users?id=7".to_vec()),
        host: Some(b"Api.example.com:8443".to_vec()),
        headers: headers(&[
            ("Content-Type", "application/json; charset=utf-8"),
            ("Accept", "text/html"),
            ("accept", "application/json"),
            ("Authorization", "Bearer t0ken"),
        ]),
        ..Http::default()
    };
    message(Part::Request, http, br#"{"token":"abc"}"#)
}

fn response() -> Message {
    let http = Http {
        version: "1.1",
        status: Some(503),
        reason: Some(b"Service Unavailable".to_vec()),
        headers: headers(&[("content-type", "text/plain"), ("retry-after", "7")]),
        ..Http::default()
    };
    let mut message = message(Part::Response, http, &[b'x'; 2048]);
    message.ts = 1_150_000_000;
    message.end = 1_284_000_000;
    message.asked = Some(Rc::new(Asked {
        ts: 1_000_000_000,
        dir: Dir::Out,
        subject: request().subject,
    }));
    message
}

/// Answers for the request, the response, and a read of other bytes, as `101`.
fn of_messages(words: &str) -> String {
    let mut conn = conn("10.0.0.2:43210", "93.184.216.34:443");
    conn.sni = Some("sni.example.com".into());
    conn.alpn = Some("http/1.1".into());
    conn.version = Some(0x0304);
    conn.role = Some(Role::Client);
    let filter = Filter::parse_with(words, &|name| (name == "web").then_some(33)).unwrap();
    let mut answers: Vec<bool> = [request(), response()]
        .iter()
        .map(|message| filter.matches_message(&conn, message))
        .collect();
    answers.push(passes(words, &conn, data(Dir::In)));
    answers
        .iter()
        .map(|&passes| if passes { '1' } else { '0' })
        .collect()
}

fn check(rows: &[(&str, &str)]) {
    for (words, want) in rows {
        assert_eq!(of_messages(words), *want, "{words}");
    }
}

#[test]
fn words_name_what_a_message_is() {
    check(&[
        ("tls", "111"),
        ("http", "110"),
        ("http1", "110"),
        ("http2", "000"),
        ("grpc or ws or sse", "000"),
        ("request", "100"),
        ("response", "010"),
        ("unanswered", "000"),
        ("proto == http1", "110"),
        ("in", "011"),
    ]);
}

#[test]
fn a_response_refers_to_its_request() {
    check(&[
        ("method == POST", "110"),
        ("method == post", "000"),
        ("method in {GET, POST}", "110"),
        ("path == /v1/users", "110"),
        ("path eq \"/v1/users\"", "110"),
        ("query contains id=7", "110"),
        ("url matches \"example\\.com.*/V1/\"", "110"),
        ("http.req.header[\"AUTHORIZATION\"] contains t0ken", "110"),
        ("http.resp.header[retry-after] == 7", "010"),
        ("header[retry-after]", "010"),
        ("method == POST and status == 503", "010"),
    ]);
}

#[test]
fn what_a_message_has_of_its_own_is_its_own() {
    check(&[
        ("status >= 500", "010"),
        ("status in {200, 500..599}", "010"),
        ("status != 200", "010"),
        ("status != 503", "000"),
        ("not status == 200", "111"),
        ("reason contains Unavail", "010"),
        ("type == APPLICATION/json", "100"),
        ("type ~ ^text/", "010"),
        ("http.version == 1.1", "110"),
        ("size > 2047", "010"),
        ("size >= 2k", "010"),
        ("size < 0.5k", "100"),
        ("len == 1", "001"),
        ("http.req.size > 0", "100"),
        ("http.resp.size <= 1M", "010"),
        ("body contains token", "100"),
        ("body matches /TOK.N/i", "100"),
        ("body ~ /(?-i)TOK.N/", "000"),
        ("http.resp.body matches /^x+$/", "010"),
        ("http.req.body contains x", "000"),
        ("payload contains x", "011"),
        ("truncated", "000"),
        ("truncated == false", "111"),
        ("stream", "000"),
    ]);
}

#[test]
fn time_is_from_the_request_to_the_response() {
    check(&[
        ("time > 283ms", "010"),
        ("elapsed >= 0.284s and time <= 284000us", "010"),
        ("time > 1s", "000"),
        ("wait == 150ms", "010"),
        ("http.time lt 1m", "010"),
    ]);
}

#[test]
fn a_host_has_no_case_and_maybe_a_port() {
    check(&[
        ("host == api.example.com", "110"),
        ("host == API.example.com:8443", "110"),
        ("host != api.example.com", "000"),
        ("host != www.example.com", "110"),
        ("host contains example", "110"),
        ("host == sni.example.com", "000"),
        ("host 93.184.216.34", "111"),
        ("sni == SNI.example.com", "111"),
    ]);
    let conn = Conn {
        sni: Some("sni.example.com".into()),
        ..conn("10.0.0.2:1", "10.0.0.3:2")
    };
    let filter = Filter::parse("host == sni.example.com").unwrap();
    let unnamed = message(Part::Request, Http::default(), b"");
    assert!(filter.matches_message(&conn, &unnamed), "named by TLS only");
}

#[test]
fn one_of_several_values_is_enough_and_none_may_be_the_unequal_one() {
    check(&[
        ("http.header[accept] == text/html", "110"),
        ("http.header[accept] == application/json", "110"),
        ("http.header[accept] != text/html", "000"),
        ("http.header[accept] != text/css", "110"),
        ("http.header[absent] != text/css", "000"),
        ("http.header[absent]", "000"),
        ("port == 443", "111"),
        ("port != 443", "000"),
        ("port in {1..442, 444}", "000"),
        ("port in {443, 8443..8450}", "111"),
        ("dst.port == 443", "100"),
        ("src.port == 443", "011"),
        ("ip == 10.0.0.0/8", "111"),
        ("ip.src in {10.0.0.2, ::1}", "100"),
        ("ip.dst != 10.0.0.2", "100"),
    ]);
}

#[test]
fn connections_and_processes_have_fields_too() {
    check(&[
        ("pid == 42 and proc.pid in {1..42}", "111"),
        ("tid == 43", "110"),
        ("uid == web and uid == 33", "111"),
        ("uid != 33", "000"),
        ("comm == \"my prog\"", "111"),
        ("comm matches /^MY/", "111"),
        ("exe", "000"),
        ("exe != /bin/x", "000"),
        ("conn.id == 1", "111"),
        ("role == client", "111"),
        ("role != client", "000"),
        ("dir == in", "011"),
        ("conn.remote == 93.184.216.34:443", "111"),
        ("tls.alpn contains http", "111"),
        ("tls.version == 1.3", "111"),
        ("tls.version >= \"TLS 1.2\"", "111"),
        ("tls.version < TLSv1.3", "000"),
        ("tls.lib == openssl", "111"),
        ("tls.lib in {go, nss}", "000"),
    ]);
}

#[test]
fn a_process_of_which_nothing_can_pass_is_excluded() {
    let process = conn("10.0.0.1:1", "10.0.0.2:2").proc;
    for (words, is_excluded) in [
        ("", false),
        ("pid 42", false),
        ("pid 41", true),
        ("comm my* and port 443", false),
        ("comm curl and port 443", true),
        ("comm curl or port 443", false),
        ("comm curl or pid 7", true),
        ("not comm my*", true),
        ("not (comm curl and status >= 500)", false),
        ("not (uid web or status >= 500)", true),
        ("uid == web and status >= 500", false),
        ("proc.container == 0123456789ab", true),
        ("exe != /bin/x", true),
        ("in", false),
    ] {
        let filter = Filter::parse_with(words, &|name| (name == "web").then_some(33)).unwrap();
        assert_eq!(filter.excludes(&process), is_excluded, "{words}");
    }
}

#[test]
fn a_body_is_looked_at_without_its_encoding() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, b"a long secret token").unwrap();
    let http = Http {
        headers: headers(&[("content-encoding", "gzip")]),
        ..Http::default()
    };
    let message = message(Part::Response, http, &encoder.finish().unwrap());
    let conn = conn("10.0.0.2:1", "10.0.0.3:2");
    let passes = |words| {
        Filter::parse(words)
            .unwrap()
            .matches_message(&conn, &message)
    };
    assert!(passes("body contains \"secret token\" and body ~ /^a/"));
    assert!(!passes("payload contains \"secret token\""));
}

#[test]
fn other_protocols_have_a_line_and_their_responses_a_command() {
    let line = |text: &str| Rc::new(Subject::Line(text.as_bytes().to_vec()));
    let mut reply = Message::begin(
        Protocol::WebSocket,
        Part::Response,
        Dir::In,
        At::default(),
        line("OK"),
    );
    reply.asked = Some(Rc::new(Asked {
        ts: 0,
        dir: Dir::Out,
        subject: line("SET key"),
    }));
    let conn = conn("10.0.0.2:1", "10.0.0.3:2");
    for (words, want) in [
        ("text == OK", true),
        ("command contains SET", true),
        ("text contains SET", false),
        ("http", false),
        ("ws", true),
        ("status != 1", false),
    ] {
        let filter = Filter::parse(words).unwrap();
        assert_eq!(filter.matches_message(&conn, &reply), want, "{words}");
    }
}

#[test]
fn grpc_is_http2_too() {
    let mut reply = response();
    reply.protocol = Protocol::Grpc;
    let mut http = reply.subject.http().unwrap().clone();
    http.trailers = headers(&[("grpc-status", "14")]);
    reply.subject = Rc::new(Subject::Http(http));
    let conn = conn("10.0.0.2:1", "10.0.0.3:2");
    for (words, want) in [
        ("grpc and http2 and http", true),
        ("proto == http2", false),
        ("grpc.status == 14", true),
        ("grpc.status != 0", true),
        ("header[grpc-status] == 14", true),
    ] {
        let filter = Filter::parse(words).unwrap();
        assert_eq!(filter.matches_message(&conn, &reply), want, "{words}");
    }
}

#[test]
fn gaps_and_reads_have_what_they_have() {
    let conn = conn("10.0.0.2:1", "10.0.0.3:2");
    let gap = Kind::Gap {
        dir: Dir::In,
        off: 0,
        len: 100,
        cause: GapCause::Dropped,
    };
    assert!(passes("lost >= 100", &conn, gap));
    assert!(!passes("lost", &conn, data(Dir::In)));
    let cut = Kind::Data(Data {
        dir: Dir::In,
        off: 0,
        len: 9,
        call_len: 9,
        call_off: 0,
        goid: 0,
        bytes: b"abc",
    });
    assert!(passes("truncated and len > 8", &conn, cut));
    assert!(!passes("len", &conn, Kind::Open));
}

#[test]
fn a_filter_knows_what_it_needs() {
    let needs = |words: &str| {
        let filter = Filter::parse(words).unwrap();
        (
            filter.is_of_connections(),
            filter.needs_messages(),
            filter.needs_bodies(),
        )
    };
    for words in ["", "tls", "port 443 and comm == x", "tls.sni or in"] {
        assert_eq!(needs(words), (true, false, false), "{words}");
    }
    for words in ["len > 1", "fn == x", "not truncated"] {
        assert_eq!(needs(words), (false, false, false), "{words}");
    }
    for words in ["http", "response", "pid 1 or not status == 200", "ws"] {
        assert_eq!(needs(words), (false, true, false), "{words}");
    }
    assert_eq!(needs("payload contains x"), (false, false, true));
    assert_eq!(needs("not (in or body)"), (false, true, true));
}
