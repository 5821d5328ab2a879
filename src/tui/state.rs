//! What is looked at, and what each wish of the user does to it. No terminal, no drawing.

use super::conns::Conns;
use super::details::{self, Tab};
use super::exchange::Exchange;
use super::history::{Bounds, History};
use super::order::Order;
use super::processes::Processes;
use super::prompt::Prompt;
use super::summary::Summary;
use super::text::{Line, Look};
use crate::discovery::listing::Row;
use crate::event::Totals;
use crate::filter::Filter;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Exchanges,
    Connections,
    Processes,
    Summary,
}

impl View {
    pub const ALL: [View; 4] = [
        View::Exchanges,
        View::Connections,
        View::Processes,
        View::Summary,
    ];

    pub fn title(self) -> &'static str {
        match self {
            View::Exchanges => "Exchanges",
            View::Connections => "Connections",
            View::Processes => "Processes",
            View::Summary => "Summary",
        }
    }
}

/// What lies over the panes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    Help,
    /// Forms to save the exchange of this number in.
    Export(u64),
    /// Filters to choose from, and which one is chosen.
    Filters(Vec<String>, usize),
    /// The newest messages of the program.
    Messages,
}

/// Where what is looked at comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Live,
    /// A capture that has ended, or a file that was read to its end.
    Ended,
    /// A file that is being read.
    Reading,
}

/// A table of rows with a chosen one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    pub at: usize,
    pub top: usize,
}

impl Cursor {
    /// Keeps both within `len` rows, and the chosen one among the `height` that are shown.
    pub fn fit(&mut self, len: usize, height: usize) {
        self.at = self.at.min(len.saturating_sub(1));
        self.top = self.top.min(self.at);
        if height > 0 && self.at >= self.top + height {
            self.top = self.at + 1 - height;
        }
        // No empty space below while there is something above.
        self.top = self.top.min(len.saturating_sub(height));
    }

    fn step(&mut self, by: isize, len: usize) {
        self.at = self.at.saturating_add_signed(by).min(len.saturating_sub(1));
    }
}

/// The lines of the details that are shown.
#[derive(Debug)]
pub struct Shown {
    key: (u64, Tab, usize, usize),
    pub lines: Vec<Line>,
}

/// Everything that is drawn.
#[allow(missing_debug_implementations)] // closures
pub struct State {
    pub history: History,
    pub conns: Conns,
    pub summary: Summary,
    pub processes: Processes,
    pub totals: Totals,
    pub source: Source,
    pub color: bool,
    pub ascii: bool,

    pub view: View,
    pub order: Order,
    /// The chosen exchange, and where in the list it stands.
    pub selected: Option<u64>,
    pub list: Cursor,
    pub follows: bool,
    /// While paused: exchanges from this number on are not shown.
    pub paused_at: Option<u64>,
    pub has_details: bool,
    pub in_details: bool,
    pub zoomed: bool,
    pub wraps: bool,
    pub tab: Tab,
    pub detail: Cursor,
    /// Columns that the details are moved to the left.
    pub shift: usize,
    pub shown: Option<Shown>,
    /// The chosen rows of the other views.
    pub others: [Cursor; 3],
    pub over: Option<Over>,
    pub prompt: Option<Prompt>,
    /// The filter in the words of the user.
    pub filter: String,
    /// That of the command line: nothing else is kept.
    pub kept: Option<String>,
    pub filters: Vec<String>,
    pub searches: Vec<String>,
    pub needle: String,
    /// Stays until the next key.
    pub notice: Option<(String, Look)>,
    /// The newest message of the program, which stays until a key was pressed.
    pub message: Option<String>,
    /// Rows that the last picture had room for.
    pub page: usize,
    pub wants_end: bool,
}

impl State {
    pub fn new(bounds: Bounds, kept: Option<Filter>, processes: Processes) -> State {
        let kept_words = kept.as_ref().map(|filter| filter.words().to_owned());
        State {
            history: History::new(bounds, kept),
            conns: Conns::default(),
            summary: Summary::default(),
            processes,
            totals: Totals::default(),
            source: Source::Live,
            color: true,
            ascii: false,
            view: View::Exchanges,
            order: Order::default(),
            selected: None,
            list: Cursor::default(),
            follows: true,
            paused_at: None,
            has_details: false,
            in_details: false,
            zoomed: false,
            wraps: true,
            tab: Tab::default(),
            detail: Cursor::default(),
            shift: 0,
            shown: None,
            others: [Cursor::default(); 3],
            over: None,
            prompt: None,
            filter: String::new(),
            kept: kept_words,
            filters: Vec::new(),
            searches: Vec::new(),
            needle: String::new(),
            notice: None,
            message: None,
            page: 10,
            wants_end: false,
        }
    }

    /// The second up to which rates are told.
    pub fn now_second(&self) -> u64 {
        match self.source {
            Source::Live => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            Source::Reading | Source::Ended => self.summary.second,
        }
    }

