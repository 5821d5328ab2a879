//! Counts exchanges by host, and prints a table when the capture ends (`--stats`).

use super::{Sink, escape};
use crate::event::{Conn, Event, Nanos, Totals};
use crate::proto::message::Subject;
use crate::proto::{Message, Part};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::io::Write;

/// Hosts that are told apart; what comes later is counted together.
const MAX_HOSTS: usize = 1000;
/// Steps of a factor of two that each bucket of times is divided into: an error of at most 9 %.
const STEPS: u64 = 8;

/// Counts of one host.
#[derive(Debug, Default)]
struct Row {
    requests: u64,
    unanswered: u64,
    /// Responses by the hundreds of their status: 1xx to 5xx, and others at 0.
    classes: [u64; 6],
    times: Times,
}

/// Times in buckets whose width grows with them.
#[derive(Debug)]
pub struct Times {
    counts: Vec<u64>,
    count: u64,
    longest: Nanos,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            counts: vec![0; 64 * STEPS as usize],
            count: 0,
            longest: 0,
        }
    }
}

fn bucket(time: Nanos) -> usize {
    let time = time.max(STEPS);
    let log = u64::from(time.ilog2());
    let step = (time >> (log - u64::from(STEPS.ilog2()))) - STEPS;
    usize::try_from(log * STEPS + step).unwrap_or(0)
}

/// The first time that belongs to the next bucket.
fn end_of(bucket: usize) -> Nanos {
    let bucket = bucket as u64 + 1;
    let (log, step) = (bucket / STEPS, bucket % STEPS);
    let shift = log.saturating_sub(STEPS.ilog2().into());
    (STEPS + step).saturating_mul(1 << shift.min(63))
}

impl Times {
    pub fn add(&mut self, time: Nanos) {
        if let Some(count) = self.counts.get_mut(bucket(time)) {
            *count += 1;
        }
        self.count += 1;
        self.longest = self.longest.max(time);
    }

    /// The time that so many percent do not exceed.
    pub fn quantile(&self, percent: u64) -> Option<Nanos> {
        let wanted = (self.count * percent).div_ceil(100);
        let mut sum = 0;
        for (at, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= wanted && wanted > 0 {
                return Some(end_of(at).min(self.longest));
            }
        }
        None
    }
}

/// Counts, and prints once.
#[derive(Debug)]
pub struct StatsSink<W: Write> {
    to: W,
    rows: HashMap<Vec<u8>, Row>,
}

impl<W: Write> StatsSink<W> {
    pub fn new(to: W) -> Self {
        StatsSink {
            to,
            rows: HashMap::new(),
        }
    }

    fn row(&mut self, host: &[u8]) -> &mut Row {
        let is_new = !self.rows.contains_key(host);
        let host = if is_new && self.rows.len() >= MAX_HOSTS {
            b"(others)".as_slice()
        } else {
            host
        };
        self.rows.entry(host.to_vec()).or_default()
    }

    fn table(&self) -> Vec<u8> {
        let mut rows: Vec<(&Vec<u8>, &Row)> = self.rows.iter().collect();
        rows.sort_by(|(a, x), (b, y)| y.requests.cmp(&x.requests).then(a.cmp(b)));
        let mut out = Vec::new();
        let _ = writeln!(
            out,
            "{:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}  HOST",
            "REQUESTS", "2xx", "3xx", "4xx", "5xx", "NONE", "p50", "p95", "p99", "MAX"
        );
        for (host, row) in rows {
            let class = |at: usize| row.classes.get(at).copied().unwrap_or(0);
            let time = |time: Option<Nanos>| match time {
                Some(time) => format!("{:.1}ms", time as f64 / 1e6),
                None => "-".to_owned(),
            };
            let _ = write!(
                out,
                "{:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}  ",
                row.requests,
                class(2),
                class(3),
                class(4),
                class(5),
                row.unanswered,
                time(row.times.quantile(50)),
                time(row.times.quantile(95)),
                time(row.times.quantile(99)),
                time((row.times.count > 0).then_some(row.times.longest)),
            );
            escape::token(&mut out, host);
            out.push(b'\n');
        }
        out
    }
}

impl<W: Write> Sink for StatsSink<W> {
    fn event(&mut self, _event: &Event<'_>) -> Result<()> {
        Ok(())
    }

    fn message(&mut self, conn: &Conn, message: &Message) -> Result<()> {
        let host = match message.request().and_then(|http| http.host.as_deref()) {
            Some(host) => host.to_vec(),
            None => match (&conn.sni, conn.transport.addrs()) {
                (Some(sni), _) => sni.clone().into_bytes(),
                (None, Some((_, remote))) => remote.to_string().into_bytes(),
                (None, None) => b"?".to_vec(),
            },
        };
        let row = self.row(&host);
        match (message.part, &*message.subject) {
            (Part::Request, _) => row.requests += 1,
            (Part::Unanswered, _) => row.unanswered += 1,
            (Part::Single, _) => {}
            (Part::Response, subject) => {
                let status = match subject {
                    Subject::Http(http) => http.status.unwrap_or(0),
                    Subject::Line(_) => 200,
                };
                if let Some(count) = row.classes.get_mut(usize::from(status / 100)) {
                    *count += 1;
                }
                if let Some(time) = message.elapsed().filter(|_| status >= 200) {
                    row.times.add(time);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, _totals: &Totals) -> Result<()> {
        let table = self.table();
        self.to.write_all(&table).context("print the statistics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let mut times = Times::default();
        for ms in 1..=1000u64 {
            times.add(ms * 1_000_000);
        }
        for (percent, wanted) in [(50, 500.0), (95, 950.0), (99, 990.0), (100, 1000.0)] {
            let got = times.quantile(percent).unwrap() as f64 / 1e6;
            assert!((wanted..wanted * 1.13).contains(&got), "{percent}: {got}");
        }
        assert_eq!(Times::default().quantile(50), None);
    }

    #[test]
    fn every_time_has_a_bucket_that_ends_behind_it() {
        for time in [0, 1, 7, 8, 9, 1000, 1 << 40, u64::MAX - 1] {
            let bucket = bucket(time);
            assert!(bucket < 64 * STEPS as usize, "{time}");
            assert!(end_of(bucket) > time, "{time}: {}", end_of(bucket));
        }
    }
}
