//! The details of an exchange as lines: request, response, connection and process, bytes.

use super::exchange::{Exchange, Piece, Stage};
use super::row::{look_of, time_of_day};
use super::text::{Line, Look, compare, contains, duration, lines};
use crate::event::{Dir, Role, Transport};
use crate::proto::message::Header;
use crate::proto::{Http, Message, Part, Protocol};
use crate::sink::content::{self, Piece as Content};
use crate::sink::hexdump::hexdump;

/// Lines of one tab; what is longer is for a file (export).
const MAX_LINES: usize = 50_000;
/// Bytes of one line.
const MAX_LINE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    Request,
    #[default]
    Response,
    Connection,
    Bytes,
}

impl Tab {
    pub const ALL: [Tab; 4] = [Tab::Request, Tab::Response, Tab::Connection, Tab::Bytes];

    pub fn title(self) -> &'static str {
        match self {
            Tab::Request => "Request",
            Tab::Response => "Response",
            Tab::Connection => "Connection",
            Tab::Bytes => "Bytes",
        }
    }

    pub fn next(self, back: bool) -> Tab {
        let at = Tab::ALL.iter().position(|&tab| tab == self).unwrap_or(0);
        let step = if back { Tab::ALL.len() - 1 } else { 1 };
        Tab::ALL
            .get((at + step) % Tab::ALL.len())
            .copied()
            .unwrap_or_default()
    }
}

/// The lines of a tab.
pub fn of(exchange: &Exchange, tab: Tab) -> Vec<Line> {
    let mut lines = match tab {
        Tab::Request => side(exchange, &exchange.request),
        Tab::Response => side(exchange, &exchange.response),
        Tab::Connection => connection(exchange),
        Tab::Bytes => bytes(exchange),
    };
    if lines.len() >= MAX_LINES {
        lines.truncate(MAX_LINES);
        lines.push(Line::new(
            "(more than can be shown: x saves all of it)",
            Look::Warning,
        ));
    }
    lines
}

fn side(exchange: &Exchange, message: &Option<Message>) -> Vec<Line> {
    let is_request = std::ptr::eq(message, &exchange.request);
    let Some(message) = message else {
        let mut out = Vec::new();
        let note = match (is_request, exchange.stage) {
            _ if exchange.is_bytes() => "No known protocol: see the bytes (tab)",
            (false, Stage::Open) => "No response yet",
            (false, _) => "No response was seen",
            (true, _) => "The request was not seen, or not kept",
        };
        out.push(Line::new(note, Look::Dim));
        // A response knows what it answers.
        if let Some(http) = exchange.asked().filter(|_| is_request) {
            out.push(Line::default());
            head(&mut out, http, "http.req.header");
        }
        return out;
    };
    if message.part == Part::Unanswered {
        return vec![Line::new("There will be no response", Look::Bad)];
    }
    let mut out = Vec::new();
    match message.subject.http() {
        Some(http) => {
            let field = match http.status {
                Some(_) => "http.resp.header",
                None => "http.req.header",
            };
            head(&mut out, http, field);
        }
        None => {
            let line = message.subject.line().unwrap_or_default();
            let filter = compare("text", line);
            out.push(Line::default().and_bytes(line, Look::Bold).filtered(filter));
        }
    }
    if message.body.size > 0 {
        out.push(Line::default());
        for piece in content::readable(message) {
            body(&mut out, piece);
        }
    }
    if message.body.lost > 0 {
        let note = format!("({} bytes of it were lost)", message.body.lost);
        out.push(Line::new(&note, Look::Bad));
    }
    if message.is_cut {
        let note = format!("[|{}] it is not complete", message.protocol.name());
        out.push(Line::new(&note, Look::Bad));
    }
    if let Some(http) = message
        .subject
        .http()
        .filter(|http| !http.trailers.is_empty())
    {
        out.push(Line::default());
        fields(&mut out, &http.trailers, "http.resp.header");
    }
    out
}

