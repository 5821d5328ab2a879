//! pcapng: the comments say what each packet stands for.

use super::{CONNS, Counter, LONGEST, Order, Source};
use crate::event::{Conn, Data, Event, Kind, Lib, Nanos, Proc, Totals};
use crate::sink::packet;
use crate::sink::pcapng::comment::{self, Words, WordsKind};
use crate::sink::pcapng::{Framing, block};
use crate::sink::tlsframe;
use anyhow::{Result, bail};
use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

/// Most bytes put together to one event; pieces of a call are far shorter.
const PIECE: usize = 16 << 20;

/// Reads on after the first four bytes. Returns the counts in the last statistics block.
pub fn read<R: Read>(source: &mut Source<R>, counter: &mut Counter<'_>) -> Result<Option<Totals>> {
    let mut file = File {
        framing: Framing::Tls,
        interfaces: Vec::new(),
        conns: HashMap::new(),
        pending: None,
        bytes: Vec::new(),
        totals: None,
    };
    let read = file.blocks(source, counter);
    // Even when the rest is damaged, the event before it is whole or at least a beginning.
    file.complete(counter)?;
    read.map(|()| file.totals)
}

struct Interface {
    /// Absent for the interface that stands for the whole capture.
    facts: Option<(Rc<Proc>, Rc<Lib>)>,
    /// Nanoseconds of one unit of time.
    unit: Nanos,
}

struct Pending {
    ts: Nanos,
    conn: Rc<Conn>,
    tid: u32,
    func: String,
    /// Without its bytes.
    data: Data<'static>,
}

struct File {
    framing: Framing,
    interfaces: Vec<Interface>,
    /// By the words about the connection.
    conns: HashMap<String, (u32, Rc<Conn>)>,
    /// Data of which a part may be in the next packets; its bytes are in `bytes`.
    pending: Option<Pending>,
    bytes: Vec<u8>,
    totals: Option<Totals>,
}

impl File {
    fn blocks<R: Read>(&mut self, source: &mut Source<R>, counter: &mut Counter<'_>) -> Result<()> {
        let mut order = Order { is_swapped: false };
        // The caller has read the first block's type.
        let mut kind = block::SECTION.to_le_bytes();
        let mut body = Vec::new();
        loop {
            let start = source.at.saturating_sub(4);
            let is_section = kind == block::SECTION.to_le_bytes();
            let len = source.must_array::<4>()?;
            let mut before = 12;
            if is_section {
                let mark = source.must_array::<4>()?;
                let is_little = u32::from_le_bytes(mark) == block::BYTE_ORDER;
                if !is_little && u32::from_be_bytes(mark) != block::BYTE_ORDER {
                    bail!("not written by tlssniff: the section at byte {start} has no byte order");
                }
                order.is_swapped = !is_little;
                before = 16;
            }
            let len = order.u32(len);
            let rest = usize::try_from(len)
                .ok()
                .and_then(|len| len.checked_sub(before));
            let Some(rest) = rest.filter(|rest| *rest <= LONGEST && len.is_multiple_of(4)) else {
                bail!("the capture file is damaged: block of {len} bytes at byte {start}");
            };
            body.resize(rest, 0);
            source.must_fill(&mut body)?;
            if order.u32(source.must_array::<4>()?) != len {
                bail!("the capture file is damaged: two lengths of the block at byte {start}");
            }
            let is_sound = match order.u32(kind) {
                _ if is_section => self.section(&body, order)?,
                block::INTERFACE => self.interface(&body, order),
                block::PACKET => self.packet(&body, order, counter)?,
                block::STATISTICS => self.statistics(&body, order),
                _ => Some(()),
            };
            if is_sound.is_none() {
                bail!("the capture file is damaged: contents of the block at byte {start}");
            }
            match source.array::<4>()? {
                Some(next) => kind = next,
                None => return Ok(()),
            }
        }
    }

    fn section(&mut self, body: &[u8], order: Order) -> Result<Option<()>> {
        let mut framing = None;
        for (code, value) in body
            .get(12..)
            .map(|rest| options(rest, order))
            .into_iter()
            .flatten()
        {
            if let Some(text) = comment_of(code, value)
                && text.starts_with(comment::FORMAT)
            {
                let mut words = comment::words(text);
                let name = words
                    .find(|(key, _)| *key == "framing")
                    .map(|(_, value)| value);
                framing = name.and_then(Framing::from_name);
            }
        }
        let Some(framing) = framing else {
            let expected = comment::FORMAT;
            bail!("not written by tlssniff: the section's comment does not say {expected}");
        };
        self.framing = framing;
        self.interfaces.clear();
        self.conns.clear();
        Ok(Some(()))
    }

    fn interface(&mut self, body: &[u8], order: Order) -> Option<()> {
        let mut interface = Interface {
            facts: None,
            unit: 1000,
        };
        for (code, value) in options(body.get(8..)?, order) {
            if let Some(text) = comment_of(code, value) {
                interface.facts = interface.facts.or_else(|| comment::read_interface(text));
            } else if code == block::IF_TSRESOL {
                let digits = u32::from(*value.first()?);
                interface.unit = 10_u64.pow(9_u32.checked_sub(digits)?);
            }
        }
        self.interfaces.push(interface);
        Some(())
    }

