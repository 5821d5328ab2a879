//! Wireshark's extcap interface: what it asks for on the command line, and the answers.
//!
//! Wireshark and tshark run each program in their extcap folder with the options below (see
//! extcap(4) and doc/extcap.adoc of Wireshark). Questions are answered from here; a capture is
//! translated into a command line of our own.

use crate::cli::Framing;
use crate::filter::Filter;
use anyhow::{Context, Result};
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// The only interface there is.
const INTERFACE: &str = "tlssniff";

/// A command line as Wireshark makes it.
#[derive(Debug, Parser)]
#[command(name = "tlssniff", disable_help_flag = true)]
struct Cli {
    #[arg(long)]
    extcap_interfaces: bool,
    /// The version of the asking program.
    #[arg(long, value_name = "VERSION")]
    extcap_version: Option<String>,
    #[arg(long, value_name = "NAME")]
    extcap_interface: Option<String>,
    #[arg(long)]
    extcap_dlts: bool,
    #[arg(long)]
    extcap_config: bool,
    #[arg(long, value_name = "FILTER", allow_hyphen_values = true)]
    extcap_capture_filter: Option<String>,
    #[arg(long)]
    capture: bool,
    #[arg(long, value_name = "PATH")]
    fifo: Option<PathBuf>,
    #[arg(long, value_name = "PIDS", allow_hyphen_values = true)]
    pid: Option<String>,
    #[arg(long, value_name = "GLOB", allow_hyphen_values = true)]
    comm: Option<String>,
    #[arg(long, value_name = "FILTER", allow_hyphen_values = true)]
    filter: Option<String>,
    #[arg(long, value_enum)]
    framing: Option<Framing>,
    #[arg(long)]
    redact: bool,
    /// Not offered by Wireshark, which takes what it tells for errors.
    #[arg(long)]
    debug: bool,
}

/// Answers a question of Wireshark's on `out`, and turns a capture of its into what would be typed
/// for it; any other command line is handed back as it is.
///
/// # Errors
/// Those of `out`.
pub fn translate(
    args: impl Iterator<Item = OsString>,
    out: &mut dyn Write,
) -> Result<Option<Vec<OsString>>> {
    let args: Vec<OsString> = args.collect();
    let ours = args.iter().take_while(|arg| *arg != "--");
    let is_extcap = |arg: &OsString| arg.to_str().is_some_and(|arg| arg.starts_with("--extcap-"));
    if !ours.skip(1).any(is_extcap) {
        return Ok(Some(args));
    }
    let cli = Cli::parse_from(args);
    if cli.capture {
        return Ok(Some(capture(cli)));
    }
    out.write_all(answer(&cli).as_bytes())
        .context("write to standard output")?;
    Ok(None)
}

fn answer(cli: &Cli) -> String {
    match cli {
        Cli {
            extcap_interfaces: true,
            ..
        } => interfaces(),
        // Ethernet (pcap-linktype(7)).
        Cli {
            extcap_dlts: true, ..
        } => "dlt {number=1}{name=EN10MB}{display=Ethernet}\n".to_owned(),
        Cli {
            extcap_config: true,
            ..
        } => CONFIG.to_owned(),
        // Wireshark colours its filter by whether anything is said of it.
        Cli {
            extcap_capture_filter: Some(filter),
            ..
        } => wrong_with(filter),
        _ => String::new(),
    }
}

fn interfaces() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "extcap {{version={version}}}\n\
         interface {{value={INTERFACE}}}{{display=Plaintext of TLS connections}}\n"
    )
}

fn wrong_with(filter: &str) -> String {
    match Filter::parse(filter) {
        Ok(_) => String::new(),
        Err(error) => format!("column {}: {}\n", error.column, error.message),
    }
}

