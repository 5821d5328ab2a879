//! The line of a message, and its head and body below.

use super::{Line, Mark, TextSink, charset, styled};
use crate::event::{Conn, Dir, Nanos};
use crate::proto::body::{self, Decoded};
use crate::proto::message::{Header, Subject};
use crate::proto::protobuf;
use crate::proto::{Http, Message, Part, Protocol};
use crate::sink::color::Style;
use crate::sink::escape;
use std::io::Write;

/// Indents what belongs to the line above.
const INDENT: &str = "\t";
/// JSON is indented up to here; who sends more wants no reader.
const MAX_JSON: usize = 1 << 20;

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
    let decoded = match message.subject.http() {
        Some(http) => body::decode(http, &message.body),
        None => Decoded {
            bytes: message.body.kept.clone(),
            is_cut: !message.body.is_whole(),
            undone: None,
        },
    };
    if message.protocol == Protocol::Grpc {
        grpc_messages(out, &decoded.bytes);
    } else if let Some(coding) = &decoded.undone {
        let mut line = format!("({} bytes, not decoded: ", decoded.bytes.len()).into_bytes();
        line.extend_from_slice(coding);
        line.push(b')');
        indented(out, &line);
    } else if let Some(json) = json(message, &decoded) {
        escape::lines(out, &json, INDENT);
    } else if let Some(text) = message
        .subject
        .http()
        .and_then(|http| charset::decode(http, &decoded.bytes))
    {
        escape::lines(out, text.as_bytes(), INDENT);
    } else if is_text(&decoded.bytes) {
        escape::lines(out, &decoded.bytes, INDENT);
    } else {
        let line = format!("({} bytes that are no text)", decoded.bytes.len());
        indented(out, line.as_bytes());
    }
    if decoded.is_cut {
        indented(out, b"[|body]");
    }
}

/// Each message of a gRPC body, by the numbers of its fields.
fn grpc_messages(out: &mut Vec<u8>, body: &[u8]) {
    for (is_compressed, bytes) in protobuf::grpc_messages(body) {
        let fields = protobuf::fields(bytes).filter(|_| !is_compressed);
        let kind = match (is_compressed, &fields) {
            (true, _) => "compressed message",
            (false, Some(_)) => "message",
            (false, None) => "message that is no Protocol Buffers",
        };
        indented(out, format!("({kind} of {} bytes)", bytes.len()).as_bytes());
        match fields {
            Some(fields) => escape::lines(out, fields.as_bytes(), INDENT),
            None if is_text(bytes) => escape::lines(out, bytes, INDENT),
            None => {}
        }
    }
}

/// The body with line breaks, when it is JSON.
fn json(message: &Message, decoded: &Decoded) -> Option<Vec<u8>> {
    let kind = message.subject.http().and_then(Http::content_type);
    let may_be = match kind {
        Some(kind) => kind.to_ascii_lowercase().ends_with(b"json"),
        None => matches!(decoded.bytes.first(), Some(b'{' | b'[')),
    };
    if !may_be || decoded.is_cut || decoded.bytes.len() > MAX_JSON {
        return None;
    }
    serde_json::from_slice::<serde_json::Value>(&decoded.bytes).ok()?;
    Some(broken(&decoded.bytes))
}

/// JSON with line breaks, and everything else as it was: numbers too long for us, the order of
/// keys, and how a string was escaped.
fn broken(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth.min(64) * 2));
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(end) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

/// UTF-8, or at least nothing that only files have.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: &&u8| **byte < 0x20 && !matches!(**byte, b'\n' | b'\r' | b'\t' | 0x1b);
    !bytes.contains(&0) && bytes.iter().filter(is_control).count() * 20 <= bytes.len()
}
