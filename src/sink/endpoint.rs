//! Names the two ends of a connection, and which of them an event comes from.

use super::escape;
use crate::event::{Conn, Dir, Event, Kind, Role, Transport};
use std::io::Write;

/// Appends `SENDER > RECEIVER`; `dir` is the direction as the captured program sees it. Returns
/// whether the order can be seen, that is, whether the two names differ.
pub fn write_ends(out: &mut Vec<u8>, conn: &Conn, dir: Dir) -> bool {
    let start = out.len();
    write_end(out, conn, dir == Dir::Out);
    let middle = out.len();
    out.extend_from_slice(b" > ");
    let second = out.len();
    write_end(out, conn, dir == Dir::In);
    out.get(start..middle) != out.get(second..)
}

/// The end that the program is at, or the other one.
fn write_end(out: &mut Vec<u8>, conn: &Conn, is_local: bool) {
    // Writing to a Vec cannot fail.
    match &conn.transport {
        Transport::Unknown => out.push(b'?'),
        Transport::Tcp { .. } | Transport::Udp { .. } => {
            if let Some((local, remote)) = conn.transport.addrs() {
                let _ = write!(out, "{}", if is_local { local } else { remote });
            }
        }
        Transport::Unix { path } => {
            out.extend_from_slice(b"unix");
            // A server is bound to its path and a client is not, except by intent.
            let is_bound = is_local == (conn.role == Some(Role::Server));
            if let Some(path) = path.as_deref().filter(|_| is_bound) {
                out.push(b':');
                escape::token(out, path.as_bytes());
            }
        }
        Transport::Pipe => out.extend_from_slice(b"pipe"),
        Transport::Tls { conn } => {
            let _ = write!(out, "tls#{conn}");
        }
        Transport::Other(name) => escape::token(out, name.as_bytes()),
    }
}

/// The direction whose sender stands first in the event's line: for data who sent it, for a
/// shutdown the program, for the rest the client, which opened the connection.
pub fn direction(event: &Event<'_>) -> Dir {
    match event.kind {
        Kind::Data(data) => data.dir,
        Kind::Gap { dir, .. } => dir,
        Kind::Shutdown => Dir::Out,
        Kind::Open | Kind::Close => match event.conn.role {
            Some(Role::Server) => Dir::In,
            Some(Role::Client) | None => Dir::Out,
        },
    }
}
