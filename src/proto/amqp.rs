//! AMQP 0-9-1 (RabbitMQ): methods per channel, and messages with their size.

use super::detect::{First, Look, Match, Side, starts};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::Phrase;
use super::reader::Reader;
use std::collections::HashMap;

const PREFACE: &[u8] = b"AMQP\0\0\x09\x01";
const FRAME_END: u8 = 0xce;
const MAX_FRAME: u32 = 128 << 20;
/// Channels on which a content is awaited.
const MAX_CHANNELS: usize = 256;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// A method: its class and number, its name, and what it asks for or answers.
struct Method {
    class: u16,
    number: u16,
    name: &'static str,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is answered by a method of its class.
    Asks,
    /// It answers the one with this number.
    Answers(u16),
    Neither,
    /// Neither, and a content follows.
    Content,
}

const fn method(class: u16, number: u16, name: &'static str, role: Role) -> Method {
    Method {
        class,
        number,
        name,
        role,
    }
}

use Role::{Answers, Asks, Content, Neither};

const METHODS: &[Method] = &[
    method(10, 10, "connection.start", Asks),
    method(10, 11, "connection.start-ok", Answers(10)),
    method(10, 20, "connection.secure", Asks),
    method(10, 21, "connection.secure-ok", Answers(20)),
    method(10, 30, "connection.tune", Asks),
    method(10, 31, "connection.tune-ok", Answers(30)),
    method(10, 40, "connection.open", Asks),
    method(10, 41, "connection.open-ok", Answers(40)),
    method(10, 50, "connection.close", Asks),
    method(10, 51, "connection.close-ok", Answers(50)),
    method(10, 60, "connection.blocked", Neither),
    method(10, 61, "connection.unblocked", Neither),
    method(10, 70, "connection.update-secret", Asks),
    method(10, 71, "connection.update-secret-ok", Answers(70)),
    method(20, 10, "channel.open", Asks),
    method(20, 11, "channel.open-ok", Answers(10)),
    method(20, 20, "channel.flow", Asks),
    method(20, 21, "channel.flow-ok", Answers(20)),
    method(20, 40, "channel.close", Asks),
    method(20, 41, "channel.close-ok", Answers(40)),
    method(40, 10, "exchange.declare", Asks),
    method(40, 11, "exchange.declare-ok", Answers(10)),
    method(40, 20, "exchange.delete", Asks),
    method(40, 21, "exchange.delete-ok", Answers(20)),
    method(40, 30, "exchange.bind", Asks),
    method(40, 31, "exchange.bind-ok", Answers(30)),
    method(40, 40, "exchange.unbind", Asks),
    method(40, 51, "exchange.unbind-ok", Answers(40)),
    method(50, 10, "queue.declare", Asks),
    method(50, 11, "queue.declare-ok", Answers(10)),
    method(50, 20, "queue.bind", Asks),
    method(50, 21, "queue.bind-ok", Answers(20)),
    method(50, 30, "queue.purge", Asks),
    method(50, 31, "queue.purge-ok", Answers(30)),
    method(50, 40, "queue.delete", Asks),
    method(50, 41, "queue.delete-ok", Answers(40)),
    method(50, 50, "queue.unbind", Asks),
    method(50, 51, "queue.unbind-ok", Answers(50)),
    method(60, 10, "basic.qos", Asks),
    method(60, 11, "basic.qos-ok", Answers(10)),
    method(60, 20, "basic.consume", Asks),
    method(60, 21, "basic.consume-ok", Answers(20)),
    method(60, 30, "basic.cancel", Asks),
    method(60, 31, "basic.cancel-ok", Answers(30)),
    method(60, 40, "basic.publish", Content),
    method(60, 50, "basic.return", Content),
    method(60, 60, "basic.deliver", Content),
    method(60, 70, "basic.get", Asks),
    method(60, 71, "basic.get-ok", Answers(70)),
    method(60, 72, "basic.get-empty", Answers(70)),
    method(60, 80, "basic.ack", Neither),
    method(60, 90, "basic.reject", Neither),
    method(60, 100, "basic.recover-async", Neither),
    method(60, 110, "basic.recover", Asks),
    method(60, 111, "basic.recover-ok", Answers(110)),
    method(60, 120, "basic.nack", Neither),
    method(85, 10, "confirm.select", Asks),
    method(85, 11, "confirm.select-ok", Answers(10)),
    method(90, 10, "tx.select", Asks),
    method(90, 11, "tx.select-ok", Answers(10)),
    method(90, 20, "tx.commit", Asks),
    method(90, 21, "tx.commit-ok", Answers(20)),
    method(90, 30, "tx.rollback", Asks),
    method(90, 31, "tx.rollback-ok", Answers(30)),
];

