//! The connections and processes that were seen, with what they have moved.

use super::exchange::Piece;
use crate::event::{Conn, Dir, Event, Kind, Nanos};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Connections that are remembered; those that have ended go first.
const MAX_CONNS: usize = 10_000;
/// Processes likewise.
const MAX_PROCS: usize = 4096;
/// Bytes kept of one connection, and of all, for exchanges that have not ended.
const MAX_RECENT: usize = 128 << 10;
const MAX_ALL_RECENT: usize = 16 << 20;

/// A connection.
#[derive(Debug)]
pub struct SeenConn {
    pub conn: Rc<Conn>,
    pub first: Nanos,
    pub last: Nanos,
    pub is_closed: bool,
    /// Written and read by the program.
    pub bytes: [u64; 2],
    pub lost: u64,
    pub exchanges: u64,
    /// What is spoken, once that is known.
    pub protocol: &'static str,
    /// What it has moved last.
    recent: VecDeque<Piece>,
    kept: usize,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub struct SeenProc {
    pub comm: String,
    pub conns: u64,
    pub exchanges: u64,
    pub bytes: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Conns {
    conns: BTreeMap<u64, SeenConn>,
    procs: BTreeMap<u32, SeenProc>,
    /// Bytes kept of all.
    kept: usize,
}

impl Conns {
    /// Takes an event; the connection as it is now.
    pub fn event(&mut self, event: &Event<'_>) -> Rc<Conn> {
        if !self.conns.contains_key(&event.conn.id) {
            self.begin(event);
        }
        let Some(seen) = self.conns.get_mut(&event.conn.id) else {
            return Rc::new(event.conn.clone());
        };
        if *seen.conn != *event.conn {
            seen.conn = Rc::new(event.conn.clone());
        }
        seen.last = event.ts;
        match event.kind {
            Kind::Data(data) => {
                let [out, input] = &mut seen.bytes;
                match data.dir {
                    Dir::Out => *out += data.len,
                    Dir::In => *input += data.len,
                }
                if let Some(process) = self.procs.get_mut(&event.conn.proc.pid) {
                    process.bytes += data.len;
                }
                let before = seen.kept;
                if self.kept < MAX_ALL_RECENT {
                    seen.keep(Piece::new(event, &data));
                } else {
                    seen.forget();
                }
                self.kept = (self.kept + seen.kept).saturating_sub(before);
            }
            Kind::Gap { len, .. } => seen.lost += len,
            Kind::Close => {
                seen.is_closed = true;
                self.kept = self.kept.saturating_sub(seen.kept);
                seen.forget();
            }
            Kind::Open | Kind::Shutdown => {}
        }
        Rc::clone(&seen.conn)
    }

    fn begin(&mut self, event: &Event<'_>) {
        let conn = Rc::new(event.conn.clone());
        if self.conns.len() >= MAX_CONNS {
            let closed = self.conns.iter().find(|(_, seen)| seen.is_closed);
            let oldest = closed.or(self.conns.first_key_value()).map(|(&id, _)| id);
            if let Some(gone) = oldest.and_then(|id| self.conns.remove(&id)) {
                self.kept = self.kept.saturating_sub(gone.kept);
            }
        }
        if self.procs.len() >= MAX_PROCS {
            self.procs.pop_first();
        }
        let process = self.procs.entry(conn.proc.pid).or_default();
        process.conns += 1;
        process.comm.clone_from(&conn.proc.comm);
        self.conns.insert(
            conn.id,
            SeenConn {
                conn,
                first: event.ts,
                last: event.ts,
                is_closed: false,
                bytes: [0, 0],
                lost: 0,
                exchanges: 0,
                protocol: "",
                recent: VecDeque::new(),
                kept: 0,
            },
        );
    }

    /// An exchange has begun on the connection.
    pub fn exchange(&mut self, conn: &Conn, protocol: &'static str) {
        if let Some(seen) = self.conns.get_mut(&conn.id) {
            seen.exchanges += 1;
            seen.protocol = protocol;
        }
        if let Some(process) = self.procs.get_mut(&conn.proc.pid) {
            process.exchanges += 1;
        }
    }

    /// What the connection moved in this time, as far as it is kept.
    pub fn moved(&self, conn: u64, times: std::ops::RangeInclusive<Nanos>) -> Vec<Piece> {
        let Some(seen) = self.conns.get(&conn) else {
            return Vec::new();
        };
        let pieces = seen.recent.iter();
        pieces
            .filter(|piece| times.contains(&piece.ts))
            .cloned()
            .collect()
    }

    /// What the connection has moved belongs to exchanges that have ended.
    pub fn moved_all(&mut self, conn: u64) {
        if let Some(seen) = self.conns.get_mut(&conn) {
            self.kept = self.kept.saturating_sub(seen.kept);
            seen.forget();
        }
    }

    /// The connections, the newest last.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &SeenConn> {
        self.conns.values()
    }

    pub fn len(&self) -> usize {
        self.conns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    pub fn procs(&self) -> &BTreeMap<u32, SeenProc> {
        &self.procs
    }
}

impl SeenConn {
    fn keep(&mut self, piece: Piece) {
        self.kept += piece.bytes.len();
        self.recent.push_back(piece);
        while self.kept > MAX_RECENT
            && let Some(gone) = self.recent.pop_front()
        {
            self.kept = self.kept.saturating_sub(gone.bytes.len());
        }
    }

    fn forget(&mut self) {
        self.recent.clear();
        self.kept = 0;
    }
}
