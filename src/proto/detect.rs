//! Recognises a protocol by the first bytes of a call.

use super::http1::Http1;
use super::http2::{self, Http2};
use super::lines::Lines;
use super::message::Protocol;
use super::{
    Dialog, amqp, dns, ftp, imap, kafka, ldap, mongo, mqtt, mysql, pop3, postgres, redis, smtp,
};
use crate::event::{Conn, Dir, Role};

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This protocol, and who said them.
    Known(Protocol, Side),
    /// It may be one of these: more bytes will tell.
    Unsure,
    Unknown,
}

/// An end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// What is known when a call is looked at, at the beginning of a connection or anywhere in it.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    pub bytes: &'a [u8],
    /// Who said them, when the handshake told.
    pub side: Option<Side>,
    pub alpn: Option<&'a str>,
    /// The ports of both ends; the server's alone when it is known which that is.
    pub ports: [Option<u16>; 2],
}

impl<'a> First<'a> {
    pub fn new(conn: &'a Conn, dir: Dir, bytes: &'a [u8]) -> First<'a> {
        let (local, remote) = conn.transport.addrs().unzip();
        let local = local.map(|addr| addr.port());
        let remote = remote.map(|addr| addr.port());
        let ports = match conn.role {
            Some(Role::Client) => [None, remote],
            Some(Role::Server) => [local, None],
            None => [local, remote],
        };
        let side = conn.role.map(|role| match (role, dir) {
            (Role::Client, Dir::Out) | (Role::Server, Dir::In) => Side::Client,
            (Role::Client, Dir::In) | (Role::Server, Dir::Out) => Side::Server,
        });
        First {
            bytes,
            side,
            alpn: conn.alpn.as_deref(),
            ports,
        }
    }

    /// Whether the name that was negotiated or the server's port speaks for it: where the content
    /// alone is not enough.
    pub fn is_likely(&self, alpn: &str, ports: &[u16]) -> bool {
        self.alpn == Some(alpn) || self.ports.iter().flatten().any(|port| ports.contains(port))
    }
}

/// What a protocol says to the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A message of this side begins with them.
    Is(Side),
    /// The bytes end before that is certain.
    Part,
    No,
}

/// A protocol that is recognised. Each has a file, and a row here.
struct Kind {
    protocol: Protocol,
    look: fn(&First<'_>) -> Look,
    /// For the connection whose client's bytes go there.
    begin: fn(client: Dir) -> Box<dyn Dialog>,
}

const KINDS: &[Kind] = &[
    Kind {
        protocol: Protocol::Http2,
        look: look_http2,
        begin: |_| Box::<Http2>::default(),
    },
    Kind {
        protocol: Protocol::Http1,
        look: look_http1,
        begin: |_| Box::<Http1>::default(),
    },
    Kind {
        protocol: Protocol::Postgres,
        look: postgres::look,
        begin: |client| Lines::<postgres::Postgres>::boxed(client),
    },
    Kind {
        protocol: Protocol::Redis,
        look: redis::look,
        begin: |client| Lines::<redis::Redis>::boxed(client),
    },
    Kind {
        protocol: Protocol::Mysql,
        look: mysql::look,
        begin: |client| Lines::<mysql::Mysql>::boxed(client),
    },
    Kind {
        protocol: Protocol::Smtp,
        look: smtp::look,
        begin: |client| Lines::<smtp::Smtp>::boxed(client),
    },
    Kind {
        protocol: Protocol::Imap,
        look: imap::look,
        begin: |client| Lines::<imap::Imap>::boxed(client),
    },
    Kind {
        protocol: Protocol::Pop3,
        look: pop3::look,
        begin: |client| Lines::<pop3::Pop3>::boxed(client),
    },
    Kind {
        protocol: Protocol::Ftp,
        look: ftp::look,
        begin: |client| Lines::<ftp::Ftp>::boxed(client),
    },
    Kind {
        protocol: Protocol::Mqtt,
        look: mqtt::look,
        begin: |client| Lines::<mqtt::Mqtt>::boxed(client),
    },
    Kind {
        protocol: Protocol::Mongo,
        look: mongo::look,
        begin: |client| Lines::<mongo::Mongo>::boxed(client),
    },
    Kind {
        protocol: Protocol::Amqp,
        look: amqp::look,
        begin: |client| Lines::<amqp::Amqp>::boxed(client),
    },
    Kind {
        protocol: Protocol::Dns,
        look: dns::look,
        begin: |client| Lines::<dns::Dns>::boxed(client),
    },
    Kind {
        protocol: Protocol::Ldap,
        look: ldap::look,
        begin: |client| Lines::<ldap::Ldap>::boxed(client),
    },
    Kind {
        protocol: Protocol::Kafka,
        look: kafka::look,
        begin: |client| Lines::<kafka::Kafka>::boxed(client),
    },
];

/// Looks at what a call begins with, at the beginning of a connection or anywhere in it.
pub fn look(first: &First<'_>) -> Verdict {
    let mut is_unsure = false;
    for kind in KINDS.iter().filter(|kind| kind.may_be(first.alpn)) {
        match (kind.look)(first) {
            Look::Is(side) => return Verdict::Known(kind.protocol, side),
            Look::Part => is_unsure = true,
            Look::No => {}
        }
    }
    if is_unsure {
        Verdict::Unsure
    } else {
        Verdict::Unknown
    }
}

impl Kind {
    /// Where HTTP was negotiated nothing else is spoken (RFC 7301).
    fn may_be(&self, alpn: Option<&str>) -> bool {
        let is_http = matches!(self.protocol, Protocol::Http1 | Protocol::Http2);
        is_http || !matches!(alpn, Some("h2" | "http/1.1" | "http/1.0"))
    }
}

/// Decodes a connection in this protocol, of which `side` says what goes to `dir`.
pub fn begin(protocol: Protocol, side: Side, dir: Dir) -> Option<Box<dyn Dialog>> {
    let client = match side {
        Side::Client => dir,
        Side::Server => super::other(dir),
    };
    let kind = KINDS.iter().find(|kind| kind.protocol == protocol)?;
    Some((kind.begin)(client))
}

fn look_http2(first: &First<'_>) -> Look {
    let side = first.side.unwrap_or(Side::Client);
    match starts(first.bytes, http2::PREFACE) {
        Match::Whole => Look::Is(Side::Client),
        Match::Part => Look::Part,
        Match::No if http2::are_frames(first.bytes) => Look::Is(side),
        Match::No => Look::No,
    }
}

fn look_http1(first: &First<'_>) -> Look {
    match head(first.bytes) {
        Match::Whole => Look::Is(first.side.unwrap_or(Side::Client)),
        Match::Part => Look::Part,
        Match::No => Look::No,
    }
}

/// A request line that is longer is not waited for.
const MAX_REQUEST_LINE: usize = 16 << 10;
/// Methods are short words: the longest registered one is `UPDATEREDIRECTREF`.
const MAX_METHOD: usize = 24;

/// Whether a pattern is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Whole,
    /// The bytes end within it.
    Part,
    No,
}

