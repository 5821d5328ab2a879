//! In which order the list shows the exchanges.

use super::exchange::Exchange;
use super::history::History;
use super::row::{self, Column};

/// Oldest first, or by a column.
#[derive(Clone, Debug, Default)]
pub struct Order {
    column: Option<Column>,
    is_turned: bool,
    /// The numbers in that order; not used while it is that of time.
    sorted: Vec<u64>,
}

/// What `o` goes through.
const CYCLE: [Option<Column>; 7] = [
    None,
    Some(Column::Latency),
    Some(Column::Size),
    Some(Column::Status),
    Some(Column::Process),
    Some(Column::Host),
    Some(Column::Method),
];

impl Order {
    pub fn column(&self) -> Column {
        self.column.unwrap_or(Column::Time)
    }

    pub fn is_turned(&self) -> bool {
        self.is_turned
    }

    pub fn is_by_time(&self) -> bool {
        self.column.is_none() && !self.is_turned
    }

    /// By the next column.
    pub fn cycle(&mut self) {
        let at = CYCLE.iter().position(|column| *column == self.column);
        let next = (at.unwrap_or(0) + 1) % CYCLE.len();
        self.column = CYCLE.get(next).copied().flatten();
        self.is_turned = false;
    }

    pub fn turn(&mut self) {
        self.is_turned = !self.is_turned;
    }

    /// Orders anew what is shown now.
    pub fn refresh(&mut self, history: &History, paused_at: Option<u64>) {
        let shown = history.shown();
        self.sorted.clear();
        if self.is_by_time() {
            return;
        }
        let end = paused_at.unwrap_or(u64::MAX);
        self.sorted
            .extend(shown.iter().filter(|&&number| number < end));
        let of = |number: &u64| history.get(*number);
        match self.column {
            None => {}
            // The slowest and largest are what is looked for.
            Some(Column::Latency) => self.sorted.sort_by_cached_key(|number| {
                std::cmp::Reverse(of(number).and_then(Exchange::latency))
            }),
            Some(Column::Size) => self
                .sorted
                .sort_by_cached_key(|number| std::cmp::Reverse(of(number).map(Exchange::size))),
            Some(Column::Status) => self.sorted.sort_by_cached_key(|number| {
                std::cmp::Reverse(of(number).and_then(Exchange::status))
            }),
            Some(column) => self
                .sorted
                .sort_by_cached_key(|number| of(number).map(|row| row::cell(row, column).0)),
        }
        if self.is_turned {
            self.sorted.reverse();
        }
    }

    pub fn len(&self, history: &History, paused_at: Option<u64>) -> usize {
        let shown = history.shown();
        match (self.is_by_time(), paused_at) {
            (true, None) => shown.len(),
            (true, Some(end)) => shown.partition_point(|&number| number < end),
            (false, _) => self.sorted.len(),
        }
    }

    pub fn get(&self, history: &History, row: usize) -> Option<u64> {
        match self.is_by_time() {
            true => history.shown().get(row).copied(),
            false => self.sorted.get(row).copied(),
        }
    }

    /// The row of an exchange, or the one where it would be.
    pub fn position(&self, history: &History, number: u64) -> Option<Result<usize, usize>> {
        match self.is_by_time() {
            true => Some(history.shown().binary_search(&number)),
            false => {
                let row = self.sorted.iter().position(|&other| other == number);
                row.map(Ok)
            }
        }
    }
}
