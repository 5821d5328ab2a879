//! Parses tokens into an expression tree, with precise errors.
//!
//! ```text
//! expr := and (or and)*          and := not (and? not)*          not := not* primary
//! primary := ( expr ) | host A | net A/N | port L | portrange N-M | src S | dst S
//!          | pid L | uid L | uid NAME | comm GLOB | in | out
//! ```

use super::ParseError;
use super::ast::{Expr, Net, Numbers, Side, Test};
use super::fields::{self, WORDS, Word};
use super::lexer::{self, Kind, Token};
use crate::event::Dir;
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
        last: None,
        uid_of,
    };
    let expr = parser.any()?;
    match parser.peek() {
        None => Ok(expr),
        Some(Kind::Close) => Err(parser.error("this \")\" has no \"(\"".into())),
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
    last: Option<(Side, Word)>,
    uid_of: &'a dyn Fn(&str) -> Option<u32>,
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
            other => return Err(self.error(format!("expected a test{}", but_found(other)))),
        };
        let Some(known) = fields::lookup(word) else {
            if let Some((side, last)) = self.last.filter(|_| is_second && is_value(word)) {
                return self.test(side, last);
            }
            return Err(self.unknown(word));
        };
        self.at += 1;
        match known {
            Word::In => Ok(Expr::Test(Test::Dir(Dir::In))),
            Word::Out => Ok(Expr::Test(Test::Dir(Dir::Out))),
            Word::Src => self.sided(Side::Src),
            Word::Dst => self.sided(Side::Dst),
            _ => self.test(Side::Either, known),
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
            Word::Portrange | Word::Src | Word::Dst | Word::In | Word::Out => {
                return Err(self.error(format!("expected {}, not {value:?}", expected(word))));
            }
        };
        self.at += 1;
        self.last = (word != Word::Comm).then_some((side, word));
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
            Some(uid) => Ok(Numbers::new(vec![(uid, uid)])),
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
            ranges.push((first, last));
        }
        Ok(Numbers::new(ranges))
    }

    fn unknown(&self, word: &str) -> ParseError {
        if let Some(name) = fields::nearest(word) {
            return self.error(format!("unknown word {word:?}: did you mean \"{name}\"?"));
        }
        let names: Vec<&str> = WORDS.iter().map(|entry| entry.name).collect();
        self.error(format!(
            "unknown word {word:?}: expected one of {}",
            names.join(", ")
        ))
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
        Word::Src | Word::Dst | Word::In | Word::Out => "a test",
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
        Kind::Open => "\"(\"".to_owned(),
        Kind::Close => "\")\"".to_owned(),
        Kind::And => "\"and\"".to_owned(),
        Kind::Or => "\"or\"".to_owned(),
        Kind::Not => "\"not\"".to_owned(),
        Kind::Comparison(sign) => format!("\"{sign}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid_of(name: &str) -> Option<u32> {
        (name == "www-data").then_some(33)
    }

    fn tree(words: &str) -> Expr {
        parse(words, &uid_of).unwrap()
    }

    fn same(a: &str, b: &str) {
        assert_eq!(tree(a), tree(b), "{a} / {b}");
    }

    fn refused(words: &str, column: usize, message: &str) {
        let error = parse(words, &uid_of).unwrap_err();
        assert_eq!(
            (error.column, error.message.as_str()),
            (column, message),
            "{words}"
        );
    }

    #[test]
    fn and_binds_tighter_than_or_and_not_tightest() {
        same("in or out and not pid 1", "in or (out and (not pid 1))");
        assert_ne!(tree("in or out and pid 1"), tree("(in or out) and pid 1"));
        assert_ne!(tree("not in and out"), tree("not (in and out)"));
    }

    #[test]
    fn operators_have_words_signs_and_silence() {
        same("in and out or not pid 1", "in&&out||!pid 1");
        same("comm curl port 443 out", "comm curl and port 443 and out");
        same("not ! in", "in");
        same("not not not in", "not in");
    }

    #[test]
    fn a_value_alone_repeats_the_last_test() {
        same("port 80 or 443", "port 80 or port 443");
        same(
            "src host 10.0.0.1 or 10.0.0.2",
            "src host 10.0.0.1 or src host 10.0.0.2",
        );
        same(
            "in and not port 80 and not 443",
            "in and not port 80 and not port 443",
        );
        refused(
            "port 80 443",
            9,
            "unknown word \"443\": expected one of host, net, port, portrange, src, dst, pid, uid, comm, in, out",
        );
    }

    #[test]
    fn lists_and_ranges_of_numbers() {
        let ports = Numbers::new(vec![(80, 80), (443, 443), (8000, 8080)]);
        assert_eq!(
            tree("port 80,443,8000-8080"),
            Expr::Test(Test::Port(Side::Either, ports))
        );
        same("portrange 8000-8080", "port 8000-8080");
        same("uid www-data", "uid 33");
    }

    #[test]
    fn src_and_dst_take_an_address_alone() {
        same("src 10.0.0.1", "src host 10.0.0.1");
        same("dst 10.0.0.0/8", "dst net 10.0.0.0/8");
        same("host [::1]", "host ::1");
        same("host ::ffff:10.0.0.1", "host 10.0.0.1");
        same("net ::ffff:10.0.0.0/104", "net 10.0.0.0/8");
    }

    #[test]
    fn nothing_is_always_true() {
        assert_eq!(tree(""), Expr::All(vec![]));
        assert_eq!(tree(" \t\n"), Expr::All(vec![]));
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        refused(
            "prot 443",
            1,
            "unknown word \"prot\": did you mean \"port\"?",
        );
        refused("in and", 7, "expected a test, but nothing follows");
        refused("in and or out", 8, "expected a test, not \"or\"");
        refused(
            "port",
            5,
            "expected a port after \"port\", but nothing follows",
        );
        refused("port )", 6, "expected a port after \"port\", not \")\"");
        refused(
            "port http",
            6,
            "\"http\" in \"http\" is not a number from 0 to 65535",
        );
        refused(
            "port 80,70000",
            6,
            "\"70000\" in \"80,70000\" is not a number from 0 to 65535",
        );
        refused(
            "port 80,",
            6,
            "\"\" in \"80,\" is not a number from 0 to 65535",
        );
        refused(
            "port +80",
            6,
            "\"+80\" in \"+80\" is not a number from 0 to 65535",
        );
        refused("port 90-80", 6, "the range \"90-80\" ends before it begins");
        refused(
            "portrange 80",
            11,
            "expected a range of ports (N-M), not \"80\"",
        );
        refused(
            "host example.com",
            6,
            "\"example.com\" is not an IP address: names are not looked up",
        );
        refused(
            "host 10.0.0.0/8",
            6,
            "\"10.0.0.0/8\" is not an IP address: a block is \"net\"",
        );
        refused(
            "net 10.0.0.0",
            5,
            "\"10.0.0.0\" is not a block of addresses: expected ADDR/BITS",
        );
        refused(
            "net 10.0.0.0/33",
            5,
            "\"10.0.0.0/33\" needs 0 to 32 bits behind the \"/\"",
        );
        refused(
            "net ::/129",
            5,
            "\"::/129\" needs 0 to 128 bits behind the \"/\"",
        );
        refused(
            "src pid 1",
            5,
            "expected host, net or port after \"src\", not \"pid\"",
        );
        refused(
            "uid nobody-here",
            5,
            "no user \"nobody-here\" on this system",
        );
        refused(
            "comm and in",
            6,
            "expected a pattern for the command name after \"comm\", not \"and\" (quote it)",
        );
        refused("(in or out", 1, "this \"(\" has no \")\"");
        refused("in) or out", 3, "this \")\" has no \"(\"");
        refused("()", 2, "expected a test, not \")\"");
        refused("pid 1 == 2", 7, "unexpected \"==\"");
        refused("\"in\"", 1, "expected a test, not the string \"in\"");
    }

    #[test]
    fn depth_is_limited_and_no_length_overflows_the_stack() {
        let nested = |depth| "(".repeat(depth) + "in" + &")".repeat(depth);
        assert_eq!(tree(&nested(MAX_DEPTH)), tree("in"));
        refused(
            &nested(MAX_DEPTH + 1),
            65,
            "more than 64 parentheses inside each other",
        );
        assert!(parse(&nested(100_000), &uid_of).is_err());
        assert!(parse(&"(".repeat(100_000), &uid_of).is_err());
        same(&("! ".repeat(100_001) + "in"), "not in");
        assert!(parse(&("in or ".repeat(100_000) + "in"), &uid_of).is_ok());
    }

    #[test]
    fn every_truncation_is_an_error_or_a_filter() {
        let words = "not (src host 10.0.0.1 or net 2001:db8::/32) && portrange 1-2 \
                     uid www-data || comm \"a \\\"b\" and pid 7,9-12 ! in";
        assert!(parse(words, &uid_of).is_ok());
        for end in 0..words.len() {
            if let Err(error) = parse(&words[..end], &uid_of) {
                assert!(
                    (1..=end + 1).contains(&error.column),
                    "{}: {error}",
                    &words[..end]
                );
            }
        }
    }
}
