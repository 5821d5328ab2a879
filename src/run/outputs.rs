//! The sinks that were asked for, behind the filter, and how much has reached them.

use crate::config::{Config, FileArg, Format, Write};
use crate::event::{Conn, Dir, Event, Kind, Nanos, Totals};
use crate::filter::Filter;
use crate::proto::{Conversations, Item, Limits, Message, Part};
use crate::redact::Redactor;
use crate::run::exchanges::Exchanges;
use crate::sink::Sink;
use crate::sink::har::HarSink;
use crate::sink::json::JsonSink;
use crate::sink::pcapng::{self, PcapSink};
use crate::sink::rotate::{self, FileLimitReached, NameAt};
use crate::sink::serve::ServeSink;
use crate::sink::stats::StatsSink;
use crate::sink::text::TextSink;
use crate::time;
use crate::tui::{Scan, Tui};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything behind the connections.
pub struct Outputs {
    /// Stands before all others.
    redactor: Option<Box<Redactor>>,
    /// These take reads and writes as they are: capture files, and with `--raw` everything.
    calls: Vec<Box<dyn Sink>>,
    /// These take messages, where there are any.
    messages: Vec<Box<dyn Sink>>,
    /// The user interface, which takes both, and looks itself at what passes.
    pub tui: Option<Box<Tui>>,
    conversations: Conversations,
    /// What waits for those that take reads and writes, where the filter looks at more than each.
    exchanges: Option<Exchanges>,
    passing: Passing,
    /// Pipes whose readers may go.
    ends: Vec<File>,
    /// Something was told since the last flush, be it by the ring or because a process has ended.
    is_unflushed: bool,
    /// Of the last event.
    last: Nanos,
}

/// What passes to the sinks, and how much has.
struct Passing {
    filter: Option<Filter>,
    direction: Option<Dir>,
    /// `-c`
    most: Option<u64>,
    /// Reads and writes, or messages, that were shown or written.
    shown: u64,
    full: bool,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs")
            .field("shown", &self.passing.shown)
            .finish_non_exhaustive()
    }
}

impl Outputs {
    /// `scan` lists processes for the user interface.
    ///
    /// # Errors
    /// A file cannot be created, or there is no terminal.
    pub fn new(config: &Config, scan: Option<Scan>) -> Result<Outputs> {
        let mut calls: Vec<Box<dyn Sink>> = Vec::new();
        let mut messages: Vec<Box<dyn Sink>> = Vec::new();
        let mut ends = Vec::new();
        if let Some(write) = &config.write {
            calls.push(Box::new(pcap_sink(write, config)?));
            ends.extend(reading_end(&write.target)?);
        }
        if let Some(listen) = &config.listen {
            let options = pcap_options(config)?;
            calls.push(Box::new(ServeSink::new(listen.clone(), options)?));
        }
        if config.output.print {
            if config.output.file.is_none() {
                ends.extend(reading_end(&FileArg::Stdio)?);
            }
            let to = text_target(config.output.file.as_deref())?;
            let sink: Box<dyn Sink> = match config.output.format {
                Format::Text => Box::new(TextSink::new(to, config.output.text)),
                Format::Json => Box::new(JsonSink::new(to, config.output.line_buffered)),
            };
            if config.output.raw {
                calls.push(sink);
            } else {
                messages.push(sink);
            }
        }
        if let Some(path) = &config.har {
            messages.push(Box::new(HarSink::new(new_file(path, "--har")?)?));
        }
        if config.stats {
            messages.push(Box::new(StatsSink::new(io::stderr())));
        }
        let filter = config.filter.as_ref();
        let tui = match config.tui {
            Some(options) => Some(Box::new(Tui::new(options, filter.cloned(), scan)?)),
            None => None,
        };
        let looks_at_bodies = config.har.is_some()
            || tui.is_some()
            || config.output.shows_bodies()
            || filter.is_some_and(Filter::needs_bodies);
        let limits = if looks_at_bodies {
            Limits::SHOWN
        } else {
            Limits::NO_BODIES
        };
        let redactor = config.redact.clone().map(Redactor::new);
        let is_written = config.write.is_some() || config.listen.is_some();
        let waits = filter.is_some_and(|filter| {
            filter.needs_messages() || is_written && !filter.is_of_connections()
        });
        Ok(Outputs {
            exchanges: (waits && !calls.is_empty()).then(|| Exchanges::new(is_written)),
            redactor: redactor.map(Box::new),
            calls,
            messages,
            tui,
            conversations: Conversations::new(limits),
            ends,
            passing: Passing {
                filter: config.filter.clone(),
                direction: config.direction,
                most: config.count,
                shown: 0,
                full: false,
            },
            is_unflushed: false,
            last: 0,
        })
    }

