//! Connections: from raw events to events in order, with their gaps.

pub mod clock;
pub mod wait;

use crate::bpf::ConnKey;
use crate::event::{
    AddrSource, Conn, Data, Dir, Event, GapCause, Kind, Lib, Proc, Role, Totals, Transport, Unseen,
};
use crate::ring::{Raw, RawAddr, RawConn, RawData, RawEnd, RawTransport};
use anyhow::Result;
use clock::Clock;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Most addresses that are kept for announcements to come.
const MAX_FOUND: usize = 4096;

/// What this stage asks of those before it.
pub trait Facts {
    fn lib(&self, target: u32) -> Rc<Lib>;

    /// The function of a target's probe, by its index.
    fn func(&self, target: u32, index: u16) -> &str;

    /// The process of a new connection; `None` when it is not wanted.
    fn admit(&mut self, conn: &RawConn) -> Option<Rc<Proc>>;

    /// Whether, and why, the beginning of a new connection may be missing.
    fn unseen(&self, conn: &RawConn) -> Option<Unseen>;

    /// The process of a connection whose announcement was lost.
    fn guess(&mut self, pid: u32) -> Option<Rc<Proc>>;

    /// Bytes that BPF has counted for a connection, out and in.
    fn offsets(&self, key: &ConnKey, conn: u64) -> Option<[u64; 2]>;
}

/// Takes events; an error ends the run.
pub type Emit<'a> = dyn FnMut(&Event<'_>) -> Result<()> + 'a;

/// A connection and how far its halves have come.
#[derive(Debug)]
struct Live {
    conn: Conn,
    key: Option<ConnKey>,
    /// When it was first seen, in nanoseconds since boot.
    since: u64,
    off: [u64; 2],
}

#[derive(Debug)]
enum Entry {
    Live(Box<Live>),
    /// Of a process that is not wanted.
    Ignored,
}

/// All connections that are open, by the number that BPF gave them.
#[derive(Debug, Default)]
pub struct ConnTable {
    entries: HashMap<u64, Entry>,
    by_key: HashMap<ConnKey, u64>,
    by_pid: HashMap<u32, BTreeSet<u64>>,
    /// Addresses of connections whose announcements wait (see [`wait`]).
    found: HashMap<u64, RawAddr>,
    last_id: u64,
    pub clock: Clock,
    /// `captured` and `truncated`; losses are BPF's to count.
    pub totals: Totals,
}

impl ConnTable {
    pub fn record(
        &mut self,
        raw: Raw<'_>,
        facts: &mut dyn Facts,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        match raw {
            Raw::Conn(conn) => self.announced(&conn, facts, emit),
            Raw::Data(data) => self.data(&data, facts, emit),
            Raw::Shutdown(end) => self.shutdown(&end, emit),
            Raw::Close(end) => self.closed(&end, emit),
            Raw::Addr(addr) => {
                self.found_address(addr);
                Ok(())
            }
            Raw::Hold { .. } | Raw::Exec { .. } => Ok(()),
        }
    }

    /// The process has ended, or executes another program since `until` (nanoseconds since boot):
    /// connections from before are gone. Their keys.
    pub fn program_ended(
        &mut self,
        pid: u32,
        until: u64,
        facts: &dyn Facts,
        emit: &mut Emit<'_>,
    ) -> Result<Vec<ConnKey>> {
        let ts = clock::since_boot().min(until);
        let mut keys = Vec::new();
        for conn in self.by_pid.get(&pid).cloned().unwrap_or_default() {
            match self.entries.get(&conn) {
                Some(Entry::Live(live)) if live.since < until => keys.extend(live.key),
                _ => continue,
            }
            let off = self.counted(conn, facts);
            self.closed(
                &RawEnd {
                    conn,
                    tid: 0,
                    ts,
                    off,
                },
                emit,
            )?;
        }
        if until == u64::MAX {
            for conn in self.by_pid.remove(&pid).unwrap_or_default() {
                self.entries.remove(&conn);
            }
        }
        Ok(keys)
    }

    /// The capture ends: what was lost last on connections that stay open is said now.
    pub fn finish(&mut self, facts: &dyn Facts, emit: &mut Emit<'_>) -> Result<()> {
        let ts = self.clock.wall(clock::since_boot());
        let mut open: Vec<u64> = self.entries.keys().copied().collect();
        open.sort_unstable();
        for conn in open {
            let off = self.counted(conn, facts);
            if let Some(Entry::Live(live)) = self.entries.get_mut(&conn) {
                live.catch_up(ts, 0, off, emit)?;
            }
        }
        Ok(())
    }

    fn counted(&self, conn: u64, facts: &dyn Facts) -> [u64; 2] {
        match self.entries.get(&conn) {
            Some(Entry::Live(live)) => live
                .key
                .and_then(|key| facts.offsets(&key, conn))
                .unwrap_or(live.off),
            _ => [0; 2],
        }
    }

