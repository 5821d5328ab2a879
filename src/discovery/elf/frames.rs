//! Where functions begin and end, by what the compiler leaves for unwinding the stack: it stays in
//! a file without symbols.

use super::{Elf, u32_at};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use goblin::elf::program_header::PT_GNU_EH_FRAME;
use std::ops::Range;

/// Most bytes of `.eh_frame` and most functions that are read where there is no table of them: in
/// programs linked statically, of which the largest have a tenth of it.
const MAX_FRAMES: u64 = 16 << 20;
const MAX_LIST: usize = 1 << 18;

/// `.eh_frame_hdr`: version, then how three numbers are encoded, then the first two of them.
const HEADER: u64 = 12;
const VERSION: u8 = 1;
/// The count as four bytes without sign; the table as four bytes with sign from the header on.
/// Linkers write nothing else.
const COUNT_ENCODING: u8 = 0x03;
const TABLE_ENCODING: u8 = 0x3b;
/// Bytes of an entry: where a function begins, and where its description is.
const ENTRY: u64 = 8;

/// The functions of a file, sorted by address.
#[derive(Clone, Debug)]
pub struct Frames(Source);

#[derive(Clone, Debug)]
enum Source {
    Table(Table),
    List(Vec<Range<u64>>),
}

/// `.eh_frame_hdr`: its virtual address, and the number of entries.
#[derive(Clone, Copy, Debug)]
struct Table {
    at: u64,
    count: u64,
}

impl Elf<'_> {
    /// `None` where there is nothing for unwinding.
    pub fn frames(&self) -> Option<Frames> {
        let table = self.frame_table().map(Source::Table);
        table.or_else(|| self.frame_list()).map(Frames)
    }

    /// From `.eh_frame` itself, by the name of the section.
    fn frame_list(&self) -> Option<Source> {
        let section = self.section(".eh_frame")?;
        let bytes = self.loaded(section.vaddr, section.size.min(MAX_FRAMES))?;
        let frames = EhFrame::new(bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.vaddr);
        let mut entries = frames.entries(&bases);
        let mut list = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else {
                continue;
            };
            let Ok(frame) = partial.parse(EhFrame::cie_from_offset) else {
                continue;
            };
            let start = frame.initial_address();
            if let Some(end) = start.checked_add(frame.len()).filter(|end| *end > start) {
                list.push(start..end);
            }
            if list.len() >= MAX_LIST {
                break;
            }
        }
        list.sort_unstable_by_key(|range| range.start);
        (!list.is_empty()).then_some(Source::List(list))
    }

    fn frame_table(&self) -> Option<Table> {
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
        (count != 0).then_some(Table { at, count })
    }

    /// The function that `vaddr` is in. A part that the compiler has put elsewhere (`.cold`) is a
    /// function of its own here.
    pub fn frame_around(&self, frames: &Frames, vaddr: u64) -> Option<Range<u64>> {
        let range = match &frames.0 {
            Source::Table(table) => self.in_table(table, vaddr)?,
            Source::List(list) => {
                let after = list.partition_point(|range| range.start <= vaddr);
                list.get(after.checked_sub(1)?)?.clone()
            }
        };
        range.contains(&vaddr).then_some(range)
    }

    fn in_table(&self, frames: &Table, vaddr: u64) -> Option<Range<u64>> {
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
        Some(start..end)
    }

    /// Where a function begins, and its description.
    fn frame(&self, frames: &Table, index: u64) -> Option<(u64, u64)> {
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
