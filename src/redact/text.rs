//! A half that is HTTP/1 or anything else but HTTP/2.
//!
//! Header lines are looked for everywhere, whatever the bytes are. Where a body is, is followed
//! only as far as it helps to see through chunks and compression, and what it is believed to be
//! never ends the search for header lines, but where all is hidden.

use super::encoded::is_compressed;
use super::keys::Keys;
use super::lines::{End, Fact, Lines};
use super::names::Names;
use super::websocket::WebSocket;
use crate::proto::detect::{self, Match};

/// One half.
#[derive(Debug, Default)]
pub struct Text {
    lines: Lines,
    keys: Keys,
    place: Place,
    head: Head,
}

#[derive(Debug, Default)]
enum Place {
    /// A head, or nothing that is known.
    #[default]
    Head,
    /// So many bytes of the body, or of a chunk of it, are left.
    Body {
        left: u64,
        is_chunk: bool,
        kind: Kind,
    },
    /// The line with a chunk's size.
    ChunkSize {
        size: Option<u64>,
        is_extension: bool,
        kind: Kind,
    },
    /// The line end behind a chunk.
    ChunkEnd(Kind),
    WebSocket(Box<WebSocket>),
}

/// What is done with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing of it has come.
    New,
    Plain,
    Hidden,
}

/// What the head has told.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    is_chunked: bool,
    is_encoded: bool,
    is_websocket: bool,
}

impl Text {
    /// `len` bytes are missing.
    pub fn gap(&mut self, len: u64) {
        self.keys.gap();
        match &mut self.place {
            Place::WebSocket(websocket) => websocket.gap(len),
            Place::Body { left, .. } if len <= *left && *left != u64::MAX => {
                *left -= len;
                self.lines.gap(false);
            }
            // A body up to the end of the connection, hidden or not.
            Place::Body { left, .. } if *left == u64::MAX => self.lines.gap(true),
            _ => {
                self.place = Place::Head;
                self.head = Head::default();
                self.lines.gap(true);
            }
        }
    }

