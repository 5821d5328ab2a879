//! Writes events as pcapng, or as classic pcap.
//!
//! Every event is at least one packet. Data become TCP segments; what has no natural packet (a gap,
//! the opening of a second view of a flow) becomes a *note*: an Ethernet frame of type 0x88b5
//! with the words of the comment as its text, which no TCP view looks at. In pcapng the comments
//! hold everything; classic pcap, which has none, gets a note for all but data.

pub mod block;
pub mod comment;
mod table;
mod tcp;
mod writer;

use super::Sink;
use super::packet::{self, Link, PAYLOAD, Segment};
use super::rotate::Output;
use super::tlsframe;
use crate::event::{Conn, Data, Dir, Event, GapCause, Kind, Totals};
use anyhow::{Context, Result};
use table::{Entry, Table, View};
use tcp::End;
use writer::{Owner, Writer};

/// Begins the text of a note.
pub const NOTE: &[u8] = b"tlssniff: ";

/// Bytes without contents that are written as empty packets; beyond, as a jump.
const EMPTY: u64 = 1 << 20;

/// The file format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Pcapng,
    Pcap,
}

/// How plaintext lies in TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// In TLS records of a NULL cipher.
    #[default]
    Tls,
    /// As it is.
    Raw,
}

impl Framing {
    pub fn name(self) -> &'static str {
        match self {
            Framing::Tls => "tls",
            Framing::Raw => "raw",
        }
    }

    /// The inverse of [`Framing::name`].
    pub fn from_name(name: &str) -> Option<Framing> {
        [Framing::Tls, Framing::Raw]
            .into_iter()
            .find(|f| f.name() == name)
    }

    /// Most plaintext in one packet.
    fn limit(self) -> u64 {
        match self {
            Framing::Tls => const { tlsframe::fits(PAYLOAD) as u64 },
            Framing::Raw => PAYLOAD as u64,
        }
    }

    /// TCP payload for `plain` bytes of plaintext.
    fn wire_len(self, plain: u64) -> u64 {
        match self {
            Framing::Tls => tlsframe::wire_len(plain),
            Framing::Raw => plain,
        }
    }
}

/// What the file says about itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub format: Format,
    pub framing: Framing,
    /// Machine architecture, and kernel name and release.
    pub hardware: String,
    pub os: String,
    /// The command line or whatever else is worth keeping.
    pub comment: String,
    /// The filter expression.
    pub filter: Option<String>,
    /// `-U`: hand each packet on at once.
    pub packet_buffered: bool,
    /// The first event may be of a connection that others have seen before; it begins here then.
    pub may_join_late: bool,
}

/// The sink behind `-w`.
#[derive(Debug)]
pub struct PcapSink {
    writer: Writer,
    table: Table,
}

impl PcapSink {
    /// Writes the file header at once, so that even an empty capture is a valid file.
    pub fn new(output: Output, options: Options) -> Result<PcapSink> {
        let writer = Writer::new(output, options)?;
        Ok(PcapSink {
            writer,
            table: Table::default(),
        })
    }
}

impl Sink for PcapSink {
    /// # Errors
    /// Of the output, with its name, once; [`super::rotate::FileLimitReached`] when `-W` ends it.
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        let PcapSink { writer, table } = self;
        if writer.output.is_due(event.ts) {
            writer.next_file(event.ts)?;
        }
        writer.last = event.ts;
        let is_new = table.enter(event.conn, event.ts);
        let view = table
            .views
            .get_mut(&event.conn.id)
            .context("find a connection just added")?;
        if is_new && writer.options.may_join_late && event.kind != Kind::Open {
            view.is_joined = [true; 2];
        }
        let entry = table
            .flows
            .get_mut(&view.flow)
            .context("find the flow of a connection")?;
        writer.one(event, view, entry)?;
        if event.kind == Kind::Close {
            table.leave(event.conn.id, event.ts);
        }
        if writer.options.packet_buffered {
            writer.output.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.output.flush()
    }

    fn finish(&mut self, totals: &Totals) -> Result<()> {
        self.writer.statistics(totals)?;
        self.writer.output.flush()
    }
}