/// As it would stand in HTTP/1, whatever the version.
fn head(out: &mut Vec<Line>, http: &Http, field: &str) {
    let version = format!("HTTP/{}", http.version);
    match http.status {
        Some(status) => {
            let filter = Some(format!("status == {status}"));
            out.push(
                Line::new(&version, Look::Dim)
                    .and(" ", Look::Plain)
                    .and(&status.to_string(), look_of(status))
                    .and(" ", Look::Plain)
                    .and_bytes(http.reason.as_deref().unwrap_or_default(), Look::Plain)
                    .filtered(filter),
            );
        }
        None => {
            let target = http.target.as_deref().unwrap_or(b"?");
            out.push(
                Line::default()
                    .and_bytes(http.method.as_deref().unwrap_or(b"?"), Look::Bold)
                    .and(" ", Look::Plain)
                    .and_bytes(target, Look::Plain)
                    .and(" ", Look::Plain)
                    .and(&version, Look::Dim)
                    .filtered(http.path().and_then(|path| compare("path", path))),
            );
        }
    }
    if let Some(host) = http.host.as_ref().filter(|_| http.header("host").is_none()) {
        out.push(
            Line::new("host", Look::Name)
                .and(": ", Look::Dim)
                .and_bytes(host, Look::Plain)
                .filtered(compare("host", host)),
        );
    }
    fields(out, &http.headers, field);
    let query = http.query().unwrap_or_default();
    if !query.is_empty() {
        out.push(Line::default());
        for part in query.split(|&byte| byte == b'&') {
            let equals = part.iter().position(|&byte| byte == b'=');
            let (name, value) = part.split_at(equals.unwrap_or(part.len()));
            out.push(
                Line::new("? ", Look::Dim)
                    .and_bytes(name, Look::Name)
                    .and_bytes(value, Look::Plain)
                    .filtered(contains("query", part)),
            );
        }
    }
}

fn fields(out: &mut Vec<Line>, headers: &[Header], field: &str) {
    for header in headers {
        let name = String::from_utf8_lossy(&header.name);
        let key = format!("{field}[\"{}\"]", name.to_ascii_lowercase());
        let is_plain = name
            .chars()
            .all(|ch| ch.is_ascii_graphic() && !"\"\\]".contains(ch));
        out.push(
            Line::default()
                .and_bytes(&header.name, Look::Name)
                .and(": ", Look::Dim)
                .and_bytes(&header.value, Look::Plain)
                .filtered(compare(&key, &header.value).filter(|_| is_plain)),
        );
    }
}

fn body(out: &mut Vec<Line>, piece: Content) {
    let (text, is_json) = match piece {
        Content::Note(note) => {
            out.push(Line::default().and_bytes(&note, Look::Dim));
            return;
        }
        Content::Json(text) => (text, true),
        Content::Text(text) => (text, false),
    };
    for row in lines(&text) {
        if out.len() >= MAX_LINES {
            return;
        }
        let row = row.get(..MAX_LINE).unwrap_or(row);
        let line = match is_json {
            true => json(row),
            false => Line::default().and_bytes(row, Look::Plain),
        };
        let trimmed = row.trim_ascii().strip_suffix(b",").unwrap_or(row);
        // Where a key and its value stand apart in the original is not known.
        let value = match is_json {
            true => value_of(trimmed),
            false => trimmed,
        };
        out.push(line.filtered(contains("body", value)));
    }
}

/// What stands behind the key of a line of JSON.
fn value_of(row: &[u8]) -> &[u8] {
    let row = row.trim_ascii();
    if row.first() != Some(&b'"') {
        return row;
    }
    let colon = row.windows(3).position(|three| three == b"\": ");
    let value = colon.and_then(|at| row.get(at + 3..)).unwrap_or(row);
    match value {
        [b'{' | b'['] => colon.and_then(|at| row.get(..=at)).unwrap_or(row),
        value => value,
    }
}

/// A line of JSON, its parts coloured.
fn json(row: &[u8]) -> Line {
    let mut line = Line::default();
    let mut rest = row;
    while let Some(&first) = rest.first() {
        let (end, look) = match first {
            b'"' => {
                let end = end_of_string(rest);
                let is_key = rest.get(end) == Some(&b':');
                (end, if is_key { Look::Name } else { Look::Text })
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                let is_end = |byte: &u8| matches!(byte, b',' | b' ' | b'}' | b']');
                let end = rest.iter().position(is_end).unwrap_or(rest.len());
                (end, Look::Number)
            }
            _ => {
                let is_start = |byte: &u8| matches!(byte, b'"' | b'-' | b'0'..=b'9' | b'a'..=b'z');
                let end = rest.iter().position(is_start).unwrap_or(rest.len());
                (end, Look::Plain)
            }
        };
        let (part, after) = rest.split_at(end.clamp(1, rest.len()));
        line = line.and_bytes(part, look);
        rest = after;
    }
    line
}