/// Whether an HTTP/1 request or response begins here (RFC 9112 sections 3 and 4).
pub fn head(bytes: &[u8]) -> Match {
    // Line ends before it are to be ignored (section 2.2).
    let blank = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let bytes = bytes.get(blank..).unwrap_or_default();
    if bytes.is_empty() && blank > 0 {
        return Match::Part;
    }
    match starts(bytes, b"HTTP/1.") {
        Match::Whole => status_line(bytes),
        Match::Part => Match::Part,
        Match::No => request_line(bytes),
    }
}

/// Whether the bytes begin with these.
pub fn starts(bytes: &[u8], with: &[u8]) -> Match {
    if bytes.starts_with(with) {
        Match::Whole
    } else if !bytes.is_empty() && with.starts_with(bytes) {
        Match::Part
    } else {
        Match::No
    }
}

/// `HTTP/1.1 200`
fn status_line(bytes: &[u8]) -> Match {
    let shape = b"HTTP/1.d ddd";
    for (at, &wanted) in shape.iter().enumerate() {
        let Some(&byte) = bytes.get(at) else {
            return Match::Part;
        };
        let fits = match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        };
        if !fits {
            return Match::No;
        }
    }
    Match::Whole
}

/// `GET /path HTTP/1.`
fn request_line(bytes: &[u8]) -> Match {
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let method = bytes.iter().take_while(|byte| is_method(byte)).count();
    if method == 0 || method > MAX_METHOD {
        return Match::No;
    }
    let rest = bytes.get(method..).unwrap_or_default();
    match rest.first() {
        None => return Match::Part,
        Some(b' ') => {}
        Some(_) => return Match::No,
    }
    let rest = rest.get(1..).unwrap_or_default();
    let is_target = |byte: &u8| !byte.is_ascii_control() && *byte != b' ';
    let target = rest.iter().take_while(|byte| is_target(byte)).count();
    match rest.get(target) {
        None if bytes.len() > MAX_REQUEST_LINE => Match::No,
        None => Match::Part,
        Some(b' ') if target > 0 => {
            starts(rest.get(target + 1..).unwrap_or_default(), b"HTTP/1.").or_part(rest, target)
        }
        Some(_) => Match::No,
    }
}

impl Match {
    /// The bytes end exactly before the version.
    fn or_part(self, rest: &[u8], target: usize) -> Match {
        if rest.len() == target + 1 {
            Match::Part
        } else {
            self
        }
    }
}
