//! Classic pcap: connections and events other than data from the notes, data from TCP.

use super::{CONNS, Counter, LONGEST, Order, Source};
use crate::event::{Conn, Data, Dir, Event, Flavor, Kind, Lib, Nanos, Proc, Transport};
use crate::sink::packet::{self, Link, Packet};
use crate::sink::pcapng::comment::{self, WordsKind};
use crate::sink::pcapng::{Framing, NOTE, block};
use crate::sink::tlsframe;
use anyhow::{Result, bail};
use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

/// What the first four bytes say.
#[derive(Clone, Copy)]
pub struct Header {
    order: Order,
    /// Nanoseconds of one unit of the fraction.
    unit: Nanos,
}

impl Header {
    /// From the first four bytes, read as little-endian.
    pub fn new(magic: u32) -> Option<Header> {
        const MICROSECONDS: u32 = 0xa1b2_c3d4;
        let (is_swapped, unit) = match (magic, magic.swap_bytes()) {
            (block::CLASSIC, _) => (false, 1),
            (MICROSECONDS, _) => (false, 1000),
            (_, block::CLASSIC) => (true, 1),
            (_, MICROSECONDS) => (true, 1000),
            _ => return None,
        };
        Some(Header {
            order: Order { is_swapped },
            unit,
        })
    }
}

struct Known {
    conn: Conn,
    framing: Framing,
    /// Stream offsets, inbound and outbound.
    inbound: u64,
    outbound: u64,
}

/// By the 24 bits of the connection's number that a packet has.
type Conns = HashMap<u64, Known>;

/// Reads on after the first four bytes.
pub fn read<R: Read>(
    source: &mut Source<R>,
    header: Header,
    counter: &mut Counter<'_>,
) -> Result<()> {
    let Header { order, unit } = header;
    let start = source.must_array::<20>()?;
    let link_type = start.last_chunk().map(|bytes| order.u32(*bytes) & 0xffff);
    if link_type != Some(block::ETHERNET.into()) {
        bail!("not written by tlssniff: the link type is not Ethernet");
    }
    let mut conns = Conns::new();
    let (mut frame, mut plain) = (Vec::new(), Vec::new());
    loop {
        let at = source.at;
        let Some(record) = source.array::<16>()? else {
            return Ok(());
        };
        let mut fields = record.as_slice();
        let mut number = || order.take(&mut fields).unwrap_or_default();
        let (seconds, fraction, captured) = (number(), number(), number());
        if captured as usize > LONGEST {
            bail!("the capture file is damaged: packet of {captured} bytes at byte {at}");
        }
        frame.resize(captured as usize, 0);
        source.must_fill(&mut frame)?;
        let ts = u64::from(seconds) * 1_000_000_000 + u64::from(fraction).saturating_mul(unit);
        let Some(link) = packet::read_link(&frame) else {
            bail!("not written by tlssniff: MAC addresses of the packet at byte {at}");
        };
        if conns.len() >= CONNS {
            conns.clear();
        }
        let text = frame
            .get(packet::ETHERNET..)
            .and_then(|body| body.strip_prefix(NOTE));
        if let Some(text) = text {
            note(
                ts,
                link,
                &String::from_utf8_lossy(text),
                &mut conns,
                counter,
            )?;
        } else if let Some(packet) = packet::read(&frame) {
            plain.clear();
            data(ts, &packet, &mut conns, &mut plain, counter)?;
        }
    }
}

