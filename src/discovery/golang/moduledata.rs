//! Finds where the code of a Go program begins, which its table of functions counts from.
//!
//! The table's header says it from Go 1.18 to 1.25. Go 1.26 zeroed that word, as it was the only one
//! of the table that the loader had to change; since then it is only in the runtime's `moduledata`
//! (Go's runtime/symtab.go), whose first word is the address of the table. The offsets here are those
//! of Go 1.16 to 1.27.

use super::pclntab::Pclntab;
use crate::discovery::elf::Elf;
use crate::discovery::elf::search::Loads;

/// `textStart` in the header of the table, bytes from its beginning.
const HEADER_TEXT: u64 = 24;
/// Bytes from the beginning of moduledata: the lowest and the end of the highest function, the
/// beginning and end of the code.
const MIN_PC: u64 = 160;
const MAX_PC: u64 = 168;
const TEXT: u64 = 176;
const END_TEXT: u64 = 184;
/// Most places looked at that hold the table's address; real files have one.
const MAX_CANDIDATES: usize = 16;
/// Most bytes of writable data searched.
const MAX_SEARCH: u64 = 256 << 20;

/// The address of `runtime.text`, for a table whose functions are counted from there.
pub(super) fn text(elf: &Elf<'_>, table: &Pclntab<'_>) -> Option<u64> {
    let in_header = table
        .vaddr
        .checked_add(HEADER_TEXT)
        .and_then(|at| elf.word(at))
        .filter(|text| elf.file_offset(*text).is_some());
    in_header
        .or_else(|| text_in(elf, table, elf.section(".go.module")?.vaddr))
        .or_else(|| search_data(elf, table))
        .or_else(|| search_relocations(elf, table))
}

/// Where the linker stored the table's address itself.
fn search_data(elf: &Elf<'_>, table: &Pclntab<'_>) -> Option<u64> {
    let (mut budget, mut tries) = (MAX_SEARCH, 0);
    let address = table.vaddr.to_le_bytes();
    elf.search(&address, Loads::Writable, u64::MAX, &mut budget, |at, _| {
        tries += usize::from(at % 8 == 0);
        (at % 8 == 0 && tries <= MAX_CANDIDATES)
            .then(|| text_in(elf, table, at))
            .flatten()
    })
}

/// Where the loader will put it.
fn search_relocations(elf: &Elf<'_>, table: &Pclntab<'_>) -> Option<u64> {
    elf.relative_relocations()
        .filter(|(_, address)| *address == table.vaddr)
        .take(MAX_CANDIDATES)
        .find_map(|(at, _)| text_in(elf, table, at))
}

fn text_in(elf: &Elf<'_>, table: &Pclntab<'_>, moduledata: u64) -> Option<u64> {
    let word = |offset| elf.word(moduledata.checked_add(offset)?);
    let text = word(TEXT)?;
    let (min, max) = (word(MIN_PC)?, word(MAX_PC)?);
    let ordered = text <= min && min < max && max <= word(END_TEXT)?;
    (ordered && word(0)? == table.vaddr && elf.file_offset(text).is_some()).then_some(text)
}
