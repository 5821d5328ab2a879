//! Words of an image as the loader leaves them, at the addresses of the file.

use super::{Elf, MAX_RELOCATIONS, Machine, u64_at};

const R_X86_64_RELATIVE: u64 = 8;
const R_AARCH64_RELATIVE: u64 = 1027;
/// Bytes of an `Elf64_Rela`: offset, info, addend.
const SIZEOF_RELA: usize = 24;

impl Elf<'_> {
    /// The word at `vaddr`. Linkers leave zero where the loader will put an address, and say the
    /// address in a relocation; packed relocations (RELR) leave the address itself.
    pub fn word(&self, vaddr: u64) -> Option<u64> {
        match u64_at(self.loaded(vaddr, 8)?, 0)? {
            0 => Some(
                self.relative_relocations()
                    .find(|(at, _)| *at == vaddr)
                    .map_or(0, |(_, address)| address),
            ),
            stored => Some(stored),
        }
    }

    /// As [`Elf::word`], for many questions: the relocations are sorted once.
    pub fn pointer_at(&self, vaddr: u64) -> Option<u64> {
        let pointers = self.pointers();
        match pointers.binary_search_by_key(&vaddr, |(at, _)| *at) {
            Ok(index) => pointers.get(index).map(|(_, address)| *address),
            Err(_) => u64_at(self.loaded(vaddr, 8)?, 0),
        }
    }

    /// Where the loader puts which address of this file, in ascending order. Linkers that pack
    /// relocations (RELR) and programs at a fixed address have none.
    pub fn pointers(&self) -> &[(u64, u64)] {
        self.pointers.get_or_init(|| {
            let mut pointers: Vec<_> = self.relative_relocations().take(MAX_RELOCATIONS).collect();
            pointers.sort_unstable();
            pointers
        })
    }

    /// Where the loader puts which address of this file: (place, address), in the file's order.
    pub(in crate::discovery) fn relative_relocations(&self) -> impl Iterator<Item = (u64, u64)> {
        const DT_RELA: u64 = 7;
        const DT_RELASZ: u64 = 8;
        let relative = match self.machine() {
            Machine::X86_64 => Some(R_X86_64_RELATIVE),
            Machine::Aarch64 => Some(R_AARCH64_RELATIVE),
            Machine::Other(_) => None,
        };
        self.dynamic_value(DT_RELA)
            .zip(self.dynamic_value(DT_RELASZ))
            .and_then(|(address, size)| self.loaded(address, size))
            .unwrap_or_default()
            .chunks_exact(SIZEOF_RELA)
            .filter(move |entry| relative.is_some() && u64_at(entry, 8) == relative)
            .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 16)?)))
    }
}