fn note(
    ts: Nanos,
    link: Link,
    text: &str,
    conns: &mut Conns,
    counter: &mut Counter<'_>,
) -> Result<()> {
    let event = comment::read_event(text);
    let words = event.as_ref().map_or(text, |event| event.conn);
    let Some(conn) = conn(words) else {
        return Ok(());
    };
    let framing = comment::words(words).find(|(key, _)| *key == "framing");
    let framing = framing.and_then(|(_, name)| Framing::from_name(name));
    let known = conns.entry(link.conn).or_insert_with(|| Known {
        conn: conn.clone(),
        framing: Framing::default(),
        inbound: 0,
        outbound: 0,
    });
    if known.conn.id != conn.id {
        (known.inbound, known.outbound) = (0, 0);
    }
    known.framing = framing.unwrap_or(known.framing);
    known.conn = conn;
    let Some(event) = event else { return Ok(()) };
    let WordsKind::Event(kind) = event.kind else {
        return Ok(());
    };
    if let Kind::Gap { dir, off, len, .. } = kind {
        match dir {
            Dir::In => known.inbound = off.saturating_add(len),
            Dir::Out => known.outbound = off.saturating_add(len),
        }
    }
    let func = comment::unescape(event.func);
    counter.event(&Event {
        ts,
        conn: &known.conn,
        tid: event.tid,
        func: &func,
        kind,
    })?;
    if kind == Kind::Close {
        conns.remove(&link.conn);
    }
    Ok(())
}

fn data(
    ts: Nanos,
    packet: &Packet<'_>,
    conns: &mut Conns,
    plain: &mut Vec<u8>,
    counter: &mut Counter<'_>,
) -> Result<()> {
    let link = packet.segment.link;
    let known = conns.entry(link.conn).or_insert_with(|| unknown(packet));
    let (bytes, len) = match known.framing {
        // The made-up handshake.
        Framing::Tls if packet.payload.first().is_some_and(|kind| *kind != 23) => return Ok(()),
        Framing::Tls => {
            tlsframe::unwrap(plain, packet.payload);
            (plain.as_slice(), tlsframe::plain_len(packet.len as u64))
        }
        Framing::Raw => (packet.payload, packet.len as u64),
    };
    if len == 0 {
        return Ok(());
    }
    let dir = if link.is_outbound { Dir::Out } else { Dir::In };
    let next = match dir {
        Dir::In => &mut known.inbound,
        Dir::Out => &mut known.outbound,
    };
    let off = *next;
    *next = off.saturating_add(len);
    let data = Data {
        dir,
        off,
        len,
        call_len: len,
        call_off: 0,
        goid: 0,
        bytes,
    };
    let kind = Kind::Data(data);
    counter.event(&Event {
        ts,
        conn: &known.conn,
        tid: 0,
        func: "",
        kind,
    })
}

/// The connection that a note tells about. Its process and library are known in part.
fn conn(words: &str) -> Option<Conn> {
    let mut proc = Proc::default();
    let mut flavor = Flavor::OpenSsl;
    for (key, value) in comment::words(words) {
        match key {
            "pid" => proc.pid = value.parse().ok()?,
            "comm" => proc.comm = comment::unescape(value),
            "uid" => proc.uid = Some(value.parse().ok()?),
            "lib" => flavor = Flavor::from_name(value)?,
            _ => {}
        }
    }
    comment::read_conn(words, &Rc::new(proc), &unnamed(flavor))
}

/// The connection of a packet whose note was cut out of the file.
fn unknown(packet: &Packet<'_>) -> Known {
    let link = packet.segment.link;
    let (mut local, mut remote) = (packet.segment.src, packet.segment.dst);
    if !link.is_outbound {
        std::mem::swap(&mut local, &mut remote);
    }
    let conn = Conn {
        id: link.conn,
        proc: Rc::new(Proc {
            pid: link.pid,
            ..Proc::default()
        }),
        lib: unnamed(Flavor::OpenSsl),
        transport: Transport::Tcp { local, remote },
        addr_source: None,
        unseen: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    };
    let framing = match packet.payload.first_chunk() {
        Some([20 | 22 | 23, 3, 1 | 3]) => Framing::Tls,
        _ => Framing::Raw,
    };
    Known {
        conn,
        framing,
        inbound: 0,
        outbound: 0,
    }
}

fn unnamed(flavor: Flavor) -> Rc<Lib> {
    Rc::new(Lib {
        flavor,
        path: String::new(),
        version: None,
    })
}
