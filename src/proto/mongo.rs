//! The wire protocol of `MongoDB`: commands with their collection, and what became of them.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::{self, Phrase};
use super::reader::Reader;

const HEADER: u32 = 16;
/// `maxMessageSizeBytes` of servers.
const MAX_MESSAGE: u32 = 48_000_000;

const OP_REPLY: u32 = 1;
const OP_QUERY: u32 = 2004;
const OP_COMPRESSED: u32 = 2012;
const OP_MSG: u32 = 2013;

/// In the flags of `OP_MSG`: no answer will come to this.
const MORE_TO_COME: u32 = 1 << 1;

/// Elements of a document that are looked at.
const MAX_ELEMENTS: usize = 64;

#[derive(Debug, Default)]
pub struct Mongo;

/// The header of every message, and its flags or what stands in their place.
struct Header {
    len: u32,
    id: u32,
    answers: u32,
    operation: u32,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Option<Header> {
        Some(Header {
            len: reader.u32_le()?,
            id: reader.u32_le()?,
            answers: reader.u32_le()?,
            operation: reader.u32_le()?,
        })
    }

    fn is_sound(&self) -> bool {
        let is_operation = matches!(self.operation, OP_REPLY | OP_QUERY | OP_COMPRESSED | OP_MSG);
        is_operation && (HEADER + 5..=MAX_MESSAGE).contains(&self.len)
    }
}

impl Grammar for Mongo {
    const PROTOCOL: Protocol = Protocol::Mongo;
    const IS_KEYED: bool = true;

    fn piece(&self, _side: Side, bytes: &[u8]) -> Piece {
        match Header::read(&mut Reader::new(bytes)) {
            Some(header) if header.is_sound() => Piece::Len(header.len.into()),
            Some(_) => Piece::Wrong,
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let mut reader = Reader::new(head);
        let Some(header) = Header::read(&mut reader) else {
            return false;
        };
        let (mut expects, mut collection) = (true, None);
        let document = match header.operation {
            OP_MSG => {
                expects = reader.u32_le().unwrap_or_default() & MORE_TO_COME == 0;
                // The body stands in the section of kind 0, mostly the first.
                (reader.u8() == Some(0)).then(|| reader.rest())
            }
            OP_QUERY => {
                reader.u32_le();
                collection = reader.zero_ended();
                reader.take(8);
                Some(reader.rest())
            }
            OP_REPLY => {
                reader.take(20);
                Some(reader.rest())
            }
            _ => None,
        };
        match side {
            Side::Client => {
                let phrase = match document {
                    Some(document) => command(document, collection),
                    None => Phrase::of("compressed").size(len),
                };
                if expects {
                    told.ask(header.id.into(), phrase);
                } else {
                    told.single(phrase);
                }
            }
            Side::Server => {
                let phrase = document.map_or(Phrase::of("compressed"), answer);
                told.answer_key(header.answers.into(), Last::Yes, phrase.size(len));
            }
        }
        true
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        first_message(bytes).is_some_and(|is| is == side)
    }
}

/// `find shop.users`
fn command(document: &[u8], collection: Option<&[u8]>) -> Phrase {
    let mut phrase = Phrase::new();
    let mut target = None;
    let mut database = None;
    for (at, element) in Elements::of(document).enumerate() {
        if at == 0 {
            phrase = phrase.word(element.name);
            target = element.text();
        }
        match element.name {
            b"$db" => database = element.text(),
            // Of getMore, whose first element is the cursor.
            b"collection" if target.is_none() => target = element.text(),
            _ => {}
        }
    }
    let database = database.or(collection.and_then(|name| name.split(|&byte| byte == b'.').next()));
    match (database, target) {
        (Some(database), Some(target)) => phrase.word(database).join(".").join(target),
        (Some(only), None) | (None, Some(only)) => phrase.word(only),
        (None, None) => phrase,
    }
}

/// `ok n=3`, `ok batch=20`, `error 11000 text`
fn answer(document: &[u8]) -> Phrase {
    let mut phrase = Phrase::of("ok");
    let mut is_error = false;
    let (mut code, mut text) = (None, None);
    for element in Elements::of(document) {
        match element.name {
            b"ok" => is_error = element.number() == Some(0),
            b"code" => code = element.number(),
            b"errmsg" => text = element.text(),
            b"n" => phrase = phrase.pair("n", element.number().map(|n| n.to_string())),
            b"nModified" => {
                phrase = phrase.pair("modified", element.number().map(|n| n.to_string()))
            }
            b"writeErrors" => {
                let errors = element.children().count();
                phrase = phrase.word(format!("write-errors={errors}"));
            }
            b"cursor" => {
                let batch = element
                    .children()
                    .find(|child| child.name.ends_with(b"Batch"));
                let batch = batch.map(|batch| batch.children().count());
                // More may stand behind the part that is looked at.
                let is_cut = batch.is_some_and(|count| count >= MAX_ELEMENTS) || element.is_cut;
                let more = if is_cut { "+" } else { "" };
                phrase = phrase.pair("batch", batch.map(|count| format!("{count}{more}")));
            }
            _ => {}
        }
    }
    if is_error {
        let code = code.unwrap_or_default().to_string();
        return Phrase::of("error")
            .word(code)
            .word(text.unwrap_or_default());
    }
    phrase
}

/// The elements of a BSON document, as far as they are there.
struct Elements<'a> {
    reader: Reader<'a>,
    left: usize,
}

