//! Exactly what was typed: the clap definitions.
//!
//! Parses single values (numbers, sizes, times, lists of PIDs); whether they go together is decided
//! in `config`. The doc comments below are the text of `--help` and of the man page.

use crate::filter::help;
use clap::{ArgAction, Parser, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const WHO: &str = "Who is captured";
const WHAT: &str = "What is captured";
const SHOW: &str = "What is shown";
const FILES: &str = "Capture files";
const RUN: &str = "Running";

const FILTER_WORDS: &str = "Filter: [src|dst] host, net, port or portrange, pid, uid, comm, in, \
                            out, tls, http, request, response, unanswered, and, or, not, ( )\n\
                            Fields (method, path, status, time, header[\"NAME\"], body, tls.sni ...) with\n\
                            == != < <= > >= in contains matches; protocols by name. --help lists all.";

const EXAMPLES: &str = "Examples:
  tlssniff -A -- curl https://example.com/   one command, with payload
  tlssniff -p \"$(pgrep -d, nginx)\" port 443  running processes, filtered
  tlssniff 'status >= 500 or time > 1s'      the answers that failed or were slow
  tlssniff -w out.pcapng                     the whole machine, for Wireshark";

/// Show the plaintext of TLS connections of running programs
///
/// tlssniff is tcpdump for the inside of TLS. It prints what programs write to and read from their
/// TLS library, or saves it for Wireshark. No proxy, no certificate, no key, no restart.
/// Without -p, -u, --comm, --exe, --cgroup, --container or a command, every process of the machine is captured.
// Backticks would be shown in the help.
#[allow(clippy::doc_markdown)]
#[derive(Clone, Debug, Parser)]
#[command(
    name = "tlssniff",
    version,
    disable_version_flag = true,
    max_term_width = 100,
    override_usage = "tlssniff [OPTIONS] [FILTER]... [-- COMMAND [ARGS]...]\n       \
                      tlssniff -r FILE [OPTIONS] [FILTER]...\n       \
                      tlssniff -D [-p PID] [--json]",
    after_help = format!("{FILTER_WORDS}\n\n{EXAMPLES}"),
    after_long_help = format!("{}{EXAMPLES}", filter_help()),
)]
pub struct Cli {
    /// Only these processes; several with commas, spaces or by repeating -p
    #[arg(short, long = "pid", value_name = "PID[,PID...]", help_heading = WHO)]
    #[arg(value_parser = parse_pids, action = ArgAction::Append)]
    pub pid: Vec<PidList>,

    /// Only processes of this user, by name or number
    #[arg(short, long = "uid", value_name = "USER", value_hint = ValueHint::Username, help_heading = WHO)]
    pub uid: Option<String>,

    /// Only processes whose command name matches this pattern (*, ?, [...])
    #[arg(long, value_name = "GLOB", help_heading = WHO)]
    pub comm: Option<String>,

    /// Only processes that run this executable
    #[arg(long, value_name = "PATH", help_heading = WHO)]
    pub exe: Option<PathBuf>,

    /// Only processes of this cgroup and of those below it, by its path in the unified hierarchy
    #[arg(long, value_name = "PATH", help_heading = WHO)]
    pub cgroup: Option<PathBuf>,

    /// Only processes of this container, by the beginning of its id
    #[arg(long, value_name = "ID", conflicts_with = "cgroup", help_heading = WHO)]
    pub container: Option<String>,

    /// With -p or a command: also their children
    #[arg(short, long, help_heading = WHO)]
    pub follow_forks: bool,

