//! The terminal user interface (`--tui`): a list of exchanges, and the details of one.
//!
//! It runs in the thread that reads the ring, between batches of records: so nothing of an exchange
//! has to be shared, and what is shown is what was captured. What could take long is bounded or done
//! elsewhere: a filter is asked a few milliseconds at a time, pictures are written and processes
//! looked up by other threads.

mod asking;
mod conns;
mod details;
mod exchange;
mod export;
mod history;
pub mod journal;
pub mod keys;
mod order;
mod processes;
mod prompt;
mod row;
mod state;
mod summary;
mod terminal;
mod text;
mod view;

#[cfg(test)]
mod testing;

pub use history::Bounds;
pub use processes::Scan;

use crate::event::{Conn, Event, Kind, Totals};
use crate::filter::Filter;
use crate::proto::{Item, Message, Protocol};
use crate::sink::Sink;
use anyhow::Result;
use crossterm::event::Event as Input;
use history::Change;
use keys::Wish;
use nix::sys::signal::Signal;
use processes::Processes;
use state::{Source, State, View};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use terminal::{Happened, Screen};

/// Between two pictures at least: ten a second. One that answers a key may follow one that shows
/// what has come, so that keys are answered at once.
const BETWEEN: Duration = Duration::from_millis(100);
/// Likewise where only the capture has changed something.
const BETWEEN_NEWS: Duration = Duration::from_millis(200);
/// Work on a filter at a time, while the ring waits.
const WORK: Duration = Duration::from_millis(4);
/// How often it is looked whether there is something to see to, where nothing else wakes us.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes kept with an exchange in a connection of several streams, beside twice its content.
const SHARED: u64 = 4 << 10;
/// Events of a file between two looks at the keys.
const EVENTS: u32 = 256;

/// How it looks and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub bounds: Bounds,
    pub color: bool,
    pub ascii: bool,
}

/// The user interface, and what it has seen.
#[allow(missing_debug_implementations)] // closures
pub struct Tui {
    state: State,
    screen: Screen,
    /// Connections as they were last described, each once.
    conns: HashMap<u64, Rc<Conn>>,
    /// A key was pressed, or something else that is answered at once, since the last picture.
    is_asked: bool,
    /// Something has come since the last picture.
    has_news: bool,
    drawn: Option<Instant>,
    /// When a picture last answered a key.
    answered: Option<Instant>,
    /// A second has begun, and the rates are others.
    second: u64,
    events: u32,
    /// Messages of the program that were shown.
    told: u64,
    ended_by: Option<Signal>,
}

impl Tui {
    /// `kept`: nothing else is. `scan` lists processes, where there are any.
    ///
    /// # Errors
    /// There is no terminal.
    pub fn new(options: Options, kept: Option<Filter>, scan: Option<Scan>) -> Result<Tui> {
        let mut state = State::new(options.bounds, kept, Processes::new(scan));
        state.color = options.color;
        state.ascii = options.ascii;
        if !state.processes.is_live {
            state.source = Source::Reading;
            // A file is read from its beginning.
            state.follows = false;
        }
        Ok(Tui {
            state,
            screen: Screen::new()?,
            conns: HashMap::new(),
            is_asked: true,
            has_news: false,
            drawn: None,
            answered: None,
            second: 0,
            events: 0,
            told: 0,
            ended_by: None,
        })
    }

