//! Prints one line per message, or per read or write.
//!
//! `TIME 🔓 COMM[PID] SRC > DST #CONN PROTO MARK TEXT`: single spaces and a fixed order, for `grep`,
//! `cut` and `awk`. MARK is `>` written data, `<` read data, `!` trouble, `*` the connection (`-v`).

mod message;

use super::calls::{Calls, Piece};
use super::color::{self, Style};
use super::hexdump::hexdump;
use super::output::Output;
use super::{Sink, endpoint, escape};
use crate::event::{Conn, Data, Dir, Event, GapCause, Kind, Nanos, Role, Totals, Unseen};
use crate::proto::Message;
use crate::time::{Clock, TimeStyle};
use anyhow::Result;
use std::io::Write;

/// How bytes are shown under their line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    #[default]
    None,
    /// `-A`: as text, with its own line ends.
    Ascii,
    /// `-x`.
    Hex,
    /// `-X`.
    HexAscii,
}

/// The options that shape a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions {
    /// `--ascii`: `TLS` instead of the open lock.
    pub ascii: bool,
    pub color: bool,
    pub payload: Payload,
    /// What stands under the lines of requests, and of what belongs to them.
    pub request: Parts,
    /// Likewise of responses.
    pub response: Parts,
    /// `-q`: no addresses and no connection number.
    pub short: bool,
    /// `-v`: lines for the connection itself; `-vv`: function, thread and offset of every call.
    pub verbose: u8,
    pub time: TimeStyle,
    /// Nine digits of a second instead of six.
    pub nano: bool,
    /// `-#`: a number before each line.
    pub number: bool,
    /// Hand on each line at once (`-l`, or a terminal).
    pub line_buffered: bool,
}

/// What of a message stands under its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub head: bool,
    pub body: bool,
}

impl TextOptions {
    /// Whether the bodies of messages are looked at.
    pub fn shows_bodies(&self) -> bool {
        self.request.body || self.response.body
    }
}

/// Prints events as text.
#[derive(Debug)]
pub struct TextSink<W: Write> {
    options: TextOptions,
    output: Output<W>,
    clock: Clock,
    calls: Calls,
    lines: u64,
    /// The half whose bytes were printed last: bytes that follow need no line of their own.
    current: Option<(u64, Dir)>,
}

impl<W: Write> TextSink<W> {
    /// Prints to `to`, which needs no buffer of its own.
    pub fn new(to: W, options: TextOptions) -> Self {
        TextSink {
            options,
            output: Output::new(to, options.line_buffered),
            clock: Clock::new(options.time, options.nano),
            calls: Calls::default(),
            lines: 0,
            current: None,
        }
    }

    fn data(&mut self, event: &Event<'_>, data: &Data<'_>) {
        let half = Some((event.conn.id, data.dir));
        let piece = self.calls.piece(event.conn.id, data);
        let kept = data.bytes.len() as u64;
        let is_cut = kept < data.len;
        let has_payload = self.options.payload != Payload::None && !data.bytes.is_empty();
        let mark = match data.dir {
            Dir::Out => Mark::Out,
            Dir::In => Mark::In,
        };
        match piece {
            Piece { is_first: true, .. } => {
                self.begin(event, mark);
                // What a lost first piece stood for is on the line of its gap.
                let len = data.call_len.saturating_sub(data.call_off).max(data.len);
                let out = self.output.buf();
                let _ = write!(out, " {len} bytes");
                if data.call_off > 0 {
                    let _ = write!(out, " (the rest of {})", data.call_len);
                }
                if is_cut {
                    let _ = write!(out, " [|tls] {kept} kept");
                }
                out.push(b'\n');
                self.call_details(event, data);
            }
            Piece {
                is_first: false, ..
            } if is_cut => {
                self.begin(event, Mark::Trouble);
                let out = self.output.buf();
                let _ = writeln!(out, " {} more bytes [|tls] {kept} kept", data.len);
            }
            Piece {
                is_first: false, ..
            } if has_payload && self.current != half => {
                self.begin(event, mark);
                let (off, all) = (data.call_off, data.call_len);
                let _ = writeln!(self.output.buf(), " continued at {off} of {all}");
            }
            Piece {
                is_first: false, ..
            } => {}
        }
        if has_payload {
            self.payload(data);
        }
        self.current = half;
    }

