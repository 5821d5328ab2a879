//! Evaluates an expression on an event.

use super::ast::{Expr, Side, Test};
use super::glob_match;
use crate::event::{Conn, Dir, Event, Kind};
use crate::proto::Message;
use std::net::SocketAddr;

/// Whether the event passes; see [`super::Filter::matches`].
pub fn matches(expr: &Expr, event: &Event<'_>) -> bool {
    match event.kind {
        Kind::Data(data) => holds(expr, event.conn, data.dir),
        Kind::Gap { dir, .. } => holds(expr, event.conn, dir),
        // The close_notify goes out.
        Kind::Shutdown => holds(expr, event.conn, Dir::Out),
        Kind::Open | Kind::Close => {
            holds(expr, event.conn, Dir::Out) || holds(expr, event.conn, Dir::In)
        }
    }
}

/// Likewise of a message.
pub fn matches_message(expr: &Expr, conn: &Conn, message: &Message) -> bool {
    holds(expr, conn, message.dir)
}

fn holds(expr: &Expr, conn: &Conn, dir: Dir) -> bool {
    match expr {
        Expr::All(terms) => terms.iter().all(|term| holds(term, conn, dir)),
        Expr::Any(terms) => terms.iter().any(|term| holds(term, conn, dir)),
        Expr::Not(term) => !holds(term, conn, dir),
        Expr::Test(test) => passes(test, conn, dir),
    }
}

fn passes(test: &Test, conn: &Conn, dir: Dir) -> bool {
    match test {
        Test::Net(side, net) => end(conn, dir, *side, |addr| net.contains(addr.ip())),
        Test::Port(side, ports) => end(conn, dir, *side, |addr| ports.contains(addr.port().into())),
        Test::Pid(pids) => pids.contains(conn.proc.pid),
        Test::Uid(uids) => conn.proc.uid.is_some_and(|uid| uids.contains(uid)),
        Test::Comm(pattern) => glob_match(pattern, &conn.proc.comm),
        Test::Dir(wanted) => *wanted == dir,
    }
}

/// Whether the end that is meant has an address that passes.
fn end(conn: &Conn, dir: Dir, side: Side, passes: impl Fn(SocketAddr) -> bool) -> bool {
    let Some((local, remote)) = conn.transport.addrs() else {
        return false;
    };
    match (side, dir) {
        (Side::Either, _) => passes(local) || passes(remote),
        (Side::Src, Dir::Out) | (Side::Dst, Dir::In) => passes(local),
        (Side::Src, Dir::In) | (Side::Dst, Dir::Out) => passes(remote),
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Conn, Data, Dir, Event, Flavor, GapCause, Kind, Lib, Proc, Transport};
    use crate::filter::Filter;
    use std::rc::Rc;

    fn conn(local: &str, remote: &str) -> Conn {
        Conn {
            id: 1,
            proc: Rc::new(Proc {
                pid: 42,
                comm: "my prog".into(),
                exe: None,
                uid: Some(33),
                ..Proc::default()
            }),
            lib: Rc::new(Lib {
                flavor: Flavor::OpenSsl,
                path: String::new(),
                version: None,
            }),
            transport: Transport::Tcp {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
            },
            addr_source: None,
            role: None,
            version: None,
            sni: None,
            alpn: None,
        }
    }

    fn data(dir: Dir) -> Kind<'static> {
        Kind::Data(Data {
            dir,
            off: 0,
            len: 1,
            call_len: 1,
            call_off: 0,
            goid: 0,
            bytes: b"x",
        })
    }

    fn passes(words: &str, conn: &Conn, kind: Kind<'_>) -> bool {
        let filter = Filter::parse_with(words, &|_| None).unwrap();
        filter.matches(&Event {
            ts: 0,
            conn,
            tid: 0,
            func: "",
            kind,
        })
    }

    /// Answers for written data, read data and the opening, as `101`.
    fn answers(words: &str, conn: &Conn) -> String {
        [data(Dir::Out), data(Dir::In), Kind::Open]
            .map(|kind| if passes(words, conn, kind) { '1' } else { '0' })
            .iter()
            .collect()
    }

    #[test]
    fn src_and_dst_are_sender_and_receiver() {
        let conn = conn("10.0.0.2:43210", "93.184.216.34:443");
        for (words, want) in [
            ("port 443", "111"),
            ("dst port 443", "101"),
            ("src port 443", "011"),
            ("src host 10.0.0.2", "101"),
            ("dst host 10.0.0.2", "011"),
            ("src net 93.0.0.0/8", "011"),
            ("host 10.0.0.3", "000"),
            ("port 1-442", "000"),
            ("port 1,443", "111"),
            ("net 10.0.0.0/30", "111"),
            ("src host 10.0.0.2 and dst port 443", "101"),
            ("src port 43210 or src port 443", "111"),
        ] {
            assert_eq!(answers(words, &conn), want, "{words}");
        }
    }

    #[test]
    fn direction_is_the_programs() {
        let conn = conn("10.0.0.2:1", "10.0.0.3:2");
        assert_eq!(answers("in", &conn), "011");
        assert_eq!(answers("out", &conn), "101");
        assert_eq!(answers("not in", &conn), "101");
        assert_eq!(answers("in and out", &conn), "000", "never both at once");
        assert!(passes("out", &conn, Kind::Shutdown));
        assert!(!passes("in", &conn, Kind::Shutdown));
        assert!(passes("in", &conn, Kind::Close));
        let gap = Kind::Gap {
            dir: Dir::In,
            off: 0,
            len: 1,
            cause: GapCause::Dropped,
        };
        assert!(passes("in", &conn, gap));
        assert!(!passes("out", &conn, gap));
    }

    #[test]
    fn process_words_look_at_the_process() {
        let conn = conn("10.0.0.2:1", "10.0.0.3:2");
        for (words, want) in [
            ("pid 42", "111"),
            ("pid 1,40-50", "111"),
            ("pid 43", "000"),
            ("uid 33", "111"),
            ("uid 0", "000"),
            ("comm \"my prog\"", "111"),
            ("comm my*", "111"),
            ("comm my", "000"),
            ("not comm my*", "000"),
            ("", "111"),
        ] {
            assert_eq!(answers(words, &conn), want, "{words}");
        }
    }

    #[test]
    fn ipv6_and_mapped_addresses_are_found() {
        let six = conn("[2001:db8::1]:5", "[::ffff:10.1.2.3]:443");
        assert_eq!(answers("host 2001:db8::1", &six), "111");
        assert_eq!(answers("net 2001:db8::/32", &six), "111");
        assert_eq!(answers("host 10.1.2.3", &six), "111");
        assert_eq!(answers("dst net 10.0.0.0/8", &six), "101");
    }

    #[test]
    fn a_test_on_something_unknown_fails() {
        let mut conn = conn("10.0.0.2:1", "10.0.0.3:2");
        conn.transport = Transport::Unix { path: None };
        conn.proc = Rc::new(Proc {
            uid: None,
            ..(*conn.proc).clone()
        });
        assert_eq!(
            answers("net 0.0.0.0/0 or net ::/0 or port 0-65535", &conn),
            "000"
        );
        assert_eq!(answers("uid 0-4294967295", &conn), "000");
        assert_eq!(answers("not port 443", &conn), "111");
    }
}
