//! Where functions begin in a file that says it nowhere: where calls go, where pointers and symbols
//! lead, and behind padding.
//!
//! Bytes that look like a call may be in the middle of another instruction, so that some of these are
//! none; who asks follows the code from there.

use super::references::MARGIN;
use super::{Elf, MAX_NAME, Machine};
use std::ops::Range;

/// Most code looked at, of which each byte may be a beginning and costs a bit.
const MAX_CODE: u64 = 512 << 20;
/// Compilers align functions to 16 bytes, unless they optimise for size.
const ALIGNMENT: u64 = 16;
/// Where they are aligned at all, to 4 at least. All instructions of arm64 are.
const MIN_ALIGNMENT: u64 = 4;
/// `int3`, with which linkers fill up between functions.
const PADDING: u8 = 0xcc;

/// Addresses of code at which functions may begin.
#[derive(Debug)]
pub struct Starts(Vec<Marks>);

impl Starts {
    pub fn contains(&self, vaddr: u64) -> bool {
        self.0.iter().any(|marks| marks.has(vaddr))
    }

    /// Those from `vaddr` down to `most` bytes before it, the nearest first.
    pub fn before(&self, vaddr: u64, most: u64) -> impl Iterator<Item = u64> {
        let all = (vaddr.saturating_sub(most)..=vaddr).rev();
        all.filter(|at| self.contains(*at))
    }
}

/// A set of addresses within a range, of which every `step`th may be one.
#[derive(Debug)]
struct Marks {
    start: u64,
    step: u64,
    bits: Vec<u64>,
}

impl Marks {
    /// For all code of a file.
    fn of(elf: &Elf<'_>, step: u64) -> Vec<Marks> {
        let mut budget = MAX_CODE;
        let mut all = Vec::new();
        for (start, len) in elf.code_ranges() {
            let len = len.min(budget);
            budget -= len;
            let words = usize::try_from(len.div_ceil(64 * step)).unwrap_or_default();
            all.push(Marks {
                start: start - start % step,
                step,
                bits: vec![0; words],
            });
        }
        all
    }

    fn place(&self, vaddr: u64) -> Option<(usize, u64)> {
        let into = vaddr.checked_sub(self.start)?;
        let bit = into / self.step;
        let is_place = into.is_multiple_of(self.step);
        is_place.then_some((usize::try_from(bit / 64).ok()?, 1 << (bit % 64)))
    }

    fn has(&self, vaddr: u64) -> bool {
        let word = |(word, bit)| Some(self.bits.get(word)? & bit != 0);
        self.place(vaddr).and_then(word) == Some(true)
    }

    fn set(&mut self, vaddr: u64) {
        if let Some((word, bit)) = self.place(vaddr)
            && let Some(word) = self.bits.get_mut(word)
        {
            *word |= bit;
        }
    }

    fn clear(&mut self, vaddr: u64) {
        if let Some((word, bit)) = self.place(vaddr)
            && let Some(word) = self.bits.get_mut(word)
        {
            *word &= !bit;
        }
    }

    /// Those of a range, in ascending order.
    fn within(&self, range: Range<u64>) -> Vec<u64> {
        let width = 64 * self.step;
        let word = |vaddr: u64| {
            let into = vaddr.saturating_sub(self.start);
            usize::try_from(into / width).unwrap_or(usize::MAX)
        };
        let mut found = Vec::new();
        let words = self.bits.iter().enumerate().skip(word(range.start));
        for (index, bits) in words.take_while(|(index, _)| *index <= word(range.end)) {
            let mut left = *bits;
            while left != 0 {
                let bit = u64::from(left.trailing_zeros());
                left &= left - 1;
                found.push(self.start + index as u64 * width + bit * self.step);
            }
        }
        found.retain(|at| range.contains(at));
        found
    }
}

impl Elf<'_> {
    /// Reads all code twice.
    pub fn starts(&self) -> Starts {
        let mut called = Marks::of(self, 1);
        // Jumps are within functions mostly, and compilers align where they lead, but fill up with
        // other instructions.
        let mut jumped = Marks::of(self, MIN_ALIGNMENT);
        self.transfers(|transfer| {
            let marks = match transfer.is_call {
                true => &mut called,
                false => &mut jumped,
            };
            marks.iter_mut().for_each(|marks| marks.set(transfer.to));
        });
        let pointers = self.pointers().iter().map(|(_, address)| *address);
        let named = self.functions(MAX_NAME).map(|(_, vaddr, _)| vaddr);
        for address in pointers.chain(named) {
            called.iter_mut().for_each(|marks| marks.set(address));
        }
        let machine = self.machine();
        self.each_code(|vaddr, bytes, own| {
            let at = |index: usize| vaddr.wrapping_add(index as u64);
            let before = |place: u64| {
                let end = usize::try_from(place.wrapping_sub(vaddr)).unwrap_or_default();
                let start = end.saturating_sub(MARGIN);
                bytes.get(start..end).unwrap_or_default()
            };
            let piece = at(own.start)..at(own.end);
            for (called, jumped) in called.iter_mut().zip(&jumped) {
                for place in called.within(piece.clone()) {
                    if !may_begin(machine, place, before(place)) {
                        called.clear(place);
                    }
                }
                for place in jumped.within(piece.clone()) {
                    if machine == Machine::X86_64 && before(place).last() == Some(&PADDING) {
                        called.set(place);
                    }
                }
            }
        });
        Starts(called)
    }
}

fn may_begin(machine: Machine, at: u64, before: &[u8]) -> bool {
    match machine {
        Machine::Aarch64 => at.is_multiple_of(MIN_ALIGNMENT),
        _ => at.is_multiple_of(ALIGNMENT) || ends(before),
    }
}

/// Whether code may end with these bytes: with an instruction behind which the next one is not
/// executed, a call that may never return among them, or with padding.
fn ends(before: &[u8]) -> bool {
    match before {
        // ret, int3, nop, hlt; ud2; ret $n
        [.., 0xc3 | PADDING | 0x90 | 0xf4] | [.., 0x0f, 0x0b] | [.., 0xc2, _, _] => true,
        // jmp, call
        [.., 0xeb, _] | [.., 0xe8 | 0xe9, _, _, _, _] => true,
        // By way of memory or a register.
        [.., 0xff, 0x15 | 0x25, _, _, _, _] => true,
        [.., 0xff, modrm] => matches!(modrm & 0xf8, 0xd0 | 0xe0),
        // nop of several bytes
        [.., 0x0f, 0x1f, 0] | [.., 0x0f, 0x1f, 0x40, 0] | [.., 0x0f, 0x1f, 0x44, 0, 0] => true,
        [.., 0x0f, 0x1f, 0x80, 0, 0, 0, 0] | [.., 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0] => true,
        _ => false,
    }
}
