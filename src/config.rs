//! What is to be done: the command line, validated and with defaults.
//!
//! [`Config`] is plain data: no clap types, nothing that was not decided. What the outside world
//! contributes (terminal, user) comes in through [`Surroundings`]; accounts are looked up here.

mod interface;
mod listen;

use crate::child::RunAs;
use crate::cli::{self, Cli};
use crate::event::Dir;
use crate::filter::Filter;
use crate::redact::Names;
use crate::sink::color::{self, When};
use crate::sink::escape;
pub use crate::sink::pcapng::{Format as Kind, Framing};
pub use crate::sink::rotate::Rotation as Rotate;
pub use crate::sink::serve::Listen;
use crate::sink::text::{Parts, Payload, TextOptions};
use crate::time::TimeStyle;
use crate::tui;
use anyhow::{Context, Result};
use nix::unistd::{Uid, User};
use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A ring must hold the largest record twice: a piece of a call is up to 256 KiB.
const MIN_RING_KIB: u32 = 512;

/// Everything that `run` needs to know.
#[derive(Debug)]
pub struct Config {
    pub who: Who,
    /// The command after `--`.
    pub command: Option<Command>,
    /// `-D`
    pub list: bool,
    /// `-V`
    pub version: bool,
    /// `-r`
    pub read_file: Option<FileArg>,
    pub filter: Option<Filter>,
    pub output: Output,
    /// `--har`
    pub har: Option<PathBuf>,
    /// `--stats`
    pub stats: bool,
    /// `--tui`
    pub tui: Option<tui::Options>,
    /// `--redact`
    pub redact: Option<Names>,
    /// `-w`
    pub write: Option<Write>,
    /// `--listen`
    pub listen: Option<Listen>,
    /// How plaintext stands in capture files and in what is served.
    pub framing: Framing,
    /// `-s`: bytes kept of each call; 0 is everything.
    pub snaplen: u32,
    /// `-B`: a power of two.
    pub ring_kib: u32,
    /// `-c`: never 0.
    pub count: Option<u64>,
    pub duration: Option<Duration>,
    /// `-Q`: the only direction wanted.
    pub direction: Option<Dir>,
    /// `-Z`: a user that exists.
    pub drop_to: Option<String>,
    /// Whether to tell what is listened to and, at the end, how much there was.
    pub reports: bool,
    pub debug: bool,
    pub verbose: u8,
    pub quiet: bool,
}

/// Which processes: all conditions together, any of `pids`. Nothing given means every process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Sorted, each once.
    pub pids: Vec<u32>,
    pub uid: Option<u32>,
    /// A pattern for the command name.
    pub comm: Option<String>,
    pub exe: Option<PathBuf>,
    pub group: Option<Group>,
    /// Also the children of `pids` or of the command.
    pub follow: bool,
}

/// `--cgroup` or `--container`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    Cgroup(PathBuf),
    /// The beginning of its id.
    Container(String),
}

/// What to run and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// At least the program's name.
    pub argv: Vec<OsString>,
    /// `None`: as tlssniff itself.
    pub run_as: Option<RunAs>,
}

/// A file name, or `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileArg {
    Stdio,
    Path(PathBuf),
    /// That is a FIFO, and nothing else.
    Fifo(PathBuf),
}

/// Text or JSON.
#[derive(Clone, Debug)]
pub struct Output {
    pub format: Format,
    /// Whether text or JSON is wanted at all: without `-w`, or with `--print`.
    pub print: bool,
    /// `-o`, instead of standard output.
    pub file: Option<PathBuf>,
    /// Hand on each line at once: `-l`, or the output is a terminal.
    pub line_buffered: bool,
    /// `--raw`: reads and writes instead of messages.
    pub raw: bool,
    pub text: TextOptions,
}

impl Output {
    /// Whether anybody looks at the bodies of messages.
    pub fn shows_bodies(&self) -> bool {
        self.format == Format::Json || self.text.shows_bodies()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// The capture file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub target: FileArg,
    pub kind: Kind,
    /// `-U`
    pub packet_buffered: bool,
    pub rotate: Rotate,
}

/// What the meaning of a command line depends on.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    pub stdout_is_terminal: bool,
    pub is_root: bool,
    /// Looks up an environment variable.
    pub env: fn(&str) -> Option<OsString>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Surroundings {
        Surroundings {
            stdout_is_terminal: std::io::stdout().is_terminal(),
            is_root: Uid::effective().is_root(),
            env: |name| std::env::var_os(name),
        }
    }
}

