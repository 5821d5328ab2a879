//! Prints one JSON object per line (schema v1).
//!
//! The lines of messages (`request`, `response`, `message`, `unanswered`) have fields of their
//! own, in `json/message.rs`.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `v` | number | schema version, 1; within a version fields are only added |
//! | `type` | string | `open`, `data`, `gap`, `shutdown`, `close`, and as last line `stats` |
//! | `ts` | string | RFC 3339, UTC, nanoseconds: when a write began, when a read returned |
//! | `n` | number | number of the read or write, from 1; its pieces share it (data, gap) |
//! | `proc.pid` | number | process |
//! | `proc.tid` | number | thread |
//! | `proc.goid` | number | goroutine (data, Go) |
//! | `proc.comm` | string | command name |
//! | `proc.exe` | string | path of the executable |
//! | `proc.uid` | number | user |
//! | `proc.own_pid` | number | process, as its own pid namespace numbers it, where that differs |
//! | `proc.container` | string | first 12 digits of the id of its container |
//! | `conn.id` | number | the connection, `#17` in the text output |
//! | `conn.transport` | string | `tcp`, `udp`, `unix`, `pipe`, `tls` or the kernel's name for it |
//! | `conn.local` | string | address and port of the captured program |
//! | `conn.remote` | string | address and port of its peer |
//! | `conn.path` | string | bound path of a unix socket |
//! | `conn.over` | number | id of the connection that carries this one (TLS in TLS) |
//! | `conn.addr_source` | string | how the address is known: `socket`, `fd` or `record` |
//! | `conn.unseen` | string | its beginning may be missing: `older` than the capture, or `late`, as the program ran before its probes were in place |
//! | `conn.role` | string | `client` or `server`: the captured program's side |
//! | `tls.lib` | string | implementation: `openssl`, `libressl`, `boringssl`, `go` |
//! | `tls.lib_path` | string | file that holds its functions |
//! | `tls.lib_version` | string | what the file says of itself |
//! | `tls.sni` | string | server name |
//! | `tls.alpn` | string | negotiated protocol |
//! | `tls.version` | string | `1.3`, `1.2`, …, `SSL 3.0`, `DTLS 1.2`, or the number in hex |
//! | `fn` | string | library function that was probed |
//! | `dir` | string | `in` read, `out` written (data, gap) |
//! | `off` | number | offset of the first byte in its direction (data, gap) |
//! | `len` | number | bytes this line stands for (data) |
//! | `call.len` | number | bytes of the whole read or write, when this is one piece of it |
//! | `call.off` | number | where in it this piece begins |
//! | `data.text` | string | the bytes, when they are UTF-8 |
//! | `data.bytes` | string | otherwise the bytes in base64 |
//! | `truncated` | boolean | fewer bytes were kept than `len` (data) |
//! | `captured` | number | how many were kept, when truncated |
//! | `lost` | number | bytes that passed here and were not captured (gap) |
//! | `cause` | string | of a gap: `dropped`, `unreadable`, `sendfile` |
//!
//! The line `stats` has numbers only: `captured`, `shown`, `dropped`, `dropped_bytes` and
//! `truncated` count reads and writes (bytes in `dropped_bytes`), and `late`, where there were any,
//! programs that ran before their probes were in place. What is not known is left out,
//! never null.

mod message;

use super::Sink;
use super::calls::Calls;
use super::escape::json_string;
use super::output::Output;
use crate::event::{AddrSource, Conn, Data, Dir, Event, Kind, Role, Totals, Transport, Unseen};
use crate::proto::Message;
use crate::time::rfc3339;
use anyhow::Result;
use std::io::Write;

