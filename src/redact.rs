//! Hides secrets before anything is told or written: each output sees the same bytes.
//!
//! Lengths stay as they are, so that offsets, frames and checksums of what is written are right.
//! What cannot be known, after a gap for one, is rather hidden than shown.

mod encoded;
mod frames;
mod hpack;
mod keys;
mod lines;
mod multipart;
mod names;
mod text;
mod websocket;

pub use names::{DEFAULT, Names};

use crate::event::{Conn, Data, Dir, Event, Kind};
use crate::proto::Protocol;
use crate::proto::detect::{self, First, Match, Verdict};
use crate::proto::http2::PREFACE;
use frames::Frames;
use std::collections::HashMap;
use text::Text;

/// After a gap, so many bytes may be the rest of a secret.
const UNKNOWN: usize = 8 << 10;

/// Hides secrets in the events that pass.
#[derive(Debug)]
pub struct Redactor {
    names: Names,
    conns: HashMap<u64, Halves>,
    bytes: Vec<u8>,
}

/// Both halves of a connection.
#[derive(Debug, Default)]
struct Halves {
    out: Half,
    r#in: Half,
    is_http2: bool,
}

#[derive(Debug)]
struct Half {
    /// What it began with, up to the length of the preface.
    first: Vec<u8>,
    /// Whether bytes have been beyond that, or are missing.
    is_long: bool,
    speech: Speech,
}

#[derive(Debug)]
enum Speech {
    Text(Box<Text>),
    Http2(Box<Frames>),
}

impl Default for Half {
    fn default() -> Half {
        Half {
            first: Vec::new(),
            is_long: false,
            speech: Speech::Text(Box::default()),
        }
    }
}

impl Redactor {
    pub fn new(names: Names) -> Redactor {
        Redactor {
            names,
            conns: HashMap::new(),
            bytes: Vec::new(),
        }
    }

    /// Hands on the event without what is secret in it.
    pub fn event<T>(&mut self, event: &Event<'_>, next: impl FnOnce(&Event<'_>) -> T) -> T {
        match event.kind {
            Kind::Data(data) => {
                self.bytes.clear();
                self.bytes.extend_from_slice(data.bytes);
                let halves = self.conns.entry(event.conn.id).or_default();
                halves.data(event.conn, &data, &mut self.bytes, &self.names);
                let kind = Kind::Data(Data {
                    bytes: &self.bytes,
                    ..data
                });
                return next(&Event { kind, ..*event });
            }
            Kind::Gap { dir, len, .. } => {
                let halves = self.conns.entry(event.conn.id).or_default();
                halves.half(dir).gap(len);
            }
            Kind::Close => {
                self.conns.remove(&event.conn.id);
            }
            Kind::Open | Kind::Shutdown => {}
        }
        next(event)
    }
}

impl Halves {
    fn half(&mut self, dir: Dir) -> &mut Half {
        match dir {
            Dir::Out => &mut self.out,
            Dir::In => &mut self.r#in,
        }
    }

    fn data(&mut self, conn: &Conn, data: &Data<'_>, bytes: &mut [u8], names: &Names) {
        let is_start = data.call_off == 0;
        let is_http2 = self.is_http2;
        let half = self.half(data.dir);
        let before = half.first.len();
        if !half.is_long {
            let room = PREFACE.len() - before;
            half.first.extend(bytes.iter().take(room));
        }
        let is_named = conn.alpn.as_deref() == Some("h2");
        let is_found = is_start && half.may_be_http2() && begins_http2(bytes);
        if !is_http2 && (is_named || half.is_preface() || is_found) {
            self.is_http2 = true;
            self.out.be_http2((data.dir == Dir::Out).then_some(before));
            self.r#in.be_http2((data.dir == Dir::In).then_some(before));
        }
        let half = self.half(data.dir);
        half.is_long |= before + bytes.len() > PREFACE.len();
        match &mut half.speech {
            Speech::Text(text) => text.hide(bytes, is_start, names),
            Speech::Http2(frames) => {
                frames.hide(bytes, is_start, names);
                let reset = frames.take_reset();
                let other = match data.dir {
                    Dir::Out => &mut self.r#in,
                    Dir::In => &mut self.out,
                };
                other.end_streams(&reset);
            }
        }
        let cut = data.len.saturating_sub(bytes.len() as u64);
        if cut > 0 {
            self.half(data.dir).gap(cut);
        }
    }
}

/// Whether a call that begins so is HTTP/2, for sure enough.
fn begins_http2(bytes: &[u8]) -> bool {
    let first = First {
        bytes,
        side: None,
        alpn: None,
        ports: [None, None],
    };
    matches!(detect::look(&first), Verdict::Known(Protocol::Http2, _))
}

impl Half {
    fn gap(&mut self, len: u64) {
        self.is_long = true;
        match &mut self.speech {
            Speech::Text(text) => text.gap(len),
            Speech::Http2(frames) => frames.gap(len),
        }
    }

    fn is_preface(&self) -> bool {
        self.first == PREFACE
    }

    /// What began as HTTP/1 has bytes of all kinds later on.
    fn may_be_http2(&self) -> bool {
        PREFACE.starts_with(&self.first) || detect::head(&self.first) == Match::No
    }

    /// The connection is in HTTP/2. Of this half, `seen` of the first bytes have been taken as
    /// text, all of them with `None`; they are read again, so that the place in it is known.
    fn be_http2(&mut self, seen: Option<usize>) {
        let seen = self.first.get(..seen.unwrap_or(self.first.len()));
        let mut seen = seen.unwrap_or_default().to_vec();
        let mut frames = if self.is_long {
            Frames::lost()
        } else {
            Frames::default()
        };
        frames.hide(&mut seen, false, &Names::default());
        self.speech = Speech::Http2(Box::new(frames));
    }

    fn end_streams(&mut self, streams: &[u32]) {
        if let Speech::Http2(frames) = &mut self.speech {
            for &stream in streams {
                frames.end_stream(stream);
            }
        }
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
