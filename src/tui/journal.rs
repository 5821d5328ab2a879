//! What the program has to say while the screen is the user interface's: kept, the newest shown in
//! the status line, and all printed when the screen is the shell's again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that are kept; beyond, the oldest are only counted.
const MAX: usize = 1000;

#[derive(Debug)]
struct Journal {
    is_open: bool,
    lines: VecDeque<String>,
    left_out: u64,
    /// Counts lines.
    count: u64,
}

static JOURNAL: Mutex<Journal> = Mutex::new(Journal {
    is_open: false,
    lines: VecDeque::new(),
    left_out: 0,
    count: 0,
});

fn journal() -> MutexGuard<'static, Journal> {
    // Whoever panicked has left whole lines.
    JOURNAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on lines are kept.
pub fn open() {
    journal().is_open = true;
}

/// Takes a harmless line, if the screen is ours; else the caller prints it.
pub fn take(line: &str) -> bool {
    let mut journal = journal();
    if journal.is_open {
        journal.count += 1;
        journal.lines.push_back(line.to_owned());
        if journal.lines.len() > MAX {
            journal.lines.pop_front();
            journal.left_out += 1;
        }
    }
    journal.is_open
}

/// How many lines there were, and the newest.
pub fn last() -> (u64, Option<String>) {
    let journal = journal();
    (journal.count, journal.lines.back().cloned())
}

/// The newest lines, the newest last.
pub fn newest(most: usize) -> Vec<String> {
    let journal = journal();
    let skipped = journal.lines.len().saturating_sub(most);
    journal.lines.iter().skip(skipped).cloned().collect()
}

/// The screen is the shell's again: all lines, for standard error.
pub fn close() -> Vec<String> {
    let mut journal = journal();
    journal.is_open = false;
    let mut lines: Vec<String> = Vec::new();
    if journal.left_out > 0 {
        lines.push(format!(
            "({} older messages are left out)",
            journal.left_out
        ));
    }
    lines.extend(journal.lines.drain(..));
    journal.left_out = 0;
    lines
}
