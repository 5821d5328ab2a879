//! Readers of a capture that is still going on: over TCP, and Wireshark through extcap.

mod lab;

use lab::{Capture, Checks, LIMIT, Running, Truth, oracle, sniff};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use test_tag::tag;
use tlssniff::event::{Conn, Data, Dir, Event, Flavor, Kind, Lib, Proc, Totals, Transport};
use tlssniff::readback;
use tlssniff::sink::Sink;
use tlssniff::sink::pcapng::Options;
use tlssniff::sink::serve::{Listen, ServeSink};

/// Everything from `stream` to its end.
fn reading(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    })
}

/// What `-r` makes of a capture.
fn read_back(pcapng: &[u8], dir: &Path) -> Capture {
    let (file, json) = (dir.join("read.pcapng"), dir.join("read.json"));
    fs::write(&file, pcapng).unwrap();
    let args = ["--json", "--raw", "-r"];
    let status = sniff::command(&args)
        .args([&file, Path::new("-o"), &json])
        .status()
        .unwrap();
    assert!(status.success());
    Capture::read(&json)
}

fn odd(dir: &Path, comm: &str) -> Vec<Truth> {
    let program = lab::renamed(lab::odd(), dir, comm);
    let mut odd = Running::start(Command::new(program).arg("plain"), dir);
    odd.wait_success(LIMIT);
    Truth::parse_all(&odd.stdout_text())
}

/// A capture that is served, and where.
fn serving(dir: &Path, comm: &str) -> (Running, SocketAddr) {
    let mut command = sniff::command(&["--listen", "0", "--comm", comm]);
    let mut sniff = Running::start(&mut command, dir);
    let line = sniff.wait_line(LIMIT, |line| line.contains("serving pcapng on"));
    let addr = line.split(' ').nth(4).unwrap().parse().unwrap();
    sniff.wait_line(LIMIT, |line| line.starts_with("tlssniff: listening"));
    (sniff, addr)
}

#[tag(root)]
#[test]
fn each_reader_on_the_port_gets_the_whole_capture() {
    if !lab::can_capture("each_reader_on_the_port_gets_the_whole_capture") {
        return;
    }
    let dir = lab::new_dir();
    let comm = lab::unique_comm("srv");
    let (mut sniff, addr) = serving(dir.path(), &comm);
    let readers = [(); 2].map(|()| {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut begin = [0; 4];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(begin, 0x0a0d_0d0a_u32.to_ne_bytes());
        reading(io::Cursor::new(begin).chain(stream))
    });
    let truths = odd(dir.path(), &comm);
    sniff.signal(Signal::SIGINT);
    assert!(sniff.wait(LIMIT).success());
    for reader in readers {
        let capture = read_back(&reader.join().unwrap(), dir.path());
        oracle::assert_equal(&capture, &truths, Checks::default());
    }
}

#[tag(root)]
#[test]
fn other_users_of_the_machine_are_not_served() {
    if !lab::can_capture("other_users_of_the_machine_are_not_served") {
        return;
    }
    let dir = lab::new_dir();
    let (mut sniff, addr) = serving(dir.path(), &lab::unique_comm("usr"));
    let connect = format!("exec cat < /dev/tcp/{}/{}", addr.ip(), addr.port());
    let output = Command::new("bash")
        .args(["-c", &connect])
        .uid(65534)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    sniff.wait_line(LIMIT, |line| line.contains("is of user 65534"));
    sniff.signal(Signal::SIGINT);
    assert!(sniff.wait(LIMIT).success());
}

/// As Wireshark does it, whose own end is played by this test.
#[tag(root)]
#[test]
fn an_extcap_capture_ends_when_its_fifo_is_closed() {
    if !lab::can_capture("an_extcap_capture_ends_when_its_fifo_is_closed") {
        return;
    }
    let dir = lab::new_dir();
    let comm = lab::unique_comm("ext");
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let args = ["--capture", "--extcap-interface", "tlssniff", "--comm"];
    let mut command = sniff::command(&args);
    command.args([&comm, "--debug", "--fifo"]).arg(&fifo);
    let mut sniff = Running::start(&mut command, dir.path());
    let nonblocking = OFlag::O_NONBLOCK.bits();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(&fifo)
        .unwrap();
    sniff.wait_line(LIMIT, |line| line.contains("ready after"));
    let truths = odd(dir.path(), &comm);
    let sent: u64 = truths.iter().map(|truth| truth.out.0).sum();
    let mut pcapng = Vec::new();
    let mut piece = [0; 65536];
    let is_all = |pcapng: &[u8]| {
        let mut seen = 0;
        // Not complete yet, as long as more comes.
        let _ = readback::read(pcapng, &mut |event| {
            if let Kind::Data(data) = event.kind {
                seen += if data.dir == Dir::Out { data.len } else { 0 };
            }
            Ok(())
        });
        seen >= sent
    };
    lab::wait_until("the capture holds everything", LIMIT, || {
        // Nothing there yet is an error here.
        let count = file.read(&mut piece).unwrap_or(0);
        pcapng.extend_from_slice(&piece[..count]);
        is_all(&pcapng)
    });
    assert!(sniff.ended().is_none());
    drop(file);
    let status = sniff.wait(Duration::from_secs(2));
    assert!(status.success(), "{}", sniff.stderr_text());
    assert!(!sniff.stderr_text().contains("listening on"));
}

