//! The line of a message, and its head and body below.

use super::{Line, Mark, TextSink, styled};
use crate::event::{Conn, Dir, Nanos};
use crate::proto::message::{Header, Subject};
use crate::proto::{Http, Message, Part, Protocol};
use crate::sink::color::Style;
use crate::sink::content::{self, Piece};
use crate::sink::escape;
use std::io::Write;

/// Indents what belongs to the line above.
const INDENT: &str = "\t";

impl<W: Write> TextSink<W> {
    /// Appends the message.
    pub(super) fn show(&mut self, conn: &Conn, message: &Message) {
        let mark = match (message.part, message.dir) {
            (Part::Unanswered, _) => Mark::Trouble,
            (Part::Request, _) => Mark::Out,
            (Part::Response, _) => Mark::In,
            (Part::Single, Dir::Out) => Mark::Out,
            (Part::Single, Dir::In) => Mark::In,
        };
        self.begin_line(Line {
            ts: message.ts,
            conn,
            dir: message.dir,
            protocol: label(conn, message),
            mark,
        });
        let color = self.options.color;
        let out = self.output.buf();
        match &*message.subject {
            Subject::Http(http) => match message.part {
                Part::Response => response(out, message, http, color),
                Part::Unanswered => {
                    out.extend_from_slice(b" no response to ");
                    request_name(out, http);
                }
                Part::Request | Part::Single => {
                    out.push(b' ');
                    request_name(out, http);
                    content(out, message, http);
                }
            },
            Subject::Line(line) => line_message(out, message, line),
        }
        if message.is_cut {
            let _ = write!(out, " [|{}]", message.protocol.name());
        }
        if message.body.lost > 0 {
            let _ = write!(out, " {}B lost", message.body.lost);
        }
        out.push(b'\n');
        if message.part != Part::Unanswered {
            self.parts(message);
        }
    }

    fn parts(&mut self, message: &Message) {
        let is_request = match message.part {
            Part::Request | Part::Unanswered => true,
            Part::Response => false,
            // It goes the way of the request that it belongs to, or the other.
            Part::Single => message
                .asked
                .as_ref()
                .is_some_and(|asked| asked.dir == message.dir),
        };
        let parts = if is_request {
            self.options.request
        } else {
            self.options.response
        };
        let (headers, shows_body) = (parts.head, parts.body);
        let out = self.output.buf();
        let http = message.subject.http();
        if let Some(http) = http.filter(|_| headers) {
            head(out, http);
        }
        if shows_body && message.body.size > 0 {
            if headers && http.is_some() {
                out.extend_from_slice(INDENT.as_bytes());
                out.push(b'\n');
            }
            show_body(out, message);
        }
        if let Some(http) = http.filter(|http| headers && !http.trailers.is_empty()) {
            fields(out, &http.trailers);
        }
    }
}

/// The protocol column: what was negotiated, unless the content says more.
fn label<'a>(conn: &'a Conn, message: &Message) -> &'a str {
    let alpn = conn.alpn.as_deref().filter(|alpn| !alpn.is_empty());
    match (message.protocol, message.subject.http()) {
        (Protocol::Http1 | Protocol::Http2, Some(http)) => alpn.unwrap_or(match http.version {
            "1.0" => "http/1.0",
            _ => message.protocol.label(),
        }),
        _ => message.protocol.label(),
    }
}

/// A message of a protocol that has one line to tell of it.
fn line_message(out: &mut Vec<u8>, message: &Message, line: &[u8]) {
    out.push(b' ');
    if message.part == Part::Unanswered {
        out.extend_from_slice(b"no response to ");
    }
    escape::line(out, line);
    if message.body.size > 0 {
        let _ = write!(out, " {}B", message.body.size);
    }
    if message.part != Part::Response {
        return;
    }
    if let Some(asked) = &message.asked
        && let Subject::Line(line) = &*asked.subject
    {
        out.extend_from_slice(b" to ");
        escape::line(out, line);
    }
    if let Some(elapsed) = message.elapsed() {
        out.push(b' ');
        duration(out, elapsed);
    }
}

