//! How long a filter takes for a message (`cargo bench --bench filter`).

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::rc::Rc;
use tlssniff::event::{Conn, Dir, Flavor, Lib, Proc, Role, Transport};
use tlssniff::filter::Filter;
use tlssniff::proto::message::Header;
use tlssniff::proto::{Asked, At, Body, Http, Message, Part, Protocol, Subject};

/// From what is the same for a connection to what looks at every byte of a body.
const FILTERS: &[&str] = &[
    "port 443",
    "status >= 500",
    "method == POST and path contains /api and status in {500..599}",
    "http.resp.header[content-type] == text/plain",
    "host == api.example.com",
    "path matches /^\\/api\\/v[12]/",
    "body contains nowhere",
    "body matches /no.?where/",
];

fn conn() -> Conn {
    Conn {
        id: 1,
        proc: Rc::new(Proc {
            pid: 4242,
            comm: "server".into(),
            ..Proc::default()
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: String::new(),
            version: None,
        }),
        transport: Transport::Tcp {
            local: ([10, 0, 0, 1], 443).into(),
            remote: ([10, 0, 0, 2], 43210).into(),
        },
        addr_source: None,
        unseen: None,
        role: Some(Role::Server),
        version: Some(0x0304),
        sni: None,
        alpn: None,
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

/// The answer to a request, with eight header fields and 2 KiB of text.
fn response() -> Message {
    let url = "https://api.example.com/api/v1/users?id=7";
    let request = Http {
        version: "1.1",
        method: Some("POST".into()),
        url: Some(url.into()),
        target: Some("/api/v1/users?id=7".into()),
        host: Some("api.example.com".into()),
        headers: vec![header("accept", "*/*"), header("user-agent", "curl/8.14")],
        ..Http::default()
    };
    let response = Http {
        version: "1.1",
        status: Some(503),
        headers: ["date", "server", "vary", "etag", "age", "via", "p3p"]
            .map(|name| header(name, "what stands in such a field"))
            .into_iter()
            .chain([header("content-type", "text/plain")])
            .collect(),
        ..Http::default()
    };
    let subject = Rc::new(Subject::Http(response));
    let at = At::default();
    let mut message = Message::begin(Protocol::Http1, Part::Response, Dir::Out, at, subject);
    let kept = b"the quick brown fox jumps over the lazy dog ".repeat(47);
    message.body = Body {
        size: kept.len() as u64,
        kept,
        lost: 0,
    };
    message.asked = Some(Rc::new(Asked::new(
        0,
        Dir::In,
        Rc::new(Subject::Http(request)),
    )));
    message
}

fn messages(criterion: &mut Criterion) {
    let (conn, message) = (conn(), response());
    let mut group = criterion.benchmark_group("filter");
    for words in FILTERS {
        let filter = Filter::parse(words).expect("a filter");
        group.bench_function(*words, |bencher| {
            bencher.iter(|| black_box(&filter).matches_message(&conn, black_box(&message)));
        });
    }
}

criterion_group!(benches, messages);
criterion_main!(benches);
