//! One row of the list: a request with its response, or bytes of no known protocol.

use crate::event::{Conn, Data, Dir, Event, Kind, Nanos, Role};
use crate::filter::Filter;
use crate::proto::message::Subject;
use crate::proto::{Asked, Http, Message, Part};
use std::rc::Rc;

/// Bytes that a connection of no known protocol moves before a new row begins.
const MAX_RAW: u64 = 64 << 10;
/// What an exchange takes beside its bytes: itself, its place in the tables.
const OVERHEAD: usize = 512;
/// What a header field takes beside its bytes.
const FIELD: usize = 64;

/// Bytes as they were moved.
#[derive(Clone, Debug)]
pub struct Piece {
    pub ts: Nanos,
    pub dir: Dir,
    pub off: u64,
    /// More than there are bytes when not all was kept or seen.
    pub len: u64,
    pub bytes: Rc<[u8]>,
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its response may come.
    Open,
    Done,
    /// There will be no response.
    Unanswered,
}

/// A row of the list.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub conn: Rc<Conn>,
    /// As the message had it: the captured program's side may be either.
    pub request: Option<Message>,
    pub response: Option<Message>,
    /// Of a connection of no known protocol all of them; else those that the messages were made of,
    /// as far as they are kept.
    pub pieces: Vec<Piece>,
    pub stage: Stage,
    pub is_marked: bool,
}

/// The message without its request's body, which is in the row already and else would be counted,
/// and go, with nothing.
pub fn kept(message: &Message) -> Message {
    let mut kept = message.clone();
    if let Some(asked) = &message.asked
        && asked.body().is_some()
    {
        let subject = Rc::clone(&asked.subject);
        kept.asked = Some(Rc::new(Asked::new(asked.ts, asked.dir, subject)));
    }
    kept
}

impl Exchange {
    /// A message that begins a row.
    pub fn of_message(conn: Rc<Conn>, message: &Message) -> Exchange {
        let mut exchange = Exchange {
            conn,
            request: None,
            response: None,
            pieces: Vec::new(),
            stage: Stage::Done,
            is_marked: false,
        };
        let asks = match (message.part, &message.asked) {
            (Part::Request, _) => true,
            (Part::Single, Some(asked)) => asked.dir == message.dir,
            (Part::Single, None) => message.dir == Dir::Out,
            (Part::Response | Part::Unanswered, _) => false,
        };
        if message.part == Part::Request {
            exchange.stage = Stage::Open;
        }
        let place = match asks {
            true => &mut exchange.request,
            false => &mut exchange.response,
        };
        *place = Some(kept(message));
        exchange
    }

    /// Bytes of no known protocol that begin a row.
    pub fn of_bytes(conn: Rc<Conn>, event: &Event<'_>, data: &Data<'_>) -> Exchange {
        Exchange {
            conn,
            request: None,
            response: None,
            pieces: vec![Piece::new(event, data)],
            stage: Stage::Done,
            is_marked: false,
        }
    }

    /// Whether these are bytes of no known protocol.
    pub fn is_bytes(&self) -> bool {
        self.request.is_none() && self.response.is_none()
    }

    /// Takes more bytes, unless they begin a new exchange: after an answer, a new question.
    pub fn takes(&mut self, event: &Event<'_>, data: &Data<'_>) -> bool {
        let Some(first) = self.pieces.first() else {
            return false;
        };
        let total: u64 = self.pieces.iter().map(|piece| piece.len).sum();
        let is_answered = self.pieces.last().is_some_and(|last| last.dir != first.dir);
        if total >= MAX_RAW || is_answered && data.dir == first.dir {
            return false;
        }
        self.pieces.push(Piece::new(event, data));
        true
    }

    /// The message that knows most: the response, where there is one.
    pub fn best(&self) -> Option<&Message> {
        self.response.as_ref().or(self.request.as_ref())
    }

    pub fn start(&self) -> Nanos {
        let response = || {
            let message = self.response.as_ref()?;
            // The request was not kept, but its time is known.
            let asked = message
                .asked
                .as_ref()
                .filter(|_| message.part == Part::Response);
            Some(asked.map_or(message.ts, |asked| asked.ts))
        };
        let message = self.request.as_ref().map(|message| message.ts);
        let piece = || self.pieces.first().map(|piece| piece.ts);
        message.or_else(response).or_else(piece).unwrap_or_default()
    }

    pub fn end(&self) -> Nanos {
        let message = self.best().map(|message| message.end);
        let piece = || self.pieces.last().map(|piece| piece.ts);
        message.or_else(piece).unwrap_or_default()
    }

