//! Counts and times by host and status, and how many exchanges each of the last seconds had.

use super::exchange::{Exchange, Stage};
use crate::event::Nanos;
use crate::sink::stats::Times;
use std::collections::{BTreeMap, VecDeque};

/// Rows that are told apart; what comes later is counted together.
const MAX_ROWS: usize = 1000;
/// Seconds that are remembered.
pub const SECONDS: usize = 60;

/// Exchanges in each of the last seconds, the newest last.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    second: u64,
    counts: VecDeque<u64>,
}

impl Rate {
    fn add(&mut self, ts: Nanos) {
        self.move_to(ts / 1_000_000_000);
        if let Some(last) = self.counts.back_mut() {
            *last += 1;
        }
    }

    fn move_to(&mut self, second: u64) {
        if self.counts.is_empty() {
            self.second = second;
            self.counts.push_back(0);
        }
        let missing = second.saturating_sub(self.second);
        for _ in 0..missing.min(SECONDS as u64) {
            self.counts.push_back(0);
        }
        self.second = self.second.max(second);
        while self.counts.len() > SECONDS {
            self.counts.pop_front();
        }
    }

    /// The counts up to this second.
    pub fn until(&self, second: u64) -> Vec<u64> {
        let mut moved = self.clone();
        moved.move_to(second);
        moved.counts.into()
    }
}

/// Of one host and status.
#[derive(Debug, Default)]
pub struct Row {
    pub count: u64,
    pub times: Times,
    pub rate: Rate,
}

/// Everything since the start.
#[derive(Debug, Default)]
pub struct Summary {
    rows: BTreeMap<(String, String), Row>,
    pub all: Rate,
    /// The newest second in which anything ended.
    pub second: u64,
    pub count: u64,
}

impl Summary {
    /// An exchange has ended.
    pub fn add(&mut self, exchange: &Exchange) {
        let status = match (exchange.stage, exchange.status()) {
            (Stage::Unanswered, _) => "none".to_owned(),
            (_, Some(status)) => status.to_string(),
            (_, None) if exchange.is_bytes() => "bytes".to_owned(),
            (_, None) => "-".to_owned(),
        };
        let mut key = (exchange.host(), status);
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&key) {
            key.0 = "(others)".to_owned();
        }
        let end = exchange.end();
        let row = self.rows.entry(key).or_default();
        row.count += 1;
        row.rate.add(end);
        if let Some(time) = exchange.latency() {
            row.times.add(time);
        }
        self.all.add(end);
        self.second = self.second.max(end / 1_000_000_000);
        self.count += 1;
    }

    /// Host, status and what is known of them, the most frequent first.
    pub fn rows(&self) -> Vec<(&str, &str, &Row)> {
        let rows = self.rows.iter();
        let mut rows: Vec<_> = rows
            .map(|((host, status), row)| (host.as_str(), status.as_str(), row))
            .collect();
        rows.sort_by_key(|(_, _, row)| std::cmp::Reverse(row.count));
        rows
    }

    /// Exchanges in the last whole second.
    pub fn per_second(&self, second: u64) -> u64 {
        let counts = self.all.until(second);
        counts.iter().rev().nth(1).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_place_and_old_ones_go() {
        let mut rate = Rate::default();
        for second in [100u64, 100, 102, 200] {
            rate.add(second * 1_000_000_000);
        }
        let counts = rate.until(201);
        assert_eq!(counts.len(), SECONDS);
        assert_eq!(counts.iter().sum::<u64>(), 1);
        assert_eq!(counts[SECONDS - 2..], [1, 0]);
    }
}
