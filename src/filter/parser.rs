//! Parses tokens into an expression tree, with precise errors.
//!
//! ```text
//! expr := and (or and)*          and := not (and? not)*          not := not* primary
//! primary := ( expr ) | host A | net A/N | port L | portrange N-M | src S | dst S
//!          | pid L | uid L | uid NAME | comm GLOB | in | out | helper | field (op value)?
//! ```
//!
//! A name that is a word and a field (`port`) is the field where an operator follows.

mod compare;

use super::ParseError;
use super::ast::{Expr, Net, Numbers, Side, Test};
use super::fields::{self, Word};
use super::lexer::{self, Kind, Token};
use super::nearest::nearest;
use crate::event::Dir;
use crate::proto::Part;
use std::net::IpAddr;

/// Parentheses within parentheses: more than anybody writes, and far from the end of the stack.
const MAX_DEPTH: usize = 64;

/// Parses the whole expression; nothing at all is always true.
pub fn parse(words: &str, uid_of: &dyn Fn(&str) -> Option<u32>) -> Result<Expr, ParseError> {
    let (tokens, end) = lexer::tokens(words)?;
    if tokens.is_empty() {
        return Ok(Expr::All(Vec::new()));
    }
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        end,
        depth: 0,
        last: Last::Nothing,
        uid_of,
    };
    let expr = parser.any()?;
    match parser.peek() {
        None => Ok(expr),
        Some(Kind::Close) => Err(parser.error("this \")\" has no \"(\"".into())),
        Some(Kind::Comparison(_)) => Err(parser.not_compared()),
        Some(other) => Err(parser.error(format!("unexpected {}", shown(other)))),
    }
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    /// The column of what is missing at the end.
    end: usize,
    depth: usize,
    /// The last test that has a value: `port 80 or 443` means `port 80 or port 443`.
    last: Last,
    uid_of: &'a dyn Fn(&str) -> Option<u32>,
}

/// What a value without a name could belong to.
#[derive(Clone, Copy)]
enum Last {
    Nothing,
    Word(Side, Word),
    /// A comparison of this field; it does not repeat.
    Field(&'static str),
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Kind<'a>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn take(&mut self, kind: &Kind<'_>) -> bool {
        let is_next = self.peek() == Some(kind);
        self.at += usize::from(is_next);
        is_next
    }

    /// An error at the next token.
    fn error(&self, message: String) -> ParseError {
        let column = self
            .tokens
            .get(self.at)
            .map_or(self.end, |token| token.column);
        ParseError { column, message }
    }

    fn any(&mut self) -> Result<Expr, ParseError> {
        let first = self.all(false)?;
        let mut terms = vec![first];
        while self.take(&Kind::Or) {
            terms.push(self.all(true)?);
        }
        Ok(one_or(terms, Expr::Any))
    }

    /// `is_second`: an operator stands before it, so that a bare value may.
    fn all(&mut self, is_second: bool) -> Result<Expr, ParseError> {
        let first = self.not(is_second)?;
        let mut terms = vec![first];
        loop {
            let is_joined = self.take(&Kind::And);
            let begins = match self.peek() {
                Some(Kind::Or | Kind::Close | Kind::Comparison(_)) | None => false,
                Some(_) => true,
            };
            if !is_joined && !begins {
                return Ok(one_or(terms, Expr::All));
            }
            terms.push(self.not(is_joined)?);
        }
    }

    fn not(&mut self, is_second: bool) -> Result<Expr, ParseError> {
        let mut is_negated = false;
        while self.take(&Kind::Not) {
            is_negated = !is_negated;
        }
        let expr = self.primary(is_second)?;
        Ok(if is_negated {
            Expr::Not(Box::new(expr))
        } else {
            expr
        })
    }

    fn primary(&mut self, is_second: bool) -> Result<Expr, ParseError> {
        let word = match self.peek() {
            Some(Kind::Open) => return self.group(),
            Some(Kind::Word(word)) => *word,
            Some(Kind::Keyed(name, key)) => return self.keyed(name, key),
            other => return Err(self.error(format!("expected a test{}", but_found(other)))),
        };
        if let Some(row) = fields::field(word) {
            // The last of these names is also a word; then it needs its value.
            let op = self.operator(fields::lookup(word).is_some())?;
            if op.is_some() || fields::lookup(word).is_none() {
                return self.field(row, op);
            }
        }
        if let Some(protocol) = fields::protocol(word) {
            self.at += 1;
            return Ok(Expr::Test(Test::Protocol(protocol)));
        }
        let Some(known) = fields::lookup(word) else {
            return match self.last {
                Last::Word(side, last) if is_second && is_value(word) => self.test(side, last),
                _ => Err(self.unknown(word)),
            };
        };
        self.at += 1;
        match known {
            Word::In => Ok(Expr::Test(Test::Dir(Dir::In))),
            Word::Out => Ok(Expr::Test(Test::Dir(Dir::Out))),
            Word::Src => self.sided(Side::Src),
            Word::Dst => self.sided(Side::Dst),
            Word::Tls => Ok(Expr::All(Vec::new())),
            Word::Http => Ok(Expr::Test(Test::Http)),
            Word::Request => Ok(Expr::Test(Test::Part(Part::Request))),
            Word::Response => Ok(Expr::Test(Test::Part(Part::Response))),
            Word::Unanswered => Ok(Expr::Test(Test::Part(Part::Unanswered))),
            Word::Host
            | Word::Net
            | Word::Port
            | Word::Portrange
            | Word::Pid
            | Word::Uid
            | Word::Comm => self.test(Side::Either, known),
        }
    }

