//! Exchanges for tests.

use super::history::Bounds;
use super::processes::Processes;
use super::state::{Source, State};
use crate::event::{Conn, Data, Dir, Event, Flavor, Kind, Lib, Nanos, Proc, Role, Transport};
use crate::filter::Filter;
use crate::proto::message::{Header, Subject};
use crate::proto::{Asked, Body, Http, Message, Part, Protocol};
use std::rc::Rc;

pub const SECOND: Nanos = 1_000_000_000;

pub fn conn(id: u64) -> Conn {
    Conn {
        id,
        proc: Rc::new(Proc {
            pid: 4242,
            comm: "curl".to_owned(),
            exe: Some("/usr/bin/curl".to_owned()),
            uid: Some(1000),
            own_pid: None,
            container: None,
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: "/usr/lib/libssl.so.3".to_owned(),
            version: Some("OpenSSL 3.0.17 1 Jul 2025".to_owned()),
        }),
        transport: Transport::Tcp {
            local: "10.0.0.2:43210".parse().unwrap(),
            remote: "192.0.2.1:443".parse().unwrap(),
        },
        addr_source: None,
        unseen: None,
        role: Some(Role::Client),
        version: Some(0x0304),
        sni: Some("api.example.com".to_owned()),
        alpn: Some("http/1.1".to_owned()),
    }
}

pub fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

pub fn message(part: Part, ts: Nanos, subject: Http, body: &[u8]) -> Message {
    Message {
        ts,
        end: ts + 500_000,
        tid: 4242,
        goid: 0,
        dir: if part == Part::Request {
            Dir::Out
        } else {
            Dir::In
        },
        protocol: Protocol::Http1,
        part,
        stream: None,
        subject: Rc::new(Subject::Http(subject)),
        body: Body {
            kept: body.to_vec(),
            size: body.len() as u64,
            lost: 0,
        },
        asked: None,
        is_cut: false,
    }
}

pub fn request(ts: Nanos, method: &str, path: &str, body: &[u8]) -> Message {
    let http = Http {
        version: "1.1",
        method: Some(method.into()),
        url: Some(format!("https://api.example.com{path}").into()),
        target: Some(path.into()),
        host: Some(b"api.example.com".to_vec()),
        headers: vec![header("Host", "api.example.com"), header("Accept", "*/*")],
        ..Http::default()
    };
    message(Part::Request, ts, http, body)
}

pub fn response(to: &Message, after: Nanos, status: u16, kind: &str, body: &[u8]) -> Message {
    let http = Http {
        version: "1.1",
        status: Some(status),
        reason: Some(b"Whatever".to_vec()),
        headers: vec![header("Content-Type", kind)],
        ..Http::default()
    };
    let mut response = message(Part::Response, to.ts + after, http, body);
    response.asked = Some(Rc::new(Asked::new(to.ts, to.dir, Rc::clone(&to.subject))));
    response
}

pub fn data<'a>(conn: &'a Conn, ts: Nanos, data: Data<'a>) -> Event<'a> {
    Event {
        ts,
        conn,
        tid: 1,
        func: "SSL_write",
        kind: Kind::Data(data),
    }
}

pub fn piece(dir: Dir, bytes: &[u8]) -> Data<'_> {
    Data {
        dir,
        off: 0,
        len: bytes.len() as u64,
        call_len: bytes.len() as u64,
        call_off: 0,
        goid: 0,
        bytes,
    }
}

pub fn state(bounds: Bounds, kept: Option<&str>) -> State {
    let kept = kept.map(|words| Filter::parse(words).unwrap());
    let mut state = State::new(bounds, kept, Processes::new(None));
    state.source = Source::Ended;
    state.follows = false;
    state
}

/// A few exchanges of each kind.
pub fn filled() -> State {
    let mut state = state(Bounds::default(), None);
    let conn = Rc::new(conn(17));
    let history = &mut state.history;
    let get = request(SECOND, "GET", "/v1/users?id=7&q=a", b"");
    let json = br#"{"id":7,"name":"Ann \u001b[2J","ok":true,"list":[1.5,null]}"#;
    history.message(&conn, &get);
    history.message(
        &conn,
        &response(&get, 12_000_000, 200, "application/json", json),
    );
    let post = request(2 * SECOND, "POST", "/v1/users", b"a=\x1b]0;x\x07b");
    history.message(&conn, &post);
    history.message(
        &conn,
        &response(
            &post,
            1_500_000_000,
            503,
            "text/html",
            "漢字 down\n".as_bytes(),
        ),
    );
    let hostile = request(3 * SECOND, "GET", "/\u{202e}evil\x1b[31m/\u{1f513}", b"");
    history.message(&conn, &hostile);
    for number in 0..30 {
        let get = request(4 * SECOND + number, "GET", &format!("/page/{number}"), b"");
        history.message(&conn, &get);
        history.message(&conn, &response(&get, 900_000, 404, "text/plain", b"no"));
    }
    let raw = Rc::new(self::conn(18));
    for (dir, bytes) in [(Dir::Out, b"hello\x1b[2J".as_slice()), (Dir::In, b"world")] {
        let event = data(&raw, 5 * SECOND, piece(dir, bytes));
        if let Kind::Data(data) = event.kind {
            history.bytes_of(&raw, &event, &data);
        }
    }
    for number in 1..history.next() {
        state.summary.add(state.history.get(number).unwrap());
    }
    state
}
