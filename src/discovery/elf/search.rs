//! Searches what a file loads for bytes, without keeping what it read.

use super::Elf;
use goblin::elf::program_header::{PF_W, PF_X, ProgramHeader};
use memchr::memmem::Finder;

/// Bytes searched at a time, which stay in the processor's cache.
pub(in crate::discovery) const SEARCH_STEP: usize = 256 << 10;
/// How many bytes from its beginning on an occurrence is shown with, unless the segment ends.
pub(in crate::discovery) const MAX_FOUND: usize = 128;

/// The load segments that are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::discovery) enum Loads {
    /// Neither writable nor executable: constants, when code is linked apart.
    Constants,
    Writable,
    /// Executable; constants too, when code is not linked apart.
    Code,
}

impl Loads {
    pub(super) fn has(self, segment: &ProgramHeader) -> bool {
        let flags = segment.p_flags;
        match self {
            Loads::Constants => flags & (PF_W | PF_X) == 0,
            Loads::Writable => flags & PF_W != 0,
            Loads::Code => flags & (PF_W | PF_X) == PF_X,
        }
    }
}

impl Elf<'_> {
    /// Where constants are: in files whose code is not linked apart, in the first segment with it.
    pub(in crate::discovery) fn constants(&self) -> impl Iterator<Item = Loads> {
        let together = self
            .loads()
            .any(|segment| Loads::Code.has(segment) && segment.p_offset == 0);
        let places = [Some(Loads::Constants), together.then_some(Loads::Code)];
        places.into_iter().flatten()
    }

    /// Calls `accept` with the address of each occurrence of `wanted` and the bytes from there on,
    /// until it returns some. Looks at the first `most` bytes of each segment, and takes what it
    /// looked at from `budget`.
    pub(in crate::discovery) fn search<T>(
        &self,
        wanted: &[u8],
        loads: Loads,
        most: u64,
        budget: &mut u64,
        mut accept: impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Option<T> {
        let finder = Finder::new(wanted);
        let mut buf = Vec::new();
        for segment in self.loads().filter(|segment| loads.has(segment)) {
            let len = segment.p_filesz.min(most).min(*budget);
            *budget -= len;
            buf.resize(SEARCH_STEP + MAX_FOUND, 0);
            for step in (0..len).step_by(SEARCH_STEP) {
                // What begins in this step may end in the next one.
                let rest = usize::try_from(len - step).unwrap_or(usize::MAX);
                let buf = buf.get_mut(..rest.min(SEARCH_STEP + MAX_FOUND))?;
                let read = self.content.copy(segment.p_offset.checked_add(step)?, buf);
                let bytes = buf.get(..read)?;
                let found = finder
                    .find_iter(bytes)
                    .take_while(|at| *at < SEARCH_STEP)
                    .filter_map(|at| {
                        let vaddr = segment.p_vaddr.checked_add(step)?;
                        accept(vaddr.checked_add(at as u64)?, bytes.get(at..)?)
                    })
                    .next();
                if found.is_some() {
                    return found;
                }
                if read < buf.len() {
                    break;
                }
            }
        }
        None
    }
}
