//! What is written of a connection, and under which offsets.

use super::*;
use crate::event::{Flavor, Lib, Proc, Transport};
use std::rc::Rc;

fn conn(id: u64) -> Conn {
    Conn {
        id,
        proc: Rc::new(Proc::default()),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: String::new(),
            version: None,
        }),
        transport: Transport::Unknown,
        addr_source: None,
        unseen: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    }
}

/// What is written, a word for each event: `out@0+4`, `gap:in@4+2`, `open`.
struct Run {
    exchanges: Exchanges,
    written: Vec<String>,
    offsets: [u64; 2],
}

impl Run {
    fn new(closes_holes: bool) -> Run {
        Run {
            exchanges: Exchanges::new(closes_holes),
            written: Vec::new(),
            offsets: [0, 0],
        }
    }

    fn event(&mut self, id: u64, kind: Kind<'_>, passes: bool, is_between: bool) {
        let conn = conn(id);
        let event = Event {
            ts: 1,
            conn: &conn,
            tid: 7,
            func: "f",
            kind,
        };
        let written = &mut self.written;
        self.exchanges
            .event(&event, passes, is_between, &mut |event| {
                written.push(word(event));
                Ok(())
            })
            .unwrap();
    }

    fn data(&mut self, dir: Dir, bytes: &[u8], passes: bool, is_between: bool) {
        let off = half(&mut self.offsets, dir);
        let data = Data {
            dir,
            off: *off,
            len: bytes.len() as u64,
            call_len: bytes.len() as u64,
            call_off: 0,
            goid: 0,
            bytes,
        };
        *off += bytes.len() as u64;
        self.event(1, Kind::Data(data), passes, is_between);
    }

    /// A request of four bytes and a response of six.
    fn exchange(&mut self, passes: bool) {
        self.data(Dir::Out, b"quid", false, false);
        self.data(Dir::In, b"novi !", passes, true);
    }
}

fn word(event: &Event<'_>) -> String {
    let name = |dir| if dir == Dir::Out { "out" } else { "in" };
    match event.kind {
        Kind::Data(data) => {
            assert_eq!(data.bytes.len() as u64, data.len);
            assert_eq!((event.tid, event.func), (7, "f"));
            format!("{}@{}+{}", name(data.dir), data.off, data.len)
        }
        Kind::Gap { dir, off, len, .. } => format!("gap:{}@{off}+{len}", name(dir)),
        Kind::Open => "open".into(),
        Kind::Shutdown => "shutdown".into(),
        Kind::Close => "close".into(),
    }
}

#[test]
fn an_exchange_is_written_whole_or_left_out_and_leaves_no_hole() {
    let mut run = Run::new(true);
    run.event(1, Kind::Open, false, true);
    run.exchange(false);
    run.exchange(false);
    assert!(run.written.is_empty());
    run.exchange(true);
    run.exchange(false);
    run.exchange(true);
    run.event(1, Kind::Shutdown, false, true);
    run.event(1, Kind::Close, false, true);
    assert_eq!(
        run.written,
        [
            "open", "out@0+4", "in@0+6", "out@4+4", "in@6+6", "shutdown", "close"
        ]
    );
    assert_eq!(run.exchanges.held, 0);
    assert!(run.exchanges.conns.is_empty());
}

#[test]
fn offsets_stay_true_where_no_file_needs_them_otherwise() {
    let mut run = Run::new(false);
    run.exchange(false);
    run.exchange(true);
    assert_eq!(run.written, ["out@4+4", "in@6+6"]);
}

#[test]
fn a_connection_of_which_nothing_passes_is_not_mentioned() {
    let mut run = Run::new(true);
    run.event(1, Kind::Open, false, true);
    run.exchange(false);
    run.data(Dir::Out, b"quid", false, false);
    run.event(1, Kind::Shutdown, false, false);
    run.event(1, Kind::Close, false, true);
    assert!(run.written.is_empty());
    assert_eq!(run.exchanges.held, 0);
}

#[test]
fn what_the_close_decides_is_decided() {
    let mut run = Run::new(true);
    run.data(Dir::Out, b"quid", false, false);
    run.event(1, Kind::Close, true, true);
    assert_eq!(run.written, ["out@0+4", "close"]);
}

#[test]
fn bytes_that_are_missing_of_what_is_left_out_are_left_out_too() {
    let mut run = Run::new(true);
    let gap = |off| Kind::Gap {
        dir: Dir::In,
        off,
        len: 10,
        cause: GapCause::Dropped,
    };
    run.event(1, gap(0), false, true);
    run.offsets = [0, 10];
    run.data(Dir::In, b"abc", true, false);
    run.event(1, gap(13), false, true);
    assert_eq!(run.written, ["in@0+3", "gap:in@3+10"]);
}

#[test]
fn connections_are_held_apart_and_the_end_writes_what_passes() {
    let mut run = Run::new(true);
    let data = |bytes| {
        Kind::Data(Data {
            dir: Dir::Out,
            off: 0,
            len: 3,
            call_len: 3,
            call_off: 0,
            goid: 0,
            bytes,
        })
    };
    for id in [3, 2, 1] {
        run.event(id, data(b"abc"), false, false);
    }
    let mut written = Vec::new();
    let mut each = |event: &Event<'_>| {
        written.push(event.conn.id);
        Ok(())
    };
    run.exchanges.finish(&[3, 1], &mut each).unwrap();
    assert_eq!(written, [1, 3]);
}

#[test]
fn memory_is_bounded_and_what_exceeds_it_is_written() {
    let mut run = Run::new(true);
    let bytes = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        run.data(Dir::In, &bytes, false, false);
    }
    assert_eq!(run.written.len(), 8, "at eight MiB and their overhead");
    assert_eq!(run.exchanges.held, 0);
    run.data(Dir::In, &bytes, false, true);
    assert_eq!(run.written.len(), 9, "to its end");
    run.exchange(false);
    assert_eq!(run.written.len(), 9, "and no longer");

    let mut run = Run::new(true);
    for id in 0..200 {
        let kind = Kind::Data(Data {
            dir: Dir::In,
            off: 0,
            len: 1 << 20,
            call_len: 1 << 20,
            call_off: 0,
            goid: 0,
            bytes: &bytes,
        });
        run.event(id, kind, false, false);
        let held: u64 = run.exchanges.conns.values().map(|each| each.bytes).sum();
        assert_eq!(held, run.exchanges.held);
        assert!(held <= MAX_ALL);
    }
}