#[derive(Debug, Default)]
pub struct Amqp {
    /// Methods whose content follows, by side and channel.
    contents: HashMap<(bool, u16), Phrase>,
}

impl Grammar for Amqp {
    const PROTOCOL: Protocol = Protocol::Amqp;
    const IS_KEYED: bool = true;

    fn piece(&self, _side: Side, bytes: &[u8]) -> Piece {
        match starts(bytes, PREFACE) {
            Match::Whole => return Piece::Len(8),
            Match::Part => return Piece::More,
            Match::No => {}
        }
        let mut reader = Reader::new(bytes);
        if !matches!(reader.u8(), Some(METHOD | HEADER | BODY | HEARTBEAT)) {
            return Piece::Wrong;
        }
        reader.u16();
        match reader.u32() {
            Some(len) if len > MAX_FRAME => Piece::Wrong,
            Some(len) => Piece::Len(u64::from(len).saturating_add(8)),
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        if head.starts_with(PREFACE) {
            told.single(Phrase::of("AMQP 0-9-1"));
            return true;
        }
        if head.len() as u64 == len && head.last() != Some(&FRAME_END) {
            return false;
        }
        let mut reader = Reader::new(head);
        let kind = reader.u8();
        let channel = reader.u16().unwrap_or_default();
        reader.u32();
        let place = (side == Side::Client, channel);
        match kind {
            Some(METHOD) => self.method(place, reader, told).is_some() || told.is_cut,
            Some(HEADER) => {
                reader.u32();
                let size = reader.u64().unwrap_or_default();
                if let Some(phrase) = self.contents.remove(&place) {
                    told.single(phrase.size(size));
                }
                true
            }
            _ => true,
        }
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        let mut begun = None;
        self.contents.retain(|place, phrase| {
            let is_other = place.0 != (side == Side::Client);
            if !is_other {
                let all = begun.take().map(|all: Phrase| all.join(", "));
                let phrase = std::mem::take(phrase).into_line();
                begun = Some(all.unwrap_or_default().join(phrase));
            }
            is_other
        });
        begun
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        first_frame(bytes).is_some_and(|asks| asks.is_none_or(|is| is == side))
    }
}

impl Amqp {
    fn method(
        &mut self,
        place: (bool, u16),
        mut reader: Reader<'_>,
        told: &mut Told<'_, '_>,
    ) -> Option<()> {
        let (class, number) = (reader.u16()?, reader.u16()?);
        let channel = place.1;
        let Some(method) = find(class, number) else {
            told.single(Phrase::of(format!(
                "method {class}.{number} channel={channel}"
            )));
            return Some(());
        };
        let mut phrase = Phrase::of(method.name);
        if channel > 0 {
            phrase = phrase.pair("channel", Some(channel.to_string()));
        }
        let phrase = arguments(method, phrase, reader);
        let key =
            |number: u16| u64::from(channel) << 32 | u64::from(class) << 16 | u64::from(number);
        match method.role {
            Asks => told.ask(key(number), phrase),
            Answers(asked) => told.answer_key(key(asked), Last::Yes, phrase),
            Neither => told.single(phrase),
            Content if self.contents.len() < MAX_CHANNELS => {
                self.contents.insert(place, phrase);
            }
            Content => told.single(phrase),
        }
        Some(())
    }
}

fn find(class: u16, number: u16) -> Option<&'static Method> {
    METHODS
        .iter()
        .find(|method| method.class == class && method.number == number)
}

