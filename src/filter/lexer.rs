//! Splits a filter expression into tokens with their columns.

use super::ParseError;
use super::fields;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Word(&'a str),
    /// A quoted string: never a keyword.
    Text(String),
    /// `name["key"]`, of a field that has keys.
    Keyed(&'a str, String),
    /// `/words/flags`, behind an operator that wants one.
    Regex(String, &'a str),
    Open,
    Close,
    /// The braces of a set, its commas, and the `..` of a range in it.
    SetOpen,
    SetClose,
    Comma,
    To,
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

/// Flags of a regular expression; `i` is always on.
const FLAGS: &[char] = &['i', 'm', 's'];

/// The tokens, and the column one past the last character.
pub fn tokens(words: &str) -> Result<(Vec<Token<'_>>, usize), ParseError> {
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut rest = words;
    let mut column = 1;
    let mut in_set = false;
    loop {
        let trimmed = rest.trim_start();
        column += chars_until(rest, trimmed);
        if trimmed.is_empty() {
            return Ok((tokens, column));
        }
        let last = tokens.last().map(|token| &token.kind);
        let (kind, after) = if in_set {
            in_braces(trimmed, column)?
        } else {
            match (last, trimmed.strip_prefix(['{', '/'])) {
                (Some(Kind::Word("in")), Some(inner)) if trimmed.starts_with('{') => {
                    (Kind::SetOpen, inner)
                }
                (Some(Kind::Word("matches") | Kind::Comparison("~")), Some(inner))
                    if trimmed.starts_with('/') =>
                {
                    regex(inner, column)?
                }
                (last, _) => token(trimmed, column, is_operator(last))?,
            }
        };
        in_set = kind == Kind::SetOpen || in_set && kind != Kind::SetClose;
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

/// Whether what follows is a value.
fn is_operator(last: Option<&Kind<'_>>) -> bool {
    match last {
        Some(Kind::Comparison(_)) => true,
        Some(Kind::Word(word)) => *word != "in" && fields::operator(word).is_some(),
        _ => false,
    }
}

fn token(text: &str, column: usize, is_value: bool) -> Result<(Kind<'_>, &str), ParseError> {
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
        let (text, after) = quoted(inner, column)?;
        return Ok((Kind::Text(text), after));
    }
    let end = word_end(text, is_value);
    let (word, after) = text.split_at_checked(end).unwrap_or((text, ""));
    if let Some((name, key)) = word.split_once('[')
        && fields::field(name).is_some_and(fields::Row::has_key)
    {
        return keyed(name, key, after, column + chars_until(text, after));
    }
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

/// A field with its key: what of it stood in the word behind the bracket, and what follows the
/// word, which is at `column`.
fn keyed<'a>(
    name: &'a str,
    key: &str,
    after: &'a str,
    column: usize,
) -> Result<(Kind<'a>, &'a str), ParseError> {
    let refuse = |column, message: &str| {
        Err(ParseError {
            column,
            message: format!("{message}: expected {name}[\"NAME\"]"),
        })
    };
    let begin = column.saturating_sub(key.chars().count() + 1);
    if !key.is_empty() {
        // Without quotes, as the shell leaves it.
        return match key.strip_suffix(']') {
            Some("") => refuse(begin, "no name in the brackets"),
            Some(bare) => Ok((Kind::Keyed(name, bare.to_owned()), after)),
            None => refuse(begin, "this \"[\" has no \"]\""),
        };
    }
    let Some(inner) = after.strip_prefix('"') else {
        return refuse(column, "no name in the brackets");
    };
    let (key, behind) = quoted(inner, column)?;
    match behind.strip_prefix(']') {
        Some(_) if key.is_empty() => refuse(column, "no name in the brackets"),
        Some(behind) => Ok((Kind::Keyed(name, key), behind)),
        None => refuse(begin, "this \"[\" has no \"]\""),
    }
}

/// Between the braces of a set.
fn in_braces(text: &str, column: usize) -> Result<(Kind<'_>, &str), ParseError> {
    for (sign, kind) in [("}", Kind::SetClose), (",", Kind::Comma), ("..", Kind::To)] {
        if let Some(after) = text.strip_prefix(sign) {
            return Ok((kind, after));
        }
    }
    if let Some(inner) = text.strip_prefix('"') {
        let (text, after) = quoted(inner, column)?;
        return Ok((Kind::Text(text), after));
    }
    let ends = |(at, ch): &(usize, char)| {
        let tail = text.get(*at..).unwrap_or_default();
        ch.is_whitespace() || matches!(ch, '}' | ',' | '"') || tail.starts_with("..")
    };
    let end = text.char_indices().skip(1).find(ends);
    let (word, after) = text
        .split_at_checked(end.map_or(text.len(), |(at, _)| at))
        .unwrap_or((text, ""));
    Ok((Kind::Word(word), after))
}

fn comparison(text: &str) -> Option<(&'static str, &str)> {
    COMPARISONS
        .iter()
        .find_map(|sign| Some((*sign, text.strip_prefix(sign)?)))
}

/// Bytes of the word at the start of `text`; at least one character. A value may have comparisons
/// in it, as URLs do.
fn word_end(text: &str, is_value: bool) -> usize {
    let ends = |(at, ch): &(usize, char)| {
        let tail = text.get(*at..).unwrap_or_default();
        ch.is_whitespace()
            || matches!(ch, '(' | ')' | '"')
            || tail.starts_with("&&")
            || tail.starts_with("||")
            || !is_value && comparison(tail).is_some()
    };
    text.char_indices()
        .skip(1)
        .find(ends)
        .map_or(text.len(), |(at, _)| at)
}

/// A string behind its opening quote: `\"` and `\\` stand for `"` and `\`, any other `\` for itself.
fn quoted(inner: &str, column: usize) -> Result<(String, &str), ParseError> {
    let mut text = String::new();
    let mut rest = inner.chars();
    loop {
        match rest.next() {
            Some('"') => return Ok((text, rest.as_str())),
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

/// A regular expression behind its opening slash: `\/` stands for `/`, any other `\` is its own.
fn regex(inner: &str, column: usize) -> Result<(Kind<'_>, &str), ParseError> {
    let mut text = String::new();
    let mut rest = inner.chars();
    loop {
        match rest.next() {
            Some('/') => break,
            Some('\\') => match rest.next() {
                Some('/') => text.push('/'),
                Some(ch) => text.extend(['\\', ch]),
                None => text.push('\\'),
            },
            Some(ch) => text.push(ch),
            None => {
                let message = "this regular expression has no \"/\" at its end".to_owned();
                return Err(ParseError { column, message });
            }
        }
    }
    let after = rest.as_str();
    let end = after
        .find(|ch: char| !ch.is_alphanumeric())
        .unwrap_or(after.len());
    let (flags, behind) = after.split_at_checked(end).unwrap_or((after, ""));
    if let Some(wrong) = flags.chars().find(|flag| !FLAGS.contains(flag)) {
        let message = format!(
            "unknown flag {:?} behind the regular expression: expected i, m or s",
            wrong.to_string()
        );
        return Err(ParseError { column, message });
    }
    Ok((Kind::Regex(text, flags), behind))
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
    fn a_value_may_look_like_a_comparison() {
        use Kind::{And, Comparison, Word};
        assert_eq!(
            kinds("url contains ?a=b~c&d=1&&x==<y=z"),
            [
                Word("url"),
                Word("contains"),
                Word("?a=b~c&d=1"),
                And,
                Word("x"),
                Comparison("=="),
                Comparison("<"),
                Word("y=z"),
            ]
        );
    }

    #[test]
    fn a_key_stands_in_brackets_with_or_without_quotes() {
        let keyed = |key: &str| Kind::Keyed("header", key.into());
        assert_eq!(
            kinds(r#"header["x-a b"]~"1" header[x-a]==1"#),
            [
                keyed("x-a b"),
                Kind::Comparison("~"),
                Kind::Text("1".into()),
                keyed("x-a"),
                Kind::Comparison("=="),
                Kind::Word("1"),
            ]
        );
        for (words, column) in [
            ("header[x", 7),
            ("header[]", 7),
            ("header[", 8),
            ("header[\"\"]", 8),
            ("header[\"x\"", 7),
            ("header[\"x", 8),
        ] {
            assert_eq!(tokens(words).unwrap_err().column, column, "{words}");
        }
    }

    #[test]
    fn a_set_has_its_own_signs() {
        use Kind::{Comma, SetClose, SetOpen, To, Word};
        assert_eq!(
            kinds("x in {443,8443..8450, ::1 \"a,b\"} in{a} {b}"),
            [
                Word("x"),
                Word("in"),
                SetOpen,
                Word("443"),
                Comma,
                Word("8443"),
                To,
                Word("8450"),
                Comma,
                Word("::1"),
                Kind::Text("a,b".into()),
                SetClose,
                Word("in{a}"),
                Word("{b}"),
            ],
            "only behind the word in"
        );
    }

    #[test]
    fn a_regular_expression_stands_only_behind_its_operator() {
        let regex = |words: &str, flags| Kind::Regex(words.into(), flags);
        assert_eq!(
            kinds(r"matches /a\/b\./i ~/c/)"),
            [
                Kind::Word("matches"),
                regex(r"a/b\.", "i"),
                Kind::Comparison("~"),
                regex("c", ""),
                Kind::Close,
            ]
        );
        assert_eq!(
            kinds("== /a/b"),
            [Kind::Comparison("=="), Kind::Word("/a/b")]
        );
        assert_eq!(tokens("~ /a").unwrap_err().column, 3);
        assert_eq!(tokens("~ /a/g").unwrap_err().column, 3);
    }

    #[test]
    fn what_is_no_token_is_marked() {
        assert_eq!(tokens("in & out").unwrap_err().column, 4);
        assert_eq!(tokens("in \"out").unwrap_err().column, 4);
    }
}
