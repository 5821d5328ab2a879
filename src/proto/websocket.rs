//! WebSocket messages (RFC 6455) with permessage-deflate (RFC 7692).

use super::At;
use super::body::Context;
use super::message::{Asked, Http, Message, Part, Protocol, Subject};
use crate::event::Dir;
use flate2::{Decompress, FlushDecompress, Status};
use std::rc::Rc;

/// Longest frame that is believed in when the place of frames was lost.
const MAX_FOUND: u64 = 1 << 24;

/// What the handshake agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    is_deflated: bool,
    /// Each message of the server, or client, is compressed without the ones before.
    server_forgets: bool,
    client_forgets: bool,
}

impl Settings {
    /// `None` when the response upgrades to something else.
    pub fn agreed(http: &Http) -> Option<Settings> {
        let upgrade = http.header("upgrade")?;
        if !upgrade.eq_ignore_ascii_case(b"websocket") {
            return None;
        }
        let extensions = http.header("sec-websocket-extensions").unwrap_or_default();
        let extensions = String::from_utf8_lossy(extensions).to_ascii_lowercase();
        let has = |word: &str| extensions.contains(word);
        Some(Settings {
            is_deflated: has("permessage-deflate"),
            server_forgets: has("server_no_context_takeover"),
            client_forgets: has("client_no_context_takeover"),
        })
    }
}

/// One half of a WebSocket.
#[derive(Debug)]
pub struct Frames {
    asked: Option<Rc<Asked>>,
    header: Vec<u8>,
    /// When the header began.
    since: At,
    payload: Option<Payload>,
    /// The data message whose frames are coming.
    message: Option<Open>,
    /// The control message: it may stand between those frames.
    control: Option<Open>,
    inflate: Option<Decompress>,
    is_deflated: bool,
    forgets: bool,
    /// Bytes were missed: until a call begins with a frame.
    is_lost: bool,
}

/// The frame that is being read.
#[derive(Debug)]
struct Payload {
    left: u64,
    mask: Option<[u8; 4]>,
    /// Bytes of it that have been read, for the mask.
    at: u64,
    is_control: bool,
    is_final: bool,
}

#[derive(Debug)]
struct Open {
    message: Message,
    is_deflated: bool,
}

struct Header {
    len: usize,
    is_final: bool,
    is_deflated: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: u64,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// So many of them were frames.
    pub used: usize,
    /// What follows them, if anything, may still be of a frame whose beginning was lost.
    pub is_sane: bool,
}

impl Frames {
    pub fn new(settings: Settings, is_client: bool, asked: Option<Rc<Asked>>) -> Frames {
        Frames {
            asked,
            header: Vec::new(),
            since: At::default(),
            payload: None,
            message: None,
            control: None,
            inflate: settings.is_deflated.then(|| Decompress::new(false)),
            is_deflated: settings.is_deflated,
            forgets: if is_client {
                settings.client_forgets
            } else {
                settings.server_forgets
            },
            is_lost: false,
        }
    }

    /// The next bytes.
    pub fn data(&mut self, dir: Dir, at: At, bytes: &[u8], context: &mut Context<'_>) -> Read {
        let mut rest = bytes;
        if self.is_lost {
            match header(rest) {
                Some(Some(found)) if found.payload <= MAX_FOUND => self.is_lost = false,
                _ => {
                    return Read {
                        used: 0,
                        is_sane: true,
                    };
                }
            }
        }
        while !rest.is_empty() {
            match &mut self.payload {
                Some(payload) => {
                    let most = usize::try_from(payload.left).unwrap_or(usize::MAX);
                    let (content, after) = rest.split_at(most.min(rest.len()));
                    let mut content = content.to_vec();
                    payload.unmask(&mut content);
                    payload.left -= content.len() as u64;
                    rest = after;
                    self.content(at, &content, context);
                    self.end_frame(at, context);
                }
                None => {
                    let before = self.header.len();
                    if before == 0 {
                        self.since = at;
                    }
                    let wanted = 14usize.saturating_sub(before).min(rest.len());
                    self.header
                        .extend_from_slice(rest.get(..wanted).unwrap_or_default());
                    match header(&self.header) {
                        None => {
                            self.header.truncate(before);
                            let used = bytes.len().saturating_sub(rest.len());
                            return Read {
                                used,
                                is_sane: false,
                            };
                        }
                        Some(None) => rest = rest.get(wanted..).unwrap_or_default(),
                        Some(Some(found)) => {
                            let used = found.len.saturating_sub(before);
                            rest = rest.get(used..).unwrap_or_default();
                            self.header.clear();
                            self.begin(dir, at, &found);
                            self.end_frame(at, context);
                        }
                    }
                }
            }
        }
        Read {
            used: bytes.len(),
            is_sane: true,
        }
    }

    fn begin(&mut self, dir: Dir, at: At, header: &Header) {
        let is_control = header.opcode >= 8;
        self.payload = Some(Payload {
            left: header.payload,
            mask: header.mask,
            at: 0,
            is_control,
            is_final: header.is_final,
        });
        if header.opcode == 0 && self.message.is_some() {
            return;
        }
        let name: &[u8] = match header.opcode {
            // The first frame was lost.
            0 => b"continuation",
            1 => b"text",
            2 => b"binary",
            8 => b"close",
            9 => b"ping",
            10 => b"pong",
            _ => b"unknown opcode",
        };
        let subject = Rc::new(Subject::Line(name.to_vec()));
        let mut message = Message::begin(Protocol::WebSocket, Part::Single, dir, at, subject);
        message.asked.clone_from(&self.asked);
        message.is_cut = header.opcode == 0;
        let is_deflated = header.is_deflated || header.opcode == 0;
        let open = Open {
            message,
            is_deflated: is_deflated && self.is_deflated,
        };
        if is_control {
            self.control = Some(open);
        } else {
            self.message = Some(open);
        }
    }

