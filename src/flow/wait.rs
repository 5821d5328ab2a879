//! Keeps records back for the moment in which the address of their connection may follow.
//!
//! A connection whose TLS and socket are apart moves its bytes before it uses the socket. All records
//! wait behind its announcement, so that what is told stays in order.

use crate::ring::{Raw, RawTransport};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A record waits no longer than this.
const MOST: Duration = Duration::from_millis(100);
/// Nor when there are more bytes of them.
const MOST_BYTES: usize = 4 << 20;
/// After so many connections in a row whose address did not follow, a process is not waited for.
const MOST_IN_VAIN: u32 = 3;

#[derive(Debug)]
struct Kept {
    record: Box<[u8]>,
    /// 0 where the record does not say.
    tgid: u32,
    /// The announcement of a connection that is waited for.
    gate: Option<Gate>,
}

#[derive(Clone, Copy, Debug)]
struct Gate {
    conn: u64,
    until: Instant,
}

/// Records in the order in which they came.
#[derive(Debug, Default)]
pub struct Waiting {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// Connections whose address has not come, and their processes.
    awaited: HashMap<u64, u32>,
    /// Connections of a process for which others have waited in vain, in a row.
    in_vain: HashMap<u32, u32>,
}

impl Waiting {
    /// Takes the record if it has to wait: its own connection's address may follow, or others wait
    /// before it. An address itself never waits.
    pub fn takes(&mut self, record: &[u8], raw: &Raw<'_>, now: impl FnOnce() -> Instant) -> bool {
        let mut gate = None;
        let tgid = match raw {
            Raw::Addr(addr) => {
                self.found(addr.conn);
                return false;
            }
            Raw::Conn(conn) => {
                if conn.transport != RawTransport::Unknown {
                    self.found(conn.conn);
                } else if conn.awaits_addr && !self.is_vain(conn.key.tgid) {
                    self.awaited.insert(conn.conn, conn.key.tgid);
                    gate = Some(Gate {
                        conn: conn.conn,
                        until: now() + MOST,
                    });
                }
                conn.key.tgid
            }
            Raw::Data(data) => data.tgid,
            _ => 0,
        };
        if gate.is_none() && self.kept.is_empty() {
            return false;
        }
        self.bytes += record.len();
        self.kept.push_back(Kept {
            record: record.into(),
            tgid,
            gate,
        });
        true
    }

    pub fn awaits(&self, conn: u64) -> bool {
        self.awaited.contains_key(&conn)
    }

    fn is_vain(&self, tgid: u32) -> bool {
        self.in_vain
            .get(&tgid)
            .is_some_and(|times| *times >= MOST_IN_VAIN)
    }

    fn found(&mut self, conn: u64) {
        if let Some(tgid) = self.awaited.remove(&conn) {
            self.in_vain.remove(&tgid);
        }
    }

    /// The next record that need not wait any longer.
    pub fn next(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let gate = self.kept.front()?.gate;
        if let Some(gate) = gate.filter(|gate| self.awaited.contains_key(&gate.conn)) {
            if now < gate.until && self.bytes <= MOST_BYTES {
                return None;
            }
            if let Some(tgid) = self.awaited.remove(&gate.conn) {
                *self.in_vain.entry(tgid).or_default() += 1;
            }
        }
        self.pop()
    }

    /// The next record, whether or not it should wait.
    pub fn pop(&mut self) -> Option<Box<[u8]>> {
        let kept = self.kept.pop_front()?;
        if let Some(gate) = kept.gate {
            self.awaited.remove(&gate.conn);
        }
        self.bytes -= kept.record.len();
        Some(kept.record)
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn has_of(&self, pid: u32) -> bool {
        self.kept.iter().any(|kept| kept.tgid == pid)
    }

    pub fn forget_process(&mut self, pid: u32) {
        self.in_vain.remove(&pid);
    }
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
