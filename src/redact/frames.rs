//! Frames of HTTP/2: which bytes of a half are header blocks, which are bodies.

use super::encoded::is_compressed;
use super::hpack::{Blocks, Body};
use super::keys::Keys;
use super::names::Names;
use crate::proto::http2::{self, frame};
use std::collections::HashMap;

/// Bodies that are read at a time in one half; those of more are hidden wholly.
const MOST_BODIES: usize = 1024;

/// One half of a connection in HTTP/2.
#[derive(Debug, Default)]
pub struct Frames {
    place: Place,
    header: [u8; frame::HEADER],
    blocks: Blocks,
    /// By stream; only where bodies are looked into.
    bodies: HashMap<u32, BodyText>,
    /// Whether the stream ends with the header block.
    is_last_block: bool,
    /// Streams that were reset: their bodies end in the other half too.
    reset: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Of the client's preface so many bytes have been.
    Preface(usize),
    /// So many bytes of a frame's header have been.
    Header(usize),
    Payload(Payload),
    /// Nothing has come.
    #[default]
    Ahead,
    /// The frames are lost: all is hidden until they are found.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Payload {
    kind: u8,
    stream: u32,
    is_last: bool,
    /// Bytes before what the frame is about: padding's length, priority, promised stream.
    before: u32,
    /// Whether the first of them is the length of the padding.
    is_padded: bool,
    /// Bytes that are left of what the frame is about, and then of padding.
    left: u32,
    padding: u32,
}

#[derive(Debug)]
enum BodyText {
    /// Its first byte is to come.
    Ahead(Body),
    Plain(Keys),
    Hidden,
}

impl Frames {
    /// A half of which the beginning was missed.
    pub fn lost() -> Frames {
        Frames {
            place: Place::Lost,
            ..Frames::default()
        }
    }

    /// `len` bytes are missing.
    pub fn gap(&mut self, len: u64) {
        match &mut self.place {
            Place::Payload(payload) if len <= payload.rest() => {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                let (kind, stream) = (payload.kind, payload.stream);
                let before = payload.before;
                payload.skip(len);
                if before > 0 && payload.is_padded {
                    // Where the padding begins is not known.
                    payload.is_padded = false;
                }
                if is_block(kind) {
                    self.blocks.gap();
                } else if kind == frame::DATA {
                    match self.bodies.get_mut(&stream) {
                        Some(BodyText::Plain(keys)) => keys.gap(),
                        Some(BodyText::Ahead(body)) => *body = body.max_unknown(),
                        Some(BodyText::Hidden) | None => {}
                    }
                }
                self.end_if_over();
            }
            _ => {
                self.place = Place::Lost;
                self.blocks.gap();
                self.bodies.clear();
            }
        }
    }