/// The schema as a list for the man page, in roff (man(7) macros).
pub const SCHEMA: &str = r"One object per line. What is not known is left out.
.TP
\fBv\fR, \fBtype\fR
Schema version, 1 (within a version fields are only added), and what the line is:
\fBrequest\fR, \fBresponse\fR, \fBmessage\fR (neither of them), \fBunanswered\fR (a request),
\fBopen\fR, \fBdata\fR, \fBgap\fR, \fBshutdown\fR, \fBclose\fR, and last \fBstats\fR.
.TP
\fBts\fR
When a write began or a read returned: RFC 3339, UTC, nanoseconds.
.TP
\fBn\fR
Number of the read or write, from 1 (data, gap). Pieces of one call share it.
.TP
\fBproc.pid\fR, \fBproc.tid\fR, \fBproc.goid\fR, \fBproc.comm\fR, \fBproc.exe\fR, \fBproc.uid\fR
Process, thread, goroutine (of Go programs), command name, path of the executable, user.
.TP
\fBproc.own_pid\fR, \fBproc.container\fR
The process's number in its own pid namespace, where that is another; the first 12 digits of the id
of its container.
.TP
\fBconn.id\fR
The connection, #17 in the text output.
.TP
\fBconn.transport\fR
\fBtcp\fR, \fBudp\fR, \fBunix\fR, \fBpipe\fR, \fBtls\fR, or the kernel's name for it.
.TP
\fBconn.local\fR, \fBconn.remote\fR, \fBconn.path\fR, \fBconn.over\fR
Address and port of the program and of its peer; the path of a unix socket; for TLS in TLS the id of
the connection that carries this one.
.TP
\fBconn.addr_source\fR
How the address is known: \fBsocket\fR, \fBfd\fR or \fBrecord\fR.
.TP
\fBconn.unseen\fR
Where its beginning may be missing: \fBolder\fR than the capture, or \fBlate\fR, since the program
ran before its probes were in place.
.TP
\fBconn.role\fR
\fBclient\fR or \fBserver\fR: the captured program's side.
.TP
\fBtls.lib\fR, \fBtls.lib_path\fR, \fBtls.lib_version\fR
The TLS implementation, the file that holds it, and what that file says of its version.
.TP
\fBtls.sni\fR, \fBtls.alpn\fR, \fBtls.version\fR
Server name, negotiated protocol, and TLS version (\fB1.3\fR; in hex when unknown).
.TP
\fBproto\fR, \fBstream\fR
Of a message: \fBhttp1\fR, \fBhttp2\fR, \fBgrpc\fR, \fBws\fR, \fBsse\fR, or another protocol's name as in
a filter; the stream of HTTP/2.
.TP
\fBhttp.version\fR, \fBhttp.method\fR, \fBhttp.url\fR, \fBhttp.host\fR, \fBhttp.status\fR, \fBhttp.reason\fR
The head of a message: of a request the method, of a response the status.
.TP
\fBhttp.headers\fR, \fBhttp.trailers\fR
Arrays of name and value, in their order.
.TP
\fBhttp.unknown\fR, \fBhttp.grpc_messages\fR
Fields that HTTP/2 referred to and that passed before the capture; gRPC messages in the body.
Those of a stream are lines of their own before.
.TP
\fBhttp.dns\fR
Of DNS over HTTPS: the question, or the answer, as \fBtext\fR is of DNS over TLS.
.TP
\fBtext\fR
The message in one line, where it is no HTTP: an event's type, a WebSocket frame's opcode.
.TP
\fBbody.text\fR, \fBbody.bytes\fR, \fBcut\fR, \fBencoding\fR
The content, decoded, as it is when it is UTF-8 and otherwise in base64; whether that is not all of
it; a coding that could not be undone.
.TP
\fBsize\fR, \fBlost\fR, \fBtruncated\fR
Bytes of the content as transferred; those of them that were not captured; whether bytes or the end
of the message are missing.
.TP
\fBrequest.ts\fR, \fBrequest.method\fR, \fBrequest.url\fR, \fBwait_us\fR, \fBtime_us\fR
Of a response: the request that it answers, and microseconds from the request's first byte to the
response's first and last.
.TP
\fBfn\fR
The library function that was probed.
.TP
\fBdir\fR
\fBin\fR for what was read, \fBout\fR for what was written (data, gap).
.TP
\fBoff\fR, \fBlen\fR
Offset of the first byte in its direction (data, gap), and how many bytes the line
stands for (data).
.TP
\fBcall.len\fR, \fBcall.off\fR
When the line is one piece of a long call: bytes of the whole call, and where in it
the piece begins.
.TP
\fBdata.text\fR, \fBdata.bytes\fR
The bytes: as they are when they are UTF-8, otherwise in base64.
.TP
\fBtruncated\fR, \fBcaptured\fR
Whether fewer bytes were kept than \fBlen\fR, and if so, how many.
.TP
\fBlost\fR, \fBcause\fR
Of a gap: bytes that passed and were not captured, and why: \fBdropped\fR, \fBunreadable\fR or
\fBsendfile\fR.
.PP
The last line, \fBstats\fR, counts reads and writes: \fBcaptured\fR, \fBshown\fR, \fBdropped\fR
(and \fBdropped_bytes\fR), \fBtruncated\fR.
";

