//! HTTP/1.0 and 1.1 (RFC 9112): heads, bodies, and which response answers which request.

mod framing;
mod head;

use super::body::Context;
use super::detect::{self, Match};
use super::message::{Asked, Http, Message, Part, Protocol, Subject};
use super::websocket::{Frames, Settings};
use super::{At, Dialog, half, other, sse};
use crate::event::{Conn, Dir, Role};
use framing::{Chunk, Framing, framing};
use head::MAX_HEAD;
use std::collections::VecDeque;
use std::rc::Rc;

/// Requests of one connection that may wait for their responses.
const MAX_ASKED: usize = 1024;

/// Both halves of a connection.
#[derive(Debug, Default)]
pub struct Http1 {
    halves: [Half; 2],
    asked: VecDeque<Waiting>,
    pairing: Pairing,
    is_over: bool,
}

/// A request whose response has not come.
#[derive(Debug)]
struct Waiting {
    asked: Rc<Asked>,
    is_head: bool,
    is_connect: bool,
}

/// How sure it is that the oldest request is the one that the next response answers.
#[derive(Debug, Default)]
struct Pairing {
    lost_request: bool,
    lost_response: bool,
    /// A request was sent while another was not answered.
    is_pipelined: bool,
    /// Something was lost of pipelined requests: nothing can be told any more.
    is_blind: bool,
    /// When the last response without a request began: its request may be told late.
    orphan: Option<u64>,
}

#[derive(Debug, Default)]
struct Half {
    state: State,
    /// When the head that is being read began.
    since: At,
}

#[derive(Debug)]
enum State {
    /// What there is of the next head.
    Head(Vec<u8>),
    Body(Box<Message>, Framing),
    /// An event stream, whose message was told when it began.
    Events(Box<sse::Events>, Framing),
    Frames(Box<Frames>),
    /// Bytes were lost, or made no sense: until a call begins with a head.
    Lost,
}

impl Default for State {
    fn default() -> State {
        State::Head(Vec::new())
    }
}

/// What became of some bytes.
enum Step {
    /// So many of them were used.
    Used(usize),
    /// They are no HTTP.
    Wrong,
    /// They belong to something whose beginning was lost, of which more may be understood.
    Foreign,
}

