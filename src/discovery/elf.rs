//! Reads symbols, code and identity out of an ELF file.
//!
//! Total over hostile files: every access is bounds-checked, each table is read at most once per
//! question, and nothing is allocated in proportion to a number that the file merely claims.

pub mod frames;
mod imports;
mod references;
mod relocations;
pub(super) mod search;
mod sections;
mod sources;
pub mod starts;
pub(super) mod stored;
pub mod unwinding;
mod version;

pub use frames::Frames;
pub use references::Transfer;

use crate::discovery::content::{Content, SparseFile};
use anyhow::{Context, Result, bail};
use goblin::container::Ctx;
use goblin::elf::header::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::section_header::{SHT_DYNSYM, SHT_GNU_VERSYM, SHT_SYMTAB, SectionHeader};
use goblin::elf::sym::{STT_FUNC, Sym, Symtab};
use goblin::elf64::header::SIZEOF_EHDR;
use goblin::elf64::program_header::SIZEOF_PHDR;
use goblin::elf64::section_header::{SIZEOF_SHDR, SectionHeader as SectionHeader64};
use std::cell::OnceCell;
use std::collections::HashMap;

/// Size given to a function whose symbol states none and that no other symbol follows.
const UNKNOWN_FUNCTION_SIZE: u64 = 4096;
/// Longest string taken from a file: `PATH_MAX`, for the interpreter and `DT_NEEDED`.
const MAX_STRING: usize = 4096;
/// Longest symbol name taken; C++ names reach a few thousand bytes, none that we want does.
const MAX_NAME: usize = 256;
/// Most segments and `DT_NEEDED` entries looked at; real files have a dozen and a few hundred.
const MAX_LOADS: usize = 64;
const MAX_NEEDED: usize = 1024;
/// Most relocations read when calls through the PLT are named; node has 40,000.
const MAX_RELOCATIONS: usize = 1 << 20;

const NT_GNU_BUILD_ID: u32 = 3;
/// Version index bit of a symbol that is not the default version of its name (`gABI` extension).
const VERSYM_HIDDEN: u16 = 0x8000;

/// The instruction set of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
    /// `e_machine` of anything else.
    Other(u16),
}

impl Machine {
    /// What this program is built for, and what the machine it runs on executes.
    pub const HOST: Machine = if cfg!(target_arch = "aarch64") {
        Machine::Aarch64
    } else {
        Machine::X86_64
    };

    /// As people write it: `x86-64`.
    pub fn name(self) -> String {
        match self {
            Machine::X86_64 => "x86-64".to_owned(),
            Machine::Aarch64 => "arm64".to_owned(),
            Machine::Other(number) => format!("ELF machine {number}"),
        }
    }
}

/// A function that a symbol table names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Virtual address in the file.
    pub vaddr: u64,
    /// Bytes; an estimate (up to the next symbol, at most 4096) when the table says 0.
    pub size: u64,
    /// Found in the dynamic symbol table: callable from other files.
    pub exported: bool,
}

/// An ELF file, 64-bit little endian, borrowed from its bytes.
pub struct Elf<'a> {
    content: Content<'a>,
    header: Header,
    segments: Vec<ProgramHeader>,
    sections: Vec<SectionHeader>,
    dynsym: Option<SymbolTable<'a>>,
    symtab: Option<SymbolTable<'a>>,
    dynamic: Vec<(u64, u64)>,
    imports: OnceCell<HashMap<u64, String>>,
    version: OnceCell<Option<String>>,
    pointers: OnceCell<Vec<(u64, u64)>>,
}

struct SymbolTable<'a> {
    symbols: Symtab<'a>,
    names: &'a [u8],
    /// `.gnu.version`, one u16 for each symbol; empty when there is none.
    versions: &'a [u8],
}