    /// # Errors
    /// A sink fails.
    pub fn event(&mut self, event: &Event<'_>) -> Result<()> {
        if self.passing.full {
            return Ok(());
        }
        let Some(mut redactor) = self.redactor.take() else {
            return self.pass(event);
        };
        let result = redactor.event(event, |event| self.pass(event));
        self.redactor = Some(redactor);
        result
    }

    /// Hands on what may be seen.
    fn pass(&mut self, event: &Event<'_>) -> Result<()> {
        self.last = event.ts;
        self.is_unflushed = true;
        if let Some(tui) = &mut self.tui {
            tui.saw(event)?;
        }
        if self.exchanges.is_some() {
            return self.exchange(event);
        }
        if !self.calls.is_empty() {
            self.passing.event(&mut self.calls, event)?;
        }
        if self.messages.is_empty() && self.tui.is_none() {
            return Ok(());
        }
        let Outputs {
            messages,
            passing,
            tui,
            ..
        } = self;
        // What is counted and limited is what is written, where something is.
        let is_counted = self.calls.is_empty();
        self.conversations.event(event, &mut |item| {
            passing.show(tui, &item);
            passing.item(messages, item, is_counted)
        })
    }

    /// An event, where it depends on others whether it is written.
    fn exchange(&mut self, event: &Event<'_>) -> Result<()> {
        let Outputs {
            calls,
            messages,
            conversations,
            exchanges,
            passing,
            tui,
            ..
        } = self;
        let mut passes = passing.decides(event);
        conversations.event(event, &mut |item| {
            passing.show(tui, &item);
            passes |= passing.is_decided_by(&item);
            passing.item(messages, item, false)
        })?;
        let is_between = conversations.is_between(event.conn.id);
        match exchanges {
            Some(exchanges) => exchanges.event(event, passes, is_between, &mut |event| {
                passing.write(calls, event)
            }),
            None => Ok(()),
        }
    }

    /// What was shown or written so far.
    pub fn shown(&self) -> u64 {
        self.passing.shown
    }

    /// Nothing more is wanted: `-c` or `-W` is reached.
    pub fn is_full(&self) -> bool {
        self.passing.full
    }

