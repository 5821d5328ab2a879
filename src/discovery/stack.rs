//! The stack of a sleeping thread of another process: which functions it is in, read from its
//! memory by the unwinding tables of the files that it has mapped.

use crate::discovery::content::SparseFile;
use crate::discovery::elf::Elf;
use crate::discovery::elf::unwinding::{Registers, Unwinding};
use crate::discovery::{Mapping, ProcFs};
use anyhow::{Context, Result};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Functions from the system call to the read that it serves, at most; OpenSSL has nine.
const MAX_FRAMES: usize = 32;
/// Memory is read and kept in pieces of this size.
const PAGE: u64 = 4096;
/// Most pages kept of one process.
const MAX_PAGES: usize = 4096;

/// The memory of a process.
#[derive(Debug)]
pub struct Memory {
    file: File,
    pages: RefCell<HashMap<u64, Option<Vec<u8>>>>,
}

impl Memory {
    /// # Errors
    /// The process has gone, or may not be looked into.
    pub fn open(procfs: &ProcFs, pid: u32) -> Result<Memory> {
        Ok(Memory {
            file: procfs.open_memory(pid)?,
            pages: RefCell::default(),
        })
    }

    pub fn u64(&self, at: u64) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    pub fn u32(&self, at: u64) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let mut missing = bytes.as_mut_slice();
        let mut from = at;
        while !missing.is_empty() {
            let copied = self.copy(from, missing)?;
            missing = missing.get_mut(copied..)?;
            from = from.checked_add(copied as u64)?;
        }
        Some(bytes)
    }

    /// Fills `to` up to the end of a page; the number of bytes, at least one.
    fn copy(&self, at: u64, to: &mut [u8]) -> Option<usize> {
        let start = at - at % PAGE;
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= MAX_PAGES {
            pages.clear();
        }
        let page = pages.entry(start).or_insert_with(|| {
            let mut page = vec![0; usize::try_from(PAGE).ok()?];
            self.file.read_exact_at(&mut page, start).ok()?;
            Some(page)
        });
        let rest = page.as_ref()?.get(usize::try_from(at - start).ok()?..)?;
        let pairs = to.iter_mut().zip(rest);
        Some(pairs.map(|(to, from)| *to = *from).count())
    }
}

/// Files of a process that are opened when they are needed; see [`Space`].
#[derive(Debug, Default)]
pub struct Files(Vec<OnceCell<Option<File>>>);

impl Files {
    pub fn of(mappings: &[Mapping]) -> Files {
        Files(mappings.iter().map(|_| OnceCell::new()).collect())
    }
}

/// What is read of them.
#[derive(Debug)]
pub struct Contents<'a>(Vec<OnceCell<Option<SparseFile<'a>>>>);

impl Contents<'_> {
    pub fn of(files: &Files) -> Self {
        Contents(files.0.iter().map(|_| OnceCell::new()).collect())
    }
}

/// The code that a process has mapped.
pub struct Space<'a> {
    procfs: &'a ProcFs,
    pid: u32,
    mappings: &'a [Mapping],
    files: &'a Files,
    contents: &'a Contents<'a>,
    modules: Vec<OnceCell<Option<Module<'a>>>>,
    pub memory: Memory,
}

impl std::fmt::Debug for Space<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").finish_non_exhaustive()
    }
}

/// A file with code, where the process has it.
#[derive(Debug)]
pub struct Module<'a> {
    pub mapping: &'a Mapping,
    pub file: &'a File,
    pub elf: Elf<'a>,
    pub unwinding: Unwinding<'a>,
    /// What an address in the process has more than in the file.
    bias: u64,
}

impl Module<'_> {
    pub fn vaddr(&self, address: u64) -> u64 {
        address.wrapping_sub(self.bias)
    }
}

/// A function that has not returned yet.
#[derive(Debug)]
pub struct Frame<'s, 'a> {
    pub module: &'s Module<'a>,
    pub function: Range<u64>,
    /// Where it goes on, as an address in the file: what its callee returns to.
    pub goes_on: u64,
    /// What the registers held there as far as they were kept.
    pub registers: Registers,
    /// The stack pointer at its entry, where its own return address is.
    pub entry: u64,
    /// That return address.
    pub returns_to: u64,
}

impl<'a> Space<'a> {
    /// # Errors
    /// As [`Memory::open`].
    pub fn new(
        procfs: &'a ProcFs,
        pid: u32,
        mappings: &'a [Mapping],
        files: &'a Files,
        contents: &'a Contents<'a>,
    ) -> Result<Space<'a>> {
        let memory = Memory::open(procfs, pid).with_context(|| format!("look into {pid}"))?;
        Ok(Space {
            procfs,
            pid,
            mappings,
            files,
            contents,
            modules: mappings.iter().map(|_| OnceCell::new()).collect(),
            memory,
        })
    }

    /// The file whose code is at an address of the process.
    pub fn module(&self, address: u64) -> Option<&Module<'a>> {
        let index = self
            .mappings
            .iter()
            .position(|mapping| (mapping.start..mapping.end).contains(&address))?;
        self.modules
            .get(index)?
            .get_or_init(|| self.open(index))
            .as_ref()
    }

    fn open(&self, index: usize) -> Option<Module<'a>> {
        let mapping = self.mappings.get(index)?;
        let open = || self.procfs.open_mapping(self.pid, mapping).ok();
        let file = self.files.0.get(index)?.get_or_init(open).as_ref()?;
        let content = self.contents.0.get(index)?;
        let content = content
            .get_or_init(|| SparseFile::new(file).ok())
            .as_ref()?;
        let elf = Elf::open(content).ok()?;
        let bias = mapping.start.wrapping_sub(elf.code_at(mapping.offset)?);
        let unwinding = elf.unwinding()?;
        Some(Module {
            mapping,
            file,
            elf,
            unwinding,
            bias,
        })
    }

    /// The functions that a thread with these registers is in, innermost first, up to the first
    /// whose caller is not known for certain.
    pub fn frames(&self, registers: Registers) -> impl Iterator<Item = Frame<'_, 'a>> {
        let mut at = Some(registers);
        let mut is_innermost = true;
        std::iter::from_fn(move || {
            let registers = at.take()?;
            let module = self.module(registers.ip)?;
            let goes_on = module.vaddr(registers.ip);
            // A call may be the last instruction of its function.
            let inside = goes_on.checked_sub(u64::from(!is_innermost))?;
            is_innermost = false;
            let function = module.unwinding.function(inside)?;
            let read = |address| self.memory.u64(address);
            let (caller, above) = module.unwinding.caller(inside, &registers, &read)?;
            // The stack grows downwards: a caller's part lies higher.
            if above <= registers.general[4]? {
                return None;
            }
            at = Some(caller);
            Some(Frame {
                module,
                function,
                goes_on,
                registers,
                entry: above.checked_sub(8)?,
                returns_to: caller.ip,
            })
        })
        .take(MAX_FRAMES)
    }
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
