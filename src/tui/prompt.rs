//! The line at the bottom in which a filter, a search or a file name is typed.

use super::export::Form;
use crate::filter::fields::{FIELDS, WORDS};
use crate::filter::{Filter, ParseError};
use crate::proto::Protocol;

/// Characters of a line.
const MAX: usize = 4096;
/// Lines that the arrows bring back.
const MAX_EARLIER: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Filter,
    Search,
    /// Where to save the exchange of this number.
    Save(Form, u64),
}

impl Ask {
    pub fn title(self) -> &'static str {
        match self {
            Ask::Filter => "filter: ",
            Ask::Search => "search: ",
            Ask::Save(..) => "save as: ",
        }
    }
}

/// The line, with a cursor in it.
#[derive(Clone, Debug)]
pub struct Prompt {
    pub ask: Ask,
    pub text: Vec<char>,
    pub cursor: usize,
    /// What could be completed here.
    pub offers: Vec<&'static str>,
    /// Which of the earlier lines this is, and what was typed before.
    earlier: Option<(usize, Vec<char>)>,
}

impl Prompt {
    pub fn new(ask: Ask, text: &str) -> Prompt {
        let text: Vec<char> = text.chars().collect();
        Prompt {
            ask,
            cursor: text.len(),
            text,
            offers: Vec::new(),
            earlier: None,
        }
    }

    pub fn line(&self) -> String {
        self.text.iter().collect()
    }

    pub fn insert(&mut self, ch: char) {
        if self.text.len() < MAX && !ch.is_control() {
            self.text.insert(self.cursor.min(self.text.len()), ch);
            self.cursor += 1;
        }
        self.offers.clear();
    }

    pub fn backspace(&mut self) {
        if let Some(at) = self.cursor.checked_sub(1) {
            self.cursor = at;
            self.delete();
        }
        self.offers.clear();
    }

    pub fn delete(&mut self) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
        }
        self.offers.clear();
    }

    pub fn delete_to_start(&mut self) {
        self.text.drain(..self.cursor.min(self.text.len()));
        self.cursor = 0;
        self.offers.clear();
    }

    pub fn delete_word(&mut self) {
        let before = self.text.iter().take(self.cursor);
        let blank = before.clone().rev().take_while(|ch| **ch == ' ').count();
        let word = before
            .rev()
            .skip(blank)
            .take_while(|ch| **ch != ' ')
            .count();
        for _ in 0..blank + word {
            self.backspace();
        }
    }

    pub fn left(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    pub fn right(&mut self) {
        self.cursor = (self.cursor + 1).min(self.text.len());
    }

    pub fn home(&mut self) {
        self.cursor = 0;
    }

    pub fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// The line before or behind in `lines`, of which the last one is the newest.
    pub fn earlier(&mut self, lines: &[String], back: bool) {
        let at = self.earlier.as_ref().map(|(at, _)| *at);
        let next = match (at, back) {
            (None, true) => lines.len().checked_sub(1),
            (Some(at), true) => Some(at.saturating_sub(1)),
            (Some(at), false) if at + 1 < lines.len() => Some(at + 1),
            (_, false) => None,
        };
        let Some(next) = next else {
            if let (Some((_, typed)), false) = (self.earlier.take(), back) {
                self.text = typed;
                self.end();
            }
            return;
        };
        let Some(line) = lines.get(next) else { return };
        let typed = match self.earlier.take() {
            Some((_, typed)) => typed,
            None => std::mem::take(&mut self.text),
        };
        self.earlier = Some((next, typed));
        self.text = line.chars().collect();
        self.end();
    }

    /// Completes the name before the cursor; where several fit, as far as they agree.
    pub fn complete(&mut self) {
        let before = self.text.get(..self.cursor).unwrap_or_default();
        let is_name = |ch: &&char| ch.is_ascii_alphanumeric() || matches!(ch, '.' | '_');
        let len = before.iter().rev().take_while(is_name).count();
        let start = self.cursor - len;
        let begun: String = self.text.iter().skip(start).take(len).collect();
        let offers = completions(&begun);
        let Some(first) = offers.first() else {
            self.offers.clear();
            return;
        };
        let common = offers.iter().fold(first.len(), |common, other| {
            let same = first.bytes().zip(other.bytes());
            common.min(same.take_while(|(a, b)| a == b).count())
        });
        let added = first.get(begun.len()..common).unwrap_or_default();
        let added: Vec<char> = added.chars().collect();
        let is_whole = offers.len() == 1;
        for ch in added {
            self.insert(ch);
        }
        if is_whole {
            self.insert(' ');
        } else {
            self.offers = offers;
        }
    }

    /// What is wrong with it as a filter.
    pub fn fault(&self) -> Option<ParseError> {
        match self.ask {
            Ask::Filter => Filter::parse(&self.line()).err(),
            Ask::Search | Ask::Save(..) => None,
        }
    }
}