    /// Takes the screen.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn open(&mut self) -> Result<()> {
        crossterm::style::force_color_output(self.state.color);
        self.screen.open()?;
        self.turn(false)
    }

    /// Gives the screen back.
    pub fn close(&mut self) {
        self.screen.close();
    }

    /// Readable when there is something to see to.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        self.screen.fds()
    }

    /// How long one may wait for other things.
    pub fn timeout(&self) -> Duration {
        if self.state.history.is_busy() {
            return Duration::ZERO;
        }
        match self.next_picture() {
            Some(at) => at.saturating_duration_since(Instant::now()).min(LOOK),
            None => LOOK,
        }
    }

    /// The user wants to quit, or a signal does.
    pub fn wants_end(&self) -> bool {
        self.state.wants_end
    }

    /// What was counted so far.
    pub fn set_totals(&mut self, totals: &Totals) {
        if self.state.totals != *totals {
            self.state.totals = *totals;
            self.has_news = true;
        }
    }

    /// Something to tell the user.
    pub fn tell(&mut self, message: &str) {
        self.state.message = Some(message.to_owned());
        self.is_asked = true;
    }

    /// An event, before it is decoded.
    ///
    /// # Errors
    /// Those of the terminal, where a file is read.
    pub fn saw(&mut self, event: &Event<'_>) -> Result<()> {
        let conn = self.state.conns.event(event);
        if event.kind == Kind::Close {
            self.state.history.closed(event.conn.id);
            // Its last messages come with its end.
            self.conns.insert(event.conn.id, conn);
        } else if self
            .conns
            .get(&event.conn.id)
            .is_none_or(|known| !Rc::ptr_eq(known, &conn))
        {
            self.conns.insert(event.conn.id, conn);
        }
        self.has_news = true;
        self.events += 1;
        if self.state.source == Source::Reading && self.events >= EVENTS {
            self.events = 0;
            self.turn(true)?;
        }
        Ok(())
    }

    /// What became of it.
    pub fn item(&mut self, item: &Item<'_>) {
        match item {
            Item::Message(conn, message) => self.message_of(conn, message),
            Item::Event(event) => {
                if let Kind::Data(data) = event.kind {
                    let conn = self.conn(event.conn);
                    let change = self.state.history.bytes_of(&conn, event, &data);
                    self.changed(change, "");
                } else if event.kind == Kind::Close {
                    self.conns.remove(&event.conn.id);
                }
            }
        }
    }

    fn message_of(&mut self, conn: &Conn, message: &Message) {
        let conn = self.conn(conn);
        let change = self.state.history.message(&conn, message);
        self.changed(change, message.protocol.name());
        let (Change::New(number) | Change::Ended(number)) = change else {
            return;
        };
        let Some(exchange) = self.state.history.get(number) else {
            return;
        };
        let is_done = exchange.stage != exchange::Stage::Open;
        if !is_done {
            return;
        }
        let times = exchange.start()..=exchange.end();
        let own = exchange.size();
        let mut pieces = self.state.conns.moved(conn.id, times);
        let is_shared = message.protocol == Protocol::Http2 || message.protocol == Protocol::Grpc;
        if is_shared {
            // Those of other streams are among them, and would be kept with each of these.
            let mut room = own.saturating_mul(2).saturating_add(SHARED);
            pieces.retain(|piece| {
                let fits = piece.len <= room;
                room = room.saturating_sub(piece.len);
                fits
            });
        }
        self.state.history.change(number, |row| row.pieces = pieces);
        if !is_shared {
            self.state.conns.moved_all(conn.id);
        }
    }

    fn changed(&mut self, change: Change, protocol: &'static str) {
        let (Change::New(number) | Change::Ended(number)) = change else {
            return;
        };
        let Some(exchange) = self.state.history.get(number) else {
            return;
        };
        if matches!(change, Change::New(_)) {
            self.state.conns.exchange(&exchange.conn, protocol);
        }
        let is_new = matches!(change, Change::New(_));
        let is_done = exchange.stage != exchange::Stage::Open;
        if is_done && (is_new || !exchange.is_bytes()) {
            self.state.summary.add(exchange);
        }
    }

    /// The connection as it was last described, shared by its exchanges.
    fn conn(&mut self, conn: &Conn) -> Rc<Conn> {
        match self.conns.get(&conn.id) {
            Some(known) if **known == *conn => Rc::clone(known),
            _ => {
                let new = Rc::new(conn.clone());
                self.conns.insert(conn.id, Rc::clone(&new));
                new
            }
        }
    }

    /// Sees to keys, and draws what has changed, if it is time. `ends`: signals that end us are
    /// seen to here.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn turn(&mut self, ends: bool) -> Result<()> {
        if !self.screen.is_open() {
            return Ok(());
        }
        while let Some(happened) = self.screen.happened(ends)? {
            self.is_asked = true;
            match happened {
                Happened::Event(Input::Key(key)) => match keys::press(&mut self.state, key) {
                    Wish::Nothing => {}
                    Wish::Quit => self.state.wants_end = true,
                    Wish::Suspend => self.screen.suspend(true)?,
                    Wish::Redraw => self.screen.redraw(),
                },
                Happened::Event(_) | Happened::Continued => {}
                Happened::End(signal) => {
                    self.state.wants_end = true;
                    self.ended_by = signal;
                    break;
                }
            }
        }
        if self.state.history.is_busy() {
            self.state.history.work(WORK);
            self.has_news = true;
        }
        if self.state.view == View::Processes && self.state.processes.turn() {
            self.is_asked = true;
        }
        let (count, last) = journal::last();
        if count != self.told {
            self.told = count;
            self.state.message = last;
            self.is_asked = true;
        }
        let second = self.state.now_second();
        if second != self.second && self.state.source == Source::Live {
            // A rate that has become nothing is news once.
            self.has_news |= self.state.summary.per_second(self.second) > 0;
            self.has_news |= self.state.view == View::Summary;
            self.second = second;
        }
        match self.next_picture() {
            Some(at) if at <= Instant::now() => self.draw(),
            _ => Ok(()),
        }
    }

    /// When the next picture is due, if there is anything new.
    fn next_picture(&self) -> Option<Instant> {
        if !self.screen.is_open() || !self.is_asked && !self.has_news {
            return None;
        }
        let now = Instant::now();
        if self.screen.is_busy() {
            return Some(now + Duration::from_millis(10));
        }
        Some(match (self.is_asked, self.answered, self.drawn) {
            (true, Some(answered), _) => answered + BETWEEN,
            (false, _, Some(drawn)) => drawn + BETWEEN_NEWS,
            (true, None, _) | (false, _, None) => now,
        })
    }

    fn draw(&mut self) -> Result<()> {
        let now = Instant::now();
        self.drawn = Some(now);
        if self.is_asked {
            self.answered = Some(now);
        }
        self.is_asked = false;
        self.has_news = false;
        let state = &mut self.state;
        self.screen.draw(|buf| view::draw(state, buf))
    }

    /// The capture has ended: what was captured can be looked at until the user quits.
    fn browse(&mut self) -> Result<()> {
        self.state.source = Source::Ended;
        self.is_asked = true;
        while !self.wants_end() {
            self.turn(true)?;
            if self.wants_end() {
                break;
            }
            self.screen.wait(self.timeout());
        }
        Ok(())
    }

    /// The signal that ended it.
    pub fn ended_by(&self) -> Option<Signal> {
        self.ended_by
    }

    /// There is nothing to be looked at: a signal or an error has ended the capture.
    pub fn end(&mut self) {
        self.state.wants_end = true;
        self.close();
    }

    /// Whether the user has asked to quit since this was asked last.
    pub fn quits(&mut self) -> bool {
        std::mem::take(&mut self.state.wants_end)
    }
}

impl Sink for Tui {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        self.item(&Item::Event(event));
        Ok(())
    }

    fn message(&mut self, conn: &Conn, message: &Message) -> Result<()> {
        self.message_of(conn, message);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, totals: &Totals) -> Result<()> {
        self.set_totals(totals);
        let browsed = match self.screen.is_open() {
            true => self.browse(),
            false => Ok(()),
        };
        self.close();
        browsed
    }
}
