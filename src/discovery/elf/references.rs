//! Where code refers to an address: to a constant, or to another function.
//!
//! The code is read once from beginning to end and nothing of it is kept. Instructions are not
//! decoded but recognised by their bytes, so what is found may also be in the middle of another
//! instruction; who asks decodes what is around it.

use super::search::{Loads, SEARCH_STEP};
use super::{Elf, Machine, u32_at};
use memchr::memmem::Finder;
use std::collections::BTreeSet;
use std::ops::Range;

/// More than any instruction has, before and behind the bytes that are looked at.
pub(super) const MARGIN: usize = 16;
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
        let mut take = |at, to| {
            let is_wanted = wanted.iter().any(|range| range.contains(&to));
            if is_wanted && found.len() < MAX_REFERENCES {
                found.push(at);
            }
        };
        if self.machine() == Machine::Aarch64 {
            let mut pages = [None; 32];
            self.each_code(|vaddr, bytes, own| {
                arm64_references(vaddr, bytes, own, &mut pages, &mut take);
            });
        } else {
            let uppers = upper_bytes(wanted);
            let uppers: Vec<Finder<'_>> = uppers.iter().map(Finder::new).collect();
            self.each_code(|vaddr, bytes, own| {
                x86_64_relative(vaddr, bytes, own.clone(), &mut take);
                for upper in &uppers {
                    x86_64_absolute(vaddr, bytes, own.clone(), upper, &mut take);
                }
            });
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Calls `each` with every direct call and jump, and some that are none: see above. Without the
    /// conditional and the short jumps of x86-64, with which compilers do not end a function.
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
            for opcode in memchr::memchr2_iter(0xff, 0x8b, bytes) {
                let at = opcode + 2;
                let modrm = bytes.get(opcode + 1);
                // call, jmp; mov to a register.
                let is_use = match (bytes.get(opcode), modrm) {
                    (Some(0xff), Some(0x15 | 0x25)) => true,
                    (Some(0x8b), Some(modrm)) => modrm & 0xc7 == 0x05,
                    _ => false,
                };
                if !is_use || !own.contains(&at) {
                    continue;
                }
                if let Some(word) = u32_at(bytes, at) {
                    let place = vaddr.wrapping_add(at as u64);
                    let next = place.wrapping_add(4);
                    let slot = next.wrapping_add_signed(i64::from(word.cast_signed()));
                    each(place, slot);
                }
            }
        });
    }

    /// Calls `each` with pieces of code: the address of the piece, its bytes, and the part of them
    /// that is its own; what is around that belongs to its neighbours.
    pub(super) fn each_code(&self, mut each: impl FnMut(u64, &[u8], Range<usize>)) {
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

/// The upper three bytes of the four that the addresses have, where they are so low: in programs
/// that are loaded where their file says.
fn upper_bytes(wanted: &[Range<u64>]) -> BTreeSet<[u8; 3]> {
    wanted
        .iter()
        .filter(|range| range.end <= u64::from(u32::MAX) && range.end - range.start < 4096)
        .flat_map(|range| range.start >> 8..=range.end >> 8)
        .filter_map(|upper| upper.to_le_bytes().first_chunk().copied())
        .collect()
}

/// `lea disp(%rip), %reg`. Calls `take` with the place of the displacement, and the address.
fn x86_64_relative(vaddr: u64, bytes: &[u8], own: Range<usize>, take: &mut impl FnMut(u64, u64)) {
    for opcode in memchr::memchr_iter(0x8d, bytes) {
        let at = opcode + 2;
        let rex = opcode.checked_sub(1).and_then(|at| bytes.get(at));
        let modrm = bytes.get(opcode + 1).map(|modrm| modrm & 0xc7);
        if !own.contains(&at) || modrm != Some(0x05) || !matches!(rex, Some(0x48..=0x4f)) {
            continue;
        }
        if let Some(word) = u32_at(bytes, at) {
            let place = vaddr.wrapping_add(at as u64);
            let next = place.wrapping_add(4);
            take(
                place,
                next.wrapping_add_signed(i64::from(word.cast_signed())),
            );
        }
    }
}

/// `mov $address, %reg` of addresses that differ in the last byte only, of which `upper` are the
/// other three. Calls `take` with the place of the address, and the address.
fn x86_64_absolute(
    vaddr: u64,
    bytes: &[u8],
    own: Range<usize>,
    upper: &Finder<'_>,
    take: &mut impl FnMut(u64, u64),
) {
    for found in upper.find_iter(bytes) {
        let Some(at) = found.checked_sub(1).filter(|at| own.contains(at)) else {
            continue;
        };
        let opcode = at.checked_sub(1).and_then(|at| bytes.get(at));
        if let (Some(0xb8..=0xbf), Some(word)) = (opcode, u32_at(bytes, at)) {
            take(vaddr.wrapping_add(at as u64), u64::from(word));
        }
    }
}

/// `call` and `jmp` with a displacement of four bytes.
fn x86_64_transfers(vaddr: u64, bytes: &[u8], own: Range<usize>, each: &mut impl FnMut(Transfer)) {
    for opcode in memchr::memchr2_iter(0xe8, 0xe9, bytes) {
        if !own.contains(&opcode) {
            continue;
        }
        let (Some(word), Some(kind)) = (u32_at(bytes, opcode + 1), bytes.get(opcode)) else {
            continue;
        };
        let from = vaddr.wrapping_add(opcode as u64);
        let next = from.wrapping_add(5);
        each(Transfer {
            from,
            to: next.wrapping_add_signed(i64::from(word.cast_signed())),
            is_call: *kind == 0xe8,
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
    pages: &mut [Option<u64>; 32],
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
                *page = Some((place & !0xfff).wrapping_add_signed(distance << 12));
            }
        } else if insn & 0xffc0_0000 == 0x9100_0000
            && let Some(Some(page)) = pages.get(from)
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
