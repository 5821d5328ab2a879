//! Puts a command or an answer into one short line: blanks folded, long text cut, secrets hidden.

/// Characters of a line; what is longer ends in [`CUT`].
const MAX_CHARS: usize = 200;
const CUT: &[u8] = b"...";
/// Stands for a secret.
pub const HIDDEN: &str = "***";

/// A line that is put together from words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrase {
    text: Vec<u8>,
    chars: usize,
}

impl Phrase {
    pub fn new() -> Phrase {
        Phrase::default()
    }

    pub fn of(text: impl AsRef<[u8]>) -> Phrase {
        Phrase::new().word(text)
    }

    /// Appends the words of the text, each after one blank.
    pub fn word(mut self, text: impl AsRef<[u8]>) -> Phrase {
        for word in text.as_ref().split(u8::is_ascii_whitespace) {
            if !word.is_empty() {
                self.push(if self.text.is_empty() { b"" } else { b" " });
                self.push(word);
            }
        }
        self
    }

    /// Appends text right behind what is there, blanks and all.
    pub fn join(mut self, text: impl AsRef<[u8]>) -> Phrase {
        self.push(text.as_ref());
        self
    }

    /// `name=value`, when there is a value.
    pub fn pair(self, name: &str, value: Option<impl AsRef<[u8]>>) -> Phrase {
        match value {
            Some(value) => self.word(name).join("=").join(value),
            None => self,
        }
    }

    /// A number of bytes.
    pub fn size(self, size: u64) -> Phrase {
        self.word(format!("{size}B"))
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // The bytes within a character of UTF-8 belong to the one before.
            self.chars += usize::from(byte & 0xc0 != 0x80);
            if self.chars <= MAX_CHARS && self.text.len() < 4 * MAX_CHARS {
                self.text.push(byte);
            }
        }
    }

    pub fn into_line(mut self) -> Vec<u8> {
        if self.chars > MAX_CHARS {
            self.text.extend_from_slice(CUT);
        }
        self.text
    }
}

/// An SQL statement: a string that follows `PASSWORD` or `IDENTIFIED` is a secret.
pub fn sql(text: &[u8]) -> Phrase {
    let mut phrase = Phrase::new();
    let mut is_secret = false;
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\'' | b'"')) {
        let (before, quoted) = rest.split_at(at);
        is_secret = is_secret_next(before, is_secret);
        let quote = quoted.first().copied().unwrap_or_default();
        let end = end_of_string(quoted, quote);
        let (string, after) = quoted.split_at(end);
        phrase = spaced(phrase, before);
        phrase = if is_secret {
            phrase.join("'").join(HIDDEN).join("'")
        } else {
            spaced(phrase, string)
        };
        rest = after;
    }
    spaced(phrase, rest)
}

/// Words with a blank where there was any, also at the ends.
fn spaced(mut phrase: Phrase, text: &[u8]) -> Phrase {
    for (at, word) in text.split(u8::is_ascii_whitespace).enumerate() {
        let wants_blank = at > 0 && !phrase.text.is_empty() && phrase.text.last() != Some(&b' ');
        phrase.push(if wants_blank { b" " } else { b"" });
        phrase.push(word);
    }
    phrase
}

/// Whether the string after this text is a secret, knowing that of the one before it.
fn is_secret_next(text: &[u8], was_secret: bool) -> bool {
    const SECRETS: &[&str] = &["password", "identified", "auth"];
    let mut words = text
        .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .filter(|word| !word.is_empty())
        .peekable();
    if words.peek().is_none() {
        // `'user'@'host'`, `'it''s'`: the same clause goes on, unless a list does.
        return was_secret && !text.contains(&b',') && !text.contains(&b';');
    }
    words.any(|word| {
        SECRETS
            .iter()
            .any(|secret| word.eq_ignore_ascii_case(secret.as_bytes()))
    })
}

