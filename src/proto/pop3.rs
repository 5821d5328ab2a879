//! POP3 (RFC 1939, 5034): commands and responses; mails and lists by their size.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told, are_pieces};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};

const VERBS: &[&str] = &[
    "USER", "PASS", "APOP", "AUTH", "CAPA", "STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "QUIT",
    "TOP", "UIDL", "STLS", "UTF8", "LANG", "XTND",
];

/// Keys of commands: how they are answered.
const LINE: u64 = 0;
/// Several lines follow a `+OK`.
const LINES: u64 = 1;

#[derive(Debug, Default)]
pub struct Pop3 {
    /// The client authenticates: its lines are secrets, until the server has decided.
    is_secret: bool,
    /// The first line of a response of several, and the size of the others.
    response: Option<(Vec<u8>, u64)>,
}

impl Grammar for Pop3 {
    const PROTOCOL: Protocol = Protocol::Pop3;
    const HEAD: usize = 64 << 10;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let end = memchr::memchr(b'\n', bytes).map(|at| at.saturating_add(1));
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let is_sane = match (side, end) {
            (Side::Server, _) if self.response.is_some() => true,
            (Side::Server, _) => is_response(line),
            (Side::Client, Some(_)) if !self.is_secret => verb(line).is_some(),
            (Side::Client, _) => phrase::is_text(line),
        };
        match end {
            _ if !is_sane => Piece::Wrong,
            Some(end) => Piece::Len(end as u64),
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let line = head.trim_ascii_end();
        match side {
            Side::Client => self.command(line, told),
            Side::Server => self.response(head, line, len, told),
        }
        true
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        match side {
            Side::Client => self.is_secret = false,
            Side::Server => self.response = None,
        }
        None
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        let bytes = match side {
            // What follows may be the lines of a mail.
            Side::Server => bytes.split_inclusive(|&byte| byte == b'\n').next(),
            Side::Client => Some(bytes),
        };
        are_pieces(&Pop3::default(), side, bytes.unwrap_or_default())
    }
}

impl Pop3 {
    fn command(&mut self, line: &[u8], told: &mut Told<'_, '_>) {
        // Secrets are in base64, without blanks: its end was not seen when there are some.
        let is_command = verb(line).is_some() && line.contains(&b' ');
        if self.is_secret && !is_command {
            told.ask(LINE, Phrase::of(HIDDEN));
            return;
        }
        self.is_secret = false;
        let mut words = line.split(u8::is_ascii_whitespace);
        let word = words.next().unwrap_or_default();
        let argument = words.next();
        let phrase = Phrase::of(word);
        match verb(line) {
            Some("PASS") => told.ask(LINE, phrase.word(HIDDEN)),
            Some("APOP") => {
                let name = argument.unwrap_or_default();
                told.ask(LINE, phrase.word(name).word(HIDDEN));
            }
            Some("AUTH") if argument.is_some() => {
                self.is_secret = true;
                let phrase = phrase.word(argument.unwrap_or_default());
                let phrase = match words.next() {
                    Some(_) => phrase.word(HIDDEN),
                    None => phrase,
                };
                told.ask(LINE, phrase);
            }
            Some("CAPA" | "RETR" | "TOP" | "AUTH") => told.ask(LINES, Phrase::of(line)),
            Some("LIST" | "UIDL" | "LANG") if argument.is_none() => {
                told.ask(LINES, Phrase::of(line));
            }
            _ => told.ask(LINE, Phrase::of(line)),
        }
    }

    fn response(&mut self, head: &[u8], line: &[u8], len: u64, told: &mut Told<'_, '_>) {
        if let Some((_, size)) = &mut self.response {
            if head != b".\r\n" && head != b".\n" {
                *size = size.saturating_add(len);
                return;
            }
            if let Some((first, size)) = self.response.take() {
                told.answer_oldest(Last::Yes, Phrase::of(first).size(size));
            }
            return;
        }
        let is_ok = line.starts_with(b"+OK");
        if is_ok && told.oldest() == Some(LINES) {
            told.begin_answer();
            self.response = Some((line.to_vec(), 0));
            return;
        }
        if line.starts_with(b"+ ") || line == b"+" {
            // A challenge may hold secrets.
            told.answer_oldest(Last::Yes, Phrase::of("+"));
            return;
        }
        self.is_secret = false;
        match told.oldest() {
            None => told.single(Phrase::of(line)),
            Some(_) => told.answer_oldest(Last::Yes, Phrase::of(line)),
        }
    }
}

fn verb(line: &[u8]) -> Option<&'static str> {
    let word = line.split(u8::is_ascii_whitespace).next()?;
    let is = |verb: &&&str| word.eq_ignore_ascii_case(verb.as_bytes());
    VERBS
        .iter()
        .find(is)
        .copied()
        .filter(|_| phrase::is_text(line))
}

/// `+OK text`, `-ERR text`, `+ challenge`, or the beginning of such.
fn is_response(line: &[u8]) -> bool {
    let marks: [&[u8]; 3] = [b"+OK", b"-ERR", b"+ "];
    let fits = |mark: &&[u8]| {
        let part = line.get(..mark.len()).unwrap_or(line);
        mark.starts_with(part)
    };
    (marks.iter().any(fits) || line == b"+\r\n") && phrase::is_text(line)
}

/// `RETR 1`: mails have numbers, the files of FTP mostly do not.
fn is_numbered(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ');
    let is_verb = matches!(
        words.next(),
        Some(b"RETR" | b"DELE" | b"TOP" | b"UIDL" | b"LIST")
    );
    let is_number = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    is_verb && line.contains(&b' ') && words.all(is_number)
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    let is_likely = first.is_likely("pop3", &[110, 995]);
    if !bytes.ends_with(b"\n") || !phrase::is_text(bytes) {
        return Look::No;
    }
    let line = bytes.split(|&byte| byte == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii_end();
    if first.side != Some(Side::Client) && line.starts_with(b"+OK") {
        // Redis answers so too, without more words.
        let says_so = line.windows(3).any(|word| word == b"POP");
        if says_so || is_likely {
            return Look::Is(Side::Server);
        }
    }
    let is_command = is_numbered(line) || is_likely && verb(line).is_some();
    if first.side != Some(Side::Server) && is_command {
        return Look::Is(Side::Client);
    }
    Look::No
}
