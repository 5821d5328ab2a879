//! The functions around given places in code: where they begin, and their instructions.
//!
//! By the table for unwinding where it has them. Compilers may be told to leave that out; then by
//! where calls go and by the padding between functions, and a beginning counts only when following
//! the code from there leads to the place.

use crate::discovery::elf::Elf;
use crate::discovery::elf::frames::Frames;
use crate::discovery::elf::starts::Starts;
use crate::plan::disasm::{Decoder, Insn, Kind};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes and instructions of a function that are looked at, at most.
const MAX_FUNCTION: u64 = 32 << 10;
const MAX_INSNS: usize = 6000;
/// Beginnings tried for one place, the nearest first.
const MAX_TRIES: usize = 24;

/// A function.
#[derive(Debug)]
pub struct Function {
    pub start: u64,
    pub end: u64,
    /// In ascending order.
    pub insns: Vec<Insn>,
}

/// The functions of a file.
#[derive(Debug)]
pub struct Functions<'e, 'a> {
    pub elf: &'e Elf<'a>,
    pub decoder: &'e Decoder,
    frames: Option<Frames>,
    starts: OnceCell<Starts>,
}

impl<'e, 'a> Functions<'e, 'a> {
    pub fn of(elf: &'e Elf<'a>, decoder: &'e Decoder) -> Functions<'e, 'a> {
        Functions {
            elf,
            decoder,
            frames: elf.frames(),
            starts: OnceCell::new(),
        }
    }

    fn starts(&self) -> &Starts {
        self.starts.get_or_init(|| self.elf.starts())
    }

    /// Those that the places, in ascending order, are in. Places of which no function is found are
    /// left out.
    pub fn around(&self, places: &[u64]) -> Vec<Function> {
        let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
        let mut others = Vec::new();
        for place in places {
            if functions.values().any(|f| (f.start..f.end).contains(place)) {
                continue;
            }
            match self.framed(*place) {
                Some(function) => {
                    functions.insert(function.start, function);
                }
                None => others.push(*place),
            }
        }
        for place in others {
            if functions.values().any(|f| covers(&f.insns, place)) {
                continue;
            }
            if let Some(function) = self.explored(place) {
                functions.entry(function.start).or_insert(function);
            }
        }
        functions.into_values().collect()
    }

    /// Where the function begins that the place is in.
    pub fn start_around(&self, place: u64) -> Option<u64> {
        let frame = self.frame(place).map(|range| range.start);
        frame.or_else(|| Some(self.explored(place)?.start))
    }

    /// How many bytes the function has that begins here.
    pub fn size(&self, start: u64) -> u64 {
        if let Some(range) = self.frame(start).filter(|range| range.start == start) {
            return range.end - start;
        }
        // Of a file with symbols there is no need to follow the code.
        if self.elf.names_own_functions() {
            return self.elf.extent(start);
        }
        let function = self.explore(start);
        function.map_or_else(|| self.elf.extent(start), |f| f.end.saturating_sub(start))
    }

    fn frame(&self, place: u64) -> Option<Range<u64>> {
        self.elf.frame_around(self.frames.as_ref()?, place)
    }

    fn framed(&self, place: u64) -> Option<Function> {
        let range = self.frame(place)?;
        let size = (range.end - range.start).min(MAX_FUNCTION);
        let mut insns = Vec::new();
        let code = self.elf.code(range.start, size).unwrap_or_default();
        self.decoder
            .sweep(code, range.start, |insn| insns.push(insn.clone()));
        Some(Function {
            start: range.start,
            end: range.end,
            insns,
        })
    }

    fn explored(&self, place: u64) -> Option<Function> {
        let near = self.starts().before(place, MAX_FUNCTION);
        near.take(MAX_TRIES)
            .filter_map(|start| self.explore(start))
            .find(|function| covers(&function.insns, place))
    }

    /// Follows the code from a beginning on, up to other beginnings.
    fn explore(&self, start: u64) -> Option<Function> {
        let code = self.elf.code(start, MAX_FUNCTION)?;
        let end = start.checked_add(code.len() as u64)?;
        let mut insns = BTreeMap::new();
        let mut waiting = vec![start];
        while let Some(mut at) = waiting.pop() {
            while at == start || !self.starts().contains(at) {
                if insns.contains_key(&at) || insns.len() >= MAX_INSNS {
                    break;
                }
                let rest = code.get(usize::try_from(at.checked_sub(start)?).ok()?..);
                let Some(insn) = rest.and_then(|rest| self.decoder.decode(rest, at)) else {
                    break;
                };
                let next = insn.next();
                let (kind, inside) = (insn.kind, start..end);
                insns.insert(at, insn);
                match kind {
                    Kind::Branch(to) if inside.contains(&to) => waiting.push(to),
                    Kind::Jump(to) if inside.contains(&to) => {
                        at = to;
                        continue;
                    }
                    Kind::Jump(_) | Kind::JumpIndirect | Kind::Ret | Kind::Trap => break,
                    _ => {}
                }
                at = next;
            }
        }
        let insns: Vec<Insn> = insns.into_values().collect();
        let end = insns.last()?.next();
        Some(Function { start, end, insns })
    }
}

/// Whether the place is one of these instructions, or within one.
fn covers(insns: &[Insn], place: u64) -> bool {
    let index = insns.partition_point(|insn| insn.addr <= place);
    let before = index.checked_sub(1).and_then(|index| insns.get(index));
    before.is_some_and(|insn| place < insn.next())
}
