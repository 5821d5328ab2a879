//! What is written comes back, and nothing that is read can do harm.

use super::read;
use crate::event::{
    AddrSource, Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Nanos, Proc, Role, Totals,
    Transport, Unseen,
};
use crate::sink::Sink;
use crate::sink::pcapng::{Format, Framing, Options, PcapSink};
use crate::sink::rotate::Output;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

/// An event that owns what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    ts: Nanos,
    conn: Conn,
    tid: u32,
    func: String,
    /// Without the bytes of data, which follow.
    kind: Kind<'static>,
    bytes: Vec<u8>,
}

impl Owned {
    fn new(event: &Event<'_>) -> Owned {
        let (kind, bytes) = match event.kind {
            Kind::Data(data) => (Kind::Data(Data { bytes: &[], ..data }), data.bytes.to_vec()),
            Kind::Open => (Kind::Open, Vec::new()),
            Kind::Gap {
                dir,
                off,
                len,
                cause,
            } => (
                Kind::Gap {
                    dir,
                    off,
                    len,
                    cause,
                },
                Vec::new(),
            ),
            Kind::Shutdown => (Kind::Shutdown, Vec::new()),
            Kind::Close => (Kind::Close, Vec::new()),
        };
        let func = event.func.to_owned();
        Owned {
            ts: event.ts,
            conn: event.conn.clone(),
            tid: event.tid,
            func,
            kind,
            bytes,
        }
    }

    fn lend<T>(&self, take: impl FnOnce(&Event<'_>) -> T) -> T {
        let kind = match self.kind {
            Kind::Data(data) => Kind::Data(Data {
                bytes: &self.bytes,
                ..data
            }),
            kind => kind,
        };
        take(&Event {
            ts: self.ts,
            conn: &self.conn,
            tid: self.tid,
            func: &self.func,
            kind,
        })
    }
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const TOTALS: Totals = Totals {
    captured: 9,
    shown: 8,
    dropped: 7,
    dropped_bytes: u64::MAX,
    truncated: 5,
    late: 4,
};

fn write(events: &[Owned], format: Format, framing: Framing) -> Vec<u8> {
    let shared = Shared::default();
    let output = Output::stream(Box::new(shared.clone()), "memory");
    let options = Options {
        format,
        framing,
        comment: "tlssniff -w x".into(),
        ..Options::default()
    };
    let mut sink = PcapSink::new(output, options).unwrap();
    for event in events {
        event.lend(|event| sink.event(event)).unwrap();
    }
    sink.finish(&TOTALS).unwrap();
    shared.0.take()
}

fn read_all(file: &[u8]) -> (Vec<Owned>, anyhow::Result<Totals>) {
    let mut events = Vec::new();
    let totals = read(file, &mut |event| {
        events.push(Owned::new(event));
        Ok(())
    });
    (events, totals)
}

/// A xorshift generator: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.below(2) == 0).then_some(value)
    }
}

fn random_conn(id: u64, random: &mut Random) -> Conn {
    let addrs = [
        "10.0.0.1:40000".parse().unwrap(),
        "[::ffff:10.0.0.1]:40000".parse().unwrap(),
        "10.0.0.2:443".parse().unwrap(),
        "[2001:db8::7]:443".parse().unwrap(),
    ];
    let transport = match random.below(10) {
        0 => Transport::Unknown,
        1 => Transport::Unix {
            path: random.maybe("/run/a b".to_owned()),
        },
        2 => Transport::Pipe,
        3 => Transport::Tls { conn: 1 },
        4 => Transport::Other("vsock".to_owned()),
        5 => Transport::Udp {
            local: addrs[0],
            remote: addrs[2],
        },
        // Few addresses, so that forks, both ends and reuse happen all the time.
        _ => Transport::Tcp {
            local: random.one_of(&addrs),
            remote: random.one_of(&addrs),
        },
    };
    Conn {
        id,
        proc: Rc::new(Proc {
            pid: random.below(1 << 22) as u32,
            comm: random
                .one_of(&["curl", "a b", "", "é\u{202e}\n"])
                .to_owned(),
            exe: random.maybe("/usr/bin/x y".to_owned()),
            uid: random.maybe(1000),
            own_pid: random.maybe(1),
            container: random.maybe("0123456789ab".to_owned()),
        }),
        lib: Rc::new(Lib {
            flavor: random.one_of(&[Flavor::OpenSsl, Flavor::BoringSsl]),
            path: "/usr/lib/libssl.so.3".to_owned(),
            version: random.maybe("OpenSSL 3.0.17 1 Jul 2025".to_owned()),
        }),
        transport,
        addr_source: random.maybe(AddrSource::Socket),
        unseen: random.maybe(Unseen::Late),
        role: random.one_of(&[None, Some(Role::Client), Some(Role::Server)]),
        version: random.maybe(0x0304),
        sni: random.maybe("api.example.com".to_owned()),
        alpn: random.maybe("h2".to_owned()),
    }
}

