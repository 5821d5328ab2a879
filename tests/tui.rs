//! The terminal UI in a real terminal (tmux): what is typed, what is on the screen then, and that the
//! terminal is as it was before.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use test_tag::tag;

const LIMIT: Duration = Duration::from_secs(20);

/// A terminal of its own, with a shell script in it.
struct Term {
    socket: String,
    dir: tempfile::TempDir,
}

impl Term {
    /// Runs tlssniff with these arguments.
    fn start(width: u16, height: u16, args: &str) -> Term {
        let program = env!("CARGO_BIN_EXE_tlssniff");
        Term::run(width, height, &format!("'{program}' {args}"))
    }

    /// Runs a command, and before and after it notes how the terminal is set.
    fn run(width: u16, height: u16, command: &str) -> Term {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let term = Term {
            socket: format!("tlssniff-{}-{number}", std::process::id()),
            dir: tempfile::tempdir().unwrap(),
        };
        let script = format!(
            "cd '{}'; export LC_ALL=C.UTF-8\n\
             stty -g >before\n\
             sh -c 'echo $$ >pid; exec \"$@\"' sh {command}\n\
             echo \"status $?\"; stty -g >after\n",
            term.dir.path().display(),
        );
        let file = term.path("script");
        std::fs::write(&file, script).unwrap();
        let (width, height) = (width.to_string(), height.to_string());
        term.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "bash --norc --noprofile -i",
        ]);
        term.tmux(&["set-option", "-g", "escape-time", "0"]);
        term.text(&format!(". {}\n", file.display()));
        term
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(args)
            .output()
            .expect("tmux, which scripts/needs test installs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn keys(&self, keys: &[&str]) {
        for key in keys {
            self.tmux(&["send-keys", key]);
        }
    }

    /// Types it as it is.
    fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    fn wait(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(
                begin.elapsed() < LIMIT,
                "no {what} on the screen:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    fn wait_without(&self, text: &str) -> String {
        self.wait(&format!("end of {text}"), |screen| !screen.contains(text))
    }

    fn pid(&self) -> String {
        let pid = std::fs::read_to_string(self.path("pid")).unwrap();
        pid.trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid()]).status();
        assert!(status.unwrap().success());
    }

    /// tlssniff has ended: the shell's screen and modes are back.
    fn assert_given_back(&self, status: u8) {
        self.wait_for(&format!("status {status}"));
        assert_eq!(self.state(), "0 1");
        let read = |name| std::fs::read_to_string(self.path(name)).unwrap();
        let begin = Instant::now();
        while !self.path("after").exists() || read("after").is_empty() {
            assert!(begin.elapsed() < LIMIT);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(read("before"), read("after"));
    }

    /// Whether it is another screen than the shell's, and whether there is a cursor.
    fn state(&self) -> String {
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        state.trim().to_owned()
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages");
    format!("--tui -r '{}'", path.join(name).display())
}

#[test]
fn a_capture_file_is_browsed_filtered_and_exported() {
    let term = Term::start(80, 24, &fixture("curl-http1.pcapng"));
    let first = term.wait_for("ENDED  5");
    assert!(first.contains("localhost:18500/a.json"), "{first}");
    assert_eq!(term.state(), "1 0");

    term.keys(&["/"]);
    term.text("status >= 40x");
    term.wait_for("column 11: \"40x\" is not a number");
    term.keys(&["Enter"]);
    term.wait_for("filter: status >= 40x");
    term.keys(&["BSpace", "0", "Enter"]);
    let filtered = term.wait_for("ENDED  2/5");
    assert!(
        !filtered.contains(" 200 ") && filtered.contains(" 404 "),
        "{filtered}"
    );

    term.keys(&["Enter"]);
    term.wait_for("HTTP/1.1 404 Not Found");
    term.keys(&["x", "c"]);
    term.wait_for("save as: tlssniff-2.sh");
    term.keys(&["Enter"]);
    term.wait_for("tlssniff-2.sh: ");
    let saved = std::fs::read_to_string(term.path("tlssniff-2.sh")).unwrap();
    assert!(
        saved.starts_with("curl 'https://localhost:18500/nope'"),
        "{saved}"
    );

    term.keys(&["Space"]);
    term.wait_for("PAUSED");
    term.resize(20, 24);
    term.wait("a narrow screen", |screen| {
        screen.contains("HTTP/1.1 404") && screen.lines().all(|line| line.chars().count() <= 20)
    });
    for (width, height) in [(3, 2), (1, 1), (300, 50), (80, 24)] {
        term.resize(width, height);
        std::thread::sleep(Duration::from_millis(150));
    }
    term.wait_for("1 Exchanges  2 Connections");
    term.keys(&["Space", "Escape", "Escape"]);
    term.wait_for("ENDED  5");
    term.keys(&["q"]);
    term.assert_given_back(0);
}

#[test]
fn views_lead_back_to_the_exchanges_that_they_are_about() {
    let term = Term::start(120, 30, &fixture("grpc.pcapng"));
    term.wait_for("ENDED  20");
    term.keys(&["2"]);
    term.wait_for("boringssl");
    term.keys(&["Enter"]);
    term.wait_for("ENDED  10/20");
    term.keys(&["4"]);
    term.wait_for("p95");
    term.keys(&["?"]);
    term.wait_for("ctrl-z");
    term.keys(&["Escape"]);
    term.wait_without("ctrl-z");
    term.keys(&["1", "C-c"]);
    term.assert_given_back(0);
}

#[test]
fn signals_give_the_terminal_back() {
    let term = Term::start(80, 24, &fixture("nginx.pcapng"));
    term.wait_for("ENDED");
    term.signal("-TERM");
    // 128 and the number of the signal.
    term.assert_given_back(143);

    let term = Term::start(80, 24, &fixture("nginx.pcapng"));
    term.wait_for("ENDED");
    term.keys(&["/"]);
    term.resize(60, 10);
    term.signal("-INT");
    // It ends by that signal, at which a shell ends its script.
    term.wait("the shell's screen", |_| term.state() == "0 1");
}

#[test]
fn it_is_stopped_and_goes_on() {
    let term = Term::start(80, 24, &fixture("nginx.pcapng"));
    term.wait_for("ENDED");
    term.keys(&["C-z"]);
    // 128 and SIGTSTP: the shell goes on.
    term.assert_given_back(148);
    term.text("fg\n");
    term.wait_for("ENDED");
    assert_eq!(term.state(), "1 0");
    term.signal("-TSTP");
    term.wait("the shell's screen", |_| term.state() == "0 1");
    term.text("fg\n");
    term.wait("another screen", |_| term.state() == "1 0");
    term.keys(&["?"]);
    term.wait_for("ctrl-z");
    // Whoever was there meanwhile may have changed the modes.
    term.signal("-CONT");
    term.keys(&["Escape", "q"]);
    term.wait("the shell's screen", |_| term.state() == "0 1");
    term.text("stty -g >after; echo \"status $?\"\n");
    term.assert_given_back(0);
}

#[test]
fn a_file_that_is_cut_off_is_shown_as_far_as_it_goes_and_messages_come_after() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages/nginx.pcapng");
    let bytes = std::fs::read(whole).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.pcapng");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let term = Term::start(120, 24, &format!("--tui -r '{}'", cut.display()));
    let screen = term.wait_for("cut off");
    assert!(
        screen.contains("ENDED") && screen.contains("nginx["),
        "{screen}"
    );
    term.keys(&["q"]);
    term.assert_given_back(1);
    term.wait_for("tlssniff: read ");
}

