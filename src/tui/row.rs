//! What the list shows of an exchange, column by column.

use super::exchange::{Exchange, Stage};
use super::text::{Look, compare, duration, harmless, size};
use crate::event::Dir;
use crate::proto::{Part, Protocol};
use crate::time::{Clock, TimeStyle};

/// What stands in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    Time,
    Process,
    Method,
    Host,
    /// Path, command, or what bytes there are.
    What,
    /// Host and path, where there is no room for two columns.
    Url,
    Status,
    Type,
    Size,
    Latency,
}

impl Column {
    pub fn title(self) -> &'static str {
        match self {
            Column::Time => "TIME",
            Column::Process => "PROCESS",
            Column::Method => "METHOD",
            Column::Host => "HOST",
            Column::What => "PATH",
            Column::Url => "HOST/PATH",
            Column::Status => "ST",
            Column::Type => "TYPE",
            Column::Size => "SIZE",
            Column::Latency => "TOOK",
        }
    }

    /// Numbers stand at the right.
    pub fn is_number(self) -> bool {
        matches!(self, Column::Size | Column::Latency)
    }
}

/// A moment as the time of day.
pub fn time_of_day(ts: u64) -> String {
    let mut out = Vec::new();
    Clock::new(TimeStyle::from_count(0), false).write(&mut out, ts);
    String::from_utf8_lossy(&out).trim().to_owned()
}

/// What stands in the column, and how.
pub fn cell(exchange: &Exchange, column: Column) -> (String, Look) {
    let plain = |text: String| (text, Look::Plain);
    match column {
        Column::Time => (time_of_day(exchange.start()), Look::Dim),
        Column::Process => {
            let process = &exchange.conn.proc;
            plain(format!(
                "{}[{}]",
                harmless(process.comm.as_bytes()),
                process.pid
            ))
        }
        Column::Method => (method(exchange), Look::Bold),
        Column::Host => plain(harmless(exchange.host().as_bytes())),
        Column::What => plain(what(exchange)),
        Column::Url => plain(match exchange.asked() {
            Some(_) => {
                let (host, what) = (harmless(exchange.host().as_bytes()), what(exchange));
                let gap = if what.starts_with('/') { "" } else { " " };
                host + gap + &what
            }
            None => what(exchange),
        }),
        Column::Status => status(exchange),
        Column::Type => (kind(exchange), Look::Dim),
        Column::Size => plain(match exchange.size() {
            0 => String::new(),
            bytes => size(bytes),
        }),
        Column::Latency => plain(exchange.latency().map(duration).unwrap_or_default()),
    }
}

fn method(exchange: &Exchange) -> String {
    let Some(message) = exchange.best() else {
        return "bytes".to_owned();
    };
    if message.part == Part::Single {
        let arrow = match message.dir {
            Dir::Out => ">",
            Dir::In => "<",
        };
        return format!("{} {arrow}", message.protocol.name());
    }
    match (exchange.asked(), message.protocol) {
        (Some(_), Protocol::Grpc) => "gRPC".to_owned(),
        (Some(http), _) => harmless(http.method.as_deref().unwrap_or(b"?")),
        (None, protocol) => protocol.name().to_owned(),
    }
}

/// Path with query, command, or what bytes there are.
fn what(exchange: &Exchange) -> String {
    if exchange.is_bytes() {
        return moved(exchange);
    }
    let own_line = exchange.best().and_then(|message| {
        let is_single = message.part == Part::Single;
        let line = message.subject.line();
        line.filter(|_| is_single).map(harmless)
    });
    if let Some(line) = own_line {
        return line;
    }
    if let Some(target) = exchange.asked().and_then(|http| http.target.as_deref()) {
        return harmless(target);
    }
    let command = exchange.command().unwrap_or_default();
    let answer = exchange.line(&exchange.response).unwrap_or_default();
    match (command.is_empty(), answer.is_empty()) {
        (_, true) => harmless(&command),
        (true, false) => harmless(&answer),
        (false, false) => format!("{} = {}", harmless(&command), harmless(&answer)),
    }
}

/// `> 120B < 5.0kB`, in the order in which they were moved.
fn moved(exchange: &Exchange) -> String {
    let sum = |dir| {
        let pieces = exchange.pieces.iter().filter(|piece| piece.dir == dir);
        pieces.map(|piece| piece.len).sum::<u64>()
    };
    let (out, input) = (sum(Dir::Out), sum(Dir::In));
    let out = format!("> {}B", size(out));
    let input = format!("< {}B", size(input));
    let first = exchange.pieces.first().map(|piece| piece.dir);
    let one = exchange.pieces.iter().all(|piece| Some(piece.dir) == first);
    match (first, one) {
        (Some(Dir::Out), true) => out,
        (Some(Dir::Out), false) => format!("{out} {input}"),
        (Some(Dir::In), true) => input,
        (Some(Dir::In), false) => format!("{input} {out}"),
        (None, _) => String::new(),
    }
}

fn status(exchange: &Exchange) -> (String, Look) {
    if exchange.stage == Stage::Unanswered {
        return ("none".to_owned(), Look::Bad);
    }
    if let Some(status) = exchange.grpc_status().filter(|status| *status != b"0") {
        return (format!("g{}", harmless(status)), Look::Bad);
    }
    match exchange.status() {
        Some(status) => (status.to_string(), look_of(status)),
        None if exchange.stage == Stage::Open => ("...".to_owned(), Look::Dim),
        None => (String::new(), Look::Plain),
    }
}

/// The colour of a status.
pub fn look_of(status: u16) -> Look {
    match status / 100 {
        2 => Look::Good,
        3 => Look::Moved,
        4 => Look::Warning,
        5 => Look::Bad,
        _ => Look::Plain,
    }
}

fn kind(exchange: &Exchange) -> String {
    let of = |message: &Option<crate::proto::Message>| {
        let http = message.as_ref()?.subject.http()?;
        let kind = harmless(http.content_type()?);
        // The beginnings are long and say little.
        let short = kind.strip_prefix("application/").map(str::to_owned);
        Some(short.unwrap_or(kind))
    };
    of(&exchange.response)
        .or_else(|| of(&exchange.request))
        .unwrap_or_default()
}

/// What would filter for each value of the row.
pub fn filters(exchange: &Exchange) -> Vec<String> {
    let conn = &exchange.conn;
    let asked = exchange.asked();
    let host = asked.and_then(|http| http.host.as_deref());
    let found = [
        asked.and_then(|http| compare("host", host.or(http.host.as_deref())?)),
        asked.and_then(|http| compare("path", http.path()?)),
        asked.and_then(|http| compare("method", http.method.as_deref()?)),
        exchange
            .status()
            .map(|status| format!("status == {status}")),
        exchange
            .response
            .as_ref()
            .and_then(|message| compare("type", message.subject.http()?.content_type()?)),
        exchange
            .command()
            .and_then(|command| compare("command", &command)),
        exchange
            .best()
            .map(|message| format!("proto == {}", message.protocol.name())),
        compare("comm", conn.proc.comm.as_bytes()),
        Some(format!("pid == {}", conn.proc.pid)),
        Some(format!("conn.id == {}", conn.id)),
        conn.sni
            .as_deref()
            .and_then(|name| compare("tls.sni", name.as_bytes())),
        conn.transport
            .addrs()
            .map(|(_, remote)| format!("ip == {}", remote.ip())),
        exchange
            .latency()
            .filter(|_| exchange.response.is_some())
            .map(|time| format!("time >= {}ms", time / 1_000_000)),
    ];
    found.into_iter().flatten().collect()
}
