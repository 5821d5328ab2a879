//! Holds reads and writes back until it is known whether the exchange that they are part of passes.

use crate::event::{Conn, Data, Dir, Event, GapCause, Kind, Nanos};
use anyhow::Result;
use std::collections::HashMap;

/// Bytes held back of one connection, and of all.
const MAX_CONN: u64 = 8 << 20;
const MAX_ALL: u64 = 32 << 20;

/// What an event takes in memory beside its bytes.
const OVERHEAD: u64 = 160;

/// Takes what goes on.
pub type Write<'a> = dyn FnMut(&Event<'_>) -> Result<()> + 'a;

/// The connections, each with what waits.
#[derive(Debug)]
pub struct Exchanges {
    conns: HashMap<u64, Exchange>,
    held: u64,
    /// What is left out leaves no hole in the offsets.
    closes_holes: bool,
    has_told: bool,
}

/// What is going on in one connection.
#[derive(Debug)]
struct Exchange {
    /// As its last event described it.
    conn: Conn,
    held: Vec<Held>,
    bytes: u64,
    /// Something of it has passed: to its end everything is written.
    passes: bool,
    /// Something of the connection was written before.
    was_written: bool,
    /// Bytes of each direction that were left out.
    left_out: [u64; 2],
}

/// An event that waits.
#[derive(Debug)]
struct Held {
    ts: Nanos,
    tid: u32,
    func: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Data(Data<'static>, Vec<u8>),
    Gap {
        dir: Dir,
        off: u64,
        len: u64,
        cause: GapCause,
    },
    Open,
    Shutdown,
    Close,
}

impl Exchanges {
    /// `closes_holes`: stream offsets count what is written.
    pub fn new(closes_holes: bool) -> Exchanges {
        Exchanges {
            conns: HashMap::new(),
            held: 0,
            closes_holes,
            has_told: false,
        }
    }

    /// Takes the next event. `passes`: something passes that it is part of; `is_between`: nothing
    /// of the connection is incomplete behind it.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn event(
        &mut self,
        event: &Event<'_>,
        passes: bool,
        is_between: bool,
        write: &mut Write<'_>,
    ) -> Result<()> {
        let exchange = self
            .conns
            .entry(event.conn.id)
            .or_insert_with(|| Exchange::new(event.conn));
        if exchange.conn != *event.conn {
            exchange.conn.clone_from(event.conn);
        }
        exchange.passes |= passes;
        if event.kind == Kind::Close {
            return self.close(event, write);
        }
        let before = exchange.bytes;
        if exchange.passes {
            exchange.release(self.closes_holes, write)?;
            exchange.write(event, self.closes_holes, write)?;
        } else {
            exchange.hold(Held::new(event));
        }
        if is_between {
            exchange.end();
        }
        self.held = (self.held + exchange.bytes).saturating_sub(before);
        if exchange.bytes > MAX_CONN || self.held > MAX_ALL {
            self.give_up(write)?;
        }
        Ok(())
    }

    /// Too much waits: what waits most does so no longer.
    fn give_up(&mut self, write: &mut Write<'_>) -> Result<()> {
        let Some((id, exchange)) = self.conns.iter_mut().max_by_key(|(_, each)| each.bytes) else {
            return Ok(());
        };
        if !std::mem::replace(&mut self.has_told, true) {
            log::warn!(
                "too much to hold back until the filter is decided: connection #{id} is written \
                 as it is, and maybe others"
            );
        }
        exchange.passes = true;
        self.held = self.held.saturating_sub(exchange.bytes);
        exchange.release(self.closes_holes, write)
    }

    /// The connection has ended, and all that its last messages could decide is decided.
    fn close(&mut self, event: &Event<'_>, write: &mut Write<'_>) -> Result<()> {
        let Some(mut exchange) = self.conns.remove(&event.conn.id) else {
            return Ok(());
        };
        self.held = self.held.saturating_sub(exchange.bytes);
        if !exchange.passes {
            exchange.end();
        }
        if exchange.passes || exchange.was_written {
            exchange.release(self.closes_holes, write)?;
            exchange.write(event, self.closes_holes, write)?;
        }
        Ok(())
    }

