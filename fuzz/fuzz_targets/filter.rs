//! Any text is a filter or an error with a column inside it; neither parsing nor matching panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::rc::Rc;
use tlssniff::event::{Conn, Data, Dir, Event, Flavor, Kind, Lib, Proc, Transport};
use tlssniff::filter::{Filter, glob_match};

fuzz_target!(|words: &str| {
    let filter = match Filter::parse_with(words, &|name| u32::try_from(name.len()).ok()) {
        Ok(filter) => filter,
        Err(error) => {
            assert!((1..=words.chars().count() + 1).contains(&error.column));
            let _ = error.marked(words);
            return;
        }
    };
    let conn = Conn {
        id: 1,
        proc: Rc::new(Proc { pid: 42, comm: "curl".into(), exe: None, uid: Some(0), ..Proc::default() }),
        lib: Rc::new(Lib { flavor: Flavor::OpenSsl, path: String::new(), version: None }),
        transport: Transport::Tcp {
            local: ([127, 0, 0, 1], 443).into(),
            remote: ([0, 0, 0, 0, 0, 0, 0, 1], 50000).into(),
        },
        addr_source: None,
        role: None,
        version: None,
        sni: None,
        alpn: None,
    };
    let data = Data { dir: Dir::Out, off: 0, len: 1, call_len: 1, call_off: 0, goid: 0, bytes: b"x" };
    for kind in [Kind::Open, Kind::Data(data)] {
        filter.matches(&Event { ts: 0, conn: &conn, tid: 0, func: "", kind });
    }
    let _ = glob_match(words, "curl");
    let _ = glob_match("c*[a-z]?l", words);
});