    /// Run the command as this user [default: $SUDO_USER under sudo, else yourself]
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username, help_heading = WHO)]
    pub run_as: Option<String>,

    /// List processes and their TLS libraries, with the reason for each that cannot be captured
    #[arg(short = 'D', long, help_heading = WHO)]
    pub list_targets: bool,

    /// Keep at most this many bytes of each read or write; 0 keeps everything
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 0, help_heading = WHAT)]
    pub snapshot_length: u32,

    /// Only what the programs read (in) or write (out)
    #[arg(short = 'Q', long, value_name = "DIRECTION", value_enum, help_heading = WHAT)]
    #[arg(default_value_t = Direction::Inout)]
    pub direction: Direction,

    /// Hide what Authorization, Cookie, Set-Cookie and other headers with credentials say, and the
    /// headers, JSON keys, parameters and parts of forms of these names, in every output; lengths stay
    #[arg(long, value_name = "NAME[,NAME...]", num_args = 0..=1, require_equals = true, help_heading = WHAT)]
    pub redact: Option<Option<String>>,

    /// Stop after this many events have been shown or written
    #[arg(short, long, value_name = "N", help_heading = WHAT)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Stop after this time: 10, 1.5s, 200ms, 2m, 1h
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = WHAT)]
    pub duration: Option<Duration>,

    /// Read the filter expression from this file
    #[arg(short = 'F', long, value_name = "FILE", help_heading = WHAT)]
    pub filter_file: Option<PathBuf>,

    /// The filter expression as one argument
    #[arg(short = 'Y', long = "filter", value_name = "EXPR", help_heading = WHAT)]
    pub filter_option: Option<String>,

    /// Payload as text under each line: heads and bodies of messages
    #[arg(short = 'A', long, action = ArgAction::Count, help_heading = SHOW)]
    pub ascii_payload: u8,

    /// Payload in hex under each line
    #[arg(short = 'x', long, action = ArgAction::Count, help_heading = SHOW)]
    pub hex: u8,

    /// Payload in hex and text under each line
    #[arg(short = 'X', long, action = ArgAction::Count, help_heading = SHOW)]
    pub hex_ascii: u8,

    /// One line per read or write instead of one per message; -x and -X imply it
    #[arg(long, help_heading = SHOW)]
    pub raw: bool,

    /// The heads of HTTP messages under their lines, as -vv does
    #[arg(long, help_heading = SHOW)]
    pub headers: bool,

    /// The bodies of messages under their lines, decompressed, JSON indented
    #[arg(long, help_heading = SHOW)]
    pub body: bool,

    /// At the end, a table of hosts: requests, statuses, and how long responses took
    #[arg(long, help_heading = SHOW)]
    pub stats: bool,

    /// Shorter lines: no addresses, no connection number
    #[arg(short, long, help_heading = SHOW)]
    pub quiet: bool,

    /// More: -v lines for connections, -vv also the head of each message, and function, thread
    /// and offset of each call
    #[arg(short, long, action = ArgAction::Count, help_heading = SHOW)]
    pub verbose: u8,

    /// Time: -t none, -tt epoch, -ttt since the line before, -tttt with date, -ttttt since the first
    #[arg(short = 't', long = "time", action = ArgAction::Count, help_heading = SHOW)]
    pub time: u8,

    /// Times with nanoseconds instead of microseconds
    #[arg(long, help_heading = SHOW)]
    pub nano: bool,

    /// Number the lines
    #[arg(short = '#', long, help_heading = SHOW)]
    pub number: bool,

    /// Accepted for tcpdump's sake: names are never looked up
    #[arg(short = 'n', action = ArgAction::Count, help_heading = SHOW)]
    pub numeric: u8,

    /// Format of the output [default: text]
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = SHOW)]
    pub format: Option<Format>,

    /// One JSON object per line; the same as --format json
    #[arg(long, help_heading = SHOW)]
    pub json: bool,

    /// Colour: auto is for terminals only and heeds $NO_COLOR and $CLICOLOR_FORCE
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    #[arg(help_heading = SHOW)]
    pub color: Color,

    /// Mark decrypted lines with `TLS` instead of the open lock
    #[arg(long, help_heading = SHOW)]
    pub ascii: bool,

    /// Text or JSON to this file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = SHOW)]
    pub output: Option<PathBuf>,

    /// Hand on each line at once, also into a pipe or file
    #[arg(short, long, help_heading = SHOW)]
    pub line_buffered: bool,

    /// Look at the exchanges in the terminal, live or of a file (-r): list, details, filter, export;
    /// ? shows the keys. A command's input and output are /dev/null where they are the terminal
    #[arg(long, help_heading = SHOW)]
    pub tui: bool,

    /// With --tui: keep the newest N exchanges, of at most SIZE bytes together [default: 10000,64M]
    #[arg(long, value_name = "N[,SIZE]", value_parser = parse_history, help_heading = SHOW)]
    pub history: Option<History>,

    /// Save as pcapng for Wireshark; `-` is standard output
    #[arg(short, long, value_name = "FILE|-", help_heading = FILES)]
    pub write_file: Option<PathBuf>,

    /// Save as classic pcap (also chosen by a file name that ends in .pcap)
    #[arg(long, help_heading = FILES)]
    pub pcap: bool,

    /// How plaintext stands in the file: in TLS records of a NULL cipher, or bare in TCP
    /// [default: tls]
    #[arg(long, value_name = "FRAMING", value_enum, help_heading = FILES)]
    pub framing: Option<Framing>,

    /// Print also when -w is given
    #[arg(long, help_heading = FILES)]
    pub print: bool,

    /// Hand on each packet at once to the file of -w
    #[arg(short = 'U', long, help_heading = FILES)]
    pub packet_buffered: bool,

    /// Begin a new file after this size, in millions of bytes or with k, M or G (2^10, 2^20, 2^30)
    #[arg(short = 'C', value_name = "SIZE", value_parser = parse_size, help_heading = FILES)]
    pub rotate_size: Option<u64>,

    /// Begin a new file after this many seconds; the name may hold strftime(3) formats
    #[arg(short = 'G', value_name = "SECONDS", help_heading = FILES)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub rotate_seconds: Option<u64>,

    /// With -C: write these many files in turn, over and over; with -G alone: stop after so many
    #[arg(short = 'W', value_name = "COUNT", help_heading = FILES)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rotate_count: Option<u32>,

    /// With -C or -G: run this program with the name of each finished file
    #[arg(short = 'z', value_name = "PROGRAM", help_heading = FILES)]
    pub rotate_command: Option<String>,

    /// Serve the capture as pcapng to readers on this port, such as wireshark -k -i TCP@127.0.0.1:PORT
    #[arg(long, value_name = "[ADDR:]PORT", help_heading = FILES)]
    pub listen: Option<String>,

    /// With --listen: also readers of other users and of other machines; nothing is encrypted
    #[arg(long, requires = "listen", help_heading = FILES)]
    pub listen_anyone: bool,

    /// Save HTTP exchanges as HAR, for browsers and Postman
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub har: Option<PathBuf>,

    /// Read a file that tlssniff has written (`-`: standard input); needs no privilege
    #[arg(short, long, value_name = "FILE|-", help_heading = FILES)]
    pub read_file: Option<PathBuf>,

    /// Size of the ring buffer in KiB, rounded up to a power of two, at least 512
    #[arg(short = 'B', long, value_name = "KIB", default_value_t = 16384, help_heading = RUN)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=2_097_152))]
    pub buffer_size: u32,

    /// Become this user once everything is attached and the files are open
    #[arg(short = 'Z', long, value_name = "USER", value_hint = ValueHint::Username, help_heading = RUN)]
    pub relinquish_privileges: Option<String>,

    /// Tell on standard error what is found, where the probes are, and why there
    #[arg(long, help_heading = RUN)]
    pub debug: bool,

    /// Refused with a hint: there are no interfaces here
    #[arg(short, long, value_name = "INTERFACE", num_args = 0..=1, hide = true)]
    pub interface: Option<Option<String>>,

    /// Print the version; with -v also what is used of this kernel, and why
    #[arg(short = 'V', long = "version", help_heading = SHOW)]
    pub show_version: bool,

    /// Write into this FIFO of Wireshark's, and say nothing on standard error but what is wrong
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "write_file")]
    pub fifo: Option<PathBuf>,

    /// Print the man page or a completion script
    #[arg(long, value_name = "WHAT", value_enum, hide = true)]
    pub generate: Option<Generate>,

    /// Filter expression: the words are joined with spaces
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,

    /// Command to run and capture, from its first byte on; its exit status is passed on
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandName)]
    pub command: Vec<OsString>,
}