/// The options that Wireshark offers in a dialog.
const CONFIG: &str = "\
arg {number=0}{call=--pid}{display=Processes}{type=string}{placeholder=all}\
{tooltip=Numbers of the processes to capture, apart by commas}
arg {number=1}{call=--comm}{display=Command name}{type=string}{placeholder=any}\
{tooltip=Only processes whose command name matches this pattern (*, ?, [...])}
arg {number=2}{call=--filter}{display=Filter}{type=string}{placeholder=none}\
{tooltip=In the language of tlssniff: host == api.example.com and status >= 500}
arg {number=3}{call=--framing}{display=Plaintext stands}{type=selector}\
{tooltip=Wireshark decodes TLS records on any port}
value {arg=3}{value=tls}{display=in TLS records}{default=true}
value {arg=3}{value=raw}{display=bare in TCP}{default=false}
arg {number=4}{call=--redact}{display=Hide credentials}{type=boolflag}{default=false}\
{tooltip=What Authorization, Cookie and other headers with credentials say is written as asterisks}
";

fn capture(cli: Cli) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["tlssniff".into()];
    let mut add = |option: &str, value: OsString| {
        // In one word, so that no value is taken for an option.
        let mut word = OsString::from(option);
        word.push("=");
        word.push(value);
        args.push(word);
    };
    if let Some(fifo) = cli.fifo {
        add("--fifo", fifo.into());
    }
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    if let Some(pids) = given(cli.pid) {
        add("--pid", pids.into());
    }
    if let Some(comm) = given(cli.comm) {
        add("--comm", comm.into());
    }
    let filters: Vec<String> = [cli.extcap_capture_filter, cli.filter]
        .into_iter()
        .filter_map(given)
        .collect();
    match filters.as_slice() {
        [] => {}
        [filter] => add("--filter", filter.into()),
        [first, second, ..] => add("--filter", format!("({first}) and ({second})").into()),
    }
    if let Some(Framing::Raw) = cli.framing {
        add("--framing", "raw".into());
    }
    if cli.redact {
        args.push("--redact".into());
    }
    if cli.debug {
        args.push("--debug".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(args: &[&str]) -> (Option<Vec<OsString>>, String) {
        let args = [&["tlssniff"], args].concat();
        let mut out = Vec::new();
        let run = translate(args.into_iter().map(OsString::from), &mut out).unwrap();
        (run, String::from_utf8(out).unwrap())
    }

    fn answered(args: &[&str]) -> String {
        match translated(args) {
            (None, text) => text,
            (Some(args), _) => panic!("{args:?}"),
        }
    }

    fn run(args: &[&str]) -> Vec<OsString> {
        translated(args).0.expect("a command line")
    }

    #[test]
    fn a_command_line_that_is_not_wireshark_s_stays_as_it_is() {
        let typed = ["-p", "1", "--", "x", "--extcap-interfaces"];
        assert_eq!(run(&typed)[1..], typed);
    }

    #[test]
    fn wireshark_s_questions_are_answered() {
        let interfaces = answered(&["--extcap-interfaces", "--extcap-version=4.4"]);
        assert!(interfaces.contains("interface {value=tlssniff}"));
        let about = ["--extcap-interface", "tlssniff"];
        let dlts = answered(&[&["--extcap-dlts"], &about[..]].concat());
        assert!(dlts.starts_with("dlt {number=1}"), "{dlts}");
        let config = answered(&[&["--extcap-config"], &about[..]].concat());
        for line in config.lines() {
            assert!(line.starts_with("arg {number=") || line.starts_with("value {arg=3}"));
        }
    }

    #[test]
    fn a_filter_that_is_wrong_is_told_and_a_right_one_is_not() {
        let about = |filter| {
            answered(&[
                "--extcap-interface",
                "tlssniff",
                "--extcap-capture-filter",
                filter,
            ])
        };
        assert_eq!(about("status >= 500"), "");
        assert!(about("statos >= 500").starts_with("column 1: "));
    }

    #[test]
    fn a_capture_becomes_a_command_line_of_ours() {
        let begin = [
            "--capture",
            "--extcap-interface",
            "tlssniff",
            "--fifo",
            "/tmp/f",
        ];
        let more = [
            "--extcap-capture-filter",
            "port 443",
            "--pid",
            "1,2",
            "--comm",
            "",
            "--filter",
            "-1",
            "--framing",
            "raw",
            "--redact",
        ];
        assert_eq!(run(&begin), ["tlssniff", "--fifo=/tmp/f"]);
        assert_eq!(
            run(&[&begin[..], &more].concat())[2..],
            [
                "--pid=1,2",
                "--filter=(port 443) and (-1)",
                "--framing=raw",
                "--redact"
            ]
        );
    }
}
