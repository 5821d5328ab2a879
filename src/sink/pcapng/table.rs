//! Which TCP flow of the file a captured connection is written to.
//!
//! Several captured connections can be views of one TCP connection: both ends of a loopback
//! connection, or a process and its fork. The bytes must be in the file's TCP once. So the first
//! view owns the flow; views from the same end share it; the other end gets a hidden flow.

use super::comment;
use super::tcp::{End, Flow};
use crate::event::{Conn, Nanos, Role, Transport};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Flows that have ended are remembered this long (events of the other end may come late) and at
/// most so many.
const LINGER: Nanos = 60_000_000_000;
const ENDED: usize = 4096;

/// Local and remote address of a view.
type Key = (IpAddr, u16, IpAddr, u16);

/// One captured connection.
#[derive(Debug)]
pub struct View {
    pub flow: u64,
    /// As last seen, to notice new facts.
    pub conn: Conn,
    /// The words and the sentence of its comments.
    pub words: String,
    pub sentence: String,
    /// Where in which file its interface is.
    pub interface: Option<(u32, u32)>,
    /// Stream offsets up to which the file tells, inbound and outbound.
    pub inbound: u64,
    pub outbound: u64,
    /// What came before in this direction, inbound and outbound, is none of the file's business.
    pub is_joined: [bool; 2],
    is_made_up: bool,
}

/// One TCP flow, with those who write to it.
#[derive(Debug)]
pub struct Entry {
    pub flow: Flow,
    /// The file in which its handshake is.
    pub file: Option<u32>,
    pub users: u32,
    key: Key,
    seed: u64,
    /// The connection that it is the other end of, with its flow.
    mirrored: Option<(u64, u64)>,
    owner: u64,
}

#[derive(Debug)]
struct Ended {
    flow: u64,
    owner: u64,
    seed: u64,
    at: Nanos,
}

/// All connections that have not ended.
#[derive(Debug, Default)]
pub struct Table {
    pub views: HashMap<u64, View>,
    pub flows: HashMap<u64, Entry>,
    live: HashMap<Key, u64>,
    ended: HashMap<Key, Ended>,
    /// Keys of `ended`, oldest first.
    order: VecDeque<Key>,
    next: u64,
}

impl View {
    /// Rewrites the comments' text from a connection about which more has become known.
    pub fn learn(&mut self, conn: &Conn, mirrored: Option<u64>) {
        self.conn = conn.clone();
        self.words = comment::conn(conn);
        self.sentence.clear();
        if let Some(owner) = mirrored {
            self.sentence = format!("same bytes as conn {owner}, seen from the other end");
        } else if self.is_made_up {
            let carrier = comment::carrier(&conn.transport);
            self.sentence = format!("its addresses are made up: {carrier}");
        }
    }
}

impl Entry {
    /// The owner of the TCP flow whose other end this one is.
    pub fn mirrored(&self) -> Option<u64> {
        self.mirrored.map(|(owner, _)| owner)
    }

    /// Goes back to the start, for another file.
    pub fn restart(&mut self) {
        let (client, server) = ends(self.key, self.flow.local);
        let is_hidden = self.flow.is_hidden;
        self.flow = Flow::new(client, server, self.flow.local, self.seed);
        self.flow.is_hidden = is_hidden;
    }
}

impl Table {
    /// Makes sure that `conn` has a view and that the view has its flow. Whether it is new.
    pub fn enter(&mut self, conn: &Conn, now: Nanos) -> bool {
        if self.views.contains_key(&conn.id) {
            return false;
        }
        let real = match conn.transport {
            Transport::Tcp { local, remote } | Transport::Udp { local, remote } => {
                Some(key(local, remote))
            }
            _ => None,
        };
        let local = local_end(conn, real);
        let key = real.unwrap_or_else(|| made_up(conn.id, local));
        let flow = self.flow(conn.id, key, local, now);
        let mut view = View {
            flow,
            conn: conn.clone(),
            words: String::new(),
            sentence: String::new(),
            interface: None,
            inbound: 0,
            outbound: 0,
            is_joined: [false; 2],
            is_made_up: real.is_none(),
        };
        let mirrored = self.flows.get(&flow).and_then(Entry::mirrored);
        view.learn(conn, mirrored);
        self.views.insert(conn.id, view);
        true
    }