    fn payload(&mut self, data: &Data<'_>) {
        let out = self.output.buf();
        match self.options.payload {
            Payload::None => {}
            Payload::Ascii => escape::lines(out, data.bytes, "\t"),
            Payload::Hex => hexdump(out, data.bytes, data.call_off, false),
            Payload::HexAscii => hexdump(out, data.bytes, data.call_off, true),
        }
    }

    fn call_details(&mut self, event: &Event<'_>, data: &Data<'_>) {
        if self.options.verbose < 2 {
            return;
        }
        let out = self.output.buf();
        out.push(b'\t');
        if !event.func.is_empty() {
            escape::token(out, event.func.as_bytes());
            out.push(b' ');
        }
        if event.tid != 0 {
            let _ = write!(out, "thread {} ", event.tid);
        }
        if data.goid != 0 {
            let _ = write!(out, "goroutine {} ", data.goid);
        }
        let _ = writeln!(out, "offset {}", data.off);
    }

    fn gap(&mut self, event: &Event<'_>, dir: Dir, off: u64, len: u64, cause: GapCause) {
        self.calls.gap(event.conn.id, dir, off, len);
        let shows_dir = self.begin(event, Mark::Trouble);
        let out = self.output.buf();
        let what = match cause {
            GapCause::Dropped => "dropped (ring buffer full)",
            GapCause::Unreadable => "unreadable (not in memory when the call returned)",
            GapCause::Sendfile => "sent from a file (sendfile)",
        };
        let _ = write!(out, " {len} bytes {what}");
        if !shows_dir {
            out.extend_from_slice(match dir {
                Dir::Out => b" >",
                Dir::In => b" <",
            });
        }
        out.push(b'\n');
        self.current = None;
    }

    fn connection(&mut self, event: &Event<'_>, what: &str) {
        if self.options.verbose == 0 {
            return;
        }
        self.begin(event, Mark::Connection);
        let out = self.output.buf();
        out.push(b' ');
        out.extend_from_slice(what.as_bytes());
        if !matches!(event.kind, Kind::Shutdown) {
            handshake_facts(out, event.conn);
        }
        out.push(b'\n');
        if matches!(event.kind, Kind::Open) {
            connection_details(out, event.conn);
        }
        self.current = None;
    }

    /// Of older connections one expects that their beginning is missing.
    fn beginning(&mut self, event: &Event<'_>) {
        if event.conn.unseen == Some(Unseen::Late) {
            self.begin(event, Mark::Trouble);
            let out = self.output.buf();
            out.extend_from_slice(
                b" first bytes may be missing (the program ran before its probes were in place)\n",
            );
        }
    }

    /// Appends the line up to the mark. Returns whether it shows the direction.
    fn begin(&mut self, event: &Event<'_>, mark: Mark) -> bool {
        let protocol = event.conn.alpn.as_deref().filter(|alpn| !alpn.is_empty());
        self.begin_line(Line {
            ts: event.ts,
            conn: event.conn,
            dir: endpoint::direction(event),
            protocol: protocol.unwrap_or("tls"),
            mark,
        })
    }

    fn begin_line(&mut self, line: Line<'_>) -> bool {
        let conn = line.conn;
        self.lines += 1;
        let color = self.options.color;
        let out = self.output.buf();
        if self.options.number {
            let _ = write!(out, "{} ", self.lines);
        }
        if self.options.time != TimeStyle::None {
            styled(out, color, Style::Time, |out| {
                self.clock.write(out, line.ts)
            });
            out.push(b' ');
        }
        out.extend_from_slice(if self.options.ascii {
            b"TLS "
        } else {
            "🔓 ".as_bytes()
        });
        escape::token(out, conn.proc.comm.as_bytes());
        let _ = write!(out, "[{}] ", conn.proc.pid);
        let mut shows_dir = false;
        if !self.options.short {
            shows_dir = endpoint::write_ends(out, conn, line.dir);
            let _ = write!(out, " #{} ", conn.id);
        }
        escape::token(out, line.protocol.as_bytes());
        out.push(b' ');
        let (sign, style) = line.mark.look();
        styled(out, color, style, |out| out.push(sign));
        shows_dir
    }
}

