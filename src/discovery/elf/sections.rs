//! Sections by name, of files that still have section headers.

use super::Elf;
use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS};

/// Most bytes of section names; a file has a kilobyte of them, one compiled with a section for
/// each function a few hundred.
const MAX_NAMES: u64 = 1 << 20;

/// Where a section that is loaded is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::discovery) struct Section {
    pub vaddr: u64,
    /// Bytes.
    pub size: u64,
}

impl Elf<'_> {
    /// Whether it can be said that a section is not there.
    pub(in crate::discovery) fn has_section_names(&self) -> bool {
        self.section_names().is_some()
    }

    /// The first loaded section of that name that has content in the file.
    pub(in crate::discovery) fn section(&self, name: &str) -> Option<Section> {
        let names = self.section_names()?;
        self.sections
            .iter()
            .filter(|s| s.sh_type != SHT_NOBITS && s.sh_flags & u64::from(SHF_ALLOC) != 0)
            .find(|s| {
                names
                    .get(s.sh_name..)
                    .and_then(|tail| tail.strip_prefix(name.as_bytes()))
                    .is_some_and(|tail| tail.first() == Some(&0))
            })
            .map(|s| Section {
                vaddr: s.sh_addr,
                size: s.sh_size,
            })
    }

    fn section_names(&self) -> Option<&[u8]> {
        let names = self.sections.get(usize::from(self.header.e_shstrndx))?;
        let names = self
            .content
            .get(names.sh_offset, names.sh_size.min(MAX_NAMES))?;
        (names.len() > 1).then_some(names)
    }
}