    /// How many exchanges the list has.
    pub fn len(&self) -> usize {
        self.order.len(&self.history, self.paused_at)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the exchange in a row of the list.
    pub fn number_at(&self, row: usize) -> Option<u64> {
        self.order.get(&self.history, row)
    }

    pub fn selected(&self) -> Option<(u64, &Exchange)> {
        let number = self.selected?;
        Some((number, self.history.get(number)?))
    }

    /// Finds the chosen exchange again, after others have come and gone.
    pub fn settle(&mut self, height: usize) {
        self.page = height.max(1);
        self.order.refresh(&self.history, self.paused_at);
        let len = self.len();
        if self.follows && self.paused_at.is_none() {
            // The newest, wherever the order has put it.
            let newest = match self.order.is_by_time() {
                true => len.checked_sub(1),
                false => Some(0).filter(|_| len > 0),
            };
            self.selected = newest.and_then(|row| self.number_at(row));
        }
        let place = self
            .selected
            .and_then(|number| self.order.position(&self.history, number));
        match place {
            Some(Ok(row)) => {
                // The rows above have gone, not the view.
                let moved = row as isize - self.list.at as isize;
                self.list.top = self.list.top.saturating_add_signed(moved);
                self.list.at = row;
            }
            Some(Err(row)) => self.list.at = row,
            None => {}
        }
        self.list.fit(len, height);
        if !matches!(place, Some(Ok(_))) {
            self.selected = self.number_at(self.list.at);
        }
    }

    /// Chooses the row of the list.
    pub fn select(&mut self, row: usize) {
        let row = row.min(self.len().saturating_sub(1));
        self.list.at = row;
        self.selected = self.number_at(row);
        self.reset_details();
    }

    fn reset_details(&mut self) {
        self.detail = Cursor::default();
        self.shift = 0;
    }

    /// Moves the cursor of what is looked at.
    pub fn step(&mut self, by: isize) {
        match self.view {
            View::Exchanges if self.in_details => {
                let len = self.shown.as_ref().map_or(0, |shown| shown.lines.len());
                self.detail.step(by, len);
            }
            View::Exchanges => {
                let last = self.len().saturating_sub(1);
                let row = self.list.at.saturating_add_signed(by).min(last);
                if by < 0 {
                    self.follows = false;
                }
                self.select(row);
            }
            view => {
                let len = self.rows_of(view);
                if let Some(cursor) = self.other_mut(view) {
                    cursor.step(by, len);
                }
            }
        }
    }

    pub fn rows_of(&self, view: View) -> usize {
        match view {
            View::Exchanges => self.len(),
            View::Connections => self.conns.len(),
            View::Processes => self.listed().len(),
            View::Summary => self.summary.rows().len(),
        }
    }

    /// The processes: those that are there, then those that were seen and are no more.
    pub fn listed(&self) -> Vec<(u32, Option<&Row>)> {
        let rows = &self.processes.rows;
        let there: BTreeSet<u32> = rows.iter().map(|row| row.pid).collect();
        let gone = self.conns.procs().keys().filter(|pid| !there.contains(pid));
        let rows = rows.iter().map(|row| (row.pid, Some(row)));
        rows.chain(gone.map(|pid| (*pid, None))).collect()
    }

    pub fn other_mut(&mut self, view: View) -> Option<&mut Cursor> {
        let [conns, processes, summary] = &mut self.others;
        match view {
            View::Exchanges => None,
            View::Connections => Some(conns),
            View::Processes => Some(processes),
            View::Summary => Some(summary),
        }
    }

    /// Changes the order: what is first in it is what is looked for.
    pub fn reorder(&mut self, change: fn(&mut Order)) {
        change(&mut self.order);
        self.follows = false;
        self.selected = None;
        self.list = Cursor::default();
        self.reset_details();
    }

    pub fn follow(&mut self, follows: bool) {
        self.follows = follows;
        if follows {
            self.paused_at = None;
        }
    }

    pub fn pause(&mut self) {
        self.paused_at = match self.paused_at {
            None => Some(self.history.next()),
            Some(_) => None,
        };
    }

    pub fn open(&mut self) {
        if self.selected.is_some() {
            self.has_details = true;
            self.in_details = true;
            self.follows = false;
        }
    }

    /// One step back: what lies above all others goes.
    pub fn back(&mut self) {
        if self.view != View::Exchanges {
            self.view = View::Exchanges;
        } else if self.zoomed && self.in_details {
            self.zoomed = false;
        } else if self.has_details {
            self.has_details = false;
            self.in_details = false;
        } else if !self.filter.is_empty() {
            self.set_filter("");
        }
    }

    pub fn turn_tab(&mut self, back: bool) {
        if self.view == View::Exchanges && self.has_details {
            if !self.in_details {
                self.in_details = true;
                return;
            }
            self.tab = self.tab.next(back);
            self.reset_details();
        } else {
            let at = View::ALL.iter().position(|view| *view == self.view);
            let step = if back { View::ALL.len() - 1 } else { 1 };
            let next = (at.unwrap_or(0) + step) % View::ALL.len();
            self.view = View::ALL.get(next).copied().unwrap_or(View::Exchanges);
        }
    }

    pub fn clear(&mut self) {
        self.history.clear();
        self.summary = Summary::default();
        self.selected = None;
        self.list = Cursor::default();
        self.paused_at = None;
        self.has_details = false;
        self.in_details = false;
        self.shown = None;
    }

    pub fn mark(&mut self) {
        if let Some(number) = self.selected {
            self.history
                .change(number, |row| row.is_marked = !row.is_marked);
        }
    }

    pub fn show_only_marked(&mut self) {
        let only = !self.history.only_marked();
        self.history.set_only_marked(only);
    }

    /// Sees to it that the lines of the details are those of the chosen exchange.
    pub fn refresh_details(&mut self) {
        let tab = self.tab;
        let Some((number, exchange)) = self.selected() else {
            self.shown = None;
            return;
        };
        let key = (number, tab, exchange.weight(), exchange.stage as usize);
        if self.shown.as_ref().is_some_and(|shown| shown.key == key) {
            return;
        }
        let lines = details::of(exchange, tab);
        self.shown = Some(Shown { key, lines });
    }
}
