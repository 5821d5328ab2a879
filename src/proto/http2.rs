//! HTTP/2 (RFC 9113): frames, streams, and the messages that they carry.

pub mod frame;
mod grpc;
mod stream;

pub use frame::{PREFACE, are_frames};

use super::body::Context;
use super::hpack;
use super::message::{Header, Http, Message, Part, Protocol, Subject};
use super::{At, Dialog, half, other};
use crate::event::{Dir, Role};
use frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PRIORITY,
    PUSH_PROMISE, RST_STREAM, error_name, unpadded,
};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use stream::Stream;

/// A header block, or any frame that is read as a whole, is given up when it is longer.
const MAX_BLOCK: usize = 1 << 20;
/// Streams of one connection that are kept track of.
const MAX_STREAMS: usize = 10_000;
/// Streams that were reset and are remembered.
const MAX_RESET: usize = 64;
/// A connection.
#[derive(Debug, Default)]
pub struct Http2 {
    halves: [Half; 2],
    streams: BTreeMap<u32, Stream>,
    /// The half that requests come from, once something has shown it.
    asker: Option<Dir>,
    /// Streams that were reset of late: what was on its way then belongs to nothing.
    reset: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Half {
    state: State,
    /// When the frame began that is being read.
    since: At,
    table: hpack::Decoder,
    /// The header block that is being put together.
    block: Option<Block>,
}

#[derive(Debug)]
enum State {
    /// What there is of the preface or of the next frame's header.
    Header(Vec<u8>),
    /// A frame that is read as a whole.
    Whole(Frame, Vec<u8>),
    /// The content of a DATA frame, and padding behind it.
    Content(Frame, u64),
    /// Bytes of a frame that tell us nothing, or padding.
    Skip(u64),
    /// Bytes were lost: until a call begins with frames.
    Lost,
}

impl Default for State {
    fn default() -> State {
        State::Header(Vec::new())
    }
}

#[derive(Debug)]
struct Block {
    frame: Frame,
    /// Of `PUSH_PROMISE`: the stream that it announces.
    promised: Option<u32>,
    since: At,
    bytes: Vec<u8>,
}

impl Dialog for Http2 {
    fn data(
        &mut self,
        dir: Dir,
        at: At,
        bytes: &[u8],
        is_start: bool,
        context: &mut Context<'_>,
    ) -> usize {
        let is_lost = matches!(self.half(dir).state, State::Lost);
        let begins = bytes.starts_with(PREFACE) || are_frames(bytes);
        if is_lost && is_start && begins {
            self.half(dir).state = State::default();
        }
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let state = std::mem::take(&mut self.half(dir).state);
            match state {
                State::Lost => {
                    self.half(dir).state = State::Lost;
                    break;
                }
                State::Header(header) => match self.header(dir, at, header, rest, context) {
                    Some(count) => {
                        used += count;
                        self.empty_frame(dir, at, context);
                    }
                    None => {
                        self.lose(dir, at, context);
                        break;
                    }
                },
                State::Whole(frame, mut whole) => {
                    let left = (frame.len as usize).saturating_sub(whole.len());
                    let more = rest.get(..left).unwrap_or(rest);
                    used += more.len();
                    whole.extend_from_slice(more);
                    if whole.len() < frame.len as usize {
                        self.half(dir).state = State::Whole(frame, whole);
                    } else {
                        self.frame(dir, at, frame, &whole, context);
                    }
                }
                State::Content(frame, left) => {
                    let more = front(rest, left);
                    used += more.len();
                    let left = left - more.len() as u64;
                    self.content(dir, at, frame.stream, more, context);
                    if left > 0 {
                        self.half(dir).state = State::Content(frame, left);
                    } else {
                        self.end_content(dir, at, frame, context);
                    }
                }
                State::Skip(left) => {
                    let more = front(rest, left);
                    used += more.len();
                    let left = left - more.len() as u64;
                    if left > 0 {
                        self.half(dir).state = State::Skip(left);
                    }
                }
            }
        }
        used
    }

    fn gap(&mut self, dir: Dir, at: At, len: u64, context: &mut Context<'_>) {
        match &mut self.half(dir).state {
            State::Skip(left) if len < *left => *left -= len,
            State::Content(frame, left) if len < *left => {
                *left -= len;
                let id = frame.stream;
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.miss(dir, len);
                }
            }
            _ => self.lose(dir, at, context),
        }
    }

    /// One half may end before the other, and streams go on then.
    fn end(&mut self, dir: Option<Dir>, at: At, context: &mut Context<'_>) {
        for each in [Dir::Out, Dir::In] {
            if dir.is_none_or(|dir| dir == each) {
                self.incomplete(each, at, context);
            }
        }
        if dir.is_none() {
            for (_, stream) in std::mem::take(&mut self.streams) {
                stream.end(at, context);
            }
        }
    }
}

