//! Header lines of HTTP/1, and of whatever else has lines that begin with a name and a colon.

use super::UNKNOWN;
use super::names::{Names, Word};

/// Where in a line the next byte is.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    state: State,
    /// What the line begins with, then the value of a header that says how the body is sent.
    word: Word,
    fact: Option<Fact>,
    /// That of the last fact.
    value: Word,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A line begins.
    #[default]
    Start,
    /// A line begins that goes on with a secret value if it begins with a space.
    StartAfterSecret,
    Name,
    /// The rest of the line is not secret.
    Plain,
    /// Spaces before a secret value.
    BeforeSecret,
    Secret,
    /// What was here is not known: secret up to the line's end, and up to so many bytes.
    Unknown(usize),
}

/// A header that says how the body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    Length,
    Transfer,
    Encoding,
    WebSocket,
}

/// What a line end tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'a> {
    Blank,
    Fact(Fact, &'a [u8]),
    Other,
}

impl Lines {
    /// Something else begins.
    pub fn restart(&mut self) {
        self.state = State::Start;
        self.word.clear();
        self.fact = None;
    }

    /// Bytes are missing; with `may_be_head`, a secret header may be among them.
    pub fn gap(&mut self, may_be_head: bool) {
        self.fact = None;
        let is_secret = matches!(
            self.state,
            State::Secret | State::BeforeSecret | State::StartAfterSecret | State::Unknown(_)
        );
        self.state = if may_be_head || is_secret {
            State::Unknown(UNKNOWN)
        } else {
            State::Plain
        };
    }

    /// Hides what is secret up to the end of a line; returns how many bytes that was, and what
    /// the end tells, if it was reached.
    pub fn line<'a>(&'a mut self, bytes: &mut [u8], names: &Names) -> (usize, Option<End<'a>>) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Plain && self.fact.is_none() {
                let Some(end) = memchr::memchr(b'\n', rest) else {
                    return (bytes.len(), None);
                };
                self.restart();
                return (at + end + 1, Some(End::Other));
            }
            if let Some(byte) = rest.first_mut() {
                at += 1;
                if *byte == b'\n' {
                    return (at, Some(self.end()));
                }
                if self.is_secret(*byte, names) {
                    *byte = b'*';
                }
            }
        }
        (at, None)
    }

    fn is_secret(&mut self, byte: u8, names: &Names) -> bool {
        let is_space = matches!(byte, b' ' | b'\t');
        match self.state {
            State::StartAfterSecret if is_space => self.state = State::BeforeSecret,
            State::Start | State::StartAfterSecret if is_space => self.state = State::Start,
            State::Start | State::StartAfterSecret | State::Name => self.name(byte, names),
            State::Plain => {
                if self.fact.is_some() && !is_space && byte != b'\r' {
                    self.word.push(byte);
                }
            }
            State::BeforeSecret if is_space => {}
            State::BeforeSecret | State::Secret => {
                self.state = State::Secret;
                return byte != b'\r';
            }
            State::Unknown(0) => self.state = State::Plain,
            State::Unknown(left) => {
                self.state = State::Unknown(left - 1);
                return byte != b'\r';
            }
        }
        false
    }

    fn name(&mut self, byte: u8, names: &Names) {
        self.state = State::Name;
        if byte != b':' {
            self.word.push(byte);
            if self.word.is_too_long() {
                self.state = State::Plain;
            }
            return;
        }
        let name = self.word.get().trim_ascii();
        if name.is_empty() {
            // A pseudo header of HTTP/2, as programs print it, has a colon before its name too.
            return;
        }
        self.state = if names.has_header(name) {
            State::BeforeSecret
        } else {
            self.fact = fact(name);
            State::Plain
        };
        self.word.clear();
    }

    fn end(&mut self) -> End<'_> {
        let state = self.state;
        self.state = match state {
            State::BeforeSecret | State::Secret => State::StartAfterSecret,
            _ => State::Start,
        };
        let fact = self.fact.take();
        let word = std::mem::take(&mut self.word);
        let is_blank = match state {
            State::Start | State::StartAfterSecret => true,
            State::Name => word.get() == b"\r",
            _ => false,
        };
        match fact {
            Some(fact) => {
                self.value = word;
                End::Fact(fact, self.value.get())
            }
            None if is_blank => End::Blank,
            None => End::Other,
        }
    }
}

/// Which fact the header of this name is.
pub fn fact(name: &[u8]) -> Option<Fact> {
    let facts = [
        ("content-length", Fact::Length),
        ("transfer-encoding", Fact::Transfer),
        ("content-encoding", Fact::Encoding),
        ("grpc-encoding", Fact::Encoding),
        ("sec-websocket-key", Fact::WebSocket),
        ("sec-websocket-accept", Fact::WebSocket),
    ];
    let is = |known: &&(&str, Fact)| name.eq_ignore_ascii_case(known.0.as_bytes());
    facts.iter().find(is).map(|&(_, fact)| fact)
}