struct Element<'a> {
    kind: u8,
    name: &'a [u8],
    value: &'a [u8],
    is_cut: bool,
}

impl<'a> Elements<'a> {
    fn of(document: &'a [u8]) -> Elements<'a> {
        let mut reader = Reader::new(document);
        let len = reader.u32_le().unwrap_or_default();
        let len = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(4);
        Elements {
            reader: Reader::new(reader.take_up_to(len)),
            left: MAX_ELEMENTS,
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        self.left = self.left.checked_sub(1)?;
        let reader = &mut self.reader;
        let kind = reader.u8().filter(|kind| *kind != 0)?;
        let name = reader.zero_ended()?;
        let len = |reader: &Reader<'a>| Reader::new(reader.rest()).u32_le();
        let size = match kind {
            0x01 | 0x09 | 0x11 | 0x12 => 8,
            0x02 | 0x0d | 0x0e => usize::try_from(len(reader)?).ok()?.checked_add(4)?,
            0x03 | 0x04 | 0x0f => usize::try_from(len(reader)?).ok()?,
            0x05 => usize::try_from(len(reader)?).ok()?.checked_add(5)?,
            0x06 | 0x0a | 0x7f | 0xff => 0,
            0x07 => 12,
            0x08 => 1,
            0x0b => {
                let mut inside = *reader;
                let before = inside.rest().len();
                inside.zero_ended()?;
                inside.zero_ended()?;
                before.saturating_sub(inside.rest().len())
            }
            0x0c => usize::try_from(len(reader)?).ok()?.checked_add(16)?,
            0x10 => 4,
            0x13 => 16,
            _ => return None,
        };
        let value = reader.take_up_to(size);
        Some(Element {
            kind,
            name,
            value,
            is_cut: value.len() < size,
        })
    }
}

impl<'a> Element<'a> {
    fn text(&self) -> Option<&'a [u8]> {
        let text = self.value.get(4..).filter(|_| self.kind == 0x02)?;
        Some(text.strip_suffix(b"\0").unwrap_or(text))
    }

    fn number(&self) -> Option<i64> {
        match self.kind {
            0x01 => {
                let bits = Reader::new(self.value).u64_le()?;
                // Truncated towards zero, and within bounds.
                Some(f64::from_bits(bits) as i64)
            }
            0x10 => Some(Reader::new(self.value).u32_le()?.cast_signed().into()),
            0x12 => Some(Reader::new(self.value).u64_le()?.cast_signed()),
            0x08 => Some(i64::from(*self.value.first()?)),
            _ => None,
        }
    }

    fn children(&self) -> Elements<'a> {
        let is_document = matches!(self.kind, 0x03 | 0x04);
        Elements::of(if is_document { self.value } else { &[] })
    }
}

/// Who sent the message that stands here, when it certainly is one.
fn first_message(bytes: &[u8]) -> Option<Side> {
    let mut reader = Reader::new(bytes);
    let header = Header::read(&mut reader).filter(Header::is_sound)?;
    let side = if header.answers == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let inside = match header.operation {
        OP_MSG => {
            let flags = reader.u32_le()?;
            let is_first = reader.u8()? == 0;
            let len = reader.u32_le()?;
            // Bits 0, 1 and 16 have a meaning, the other low ones must not be set.
            return (flags & !0x1_0003 == 0 && is_first && len <= header.len).then_some(side);
        }
        OP_QUERY => {
            reader.u32_le()?;
            reader
                .zero_ended()
                .is_some_and(|name| phrase::is_printable(name) && name.contains(&b'.'))
        }
        OP_REPLY => reader.u32_le()? <= 15 && reader.u64_le()? == 0,
        _ => reader.u32_le()? == OP_MSG,
    };
    inside.then_some(side)
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    if let Some(side) = first_message(bytes) {
        let fits = first.side.is_none_or(|known| known == side);
        return if fits { Look::Is(side) } else { Look::No };
    }
    let header = Header::read(&mut Reader::new(bytes));
    // Programs may read the header by itself.
    match header {
        Some(header) if header.is_sound() && bytes.len() < 25 => Look::Part,
        _ => Look::No,
    }
}
