//! Each option's effect on `Config`, and each refusal.

use super::*;
use clap::Parser;

/// Neither terminal nor root, and an empty environment.
const NOWHERE: Surroundings = Surroundings {
    stdout_is_terminal: false,
    is_root: false,
    env: |_| None,
};

fn config(args: &[&str]) -> Config {
    config_in(args, &NOWHERE).unwrap()
}

fn config_in(args: &[&str], around: &Surroundings) -> Result<Config> {
    let cli = Cli::try_parse_from([&["tlssniff"], args].concat()).unwrap();
    Config::new(cli, around)
}

fn terminal() -> Surroundings {
    Surroundings {
        stdout_is_terminal: true,
        ..NOWHERE
    }
}

fn refused(args: &[&str]) -> String {
    refused_in(args, &NOWHERE)
}

fn refused_in(args: &[&str], around: &Surroundings) -> String {
    let error = config_in(args, around).unwrap_err();
    error.downcast::<UsageError>().unwrap().0
}

#[test]
fn nothing_given_is_the_whole_machine_as_text() {
    let config = config(&[]);
    assert_eq!(config.who, Who::default());
    assert_eq!(config.command, None);
    assert_eq!(config.read_file, None);
    assert_eq!(config.write, None);
    assert!(config.filter.is_none());
    assert!(config.output.print);
    assert_eq!(config.output.format, Format::Text);
    assert_eq!((config.snaplen, config.ring_kib), (0, 16384));
    assert_eq!((config.count, config.duration), (None, None));
    assert_eq!((config.direction, config.drop_to), (None, None));
    assert!(!config.list && !config.debug && !config.quiet && config.verbose == 0);
}

#[test]
fn pids_are_sorted_and_each_is_there_once() {
    assert_eq!(config(&["-p", "7 3", "-p", "7,1"]).who.pids, [1, 3, 7]);
}

#[test]
fn kinds_of_conditions_are_kept_apart() {
    let who = config(&[
        "-p", "1", "-f", "-u", "0", "--comm", "ng*", "--exe", "/bin/x",
    ])
    .who;
    assert_eq!(who.pids, [1]);
    assert_eq!(who.uid, Some(0));
    assert_eq!(who.comm.as_deref(), Some("ng*"));
    assert_eq!(who.exe, Some(PathBuf::from("/bin/x")));
    assert!(who.follow);
}

#[test]
fn a_user_is_a_name_or_any_number() {
    assert_eq!(config(&["-u", "root"]).who.uid, Some(0));
    assert_eq!(config(&["-u", "123456"]).who.uid, Some(123_456));
    assert!(refused(&["-u", "no such user"]).contains("there is no user 'no such user'"));
}

#[test]
fn follow_needs_somebody_to_follow() {
    assert!(refused(&["-f"]).contains("give them with -p"));
    assert!(config(&["-f", "--", "true"]).who.follow);
}

#[test]
fn interfaces_are_refused_with_the_hint() {
    assert_eq!(
        refused(&["-i", "eth0", "port", "443"]),
        "tlssniff captures processes, not interfaces; see -p, -D"
    );
}

#[test]
fn a_command_runs_as_the_caller_of_sudo() {
    let sudo = |is_root| Surroundings {
        is_root,
        env: |name| (name == "SUDO_USER").then(|| "nobody".into()),
        ..NOWHERE
    };
    let run_as = |args: &[&str], around: &Surroundings| {
        let command = config_in(args, around).unwrap().command.unwrap();
        assert_eq!(command.argv, ["true", "-x"]);
        command.run_as
    };
    let args = ["--", "true", "-x"];
    let nobody = run_as(&args, &sudo(true)).unwrap();
    assert_eq!(nobody.user, "nobody");
    assert!(nobody.uid > 0 && nobody.groups.contains(&nobody.gid));
    assert!(nobody.home.is_absolute());
    let from_root = Surroundings {
        env: |_| Some("root".into()),
        ..sudo(true)
    };
    assert_eq!(run_as(&args, &from_root), None);
    assert_eq!(run_as(&args, &sudo(false)), None);
    assert_eq!(run_as(&args, &NOWHERE), None);

    let chosen = run_as(&["--run-as", "root", "--", "true", "-x"], &sudo(true));
    assert_eq!(chosen.unwrap().uid, 0);
}

