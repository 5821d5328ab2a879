//! The names of the filter language as text for the man page and `--help`.

use super::fields::{COMPARISONS, FIELDS, OPERATORS, Of, Row, WORDS};
use crate::proto::Protocol;

/// The tables for the man page and `--help`: a sentence, and two columns of plain text.
pub fn help() -> Vec<(&'static str, String)> {
    let words = WORDS
        .iter()
        .map(|entry| (format!("{} {}", entry.name, entry.argument), entry.doc));
    let operators = OPERATORS.iter().map(|&(form, doc)| (form.to_owned(), doc));
    let comparisons = COMPARISONS
        .iter()
        .map(|&(_, _, form, doc)| (form.to_owned(), doc));
    let of = |of: &'static [Of]| {
        let rows = FIELDS.iter().filter(|row| of.contains(&row.of));
        columns(rows.map(|row| (row.forms(), row.doc)))
    };
    vec![
        ("Filter: words", columns(words.chain(operators))),
        ("Filter: words for the protocol of a message", protocols()),
        ("Filter: comparisons of a field F", columns(comparisons)),
        (
            "Filter: fields of connections, reads and writes",
            of(&[Of::Proc, Of::Conn, Of::Piece]),
        ),
        ("Filter: fields of messages", of(&[Of::Message, Of::Body])),
    ]
}

/// The names, in lines.
fn protocols() -> String {
    let mut lines = String::new();
    let mut width = 0;
    for (at, protocol) in Protocol::ALL.iter().enumerate() {
        let name = protocol.name();
        let space = match at {
            0 => "",
            _ if width + name.len() > 70 => {
                width = 0;
                "\n"
            }
            _ => " ",
        };
        width += name.len() + 1;
        lines.extend([space, name]);
    }
    lines + "\n"
}

impl Row {
    fn forms(&self) -> String {
        let key = if self.has_key() { "[\"NAME\"]" } else { "" };
        let names = std::iter::once(&self.name).chain(self.also);
        let forms: Vec<String> = names.map(|name| format!("{name}{key}")).collect();
        forms.join(", ")
    }
}

fn columns(rows: impl Iterator<Item = (String, &'static str)>) -> String {
    let rows: Vec<(String, &str)> = rows.collect();
    let width = rows.iter().map(|(form, _)| form.trim_end().len()).max();
    let width = width.unwrap_or(0) + 2;
    rows.iter()
        .map(|(form, doc)| format!("{:width$}{doc}\n", form.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_the_help() {
        let help: String = help().into_iter().map(|(_, text)| text).collect();
        for entry in WORDS {
            let form = format!("{} {}", entry.name, entry.argument);
            assert!(help.contains(form.trim_end()) && help.contains(entry.doc));
        }
        for row in FIELDS {
            assert!(help.contains(&row.forms()) && help.contains(row.doc));
        }
        for protocol in Protocol::ALL {
            assert!(help.contains(protocol.name()), "{protocol:?}");
        }
        for (_, forms, ..) in COMPARISONS {
            let shown = forms.iter().filter(|form| **form != "=");
            assert!(shown.into_iter().all(|form| help.contains(form)));
        }
    }

    #[test]
    fn help_is_aligned_and_fits_a_terminal() {
        for (title, text) in help() {
            assert!(!text.trim().is_empty() && text.ends_with('\n'), "{title}");
            for line in text.lines() {
                assert!(line.chars().count() <= 98, "{line}");
            }
        }
        let text = columns([("a".to_owned(), "x"), ("long ".to_owned(), "y")].into_iter());
        assert_eq!(text, "a     x\nlong  y\n");
    }
}
