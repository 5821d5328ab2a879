//! The sinks that were asked for, behind the filter, and how many events have reached them.

use crate::config::{Config, FileArg, Format, Write};
use crate::event::{Dir, Event, Kind, Nanos, Totals};
use crate::filter::Filter;
use crate::sink::Sink;
use crate::sink::json::JsonSink;
use crate::sink::pcapng::{self, PcapSink};
use crate::sink::rotate::{self, FileLimitReached, NameAt};
use crate::sink::text::TextSink;
use crate::time;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything behind the connections.
pub struct Outputs {
    sinks: Vec<Box<dyn Sink>>,
    filter: Option<Filter>,
    direction: Option<Dir>,
    /// `-c`
    most: Option<u64>,
    /// Reads and writes that were shown or written.
    pub shown: u64,
    full: bool,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Outputs {
    /// # Errors
    /// A file cannot be created.
    pub fn new(config: &Config) -> Result<Outputs> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if let Some(write) = &config.write {
            sinks.push(Box::new(pcap_sink(write, config)?));
        }
        if config.output.print {
            let to = text_target(config.output.file.as_deref())?;
            sinks.push(match config.output.format {
                Format::Text => Box::new(TextSink::new(to, config.output.text)),
                Format::Json => Box::new(JsonSink::new(to, config.output.line_buffered)),
            });
        }
        Ok(Outputs {
            sinks,
            filter: config.filter.clone(),
            direction: config.direction,
            most: config.count,
            shown: 0,
            full: false,
        })
    }

    /// # Errors
    /// A sink fails.
    pub fn event(&mut self, event: &Event<'_>) -> Result<()> {
        if self.full || !self.is_wanted(event) {
            return Ok(());
        }
        for sink in &mut self.sinks {
            match sink.event(event) {
                Err(error) if error.is::<FileLimitReached>() => self.full = true,
                other => other?,
            }
        }
        if let Kind::Data(data) = event.kind
            && data.call_off == 0
        {
            self.shown += 1;
        }
        // A call in several pieces is shown to its end.
        let ends_call = match event.kind {
            Kind::Data(data) => data.call_off + data.len >= data.call_len,
            _ => false,
        };
        if ends_call && self.most.is_some_and(|most| self.shown >= most) {
            self.full = true;
        }
        Ok(())
    }

    fn is_wanted(&self, event: &Event<'_>) -> bool {
        let dir = match event.kind {
            Kind::Data(data) => Some(data.dir),
            Kind::Gap { dir, .. } => Some(dir),
            Kind::Open | Kind::Shutdown | Kind::Close => None,
        };
        let direction = self.direction.is_none() || dir.is_none() || dir == self.direction;
        direction
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(event))
    }

    /// Nothing more is wanted: `-c` or `-W` is reached.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn flush(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.flush())
    }

    /// Ends every output, also when one of them fails; the first error.
    pub fn finish(&mut self, totals: &Totals) -> Result<()> {
        self.sinks
            .iter_mut()
            .map(|sink| sink.finish(totals))
            .fold(Ok(()), Result::and)
    }
}

fn pcap_sink(write: &Write, config: &Config) -> Result<PcapSink> {
    let output = match &write.target {
        FileArg::Stdio => rotate::Output::stream(Box::new(stdout()?), "standard output"),
        FileArg::Path(path) => {
            // A series of files is named after its beginning, as tcpdump does.
            rotate::Output::create(path, write.rotate.clone(), name_at(), now())?
        }
    };
    let system = nix::sys::utsname::uname().context("ask for the kernel's name")?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let options = pcapng::Options {
        format: write.kind,
        framing: write.framing,
        hardware: text(system.machine()),
        os: format!("{} {}", text(system.sysname()), text(system.release())),
        comment: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" "),
        filter: config
            .filter
            .as_ref()
            .map(|filter| filter.words().to_owned()),
        packet_buffered: write.packet_buffered,
    };
    PcapSink::new(output, options)
}

/// Plaintext is nobody else's business: a new file is for its owner alone.
pub fn text_target(path: Option<&Path>) -> Result<File> {
    let Some(path) = path else { return stdout() };
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("create {} (-o)", path.display()))
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