/// Prints events as JSON.
#[derive(Debug)]
pub struct JsonSink<W: Write> {
    output: Output<W>,
    calls: Calls,
}

impl<W: Write> JsonSink<W> {
    /// Prints to `to`, which needs no buffer of its own; `line_buffered` is `-l`.
    pub fn new(to: W, line_buffered: bool) -> Self {
        JsonSink {
            output: Output::new(to, line_buffered),
            calls: Calls::default(),
        }
    }
}

impl<W: Write> Sink for JsonSink<W> {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        let conn = event.conn;
        let number = match event.kind {
            Kind::Data(data) => Some(self.calls.piece(conn.id, &data).number),
            Kind::Gap { dir, off, len, .. } => Some(self.calls.gap(conn.id, dir, off, len).number),
            Kind::Close => {
                self.calls.close(conn.id);
                None
            }
            Kind::Open | Kind::Shutdown => None,
        };
        let mut object = Object::begin(self.output.buf());
        object.number("v", 1);
        object.text("type", type_name(event.kind));
        object.key("ts").push(b'"');
        rfc3339(object.out, event.ts);
        object.out.push(b'"');
        object.optional_number("n", number);
        let goid = match event.kind {
            Kind::Data(data) => data.goid,
            _ => 0,
        };
        process(&mut object, conn, event.tid, goid);
        connection(&mut object, conn);
        tls(&mut object, conn);
        if !event.func.is_empty() {
            object.text("fn", event.func);
        }
        match event.kind {
            Kind::Data(piece) => data(&mut object, &piece),
            Kind::Gap {
                dir,
                off,
                len,
                cause,
            } => {
                object.text("dir", dir_name(dir));
                object.number("off", off);
                object.number("lost", len);
                object.text("cause", cause.name());
            }
            Kind::Open | Kind::Shutdown | Kind::Close => {}
        }
        object.end();
        self.output.buf().push(b'\n');
        self.output.end_event()
    }

    fn message(&mut self, conn: &Conn, message: &Message) -> Result<()> {
        message::write(self.output.buf(), conn, message);
        self.output.end_event()
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }

    fn finish(&mut self, totals: &Totals) -> Result<()> {
        let mut object = Object::begin(self.output.buf());
        object.number("v", 1);
        object.text("type", "stats");
        object.number("captured", totals.captured);
        object.number("shown", totals.shown);
        object.number("dropped", totals.dropped);
        object.number("dropped_bytes", totals.dropped_bytes);
        object.number("truncated", totals.truncated);
        if totals.late > 0 {
            object.number("late", totals.late);
        }
        object.end();
        self.output.buf().push(b'\n');
        self.output.flush()
    }
}

fn type_name(kind: Kind<'_>) -> &'static str {
    match kind {
        Kind::Open => "open",
        Kind::Data(_) => "data",
        Kind::Gap { .. } => "gap",
        Kind::Shutdown => "shutdown",
        Kind::Close => "close",
    }
}

fn dir_name(dir: Dir) -> &'static str {
    match dir {
        Dir::In => "in",
        Dir::Out => "out",
    }
}

