//! Where code refers to an address: to a constant, or to another function.
//!
//! The code is read once from beginning to end and nothing of it is kept. Instructions are not
//! decoded but recognised by their bytes, so what is found may also be in the middle of another
//! instruction; who asks decodes what is around it.

use super::search::{Loads, SEARCH_STEP};
use super::{Elf, Machine, u32_at};
use std::ops::Range;

/// More than any instruction has, before and behind the bytes that are looked at.
const MARGIN: usize = 16;
/// Most code looked at: a browser has 240 MB.
const MAX_CODE: u64 = 512 << 20;
/// Most references given.
const MAX_REFERENCES: usize = 4096;

/// A direct call or jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub from: u64,
    pub to: u64,
    /// Rather than a jump, which may be one within a function.
    pub is_call: bool,
}

impl Elf<'_> {
    /// The addresses of instructions, or within them, that take an address within one of `wanted`,
    /// in ascending order.
    pub fn references(&self, wanted: &[Range<u64>]) -> Vec<u64> {
        let mut found = Vec::new();
        let (Some(low), Some(high)) = (
            wanted.iter().map(|range| range.start).min(),
            wanted.iter().map(|range| range.end).max(),
        ) else {
            return found;
        };
        let is_wanted = |to: u64| wanted.iter().any(|range| range.contains(&to));
        let mut take = |at| {
            if found.len() < MAX_REFERENCES {
                found.push(at);
            }
        };
        match self.machine() {
            Machine::Aarch64 => {
                let mut pages = [0; 32];
                self.each_code(|vaddr, bytes, own| {
                    arm64_references(vaddr, bytes, own, &mut pages, &mut |at, to| {
                        if is_wanted(to) {
                            take(at);
                        }
                    });
                });
            }
            _ => self.each_code(|vaddr, bytes, own| {
                x86_64_references(vaddr, bytes, own, &(low..high), &mut |at, to| {
                    if is_wanted(to) {
                        take(at);
                    }
                });
            }),
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Calls `each` with every direct call and jump, and some that are none: see above. Conditional
    /// jumps of x86-64 count when they are long enough to leave a function.
    pub fn transfers(&self, mut each: impl FnMut(Transfer)) {
        let machine = self.machine();
        self.each_code(|vaddr, bytes, own| match machine {
            Machine::Aarch64 => arm64_transfers(vaddr, bytes, own, &mut each),
            _ => x86_64_transfers(vaddr, bytes, own, &mut each),
        });
    }

    /// Calls `each` with the places of instructions, or within them, that call or load what is at an
    /// address relative to them, and that address. Of x86-64 only; elsewhere compilers do not write
    /// such calls of functions in the same file.
    pub fn slot_uses(&self, mut each: impl FnMut(u64, u64)) {
        if self.machine() != Machine::X86_64 {
            return;
        }
        self.each_code(|vaddr, bytes, own| {
            for (at, word) in words(bytes, own) {
                let before = at.checked_sub(2).and_then(|from| bytes.get(from..at));
                // call, jmp; mov to a register, with its modrm byte.
                let (Some([0xff, 0x15 | 0x25]) | Some([0x8b, _])) = before else {
                    continue;
                };
                if let Some([0x8b, modrm]) = before
                    && modrm & 0xc7 != 0x05
                {
                    continue;
                }
                let place = vaddr.wrapping_add(at as u64);
                let next = place.wrapping_add(4);
                each(
                    place,
                    next.wrapping_add_signed(i64::from(word.cast_signed())),
                );
            }
        });
    }

    /// Calls `each` with pieces of code: the address of the piece, its bytes, and the part of them
    /// that is its own; what is around that belongs to its neighbours.
    fn each_code(&self, mut each: impl FnMut(u64, &[u8], Range<usize>)) {
        let mut budget = MAX_CODE;
        let mut buf = vec![0; SEARCH_STEP + 2 * MARGIN];
        for segment in self.loads().filter(|segment| Loads::Code.has(segment)) {
            let len = segment.p_filesz.min(budget);
            budget -= len;
            for step in (0..len).step_by(SEARCH_STEP) {
                let before = step.min(MARGIN as u64);
                let (Some(offset), Some(vaddr)) = (
                    segment.p_offset.checked_add(step - before),
                    segment.p_vaddr.checked_add(step - before),
                ) else {
                    return;
                };
                let left = usize::try_from(len - step).unwrap_or(usize::MAX);
                let start = usize::try_from(before).unwrap_or(MARGIN);
                let size = start.saturating_add(left.min(SEARCH_STEP + MARGIN));
                let Some(buf) = buf.get_mut(..size) else {
                    return;
                };
                let read = self.content.copy(offset, buf);
                let end = read.min(start + SEARCH_STEP);
                if let Some(bytes) = buf.get(..read).filter(|_| start < end) {
                    each(vaddr, bytes, start..end);
                }
                if read < size {
                    return;
                }
            }
        }
    }
}

/// The words of four bytes at each place of `own`, with the place.
fn words(bytes: &[u8], own: Range<usize>) -> impl Iterator<Item = (usize, u32)> {
    let start = own.start;
    let windows = bytes.get(start..).unwrap_or_default().windows(4);
    let words = windows.take(own.len()).map(|window| {
        let word = window
            .first_chunk()
            .map_or(0, |word| u32::from_le_bytes(*word));
        word
    });
    words.enumerate().map(move |(n, word)| (start + n, word))
}

/// `lea disp(%rip), %reg` and `mov $address, %reg`. Calls `take` with the place of the displacement
/// or the address, and the address.
fn x86_64_references(
    vaddr: u64,
    bytes: &[u8],
    own: Range<usize>,
    near: &Range<u64>,
    take: &mut impl FnMut(u64, u64),
) {
    let span = near.end - near.start;
    for (at, word) in words(bytes, own) {
        let place = vaddr.wrapping_add(at as u64);
        let relative = place
            .wrapping_add(4)
            .wrapping_add_signed(i64::from(word.cast_signed()));
        let absolute = u64::from(word);
        if relative.wrapping_sub(near.start) < span {
            let before = at.checked_sub(3).and_then(|from| bytes.get(from..at));
            if let Some([0x48..=0x4f, 0x8d, modrm]) = before
                && modrm & 0xc7 == 0x05
            {
                take(place, relative);
            }
        } else if absolute.wrapping_sub(near.start) < span {
            let before = at.checked_sub(1).and_then(|from| bytes.get(from));
            if matches!(before, Some(0xb8..=0xbf)) {
                take(place, absolute);
            }
        }
    }
}

/// `call`, `jmp` and `jcc` with a displacement of four bytes.
fn x86_64_transfers(vaddr: u64, bytes: &[u8], own: Range<usize>, each: &mut impl FnMut(Transfer)) {
    for (at, word) in words(bytes, own) {
        let before = at.checked_sub(2).and_then(|from| bytes.get(from..at));
        let (len, is_call) = match before {
            Some([_, 0xe8]) => (1, true),
            Some([_, 0xe9]) => (1, false),
            Some([0x0f, 0x80..=0x8f]) => (2, false),
            _ => continue,
        };
        let place = vaddr.wrapping_add(at as u64);
        each(Transfer {
            from: place.wrapping_sub(len),
            to: place
                .wrapping_add(4)
                .wrapping_add_signed(i64::from(word.cast_signed())),
            is_call,
        });
    }
}

/// The instructions of `own`, with their places.
fn instructions(bytes: &[u8], own: Range<usize>) -> impl Iterator<Item = (usize, u32)> {
    let last = own.end;
    (own.start..last)
        .step_by(4)
        .filter_map(|at| Some((at, u32_at(bytes, at)?)))
}

/// `adrp reg, page` with a later `add reg, reg, #offset`, and `adr`.
fn arm64_references(
    vaddr: u64,
    bytes: &[u8],
    own: Range<usize>,
    pages: &mut [u64; 32],
    take: &mut impl FnMut(u64, u64),
) {
    for (at, insn) in instructions(bytes, own) {
        let place = vaddr.wrapping_add(at as u64);
        let (to, from) = ((insn & 31) as usize, (insn >> 5 & 31) as usize);
        if insn & 0x1f00_0000 == 0x1000_0000 {
            // 21 bits with a sign: immhi, bits 23 to 5, and immlo, bits 30 and 29.
            let distance = u64::from((insn >> 3 & 0x1f_fffc) | (insn >> 29 & 3));
            let distance = (distance << 43).cast_signed() >> 43;
            if insn >> 31 == 0 {
                take(place, place.wrapping_add_signed(distance));
            } else if let Some(page) = pages.get_mut(to) {
                *page = (place & !0xfff).wrapping_add_signed(distance << 12);
            }
        } else if insn & 0xffc0_0000 == 0x9100_0000
            && let Some(page) = pages.get(from).filter(|page| **page != 0)
        {
            take(place, page.wrapping_add(u64::from(insn >> 10 & 0xfff)));
        }
    }
}

/// `bl` and `b`.
fn arm64_transfers(vaddr: u64, bytes: &[u8], own: Range<usize>, each: &mut impl FnMut(Transfer)) {
    for (at, insn) in instructions(bytes, own) {
        if insn & 0x7c00_0000 != 0x1400_0000 {
            continue;
        }
        let from = vaddr.wrapping_add(at as u64);
        let distance = (u64::from(insn & 0x03ff_ffff) << 38).cast_signed() >> 36;
        each(Transfer {
            from,
            to: from.wrapping_add_signed(distance),
            is_call: insn >> 31 == 1,
        });
    }
}
