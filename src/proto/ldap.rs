//! LDAP (RFC 4511): operations by message id, with names and results.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::{self, Phrase};
use super::reader::Reader;

/// Longest message that makes sense.
const MAX_MESSAGE: u64 = 64 << 20;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

#[derive(Debug, Default)]
pub struct Ldap {
    entries: u64,
}

/// What an operation is: its tag, its name, who sends it.
const OPERATIONS: &[(u8, &str, Side)] = &[
    (0x60, "bind", Side::Client),
    (0x61, "bind", Side::Server),
    (0x42, "unbind", Side::Client),
    (0x63, "search", Side::Client),
    (0x64, "entry", Side::Server),
    (0x65, "search", Side::Server),
    (0x73, "reference", Side::Server),
    (0x66, "modify", Side::Client),
    (0x67, "modify", Side::Server),
    (0x68, "add", Side::Client),
    (0x69, "add", Side::Server),
    (0x4a, "delete", Side::Client),
    (0x6b, "delete", Side::Server),
    (0x6c, "rename", Side::Client),
    (0x6d, "rename", Side::Server),
    (0x6e, "compare", Side::Client),
    (0x6f, "compare", Side::Server),
    (0x50, "abandon", Side::Client),
    (0x77, "extended", Side::Client),
    (0x78, "extended", Side::Server),
    (0x79, "intermediate", Side::Server),
];

fn operation(tag: u8) -> Option<(&'static str, Side)> {
    let found = OPERATIONS.iter().find(|(is, _, _)| *is == tag)?;
    Some((found.1, found.2))
}

/// A length of BER in its definite form.
fn length(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.u8()?;
    if first < 0x80 {
        return Some(first.into());
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return Some(u64::MAX);
    }
    let bytes = reader.take(count)?;
    Some(
        bytes
            .iter()
            .fold(0u64, |len, &byte| len << 8 | u64::from(byte)),
    )
}

/// The content of an element with this tag, as far as it is there.
fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    let mut inside = *reader;
    if inside.u8()? != tag {
        return None;
    }
    let len = usize::try_from(length(&mut inside)?).ok()?;
    let content = inside.take_up_to(len);
    *reader = inside;
    Some(content)
}

fn integer(bytes: &[u8]) -> Option<u32> {
    if bytes.len() > 5 || bytes.is_empty() {
        return None;
    }
    let number = bytes
        .iter()
        .fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    u32::try_from(number).ok()
}

impl Grammar for Ldap {
    const PROTOCOL: Protocol = Protocol::Ldap;
    const IS_KEYED: bool = true;