#[test]
fn run_as_needs_a_command_root_and_a_user() {
    let root = Surroundings {
        is_root: true,
        ..NOWHERE
    };
    assert!(refused_in(&["--run-as", "nobody"], &root).contains("give a command after --"));
    let args = ["--run-as", "nobody", "--", "true"];
    assert!(refused(&args).contains("needs root"));
    let args = ["--run-as", "no such user", "--", "true"];
    assert!(refused_in(&args, &root).contains("there is no user"));
}

#[test]
fn reading_a_file_excludes_what_is_about_processes() {
    for args in [
        ["-r", "x", "-p", "1"].as_slice(),
        &["-r", "x", "-u", "0"],
        &["-r", "x", "--comm", "curl"],
        &["-r", "x", "--exe", "/bin/x"],
        &["-r", "x", "-p", "1", "-f"],
    ] {
        assert!(refused(args).contains("use a filter instead"), "{args:?}");
    }
    assert!(refused(&["-r", "x", "--", "true"]).contains("leave out either"));
    assert!(refused(&["-r", "x", "-Z", "nobody"]).contains("leave out -Z"));
    assert!(refused(&["-r", "x", "-w", "x"]).contains("give -w another name"));
    assert_eq!(
        config(&["-r", "-", "-w", "-"]).read_file,
        Some(FileArg::Stdio)
    );
    assert_eq!(
        config(&["-r", "x"]).read_file,
        Some(FileArg::Path("x".into()))
    );
}

#[test]
fn listing_excludes_capturing() {
    assert!(config(&["-D", "-p", "1", "--json"]).list);
    for args in [
        ["-D", "-w", "x"].as_slice(),
        &["-D", "-r", "x"],
        &["-D", "port", "1"],
        &["-D", "--", "true"],
    ] {
        assert!(refused(args).contains("-D only lists"), "{args:?}");
    }
}

#[test]
fn a_capture_never_goes_to_a_terminal() {
    let error = refused_in(&["-w", "-"], &terminal());
    assert!(error.contains("give a file (-w out.pcapng)"), "{error}");
    assert!(config_in(&["-w", "x"], &terminal()).is_ok());
    assert_eq!(config(&["-w", "-"]).write.unwrap().target, FileArg::Stdio);
}

#[test]
fn text_and_capture_do_not_share_standard_output() {
    assert!(refused(&["-w", "-", "--print"]).contains("with -o"));
    assert!(config(&["-w", "-", "--print", "-o", "x"]).output.print);
}

#[test]
fn writing_silences_the_text_unless_print_is_given() {
    assert!(!config(&["-w", "x"]).output.print);
    assert!(config(&["-w", "x", "--print"]).output.print);
    for args in [
        ["-w", "x", "-o", "y"].as_slice(),
        &["-w", "x", "--json"],
        &["-w", "x", "--format", "text"],
    ] {
        assert!(refused(args).contains("add --print"), "{args:?}");
        assert!(config_in(&[args, &["--print"]].concat(), &terminal()).is_ok());
    }
}

#[test]
fn the_file_name_or_the_option_chooses_classic_pcap() {
    let kind = |args: &[&str]| config(args).write.unwrap().kind;
    assert_eq!(kind(&["-w", "x.pcapng"]), Kind::Pcapng);
    assert_eq!(kind(&["-w", "x"]), Kind::Pcapng);
    assert_eq!(kind(&["-w", "-"]), Kind::Pcapng);
    assert_eq!(kind(&["-w", "x.pcap"]), Kind::Pcap);
    assert_eq!(kind(&["-w", "d.d/x.PCAP"]), Kind::Pcap);
    assert_eq!(kind(&["-w", "x.pcapng", "--pcap"]), Kind::Pcap);
    assert_eq!(kind(&["-w", "-", "--pcap"]), Kind::Pcap);
}

#[test]
fn framing_is_tls_unless_raw_is_asked_for() {
    let framing = |args: &[&str]| config(args).framing;
    assert_eq!(framing(&["-w", "x"]), Framing::Tls);
    assert_eq!(framing(&["-w", "x", "--framing", "tls"]), Framing::Tls);
    assert_eq!(framing(&["-w", "x", "--framing", "raw"]), Framing::Raw);
}

