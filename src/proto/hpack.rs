//! Header fields of HTTP/2 (HPACK, RFC 7541), also when the beginning was not seen.
//!
//! An index counts from the newest entry of the table, so entries that were seen are known
//! whatever came before them. What lies beyond is told as unknown, and decoding goes on.

use super::huffman;
use std::collections::VecDeque;

/// A field; `None` where it refers to what was never seen. Foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// The table begins with this size (section 6.5.2 of RFC 9113).
const FIRST_SIZE: usize = 4096;
/// No more is kept of a table, however large the peers have agreed it may be.
const MOST_SIZE: usize = 1 << 18;
/// What an entry costs beside its bytes (section 4.1).
const ENTRY: usize = 32;
/// Fields of one block.
const MAX_FIELDS: usize = 4096;

/// The decoder of one half.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    entries: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            entries: VecDeque::new(),
            size: 0,
            most: FIRST_SIZE,
        }
    }
}

/// The block breaks off or makes no sense; the fields before were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Decoder {
    /// Header blocks were missed: nothing that was known can be referred to with certainty.
    pub fn forget(&mut self) {
        self.entries.clear();
        self.size = 0;
    }

    /// Hands the fields of a whole block to `each`.
    ///
    /// # Errors
    /// The block is broken. What it would have entered is then forgotten, with all the rest.
    pub fn decode(&mut self, block: &[u8], each: &mut dyn FnMut(Field)) -> Result<(), Broken> {
        let mut input = Input(block);
        let mut left = MAX_FIELDS;
        while let Some(first) = input.peek() {
            let is_sound = left > 0 && self.field(first, &mut input, each).is_some();
            if !is_sound {
                self.forget();
                return Err(Broken);
            }
            left -= 1;
        }
        Ok(())
    }

    fn field(
        &mut self,
        first: u8,
        input: &mut Input<'_>,
        each: &mut dyn FnMut(Field),
    ) -> Option<()> {
        if first & 0x80 != 0 {
            let index = input.integer(7)?;
            each(self.get(index)?);
        } else if first & 0xc0 == 0x40 {
            let field = self.literal(6, input)?;
            self.enter(field.clone());
            each(field);
        } else if first & 0xe0 == 0x20 {
            let most = input.integer(5)?;
            self.most = usize::try_from(most).unwrap_or(usize::MAX).min(MOST_SIZE);
            self.evict(0);
        } else {
            each(self.literal(4, input)?);
        }
        Some(())
    }

    fn literal(&self, bits: u32, input: &mut Input<'_>) -> Option<Field> {
        let name = match input.integer(bits)? {
            0 => Some(input.string()?),
            index => self.get(index)?.name,
        };
        Some(Field {
            name,
            value: Some(input.string()?),
        })
    }

    fn get(&self, index: u64) -> Option<Field> {
        let index = usize::try_from(index).ok()?.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some(Field {
                name: Some(name.as_bytes().to_vec()),
                value: Some(value.as_bytes().to_vec()),
            });
        }
        let unknown = Field {
            name: None,
            value: None,
        };
        let entry = self.entries.get(index - STATIC.len());
        Some(entry.cloned().unwrap_or(unknown))
    }

    fn enter(&mut self, field: Field) {
        let size = cost(&field);
        self.evict(size);
        if size <= self.most {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    /// Makes room for an entry of this size.
    fn evict(&mut self, size: usize) {
        while self.size.saturating_add(size) > self.most {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.size = self.size.saturating_sub(cost(&oldest));
        }
    }
}

fn cost(field: &Field) -> usize {
    let len = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    len(&field.name) + len(&field.value) + ENTRY
}

/// The name that an index of the static table stands for; the dynamic table follows it.
pub fn static_name(index: usize) -> Option<&'static str> {
    let entry = STATIC.get(index.checked_sub(1)?)?;
    Some(entry.0)
}

/// Indices of the static table: 1 to this.
pub const STATIC_ENTRIES: usize = STATIC.len();

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// An integer whose first byte has so many bits for it (section 5.1).
    fn integer(&mut self, bits: u32) -> Option<u64> {
        let most = (1u64 << bits) - 1;
        let first = u64::from(self.byte()?) & most;
        if first < most {
            return Some(first);
        }
        let mut value = most;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let is_huffman = self.peek()? & 0x80 != 0;
        let length = usize::try_from(self.integer(7)?).ok()?;
        let (string, rest): (&'a [u8], _) = self.0.split_at_checked(length)?;
        self.0 = rest;
        if is_huffman {
            huffman::decode(string)
        } else {
            Some(string.to_vec())
        }
    }
}

/// Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;