    /// The capture has ended; something passes of these connections.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn finish(&mut self, passing: &[u64], write: &mut Write<'_>) -> Result<()> {
        self.held = 0;
        let mut conns: Vec<(u64, Exchange)> = self.conns.drain().collect();
        conns.sort_unstable_by_key(|(id, _)| *id);
        for (id, exchange) in &mut conns {
            if passing.contains(id) {
                exchange.release(self.closes_holes, write)?;
            }
        }
        Ok(())
    }
}

impl Exchange {
    fn new(conn: &Conn) -> Exchange {
        Exchange {
            conn: conn.clone(),
            held: Vec::new(),
            bytes: 0,
            passes: false,
            was_written: false,
            left_out: [0, 0],
        }
    }

    fn hold(&mut self, held: Held) {
        self.bytes = self.bytes.saturating_add(held.size());
        self.held.push(held);
    }

    /// Nothing is incomplete: what has not passed is left out, and the next begins.
    fn end(&mut self) {
        self.passes = false;
        let left_out = &mut self.left_out;
        self.held.retain(|held| {
            let (dir, len) = match held.what {
                What::Data(data, _) => (data.dir, data.len),
                What::Gap { dir, len, .. } => (dir, len),
                What::Open | What::Shutdown | What::Close => return true,
            };
            let sum = half(left_out, dir);
            *sum = sum.saturating_add(len);
            false
        });
        self.bytes = self.held.iter().map(Held::size).sum();
    }

    /// Writes what waits.
    fn release(&mut self, closes_holes: bool, write: &mut Write<'_>) -> Result<()> {
        self.bytes = 0;
        for held in std::mem::take(&mut self.held) {
            let event = held.event(&self.conn);
            write_shifted(&mut self.left_out, &event, closes_holes, write)?;
            self.was_written = true;
        }
        Ok(())
    }

    fn write(
        &mut self,
        event: &Event<'_>,
        closes_holes: bool,
        write: &mut Write<'_>,
    ) -> Result<()> {
        self.was_written = true;
        write_shifted(&mut self.left_out, event, closes_holes, write)
    }
}

/// Writes the event as if nothing had been left out before.
fn write_shifted(
    left_out: &mut [u64; 2],
    event: &Event<'_>,
    closes_holes: bool,
    write: &mut Write<'_>,
) -> Result<()> {
    let mut event = *event;
    if closes_holes {
        match &mut event.kind {
            Kind::Data(data) => data.off = data.off.saturating_sub(*half(left_out, data.dir)),
            Kind::Gap { dir, off, .. } => *off = off.saturating_sub(*half(left_out, *dir)),
            Kind::Open | Kind::Shutdown | Kind::Close => {}
        }
    }
    write(&event)
}

fn half(halves: &mut [u64; 2], dir: Dir) -> &mut u64 {
    let [out, input] = halves;
    match dir {
        Dir::Out => out,
        Dir::In => input,
    }
}

impl Held {
    fn new(event: &Event<'_>) -> Held {
        let what = match event.kind {
            Kind::Data(data) => What::Data(Data { bytes: &[], ..data }, data.bytes.to_vec()),
            Kind::Gap {
                dir,
                off,
                len,
                cause,
            } => What::Gap {
                dir,
                off,
                len,
                cause,
            },
            Kind::Open => What::Open,
            Kind::Shutdown => What::Shutdown,
            Kind::Close => What::Close,
        };
        Held {
            ts: event.ts,
            tid: event.tid,
            func: event.func.to_owned(),
            what,
        }
    }

    fn size(&self) -> u64 {
        let bytes = match &self.what {
            What::Data(_, bytes) => bytes.len() as u64,
            _ => 0,
        };
        bytes + OVERHEAD
    }

    fn event<'a>(&'a self, conn: &'a Conn) -> Event<'a> {
        let kind = match &self.what {
            What::Data(data, bytes) => Kind::Data(Data { bytes, ..*data }),
            &What::Gap {
                dir,
                off,
                len,
                cause,
            } => Kind::Gap {
                dir,
                off,
                len,
                cause,
            },
            What::Open => Kind::Open,
            What::Shutdown => Kind::Shutdown,
            What::Close => Kind::Close,
        };
        Event {
            ts: self.ts,
            conn,
            tid: self.tid,
            func: &self.func,
            kind,
        }
    }
}

#[cfg(test)]
#[path = "exchanges_tests.rs"]
mod tests;