/// The numbers of one `-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidList(pub Vec<u32>);

/// `--history`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    pub exchanges: u64,
    pub bytes: Option<u64>,
}

/// `-Q`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    In,
    Out,
    Inout,
}

/// `--format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// `--framing`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Framing {
    Tls,
    Raw,
}

/// `--color`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// `--generate`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generate {
    Man,
    Bash,
    Zsh,
    Fish,
}

/// The filter language, table by table.
fn filter_help() -> String {
    help::help()
        .into_iter()
        .map(|(title, table)| format!("{title}:\n{}\n", indented(&table)))
        .collect()
}

/// Each line two columns to the right, as clap shows options.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// PIDs apart by commas, spaces or newlines, so that the output of pgrep(1) can be pasted.
fn parse_pids(text: &str) -> Result<PidList, String> {
    let pids = text
        .split(|c: char| c == ',' || c.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| match word.parse::<u32>() {
            // The kernel's own limit is 2^22 (PID_MAX_LIMIT), but a pid_t is what it is.
            Ok(pid) if pid > 0 && i32::try_from(pid).is_ok() => Ok(pid),
            _ => Err(format!("'{}' is not a process number", word.escape_debug())),
        })
        .collect::<Result<Vec<u32>, String>>()?;
    if pids.is_empty() {
        return Err("no process number in it: did pgrep find nothing?".to_owned());
    }
    Ok(PidList(pids))
}

/// Exchanges, and bytes if they are said.
fn parse_history(text: &str) -> Result<History, String> {
    let (exchanges, bytes) = match text.split_once(',') {
        Some((exchanges, bytes)) => (exchanges, Some(parse_size(bytes)?)),
        None => (text, None),
    };
    match exchanges.parse() {
        Ok(exchanges @ 1..=10_000_000) => Ok(History { exchanges, bytes }),
        _ => {
            Err("use a number of exchanges from 1 to 10000000, and maybe a size: 50000,256M".into())
        }
    }
}

