//! IMAP (RFC 9051): commands by their tags, what the server tells untagged by count and size.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};

const VERBS: &[&str] = &[
    "CAPABILITY",
    "NOOP",
    "LOGOUT",
    "STARTTLS",
    "AUTHENTICATE",
    "LOGIN",
    "ENABLE",
    "SELECT",
    "EXAMINE",
    "CREATE",
    "DELETE",
    "RENAME",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "LIST",
    "LSUB",
    "NAMESPACE",
    "STATUS",
    "APPEND",
    "IDLE",
    "CHECK",
    "CLOSE",
    "UNSELECT",
    "EXPUNGE",
    "SEARCH",
    "FETCH",
    "STORE",
    "COPY",
    "MOVE",
    "UID",
    "ID",
    "SORT",
    "THREAD",
    "GETQUOTA",
    "GETQUOTAROOT",
    "SETQUOTA",
    "GETACL",
    "SETACL",
    "DELETEACL",
    "LISTRIGHTS",
    "MYRIGHTS",
    "GETMETADATA",
    "SETMETADATA",
    "COMPRESS",
    "NOTIFY",
    "XLIST",
];
/// Bytes of a tag that count for the pair.
const MAX_TAG: usize = 32;
/// Remembered of a command that goes on behind a literal.
const MAX_COMMAND: usize = 1024;

#[derive(Debug, Default)]
pub struct Imap {
    /// A line that goes on after a literal: a command so far, or an untagged response.
    command: Option<Vec<u8>>,
    is_response: bool,
    literals: u64,
    /// The client authenticates: its lines are secrets, until the tagged response.
    is_secret: bool,
    idles: bool,
    /// Untagged responses since the last tagged one, and the size of them.
    responses: u64,
    size: u64,
}

impl Grammar for Imap {
    const PROTOCOL: Protocol = Protocol::Imap;
    const HEAD: usize = 64 << 10;
    const IS_KEYED: bool = true;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let end = memchr::memchr(b'\n', bytes).map(|at| at.saturating_add(1));
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let goes_on = match side {
            Side::Client => self.command.is_some() || self.is_secret || self.idles,
            Side::Server => self.is_response,
        };
        let is_sane = match (side, end) {
            _ if line.contains(&0) => false,
            _ if goes_on => true,
            (Side::Client, Some(_)) => verb(line).is_some(),
            (Side::Server, Some(_)) => is_response(line),
            (Side::Client, None) => phrase::is_printable(line.trim_ascii_end()),
            (Side::Server, None) => phrase::is_printable(line.get(..1).unwrap_or_default()),
        };
        match end {
            _ if !is_sane => Piece::Wrong,
            Some(end) => Piece::Len(end as u64),
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let line = head.trim_ascii_end();
        let literal = literal(line);
        told.skip = literal.unwrap_or_default();
        match side {
            Side::Client => self.client(line, literal, told),
            Side::Server => self.server(line, literal, len, told),
        }
        true
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        self.responses = 0;
        self.size = 0;
        match side {
            Side::Client => {
                self.idles = false;
                let literals = std::mem::take(&mut self.literals);
                let command = self.command.take()?;
                let (_, rest) = split(&command);
                let phrase = match verb(&command) {
                    Some("LOGIN") => Phrase::of("LOGIN").word(HIDDEN),
                    _ => Phrase::of(rest),
                };
                return Some(phrase.size(literals));
            }
            Side::Server => self.is_response = false,
        }
        None
    }
}

impl Imap {
    fn client(&mut self, line: &[u8], literal: Option<u64>, told: &mut Told<'_, '_>) {
        if self.idles && line.eq_ignore_ascii_case(b"DONE") {
            self.idles = false;
            return;
        }
        if self.is_secret && self.command.is_none() {
            told.single(Phrase::of(HIDDEN));
            return;
        }
        let mut command = self.command.take().unwrap_or_default();
        let room = MAX_COMMAND.saturating_sub(command.len());
        command.extend_from_slice(line.get(..room).unwrap_or(line));
        self.literals = self.literals.saturating_add(literal.unwrap_or_default());
        if literal.is_some() {
            self.command = Some(command);
            return;
        }
        let (tag, rest) = split(&command);
        let mut phrase = match verb(&command) {
            Some("LOGIN") => Phrase::of("LOGIN").word(HIDDEN),
            Some("AUTHENTICATE") => {
                self.is_secret = true;
                let words: Vec<&[u8]> = rest.split(|&byte| byte == b' ').take(3).collect();
                let method = words.get(1).copied().unwrap_or_default();
                let phrase = Phrase::of("AUTHENTICATE").word(method);
                if words.len() > 2 {
                    phrase.word(HIDDEN)
                } else {
                    phrase
                }
            }
            Some("IDLE") => {
                self.idles = true;
                Phrase::of(rest)
            }
            _ => Phrase::of(rest),
        };
        let literals = std::mem::take(&mut self.literals);
        if literals > 0 && verb(&command) != Some("LOGIN") {
            phrase = phrase.size(literals);
        }
        told.ask(key(tag), phrase);
    }

