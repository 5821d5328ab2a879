//! Any text is a filter or an error with a column inside it; neither parsing nor matching panics,
//! on an event or on a request and its response.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::rc::Rc;
use tlssniff::event::{Conn, Data, Dir, Event, Flavor, Kind, Lib, Proc, Transport};
use tlssniff::filter::{Filter, glob_match};
use tlssniff::proto::message::Header;
use tlssniff::proto::{Asked, At, Body, Http, Message, Part, Protocol, Subject};

/// A request or a response of HTTP.
fn message(part: Part, http: Http) -> Message {
    let subject = Rc::new(Subject::Http(http));
    let mut message = Message::begin(Protocol::Http1, part, Dir::Out, At::default(), subject);
    message.body = Body { kept: b"{\"token\":1}".to_vec(), size: 11, lost: 0 };
    message
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.into(), value: value.into() }
}

fuzz_target!(|words: &str| {
    let filter = match Filter::parse_with(words, &|name| u32::try_from(name.len()).ok()) {
        Ok(filter) => filter,
        Err(error) => {
            assert!((1..=words.chars().count() + 1).contains(&error.column));
            let _ = error.marked(words);
            return;
        }
    };
    let conn = Conn {
        id: 1,
        proc: Rc::new(Proc { pid: 42, comm: "curl".into(), exe: None, uid: Some(0), ..Proc::default() }),
        lib: Rc::new(Lib { flavor: Flavor::OpenSsl, path: String::new(), version: None }),
        transport: Transport::Tcp {
            local: ([127, 0, 0, 1], 443).into(),
            remote: ([0, 0, 0, 0, 0, 0, 0, 1], 50000).into(),
        },
        addr_source: None,
        unseen: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    };
    let data = Data { dir: Dir::Out, off: 0, len: 1, call_len: 1, call_off: 0, goid: 0, bytes: b"x" };
    for kind in [Kind::Open, Kind::Data(data)] {
        filter.matches(&Event { ts: 0, conn: &conn, tid: 0, func: "", kind });
    }
    let asked = message(Part::Request, Http {
        version: "1.1",
        method: Some(b"GET".to_vec()),
        url: Some(b"https://a.example/b?c=d".to_vec()),
        target: Some(b"/b?c=d".to_vec()),
        host: Some(b"a.example:443".to_vec()),
        headers: vec![header("accept", "text/html")],
        ..Http::default()
    });
    let mut answer = message(Part::Response, Http {
        version: "1.1",
        status: Some(200),
        headers: vec![header("content-type", "text/plain"), header("content-encoding", "gzip")],
        ..Http::default()
    });
    let subject = Rc::clone(&asked.subject);
    answer.asked = Some(Rc::new(Asked::new(0, Dir::Out, subject)));
    for message in [&asked, &answer] {
        filter.matches_message(&conn, message);
    }
    let _ = glob_match(words, "curl");
    let _ = glob_match("c*[a-z]?l", words);
});
