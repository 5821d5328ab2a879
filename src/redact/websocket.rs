//! Frames of a WebSocket (RFC 6455): named keys in its text.

use super::keys::Keys;
use super::names::Names;

/// The longest header: two bytes, a length of eight, a mask of four.
const MOST_HEADER: usize = 14;

/// One half of a WebSocket.
#[derive(Debug, Default)]
pub struct WebSocket {
    header: Vec<u8>,
    payload: Option<Payload>,
    /// Of the message that frames without opcode go on with.
    keys: Keys,
    is_compressed: bool,
    /// The frames are lost: all is hidden.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// The byte of the mask that is next.
    at: usize,
    is_control: bool,
}

impl WebSocket {
    /// `len` bytes are missing.
    pub fn gap(&mut self, len: u64) {
        match &mut self.payload {
            Some(payload) if len <= payload.left => {
                payload.left -= len;
                payload.at = (payload.at + (len % 4) as usize) % 4;
                self.keys.gap();
                if payload.left == 0 {
                    self.payload = None;
                }
            }
            _ => self.is_lost = true,
        }
    }

    /// Hides what is secret in the next bytes.
    pub fn hide(&mut self, bytes: &mut [u8], names: &Names) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            if self.is_lost {
                rest.fill(b'*');
                return;
            }
            let Some(payload) = &mut self.payload else {
                at += 1;
                let byte = rest.first().copied().unwrap_or_default();
                self.header_byte(byte);
                continue;
            };
            let take = usize::try_from(payload.left).map_or(rest.len(), |n| n.min(rest.len()));
            let Some(piece) = rest.get_mut(..take) else {
                return;
            };
            at += take;
            payload.left -= take as u64;
            let before = payload.at;
            payload.at = (before + take) % 4;
            let mask = payload.mask;
            if !payload.is_control {
                unmask(piece, mask, before);
                if self.is_compressed {
                    piece.fill(b'*');
                } else {
                    self.keys.hide(piece, names);
                }
                unmask(piece, mask, before);
            }
            if payload.left == 0 {
                self.payload = None;
            }
        }
    }

    fn header_byte(&mut self, byte: u8) {
        self.header.push(byte);
        let &[first, second, ..] = self.header.as_slice() else {
            return;
        };
        let is_masked = second & 0x80 != 0;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let len = 2 + extended + 4 * usize::from(is_masked);
        if self.header.len() < len.min(MOST_HEADER) {
            return;
        }
        let long = self.header.get(2..2 + extended).unwrap_or_default();
        let long = long
            .iter()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let mask = self
            .header
            .last_chunk::<4>()
            .filter(|_| is_masked)
            .copied()
            .unwrap_or_default();
        let opcode = first & 0x0f;
        let is_control = opcode >= 8;
        if opcode == 1 || opcode == 2 {
            self.keys = Keys::default();
            self.is_compressed = first & 0x40 != 0;
        }
        let left = if extended == 0 {
            u64::from(second & 0x7f)
        } else {
            long
        };
        self.header.clear();
        self.payload = (left > 0).then_some(Payload {
            left,
            mask,
            at: 0,
            is_control,
        });
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], from: usize) {
    let key = mask.iter().cycle().skip(from % 4);
    for (byte, key) in bytes.iter_mut().zip(key) {
        *byte ^= key;
    }
}