fn process(object: &mut Object<'_>, conn: &Conn, tid: u32, goid: u64) {
    let process = &conn.proc;
    let mut inner = object.object("proc");
    inner.number("pid", process.pid.into());
    inner.optional_number("tid", (tid != 0).then_some(tid.into()));
    inner.optional_number("goid", (goid != 0).then_some(goid));
    inner.text("comm", &process.comm);
    inner.optional_text("exe", process.exe.as_deref());
    inner.optional_number("uid", process.uid.map(u64::from));
    inner.optional_number("own_pid", process.own_pid.map(u64::from));
    inner.optional_text("container", process.container.as_deref());
    inner.end();
}

fn connection(object: &mut Object<'_>, conn: &Conn) {
    let mut inner = object.object("conn");
    inner.number("id", conn.id);
    match &conn.transport {
        Transport::Unknown => {}
        Transport::Tcp { .. } => inner.text("transport", "tcp"),
        Transport::Udp { .. } => inner.text("transport", "udp"),
        Transport::Unix { path } => {
            inner.text("transport", "unix");
            inner.optional_text("path", path.as_deref());
        }
        Transport::Pipe => inner.text("transport", "pipe"),
        Transport::Tls { conn } => {
            inner.text("transport", "tls");
            inner.number("over", *conn);
        }
        Transport::Other(name) => inner.text("transport", name),
    }
    if let Some((local, remote)) = conn.transport.addrs() {
        inner.plain("local", local);
        inner.plain("remote", remote);
    }
    inner.optional_text("addr_source", conn.addr_source.map(AddrSource::name));
    inner.optional_text("unseen", conn.unseen.map(Unseen::name));
    let role = conn.role.map(|role| match role {
        Role::Client => "client",
        Role::Server => "server",
    });
    inner.optional_text("role", role);
    inner.end();
}

fn tls(object: &mut Object<'_>, conn: &Conn) {
    let mut inner = object.object("tls");
    inner.text("lib", conn.lib.flavor.name());
    inner.text("lib_path", &conn.lib.path);
    inner.optional_text("lib_version", conn.lib.version.as_deref());
    inner.optional_text("sni", conn.sni.as_deref());
    inner.optional_text("alpn", conn.alpn.as_deref());
    match (conn.version_name(), conn.version) {
        (Some(name), _) => inner.text("version", name.strip_prefix("TLS ").unwrap_or(name)),
        (None, Some(number)) => inner.plain("version", format_args!("{number:#06x}")),
        (None, None) => {}
    }
    inner.end();
}

fn data(object: &mut Object<'_>, piece: &Data<'_>) {
    object.text("dir", dir_name(piece.dir));
    object.number("off", piece.off);
    object.number("len", piece.len);
    if piece.call_off != 0 || piece.call_len != piece.len {
        let mut call = object.object("call");
        call.number("len", piece.call_len);
        call.number("off", piece.call_off);
        call.end();
    }
    object.bytes("data", piece.bytes);
    let captured = piece.bytes.len() as u64;
    let is_truncated = captured < piece.len;
    object.flag("truncated", is_truncated);
    object.optional_number("captured", is_truncated.then_some(captured));
}

/// An object that is being written: commas and quotes where they belong.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Object {
            out,
            is_empty: true,
        }
    }

    /// `name` is one of ours: it needs no escaping.
    pub fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub fn object(&mut self, name: &str) -> Object<'_> {
        Object::begin(self.key(name))
    }

    pub fn text(&mut self, name: &str, value: &str) {
        json_string(self.key(name), value);
    }

    pub fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A value of ours that is shown as a string and needs no escaping.
    pub fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a Vec cannot fail, here and below.
        let _ = write!(self.key(name), "\"{value}\"");
    }

    /// `{"text": …}`, or `{"bytes": …}` in base64 where they are not UTF-8.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        let mut inner = self.object(name);
        match std::str::from_utf8(bytes) {
            Ok(text) => inner.text("text", text),
            Err(_) => inner.base64("bytes", bytes),
        }
        inner.end();
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        self.key(name)
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub fn base64(&mut self, name: &str, bytes: &[u8]) {
        let out = self.key(name);
        out.push(b'"');
        base64(out, bytes);
        out.push(b'"');
    }

    /// A number, as it is written.
    pub fn bare(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.key(name), "{value}");
    }

    /// Foreign bytes that should be text.
    pub fn lossy(&mut self, name: &str, value: &[u8]) {
        json_string(self.key(name), &String::from_utf8_lossy(value));
    }

    pub fn optional_lossy(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.lossy(name, value);
        }
    }

    pub fn number(&mut self, name: &str, value: u64) {
        let _ = write!(self.key(name), "{value}");
    }

    pub fn optional_number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Appends `bytes` in base64 with padding (RFC 4648 section 4).
fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |six: u32| match (six & 63) as u8 {
        n @ 0..=25 => b'A' + n,
        n @ 26..=51 => b'a' + n - 26,
        n @ 52..=61 => b'0' + n - 52,
        62 => b'+',
        _ => b'/',
    };
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let pad = |at: usize, six: u32| if at < group.len() { digit(six) } else { b'=' };
        out.extend_from_slice(&[
            digit(bits >> 18),
            digit(bits >> 12),
            pad(1, bits >> 6),
            pad(2, bits),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Flavor, GapCause, Lib, Proc};
    use serde_json::Value;
    use std::rc::Rc;

    fn conn() -> Conn {
        Conn {
            id: 17,
            proc: Rc::new(Proc {
                pid: 4242,
                comm: "curl".into(),
                exe: Some("/usr/bin/curl".into()),
                uid: Some(1000),
                own_pid: Some(7),
                container: Some("0123456789ab".to_owned()),
            }),
            lib: Rc::new(Lib {
                flavor: Flavor::OpenSsl,
                path: "/usr/lib/libssl.so.3".into(),
                version: Some("OpenSSL 3.0.17 1 Jul 2025".into()),
            }),
            transport: Transport::Tcp {
                local: "10.0.0.2:43210".parse().unwrap(),
                remote: "[::ffff:93.184.216.34]:443".parse().unwrap(),
            },
            addr_source: Some(AddrSource::Socket),
            unseen: Some(Unseen::Late),
            role: Some(Role::Client),
            version: Some(0x0304),
            sni: Some("example.com".into()),
            alpn: Some("h2".into()),
        }
    }

    fn bare() -> Conn {
        Conn {
            id: 1,
            proc: Rc::new(Proc {
                pid: 7,
                comm: "a".into(),
                exe: None,
                uid: None,
                ..Proc::default()
            }),
            lib: Rc::new(Lib {
                flavor: Flavor::LibreSsl,
                path: "/l".into(),
                version: None,
            }),
            transport: Transport::Unknown,
            addr_source: None,
            unseen: None,
            role: None,
            version: None,
            sni: None,
            alpn: None,
        }
    }

    fn print(events: &[(&Conn, Kind<'_>)]) -> String {
        let mut out = Vec::new();
        let mut sink = JsonSink::new(&mut out, false);
        for (conn, kind) in events {
            let ts = 1_795_350_664_118_203_456;
            let event = Event {
                ts,
                conn,
                tid: 4243,
                func: "SSL_write",
                kind: *kind,
            };
            sink.event(&event).unwrap();
        }
        sink.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn whole(bytes: &[u8]) -> Kind<'_> {
        let len = bytes.len() as u64;
        Kind::Data(Data {
            dir: Dir::Out,
            off: 0,
            len,
            call_len: len,
            call_off: 0,
            goid: 0,
            bytes,
        })
    }

    const HEAD: &str = concat!(
        r#""proc":{"pid":4242,"tid":4243,"comm":"curl","exe":"/usr/bin/curl","uid":1000,"own_pid":7,"container":"0123456789ab"},"#,
        r#""conn":{"id":17,"transport":"tcp","local":"10.0.0.2:43210","#,
        r#""remote":"93.184.216.34:443","addr_source":"socket","unseen":"late","role":"client"},"#,
        r#""tls":{"lib":"openssl","lib_path":"/usr/lib/libssl.so.3","#,
        r#""lib_version":"OpenSSL 3.0.17 1 Jul 2025","sni":"example.com","alpn":"h2","#,
        r#""version":"1.3"},"fn":"SSL_write""#,
    );

    #[test]
    fn data_line_has_every_known_fact() {
        assert_eq!(
            print(&[(&conn(), whole(b"a\"b\n"))]),
            format!(r#"{{"v":1,"type":"data","ts":"2026-11-22T12:31:04.118203456Z","n":1,{HEAD},"#)
                + r#""dir":"out","off":0,"len":4,"data":{"text":"a\"b\n"},"truncated":false}"#
                + "\n"
        );
    }

    #[test]
    fn connection_and_gap_lines_have_their_form() {
        let conn = conn();
        let gap = Kind::Gap {
            dir: Dir::In,
            off: 9,
            len: 500,
            cause: GapCause::Dropped,
        };
        let text = print(&[
            (&conn, Kind::Open),
            (&conn, gap),
            (&conn, Kind::Shutdown),
            (&conn, Kind::Close),
        ]);
        let ts = r#""ts":"2026-11-22T12:31:04.118203456Z""#;
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                format!(r#"{{"v":1,"type":"open",{ts},{HEAD}}}"#),
                format!(
                    r#"{{"v":1,"type":"gap",{ts},"n":1,{HEAD},"dir":"in","off":9,"lost":500,"cause":"dropped"}}"#
                ),
                format!(r#"{{"v":1,"type":"shutdown",{ts},{HEAD}}}"#),
                format!(r#"{{"v":1,"type":"close",{ts},{HEAD}}}"#),
            ]
        );
    }

    #[test]
    fn unknown_things_are_left_out() {
        let mut out = Vec::new();
        let mut sink = JsonSink::new(&mut out, true);
        let conn = bare();
        let kind = Kind::Open;
        sink.event(&Event {
            ts: 0,
            conn: &conn,
            tid: 0,
            func: "",
            kind,
        })
        .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"v":1,"type":"open","ts":"1970-01-01T00:00:00.000000000Z","#,
                r#""proc":{"pid":7,"comm":"a"},"conn":{"id":1},"#,
                r#""tls":{"lib":"libressl","lib_path":"/l"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn pieces_name_their_call_and_share_its_number() {
        let conn = bare();
        let piece = |call_off: u64| {
            Kind::Data(Data {
                dir: Dir::In,
                off: call_off,
                len: 2,
                call_len: 4,
                call_off,
                goid: 0,
                bytes: b"ab",
            })
        };
        let text = print(&[(&conn, piece(0)), (&conn, piece(2)), (&conn, whole(b"x"))]);
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(
            lines.iter().map(|l| l["n"].as_u64()).collect::<Vec<_>>(),
            [Some(1), Some(1), Some(2)]
        );
        assert_eq!(lines[1]["call"], serde_json::json!({"len": 4, "off": 2}));
        assert!(lines[2].get("call").is_none());
    }

    #[test]
    fn truncation_says_how_much_was_captured() {
        let cut = Data {
            dir: Dir::In,
            off: 0,
            len: 4000,
            call_len: 4000,
            call_off: 0,
            goid: 0,
            bytes: b"ab",
        };
        let value: Value = serde_json::from_str(&print(&[(&bare(), Kind::Data(cut))])).unwrap();
        assert_eq!(
            (&value["truncated"], &value["captured"]),
            (&true.into(), &2.into())
        );
        assert_eq!(value["len"], 4000);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_base64() {
        let value: Value = serde_json::from_str(&print(&[(&bare(), whole(b"\xff\x00"))])).unwrap();
        assert_eq!(value["data"], serde_json::json!({"bytes": "/wA="}));
    }

    #[test]
    fn base64_agrees_with_rfc_4648() {
        let encoded = |bytes: &[u8]| {
            let mut out = Vec::new();
            base64(&mut out, bytes);
            String::from_utf8(out).unwrap()
        };
        let vectors = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        for (len, want) in vectors.into_iter().enumerate() {
            assert_eq!(encoded(&b"foobar"[..len]), want);
        }
        assert_eq!(encoded(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn every_transport_is_told_apart() {
        let transports = [
            (
                Transport::Unix {
                    path: Some("/a".into()),
                },
                r#"{"id":1,"transport":"unix","path":"/a"}"#,
            ),
            (Transport::Pipe, r#"{"id":1,"transport":"pipe"}"#),
            (
                Transport::Tls { conn: 16 },
                r#"{"id":1,"transport":"tls","over":16}"#,
            ),
            (
                Transport::Other("vsock".into()),
                r#"{"id":1,"transport":"vsock"}"#,
            ),
        ];
        for (transport, want) in transports {
            let text = print(&[(
                &Conn {
                    transport,
                    ..bare()
                },
                Kind::Open,
            )]);
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn versions_without_a_name_are_hex() {
        for (version, want) in [
            (0x0303, "1.2"),
            (0x0300, "SSL 3.0"),
            (0xfefd, "DTLS 1.2"),
            (0x1c, "0x001c"),
        ] {
            let conn = Conn {
                version: Some(version),
                ..bare()
            };
            let value: Value = serde_json::from_str(&print(&[(&conn, Kind::Open)])).unwrap();
            assert_eq!(value["tls"]["version"], want);
        }
    }

    #[test]
    fn hostile_payload_and_names_stay_one_valid_line() {
        let proc = Proc {
            comm: "\x1b\"\n\u{202e}\\".into(),
            ..(*conn().proc).clone()
        };
        let conn = Conn {
            proc: Rc::new(proc),
            sni: Some("\u{9b}".into()),
            ..conn()
        };
        let text = print(&[(&conn, whole("\x1b]52;\u{2028}\n\u{e0041}".as_bytes()))]);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(
            !text
                .trim_end()
                .contains(|c: char| c.is_control() || !c.is_ascii()),
            "{text}"
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["data"]["text"], "\x1b]52;\u{2028}\n\u{e0041}");
        assert_eq!(value["proc"]["comm"], "\x1b\"\n\u{202e}\\");
    }

    #[test]
    fn stats_are_the_last_line() {
        let mut out = Vec::new();
        let totals = Totals {
            captured: 128,
            shown: 96,
            dropped: 2,
            dropped_bytes: 500,
            truncated: 3,
            late: 1,
        };
        JsonSink::new(&mut out, false).finish(&totals).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"v":1,"type":"stats","captured":128,"shown":96,"dropped":2,"#,
                r#""dropped_bytes":500,"truncated":3,"late":1}"#,
                "\n"
            )
        );
    }

    #[test]
    fn schema_names_every_field_that_is_printed() {
        fn leaves(prefix: &str, value: &Value, into: &mut Vec<String>) {
            for (key, value) in value.as_object().unwrap() {
                let name = format!("{prefix}{key}");
                match value {
                    Value::Object(_) => leaves(&format!("{name}."), value, into),
                    _ => into.push(name),
                }
            }
        }
        let table: Vec<String> = include_str!("json.rs")
            .lines()
            .filter_map(|line| {
                line.strip_prefix("//! | `")?
                    .split('`')
                    .next()
                    .map(str::to_owned)
            })
            .collect();
        let in_schema = |name: &str| SCHEMA.contains(&format!(r"\fB{name}\fR"));
        let missing: Vec<_> = table.iter().filter(|name| !in_schema(name)).collect();
        assert!(
            missing.is_empty(),
            "in the table but not in SCHEMA: {missing:?}"
        );

        let with = |transport| Conn {
            transport,
            ..conn()
        };
        let conns = [
            conn(),
            with(Transport::Unix {
                path: Some("/a".into()),
            }),
            with(Transport::Tls { conn: 16 }),
        ];
        let cut = Data {
            dir: Dir::In,
            off: 0,
            len: 3,
            call_len: 4,
            call_off: 0,
            goid: 18,
            bytes: b"\xff",
        };
        let gap = Kind::Gap {
            dir: Dir::In,
            off: 9,
            len: 5,
            cause: GapCause::Sendfile,
        };
        let mut printed = Vec::new();
        for conn in &conns {
            for line in print(&[(conn, Kind::Data(cut)), (conn, gap), (conn, whole(b"a"))]).lines()
            {
                leaves("", &serde_json::from_str(line).unwrap(), &mut printed);
            }
        }
        printed.sort();
        printed.dedup();
        let mut table = table;
        table.sort();
        assert_eq!(printed, table);
    }
}
