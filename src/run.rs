//! Builds the pipeline and drives it.

mod capture;
mod exchanges;
mod list;
mod outputs;
mod people;
mod pipeline;
mod signals;
mod summary;
mod unseen;
mod version;

use crate::config::{Config, FileArg};
use crate::readback;
use crate::tui;
use anyhow::{Context, Result};
use outputs::Outputs;
use std::fs::File;
use std::io::{self, Read};

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Code(u8),
    /// As the command did: by this signal.
    Signal(i32),
}

/// # Errors
/// Nothing could be captured, listed or read, or an output failed.
pub fn run(config: Config) -> Result<Outcome> {
    log_to_stderr(&config);
    if config.version {
        version::print(&mut io::stdout().lock(), config.verbose > 0)?;
        return Ok(Outcome::Code(0));
    }
    if config.list {
        return list::list(&config);
    }
    match &config.read_file {
        Some(file) => read_back(&config, file),
        None => capture::capture(config),
    }
}

fn read_back(config: &Config, file: &FileArg) -> Result<Outcome> {
    let mut outputs = Outputs::new(config, None)?;
    if let Some(tui) = &mut outputs.tui {
        tui.open()?;
    }
    let (input, name): (Box<dyn Read>, _) = match file {
        FileArg::Stdio => (Box::new(io::stdin().lock()), "standard input".to_owned()),
        FileArg::Path(path) | FileArg::Fifo(path) => {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            (Box::new(file), path.display().to_string())
        }
    };
    let mut full = false;
    let read = readback::read(input, &mut |event| {
        outputs.event(event)?;
        let quits = outputs.tui.as_ref().is_some_and(|tui| tui.wants_end());
        full = outputs.is_full() || quits;
        if full { Err(Enough.into()) } else { Ok(()) }
    });
    let mut code = 0;
    let mut totals = match read {
        Err(error) if error.is::<Enough>() => Default::default(),
        // What was read can be looked at all the same.
        Err(error) if outputs.tui.is_some() => {
            log::error!("read {name}: {error:#}");
            code = 1;
            Default::default()
        }
        other => other.with_context(|| format!("read {name}"))?,
    };
    totals.shown = outputs.shown();
    outputs.finish(&totals)?;
    let ended_by = outputs.tui.as_ref().and_then(|tui| tui.ended_by());
    Ok(ended_by.map_or(Outcome::Code(code), |signal| Outcome::Signal(signal as i32)))
}

/// `-c` is reached.
#[derive(Debug)]
struct Enough;

impl std::fmt::Display for Enough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("enough events")
    }
}

impl std::error::Error for Enough {}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Paths and names of other people's files are among it.
        let text = record.args().to_string();
        for line in text.lines() {
            say(&format!("tlssniff: {}", crate::sink::escape::shown(line)));
        }
    }

    fn flush(&self) {}
}

/// Prints harmless lines, or keeps them for later while the screen is the user interface's.
fn say(text: &str) {
    let is_kept = text.lines().filter(|line| tui::journal::take(line)).count() > 0;
    if !is_kept {
        eprintln!("{text}");
    }
}

fn log_to_stderr(config: &Config) {
    let level = match (config.debug, config.verbose) {
        (true, _) => log::LevelFilter::Debug,
        (false, 0) => log::LevelFilter::Warn,
        (false, _) => log::LevelFilter::Info,
    };
    // Fails only when called twice.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(level);
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, |level, message| {
        let level = match level {
            libbpf_rs::PrintLevel::Warn => log::Level::Debug,
            _ => log::Level::Trace,
        };
        log::log!(level, "{}", message.trim_end());
    })));
}
