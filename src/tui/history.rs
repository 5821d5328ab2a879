//! The exchanges that are kept: the newest ones, within bounds, each request with its response.

use super::exchange::{Exchange, Stage, kept};
use crate::event::{Conn, Data, Event};
use crate::filter::Filter;
use crate::proto::message::Subject;
use crate::proto::{Message, Part};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Requests that do not pass by themselves and wait for a response with which they may.
const MAX_PENDING: usize = 4096;
/// Exchanges whose filter is decided between two looks at the clock.
const STEP: usize = 32;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub exchanges: usize,
    /// Of bodies, heads and other bytes, together.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            exchanges: 10_000,
            bytes: 64 << 20,
        }
    }
}

/// What a message has done to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    New(u64),
    /// A response has come, or will not.
    Ended(u64),
    None,
}

/// By what a response is recognised as that of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Connection and stream.
    Stream(u64, u32),
    /// The address of the request's subject, which is kept with the request, so that it means no
    /// other.
    Subject(*const Subject),
}

impl Key {
    fn new(conn: &Conn, message: &Message, subject: &Rc<Subject>) -> Key {
        match message.stream {
            Some(stream) => Key::Stream(conn.id, stream),
            None => Key::Subject(Rc::as_ptr(subject)),
        }
    }
}

/// The exchanges by their number, counted from 1, and which of them are shown.
#[derive(Debug)]
pub struct History {
    bounds: Bounds,
    rows: VecDeque<Exchange>,
    /// The number of the first one.
    first: u64,
    bytes: usize,
    /// Left out because there were too many.
    pub left_out: u64,
    /// Of requests without a response: the number.
    open: HashMap<Key, u64>,
    /// Of connections of no known protocol: the row that their bytes go into.
    raw: HashMap<u64, u64>,
    /// Numbers of those that pass the filter, in order.
    shown: VecDeque<u64>,
    filter: Option<Filter>,
    only_marked: bool,
    /// Others are not kept at all: the filter of the command line.
    kept: Option<Filter>,
    pending: HashMap<Key, Exchange>,
    /// The filter has yet to be asked about those from here up to there.
    undecided: std::ops::Range<u64>,
}

