//! Where functions begin and end, by what the compiler leaves for unwinding the stack: it stays in
//! a file without symbols.

use super::{Elf, u32_at};
use goblin::elf::program_header::PT_GNU_EH_FRAME;
use std::ops::Range;

/// `.eh_frame_hdr`: version, then how three numbers are encoded, then the first two of them.
const HEADER: u64 = 12;
const VERSION: u8 = 1;
/// The count as four bytes without sign; the table as four bytes with sign from the header on.
/// Linkers write nothing else.
const COUNT_ENCODING: u8 = 0x03;
const TABLE_ENCODING: u8 = 0x3b;
/// Bytes of an entry: where a function begins, and where its description is.
const ENTRY: u64 = 8;

/// The table of functions in `.eh_frame_hdr`, sorted by address.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    /// Virtual address of the header, and the number of entries.
    at: u64,
    count: u64,
}

impl Elf<'_> {
    /// `None` where there is no such table.
    pub fn frames(&self) -> Option<Frames> {
        let segment = self.segments.iter().find(|s| s.p_type == PT_GNU_EH_FRAME)?;
        let at = segment.p_vaddr;
        let header = self.loaded(at, HEADER)?;
        let encodings = header.get(..4)?;
        if encodings.first() != Some(&VERSION)
            || encodings.get(2..4) != Some(&[COUNT_ENCODING, TABLE_ENCODING])
        {
            return None;
        }
        let most = segment.p_filesz.saturating_sub(HEADER) / ENTRY;
        let count = u64::from(u32_at(header, 8)?).min(most);
        (count != 0).then_some(Frames { at, count })
    }

    /// The function that `vaddr` is in. A part that the compiler has put elsewhere (`.cold`) is a
    /// function of its own here.
    pub fn frame_around(&self, frames: &Frames, vaddr: u64) -> Option<Range<u64>> {
        let (mut low, mut high) = (0, frames.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let (start, _) = self.frame(frames, middle)?;
            if start <= vaddr {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let (start, description) = self.frame(frames, low.checked_sub(1)?)?;
        let end = start.checked_add(self.frame_size(description, start)?)?;
        (start..end).contains(&vaddr).then_some(start..end)
    }

    /// Where a function begins, and its description.
    fn frame(&self, frames: &Frames, index: u64) -> Option<(u64, u64)> {
        let at = frames.at.checked_add(HEADER)?;
        let entry = self.loaded(at.checked_add(index.checked_mul(ENTRY)?)?, ENTRY)?;
        let from_header = |offset| {
            let distance = i64::from(u32_at(entry, offset)?.cast_signed());
            frames.at.checked_add_signed(distance)
        };
        Some((from_header(0)?, from_header(4)?))
    }

    /// The description of a function: its length, the distance to what it shares with others, where
    /// the function begins and how long it is. How the latter two are written is said elsewhere; but
    /// it is four bytes from here on, with sign, exactly if it leads to the known beginning.
    fn frame_size(&self, description: u64, start: u64) -> Option<u64> {
        let bytes = self.loaded(description, 16)?;
        let distance = i64::from(u32_at(bytes, 8)?.cast_signed());
        let begins = description.checked_add(8)?.checked_add_signed(distance)?;
        let size = u64::from(u32_at(bytes, 12)?);
        (begins == start && size != 0).then_some(size)
    }
}
