//! The conversations of all connections, and what becomes of bytes of no known protocol.

use super::body::{Context, Undone};
use super::detect::{self, First, Side, Verdict};
use super::message::{Message, Protocol};
use super::{At, Dialog, Item, Limits, half};
use crate::event::{Conn, Data, Dir, Event, Kind, Nanos};
use anyhow::Result;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

/// Takes items; an error ends the run.
pub type Emit<'a> = dyn FnMut(Item<'_>) -> Result<()> + 'a;

/// Bytes of one half that are held back until its protocol is known.
const MAX_UNSURE: usize = 16 << 10;

/// Finds out what each connection speaks, and has it decoded.
#[derive(Debug)]
pub struct Conversations {
    conns: HashMap<u64, Known>,
    decoder: Decoder,
}

/// A connection, as its last event described it.
#[derive(Debug)]
struct Known {
    conn: Conn,
    talk: Talk,
}

#[derive(Debug)]
enum Talk {
    /// Nothing is known yet: what came first waits.
    Unsure(Vec<Held>),
    /// With the offsets behind what came last of both halves.
    Known(Box<dyn Dialog>, [u64; 2]),
    /// Nothing that we know; each call is looked at anew.
    Bytes,
}

/// A piece of data that waits.
#[derive(Debug)]
struct Held {
    at: At,
    func: String,
    dir: Dir,
    off: u64,
    len: u64,
    call_len: u64,
    call_off: u64,
    bytes: Vec<u8>,
}

impl Held {
    fn new(event: &Event<'_>, data: &Data<'_>) -> Held {
        Held {
            at: at(event),
            func: event.func.to_owned(),
            dir: data.dir,
            off: data.off,
            len: data.len,
            call_len: data.call_len,
            call_off: data.call_off,
            bytes: data.bytes.to_vec(),
        }
    }

    fn data(&self) -> Data<'_> {
        Data {
            dir: self.dir,
            off: self.off,
            len: self.len,
            call_len: self.call_len,
            call_off: self.call_off,
            goid: self.at.goid,
            bytes: &self.bytes,
        }
    }
}

fn at(event: &Event<'_>) -> At {
    At {
        ts: event.ts,
        tid: event.tid,
        goid: match event.kind {
            Kind::Data(data) => data.goid,
            _ => 0,
        },
    }
}