/// Anything that may happen, and some that may not, on up to eight connections at a time.
fn random_events(count: usize, random: &mut Random) -> Vec<Owned> {
    let mut conns: Vec<(Conn, [u64; 2])> = Vec::new();
    let mut events = Vec::new();
    for n in 0..count {
        if conns.len() < 8 {
            conns.push((random_conn(events.len() as u64 + 1, random), [0; 2]));
        }
        let at = random.below(conns.len() as u64) as usize;
        let (conn, offsets) = &mut conns[at];
        if random.below(20) == 0 {
            conn.sni = Some(format!("learned-{n}"));
        }
        let dir = random.one_of(&[Dir::In, Dir::Out]);
        let next = &mut offsets[dir as usize];
        let mut bytes = Vec::new();
        let kind = match random.below(12) {
            0 => Kind::Open,
            1 => Kind::Shutdown,
            2 => Kind::Close,
            3 => {
                let len = random.below(3) * random.below(1 << 33);
                let cause =
                    random.one_of(&[GapCause::Dropped, GapCause::Unreadable, GapCause::Sendfile]);
                let off = *next;
                *next += len;
                Kind::Gap {
                    dir,
                    off,
                    len,
                    cause,
                }
            }
            _ => {
                let len = match random.below(10) {
                    0 => 0,
                    1 => random.below(300_000),
                    2 => 16384 * random.below(5),
                    _ => random.below(2000),
                };
                let kept = if random.below(4) == 0 {
                    random.below(len + 1)
                } else {
                    len
                };
                bytes = (0..kept).map(|_| random.below(256) as u8).collect();
                let off = *next + [0, 0, 0, 500][random.below(4) as usize];
                *next = off + len;
                let call_off = random.below(2) * 100;
                let call_len = len + call_off;
                Kind::Data(Data {
                    dir,
                    off,
                    len,
                    call_len,
                    call_off,
                    goid: 0,
                    bytes: &[],
                })
            }
        };
        let tid = random.below(100) as u32;
        let func = random
            .one_of(&["", "SSL_write", "ssl_read_internal"])
            .to_owned();
        let ts = 1_700_000_000_123_456_789 + n as u64 * 1000 - random.below(5000);
        events.push(Owned {
            ts,
            conn: conn.clone(),
            tid,
            func,
            kind,
            bytes,
        });
        if kind == Kind::Close {
            conns.swap_remove(at);
        }
    }
    events
}

#[test]
fn pcapng_gives_back_every_event_as_it_was() {
    for framing in [Framing::Tls, Framing::Raw] {
        for seed in 1..=20 {
            let events = random_events(300, &mut Random(seed << 32 | 0x2545_f491));
            let file = write(&events, Format::Pcapng, framing);
            let (back, totals) = read_all(&file);
            for (n, (sent, back)) in events.iter().zip(&back).enumerate() {
                assert!(sent == back, "{framing:?}, seed {seed}, event {n}");
            }
            assert_eq!(back.len(), events.len());
            assert_eq!(totals.unwrap(), TOTALS);
        }
    }
}

/// What classic pcap keeps of an event.
fn without_comments(event: &Owned) -> Owned {
    let mut event = event.clone();
    event.conn.proc = Rc::new(Proc {
        exe: None,
        own_pid: None,
        container: None,
        ..(*event.conn.proc).clone()
    });
    let flavor = event.conn.lib.flavor;
    event.conn.lib = Rc::new(Lib {
        flavor,
        path: String::new(),
        version: None,
    });
    if let Kind::Data(data) = &mut event.kind
        && data.len > 0
    {
        (data.call_len, data.call_off) = (data.len, 0);
        event.tid = 0;
        event.func.clear();
    }
    event
}

/// Gaps that the writer had to tell, and packets of one event put together.
fn without_packets(events: Vec<Owned>, sent: &[Owned]) -> Vec<Owned> {
    let mut whole: Vec<Owned> = Vec::new();
    for event in events {
        let wanted = sent.get(whole.len().saturating_sub(1));
        if let (Kind::Data(data), Some(last), Some(wanted)) =
            (&event.kind, whole.last_mut(), wanted)
            && let (Kind::Data(before), Kind::Data(wanted)) = (&mut last.kind, &wanted.kind)
            && last.conn.id == event.conn.id
            && before.dir == data.dir
            && before.off + before.len == data.off
            && before.len < wanted.len
        {
            before.len += data.len;
            before.call_len = before.len;
            last.bytes.extend_from_slice(&event.bytes);
            continue;
        }
        let is_told = matches!(event.kind, Kind::Gap { .. })
            && !sent
                .get(whole.len())
                .is_some_and(|sent| matches!(sent.kind, Kind::Gap { .. }));
        if !is_told {
            whole.push(event);
        }
    }
    whole
}

