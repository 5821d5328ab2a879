//! Encodes the blocks of pcapng (draft-ietf-opsawg-pcapng) and the records of classic pcap.
//!
//! Little-endian, nanoseconds, Ethernet. Each function appends one whole block.

use crate::event::{Dir, Nanos};

pub const SECTION: u32 = 0x0a0d_0d0a;
pub const INTERFACE: u32 = 1;
pub const STATISTICS: u32 = 5;
pub const PACKET: u32 = 6;
/// Tells the byte order of a section.
pub const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Begins a classic file with nanoseconds.
pub const CLASSIC: u32 = 0xa1b2_3c4d;
pub const ETHERNET: u16 = 1;
/// Snapshot length: the longest packet is 65535 bytes of IP, or 65575 of IPv6, and its Ethernet.
pub const SNAPLEN: u32 = 262_144;

/// Option codes; those from 2 on mean something else in each block.
pub const COMMENT: u16 = 1;
pub const SHB_HARDWARE: u16 = 2;
pub const SHB_OS: u16 = 3;
pub const SHB_APPLICATION: u16 = 4;
pub const IF_NAME: u16 = 2;
pub const IF_DESCRIPTION: u16 = 3;
pub const IF_TSRESOL: u16 = 9;
pub const IF_FILTER: u16 = 11;
pub const IF_OS: u16 = 12;
const EPB_FLAGS: u16 = 2;
const ISB_RECEIVED: u16 = 4;
const ISB_ACCEPTED: u16 = 6;
const ISB_OS_DROP: u16 = 7;

/// Begins a block; [`end`] completes it.
fn begin(out: &mut Vec<u8>, kind: u32) -> usize {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    start
}

fn end(out: &mut Vec<u8>, start: usize) {
    let len = ((out.len() - start + 4) as u32).to_le_bytes();
    out.extend_from_slice(&len);
    put(out, start + 4, len);
}

fn put(out: &mut [u8], at: usize, bytes: [u8; 4]) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&bytes);
    }
}

fn pad(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice([0; 3].get(..len.wrapping_neg() % 4).unwrap_or_default());
}

/// Appends an option; its value is cut at what the length field can hold.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

fn options(out: &mut Vec<u8>, options: &[(u16, &str)]) {
    for (code, value) in options {
        option(out, *code, value.as_bytes());
    }
}

/// Section header block.
pub fn section(out: &mut Vec<u8>, texts: &[(u16, &str)]) {
    let start = begin(out, SECTION);
    out.extend_from_slice(&BYTE_ORDER.to_le_bytes());
    out.extend_from_slice(&[1, 0, 0, 0]);
    out.extend_from_slice(&u64::MAX.to_le_bytes());
    options(out, texts);
    out.extend_from_slice(&[0; 4]);
    end(out, start);
}

/// Interface description block.
pub fn interface(out: &mut Vec<u8>, texts: &[(u16, &str)], filter: Option<&str>) {
    let start = begin(out, INTERFACE);
    out.extend_from_slice(&ETHERNET.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&SNAPLEN.to_le_bytes());
    options(out, texts);
    option(out, IF_TSRESOL, &[9]);
    if let Some(filter) = filter {
        // The first byte says what language it is in; 0 is "a string for people".
        let mut value = vec![0];
        value.extend_from_slice(filter.as_bytes());
        option(out, IF_FILTER, &value);
    }
    out.extend_from_slice(&[0; 4]);
    end(out, start);
}

/// Interface statistics block.
pub fn statistics(
    out: &mut Vec<u8>,
    interface: u32,
    now: Nanos,
    [received, accepted, dropped]: [u64; 3],
    comment: &str,
) {
    let start = begin(out, STATISTICS);
    out.extend_from_slice(&interface.to_le_bytes());
    time(out, now);
    option(out, COMMENT, comment.as_bytes());
    option(out, ISB_RECEIVED, &received.to_le_bytes());
    option(out, ISB_ACCEPTED, &accepted.to_le_bytes());
    option(out, ISB_OS_DROP, &dropped.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    end(out, start);
}

/// pcapng has the high half of a time first.
fn time(out: &mut Vec<u8>, now: Nanos) {
    out.extend_from_slice(&((now >> 32) as u32).to_le_bytes());
    out.extend_from_slice(&(now as u32).to_le_bytes());
}

/// Enhanced packet block. `frame` appends the packet and returns the length that it has without
/// truncation.
pub fn packet(
    out: &mut Vec<u8>,
    interface: u32,
    now: Nanos,
    dir: Option<Dir>,
    comment: &str,
    frame: impl FnOnce(&mut Vec<u8>) -> usize,
) {
    let start = begin(out, PACKET);
    out.extend_from_slice(&interface.to_le_bytes());
    time(out, now);
    out.extend_from_slice(&[0; 8]);
    let at = out.len();
    let original = frame(out);
    let captured = out.len() - at;
    put(out, at - 8, (captured as u32).to_le_bytes());
    put(out, at - 4, (original as u32).to_le_bytes());
    pad(out, captured);
    if !comment.is_empty() {
        option(out, COMMENT, comment.as_bytes());
    }
    if let Some(dir) = dir {
        let flags: u32 = match dir {
            Dir::In => 1,
            Dir::Out => 2,
        };
        option(out, EPB_FLAGS, &flags.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    end(out, start);
}

/// The header of a classic file.
pub fn classic_header(out: &mut Vec<u8>) {
    out.extend_from_slice(&CLASSIC.to_le_bytes());
    out.extend_from_slice(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&SNAPLEN.to_le_bytes());
    out.extend_from_slice(&u32::from(ETHERNET).to_le_bytes());
}

/// The record of a classic file; `frame` as for [`packet`].
pub fn classic_packet(out: &mut Vec<u8>, now: Nanos, frame: impl FnOnce(&mut Vec<u8>) -> usize) {
    let (seconds, nanos) = (now / 1_000_000_000, now % 1_000_000_000);
    out.extend_from_slice(&(seconds as u32).to_le_bytes());
    out.extend_from_slice(&(nanos as u32).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    let at = out.len();
    let original = frame(out);
    let captured = out.len() - at;
    put(out, at - 8, (captured as u32).to_le_bytes());
    put(out, at - 4, (original as u32).to_le_bytes());
}
