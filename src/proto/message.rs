//! A message of any protocol, as every sink and the filter see it.

use super::At;
use super::body::Sent;
use crate::event::{Dir, Nanos};
use std::cell::OnceCell;
use std::rc::Rc;

/// What a connection speaks inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http1,
    Http2,
    /// gRPC over HTTP/2, by its content type.
    Grpc,
    WebSocket,
    /// Server-sent events: the body of an HTTP response that is `text/event-stream`.
    Events,
    Postgres,
    Redis,
    Mysql,
    Smtp,
    Imap,
    Mqtt,
    Mongo,
    Kafka,
    Amqp,
    /// DNS over TLS.
    Dns,
    Ldap,
    /// The control connection only.
    Ftp,
    Pop3,
}

impl Protocol {
    /// Every one.
    pub const ALL: &[Protocol] = &[
        Protocol::Http1,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::WebSocket,
        Protocol::Events,
        Protocol::Postgres,
        Protocol::Redis,
        Protocol::Mysql,
        Protocol::Smtp,
        Protocol::Imap,
        Protocol::Mqtt,
        Protocol::Mongo,
        Protocol::Kafka,
        Protocol::Amqp,
        Protocol::Dns,
        Protocol::Ldap,
        Protocol::Ftp,
        Protocol::Pop3,
    ];

    /// The name in JSON and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
            Protocol::WebSocket => "ws",
            Protocol::Events => "sse",
            Protocol::Postgres => "postgres",
            Protocol::Redis => "redis",
            Protocol::Mysql => "mysql",
            Protocol::Smtp => "smtp",
            Protocol::Imap => "imap",
            Protocol::Mqtt => "mqtt",
            Protocol::Mongo => "mongo",
            Protocol::Kafka => "kafka",
            Protocol::Amqp => "amqp",
            Protocol::Dns => "dns",
            Protocol::Ldap => "ldap",
            Protocol::Ftp => "ftp",
            Protocol::Pop3 => "pop3",
        }
    }

    /// What stands in the protocol column of a text line: the ALPN name of HTTP's versions.
    pub fn label(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
            other => other.name(),
        }
    }
}

/// What a message is in its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Request,
    Response,
    /// Neither: a WebSocket frame, an event of a stream.
    Single,
    /// No message: the request that this stands for has no response, and will not get one.
    Unanswered,
}

/// One message, complete or cut.
#[derive(Clone, Debug)]
pub struct Message {
    /// Of its first byte, and of its last.
    pub ts: Nanos,
    pub end: Nanos,
    pub tid: u32,
    pub goid: u64,
    pub dir: Dir,
    pub protocol: Protocol,
    pub part: Part,
    /// HTTP/2 stream.
    pub stream: Option<u32>,
    pub subject: Rc<Subject>,
    pub body: Body,
    /// The request that this answers, when it is known; a request itself stands here as its response
    /// will refer to it.
    pub asked: Option<Rc<Asked>>,
    /// Bytes are missing, or its end never came: what is known of it is the beginning.
    pub is_cut: bool,
}

/// A request, as its response refers to it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub ts: Nanos,
    pub dir: Dir,
    pub subject: Rc<Subject>,
    /// Its body, once it is complete and where somebody looks at bodies.
    pub sent: OnceCell<Rc<Sent>>,
}

impl Asked {
    pub fn new(ts: Nanos, dir: Dir, subject: Rc<Subject>) -> Asked {
        Asked {
            ts,
            dir,
            subject,
            sent: OnceCell::new(),
        }
    }

    pub fn body(&self) -> Option<&Body> {
        self.sent.get().map(|sent| &sent.body)
    }
}

/// What it is about.
#[derive(Clone, Debug)]
pub enum Subject {
    Http(Http),
    /// The message in one line, of a protocol that has no more to tell. Foreign.
    Line(Vec<u8>),
}

impl Subject {
    pub fn http(&self) -> Option<&Http> {
        match self {
            Subject::Http(http) => Some(http),
            Subject::Line(_) => None,
        }
    }

    /// The one line of a protocol that has no more to tell.
    pub fn line(&self) -> Option<&[u8]> {
        match self {
            Subject::Http(_) => None,
            Subject::Line(line) => Some(line),
        }
    }
}

