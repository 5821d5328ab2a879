//! The values of fields in what passes by.

use super::ast::{Place, Side};
use super::fields::{FIELDS, Field, Kind};
use crate::event::{Conn, Data, Dir, Event, Role};
use crate::proto::message::{Header, Subject};
use crate::proto::{Body, Http, Message, Part, body};
use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};

/// What an expression is asked about.
pub struct Seen<'a> {
    pub conn: &'a Conn,
    pub dir: Dir,
    what: What<'a>,
    /// The body without its content encoding, once somebody has asked.
    decoded: OnceCell<Vec<u8>>,
    /// Likewise that of the request that this answers.
    sent: OnceCell<Vec<u8>>,
}

/// What there is beside the connection.
pub enum What<'a> {
    /// The connection itself is told.
    Nothing,
    Data(&'a Event<'a>, &'a Data<'a>),
    /// So many bytes are missing.
    Gap(&'a Event<'a>, u64),
    Message(&'a Message),
}

/// Takes values until one of them passes.
type Each<'a, T> = &'a mut dyn FnMut(T) -> bool;
type Bytes<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

impl<'a> Seen<'a> {
    pub fn new(conn: &'a Conn, dir: Dir, what: What<'a>) -> Seen<'a> {
        Seen {
            conn,
            dir,
            what,
            decoded: OnceCell::new(),
            sent: OnceCell::new(),
        }
    }

    pub fn message(&self) -> Option<&'a Message> {
        match self.what {
            What::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The message with a body: nothing of a request without a response passes by again.
    fn content(&self) -> Option<&'a Message> {
        self.message()
            .filter(|message| message.part != Part::Unanswered)
    }

    /// The HTTP request that this is or belongs to.
    fn request(&self) -> Option<&'a Http> {
        self.message()?.request()
    }

    fn response(&self) -> Option<&'a Http> {
        self.message()?.response()
    }

    /// The addresses of the ends that are meant.
    pub fn ends(&self, side: Side) -> [Option<SocketAddr>; 2] {
        let Some((local, remote)) = self.conn.transport.addrs() else {
            return [None, None];
        };
        match (side, self.dir) {
            (Side::Either, _) => [Some(local), Some(remote)],
            (Side::Src, Dir::Out) | (Side::Dst, Dir::In) => [Some(local), None],
            (Side::Src, Dir::In) | (Side::Dst, Dir::Out) => [Some(remote), None],
        }
    }

    /// Whether the field has a value.
    pub fn has(&self, place: &Place) -> bool {
        let row = FIELDS.iter().find(|row| row.field == place.field);
        match row.map(|row| row.kind) {
            Some(Kind::Text | Kind::Name | Kind::Listed(_)) => self.texts(place, &mut |_| true),
            Some(Kind::Address) => self.addrs(place, &mut |_| true),
            _ => self.numbers(place, &mut |_| true),
        }
    }

    /// Whether one of the field's addresses passes.
    pub fn addrs(&self, place: &Place, each: Each<'_, IpAddr>) -> bool {
        let side = match place.field {
            Field::Ip => Side::Either,
            Field::IpSrc => Side::Src,
            Field::IpDst => Side::Dst,
            _ => return false,
        };
        let mut ends = self.ends(side).into_iter().flatten();
        ends.any(|addr| each(addr.ip()))
    }

    /// Whether one of the field's numbers passes.
    pub fn numbers(&self, place: &Place, each: Each<'_, u64>) -> bool {
        let side = match place.field {
            Field::Port => Side::Either,
            Field::PortSrc => Side::Src,
            Field::PortDst => Side::Dst,
            field => return self.number(field).is_some_and(each),
        };
        let mut ends = self.ends(side).into_iter().flatten();
        ends.any(|addr| each(addr.port().into()))
    }

    fn number(&self, field: Field) -> Option<u64> {
        let message = self.message();
        match field {
            Field::Pid => Some(self.conn.proc.pid.into()),
            Field::Tid => self.tid(),
            Field::Uid => self.conn.proc.uid.map(u64::from),
            Field::ConnId => Some(self.conn.id),
            Field::TlsVersion => self.conn.version.map(u64::from),
            Field::Len => match self.what {
                What::Data(_, data) => Some(data.len),
                What::Gap(..) | What::Nothing => None,
                What::Message(_) => Some(self.content()?.body.size),
            },
            Field::Lost => match self.what {
                What::Gap(_, len) => Some(len),
                What::Data(..) | What::Nothing => None,
                What::Message(_) => Some(self.content()?.body.lost),
            },
            Field::Truncated => match self.what {
                What::Data(_, data) => Some(u64::from((data.bytes.len() as u64) < data.len)),
                What::Message(message) => Some(message.is_cut.into()),
                What::Gap(..) | What::Nothing => None,
            },
            Field::Stream => message?.stream.map(u64::from),
            Field::Status => self.response()?.status.map(u64::from),
            Field::Size => Some(self.content()?.body.size),
            Field::ReqSize => Some(message?.request_body()?.size),
            Field::RespSize => Some(self.of_part(Part::Response)?.body.size),
            Field::Time => self.of_part(Part::Response)?.elapsed(),
            Field::Wait => self.of_part(Part::Response)?.waited(),
            Field::GrpcStatus => {
                let http = self.response()?;
                let status = http.trailer("grpc-status").or(http.header("grpc-status"))?;
                std::str::from_utf8(status).ok()?.parse().ok()
            }
            _ => None,
        }
    }

    fn tid(&self) -> Option<u64> {
        let tid = match self.what {
            What::Data(event, _) | What::Gap(event, _) => event.tid,
            What::Message(message) => message.tid,
            What::Nothing => 0,
        };
        (tid != 0).then_some(tid.into())
    }

    fn of_part(&self, part: Part) -> Option<&'a Message> {
        self.message().filter(|message| message.part == part)
    }

    /// Whether one of the field's texts passes.
    pub fn texts(&self, place: &Place, each: Bytes<'_>) -> bool {
        match place.field {
            Field::Local | Field::Remote => {
                let Some((local, remote)) = self.conn.transport.addrs() else {
                    return false;
                };
                let addr = if place.field == Field::Local {
                    local
                } else {
                    remote
                };
                each(addr.to_string().as_bytes())
            }
            Field::Host => self.hosts(each),
            Field::Header | Field::ReqHeader | Field::RespHeader => self.headers(place, each),
            Field::Body => self.content().is_some_and(|m| self.own_body(m, each)),
            Field::ReqBody => self.message().is_some_and(|m| self.request_body(m, each)),
            Field::RespBody => self
                .of_part(Part::Response)
                .is_some_and(|m| self.own_body(m, each)),
            field => self.text(field).is_some_and(each),
        }
    }

    fn text(&self, field: Field) -> Option<&[u8]> {
        let conn = self.conn;
        let proc = &conn.proc;
        let text = match field {
            Field::Comm => proc.comm.as_str(),
            Field::Exe => proc.exe.as_deref()?,
            Field::Container => proc.container.as_deref()?,
            Field::Role => match conn.role? {
                Role::Client => "client",
                Role::Server => "server",
            },
            Field::TlsLib => conn.lib.flavor.name(),
            Field::TlsSni => conn.sni.as_deref()?,
            Field::TlsAlpn => conn.alpn.as_deref()?,
            Field::Dir => match self.dir {
                Dir::In => "in",
                Dir::Out => "out",
            },
            Field::Func => match self.what {
                What::Data(event, _) if !event.func.is_empty() => event.func,
                _ => return None,
            },
            Field::Proto => self.message()?.protocol.name(),
            Field::Version => self.own()?.version,
            _ => return self.bytes(field),
        };
        Some(text.as_bytes())
    }

    fn bytes(&self, field: Field) -> Option<&[u8]> {
        match field {
            Field::Payload => match self.what {
                What::Data(_, data) => Some(data.bytes),
                What::Message(_) => Some(&self.content()?.body.kept),
                What::Gap(..) | What::Nothing => None,
            },
            Field::Method => self.request()?.method.as_deref(),
            Field::Url => self.request()?.url.as_deref(),
            Field::Path => self.request()?.path(),
            Field::Query => self.request()?.query(),
            Field::Reason => self.response()?.reason.as_deref(),
            Field::Type => self.own()?.content_type(),
            Field::GrpcMethod => {
                let request = self.request()?;
                let kind = request.content_type()?;
                kind.starts_with(b"application/grpc")
                    .then(|| request.path())?
            }
            Field::Line => line(&self.message()?.subject),
            Field::Command => {
                let message = self.message()?;
                match message.part {
                    Part::Request | Part::Unanswered => line(&message.subject),
                    Part::Response | Part::Single => line(&message.asked.as_ref()?.subject),
                }
            }
            _ => None,
        }
    }

    /// The head of the message itself.
    fn own(&self) -> Option<&'a Http> {
        self.message()?.subject.http()
    }

    /// As the client named it, and without the port; where it named none, as in TLS.
    fn hosts(&self, each: Bytes<'_>) -> bool {
        let Some(request) = self.request() else {
            return false;
        };
        let sni = self.conn.sni.as_deref().map(str::as_bytes);
        let Some(host) = request.host.as_deref().or(sni) else {
            return false;
        };
        each(host) || without_port(host).is_some_and(each)
    }

    /// Header and trailer fields of this name, all of them.
    fn headers(&self, place: &Place, each: Bytes<'_>) -> bool {
        let request = match place.field {
            Field::RespHeader => None,
            _ => self.request(),
        };
        let response = match place.field {
            Field::ReqHeader => None,
            _ => self.response(),
        };
        let is_it = |header: &&Header| header.name.eq_ignore_ascii_case(place.key.as_bytes());
        [request, response]
            .into_iter()
            .flatten()
            .flat_map(|http| http.headers.iter().chain(&http.trailers))
            .filter(is_it)
            .any(|header| each(&header.value))
    }

    /// The content as the receiver takes it; a body of nothing is none.
    fn own_body(&self, message: &Message, each: Bytes<'_>) -> bool {
        content(message.subject.http(), &message.body, &self.decoded, each)
    }

    /// Of the request that the message is or answers.
    fn request_body(&self, message: &Message, each: Bytes<'_>) -> bool {
        let cell = match message.part {
            Part::Request => &self.decoded,
            _ => &self.sent,
        };
        let body = message.request_body();
        body.is_some_and(|body| content(message.request(), body, cell, each))
    }
}

/// Whether a body passes, without its content encoding.
fn content(http: Option<&Http>, body: &Body, decoded: &OnceCell<Vec<u8>>, each: Bytes<'_>) -> bool {
    match http {
        _ if body.kept.is_empty() => false,
        Some(http) if http.header("content-encoding").is_some() => {
            each(decoded.get_or_init(|| body::decode(http, body).bytes))
        }
        _ => each(&body.kept),
    }
}

/// The one line of a message that has no more to tell.
fn line(subject: &Subject) -> Option<&[u8]> {
    match subject {
        Subject::Line(line) => Some(line),
        Subject::Http(_) => None,
    }
}

fn without_port(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|&byte| byte == b':')?;
    let (name, port) = host.split_at_checked(colon)?;
    let is_port = port.len() > 1 && port.iter().skip(1).all(u8::is_ascii_digit);
    // An IPv6 address without brackets has more colons, and no port.
    let is_name = !name.contains(&b':') || name.ends_with(b"]");
    (is_port && is_name).then_some(name)
}
