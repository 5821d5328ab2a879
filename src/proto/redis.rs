//! Redis (RESP2 and RESP3): commands with their words, answers by type and size, pushes.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told, are_pieces};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};

/// Longest line that is no string: types, numbers, errors, inline commands.
const MAX_LINE: usize = 4000;
/// Longest string (`proto-max-bulk-len`, at most).
const MAX_BULK: u64 = 4 << 30;
/// Nested arrays and maps; deeper ones are not followed.
const MAX_DEPTH: usize = 32;
/// Words of a command or answer that may be shown, and bytes of each.
const MAX_WORDS: usize = 24;
const MAX_WORD: usize = 200;

#[derive(Debug, Default)]
pub struct Redis {
    client: Value,
    server: Value,
    /// Acknowledgements so far of the channels that one command named.
    acks: u64,
    /// The client listens to channels: messages come without being asked for.
    listens: bool,
}

/// A value that is being read.
#[derive(Debug, Default)]
struct Value {
    /// Elements that are missing in each array that is open.
    open: Vec<u64>,
    /// The type and the number of elements of the outermost one.
    kind: u8,
    count: u64,
    size: u64,
    words: Vec<Vec<u8>>,
    is_cut: bool,
}

/// One element: its type, number or text, and where its content is.
struct Token<'a> {
    kind: u8,
    line: &'a [u8],
    content: &'a [u8],
}