    /// Hands on what has been told since the last time.
    pub fn flush(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_unflushed) {
            return Ok(());
        }
        self.sinks().try_for_each(|sink| sink.flush())
    }

    /// Sees to what else waits than events. That nobody reads any more is noticed here, too, and not
    /// only when there is something to write.
    ///
    /// # Errors
    /// A broken pipe.
    pub fn attend(&mut self) -> Result<()> {
        for end in &self.ends {
            let mut fds = [PollFd::new(end.as_fd(), PollFlags::empty())];
            if poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("write the output");
            }
        }
        self.sinks().try_for_each(|sink| sink.attend())
    }

    fn sinks(&mut self) -> impl Iterator<Item = &mut Box<dyn Sink>> {
        self.calls.iter_mut().chain(&mut self.messages)
    }

    /// Ends every output, also when one of them fails; the first error.
    pub fn finish(&mut self, totals: &Totals) -> Result<()> {
        let mut result = Ok(());
        if !self.passing.full {
            let Outputs {
                messages,
                passing,
                tui,
                ..
            } = self;
            let mut passing_conns = Vec::new();
            result = self.conversations.finish(self.last, &mut |item| {
                passing.show(tui, &item);
                let (Item::Message(conn, _) | Item::Event(&Event { conn, .. })) = item;
                if passing.is_decided_by(&item) {
                    passing_conns.push(conn.id);
                }
                passing.item(messages, item, false)
            });
            if let Some(exchanges) = &mut self.exchanges {
                let calls = &mut self.calls;
                result = result.and(
                    exchanges.finish(&passing_conns, &mut |event| passing.write(calls, event)),
                );
            }
        }
        let result = self
            .sinks()
            .map(|sink| sink.finish(totals))
            .fold(result, Result::and);
        // All is written by now, and what was captured is looked at for as long as the user likes.
        match &mut self.tui {
            Some(tui) if result.is_ok() => tui.finish(totals),
            Some(tui) => {
                tui.close();
                result
            }
            None => result,
        }
    }
}

impl Passing {
    /// An item for those that take messages.
    fn item(
        &mut self,
        sinks: &mut [Box<dyn Sink>],
        item: Item<'_>,
        is_counted: bool,
    ) -> Result<()> {
        match item {
            Item::Event(event) if is_counted => self.event(sinks, event),
            Item::Event(event) if self.wants(event) => give(sinks, |sink| sink.event(event)),
            Item::Message(conn, message) if !self.full && self.wants_message(conn, message) => {
                give(sinks, |sink| sink.message(conn, message))?;
                if is_counted && message.part != Part::Unanswered {
                    self.count();
                }
                Ok(())
            }
            Item::Event(_) | Item::Message(..) => Ok(()),
        }
    }

    /// An event for those that take them as they are.
    fn event(&mut self, sinks: &mut [Box<dyn Sink>], event: &Event<'_>) -> Result<()> {
        if self.wants(event) {
            self.write(sinks, event)
        } else {
            Ok(())
        }
    }

    /// An event that the filter has let pass.
    fn write(&mut self, sinks: &mut [Box<dyn Sink>], event: &Event<'_>) -> Result<()> {
        if self.full || !self.faces(event) {
            return Ok(());
        }
        match give(sinks, |sink| sink.event(event)) {
            Err(error) if error.is::<FileLimitReached>() => self.full = true,
            other => other?,
        }
        let Kind::Data(data) = event.kind else {
            return Ok(());
        };
        // A call in several pieces is shown to its end.
        self.shown += u64::from(data.call_off == 0);
        let ends_call = data.call_off + data.len >= data.call_len;
        if ends_call && self.most.is_some_and(|most| self.shown >= most) {
            self.full = true;
        }
        Ok(())
    }

    fn count(&mut self) {
        self.shown += 1;
        self.full |= self.most.is_some_and(|most| self.shown >= most);
    }

    /// An item for the user interface, which asks the filter itself.
    fn show(&self, tui: &mut Option<Box<Tui>>, item: &Item<'_>) {
        let faces = match item {
            Item::Event(event) => self.faces(event),
            Item::Message(_, message) => self.direction.is_none_or(|dir| dir == message.dir),
        };
        if let Some(tui) = tui.as_mut().filter(|_| faces) {
            tui.item(item);
        }
    }

    /// Whether the exchange passes of which this read or write is a part.
    fn decides(&self, event: &Event<'_>) -> bool {
        let is_data = matches!(event.kind, Kind::Data(_) | Kind::Gap { .. });
        let passes = |filter: &Filter| !filter.needs_messages() && filter.matches(event);
        is_data && self.filter.as_ref().is_none_or(passes)
    }