impl History {
    pub fn new(bounds: Bounds, kept: Option<Filter>) -> History {
        History {
            bounds,
            rows: VecDeque::new(),
            first: 1,
            bytes: 0,
            left_out: 0,
            open: HashMap::new(),
            raw: HashMap::new(),
            shown: VecDeque::new(),
            filter: None,
            only_marked: false,
            kept,
            pending: HashMap::new(),
            undecided: 0..0,
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// One behind the last number.
    pub fn next(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    pub fn get(&self, number: u64) -> Option<&Exchange> {
        let index = number.checked_sub(self.first)?;
        self.rows.get(usize::try_from(index).ok()?)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Exchange> {
        let index = number.checked_sub(self.first)?;
        self.rows.get_mut(usize::try_from(index).ok()?)
    }

    /// Numbers of those that pass the filter, in order.
    pub fn shown(&self) -> &VecDeque<u64> {
        &self.shown
    }

    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    pub fn only_marked(&self) -> bool {
        self.only_marked
    }

    /// Takes a message; the request of a response is completed by it.
    pub fn message(&mut self, conn: &Rc<Conn>, message: &Message) -> Change {
        let key = match message.part {
            Part::Response => message
                .asked
                .as_ref()
                .map(|asked| Key::new(conn, message, &asked.subject)),
            Part::Request | Part::Unanswered => Some(Key::new(conn, message, &message.subject)),
            Part::Single => None,
        };
        match (message.part, key) {
            (Part::Unanswered, Some(key)) => self.ends_by(key, conn, message, Stage::Unanswered),
            // What comes before the response itself (RFC 9110 section 15.2) does not end it.
            (Part::Response, Some(key)) if is_final(message) => {
                self.ends_by(key, conn, message, Stage::Done)
            }
            (Part::Response, Some(key)) => self.ends_by(key, conn, message, Stage::Open),
            (Part::Response, None) => self.push(Exchange::of_message(Rc::clone(conn), message)),
            (Part::Request | Part::Single, _) => {
                let exchange = Exchange::of_message(Rc::clone(conn), message);
                if let Some(key) = key
                    && !self.keeps(&exchange)
                {
                    if self.pending.len() >= MAX_PENDING {
                        self.pending.clear();
                    }
                    self.pending.insert(key, exchange);
                    return Change::None;
                }
                self.push_open(exchange, key)
            }
            (Part::Unanswered, None) => Change::None,
        }
    }

    /// An exchange whose end is recognised by the address of its request's subject.
    fn push_open(&mut self, exchange: Exchange, key: Option<Key>) -> Change {
        let change = self.push(exchange);
        if let (Change::New(number), Some(key)) = (change, key) {
            self.open.insert(key, number);
        }
        change
    }

    /// The end of a request, or what comes before it.
    fn ends_by(&mut self, key: Key, conn: &Rc<Conn>, message: &Message, stage: Stage) -> Change {
        let complete = |row: &mut Exchange| {
            row.stage = stage;
            row.response = Some(kept(message));
            row.conn = Rc::clone(conn);
        };
        if let Some(&number) = self.open.get(&key) {
            if stage != Stage::Open {
                self.open.remove(&key);
            }
            self.change(number, complete);
            return Change::Ended(number);
        }
        if let Some(mut row) = self.pending.remove(&key) {
            complete(&mut row);
            let key = Some(key).filter(|_| stage == Stage::Open);
            return match (self.keeps(&row), key) {
                (true, key) => self.push_open(row, key),
                (false, Some(key)) => {
                    self.pending.insert(key, row);
                    Change::None
                }
                (false, None) => Change::None,
            };
        }
        match message.part {
            Part::Response => self.push(Exchange::of_message(Rc::clone(conn), message)),
            _ => Change::None,
        }
    }

    fn keeps(&self, exchange: &Exchange) -> bool {
        let passes = |filter: &Filter| exchange.passes(filter);
        self.kept.as_ref().is_none_or(passes)
    }

    /// Takes bytes of no known protocol.
    pub fn bytes_of(&mut self, conn: &Rc<Conn>, event: &Event<'_>, data: &Data<'_>) -> Change {
        if let Some(&number) = self.raw.get(&conn.id)
            && let Some(row) = self.get_mut(number)
        {
            let before = row.weight();
            if row.takes(event, data) {
                let after = row.weight();
                self.bytes = (self.bytes + after).saturating_sub(before);
                self.decide(number);
                self.make_room();
                return Change::Ended(number);
            }
        }
        let change = self.push(Exchange::of_bytes(Rc::clone(conn), event, data));
        if let Change::New(number) = change {
            self.raw.insert(conn.id, number);
        }
        change
    }

    /// The connection has ended.
    pub fn closed(&mut self, conn: u64) {
        self.raw.remove(&conn);
    }

    fn push(&mut self, exchange: Exchange) -> Change {
        if !self.keeps(&exchange) {
            return Change::None;
        }
        let number = self.next();
        self.bytes += exchange.weight();
        self.rows.push_back(exchange);
        self.decide(number);
        self.make_room();
        Change::New(number)
    }

    /// Changes one, whose weight may change with it.
    pub fn change(&mut self, number: u64, change: impl FnOnce(&mut Exchange)) {
        let Some(row) = self.get_mut(number) else {
            return;
        };
        let before = row.weight();
        change(row);
        let after = row.weight();
        self.bytes = (self.bytes + after).saturating_sub(before);
        self.decide(number);
        self.make_room();
    }

    /// The oldest go first.
    fn make_room(&mut self) {
        let Bounds { exchanges, bytes } = self.bounds;
        while self.rows.len() > exchanges.max(1) || self.bytes > bytes && self.rows.len() > 1 {
            self.drop_first();
            self.left_out += 1;
        }
    }

    fn drop_first(&mut self) {
        let Some(row) = self.rows.pop_front() else {
            return;
        };
        let number = self.first;
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(row.weight());
        if let Some(request) = &row.request {
            let key = Key::new(&row.conn, request, &request.subject);
            if self.open.get(&key) == Some(&number) {
                self.open.remove(&key);
            }
        }
        if row.is_bytes() && self.raw.get(&row.conn.id) == Some(&number) {
            self.raw.remove(&row.conn.id);
        }
        if self.shown.front() == Some(&number) {
            self.shown.pop_front();
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        let next = self.next();
        let (filter, kept) = (self.filter.take(), self.kept.take());
        *self = History {
            first: next,
            filter,
            only_marked: self.only_marked,
            ..History::new(self.bounds, kept)
        };
    }

    /// From now on those are shown that pass; [`History::work`] finds them.
    pub fn set_filter(&mut self, filter: Option<Filter>) {
        self.filter = filter;
        self.decide_anew();
    }

    pub fn set_only_marked(&mut self, only_marked: bool) {
        self.only_marked = only_marked;
        self.decide_anew();
    }

    fn decide_anew(&mut self) {
        self.shown.clear();
        self.undecided = self.first..self.next();
    }

    /// Whether there is work left.
    pub fn is_busy(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Asks the filter about those that were there before it, the newest first, for so long: bodies
    /// may be large, and the capture must go on.
    pub fn work(&mut self, time: Duration) {
        let begin = Instant::now();
        while !self.undecided.is_empty() && begin.elapsed() < time {
            for _ in 0..STEP {
                if self.undecided.is_empty() {
                    return;
                }
                self.undecided.end -= 1;
                self.decide(self.undecided.end);
            }
        }
        if self.undecided.end <= self.first {
            self.undecided = 0..0;
        }
    }

    /// Shows it or not.
    fn decide(&mut self, number: u64) {
        let Some(row) = self.get(number) else {
            return;
        };
        let passes = (!self.only_marked || row.is_marked)
            && self.filter.as_ref().is_none_or(|filter| row.passes(filter));
        if passes && self.shown.back().is_none_or(|&last| last < number) {
            self.shown.push_back(number);
            return;
        }
        match (self.shown.binary_search(&number), passes) {
            (Err(place), true) => self.shown.insert(place, number),
            (Ok(place), false) => {
                self.shown.remove(place);
            }
            _ => {}
        }
    }
}

fn is_final(message: &Message) -> bool {
    let status = message.subject.http().and_then(|http| http.status);
    status.is_none_or(|status| status >= 200 || status == 101)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