impl Conversations {
    pub fn new(limits: Limits) -> Conversations {
        Conversations {
            conns: HashMap::new(),
            decoder: Decoder {
                limits,
                held: 0,
                sent: Rc::default(),
                ready: Vec::new(),
                undone: Vec::new(),
            },
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn event(&mut self, event: &Event<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let id = event.conn.id;
        let decoder = &mut self.decoder;
        match event.kind {
            Kind::Data(data) => {
                let known = self.conns.entry(id).or_insert_with(|| Known {
                    conn: event.conn.clone(),
                    talk: Talk::Unsure(Vec::new()),
                });
                if known.conn != *event.conn {
                    known.conn.clone_from(event.conn);
                }
                return decoder.data(&mut known.talk, event, &data, emit);
            }
            Kind::Gap { dir, len, .. } => {
                if let Some(known) = self.conns.get_mut(&id) {
                    decoder.gap(&mut known.talk, event, dir, len, emit)?;
                }
            }
            Kind::Open => {}
            Kind::Shutdown => {
                if let Some(known) = self.conns.get_mut(&id) {
                    decoder.end(&mut known.talk, event, Some(Dir::Out), emit)?;
                }
            }
            Kind::Close => {
                if let Some(mut known) = self.conns.remove(&id) {
                    decoder.end(&mut known.talk, event, None, emit)?;
                }
            }
        }
        emit(Item::Event(event))
    }

    /// Whether the connection stands where what comes next does not depend on what was before.
    pub fn is_between(&self, id: u64) -> bool {
        match self.conns.get(&id).map(|known| &known.talk) {
            None | Some(Talk::Bytes) => true,
            Some(Talk::Unsure(held)) => held.is_empty(),
            Some(Talk::Known(dialog, _)) => dialog.is_between(),
        }
    }

    /// The capture has ended, at this time: tells what is incomplete.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn finish(&mut self, ts: Nanos, emit: &mut Emit<'_>) -> Result<()> {
        let mut conns: Vec<Known> = self.conns.drain().map(|(_, known)| known).collect();
        conns.sort_unstable_by_key(|known| known.conn.id);
        for known in &mut conns {
            let event = Event {
                ts,
                conn: &known.conn,
                tid: 0,
                func: "",
                kind: Kind::Close,
            };
            self.decoder.end(&mut known.talk, &event, None, emit)?;
        }
        Ok(())
    }
}

/// What decoding needs of one connection at a time.
#[derive(Debug)]
struct Decoder {
    limits: Limits,
    /// Bytes kept of incomplete bodies.
    held: usize,
    /// Likewise of the bodies of requests that have no response yet.
    sent: Rc<Cell<usize>>,
    ready: Vec<Message>,
    undone: Vec<Undone>,
}

impl Decoder {
    fn data(
        &mut self,
        talk: &mut Talk,
        event: &Event<'_>,
        data: &Data<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        match talk {
            Talk::Unsure(held) => {
                held.push(Held::new(event, data));
                let verdict = verdict(held, data.dir, event.conn);
                if verdict == Verdict::Unsure {
                    return Ok(());
                }
                let held = std::mem::take(held);
                *talk = begin(verdict, data.dir);
                for held in held {
                    self.held_data(talk, event, &held, emit)?;
                }
                Ok(())
            }
            Talk::Bytes => {
                let verdict = if data.call_off == 0 {
                    detect::look(&First::new(event.conn, data.dir, data.bytes))
                } else {
                    Verdict::Unknown
                };
                match verdict {
                    Verdict::Known(..) => {
                        *talk = begin(verdict, data.dir);
                        self.decode(talk, event, data, emit)
                    }
                    Verdict::Unsure => {
                        *talk = Talk::Unsure(vec![Held::new(event, data)]);
                        Ok(())
                    }
                    Verdict::Unknown => emit(Item::Event(event)),
                }
            }
            Talk::Known(..) => self.decode(talk, event, data, emit),
        }
    }

    /// What waited goes on as if it came now.
    fn held_data(
        &mut self,
        talk: &mut Talk,
        event: &Event<'_>,
        held: &Held,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let data = held.data();
        let event = Event {
            ts: held.at.ts,
            tid: held.at.tid,
            conn: event.conn,
            func: &held.func,
            kind: Kind::Data(data),
        };
        match talk {
            Talk::Unsure(_) | Talk::Bytes => emit(Item::Event(&event)),
            Talk::Known(..) => self.decode(talk, &event, &data, emit),
        }
    }