impl Dialog for Http1 {
    fn data(
        &mut self,
        dir: Dir,
        at: At,
        bytes: &[u8],
        is_start: bool,
        context: &mut Context<'_>,
    ) -> usize {
        let mut used = 0;
        if is_start
            && matches!(self.half(dir).state, State::Lost)
            && detect::head(bytes) != Match::No
        {
            self.half(dir).state = State::default();
        }
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            if self.is_over || matches!(self.half(dir).state, State::Lost) {
                break;
            }
            match self.step(dir, at, rest, context) {
                Step::Used(count) => used += count,
                Step::Foreign => break,
                Step::Wrong => {
                    self.lose(dir, at, context);
                    break;
                }
            }
        }
        used.min(bytes.len())
    }

    fn gap(&mut self, dir: Dir, at: At, len: u64, context: &mut Context<'_>) {
        let was_body = match &mut self.half(dir).state {
            State::Body(message, framing) => {
                let was_body = framing.skip(len);
                if was_body {
                    message.body.miss(len);
                }
                was_body
            }
            State::Events(events, framing) => {
                events.gap();
                framing.skip(len)
            }
            State::Head(_) | State::Frames(_) | State::Lost => false,
        };
        if !was_body {
            self.lose(dir, at, context);
        }
    }

    fn end(&mut self, dir: Option<Dir>, at: At, context: &mut Context<'_>) {
        for each in [Dir::Out, Dir::In] {
            if dir.is_none_or(|dir| dir == each) {
                self.end_half(each, at, context);
            }
        }
        if dir.is_none() {
            self.give_up(at, context);
        }
    }

    /// Everything was answered, and no head has begun.
    fn is_between(&self) -> bool {
        let is_idle = |half: &Half| matches!(&half.state, State::Head(head) if head.is_empty());
        let pairing = &self.pairing;
        let is_sure = !(pairing.is_blind || pairing.lost_request || pairing.lost_response);
        is_sure && self.asked.is_empty() && self.halves.iter().all(is_idle)
    }

    /// A tunnel, or a protocol that we do not know.
    fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Http1 {
    fn half(&mut self, dir: Dir) -> &mut Half {
        let [out, input] = &mut self.halves;
        if half(dir) == 0 { out } else { input }
    }

    fn step(&mut self, dir: Dir, at: At, bytes: &[u8], context: &mut Context<'_>) -> Step {
        let state = std::mem::take(&mut self.half(dir).state);
        match state {
            State::Head(head) => self.head(dir, at, head, bytes, context),
            State::Body(message, framing) => self.body(dir, at, message, framing, bytes, context),
            State::Events(events, framing) => self.events(dir, at, events, framing, bytes, context),
            State::Frames(mut frames) => {
                let read = frames.data(dir, at, bytes, context);
                self.half(dir).state = if read.is_sane {
                    State::Frames(frames)
                } else {
                    frames.gap(dir, at, context);
                    State::Lost
                };
                match read.used {
                    0 if read.is_sane => Step::Foreign,
                    0 => Step::Wrong,
                    used => Step::Used(used),
                }
            }
            State::Lost => Step::Wrong,
        }
    }

    fn head(
        &mut self,
        dir: Dir,
        at: At,
        mut head: Vec<u8>,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Step {
        if head.is_empty() {
            // Line ends before a request are to be ignored (section 2.2).
            let blank = bytes
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'));
            let blank = blank.count();
            if blank > 0 {
                return Step::Used(blank);
            }
            self.half(dir).since = at;
            if let Some(end) = head::end(bytes, 0) {
                let whole = bytes.get(..end).unwrap_or_default();
                return match self.whole_head(dir, at, whole, context) {
                    true => Step::Used(end),
                    false => Step::Wrong,
                };
            }
            if detect::head(bytes) == Match::No {
                return Step::Wrong;
            }
        }
        let before = head.len();
        head.extend_from_slice(bytes);
        match head::end(&head, before.saturating_sub(3)) {
            Some(end) => {
                let whole = head.get(..end).unwrap_or(&head);
                if self.whole_head(dir, at, whole, context) {
                    return Step::Used(end.saturating_sub(before));
                }
            }
            None if head.len() > MAX_HEAD => {}
            None => {
                self.half(dir).state = State::Head(head);
                return Step::Used(bytes.len());
            }
        }
        head.truncate(before);
        self.give_back(dir, head, context);
        Step::Wrong
    }

    /// What there is of a head will not be one.
    fn give_back(&mut self, dir: Dir, head: Vec<u8>, context: &mut Context<'_>) {
        let since = self.half(dir).since;
        context.give_back(dir, since, head);
    }

    fn whole_head(&mut self, dir: Dir, at: At, head: &[u8], context: &mut Context<'_>) -> bool {
        let Some(mut http) = head::parse(head) else {
            return false;
        };
        let since = self.half(dir).since;
        if http.status.is_some() {
            self.response(dir, since, at, http, context)
        } else {
            http.locate(context.conn);
            self.request(dir, since, at, http, context)
        }
    }

    fn request(
        &mut self,
        dir: Dir,
        since: At,
        at: At,
        http: Http,
        context: &mut Context<'_>,
    ) -> bool {
        let Some(framing) = framing(&http, Framing::Length(0)) else {
            return false;
        };
        let waiting = Waiting {
            is_head: http.method.as_deref() == Some(b"HEAD"),
            is_connect: http.method.as_deref() == Some(b"CONNECT"),
            asked: Rc::new(Asked::new(since.ts, dir, Rc::new(Subject::Http(http)))),
        };
        let subject = Rc::clone(&waiting.asked.subject);
        let mut message = Message::begin(Protocol::Http1, Part::Request, dir, since, subject);
        message.asked = Some(Rc::clone(&waiting.asked));
        self.ask(waiting, at, context);
        self.begin_body(dir, at, message, framing, context);
        true
    }

    /// A request waits for its response from now on.
    fn ask(&mut self, waiting: Waiting, at: At, context: &mut Context<'_>) {
        let pairing = &mut self.pairing;
        if pairing
            .orphan
            .take()
            .is_some_and(|ts| waiting.asked.ts < ts)
        {
            return;
        }
        if pairing.is_blind {
            return;
        }
        let is_unsure = pairing.lost_request || pairing.lost_response;
        if is_unsure && pairing.is_pipelined {
            pairing.is_blind = true;
            self.asked.clear();
            return;
        }
        if is_unsure {
            // Who does not pipeline has had the responses before.
            pairing.lost_request = false;
            pairing.lost_response = false;
            self.give_up(at, context);
        }
        self.pairing.is_pipelined |= !self.asked.is_empty();
        self.asked.push_back(waiting);
        if self.asked.len() > MAX_ASKED
            && let Some(oldest) = self.asked.pop_front()
        {
            unanswered(&oldest.asked, at, context);
        }
    }

    fn give_up(&mut self, at: At, context: &mut Context<'_>) {
        for waiting in self.asked.drain(..) {
            unanswered(&waiting.asked, at, context);
        }
    }

    fn response(
        &mut self,
        dir: Dir,
        since: At,
        at: At,
        http: Http,
        context: &mut Context<'_>,
    ) -> bool {
        let status = http.status.unwrap_or(0);
        let is_interim = (100..200).contains(&status) && status != 101;
        let is_sure = !(self.pairing.lost_request && self.pairing.lost_response);
        // A request of the same half is not what this answers.
        let asker = other(dir);
        let fits = is_sure && self.asked.front().is_some_and(|w| w.asked.dir == asker);
        let waiting = match (fits, is_interim) {
            (true, true) => self.asked.front().map(|waiting| Waiting {
                asked: Rc::clone(&waiting.asked),
                ..*waiting
            }),
            (true, false) => self.asked.pop_front(),
            (false, _) => None,
        };
        if waiting.is_none() && !is_interim {
            self.pairing.orphan = Some(since.ts);
        }
        let is_head = waiting.as_ref().is_some_and(|w| w.is_head);
        let is_tunnel = waiting.as_ref().is_some_and(|w| w.is_connect) && status / 100 == 2;
        let framing = if is_head || is_tunnel || status < 200 || matches!(status, 204 | 304) {
            Some(Framing::Length(0))
        } else {
            framing(&http, Framing::UntilClose)
        };
        let Some(framing) = framing else {
            return false;
        };
        let asked = waiting.map(|waiting| waiting.asked);
        let frames = (status == 101).then(|| Settings::agreed(&http)).flatten();
        let is_events = sse::is_stream(&http);
        let subject = Rc::new(Subject::Http(http));
        let mut message = Message::begin(Protocol::Http1, Part::Response, dir, since, subject);
        message.asked.clone_from(&asked);
        if is_events {
            context.finish(message, at);
            self.half(dir).state = State::Events(Box::new(sse::Events::new(asked)), framing);
            self.settle(dir);
            return true;
        }
        self.begin_body(dir, at, message, framing, context);
        match frames {
            Some(settings) => {
                let ahead = std::mem::take(&mut self.half(asker).state);
                self.end_state(asker, ahead, at, context);
                for (to, is_client) in [(dir, false), (asker, true)] {
                    let frames = Frames::new(settings, is_client, asked.clone());
                    self.half(to).state = State::Frames(Box::new(frames));
                }
            }
            None => self.is_over = is_tunnel || status == 101,
        }
        if self.is_over {
            // The other half may have begun with what is no HTTP already.
            let ahead = std::mem::take(&mut self.half(asker).state);
            self.end_state(asker, ahead, at, context);
        }
        true
    }

    fn begin_body(
        &mut self,
        dir: Dir,
        at: At,
        message: Message,
        framing: Framing,
        context: &mut Context<'_>,
    ) {
        if matches!(framing, Framing::Length(0)) {
            context.finish(message, at);
            self.half(dir).state = State::default();
        } else {
            self.half(dir).state = State::Body(Box::new(message), framing);
        }
    }

    /// An event stream of no length has ended already.
    fn settle(&mut self, dir: Dir) {
        if matches!(self.half(dir).state, State::Events(_, Framing::Length(0))) {
            self.half(dir).state = State::default();
        }
    }

    fn body(
        &mut self,
        dir: Dir,
        at: At,
        mut message: Box<Message>,
        mut framing: Framing,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Step {
        let Some(taken) = framing.take(bytes) else {
            self.end_state(dir, State::Body(message, framing), at, context);
            self.half(dir).state = State::Lost;
            return Step::Wrong;
        };
        context.keep_content(&mut message, taken.content);
        message.end = at.ts;
        if taken.is_end {
            if let Framing::Chunked(Chunk::Trailers(lines)) = &framing {
                let trailers = head::trailers(lines);
                if !trailers.is_empty()
                    && let Subject::Http(http) = Rc::make_mut(&mut message.subject)
                {
                    http.trailers = trailers;
                }
            }
            context.finish(*message, at);
        } else {
            self.half(dir).state = State::Body(message, framing);
        }
        Step::Used(taken.used)
    }

    fn events(
        &mut self,
        dir: Dir,
        at: At,
        mut events: Box<sse::Events>,
        mut framing: Framing,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Step {
        let Some(taken) = framing.take(bytes) else {
            self.end_state(dir, State::Events(events, framing), at, context);
            self.half(dir).state = State::Lost;
            return Step::Wrong;
        };
        events.data(None, dir, at, taken.content, context);
        if !taken.is_end {
            self.half(dir).state = State::Events(events, framing);
        }
        Step::Used(taken.used)
    }

    /// Where the next message begins is not known any more.
    fn lose(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        let state = std::mem::replace(&mut self.half(dir).state, State::Lost);
        match state {
            State::Frames(mut frames) => {
                frames.gap(dir, at, context);
                self.half(dir).state = State::Frames(frames);
                return;
            }
            State::Body(mut message, framing) => {
                message.is_cut = true;
                self.end_state(dir, State::Body(message, framing), at, context);
            }
            state => self.end_state(dir, state, at, context),
        }
        let is_asker = self.asked.back().map(|waiting| waiting.asked.dir == dir);
        let is_asker = is_asker.or(role_of(context.conn).map(|asker| asker == dir));
        self.pairing.lost_request |= is_asker != Some(false);
        self.pairing.lost_response |= is_asker != Some(true);
    }

    fn end_half(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        let state = std::mem::take(&mut self.half(dir).state);
        self.end_state(dir, state, at, context);
    }

    /// Nothing more will come of what a half was in.
    fn end_state(&mut self, dir: Dir, state: State, at: At, context: &mut Context<'_>) {
        match state {
            State::Body(mut message, framing) => {
                message.is_cut |= !matches!(framing, Framing::UntilClose);
                // The last byte came before the end.
                let end = message.end;
                context.finish(*message, At { ts: end, ..at });
                context.give_back(dir, at, framing.held());
            }
            State::Events(mut events, framing) => {
                events.end(at, context);
                context.give_back(dir, at, framing.held());
            }
            State::Frames(mut frames) => frames.gap(dir, at, context),
            State::Head(head) => self.give_back(dir, head, context),
            State::Lost => {}
        }
    }
}

/// The half that requests come from.
fn role_of(conn: &Conn) -> Option<Dir> {
    conn.role.map(|role| match role {
        Role::Client => Dir::Out,
        Role::Server => Dir::In,
    })
}

/// Tells that a request has no response.
pub fn unanswered(asked: &Rc<Asked>, at: At, context: &mut Context<'_>) {
    let protocol = match asked.subject.http().map(|http| http.version) {
        Some("2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let subject = Rc::clone(&asked.subject);
    let mut message = Message::begin(protocol, Part::Unanswered, asked.dir, at, subject);
    message.asked = Some(Rc::clone(asked));
    context.finish(message, at);
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
