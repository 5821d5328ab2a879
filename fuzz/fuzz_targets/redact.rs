//! Any bytes in any pieces: redacting ends, keeps every length, and what it hides stays hidden.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::rc::Rc;
use tlssniff::event::{
    Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Proc, Transport,
};
use tlssniff::redact::{Names, Redactor};

fuzz_target!(|input: &[u8]| {
    let Some((&mode, mut rest)) = input.split_first() else {
        return;
    };
    let given: &[&str] = if mode & 1 == 0 { &[] } else { &["pin", "token"] };
    let Ok(names) = Names::new(given.iter().copied()) else {
        return;
    };
    let mut redactor = Redactor::new(names);
    let conn = Conn {
        id: 1,
        proc: Rc::new(Proc::default()),
        lib: Rc::new(Lib { flavor: Flavor::OpenSsl, path: String::new(), version: None }),
        transport: Transport::Unknown,
        addr_source: None,
        unseen: None,
        role: None,
        version: None,
        sni: None,
        alpn: (mode & 2 != 0).then(|| "h2".to_owned()),
    };
    let mut pass = |kind: Kind<'_>| {
        redactor.event(&Event { ts: 0, conn: &conn, tid: 0, func: "", kind }, |event| {
            if let (Kind::Data(before), Kind::Data(after)) = (kind, event.kind) {
                assert_eq!(before, Data { bytes: before.bytes, ..after });
                assert_eq!(before.bytes.len(), after.bytes.len());
            }
        });
    };
    // A piece: direction and whether it begins a call or something is missing, then its length.
    while let [how, len, more @ ..] = rest {
        let (bytes, next) = more.split_at(usize::from(*len).min(more.len()));
        rest = next;
        let dir = if how & 1 == 0 { Dir::Out } else { Dir::In };
        let lost = u64::from(how >> 4);
        if how & 2 != 0 {
            pass(Kind::Gap { dir, off: 0, len: lost, cause: GapCause::Dropped });
        }
        let cut = if how & 4 != 0 { lost } else { 0 };
        let len = bytes.len() as u64 + cut;
        let call_off = u64::from(how & 8);
        pass(Kind::Data(Data { dir, off: 0, len, call_len: len + call_off, call_off, goid: 0, bytes }));
    }
    pass(Kind::Close);
});
