//! Secret values in header blocks of HTTP/2 (HPACK, RFC 7541), in place and piece by piece.
//!
//! A value is hidden byte by byte in its code: `*` where it is plain, the code of `*` where it is
//! in Huffman code. Whoever decodes the block sees asterisks, and enters them into its table where
//! the true value would be: what refers to it later is hidden too. In Huffman code the number of
//! characters changes. An encoder that uses the code only where it is shorter makes them fewer, so
//! that a reader's table keeps entries for longer than the encoder's; as indices count from the
//! newest entry, they mean the same, and the encoder never names what it has evicted itself.
//!
//! Of the table only is kept what the names are, and that for longer than the encoder does, for the
//! same reason.

use super::keys::Keys;
use super::lines::{Fact, fact};
use super::names::Names;
use crate::proto::{hpack, huffman};
use std::collections::VecDeque;

/// `*` in Huffman code: eight bits.
const STAR: u8 = 0xf9;
/// Entries whose names are kept.
const MOST_ENTRIES: usize = 4096;
/// Bytes of a name or value that are looked at; a longer name is none of ours.
const MOST_TEXT: usize = 256;

/// One half's header blocks.
#[derive(Debug)]
pub struct Blocks {
    step: Step,
    field: Name,
    enters: bool,
    text: Vec<u8>,
    /// The newest first.
    table: VecDeque<Name>,
    /// What the block tells about the body.
    pub body: Body,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Secret,
    /// It was not seen, so it may be secret.
    Unknown,
    /// How the body is encoded; whether the value is another than `identity`.
    Encoding(bool),
    Other,
}

/// Whether the body may be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    #[default]
    Plain,
    /// Some field is not known.
    Unknown,
    Encoded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Field,
    Index {
        form: Form,
        number: Number,
    },
    Length(Part),
    MoreLength {
        part: Part,
        is_huffman: bool,
        number: Number,
    },
    Text {
        part: Part,
        is_huffman: bool,
        left: u64,
        /// Whether bytes of it have come before.
        is_begun: bool,
    },
    /// It makes no sense: all of it is hidden.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Indexed,
    Literal,
    TableSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

/// An integer of several bytes (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    value: u64,
    shift: u32,
}

impl Number {
    fn new(value: u64) -> Number {
        Number { value, shift: 0 }
    }

    /// The next byte of it; whether it was the last. `None` when it is too large.
    fn next(&mut self, byte: u8) -> Option<bool> {
        if self.shift > 28 {
            return None;
        }
        self.value += u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Some(byte & 0x80 == 0)
    }
}

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks {
            step: Step::Field,
            field: Name::Other,
            enters: false,
            text: Vec::new(),
            table: VecDeque::new(),
            body: Body::Plain,
        }
    }
}

impl Blocks {
    /// A block begins; one before that has not ended was broken.
    pub fn begin(&mut self) {
        if self.step != Step::Field {
            self.forget();
        }
        self.step = Step::Field;
        self.body = Body::Plain;
    }

    /// Bytes of the block are missing: the rest of it is hidden.
    pub fn gap(&mut self) {
        self.step = Step::Broken;
        self.body = self.body.max_unknown();
        self.table.clear();
    }

    /// Blocks may be missing.
    pub fn forget(&mut self) {
        self.table.clear();
    }