    /// Hides what is secret in the next bytes. `is_start`: a read or write begins with them.
    pub fn hide(&mut self, bytes: &mut [u8], is_start: bool, names: &Names) {
        // After a gap, what is hidden ends here too.
        if is_start && begins_head(bytes) {
            self.begin_head();
        }
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            at += self.some(rest, names);
        }
    }

    fn begin_head(&mut self) {
        self.place = Place::Head;
        self.head = Head::default();
        self.lines.restart();
        self.keys = Keys::default();
    }

    /// Takes at least one byte; returns how many.
    fn some(&mut self, bytes: &mut [u8], names: &Names) -> usize {
        match &mut self.place {
            Place::Head => self.line(bytes, names),
            Place::Body { left, kind, .. } => {
                if *kind == Kind::New {
                    // The head promised a body that is none: it answers HEAD, or is a 304.
                    if begins_head(bytes) {
                        self.begin_head();
                        return self.line(bytes, names);
                    }
                    let is_hidden = self.head.is_encoded || is_compressed(bytes);
                    *kind = if is_hidden && names.has_keys() {
                        Kind::Hidden
                    } else {
                        Kind::Plain
                    };
                }
                let take = usize::try_from(*left).map_or(bytes.len(), |n| n.min(bytes.len()));
                if *left != u64::MAX {
                    *left -= take as u64;
                }
                let kind = *kind;
                let piece = bytes.get_mut(..take).unwrap_or_default();
                if kind == Kind::Hidden {
                    piece.fill(b'*');
                } else {
                    self.body(piece, names);
                }
                self.end_body_if_over();
                take
            }
            Place::ChunkSize {
                size,
                is_extension,
                kind,
            } => {
                let byte = bytes.first().copied().unwrap_or_default();
                let digit = char::from(byte).to_digit(16).filter(|_| !*is_extension);
                match (byte, digit) {
                    (b'\n', _) => {
                        let (size, kind) = (*size, *kind);
                        self.begin_chunk(size, kind);
                    }
                    (_, Some(digit)) => {
                        let before = size.unwrap_or(0);
                        let more = before.checked_mul(16).map(|size| size | u64::from(digit));
                        match more {
                            Some(more) => *size = Some(more),
                            None => self.begin_head(),
                        }
                    }
                    (b'\r' | b' ' | b'\t' | b';', None) if size.is_some() => *is_extension = true,
                    (_, None) if *is_extension => {}
                    // It is no chunk.
                    _ => {
                        self.begin_head();
                        return self.line(bytes, names);
                    }
                }
                1
            }
            Place::ChunkEnd(kind) => {
                match bytes.first() {
                    Some(b'\r') => {}
                    Some(b'\n') => {
                        self.place = Place::ChunkSize {
                            size: None,
                            is_extension: false,
                            kind: *kind,
                        }
                    }
                    _ => {
                        self.begin_head();
                        return self.line(bytes, names);
                    }
                }
                1
            }
            Place::WebSocket(websocket) => {
                websocket.hide(bytes, names);
                bytes.len()
            }
        }
    }

    /// Up to a line's end.
    fn line(&mut self, bytes: &mut [u8], names: &Names) -> usize {
        let (taken, end) = self.lines.line(bytes, names);
        match end {
            None | Some(End::Other) => {}
            Some(End::Fact(fact, value)) => self.head.learn(fact, value),
            Some(End::Blank) => self.begin_body(names),
        }
        if names.has_keys() {
            let line = bytes.get_mut(..taken).unwrap_or_default();
            self.keys.hide(line, names);
        }
        if !matches!(self.place, Place::Head) {
            self.keys = Keys::default();
        }
        taken
    }

    /// A blank line has ended what may be a head.
    fn begin_body(&mut self, names: &Names) {
        let head = self.head;
        self.place = if head.is_websocket && names.has_keys() {
            Place::WebSocket(Box::default())
        } else if head.is_chunked {
            Place::ChunkSize {
                size: None,
                is_extension: false,
                kind: Kind::New,
            }
        } else {
            let left = match head.length {
                Some(length) => length,
                // Up to the end, or none at all.
                None if head.is_encoded => u64::MAX,
                None => 0,
            };
            match left {
                0 => Place::Head,
                left => Place::Body {
                    left,
                    is_chunk: false,
                    kind: Kind::New,
                },
            }
        };
        if matches!(self.place, Place::Head) {
            self.head = Head::default();
        }
        self.lines.restart();
    }

    fn begin_chunk(&mut self, size: Option<u64>, kind: Kind) {
        match size {
            Some(1..) => {
                self.place = Place::Body {
                    left: size.unwrap_or(0),
                    is_chunk: true,
                    kind,
                }
            }
            // Trailers follow.
            _ => self.begin_head(),
        }
    }

    fn body(&mut self, bytes: &mut [u8], names: &Names) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            at += self.lines.line(rest, names).0;
        }
        if names.has_keys() {
            self.keys.hide(bytes, names);
        }
    }

    fn end_body_if_over(&mut self) {
        if let Place::Body {
            left: 0,
            is_chunk,
            kind,
        } = self.place
        {
            if is_chunk {
                self.place = Place::ChunkEnd(kind);
            } else {
                self.begin_head();
            }
        }
    }
}

impl Head {
    fn learn(&mut self, fact: Fact, value: &[u8]) {
        match fact {
            Fact::Length => {
                let text = std::str::from_utf8(value).ok();
                self.length = text.and_then(|text| text.trim().parse().ok());
            }
            Fact::Transfer => self.is_chunked = ends_with_chunked(value),
            Fact::Encoding => self.is_encoded |= !value.eq_ignore_ascii_case(b"identity"),
            Fact::WebSocket => self.is_websocket = true,
        }
    }
}

fn ends_with_chunked(value: &[u8]) -> bool {
    let last = value
        .rsplit(|&byte| byte == b',')
        .next()
        .unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

fn begins_head(bytes: &[u8]) -> bool {
    detect::head(bytes) == Match::Whole
}