    /// The flow for a new view: shared, or hidden because it is another one's other end, or new.
    fn flow(&mut self, conn: u64, key: Key, local: End, now: Nanos) -> u64 {
        let (a, b, c, d) = key;
        let reverse = (c, d, a, b);
        // Only a flow that is TCP itself has another end.
        let other = self
            .live
            .get(&reverse)
            .filter(|_| reverse != key)
            .and_then(|id| {
                let entry = self
                    .flows
                    .get(id)
                    .filter(|entry| entry.mirrored.is_none())?;
                Some((entry.owner, *id, entry.seed, entry.flow.local.peer()))
            });
        if let Some(id) = self.live.get(&key)
            && let Some(entry) = self.flows.get_mut(id)
            && (entry.mirrored.is_none()
                || other.is_none_or(|(_, flow, ..)| Some(flow) == entry.mirrored.map(|m| m.1)))
        {
            entry.users += 1;
            return *id;
        }
        let other = other.or_else(|| {
            let ended = self
                .ended
                .get(&reverse)
                .filter(|e| now.saturating_sub(e.at) <= LINGER)?;
            let found = (ended.owner, ended.flow, ended.seed, local);
            self.ended.remove(&reverse);
            Some(found)
        });
        self.next += 1;
        let id = self.next;
        let local = other.map_or(local, |(.., local)| local);
        let seed = other.map_or(id, |(_, _, seed, _)| seed);
        let (client, server) = ends(key, local);
        let mut flow = Flow::new(client, server, local, seed);
        flow.is_hidden = other.is_some();
        let mirrored = other.map(|(owner, flow, ..)| (owner, flow));
        let entry = Entry {
            flow,
            file: None,
            users: 1,
            key,
            seed,
            mirrored,
            owner: conn,
        };
        self.flows.insert(id, entry);
        self.live.insert(key, id);
        id
    }

    /// Forgets a connection, and its flow if nobody else writes to it.
    pub fn leave(&mut self, conn: u64, now: Nanos) {
        let Some(view) = self.views.remove(&conn) else {
            return;
        };
        let Some(entry) = self.flows.get_mut(&view.flow) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return;
        }
        let Some(entry) = self.flows.remove(&view.flow) else {
            return;
        };
        if self.live.get(&entry.key) == Some(&view.flow) {
            self.live.remove(&entry.key);
        }
        let (a, b, c, d) = entry.key;
        let has_mirror = self.live.contains_key(&(c, d, a, b));
        if entry.mirrored.is_some() || has_mirror || view.is_made_up {
            return;
        }
        let ended = Ended {
            flow: view.flow,
            owner: entry.owner,
            seed: entry.seed,
            at: now,
        };
        if self.ended.insert(entry.key, ended).is_none() {
            self.order.push_back(entry.key);
        }
        while self.order.len() > ENDED {
            if let Some(oldest) = self.order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

/// A dual-stack server sees an IPv4 client as `::ffff:a.b.c.d`; its peer does not.
fn key(local: SocketAddr, remote: SocketAddr) -> Key {
    let (from, to) = (local.ip().to_canonical(), remote.ip().to_canonical());
    (from, local.port(), to, remote.port())
}

/// Client and server address.
fn ends((local, local_port, remote, remote_port): Key, end: End) -> (SocketAddr, SocketAddr) {
    let local = SocketAddr::new(local, local_port);
    let remote = SocketAddr::new(remote, remote_port);
    match end {
        End::Client => (local, remote),
        End::Server => (remote, local),
    }
}

/// Who sent the SYN: what the library says, else a server has the lower port.
fn local_end(conn: &Conn, key: Option<Key>) -> End {
    match (conn.role, key) {
        (Some(Role::Server), _) => End::Server,
        (None, Some((_, local, _, remote))) if local < remote => End::Server,
        _ => End::Client,
    }
}

/// Addresses out of TEST-NET-1 (RFC 5737) that no other connection has at the time.
fn made_up(conn: u64, local: End) -> Key {
    const PORTS: u64 = 64_512;
    let host = (conn / PORTS % 250) as u8 + 1;
    let client: IpAddr = Ipv4Addr::new(192, 0, 2, host).into();
    let server: IpAddr = Ipv4Addr::new(192, 0, 2, 254).into();
    let port = (1024 + conn % PORTS) as u16;
    match local {
        End::Client => (client, port, server, 443),
        End::Server => (server, 443, client, port),
    }
}
