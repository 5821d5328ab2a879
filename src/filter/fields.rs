//! The one table of filter words.

/// A word that an expression may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Host,
    Net,
    Port,
    Portrange,
    Src,
    Dst,
    Pid,
    Uid,
    Comm,
    In,
    Out,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub word: Word,
    pub name: &'static str,
    /// What follows the word, for people.
    pub argument: &'static str,
    pub doc: &'static str,
}

/// Every word but the operators, in the order of the manual.
pub const WORDS: &[Entry] = &[
    Entry {
        word: Word::Host,
        name: "host",
        argument: "ADDR",
        doc: "one end has this IPv4 or IPv6 address",
    },
    Entry {
        word: Word::Net,
        name: "net",
        argument: "ADDR/BITS",
        doc: "one end has an address in this block",
    },
    Entry {
        word: Word::Port,
        name: "port",
        argument: "N[,N|N-M]...",
        doc: "one end has one of these ports",
    },
    Entry {
        word: Word::Portrange,
        name: "portrange",
        argument: "N-M",
        doc: "the same as port N-M",
    },
    Entry {
        word: Word::Src,
        name: "src",
        argument: "host|net|port ...",
        doc: "the same of the sender only; src ADDR is short for src host ADDR",
    },
    Entry {
        word: Word::Dst,
        name: "dst",
        argument: "host|net|port ...",
        doc: "the same of the receiver only",
    },
    Entry {
        word: Word::Pid,
        name: "pid",
        argument: "N[,N|N-M]...",
        doc: "the process is one of these",
    },
    Entry {
        word: Word::Uid,
        name: "uid",
        argument: "N[,N|N-M]...|NAME",
        doc: "the process belongs to this user",
    },
    Entry {
        word: Word::Comm,
        name: "comm",
        argument: "PATTERN",
        doc: "the command name matches: * any run, ? any character, [a-z] [!a-z] a set",
    },
    Entry {
        word: Word::In,
        name: "in",
        argument: "",
        doc: "read by the program",
    },
    Entry {
        word: Word::Out,
        name: "out",
        argument: "",
        doc: "written by the program",
    },
];

/// The operators, likewise: how they are written, and what they do.
pub const OPERATORS: &[(&str, &str)] = &[
    ("not E, ! E", "the test E fails"),
    ("E and F, E && F, E F", "both hold"),
    (
        "E or F, E || F",
        "one of them holds; binds less tightly than and",
    ),
    ("( E )", "grouping; quote it from the shell"),
];

/// The word by its name.
pub fn lookup(name: &str) -> Option<Word> {
    WORDS
        .iter()
        .find(|entry| entry.name == name)
        .map(|entry| entry.word)
}

/// The name of the word.
pub fn name(word: Word) -> &'static str {
    WORDS
        .iter()
        .find(|entry| entry.word == word)
        .map_or("", |entry| entry.name)
}

/// What somebody who typed `typed` may have meant: at most two edits away and not half the word.
pub fn nearest(typed: &str) -> Option<&'static str> {
    let operators = ["and", "or", "not"];
    WORDS
        .iter()
        .map(|entry| entry.name)
        .chain(operators)
        .map(|name| (distance(typed, name), name))
        .filter(|&(edits, name)| edits <= 2 && edits * 2 < name.len())
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap neighbours) between two words; 3 stands for more than two
/// for words of very different length, so that a long one costs nothing.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return 3;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at =
                |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, j) + usize::from(x != y))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            let is_swap = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if is_swap {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

/// The table for the man page and `--help`: two columns of plain text.
pub fn help() -> String {
    let forms = WORDS
        .iter()
        .map(|entry| (format!("{} {}", entry.name, entry.argument), entry.doc));
    let operators = OPERATORS.iter().map(|&(form, doc)| (form.to_owned(), doc));
    let rows: Vec<(String, &str)> = forms.chain(operators).collect();
    let width = rows
        .iter()
        .map(|(form, _)| form.trim_end().len())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(form, doc)| format!("{:<width$}  {doc}\n", form.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_by_its_name_and_documented() {
        let help = help();
        for entry in WORDS {
            assert_eq!(lookup(entry.name), Some(entry.word));
            assert_eq!(name(entry.word), entry.name);
            assert!(
                help.contains(&format!("{} {}", entry.name, entry.argument)),
                "{help}"
            );
            assert!(help.contains(entry.doc));
        }
        assert_eq!(lookup("Host"), None);
    }

    #[test]
    fn help_is_aligned_and_fits_a_terminal() {
        let help = help();
        let starts: Vec<Option<usize>> = WORDS
            .iter()
            .map(|entry| entry.doc)
            .chain(OPERATORS.iter().map(|row| row.1))
            .zip(help.lines())
            .map(|(doc, line)| line.strip_suffix(doc).map(str::len))
            .collect();
        assert!(
            starts
                .iter()
                .all(|start| start.is_some() && *start == starts[0]),
            "{help}"
        );
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        for (typed, meant) in [
            ("prot", Some("port")),
            ("hosts", Some("host")),
            ("cmm", Some("comm")),
            ("portrnge", Some("portrange")),
            ("adn", Some("and")),
            ("command", None),
            ("ip", None),
            ("zzzzzzzzzzzzzzzzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }
}
