//! MQTT 3.1, 3.1.1 and 5.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::{self, Phrase};
use super::reader::Reader;

/// Kinds of control packets (section 2.1.2).
const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

/// Topics of a subscription that are named.
const MAX_TOPICS: usize = 8;

#[derive(Debug, Default)]
pub struct Mqtt {
    /// The level that the client asked for, 0 when that was not seen.
    level: u8,
}

impl Grammar for Mqtt {
    const PROTOCOL: Protocol = Protocol::Mqtt;
    const IS_KEYED: bool = true;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let mut reader = Reader::new(bytes);
        let first = reader.u8().unwrap_or_default();
        let (kind, flags) = (first >> 4, first & 0x0f);
        let are_flags = match kind {
            PUBLISH => flags & 0x06 != 0x06,
            PUBREL | SUBSCRIBE | UNSUBSCRIBE => flags == 2,
            _ => flags == 0,
        };
        let may_say = match kind {
            CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ => side == Side::Client,
            CONNACK | SUBACK | UNSUBACK | PINGRESP => side == Side::Server,
            _ => kind != 0,
        };
        if !are_flags || !may_say {
            return Piece::Wrong;
        }
        match variable(&mut reader) {
            Some(len) => {
                let header = bytes.len().saturating_sub(reader.rest().len());
                Piece::Len(u64::from(len).saturating_add(header as u64))
            }
            None if bytes.len() >= 5 => Piece::Wrong,
            None => Piece::More,
        }
    }

    fn take(&mut self, _side: Side, head: &[u8], _len: u64, told: &mut Told<'_, '_>) -> bool {
        let mut reader = Reader::new(head);
        let first = reader.u8().unwrap_or_default();
        let size = variable(&mut reader).unwrap_or_default();
        self.packet(first, size, reader, told).is_some() || told.is_cut
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        is_packet(side, bytes)
    }
}

/// What a packet is keyed by: the kind of command and its identifier.
fn key(kind: u8, id: u16) -> u64 {
    u64::from(kind) << 16 | u64::from(id)
}

impl Mqtt {
    /// `None` when the packet is too short for its kind.
    fn packet(
        &mut self,
        first: u8,
        size: u32,
        mut reader: Reader<'_>,
        told: &mut Told<'_, '_>,
    ) -> Option<()> {
        match first >> 4 {
            CONNECT => self.connect(reader, told)?,
            CONNACK => {
                let is_present = reader.u8()? & 1 != 0;
                let phrase = code("connack", reader.u8()?);
                let phrase = if is_present {
                    phrase.word("session present")
                } else {
                    phrase
                };
                told.answer_key(key(CONNECT, 0), Last::Yes, phrase);
            }
            PUBLISH => self.publish(first, size, reader, told)?,
            kind @ (PUBACK | PUBREC | PUBCOMP) => {
                let id = reader.u16()?;
                let (asked, name) = match kind {
                    PUBACK => (PUBLISH, "puback"),
                    PUBREC => (PUBLISH, "pubrec"),
                    _ => (PUBREL, "pubcomp"),
                };
                let phrase = code(name, reader.u8().unwrap_or_default()).word(id.to_string());
                told.answer_key(key(asked, id), Last::Yes, phrase);
            }
            PUBREL => {
                let id = reader.u16()?;
                told.ask(key(PUBREL, id), Phrase::of("pubrel").word(id.to_string()));
            }
            kind @ (SUBSCRIBE | UNSUBSCRIBE) => {
                let id = reader.u16()?;
                self.properties(&mut reader);
                let name = if kind == SUBSCRIBE {
                    "subscribe"
                } else {
                    "unsubscribe"
                };
                let mut phrase = Phrase::of(name);
                for _ in 0..MAX_TOPICS {
                    let Some(topic) = reader.short_string() else {
                        break;
                    };
                    phrase = phrase.word(topic);
                    if kind == SUBSCRIBE {
                        phrase = phrase.word(format!("qos{}", reader.u8()? & 3));
                    }
                }
                told.ask(key(kind, id), phrase);
            }
            kind @ (SUBACK | UNSUBACK) => {
                let id = reader.u16()?;
                self.properties(&mut reader);
                let (asked, name) = match kind {
                    SUBACK => (SUBSCRIBE, "suback"),
                    _ => (UNSUBSCRIBE, "unsuback"),
                };
                let mut phrase = Phrase::of(name);
                for granted in reader.take_up_to(MAX_TOPICS) {
                    phrase = match granted {
                        0..=2 if kind == SUBACK => phrase.word(format!("qos{granted}")),
                        0 => phrase.word("ok"),
                        refused => phrase.word(format!("refused 0x{refused:02x}")),
                    };
                }
                told.answer_key(key(asked, id), Last::Yes, phrase);
            }
            PINGREQ => told.ask(key(PINGREQ, 0), Phrase::of("pingreq")),
            PINGRESP => told.answer_key(key(PINGREQ, 0), Last::Yes, Phrase::of("pingresp")),
            DISCONNECT => told.single(code("disconnect", reader.u8().unwrap_or_default())),
            AUTH => told.single(code("auth", reader.u8().unwrap_or_default())),
            _ => return None,
        }
        Some(())
    }

