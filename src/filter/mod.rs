//! The filter expression: compiled once, asked per event.

pub mod ast;
pub mod eval;
pub mod fields;
pub mod glob;
pub mod help;
pub mod lexer;
mod nearest;
pub mod parser;
pub mod pattern;
mod values;

pub use glob::glob_match;

use crate::event::{Conn, Event, Flavor, Lib, Proc, Transport};
use crate::proto::Message;
use ast::{Expr, Place, Test};
use fields::{FIELDS, Field, Of};
use std::fmt;
use std::rc::Rc;

/// A compiled expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    root: Expr,
    words: String,
    /// The most that any of its tests looks at.
    of: Of,
    looks_at_bodies: bool,
}

impl Filter {
    /// Compiles an expression; user names are looked up in the system's user database. The empty
    /// expression matches everything.
    pub fn parse(words: &str) -> Result<Filter, ParseError> {
        Filter::parse_with(words, &|name| {
            let user = nix::unistd::User::from_name(name).ok().flatten()?;
            Some(user.uid.as_raw())
        })
    }

    /// The same with a look-up of user names of one's own.
    pub fn parse_with(
        words: &str,
        uid_of: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Filter, ParseError> {
        let root = parser::parse(words, uid_of)?;
        let mut filter = Filter {
            root: Expr::All(Vec::new()),
            words: words.to_owned(),
            of: Of::Proc,
            looks_at_bodies: false,
        };
        filter.note(&root);
        filter.root = root;
        Ok(filter)
    }

    /// Notes what the expression looks at.
    fn note(&mut self, expr: &Expr) {
        match expr {
            Expr::All(terms) | Expr::Any(terms) => {
                for term in terms {
                    self.note(term);
                }
            }
            Expr::Not(term) => self.note(term),
            Expr::Test(test) => {
                let (of, looks_at_bodies) = looks_at(test);
                self.of = self.of.max(of);
                self.looks_at_bodies |= looks_at_bodies;
            }
        }
    }

    /// Whether it asks for something that only messages have.
    pub fn needs_messages(&self) -> bool {
        self.of >= Of::Message
    }

    /// Whether messages must keep their bodies for it.
    pub fn needs_bodies(&self) -> bool {
        self.looks_at_bodies
    }

    /// Whether all that it asks for is the same for each read or write of a direction of a
    /// connection: then what passes has no holes.
    pub fn is_of_connections(&self) -> bool {
        self.of <= Of::Conn
    }

    /// The expression as it was given.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// Whether the event passes. `src` and `dst` are its sender and receiver; opening and closing
    /// have neither, and pass when they would in either direction. A test on something unknown
    /// fails.
    pub fn matches(&self, event: &Event<'_>) -> bool {
        eval::matches(&self.root, event)
    }

    /// Whether nothing of the process passes, whatever it does: then it need not be captured.
    pub fn excludes(&self, process: &Rc<Proc>) -> bool {
        // Nothing of it but the process is looked at.
        let conn = Conn {
            id: 0,
            proc: Rc::clone(process),
            lib: Rc::new(Lib {
                flavor: Flavor::OpenSsl,
                path: String::new(),
                version: None,
            }),
            transport: Transport::Unknown,
            addr_source: None,
            role: None,
            version: None,
            sni: None,
            alpn: None,
        };
        eval::holds_of_process(&self.root, &conn) == Some(false)
    }

    /// Whether a message passes, by its sender and receiver.
    pub fn matches_message(&self, conn: &Conn, message: &Message) -> bool {
        eval::matches_message(&self.root, conn, message)
    }

    /// Whether an exchange passes: each test by any of its messages.
    pub fn matches_exchange(&self, conn: &Conn, messages: &[&Message]) -> bool {
        eval::matches_exchange(&self.root, conn, messages)
    }
}

/// What a test looks at, and whether at bodies.
fn looks_at(test: &Test) -> (Of, bool) {
    let of_place = |place: &Place| {
        let row = FIELDS.iter().find(|row| row.field == place.field);
        let of = row.map_or(Of::Conn, |row| row.of);
        (of, of == Of::Body || place.field == Field::Payload)
    };
    match test {
        Test::Pid(_) | Test::Uid(_) | Test::Comm(_) => (Of::Proc, false),
        Test::Net(..) | Test::Port(..) | Test::Dir(_) => (Of::Conn, false),
        Test::Http | Test::Protocol(_) | Test::Part(_) => (Of::Message, false),
        Test::Present(place) => of_place(place),
        Test::Compare(compare) => of_place(&compare.place),
    }
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The character at fault, counted from 1; one past the last when something is missing there.
    pub column: usize,
    pub message: String,
}

impl ParseError {
    /// The expression with the column marked below, in two lines without a final line end.
    pub fn marked(&self, words: &str) -> String {
        let shown: String = words.chars().map(one_column).collect();
        format!("{shown}\n{}^", " ".repeat(self.column.saturating_sub(1)))
    }
}

/// The character, or `?` where it would not take one harmless column: the mark must stand below it.
fn one_column(ch: char) -> char {
    match ch {
        '"' | '\'' | '\\' => ch,
        _ if ch.is_whitespace() => ' ',
        _ if ch.escape_debug().count() == 1 => ch,
        _ => '?',
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter, column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_below_the_fault() {
        let words = "host 10.0.0.1 and prot 443";
        let error = Filter::parse(words).unwrap_err();
        assert_eq!(
            error.marked(words),
            "host 10.0.0.1 and prot 443\n                  ^"
        );
        assert_eq!(
            error.to_string(),
            "filter, column 19: unknown word \"prot\": did you mean \"port\"?"
        );
    }

    #[test]
    fn an_error_cannot_drive_the_terminal() {
        for words in [
            "\x1b]0;x\x07",
            "pid \x1b[2J",
            "host \u{202e}1",
            "port \u{9b}",
            "\"\x1b",
        ] {
            let error = Filter::parse(words).unwrap_err();
            let shown = error.to_string() + &error.marked(words).replace('\n', "");
            assert!(
                !shown.contains(|ch: char| ch.is_control() || ch == '\u{202e}'),
                "{shown:?}"
            );
        }
    }

    #[test]
    fn users_of_the_system_are_known_by_name() {
        let root = |words| Filter::parse(words).unwrap().root;
        assert_eq!(root("uid root"), root("uid 0"));
    }
}
