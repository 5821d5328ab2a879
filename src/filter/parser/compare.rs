//! Parses the comparison of a field with its values.

use super::{Parser, address, but_found, is_value};
use crate::filter::ParseError;
use crate::filter::ast::{Compare, Expr, Net, Numbers, Place, Test, Value};
use crate::filter::fields::{self, Field, Kind as Values, Op, Row};
use crate::filter::lexer::{Kind, Token};
use crate::filter::nearest::closest;
use crate::filter::pattern::{Needle, Regexp};

/// Units of a size: as those of the options, powers of 1024.
const SIZES: &[(&str, u64)] = &[
    ("k", 1 << 10),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
];

/// Units of a time, in nanoseconds.
const TIMES: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// An operator as it was written, and where.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    op: Op,
    text: &'a str,
}

impl<'a> Parser<'a> {
    /// The operator behind the name that is next; nothing is taken. `is_word`: the name is also a
    /// word with a value of its own, which may look like an operator.
    pub(super) fn operator(&self, is_word: bool) -> Result<Option<Written<'a>>, ParseError> {
        let kind = |ahead: usize| {
            let token: Option<&'a Token<'a>> = self.tokens.get(self.at + ahead);
            token.map(|token| &token.kind)
        };
        let text = match kind(1) {
            Some(Kind::Comparison(sign)) => *sign,
            Some(Kind::Word(word)) => *word,
            _ => return Ok(None),
        };
        let Some(op) = fields::operator(text) else {
            return Ok(None);
        };
        let is_sign = matches!(kind(1), Some(Kind::Comparison(_)));
        let written = Some(Written { op, text });
        match (op, kind(2)) {
            (Op::In, Some(Kind::SetOpen)) => Ok(written),
            // The direction, then, unless a value follows, which no test begins with.
            (Op::In, Some(Kind::Text(_))) => Err(self.no_set()),
            (Op::In, Some(Kind::Word(next))) if is_value(next) => Err(self.no_set()),
            (Op::In, _) => Ok(None),
            (_, Some(Kind::Word(_) | Kind::Text(_) | Kind::Regex(..))) => Ok(written),
            _ if is_word && !is_sign => Ok(None),
            _ => Ok(written),
        }
    }

    fn no_set(&self) -> ParseError {
        let column = self.tokens.get(self.at + 2).map_or(self.end, |t| t.column);
        let message = "expected \"{\" after \"in\": in {V, V..V} (quote it from the shell)";
        ParseError {
            column,
            message: message.to_owned(),
        }
    }

    /// The field that is next, with its operator.
    pub(super) fn field(
        &mut self,
        row: &'static Row,
        op: Option<Written<'_>>,
    ) -> Result<Expr, ParseError> {
        self.at += 1;
        if row.has_key() {
            let message = format!("\"{0}\" needs a name: {0}[\"NAME\"]", row.name);
            return Err(self.error(message));
        }
        self.compare(row, "", op)
    }

    /// Likewise one with a key.
    pub(super) fn keyed(&mut self, name: &str, key: &str) -> Result<Expr, ParseError> {
        let op = self.operator(false)?;
        let Some(row) = fields::field(name) else {
            return Err(self.unknown(name));
        };
        self.at += 1;
        self.compare(row, key, op)
    }

    /// Behind the field.
    fn compare(
        &mut self,
        row: &'static Row,
        key: &str,
        op: Option<Written<'_>>,
    ) -> Result<Expr, ParseError> {
        let place = Place {
            field: row.field,
            key: key.to_owned(),
        };
        let Some(Written { op, text }) = op else {
            return Ok(Expr::Test(match row.kind {
                Values::Flag => Test::Compare(Box::new(Compare {
                    place,
                    is_negated: false,
                    with: Value::Numbers(one(1)),
                })),
                _ => Test::Present(place),
            }));
        };
        self.fits(row, op, text)?;
        self.at += 1;
        let with = match op {
            Op::Contains => Value::Contains(Needle::new(self.text(row, text)?.as_bytes())),
            Op::Matches => Value::Matches(self.regexp(row, text)?),
            Op::In => self.set(row)?,
            Op::Equal | Op::Unequal => self.equal(row, text)?,
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                let number = self.number(row, text)?;
                let above = number.checked_add(1).map(|first| (first, u64::MAX));
                let below = number.checked_sub(1).map(|last| (0, last));
                Value::Numbers(Numbers::new(match op {
                    Op::Less => below.into_iter().collect(),
                    Op::LessOrEqual => vec![(0, number)],
                    Op::Greater => above.into_iter().collect(),
                    _ => vec![(number, u64::MAX)],
                }))
            }
        };
        self.last = super::Last::Field(row.name);
        Ok(Expr::Test(Test::Compare(Box::new(Compare {
            place,
            is_negated: op == Op::Unequal,
            with,
        }))))
    }

    /// Whether the operator means anything of such a field.
    fn fits(&self, row: &Row, op: Op, text: &str) -> Result<(), ParseError> {
        let (what, operators) = match row.kind {
            Values::Text | Values::Name => ("text", "==, !=, in, contains or matches"),
            Values::Listed(_) => ("one of a few names", "==, != or in"),
            Values::Address => ("an address", "==, != or in"),
            Values::Flag => ("true or false", "== or !="),
            Values::User => ("a user", "==, !=, <, <=, >, >= or in"),
            Values::Number | Values::Size => ("a number", "==, !=, <, <=, >, >= or in"),
            Values::Time => ("a time", "==, !=, <, <=, >, >= or in"),
            Values::Version => ("a version", "==, !=, <, <=, >, >= or in"),
        };
        let fits = match op {
            Op::Equal | Op::Unequal => true,
            Op::In => !matches!(row.kind, Values::Flag),
            Op::Contains | Op::Matches => matches!(row.kind, Values::Text | Values::Name),
            _ => is_ordered(row.kind),
        };
        if fits {
            return Ok(());
        }
        let name = row.name;
        Err(self.error(format!(
            "\"{name}\" is {what}: expected {operators}, not \"{text}\""
        )))
    }

    /// The value of `==` and `!=`.
    fn equal(&mut self, row: &Row, op: &str) -> Result<Value, ParseError> {
        Ok(match row.kind {
            Values::Text => Value::Texts(vec![self.text(row, op)?.into()]),
            Values::Name => Value::Names(vec![self.text(row, op)?.into()]),
            Values::Listed(names) => Value::Texts(vec![self.listed(row, names, op)?]),
            Values::Address => Value::Nets(vec![self.block(row, op)?]),
            _ => Value::Numbers(one(self.number(row, op)?)),
        })
    }

    /// `{` values `}`.
    fn set(&mut self, row: &Row) -> Result<Value, ParseError> {
        let opening = self.error("this \"{\" has no \"}\"".into());
        self.at += 1;
        let (mut texts, mut nets, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = "{";
        loop {
            if self.peek().is_none() {
                return Err(opening);
            }
            match row.kind {
                Values::Text | Values::Name => texts.push(self.text(row, before)?.into()),
                Values::Listed(names) => texts.push(self.listed(row, names, before)?),
                Values::Address => nets.push(self.block(row, before)?),
                _ => {
                    let at = self.at;
                    let first = self.number(row, before)?;
                    let mut last = first;
                    if self.take(&Kind::To) {
                        last = self.number(row, "..")?;
                    }
                    if first > last {
                        self.at = at;
                        return Err(self.error("this range ends before it begins".into()));
                    }
                    ranges.push((first, last));
                }
            }
            match self.peek() {
                None => return Err(opening),
                Some(Kind::SetClose) => break,
                Some(Kind::Comma) => self.at += 1,
                // As Wireshark once wrote it.
                Some(Kind::Word(_) | Kind::Text(_)) => {}
                other => {
                    let found = but_found(other);
                    return Err(self.error(format!("expected \",\" or \"}}\"{found}")));
                }
            }
            before = ",";
        }
        self.at += 1;
        Ok(match row.kind {
            Values::Text | Values::Listed(_) => Value::Texts(texts),
            Values::Name => Value::Names(texts),
            Values::Address => Value::Nets(nets),
            _ => Value::Numbers(Numbers::new(ranges)),
        })
    }

    /// The next token as a value, or what was expected; it is taken by the caller.
    fn value(&self, row: &Row, what: &str, op: &str) -> Result<&'a str, ParseError> {
        let name = row.name;
        match self.peek() {
            Some(Kind::Word(value)) => Ok(value),
            Some(Kind::Text(value)) => Ok(value),
            other => {
                let hint = match other {
                    Some(Kind::And | Kind::Or | Kind::Not | Kind::Comparison(_)) => " (quote it)",
                    _ => "",
                };
                let found = but_found(other);
                Err(self.error(format!(
                    "expected {what} for \"{name}\" after \"{op}\"{found}{hint}"
                )))
            }
        }
    }

    fn text(&mut self, row: &Row, op: &str) -> Result<&'a str, ParseError> {
        let value = self.value(row, "text", op)?;
        self.at += 1;
        Ok(value)
    }

    fn regexp(&mut self, row: &Row, op: &str) -> Result<Regexp, ParseError> {
        let (words, flags) = match self.peek() {
            Some(Kind::Regex(words, flags)) => (words.as_str(), *flags),
            _ => (self.value(row, "a regular expression", op)?, ""),
        };
        let regexp = Regexp::new(words, flags)
            .map_err(|reason| self.error(format!("this regular expression is none: {reason}")))?;
        self.at += 1;
        Ok(regexp)
    }

    fn listed(
        &mut self,
        row: &Row,
        names: fn() -> Vec<&'static str>,
        op: &str,
    ) -> Result<Vec<u8>, ParseError> {
        let names = names();
        let all = names.join(", ");
        let value = self.value(row, &format!("one of {all}"), op)?;
        if !names.contains(&value) {
            let name = row.name;
            let meant = match closest(value, names.iter().copied()) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("expected one of {all}"),
            };
            return Err(self.error(format!("\"{name}\" is never {value:?}: {meant}")));
        }
        self.at += 1;
        Ok(value.into())
    }

    fn block(&mut self, row: &Row, op: &str) -> Result<Net, ParseError> {
        let value = self.value(row, "an address or a block", op)?;
        let net = match value.contains('/') {
            true => self.net(value)?,
            false => Net::single(address(value).ok_or_else(|| {
                self.error(format!(
                    "{value:?} is neither an address nor a block (ADDR/BITS): \
                     names are not looked up"
                ))
            })?),
        };
        self.at += 1;
        Ok(net)
    }

    /// A number in whatever way such a field is counted.
    fn number(&mut self, row: &Row, op: &str) -> Result<u64, ParseError> {
        let what = match row.kind {
            Values::Size => "a number of bytes (300, 10k, 1M)",
            Values::Time => "a time with its unit (200ms, 1.5s)",
            Values::Version => "a version of TLS (1.2)",
            Values::User => "a user",
            Values::Flag => "true or false",
            _ => "a number",
        };
        let value = self.value(row, what, op)?;
        let most = most(row.field);
        let number = match row.kind {
            Values::Size => scaled(value, SIZES, true),
            Values::Time => scaled(value, TIMES, false),
            Values::Version => version(value),
            Values::Flag => match value {
                "true" | "1" => Some(1),
                "false" | "0" => Some(0),
                _ => None,
            },
            Values::User if !value.starts_with(|ch: char| ch.is_ascii_digit()) => {
                match (self.uid_of)(value) {
                    Some(uid) => Some(uid.into()),
                    None => {
                        return Err(self.error(format!("no user {value:?} on this system")));
                    }
                }
            }
            _ => digits(value).filter(|&number| number <= most),
        };
        let Some(number) = number else {
            let what = match row.kind {
                Values::Number | Values::User if most < u64::MAX => {
                    format!("a number from 0 to {most}")
                }
                _ => what.to_owned(),
            };
            let name = row.name;
            return Err(self.error(format!("{value:?} is not {what}, as \"{name}\" is")));
        };
        self.at += 1;
        Ok(number)
    }
}