impl Writer {
    fn one(&mut self, event: &Event<'_>, view: &mut View, entry: &mut Entry) -> Result<()> {
        let is_new = view.conn != *event.conn;
        if is_new {
            view.learn(event.conn, entry.mirrored());
        }
        let interface = match view.interface {
            Some((file, id)) if file == self.file => id,
            _ => self.interface(event.conn)?,
        };
        let owner = Owner {
            ts: event.ts,
            interface,
            pid: event.conn.proc.pid,
            conn: event.conn.id,
        };
        let is_classic = self.options.format == Format::Pcap;
        if is_classic && (is_new || view.interface != Some((self.file, interface))) {
            let framing = self.options.framing.name();
            self.comment.clear();
            for part in [&view.words, " framing=", framing] {
                self.comment.push_str(part);
            }
            self.note(owner, None)?;
        }
        view.interface = Some((self.file, interface));
        self.comment.clear();
        self.comment.push_str(&view.words);
        comment::event(&mut self.comment, event);

        let is_ending = matches!(event.kind, Kind::Shutdown | Kind::Close);
        let is_data = matches!(event.kind, Kind::Data(data) if data.len > 0);
        let is_first = entry.file != Some(self.file) && !is_ending;
        // The packet that an event other than data is told with, where TCP has one for it.
        let has_packet = match event.kind {
            _ if is_classic || entry.flow.is_hidden => false,
            Kind::Open => is_first,
            Kind::Shutdown | Kind::Close => {
                entry.file == Some(self.file)
                    && entry.users == 1
                    && !(entry.flow.has_ended(entry.flow.local) && event.kind == Kind::Shutdown)
            }
            Kind::Data(_) | Kind::Gap { .. } => is_data,
        };
        let sentence = match (is_first && has_packet && !is_data, view.sentence.as_str()) {
            (true, "") => comment::SYNTHETIC.to_owned(),
            (true, text) => format!("{text}; {}", comment::SYNTHETIC),
            (false, text) => text.to_owned(),
        };
        if !sentence.is_empty() {
            comment::sentence(&mut self.comment, &sentence);
        }
        if is_first {
            self.start(
                owner,
                event.conn,
                entry,
                event.kind == Kind::Open && has_packet,
            )?;
        }
        if !has_packet && !is_data {
            self.note(owner, dir_of(&event.kind))?;
        }
        match event.kind {
            Kind::Open => Ok(()),
            Kind::Gap { dir, off, len, .. } => {
                self.skip_to(view, entry, dir, off.saturating_add(len));
                Ok(())
            }
            Kind::Data(data) if is_data => self.data(owner, event.tid, &data, view, entry),
            Kind::Data(_) => Ok(()),
            Kind::Shutdown | Kind::Close => {
                let ends_here = entry.file == Some(self.file) && entry.users == 1;
                match ends_here && !entry.flow.is_hidden {
                    true => self.end(owner, entry, event.kind == Kind::Close, has_packet),
                    false => Ok(()),
                }
            }
        }
    }

    /// Moves the TCP sequence numbers over bytes that are missing up to stream offset `off`.
    fn skip_to(&self, view: &mut View, entry: &mut Entry, dir: Dir, off: u64) -> u64 {
        let [inbound, outbound] = &mut view.is_joined;
        let (known, is_joined) = match dir {
            Dir::In => (&mut view.inbound, inbound),
            Dir::Out => (&mut view.outbound, outbound),
        };
        if std::mem::take(is_joined) {
            *known = off;
        }
        let missing = off.saturating_sub(*known);
        *known = off.max(*known);
        entry
            .flow
            .skip(end_of(entry, dir), self.options.framing.wire_len(missing));
        missing
    }

    fn data(
        &mut self,
        owner: Owner,
        tid: u32,
        data: &Data<'_>,
        view: &mut View,
        entry: &mut Entry,
    ) -> Result<()> {
        let framing = self.options.framing;
        let missing = self.skip_to(view, entry, data.dir, data.off);
        if missing > 0 && self.options.format == Format::Pcap {
            // Classic data packets have no offset; this one is told by a gap before it.
            let words = std::mem::take(&mut self.comment);
            self.comment.push_str(&view.words);
            let off = data.off.saturating_sub(missing);
            let cause = GapCause::Dropped;
            let kind = Kind::Gap {
                dir: data.dir,
                off,
                len: missing,
                cause,
            };
            comment::event(
                &mut self.comment,
                &Event {
                    ts: owner.ts,
                    conn: &view.conn,
                    tid,
                    func: "",
                    kind,
                },
            );
            self.note(owner, Some(data.dir))?;
            self.comment = words;
        }
        let known = match data.dir {
            Dir::In => &mut view.inbound,
            Dir::Out => &mut view.outbound,
        };
        *known = data.off.saturating_add(data.len);
        let from = end_of(entry, data.dir);
        // What comes after the end of its half would not be TCP.
        let is_late = entry.flow.has_ended(from);
        let (mut bytes, mut rest) = (data.bytes, data.len);
        if let Some(kept) = usize::try_from(data.len)
            .ok()
            .and_then(|len| bytes.get(..len))
        {
            bytes = kept;
        }
        loop {
            let len = rest.min(framing.limit());
            rest -= len;
            let (chunk, others) = bytes.split_at_checked(len as usize).unwrap_or((bytes, &[]));
            bytes = others;
            let wire = framing.wire_len(len) as usize;
            let mut segment = entry.flow.segment(from, wire as u32, owner.pid, owner.conn);
            segment.is_hidden |= is_late;
            self.packet(owner, Some(data.dir), &segment, wire, |out| match framing {
                Framing::Tls => tlsframe::wrap(out, chunk, len as usize),
                Framing::Raw => out.extend_from_slice(chunk),
            })?;
            if entry.flow.wants_ack(from) {
                self.comment.clear();
                let ack = entry.flow.segment(from.peer(), 0, owner.pid, owner.conn);
                self.packet(owner, None, &ack, 0, |_| ())?;
            }
            if rest == 0 {
                return Ok(());
            }
            if bytes.is_empty() && rest > EMPTY {
                entry.flow.skip(from, framing.wire_len(rest));
                return Ok(());
            }
            self.comment.clear();
            self.comment.push_str(&view.words);
            comment::more(&mut self.comment, tid, data.dir);
        }
    }

