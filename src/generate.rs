//! Prints the man page and the shell completions.
//!
//! Options come from the clap definitions, the filter words from the filter's own table, and the
//! JSON fields from the sink that writes them; so none of the three can be forgotten here.

use crate::cli::{Cli, Generate};
use crate::filter::help;
use crate::sink::json;
use crate::tui::keys;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::Write;

/// Writes what `--generate` asks for.
///
/// Errors: those of `out`; a broken pipe stays recognisable in the chain.
pub fn generate(what: Generate, out: &mut dyn Write) -> Result<()> {
    let mut page = Vec::new();
    match what {
        Generate::Man => man(&mut page).context("make the man page")?,
        Generate::Bash => completion(Shell::Bash, &mut page),
        Generate::Zsh => completion(Shell::Zsh, &mut page),
        Generate::Fish => {
            completion(Shell::Fish, &mut page);
            // clap_complete does not quote the letter, and fish takes the rest for a comment.
            let script = String::from_utf8(page).context("make the fish completion")?;
            page = script.replace(" -s # ", " -s '#' ").into_bytes();
        }
    }
    out.write_all(&page)
        .and_then(|()| out.flush())
        .context("write to standard output")
}

fn completion(shell: Shell, out: &mut Vec<u8>) {
    // clap_complete also offers what `--help` hides.
    let shown = Cli::command();
    let shown = shown
        .get_arguments()
        .filter(|argument| !argument.is_hide_set());
    let mut command = Command::new("tlssniff").args(shown);
    clap_complete::generate(shell, &mut command, "tlssniff", out);
}

fn man(out: &mut Vec<u8>) -> std::io::Result<()> {
    // The program's name goes without a version, so that a release does not change the page twice.
    let page = Man::new(Cli::command())
        .title("TLSSNIFF")
        .section("8")
        .source("tlssniff")
        .manual("System Manager's Manual");
    page.render_title(out)?;
    page.render_name_section(out)?;
    synopsis().to_writer(out)?;
    section("DESCRIPTION", DESCRIPTION).to_writer(out)?;
    page.render_options_section(out)?;

    let mut filter = section("FILTER", FILTER);
    for (title, table) in help::help() {
        filter.control("PP", []);
        filter.text([bold(title)]);
        literal(&mut filter, &table);
    }
    append(&mut filter, FILTER_MEANING);
    filter.to_writer(out)?;
    section("OUTPUT", OUTPUT).to_writer(out)?;
    let mut interface = section("TERMINAL USER INTERFACE", INTERFACE);
    for (keys, what) in keys::HELP {
        interface.control("TP", []);
        interface.text([bold(*keys)]);
        interface.text([roman(*what)]);
    }
    interface.to_writer(out)?;
    section("WIRESHARK", WIRESHARK).to_writer(out)?;
    section("SECRETS", SECRETS).to_writer(out)?;
    section("JSON", JSON).to_writer(out)?;
    out.extend_from_slice(json::SCHEMA.as_bytes());

    section("EXAMPLES", EXAMPLES).to_writer(out)?;
    section("EXIT STATUS", EXIT_STATUS).to_writer(out)?;
    section("SIGNALS", SIGNALS).to_writer(out)?;
    section("ENVIRONMENT", ENVIRONMENT).to_writer(out)?;
    section("FILES", FILES).to_writer(out)?;
    section("LIMITS", LIMITS).to_writer(out)?;
    section("SEE ALSO", SEE_ALSO).to_writer(out)
}

fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (rest, is_last) in [
        (" [OPTIONS] [FILTER...] [-- COMMAND [ARGS...]]", false),
        (" -r FILE [OPTIONS] [FILTER...]", false),
        (" -D [-p PID] [--json]", true),
    ] {
        roff.text([bold("tlssniff"), roman(rest)]);
        if !is_last {
            roff.control("br", []);
        }
    }
    roff
}