    /// Hides what is secret in the next bytes. `is_start`: a read or write begins with them.
    pub fn hide(&mut self, bytes: &mut [u8], is_start: bool, names: &Names) {
        let may_begin = self.place == Place::Lost && is_start;
        if (may_begin || self.place == Place::Ahead) && !bytes.is_empty() {
            self.place = self.find(bytes);
        }
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match self.place {
                Place::Ahead | Place::Lost => {
                    rest.fill(b'*');
                    return;
                }
                Place::Preface(seen) => {
                    let is_preface = rest.first() == http2::PREFACE.get(seen);
                    at += 1;
                    self.place = match seen + 1 {
                        _ if !is_preface => Place::Lost,
                        all if all == http2::PREFACE.len() => Place::Header(0),
                        some => Place::Preface(some),
                    };
                    if let (false, Some(byte)) = (is_preface, rest.first_mut()) {
                        *byte = b'*';
                    }
                }
                Place::Header(seen) => {
                    if let (Some(slot), Some(&byte)) = (self.header.get_mut(seen), rest.first()) {
                        *slot = byte;
                    }
                    at += 1;
                    self.place = Place::Header(seen + 1);
                    if seen + 1 == frame::HEADER {
                        self.begin(names);
                    }
                }
                Place::Payload(payload) => {
                    let take = usize::try_from(payload.rest())
                        .map_or(rest.len(), |left| left.min(rest.len()));
                    let Some(piece) = rest.get_mut(..take) else {
                        return;
                    };
                    self.payload(payload, piece, names);
                    at += take;
                }
            }
        }
    }

    /// Where these bytes are, which may begin with a frame.
    fn find(&self, bytes: &[u8]) -> Place {
        // Frames of 64 KiB are never the first, so that a piece of a header begins with 0.
        let is_piece =
            self.place == Place::Ahead && bytes.len() < frame::HEADER && bytes.first() == Some(&0);
        // The server begins with its settings.
        let is_hello = self.place == Place::Ahead
            && http2::are_frames(bytes)
            && frame::Frame::parse(bytes).is_some_and(|first| first.kind == frame::SETTINGS);
        let start = bytes.get(..http2::PREFACE.len()).unwrap_or(bytes);
        if http2::PREFACE.starts_with(start) {
            Place::Preface(0)
        } else if is_piece || is_hello || are_surely_frames(bytes) {
            Place::Header(0)
        } else {
            Place::Lost
        }
    }

    /// The streams that were reset in this half since the last look.
    pub fn take_reset(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.reset)
    }

    /// The other half has reset this stream.
    pub fn end_stream(&mut self, stream: u32) {
        self.bodies.remove(&stream);
    }

    /// A frame's header is complete.
    fn begin(&mut self, names: &Names) {
        let header = frame::Frame::parse(&self.header).filter(|header| header.is_sound());
        let Some(header) = header else {
            self.gap(u64::MAX);
            return;
        };
        let is_padded = header.has(frame::PADDED)
            && matches!(
                header.kind,
                frame::DATA | frame::HEADERS | frame::PUSH_PROMISE
            );
        let more = match header.kind {
            frame::HEADERS if header.has(frame::PRIORITY) => 5,
            frame::PUSH_PROMISE => 4,
            _ => 0,
        };
        let before = (u32::from(is_padded) + more).min(header.len);
        match header.kind {
            frame::HEADERS | frame::PUSH_PROMISE => self.blocks.begin(),
            frame::RST_STREAM => {
                self.bodies.remove(&header.stream);
                if names.has_keys() {
                    self.reset.push(header.stream);
                }
            }
            _ => {}
        }
        let is_last = header.has(frame::END_STREAM);
        if header.kind != frame::CONTINUATION {
            self.is_last_block = header.kind == frame::HEADERS && is_last;
        }
        self.place = Place::Payload(Payload {
            kind: header.kind,
            stream: header.stream,
            is_last: self.is_last_block || (header.kind == frame::DATA && is_last),
            before,
            is_padded,
            left: header.len - before,
            padding: 0,
        });
        if names.has_keys()
            && header.kind == frame::DATA
            && !self.bodies.contains_key(&header.stream)
        {
            // Its header block was missed.
            self.begin_body(header.stream, Body::Unknown);
        }
        self.end_if_over();
    }

    fn payload(&mut self, mut payload: Payload, bytes: &mut [u8], names: &Names) {
        let mut at = 0;
        while payload.before > 0 {
            let Some(&byte) = bytes.get(at) else {
                self.place = Place::Payload(payload);
                return;
            };
            if payload.is_padded {
                payload.is_padded = false;
                payload.padding = u32::from(byte).min(payload.left);
                payload.left -= payload.padding;
                // Padding counts from the end of the frame, before which other fields may be.
            }
            payload.before -= 1;
            at += 1;
        }
        let rest = bytes.get_mut(at..).unwrap_or_default();
        let take = usize::try_from(payload.left).map_or(rest.len(), |left| left.min(rest.len()));
        let (text, padding) = rest.split_at_mut(take);
        payload.skip(u32::try_from(text.len() + padding.len()).unwrap_or(u32::MAX));
        if is_block(payload.kind) {
            self.blocks.hide(text, names);
            if names.has_keys() && payload.rest() == 0 && payload.kind != frame::PUSH_PROMISE {
                self.begin_body(payload.stream, self.blocks.body);
            }
        } else if payload.kind == frame::DATA && names.has_keys() {
            self.body(payload.stream, text, names);
        }
        self.place = Place::Payload(payload);
        self.end_if_over();
    }

    /// The fields of a header block are known, at least those so far.
    fn begin_body(&mut self, stream: u32, body: Body) {
        let has_room = self.bodies.len() < MOST_BODIES;
        match self.bodies.get_mut(&stream) {
            Some(BodyText::Ahead(known)) => *known = body,
            Some(_) => {}
            None if has_room => {
                self.bodies.insert(stream, BodyText::Ahead(body));
            }
            None => {}
        }
    }

    fn body(&mut self, stream: u32, bytes: &mut [u8], names: &Names) {
        let Some(&first) = bytes.first() else {
            return;
        };
        let Some(body) = self.bodies.get_mut(&stream) else {
            bytes.fill(b'*');
            return;
        };
        if let BodyText::Ahead(known) = body {
            let is_hidden = match known {
                Body::Encoded => true,
                Body::Unknown => !first.is_ascii_graphic() && !first.is_ascii_whitespace(),
                Body::Plain => is_compressed(bytes),
            };
            *body = if is_hidden {
                BodyText::Hidden
            } else {
                BodyText::Plain(Keys::default())
            };
        }
        match body {
            BodyText::Plain(keys) => keys.hide(bytes, names),
            BodyText::Ahead(_) | BodyText::Hidden => bytes.fill(b'*'),
        }
    }

    fn end_if_over(&mut self) {
        if let Place::Payload(payload) = self.place
            && payload.rest() == 0
        {
            if payload.is_last {
                self.bodies.remove(&payload.stream);
            }
            self.place = Place::Header(0);
        }
    }
}

impl Payload {
    fn rest(&self) -> u64 {
        u64::from(self.before) + u64::from(self.left) + u64::from(self.padding)
    }

    /// So many bytes of it have passed.
    fn skip(&mut self, len: u32) {
        let mut len = len;
        for part in [&mut self.before, &mut self.left, &mut self.padding] {
            let taken = len.min(*part);
            *part -= taken;
            len -= taken;
        }
    }
}

/// A lone header may be anything: frames are believed in where they end with the call, where there
/// are three, and where a call is a header exactly.
fn are_surely_frames(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut complete = 0;
    while let Some(header) = frame::Frame::parse(rest) {
        let whole = frame::HEADER + header.len as usize;
        match rest.get(whole..) {
            Some(next) => rest = next,
            None => break,
        }
        complete += 1;
    }
    let is_exact = rest.is_empty() || bytes.len() == frame::HEADER;
    http2::are_frames(bytes) && (is_exact || complete > 2)
}

fn is_block(kind: u8) -> bool {
    matches!(
        kind,
        frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION
    )
}
