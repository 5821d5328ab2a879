//! The line of a message.
//!
//! Beside `v`, `ts`, `proc`, `conn` and `tls`, which every line has:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `type` | string | `request`, `response`, `message` (neither), `unanswered` (a request) |
//! | `ts` | string | of the first byte; of `unanswered`, when that was certain |
//! | `dir` | string | `in` read, `out` written |
//! | `proto` | string | `http1`, `http2`, `grpc`, `ws`, `sse`, `postgres`, `redis`, `mysql`, `smtp`, `imap`, `mqtt`, `mongo`, `kafka`, `amqp`, `dns`, `ldap`, `ftp`, `pop3` |
//! | `stream` | number | stream of HTTP/2 |
//! | `http.version` | string | `1.0`, `1.1`, `2` |
//! | `http.method`, `http.url`, `http.host` | string | of a request |
//! | `http.status`, `http.reason` | number, string | of a response |
//! | `http.headers`, `http.trailers` | array | pairs of name and value, in order |
//! | `http.unknown` | number | fields that HTTP/2 referred to and that passed before the capture |
//! | `http.grpc_messages` | number | gRPC messages in the body; those of a stream have been told before, each by itself |
//! | `http.dns` | string | of DNS over HTTPS: the question, or the answer |
//! | `text` | string | the message in one line, of other protocols: a command, an event's type |
//! | `body.text`, `body.bytes` | string | content, decoded; in base64 where it is not UTF-8 |
//! | `encoding` | string | a content coding that could not be undone: `body` is still in it |
//! | `size` | number | bytes of the content as transferred |
//! | `lost` | number | bytes of it that were not captured |
//! | `cut` | boolean | `body` is not all of it |
//! | `truncated` | boolean | the message's end was not seen, or bytes of it are missing |
//! | `request.ts`, `.method`, `.url`, `.text` | string | of a response: what it answers, when known |
//! | `wait_us`, `time_us` | number | from the request's first byte to the response's first, last |

use super::{Object, connection, dir_name, process, tls};
use crate::event::Conn;
use crate::proto::body;
use crate::proto::message::{Header, Subject};
use crate::proto::{Http, Message, Part};
use crate::sink::escape::json_string;
use crate::time::rfc3339;

/// Appends the line.
pub fn write(out: &mut Vec<u8>, conn: &Conn, message: &Message) {
    let mut object = Object::begin(out);
    object.number("v", 1);
    object.text("type", type_name(message.part));
    time(&mut object, "ts", message.ts);
    process(&mut object, conn, message.tid, message.goid);
    connection(&mut object, conn);
    tls(&mut object, conn);
    object.text("dir", dir_name(message.dir));
    object.text("proto", message.protocol.name());
    object.optional_number("stream", message.stream.map(u64::from));
    match &*message.subject {
        Subject::Http(http) => head(&mut object, http),
        Subject::Line(line) => object.lossy("text", line),
    }
    if message.part != Part::Unanswered {
        content(&mut object, message);
    }
    if message.part == Part::Response {
        answer(&mut object, message);
    }
    object.end();
    out.push(b'\n');
}

fn type_name(part: Part) -> &'static str {
    match part {
        Part::Request => "request",
        Part::Response => "response",
        Part::Single => "message",
        Part::Unanswered => "unanswered",
    }
}

fn time(object: &mut Object<'_>, name: &str, ts: u64) {
    object.key(name).push(b'"');
    rfc3339(object.out, ts);
    object.out.push(b'"');
}

fn head(object: &mut Object<'_>, http: &Http) {
    let mut inner = object.object("http");
    inner.text("version", http.version);
    inner.optional_lossy("method", http.method.as_deref());
    if http.status.is_none() {
        inner.optional_lossy("url", http.url.as_deref());
        inner.optional_lossy("host", http.host.as_deref());
    }
    inner.optional_number("status", http.status.map(u64::from));
    inner.optional_lossy("reason", http.reason.as_deref());
    pairs(&mut inner, "headers", &http.headers);
    if !http.trailers.is_empty() {
        pairs(&mut inner, "trailers", &http.trailers);
    }
    let some = |number: u64| (number > 0).then_some(number);
    inner.optional_number("unknown", some(http.unknown_fields.into()));
    inner.optional_number("grpc_messages", some(http.grpc_messages));
    inner.optional_lossy("dns", http.dns.as_deref());
    inner.end();
}

fn pairs(object: &mut Object<'_>, name: &str, headers: &[Header]) {
    let out = object.key(name);
    out.push(b'[');
    for (at, header) in headers.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",[" } else { b"[" });
        json_string(out, &String::from_utf8_lossy(&header.name));
        out.push(b',');
        json_string(out, &String::from_utf8_lossy(&header.value));
        out.push(b']');
    }
    out.push(b']');
}

fn content(object: &mut Object<'_>, message: &Message) {
    let body = &message.body;
    if !body.kept.is_empty() {
        let is_cut = match message.subject.http() {
            Some(http) => {
                let decoded = body::decode(http, body);
                object.bytes("body", &decoded.bytes);
                object.optional_lossy("encoding", decoded.undone.as_deref());
                decoded.is_cut
            }
            None => {
                object.bytes("body", &body.kept);
                !body.is_whole()
            }
        };
        object.flag("cut", is_cut);
    }
    object.number("size", body.size);
    object.optional_number("lost", (body.lost > 0).then_some(body.lost));
    object.flag("truncated", message.is_cut);
}

fn answer(object: &mut Object<'_>, message: &Message) {
    let Some(asked) = &message.asked else {
        return;
    };
    let mut inner = object.object("request");
    time(&mut inner, "ts", asked.ts);
    match &*asked.subject {
        Subject::Http(http) => {
            inner.optional_lossy("method", http.method.as_deref());
            inner.optional_lossy("url", http.url.as_deref());
        }
        Subject::Line(line) => inner.lossy("text", line),
    }
    inner.end();
    let micros = |time: Option<u64>| time.map(|time| time / 1000);
    object.optional_number("wait_us", micros(message.waited()));
    object.optional_number("time_us", micros(message.elapsed()));
}
