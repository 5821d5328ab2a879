//! Finds a cheaper place than `ret` to learn what a Go function returns.
//!
//! `(*Conn).Read` and `Write` unlock in deferred calls, and a function with defers keeps its results
//! in its frame while those run. So a deferred function that is called on the way to a `ret` can be
//! probed at an instruction that the kernel emulates, and the result is where the epilogue will load
//! it from: src/cmd/compile/internal/ssagen/ssa.go (`openDeferExit`).
//! The runtime calls deferred functions too, in a panic; the return address tells.
//!
//! Only x86-64 gains: arm64's kernel emulates `ret`.

use crate::discovery::elf::Elf;
use crate::discovery::golang::GoFunction;
use crate::plan::disasm::{Condition, Decoder, Insn, Kind, Mem, Op, Operand, Reg};
use crate::plan::site::cost;
use crate::plan::{Deferred, SiteCost};
use std::collections::{BTreeMap, HashSet};

/// The register of a closure's context (src/cmd/compile/abi-internal.md).
const CONTEXT: Reg = Reg::RDX;
/// From a `ret` back to the first of the deferred calls before it.
const MAX_EXIT: usize = 32;
/// From the address of a function or of a closure to where it is stored.
const MAX_APART: usize = 4;
/// Instructions of a deferred function up to its probe.
const MAX_PROLOGUE: usize = 12;

/// What a deferred call and the `ret` after it have to do with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Exit {
    /// Where the pointer to the closure that is called is.
    closure: i64,
    /// Where the result is.
    slot: i64,
    /// Bytes from the stack pointer in the frame to the return address.
    frame: i64,
}

/// The probe in place of those on some `ret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Address of the instruction.
    pub vaddr: u64,
    pub reason: String,
    pub facts: Deferred,
    /// Addresses of the `ret` that need no probe.
    pub covers: Vec<u64>,
}

/// `inner` are the functions that belong to this one: `….func1`, `….deferwrap2`.
pub(super) fn plan(
    elf: &Elf<'_>,
    decoder: &Decoder,
    function: &GoFunction,
    code: &[u8],
    inner: &[&GoFunction],
) -> Option<Planned> {
    let body = Body::new(decoder, code, function.vaddr);
    let mut exits: BTreeMap<Exit, Vec<u64>> = BTreeMap::new();
    for (at, insn) in body.insns.iter().enumerate() {
        if insn.kind == Kind::Ret {
            for exit in body.exits(at) {
                exits.entry(exit).or_default().push(insn.addr);
            }
        }
    }
    let mut exits: Vec<_> = exits.into_iter().collect();
    exits.sort_by_key(|(_, rets)| std::cmp::Reverse(rets.len()));
    exits.into_iter().find_map(|(exit, covers)| {
        let deferred = body.function_at(body.closure_at(exit.closure)?)?;
        let deferred = inner.iter().find(|f| f.vaddr == deferred)?;
        let site = site(elf, decoder, deferred)?;
        // Called on no other way, where the result may not be final.
        if body.takes_address(exit.slot) || body.loads_of(exit.closure) != covers.len() {
            return None;
        }
        Some(Planned {
            vaddr: site.vaddr,
            reason: format!(
                "{} in {}, deferred, emulated by the kernel",
                site.text, deferred.name
            ),
            facts: facts(exit, &site, function, code)?,
            covers,
        })
    })
}

fn facts(exit: Exit, site: &DeferredSite, function: &GoFunction, code: &[u8]) -> Option<Deferred> {
    let to_frame = site.to_return.checked_add(8)?;
    let caller = function.vaddr.cast_signed() - site.vaddr.cast_signed();
    Some(Deferred {
        to_return: u32::try_from(site.to_return).ok()?,
        to_entry: u32::try_from(to_frame.checked_add(exit.frame)?).ok()?,
        to_result: u32::try_from(to_frame.checked_add(exit.slot)?).ok()?,
        caller: i32::try_from(caller).ok()?,
        caller_size: u32::try_from(code.len()).ok()?,
    })
}

struct Body {
    insns: Vec<Insn>,
    /// Addresses that a jump leads to.
    targets: HashSet<u64>,
}

impl Body {
    fn new(decoder: &Decoder, code: &[u8], vaddr: u64) -> Body {
        let mut insns = Vec::new();
        let mut targets = HashSet::new();
        decoder.sweep(code, vaddr, |insn| {
            if let Kind::Branch(to) | Kind::Jump(to) = insn.kind {
                targets.insert(to);
            }
            insns.push(insn.clone());
        });
        Body { insns, targets }
    }