    fn group(&mut self) -> Result<Expr, ParseError> {
        let opening = self.error("this \"(\" has no \")\"".into());
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!(
                "more than {MAX_DEPTH} parentheses inside each other"
            )));
        }
        self.at += 1;
        self.depth += 1;
        let expr = self.any()?;
        self.depth -= 1;
        if self.take(&Kind::Close) {
            return Ok(expr);
        }
        match self.peek() {
            None => Err(opening),
            other => Err(self.error(format!("expected \")\"{}", but_found(other)))),
        }
    }

    /// Behind `src` or `dst`.
    fn sided(&mut self, side: Side) -> Result<Expr, ParseError> {
        let found = self.peek();
        if let Some(Kind::Word(word)) = found {
            match fields::lookup(word) {
                Some(known @ (Word::Host | Word::Net | Word::Port | Word::Portrange)) => {
                    self.at += 1;
                    return self.test(side, known);
                }
                None if word.contains('/') => return self.test(side, Word::Net),
                None if address(word).is_some() => return self.test(side, Word::Host),
                _ => {}
            }
        }
        let name = if side == Side::Src { "src" } else { "dst" };
        let message = format!(
            "expected host, net or port after \"{name}\"{}",
            but_found(found)
        );
        Err(self.error(message))
    }

    /// The value that a word wants, made into its test.
    fn test(&mut self, side: Side, word: Word) -> Result<Expr, ParseError> {
        let value = match self.peek() {
            Some(Kind::Word(value)) => *value,
            Some(Kind::Text(value)) => value.as_str(),
            other => {
                let (what, name) = (expected(word), fields::name(word));
                let hint = match (word, other) {
                    (Word::Comm, Some(Kind::And | Kind::Or | Kind::Not)) => " (quote it)",
                    _ => "",
                };
                let found = but_found(other);
                return Err(self.error(format!("expected {what} after \"{name}\"{found}{hint}")));
            }
        };
        let test = match word {
            Word::Host => Test::Net(side, Net::single(self.host(value)?)),
            Word::Net => Test::Net(side, self.net(value)?),
            Word::Port => Test::Port(side, self.numbers(value, u16::MAX.into())?),
            Word::Portrange if value.contains('-') => {
                Test::Port(side, self.numbers(value, u16::MAX.into())?)
            }
            Word::Pid => Test::Pid(self.numbers(value, u32::MAX)?),
            Word::Uid => Test::Uid(self.user(value)?),
            Word::Comm => Test::Comm(value.to_owned()),
            Word::Portrange
            | Word::Src
            | Word::Dst
            | Word::In
            | Word::Out
            | Word::Tls
            | Word::Http
            | Word::Request
            | Word::Response
            | Word::Unanswered => {
                return Err(self.error(format!("expected {}, not {value:?}", expected(word))));
            }
        };
        self.at += 1;
        self.last = match word {
            Word::Comm => Last::Nothing,
            _ => Last::Word(side, word),
        };
        Ok(Expr::Test(test))
    }

    fn host(&self, value: &str) -> Result<IpAddr, ParseError> {
        address(value).ok_or_else(|| {
            let hint = if value.contains('/') {
                "a block is \"net\""
            } else {
                "names are not looked up"
            };
            self.error(format!("{value:?} is not an IP address: {hint}"))
        })
    }

    fn net(&self, value: &str) -> Result<Net, ParseError> {
        let Some((addr, bits)) = value.split_once('/') else {
            let message = format!("{value:?} is not a block of addresses: expected ADDR/BITS");
            return Err(self.error(message));
        };
        let addr = self.host(addr)?;
        // Of a mapped block the first 96 bits are the prefix that was taken off.
        let mapped = usize::from(value.contains(':') && addr.is_ipv4()) * 96;
        number(bits)
            .and_then(|bits| u8::try_from(bits.checked_sub(mapped as u32)?).ok())
            .and_then(|bits| Net::new(addr, bits))
            .ok_or_else(|| {
                let (least, most) = (mapped, mapped + if addr.is_ipv4() { 32 } else { 128 });
                self.error(format!(
                    "{value:?} needs {least} to {most} bits behind the \"/\""
                ))
            })
    }

    fn user(&self, value: &str) -> Result<Numbers, ParseError> {
        if value.starts_with(|ch: char| ch.is_ascii_digit()) {
            return self.numbers(value, u32::MAX);
        }
        match (self.uid_of)(value) {
            Some(uid) => Ok(Numbers::new(vec![(uid.into(), uid.into())])),
            None => Err(self.error(format!("no user {value:?} on this system"))),
        }
    }

    fn numbers(&self, value: &str, most: u32) -> Result<Numbers, ParseError> {
        let one = |part: &str| {
            number(part)
                .filter(|&number| number <= most)
                .ok_or_else(|| {
                    self.error(format!(
                        "{part:?} in {value:?} is not a number from 0 to {most}"
                    ))
                })
        };
        let mut ranges = Vec::new();
        for part in value.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (one(first)?, one(last)?),
                None => (one(part)?, one(part)?),
            };
            if first > last {
                return Err(self.error(format!("the range {part:?} ends before it begins")));
            }
            ranges.push((first.into(), last.into()));
        }
        Ok(Numbers::new(ranges))
    }

    fn unknown(&self, word: &str) -> ParseError {
        let next = self.tokens.get(self.at + 1).map(|token| &token.kind);
        let is_compared = match next {
            Some(Kind::Comparison(_)) => true,
            Some(Kind::Word(next)) => *next != "in" && fields::operator(next).is_some(),
            _ => false,
        };
        let what = if is_compared { "field" } else { "word" };
        if let Last::Field(name) = self.last
            && is_value(word)
        {
            return self.error(format!(
                "expected a test, not {word:?}: several values are {name} in {{V, V}}"
            ));
        }
        if is_value(word) {
            return self.error(format!("expected a test, not {word:?}"));
        }
        self.error(match nearest(word) {
            Some(name) => format!("unknown {what} {word:?}: did you mean \"{name}\"?"),
            None => format!("unknown {what} {word:?}: --help lists what there is"),
        })
    }

    /// An operator behind what is no field.
    fn not_compared(&self) -> ParseError {
        let sign = but_found(self.peek());
        let before = self
            .at
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
            .map(|token| &token.kind);
        match before {
            Some(Kind::Word(word)) if fields::lookup(word).is_some() => self.error(format!(
                "{word:?} is a word and no field: expected another test{sign}"
            )),
            Some(Kind::Word(word)) if fields::protocol(word).is_some() => self.error(format!(
                "{word:?} is a word and no field: expected another test{sign}"
            )),
            _ => self.error(format!("expected another test{sign}")),
        }
    }
}

