//! What is searched for in text: bytes, or a regular expression, compiled once.

use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};

/// A regular expression takes no more memory than this.
const MAX_COMPILED: usize = 1 << 20;

/// Bytes to be found as they are.
#[derive(Clone, Debug)]
pub struct Needle(Box<Finder<'static>>);

impl Needle {
    pub fn new(bytes: &[u8]) -> Needle {
        Needle(Box::new(Finder::new(bytes).into_owned()))
    }

    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.find(text).is_some()
    }
}

impl PartialEq for Needle {
    fn eq(&self, other: &Needle) -> bool {
        self.0.needle() == other.0.needle()
    }
}

impl Eq for Needle {}

/// A regular expression over bytes, in which upper and lower case are the same.
#[derive(Clone, Debug)]
pub struct Regexp {
    regex: Regex,
    flags: String,
}

impl Regexp {
    /// Compiles it; `flags` are those behind the second slash.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(words: &str, flags: &str) -> Result<Regexp, String> {
        RegexBuilder::new(words)
            .case_insensitive(true)
            .dot_matches_new_line(flags.contains('s'))
            .multi_line(flags.contains('m'))
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build()
            .map(|regex| Regexp {
                regex,
                flags: flags.to_owned(),
            })
            .map_err(|error| reason(&error))
    }

    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

/// The last line of an error that shows the expression in several.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

impl PartialEq for Regexp {
    fn eq(&self, other: &Regexp) -> bool {
        (self.regex.as_str(), &self.flags) == (other.regex.as_str(), &other.flags)
    }
}

impl Eq for Regexp {}