/// The command line asks for something that makes no sense: exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

fn usage<T>(message: impl Into<String>) -> Result<T> {
    Err(UsageError(message.into()).into())
}

impl Config {
    /// Validates what was typed and fills in the defaults.
    ///
    /// Errors: a [`UsageError`] in the chain for what was typed; another one where the filter file
    /// (`-F`) cannot be read or the accounts cannot be looked up.
    pub fn new(cli: Cli, around: &Surroundings) -> Result<Config> {
        refuse_contradictions(&cli, around)?;
        Ok(Config {
            filter: filter(&cli)?,
            tui: cli.tui.then(|| interface::options(&cli, around)),
            output: output(&cli, around),
            write: write(&cli),
            listen: listen::listen(&cli, around)?,
            framing: match cli.framing {
                Some(cli::Framing::Raw) => Framing::Raw,
                Some(cli::Framing::Tls) | None => Framing::Tls,
            },
            har: cli.har,
            stats: cli.stats,
            redact: cli.redact.map(redact).transpose()?,
            command: match cli.command.is_empty() {
                true => None,
                false => Some(Command {
                    run_as: run_as(cli.run_as.as_deref(), around)?,
                    argv: cli.command,
                }),
            },
            who: Who {
                pids: pids(cli.pid),
                uid: cli.uid.as_deref().map(uid).transpose()?,
                comm: cli.comm,
                exe: cli.exe,
                group: match (cli.cgroup, cli.container) {
                    (Some(path), _) => Some(Group::Cgroup(path)),
                    (None, id) => id.map(Group::Container),
                },
                follow: cli.follow_forks,
            },
            list: cli.list_targets,
            version: cli.show_version,
            read_file: cli.read_file.map(file_arg),
            snaplen: cli.snapshot_length,
            ring_kib: cli.buffer_size.max(MIN_RING_KIB).next_power_of_two(),
            count: cli.count,
            duration: cli.duration,
            direction: match cli.direction {
                cli::Direction::In => Some(Dir::In),
                cli::Direction::Out => Some(Dir::Out),
                cli::Direction::Inout => None,
            },
            drop_to: match cli.relinquish_privileges {
                Some(name) => Some(account("-Z", &name)?.name),
                None => None,
            },
            reports: cli.fifo.is_none(),
            debug: cli.debug,
            verbose: cli.verbose,
            quiet: cli.quiet,
        })
    }
}

