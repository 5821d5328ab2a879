//! Frames of HTTP/2 (RFC 9113 sections 4 and 6), one by one.

/// What a client sends first (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
pub const HEADER: usize = 9;
/// The longest frame that is believed in without a connection before it: the default of
/// `SETTINGS_MAX_FRAME_SIZE`.
const MAX_FOUND: u32 = 16384;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 0x20;

/// A frame's header (section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub len: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frame {
    pub fn parse(bytes: &[u8]) -> Option<Frame> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEADER>()?;
        Some(Frame {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    /// The bytes that it was read from.
    pub fn header(self) -> Vec<u8> {
        let len = self.len.to_be_bytes();
        let mut bytes = len.get(1..).unwrap_or_default().to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it keeps to the rules that hold for a frame of its kind alone.
    pub fn is_sound(self) -> bool {
        let on_stream = self.stream != 0;
        match self.kind {
            DATA | HEADERS | CONTINUATION => on_stream,
            PUSH_PROMISE => on_stream && self.len >= 4,
            2 => on_stream && self.len == 5,
            RST_STREAM => on_stream && self.len == 4,
            SETTINGS => !on_stream && self.len.is_multiple_of(6) && (!self.has(1) || self.len == 0),
            PING => !on_stream && self.len == 8,
            GOAWAY => !on_stream && self.len >= 8,
            // WINDOW_UPDATE
            8 => self.len == 4,
            // ALTSVC, ORIGIN and PRIORITY_UPDATE are in use; whatever else is to be ignored.
            _ => self.len <= MAX_FOUND,
        }
    }

    /// Whether it has no flags but those that are defined for its kind, and is of a defined kind.
    pub fn is_plain(self) -> bool {
        let flags = match self.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | PRIORITY,
            SETTINGS | PING => 1,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            2 | RST_STREAM | GOAWAY | 8 => 0,
            _ => return false,
        };
        self.flags & !flags == 0 && self.len <= MAX_FOUND
    }
}

/// Whether a call that begins with these bytes begins with frames, to the last of its bytes. Of the
/// last one some may be missing, but not of one alone that is no DATA: bytes from within a frame may
/// look like its header.
pub fn are_frames(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut count = 0u32;
    while !rest.is_empty() {
        let Some(frame) = Frame::parse(rest) else {
            break;
        };
        // The reserved bit is never set.
        let is_reserved = rest.get(5).is_some_and(|byte| byte & 0x80 != 0);
        if is_reserved || !frame.is_sound() || !frame.is_plain() {
            return false;
        }
        let whole = HEADER + frame.len as usize;
        if rest.len() < whole && count == 0 && frame.kind != DATA {
            return false;
        }
        count += 1;
        rest = rest.get(whole..).unwrap_or_default();
    }
    count > 0
}

/// The payload without its padding (sections 6.1, 6.2 and 6.6).
pub fn unpadded(frame: Frame, payload: &[u8]) -> &[u8] {
    if !frame.has(PADDED) {
        return payload;
    }
    let Some((&padding, rest)) = payload.split_first() else {
        return payload;
    };
    let end = rest.len().saturating_sub(padding.into());
    rest.get(..end).unwrap_or_default()
}

/// Section 7.
pub fn error_name(code: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = names.get(code as usize);
    name.map_or_else(|| format!("error {code}"), |name| (*name).to_owned())
}
