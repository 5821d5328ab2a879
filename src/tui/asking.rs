//! What is asked of the user: filters, what to search for, where to save.

use super::export::{self, Form};
use super::prompt::{self, Ask, Prompt};
use super::row;
use super::state::{Over, State, View};
use super::text::Look;
use crate::filter::Filter;
use std::path::Path;

impl State {
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
                let listed = self.listed();
                let (pid, _) = listed.get(processes.at)?;
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
}
