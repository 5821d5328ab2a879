#![no_main]
//! Foreign bytes as both halves of a connection, in any split and with gaps: every protocol.

use libfuzzer_sys::fuzz_target;
use std::rc::Rc;
use tlssniff::event::{Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Proc, Role, Transport};
use tlssniff::proto::{Conversations, Item, Limits};

/// The negotiated protocols that make a difference, and none.
const ALPN: &[Option<&str>] = &[
    None,
    Some("h2"),
    Some("http/1.1"),
    Some("mqtt"),
    Some("dot"),
];

fn conn(kind: u8) -> Conn {
    Conn {
        id: 1,
        proc: Rc::new(Proc::default()),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: String::new(),
            version: None,
        }),
        transport: Transport::Unknown,
        addr_source: None,
        unseen: None,
        role: [None, Some(Role::Client), Some(Role::Server)][usize::from(kind) % 3],
        version: None,
        sni: None,
        alpn: ALPN[usize::from(kind / 3) % ALPN.len()].map(str::to_owned),
    }
}

// The first byte makes the connection. Then each call has a byte for its direction, whether it is
// a gap and whether it goes on, two for its length, and its bytes.
fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, mut rest)) = bytes.split_first() else {
        return;
    };
    let conn = conn(kind);
    let mut conversations = Conversations::new(Limits {
        body: 4096,
        bodies: 65536,
    });
    let mut offs = [0u64; 2];
    let mut shown = [0u64; 2];
    let mut ts = 0;
    let event = |ts, kind| Event {
        ts,
        conn: &conn,
        tid: 1,
        func: "",
        kind,
    };
    let mut emit = |item: Item<'_>| {
        if let Item::Event(event) = item
            && let Kind::Data(data) = event.kind
        {
            let half = usize::from(data.dir == Dir::In);
            // What is shown as bytes comes in order, once.
            assert!(data.off >= shown[half]);
            shown[half] = data.off + data.len;
        }
        Ok(())
    };
    while let Some((&[flags, low, high], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([low, high]));
        let half = usize::from(flags & 1);
        let dir = [Dir::Out, Dir::In][half];
        ts += 1;
        let (bytes, after) = if flags & 6 == 6 {
            (None, after)
        } else {
            let (bytes, after) = after.split_at(len.min(after.len()));
            (Some(bytes), after)
        };
        rest = after;
        let off = offs[half];
        offs[half] += bytes.map_or(len, <[u8]>::len) as u64;
        let kind = match bytes {
            None => Kind::Gap {
                dir,
                off,
                len: len as u64,
                cause: GapCause::Dropped,
            },
            Some(bytes) => Kind::Data(Data {
                dir,
                off,
                len: bytes.len() as u64,
                call_len: bytes.len() as u64,
                call_off: u64::from(flags & 8 != 0),
                goid: 0,
                bytes,
            }),
        };
        conversations.event(&event(ts, kind), &mut emit).unwrap();
    }
    conversations.finish(ts + 1, &mut emit).unwrap();
});