/// Where the string that begins with this quote has ended: behind its other quote.
fn end_of_string(text: &[u8], quote: u8) -> usize {
    let mut is_escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            _ if byte == quote => return at.saturating_add(1).min(text.len()),
            _ => {}
        }
    }
    text.len()
}

/// Whether it is text that begins like an SQL statement.
pub fn is_sql(text: &[u8]) -> bool {
    const VERBS: &[&str] = &[
        "select",
        "insert",
        "update",
        "delete",
        "replace",
        "with",
        "values",
        "table",
        "begin",
        "start",
        "commit",
        "rollback",
        "end",
        "abort",
        "savepoint",
        "release",
        "set",
        "reset",
        "show",
        "use",
        "create",
        "alter",
        "drop",
        "truncate",
        "rename",
        "grant",
        "revoke",
        "explain",
        "describe",
        "desc",
        "analyze",
        "vacuum",
        "copy",
        "load",
        "call",
        "do",
        "prepare",
        "execute",
        "deallocate",
        "declare",
        "fetch",
        "move",
        "close",
        "listen",
        "notify",
        "unlisten",
        "lock",
        "unlock",
        "merge",
        "kill",
        "flush",
        "handler",
        "xa",
        "discard",
        "comment",
        "cluster",
        "reindex",
        "refresh",
        "checkpoint",
        "optimize",
        "check",
    ];
    let text = text.trim_ascii_start();
    let word = text.split(|byte| !byte.is_ascii_alphabetic()).next();
    let word = word.unwrap_or_default();
    let is_verb = VERBS
        .iter()
        .any(|verb| word.eq_ignore_ascii_case(verb.as_bytes()));
    let is_verb = is_verb || text.starts_with(b"/*") || text.starts_with(b"--");
    is_verb && is_text(text)
}

/// Printable UTF-8 with blanks and line ends.
pub fn is_text(text: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    !text.iter().any(is_control) && std::str::from_utf8(text).is_ok()
}

/// Letters, digits and signs of ASCII, and blanks.
pub fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(phrase: Phrase) -> String {
        String::from_utf8(phrase.into_line()).unwrap()
    }

    #[test]
    fn blanks_are_folded_and_long_text_is_cut_at_a_character() {
        let text = "select  1,\n\t2 from\r\n x";
        assert_eq!(line(sql(text.as_bytes())), "select 1, 2 from x");
        assert_eq!(line(Phrase::of(text)), "select 1, 2 from x");
        let long = line(Phrase::of("ü".repeat(300)));
        assert_eq!(long, format!("{}...", "ü".repeat(200)));
        let whole = line(Phrase::of("x".repeat(200)));
        assert_eq!(whole, "x".repeat(200));
    }

    #[test]
    fn passwords_in_sql_are_hidden_and_other_strings_are_not() {
        for (text, shown) in [
            ("alter user a password 'p w'", "alter user a password '***'"),
            (
                "CREATE ROLE a PASSWORD 'x' LOGIN",
                "CREATE ROLE a PASSWORD '***' LOGIN",
            ),
            (
                "set password for 'u'@'h' = 'x'",
                "set password for '***'@'***' = '***'",
            ),
            (
                "create user 'u'@'h' identified by 'it\\'s'",
                "create user 'u'@'h' identified by '***'",
            ),
            (
                "set password = password('x')",
                "set password = password('***')",
            ),
            ("select  'a  b', \"c\"", "select 'a b', \"c\""),
            ("select 'open", "select 'open"),
            ("alter user a password 'open", "alter user a password '***'"),
        ] {
            assert_eq!(line(sql(text.as_bytes())), shown);
        }
    }

    #[test]
    fn sql_begins_with_a_verb() {
        assert!(is_sql(b" select 1"));
        assert!(is_sql(b"/* x */ select 1"));
        assert!(!is_sql(b"hello world"));
        assert!(!is_sql(b"select \x01"));
    }
}