    /// Likewise, by a message, or by bytes of no known protocol, where the filter asks for messages.
    fn is_decided_by(&self, item: &Item<'_>) -> bool {
        let passes = |filter: &Filter| match item {
            _ if !filter.needs_messages() => false,
            Item::Message(conn, message) => filter.matches_message(conn, message),
            Item::Event(event) => matches!(event.kind, Kind::Data(_)) && filter.matches(event),
        };
        self.filter.as_ref().is_some_and(passes)
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        let passes = |filter: &Filter| filter.matches(event);
        self.faces(event) && self.filter.as_ref().is_none_or(passes)
    }

    /// `-Q`
    fn faces(&self, event: &Event<'_>) -> bool {
        let dir = match event.kind {
            Kind::Data(data) => Some(data.dir),
            Kind::Gap { dir, .. } => Some(dir),
            Kind::Open | Kind::Shutdown | Kind::Close => None,
        };
        self.direction.is_none() || dir.is_none() || dir == self.direction
    }

    fn wants_message(&self, conn: &Conn, message: &Message) -> bool {
        let passes = |filter: &Filter| filter.matches_message(conn, message);
        self.direction.is_none_or(|dir| dir == message.dir)
            && self.filter.as_ref().is_none_or(passes)
    }
}

fn give(
    sinks: &mut [Box<dyn Sink>],
    each: impl FnMut(&mut Box<dyn Sink>) -> Result<()>,
) -> Result<()> {
    sinks.iter_mut().try_for_each(each)
}

fn pcap_sink(write: &Write, config: &Config) -> Result<PcapSink> {
    let output = match &write.target {
        FileArg::Stdio => rotate::Output::stream(Box::new(stdout()?), "standard output"),
        FileArg::Fifo(path) => {
            let fifo = rotate::open_fifo(path)?;
            rotate::Output::stream(Box::new(fifo), &path.display().to_string())
        }
        FileArg::Path(path) => {
            // A series of files is named after its beginning, as tcpdump does.
            rotate::Output::create(path, write.rotate.clone(), name_at(), now())?
        }
    };
    let options = pcapng::Options {
        format: write.kind,
        packet_buffered: write.packet_buffered,
        ..pcap_options(config)?
    };
    PcapSink::new(output, options)
}

/// What each capture says about itself.
fn pcap_options(config: &Config) -> Result<pcapng::Options> {
    let system = nix::sys::utsname::uname().context("ask for the kernel's name")?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    Ok(pcapng::Options {
        framing: config.framing,
        hardware: text(system.machine()),
        os: format!("{} {}", text(system.sysname()), text(system.release())),
        comment: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            // The command may be given secrets, to a header for one.
            .take_while(|arg| config.redact.is_none() || arg != "--")
            .collect::<Vec<_>>()
            .join(" "),
        filter: config
            .filter
            .as_ref()
            .map(|filter| filter.words().to_owned()),
        ..pcapng::Options::default()
    })
}

/// A pipe that is written to, for asking whether anybody still reads.
fn reading_end(target: &FileArg) -> Result<Option<File>> {
    let end = match target {
        FileArg::Stdio => stdout()?,
        FileArg::Fifo(path) => rotate::open_fifo(path)?,
        FileArg::Path(path) if rotate::is_fifo(path) => rotate::open_fifo(path)?,
        FileArg::Path(_) => return Ok(None),
    };
    Ok(Some(end))
}

/// Plaintext is nobody else's business: a new file is for its owner alone.
pub fn text_target(path: Option<&Path>) -> Result<File> {
    match path {
        Some(path) => new_file(path, "-o"),
        None => stdout(),
    }
}

fn new_file(path: &Path, option: &str) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("create {} ({option})", path.display()))
}

/// Without the line buffering of `std::io::Stdout`: the sinks have their own.
fn stdout() -> Result<File> {
    let fd = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("use standard output")?;
    Ok(File::from(fd))
}

fn now() -> Nanos {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn name_at() -> NameAt {
    Box::new(time::file_name)
}
