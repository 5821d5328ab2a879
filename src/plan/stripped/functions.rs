//! The functions around given places in code: where they begin, and their instructions.
//!
//! By the table for unwinding where it has them. Compilers may be told to leave that out; then by
//! where calls go and by the padding between functions, and a beginning counts only when following
//! the code from there leads to the place.

use crate::discovery::elf::{Elf, Machine};
use crate::plan::disasm::{Decoder, Insn, Kind};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Bytes and instructions of a function that are looked at, at most.
const MAX_FUNCTION: u64 = 32 << 10;
const MAX_INSNS: usize = 6000;
/// Beginnings tried for one place, the nearest first.
const MAX_TRIES: usize = 24;
/// Compilers align functions to 16 bytes on x86-64, unless they optimise for size; those of arm64 to
/// 4 at least.
const MIN_ALIGNMENT: u64 = 4;
/// `int3`, with which linkers fill up between functions.
const PADDING: u8 = 0xcc;
/// Places of code are marked by pages of this size.
const PAGE: u64 = 4096;

/// A function.
#[derive(Debug)]
pub struct Function {
    pub start: u64,
    pub end: u64,
    /// In ascending order.
    pub insns: Vec<Insn>,
}

/// The functions that the places, in ascending order, are in. Places of which no function is found
/// are left out.
pub fn around(elf: &Elf<'_>, decoder: &Decoder, places: &[u64]) -> Vec<Function> {
    let frames = elf.frames();
    let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
    let mut others = Vec::new();
    for place in places {
        if functions.values().any(|f| (f.start..f.end).contains(place)) {
            continue;
        }
        match frames
            .as_ref()
            .and_then(|frames| elf.frame_around(frames, *place))
        {
            Some(range) => {
                let size = (range.end - range.start).min(MAX_FUNCTION);
                let mut insns = Vec::new();
                let code = elf.code(range.start, size).unwrap_or_default();
                decoder.sweep(code, range.start, |insn| insns.push(insn.clone()));
                let function = Function {
                    start: range.start,
                    end: range.end,
                    insns,
                };
                functions.insert(range.start, function);
            }
            None => others.push(*place),
        }
    }
    if !others.is_empty() {
        let starts = Starts::near(elf, &others);
        for place in others {
            if functions.values().any(|f| covers(&f.insns, place)) {
                continue;
            }
            if let Some(function) = starts.function(elf, decoder, place) {
                functions.entry(function.start).or_insert(function);
            }
        }
    }
    functions.into_values().collect()
}

/// Whether the place is one of these instructions, or within one.
fn covers(insns: &[Insn], place: u64) -> bool {
    let index = insns.partition_point(|insn| insn.addr <= place);
    let before = index.checked_sub(1).and_then(|index| insns.get(index));
    before.is_some_and(|insn| place < insn.next())
}

/// Where functions may begin.
struct Starts(BTreeSet<u64>);

impl Starts {
    /// Those up to [`MAX_FUNCTION`] bytes before the places.
    fn near(elf: &Elf<'_>, places: &[u64]) -> Starts {
        let pages: HashSet<u64> = places
            .iter()
            .flat_map(|place| place.saturating_sub(MAX_FUNCTION) / PAGE..=place / PAGE)
            .collect();
        let mut called = BTreeSet::new();
        elf.transfers(|transfer| {
            let to = transfer.to;
            if !pages.contains(&(to / PAGE)) || !to.is_multiple_of(MIN_ALIGNMENT) {
                return;
            }
            // Compilers align within functions too, but fill up with other instructions.
            if transfer.is_call || is_padding_before(elf, to) {
                called.insert(to);
            }
        });
        Starts(called)
    }

    fn function(&self, elf: &Elf<'_>, decoder: &Decoder, place: u64) -> Option<Function> {
        let near = self.0.range(place.saturating_sub(MAX_FUNCTION)..=place);
        near.rev()
            .take(MAX_TRIES)
            .filter_map(|start| self.explore(elf, decoder, *start))
            .find(|function| covers(&function.insns, place))
    }

    /// Follows the code from a beginning on, up to other beginnings.
    fn explore(&self, elf: &Elf<'_>, decoder: &Decoder, start: u64) -> Option<Function> {
        let code = elf.code(start, MAX_FUNCTION)?;
        let end = start.checked_add(code.len() as u64)?;
        let mut insns = BTreeMap::new();
        let mut waiting = vec![start];
        while let Some(mut at) = waiting.pop() {
            while at == start || !self.0.contains(&at) {
                if insns.contains_key(&at) || insns.len() >= MAX_INSNS {
                    break;
                }
                let rest = code.get(usize::try_from(at.checked_sub(start)?).ok()?..);
                let Some(insn) = rest.and_then(|rest| decoder.decode(rest, at)) else {
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

fn is_padding_before(elf: &Elf<'_>, at: u64) -> bool {
    let before = at.checked_sub(1).and_then(|before| elf.code(before, 1));
    elf.machine() == Machine::X86_64 && before == Some(&[PADDING])
}