/// Each rule says what is wrong and what to do instead.
fn refuse_contradictions(cli: &Cli, around: &Surroundings) -> Result<()> {
    let is_stdio = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    let reads = cli.read_file.is_some();
    let writes = cli.write_file.is_some() || cli.fifo.is_some();
    let serves = cli.listen.is_some();
    let runs = !cli.command.is_empty();
    let selects = !cli.pid.is_empty()
        || [
            cli.comm.is_some(),
            cli.exe.is_some(),
            cli.cgroup.is_some(),
            cli.container.is_some(),
        ]
        .contains(&true);
    let rotates = cli.rotate_size.is_some() || cli.rotate_seconds.is_some();
    let filters = [
        !cli.filter.is_empty(),
        cli.filter_option.is_some(),
        cli.filter_file.is_some(),
    ];
    let filters = filters.into_iter().filter(|&given| given).count();

    let prints = cli.json
        || cli.format.is_some()
        || cli.output.is_some()
        || cli.print
        || cli.raw
        || cli.hex > 0
        || cli.hex_ascii > 0
        || cli.stats;

    let rules = [
        (
            cli.interface.is_some(),
            "tlssniff captures processes, not interfaces; see -p, -D",
        ),
        (
            reads && (selects || cli.uid.is_some() || cli.follow_forks),
            "-r reads a file, in which there is no process left to choose; \
             use a filter instead, such as 'pid 42' or 'comm curl'",
        ),
        (
            serves && (reads || cli.list_targets),
            "--listen serves what is captured now; a file is opened in Wireshark directly",
        ),
        (
            reads && runs,
            "-r reads a file; leave out either -r or the command after --",
        ),
        (
            reads && cli.relinquish_privileges.is_some(),
            "-r needs no privilege, so there is none to give up; leave out -Z \
             and run tlssniff as that user",
        ),
        (
            cli.list_targets && (reads || writes || runs || filters > 0),
            "-D only lists; it goes with -p, -u, --comm, --exe, --cgroup, --container and --json, \
             and not with a filter, a command, -r or -w",
        ),
        (
            cli.follow_forks && cli.pid.is_empty() && !runs,
            "-f follows the children of given processes; give them with -p, or a command after --",
        ),
        (
            cli.run_as.is_some() && !runs,
            "--run-as is the user of the command; give a command after --",
        ),
        (
            is_stdio(&cli.write_file) && around.stdout_is_terminal,
            "standard output is a terminal, and a capture is not text; give a file \
             (-w out.pcapng) or a pipe (-w - | wireshark -k -i -)",
        ),
        (
            is_stdio(&cli.write_file) && cli.print && cli.output.is_none(),
            "-w - and --print both go to standard output; give the text a file with -o",
        ),
        (
            is_stdio(&cli.write_file) && rotates,
            "-C and -G begin new files, which standard output is not; give -w a file name",
        ),
        (
            reads && writes && cli.read_file == cli.write_file && !is_stdio(&cli.write_file),
            "-r and -w name the same file, which would be emptied before it is read; \
             give -w another name",
        ),
        (
            (writes || serves) && !cli.print && cli.output.is_some(),
            "with -w and --listen nothing is printed, so -o would stay empty; add --print",
        ),
        (
            (writes || serves) && !cli.print && (cli.json || cli.format.is_some()),
            "with -w and --listen nothing is printed, so there is no --json or --format; add --print",
        ),
        (
            !writes && (rotates || cli.pcap || cli.packet_buffered),
            "-C, -G, -U and --pcap are about the capture file; name one with -w",
        ),
        (
            !writes && !serves && cli.framing.is_some(),
            "--framing is about the capture file; name one with -w",
        ),
        (
            cli.rotate_count.is_some() && !rotates,
            "-W limits the number of files; say with -C or -G when a new one begins",
        ),
        (
            cli.rotate_command.is_some() && !rotates,
            "-z runs a program on each finished file; say with -C or -G when a new one begins",
        ),
        (
            cli.tui && !around.stdout_is_terminal,
            "--tui needs a terminal, which standard output is not; leave it out, or do not redirect",
        ),
        (
            cli.tui && (prints || cli.list_targets),
            "--tui has the terminal for itself: it does not go with -D, -o, -x, -X, --json, --format, \
             --print, --raw and --stats; save with -w or --har what is to be kept",
        ),
        (
            cli.history.is_some() && !cli.tui,
            "--history is what --tui keeps; add --tui",
        ),
        (
            cli.json && cli.format == Some(cli::Format::Text),
            "--json and --format text contradict each other; leave out one",
        ),
        (
            cli.time > 5,
            "-t may be given up to five times; -ttttt is the time since the first event",
        ),
        (
            filters > 1,
            "the filter is given more than once (as words, with -Y, with -F); \
             keep one and join the parts with 'and'",
        ),
    ];
    match rules.into_iter().find(|&(broken, _)| broken) {
        Some((_, sentence)) => usage(sentence),
        None => Ok(()),
    }
}

/// The names of `--redact`.
fn redact(names: Option<String>) -> Result<Names> {
    match Names::new(names.iter().flat_map(|names| names.split(','))) {
        Ok(names) => Ok(names),
        Err(error) => usage(format!("--redact: {error}")),
    }
}