    fn content(&mut self, at: At, content: &[u8], context: &mut Context<'_>) {
        let is_control = self.payload.as_ref().is_some_and(|p| p.is_control);
        let open = if is_control {
            self.control.as_mut()
        } else {
            self.message.as_mut()
        };
        let Some(open) = open else { return };
        open.message.end = at.ts;
        if open.is_deflated {
            match &mut self.inflate {
                Some(inflate) => {
                    if !inflate_into(inflate, content, &mut open.message, context) {
                        self.inflate = None;
                    }
                }
                None => open.message.body.miss(content.len() as u64),
            }
        } else if is_control {
            context.keep_short(&mut open.message.body, content);
        } else {
            context.keep(&mut open.message.body, content);
        }
    }

    fn end_frame(&mut self, at: At, context: &mut Context<'_>) {
        let Some(payload) = self.payload.take_if(|payload| payload.left == 0) else {
            return;
        };
        if payload.is_control {
            if let Some(open) = self.control.take() {
                let mut message = open.message;
                describe_close(&mut message);
                context.finish(message, at);
            }
        } else if payload.is_final
            && let Some(mut open) = self.message.take()
        {
            if open.is_deflated {
                // The sender has left these four bytes out (RFC 7692 section 7.2.2).
                let tail = [0, 0, 0xff, 0xff];
                if let Some(inflate) = &mut self.inflate {
                    inflate_into(inflate, &tail, &mut open.message, context);
                    if self.forgets {
                        inflate.reset(false);
                    }
                } else if self.forgets {
                    self.inflate = Some(Decompress::new(false));
                }
            }
            context.finish(open.message, at);
        }
    }

    /// Bytes were not seen, or no more will come.
    pub fn gap(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        for mut open in [self.control.take(), self.message.take()]
            .into_iter()
            .flatten()
        {
            open.message.is_cut = true;
            context.finish(open.message, at);
        }
        context.give_back(dir, self.since, std::mem::take(&mut self.header));
        self.payload = None;
        // Later messages refer to what was missed.
        self.inflate = None;
        self.is_lost = true;
    }
}

/// Appends what `content` decompresses to; false when it is no such stream.
fn inflate_into(
    inflate: &mut Decompress,
    content: &[u8],
    message: &mut Message,
    context: &mut Context<'_>,
) -> bool {
    let mut rest = content;
    let mut buffer = [0; 4096];
    loop {
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(rest, &mut buffer, FlushDecompress::Sync);
        let used = usize::try_from(inflate.total_in() - before_in).unwrap_or(rest.len());
        let made = usize::try_from(inflate.total_out() - before_out).unwrap_or(0);
        context.keep(&mut message.body, buffer.get(..made).unwrap_or(&buffer));
        rest = rest.get(used..).unwrap_or_default();
        match status {
            Ok(Status::Ok | Status::BufError) if made == 0 && (used == 0 || rest.is_empty()) => {
                return true;
            }
            Ok(Status::Ok | Status::BufError) => {}
            Ok(Status::StreamEnd) => {
                inflate.reset(false);
                if rest.is_empty() {
                    return true;
                }
            }
            Err(_) => {
                message.body.miss(rest.len() as u64);
                return false;
            }
        }
    }
}

impl Payload {
    fn unmask(&mut self, content: &mut [u8]) {
        if let Some(mask) = self.mask {
            let start = usize::try_from(self.at % 4).unwrap_or(0);
            let mask = mask.iter().cycle().skip(start);
            for (byte, mask) in content.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        self.at = self.at.wrapping_add(content.len() as u64);
    }
}

/// `close` with its code and reason (RFC 6455 section 5.5.1).
fn describe_close(message: &mut Message) {
    let is_close = matches!(&*message.subject, Subject::Line(name) if name == b"close");
    if let (true, Some((code, reason))) = (is_close, message.body.kept.split_first_chunk::<2>()) {
        let mut line = format!("close {}", u16::from_be_bytes(*code)).into_bytes();
        if !reason.is_empty() {
            line.push(b' ');
            line.extend_from_slice(reason);
        }
        message.subject = Rc::new(Subject::Line(line));
    }
}

/// The header that `bytes` begin with: `None` when there cannot be one, `Some(None)` when more
/// bytes are needed (RFC 6455 section 5.2).
fn header(bytes: &[u8]) -> Option<Option<Header>> {
    let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else {
        return Some(None);
    };
    let opcode = first & 0xf;
    let is_control = opcode >= 8;
    let is_final = first & 0x80 != 0;
    let short = second & 0x7f;
    let is_known = matches!(opcode, 0..=2 | 8..=10) && first & 0x30 == 0;
    if !is_known || is_control && (!is_final || short > 125) {
        return None;
    }
    let (wide, mut len) = match short {
        126 => (2, 4),
        127 => (8, 10),
        _ => (0, 2),
    };
    let mut payload = u64::from(short);
    if wide > 0 {
        let Some(number) = bytes.get(2..2 + wide) else {
            return Some(None);
        };
        payload = number
            .iter()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    }
    let mut mask = None;
    if second & 0x80 != 0 {
        let Some(key) = bytes.get(len..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Some(None);
        };
        mask = Some(*key);
        len += 4;
    }
    Some(Some(Header {
        len,
        is_final,
        is_deflated: first & 0x40 != 0,
        opcode,
        mask,
        payload,
    }))
}
