//! Splits a filter expression into tokens with their columns.

use super::ParseError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Word(&'a str),
    /// A quoted string: never a keyword.
    Text(String),
    Open,
    Close,
    And,
    Or,
    Not,
    /// A comparison (`==`, `>=`, …): reserved, so that no word ever contains one.
    Comparison(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind<'a>,
    /// Characters, counted from 1.
    pub column: usize,
}

/// Comparisons, the longer before those that they begin with.
const COMPARISONS: &[&str] = &["==", "!=", "<=", ">=", "=", "<", ">", "~"];

/// The tokens, and the column one past the last character.
pub fn tokens(words: &str) -> Result<(Vec<Token<'_>>, usize), ParseError> {
    let mut tokens = Vec::new();
    let mut rest = words;
    let mut column = 1;
    loop {
        let trimmed = rest.trim_start();
        column += chars_until(rest, trimmed);
        if trimmed.is_empty() {
            return Ok((tokens, column));
        }
        let (kind, after) = token(trimmed, column)?;
        tokens.push(Token { kind, column });
        column += chars_until(trimmed, after);
        rest = after;
    }
}

/// The characters of `from` before `to`, which is its tail.
fn chars_until(from: &str, to: &str) -> usize {
    let bytes = from.len().saturating_sub(to.len());
    from.get(..bytes).unwrap_or_default().chars().count()
}

fn token(text: &str, column: usize) -> Result<(Kind<'_>, &str), ParseError> {
    if let Some((sign, after)) = comparison(text) {
        return Ok((Kind::Comparison(sign), after));
    }
    for (sign, kind) in [
        ("(", Kind::Open),
        (")", Kind::Close),
        ("&&", Kind::And),
        ("||", Kind::Or),
        ("!", Kind::Not),
    ] {
        if let Some(after) = text.strip_prefix(sign) {
            return Ok((kind, after));
        }
    }
    if let Some(inner) = text.strip_prefix('"') {
        return quoted(inner, column);
    }
    let end = word_end(text);
    let (word, after) = text.split_at_checked(end).unwrap_or((text, ""));
    let kind = match word {
        "and" => Kind::And,
        "or" => Kind::Or,
        "not" => Kind::Not,
        "&" | "|" => {
            let message = format!("a single \"{word}\": expected \"{word}{word}\"");
            return Err(ParseError { column, message });
        }
        _ => Kind::Word(word),
    };
    Ok((kind, after))
}

fn comparison(text: &str) -> Option<(&'static str, &str)> {
    COMPARISONS
        .iter()
        .find_map(|sign| Some((*sign, text.strip_prefix(sign)?)))
}

/// Bytes of the word at the start of `text`; at least one character.
fn word_end(text: &str) -> usize {
    let ends = |(at, ch): &(usize, char)| {
        let tail = text.get(*at..).unwrap_or_default();
        ch.is_whitespace()
            || matches!(ch, '(' | ')' | '"')
            || tail.starts_with("&&")
            || tail.starts_with("||")
            || comparison(tail).is_some()
    };
    text.char_indices()
        .skip(1)
        .find(ends)
        .map_or(text.len(), |(at, _)| at)
}

/// A string behind its opening quote: `\"` and `\\` stand for `"` and `\`, any other `\` for itself.
fn quoted(inner: &str, column: usize) -> Result<(Kind<'_>, &str), ParseError> {
    let mut text = String::new();
    let mut rest = inner.chars();
    loop {
        match rest.next() {
            Some('"') => return Ok((Kind::Text(text), rest.as_str())),
            Some('\\') => {
                let mut ahead = rest.clone();
                match ahead.next() {
                    Some(ch @ ('"' | '\\')) => {
                        text.push(ch);
                        rest = ahead;
                    }
                    _ => text.push('\\'),
                }
            }
            Some(ch) => text.push(ch),
            None => {
                let message = "this quote has no end".to_owned();
                return Err(ParseError { column, message });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(words: &str) -> Vec<Kind<'_>> {
        tokens(words)
            .unwrap()
            .0
            .into_iter()
            .map(|token| token.kind)
            .collect()
    }

    #[test]
    fn signs_need_no_spaces() {
        use Kind::{And, Close, Comparison, Not, Open, Or, Word};
        assert_eq!(
            kinds("(in&&!out)||a>=5 b!=c"),
            [
                Open,
                Word("in"),
                And,
                Not,
                Word("out"),
                Close,
                Or,
                Word("a"),
                Comparison(">="),
                Word("5"),
                Word("b"),
                Comparison("!="),
                Word("c"),
            ]
        );
    }

    #[test]
    fn patterns_and_addresses_are_one_word() {
        use Kind::Word;
        assert_eq!(
            kinds("[!a]*b? [::1] ::1/64"),
            [Word("[!a]*b?"), Word("[::1]"), Word("::1/64")]
        );
    }

    #[test]
    fn a_quoted_string_is_never_a_keyword() {
        assert_eq!(
            kinds(r#""and" "a \"b\" \\ \*""#),
            [Kind::Text("and".into()), Kind::Text(r#"a "b" \ \*"#.into())]
        );
    }

    #[test]
    fn columns_count_characters() {
        let (tokens, end) = tokens("  é \u{3000}漢 in ").unwrap();
        assert_eq!(
            tokens.iter().map(|token| token.column).collect::<Vec<_>>(),
            [3, 6, 8]
        );
        assert_eq!(end, 11);
    }

    #[test]
    fn what_is_no_token_is_marked() {
        assert_eq!(tokens("in & out").unwrap_err().column, 4);
        assert_eq!(tokens("in \"out").unwrap_err().column, 4);
    }
}
