//! The names of source files and functions that code hands to its library's list of errors.

use super::search::{Loads, MAX_FOUND};
use super::{Elf, c_string};
use goblin::elf::program_header::ProgramHeader;
use std::ops::Range;

/// Longest path before the name that is looked for.
const MAX_PATH: u64 = 256;
/// Most places given: one for each copy of the library in the file.
const MAX_SOURCES: usize = 8;
/// Most bytes searched: a browser's constants are 80 MB.
const MAX_SEARCH: u64 = 256 << 20;

impl<'a> Elf<'a> {
    /// Where text ends in the name of a source file, `ssl_lib.c`, or in that name with one more
    /// `c`: the addresses of its characters, and whether there is one more.
    pub fn sources(&self, name: &str) -> Vec<(Range<u64>, bool)> {
        debug_assert!(name.len() + 2 < MAX_FOUND);
        let mut found = Vec::new();
        let mut budget = MAX_SEARCH;
        for loads in self.constants() {
            self.search(
                name.as_bytes(),
                loads,
                u64::MAX,
                &mut budget,
                |at, bytes| -> Option<()> {
                    let is_longer = match bytes.get(name.len()..)? {
                        [0, ..] => false,
                        [b'c', 0, ..] => true,
                        _ => return None,
                    };
                    found.push((at, is_longer));
                    (found.len() >= MAX_SOURCES).then_some(())
                },
            );
        }
        let whole = |(at, is_longer): (u64, bool)| (self.path_before(at)..at + 1, is_longer);
        found.into_iter().map(whole).collect()
    }

    /// Where the path begins whose last part is at `at`.
    fn path_before(&self, at: u64) -> u64 {
        let holds = |s: &&ProgramHeader| at >= s.p_vaddr && at - s.p_vaddr < s.p_filesz;
        let first = self.loads().find(holds).map_or(at, |s| s.p_vaddr);
        let start = at.saturating_sub(MAX_PATH).max(first);
        let bytes = self.loaded(start, at - start).unwrap_or_default();
        let path = bytes.iter().rev().take_while(|b| matches!(b, b' '..=b'~'));
        at - path.count() as u64
    }

    /// The text at `vaddr`, up to a NUL that must come within `longest` bytes. Foreign.
    pub fn text_at(&self, vaddr: u64, longest: usize) -> Option<&'a str> {
        c_string(self.loaded(vaddr, longest as u64)?, 0, longest)
    }

    /// Bytes of code in the file.
    pub fn code_size(&self) -> u64 {
        let code = self.loads().filter(|segment| Loads::Code.has(segment));
        code.fold(0, |sum, segment| sum.saturating_add(segment.p_filesz))
    }
}
