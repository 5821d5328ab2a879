//! Keeps the beginning of bodies within bounds, and undoes their content encoding for display.

use super::message::{Body, Http, Message, Part, Subject};
use super::{At, Limits, doh};
use crate::event::{Conn, Dir};
use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

/// What a decoder works with: whose bytes they are, what may be kept, and where messages go.
#[derive(Debug)]
pub struct Context<'a> {
    pub conn: &'a Conn,
    pub limits: Limits,
    /// Bytes kept of all incomplete bodies.
    pub held: &'a mut usize,
    /// Bytes kept of the bodies of requests that wait for their responses.
    pub sent: &'a Rc<Cell<usize>>,
    pub ready: &'a mut Vec<Message>,
    /// Bytes that were taken and turned out to be no message.
    pub undone: &'a mut Vec<Undone>,
}

/// The last bytes that were taken of a half, which are shown as they are after all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    pub dir: Dir,
    /// Of the first of them.
    pub at: At,
    pub bytes: Vec<u8>,
}

impl Context<'_> {
    /// The next bytes of a body.
    pub fn keep(&mut self, body: &mut Body, bytes: &[u8]) {
        let room = if body.is_whole() {
            let own = self.limits.body.saturating_sub(body.kept.len());
            own.min(self.limits.bodies.saturating_sub(*self.held))
        } else {
            0
        };
        let kept = bytes.get(..room).unwrap_or(bytes);
        body.kept.extend_from_slice(kept);
        *self.held += kept.len();
        body.size += bytes.len() as u64;
    }

    /// The next bytes of an HTTP message's body. One that says what the message is about is kept
    /// whoever else looks at bodies.
    pub fn keep_content(&mut self, message: &mut Message, bytes: &[u8]) {
        let is_short = message.body.kept.len().saturating_add(bytes.len()) <= doh::MAX_MESSAGE;
        let is_dns = || message.subject.http().is_some_and(doh::is_message);
        if self.limits.body == 0 && is_short && is_dns() {
            self.keep_short(&mut message.body, bytes);
        } else {
            self.keep(&mut message.body, bytes);
        }
    }

    /// Likewise of a body that is short and that we look at ourselves, whoever else does.
    pub fn keep_short(&mut self, body: &mut Body, bytes: &[u8]) {
        body.kept.extend_from_slice(bytes);
        body.size += bytes.len() as u64;
        *self.held += bytes.len();
    }

    /// The last bytes that were taken of the half are no message, or will never be a whole one.
    pub fn give_back(&mut self, dir: Dir, at: At, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.undone.push(Undone { dir, at, bytes });
        }
    }

    /// The message is complete, or will never be.
    pub fn finish(&mut self, mut message: Message, at: At) {
        message.end = message.end.max(at.ts);
        message.is_cut |= message.body.lost > 0;
        if let Subject::Http(http) = &*message.subject
            && let Some(dns) = doh::describe(http, &message.body)
            && let Subject::Http(http) = Rc::make_mut(&mut message.subject)
        {
            http.dns = Some(dns);
        }
        *self.held = self.held.saturating_sub(message.body.kept.len());
        if message.part == Part::Request
            && message.body.size > 0
            && let Some(asked) = &message.asked
        {
            let room = self.limits.bodies.saturating_sub(self.sent.get());
            let _ = asked
                .sent
                .set(Rc::new(Sent::new(&message.body, room, self.sent)));
        }
        self.ready.push(message);
    }
}

/// The body of a request, for whoever looks at its response.
#[derive(Debug)]
pub struct Sent {
    pub body: Body,
    /// Counts what is kept of all such.
    all: Rc<Cell<usize>>,
}

impl Sent {
    /// Keeps at most so many bytes.
    fn new(body: &Body, room: usize, all: &Rc<Cell<usize>>) -> Sent {
        let kept = body.kept.get(..room).unwrap_or(&body.kept).to_vec();
        all.set(all.get().saturating_add(kept.len()));
        Sent {
            body: Body { kept, ..*body },
            all: Rc::clone(all),
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let all = self.all.get();
        self.all.set(all.saturating_sub(self.body.kept.len()));
    }
}

impl Body {
    /// Bytes of it have passed unseen.
    pub fn miss(&mut self, len: u64) {
        self.size = self.size.saturating_add(len);
        self.lost = self.lost.saturating_add(len);
    }
}

/// Most bytes that a body may become: a bomb stays harmless.
const MAX_DECODED: u64 = 8 << 20;

/// A body without its content encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub bytes: Vec<u8>,
    /// Fewer bytes than the body has: it was not kept whole, or ends too early, or is too long.
    pub is_cut: bool,
    /// The coding that could not be undone; `bytes` are still in it.
    pub undone: Option<Vec<u8>>,
}

/// Undoes the codings that `content-encoding` names (RFC 9110 section 8.4), the last one first.
pub fn decode(http: &Http, body: &Body) -> Decoded {
    let mut decoded = Decoded {
        bytes: body.kept.clone(),
        is_cut: !body.is_whole(),
        undone: None,
    };
    let codings: Vec<&[u8]> = http
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(b"content-encoding"))
        .flat_map(|header| header.value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
        .collect();
    for coding in codings.into_iter().rev() {
        let Some((bytes, is_whole)) = undo(coding, &decoded.bytes) else {
            decoded.undone = Some(coding.to_vec());
            break;
        };
        decoded.bytes = bytes;
        decoded.is_cut |= !is_whole;
    }
    decoded
}

/// What could be read, and whether that was all; `None` when nothing could, or the coding is
/// unknown.
fn undo(coding: &[u8], bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
    if bytes.is_empty() {
        return Some((Vec::new(), true));
    }
    if is("gzip") || is("x-gzip") {
        read_all(flate2::read::MultiGzDecoder::new(bytes))
    } else if is("deflate") {
        // RFC 9110 means zlib; some send the bare stream.
        read_all(flate2::read::ZlibDecoder::new(bytes))
            .or_else(|| read_all(flate2::read::DeflateDecoder::new(bytes)))
    } else if is("br") {
        read_all(brotli_decompressor::Decompressor::new(bytes, 4096))
    } else if is("zstd") {
        read_all(ruzstd::decoding::StreamingDecoder::new(bytes).ok()?)
    } else {
        None
    }
}

fn read_all(from: impl Read) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let mut limited = from.take(MAX_DECODED);
    match limited.read_to_end(&mut bytes) {
        Ok(_) => Some((bytes, limited.limit() > 0)),
        Err(_) if bytes.is_empty() => None,
        Err(_) => Some((bytes, false)),
    }
}