/// A piece of a hand-written section.
enum Block {
    Text(&'static str),
    /// A term, and what it means.
    Item(&'static str, &'static str),
    /// Lines that stay as they are.
    Literal(&'static str),
}
use Block::{Item, Literal, Text};

fn section(title: &str, blocks: &[Block]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    append(&mut roff, blocks);
    roff
}

fn append(roff: &mut Roff, blocks: &[Block]) {
    for block in blocks {
        match block {
            Text(text) => {
                roff.control("PP", []);
                roff.text([roman(*text)]);
            }
            Item(term, text) => {
                roff.control("TP", []);
                roff.text([bold(*term)]);
                roff.text([roman(*text)]);
            }
            Literal(text) => literal(roff, text),
        }
    }
}

fn literal(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.control("nf", []);
    for line in text.trim_end().lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

const DESCRIPTION: &[Block] = &[
    Text(
        "tlssniff is tcpdump for the inside of TLS. It puts eBPF uprobes on the functions through \
         which programs hand plaintext to their TLS library, and prints that plaintext, or saves \
         it in a file that Wireshark opens as if TLS had never been there. There is no proxy, no \
         certificate and no key, and the programs are not restarted.",
    ),
    Text(
        "Without a choice of processes the whole machine is captured. The conditions -p, -u, \
         --comm and --exe must all hold; several processes of -p are alternatives. Programs that \
         start later, and libraries that are loaded later, are captured too. With a command after \
         --, the command is held until everything is in place, so that nothing of its first bytes \
         is missed.",
    ),
    Text(
        "When everything is attached, one line on standard error begins with 'tlssniff: listening' \
         and says on what. Scripts can wait for it.",
    ),
    Text(
        "tlssniff needs root, or the capabilities CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and \
         CAP_DAC_READ_SEARCH. Reading a file with -r needs none.",
    ),
];

const FILTER: &[Block] = &[Text(
    "The words that are neither options nor behind -- are joined with spaces and make up an \
         expression that each message, or with --raw each read or write, must match. It may also \
         come from -Y or from a file with -F. Terms are words as of tcpdump and comparisons of \
         fields as of Wireshark; they are joined with and, or, not and parentheses. Quote what a \
         shell would take for its own.",
)];

const FILTER_MEANING: &[Block] = &[
    Text(
        "Values: a number; bytes with k, M or G (powers of 1024); a time with ns, us, ms, s, m or \
         h; a string in double quotes, which may be left out where it is one word; an address or a \
         block of them; and for matches a regular expression between slashes. In it upper and \
         lower case are the same ((?-i) ends that), and behind it s lets the dot match line ends \
         and m lets ^ and $ match at lines. contains looks for bytes as they are. Host names, \
         media types and the names of header fields have no upper and lower case.",
    ),
    Literal(
        "status >= 500 or time > 1s\n\
         method == POST and path matches /^\\/api\\/v[12]/\n\
         host == api.example.com and not http.header[\"authorization\"]\n\
         port in {443, 8443..8450} and body contains \"token\"",
    ),
    Text(
        "A name alone asks whether the field has a value. A comparison with a field that has none \
         is false, also with !=; so 'status != 200' is about responses only, and 'not status == \
         200' passes everything else too. A field that may have several values (ip, port, a header \
         field that is repeated) passes when one of them does, and with != when none is equal. host \
         and port before a value are words of tcpdump (host 192.0.2.1), and before an operator \
         fields (host == api.example.com); likewise in before a { is a comparison, and else a \
         direction.",
    ),
    Text(
        "A response knows what it answers: method, url, host, path, query, command and the fields \
         of the request are those of its request, so that a filter on them passes both. A request \
         passes before its response comes: status, time and the response's fields are unknown then, \
         and a filter on them passes the line of the response, which repeats what it answers. size, \
         type and body are the message's own. Frames of WebSocket and server-sent events belong to \
         the request that began them.",
    ),
    Text(
        "With -w or --raw, a filter that asks for something of messages passes whole exchanges: \
         the reads and writes of a connection are held back until a message passes, and then \
         written from the last point at which nothing was incomplete to the next such point. Where \
         there is no such point, as in HTTP/2, whose headers depend on each other, the whole \
         connection is written. What is left out between leaves no hole in the file: stream \
         offsets and TCP sequence numbers count what is written. At most 8 MiB of a connection \
         and 32 MiB of all are held back; a connection that exceeds that is written although \
         nothing of it has passed, which is told. Bytes of no known protocol have no fields of \
         messages.",
    ),
];

const OUTPUT: &[Block] = &[
    Text(
        "One line per message, or per read or write where the protocol is none that tlssniff knows, \
         and with --raw. Fields are apart by single spaces:",
    ),
    Literal("TIME 🔓 COMM[PID] SOURCE > DESTINATION #CONNECTION PROTOCOL MARK TEXT"),
    Text(
        "The open lock marks decrypted TLS; --ascii prints TLS in its place. SOURCE is always the \
         sender, so a search for '> 192.0.2.1' finds what was sent there. The connection number \
         joins all lines of one connection. Control characters and other bytes that could drive a \
         terminal are shown as \\xNN or \\u{...}.",
    ),
    Text("The mark is one of:"),
    Item(">", "a request, or data that the program has written"),
    Item("<", "a response, or data that the program has read"),
    Item(
        "!",
        "bytes that are missing, with their number; a request that has no response",
    ),
    Item(
        "*",
        "the connection itself: open, shutdown, close (with -v)",
    ),
    Text(
        "The text of a request is its method and URL, and type and size of its content if there is \
         any; that of a response its status, the request that it answers if that is known, type and \
         size, and the time from the request's first byte to the response's last. The time of a \
         line is that of the message's first byte. A message of which bytes are missing, or whose end \
         was not seen, ends with its protocol in brackets: [|http1].",
    ),
    Text(
        "HTTP/1, HTTP/2, gRPC, WebSocket and server-sent events are recognised by their content on \
         any port, also in the middle of a connection. HTTP/2 may refer to header fields that passed \
         before the capture began: those are shown as '?'. Of a body, at most 1 MiB is kept.",
    ),
    Text(
        "Everything else goes to standard error. At the end the number of events captured, shown, \
         dropped and truncated is told, as tcpdump does.",
    ),
    Text(
        "With -w, packets are made up around the plaintext: Ethernet, IP and TCP with the real \
         addresses. Lost bytes are a jump of the TCP sequence number, and bytes cut by -s a packet \
         whose captured length is smaller than its length. --framing tls wraps the plaintext in \
         TLS records of a NULL cipher, with server name and ALPN, so that Wireshark picks the right \
         dissector on any port; --framing raw puts it straight into TCP.",
    ),
];

const INTERFACE: &[Block] = &[
    Text(
        "With --tui, the terminal shows a list of exchanges (a request with its response, or the \
         bytes that a connection of no known protocol has moved) and the details of one: request, \
         response, connection and process, bytes. Bodies are decoded and indented. Other views list \
         the connections, the processes (as -D does, again and again), and counts and times by host \
         and status since the start.",
    ),
    Text(
        "A filter on the command line decides what is kept and written; the one of / decides what of \
         that is shown. Both are asked of an exchange as a whole: each comparison may hold for its \
         request or its response, so that 'method == POST and status >= 500' finds requests that \
         failed, and 'not status == 200' those that did not have that answer.",
    ),
    Text(
        "The newest exchanges are kept, 10000 of them and 64 MiB of their bodies, heads and bytes unless \
         --history says otherwise; the line at the bottom says how many older ones have gone. Of what \
         a connection moves, the last 128 KiB are kept until the exchange has ended.",
    ),
    Text(
        "When the command or all processes of -p have ended, or -c or --duration is reached, what was \
         captured can still be looked at. q ends a capture; a command that is still running is sent \
         SIGTERM and waited for, and a second q does not wait. Where standard input, output or error \
         of the command would be the terminal, it is /dev/null: redirect what is to be kept (-- sh -c \
         'command >file', with -f). Messages of tlssniff are shown in the line at the bottom, and \
         printed at the end.",
    ),
    Text("The keys:"),
];

const SECRETS: &[Block] = &[
    Text(
        "With --redact, values are hidden before anything is filtered, shown or saved, so that all \
         outputs are the same, and every length is as it was. These headers are secret, in HTTP/1 \
         and HTTP/2, and wherever a line begins with such a name and a colon:",
    ),
    Literal(
        "authorization, proxy-authorization, cookie, set-cookie, x-api-key, api-key, \n\
         x-goog-api-key, x-auth-token, x-access-token, x-csrf-token, x-xsrf-token, \n\
         x-amz-security-token, x-vault-token, private-token",
    ),
    Text(
        "The names of --redact=NAME,... are secret as headers, as keys of JSON, and as parameters \
         (NAME=value) and parts of URLs and forms; capital letters do not matter. Strings become asterisks. \
         Numbers and words of JSON become the digit 1, so that it stays JSON, and of an object or \
         array everything but its structure is hidden. When names are given, compressed bodies \
         are hidden wholly, since they cannot be looked into.",
    ),
    Text(
        "What cannot be known is hidden: after lost bytes the rest of a line (up to 8 KiB), frames of \
         HTTP/2 until their beginning is found again, and headers whose name was sent before the \
         capture began. Not found are secrets of other protocols, such as passwords of databases and mail, and \
         HTTP/2 that was joined in the middle of a frame, until it is recognised. The command \
         behind -- is left out of the comment in a capture file.",
    ),
];

// The rest is the sink's own, in roff.
const JSON: &[Block] = &[Text(
    "The output with --json. With --raw there are no messages, only data.",
)];

const WIRESHARK: &[Block] = &[
    Text(
        "Besides files (-w FILE) there are three ways into a running Wireshark, tshark or any other \
         program that reads pcapng.",
    ),
    Item(
        "tlssniff -w - | wireshark -k -i -",
        "A pipe, also from elsewhere: ssh HOST sudo tlssniff -w - | wireshark -k -i -. The capture \
         ends when its reader does.",
    ),
    Item(
        "tlssniff --listen 5555",
        "Then wireshark -k -i TCP@127.0.0.1:5555, as often and by as many as wanted (16 at a time). \
         Each gets a capture that begins when it connects. A reader that is too slow loses what \
         does not fit into 16 MiB: its TCP streams have holes then, and the statistics at its end \
         say how many reads and writes. Only root, the user who runs tlssniff, and the one who \
         called sudo are served, and only from this machine; --listen-anyone ends both. Nothing is \
         encrypted: from another machine come through ssh -L 5555:127.0.0.1:5555.",
    ),
    Item(
        "Plaintext of TLS connections",
        "An interface in Wireshark's own list, where tlssniff lies in its extcap folder (make \
         install and the Debian package put a link there; tshark -G folders names it). Its \
         options are behind the wheel beside it; with tshark: -i tlssniff -o extcap.tlssniff.pid:42, \
         likewise comm, filter, framing, redact.",
    ),
    Text(
        "Wireshark is no program for root, and starts tlssniff as its own user. Either give the \
         program what it needs, for the members of one group:",
    ),
    Literal(
        "chgrp wireshark /usr/local/bin/tlssniff\n\
         chmod 750 /usr/local/bin/tlssniff\n\
         setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore=ep \
         /usr/local/bin/tlssniff",
    ),
    Text("or put this into the extcap folder instead of the link:"),
    Literal("#!/bin/sh\nexec sudo -n /usr/local/bin/tlssniff \"$@\""),
    Text("with this in /etc/sudoers.d/tlssniff:"),
    Literal(
        "%wireshark ALL=(root) NOPASSWD: /usr/local/bin/tlssniff --extcap-*, \\\n\
         \t/usr/local/bin/tlssniff --capture --extcap-interface tlssniff *",
    ),
    Text(
        "In such a capture tlssniff writes into a FIFO that is there already, and into nothing else. \
         Either way the members of the group see the plaintext of all users, as root does.",
    ),
];

const EXAMPLES: &[Block] = &[
    Item(
        "tlssniff -A -- curl https://example.com/",
        "One command, with its payload, from the first byte on.",
    ),
    Item(
        "tlssniff -p \"$(pgrep -d, nginx)\" port 443",
        "Running processes; only connections with port 443 at either end.",
    ),
    Item(
        "tlssniff -w out.pcapng",
        "The whole machine into a file, until Ctrl-C.",
    ),
    Item(
        "tlssniff -w - --comm 'python*' | wireshark -k -i -",
        "Straight into Wireshark.",
    ),
    Item(
        "tlssniff -G 3600 -W 24 -w /var/tmp/tls-%H.pcapng",
        "A file per hour for a day.",
    ),
    Item(
        "tlssniff -r out.pcapng -X host 192.0.2.1 and in",
        "A file read back, without root.",
    ),
    Item(
        "tlssniff --json -u www-data",
        "One user's processes, for jq.",
    ),
    Item(
        "tlssniff -D",
        "What can be captured on this machine, and what cannot and why.",
    ),
];

const EXIT_STATUS: &[Block] = &[
    Item(
        "0",
        "The capture ended as it should, or the reader of the output has gone.",
    ),
    Item(
        "1",
        "Nothing could be captured, read or written; standard error says why.",
    ),
    Item("2", "The command line is wrong."),
    Text(
        "With a command after --, its own exit status is passed on. If a signal ended it, tlssniff \
         ends with the same signal.",
    ),
];

const SIGNALS: &[Block] = &[
    Item(
        "SIGINT, SIGTERM",
        "End the capture: what was captured is written, and the summary printed.",
    ),
    Item("SIGUSR1", "Print the summary and go on."),
    Item("SIGUSR2", "Hand on what is buffered for the file of -w."),
];

const ENVIRONMENT: &[Block] = &[
    Item(
        "NO_COLOR, CLICOLOR_FORCE",
        "With --color auto: no colour, or colour also when the output is not a terminal.",
    ),
    Item(
        "SUDO_USER",
        "Who the command after -- runs as, unless --run-as says otherwise.",
    ),
];

const FILES: &[Block] = &[Text(
    "What is captured was encrypted for a reason: it holds passwords, tokens and people's data. \
     Files of -w and -o are therefore created with mode 0600, and -w to a terminal is refused. \
     tlssniff writes no other files and has no configuration file.",
)];

const LIMITS: &[Block] = &[
    Text(
        "Seen are OpenSSL, LibreSSL, BoringSSL, GnuTLS, NSS, wolfSSL, Mbed TLS, s2n-tls, rustls \
         and Go's crypto/tls, under whatever file name, also inside of an executable; OpenSSL, BoringSSL, rustls \
         and Go also without symbols, where their functions can be found. Not seen: Java, Erlang. -D names them.",
    ),
    Text(
        "Bytes that a program passes with SSL_sendfile never are in its memory; they are shown as a \
         gap of known length. Where the transport is a memory buffer (Node.js, Python asyncio), \
         the addresses may be missing: an address is right or absent, never guessed.",
    ),
    Text(
        "Each read and write of a captured process takes a little longer. If programs write faster \
         than tlssniff can read, bytes are lost; each loss is counted and shown where it happened. \
         A larger -B helps, and so does a narrower choice of processes.",
    ),
    Text(
        "Needs Linux 5.8 or later with BTF (/sys/kernel/btf/vmlinux), on x86-64 or arm64; -V -v tells what of the kernel is used, and what a newer one would give.",
    ),
];

const SEE_ALSO: &[Block] = &[Text(
    "tcpdump(8), wireshark(1), tshark(1), strace(1), bpf(2), capabilities(7), strftime(3)",
)];

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(what: Generate) -> String {
        let mut out = Vec::new();
        generate(what, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn man_page_holds_the_filter_words_and_the_json_schema() {
        // Roff escapes some characters, but no words of letters.
        let man = generated(Generate::Man);
        let help: String = help::help().into_iter().map(|(_, text)| text).collect();
        let words = help.split(|c: char| !c.is_ascii_alphabetic());
        for word in words.filter(|word| word.len() > 3) {
            assert!(man.contains(word), "{word}");
        }
        assert!(man.contains(json::SCHEMA));
    }

    #[test]
    fn man_page_has_its_sections_in_the_usual_order() {
        let man = generated(Generate::Man);
        let found: Vec<&str> = man
            .lines()
            .filter_map(|line| line.strip_prefix(".SH "))
            .map(|title| title.trim_matches('"'))
            .collect();
        for pair in [
            ["NAME", "SYNOPSIS"],
            ["SYNOPSIS", "DESCRIPTION"],
            ["DESCRIPTION", "FILTER"],
            ["FILTER", "OUTPUT"],
            ["OUTPUT", "JSON"],
            ["JSON", "EXAMPLES"],
            ["EXAMPLES", "EXIT STATUS"],
            ["EXIT STATUS", "SIGNALS"],
            ["SIGNALS", "FILES"],
            ["FILES", "LIMITS"],
            ["LIMITS", "SEE ALSO"],
        ] {
            let at = |title| found.iter().position(|&t| t == title).ok_or(title).unwrap();
            assert!(at(pair[0]) < at(pair[1]), "{pair:?} in {found:?}");
        }
    }

    #[test]
    fn completions_offer_what_the_help_shows() {
        for what in [Generate::Bash, Generate::Zsh] {
            let script = generated(what);
            assert!(script.contains("--framing"), "{what:?}");
            assert!(!script.contains("--generate"), "{what:?}");
        }
        assert!(generated(Generate::Fish).contains("-l framing"));
    }

    #[test]
    fn number_sign_is_no_comment_in_fish() {
        let script = generated(Generate::Fish);
        assert!(script.contains(" -s '#' -l number "), "{script}");
    }

    #[test]
    fn a_closed_pipe_stays_recognisable() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let error = generate(Generate::Man, &mut Closed).unwrap_err();
        let io = error.downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(io.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