#[test]
fn a_port_to_listen_on_is_one_of_this_machine() {
    let listen = |args: &[&str]| config(args).listen.unwrap();
    assert_eq!(
        listen(&["--listen", "5555"]).addr.to_string(),
        "127.0.0.1:5555"
    );
    assert_eq!(listen(&["--listen", "[::1]:1"]).addr.to_string(), "[::1]:1");
    assert!(listen(&["--listen", "1"]).users.unwrap().contains(&0));
    assert!(!config(&["--listen", "1"]).output.print);
    assert!(refused(&["--listen", "x"]).contains("is no address"));
    assert!(refused(&["--listen", "0.0.0.0:1"]).contains("--listen-anyone"));
    let anyone = listen(&["--listen", "0.0.0.0:1", "--listen-anyone"]);
    assert_eq!(anyone.users, None);
    assert!(refused(&["--listen", "1", "-r", "x"]).contains("opened in Wireshark"));
    assert!(refused(&["--listen", "1", "--json"]).contains("add --print"));
    assert_eq!(
        config(&["--listen", "1", "--framing", "raw"]).framing,
        Framing::Raw
    );
}

#[test]
fn options_of_the_file_need_a_file() {
    for args in [
        ["--pcap"].as_slice(),
        &["--framing", "raw"],
        &["-U"],
        &["-C", "1"],
        &["-G", "1"],
    ] {
        assert!(refused(args).contains("name one with -w"), "{args:?}");
    }
    assert!(config(&["-w", "x", "-U"]).write.unwrap().packet_buffered);
}

#[test]
fn rotation_is_by_size_or_time_and_the_rest_depends_on_it() {
    let rotate = |args: &[&str]| config(args).write.unwrap().rotate;
    assert_eq!(rotate(&["-w", "x"]), Rotate::default());
    assert_eq!(
        rotate(&["-w", "x", "-C", "2", "-G", "60", "-W", "3", "-z", "gzip"]),
        Rotate {
            size: Some(2_000_000),
            seconds: Some(60),
            count: Some(3),
            command: Some("gzip".to_owned()),
        }
    );
    assert!(refused(&["-w", "x", "-W", "3"]).contains("say with -C or -G"));
    assert!(refused(&["-w", "x", "-z", "gzip"]).contains("say with -C or -G"));
    assert!(refused(&["-w", "-", "-C", "1"]).contains("give -w a file name"));
}

#[test]
fn the_ring_is_a_power_of_two_that_holds_the_largest_record() {
    for (given, kib) in [
        ("1", 512),
        ("512", 512),
        ("513", 1024),
        ("2097152", 2_097_152),
    ] {
        assert_eq!(config(&["-B", given]).ring_kib, kib, "{given}");
    }
}

#[test]
fn limits_are_taken_over() {
    let config = config(&["-s", "96", "-c", "5", "--duration", "1.5s", "-Q", "in"]);
    assert_eq!((config.snaplen, config.count), (96, Some(5)));
    assert_eq!(config.duration, Some(Duration::from_millis(1500)));
    assert_eq!(config.direction, Some(Dir::In));
}

#[test]
fn both_directions_are_no_condition() {
    assert_eq!(config(&["-Q", "inout"]).direction, None);
    assert_eq!(config(&["-Q", "out"]).direction, Some(Dir::Out));
}

#[test]
fn the_user_to_become_must_exist() {
    assert_eq!(config(&["-Z", "nobody"]).drop_to.as_deref(), Some("nobody"));
    assert!(refused(&["-Z", "no such user"]).contains("-Z: there is no user"));
}

#[test]
fn json_has_two_spellings() {
    assert_eq!(config(&["--json"]).output.format, Format::Json);
    assert_eq!(config(&["--format", "json"]).output.format, Format::Json);
    assert_eq!(config(&["--format", "text"]).output.format, Format::Text);
    assert!(refused(&["--json", "--format", "text"]).contains("contradict"));
}

#[test]
fn of_several_payload_options_the_one_that_shows_most_wins() {
    let payload = |args: &[&str]| config(args).output.text.payload;
    assert_eq!(payload(&[]), Payload::None);
    assert_eq!(payload(&["-A"]), Payload::Ascii);
    assert_eq!(payload(&["-x"]), Payload::Hex);
    assert_eq!(payload(&["-XX"]), Payload::HexAscii);
    assert_eq!(payload(&["-A", "-x"]), Payload::Hex);
    assert_eq!(payload(&["-A", "-X", "-x"]), Payload::HexAscii);
}