    fn announced(
        &mut self,
        raw: &RawConn,
        facts: &mut dyn Facts,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let transport = self.transport(&raw.transport);
        if let Some(Entry::Live(live)) = self.entries.get_mut(&raw.conn) {
            if live.key.is_none() {
                live.key = Some(raw.key);
                self.by_key.insert(raw.key, raw.conn);
            }
            live.learn(raw, transport);
            return Ok(());
        }
        // The same handle under another number: the end of the earlier connection was lost.
        if let Some(earlier) = self.by_key.insert(raw.key, raw.conn) {
            let off = self.counted(earlier, facts);
            self.closed(
                &RawEnd {
                    conn: earlier,
                    tid: 0,
                    ts: raw.ts,
                    off,
                },
                emit,
            )?;
            self.by_key.insert(raw.key, raw.conn);
        }
        self.by_pid
            .entry(raw.key.tgid)
            .or_default()
            .insert(raw.conn);
        let Some(process) = facts.admit(raw) else {
            self.entries.insert(raw.conn, Entry::Ignored);
            return Ok(());
        };
        let ts = self.clock.wall(raw.ts);
        let found = self.found.remove(&raw.conn);
        let found = found.map(|addr| (self.transport(&addr.transport), addr.addr_source));
        let unseen = facts.unseen(raw);
        let live = self.open(raw.conn, raw.ts, process, facts.lib(raw.target));
        live.key = Some(raw.key);
        live.conn.unseen = unseen;
        live.learn(raw, transport);
        if let Some((transport, source)) = found {
            live.carried_by(transport, source);
        }
        emit(&Event {
            ts,
            conn: &live.conn,
            tid: raw.tid,
            func: "",
            kind: Kind::Open,
        })
    }

    /// What carries a connection, whose announcement may still be waiting.
    pub fn found_address(&mut self, addr: RawAddr) {
        let transport = self.transport(&addr.transport);
        if let Some(Entry::Live(live)) = self.entries.get_mut(&addr.conn) {
            live.carried_by(transport, addr.addr_source);
        } else if self.found.len() < MAX_FOUND {
            self.found.insert(addr.conn, addr);
        }
    }

    fn open(&mut self, raw: u64, since: u64, process: Rc<Proc>, lib: Rc<Lib>) -> &mut Live {
        self.last_id += 1;
        let live = Live {
            conn: Conn {
                id: self.last_id,
                proc: process,
                lib,
                transport: Transport::Unknown,
                addr_source: None,
                unseen: None,
                role: None,
                version: None,
                sni: None,
                alpn: None,
            },
            key: None,
            since,
            off: [0; 2],
        };
        let entry = self
            .entries
            .entry(raw)
            .insert_entry(Entry::Live(Box::new(live)))
            .into_mut();
        match entry {
            Entry::Live(live) => live,
            Entry::Ignored => unreachable!("a live entry was inserted just above"),
        }
    }

    fn transport(&self, raw: &RawTransport) -> Transport {
        match raw {
            RawTransport::Unknown => Transport::Unknown,
            RawTransport::Tcp(local, remote) => Transport::Tcp {
                local: *local,
                remote: *remote,
            },
            RawTransport::Udp(local, remote) => Transport::Udp {
                local: *local,
                remote: *remote,
            },
            RawTransport::Unix(path) => Transport::Unix { path: path.clone() },
            RawTransport::Pipe => Transport::Pipe,
            RawTransport::Tls(outer) => match self.entries.get(outer) {
                Some(Entry::Live(live)) => Transport::Tls { conn: live.conn.id },
                _ => Transport::Other("tls".into()),
            },
            RawTransport::Socket(family) => Transport::Other(family_name(*family)),
            RawTransport::File => Transport::Other("file".into()),
        }
    }

    /// Data of a connection whose announcement was lost.
    fn meet(
        &mut self,
        raw: &RawData<'_>,
        facts: &mut dyn Facts,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let Some(process) = facts.guess(raw.tgid) else {
            self.entries.insert(raw.conn, Entry::Ignored);
            return Ok(());
        };
        self.by_pid.entry(raw.tgid).or_default().insert(raw.conn);
        let ts = self.clock.wall(raw.ts);
        let live = self.open(raw.conn, raw.ts, process, facts.lib(raw.target));
        emit(&Event {
            ts,
            conn: &live.conn,
            tid: raw.tid,
            func: "",
            kind: Kind::Open,
        })
    }