#[test]
fn without_colour_there_is_none_and_without_utf8_only_ascii() {
    let term = Term::start(
        100,
        24,
        &format!("{} --color never --ascii", fixture("node.pcapng")),
    );
    let screen = term.wait_for("ENDED");
    assert!(screen.is_ascii() && screen.contains("TLS "), "{screen}");
    let colored = term.tmux(&["capture-pane", "-p", "-e"]);
    let colours = colours(&colored);
    assert!(colours.is_empty(), "{colours:?}");
    term.keys(&["q"]);
    term.assert_given_back(0);
}

/// The colours that are set.
fn colours(text: &str) -> Vec<String> {
    let sequences = text.split('\x1b').skip(1);
    let parameters = sequences.filter_map(|rest| rest.strip_prefix('[')?.split('m').next());
    parameters
        .flat_map(|list| list.split(';'))
        .filter(|code| {
            let number = code.parse().unwrap_or(0);
            (30..=38).contains(&number) || (40..=48).contains(&number) || number >= 90
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_a_terminal_it_says_so() {
    for args in [
        ["--tui", "-r", "/dev/null"].as_slice(),
        &["--tui", "--json"],
        &["--history", "5"],
        &["--tui", "--history", "0"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tlssniff"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("--tui") || stderr.contains("--history"),
            "{stderr}"
        );
        assert!(output.stdout.is_empty());
    }
}

/// Run by the test below, in a terminal.
#[test]
#[ignore = "has no terminal"]
fn panics_with_the_screen_in_its_hands() {
    use tlssniff::tui::{Bounds, Options, Tui};
    let options = Options {
        bounds: Bounds::default(),
        color: true,
        ascii: false,
    };
    let mut tui = Tui::new(options, None, None).unwrap();
    tui.open().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    panic!("on purpose");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let program = std::env::current_exe().unwrap();
    let name = "panics_with_the_screen_in_its_hands";
    // With one thread, a test is the main thread, as the program is.
    let options = "--ignored --exact --test-threads 1 --nocapture";
    let command = format!("'{}' {name} {options}", program.display());
    let term = Term::run(120, 40, &command);
    term.wait_for("1 Exchanges");
    assert_eq!(term.state(), "1 0");
    term.assert_given_back(101);
    let screen = term.wait_for("on purpose");
    assert!(screen.contains("panicked at tests/tui.rs"), "{screen}");
}

// ---- live ----

/// A server of TLS, with its own certificate.
fn server(dir: &Path, port: u16) -> Child {
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success());
    let server = Command::new("openssl")
        .args([
            "s_server", "-www", "-quiet", "-key", "key.pem", "-cert", "cert.pem",
        ])
        .args(["-accept", &port.to_string()])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

fn ask(port: u16, path: &str) {
    let status = Command::new("curl")
        .args([
            "-sk",
            "-o",
            "/dev/null",
            &format!("https://localhost:{port}{path}"),
        ])
        .status();
    assert!(status.unwrap().success());
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tag(root)]
#[test]
fn a_live_capture_is_followed_and_outlives_a_target_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = server(dir.path(), port);
    let term = Term::start(120, 24, &format!("--tui -w live.pcapng -p {}", server.id()));
    term.wait_for("FOLLOW");
    for number in 0..40 {
        ask(port, &format!("/live/{number}"));
    }
    let screen = term.wait_for("/live/39");
    assert!(screen.contains("FOLLOW  40"), "{screen}");
    term.keys(&["Space"]);
    term.wait_for("PAUSED");
    ask(port, "/later");
    std::thread::sleep(Duration::from_millis(500));
    assert!(!term.screen().contains("/later"));
    term.keys(&["Space", "Enter"]);
    term.wait_for("/later");
    server.kill().unwrap();
    server.wait().unwrap();
    // What was captured is still there to be looked at.
    term.wait_for("ENDED  41");
    term.keys(&["q"]);
    term.assert_given_back(0);
    let shown = term.wait_for("events captured");
    assert!(shown.contains("tlssniff: listening on"), "{shown}");
    let saved = Command::new(env!("CARGO_BIN_EXE_tlssniff"))
        .arg("-r")
        .arg(term.path("live.pcapng"))
        .output()
        .unwrap();
    let saved = String::from_utf8_lossy(&saved.stdout).into_owned();
    assert!(
        saved.contains("/live/0") && saved.contains("/later"),
        "{saved}"
    );
}

#[tag(root)]
#[test]
fn what_the_command_prints_does_not_disturb_the_screen() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = server(dir.path(), port);
    let command = format!(
        "sh -c \"head -c 20000 /dev/zero | tr \\\\000 X; head -c 20000 /dev/zero | tr \\\\000 X >&2; \
         curl -sk https://localhost:{port}/command; exit 7\""
    );
    let term = Term::start(100, 24, &format!("--tui -f -- {command}"));
    let screen = term.wait_for("ENDED  1");
    assert!(
        screen.contains("/command") && !screen.contains("XXX"),
        "{screen}"
    );
    term.keys(&["3"]);
    term.wait_for("curl");
    term.keys(&["q"]);
    term.assert_given_back(7);
    server.kill().unwrap();
    server.wait().unwrap();
}