fn is_ordered(kind: Values) -> bool {
    matches!(
        kind,
        Values::Number | Values::Size | Values::Time | Values::User | Values::Version
    )
}

fn most(field: Field) -> u64 {
    match field {
        Field::Port | Field::PortSrc | Field::PortDst => u16::MAX.into(),
        Field::Pid | Field::Tid | Field::Uid | Field::Stream => u32::MAX.into(),
        Field::Status => 999,
        _ => u64::MAX,
    }
}

fn one(number: u64) -> Numbers {
    Numbers::new(vec![(number, number)])
}

fn digits(text: &str) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

/// `1.5k` and the like, exactly; without a unit only where `is_plain`.
fn scaled(text: &str, units: &[(&str, u64)], is_plain: bool) -> Option<u64> {
    let end = text
        .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let scale = match units.iter().find(|(name, _)| *name == unit) {
        Some((_, scale)) => *scale,
        None if unit.is_empty() && is_plain => 1,
        None => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let places = u32::try_from(part.len())
        .ok()
        .filter(|places| *places <= 9)?;
    let part = digits(part)?.checked_mul(scale)? / 10u64.pow(places);
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

/// `1.3`, `TLS 1.3`, `TLSv1.3`, `SSL 3.0`, or as on the wire: `0x0304`.
fn version(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u16::from_str_radix(hex, 16).ok().map(u64::from);
    }
    let lower = text.to_ascii_lowercase();
    let bare = ["tlsv", "tls", "sslv", "ssl"]
        .iter()
        .find_map(|name| lower.strip_prefix(name))
        .unwrap_or(&lower);
    match bare.trim() {
        "3" | "3.0" => Some(0x0300),
        "1" | "1.0" => Some(0x0301),
        "1.1" => Some(0x0302),
        "1.2" => Some(0x0303),
        "1.3" => Some(0x0304),
        _ => None,
    }
}
