//! The comments of packets and interfaces: `key=value` words that hold what packets cannot.
//!
//! Keys are named like the fields of JSON and filters. In values, whatever is neither a letter nor
//! a digit nor harmless punctuation stands as `%XX`, so that a word is a word and a comment can be
//! printed. After the word `--` follows a sentence for people.

use crate::event::{
    AddrSource, Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Proc, Role, Transport, Unseen,
};
use std::fmt::Write;
use std::rc::Rc;

/// Begins the comment of every packet that stands for no event.
pub const SYNTHETIC: &str = "synthetic: written by tlssniff, not on the wire";

/// In the section's comment: what this module writes. Changes when old readers would misread it.
pub const FORMAT: &str = "tlssniff_format=1";

/// Ends the words, begins the sentence.
const SENTENCE: &str = " -- ";

/// Separates the words about the connection, equal in most of its packets, from the others.
const EVENT: &str = " tid=";

/// Longest value kept, so that a comment fits into its option (65535 bytes) when all is escaped.
const VALUE: usize = 4096;

/// Appends `value` so that it has neither spaces nor control characters.
pub fn escape(out: &mut String, value: &str) {
    for (at, c) in value.char_indices() {
        if at + c.len_utf8() > VALUE {
            return;
        }
        if c.is_alphanumeric() || (c.is_ascii_punctuation() && c != '%') {
            out.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// The inverse of [`escape`]; anything that it cannot have written is kept as it stands.
pub fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .first_chunk::<2>()
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Appends ` key=value`; the first word of a comment has no space before it.
fn word(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(key);
    out.push('=');
    escape(out, value);
}

fn number(out: &mut String, key: &str, value: u64) {
    let separator = if out.is_empty() { "" } else { " " };
    let _ = write!(out, "{separator}{key}={value}");
}

/// The comment of an interface: a process and the file with the TLS functions.
pub fn interface(proc: &Proc, lib: &Lib) -> String {
    let mut out = String::new();
    number(&mut out, "pid", proc.pid.into());
    word(&mut out, "comm", &proc.comm);
    if let Some(exe) = &proc.exe {
        word(&mut out, "exe", exe);
    }
    if let Some(uid) = proc.uid {
        number(&mut out, "uid", uid.into());
    }
    if let Some(pid) = proc.own_pid {
        number(&mut out, "own_pid", pid.into());
    }
    if let Some(container) = &proc.container {
        word(&mut out, "container", container);
    }
    word(&mut out, "lib", lib.flavor.name());
    word(&mut out, "lib_path", &lib.path);
    if let Some(version) = &lib.version {
        word(&mut out, "lib_version", version);
    }
    out
}

/// Reads what [`interface`] has written.
pub fn read_interface(comment: &str) -> Option<(Rc<Proc>, Rc<Lib>)> {
    let mut proc = Proc {
        pid: 0,
        ..Proc::default()
    };
    let mut lib = Lib {
        flavor: Flavor::OpenSsl,
        path: String::new(),
        version: None,
    };
    let mut is_complete = false;
    for (key, value) in words(comment) {
        match key {
            "pid" => proc.pid = value.parse().ok()?,
            "comm" => proc.comm = unescape(value),
            "exe" => proc.exe = Some(unescape(value)),
            "uid" => proc.uid = Some(value.parse().ok()?),
            "own_pid" => proc.own_pid = Some(value.parse().ok()?),
            "container" => proc.container = Some(unescape(value)),
            "lib" => lib.flavor = Flavor::from_name(value)?,
            "lib_path" => {
                lib.path = unescape(value);
                is_complete = true;
            }
            "lib_version" => lib.version = Some(unescape(value)),
            _ => {}
        }
    }
    is_complete.then(|| (Rc::new(proc), Rc::new(lib)))
}

/// The words about a connection, for [`event`] to go on after.
pub fn conn(conn: &Conn) -> String {
    let mut out = String::new();
    number(&mut out, "conn", conn.id);
    number(&mut out, "pid", conn.proc.pid.into());
    word(&mut out, "comm", &conn.proc.comm);
    if let Some(uid) = conn.proc.uid {
        number(&mut out, "uid", uid.into());
    }
    word(&mut out, "lib", conn.lib.flavor.name());
    if let Some(role) = conn.role {
        word(&mut out, "role", role_name(role));
    }
    if let Some(sni) = &conn.sni {
        word(&mut out, "sni", sni);
    }
    if let Some(alpn) = &conn.alpn {
        word(&mut out, "alpn", alpn);
    }
    match (conn.version, conn.version_name()) {
        (_, Some(name)) => word(
            &mut out,
            "version",
            name.strip_prefix("TLS ").unwrap_or(name),
        ),
        (Some(version), None) => number(&mut out, "version", version.into()),
        (None, None) => {}
    }
    match &conn.transport {
        Transport::Unknown => word(&mut out, "transport", "unknown"),
        Transport::Pipe => word(&mut out, "transport", "pipe"),
        Transport::Tcp { local, remote } | Transport::Udp { local, remote } => {
            if matches!(conn.transport, Transport::Udp { .. }) {
                word(&mut out, "transport", "udp");
            }
            let _ = write!(out, " local={local} remote={remote}");
        }
        Transport::Unix { path } => {
            word(&mut out, "transport", "unix");
            if let Some(path) = path {
                word(&mut out, "path", path);
            }
        }
        Transport::Tls { conn } => {
            word(&mut out, "transport", "tls");
            number(&mut out, "over", *conn);
        }
        Transport::Other(kind) => {
            word(&mut out, "transport", "other");
            word(&mut out, "kind", kind);
        }
    }
    if let Some(source) = conn.addr_source {
        word(&mut out, "addr_source", source.name());
    }
    if let Some(unseen) = conn.unseen {
        word(&mut out, "unseen", unseen.name());
    }
    out
}

/// What a connection runs over, for the sentence about its made-up addresses.
pub fn carrier(transport: &Transport) -> String {
    let mut out = String::new();
    match transport {
        Transport::Unknown => out.push_str("its own are not known"),
        Transport::Tcp { local, remote } | Transport::Udp { local, remote } => {
            let _ = write!(out, "its own, {local} and {remote}, became known later");
        }
        Transport::Unix { .. } => out.push_str("it runs over a Unix socket"),
        Transport::Pipe => out.push_str("it runs over a pipe"),
        Transport::Tls { conn } => {
            let _ = write!(out, "it runs inside conn {conn}");
        }
        Transport::Other(kind) => {
            out.push_str("it runs over ");
            escape(&mut out, kind);
        }
    }
    out
}

/// Appends the words about one event to `out`, which holds those of its connection.
pub fn event(out: &mut String, event: &Event<'_>) {
    let _ = write!(out, "{EVENT}{}", event.tid);
    if !event.func.is_empty() {
        word(out, "fn", event.func);
    }
    match event.kind {
        Kind::Open => out.push_str(" event=open"),
        Kind::Shutdown => out.push_str(" event=shutdown"),
        Kind::Close => out.push_str(" event=close"),
        Kind::Data(data) => {
            let dir = dir_name(data.dir);
            let _ = write!(
                out,
                " event=data dir={dir} off={} len={}",
                data.off, data.len
            );
            if data.goid != 0 {
                let _ = write!(out, " goid={}", data.goid);
            }
            if data.call_len != data.len || data.call_off != 0 {
                let _ = write!(
                    out,
                    " call_len={} call_off={}",
                    data.call_len, data.call_off
                );
            }
        }
        Kind::Gap {
            dir,
            off,
            len,
            cause,
        } => {
            let (dir, cause) = (dir_name(dir), cause.name());
            let _ = write!(
                out,
                " event=gap dir={dir} off={off} len={len} cause={cause}"
            );
        }
    }
}

/// Appends the words of a packet that carries on with the bytes of the event before it.
pub fn more(out: &mut String, tid: u32, dir: Dir) {
    let _ = write!(out, "{EVENT}{tid} event=more dir={}", dir_name(dir));
}

/// Appends a sentence for people.
pub fn sentence(out: &mut String, text: &str) {
    out.push_str(SENTENCE);
    out.push_str(text);
}

/// A packet's comment, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words<'a> {
    /// The words about the connection, for [`read_conn`].
    pub conn: &'a str,
    pub tid: u32,
    pub func: &'a str,
    pub kind: WordsKind,
}

/// [`Kind`] without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordsKind {
    Event(Kind<'static>),
    More(Dir),
}

/// Reads what [`event`] or [`more`] has written; `None` for any other comment.
pub fn read_event(comment: &str) -> Option<Words<'_>> {
    let comment = comment.split(SENTENCE).next()?;
    let at = comment.find(EVENT)?;
    let (conn, event) = comment.split_at_checked(at)?;
    let (mut tid, mut func, mut kind, mut dir, mut cause) = (0, "", None, None, None);
    let (mut off, mut len, mut call_len, mut call_off, mut goid) = (0, 0, None, 0, 0);
    for (key, value) in words(event) {
        match key {
            "tid" => tid = value.parse().ok()?,
            "fn" => func = value,
            "event" => kind = Some(value),
            "dir" => dir = dir_from_name(value),
            "cause" => cause = GapCause::from_name(value),
            "off" => off = value.parse().ok()?,
            "len" => len = value.parse().ok()?,
            "call_len" => call_len = Some(value.parse().ok()?),
            "call_off" => call_off = value.parse().ok()?,
            "goid" => goid = value.parse().ok()?,
            _ => {}
        }
    }
    let call_len = call_len.unwrap_or(len);
    let kind = match kind? {
        "open" => WordsKind::Event(Kind::Open),
        "shutdown" => WordsKind::Event(Kind::Shutdown),
        "close" => WordsKind::Event(Kind::Close),
        "data" => {
            let data = Data {
                dir: dir?,
                off,
                len,
                call_len,
                call_off,
                goid,
                bytes: &[],
            };
            WordsKind::Event(Kind::Data(data))
        }
        "gap" => WordsKind::Event(Kind::Gap {
            dir: dir?,
            off,
            len,
            cause: cause?,
        }),
        "more" => WordsKind::More(dir?),
        _ => return None,
    };
    Some(Words {
        conn,
        tid,
        func,
        kind,
    })
}

/// Reads what [`conn`] has written, as a connection of `proc` and `lib`.
pub fn read_conn(text: &str, proc: &Rc<Proc>, lib: &Rc<Lib>) -> Option<Conn> {
    let mut conn = Conn {
        id: 0,
        proc: Rc::clone(proc),
        lib: Rc::clone(lib),
        transport: Transport::Unknown,
        addr_source: None,
        unseen: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    };
    let (mut transport, mut path, mut kind, mut over) = ("tcp", None, None, None);
    let (mut local, mut remote) = (None, None);
    for (key, value) in words(text) {
        match key {
            "conn" => conn.id = value.parse().ok()?,
            "role" => conn.role = Some(role_from_name(value)?),
            "sni" => conn.sni = Some(unescape(value)),
            "alpn" => conn.alpn = Some(unescape(value)),
            "version" => conn.version = Some(version_from_name(&unescape(value))?),
            "transport" => transport = value,
            "local" => local = Some(value.parse().ok()?),
            "remote" => remote = Some(value.parse().ok()?),
            "path" => path = Some(unescape(value)),
            "kind" => kind = Some(unescape(value)),
            "over" => over = Some(value.parse().ok()?),
            "addr_source" => conn.addr_source = Some(AddrSource::from_name(value)?),
            "unseen" => conn.unseen = Some(Unseen::from_name(value)?),
            _ => {}
        }
    }
    conn.transport = match transport {
        "tcp" => Transport::Tcp {
            local: local?,
            remote: remote?,
        },
        "udp" => Transport::Udp {
            local: local?,
            remote: remote?,
        },
        "unix" => Transport::Unix { path },
        "pipe" => Transport::Pipe,
        "tls" => Transport::Tls { conn: over? },
        "other" => Transport::Other(kind?),
        "unknown" => Transport::Unknown,
        _ => return None,
    };
    Some(conn)
}

/// The `key=value` words of a comment.
pub fn words(comment: &str) -> impl Iterator<Item = (&str, &str)> {
    comment.split(' ').filter_map(|word| word.split_once('='))
}

fn dir_name(dir: Dir) -> &'static str {
    match dir {
        Dir::In => "in",
        Dir::Out => "out",
    }
}