/// What stands at the front of a line.
#[derive(Clone, Copy)]
struct Line<'a> {
    ts: Nanos,
    conn: &'a Conn,
    /// The sender stands first.
    dir: Dir,
    protocol: &'a str,
    mark: Mark,
}

impl<W: Write> Sink for TextSink<W> {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        match event.kind {
            Kind::Data(data) => self.data(event, &data),
            Kind::Gap {
                dir,
                off,
                len,
                cause,
            } => self.gap(event, dir, off, len, cause),
            Kind::Open => {
                self.connection(event, "open");
                self.beginning(event);
            }
            Kind::Shutdown => self.connection(event, "shutdown"),
            Kind::Close => {
                self.calls.close(event.conn.id);
                self.connection(event, "close");
            }
        }
        self.output.end_event()
    }

    fn message(&mut self, conn: &Conn, message: &Message) -> Result<()> {
        self.show(conn, message);
        self.current = None;
        self.output.end_event()
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }

    fn finish(&mut self, _totals: &Totals) -> Result<()> {
        self.output.flush()
    }
}

/// What kind of line it is.
#[derive(Clone, Copy)]
enum Mark {
    Out,
    In,
    Trouble,
    Connection,
}

impl Mark {
    fn look(self) -> (u8, Style) {
        match self {
            Mark::Out => (b'>', Style::Out),
            Mark::In => (b'<', Style::In),
            Mark::Trouble => (b'!', Style::Trouble),
            Mark::Connection => (b'*', Style::Connection),
        }
    }
}

fn styled(out: &mut Vec<u8>, color: bool, style: Style, write: impl FnOnce(&mut Vec<u8>)) {
    if color {
        out.extend_from_slice(style.begin().as_bytes());
    }
    write(out);
    if color {
        out.extend_from_slice(color::RESET.as_bytes());
    }
}

fn handshake_facts(out: &mut Vec<u8>, conn: &Conn) {
    if let Some(version) = conn.version_name() {
        let _ = write!(out, ", {version}");
    } else if let Some(version) = conn.version {
        let _ = write!(out, ", version {version:#06x}");
    }
    match conn.role {
        Some(Role::Client) => out.extend_from_slice(b", client"),
        Some(Role::Server) => out.extend_from_slice(b", server"),
        None => {}
    }
    if let Some(sni) = &conn.sni {
        out.extend_from_slice(b", sni ");
        escape::token(out, sni.as_bytes());
    }
    if let Some(alpn) = &conn.alpn {
        out.extend_from_slice(b", alpn ");
        escape::token(out, alpn.as_bytes());
    }
}

fn connection_details(out: &mut Vec<u8>, conn: &Conn) {
    if let Some(exe) = &conn.proc.exe {
        out.extend_from_slice(b"\texe ");
        escape::line(out, exe.as_bytes());
        out.push(b'\n');
    }
    if let Some(uid) = conn.proc.uid {
        let _ = writeln!(out, "\tuid {uid}");
    }
    if let Some(container) = &conn.proc.container {
        out.extend_from_slice(b"\tcontainer ");
        escape::token(out, container.as_bytes());
        out.push(b'\n');
    }
    if let Some(pid) = conn.proc.own_pid {
        let _ = writeln!(out, "\tprocess {pid} in its own pid namespace");
    }
    let _ = write!(out, "\tlibrary {} ", conn.lib.flavor.name());
    escape::line(out, conn.lib.path.as_bytes());
    if let Some(version) = &conn.lib.version {
        out.extend_from_slice(b" (");
        escape::line(out, version.as_bytes());
        out.push(b')');
    }
    out.push(b'\n');
    if let Some(source) = conn.addr_source {
        let _ = writeln!(out, "\taddress from {}", source.name());
    }
    if conn.unseen == Some(Unseen::Older) {
        out.extend_from_slice(b"\tmay be older than the capture: first bytes may be missing\n");
    }
}

#[cfg(test)]
mod tests;
