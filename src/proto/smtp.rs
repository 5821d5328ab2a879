//! SMTP and LMTP (RFC 5321, 2033): commands and replies; a mail by its size.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told, are_pieces};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};

const VERBS: &[&str] = &[
    "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN",
    "HELP", "AUTH", "STARTTLS", "ETRN", "XCLIENT", "XFORWARD",
];

#[derive(Debug, Default)]
pub struct Smtp {
    state: State,
    /// Text of a reply of several lines.
    reply: Option<Vec<u8>>,
    size: u64,
}

/// What the client says next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Command,
    /// It asked whether it may send a mail.
    DataAsked,
    Mail,
    /// Secrets, until the server accepts or refuses them.
    Auth,
}

impl Grammar for Smtp {
    const PROTOCOL: Protocol = Protocol::Smtp;
    const HEAD: usize = 64 << 10;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let end = memchr::memchr(b'\n', bytes).map(|at| at.saturating_add(1));
        let len = end.map_or(Piece::More, |end| Piece::Len(end as u64));
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let is_sane = match (side, self.state) {
            (Side::Server, _) => is_reply(line),
            (Side::Client, State::Mail) => true,
            (Side::Client, State::Auth) => phrase::is_text(line),
            (Side::Client, _) => end.is_none_or(|_| is_command(line)) && phrase::is_text(line),
        };
        if is_sane { len } else { Piece::Wrong }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let line = head.trim_ascii_end();
        match (side, self.state) {
            (Side::Server, _) => self.reply(line, told),
            (Side::Client, State::Mail) if head == b".\r\n" || head == b".\n" => {
                let size = std::mem::take(&mut self.size);
                self.state = State::Command;
                told.ask(0, Phrase::of("mail").size(size));
            }
            (Side::Client, State::Mail) => self.size = self.size.saturating_add(len),
            // Secrets are in base64, without blanks: its end was not seen when there are some.
            (Side::Client, State::Auth) if verb(line).is_none() || !line.contains(&b' ') => {
                told.ask(0, Phrase::of(HIDDEN));
            }
            (Side::Client, _) => self.command(line, told),
        }
        true
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        self.reply = None;
        if side == Side::Client {
            self.state = State::Command;
            let size = std::mem::take(&mut self.size);
            return (size > 0).then(|| Phrase::of("mail").size(size));
        }
        None
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        let is_sure = side == Side::Server
            || bytes
                .split(|&byte| byte == b'\n')
                .next()
                .is_some_and(|line| verb(line).is_some());
        is_sure && are_pieces(&Smtp::default(), side, bytes)
    }
}

impl Smtp {
    fn command(&mut self, line: &[u8], told: &mut Told<'_, '_>) {
        self.state = State::Command;
        match verb(line) {
            Some("AUTH") => {
                let method = line.split(u8::is_ascii_whitespace).nth(1);
                let phrase = Phrase::of("AUTH").word(method.unwrap_or_default());
                let has_more = line.split(u8::is_ascii_whitespace).nth(2).is_some();
                self.state = State::Auth;
                told.ask(
                    0,
                    if has_more {
                        phrase.word(HIDDEN)
                    } else {
                        phrase
                    },
                );
            }
            Some("DATA") => {
                self.state = State::DataAsked;
                told.ask(0, Phrase::of(line));
            }
            Some("BDAT") => {
                let size = line
                    .split(u8::is_ascii_whitespace)
                    .nth(1)
                    .unwrap_or_default();
                let size = std::str::from_utf8(size)
                    .ok()
                    .and_then(|size| size.parse().ok());
                told.skip = size.unwrap_or_default();
                told.ask(0, Phrase::of(line));
            }
            _ => told.ask(0, Phrase::of(line)),
        }
    }

    fn reply(&mut self, line: &[u8], told: &mut Told<'_, '_>) {
        if line.get(3) == Some(&b'-') {
            told.begin_answer();
            // The first line says it, but of a greeting's list of extensions.
            self.reply.get_or_insert_with(|| line.to_vec());
            return;
        }
        let code = line.get(..3).unwrap_or_default();
        match (self.state, code.first()) {
            (State::DataAsked, Some(b'3')) => self.state = State::Mail,
            (State::DataAsked, _) => self.state = State::Command,
            (State::Auth, Some(b'3')) => {}
            (State::Auth, _) => self.state = State::Command,
            _ => {}
        }
        let first = self.reply.take();
        let text = first.as_deref().unwrap_or(line);
        let text = text.get(4..).unwrap_or_default();
        let phrase = match code {
            // A challenge may hold secrets.
            b"334" => Phrase::of(code),
            _ => Phrase::of(code).word(text),
        };
        if code == b"220" && told.oldest().is_none() {
            told.single(phrase);
        } else {
            told.answer_oldest(Last::Yes, phrase);
        }
    }
}

/// A word of four letters, as all commands were: servers refuse those that they do not know.
fn is_command(line: &[u8]) -> bool {
    let word = line
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    verb(line).is_some() || word.len() == 4 && word.iter().all(u8::is_ascii_alphabetic)
}

/// The command, when it is one that we know.
fn verb(line: &[u8]) -> Option<&'static str> {
    let line = line.trim_ascii_end();
    let word = line.split(|&byte| byte == b' ').next()?;
    let verb = VERBS
        .iter()
        .copied()
        .find(|verb| word.eq_ignore_ascii_case(verb.as_bytes()));
    verb.filter(|_| phrase::is_text(line))
}

/// `250 text`, or the beginning of such.
fn is_reply(line: &[u8]) -> bool {
    let is_code = line.iter().take(3).enumerate().all(|(at, byte)| match at {
        0 => (b'2'..=b'5').contains(byte),
        _ => byte.is_ascii_digit(),
    });
    let is_mark = line
        .get(3)
        .is_none_or(|byte| matches!(byte, b' ' | b'-' | b'\r' | b'\n'));
    is_code
        && is_mark
        && phrase::is_text(
            line.get(..512)
                .filter(|_| line.len() > 2048)
                .unwrap_or(line),
        )
}

pub fn look(first: &First<'_>) -> Look {
    let line = first.bytes;
    let is_likely = first.is_likely("smtp", &[25, 465, 587, 24]);
    let is_whole = line.ends_with(b"\n");
    if first.side != Some(Side::Server) {
        let greets = ["EHLO ", "HELO ", "LHLO ", "MAIL FROM:<", "RCPT TO:<"];
        let greets = greets.iter().any(|verb| starts(line, verb.as_bytes()));
        if greets && is_whole && phrase::is_text(line) {
            return Look::Is(Side::Client);
        }
        if greets && line.len() < 512 && phrase::is_text(line) {
            return Look::Part;
        }
    }
    if first.side != Some(Side::Client) && line.starts_with(b"220") && is_reply(line) {
        let says_so = line
            .windows(4)
            .any(|word| word.eq_ignore_ascii_case(b"SMTP") || word == b"LMTP");
        if is_whole && (says_so || is_likely) {
            return Look::Is(Side::Server);
        }
    }
    Look::No
}

fn starts(line: &[u8], with: &[u8]) -> bool {
    line.get(..with.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(with))
}