fn dir_from_name(name: &str) -> Option<Dir> {
    [Dir::In, Dir::Out]
        .into_iter()
        .find(|dir| dir_name(*dir) == name)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

fn role_from_name(name: &str) -> Option<Role> {
    [Role::Client, Role::Server]
        .into_iter()
        .find(|role| role_name(*role) == name)
}

fn version_from_name(name: &str) -> Option<u16> {
    Some(match name {
        "SSL 3.0" => 0x0300,
        "1.0" => 0x0301,
        "1.1" => 0x0302,
        "1.2" => 0x0303,
        "1.3" => 0x0304,
        "DTLS 1.0" => 0xfeff,
        "DTLS 1.2" => 0xfefd,
        number => number.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Conn {
        Conn {
            id: 17,
            proc: Rc::new(Proc {
                pid: 4242,
                comm: "a b=c\n\u{202e}é%41 -- x".to_owned(),
                exe: Some("/usr/bin/curl (deleted)".to_owned()),
                uid: Some(1000),
                own_pid: Some(7),
                container: Some("0123456789ab".to_owned()),
            }),
            lib: Rc::new(Lib {
                flavor: Flavor::LibreSsl,
                path: "/usr/lib/libssl.so.3".to_owned(),
                version: Some("LibreSSL 3.8.2".to_owned()),
            }),
            transport: Transport::Tcp {
                local: "10.0.0.2:43210".parse().unwrap(),
                remote: "93.184.216.34:443".parse().unwrap(),
            },
            addr_source: Some(AddrSource::Fd),
            unseen: None,
            role: Some(Role::Server),
            version: Some(0x0304),
            sni: Some(String::new()),
            alpn: Some("h2 tid=3 event=close".to_owned()),
        }
    }

    fn round_trip(sent: &Conn) -> Conn {
        let (proc, lib) = read_interface(&interface(&sent.proc, &sent.lib)).unwrap();
        read_conn(&conn(sent), &proc, &lib).unwrap()
    }

    #[test]
    fn every_transport_version_and_name_comes_back() {
        let addrs = (
            "[fe80::1%3]:1".parse().unwrap(),
            "[::ffff:1.2.3.4]:443".parse().unwrap(),
        );
        let transports = [
            Transport::Unknown,
            Transport::Tcp {
                local: addrs.0,
                remote: addrs.1,
            },
            Transport::Udp {
                local: addrs.0,
                remote: addrs.1,
            },
            Transport::Unix { path: None },
            Transport::Unix {
                path: Some("/run/a b\n%".to_owned()),
            },
            Transport::Pipe,
            Transport::Tls { conn: u64::MAX },
            Transport::Other("vsock\u{7f}".to_owned()),
        ];
        for transport in transports {
            let sent = Conn {
                transport,
                ..sample()
            };
            assert_eq!(round_trip(&sent), sent);
        }
        for version in [
            0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0xfeff, 0xfefd, 0x7f17,
        ] {
            let sent = Conn {
                version: Some(version),
                ..sample()
            };
            assert_eq!(round_trip(&sent), sent);
        }
        let sent = Conn {
            sni: None,
            alpn: None,
            role: None,
            version: None,
            addr_source: None,
            unseen: None,
            ..sample()
        };
        assert_eq!(round_trip(&sent), sent);
    }

    #[test]
    fn a_comment_has_neither_control_nor_bidirectional_characters() {
        let text = conn(&sample());
        assert!(
            text.chars()
                .all(|c| c == ' ' || c.is_alphanumeric() || c.is_ascii_punctuation())
        );
        assert!(text.contains("é"), "letters stay readable: {text}");
    }

    #[test]
    fn a_value_cannot_pass_for_another_word() {
        let conn = sample();
        let sent = Event {
            ts: 0,
            conn: &conn,
            tid: 7,
            func: "f x=1",
            kind: Kind::Shutdown,
        };
        let mut text = super::conn(&conn);
        event(&mut text, &sent);
        sentence(&mut text, "event=close tid=9");
        let words = read_event(&text).unwrap();
        assert_eq!((words.tid, unescape(words.func).as_str()), (7, "f x=1"));
        assert_eq!(words.kind, WordsKind::Event(Kind::Shutdown));
        assert_eq!(words.conn, super::conn(&conn));
    }

    #[test]
    fn a_comment_of_the_longest_values_fits_into_its_option() {
        let long = "\u{202e}".repeat(100_000);
        let sent = Conn {
            sni: Some(long.clone()),
            alpn: Some(long),
            ..sample()
        };
        assert!(conn(&sent).len() < 60_000);
    }

    #[test]
    fn reading_ends_at_any_cut() {
        let conn = sample();
        let data = Data {
            dir: Dir::In,
            off: 5,
            len: 3,
            call_len: 9,
            call_off: 2,
            goid: 18,
            bytes: &[],
        };
        let sent = Event {
            ts: 0,
            conn: &conn,
            tid: 7,
            func: "f",
            kind: Kind::Data(data),
        };
        let mut text = super::conn(&conn);
        event(&mut text, &sent);
        assert_eq!(
            read_event(&text).unwrap().kind,
            WordsKind::Event(Kind::Data(data))
        );
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let _ = read_event(&text[..cut]);
            let _ = read_conn(&text[..cut], &conn.proc, &conn.lib);
            let _ = read_interface(&text[..cut]);
            let _ = unescape(&text[..cut]);
        }
    }
}
