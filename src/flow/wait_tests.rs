//! Tests of what waits for an address, and how long.

use super::*;
use crate::bpf::ConnKey;
use crate::event::{AddrSource, Dir};
use crate::ring::{RawAddr, RawConn, RawData, RawEnd};

fn announced(conn: u64, tgid: u32, transport: RawTransport) -> Raw<'static> {
    Raw::Conn(Box::new(RawConn {
        conn,
        target: 0,
        ts: 0,
        key: ConnKey {
            handle: conn,
            tgid,
            exec_id: 0,
        },
        tid: tgid,
        uid: 0,
        exe: (0, 0),
        comm: String::new(),
        own_pid: tgid,
        cgroup: 0,
        awaits_addr: transport == RawTransport::Unknown,
        begun: true,
        started: 0,
        transport,
        addr_source: AddrSource::Socket,
        role: 0,
        version: 0,
        alpn: None,
        sni: None,
    }))
}

fn moved(conn: u64, tgid: u32) -> Raw<'static> {
    Raw::Data(RawData {
        conn,
        target: 0,
        ts: 0,
        tgid,
        tid: tgid,
        func: 0,
        dir: Dir::Out,
        off: 0,
        len: 1,
        call_len: 1,
        call_off: 0,
        goid: 0,
        unreadable: false,
        sendfile: false,
        bytes: b"x",
    })
}

fn address(conn: u64) -> Raw<'static> {
    Raw::Addr(RawAddr {
        conn,
        transport: RawTransport::Pipe,
        addr_source: AddrSource::Record,
    })
}

fn end(conn: u64) -> Raw<'static> {
    Raw::Close(RawEnd {
        conn,
        tid: 0,
        ts: 0,
        off: [0; 2],
    })
}

/// Records go in by their number; those that go on are returned in order.
struct Line {
    waiting: Waiting,
    now: Instant,
}

impl Line {
    fn new() -> Line {
        Line {
            waiting: Waiting::default(),
            now: Instant::now(),
        }
    }

    fn put(&mut self, number: u8, raw: &Raw<'_>) -> Vec<u8> {
        let mut told = Vec::new();
        if !self.waiting.takes(&[number], raw, || self.now) {
            told.push(number);
        }
        told.extend(self.released());
        told
    }

    fn released(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.waiting.next(self.now).map(|record| record[0])).collect()
    }

    fn after(&mut self, millis: u64) -> Vec<u8> {
        self.now += Duration::from_millis(millis);
        self.released()
    }
}

const UNKNOWN: RawTransport = RawTransport::Unknown;

#[test]
fn nothing_waits_where_no_address_is_to_follow() {
    let mut line = Line::new();
    assert_eq!(line.put(1, &announced(1, 7, RawTransport::Pipe)), [1]);
    assert_eq!(line.put(2, &moved(1, 7)), [2]);
    assert_eq!(line.put(3, &end(1)), [3]);
}

#[test]
fn all_wait_in_order_until_the_address_has_come() {
    let mut line = Line::new();
    assert!(line.put(1, &announced(1, 7, UNKNOWN)).is_empty());
    assert!(line.put(2, &moved(1, 7)).is_empty());
    assert!(line.put(3, &moved(2, 8)).is_empty());
    assert_eq!(line.put(4, &address(1)), [4, 1, 2, 3]);
    assert_eq!(line.put(5, &moved(1, 7)), [5]);
}

#[test]
fn an_announcement_with_an_address_ends_the_wait_in_its_own_turn() {
    let mut line = Line::new();
    assert!(line.put(1, &announced(1, 7, UNKNOWN)).is_empty());
    assert!(line.waiting.awaits(1));
    assert_eq!(
        line.put(2, &announced(1, 7, RawTransport::Pipe)),
        [1, 2],
        "both announcements"
    );
}

#[test]
fn no_record_waits_longer_than_a_moment() {
    let mut line = Line::new();
    assert!(line.put(1, &announced(1, 7, UNKNOWN)).is_empty());
    assert!(line.after(60).is_empty());
    assert!(line.put(2, &announced(2, 8, UNKNOWN)).is_empty());
    assert!(line.put(3, &moved(1, 7)).is_empty());
    assert_eq!(line.after(41), [1], "the second has 59 ms left");
    assert_eq!(line.after(60), [2, 3]);
}

#[test]
fn too_many_bytes_do_not_wait() {
    let mut line = Line::new();
    assert!(line.put(1, &announced(1, 7, UNKNOWN)).is_empty());
    let large = vec![2; MOST_BYTES];
    assert!(line.waiting.takes(&large, &moved(1, 7), || line.now));
    assert_eq!(line.released(), [1, 2]);
}

#[test]
fn a_process_whose_addresses_never_follow_is_not_waited_for() {
    let mut line = Line::new();
    for number in 1..=3 {
        assert!(
            line.put(number, &announced(number.into(), 7, UNKNOWN))
                .is_empty()
        );
        assert_eq!(line.after(100), [number]);
    }
    assert_eq!(line.put(4, &announced(4, 7, UNKNOWN)), [4]);
    assert!(line.put(5, &announced(5, 8, UNKNOWN)).is_empty(), "another");
    line.waiting.forget_process(7);
    assert!(line.put(6, &announced(6, 7, UNKNOWN)).is_empty());
}

#[test]
fn an_address_that_follows_after_all_restores_the_patience() {
    let mut line = Line::new();
    for number in 1..=9 {
        assert!(
            line.put(number, &announced(number.into(), 7, UNKNOWN))
                .is_empty()
        );
        if number % 3 == 0 {
            assert_eq!(line.put(100, &address(number.into())), [100, number]);
        } else {
            assert_eq!(line.after(100), [number]);
        }
    }
}

#[test]
fn it_is_known_whose_records_wait() {
    let mut line = Line::new();
    assert!(line.put(1, &announced(1, 7, UNKNOWN)).is_empty());
    assert!(line.put(2, &moved(2, 8)).is_empty());
    assert!(line.waiting.has_of(7) && line.waiting.has_of(8));
    assert!(!line.waiting.has_of(9));
    assert_eq!(line.waiting.pop().as_deref(), Some(&[1][..]));
    assert_eq!(line.waiting.pop().as_deref(), Some(&[2][..]));
    assert!(line.waiting.is_empty() && !line.waiting.awaits(1));
}
