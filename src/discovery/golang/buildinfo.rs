//! Reads the version of Go that a program was built with.
//!
//! The shape is that of Go's debug/buildinfo: at an address divisible by 16 the magic (14 bytes), the
//! size of a pointer, flags. Flag 2 (from Go 1.18 on): at 32 follows the version, its length before it
//! as a varint. Else: at 16 the address of a Go string (address, length) that is the version.

use crate::discovery::elf::search::Loads;
use crate::discovery::elf::{Elf, u64_at};

const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGN: u64 = 16;
const POINTER_SIZE: usize = 14;
const FLAGS: usize = 15;
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_INLINE: u8 = 2;
const VERSION_POINTER: u64 = 16;
const VERSION_INLINE: usize = 32;
/// Longest version taken, in bytes; text beyond it (experiments of a development build) is cut.
const MAX_VERSION: usize = 64;
/// Of a file with section headers that lacks the section: as far as Go's own tools look.
const NEAR_START: u64 = 64 << 10;
/// Of a file without section headers: the relocated data of a large program comes before it.
const MAX_SEARCH: u64 = 256 << 20;

/// What the build information tells.
#[derive(Debug, Default)]
pub(super) struct BuildInfo {
    /// Printable ASCII, not empty.
    pub version: Option<String>,
}

/// By section, else at the beginning of writable segments, where linkers put it.
pub(super) fn find(elf: &Elf<'_>) -> Option<BuildInfo> {
    if let Some(section) = elf.section(".go.buildinfo") {
        let start = elf.loaded(section.vaddr, MAGIC.len() as u64)?;
        return (start == MAGIC).then(|| BuildInfo {
            version: version(elf, section.vaddr),
        });
    }
    let most = if elf.has_section_names() {
        NEAR_START
    } else {
        MAX_SEARCH
    };
    search(elf, Loads::Writable, most)
}

/// In segments without data: only of a file known to be of Go, others may contain the magic too.
pub(super) fn find_in_constants(elf: &Elf<'_>) -> Option<BuildInfo> {
    search(elf, Loads::Constants, MAX_SEARCH)
}

fn search(elf: &Elf<'_>, loads: Loads, most: u64) -> Option<BuildInfo> {
    let mut budget = MAX_SEARCH;
    elf.search(MAGIC, loads, most, &mut budget, |vaddr, found| {
        let plausible = vaddr % ALIGN == 0
            && matches!(found.get(POINTER_SIZE).copied(), Some(0 | 8))
            && matches!(found.get(FLAGS).copied(), Some(0 | FLAG_INLINE));
        plausible.then(|| BuildInfo {
            version: version(elf, vaddr),
        })
    })
}

fn version(elf: &Elf<'_>, vaddr: u64) -> Option<String> {
    let info = elf.loaded(vaddr, (VERSION_INLINE + 2 + MAX_VERSION) as u64)?;
    let flags = *info.get(FLAGS)?;
    if flags & FLAG_BIG_ENDIAN != 0 && flags & FLAG_INLINE == 0 {
        return None;
    }
    if flags & FLAG_INLINE != 0 {
        let (len, text) = short_varint(info.get(VERSION_INLINE..)?)?;
        return printable(text.get(..len.min(MAX_VERSION))?);
    }
    let string = elf.word(vaddr.checked_add(VERSION_POINTER)?)?;
    let text = elf.word(string)?;
    let len = u64_at(elf.loaded(string.checked_add(8)?, 8)?, 0)?.min(MAX_VERSION as u64);
    printable(elf.loaded(text, len)?)
}

/// `runtime.buildVersion`, which stays when the build information was blanked: a string of this form to
/// which a word of data points, the length behind it. Where several disagree, none.
pub(super) fn of_runtime(elf: &Elf<'_>) -> Option<String> {
    const PREFIX: &[u8] = b"go1.";
    const LONGEST: u64 = 16;
    const MAX_TEXTS: usize = 64;
    let mut texts = Vec::new();
    let mut budget = MAX_SEARCH;
    elf.search(PREFIX, Loads::Constants, u64::MAX, &mut budget, |at, _| {
        texts.push(at);
        (texts.len() >= MAX_TEXTS).then_some(())
    });
    let string = |slot: u64, text: u64| {
        let len = u64_at(elf.loaded(slot.checked_add(8)?, 8)?, 0)?;
        let whole = elf.loaded(text, len).filter(|_| len <= LONGEST)?;
        is_release(whole).then(|| printable(whole))?
    };
    let mut found: Vec<String> = Vec::new();
    for (slot, text) in elf.relative_relocations() {
        if texts.contains(&text) {
            found.extend(string(slot, text));
        }
    }
    for text in &texts {
        let mut budget = MAX_SEARCH;
        let address = text.to_le_bytes();
        let slot = |at: u64, _: &[u8]| string(at, *text);
        found.extend(elf.search(&address, Loads::Writable, u64::MAX, &mut budget, slot));
    }
    let first = found.first()?;
    let agree = found.iter().all(|other| minor(other) == minor(first));
    agree.then(|| first.clone())
}

/// `go1.26`, `go1.26.5`, `go1.26rc1`
fn is_release(text: &[u8]) -> bool {
    let number = text.strip_prefix(b"go1.").unwrap_or_default();
    let plain = |byte: &u8| {
        byte.is_ascii_digit() || matches!(byte, b'.' | b'r' | b'c' | b'b' | b'e' | b't' | b'a')
    };
    number.first().is_some_and(u8::is_ascii_digit) && number.iter().all(plain)
}

/// A little-endian base-128 number of at most two bytes, and what follows it.
fn short_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match *bytes {
        [low @ ..0x80, ref rest @ ..] => Some((usize::from(low), rest)),
        [low, high @ ..0x80, ref rest @ ..] => {
            Some((usize::from(low & 0x7f) | usize::from(high) << 7, rest))
        }
        _ => None,
    }
}

fn printable(text: &[u8]) -> Option<String> {
    let printable = !text.is_empty() && text.iter().all(|b| matches!(b, b' '..=b'~'));
    printable.then(|| String::from_utf8_lossy(text).into_owned())
}

/// The N of `go1.N`, wherever in the version a word begins so: `devel go1.23-abc`.
pub(super) fn minor(version: &str) -> Option<u32> {
    let number = version
        .split(' ')
        .find_map(|word| word.strip_prefix("go1."))?;
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number.get(..end)?.parse().ok()
}