fn one_or(mut terms: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        Some(last) => {
            terms.push(last);
            many(terms)
        }
        None => many(terms),
    }
}

/// Whether a word can stand for the value of a test whose name was left out.
fn is_value(word: &str) -> bool {
    word.starts_with(|ch: char| ch.is_ascii_digit()) || address(word).is_some()
}

/// An address, also in the brackets that it wears before a port. A mapped one is its IPv4 self,
/// as events show it.
fn address(word: &str) -> Option<IpAddr> {
    let bare = word
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(word);
    bare.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn expected(word: Word) -> &'static str {
    match word {
        Word::Host => "an IP address",
        Word::Net => "a block of addresses",
        Word::Port => "a port",
        Word::Portrange => "a range of ports (N-M)",
        Word::Pid => "a process id",
        Word::Uid => "a user",
        Word::Comm => "a pattern for the command name",
        Word::Src
        | Word::Dst
        | Word::In
        | Word::Out
        | Word::Tls
        | Word::Http
        | Word::Request
        | Word::Response
        | Word::Unanswered => "a test",
    }
}

fn but_found(found: Option<&Kind<'_>>) -> String {
    match found {
        None => ", but nothing follows".to_owned(),
        Some(kind) => format!(", not {}", shown(kind)),
    }
}

fn shown(kind: &Kind<'_>) -> String {
    match kind {
        Kind::Word(word) => format!("{word:?}"),
        Kind::Text(text) => format!("the string {text:?}"),
        Kind::Keyed(name, key) => format!("{name}[{key:?}]"),
        Kind::Regex(..) => "a regular expression".to_owned(),
        Kind::SetOpen => "\"{\"".to_owned(),
        Kind::SetClose => "\"}\"".to_owned(),
        Kind::Comma => "\",\"".to_owned(),
        Kind::To => "\"..\"".to_owned(),
        Kind::Open => "\"(\"".to_owned(),
        Kind::Close => "\")\"".to_owned(),
        Kind::And => "\"and\"".to_owned(),
        Kind::Or => "\"or\"".to_owned(),
        Kind::Not => "\"not\"".to_owned(),
        Kind::Comparison(sign) => format!("\"{sign}\""),
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
