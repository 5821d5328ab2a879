//! Consumers of events: one file per output format.

pub mod calls;
pub mod color;
pub mod content;
pub mod endpoint;
pub mod escape;
pub mod har;
pub mod hexdump;
pub mod json;
pub mod output;
pub mod packet;
pub mod pcapng;
pub mod rotate;
pub mod serve;
pub mod stats;
pub mod text;
pub mod tlsframe;

use crate::event::{Conn, Event, Totals};
use crate::proto::Message;
use anyhow::Result;

/// Takes events in order. An error ends the run, except a broken pipe, which ends it quietly.
pub trait Sink {
    fn event(&mut self, event: &Event<'_>) -> Result<()>;

    /// A message instead of the reads and writes that it was made of. Only sinks that print get any.
    fn message(&mut self, _conn: &Conn, _message: &Message) -> Result<()> {
        Ok(())
    }

    /// Sees to what else waits; called every 100 ms at least, and more often while events come.
    fn attend(&mut self) -> Result<()> {
        Ok(())
    }

    /// Hands everything on to the operating system; called when no event is waiting.
    fn flush(&mut self) -> Result<()>;

    /// The capture has ended: write what belongs at the end, then flush.
    fn finish(&mut self, totals: &Totals) -> Result<()>;
}
