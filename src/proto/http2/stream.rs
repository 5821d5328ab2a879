//! One stream: a request and its response, and what is special to gRPC and event streams.

use crate::event::Dir;
use crate::proto::body::Context;
use crate::proto::http1::unanswered;
use crate::proto::message::{Asked, Header, Http, Message, Part, Protocol, Subject};
use crate::proto::{At, half, sse};
use std::rc::Rc;

#[derive(Debug, Default)]
pub struct Stream {
    asked: Option<Rc<Asked>>,
    /// The message of each half that has not ended.
    messages: [Option<Message>; 2],
    events: Option<sse::Events>,
    is_grpc: bool,
    /// What of a gRPC message's five bytes of prefix, and of the message, is still to come.
    grpc: [Prefixed; 2],
    has_answer: bool,
    /// The server has made up the request (`PUSH_PROMISE`).
    is_promised: bool,
    ended: [bool; 2],
}

/// The length-prefixed messages of gRPC in one half of a stream.
#[derive(Debug, Default)]
struct Prefixed {
    prefix: Vec<u8>,
    left: u64,
    /// Messages that have ended.
    count: u64,
}

impl Prefixed {
    /// Counts the messages that end within these bytes.
    fn count(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.left > 0 {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let used = most.min(rest.len());
                self.left -= used as u64;
                rest = rest.get(used..).unwrap_or_default();
                self.count += u64::from(self.left == 0);
                continue;
            }
            let wanted = 5usize.saturating_sub(self.prefix.len()).min(rest.len());
            let (more, after) = rest.split_at(wanted);
            self.prefix.extend_from_slice(more);
            rest = after;
            if let &[_, a, b, c, d] = self.prefix.as_slice() {
                self.left = u32::from_be_bytes([a, b, c, d]).into();
                self.prefix.clear();
                self.count += u64::from(self.left == 0);
            }
        }
    }
}

impl Stream {
    /// Whether a message of this half has begun and not ended.
    pub fn has(&self, dir: Dir) -> bool {
        self.messages.get(half(dir)).is_some_and(Option::is_some)
    }

    pub fn has_ended(&self, dir: Dir) -> bool {
        self.ended.get(half(dir)) == Some(&true)
    }

    fn slot(&mut self, dir: Dir) -> &mut Option<Message> {
        let [out, input] = &mut self.messages;
        if half(dir) == 0 { out } else { input }
    }

    /// Fields behind the content of a half.
    pub fn trailers(&mut self, dir: Dir, trailers: Vec<Header>, is_whole: bool) {
        if let Some(message) = self.slot(dir)
            && let Subject::Http(head) = Rc::make_mut(&mut message.subject)
        {
            head.trailers = trailers;
            message.is_cut |= !is_whole;
        }
    }

    /// Content of a half; `id` is the stream's own number.
    pub fn content(
        &mut self,
        id: u32,
        dir: Dir,
        at: At,
        is_request: bool,
        content: &[u8],
        context: &mut Context<'_>,
    ) {
        if let Some(events) = self.events.as_mut().filter(|_| !is_request) {
            return events.data(Some(id), dir, at, content, context);
        }
        if !self.has(dir) {
            // Its head was before the capture began, or was lost.
            let http = Http {
                version: "2",
                ..Http::default()
            };
            let mut message = self.begin(dir, is_request, at, http);
            message.stream = Some(id);
            message.is_cut = true;
            // Nobody can tell what an answer to it would answer.
            self.asked = None;
            *self.slot(dir) = Some(message);
        }
        if self.is_grpc
            && let Some(prefixed) = self.grpc.get_mut(half(dir))
        {
            prefixed.count(content);
        }
        if let Some(message) = self.slot(dir) {
            message.end = at.ts;
            context.keep(&mut message.body, content);
        }
    }

    /// Content of a half was not seen.
    pub fn miss(&mut self, dir: Dir, len: u64) {
        if let Some(message) = self.slot(dir) {
            message.body.miss(len);
        } else if let Some(events) = &mut self.events {
            events.gap();
        }
    }

    /// Nobody knows what of a half was not seen.
    pub fn cut(&mut self, dir: Dir) {
        if let Some(message) = self.slot(dir) {
            message.is_cut = true;
        } else if let Some(events) = &mut self.events {
            events.gap();
        }
    }

    /// A message begins with its head.
    pub fn begin(&mut self, dir: Dir, is_request: bool, since: At, http: Http) -> Message {
        self.is_grpc |= http
            .content_type()
            .is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let protocol = if self.is_grpc {
            Protocol::Grpc
        } else {
            Protocol::Http2
        };
        let subject = Rc::new(Subject::Http(http));
        let part = if is_request {
            Part::Request
        } else {
            Part::Response
        };
        let mut message = Message::begin(protocol, part, dir, since, Rc::clone(&subject));
        if is_request {
            self.asked = Some(Rc::new(Asked::new(since.ts, dir, subject)));
        } else {
            self.has_answer = true;
        }
        message.asked.clone_from(&self.asked);
        message
    }

    /// Takes a message that has begun. Interim responses and the requests of pushed responses
    /// have ended with that, and event streams are told at once.
    pub fn put(&mut self, message: Message, is_promise: bool, at: At, context: &mut Context<'_>) {
        let response = message.response();
        let is_interim = response
            .and_then(|http| http.status)
            .is_some_and(|status| status < 200);
        if is_interim {
            self.has_answer = false;
        }
        if response.is_some_and(sse::is_stream) {
            self.events = Some(sse::Events::new(self.asked.clone()));
            return context.finish(message, at);
        }
        self.is_promised |= is_promise;
        if is_interim || is_promise {
            context.finish(message, at);
        } else {
            let dir = message.dir;
            *self.slot(dir) = Some(message);
        }
    }

    /// One half has ended.
    pub fn finish(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        let index = half(dir);
        if let Some(ended) = self.ended.get_mut(index) {
            *ended = true;
        }
        if let Some(mut message) = self.slot(dir).take() {
            let count = self.grpc.get(index).map_or(0, |grpc| grpc.count);
            if count > 0
                && let Subject::Http(http) = Rc::make_mut(&mut message.subject)
            {
                http.grpc_messages = count;
            }
            context.finish(message, at);
        } else if let Some(mut events) = self.events.take() {
            events.end(at, context);
        }
    }

    /// Whether nothing more can come.
    pub fn is_ended(&self) -> bool {
        // A pushed response has no half that could end before it.
        let is_pushed = self
            .asked
            .as_ref()
            .is_some_and(|asked| self.has_answer && self.ended.get(half(asked.dir)) == Some(&true));
        self.ended == [true, true] || is_pushed && self.is_promised
    }

    /// Nothing more will come of it.
    pub fn end(mut self, at: At, context: &mut Context<'_>) {
        for message in &mut self.messages {
            if let Some(mut message) = message.take() {
                message.is_cut = true;
                context.finish(message, at);
            }
        }
        if let Some(mut events) = self.events.take() {
            events.end(at, context);
        }
        if let Some(asked) = self.asked.filter(|_| !self.has_answer) {
            unanswered(&asked, at, context);
        }
    }
}