    /// Writes what a connection begins with. The first packet has the comment that is there if
    /// it tells the event.
    fn start(&mut self, owner: Owner, conn: &Conn, entry: &mut Entry, tells: bool) -> Result<()> {
        let is_again = entry.file.replace(self.file).is_some();
        if is_again {
            entry.restart();
        }
        let kept = std::mem::take(&mut self.comment);
        let flow = &mut entry.flow;
        for (n, segment) in flow.handshake(owner.pid, owner.conn).iter().enumerate() {
            let comment = if n == 0 && tells {
                &kept
            } else {
                comment::SYNTHETIC
            };
            self.synthetic(owner, segment, &[], comment)?;
        }
        if self.options.framing == Framing::Tls {
            let (mut client, mut server) = (Vec::new(), Vec::new());
            tlsframe::client_hello(&mut client, conn.sni.as_deref(), conn.alpn.as_deref());
            tlsframe::server_hello(&mut server, conn.alpn.as_deref());
            let change = tlsframe::CHANGE_CIPHER_SPEC.as_slice();
            for (from, payload) in [
                (End::Client, client.as_slice()),
                (End::Server, &server),
                (End::Client, change),
                (End::Server, change),
            ] {
                let segment = flow.segment(from, payload.len() as u32, owner.pid, owner.conn);
                self.synthetic(owner, &segment, payload, comment::SYNTHETIC)?;
            }
        }
        self.comment = kept;
        Ok(())
    }

    fn synthetic(
        &mut self,
        owner: Owner,
        segment: &Segment,
        payload: &[u8],
        comment: &str,
    ) -> Result<()> {
        if segment.is_hidden {
            return Ok(());
        }
        self.comment.clear();
        self.comment.push_str(comment);
        let dir = if segment.link.is_outbound {
            Dir::Out
        } else {
            Dir::In
        };
        self.packet(owner, Some(dir), segment, payload.len(), |out| {
            out.extend_from_slice(payload);
        })
    }

    /// The FIN of the captured end and, at the close, of its peer. The first packet has the
    /// comment that is there if it tells the event.
    fn end(&mut self, owner: Owner, entry: &mut Entry, closes: bool, tells: bool) -> Result<()> {
        let flow = &mut entry.flow;
        let local = flow.local;
        if !tells {
            self.comment.clear();
        }
        for from in [local, local.peer()] {
            if flow.has_ended(from) || (from != local && !closes) {
                continue;
            }
            let dir = if from == local { Dir::Out } else { Dir::In };
            let fin = flow.fin(from, owner.pid, owner.conn);
            self.packet(owner, Some(dir), &fin, 0, |_| ())?;
            self.comment.clear();
        }
        if closes {
            let ack = flow.segment(local, 0, owner.pid, owner.conn);
            self.packet(owner, None, &ack, 0, |_| ())?;
        }
        Ok(())
    }

    /// Writes a TCP packet with the comment that is there.
    fn packet(
        &mut self,
        owner: Owner,
        dir: Option<Dir>,
        segment: &Segment,
        len: usize,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        self.frame(owner, dir, |out| packet::append(out, segment, len, payload))
    }

    /// Writes the comment that is there as a packet of its own.
    fn note(&mut self, owner: Owner, dir: Option<Dir>) -> Result<()> {
        let is_outbound = dir != Some(Dir::In);
        let link = Link {
            pid: owner.pid,
            conn: owner.conn,
            is_outbound,
        };
        let text = self.comment.clone();
        self.frame(owner, dir, |out| {
            packet::ethernet(out, link, packet::EXPERIMENTAL);
            out.extend_from_slice(NOTE);
            out.extend_from_slice(text.as_bytes());
            packet::ETHERNET + NOTE.len() + text.len()
        })
    }
}

fn end_of(entry: &Entry, dir: Dir) -> End {
    match dir {
        Dir::Out => entry.flow.local,
        Dir::In => entry.flow.local.peer(),
    }
}

fn dir_of(kind: &Kind<'_>) -> Option<Dir> {
    match kind {
        Kind::Data(data) => Some(data.dir),
        Kind::Gap { dir, .. } => Some(*dir),
        Kind::Open | Kind::Shutdown | Kind::Close => None,
    }
}
