//! DNS over TLS (RFC 7858): questions, and answers as tcpdump shows them.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::Phrase;
use super::reader::Reader;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Records of an answer that are shown.
const MAX_SHOWN: u16 = 4;
/// A name has at most so many labels, and so many bytes; more jumps make no sense.
const MAX_LABELS: usize = 128;
const MAX_NAME: usize = 255;

const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;

#[derive(Debug, Default)]
pub struct Dns;

struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additional: u16,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Option<Header> {
        Some(Header {
            id: reader.u16()?,
            flags: reader.u16()?,
            questions: reader.u16()?,
            answers: reader.u16()?,
            authorities: reader.u16()?,
            additional: reader.u16()?,
        })
    }

    /// One question of the ordinary kind, and a plausible number of records.
    fn is_sound(&self) -> bool {
        let is_response = self.flags & RESPONSE != 0;
        let operation = self.flags >> 11 & 0x0f;
        // The bit Z is zero (RFC 1035, section 4.1.1).
        let is_plain = operation == 0 && self.flags & 0x0040 == 0 && self.questions == 1;
        is_plain
            && (is_response || self.answers == 0 && self.authorities == 0 && self.additional <= 2)
    }
}

impl Grammar for Dns {
    const PROTOCOL: Protocol = Protocol::Dns;
    const HEAD: usize = 8192;
    const IS_KEYED: bool = true;

    fn piece(&self, _side: Side, bytes: &[u8]) -> Piece {
        match Reader::new(bytes).u16() {
            Some(0..12) => Piece::Wrong,
            Some(len) => Piece::Len(u64::from(len).saturating_add(2)),
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], _len: u64, told: &mut Told<'_, '_>) -> bool {
        let message = head.get(2..).unwrap_or_default();
        let mut reader = Reader::new(message);
        let Some(header) = Header::read(&mut reader) else {
            return false;
        };
        let is_response = header.flags & RESPONSE != 0;
        if is_response != (side == Side::Server) {
            return false;
        }
        let question = question(message, &mut reader);
        if is_response {
            told.answer_key(
                header.id.into(),
                Last::Yes,
                answer(&header, message, reader),
            );
        } else {
            told.ask(header.id.into(), question.unwrap_or(Phrase::of("?")));
        }
        true
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        is_message(bytes).is_some_and(|(is, _)| is == side)
    }
}

/// `A? www.example.com.`
fn question<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Phrase> {
    let name = name(message, reader)?;
    let kind = kind(reader.u16()?);
    reader.u16()?;
    Some(Phrase::of(kind).join("? ").join(name))
}

/// `2/0/1 A 1.2.3.4, A 1.2.3.5`
fn answer<'a>(header: &Header, message: &'a [u8], mut reader: Reader<'a>) -> Phrase {
    let mut phrase = match header.flags & 0x0f {
        0 => Phrase::new(),
        1 => Phrase::of("FormErr"),
        2 => Phrase::of("ServFail"),
        3 => Phrase::of("NXDomain"),
        4 => Phrase::of("NotImp"),
        5 => Phrase::of("Refused"),
        code => Phrase::of(format!("rcode{code}")),
    };
    let (answers, authorities) = (header.answers, header.authorities);
    phrase = phrase.word(format!("{answers}/{authorities}/{}", header.additional));
    if header.flags & TRUNCATED != 0 {
        phrase = phrase.word("[|]");
    }
    for at in 0..answers.min(MAX_SHOWN) {
        let Some(record) = record(message, &mut reader) else {
            break;
        };
        phrase = if at > 0 {
            phrase.join(", ")
        } else {
            phrase.join(" ")
        };
        phrase = phrase.join(record);
    }
    if answers > MAX_SHOWN {
        phrase.join(", ...")
    } else {
        phrase
    }
}

