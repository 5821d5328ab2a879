//! The stages from the ring to a sink, fed with records as BPF writes them, without any BPF.

#[path = "talk.rs"]
mod talk;

use anyhow::Result;
use std::io;
use std::rc::Rc;
use talk::Talk;
use tlssniff::bpf::ConnKey;
use tlssniff::event::{Flavor, Lib, Proc, Unseen};
use tlssniff::flow::{ConnTable, Facts};
use tlssniff::ring::{self, RawConn};
use tlssniff::sink::Sink;
use tlssniff::sink::json::JsonSink;
use tlssniff::sink::pcapng::{self, PcapSink};
use tlssniff::sink::rotate::Output;
use tlssniff::sink::text::{TextOptions, TextSink};

/// The sinks by name; behind the last two, text of messages.
pub const SINKS: [&str; 5] = ["pcapng", "text", "json", "http1", "http2"];

/// Connections that take turns, as those of a server do.
const CONNS: u64 = 16;

/// Lengths of `struct ts_rec_conn` and `struct ts_rec_data` in bpf/abi.h.
const CONN_RECORD: usize = 552;
const DATA_RECORD: usize = 80;

/// A pipeline whose output goes nowhere.
pub struct Feed {
    table: ConnTable,
    facts: Anybody,
    sink: Box<dyn Sink>,
    talk: Option<Talk>,
    record: Vec<u8>,
    calls: u64,
    /// Of both halves: what is read, what is written.
    offsets: [[u64; CONNS as usize]; 2],
}

impl Feed {
    /// One of [`SINKS`], and how many bytes each call moves, or each response has.
    pub fn new(name: &str, size: usize) -> Result<Feed> {
        let sink: Box<dyn Sink> = match name {
            "pcapng" => {
                let output = Output::stream(Box::new(io::sink()), "nowhere");
                Box::new(PcapSink::new(output, pcapng::Options::default())?)
            }
            "json" => Box::new(JsonSink::new(io::sink(), false)),
            _ => Box::new(TextSink::new(io::sink(), TextOptions::default())),
        };
        let mut feed = Feed {
            table: ConnTable::default(),
            facts: Anybody::new(),
            sink,
            talk: None,
            record: Vec::new(),
            calls: 0,
            offsets: [[0; CONNS as usize]; 2],
        };
        for conn in 1..=CONNS {
            feed.record = conn_record(conn);
            feed.take()?;
        }
        feed.record = data_record(&vec![b'~'; size]);
        feed.talk = match name {
            "http1" => Some(Talk::new(false, size)),
            "http2" => Some(Talk::new(true, size)),
            _ => None,
        };
        if let Some(talk) = &mut feed.talk {
            for (half, (bytes, places)) in talk.calls.iter_mut().enumerate() {
                *bytes = data_record(bytes);
                // The request is read.
                put(bytes, 74, &[u8::from(half == 0)]);
                places.iter_mut().for_each(|place| *place += DATA_RECORD);
            }
        }
        Ok(feed)
    }

    /// One more `SSL_write`; of messages, a request and its response in turn.
    pub fn call(&mut self) -> Result<()> {
        let turn = usize::from(self.talk.is_none() || self.calls % 2 == 1);
        let Some(mut talk) = self.talk.take() else {
            let conn = self.calls % CONNS;
            return self.move_bytes(conn, turn);
        };
        let exchange = self.calls / 2;
        let stream = u32::try_from(exchange / CONNS * 2 + 1).expect("a stream");
        let (call, places) = &mut talk.calls[turn];
        for &mut place in places {
            put(call, place, &stream.to_be_bytes());
        }
        std::mem::swap(&mut self.record, call);
        self.talk = Some(talk);
        let result = self.move_bytes(exchange % CONNS, turn);
        if let Some(talk) = &mut self.talk {
            std::mem::swap(&mut self.record, &mut talk.calls[turn].0);
        }
        result
    }