    /// The deferred calls that are made, each of them for certain, right before the `ret` that is
    /// instruction `ret`, once its result is final.
    fn exits(&self, ret: usize) -> Vec<Exit> {
        let mut exits = Vec::new();
        let Some(epilogue) = self.epilogue(ret) else {
            return exits;
        };
        let mut at = epilogue.begins;
        while at > ret.saturating_sub(MAX_EXIT) {
            let Some(insn) = at.checked_sub(1).and_then(|before| self.insns.get(before)) else {
                break;
            };
            // Whatever follows it here is not only reached through it.
            if self.insns.get(at).is_none_or(|next| self.is_target(next)) {
                break;
            }
            if insn.kind == Kind::CallIndirect {
                let Some(closure) = self.closure_called(at - 1) else {
                    break;
                };
                exits.push(Exit {
                    closure,
                    slot: epilogue.slot,
                    frame: epilogue.frame,
                });
            } else if !leaves_alone(insn, epilogue.slot) {
                break;
            }
            at -= 1;
        }
        exits
    }

    /// What the instructions before a `ret` do, from after the last call on.
    fn epilogue(&self, ret: usize) -> Option<Epilogue> {
        let window = self.insns.get(ret.saturating_sub(MAX_EXIT)..ret)?;
        let last = window.iter().rposition(|i| i.kind == Kind::CallIndirect)?;
        let begins = ret - window.len() + last + 1;
        let mut registers = Registers::default();
        for insn in self.insns.get(begins..ret)? {
            if self.is_target(insn) {
                return None;
            }
            registers.step(insn)?;
        }
        let is_reached = self.insns.get(ret).is_some_and(|ret| !self.is_target(ret));
        Some(Epilogue {
            begins,
            slot: *registers.slots.get(&Reg::RAX).filter(|_| is_reached)?,
            frame: registers.popped,
        })
    }

    /// Where in the frame the pointer to the closure is that is called at instruction `at`.
    fn closure_called(&self, at: usize) -> Option<i64> {
        let [load_context, load_code, call] = self.insns.get(at.checked_sub(2)?..=at)? else {
            return None;
        };
        let closure = in_frame(load_context).filter(|_| loads(load_context, CONTEXT))?;
        let code = load_code.mem()?;
        let is_call = code.base == Some(CONTEXT)
            && code.disp == 0
            && !code.complex
            && matches!(call.operands[0], Some(Operand::Reg(reg, 8)) if loads(load_code, reg));
        let is_whole = !self.is_target(load_code) && !self.is_target(call);
        (is_call && is_whole).then_some(closure.disp)
    }

    fn is_target(&self, insn: &Insn) -> bool {
        self.targets.contains(&insn.addr)
    }

    /// Whether anyone may be given the address of that place in the frame, or of one below it.
    fn takes_address(&self, slot: i64) -> bool {
        self.insns.iter().any(|insn| {
            let to_frame_pointer = insn.writes.contains(Reg::RBP);
            match insn.op {
                Op::Lea => insn.mem().is_some_and(|mem| match mem.base {
                    Some(Reg::RSP) => !to_frame_pointer && (0..=slot).contains(&mem.disp),
                    Some(Reg::RBP) => true,
                    _ => false,
                }),
                Op::Mov => {
                    matches!(insn.operands[1], Some(Operand::Reg(Reg::RSP, _))) && !to_frame_pointer
                }
                _ => false,
            }
        })
    }

    fn loads_of(&self, place: i64) -> usize {
        let loads = |i: &&Insn| !i.stores && in_frame(i).is_some_and(|mem| mem.disp == place);
        self.insns.iter().filter(loads).count()
    }

    /// Where in the frame the closure is whose address is stored at `place`.
    fn closure_at(&self, place: i64) -> Option<i64> {
        let mem = self.stored_address(place)?;
        (mem.base == Some(Reg::RSP) && !mem.complex).then_some(mem.disp)
    }

    /// The function whose address is stored at `place`.
    fn function_at(&self, place: i64) -> Option<u64> {
        let mem = self.stored_address(place)?;
        mem.rip_relative.then(|| mem.disp.cast_unsigned())
    }

    /// The one address that is ever stored at that place of the frame. Zeros are, too, however
    /// made.
    fn stored_address(&self, place: i64) -> Option<Mem> {
        let mut found: Option<Mem> = None;
        for (at, insn) in self.insns.iter().enumerate() {
            let is_store = insn.stores && in_frame(insn).is_some_and(|mem| mem.disp == place);
            if !is_store || matches!(insn.operands[1], Some(Operand::Other | Operand::Imm(0))) {
                continue;
            }
            let Some(Operand::Reg(stored, 8)) = insn.operands[1] else {
                return None;
            };
            let before = self.insns.get(at.saturating_sub(MAX_APART)..at)?;
            let made = before.iter().rev().find(|i| i.writes.contains(stored))?;
            if made.op == Op::Mov && made.operands[1] == Some(Operand::Imm(0)) {
                continue;
            }
            let mem = made.mem().filter(|_| made.op == Op::Lea)?;
            if found.is_some_and(|other| other != mem) {
                return None;
            }
            found = Some(mem);
        }
        found
    }
}