/// Names of exchanges, queues and keys; never what a login sends.
fn arguments(method: &Method, phrase: Phrase, mut reader: Reader<'_>) -> Phrase {
    let short = |reader: &mut Reader<'_>| {
        let len = reader.u8()?;
        reader.take(len.into()).map(<[u8]>::to_vec)
    };
    let some = |text: Option<Vec<u8>>| text.filter(|text| !text.is_empty());
    match (method.class, method.number) {
        (10, 40) => phrase.pair("vhost", short(&mut reader)),
        (10, 50) | (20, 40) => {
            let code = reader.u16().unwrap_or_default();
            phrase
                .word(code.to_string())
                .word(short(&mut reader).unwrap_or_default())
        }
        (40, 10 | 20) => {
            reader.u16();
            phrase.pair("exchange", short(&mut reader))
        }
        (50, 10 | 30 | 40) | (60, 20 | 70) => {
            reader.u16();
            phrase.pair("queue", some(short(&mut reader)))
        }
        (50, 11) => {
            let phrase = phrase.pair("queue", short(&mut reader));
            phrase.pair("messages", reader.u32().map(|count| count.to_string()))
        }
        (50, 20 | 50) => {
            reader.u16();
            let phrase = phrase.pair("queue", some(short(&mut reader)));
            let phrase = phrase.pair("exchange", short(&mut reader));
            phrase.pair("key", some(short(&mut reader)))
        }
        (60, 21 | 30 | 31) => phrase.pair("consumer", short(&mut reader)),
        (60, 40) => {
            reader.u16();
            let phrase = phrase.pair("exchange", some(short(&mut reader)));
            phrase.pair("key", some(short(&mut reader)))
        }
        (60, 50) => {
            let code = reader.u16().unwrap_or_default();
            phrase
                .word(code.to_string())
                .word(short(&mut reader).unwrap_or_default())
        }
        (60, 60) => {
            let phrase = phrase.pair("consumer", short(&mut reader));
            let phrase = phrase.pair("tag", reader.u64().map(|tag| tag.to_string()));
            reader.u8();
            let phrase = phrase.pair("exchange", some(short(&mut reader)));
            phrase.pair("key", some(short(&mut reader)))
        }
        (60, 71 | 80 | 90 | 120) => phrase.pair("tag", reader.u64().map(|tag| tag.to_string())),
        _ => phrase,
    }
}

/// A whole frame of a known method; inside, who sends that when only one end may.
fn first_frame(bytes: &[u8]) -> Option<Option<Side>> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != METHOD {
        return None;
    }
    reader.u16()?;
    let len = usize::try_from(reader.u32()?).ok()?;
    let mut inside = Reader::new(reader.take(len)?);
    let is_end = reader.u8()? == FRAME_END;
    let method = find(inside.u16()?, inside.u16()?)?;
    let next_is_frame = reader
        .rest()
        .first()
        .is_none_or(|kind| matches!(kind, 1..=3 | 8));
    if !is_end || !next_is_frame {
        return None;
    }
    let is_servers = match (method.class, method.number) {
        (10, 10 | 20 | 30 | 60 | 61) => true,
        (10, 11 | 21 | 31) => false,
        (10, 50 | 51) | (20, 20 | 21 | 40 | 41) | (60, 80 | 120 | 30 | 31) => return Some(None),
        (60, 50 | 60 | 71 | 72) => true,
        _ => matches!(method.role, Answers(_)),
    };
    Some(Some(if is_servers {
        Side::Server
    } else {
        Side::Client
    }))
}

pub fn look(first: &First<'_>) -> Look {
    match starts(first.bytes, PREFACE) {
        Match::Whole if first.side != Some(Side::Server) => return Look::Is(Side::Client),
        Match::Part if first.bytes.len() >= 4 && first.side != Some(Side::Server) => {
            return Look::Part;
        }
        _ => {}
    }
    match (first_frame(first.bytes), first.side) {
        (Some(Some(side)), known) if known.is_none_or(|known| known == side) => Look::Is(side),
        (Some(None), Some(side)) => Look::Is(side),
        _ => Look::No,
    }
}
