//! Values of named JSON keys, of named parameters (`name=value`) and of named parts of a form, in
//! any text.
//!
//! Quotes are not counted: what stands between two of them and is followed by a colon is a key.
//! So it does not matter where in a document the bytes begin, or whether it is one at all.

use super::UNKNOWN;
use super::multipart::Multipart;
use super::names::{Names, Word, is_in_name};

/// What the next byte belongs to.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    state: State,
    /// Since the last byte that cannot be in a name.
    word: Word,
    /// Whether that was a quote.
    is_quoted: bool,
    /// Backslashes directly before the next byte.
    slashes: u32,
    /// Of a `\u0070` or `%70`: how many hexadecimal digits are missing, and the value so far.
    escape: Option<(u32, u32)>,
    parts: Multipart,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// A secret key has ended, with so many backslashes before its quote: it may be in JSON in a
    /// string of JSON.
    AfterKey(u32),
    /// The colon has come.
    BeforeValue(u32),
    Quoted(u32),
    /// A number or a word.
    Bare,
    /// An object or array, in so many others of the secret value.
    Nested {
        depth: u32,
        slashes: u32,
    },
    /// A string in it.
    NestedQuoted {
        depth: u32,
        slashes: u32,
    },
    Parameter,
    /// What was here is not known: secret for so many bytes, or up to a line's end.
    Unknown {
        left: usize,
        is_in_value: bool,
    },
}

impl Keys {
    /// Bytes are missing.
    pub fn gap(&mut self) {
        let is_in_value = match self.state {
            State::Text => false,
            State::Unknown { is_in_value, .. } => is_in_value,
            _ => true,
        };
        *self = Keys {
            state: State::Unknown {
                left: UNKNOWN,
                is_in_value,
            },
            parts: std::mem::take(&mut self.parts),
            ..Keys::default()
        };
        self.parts.gap();
    }

    /// Hides what is secret: in strings by `*`; each other byte of a value by `1`, so that what
    /// was JSON is JSON.
    pub fn hide(&mut self, bytes: &mut [u8], names: &Names) {
        for byte in bytes {
            let in_part = self.parts.next(*byte, names);
            if let Some(hidden) = self.next(*byte, names).or(in_part) {
                *byte = hidden;
            }
        }
    }

    fn next(&mut self, byte: u8, names: &Names) -> Option<u8> {
        let slashes = self.slashes;
        self.slashes = if byte == b'\\' {
            slashes.saturating_add(1)
        } else {
            0
        };
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.state {
            State::Text => self.text(byte, slashes, names),
            State::AfterKey(level) => match byte {
                b':' => self.state = State::BeforeValue(level),
                _ if is_space => {}
                _ => {
                    self.state = State::Text;
                    self.text(byte, slashes, names);
                }
            },
            State::BeforeValue(level) => match byte {
                b'"' => self.state = State::Quoted(slashes),
                b'{' | b'[' => {
                    self.state = State::Nested {
                        depth: 1,
                        slashes: level,
                    }
                }
                b'\\' => {}
                b',' | b'}' | b']' => self.leave(byte),
                _ if is_space => {}
                _ => {
                    self.state = State::Bare;
                    return Some(b'1');
                }
            },
            State::Quoted(level) => {
                if byte == b'"' && closes(level, slashes) {
                    self.leave(byte);
                } else {
                    return Some(b'*');
                }
            }
            State::Bare => match byte {
                b',' | b'}' | b']' | b'"' => self.leave(byte),
                _ if is_space => self.leave(byte),
                _ => return Some(b'1'),
            },
            State::Nested { depth, slashes: s } => return self.nested(byte, depth, s, slashes),
            State::NestedQuoted { depth, slashes: s } => {
                if byte == b'"' && closes(s, slashes) {
                    self.state = State::Nested { depth, slashes: s };
                } else {
                    return Some(b'*');
                }
            }
            State::Parameter => {
                let ends = is_space
                    || byte.is_ascii_control()
                    || matches!(byte, b'&' | b'#' | b'"' | b'\'' | b'<' | b'>' | b';' | b',');
                if !ends {
                    return Some(b'*');
                }
                self.leave(byte);
            }
            State::Unknown { left, is_in_value } => {
                if left == 0 || (byte == b'\n' && !is_in_value) {
                    self.leave(byte);
                    return None;
                }
                self.state = State::Unknown {
                    left: left - 1,
                    is_in_value,
                };
                return Some(b'*');
            }
        }
        None
    }

    fn text(&mut self, byte: u8, slashes: u32, names: &Names) {
        if let Some((missing, code)) = self.escape.take() {
            if let Some(digit) = char::from(byte).to_digit(16) {
                let code = code << 4 | digit;
                match u8::try_from(code) {
                    _ if missing > 1 => self.escape = Some((missing - 1, code)),
                    Ok(letter) if is_in_name(letter) => self.word.push(letter),
                    _ => self.end_word(),
                }
                return;
            }
            self.end_word();
        }
        if is_in_name(byte) {
            if slashes > 0 && byte == b'u' && self.is_quoted {
                self.escape = Some((4, 0));
                return;
            }
            if slashes > 0 {
                // An escape: not the spelling that was given.
                self.end_word();
            }
            self.word.push(byte);
            return;
        }
        let is_named = names.has_key(self.word.get());
        match byte {
            // They may stand between a name and what follows it: `\"name\"`, `user[name]=`.
            b'\\' | b']' => return,
            b'%' => {
                self.escape = Some((2, 0));
                return;
            }
            b'"' if is_named && self.is_quoted => self.state = State::AfterKey(slashes),
            b'=' if is_named => self.state = State::Parameter,
            _ => {}
        }
        self.word.clear();
        self.is_quoted = byte == b'"';
    }

    fn end_word(&mut self) {
        self.word.clear();
        self.is_quoted = false;
    }

    fn nested(&mut self, byte: u8, depth: u32, level: u32, slashes: u32) -> Option<u8> {
        let at = |depth| State::Nested {
            depth,
            slashes: level,
        };
        match byte {
            b'"' => {
                self.state = State::NestedQuoted {
                    depth,
                    slashes: slashes.min(level),
                }
            }
            b'{' | b'[' => self.state = at(depth.saturating_add(1)),
            b'}' | b']' if depth <= 1 => self.leave(byte),
            b'}' | b']' => self.state = at(depth - 1),
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' | b'\\' => {}
            _ => return Some(b'1'),
        }
        None
    }

    /// The value has ended with this byte.
    fn leave(&mut self, byte: u8) {
        self.state = State::Text;
        self.word.clear();
        self.is_quoted = byte == b'"';
    }
}

/// Whether a quote with so many backslashes before it ends a string that began with `level` of
/// them.
fn closes(level: u32, slashes: u32) -> bool {
    match level {
        0 => slashes.is_multiple_of(2),
        1 => slashes.is_multiple_of(2) || slashes % 4 == 1,
        _ => slashes <= level,
    }
}