/// Names that begin so: fields by their own and their shorter names, words, protocols.
fn completions(begun: &str) -> Vec<&'static str> {
    let fields = FIELDS
        .iter()
        .flat_map(|row| std::iter::once(row.name).chain(row.also.iter().copied()));
    let words = WORDS.iter().map(|entry| entry.name);
    let protocols = Protocol::ALL.iter().map(|protocol| protocol.name());
    let mut found: Vec<&'static str> = fields
        .chain(words)
        .chain(protocols)
        .filter(|name| name.starts_with(begun))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Remembers a line that was entered.
pub fn remember(lines: &mut Vec<String>, line: &str) {
    lines.retain(|known| known != line);
    if !line.trim().is_empty() {
        lines.push(line.to_owned());
    }
    if lines.len() > MAX_EARLIER {
        lines.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Prompt {
        let mut prompt = Prompt::new(Ask::Filter, "");
        text.chars().for_each(|ch| prompt.insert(ch));
        prompt
    }

    #[test]
    fn names_are_completed_as_far_as_they_are_known() {
        let mut prompt = typed("status >= 500 and http.ho");
        prompt.complete();
        assert_eq!(prompt.line(), "status >= 500 and http.host ");
        let mut prompt = typed("http.req.");
        prompt.complete();
        assert_eq!(prompt.line(), "http.req.");
        assert_eq!(
            prompt.offers,
            ["http.req.body", "http.req.header", "http.req.size"]
        );
        let mut prompt = typed("zzz");
        prompt.complete();
        assert_eq!(prompt.line(), "zzz");
    }

    #[test]
    fn the_line_is_edited_in_the_middle_and_by_words() {
        let mut prompt = typed("method == GET");
        prompt.delete_word();
        assert_eq!(prompt.line(), "method == ");
        prompt.home();
        prompt.delete();
        prompt.right();
        prompt.backspace();
        assert_eq!(prompt.line(), "thod == ");
        prompt.end();
        prompt.delete_to_start();
        assert_eq!(prompt.line(), "");
        prompt.backspace();
        prompt.left();
        prompt.delete_word();
        assert_eq!(prompt.cursor, 0);
    }

    #[test]
    fn earlier_lines_come_back_and_what_was_typed_is_not_lost() {
        let mut lines = Vec::new();
        for line in ["pid 1", "pid 2", "pid 1", ""] {
            remember(&mut lines, line);
        }
        assert_eq!(lines, ["pid 2", "pid 1"]);
        let mut prompt = typed("typed");
        for (back, wanted) in [
            (true, "pid 1"),
            (true, "pid 2"),
            (true, "pid 2"),
            (false, "pid 1"),
            (false, "typed"),
            (false, "typed"),
        ] {
            prompt.earlier(&lines, back);
            assert_eq!(prompt.line(), wanted);
        }
    }

    #[test]
    fn a_fault_is_known_while_it_is_typed() {
        assert!(typed("status >= ").fault().is_some());
        assert!(typed("status >= 500").fault().is_none());
        assert!(typed("").fault().is_none());
    }
}