    /// Hides what is secret in the next bytes of the block.
    pub fn hide(&mut self, bytes: &mut [u8], names: &Names) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match self.step {
                Step::Broken => {
                    rest.fill(b'*');
                    return;
                }
                Step::Text {
                    part,
                    is_huffman,
                    left,
                    is_begun,
                } => {
                    let take = usize::try_from(left).map_or(rest.len(), |n| n.min(rest.len()));
                    let Some(piece) = rest.get_mut(..take) else {
                        return;
                    };
                    at += take;
                    let left = left - take as u64;
                    let is_whole = !is_begun && left == 0;
                    self.piece(part, is_huffman, is_whole, piece, names);
                    self.step = Step::Text {
                        part,
                        is_huffman,
                        left,
                        is_begun: true,
                    };
                    if left == 0 {
                        self.end_text(part, is_huffman, names);
                    }
                }
                step => {
                    let Some(&byte) = rest.first() else {
                        return;
                    };
                    at += 1;
                    if self.byte(step, byte, names).is_none() {
                        self.gap();
                    }
                }
            }
        }
    }

    /// A byte that is no text.
    fn byte(&mut self, step: Step, byte: u8, names: &Names) -> Option<()> {
        match step {
            Step::Field => {
                let (form, bits) = match byte {
                    0x80.. => (Form::Indexed, 7),
                    0x40.. => (Form::Literal, 6),
                    0x20.. => (Form::TableSize, 5),
                    _ => (Form::Literal, 4),
                };
                self.enters = byte & 0xc0 == 0x40;
                let most = (1u8 << bits) - 1;
                let value = byte & most;
                if value == most {
                    let number = Number::new(value.into());
                    self.step = Step::Index { form, number };
                } else {
                    self.index(form, value.into(), names);
                }
            }
            Step::Index { form, mut number } => {
                if number.next(byte)? {
                    self.index(form, number.value, names);
                } else {
                    self.step = Step::Index { form, number };
                }
            }
            Step::Length(part) => {
                let is_huffman = byte & 0x80 != 0;
                match byte & 0x7f {
                    0x7f => {
                        self.step = Step::MoreLength {
                            part,
                            is_huffman,
                            number: Number::new(0x7f),
                        }
                    }
                    length => self.length(part, is_huffman, length.into(), names),
                }
            }
            Step::MoreLength {
                part,
                is_huffman,
                mut number,
            } => {
                if number.next(byte)? {
                    self.length(part, is_huffman, number.value, names);
                } else {
                    self.step = Step::MoreLength {
                        part,
                        is_huffman,
                        number,
                    };
                }
            }
            Step::Text { .. } | Step::Broken => return None,
        }
        Some(())
    }

    fn index(&mut self, form: Form, index: u64, names: &Names) {
        match form {
            Form::TableSize => self.step = Step::Field,
            Form::Indexed => {
                let name = self.name_at(index, names);
                self.tell(name);
                self.step = Step::Field;
            }
            Form::Literal if index == 0 => self.step = Step::Length(Part::Name),
            Form::Literal => {
                self.field = self.name_at(index, names);
                self.step = Step::Length(Part::Value);
            }
        }
    }

    fn name_at(&self, index: u64, names: &Names) -> Name {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        match hpack::static_name(index) {
            Some(name) => name_of(name.as_bytes(), names),
            None => {
                let entry = index.checked_sub(hpack::STATIC_ENTRIES + 1);
                let entry = entry.and_then(|at| self.table.get(at));
                entry.copied().unwrap_or(Name::Unknown)
            }
        }
    }

    fn length(&mut self, part: Part, is_huffman: bool, length: u64, names: &Names) {
        self.text.clear();
        self.step = Step::Text {
            part,
            is_huffman,
            left: length,
            is_begun: false,
        };
        if length == 0 {
            self.end_text(part, is_huffman, names);
        }
    }

    /// Bytes of a name or value.
    fn piece(
        &mut self,
        part: Part,
        is_huffman: bool,
        is_whole: bool,
        piece: &mut [u8],
        names: &Names,
    ) {
        let is_looked_at = part == Part::Name || matches!(self.field, Name::Encoding(_));
        if is_looked_at {
            let room = (MOST_TEXT + 1).saturating_sub(self.text.len());
            self.text.extend(piece.iter().take(room));
            return;
        }
        let is_secret = matches!(self.field, Name::Secret | Name::Unknown);
        if is_secret || (names.has_keys() && !hide_parameters(is_huffman, is_whole, piece, names)) {
            piece.fill(if is_huffman { STAR } else { b'*' });
        }
    }

    fn end_text(&mut self, part: Part, is_huffman: bool, names: &Names) {
        let text = if is_huffman {
            huffman::decode(&self.text).unwrap_or_default()
        } else {
            std::mem::take(&mut self.text)
        };
        if part == Part::Name {
            self.field = name_of(&text, names);
            self.step = Step::Length(Part::Value);
            return;
        }
        if let Name::Encoding(_) = self.field {
            self.field = Name::Encoding(!text.is_empty() && text != b"identity");
        }
        self.tell(self.field);
        if self.enters {
            self.table.push_front(self.field);
            self.table.truncate(MOST_ENTRIES);
        }
        self.step = Step::Field;
    }

    fn tell(&mut self, name: Name) {
        match name {
            Name::Encoding(true) => self.body = Body::Encoded,
            Name::Unknown => self.body = self.body.max_unknown(),
            Name::Secret | Name::Encoding(false) | Name::Other => {}
        }
    }
}

impl Body {
    /// Something of it was missed.
    pub fn max_unknown(self) -> Body {
        match self {
            Body::Plain | Body::Unknown => Body::Unknown,
            Body::Encoded => Body::Encoded,
        }
    }
}

fn name_of(name: &[u8], names: &Names) -> Name {
    if names.has_header(name) {
        Name::Secret
    } else if fact(name) == Some(Fact::Encoding) {
        Name::Encoding(false)
    } else {
        Name::Other
    }
}

/// Hides named parameters (`:path`, `referer`) in a value; `false` where the whole of it is to be
/// hidden, since it is in pieces or in Huffman code.
fn hide_parameters(is_huffman: bool, is_whole: bool, value: &mut [u8], names: &Names) -> bool {
    if !is_whole {
        return false;
    }
    if !is_huffman {
        Keys::default().hide(value, names);
        return true;
    }
    let Some(text) = huffman::decode(value) else {
        return false;
    };
    let mut hidden = text.clone();
    Keys::default().hide(&mut hidden, names);
    hidden == text
}
