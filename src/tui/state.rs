//! What is looked at, and what each wish of the user does to it. No terminal, no drawing.

use super::conns::Conns;
use super::details::{self, Tab};
use super::exchange::Exchange;
use super::export::{self, Form};
use super::history::{Bounds, History};
use super::order::Order;
use super::processes::Processes;
use super::prompt::{self, Ask, Prompt};
use super::row;
use super::summary::Summary;
use super::text::{Line, Look};
use crate::event::Totals;
use crate::filter::Filter;
use std::path::Path;
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
    searches: Vec<String>,
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
            View::Processes if self.processes.is_live => self.processes.rows.len(),
            View::Processes => self.conns.procs().len(),
            View::Summary => self.summary.rows().len(),
        }
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

    /// Compiles and uses the filter; `false` if it is wrong.
    pub fn set_filter(&mut self, words: &str) -> bool {
        let filter = match Filter::parse(words) {
            Ok(filter) => Some(filter).filter(|_| !words.trim().is_empty()),
            Err(error) => {
                self.notice = Some((error.to_string(), Look::Bad));
                return false;
            }
        };
        self.filter = words.trim().to_owned();
        prompt::remember(&mut self.filters, &self.filter);
        self.history.set_filter(filter);
        self.view = View::Exchanges;
        true
    }

    /// Adds a comparison to the filter.
    pub fn narrow(&mut self, term: &str, is_negated: bool) {
        let term = match is_negated {
            true => format!("not {term}"),
            false => term.to_owned(),
        };
        let words = match self.filter.as_str() {
            "" => term,
            // `or` binds less tightly.
            known if known.contains(" or ") || known.contains("||") => {
                format!("({known}) and {term}")
            }
            known => format!("{known} and {term}"),
        };
        self.set_filter(&words);
    }

    /// Asks which value of what is looked at becomes a filter, or takes the only one.
    pub fn choose_filter(&mut self, is_negated: bool) {
        if self.view == View::Exchanges && !self.in_details {
            if let Some((_, exchange)) = self.selected() {
                let filters = row::filters(exchange);
                let filters = match is_negated {
                    true => filters.iter().map(|one| format!("not {one}")).collect(),
                    false => filters,
                };
                self.over = Some(Over::Filters(filters, 0));
            }
            return;
        }
        match self.filter_here() {
            Some(filter) => self.narrow(&filter, is_negated),
            None => {
                let notice = "there is no value here that a filter can look for";
                self.notice = Some((notice.to_owned(), Look::Warning));
            }
        }
    }

    /// What would filter for what the cursor is on.
    pub fn filter_here(&self) -> Option<String> {
        let [conns, processes, summary] = self.others;
        match self.view {
            View::Exchanges => {
                let shown = self.shown.as_ref()?;
                shown.lines.get(self.detail.at)?.filter.clone()
            }
            View::Connections => {
                let seen = self.conns.all().rev().nth(conns.at)?;
                Some(format!("conn.id == {}", seen.conn.id))
            }
            View::Processes => {
                let pid = match self.processes.is_live {
                    true => self.processes.rows.get(processes.at)?.pid,
                    false => *self.conns.procs().keys().nth(processes.at)?,
                };
                Some(format!("pid == {pid}"))
            }
            View::Summary => {
                let rows = self.summary.rows();
                let (host, status, _) = rows.get(summary.at)?;
                let host = super::text::compare("host", host.as_bytes());
                let status = status.parse::<u16>().ok();
                let status = status.map(|status| format!("status == {status}"));
                match (host, status) {
                    (Some(host), Some(status)) => Some(format!("{host} and {status}")),
                    (host, status) => host.or(status),
                }
            }
        }
    }

    pub fn ask(&mut self, ask: Ask) {
        let text = match ask {
            Ask::Filter => match self.filter.as_str() {
                "" => String::new(),
                filter => format!("{filter} "),
            },
            Ask::Search => String::new(),
            Ask::Save(form, number) => form.default_name(number),
        };
        self.prompt = Some(Prompt::new(ask, &text));
    }

    /// Brings earlier lines back into the prompt.
    pub fn earlier(&mut self, back: bool) {
        let Some(prompt) = &mut self.prompt else {
            return;
        };
        match prompt.ask {
            Ask::Filter => prompt.earlier(&self.filters, back),
            Ask::Search => prompt.earlier(&self.searches, back),
            Ask::Save(..) => {}
        }
    }

    /// The line of the prompt is as it should be.
    pub fn enter(&mut self) {
        let Some(prompt) = self.prompt.take() else {
            return;
        };
        let line = prompt.line();
        match prompt.ask {
            Ask::Filter => {
                if prompt.fault().is_some() {
                    self.prompt = Some(prompt);
                } else {
                    self.set_filter(&line);
                }
            }
            Ask::Search => {
                prompt::remember(&mut self.searches, &line);
                if !line.is_empty() {
                    self.needle = line;
                }
                self.find(false);
            }
            Ask::Save(form, number) => self.save(form, number, &line),
        }
    }

    fn save(&mut self, form: Form, number: u64, path: &str) {
        let result = match self.history.get(number) {
            Some(exchange) => export::save(exchange, form, Path::new(path)),
            None => Err(anyhow::anyhow!("the exchange is not kept any more")),
        };
        self.notice = Some(match result {
            Ok(bytes) => (format!("{path}: {bytes} bytes"), Look::Good),
            Err(error) => (format!("{error:#}"), Look::Bad),
        });
    }

    /// Goes to the next, or the one before, that has the needle in it.
    pub fn find(&mut self, back: bool) {
        if self.needle.is_empty() {
            self.ask(Ask::Search);
            return;
        }
        let needle = self.needle.to_lowercase();
        let is_in = |text: String| text.to_lowercase().contains(&needle);
        let in_details = self.in_details && self.view == View::Exchanges;
        let (at, len) = match (&self.shown, in_details) {
            (Some(shown), true) => (self.detail.at, shown.lines.len()),
            _ => (self.list.at, self.len()),
        };
        let step = |by: usize| match back {
            false => (at + by) % len.max(1),
            true => (at + len.max(1) - by) % len.max(1),
        };
        let found = (1..=len)
            .map(step)
            .find(|&row| match (&self.shown, in_details) {
                (Some(shown), true) => shown.lines.get(row).is_some_and(|line| is_in(line.plain())),
                _ => {
                    let number = self.number_at(row);
                    let exchange = number.and_then(|number| self.history.get(number));
                    let columns = [
                        row::Column::Method,
                        row::Column::Url,
                        row::Column::Status,
                        row::Column::Process,
                        row::Column::Type,
                    ];
                    exchange.is_some_and(|exchange| {
                        columns
                            .iter()
                            .any(|column| is_in(row::cell(exchange, *column).0))
                    })
                }
            });
        match found {
            Some(row) if in_details => self.detail.at = row,
            Some(row) => {
                self.view = View::Exchanges;
                self.follows = false;
                self.select(row);
            }
            None => {
                let notice = format!("not found: {}", self.needle);
                self.notice = Some((notice, Look::Warning));
            }
        }
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