/// A number with an optional fraction and unit; seconds without one.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("use a number and one of ms, s, m, h: 200ms, 1.5s, 2m".to_owned()),
    };
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let duration = match digits.parse::<f64>() {
        Ok(number) if plain => Duration::try_from_secs_f64(number * scale).ok(),
        _ => return Err("use a number and one of ms, s, m, h: 200ms, 1.5s, 2m".to_owned()),
    };
    duration
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "must be more than zero, and not past all clocks".to_owned())
}

/// tcpdump's `-C`: millions of bytes, or a power of two by suffix. Result in bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (text.get(..at), 1 << 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 1 << 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1_000_000),
    };
    digits
        .filter(|d| d.chars().all(|c| c.is_ascii_digit()))
        .and_then(|d| d.parse::<u64>().ok())
        .filter(|&number| number > 0)
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "use a whole number of millions of bytes, or one with k, M or G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fields;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from([&["tlssniff"], args].concat()).unwrap()
    }

    fn refused(args: &[&str]) -> String {
        Cli::try_parse_from([&["tlssniff"], args].concat())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_has_every_word_of_the_filter() {
        for entry in fields::WORDS {
            let mut words = FILTER_WORDS.split([' ', ',', '|', '[', ']', '\n']);
            assert!(words.any(|word| word == entry.name), "{}", entry.name);
        }
    }

    #[test]
    fn pids_are_taken_as_pgrep_prints_them() {
        let cli = parse(&["-p", "1,2", "-p", "3\n4\n", "--pid", " 5 , 6 "]);
        let pids: Vec<u32> = cli.pid.into_iter().flat_map(|list| list.0).collect();
        assert_eq!(pids, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_pid_that_is_none_is_refused() {
        for bad in [
            "",
            "\n",
            ",",
            "0",
            "x",
            "1,x",
            "4294967296",
            "2147483648",
            "-1",
        ] {
            let argument = format!("-p{bad}");
            let error = match bad {
                "" => refused(&["-p", ""]),
                _ => refused(&[&argument]),
            };
            assert!(error.contains("process number"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn words_before_the_dashes_are_the_filter_and_after_them_the_command() {
        let cli = parse(&["-p", "1", "port", "443", "--", "curl", "-w", "x", "--", "y"]);
        assert_eq!(cli.filter, ["port", "443"]);
        assert_eq!(cli.command, ["curl", "-w", "x", "--", "y"]);
        assert_eq!(cli.write_file, None);
    }

    #[test]
    fn options_may_follow_the_filter() {
        let cli = parse(&["port", "443", "-A", "or", "port", "80"]);
        assert_eq!(cli.filter, ["port", "443", "or", "port", "80"]);
        assert_eq!(cli.ascii_payload, 1);
    }

    #[test]
    fn tcpdump_habits_of_repeating_letters_are_accepted() {
        let cli = parse(&["-nn", "-XX", "-tttt", "-vv", "-#"]);
        assert_eq!((cli.hex_ascii, cli.time, cli.verbose), (2, 4, 2));
        assert!(cli.number);
    }

    #[test]
    fn durations_have_units_and_fractions() {
        for (text, millis) in [
            ("10", 10_000),
            ("1.5s", 1_500),
            ("200ms", 200),
            ("2m", 120_000),
            ("1h", 3_600_000),
            (".5", 500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_duration_that_is_none_is_refused() {
        for bad in [
            "", "s", "0", "0s", "-1", "inf", "nan", "1e3", "1d", "1.2.3", "1 s",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration(&"9".repeat(400)).is_err());
    }

    #[test]
    fn sizes_are_tcpdumps_millions_or_powers_of_two() {
        assert_eq!(parse_size("1"), Ok(1_000_000));
        assert_eq!(parse_size("3k"), Ok(3 << 10));
        assert_eq!(parse_size("3M"), Ok(3 << 20));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        for bad in [
            "",
            "k",
            "0",
            "1.5",
            "-1",
            "+1",
            "1T",
            "1kk",
            "1é",
            "18446744073709551615",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_of_zero_are_refused() {
        for args in [["-c", "0"], ["-W", "0"], ["-G", "0"], ["-B", "0"]] {
            assert!(refused(&args).contains("is not in"), "{args:?}");
        }
    }

    #[test]
    fn only_out_inout_and_in_are_directions() {
        assert_eq!(parse(&[]).direction, Direction::Inout);
        assert_eq!(parse(&["-Q", "in"]).direction, Direction::In);
        assert_eq!(parse(&["-Qout"]).direction, Direction::Out);
        assert!(refused(&["-Q", "both"]).contains("inout"));
    }

    #[test]
    fn an_interface_is_parsed_so_that_it_can_be_explained() {
        assert_eq!(
            parse(&["-i", "eth0"]).interface,
            Some(Some("eth0".to_owned()))
        );
        assert_eq!(parse(&["-i"]).interface, Some(None));
    }
}