/// The operand in memory, where it is at a fixed place of the frame.
fn in_frame(insn: &Insn) -> Option<Mem> {
    insn.mem()
        .filter(|mem| mem.base == Some(Reg::RSP) && !mem.complex)
}

fn loads(insn: &Insn, to: Reg) -> bool {
    insn.op == Op::Mov
        && matches!(insn.operands[0], Some(Operand::Reg(reg, 8)) if reg == to)
        && insn.mem().is_some_and(|mem| mem.size == 8)
}

/// Whether what is at that place of the frame is surely the same after the instruction.
fn leaves_alone(insn: &Insn, slot: i64) -> bool {
    let elsewhere = |mem: Mem| {
        let end = mem.disp.saturating_add(mem.size.into());
        mem.size != 0 && (end <= slot || mem.disp >= slot.saturating_add(8))
    };
    matches!(insn.kind, Kind::Other | Kind::Nop)
        && !insn.writes.contains(Reg::RSP)
        && (!insn.stores || in_frame(insn).is_some_and(elsewhere))
}

#[derive(Clone, Copy, Debug)]
struct Epilogue {
    /// Which instruction is its first.
    begins: usize,
    /// Where in the frame the result is.
    slot: i64,
    /// Bytes from the stack pointer in the frame to the return address.
    frame: i64,
}

/// What the instructions of an epilogue have done so far.
#[derive(Default)]
struct Registers {
    /// From which place of the frame a register was loaded.
    slots: BTreeMap<Reg, i64>,
    /// How far the stack pointer has moved.
    popped: i64,
}

impl Registers {
    fn step(&mut self, insn: &Insn) -> Option<()> {
        if insn.stores || !matches!(insn.kind, Kind::Other | Kind::Nop) {
            return None;
        }
        let loaded = match (insn.op, insn.operands) {
            (Op::Pop, _) if !insn.writes.contains(Reg::RSP) => return None,
            (Op::Pop, _) => {
                self.popped = self.popped.checked_add(8)?;
                None
            }
            (
                Op::Add,
                [
                    Some(Operand::Reg(Reg::RSP, 8)),
                    Some(Operand::Imm(bytes)),
                    _,
                ],
            ) => {
                self.popped = self.popped.checked_add(bytes)?;
                return Some(());
            }
            _ if insn.writes.contains(Reg::RSP) => return None,
            (Op::Mov, [Some(Operand::Reg(to, 8)), Some(Operand::Reg(from, 8)), _]) => {
                self.slots.get(&from).map(|slot| (to, *slot))
            }
            (Op::Mov, [Some(Operand::Reg(to, 8)), Some(Operand::Mem(_)), _]) => {
                let place = in_frame(insn).filter(|mem| mem.size == 8);
                place.map(|mem| (to, mem.disp + self.popped))
            }
            _ => None,
        };
        self.slots.retain(|reg, _| !insn.writes.contains(*reg));
        self.slots.extend(loaded);
        Some(())
    }
}

struct DeferredSite {
    vaddr: u64,
    text: String,
    /// Bytes from the stack pointer to the return address.
    to_return: i64,
}

/// The first instruction of the function that the kernel emulates and each call passes once. The
/// branch of the stack check is none: it is passed again after the stack has grown.
fn site(elf: &Elf<'_>, decoder: &Decoder, function: &GoFunction) -> Option<DeferredSite> {
    let code = elf.code(function.vaddr, function.size.min(4096))?;
    let body = Body::new(decoder, code, function.vaddr);
    let mut to_return = 0i64;
    for insn in body.insns.iter().take(MAX_PROLOGUE) {
        let begins = insn.addr == function.vaddr;
        if !begins && body.is_target(insn) {
            return None;
        }
        let grows = insn.op == Op::Jump(Condition::BelowEqual);
        let offset = usize::try_from(insn.addr - function.vaddr).ok()?;
        let bytes = code.get(offset..offset.checked_add(insn.len.into())?)?;
        // A nop of 5 bytes becomes a call, out of what Go's runtime knows as code.
        if !grows && cost::of(decoder.machine, insn, bytes) == Some(SiteCost::Emulated) {
            return Some(DeferredSite {
                vaddr: insn.addr,
                text: decoder.text(bytes, insn.addr),
                to_return,
            });
        }
        match (insn.op, insn.operands) {
            (
                Op::Sub,
                [
                    Some(Operand::Reg(Reg::RSP, 8)),
                    Some(Operand::Imm(bytes)),
                    _,
                ],
            ) => {
                to_return = to_return.checked_add(bytes)?;
            }
            _ if insn.writes.contains(Reg::RSP) => return None,
            _ if grows || matches!(insn.kind, Kind::Other | Kind::Nop | Kind::Endbr) => {}
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
#[path = "deferred_tests.rs"]
mod tests;
