//! Exchanges of real programs: whole, cut, split, with losses, and against each other.
//!
//! `tests/fixtures/lines/NAME.txt`: `> HEX` is a write of the client, `< HEX` a read, `= TEXT` a
//! line that is told. `BLESS=1` writes those lines anew.

use super::*;
use crate::proto::detect::{self, First, Verdict};
use crate::proto::testing::{Feed, conn};
use crate::proto::{
    Limits, amqp, dns, ftp, imap, kafka, ldap, mongo, mqtt, mysql, pop3, postgres, redis, smtp,
};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;

const RECORDED: &[(&str, Protocol)] = &[
    ("postgres", Protocol::Postgres),
    ("postgres_extended", Protocol::Postgres),
    ("redis", Protocol::Redis),
    ("redis_pubsub", Protocol::Redis),
    ("mysql", Protocol::Mysql),
    ("mysql_prepared", Protocol::Mysql),
    ("smtp", Protocol::Smtp),
    ("imap", Protocol::Imap),
    ("mqtt", Protocol::Mqtt),
    ("mongo", Protocol::Mongo),
    ("kafka", Protocol::Kafka),
    ("amqp", Protocol::Amqp),
    ("dns", Protocol::Dns),
    ("ldap", Protocol::Ldap),
    ("ftp", Protocol::Ftp),
    ("pop3", Protocol::Pop3),
];

/// Of one recording, so many places are tried.
const MAX_PLACES: usize = 400;

type Calls = Vec<(Dir, Vec<u8>)>;

fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/lines")
        .join(format!("{name}.txt"))
}