/// A header field, as it came. Foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// The head of an HTTP message (RFC 9110): of a request the method, of a response the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    pub method: Option<Vec<u8>>,
    /// The target in absolute form, made up from what is known of the server where it was not.
    pub url: Option<Vec<u8>>,
    /// The target as it stood in the request.
    pub target: Option<Vec<u8>>,
    /// Host and port as the client named them.
    pub host: Option<Vec<u8>>,
    pub status: Option<u16>,
    pub reason: Option<Vec<u8>>,
    /// In order, duplicates kept; HTTP/2's pseudo fields (`:path`) are not among them.
    pub headers: Vec<Header>,
    pub trailers: Vec<Header>,
    /// Of DNS over HTTPS: the question or the answer in one line. Foreign.
    pub dns: Option<Vec<u8>>,
    /// Of gRPC: the messages in the body; those of a stream have been told one by one.
    pub grpc_messages: u64,
    /// Fields that were referred to in a part of the HPACK table that was never seen.
    pub unknown_fields: u32,
}

impl Http {
    /// The first field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        find(&self.headers, name)
    }

    /// Likewise of the trailers.
    pub fn trailer(&self, name: &str) -> Option<&[u8]> {
        find(&self.trailers, name)
    }

    /// The media type without its parameters.
    pub fn content_type(&self) -> Option<&[u8]> {
        let value = self.header("content-type")?;
        let end = value.iter().position(|&byte| byte == b';');
        Some(value.get(..end.unwrap_or(value.len()))?.trim_ascii())
    }

    /// The path of the target, without the query.
    pub fn path(&self) -> Option<&[u8]> {
        let target = self.target.as_deref()?;
        let path = match target.first() {
            Some(b'/' | b'*') => target,
            _ => after_authority(target)?,
        };
        path.split(|&byte| byte == b'?').next()
    }

    /// What follows the `?`.
    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target.as_deref()?;
        let at = target.iter().position(|&byte| byte == b'?')?;
        target.get(at + 1..)
    }
}

/// The part of `scheme://authority/path` that begins with the slash.
fn after_authority(target: &[u8]) -> Option<&[u8]> {
    let at = target.windows(3).position(|window| window == b"://")? + 3;
    let rest = target.get(at..)?;
    let slash = rest.iter().position(|&byte| byte == b'/')?;
    rest.get(slash..)
}

fn find<'a>(headers: &'a [Header], name: &str) -> Option<&'a [u8]> {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|header| header.value.as_slice())
}

/// The content of a message as it was transferred, chunk sizes taken out; still encoded as its
/// `content-encoding` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its beginning, as far as it is kept. Foreign.
    pub kept: Vec<u8>,
    /// All bytes of it that passed, missing ones too.
    pub size: u64,
    /// Those of them that were never seen.
    pub lost: u64,
}

impl Body {
    /// Whether `kept` is all of it.
    pub fn is_whole(&self) -> bool {
        self.kept.len() as u64 == self.size
    }
}

impl Message {
    /// A message that begins here and has no end yet.
    pub fn begin(protocol: Protocol, part: Part, dir: Dir, at: At, subject: Rc<Subject>) -> Self {
        Message {
            ts: at.ts,
            end: at.ts,
            tid: at.tid,
            goid: at.goid,
            dir,
            protocol,
            part,
            stream: None,
            subject,
            body: Body::default(),
            asked: None,
            is_cut: false,
        }
    }

    /// From the first byte of the request to the last of the response, in nanoseconds.
    pub fn elapsed(&self) -> Option<Nanos> {
        Some(self.end.saturating_sub(self.answers()?.ts))
    }

    /// From the first byte of the request to the first of the response, in nanoseconds.
    pub fn waited(&self) -> Option<Nanos> {
        Some(self.ts.saturating_sub(self.answers()?.ts))
    }

    /// The request that this is no part of, but belongs to.
    fn answers(&self) -> Option<&Asked> {
        let asked = self.asked.as_deref();
        asked.filter(|_| self.part != Part::Request)
    }

    /// The body of the request that this is or answers.
    pub fn request_body(&self) -> Option<&Body> {
        match self.part {
            Part::Request => Some(&self.body),
            Part::Response => self.asked.as_ref()?.body(),
            Part::Single | Part::Unanswered => None,
        }
    }

    /// The HTTP request that this is or belongs to.
    pub fn request(&self) -> Option<&Http> {
        match self.part {
            Part::Request | Part::Unanswered => self.subject.http(),
            Part::Response | Part::Single => self.asked.as_ref()?.subject.http(),
        }
    }

    /// The HTTP response that this is.
    pub fn response(&self) -> Option<&Http> {
        match self.part {
            Part::Response => self.subject.http(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_listed() {
        let source = include_str!("message.rs");
        let names = source.split("fn name").nth(1).unwrap();
        let names = names.split("fn label").next().unwrap();
        assert_eq!(names.matches("Protocol::").count(), Protocol::ALL.len());
        let mut each = Protocol::ALL.to_vec();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), Protocol::ALL.len());
    }
}