    fn piece(&self, _side: Side, bytes: &[u8]) -> Piece {
        let mut reader = Reader::new(bytes);
        if reader.u8() != Some(SEQUENCE) {
            return Piece::Wrong;
        }
        match length(&mut reader) {
            Some(len) if !(5..=MAX_MESSAGE).contains(&len) => Piece::Wrong,
            Some(len) => {
                let header = bytes.len().saturating_sub(reader.rest().len());
                Piece::Len(len.saturating_add(header as u64))
            }
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let Some((id, tag, content)) = message(head) else {
            return told.is_cut;
        };
        let Some((name, says)) = operation(tag) else {
            return false;
        };
        if says != side {
            return false;
        }
        let key = id.into();
        let mut reader = Reader::new(content);
        match tag {
            0x42 | 0x50 => told.single(Phrase::of(name)),
            0x64 | 0x73 => {
                self.entries = self.entries.saturating_add(1);
                told.begin_answer();
            }
            0x79 => {}
            _ if side == Side::Client => told.ask(key, request(tag, name, content)),
            _ => {
                let code = element(&mut reader, 0x0a).and_then(integer);
                element(&mut reader, 0x04);
                let text = element(&mut reader, 0x04).unwrap_or_default();
                let mut phrase = result(code.unwrap_or_default()).word(text);
                if tag == 0x65 {
                    let entries = std::mem::take(&mut self.entries);
                    phrase = phrase.word(format!("entries={entries}"));
                }
                if len > 64 << 10 {
                    phrase = phrase.size(len);
                }
                told.answer_key(key, Last::Yes, phrase);
            }
        }
        true
    }

    fn lost(&mut self, _side: Side) -> Option<Phrase> {
        self.entries = 0;
        None
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        is_message(bytes).is_some_and(|is| is == side)
    }
}

/// Id, operation and its content.
fn message(bytes: &[u8]) -> Option<(u32, u8, &[u8])> {
    let mut reader = Reader::new(bytes);
    let mut inside = Reader::new(element(&mut reader, SEQUENCE)?);
    let id = integer(element(&mut inside, INTEGER)?)?;
    let tag = *inside.rest().first()?;
    Some((id, tag, element(&mut inside, tag)?))
}

/// With the name that it is about; never with the password of a bind.
fn request(tag: u8, name: &str, content: &[u8]) -> Phrase {
    let mut reader = Reader::new(content);
    let phrase = Phrase::of(name);
    match tag {
        0x60 => {
            element(&mut reader, INTEGER);
            let user = element(&mut reader, 0x04).unwrap_or_default();
            let method = match reader.rest().first() {
                Some(0x80) => "simple",
                Some(0xa3) => "sasl",
                _ => "",
            };
            phrase.word(method).word(user)
        }
        0x63 => {
            let base = element(&mut reader, 0x04).unwrap_or_default();
            let scope = element(&mut reader, 0x0a).and_then(integer);
            let scope = match scope {
                Some(0) => "base",
                Some(1) => "one",
                Some(2) => "sub",
                _ => "",
            };
            phrase.word(base).word(scope)
        }
        0x4a => phrase.word(content),
        0x77 => phrase.word(element(&mut reader, 0x80).unwrap_or_default()),
        _ => phrase.word(element(&mut reader, 0x04).unwrap_or_default()),
    }
}

/// The results that are met most (section 4.1.9); others by number.
fn result(code: u32) -> Phrase {
    let name = match code {
        0 => "success",
        1 => "operationsError",
        2 => "protocolError",
        3 => "timeLimitExceeded",
        4 => "sizeLimitExceeded",
        5 => "compareFalse",
        6 => "compareTrue",
        8 => "strongerAuthRequired",
        10 => "referral",
        14 => "saslBindInProgress",
        16 => "noSuchAttribute",
        32 => "noSuchObject",
        34 => "invalidDNSyntax",
        48 => "inappropriateAuthentication",
        49 => "invalidCredentials",
        50 => "insufficientAccessRights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwillingToPerform",
        65 => "objectClassViolation",
        68 => "entryAlreadyExists",
        code => return Phrase::of(format!("result{code}")),
    };
    Phrase::of(name)
}

/// Who sent the whole message that stands here.
fn is_message(bytes: &[u8]) -> Option<Side> {
    let mut reader = Reader::new(bytes);
    reader.u8().filter(|tag| *tag == SEQUENCE)?;
    let len = usize::try_from(length(&mut reader)?).ok()?;
    let body = reader.rest().get(..len)?;
    let mut inside = Reader::new(body);
    let id = element(&mut inside, INTEGER)?;
    let (_, side) = operation(*inside.rest().first()?)?;
    let mut operation = inside;
    let tag = operation.u8()?;
    let len = usize::try_from(length(&mut operation)?).ok()?;
    let content = operation.take(len)?;
    // Behind it there are controls, or nothing.
    let is_end = operation.rest().first().is_none_or(|tag| *tag == 0xa0);
    let is_sound = match tag {
        0x42 => content.is_empty(),
        0x4a | 0x50 => phrase::is_text(content),
        0x60 => content.starts_with(&[INTEGER, 1, 3]),
        0x77 => content.first() == Some(&0x80),
        0x61 | 0x65 | 0x67 | 0x69 | 0x6b | 0x6d | 0x6f | 0x78 => content.starts_with(&[0x0a, 1]),
        _ => content.first() == Some(&0x04),
    };
    (integer(id).is_some() && is_end && is_sound).then_some(side)
}

pub fn look(first: &First<'_>) -> Look {
    match is_message(first.bytes) {
        Some(side) if first.side.is_none_or(|known| known == side) => Look::Is(side),
        _ if first.bytes.first() == Some(&SEQUENCE)
            && first.is_likely("ldap", &[636])
            && first.bytes.len() < 8 =>
        {
            Look::Part
        }
        _ => Look::No,
    }
}