/// All PIDs of all `-p`.
fn pids(lists: Vec<cli::PidList>) -> Vec<u32> {
    let mut pids: Vec<u32> = lists.into_iter().flat_map(|list| list.0).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn file_arg(path: PathBuf) -> FileArg {
    match path.as_os_str() == "-" {
        true => FileArg::Stdio,
        false => FileArg::Path(path),
    }
}

/// The expression from wherever it was given; none if it is blank.
fn filter(cli: &Cli) -> Result<Option<Filter>> {
    let text = match (&cli.filter_file, &cli.filter_option) {
        (Some(path), _) => std::fs::read_to_string(path)
            .with_context(|| format!("read the filter file {}", path.display()))?,
        (None, Some(expression)) => expression.clone(),
        (None, None) => cli.filter.join(" "),
    };
    // One line, so that a mark under it points at the right place.
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.trim().is_empty() {
        return Ok(None);
    }
    match Filter::parse(&text) {
        Ok(filter) => Ok(Some(filter)),
        Err(error) => {
            let marked = error.marked(&text).replace('\n', "\n  ");
            let mut message = format!("filter: {}\n\n  {marked}", error.message);
            if error.column <= 1 && !cli.filter.is_empty() && cli.command.is_empty() {
                message.push_str("\n\nto run a command, write -- before it");
            }
            usage(message)
        }
    }
}

/// Text or JSON, and the options of the text sink.
fn output(cli: &Cli, around: &Surroundings) -> Output {
    let terminal = around.stdout_is_terminal && cli.output.is_none();
    let line_buffered = cli.line_buffered || terminal;
    let when = match cli.color {
        cli::Color::Auto => When::Auto,
        cli::Color::Always => When::Always,
        cli::Color::Never => When::Never,
    };
    let named = cli.print_parts.as_ref().map(|parts| parts.0.as_str());
    let parts = |head: char, body: char| {
        let has = |part: char| named.is_some_and(|parts| parts.contains(part));
        // -A without a choice means everything.
        let is_all = cli.ascii_payload > 0 && named.is_none();
        Parts {
            head: has(head) || cli.headers || is_all || cli.verbose > 1,
            body: has(body) || cli.body || is_all,
        }
    };
    Output {
        format: match cli.json || cli.format == Some(cli::Format::Json) {
            true => Format::Json,
            false => Format::Text,
        },
        print: cli.print
            || !(cli.write_file.is_some()
                || cli.fifo.is_some()
                || cli.har.is_some()
                || cli.tui
                || cli.listen.is_some()),
        file: cli.output.clone(),
        line_buffered,
        raw: cli.raw || cli.hex > 0 || cli.hex_ascii > 0,
        text: TextOptions {
            request: parts('H', 'B'),
            response: parts('h', 'b'),
            ascii: cli.ascii,
            color: color::enabled(when, terminal, around.env),
            payload: match (cli.hex_ascii, cli.hex, cli.ascii_payload) {
                (1.., _, _) => Payload::HexAscii,
                (0, 1.., _) => Payload::Hex,
                (0, 0, 1..) => Payload::Ascii,
                (0, 0, 0) => Payload::None,
            },
            short: cli.quiet,
            verbose: cli.verbose,
            time: TimeStyle::from_count(cli.time),
            nano: cli.nano,
            number: cli.number,
            line_buffered,
        },
    }
}

fn write(cli: &Cli) -> Option<Write> {
    let path = cli.write_file.as_ref().or(cli.fifo.as_ref())?.clone();
    let named_pcap = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("pcap"));
    Some(Write {
        kind: match cli.pcap || named_pcap {
            true => Kind::Pcap,
            false => Kind::Pcapng,
        },
        target: match &cli.fifo {
            Some(fifo) => FileArg::Fifo(fifo.clone()),
            None => file_arg(path),
        },
        packet_buffered: cli.packet_buffered,
        rotate: Rotate {
            size: cli.rotate_size,
            seconds: cli.rotate_seconds,
            count: cli.rotate_count,
            command: cli.rotate_command.clone(),
        },
    })
}

/// `-u`: a number is taken as it is, since a container's users have no name here.
fn uid(text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        Ok(uid) => Ok(uid),
        Err(_) => Ok(account("-u", text)?.uid.as_raw()),
    }
}

/// Who the command runs as: the one asked for, else the one who called sudo, else we ourselves.
fn run_as(wanted: Option<&str>, around: &Surroundings) -> Result<Option<RunAs>> {
    let sudo_user = (around.env)("SUDO_USER").and_then(|name| name.into_string().ok());
    let name = match (wanted, sudo_user.as_deref()) {
        (Some(_), _) if !around.is_root => {
            return usage("--run-as needs root to become another user; use sudo, or leave it out");
        }
        (Some(name), _) => name,
        (None, Some(name)) if around.is_root && name != "root" => name,
        _ => return Ok(None),
    };
    account("--run-as (or $SUDO_USER)", name)?;
    RunAs::lookup(name).map(Some)
}

/// The account with this name.
fn account(option: &str, name: &str) -> Result<User> {
    match User::from_name(name).with_context(|| format!("look up user {name}"))? {
        Some(user) => Ok(user),
        None => usage(format!(
            "{option}: there is no user '{}'; see getent passwd",
            escape::shown(name)
        )),
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