fn recorded(name: &str) -> (Calls, Vec<String>) {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let (mut calls, mut lines) = (Vec::new(), Vec::new());
    for row in text.lines() {
        let (mark, rest) = row.split_at(2);
        match mark {
            "> " => calls.push((Dir::Out, unhex(rest))),
            "< " => calls.push((Dir::In, unhex(rest))),
            _ => lines.push(rest.to_owned()),
        }
    }
    (calls, lines)
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn told(calls: &[(Dir, Vec<u8>)]) -> Vec<String> {
    let mut feed = Feed::new();
    for (dir, bytes) in calls {
        feed.call(*dir, bytes);
    }
    feed.close();
    feed.lines
}

/// Messages, without bytes and without what was not answered.
fn messages(lines: &[String]) -> Vec<String> {
    let is_message = |line: &&String| {
        let is_bytes = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
        let rest = line.strip_prefix("out ").or(line.strip_prefix("in "));
        let is_cut = line.ends_with(" [|]");
        !rest.is_some_and(is_bytes)
            && !is_cut
            && !line.starts_with("! ")
            && !line.starts_with("gap ")
    };
    lines.iter().filter(is_message).cloned().collect()
}

fn places(len: usize) -> impl Iterator<Item = usize> {
    (1..len).step_by(len.div_ceil(MAX_PLACES).max(1))
}

#[test]
fn each_recorded_exchange_gives_its_lines() {
    for (name, protocol) in RECORDED {
        let (calls, wanted) = recorded(name);
        let lines = told(&calls);
        if std::env::var_os("BLESS").is_some() {
            let text = std::fs::read_to_string(path(name)).unwrap();
            let mut text: Vec<&str> = text.lines().filter(|row| !row.starts_with("= ")).collect();
            let lines: Vec<String> = lines.iter().map(|line| format!("= {line}")).collect();
            text.extend(lines.iter().map(String::as_str));
            std::fs::write(path(name), text.join("\n") + "\n").unwrap();
            continue;
        }
        assert_eq!(lines, wanted, "{name}");
        assert!(messages(&lines).len() > 1, "{name}: {protocol:?}");
        assert!(!lines.concat().contains("s3cret"), "{name} shows a secret");
    }
}

#[test]
fn a_call_may_end_anywhere() {
    for (name, _) in RECORDED {
        let (calls, wanted) = recorded(name);
        for (index, (dir, bytes)) in calls.iter().enumerate() {
            for at in places(bytes.len()).step_by(1 + calls.len() / 20) {
                let mut split = calls.clone();
                let (first, second) = bytes.split_at(at);
                split[index] = (*dir, first.to_vec());
                split.insert(index + 1, (*dir, second.to_vec()));
                let lines = told(&split);
                // Recognising may need the whole call; a call that is shown as bytes is two then.
                if index > 2 {
                    assert_eq!(lines, wanted, "{name}: call {index} split at {at}");
                }
                assert!(
                    messages(&lines).len() <= wanted.len(),
                    "{name}: call {index} split at {at}"
                );
            }
        }
    }
}

#[test]
fn a_cut_exchange_gives_the_same_lines_up_to_there() {
    for (name, _) in RECORDED {
        let (calls, _) = recorded(name);
        let whole = messages(&told(&calls));
        for (index, (dir, bytes)) in calls.iter().enumerate() {
            for at in places(bytes.len() + 1).step_by(1 + calls.len() / 20) {
                let mut cut = calls[..index].to_vec();
                cut.push((*dir, bytes[..at.min(bytes.len())].to_vec()));
                let lines = messages(&told(&cut));
                assert_eq!(
                    lines,
                    whole[..lines.len().min(whole.len())],
                    "{name}: call {index} cut at {at}"
                );
            }
        }
    }
}

/// A lost call takes its own lines with it; no answer is given to another command.
#[test]
fn after_a_loss_no_answer_goes_astray() {
    for (name, _) in RECORDED {
        let (calls, _) = recorded(name);
        let mut feed = Feed::new();
        for (dir, bytes) in &calls {
            feed.call(*dir, bytes);
        }
        let whole: HashSet<_> = feed.messages.iter().filter_map(pair).collect();
        for lost in 0..calls.len() {
            let mut feed = Feed::new();
            for (index, (dir, bytes)) in calls.iter().enumerate() {
                if index == lost {
                    feed.gap(*dir, bytes.len() as u64);
                } else {
                    feed.call(*dir, bytes);
                }
            }
            feed.close();
            let whole_messages = feed.messages.iter().filter(|message| !message.is_cut);
            for pair in whole_messages.filter_map(pair) {
                // The text of a prepared statement may be what was lost.
                let is_known = whole.contains(&pair) || pair.1 == "execute";
                assert!(is_known, "{name}: {pair:?} after the loss of call {lost}");
            }
        }
    }
}

/// Whatever the first call that is seen: answers go to their commands, and all but MQTT, whose
/// packets prove nothing, are recognised from a command in the middle on.
#[test]
fn a_capture_may_begin_in_the_middle() {
    for (name, protocol) in RECORDED {
        let (calls, _) = recorded(name);
        let mut whole = Feed::new();
        for (dir, bytes) in &calls {
            whole.call(*dir, bytes);
        }
        let whole: HashSet<_> = whole.messages.iter().filter_map(pair).collect();
        let mut found = 0;
        for begin in 1..calls.len() {
            let mut feed = Feed::new();
            for (dir, bytes) in calls.iter().skip(begin) {
                feed.call(*dir, bytes);
            }
            found += usize::from(feed.messages.len() > 1);
            for message in &feed.messages {
                assert_eq!(message.protocol, *protocol, "{name} from call {begin}");
                let is_known = pair(message).is_none_or(|pair| {
                    // The text of a prepared statement came before.
                    whole.contains(&pair) || pair.1.starts_with("execute")
                });
                assert!(is_known, "{name} from call {begin}: {message:?}");
            }
        }
        assert!(
            found * 3 > calls.len() || *protocol == Protocol::Mqtt,
            "{name}: {found}"
        );
    }
}

/// The first words of an answer, and its command.
fn pair(message: &Message) -> Option<(String, String)> {
    let asked = message
        .asked
        .as_ref()
        .filter(|_| message.part == Part::Response)?;
    let text = |subject: &Subject| match subject {
        Subject::Line(line) => String::from_utf8_lossy(line).into_owned(),
        Subject::Http(http) => panic!("{http:?}"),
    };
    // What an answer of several pieces counts at its end may be less.
    let answer = text(&message.subject);
    let words: Vec<&str> = answer.split(' ').take(2).collect();
    Some((words.join(" "), text(&asked.subject)))
}

/// With `-s` the beginning of each call is left: the commands are still told.
#[test]
fn commands_that_are_cut_are_told_as_far_as_they_go() {
    let mut feed = Feed::new();
    let mut query = b"Q\0\0\x10\0select * from t where x = '".to_vec();
    query.extend(b"x".repeat(50));
    let (startup, ready) = (
        b"\0\0\0\x10\0\x03\0\0user\0a\0\0",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",
    );
    feed.write(startup).read(ready).told();
    feed.call(Dir::Out, &query)
        .gap(Dir::Out, 0x1001 - query.len() as u64);
    feed.read(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
    let told = feed.told();
    let told = told.split(" | ").next().unwrap().to_owned();
    assert!(
        told.starts_with("> select * from t where x = 'xx"),
        "{told}"
    );
    assert!(told.ends_with("[|]"), "{told}");
    feed.write(b"Q\0\0\0\x0dselect 2\0");
    assert_eq!(feed.told(), "> select 2");
}

#[test]
fn the_beginnings_of_each_protocol_are_no_other_one() {
    let roles = [None, conn().role];
    for (name, protocol) in RECORDED {
        let (calls, _) = recorded(name);
        for role in roles {
            let conn = crate::event::Conn { role, ..conn() };
            let mut is_found = false;
            for (dir, bytes) in &calls {
                match detect::look(&First::new(&conn, *dir, bytes)) {
                    Verdict::Known(is, _) => {
                        assert_eq!(
                            is,
                            *protocol,
                            "{name}: {:?}",
                            String::from_utf8_lossy(bytes)
                        );
                        is_found = true;
                    }
                    Verdict::Unsure | Verdict::Unknown => {}
                }
            }
            assert!(is_found, "{name} is not recognised");
        }
    }
}

#[test]
fn other_bytes_are_none_of_them() {
    let mut random = Random(7);
    let texts: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"hello world\r\n",
        b"a fetch b\r\n",
        b"220 files ready\r\n",
        b"+OK\r\n",
        b"* item one\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"{\"a\": 1}\n",
        b"<?xml version='1.0'?><stream:stream>",
        &[0; 64],
        &[0xff; 64],
        b"\0\0\0\0",
        b"\0",
    ];
    let look = |bytes: &[u8], dir| match detect::look(&First::new(&conn(), dir, bytes)) {
        Verdict::Known(Protocol::Http1 | Protocol::Http2, _)
        | Verdict::Unsure
        | Verdict::Unknown => None,
        Verdict::Known(protocol, _) => Some(protocol),
    };
    for bytes in texts {
        for dir in [Dir::Out, Dir::In] {
            assert_eq!(
                look(bytes, dir),
                None,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
    for _ in 0..100_000 {
        let len = 1 + random.below(80);
        let bytes = random.bytes(len);
        for dir in [Dir::Out, Dir::In] {
            assert_eq!(look(&bytes, dir), None, "{bytes:?}");
        }
    }
}

/// Everything is taken for these at some time: nothing panics, what is kept stays small.
#[test]
fn nonsense_is_survived_in_bounds() {
    survive::<postgres::Postgres>(1);
    survive::<redis::Redis>(2);
    survive::<mysql::Mysql>(3);
    survive::<smtp::Smtp>(4);
    survive::<imap::Imap>(5);
    survive::<mqtt::Mqtt>(6);
    survive::<mongo::Mongo>(7);
    survive::<kafka::Kafka>(8);
    survive::<amqp::Amqp>(9);
    survive::<dns::Dns>(10);
    survive::<ldap::Ldap>(11);
    survive::<ftp::Ftp>(12);
    survive::<pop3::Pop3>(13);
}

fn survive<G: Grammar>(seed: u64) {
    let all: Vec<Calls> = RECORDED.iter().map(|(name, _)| recorded(name).0).collect();
    let mut random = Random(seed);
    let conn = conn();
    for _ in 0..60 {
        let (mut held, mut ready) = (0, Vec::new());
        let mut lines = Lines::<G> {
            client: Dir::Out,
            grammar: G::default(),
            halves: Default::default(),
            pairs: Pairs::default(),
        };
        for _ in 0..40 {
            let mut context = Context {
                conn: &conn,
                limits: Limits::SHOWN,
                held: &mut held,
                sent: &Rc::default(),
                ready: &mut ready,
                undone: &mut Vec::new(),
            };
            let dir = if random.below(2) == 0 {
                Dir::Out
            } else {
                Dir::In
            };
            let at = At::default();
            if random.below(10) == 0 {
                lines.gap(dir, at, random.below(3000) as u64, &mut context);
                continue;
            }
            let bytes = random.mutated(&all);
            let taken = lines.data(dir, at, &bytes, random.below(3) > 0, &mut context);
            assert!(taken <= bytes.len());
            for half in &lines.halves {
                assert!(half.head.len() <= G::HEAD);
            }
            assert!(lines.pairs.waiting.len() <= MAX_ASKED);
            assert!(format!("{:?}", lines.grammar).len() < 4 << 20);
        }
        for message in &ready {
            let Subject::Line(line) = &*message.subject else {
                panic!("{message:?}");
            };
            assert!(line.len() <= 4 * 200 + 3);
        }
    }
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A part of some recorded call, a few bytes of it changed.
    fn mutated(&mut self, all: &[Calls]) -> Vec<u8> {
        let calls = &all[self.below(all.len())];
        let bytes = &calls[self.below(calls.len())].1;
        let from = if self.below(2) == 0 {
            0
        } else {
            self.below(bytes.len())
        };
        let mut bytes = bytes[from..].to_vec();
        bytes.truncate(1 + self.below(6000));
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] = self.next() as u8;
        }
        bytes
    }
}

#[test]
fn every_protocol_has_one_name() {
    let mut names = HashSet::new();
    let mut list = String::new();
    for protocol in Protocol::ALL {
        assert!(names.insert(protocol.name()), "{protocol:?}");
        let _ = write!(list, "{} ", protocol.label());
    }
    assert!(list.contains("postgres"), "{list}");
}

/// Nothing that was taken may vanish: bytes of a piece that turns out to be none are shown.
#[test]
fn pieces_that_are_none_after_all_are_shown_as_bytes() {
    let mut feed = Feed::new();
    feed.read("220 h ESMTP\r\n")
        .write("EHLO c\r\n")
        .read("250 h\r\n");
    feed.told();
    feed.write("NO").write("\x01OP\r\n");
    assert_eq!(feed.told(), "out 2 | out 5");
    feed.write("NOOP\r\n").write("NO").gap(Dir::Out, 3);
    assert_eq!(feed.told(), "> NOOP | out 2 | gap out 3");
    feed.read("250 o").close();
    assert_eq!(feed.told(), "in 5");
}

#[test]
fn what_a_loss_interrupts_is_told_as_far_as_it_came() {
    let mut feed = Feed::new();
    feed.read("220 h ESMTP\r\n")
        .write("EHLO c\r\n")
        .read("250-h\r\n");
    feed.told();
    feed.gap(Dir::In, 9);
    assert_eq!(feed.told(), "< incomplete answer EHLO c [|] | gap in 9");
    let mut feed = Feed::new();
    feed.read("220 h ESMTP\r\n")
        .write("DATA\r\n")
        .read("354 go\r\n");
    feed.told();
    feed.write("Subject: x\r\n\r\n").close();
    assert_eq!(feed.told(), "out mail 14B [|]");
    let mut feed = Feed::new();
    feed.read("* OK IMAP4rev1\r\n")
        .write("a1 LOGIN {1+}\r\nu {6+}\r\ns3")
        .close();
    assert_eq!(feed.told(), "in OK IMAP4rev1 | out LOGIN *** 7B [|]");
}

/// Whatever is cut and wherever: each byte is part of a message, or shown.
#[test]
fn no_beginning_of_a_recording_vanishes() {
    for (name, _) in RECORDED {
        let (calls, _) = recorded(name);
        for (index, (dir, bytes)) in calls.iter().enumerate() {
            for at in places(bytes.len()).step_by(1 + calls.len() / 20) {
                let mut feed = Feed::new();
                for (dir, bytes) in &calls[..index] {
                    feed.call(*dir, bytes);
                }
                let before = feed.lines.len();
                feed.call(*dir, &bytes[..at]);
                feed.close();
                // What a Bind says is told with the Execute that follows it.
                let is_bind = *name == "postgres_extended" && bytes.first() == Some(&b'B');
                assert!(
                    feed.lines.len() > before || is_bind,
                    "{name}: call {index} cut at {at}"
                );
            }
        }
    }
}