impl<'a> Token<'a> {
    /// `None` when the line is not complete, or is none.
    fn parse(bytes: &'a [u8]) -> Option<Token<'a>> {
        let end = line_end(bytes)?;
        let (kind, line) = bytes.get(..end)?.split_first()?;
        let content = bytes.get(end.checked_add(2)?..).unwrap_or_default();
        Some(Token {
            kind: *kind,
            line,
            content,
        })
    }

    /// `None` for nothing (`-1`), too.
    fn number(&self) -> Option<u64> {
        let is_number =
            (1..=19).contains(&self.line.len()) && self.line.iter().all(u8::is_ascii_digit);
        let text = is_number.then_some(self.line)?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn is_nothing(&self) -> bool {
        self.line == b"-1" || self.kind == b'_'
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some(end)
}

fn is_aggregate(kind: u8) -> bool {
    matches!(kind, b'*' | b'%' | b'~' | b'>' | b'|')
}

fn is_bulk(kind: u8) -> bool {
    matches!(kind, b'$' | b'=' | b'!')
}

impl Grammar for Redis {
    const PROTOCOL: Protocol = Protocol::Redis;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let kind = bytes.first().copied().unwrap_or_default();
        let is_inline =
            side == Side::Client && kind.is_ascii_alphabetic() && self.client.open.is_empty();
        let is_known = is_aggregate(kind) || is_bulk(kind) || b"+-:_#,(".contains(&kind);
        let is_known = is_known && (side == Side::Server || matches!(kind, b'*' | b'$'));
        if !is_known && !is_inline {
            return Piece::Wrong;
        }
        let Some(token) = Token::parse(bytes) else {
            let is_sane = bytes.len() < MAX_LINE && !bytes.contains(&0);
            return if is_sane { Piece::More } else { Piece::Wrong };
        };
        let line = (token.line.len() as u64).saturating_add(3);
        if is_inline {
            return match phrase::is_printable(token.line) {
                true => Piece::Len(line),
                false => Piece::Wrong,
            };
        }
        match token.number() {
            _ if token.is_nothing() && token.line.len() <= 2 => Piece::Len(line),
            Some(len) if is_bulk(kind) && len <= MAX_BULK => {
                Piece::Len(line.saturating_add(len).saturating_add(2))
            }
            Some(_) if is_aggregate(kind) => Piece::Len(line),
            _ if is_aggregate(kind) || is_bulk(kind) => Piece::Wrong,
            _ if !phrase::is_text(token.line) => Piece::Wrong,
            None if kind == b':' && token.line.first() != Some(&b'-') => Piece::Wrong,
            _ => Piece::Len(line),
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let Some(token) = Token::parse(head) else {
            return false;
        };
        let value = match side {
            Side::Client => &mut self.client,
            Side::Server => {
                told.begin_answer();
                &mut self.server
            }
        };
        value.is_cut |= told.is_cut;
        let is_inline = side == Side::Client && !matches!(token.kind, b'*' | b'$');
        if is_inline {
            let line = head.get(..token.line.len().saturating_add(1));
            let words = line.unwrap_or_default().split(u8::is_ascii_whitespace);
            value.words = words.take(MAX_WORDS).map(<[u8]>::to_vec).collect();
        } else if !value.take(&token, len) {
            return false;
        }
        if value.open.is_empty() {
            let value = std::mem::take(value);
            told.is_cut = value.is_cut;
            match side {
                Side::Client => self.command(&value, told),
                Side::Server => self.answer(value, told),
            }
        }
        true
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        self.acks = 0;
        match side {
            Side::Client => {
                let begun = std::mem::take(&mut self.client);
                let is_begun = !begun.open.is_empty();
                is_begun.then(|| match begun.words.first() {
                    Some(name) => words(&name.to_ascii_lowercase(), &begun.words),
                    None => Phrase::of("?"),
                })
            }
            Side::Server => {
                self.server = Value::default();
                None
            }
        }
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        match side {
            Side::Client => is_command(bytes) == Look::Is(Side::Client),
            Side::Server => are_pieces(&Redis::default(), side, bytes),
        }
    }
}

impl Value {
    /// False when it is nested too deep.
    fn take(&mut self, token: &Token<'_>, len: u64) -> bool {
        if self.open.is_empty() {
            self.kind = token.kind;
            self.count = token.number().unwrap_or_default();
        }
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_sub(1);
        }
        if is_aggregate(token.kind) {
            let count = token.number().unwrap_or_default();
            // Attributes stand before the value that they belong to.
            let count = match token.kind {
                b'%' => count.saturating_mul(2),
                b'|' => count.saturating_mul(2).saturating_add(1),
                _ => count,
            };
            if self.open.len() >= MAX_DEPTH {
                return false;
            }
            self.open.push(count);
        } else {
            self.scalar(token, len);
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        true
    }

    fn scalar(&mut self, token: &Token<'_>, len: u64) {
        let text = if is_bulk(token.kind) && !token.is_nothing() {
            let size = token.number().unwrap_or_default();
            self.size = self.size.saturating_add(size);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            token.content.get(..size).unwrap_or(token.content)
        } else {
            self.size = self.size.saturating_add(len);
            token.line
        };
        if self.words.len() < MAX_WORDS {
            self.words
                .push(text.get(..MAX_WORD).unwrap_or(text).to_vec());
        }
    }
}

impl Redis {
    fn command(&mut self, value: &Value, told: &mut Told<'_, '_>) {
        let Some(name) = value.words.first().filter(|name| !name.is_empty()) else {
            return;
        };
        let name = name.to_ascii_lowercase();
        let mut acks = 0;
        match name.as_slice() {
            b"subscribe" | b"psubscribe" | b"ssubscribe" => {
                self.listens = true;
                acks = value.count.saturating_sub(1);
            }
            b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => {
                acks = value.count.saturating_sub(1).max(1);
            }
            _ => {}
        }
        told.ask(acks, words(&name, &value.words));
    }

    fn answer(&mut self, mut value: Value, told: &mut Told<'_, '_>) {
        let first = value.words.first().map(Vec::as_slice).unwrap_or_default();
        let is_message = matches!(first, b"message" | b"pmessage" | b"smessage");
        let is_ack = first.ends_with(b"subscribe") && value.count == 3;
        if (value.kind == b'>' && !is_ack) || (value.kind == b'*' && self.listens && is_message) {
            let payload = if is_message { value.words.pop() } else { None };
            let mut phrase = Phrase::new();
            for word in value.words.iter().take(3) {
                phrase = phrase.word(quoted(word));
            }
            let phrase = match payload {
                Some(_) => phrase.size(last_size(&value, payload.as_deref())),
                None => phrase,
            };
            told.single(phrase);
            return;
        }
        let mut last = Last::Yes;
        if is_ack && let Some(acks) = told.oldest() {
            self.acks = self.acks.saturating_add(1);
            if self.acks < acks {
                last = Last::No;
            } else {
                self.acks = 0;
            }
        }
        told.answer_oldest(last, answer(&value, is_ack));
    }
}

/// Of the payload of a message: all the text without the names of the channels.
fn last_size(value: &Value, payload: Option<&[u8]>) -> u64 {
    let names = value.words.iter().map(|word| word.len() as u64);
    let size = value.size.saturating_sub(names.sum());
    size.max(payload.map_or(0, |payload| payload.len() as u64))
}

fn answer(value: &Value, is_ack: bool) -> Phrase {
    let word = value.words.first().map(Vec::as_slice).unwrap_or_default();
    let count = value.count;
    match value.kind {
        b'+' | b':' | b',' | b'(' | b'-' => Phrase::of(word),
        b'!' => Phrase::of(word),
        b'#' => Phrase::of(if word == b"t" { "true" } else { "false" }),
        _ if value.kind == b'_' || word == b"-1" && value.size <= 5 && count == 0 => {
            Phrase::of("nil")
        }
        b'$' | b'=' => Phrase::new().size(value.size),
        _ if is_ack => value
            .words
            .iter()
            .take(3)
            .fold(Phrase::new(), |phrase, word| phrase.word(quoted(word))),
        b'%' => Phrase::of("map").word(count.to_string()).size(value.size),
        b'~' => Phrase::of("set").word(count.to_string()).size(value.size),
        _ if count == 0 => Phrase::of("array 0"),
        _ => Phrase::of("array").word(count.to_string()).size(value.size),
    }
}

/// The command with its arguments, without secrets.
fn words(name: &[u8], words: &[Vec<u8>]) -> Phrase {
    let mut phrase = Phrase::new();
    let mut hides = false;
    for (at, word) in words.iter().enumerate() {
        let lower = word.to_ascii_lowercase();
        let is_secret = match name {
            b"auth" => at > 0,
            b"acl" => word.first().is_some_and(|byte| b"><#!".contains(byte)),
            _ => hides,
        };
        if is_secret {
            phrase = phrase.word(HIDDEN);
            if name == b"auth" {
                break;
            }
        } else {
            phrase = phrase.word(quoted(word));
        }
        hides |= match name {
            b"hello" | b"migrate" => matches!(lower.as_slice(), b"auth" | b"auth2"),
            b"config" => {
                lower.ends_with(b"pass") || lower.ends_with(b"auth") || lower.ends_with(b"password")
            }
            _ => false,
        };
    }
    phrase
}

/// In quotes when there are blanks in it, or nothing.
fn quoted(word: &[u8]) -> Vec<u8> {
    if word.is_empty() || word.iter().any(u8::is_ascii_whitespace) {
        [b"\"", word, b"\""].concat()
    } else {
        word.to_vec()
    }
}

pub fn look(first: &First<'_>) -> Look {
    if first.side == Some(Side::Server) {
        return Look::No;
    }
    is_command(first.bytes)
}

/// `*2`, `$3`, `GET`
fn is_command(bytes: &[u8]) -> Look {
    let Some(after) = bytes.strip_prefix(b"*") else {
        return Look::No;
    };
    let digits = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits == 0 && !after.is_empty() || digits > 7 || after.first() == Some(&b'0') {
        return Look::No;
    }
    let after = after.get(digits..).unwrap_or_default();
    let name = match until(after, b"\r\n$") {
        Ok(name) => name,
        Err(look) => return look,
    };
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 && !name.is_empty() || digits > 2 {
        return Look::No;
    }
    let len = name.get(..digits).unwrap_or_default();
    let len: usize = std::str::from_utf8(len)
        .unwrap_or_default()
        .parse()
        .unwrap_or(0);
    let name = match until(name.get(digits..).unwrap_or_default(), b"\r\n") {
        Ok(name) => name,
        Err(look) => return look,
    };
    let word = name.get(..len).unwrap_or(name);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if len < 2 || !word.iter().all(is_name) {
        return Look::No;
    }
    match until(name.get(len..).unwrap_or_default(), b"\r\n") {
        Ok(_) => Look::Is(Side::Client),
        Err(look) => look,
    }
}

/// What follows this text.
fn until<'a>(bytes: &'a [u8], text: &[u8]) -> Result<&'a [u8], Look> {
    match bytes.strip_prefix(text) {
        Some(after) => Ok(after),
        None if text.starts_with(bytes) => Err(Look::Part),
        None => Err(Look::No),
    }
}