    fn decode(
        &mut self,
        talk: &mut Talk,
        event: &Event<'_>,
        data: &Data<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let at = at(event);
        let mut context = self.context(event);
        let is_start = data.call_off == 0;
        let cut = data.len.saturating_sub(data.bytes.len() as u64);
        let Talk::Known(dialog, ends) = talk else {
            return Ok(());
        };
        let taken = dialog.data(data.dir, at, data.bytes, is_start, &mut context);
        if cut > 0 {
            dialog.gap(data.dir, at, cut, &mut context);
        }
        // What is given back of this half lies before what was not taken.
        let mut before = *ends;
        if let (Some(end), Some(before)) =
            (ends.get_mut(half(data.dir)), before.get_mut(half(data.dir)))
        {
            *before = data.off.saturating_add(taken as u64);
            *end = data.off.saturating_add(data.len);
        }
        if dialog.is_over() {
            *talk = Talk::Bytes;
        }
        self.emit_ready(event, before, emit)?;
        let Some(rest) = data.bytes.get(taken..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        let skipped = taken as u64;
        emit(Item::Event(&Event {
            kind: Kind::Data(Data {
                off: data.off.saturating_add(skipped),
                len: data.len.saturating_sub(skipped),
                call_len: data.call_len.saturating_sub(skipped),
                bytes: rest,
                ..*data
            }),
            ..*event
        }))
    }

    fn gap(
        &mut self,
        talk: &mut Talk,
        event: &Event<'_>,
        dir: Dir,
        len: u64,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let at = at(event);
        let mut context = self.context(event);
        match talk {
            Talk::Known(dialog, ends) => {
                let before = *ends;
                dialog.gap(dir, at, len, &mut context);
                if let Some(end) = ends.get_mut(half(dir)) {
                    *end = end.saturating_add(len);
                }
                self.emit_ready(event, before, emit)
            }
            Talk::Bytes => Ok(()),
            Talk::Unsure(_) => self.give_up(talk, event, emit),
        }
    }

    /// One half or both have ended.
    fn end(
        &mut self,
        talk: &mut Talk,
        event: &Event<'_>,
        dir: Option<Dir>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let at = at(event);
        let mut context = self.context(event);
        match talk {
            Talk::Known(dialog, ends) => {
                dialog.end(dir, at, &mut context);
                self.emit_ready(event, *ends, emit)
            }
            Talk::Bytes => Ok(()),
            Talk::Unsure(_) => self.give_up(talk, event, emit),
        }
    }

    /// What waited is shown as it is.
    fn give_up(&mut self, talk: &mut Talk, event: &Event<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let Talk::Unsure(held) = std::mem::replace(talk, Talk::Bytes) else {
            return Ok(());
        };
        held.iter()
            .try_for_each(|held| self.held_data(talk, event, held, emit))
    }

    fn context<'a>(&'a mut self, event: &Event<'a>) -> Context<'a> {
        Context {
            conn: event.conn,
            limits: self.limits,
            held: &mut self.held,
            sent: &self.sent,
            ready: &mut self.ready,
            undone: &mut self.undone,
        }
    }

    /// `ends`: offsets behind what was given back.
    fn emit_ready(&mut self, event: &Event<'_>, ends: [u64; 2], emit: &mut Emit<'_>) -> Result<()> {
        for undone in std::mem::take(&mut self.undone) {
            let len = undone.bytes.len() as u64;
            let end = ends.get(half(undone.dir)).copied().unwrap_or_default();
            emit(Item::Event(&Event {
                ts: undone.at.ts,
                conn: event.conn,
                tid: undone.at.tid,
                func: "",
                kind: Kind::Data(Data {
                    dir: undone.dir,
                    off: end.saturating_sub(len),
                    len,
                    call_len: len,
                    call_off: 0,
                    goid: undone.at.goid,
                    bytes: &undone.bytes,
                }),
            }))?;
        }
        let mut ready = std::mem::take(&mut self.ready);
        let result = ready
            .iter()
            .try_for_each(|message| emit(Item::Message(event.conn, message)));
        ready.clear();
        self.ready = ready;
        result
    }
}

/// `dir`: whose bytes the verdict is about.
fn begin(verdict: Verdict, dir: Dir) -> Talk {
    match verdict {
        Verdict::Known(protocol, side) => {
            let dialog = detect::begin(protocol, side, dir);
            dialog.map_or(Talk::Bytes, |dialog| Talk::Known(dialog, [0; 2]))
        }
        Verdict::Unsure | Verdict::Unknown => Talk::Bytes,
    }
}

/// What the half that `dir` names begins with; a half that nothing can be told of for too long
/// is unknown.
fn verdict(held: &[Held], dir: Dir, conn: &Conn) -> Verdict {
    let mut bytes = Vec::new();
    for held in held.iter().filter(|held| half(held.dir) == half(dir)) {
        bytes.extend_from_slice(&held.bytes);
        if (held.bytes.len() as u64) < held.len {
            break;
        }
    }
    let first = First::new(conn, dir, &bytes);
    let side = first.side.unwrap_or(Side::Client);
    match detect::look(&first) {
        Verdict::Unsure if bytes.len() >= MAX_UNSURE => Verdict::Unknown,
        // Nothing else may be spoken then (RFC 7301): decoding begins where it can.
        Verdict::Unknown if first.alpn == Some("h2") => Verdict::Known(Protocol::Http2, side),
        Verdict::Unknown if matches!(first.alpn, Some("http/1.1" | "http/1.0")) => {
            Verdict::Known(Protocol::Http1, side)
        }
        verdict => verdict,
    }
}