    fn data(
        &mut self,
        raw: &RawData<'_>,
        facts: &mut dyn Facts,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let ts = self.clock.wall(raw.ts);
        if !self.entries.contains_key(&raw.conn) {
            self.meet(raw, facts, emit)?;
        }
        let Some(Entry::Live(live)) = self.entries.get_mut(&raw.conn) else {
            return Ok(());
        };
        if raw.call_off == 0 {
            self.totals.captured += 1;
        }
        let mut upto = live.off;
        upto[half(raw.dir)] = raw.off;
        live.catch_up(ts, raw.tid, upto, emit)?;
        live.off[half(raw.dir)] = raw.off + raw.len;
        let RawData {
            dir,
            off,
            len,
            call_len,
            call_off,
            goid,
            bytes,
            ..
        } = *raw;
        let kind = if raw.sendfile {
            Kind::Gap {
                dir,
                off,
                len,
                cause: GapCause::Sendfile,
            }
        } else if raw.unreadable {
            Kind::Gap {
                dir,
                off,
                len,
                cause: GapCause::Unreadable,
            }
        } else {
            if (bytes.len() as u64) < len {
                self.totals.truncated += 1;
            }
            Kind::Data(Data {
                dir,
                off,
                len,
                call_len,
                call_off,
                goid,
                bytes,
            })
        };
        let func = facts.func(raw.target, raw.func);
        emit(&Event {
            ts,
            conn: &live.conn,
            tid: raw.tid,
            func,
            kind,
        })
    }

    fn shutdown(&mut self, end: &RawEnd, emit: &mut Emit<'_>) -> Result<()> {
        let ts = self.clock.wall(end.ts);
        let Some(Entry::Live(live)) = self.entries.get_mut(&end.conn) else {
            return Ok(());
        };
        // Another thread may be reading: only what was written before is settled.
        let upto = [end.off[0], live.off[1]];
        live.catch_up(ts, end.tid, upto, emit)?;
        emit(&Event {
            ts,
            conn: &live.conn,
            tid: end.tid,
            func: "",
            kind: Kind::Shutdown,
        })
    }

    fn closed(&mut self, end: &RawEnd, emit: &mut Emit<'_>) -> Result<()> {
        let ts = self.clock.wall(end.ts);
        let Some(Entry::Live(mut live)) = self.entries.remove(&end.conn) else {
            return Ok(());
        };
        if let Some(key) = live.key {
            self.by_key.remove(&key);
        }
        if let Some(conns) = self.by_pid.get_mut(&live.conn.proc.pid) {
            conns.remove(&end.conn);
        }
        live.catch_up(ts, end.tid, end.off, emit)?;
        emit(&Event {
            ts,
            conn: &live.conn,
            tid: end.tid,
            func: "",
            kind: Kind::Close,
        })
    }
}

impl Live {
    /// Says what is missing between what has come and the offsets given.
    fn catch_up(&mut self, ts: u64, tid: u32, upto: [u64; 2], emit: &mut Emit<'_>) -> Result<()> {
        for dir in [Dir::Out, Dir::In] {
            let (from, to) = (self.off[half(dir)], upto[half(dir)]);
            if to <= from {
                continue;
            }
            self.off[half(dir)] = to;
            let kind = Kind::Gap {
                dir,
                off: from,
                len: to - from,
                cause: GapCause::Dropped,
            };
            emit(&Event {
                ts,
                conn: &self.conn,
                tid,
                func: "",
                kind,
            })?;
        }
        Ok(())
    }

    fn carried_by(&mut self, transport: Transport, source: AddrSource) {
        let conn = &mut self.conn;
        if conn.transport == Transport::Unknown && transport != Transport::Unknown {
            conn.transport = transport;
            conn.addr_source = Some(source);
        }
    }

    fn learn(&mut self, raw: &RawConn, transport: Transport) {
        self.carried_by(transport, raw.addr_source);
        let conn = &mut self.conn;
        conn.role = conn.role.or(match raw.role {
            1 => Some(Role::Client),
            2 => Some(Role::Server),
            _ => None,
        });
        // A version may change once: TLS 1.3 is negotiated from 1.2.
        let version = conn.lib.flavor.wire_version(raw.version);
        if is_version(version) {
            conn.version = Some(version);
        }
        if conn.sni.is_none() {
            conn.sni.clone_from(&raw.sni);
        }
        if conn.alpn.is_none() {
            conn.alpn.clone_from(&raw.alpn);
        }
    }
}

/// Index into offsets, as BPF's `enum ts_dir` has it.
fn half(dir: Dir) -> usize {
    match dir {
        Dir::Out => 0,
        Dir::In => 1,
    }
}

fn is_version(version: u16) -> bool {
    matches!(version, 0x0300..=0x0304 | 0xfefd | 0xfeff)
}

fn family_name(family: u16) -> String {
    match i32::from(family) {
        libc::AF_VSOCK => "vsock".into(),
        libc::AF_NETLINK => "netlink".into(),
        family => format!("socket family {family}"),
    }
}