#[test]
fn each_t_is_another_style_of_time() {
    let styles = ["-q", "-t", "-tt", "-ttt", "-tttt", "-ttttt"]
        .map(|option| config(&[option]).output.text.time);
    assert_eq!(
        styles,
        [
            TimeStyle::TimeOfDay,
            TimeStyle::None,
            TimeStyle::Epoch,
            TimeStyle::Delta,
            TimeStyle::Date,
            TimeStyle::SinceFirst
        ]
    );
    assert!(refused(&["-tttttt"]).contains("up to five times"));
}

#[test]
fn options_of_the_text_reach_the_text() {
    let config = config(&[
        "-q", "-vv", "--nano", "-#", "-l", "--ascii", "--debug", "-n",
    ]);
    let text = config.output.text;
    assert!(text.short && text.nano && text.number && text.line_buffered && text.ascii);
    assert_eq!((text.verbose, config.verbose), (2, 2));
    assert!(config.output.line_buffered && config.debug && config.quiet);
}

#[test]
fn a_terminal_gets_lines_and_a_file_does_not() {
    let lines = |args: &[&str], around: &Surroundings| {
        config_in(args, around).unwrap().output.line_buffered
    };
    assert!(lines(&[], &terminal()));
    assert!(!lines(&["-o", "x"], &terminal()));
    assert!(lines(&["-o", "x", "-l"], &terminal()));
    assert!(!lines(&[], &NOWHERE));
    assert_eq!(config(&["-o", "x"]).output.file, Some("x".into()));
}

#[test]
fn color_is_as_asked_for() {
    let color = |args: &[&str]| config_in(args, &terminal()).unwrap().output.text.color;
    assert!(color(&["--color", "always"]));
    assert!(color(&["--color", "always", "-o", "x"]));
    assert!(!color(&["--color", "never"]));
    assert!(color(&[]));
    assert!(!color(&["-o", "x"]));
    let no_color = Surroundings {
        env: |name| (name == "NO_COLOR").then(|| "1".into()),
        ..terminal()
    };
    assert!(!config_in(&[], &no_color).unwrap().output.text.color);
}

#[test]
fn the_filter_has_three_sources_and_only_one_at_a_time() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "port 443\n  or port 80\n").unwrap();
    let path = file.path().to_str().unwrap();
    for args in [["port", "443"], ["-Y", "port 443"], ["-F", path]] {
        assert!(config(&args).filter.is_some(), "{args:?}");
    }
    assert!(config(&["-Y", " "]).filter.is_none());
    for args in [
        ["-Y", "port 1", "port", "2"].as_slice(),
        &["-F", path, "port", "2"],
        &["-F", path, "-Y", "port 2"],
    ] {
        assert!(refused(args).contains("more than once"), "{args:?}");
    }
}

#[test]
fn a_filter_file_that_is_missing_is_no_usage_error() {
    let error = config_in(&["-F", "/no/such/file"], &NOWHERE).unwrap_err();
    assert!(error.downcast_ref::<UsageError>().is_none());
    assert!(format!("{error:#}").contains("/no/such/file: No such file"));
}

#[test]
fn a_filter_error_is_marked_under_the_text() {
    let error = refused(&["port", "80", "and", "port", "bogus"]);
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("filter: "), "{error}");
    assert_eq!(lines[2], "  port 80 and port bogus");
    assert_eq!(lines[3].find('^'), lines[2].find("bogus"));
}

#[test]
fn control_characters_of_a_filter_do_not_reach_the_terminal() {
    let error = refused(&["-Y", "port\tbogus\u{1b}[2J"]);
    assert!(error.contains("\n  port bogus [2J\n"), "{error:?}");
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn a_command_without_dashes_is_told_about_them() {
    let hint = "write -- before it";
    assert!(refused(&["bogus", "https://example.com"]).contains(hint));
    assert!(!refused(&["port", "bogus"]).contains(hint));
    assert!(!refused(&["-Y", "bogus"]).contains(hint));
    assert!(!refused(&["bogus", "--", "true"]).contains(hint));
}

#[test]
fn names_of_secrets_follow_an_equals_sign() {
    assert_eq!(config(&[]).redact, None);
    let names = config(&["--redact", "port", "443"]).redact.unwrap();
    assert!(names.has_header(b"Cookie") && !names.has_keys());
    let names = config(&["--redact=pin,X-Mine"]).redact.unwrap();
    assert!(names.has_header(b"cookie") && names.has_header(b"x-mine") && names.has_key(b"PIN"));
    assert!(refused(&["--redact=a b"]).starts_with("--redact: 'a b' is not the name"));
}