    /// Those of MQTT 5 are passed over.
    fn properties(&self, reader: &mut Reader<'_>) {
        if self.level == 5 {
            let len = variable(reader).unwrap_or_default();
            reader.take_up_to(usize::try_from(len).unwrap_or(usize::MAX));
        }
    }

    fn connect(&mut self, mut reader: Reader<'_>, told: &mut Told<'_, '_>) -> Option<()> {
        reader.short_string()?;
        self.level = reader.u8()?;
        let flags = reader.u8()?;
        reader.u16()?;
        self.properties(&mut reader);
        let client = reader.short_string();
        let mut phrase = Phrase::of("connect").pair("client", client.filter(|id| !id.is_empty()));
        if flags & 0x04 != 0 {
            self.properties(&mut reader);
            phrase = phrase.pair("will", reader.short_string());
            reader.short_string();
        }
        if flags & 0x80 != 0 {
            phrase = phrase.pair("user", reader.short_string());
        }
        told.ask(key(CONNECT, 0), phrase);
        Some(())
    }

    fn publish(
        &mut self,
        first: u8,
        size: u32,
        mut reader: Reader<'_>,
        told: &mut Told<'_, '_>,
    ) -> Option<()> {
        let size = size as usize;
        let before = reader.rest().len();
        let topic = reader.short_string()?;
        let quality = first >> 1 & 3;
        let id = if quality > 0 {
            Some(reader.u16()?)
        } else {
            None
        };
        self.properties(&mut reader);
        let header = before.saturating_sub(reader.rest().len());
        let mut phrase = Phrase::of("publish").word(topic);
        phrase = phrase.size(size.saturating_sub(header) as u64);
        if first & 1 != 0 {
            phrase = phrase.word("retain");
        }
        if first & 8 != 0 {
            phrase = phrase.word("dup");
        }
        match id {
            Some(id) => told.ask(key(PUBLISH, id), phrase.word(format!("qos{quality}"))),
            None => told.single(phrase),
        }
        Some(())
    }
}

/// The name, and what else the code says when it is not zero.
fn code(name: &str, code: u8) -> Phrase {
    match code {
        0 => Phrase::of(name),
        code => Phrase::of(name).word(format!("0x{code:02x}")),
    }
}

/// A number of up to four bytes of seven bits (section 1.5.5).
fn variable(reader: &mut Reader<'_>) -> Option<u32> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21] {
        let byte = reader.u8()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A packet of a length that its kind can have, and nothing but packets after it.
fn is_packet(side: Side, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut count = 0u32;
    while let Some(&first) = rest.first() {
        let Piece::Len(len) = Mqtt::default().piece(side, rest) else {
            return false;
        };
        let Some((packet, after)) = usize::try_from(len)
            .ok()
            .and_then(|len| rest.split_at_checked(len))
        else {
            return false;
        };
        let mut reader = Reader::new(packet);
        reader.u8();
        variable(&mut reader);
        let is_sound = match first >> 4 {
            PUBLISH => reader.short_string().is_some_and(is_topic),
            SUBSCRIBE | UNSUBSCRIBE => reader.rest().len() >= 5,
            PINGREQ | PINGRESP => reader.is_empty(),
            CONNECT => is_connect(packet),
            CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP => reader.rest().len() >= 2,
            _ => true,
        };
        if !is_sound {
            return false;
        }
        count = count.saturating_add(1);
        rest = after;
    }
    count > 0
}

fn is_topic(topic: &[u8]) -> bool {
    topic.len() >= 2
        && phrase::is_text(topic)
        && !topic.iter().any(|byte| matches!(byte, b'#' | b'+' | b'\n'))
}

/// `MQTT` and its level, or `MQIsdp` of MQTT 3.1, where they stand in a packet.
fn is_connect(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    if reader.u8() != Some(CONNECT << 4) || variable(&mut reader).is_none_or(|len| len < 12) {
        return false;
    }
    match reader.short_string() {
        Some(b"MQTT") => matches!(reader.u8(), Some(4 | 5)),
        Some(b"MQIsdp") => reader.u8() == Some(3),
        _ => false,
    }
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    let side = first.side.unwrap_or(Side::Client);
    let is_likely = first.is_likely("mqtt", &[8883]);
    if side == Side::Client && is_connect(bytes) {
        return Look::Is(Side::Client);
    }
    if !is_likely {
        return Look::No;
    }
    // Servers may read the first byte by itself, then the length.
    if side == Side::Client && bytes.first() == Some(&(CONNECT << 4)) && bytes.len() < 12 {
        return Look::Part;
    }
    // Single packets say too little: two bytes are a ping.
    if is_packet(side, bytes) {
        Look::Is(side)
    } else {
        Look::No
    }
}