    fn move_bytes(&mut self, conn: u64, turn: usize) -> Result<()> {
        self.calls += 1;
        let len = (self.record.len() - DATA_RECORD) as u64;
        let off = &mut self.offsets[turn][conn as usize];
        put(&mut self.record, 8, &(conn + 1).to_ne_bytes());
        put(&mut self.record, 16, &(self.calls * 10_000).to_ne_bytes());
        put(&mut self.record, 24, &off.to_ne_bytes());
        *off += len;
        self.take()
    }

    fn take(&mut self) -> Result<()> {
        let raw = ring::decode(&self.record).expect("a record as BPF writes it");
        let Feed {
            table,
            facts,
            sink,
            talk,
            ..
        } = self;
        table.record(raw, facts, &mut |event| match talk {
            Some(talk) => talk.event(event, sink.as_mut()),
            None => sink.event(event),
        })
    }
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    record[at..at + bytes.len()].copy_from_slice(bytes);
}

fn conn_record(conn: u64) -> Vec<u8> {
    let mut record = vec![0; CONN_RECORD];
    let port = 40_000 + conn as u16;
    put(&mut record, 0, &1u32.to_ne_bytes());
    put(&mut record, 8, &conn.to_ne_bytes());
    put(&mut record, 24, &(0x5500_0000 + conn).to_ne_bytes());
    put(&mut record, 32, &4242u32.to_ne_bytes());
    put(&mut record, 52, &4242u32.to_ne_bytes());
    put(&mut record, 60, &0x0304u16.to_ne_bytes());
    // A server at 10.0.0.1:443; its client at 10.0.0.2.
    put(&mut record, 62, &[2, 0, 1, 1]);
    put(&mut record, 66, &(libc::AF_INET as u16).to_ne_bytes());
    put(&mut record, 68, &443u16.to_ne_bytes());
    put(&mut record, 70, &port.to_ne_bytes());
    put(&mut record, 72, &[10, 0, 0, 1]);
    put(&mut record, 88, &[10, 0, 0, 2]);
    put(&mut record, 112, b"server");
    record
}

fn data_record(bytes: &[u8]) -> Vec<u8> {
    let size = bytes.len();
    let mut record = [&[0; DATA_RECORD], bytes].concat();
    put(&mut record, 0, &2u32.to_ne_bytes());
    put(&mut record, 32, &(size as u64).to_ne_bytes());
    put(&mut record, 40, &(size as u64).to_ne_bytes());
    put(&mut record, 64, &4242u32.to_ne_bytes());
    put(&mut record, 68, &4243u32.to_ne_bytes());
    put(&mut record, 76, &(size as u32).to_ne_bytes());
    record
}

/// Every connection is of one process and one library.
struct Anybody {
    process: Rc<Proc>,
    lib: Rc<Lib>,
}

impl Anybody {
    fn new() -> Anybody {
        Anybody {
            process: Rc::new(Proc {
                pid: 4242,
                comm: "server".into(),
                exe: Some("/usr/sbin/server".into()),
                uid: Some(33),
                ..Proc::default()
            }),
            lib: Rc::new(Lib {
                flavor: Flavor::OpenSsl,
                path: "/usr/lib/libssl.so.3".into(),
                version: Some("OpenSSL 3.0.17 1 Jul 2025".into()),
            }),
        }
    }
}

impl Facts for Anybody {
    fn lib(&self, _: u32) -> Rc<Lib> {
        Rc::clone(&self.lib)
    }

    fn func(&self, _: u32, _: u16) -> &str {
        "ssl_write_internal"
    }

    fn admit(&mut self, _: &RawConn) -> Option<Rc<Proc>> {
        Some(Rc::clone(&self.process))
    }

    fn unseen(&self, _: &RawConn) -> Option<Unseen> {
        None
    }

    fn guess(&mut self, _: u32) -> Option<Rc<Proc>> {
        None
    }

    fn offsets(&self, _: &ConnKey, _: u64) -> Option<[u64; 2]> {
        None
    }
}