    fn statistics(&mut self, body: &[u8], order: Order) -> Option<()> {
        for (code, value) in options(body.get(12..)?, order) {
            let Some(text) = comment_of(code, value) else {
                continue;
            };
            let mut totals = Totals::default();
            for (key, value) in comment::words(text) {
                let count = value.parse().ok()?;
                match key {
                    "captured" => totals.captured = count,
                    "shown" => totals.shown = count,
                    "dropped" => totals.dropped = count,
                    "dropped_bytes" => totals.dropped_bytes = count,
                    "truncated" => totals.truncated = count,
                    "late" => totals.late = count,
                    _ => {}
                }
            }
            self.totals = Some(totals);
        }
        Some(())
    }

    fn packet(
        &mut self,
        mut body: &[u8],
        order: Order,
        counter: &mut Counter<'_>,
    ) -> Result<Option<()>> {
        let mut number = || order.take(&mut body);
        let (Some(id), Some(high), Some(low), Some(captured), Some(_)) =
            (number(), number(), number(), number(), number())
        else {
            return Ok(None);
        };
        let captured = captured as usize;
        let (Some(frame), Some(rest)) = (
            body.get(..captured),
            body.get(captured.next_multiple_of(4)..),
        ) else {
            return Ok(None);
        };
        let Some(interface) = self.interfaces.get(id as usize) else {
            return Ok(None);
        };
        let time = u64::from(high) << 32 | u64::from(low);
        let ts = time.saturating_mul(interface.unit);
        // A user may have added comments of his own.
        let words = options(rest, order)
            .filter_map(|(code, value)| comment_of(code, value))
            .find_map(comment::read_event);
        match words {
            Some(words) => self.event(ts, id, &words, frame, counter),
            None => Ok(Some(())),
        }
    }

    fn event(
        &mut self,
        ts: Nanos,
        interface: u32,
        words: &Words<'_>,
        frame: &[u8],
        counter: &mut Counter<'_>,
    ) -> Result<Option<()>> {
        let kind = match words.kind {
            WordsKind::More(dir) => {
                if self
                    .pending
                    .as_ref()
                    .is_some_and(|pending| pending.data.dir == dir)
                {
                    self.append(frame);
                    self.complete_if_whole(counter)?;
                }
                return Ok(Some(()));
            }
            WordsKind::Event(kind) => kind,
        };
        self.complete(counter)?;
        let Some(conn) = self.conn(words.conn, interface) else {
            return Ok(None);
        };
        let func = comment::unescape(words.func);
        match kind {
            Kind::Data(data) => {
                self.pending = Some(Pending {
                    ts,
                    conn,
                    tid: words.tid,
                    func,
                    data,
                });
                self.append(frame);
                self.complete_if_whole(counter)?;
            }
            kind => {
                counter.event(&Event {
                    ts,
                    conn: &conn,
                    tid: words.tid,
                    func: &func,
                    kind,
                })?;
                if kind == Kind::Close {
                    self.conns.remove(words.conn);
                }
            }
        }
        Ok(Some(()))
    }

    fn conn(&mut self, words: &str, interface: u32) -> Option<Rc<Conn>> {
        if let Some((known, conn)) = self.conns.get(words)
            && *known == interface
        {
            return Some(Rc::clone(conn));
        }
        let (proc, lib) = self.interfaces.get(interface as usize)?.facts.as_ref()?;
        let conn = Rc::new(comment::read_conn(words, proc, lib)?);
        if self.conns.len() >= CONNS {
            self.conns.clear();
        }
        self.conns
            .insert(words.to_owned(), (interface, Rc::clone(&conn)));
        Some(conn)
    }

    /// Adds a packet's plaintext to the pending event.
    fn append(&mut self, frame: &[u8]) {
        let Some(packet) = packet::read(frame) else {
            return;
        };
        if self.bytes.len() >= PIECE {
            return;
        }
        match self.framing {
            Framing::Tls => tlsframe::unwrap(&mut self.bytes, packet.payload),
            Framing::Raw => self.bytes.extend_from_slice(packet.payload),
        }
    }

    fn complete_if_whole(&mut self, counter: &mut Counter<'_>) -> Result<()> {
        let len = self.pending.as_ref().map_or(0, |pending| pending.data.len);
        match self.bytes.len() as u64 >= len {
            true => self.complete(counter),
            false => Ok(()),
        }
    }

    fn complete(&mut self, counter: &mut Counter<'_>) -> Result<()> {
        if let Some(Pending {
            ts,
            conn,
            tid,
            func,
            data,
        }) = self.pending.take()
        {
            let kept = usize::try_from(data.len)
                .ok()
                .and_then(|len| self.bytes.get(..len));
            let data = Data {
                bytes: kept.unwrap_or(&self.bytes),
                ..data
            };
            counter.event(&Event {
                ts,
                conn: &conn,
                tid,
                func: &func,
                kind: Kind::Data(data),
            })?;
        }
        self.bytes.clear();
        Ok(())
    }
}

/// The options of a block; ends at the first that is not whole.
fn options(mut rest: &[u8], order: Order) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[c0, c1, l0, l1], body) = rest.split_first_chunk::<4>()?;
        let (code, len) = (order.u16([c0, c1]), usize::from(order.u16([l0, l1])));
        let value = body.get(..len).filter(|_| code != 0)?;
        rest = body.get(len.next_multiple_of(4)..)?;
        Some((code, value))
    })
}

fn comment_of(code: u16, value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value)
        .ok()
        .filter(|_| code == block::COMMENT)
}
