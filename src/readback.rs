//! Reads tlssniff's own capture files back into events (`-r`).
//!
//! pcapng gives back every event as it was. Classic pcap has no comments: thread, function and the
//! bounds of calls longer than a packet are lost, and what stood in the interfaces.

mod classic;
mod pcapng;

use crate::event::{Event, GapCause, Kind, Totals};
use crate::sink::pcapng::block;
use anyhow::{Context, Result, bail};
use std::io::{self, BufRead, BufReader, Read};

/// Longest block or record that is believed; the longest one written is below 200 KiB.
const LONGEST: usize = 1 << 20;

/// Connections remembered while reading; if there are more, forgotten ones are read anew.
const CONNS: usize = 1 << 16;

/// Reads a capture file front to back, never more than a block of it at once, and calls `emit` for
/// each event in order.
///
/// Returns the counts that the capture ended with or, if it has none (it was not ended
/// properly, or is classic), those of what was read.
///
/// # Errors
/// If the file is not tlssniff's, damaged, or cut off in the middle of a packet (what comes before
/// has then been emitted), and what `emit` returns.
pub fn read(input: impl Read, emit: &mut dyn FnMut(&Event<'_>) -> Result<()>) -> Result<Totals> {
    let mut source = Source {
        input: BufReader::with_capacity(64 * 1024, input),
        at: 0,
    };
    let mut counter = Counter {
        emit,
        totals: Totals::default(),
    };
    let Some(magic) = source.array::<4>()? else {
        bail!("not written by tlssniff: the file is empty");
    };
    let stated = match u32::from_le_bytes(magic) {
        block::SECTION => pcapng::read(&mut source, &mut counter)?,
        number => match classic::Header::new(number) {
            Some(header) => {
                classic::read(&mut source, header, &mut counter)?;
                None
            }
            None => bail!("not written by tlssniff: neither pcapng nor pcap"),
        },
    };
    Ok(stated.unwrap_or(counter.totals))
}

/// The file, with its position for messages.
struct Source<R> {
    input: BufReader<R>,
    at: u64,
}

impl<R: Read> Source<R> {
    /// Fills `buf`; false at the end of the file.
    fn fill(&mut self, buf: &mut [u8]) -> Result<bool> {
        let is_end = loop {
            match self.input.fill_buf() {
                Ok(bytes) => break bytes.is_empty(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read the capture file"),
            }
        };
        if is_end && !buf.is_empty() {
            return Ok(false);
        }
        match self.input.read_exact(buf) {
            Ok(()) => {
                self.at += buf.len() as u64;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut_off()),
            Err(error) => Err(error).context("read the capture file"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok(self.fill(&mut bytes)?.then_some(bytes))
    }

    /// Like [`Source::fill`] inside a block or record, where the file must not end.
    fn must_fill(&mut self, buf: &mut [u8]) -> Result<()> {
        match self.fill(buf)? {
            true => Ok(()),
            false => Err(self.cut_off()),
        }
    }

    fn must_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.must_fill(&mut bytes)?;
        Ok(bytes)
    }

    fn cut_off(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "the capture file is cut off in the middle of a packet, behind byte {}; what comes \
             before was read",
            self.at
        )
    }
}

/// Counts events on their way.
struct Counter<'a> {
    emit: &'a mut dyn FnMut(&Event<'_>) -> Result<()>,
    totals: Totals,
}

impl Counter<'_> {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        let totals = &mut self.totals;
        match event.kind {
            Kind::Data(data) => {
                totals.captured += 1;
                totals.shown += 1;
                totals.truncated += u64::from((data.bytes.len() as u64) < data.len);
            }
            Kind::Gap { len, cause, .. } if cause != GapCause::Sendfile => {
                totals.dropped += 1;
                totals.dropped_bytes = totals.dropped_bytes.saturating_add(len);
            }
            _ => {}
        }
        (self.emit)(event)
    }
}

/// The byte order of a file.
#[derive(Clone, Copy)]
struct Order {
    is_swapped: bool,
}

impl Order {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self.is_swapped {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self.is_swapped {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        }
    }

    /// Takes a number off the front.
    fn take(self, bytes: &mut &[u8]) -> Option<u32> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(self.u32(*first))
    }
}

#[cfg(test)]
mod tests;
