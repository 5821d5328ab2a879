//! The comparison that the real-program tests rest on fails when it must.

mod lab;

use lab::capture::crc32;
use lab::{Capture, Checks, Truth, oracle};
use serde_json::{Value, json};
use std::panic::catch_unwind;

/// What makes a right capture wrong.
type Fault = fn(&mut Vec<Value>);

const SENT: &[u8] = b"question \x00\xff";
const RECEIVED: &[u8] = b"answer";

fn truth() -> Truth {
    let books = json!({
        "name": "test", "pid": 7, "role": "client", "transport": "tcp",
        "local": "127.0.0.1:1000", "remote": "127.0.0.1:443",
        "version": "1.3", "sni": "lab.test", "alpn": "",
        "out": {"len": SENT.len(), "crc": crc32(SENT)},
        "in": {"len": RECEIVED.len(), "crc": crc32(RECEIVED)},
    });
    Truth::parse_all(&books.to_string()).remove(0)
}

fn line(kind: &str, more: Value) -> Value {
    let mut line = json!({
        "v": 1, "type": kind, "ts": "2026-11-22T12:31:04.118203456Z",
        "proc": {"pid": 7, "tid": 7, "comm": "odd"},
        "conn": {"id": 1, "local": "127.0.0.1:1000", "remote": "127.0.0.1:443", "role": "client"},
        "tls": {"lib": "openssl", "version": "1.3", "sni": "lab.test"},
    });
    for (name, value) in more.as_object().unwrap() {
        line[name] = value.clone();
    }
    line
}

/// A capture that is right: two pieces out, one in.
fn lines() -> Vec<Value> {
    let data = |dir: &str, off: usize, len: usize, data: Value| {
        let more = json!({"dir": dir, "off": off, "len": len, "data": data, "truncated": false});
        line("data", more)
    };
    vec![
        line("open", json!({})),
        data("out", 0, 9, json!({"text": "question "})),
        data("out", 9, 2, json!({"bytes": "AP8="})),
        data("in", 0, 6, json!({"text": "answer"})),
        line("close", json!({})),
        json!({"v": 1, "type": "stats", "captured": 3, "shown": 3, "dropped": 0,
               "dropped_bytes": 0, "truncated": 0}),
    ]
}

fn is_accepted(lines: &[Value]) -> bool {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    catch_unwind(|| {
        let capture = Capture::parse(&text);
        oracle::assert_equal(&capture, &[truth()], Checks::default());
        capture.assert_complete();
    })
    .is_ok()
}

#[test]
fn a_right_capture_is_accepted() {
    assert!(is_accepted(&lines()));
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn every_single_fault_is_found() {
    let faults: [(&str, Fault); 17] = [
        ("a changed byte", |lines| {
            lines[3]["data"]["text"] = "Answer".into()
        }),
        ("a lost line", |lines| drop(lines.remove(3))),
        ("a lost piece", |lines| drop(lines.remove(1))),
        ("a doubled line", |lines| lines.insert(3, lines[3].clone())),
        ("swapped lines", |lines| lines.swap(1, 2)),
        ("the wrong direction", |lines| {
            lines[3]["dir"] = "out".into()
        }),
        ("a wrong address", |lines| {
            for line in &mut lines[..5] {
                line["conn"]["local"] = "127.0.0.1:1001".into();
            }
        }),
        ("no address", |lines| {
            for line in &mut lines[..5] {
                line["conn"].as_object_mut().unwrap().remove("remote");
            }
        }),
        ("a fact that changes", |lines| {
            lines[2]["tls"]["version"] = "1.2".into()
        }),
        ("a wrong role", |lines| {
            for line in &mut lines[..5] {
                line["conn"]["role"] = "server".into();
            }
        }),
        ("an alpn nobody agreed on", |lines| {
            lines[1]["tls"]["alpn"] = "h2".into()
        }),
        ("a gap", |lines| {
            lines[3] = line(
                "gap",
                json!({"dir": "in", "off": 0, "lost": 6, "cause": "dropped"}),
            );
        }),
        ("a cut payload", |lines| {
            lines[3]["data"]["text"] = "ans".into();
            lines[3]["truncated"] = true.into();
        }),
        ("data after the end", |lines| lines.swap(3, 4)),
        ("a connection too many", |lines| {
            let mut more = lines[3].clone();
            more["conn"]["id"] = 2.into();
            lines.insert(4, more);
        }),
        ("another process", |lines| {
            for line in &mut lines[..5] {
                line["proc"]["pid"] = 8.into();
            }
        }),
        ("no statistics", |lines| drop(lines.pop())),
    ];
    for (name, make) in faults {
        let mut lines = lines();
        make(&mut lines);
        assert!(!is_accepted(&lines), "{name} is not found");
    }
}
