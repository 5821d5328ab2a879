//! Go's table of functions (pclntab): finds it in a file, and functions by name in it.
//!
//! The shapes are those of Go's debug/gosym (pclntab.go) and runtime/symtab.go. Magic (4 bytes), two
//! zeros, the unit of code addresses, the size of a pointer; then words: the number of functions n, and
//! from Go 1.16 on offsets from the beginning of the table to its parts. The functab is n pairs (address
//! of a function, offset of its `_func`) and the address where the last function ends. A `_func` is
//! the address again and the offset of the name among the names.

use super::{MAX_NAME, MAX_WANTED, moduledata};
use crate::discovery::elf::search::Loads;
use crate::discovery::elf::{Elf, Machine, c_string, u32_at, u64_at};
use memchr::{memchr, memmem};
use std::collections::HashMap;

/// Bytes of the longest header, from Go 1.18 on: the first 8 and eight words.
const HEADER: u64 = 72;
/// Most functions; a program of 200 MB has 300,000.
const MAX_FUNCTIONS: usize = 4 << 20;
/// Most bytes of a table; it makes up a third of a program.
const MAX_TABLE: u64 = 192 << 20;
/// Most bytes searched for a table.
const MAX_SEARCH: u64 = 1 << 30;
/// Most places looked at closely that look like the beginning of a table.
const MAX_CANDIDATES: usize = 64;
/// Most places in the names where what is wanted may be.
const MAX_PLACES: usize = 1 << 16;
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// The shape of a table, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    Go12,
    Go116,
    Go118,
    Go120,
}

impl Generation {
    fn from_magic(magic: u32) -> Option<Generation> {
        match magic {
            0xffff_fffb => Some(Generation::Go12),
            0xffff_fffa => Some(Generation::Go116),
            0xffff_fff0 => Some(Generation::Go118),
            0xffff_fff1 => Some(Generation::Go120),
            _ => None,
        }
    }

    /// The versions of Go that write it.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Generation::Go12 => "Go 1.2 to 1.15",
            Generation::Go116 => "Go 1.16 or 1.17",
            Generation::Go118 => "Go 1.18 or 1.19",
            Generation::Go120 => "Go 1.20 or newer",
        }
    }

    /// Code addresses are whole and thus relocated in a PIE, not counted from where code begins.
    fn is_absolute(self) -> bool {
        matches!(self, Generation::Go12 | Generation::Go116)
    }

    /// Bytes of each number of the functab.
    fn field(self) -> usize {
        if self.is_absolute() { 8 } else { 4 }
    }
}

/// The header: where the parts are, in bytes from the beginning of the table.
struct Header {
    generation: Generation,
    count: usize,
    names: usize,
    names_end: usize,
    functab: usize,
    /// What the offsets of the functab count from.
    funcs: usize,
}

impl Header {
    fn read(bytes: &[u8], unit: u8) -> Option<Header> {
        let generation = Generation::from_magic(u32_at(bytes, 0)?)?;
        if bytes.get(4..8)? != [0, 0, unit, 8] {
            return None;
        }
        let word = |index: usize| usize::try_from(u64_at(bytes, 8 + 8 * index)?).ok();
        let count = word(0).filter(|count| (1..=MAX_FUNCTIONS).contains(count))?;
        let (names, names_end, functab, funcs) = match generation {
            // One heap of names and descriptions, behind a functab that follows at once.
            Generation::Go12 => (0, usize::MAX, 16, 0),
            Generation::Go116 => (word(2)?, word(3)?, word(6)?, word(6)?),
            Generation::Go118 | Generation::Go120 => (word(3)?, word(4)?, word(7)?, word(7)?),
        };
        (names < names_end).then_some(Header {
            generation,
            count,
            names,
            names_end,
            functab,
            funcs,
        })
    }
}

/// A table, borrowed from the file.
pub(super) struct Pclntab<'a> {
    pub vaddr: u64,
    pub generation: Generation,
    count: usize,
    names: &'a [u8],
    functab: &'a [u8],
    functab_vaddr: u64,
    funcs: &'a [u8],
}

/// The address and size of the section that holds the table, if one has its name.
pub(super) fn section(elf: &Elf<'_>) -> Option<(u64, u64)> {
    let section = SECTIONS.iter().find_map(|name| elf.section(name))?;
    Some((section.vaddr, section.size))
}

