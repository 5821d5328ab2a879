//! Where the body of an HTTP/1 message ends (RFC 9112 sections 6 and 7).

use super::head::MAX_HEAD;
use crate::proto::message::Http;

/// A longer line in a chunked body is no chunk size.
const MAX_CHUNK_LINE: usize = 16 << 10;

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

#[derive(Debug)]
pub enum Chunk {
    /// What there is of the line with the size.
    Size(Vec<u8>),
    /// Bytes of the chunk to come.
    Data(u64),
    /// The line end behind the data.
    End,
    /// What there is of the trailers.
    Trailers(Vec<u8>),
}

/// How the body of this message ends, by its fields, `without` them; `None` when they contradict.
pub fn framing(http: &Http, without: Framing) -> Option<Framing> {
    let values = |name: &'static [u8]| {
        http.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .flat_map(|header| header.value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
    };
    if let Some(last) = values(b"transfer-encoding").next_back() {
        return Some(if last.eq_ignore_ascii_case(b"chunked") {
            Framing::Chunked(Chunk::Size(Vec::new()))
        } else {
            Framing::UntilClose
        });
    }
    let mut lengths = values(b"content-length");
    let Some(first) = lengths.next() else {
        return Some(without);
    };
    let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    if !is_number || lengths.any(|length| length != first) {
        return None;
    }
    let length = std::str::from_utf8(first).ok()?.parse().ok()?;
    Some(Framing::Length(length))
}

/// What a step through a body found.
pub struct Taken<'a> {
    pub content: &'a [u8],
    /// Bytes that were used, framing included.
    pub used: usize,
    pub is_end: bool,
}

impl Framing {
    /// Takes from the front of `bytes`, which are some; `None` when they break the framing, of which
    /// is held then what came before them.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> Option<Taken<'a>> {
        match self {
            Framing::UntilClose => Some(Taken {
                content: bytes,
                used: bytes.len(),
                is_end: false,
            }),
            Framing::Length(left) => {
                let content = up_to(bytes, *left);
                *left -= content.len() as u64;
                Some(Taken {
                    content,
                    used: content.len(),
                    is_end: *left == 0,
                })
            }
            Framing::Chunked(chunk) => chunk.take(bytes),
        }
    }

    /// What was taken of a line that is not whole: neither content nor a size.
    pub fn held(self) -> Vec<u8> {
        match self {
            Framing::Chunked(Chunk::Size(line) | Chunk::Trailers(line)) => line,
            _ => Vec::new(),
        }
    }

    /// Passes over bytes that were not seen; false when it is not known what they were.
    pub fn skip(&mut self, len: u64) -> bool {
        match self {
            Framing::UntilClose => true,
            // With the very last byte missing too, the end would never be noticed.
            Framing::Length(left) | Framing::Chunked(Chunk::Data(left)) if len < *left => {
                *left -= len;
                true
            }
            _ => false,
        }
    }
}

fn up_to(bytes: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    bytes.get(..most).unwrap_or(bytes)
}

impl Chunk {
    fn take<'a>(&mut self, bytes: &'a [u8]) -> Option<Taken<'a>> {
        let mut taken = Taken {
            content: &[],
            used: 0,
            is_end: false,
        };
        match self {
            Chunk::Size(line) => {
                let before = line.len();
                taken.used = take_line(line, bytes);
                let size = line.ends_with(b"\n").then(|| chunk_size(line));
                match size {
                    Some(Some(0)) => *self = Chunk::Trailers(Vec::new()),
                    Some(Some(size)) => *self = Chunk::Data(size),
                    None if line.len() <= MAX_CHUNK_LINE => {}
                    Some(None) | None => {
                        line.truncate(before);
                        return None;
                    }
                }
            }
            Chunk::Data(left) => {
                taken.content = up_to(bytes, *left);
                taken.used = taken.content.len();
                *left -= taken.used as u64;
                if *left == 0 {
                    *self = Chunk::End;
                }
            }
            Chunk::End => {
                taken.used = 1;
                match bytes.first() {
                    Some(b'\r') => {}
                    Some(b'\n') => *self = Chunk::Size(Vec::new()),
                    _ => return None,
                }
            }
            Chunk::Trailers(lines) => {
                let before = lines.len();
                taken.used = take_line(lines, bytes);
                let is_blank = lines == b"\r\n" || lines == b"\n";
                taken.is_end = is_blank || lines.ends_with(b"\n\r\n") || lines.ends_with(b"\n\n");
                if lines.len() > MAX_HEAD {
                    lines.truncate(before);
                    return None;
                }
            }
        }
        Some(taken)
    }
}

/// Appends to `line` up to its end; returns how many bytes were used.
fn take_line(line: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let used = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    line.extend_from_slice(bytes.get(..used).unwrap_or_default());
    used
}

/// `1a;name=value` and a line end (section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|&byte| byte == b';').next()?.trim_ascii();
    if size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}
