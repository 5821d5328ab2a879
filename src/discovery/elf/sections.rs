//! Sections by name, of files that still have section headers.

use super::Elf;
use super::stored::Stored;
use goblin::elf::section_header::{SHF_ALLOC, SHF_COMPRESSED, SHT_NOBITS, SectionHeader};

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

impl<'a> Elf<'a> {
    /// Whether it can be said that a section is not there.
    pub(in crate::discovery) fn has_section_names(&self) -> bool {
        self.section_names().is_some()
    }

    /// The first loaded section of that name that has content in the file.
    pub(in crate::discovery) fn section(&self, name: &str) -> Option<Section> {
        let section = self.sections_called(name).find(is_loaded)?;
        Some(Section {
            vaddr: section.sh_addr,
            size: section.sh_size,
        })
    }

    /// The content of a section that is not loaded, of which at most `most` bytes are given.
    /// `name` is that of debug information, `debug_info`; an older way to compress such a section
    /// changes its name.
    pub(in crate::discovery) fn debug_section(&self, name: &str, most: u64) -> Option<Stored<'a>> {
        let of = |section: &SectionHeader| (section.sh_offset, section.sh_size);
        let plain = format!(".{name}");
        let section = self.sections_called(&plain).find(|s| !is_loaded(s));
        if let Some(section) = section {
            let is_compressed = section.sh_flags & u64::from(SHF_COMPRESSED) != 0;
            return if is_compressed {
                Stored::compressed(self.content, of(section), most)
            } else {
                Some(Stored::plain(self.content, of(section), most))
            };
        }
        let section = self.sections_called(&format!(".z{name}")).next()?;
        Stored::z_compressed(self.content, of(section), most)
    }

    fn sections_called(&self, name: &str) -> impl Iterator<Item = &SectionHeader> {
        let names = self.section_names().unwrap_or_default();
        self.sections
            .iter()
            .filter(|s| s.sh_type != SHT_NOBITS)
            .filter(move |s| {
                names
                    .get(s.sh_name..)
                    .and_then(|tail| tail.strip_prefix(name.as_bytes()))
                    .is_some_and(|tail| tail.first() == Some(&0))
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

fn is_loaded(section: &&SectionHeader) -> bool {
    section.sh_flags & u64::from(SHF_ALLOC) != 0
}