impl<'a> Pclntab<'a> {
    /// By section; else by its first bytes, in any load segment: linkers other than Go's own merge
    /// it into the relocated data of a PIE, and sections may be stripped.
    pub(super) fn find(elf: &Elf<'a>) -> Option<Pclntab<'a>> {
        let unit = match elf.machine() {
            Machine::X86_64 => 1,
            Machine::Aarch64 => 4,
            Machine::Other(_) => return None,
        };
        section(elf)
            .and_then(|(vaddr, size)| Pclntab::at(elf, vaddr, size, unit))
            .or_else(|| Pclntab::search(elf, unit))
    }

    fn search(elf: &Elf<'a>, unit: u8) -> Option<Pclntab<'a>> {
        // All but the first byte, in which the generations differ.
        let start = [0xff, 0xff, 0xff, 0, 0, unit, 8];
        let (mut budget, mut tries) = (MAX_SEARCH, 0);
        [Loads::Constants, Loads::Writable, Loads::Code]
            .into_iter()
            .find_map(|loads| {
                elf.search(&start, loads, u64::MAX, &mut budget, |found, _| {
                    let vaddr = found.checked_sub(1).filter(|vaddr| vaddr % 8 == 0)?;
                    tries += 1;
                    if tries > MAX_CANDIDATES {
                        return None;
                    }
                    Header::read(elf.loaded(vaddr, HEADER)?, unit)?;
                    Pclntab::at(elf, vaddr, MAX_TABLE, unit)
                })
            })
    }

    fn at(elf: &Elf<'a>, vaddr: u64, size: u64, unit: u8) -> Option<Pclntab<'a>> {
        let bytes = elf.loaded(vaddr, size.min(MAX_TABLE))?;
        let header = Header::read(bytes, unit)?;
        let field = header.generation.field();
        let len = header.count.checked_mul(2)?.checked_add(1)? * field;
        let table = Pclntab {
            vaddr,
            generation: header.generation,
            count: header.count,
            names: bytes.get(header.names..header.names_end.min(bytes.len()))?,
            functab: bytes.get(header.functab..header.functab.checked_add(len)?)?,
            functab_vaddr: vaddr.checked_add(header.functab as u64)?,
            funcs: bytes.get(header.funcs..)?,
        };
        let named = [0, table.count - 1]
            .into_iter()
            .all(|index| table.name(index).is_some());
        let ordered = (0..=table.count).map(|index| table.pc(index)).is_sorted();
        (named && ordered).then_some(table)
    }

    /// What the functab says of where function `index` begins: an address, zero where the loader
    /// will put one, or from Go 1.18 on its distance from where code begins.
    fn pc(&self, index: usize) -> Option<u64> {
        self.number(index.checked_mul(2)?)
    }

    fn number(&self, index: usize) -> Option<u64> {
        let field = self.generation.field();
        let at = index.checked_mul(field)?;
        if self.generation.is_absolute() {
            u64_at(self.functab, at)
        } else {
            u32_at(self.functab, at).map(u64::from)
        }
    }

    /// Where among the names that of function `index` begins.
    fn name_offset(&self, index: usize) -> Option<usize> {
        let func = usize::try_from(self.number(index.checked_mul(2)?.checked_add(1)?)?).ok()?;
        // Behind the address, which is as long as in the functab.
        let at = func.checked_add(self.generation.field())?;
        usize::try_from(u32_at(self.funcs, at)?).ok()
    }

    fn name(&self, index: usize) -> Option<&'a str> {
        c_string(self.names, self.name_offset(index)?, MAX_NAME)
    }

    /// The place in the functab and the name of each function whose name contains `needle` and is
    /// wanted.
    pub(super) fn functions(
        &self,
        needle: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Vec<(usize, String)> {
        let places: Vec<usize> = memmem::find_iter(self.names, needle)
            .take(MAX_PLACES)
            .collect();
        if places.is_empty() {
            return Vec::new();
        }
        (0..self.count)
            .filter_map(|index| {
                let start = self.name_offset(index)?;
                let next = places.partition_point(|place| *place < start);
                let before = self.names.get(start..*places.get(next)?)?;
                if before.len() > MAX_NAME || memchr(0, before).is_some() {
                    return None;
                }
                let name = self.name(index).filter(|name| wanted(name))?;
                Some((index, name.to_owned()))
            })
            .take(MAX_WANTED)
            .collect()
    }

    /// What turns places in the functab into addresses; `None` when the file does not tell where
    /// its code begins.
    pub(super) fn base(&self, elf: &Elf<'_>) -> Option<Base> {
        if !self.generation.is_absolute() {
            return moduledata::text(elf, self).map(Base::Text);
        }
        let mut relocated = HashMap::new();
        if self.pc(0) == Some(0) {
            let entry = 2 * self.generation.field() as u64;
            let places = elf.relative_relocations().filter_map(|(at, address)| {
                let into = at.checked_sub(self.functab_vaddr)?;
                let index = usize::try_from(into / entry).ok()?;
                (into % entry == 0 && index <= self.count).then_some((index, address))
            });
            relocated.extend(places);
        }
        Some(Base::Absolute(relocated))
    }
}

/// What turns places in the functab into addresses.
pub(super) enum Base {
    /// Where code begins: for distances.
    Text(u64),
    /// The table has addresses, or the loader puts them there: by place.
    Absolute(HashMap<usize, u64>),
}

impl Base {
    /// The virtual address at which function `index` begins.
    pub(super) fn address(&self, table: &Pclntab<'_>, index: usize) -> Option<u64> {
        let pc = table.pc(index)?;
        match self {
            Base::Text(text) => text.checked_add(pc),
            Base::Absolute(relocated) => match pc {
                0 => relocated.get(&index).copied(),
                stored => Some(stored),
            },
        }
    }
}
