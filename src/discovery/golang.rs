//! Finds functions of a Go program by name, whether or not it has symbols.
//!
//! What says that a file is a Go program, and of which version, is its build information
//! ([`buildinfo`]). Functions are in the symbol table, which `-ldflags=-s` and `strip` remove, and
//! always in the table that Go's runtime itself needs ([`pclntab`], [`moduledata`]). What structures
//! look like is in the debug information, of programs that have some ([`dwarf`]).

mod buildinfo;
pub mod dwarf;
mod moduledata;
mod pclntab;

use crate::discovery::elf::Elf;
use memchr::memmem;
use pclntab::Pclntab;

/// Longest function name taken, in bytes; those of generic functions reach some hundreds.
const MAX_NAME: usize = 1024;
/// Most functions given; `crypto/tls.(*Conn)` has some 60.
const MAX_WANTED: usize = 4096;
/// Stands for a version that the file does not tell.
const UNKNOWN_VERSION: &str = "go?";

/// A Go program, or a shared library made of Go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoProgram {
    /// As buildinfo has it, e.g. `go1.22.3`; `go?` where it cannot be told. Foreign text,
    /// printable ASCII, at most 64 bytes.
    pub version: String,
    /// The N of go1.N; None when the text is not of this form (devel builds
    /// `devel go1.23-abc` are).
    pub minor: Option<u32>,
    /// Every function whose full name was wanted, sorted by address.
    pub functions: Vec<GoFunction>,
    /// Where the functions were found.
    pub source: FunctionSource,
    /// What about the build matters to the user, e.g. why functions could not be found.
    pub notes: Vec<String>,
}

/// A function of a Go program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoFunction {
    /// Virtual address in the file, as the linker gave it: unrelocated.
    pub vaddr: u64,
    /// Bytes: as the symbol has it, or from the pclntab up to the next function, with padding.
    pub size: u64,
    /// With the path of the package: `crypto/tls.(*Conn).Read`. Foreign, UTF-8, at most 1024 bytes.
    pub name: String,
}

/// Where functions were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionSource {
    /// The ELF symbol tables.
    Symbols,
    /// The runtime's table of functions.
    Pclntab,
    /// Neither has any that was wanted.
    Nowhere,
}

/// Looks at a file; `None` when it is not a Go program.
///
/// `wanted` decides by full name, and is asked only about names that contain `needle`: that makes
/// the search of half a million names cheap. Addresses outside of executable segments are left out.
pub fn inspect(elf: &Elf<'_>, needle: &str, wanted: &dyn Fn(&str) -> bool) -> Option<GoProgram> {
    let info = buildinfo::find(elf);
    // Without section headers only a search tells, and few files are without.
    if info.is_none() && elf.has_section_names() && pclntab::section(elf).is_none() {
        return None;
    }
    let mut notes = Vec::new();
    let mut source = FunctionSource::Symbols;
    let mut functions = from_symbols(elf, needle, wanted);
    let mut table = None;
    if functions.is_empty() || info.is_none() {
        table = Pclntab::find(elf);
    }
    if functions.is_empty() {
        source = FunctionSource::Pclntab;
        functions = match &table {
            Some(table) => from_pclntab(elf, table, needle, wanted, &mut notes),
            None => Vec::new(),
        };
    }
    let info = match (info, &table) {
        (Some(info), _) => info,
        (None, Some(_)) => buildinfo::find_in_constants(elf).unwrap_or_default(),
        // The section of a table that is none, or symbols alone: no sign of Go.
        (None, None) => return None,
    };
    if functions.is_empty() {
        source = FunctionSource::Nowhere;
        if table.is_none() {
            notes.push(
                "neither symbols nor Go's table of functions (pclntab) can be read: packed, or \
                 altered after the build"
                    .to_owned(),
            );
        }
    }
    functions.retain(|function| elf.file_offset(function.vaddr).is_some());
    functions.sort_unstable();
    functions.dedup_by(|one, other| one.vaddr == other.vaddr && one.name == other.name);
    if functions.len() >= MAX_WANTED {
        notes.push(format!("only {MAX_WANTED} of the functions are looked at"));
    }
    let version = info.version.or_else(|| buildinfo::of_runtime(elf));
    let version = version.unwrap_or_else(|| {
        let table = table.as_ref().map(|table| table.generation.describe());
        let text = table.map(|versions| format!("; the table of functions is that of {versions}"));
        notes.push(format!(
            "the Go version cannot be read{}",
            text.unwrap_or_default()
        ));
        UNKNOWN_VERSION.to_owned()
    });
    Some(GoProgram {
        minor: buildinfo::minor(&version),
        version,
        functions,
        source,
        notes,
    })
}

fn from_symbols(elf: &Elf<'_>, needle: &str, wanted: &dyn Fn(&str) -> bool) -> Vec<GoFunction> {
    let finder = memmem::Finder::new(needle);
    elf.functions(MAX_NAME)
        .filter(|(name, ..)| finder.find(name.as_bytes()).is_some() && wanted(name))
        .take(MAX_WANTED)
        .map(|(name, vaddr, size)| GoFunction {
            vaddr,
            size,
            name: name.to_owned(),
        })
        .collect()
}

fn from_pclntab(
    elf: &Elf<'_>,
    table: &Pclntab<'_>,
    needle: &str,
    wanted: &dyn Fn(&str) -> bool,
    notes: &mut Vec<String>,
) -> Vec<GoFunction> {
    let places = table.functions(needle, wanted);
    if places.is_empty() {
        return Vec::new();
    }
    let Some(base) = table.base(elf) else {
        notes.push(
            "Go's table of functions is there, but where the code begins is not \
             (no moduledata): altered after the build"
                .to_owned(),
        );
        return Vec::new();
    };
    places
        .into_iter()
        .filter_map(|(index, name)| {
            let vaddr = base.address(table, index)?;
            let end = base.address(table, index.checked_add(1)?)?;
            Some(GoFunction {
                vaddr,
                size: end.checked_sub(vaddr)?,
                name,
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "golang_tests.rs"]
pub(crate) mod tests;