fn conn(id: u64) -> Conn {
    Conn {
        id,
        proc: Rc::new(Proc {
            pid: 42,
            comm: "server".into(),
            ..Proc::default()
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: "/usr/lib/libssl.so.3".into(),
            version: None,
        }),
        transport: Transport::Tcp {
            local: "192.0.2.1:443".parse().unwrap(),
            remote: format!("192.0.2.2:{}", 1000 + id).parse().unwrap(),
        },
        addr_source: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    }
}

fn tell(sink: &mut ServeSink, conn: &Conn, kind: Kind<'_>) {
    let (ts, tid, func) = (1_700_000_000_000_000_000, 42, "SSL_write");
    let event = Event {
        ts,
        conn,
        tid,
        func,
        kind,
    };
    sink.event(&event).unwrap();
    sink.attend().unwrap();
}

fn written(off: u64, bytes: &[u8]) -> Kind<'_> {
    Kind::Data(Data {
        dir: Dir::Out,
        off,
        len: bytes.len() as u64,
        call_len: bytes.len() as u64,
        call_off: 0,
        goid: 0,
        bytes,
    })
}

/// A server, and where to connect to.
fn server() -> (ServeSink, SocketAddr) {
    // Nobody else finds a free port before us.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let listen = Listen { addr, users: None };
    (ServeSink::new(listen, Options::default()).unwrap(), addr)
}

/// Ranges of bytes of the one connection, with what is in them.
fn pieces(pcapng: &[u8]) -> (Vec<(u64, Vec<u8>)>, u64, Totals) {
    let (mut pieces, mut missing) = (Vec::new(), 0);
    let totals = readback::read(pcapng, &mut |event| {
        match event.kind {
            Kind::Data(data) => pieces.push((data.off, data.bytes.to_vec())),
            Kind::Gap { len, .. } => missing += len,
            _ => {}
        }
        Ok(())
    });
    (pieces, missing, totals.unwrap())
}

#[test]
fn what_came_before_a_reader_is_no_gap_in_its_capture() {
    let (mut sink, addr) = server();
    let conn = conn(1);
    tell(&mut sink, &conn, Kind::Open);
    tell(&mut sink, &conn, written(0, &[b'a'; 1000]));
    let reader = reading(TcpStream::connect(addr).unwrap());
    sink.attend().unwrap();
    tell(&mut sink, &conn, written(1000, b"GET / HTTP/1.1\r\n\r\n"));
    sink.finish(&Totals::default()).unwrap();
    let pcapng = reader.join().unwrap();
    let (seen, missing, _) = pieces(&pcapng);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].1, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(missing, 0);
}

#[test]
fn a_slow_reader_loses_visibly_and_the_others_lose_nothing() {
    const CALLS: u64 = 1000;
    let (mut sink, addr) = server();
    let quick = reading(TcpStream::connect(addr).unwrap());
    let mut slow = TcpStream::connect(addr).unwrap();
    sink.attend().unwrap();
    let conn = conn(1);
    tell(&mut sink, &conn, Kind::Open);
    let bytes = [b'x'; 60_000];
    for call in 0..CALLS {
        tell(&mut sink, &conn, written(call * 60_000, &bytes));
        // The quick one is a thread of the same, perhaps busy, machine.
        thread::sleep(Duration::from_millis(1));
    }
    let slow = thread::spawn(move || {
        let mut all = Vec::new();
        slow.read_to_end(&mut all).unwrap();
        all
    });
    sink.finish(&Totals::default()).unwrap();
    let (all, missing, totals) = pieces(&quick.join().unwrap());
    assert_eq!((all.len() as u64, missing, totals.dropped), (CALLS, 0, 0));
    let (some, _, totals) = pieces(&slow.join().unwrap());
    assert!(totals.dropped > 100, "{totals:?}");
    assert_eq!(some.len() as u64 + totals.dropped, CALLS);
    assert_eq!(totals.dropped_bytes, totals.dropped * 60_000);
    for (off, bytes) in some {
        assert_eq!((off % 60_000, bytes.len()), (0, 60_000));
    }
}