fn end_of_string(text: &[u8]) -> usize {
    let mut is_escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn connection(exchange: &Exchange) -> Vec<Line> {
    let conn = &exchange.conn;
    let process = &conn.proc;
    let mut out = Vec::new();
    let mut add = |name: &str, value: Option<String>, filter: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push(
                Line::new(&format!("{name:<12}"), Look::Name)
                    .and(&value, Look::Plain)
                    .filtered(filter),
            );
        }
    };
    let text = |field: &str, value: &Option<String>| {
        let value = value.as_deref().unwrap_or_default();
        compare(field, value.as_bytes())
    };
    let comm = Some(process.comm.clone());
    add("command", comm.clone(), text("comm", &comm));
    let pid = process.pid;
    let own = process
        .own_pid
        .map(|own| format!(" ({own} in its container)"));
    add(
        "pid",
        Some(format!("{pid}{}", own.unwrap_or_default())),
        Some(format!("pid == {pid}")),
    );
    add("executable", process.exe.clone(), text("exe", &process.exe));
    let uid = process.uid;
    add(
        "user",
        uid.map(|uid| uid.to_string()),
        uid.map(|uid| format!("uid == {uid}")),
    );
    let container = &process.container;
    add("container", container.clone(), text("container", container));
    add(
        "connection",
        Some(format!("#{}", conn.id)),
        Some(format!("conn.id == {}", conn.id)),
    );
    let role = conn.role.map(|role| match role {
        Role::Client => "client",
        Role::Server => "server",
    });
    add(
        "role",
        role.map(str::to_owned),
        role.map(|role| format!("role == {role}")),
    );
    match (&conn.transport, conn.transport.addrs()) {
        (_, Some((local, remote))) => {
            let here = |what: &str, value| Some(format!("conn.{what} == \"{value}\""));
            add("local", Some(local.to_string()), here("local", local));
            add("remote", Some(remote.to_string()), here("remote", remote));
        }
        (Transport::Unix { path }, None) => {
            let path = path.clone().unwrap_or_else(|| "unix socket".to_owned());
            add("socket", Some(path), None);
        }
        (Transport::Tls { conn }, None) => add("inside", Some(format!("#{conn}")), None),
        (Transport::Other(name), None) => add("transport", Some(name.clone()), None),
        (_, None) => add("address", Some("not known (yet)".to_owned()), None),
    }
    add("server name", conn.sni.clone(), text("tls.sni", &conn.sni));
    add("ALPN", conn.alpn.clone(), text("tls.alpn", &conn.alpn));
    let version = conn.version_name();
    let number = version.and_then(|name| name.strip_prefix("TLS "));
    add(
        "version",
        version.map(str::to_owned),
        number.map(|number| format!("tls.version == {number}")),
    );
    let lib = &conn.lib;
    let version = lib.version.as_ref().map(|version| format!(" ({version})"));
    add(
        "library",
        Some(format!(
            "{} {}{}",
            lib.flavor.name(),
            lib.path,
            version.unwrap_or_default()
        )),
        Some(format!("tls.lib == {}", lib.flavor.name())),
    );
    timing(exchange, &mut add);
    out
}

/// Takes a name, its value, and what would filter for it.
type Add<'a> = dyn FnMut(&str, Option<String>, Option<String>) + 'a;