    fn server(&mut self, line: &[u8], literal: Option<u64>, len: u64, told: &mut Told<'_, '_>) {
        let literal_size = literal.unwrap_or_default();
        self.size = self.size.saturating_add(len).saturating_add(literal_size);
        let goes_on = std::mem::replace(&mut self.is_response, literal.is_some());
        if goes_on {
            return;
        }
        let (tag, rest) = split(line);
        match tag {
            b"*" if told.oldest().is_none() => {
                self.size = 0;
                told.single(Phrase::of(rest));
            }
            b"*" => {
                self.responses = self.responses.saturating_add(1);
                told.begin_answer();
            }
            b"+" => {}
            _ => {
                self.is_secret = false;
                self.idles = false;
                let responses = std::mem::take(&mut self.responses);
                let size = std::mem::take(&mut self.size);
                let mut phrase = Phrase::of(rest);
                if responses > 0 {
                    let size = size.saturating_sub(len);
                    phrase = phrase.word(format!("({responses} untagged {size}B)"));
                }
                told.answer_key(key(tag), Last::Yes, phrase);
            }
        }
    }
}

/// The tag as a number: tags that are longer than 8 bytes and end alike do not happen.
fn key(tag: &[u8]) -> u64 {
    tag.iter()
        .fold(0u64, |key, &byte| key.rotate_left(8) ^ u64::from(byte))
}

fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = line.splitn(2, |&byte| byte == b' ');
    (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    )
}

/// The size of the literal that the line announces at its end: `{12}`, `{12+}`, `~{12}`.
fn literal(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"}")?;
    let open = line.iter().rposition(|&byte| byte == b'{')?;
    let number = line.get(open.saturating_add(1)..)?;
    let number = number.strip_suffix(b"+").unwrap_or(number);
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The command of a line that has a tag before it.
fn verb(line: &[u8]) -> Option<&'static str> {
    let (tag, rest) = split(line);
    let word = rest
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    let verb = VERBS
        .iter()
        .copied()
        .find(|verb| word.eq_ignore_ascii_case(verb.as_bytes()));
    verb.filter(|_| is_tag(tag))
}

fn is_tag(tag: &[u8]) -> bool {
    let is_tag_byte = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'-' | b'_' | b'$' | b'#' | b'/' | b':')
    };
    (1..=MAX_TAG).contains(&tag.len()) && tag.iter().all(is_tag_byte)
}

fn is_response(line: &[u8]) -> bool {
    let (tag, rest) = split(line.trim_ascii_end());
    match tag {
        b"*" | b"+" => true,
        tag => {
            let word = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
            is_tag(tag) && matches!(word, b"OK" | b"NO" | b"BAD")
        }
    }
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    let line = bytes.trim_ascii_end();
    let is_likely = first.is_likely("imap", &[143, 993]);
    let is_whole = bytes.ends_with(b"\n");
    if first.side != Some(Side::Server) {
        let end = memchr::memchr(b'\n', bytes);
        let line = bytes
            .get(..end.unwrap_or(bytes.len()))
            .unwrap_or(bytes)
            .trim_ascii_end();
        let is_command = verb(line).is_some() && phrase::is_printable(line);
        // A word and a verb of IMAP may also be the beginning of some text.
        let (tag, rest) = split(line);
        // `250-AUTH LOGIN`, `220 ...` are replies of SMTP.
        let is_reply = tag
            .iter()
            .take(3)
            .filter(|byte| byte.is_ascii_digit())
            .count()
            == 3;
        let is_sure = tag.iter().any(u8::is_ascii_digit)
            || rest.iter().all(u8::is_ascii_uppercase)
            || is_likely;
        if end.is_some() && is_command && is_sure && !is_reply {
            return Look::Is(Side::Client);
        }
        if is_likely
            && end.is_none()
            && !line.is_empty()
            && line.len() < 64
            && phrase::is_printable(line)
        {
            return Look::Part;
        }
    }
    if first.side != Some(Side::Client) && is_whole {
        let greets = ["* OK", "* PREAUTH", "* BYE"]
            .iter()
            .any(|text| line.starts_with(text.as_bytes()));
        let says_so = line
            .windows(4)
            .any(|word| word.eq_ignore_ascii_case(b"IMAP"));
        if greets && phrase::is_text(line) && (says_so || is_likely) {
            return Look::Is(Side::Server);
        }
    }
    Look::No
}
