//! Lines of the screen before they are drawn: pieces of harmless text, each with its look.

use crate::sink::escape;

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    #[default]
    Plain,
    Dim,
    Bold,
    /// The name of something: a header field, a key.
    Name,
    Text,
    Number,
    Good,
    Moved,
    Warning,
    Bad,
}

/// A line, and what would filter for the value that it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub spans: Vec<(String, Look)>,
    pub filter: Option<String>,
}

impl Line {
    pub fn new(text: &str, look: Look) -> Line {
        Line::default().and(text, look)
    }

    /// Appends foreign or own text; what could drive the terminal is spelled out.
    pub fn and(self, text: &str, look: Look) -> Line {
        self.and_bytes(text.as_bytes(), look)
    }

    /// Likewise of bytes.
    pub fn and_bytes(mut self, bytes: &[u8], look: Look) -> Line {
        self.spans.push((harmless(bytes), look));
        self
    }

    pub fn filtered(mut self, filter: Option<String>) -> Line {
        self.filter = filter;
        self
    }

    /// The text without its looks.
    pub fn plain(&self) -> String {
        self.spans.iter().map(|(text, _)| text.as_str()).collect()
    }
}

/// One line of what a terminal may see; tabs become spaces.
pub fn harmless(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    for (at, part) in bytes.split(|&byte| byte == b'\t').enumerate() {
        if at > 0 {
            out.extend_from_slice(b"    ");
        }
        escape::line(&mut out, part);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The lines of a text with its own line ends.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').map(|row| {
        row.strip_suffix(b"\n")
            .map_or(row, |ended| ended.strip_suffix(b"\r").unwrap_or(ended))
    })
}

/// A comparison in the filter language, if the value can stand in one.
pub fn compare(field: &str, value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    // What is spelled out on the screen would be compared as it is spelled.
    if text.is_empty() || harmless(value) != text {
        return None;
    }
    Some(format!("{field} == {}", quoted(text)))
}

/// Likewise, that these bytes are in it.
pub fn contains(field: &str, value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let is_plain = !text.is_empty() && harmless(text.as_bytes()) == text;
    is_plain.then(|| format!("{field} contains {}", quoted(text)))
}

/// As a string of the filter language; a plain word stays one.
pub fn quoted(text: &str) -> String {
    let is_word = |ch: char| ch.is_ascii_alphanumeric() || "-_./:".contains(ch);
    let is_plain = text.chars().all(is_word) && text.starts_with(|ch: char| ch.is_alphanumeric());
    if is_plain && !matches!(text, "and" | "or" | "not" | "in") {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Bytes as people say it, in four characters or so.
pub fn size(bytes: u64) -> String {
    let (mut unit, mut value) = (0, bytes as f64);
    while value >= 1000.0 && unit < 5 {
        value /= 1024.0;
        unit += 1;
    }
    let name = ["", "k", "M", "G", "T", "P"].get(unit).unwrap_or(&"");
    match unit {
        0 => format!("{bytes}"),
        _ if value < 9.95 => format!("{value:.1}{name}"),
        _ => format!("{value:.0}{name}"),
    }
}

/// A time in at most six characters.
pub fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{}us", nanos / 1000),
        1_000_000..10_000_000 => {
            let tenths = nanos / 100_000;
            format!("{}.{}ms", tenths / 10, tenths % 10)
        }
        10_000_000..10_000_000_000 => format!("{}ms", nanos / 1_000_000),
        _ => format!("{}s", nanos / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    #[test]
    fn every_value_that_is_quoted_is_a_filter_that_finds_it() {
        for value in [
            "curl",
            "a b",
            "say \"x\"",
            "back\\slash",
            "and",
            "grün",
            "(x)",
            "a==b",
            "-x",
        ] {
            let filter = compare("comm", value.as_bytes()).unwrap();
            assert!(Filter::parse(&filter).is_ok(), "{filter}");
        }
        assert_eq!(compare("comm", b"a\x1b[2J"), None);
        assert_eq!(compare("comm", b"\xff"), None);
        assert_eq!(
            contains("body", b"  \"a\": 1 "),
            Some("body contains \"\\\"a\\\": 1\"".into())
        );
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, wanted) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1 << 20, "1.0M"),
            (123 << 20, "123M"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
        assert!(size(u64::MAX).len() <= 7);
        assert_eq!(duration(1_500_000), "1.5ms");
        assert!(duration(9_999_999_999).len() <= 6);
    }

    #[test]
    fn nothing_but_harmless_text_comes_out() {
        let line =
            Line::new("a\tb", Look::Plain).and_bytes(b"\x1b[2J\x9b\r\n\xe2\x80\xae", Look::Dim);
        assert_eq!(line.plain(), "a    b\\x1b[2J\\x9b\\x0d\\x0a\\u{202e}");
    }
}