fn request_name(out: &mut Vec<u8>, http: &Http) {
    escape::token(out, http.method.as_deref().unwrap_or(b"?"));
    out.push(b' ');
    escape::token(out, http.url.as_deref().unwrap_or(b"?"));
}

fn response(out: &mut Vec<u8>, message: &Message, http: &Http, color: bool) {
    out.push(b' ');
    let style = match http.status.map(|status| status / 100) {
        Some(2) => Style::Out,
        Some(3) => Style::In,
        Some(4) => Style::Connection,
        Some(5) => Style::Trouble,
        _ => Style::Time,
    };
    styled(out, color, style, |out| match http.status {
        Some(status) => {
            let _ = write!(out, "{status}");
        }
        None => out.push(b'?'),
    });
    if let Some(request) = message.request() {
        out.push(b' ');
        request_name(out, request);
    }
    content(out, message, http);
    let grpc = http.trailer("grpc-status").or(http.header("grpc-status"));
    if let Some(status) = grpc {
        out.extend_from_slice(b" grpc-status ");
        escape::token(out, status);
    }
    if let Some(elapsed) = message.elapsed() {
        out.push(b' ');
        duration(out, elapsed);
    }
}

/// Type and size of the content, when there is any.
fn content(out: &mut Vec<u8>, message: &Message, http: &Http) {
    let size = message.body.size;
    if size == 0 && http.grpc_messages == 0 {
        dns(out, http);
        return;
    }
    if let Some(kind) = http.content_type() {
        out.push(b' ');
        escape::token(out, kind);
    }
    if size > 0 {
        let _ = write!(out, " {size}B");
    }
    if http.grpc_messages > 1 {
        let _ = write!(out, " {} messages", http.grpc_messages);
    }
    dns(out, http);
}

/// What a message of DNS over HTTPS asks or answers.
fn dns(out: &mut Vec<u8>, http: &Http) {
    if let Some(line) = &http.dns {
        out.push(b' ');
        escape::line(out, line);
    }
}

/// Three digits, or whole milliseconds and seconds, so that a column can be sorted by eye.
fn duration(out: &mut Vec<u8>, time: Nanos) {
    let _ = match time {
        0..1_000_000 => write!(out, "{}us", time / 1000),
        1_000_000..10_000_000 => {
            let tenths = time / 100_000;
            write!(out, "{}.{}ms", tenths / 10, tenths % 10)
        }
        10_000_000..10_000_000_000 => write!(out, "{}ms", time / 1_000_000),
        _ => write!(out, "{}s", time / 1_000_000_000),
    };
}

/// As it would stand in HTTP/1, whatever the version.
fn head(out: &mut Vec<u8>, http: &Http) {
    let mut line = Vec::new();
    match http.status {
        Some(status) => {
            let _ = write!(line, "HTTP/{} {status}", http.version);
            if let Some(reason) = &http.reason {
                line.push(b' ');
                line.extend_from_slice(reason);
            }
        }
        None => {
            line.extend_from_slice(http.method.as_deref().unwrap_or(b"?"));
            line.push(b' ');
            line.extend_from_slice(http.target.as_deref().unwrap_or(b"?"));
            let _ = write!(line, " HTTP/{}", http.version);
        }
    }
    indented(out, &line);
    if let Some(host) = http.host.as_ref().filter(|_| http.header("host").is_none()) {
        indented(out, &[b"host: ", host.as_slice()].concat());
    }
    fields(out, &http.headers);
}

fn fields(out: &mut Vec<u8>, headers: &[Header]) {
    for header in headers {
        indented(
            out,
            &[&header.name, b": ".as_slice(), &header.value].concat(),
        );
    }
}

fn indented(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(INDENT.as_bytes());
    escape::line(out, line);
    out.push(b'\n');
}

fn show_body(out: &mut Vec<u8>, message: &Message) {
    for piece in content::readable(message) {
        match piece {
            Piece::Note(note) => indented(out, &note),
            Piece::Json(text) | Piece::Text(text) => escape::lines(out, &text, INDENT),
        }
    }
}