impl std::fmt::Debug for Elf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elf")
            .field("bytes", &self.content.size())
            .field("machine", &self.machine())
            .field("segments", &self.segments.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Elf<'a> {
    /// Reads the headers; symbols are read when asked for.
    ///
    /// # Errors
    /// Not an ELF file, truncated headers, or not 64-bit little endian.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>> {
        Elf::read(Content::Memory(bytes))
    }

    /// As [`Elf::parse`], of a file that is read as far as is needed: some megabytes of a program
    /// of a hundred.
    ///
    /// # Errors
    /// As [`Elf::parse`].
    pub fn open(file: &'a SparseFile<'a>) -> Result<Elf<'a>> {
        Elf::read(Content::File(file))
    }

    fn read(content: Content<'a>) -> Result<Elf<'a>> {
        let start = content
            .get(0, content.size().min(SIZEOF_EHDR as u64))
            .context("read the beginning of the file")?;
        match (start.get(..4), start.get(4), start.get(5)) {
            (Some(b"\x7fELF"), Some(2), Some(1)) => {}
            (Some(b"\x7fELF"), Some(_), Some(_)) => {
                bail!("only 64-bit little-endian ELF files are supported, not this one")
            }
            _ => bail!("not an ELF file"),
        }
        let header = goblin::elf::Elf::parse_header(start).context("read ELF header")?;
        let ctx = Ctx::new(
            goblin::container::Container::Big,
            goblin::container::Endian::Little,
        );
        let count = usize::from(header.e_phnum);
        let segments = content
            .get(header.e_phoff, (count * SIZEOF_PHDR) as u64)
            .and_then(|bytes| ProgramHeader::parse(bytes, 0, count, ctx).ok())
            .context("read program headers")?;
        // Section headers may be stripped or damaged; the dynamic segment then still has symbols.
        let count = usize::from(header.e_shnum);
        let sections = content
            .get(header.e_shoff, (count * SIZEOF_SHDR) as u64)
            .map(|bytes| SectionHeader64::from_bytes(bytes, count))
            .unwrap_or_default()
            .into_iter()
            .map(SectionHeader::from)
            .collect::<Vec<_>>();
        let mut elf = Elf {
            content,
            header,
            segments,
            sections,
            dynsym: None,
            symtab: None,
            dynamic: Vec::new(),
            imports: OnceCell::new(),
            version: OnceCell::new(),
            pointers: OnceCell::new(),
        };
        elf.dynamic = elf.read_dynamic();
        elf.symtab = section_table(content, &elf.sections, SHT_SYMTAB, ctx);
        elf.dynsym = section_table(content, &elf.sections, SHT_DYNSYM, ctx)
            .or_else(|| elf.dynamic_table(ctx));
        Ok(elf)
    }

    /// The instruction set.
    pub fn machine(&self) -> Machine {
        match self.header.e_machine {
            EM_X86_64 => Machine::X86_64,
            EM_AARCH64 => Machine::Aarch64,
            other => Machine::Other(other),
        }
    }

    /// Whether functions that are used within the file only have names too.
    pub fn names_own_functions(&self) -> bool {
        self.symtab.is_some()
    }

    /// A program (with an interpreter or at a fixed address) rather than a shared library.
    pub fn is_executable(&self) -> bool {
        match self.header.e_type {
            ET_EXEC => true,
            ET_DYN => self.interpreter().is_some(),
            _ => false,
        }
    }

    /// The path of the dynamic loader (`PT_INTERP`). Foreign.
    pub fn interpreter(&self) -> Option<&'a str> {
        let segment = self.segments.iter().find(|s| s.p_type == PT_INTERP)?;
        c_string(
            self.content.get(segment.p_offset, segment.p_filesz)?,
            0,
            MAX_STRING,
        )
    }

    /// The names of the libraries it is linked with (`DT_NEEDED`). Foreign.
    pub fn needed(&self) -> Vec<&'a str> {
        const DT_NEEDED: u64 = 1;
        let Some(names) = self.dynamic_strings() else {
            return Vec::new();
        };
        self.dynamic
            .iter()
            .filter(|(tag, _)| *tag == DT_NEEDED)
            .take(MAX_NEEDED)
            .filter_map(|(_, off)| c_string(names, usize::try_from(*off).ok()?, MAX_STRING))
            .collect()
    }

    /// The GNU build id, where there is one: 20 bytes mostly.
    pub fn build_id(&self) -> Option<&'a [u8]> {
        self.segments
            .iter()
            .filter(|s| s.p_type == PT_NOTE)
            .take(MAX_LOADS)
            .find_map(|s| build_id_in(self.content.get(s.p_offset, s.p_filesz)?))
    }

    /// Finds the named functions in one pass over each symbol table. The default version of a
    /// name wins over hidden ones, the dynamic table over the full one.
    pub fn find<'n>(&self, names: &[&'n str]) -> HashMap<&'n str, Symbol> {
        let wanted = Wanted::new(names);
        let mut found: HashMap<&'n str, (u8, Symbol)> = HashMap::new();
        for (table, exported) in self.tables() {
            for (index, symbol) in table.symbols.iter().enumerate() {
                if !is_function(&symbol) {
                    continue;
                }
                let Some(name) = table.name_tail(&symbol) else {
                    continue;
                };
                let Some((name, hidden_by_name)) = wanted.matching(name) else {
                    continue;
                };
                let hidden = hidden_by_name || table.is_hidden(index);
                let rank = 2 * u8::from(!hidden) + u8::from(exported);
                let entry = (
                    rank,
                    Symbol {
                        vaddr: symbol.st_value,
                        size: symbol.st_size,
                        exported,
                    },
                );
                match found.get(name) {
                    Some((old, _)) if *old >= rank => {}
                    _ => {
                        found.insert(name, entry);
                    }
                }
            }
        }
        let mut found: HashMap<&'n str, Symbol> =
            found.into_iter().map(|(name, (_, s))| (name, s)).collect();
        if found.values().any(|s| s.size == 0) {
            let starts: Vec<u64> = found.values().map(|s| s.vaddr).collect();
            let next = self.next_symbols(&starts);
            for symbol in found.values_mut().filter(|s| s.size == 0) {
                symbol.size = next
                    .get(&symbol.vaddr)
                    .map_or(UNKNOWN_FUNCTION_SIZE, |n| n - symbol.vaddr)
                    .min(UNKNOWN_FUNCTION_SIZE);
            }
        }
        found
    }

    /// The name and size of the function that a symbol table puts at exactly `vaddr`.
    pub fn function_at(&self, vaddr: u64) -> Option<(&'a str, Symbol)> {
        self.tables().find_map(|(table, exported)| {
            let symbol = table
                .symbols
                .iter()
                .find(|s| s.st_value == vaddr && is_function(s))?;
            let name = c_string(table.name_tail(&symbol)?, 0, MAX_NAME)?;
            let name = name.split('@').next().unwrap_or(name);
            Some((
                name,
                Symbol {
                    vaddr,
                    size: symbol.st_size,
                    exported,
                },
            ))
        })
    }

    /// Every function that a symbol table names, with names of at most `longest` bytes: name,
    /// virtual address, size as the table says it. Functions in both tables come twice.
    pub(super) fn functions(&self, longest: usize) -> impl Iterator<Item = (&'a str, u64, u64)> {
        self.tables().flat_map(move |(table, _)| {
            table
                .symbols
                .iter()
                .filter(is_function)
                .filter_map(move |symbol| {
                    let name = c_string(table.name_tail(&symbol)?, 0, longest)?;
                    Some((name, symbol.st_value, symbol.st_size))
                })
        })
    }

    /// How many bytes from `vaddr` on belong to one function, for a function without a symbol:
    /// up to the next symbol of any function, at most 4096.
    pub fn extent(&self, vaddr: u64) -> u64 {
        self.next_symbols(&[vaddr])
            .get(&vaddr)
            .map_or(UNKNOWN_FUNCTION_SIZE, |next| next - vaddr)
            .min(UNKNOWN_FUNCTION_SIZE)
    }

    /// For each of `starts`, the lowest function address above it.
    fn next_symbols(&self, starts: &[u64]) -> HashMap<u64, u64> {
        let mut next: HashMap<u64, u64> = HashMap::new();
        for (table, _) in self.tables() {
            for symbol in table.symbols.iter().filter(is_function) {
                for start in starts.iter().filter(|s| **s < symbol.st_value) {
                    let at = next.entry(*start).or_insert(symbol.st_value);
                    *at = (*at).min(symbol.st_value);
                }
            }
        }
        next
    }

    /// Up to `len` bytes of code at `vaddr`: fewer at the end of the segment, `None` outside of
    /// executable segments.
    pub fn code(&self, vaddr: u64, len: u64) -> Option<&'a [u8]> {
        let segment = self.executable_segment(vaddr)?;
        let into = vaddr - segment.p_vaddr;
        let len = len.min(segment.p_filesz - into);
        self.content.get(segment.p_offset.checked_add(into)?, len)
    }

    /// Where in the file the code at `vaddr` is: what a uprobe wants. Through the executable
    /// load segments, as the kernel maps them, not through sections.
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        let segment = self.executable_segment(vaddr)?;
        segment.p_offset.checked_add(vaddr - segment.p_vaddr)
    }

    /// The executable load segments: virtual address and bytes in the file.
    pub fn code_ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.loads()
            .filter(|s| s.p_flags & PF_X != 0)
            .map(|s| (s.p_vaddr, s.p_filesz))
    }

    fn executable_segment(&self, vaddr: u64) -> Option<&ProgramHeader> {
        self.loads()
            .filter(|s| s.p_flags & PF_X != 0)
            .find(|s| vaddr >= s.p_vaddr && vaddr - s.p_vaddr < s.p_filesz)
    }

    fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.segments
            .iter()
            .filter(|s| s.p_type == PT_LOAD)
            .take(MAX_LOADS)
    }

    fn tables(&self) -> impl Iterator<Item = (&SymbolTable<'a>, bool)> {
        let dynsym = self.dynsym.iter().map(|t| (t, true));
        dynsym.chain(self.symtab.iter().map(|t| (t, false)))
    }

    fn read_dynamic(&self) -> Vec<(u64, u64)> {
        self.segments
            .iter()
            .find(|s| s.p_type == PT_DYNAMIC)
            .and_then(|s| self.content.get(s.p_offset, s.p_filesz))
            .unwrap_or_default()
            .chunks_exact(16)
            .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
            .take_while(|(tag, _)| *tag != 0)
            .take(2 * MAX_NEEDED)
            .collect()
    }

    fn dynamic_value(&self, wanted: u64) -> Option<u64> {
        let (_, value) = self.dynamic.iter().find(|(tag, _)| *tag == wanted)?;
        Some(*value)
    }

    /// File bytes behind a range of virtual addresses, of any load segment; shortened to it.
    pub(super) fn loaded(&self, vaddr: u64, len: u64) -> Option<&'a [u8]> {
        let segment = self
            .loads()
            .find(|s| vaddr >= s.p_vaddr && vaddr - s.p_vaddr < s.p_filesz)?;
        let into = vaddr - segment.p_vaddr;
        let offset = segment.p_offset.checked_add(into)?;
        self.content.get(offset, len.min(segment.p_filesz - into))
    }

    fn dynamic_strings(&self) -> Option<&'a [u8]> {
        const DT_STRTAB: u64 = 5;
        const DT_STRSZ: u64 = 10;
        self.loaded(
            self.dynamic_value(DT_STRTAB)?,
            self.dynamic_value(DT_STRSZ)?,
        )
    }

    /// The dynamic symbols of a file without section headers. The dynamic segment does not say
    /// how many there are; linkers put the strings right behind them.
    fn dynamic_table(&self, ctx: Ctx) -> Option<SymbolTable<'a>> {
        const DT_SYMTAB: u64 = 6;
        const DT_STRTAB: u64 = 5;
        const DT_VERSYM: u64 = 0x6fff_fff0;
        let start = self.dynamic_value(DT_SYMTAB)?;
        let len = self.dynamic_value(DT_STRTAB)?.checked_sub(start)?;
        let bytes = self.loaded(start, len)?;
        let count = bytes.len() / 24;
        Some(SymbolTable {
            symbols: Symtab::parse(bytes, 0, count, ctx).ok()?,
            names: self.dynamic_strings()?,
            versions: self
                .dynamic_value(DT_VERSYM)
                .and_then(|v| self.loaded(v, 2 * count as u64))
                .unwrap_or_default(),
        })
    }
}

