//! Recognises a protocol by the first bytes of a call.

use super::http2;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Http1,
    Http2,
    /// It may be one of these: more bytes will tell.
    Unsure,
    Unknown,
}

/// A request line that is longer is not waited for.
const MAX_REQUEST_LINE: usize = 16 << 10;
/// Methods are short words: the longest registered one is `UPDATEREDIRECTREF`.
const MAX_METHOD: usize = 24;

/// Looks at what a call begins with, at the beginning of a connection or anywhere in it.
pub fn look(bytes: &[u8]) -> Verdict {
    match starts(bytes, http2::PREFACE) {
        Match::Whole => return Verdict::Http2,
        Match::Part => return Verdict::Unsure,
        Match::No => {}
    }
    match head(bytes) {
        Match::Whole => return Verdict::Http1,
        Match::Part => return Verdict::Unsure,
        Match::No => {}
    }
    if http2::are_frames(bytes) {
        return Verdict::Http2;
    }
    Verdict::Unknown
}

/// Whether a pattern is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Whole,
    /// The bytes end within it.
    Part,
    No,
}

/// Whether an HTTP/1 request or response begins here (RFC 9112 sections 3 and 4).
pub fn head(bytes: &[u8]) -> Match {
    // Line ends before it are to be ignored (section 2.2).
    let blank = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let bytes = bytes.get(blank..).unwrap_or_default();
    if bytes.is_empty() && blank > 0 {
        return Match::Part;
    }
    match starts(bytes, b"HTTP/1.") {
        Match::Whole => status_line(bytes),
        Match::Part => Match::Part,
        Match::No => request_line(bytes),
    }
}

fn starts(bytes: &[u8], with: &[u8]) -> Match {
    if bytes.starts_with(with) {
        Match::Whole
    } else if !bytes.is_empty() && with.starts_with(bytes) {
        Match::Part
    } else {
        Match::No
    }
}

/// `HTTP/1.1 200`
fn status_line(bytes: &[u8]) -> Match {
    let shape = b"HTTP/1.d ddd";
    for (at, &wanted) in shape.iter().enumerate() {
        let Some(&byte) = bytes.get(at) else {
            return Match::Part;
        };
        let fits = match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        };
        if !fits {
            return Match::No;
        }
    }
    Match::Whole
}

/// `GET /path HTTP/1.`
fn request_line(bytes: &[u8]) -> Match {
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let method = bytes.iter().take_while(|byte| is_method(byte)).count();
    if method == 0 || method > MAX_METHOD {
        return Match::No;
    }
    let rest = bytes.get(method..).unwrap_or_default();
    match rest.first() {
        None => return Match::Part,
        Some(b' ') => {}
        Some(_) => return Match::No,
    }
    let rest = rest.get(1..).unwrap_or_default();
    let is_target = |byte: &u8| !byte.is_ascii_control() && *byte != b' ';
    let target = rest.iter().take_while(|byte| is_target(byte)).count();
    match rest.get(target) {
        None if bytes.len() > MAX_REQUEST_LINE => Match::No,
        None => Match::Part,
        Some(b' ') if target > 0 => {
            starts(rest.get(target + 1..).unwrap_or_default(), b"HTTP/1.").or_part(rest, target)
        }
        Some(_) => Match::No,
    }
}

impl Match {
    /// The bytes end exactly before the version.
    fn or_part(self, rest: &[u8], target: usize) -> Match {
        if rest.len() == target + 1 {
            Match::Part
        } else {
            self
        }
    }
}