#[test]
fn classic_pcap_gives_back_what_it_can_hold() {
    for framing in [Framing::Tls, Framing::Raw] {
        for seed in 1..=20 {
            let events = random_events(300, &mut Random(seed << 32 | 0x2545_f491));
            let file = write(&events, Format::Pcap, framing);
            let (back, totals) = read_all(&file);
            totals.unwrap();
            let sent: Vec<Owned> = events.iter().map(without_comments).collect();
            let back = without_packets(back, &sent);
            for (n, (sent, back)) in sent.iter().zip(&back).enumerate() {
                let (kinds, lens) = (
                    (&sent.kind, &back.kind),
                    (sent.bytes.len(), back.bytes.len()),
                );
                assert!(
                    sent == back,
                    "{framing:?}, seed {seed}, event {n}: {kinds:?} {lens:?}"
                );
            }
            assert_eq!(back.len(), sent.len());
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_gives_back_its_beginning() {
    let mut random = Random(77);
    let mut events = random_events(25, &mut random);
    for event in &mut events {
        if let Kind::Data(data) = &mut event.kind {
            data.len = data.len.min(100);
            event.bytes.truncate(data.len as usize);
        }
    }
    for (format, framing) in [
        (Format::Pcapng, Framing::Tls),
        (Format::Pcapng, Framing::Raw),
        (Format::Pcap, Framing::Tls),
        (Format::Pcap, Framing::Raw),
    ] {
        let file = write(&events, format, framing);
        let (whole, _) = read_all(&file);
        let mut sound = 0;
        for cut in 0..file.len() {
            let (back, totals) = read_all(&file[..cut]);
            assert_eq!(back, whole[..back.len()], "{format:?} cut at {cut}");
            sound += usize::from(totals.is_ok());
        }
        // Only where a block ends can nobody notice.
        assert!((10..400).contains(&sound), "{format:?}: {sound}");
    }
}

#[test]
fn damaged_files_do_no_harm() {
    let mut random = Random(4711);
    let events = random_events(40, &mut random);
    for format in [Format::Pcapng, Format::Pcap] {
        let file = write(&events, format, Framing::Tls);
        for _ in 0..3000 {
            let mut damaged = file.clone();
            for _ in 0..=random.below(8) {
                // Mostly in headers, which are where lengths are.
                let limit = if random.below(2) == 0 {
                    2000
                } else {
                    file.len() as u64
                };
                let at = random.below(limit.min(file.len() as u64)) as usize;
                damaged[at] = random.below(256) as u8;
            }
            let _ = read_all(&damaged);
        }
    }
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    // A section without comment, and a capture of a real interface.
    let section = [
        0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255,
        255, 255, 255, 255, 255, 28, 0, 0, 0,
    ];
    let mut classic = write(&[], Format::Pcap, Framing::Raw);
    classic.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0]);
    classic.extend_from_slice(&[0xff; 14]);
    for file in [section.as_slice(), &classic, b"", b"GET / HTTP/1.1\r\n"] {
        let (events, result) = read_all(file);
        assert_eq!(events, []);
        let message = format!("{:#}", result.unwrap_err());
        assert!(
            message.starts_with("not written by tlssniff: "),
            "{message}"
        );
    }
}

#[test]
fn an_empty_capture_is_a_valid_file() {
    let (events, totals) = read_all(&write(&[], Format::Pcapng, Framing::Tls));
    assert_eq!((events.len(), totals.unwrap()), (0, TOTALS));
    let (events, totals) = read_all(&write(&[], Format::Pcap, Framing::Tls));
    assert_eq!((events.len(), totals.unwrap()), (0, Totals::default()));
}

#[test]
fn a_capture_that_was_not_ended_is_counted_anew() {
    let events = random_events(200, &mut Random(5));
    let file = write(&events, Format::Pcapng, Framing::Raw);
    let statistics = file
        .windows(4)
        .rposition(|window| window == [5, 0, 0, 0])
        .unwrap();
    let (_, totals) = read_all(&file[..statistics]);
    let count = |test: fn(&Owned) -> bool| events.iter().filter(|event| test(event)).count() as u64;
    let data = count(|event| matches!(event.kind, Kind::Data(_)));
    let lost = |kind| matches!(kind, Kind::Gap { cause, .. } if cause != GapCause::Sendfile);
    let totals = totals.unwrap();
    assert_eq!((totals.captured, totals.shown), (data, data));
    assert_eq!(
        totals.dropped,
        events.iter().filter(|event| lost(event.kind)).count() as u64
    );
    let cut =
        |event: &Owned| matches!(event.kind, Kind::Data(d) if d.len > event.bytes.len() as u64);
    assert_eq!(
        totals.truncated,
        events.iter().filter(|event| cut(event)).count() as u64
    );
}

#[test]
fn an_error_of_the_receiver_ends_the_reading() {
    let file = write(
        &random_events(20, &mut Random(6)),
        Format::Pcapng,
        Framing::Tls,
    );
    let mut count = 0;
    let result = read(file.as_slice(), &mut |_| {
        count += 1;
        anyhow::bail!("enough")
    });
    assert_eq!(
        (count, result.unwrap_err().to_string().as_str()),
        (1, "enough")
    );
}
