//! From bytes to messages: what people call a request and its response.
//!
//! Pure: events in, events and messages out, nothing else is touched. A connection whose protocol
//! is not known passes through as it is.

mod amqp;
pub mod body;
pub mod conn;
pub mod detect;
mod dns;
mod doh;
mod ftp;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod huffman;
mod imap;
mod kafka;
mod ldap;
mod lines;
pub mod message;
mod mongo;
mod mqtt;
mod mysql;
mod phrase;
mod pop3;
mod postgres;
pub mod protobuf;
mod reader;
mod redis;
mod smtp;
pub mod sse;
pub mod websocket;

pub use body::Context;
pub use conn::Conversations;
pub use message::{Asked, Body, Http, Message, Part, Protocol, Subject};

use crate::event::{Conn, Dir, Event, Nanos};

/// What goes on to the filter and the sinks.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// Bytes of no known protocol, a gap, or something about the connection itself.
    Event(&'a Event<'a>),
    Message(&'a Conn, &'a Message),
}

/// How much of messages is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body; 0 when nobody looks at bodies.
    pub body: usize,
    /// Bytes of all bodies that are incomplete, together.
    pub bodies: usize,
}

impl Limits {
    /// Nobody wants to see a body.
    pub const NO_BODIES: Limits = Limits { body: 0, bodies: 0 };

    /// A body is worth showing up to here; it is cut visibly.
    pub const SHOWN: Limits = Limits {
        body: 1 << 20,
        bodies: 64 << 20,
    };
}

/// A connection in a protocol that is known: decodes both halves of it.
pub trait Dialog: std::fmt::Debug {
    /// Takes the next bytes of a half. Returns how many of them were this protocol; what follows
    /// them is shown as bytes. `is_start`: a read or write begins with them. Bytes that were taken
    /// before and are none of it after all are given back ([`Context::give_back`]).
    fn data(
        &mut self,
        dir: Dir,
        at: At,
        bytes: &[u8],
        is_start: bool,
        context: &mut Context<'_>,
    ) -> usize;

    /// `len` bytes of a half were not seen.
    fn gap(&mut self, dir: Dir, at: At, len: u64, context: &mut Context<'_>);

    /// The half, or with `None` the connection, has ended.
    fn end(&mut self, dir: Option<Dir>, at: At, context: &mut Context<'_>);

    /// Whether nothing is incomplete and what comes next depends on nothing that was before: then
    /// it can be understood without that.
    fn is_between(&self) -> bool {
        false
    }

    /// Whether the connection has become something else, which is looked at anew.
    fn is_over(&self) -> bool {
        false
    }
}

/// When and by whom bytes were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    pub ts: Nanos,
    pub tid: u32,
    pub goid: u64,
}

/// Index of a half: the same as BPF's `enum ts_dir`.
fn half(dir: Dir) -> usize {
    match dir {
        Dir::Out => 0,
        Dir::In => 1,
    }
}

fn other(dir: Dir) -> Dir {
    match dir {
        Dir::Out => Dir::In,
        Dir::In => Dir::Out,
    }
}

#[cfg(test)]
pub mod testing;