impl Http2 {
    fn half(&mut self, dir: Dir) -> &mut Half {
        let [out, input] = &mut self.halves;
        if half(dir) == 0 { out } else { input }
    }

    /// Reads on in the preface or a frame's header; `None` when it is neither.
    fn header(
        &mut self,
        dir: Dir,
        at: At,
        mut header: Vec<u8>,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Option<usize> {
        let before = header.len();
        if before == 0 {
            self.half(dir).since = at;
        }
        let wanted = PREFACE.len().saturating_sub(before).min(bytes.len());
        header.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
        if header.starts_with(PREFACE) {
            self.asker = Some(dir);
            return Some(wanted);
        }
        if PREFACE.starts_with(&header) {
            self.half(dir).state = State::Header(header);
            return Some(wanted);
        }
        let Some(frame) = Frame::parse(&header) else {
            self.half(dir).state = State::Header(header);
            return Some(wanted);
        };
        let goes_on = self.half(dir).block.is_some() == (frame.kind == CONTINUATION);
        let is_whole = match frame.kind {
            HEADERS | PUSH_PROMISE | CONTINUATION | RST_STREAM | GOAWAY => true,
            // The padding's length comes first: nobody pads much.
            DATA => frame.has(PADDED),
            _ => false,
        };
        let is_too_long = is_whole && frame.len as usize > MAX_BLOCK;
        if !frame.is_sound() || !goes_on || is_too_long {
            header.truncate(before);
            context.give_back(dir, self.half(dir).since, header);
            return None;
        }
        self.half(dir).state = if is_whole {
            State::Whole(frame, Vec::new())
        } else if frame.kind == DATA {
            State::Content(frame, frame.len.into())
        } else if frame.len > 0 {
            State::Skip(frame.len.into())
        } else {
            State::default()
        };
        Some(frame::HEADER.saturating_sub(before))
    }

    /// A frame without a payload is complete with its header.
    fn empty_frame(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        match self.half(dir).state {
            State::Whole(frame, _) if frame.len == 0 => {
                self.half(dir).state = State::default();
                self.frame(dir, at, frame, &[], context);
            }
            State::Content(frame, 0) => {
                self.half(dir).state = State::default();
                self.end_content(dir, at, frame, context);
            }
            _ => {}
        }
    }

    /// A whole frame.
    fn frame(&mut self, dir: Dir, at: At, frame: Frame, payload: &[u8], context: &mut Context<'_>) {
        let number = |at: usize| {
            let bytes = payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        match frame.kind {
            DATA => {
                let content = unpadded(frame, payload);
                self.content(dir, at, frame.stream, content, context);
                self.end_content(dir, at, frame, context);
            }
            HEADERS | PUSH_PROMISE => {
                let mut bytes = unpadded(frame, payload);
                let mut promised = None;
                if frame.kind == PUSH_PROMISE {
                    let at = usize::from(frame.has(PADDED));
                    promised = Some(number(at) & 0x7fff_ffff);
                    bytes = bytes.get(4..).unwrap_or_default();
                } else if frame.has(PRIORITY) {
                    bytes = bytes.get(5..).unwrap_or_default();
                }
                self.half(dir).block = Some(Block {
                    frame,
                    promised,
                    since: at,
                    bytes: bytes.to_vec(),
                });
                self.end_block(dir, at, frame, context);
            }
            CONTINUATION => {
                if let Some(block) = &mut self.half(dir).block {
                    block.bytes.extend_from_slice(payload);
                    if block.bytes.len() > MAX_BLOCK {
                        return self.lose(dir, at, context);
                    }
                }
                self.end_block(dir, at, frame, context);
            }
            RST_STREAM => self.reset(dir, at, frame.stream, number(0) == 0, context),
            GOAWAY if number(4) != 0 => {
                let mut line = format!("goaway {}", error_name(number(4))).into_bytes();
                if let Some(debug) = payload.get(8..).filter(|debug| !debug.is_empty()) {
                    line.push(b' ');
                    line.extend_from_slice(debug);
                }
                let line = Rc::new(Subject::Line(line));
                let message = Message::begin(Protocol::Http2, Part::Single, dir, at, line);
                context.finish(message, at);
            }
            _ => {}
        }
    }

    /// `is_friendly`: without an error, which after a whole response only means that the rest of
    /// the request is not wanted (section 8.1); it may be on its way all the same.
    fn reset(&mut self, dir: Dir, at: At, id: u32, is_friendly: bool, context: &mut Context<'_>) {
        let has_ended = |stream: &Stream| stream.has_ended(dir);
        if is_friendly && self.streams.get(&id).is_some_and(has_ended) {
            return;
        }
        if let Some(stream) = self.streams.remove(&id) {
            stream.end(at, context);
            self.reset.push_back(id);
            if self.reset.len() > MAX_RESET {
                self.reset.pop_front();
            }
        }
    }

    fn end_block(&mut self, dir: Dir, at: At, frame: Frame, context: &mut Context<'_>) {
        if frame.has(END_HEADERS)
            && let Some(block) = self.half(dir).block.take()
        {
            self.head(dir, at, block, true, context);
        }
    }

    /// A header block, whole or as far as it came.
    fn head(&mut self, dir: Dir, at: At, block: Block, is_whole: bool, context: &mut Context<'_>) {
        let half = self.half(dir);
        let mut http = Http {
            version: "2",
            ..Http::default()
        };
        let whole = half
            .table
            .decode(&block.bytes, &mut |field| http.add(field));
        let is_whole = is_whole && whole.is_ok();
        let id = block.promised.unwrap_or(block.frame.stream);
        let is_end = block.frame.has(END_STREAM) && block.promised.is_none();
        let stream = self.streams.entry(id).or_default();
        if stream.has(dir) && http.is_trailers() {
            stream.trailers(dir, http.headers, is_whole);
        } else {
            let is_request = block.promised.is_some()
                || http.method.is_some()
                || http.status.is_none() && asks(self.asker, context) == Some(dir);
            if block.promised.is_none() {
                self.asker = Some(if is_request { dir } else { other(dir) });
            }
            http.locate(context.conn);
            let mut message = stream.begin(dir, is_request, block.since, http);
            message.stream = Some(id);
            message.is_cut |= !is_whole;
            stream.put(message, block.promised.is_some(), at, context);
        }
        if is_end {
            self.end_half(id, dir, at, context);
        }
        if self.streams.len() > MAX_STREAMS
            && let Some((_, stream)) = self.streams.pop_first()
        {
            stream.end(at, context);
        }
    }

    fn content(&mut self, dir: Dir, at: At, id: u32, content: &[u8], context: &mut Context<'_>) {
        if content.is_empty() {
            return;
        }
        if self.reset.contains(&id) && !self.streams.contains_key(&id) {
            return;
        }
        let is_request = asks(self.asker, context) == Some(dir);
        let stream = self.streams.entry(id).or_default();
        stream.content(id, dir, at, is_request, content, context);
    }

    fn end_content(&mut self, dir: Dir, at: At, frame: Frame, context: &mut Context<'_>) {
        if frame.has(END_STREAM) {
            self.end_half(frame.stream, dir, at, context);
        }
    }

    fn end_half(&mut self, id: u32, dir: Dir, at: At, context: &mut Context<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.finish(dir, at, context);
        if stream.is_ended() {
            self.streams.remove(&id);
        }
    }

    /// Where the next frame begins is not known any more.
    fn lose(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        self.incomplete(dir, at, context);
        let half = self.half(dir);
        half.state = State::Lost;
        half.table.forget();
        for stream in self.streams.values_mut() {
            stream.cut(dir);
        }
    }
}

impl Http2 {
    /// Nothing more of what the half has begun will come: it is told or shown as far as it goes.
    fn incomplete(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        let half = self.half(dir);
        let since = half.since;
        match std::mem::take(&mut half.state) {
            State::Header(header) => context.give_back(dir, since, header),
            State::Whole(frame, whole) => {
                context.give_back(dir, since, [frame.header(), whole].concat());
            }
            State::Lost => half.state = State::Lost,
            State::Content(..) | State::Skip(_) => {}
        }
        if let Some(block) = self.half(dir).block.take() {
            self.head(dir, at, block, false, context);
        }
    }
}

/// The half that requests come from, as far as it is known.
fn asks(seen: Option<Dir>, context: &Context<'_>) -> Option<Dir> {
    seen.or(context.conn.role.map(|role| match role {
        Role::Client => Dir::Out,
        Role::Server => Dir::In,
    }))
}

impl Http {
    /// The next field of a header block.
    fn add(&mut self, field: hpack::Field) {
        let unknown = || b"?".to_vec();
        let is_unknown = field.name.is_none() || field.value.is_none();
        self.unknown_fields += u32::from(is_unknown);
        let name = field.name.unwrap_or_else(unknown);
        let value = field.value.unwrap_or_else(unknown);
        match name.as_slice() {
            b":method" => self.method = Some(value),
            b":path" => self.target = Some(value),
            b":authority" => self.host = Some(value),
            b":status" => {
                let status = std::str::from_utf8(&value).ok();
                self.status = status.and_then(|status| status.parse().ok());
            }
            b":scheme" | b":protocol" => {}
            _ => self.headers.push(Header { name, value }),
        }
    }

    /// Whether it has none of the fields that a head must have.
    fn is_trailers(&self) -> bool {
        self.method.is_none() && self.target.is_none() && self.status.is_none()
    }
}

/// At most so many bytes.
fn front(bytes: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    bytes.get(..most).unwrap_or(bytes)
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
