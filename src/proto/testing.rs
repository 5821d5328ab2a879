//! Feeds conversations in tests, and tells what came out in short lines.

use super::message::Subject;
use super::{Conversations, Item, Limits, Message, Part};
use crate::event::{
    Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Nanos, Proc, Role, Transport,
};
use std::rc::Rc;

/// A client's connection to 10.0.0.3:443, and what it said.
#[derive(Debug)]
pub struct Feed {
    pub conn: Conn,
    pub conversations: Conversations,
    /// Offsets of both halves, and the time in milliseconds.
    off: [u64; 2],
    ms: u64,
    pub messages: Vec<Message>,
    /// Messages as [`summary`] tells them, and other bytes as `out 12` or `in 12`.
    pub lines: Vec<String>,
    /// Offsets and lengths of those other bytes.
    pub places: Vec<(u64, u64)>,
}

/// The connection of a client, of which nothing but the address is known.
pub fn conn() -> Conn {
    Conn {
        id: 1,
        proc: Rc::new(Proc::default()),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: String::new(),
            version: None,
        }),
        transport: Transport::Tcp {
            local: "10.0.0.2:40000".parse().unwrap(),
            remote: "10.0.0.3:443".parse().unwrap(),
        },
        addr_source: None,
        unseen: None,
        role: Some(Role::Client),
        version: None,
        sni: None,
        alpn: None,
    }
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            conn: conn(),
            conversations: Conversations::new(Limits::SHOWN),
            off: [0, 0],
            ms: 0,
            messages: Vec::new(),
            lines: Vec::new(),
            places: Vec::new(),
        }
    }
}

impl Feed {
    pub fn new() -> Feed {
        Feed::default()
    }

    fn event(&mut self, kind: Kind<'_>) {
        self.ms += 1;
        let event = Event {
            ts: self.ms * 1_000_000,
            conn: &self.conn,
            tid: 7,
            func: "",
            kind,
        };
        let Feed {
            conversations,
            messages,
            lines,
            places,
            ..
        } = self;
        conversations
            .event(&event, &mut |item| {
                if let Item::Event(&Event {
                    kind: Kind::Data(data),
                    ..
                }) = item
                {
                    places.push((data.off, data.len));
                }
                take(item, messages, lines);
                Ok(())
            })
            .unwrap();
    }

    /// One write (`Dir::Out`) or read.
    pub fn call(&mut self, dir: Dir, bytes: &[u8]) -> &mut Feed {
        let len = bytes.len() as u64;
        let off = &mut self.off[super::half(dir)];
        let data = Data {
            dir,
            off: *off,
            len,
            call_len: len,
            call_off: 0,
            goid: 0,
            bytes,
        };
        *off += len;
        self.event(Kind::Data(data));
        self
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Feed {
        self.call(Dir::Out, bytes.as_ref())
    }

    pub fn read(&mut self, bytes: impl AsRef<[u8]>) -> &mut Feed {
        self.call(Dir::In, bytes.as_ref())
    }

    pub fn gap(&mut self, dir: Dir, len: u64) -> &mut Feed {
        let off = self.off[super::half(dir)];
        self.off[super::half(dir)] += len;
        self.event(Kind::Gap {
            dir,
            off,
            len,
            cause: GapCause::Dropped,
        });
        self
    }

    pub fn close(&mut self) -> &mut Feed {
        self.event(Kind::Close);
        self
    }

    /// The next event comes so many milliseconds later.
    pub fn wait(&mut self, ms: u64) -> &mut Feed {
        self.ms += ms;
        self
    }

    /// The next event is told late: it happened so many milliseconds before the last.
    pub fn back(&mut self, ms: u64) -> &mut Feed {
        self.ms -= ms;
        self
    }

    /// What has come out since the last look, joined by ` | `.
    pub fn told(&mut self) -> String {
        std::mem::take(&mut self.lines).join(" | ")
    }
}

fn take(item: Item<'_>, messages: &mut Vec<Message>, lines: &mut Vec<String>) {
    match item {
        Item::Message(_, message) => {
            lines.push(summary(message));
            messages.push(message.clone());
        }
        Item::Event(event) => match event.kind {
            Kind::Data(data) => lines.push(format!("{} {}", name(data.dir), data.len)),
            Kind::Gap { dir, len, .. } => lines.push(format!("gap {} {len}", name(dir))),
            Kind::Open | Kind::Shutdown | Kind::Close => {}
        },
    }
}

fn name(dir: Dir) -> &'static str {
    match dir {
        Dir::Out => "out",
        Dir::In => "in",
    }
}

/// `> GET https://host/ 12B`, `< 200 GET https://host/ 12B`, `! GET https://host/`, `[|]` when cut.
pub fn summary(message: &Message) -> String {
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "?".to_owned(),
    };
    let named = |subject: &Subject| match subject {
        Subject::Http(http) => format!("{} {}", text(&http.method), text(&http.url)),
        Subject::Line(line) => String::from_utf8_lossy(line).into_owned(),
    };
    let mut line = match message.part {
        Part::Request => format!("> {}", named(&message.subject)),
        Part::Single => format!("{} {}", name(message.dir), named(&message.subject)),
        Part::Unanswered => format!("! {}", named(&message.subject)),
        Part::Response => {
            let answer = match &*message.subject {
                Subject::Http(http) => http.status.map_or("?".to_owned(), |s| s.to_string()),
                Subject::Line(line) => String::from_utf8_lossy(line).into_owned(),
            };
            match &message.asked {
                Some(asked) => format!("< {answer} {}", named(&asked.subject)),
                None => format!("< {answer}"),
            }
        }
    };
    if message.body.size > 0 {
        line += &format!(" {}B", message.body.size);
    }
    if message.is_cut {
        line += " [|]";
    }
    line
}

/// Milliseconds of a nanosecond time.
pub fn ms(time: Nanos) -> u64 {
    time / 1_000_000
}