    /// From the first byte of the request to the last of the response.
    pub fn latency(&self) -> Option<Nanos> {
        match &self.response {
            Some(message) => message.elapsed().filter(|_| message.part == Part::Response),
            None if self.is_bytes() && self.is_answered() => {
                Some(self.end().saturating_sub(self.start()))
            }
            None => None,
        }
    }

    fn is_answered(&self) -> bool {
        let first = self.pieces.first().map(|piece| piece.dir);
        self.pieces.last().map(|piece| piece.dir) != first
    }

    /// Bytes of the contents, of both directions.
    pub fn size(&self) -> u64 {
        if self.is_bytes() {
            return self.pieces.iter().map(|piece| piece.len).sum();
        }
        let of = |message: &Option<Message>| message.as_ref().map_or(0, |m| m.body.size);
        of(&self.request).saturating_add(of(&self.response))
    }

    /// The head of the HTTP request, also where only its response is kept.
    pub fn asked(&self) -> Option<&Http> {
        let own = self.request.as_ref().and_then(Message::request);
        own.or_else(|| self.response.as_ref()?.request())
    }

    pub fn status(&self) -> Option<u16> {
        self.response.as_ref()?.response()?.status
    }

    /// The status of gRPC, which stands in the trailers.
    pub fn grpc_status(&self) -> Option<&[u8]> {
        let http = self.response.as_ref()?.response()?;
        http.trailer("grpc-status").or(http.header("grpc-status"))
    }

    /// The one line of a message of another protocol.
    pub fn line(&self, message: &Option<Message>) -> Option<Vec<u8>> {
        message.as_ref()?.subject.line().map(<[u8]>::to_vec)
    }

    /// What was asked, where the protocol has one line for it.
    pub fn command(&self) -> Option<Vec<u8>> {
        self.line(&self.request).or_else(|| {
            let asked = self.response.as_ref()?.asked.as_ref()?;
            asked.subject.line().map(<[u8]>::to_vec)
        })
    }

    /// Whose name the exchange goes under: the host of the request, else what TLS or the address say.
    pub fn host(&self) -> String {
        let host = self.asked().and_then(|http| http.host.as_deref());
        match (host, &self.conn.sni, self.conn.transport.addrs()) {
            (Some(host), ..) => String::from_utf8_lossy(host).into_owned(),
            (None, Some(sni), _) => sni.clone(),
            (None, None, Some((local, remote))) => match self.conn.role {
                Some(Role::Server) => local.to_string(),
                _ => remote.to_string(),
            },
            (None, None, None) => String::new(),
        }
    }

    /// Whether the filter lets it pass.
    pub fn passes(&self, filter: &Filter) -> bool {
        if self.is_bytes() {
            return self.pieces.iter().any(|piece| piece.passes(self, filter));
        }
        let parts = [&self.request, &self.response];
        let messages: Vec<&Message> = parts.into_iter().flatten().collect();
        filter.matches_exchange(&self.conn, &messages)
    }

    /// What it takes in memory, by and large.
    pub fn weight(&self) -> usize {
        let message = |message: &Message| message.body.kept.len() + weight_of(&message.subject);
        let messages = [&self.request, &self.response].into_iter().flatten();
        let pieces = self.pieces.iter().map(|piece| piece.bytes.len() + FIELD);
        OVERHEAD + messages.map(message).sum::<usize>() + pieces.sum::<usize>()
    }
}

fn weight_of(subject: &Subject) -> usize {
    match subject {
        Subject::Line(line) => line.len(),
        Subject::Http(http) => {
            let fields = http.headers.iter().chain(&http.trailers);
            let fields = fields.map(|field| field.name.len() + field.value.len() + FIELD);
            let texts = [&http.method, &http.url, &http.target, &http.host];
            let texts = texts.into_iter().flatten().map(Vec::len);
            fields.chain(texts).sum()
        }
    }
}

impl Piece {
    pub fn new(event: &Event<'_>, data: &Data<'_>) -> Piece {
        Piece {
            ts: event.ts,
            dir: data.dir,
            off: data.off,
            len: data.len,
            bytes: Rc::from(data.bytes),
        }
    }

    /// It as the read or write that it was.
    pub fn data(&self) -> Data<'_> {
        Data {
            dir: self.dir,
            off: self.off,
            len: self.len,
            call_len: self.len,
            call_off: 0,
            goid: 0,
            bytes: &self.bytes,
        }
    }

    fn passes(&self, exchange: &Exchange, filter: &Filter) -> bool {
        filter.matches(&Event {
            ts: self.ts,
            conn: &exchange.conn,
            tid: 0,
            func: "",
            kind: Kind::Data(self.data()),
        })
    }
}