fn timing(exchange: &Exchange, add: &mut Add<'_>) {
    if let Some(message) = exchange.best() {
        let name = message.protocol.name();
        add(
            "protocol",
            Some(name.to_owned()),
            Some(format!("proto == {name}")),
        );
        let stream = message.stream;
        add(
            "stream",
            stream.map(|stream| stream.to_string()),
            stream.map(|stream| format!("stream == {stream}")),
        );
        if message.tid != 0 {
            let tid = message.tid;
            add(
                "thread",
                Some(tid.to_string()),
                Some(format!("tid == {tid}")),
            );
        }
        let goid = Some(message.goid).filter(|&goid| goid != 0);
        add("goroutine", goid.map(|goid| goid.to_string()), None);
    }
    add("began", Some(time_of_day(exchange.start())), None);
    add("ended", Some(time_of_day(exchange.end())), None);
    let response = exchange.response.as_ref();
    let waited = response.and_then(Message::waited);
    let at_least = |field: &str, nanos: u64| format!("{field} >= {}us", nanos / 1000);
    add(
        "first byte",
        waited.map(duration),
        waited.map(|nanos| at_least("wait", nanos)),
    );
    let latency = exchange.latency();
    add(
        "took",
        latency.map(duration),
        // Bytes of no known protocol have no such field.
        latency
            .filter(|_| response.is_some())
            .map(|nanos| at_least("time", nanos)),
    );
    let bytes = |message: &Option<Message>| message.as_ref().map(|message| message.body.size);
    for (name, field, bytes) in [
        ("sent", "http.req.size", bytes(&exchange.request)),
        ("answered", "http.resp.size", bytes(&exchange.response)),
    ] {
        add(
            name,
            bytes.map(|bytes| format!("{bytes} bytes of content")),
            bytes.map(|bytes| format!("{field} == {bytes}")),
        );
    }
}

fn bytes(exchange: &Exchange) -> Vec<Line> {
    let mut out = Vec::new();
    let protocol = exchange.best().map(|message| message.protocol);
    if matches!(protocol, Some(Protocol::Http2 | Protocol::Grpc)) && !exchange.pieces.is_empty() {
        let note = "(what the connection moved meanwhile, other streams too, as far as it is kept)";
        out.push(Line::new(note, Look::Dim));
    }
    for piece in &exchange.pieces {
        one_piece(&mut out, piece);
    }
    if !out.is_empty() {
        return out;
    }
    // What was moved is not kept any more, but what the messages were is.
    for message in [&exchange.request, &exchange.response]
        .into_iter()
        .flatten()
    {
        if message.body.kept.is_empty() {
            continue;
        }
        let note = format!("content of {} bytes, as transferred", message.body.size);
        out.push(Line::new(&note, Look::Dim));
        dump(&mut out, &message.body.kept, 0);
    }
    if out.is_empty() {
        out.push(Line::new("The bytes were not kept", Look::Dim));
    }
    out
}

fn one_piece(out: &mut Vec<Line>, piece: &Piece) {
    let (mark, look) = match piece.dir {
        Dir::Out => ("> written", Look::Good),
        Dir::In => ("< read", Look::Moved),
    };
    let note = format!(
        " {} bytes at offset {} {}",
        piece.len,
        piece.off,
        time_of_day(piece.ts)
    );
    out.push(Line::new(mark, look).and(&note, Look::Dim));
    dump(out, &piece.bytes, piece.off);
    let missing = piece.len.saturating_sub(piece.bytes.len() as u64);
    if missing > 0 {
        out.push(Line::new(
            &format!("  ({missing} bytes more were not kept)"),
            Look::Bad,
        ));
    }
}

fn dump(out: &mut Vec<Line>, bytes: &[u8], first: u64) {
    let mut text = Vec::new();
    hexdump(&mut text, bytes, first, true);
    for row in lines(&text) {
        if out.len() >= MAX_LINES {
            return;
        }
        out.push(Line::default().and_bytes(row.trim_ascii_start(), Look::Plain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::text::harmless;

    #[test]
    fn colouring_json_changes_no_character_at_any_truncation() {
        let row = br#"  "key \" [": {"a": "b\\", "n": -1.5e3, "t": [true, null]}, "\u001b", "#;
        for end in 0..=row.len() {
            let row = &row[..end];
            assert_eq!(json(row).plain(), harmless(row));
            assert!(value_of(row).len() <= row.len());
        }
        let line = json(br#"  "a": "b","#);
        let looks: Vec<Look> = line.spans.iter().map(|(_, look)| *look).collect();
        assert_eq!(looks[1], Look::Name);
        assert_eq!(looks[3], Look::Text);
    }

    #[test]
    fn the_value_of_a_line_of_json_is_what_stands_behind_its_key() {
        for (row, wanted) in [
            (r#"  "a": "b""#, r#""b""#),
            (r#""a": 15"#, "15"),
            ("  null", "null"),
            (r#""a": {"#, r#""a""#),
            (r#""text: with""#, r#""text: with""#),
        ] {
            let value = value_of(row.as_bytes());
            assert_eq!(String::from_utf8_lossy(value), wanted, "{row}");
        }
    }
}
