//! The table of names agrees with itself.

use super::*;

#[test]
fn names_are_found_by_the_name_that_the_manual_shows() {
    for entry in WORDS {
        assert_eq!(lookup(entry.name), Some(entry.word));
        assert_eq!(name(entry.word), entry.name);
    }
    assert_eq!(lookup("Host"), None);
    for row in FIELDS {
        for name in std::iter::once(&row.name).chain(row.also) {
            assert_eq!(field(name).unwrap().field, row.field, "{name}");
        }
    }
    for (op, forms, ..) in COMPARISONS {
        for form in *forms {
            assert_eq!(operator(form), Some(*op));
        }
    }
}

#[test]
fn no_name_means_two_things_that_the_next_word_cannot_tell_apart() {
    let mut seen = Vec::new();
    let words = WORDS.iter().map(|entry| entry.name);
    let protocols = Protocol::ALL.iter().map(|protocol| protocol.name());
    for name in words.chain(protocols).chain(["and", "or", "not"]) {
        assert!(!seen.contains(&name), "{name}");
        seen.push(name);
    }
    let with_argument = |name: &str| {
        WORDS
            .iter()
            .any(|entry| entry.name == name && !entry.argument.is_empty())
    };
    let mut fields = Vec::new();
    for row in FIELDS {
        for name in std::iter::once(&row.name).chain(row.also) {
            assert!(!fields.contains(name), "{name} twice");
            assert!(!seen.contains(name) || with_argument(name), "{name}");
            fields.push(name);
        }
    }
}