impl<'a> SymbolTable<'a> {
    /// The string table from the symbol's name on: the name is not cut at its end.
    fn name_tail(&self, symbol: &Sym) -> Option<&'a [u8]> {
        self.names.get(symbol.st_name..).filter(|n| !n.is_empty())
    }

    fn is_hidden(&self, index: usize) -> bool {
        self.versions
            .get(index.saturating_mul(2)..)
            .and_then(<[u8]>::first_chunk)
            .is_some_and(|v| u16::from_le_bytes(*v) & VERSYM_HIDDEN != 0)
    }
}

/// Names looked for, by their first four bytes: one look decides for most of 200,000 symbols.
struct Wanted<'n> {
    by_start: HashMap<[u8; 4], Vec<&'n str>>,
}

impl<'n> Wanted<'n> {
    fn new(names: &[&'n str]) -> Wanted<'n> {
        let mut by_start: HashMap<[u8; 4], Vec<&'n str>> = HashMap::new();
        for name in names {
            if let Some(start) = name.as_bytes().first_chunk() {
                by_start.entry(*start).or_default().push(name);
            }
        }
        Wanted { by_start }
    }

    /// The wanted name at the start of `tail`, and whether its text says that it is not the
    /// default version (`SSL_read@OLD`, against `SSL_read@@NEW` or `SSL_read`).
    fn matching(&self, tail: &[u8]) -> Option<(&'n str, bool)> {
        let candidates = self.by_start.get(tail.first_chunk::<4>()?)?;
        candidates
            .iter()
            .find_map(|name| match tail.strip_prefix(name.as_bytes())? {
                [0, ..] | [b'@', b'@', ..] => Some((*name, false)),
                [b'@', ..] => Some((*name, true)),
                _ => None,
            })
    }
}

fn is_function(symbol: &Sym) -> bool {
    symbol.st_type() == STT_FUNC && symbol.st_value != 0 && symbol.st_shndx != 0
}

/// The first symbol table of a kind. Only the first: a hostile file may claim thousands.
fn section_table<'a>(
    content: Content<'a>,
    sections: &[SectionHeader],
    kind: u32,
    ctx: Ctx,
) -> Option<SymbolTable<'a>> {
    let (index, section) = sections
        .iter()
        .enumerate()
        .find(|(_, s)| s.sh_type == kind)?;
    let bytes = content.get(section.sh_offset, section.sh_size)?;
    let names = sections.get(usize::try_from(section.sh_link).ok()?)?;
    let versions = sections
        .iter()
        .find(|s| s.sh_type == SHT_GNU_VERSYM && usize::try_from(s.sh_link) == Ok(index));
    Some(SymbolTable {
        symbols: Symtab::parse(bytes, 0, bytes.len() / 24, ctx).ok()?,
        names: content.get(names.sh_offset, names.sh_size)?,
        versions: versions
            .and_then(|s| content.get(s.sh_offset, s.sh_size))
            .unwrap_or_default(),
    })
}

pub(super) fn u64_at(data: &[u8], offset: usize) -> Option<u64> {
    let bytes = data.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

pub(super) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    let bytes = data.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The UTF-8 text from `offset` up to a NUL, which must come within `max` bytes.
pub(super) fn c_string(data: &[u8], offset: usize, max: usize) -> Option<&str> {
    let bytes = data.get(offset..)?;
    let bytes = bytes.get(..bytes.len().min(max))?;
    let end = bytes.iter().position(|b| *b == 0)?;
    std::str::from_utf8(bytes.get(..end)?).ok()
}

fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let name_len = usize::try_from(u32_at(notes, 0)?).ok()?;
        let desc_len = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let desc = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let end = desc.checked_add(desc_len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return notes.get(desc..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