/// `A 1.2.3.4`
fn record<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Vec<u8>> {
    name(message, reader)?;
    let number = reader.u16()?;
    reader.take(6)?;
    let len = reader.u16()?;
    // Names inside may point before it.
    let mut inside = *reader;
    let content = reader.take(len.into())?;
    let mut text = kind(number).into_bytes();
    text.push(b' ');
    let mut content = Reader::new(content);
    match number {
        1 => text.extend(Ipv4Addr::from(content.u32()?).to_string().bytes()),
        28 => {
            let (high, low) = (content.u64()?, content.u64()?);
            let address = u128::from(high) << 64 | u128::from(low);
            text.extend(Ipv6Addr::from(address).to_string().bytes());
        }
        2 | 5 | 12 | 39 => text.extend(name(message, &mut inside)?),
        15 => {
            let preference = inside.u16()?;
            text.extend(format!("{preference} ").bytes());
            text.extend(name(message, &mut inside)?);
        }
        16 => {
            let first = content.u8()?;
            text.push(b'"');
            text.extend(content.take_up_to(first.into()));
            text.push(b'"');
        }
        _ => text.extend(format!("[{len}]").bytes()),
    }
    Some(text)
}

/// A name with its dots. Pointers lead backwards only, so there is an end.
fn name<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut inside = *reader;
    let mut end = None;
    let mut place = message.len().checked_sub(reader.rest().len())?;
    for _ in 0..MAX_LABELS {
        match inside.u8()? {
            0 => {
                *reader = end.unwrap_or(inside);
                if text.is_empty() {
                    text.push(b'.');
                }
                return Some(text);
            }
            len @ 1..=63 => {
                text.extend_from_slice(inside.take(len.into())?);
                text.push(b'.');
                if text.len() > MAX_NAME {
                    return None;
                }
            }
            high @ 0xc0..=0xff => {
                let low = inside.u8()?;
                let target = usize::from(high & 0x3f) << 8 | usize::from(low);
                if target >= place {
                    return None;
                }
                place = target;
                end = end.or(Some(inside));
                inside = Reader::new(message.get(target..)?);
            }
            _ => return None,
        }
    }
    None
}

fn kind(number: u16) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        39 => "DNAME",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        number => return format!("type{number}"),
    };
    name.to_owned()
}

/// The question or the answer that a message without a length before it is, in one line.
pub fn describe(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok()?;
    let (side, _) = is_message(&[&len.to_be_bytes(), message].concat())?;
    let mut reader = Reader::new(message);
    let header = Header::read(&mut reader)?;
    let question = question(message, &mut reader)?;
    let phrase = match side {
        Side::Client => question,
        Side::Server => answer(&header, message, reader),
    };
    Some(phrase.into_line())
}

/// Who sent the message, and whether it is whole; `None` when it is none.
fn is_message(bytes: &[u8]) -> Option<(Side, bool)> {
    let mut reader = Reader::new(bytes);
    let len = usize::from(reader.u16()?);
    let body = reader.rest();
    let message = body.get(..len).unwrap_or(body);
    let mut reader = Reader::new(message);
    let header = Header::read(&mut reader).filter(Header::is_sound)?;
    let name = name(message, &mut reader)?;
    let is_name = name.iter().all(|byte| matches!(byte, b'!'..=b'~'));
    let (kind, class) = (reader.u16()?, reader.u16()?);
    if !is_name || kind == 0 || !matches!(class, 1 | 3 | 255) {
        return None;
    }
    let is_response = header.flags & RESPONSE != 0;
    // A question has nothing behind it but options.
    let is_end = match header.additional {
        0 => reader.is_empty(),
        _ => reader.rest().starts_with(&[0, 0, 41]) || is_response,
    };
    let side = if is_response {
        Side::Server
    } else {
        Side::Client
    };
    (is_response || is_end).then_some((side, body.len() >= len))
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    match is_message(bytes) {
        Some((side, is_whole)) if first.side.is_none_or(|known| known == side) => {
            return if is_whole { Look::Is(side) } else { Look::Part };
        }
        _ => {}
    }
    // Programs may write or read the length by itself.
    if bytes.len() < 14 && first.is_likely("dot", &[853]) {
        return Look::Part;
    }
    Look::No
}
