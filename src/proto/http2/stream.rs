//! One stream: a request and its response, and what is special to gRPC and event streams.

use super::grpc::Prefixed;
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
    /// Its messages.
    grpc: [Prefixed; 2],
    has_answer: bool,
    /// The server has made up the request (`PUSH_PROMISE`).
    is_promised: bool,
    ended: [bool; 2],
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
        if self.is_grpc {
            return self.grpc_content(id, dir, at, content, context);
        }
        if let Some(message) = self.slot(dir) {
            message.end = at.ts;
            context.keep_content(message, content);
        }
    }

    fn prefixed(&mut self, dir: Dir) -> &mut Prefixed {
        let [out, input] = &mut self.grpc;
        if half(dir) == 0 { out } else { input }
    }

    /// Content of gRPC: a message that is the only one of its half is told with it, the messages of
    /// a stream are told one by one.
    fn grpc_content(
        &mut self,
        id: u32,
        dir: Dir,
        at: At,
        content: &[u8],
        context: &mut Context<'_>,
    ) {
        let mut rest = content;
        while !rest.is_empty() {
            if self.prefixed(dir).begins(rest) {
                match self.prefixed(dir).count {
                    0 => self.prefixed(dir).first.0 = at,
                    1 => self.tell_each(id, dir, context),
                    _ => {}
                }
            }
            let prefixed = self.prefixed(dir);
            if prefixed.is_streamed && prefixed.open.is_none() {
                let is_cut = prefixed.is_lost;
                let mut open = self.single(id, dir, at);
                open.is_cut = is_cut;
                self.prefixed(dir).open = Some(open);
            }
            let prefixed = self.prefixed(dir);
            let step = prefixed.step(rest);
            let (bytes, after) = rest.split_at_checked(step.used).unwrap_or((rest, &[]));
            rest = after;
            let (is_streamed, count) = (prefixed.is_streamed, prefixed.count);
            let message = if is_streamed {
                self.prefixed(dir).open.as_mut()
            } else {
                self.slot(dir).as_mut()
            };
            if let Some(message) = message {
                message.end = at.ts;
                context.keep(&mut message.body, bytes);
            }
            if step.is_end && is_streamed {
                if let Some(open) = self.prefixed(dir).open.take() {
                    context.finish(open, at);
                }
            } else if step.is_end && count == 1 {
                self.prefixed(dir).first.1 = at;
                // Who is answered before it has asked to the end has more to say.
                let asker = self.asked.as_ref().map(|asked| asked.dir);
                if let Some(asker) = asker.filter(|asker| *asker != dir && !self.has_ended(*asker))
                {
                    self.tell_each(id, asker, context);
                    self.tell_each(id, dir, context);
                }
            }
        }
    }

    /// A gRPC message of a stream.
    fn single(&self, id: u32, dir: Dir, at: At) -> Message {
        let mut line = b"message".to_vec();
        if let Some(path) = self
            .asked
            .as_ref()
            .and_then(|asked| asked.subject.http()?.path())
        {
            line.extend_from_slice(b" of ");
            line.extend_from_slice(path);
        }
        let line = Rc::new(Subject::Line(line));
        let mut message = Message::begin(Protocol::Grpc, Part::Single, dir, at, line);
        message.stream = Some(id);
        message.asked.clone_from(&self.asked);
        message
    }

    /// From now on the messages of the half are told one by one. A request is told before them, a
    /// response, which has the status, after them.
    fn tell_each(&mut self, id: u32, dir: Dir, context: &mut Context<'_>) {
        let prefixed = self.prefixed(dir);
        let (since, end) = prefixed.first;
        let is_whole = prefixed.count > 0;
        if std::mem::replace(&mut prefixed.is_streamed, true) {
            return;
        }
        let Some(message) = self.slot(dir) else {
            return;
        };
        let body = std::mem::take(&mut message.body);
        if message.part == Part::Request {
            let mut head = message.clone();
            head.end = head.ts;
            context.finish(head, since);
        }
        if body.size > 0 {
            let mut first = self.single(id, dir, since);
            first.body = body;
            if is_whole {
                context.finish(first, end);
            } else {
                self.prefixed(dir).open = Some(first);
            }
        }
    }

    /// Content of a half was not seen.
    pub fn miss(&mut self, dir: Dir, len: u64) {
        self.prefixed(dir).skip(len);
        if self.prefixed(dir).is_streamed {
            return;
        }
        if let Some(message) = self.slot(dir) {
            message.body.miss(len);
        } else if let Some(events) = &mut self.events {
            events.gap();
        }
    }

    /// Nobody knows what of a half was not seen.
    pub fn cut(&mut self, dir: Dir) {
        self.prefixed(dir).is_lost = true;
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
        if let Some(message) = self.slot(dir).take() {
            self.told_with(dir, message, at, context);
        } else if let Some(mut events) = self.events.take() {
            events.end(at, context);
        }
    }

    /// The message of a half has ended, or is cut.
    fn told_with(&mut self, dir: Dir, mut message: Message, at: At, context: &mut Context<'_>) {
        let prefixed = self.prefixed(dir);
        let (count, is_streamed) = (prefixed.count, prefixed.is_streamed);
        if let Some(mut open) = prefixed.open.take() {
            open.is_cut = true;
            context.finish(open, at);
        }
        if is_streamed && message.part == Part::Request {
            return;
        }
        if count > 0
            && let Subject::Http(http) = Rc::make_mut(&mut message.subject)
        {
            http.grpc_messages = count;
        }
        context.finish(message, at);
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
        for dir in [Dir::Out, Dir::In] {
            if let Some(mut message) = self.slot(dir).take() {
                message.is_cut = true;
                self.told_with(dir, message, at, context);
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
