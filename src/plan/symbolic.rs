//! Executes small functions with unknown arguments, to see what they load, store, call and return.
//!
//! Every path is followed, within bounds. A value is known when it is a constant or an argument,
//! the stack pointer or something loaded through them, plus a constant; everything else is
//! unknown, and unknown is never a fact.

use crate::discovery::elf::Elf;
use crate::plan::disasm::{Decoder, Insn, Kind, Mem, Op, Operand, Reg};
use std::collections::{HashMap, HashSet};

/// Different instructions decoded, instructions executed and paths finished, at most. Getters
/// need a tenth of it.
const MAX_INSNS: usize = 800;
const MAX_STEPS: usize = 5_000;
const MAX_PATHS: usize = 512;
/// Pointers followed from the handle to a field, at most.
const MAX_CHAIN: usize = 8;
/// Stack slots remembered on a path, at most: a getter saves six registers and a few locals.
const MAX_SLOTS: usize = 64;

/// What a value is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// Zero: the value is a constant.
    Zero,
    /// The argument (0-based) that the function was entered with.
    Arg(u8),
    /// The stack pointer at entry.
    Stack,
    /// What was loaded from memory: an index into [`Run::loads`].
    Load(u16),
    Unknown,
}

/// A base and a constant; for an unknown base the constant is always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    pub base: Base,
    pub plus: i64,
}

impl Value {
    const UNKNOWN: Value = Value {
        base: Base::Unknown,
        plus: 0,
    };

    fn constant(plus: i64) -> Value {
        Value {
            base: Base::Zero,
            plus,
        }
    }

    /// The function's argument `n`, unchanged.
    pub fn arg(n: u8) -> Value {
        Value {
            base: Base::Arg(n),
            plus: 0,
        }
    }

    fn add(self, plus: i64) -> Value {
        match self.base {
            Base::Unknown => self,
            base => Value {
                base,
                plus: self.plus.wrapping_add(plus),
            },
        }
    }
}

/// A load: from where and how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    pub from: Value,
    pub size: u8,
}

/// What the path had found out about the first int behind argument 0, which in OpenSSL ≥ 3.2 is
/// the type of the object (0: a TLS connection, otherwise QUIC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeCheck {
    None,
    IsZero,
    IsNotZero,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Callee {
    /// Code of this file.
    Local(u64),
    Import(String),
    /// Through a pointer.
    Unknown,
}

/// A call or a jump out of the function, with its six argument registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub callee: Callee,
    pub args: [Value; 6],
}

/// A store through argument `arg`, plus `plus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub arg: u8,
    pub plus: i64,
    pub value: Value,
    pub checked: TypeCheck,
}

/// Everything that was seen on all paths.
#[derive(Debug, Default)]
pub struct Run {
    pub loads: Vec<Load>,
    /// What is returned in rax.
    pub returns: HashSet<(Value, TypeCheck)>,
    pub stores: HashSet<Store>,
    pub calls: HashSet<Call>,
    /// Addresses changed by a locked instruction.
    pub locked: HashSet<Value>,
    /// Bounds ended the run early, or code was not understood: there may be more.
    pub incomplete: bool,
}

impl Run {
    /// Whether this is exactly something loaded with at most `bytes` bytes.
    fn fits(&self, value: Value, bytes: u8) -> bool {
        let Base::Load(index) = value.base else {
            return false;
        };
        let load = self.loads.get(usize::from(index));
        value.plus == 0 && load.is_some_and(|l| l.size <= bytes)
    }

    /// The loads that lead from argument 0 to `value`, outermost first, when it is exactly what
    /// was loaded last: `[8, 0x2c0]` for `arg0->x->y`; and how many bytes the last one read.
    pub fn chain(&self, value: Value) -> Option<(Vec<u32>, u8)> {
        let mut offsets = Vec::new();
        let mut size = None;
        let mut at = value;
        while let Base::Load(index) = at.base {
            match size {
                // The value itself must be what was loaded, not an address within it.
                None if at.plus != 0 => return None,
                None => {}
                Some(_) => offsets.push(u32::try_from(at.plus).ok()?),
            }
            let load = self.loads.get(usize::from(index))?;
            // Only eight bytes make a pointer that can be followed.
            if size.is_some() && load.size != 8 || offsets.len() > MAX_CHAIN {
                return None;
            }
            size.get_or_insert(load.size);
            at = load.from;
        }
        let size = size?;
        if at.base != Base::Arg(0) {
            return None;
        }
        offsets.push(u32::try_from(at.plus).ok()?);
        offsets.reverse();
        Some((offsets, size))
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    pc: u64,
    regs: [Value; 16],
    /// 8-byte slots of the stack that hold something known, by offset from the entry's rsp.
    slots: Vec<(i64, Value)>,
    /// What the last comparison compared: equal if the two are.
    compared: Option<(Value, Value)>,
    checked: TypeCheck,
}

/// Executes the function `[start, start + size)`. Jumps out of it end a path and count as calls.
pub fn execute(elf: &Elf<'_>, decoder: &Decoder, start: u64, size: u64) -> Run {
    let mut executor = Executor {
        elf,
        decoder,
        start,
        end: start.saturating_add(size),
        insns: HashMap::new(),
        run: Run::default(),
    };
    let mut regs = [Value::UNKNOWN; 16];
    for (n, reg) in (0..).zip(Reg::ARGS) {
        set(&mut regs, reg, Value::arg(n));
    }
    let stack = Value {
        base: Base::Stack,
        plus: 0,
    };
    set(&mut regs, Reg::RSP, stack);
    let mut waiting = vec![State {
        pc: start,
        regs,
        slots: Vec::new(),
        compared: None,
        checked: TypeCheck::None,
    }];
    let mut seen = HashSet::new();
    let (mut steps, mut paths) = (0, 0);
    while let Some(mut state) = waiting.pop() {
        paths += 1;
        if paths > MAX_PATHS {
            executor.run.incomplete = true;
            break;
        }
        loop {
            steps += 1;
            if steps > MAX_STEPS {
                executor.run.incomplete = true;
                return executor.run;
            }
            let Some(insn) = executor.fetch(state.pc) else {
                executor.run.incomplete = true;
                break;
            };
            match executor.step(&mut state, &insn) {
                Next::On => {}
                Next::End => break,
                Next::Fork(other) => {
                    if seen.insert((*other).clone()) {
                        waiting.push(*other);
                    }
                    // Paths that meet in the same state go the same way from there on.
                    if !seen.insert(state.clone()) {
                        break;
                    }
                }
            }
        }
    }
    executor.run
}

enum Next {
    On,
    End,
    Fork(Box<State>),
}

struct Executor<'e, 'a> {
    elf: &'e Elf<'a>,
    decoder: &'e Decoder,
    start: u64,
    end: u64,
    insns: HashMap<u64, Insn>,
    run: Run,
}

impl Executor<'_, '_> {
    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        if let Some(insn) = self.insns.get(&pc) {
            return Some(insn.clone());
        }
        if self.insns.len() >= MAX_INSNS {
            return None;
        }
        let insn = self.decoder.decode(self.elf.code(pc, 15)?, pc)?;
        self.insns.insert(pc, insn.clone());
        Some(insn)
    }

    fn step(&mut self, state: &mut State, insn: &Insn) -> Next {
        state.pc = insn.next();
        match insn.kind {
            Kind::Ret => {
                let result = get(&state.regs, Reg::RAX);
                self.run.returns.insert((result, state.checked));
                return Next::End;
            }
            Kind::Trap => return Next::End,
            Kind::JumpIndirect => {
                self.call(state, self.indirect(insn));
                return Next::End;
            }
            Kind::Jump(to) if (self.start..self.end).contains(&to) => {
                state.pc = to;
                return Next::On;
            }
            Kind::Jump(to) => {
                self.call(state, self.direct(to));
                return Next::End;
            }
            Kind::Branch(to) => return self.branch(state, insn, to),
            Kind::Call(to) => return self.call_and_return(state, self.direct(to)),
            Kind::CallIndirect => return self.call_and_return(state, self.indirect(insn)),
            Kind::Nop | Kind::Endbr => return Next::On,
            Kind::Push(_) | Kind::Other => {}
        }
        if insn.op == Op::Cmov {
            // Either it moves or it does not: two paths.
            let unmoved = state.clone();
            self.compute(state, insn, Op::Mov);
            return Next::Fork(Box::new(unmoved));
        }
        self.compute(state, insn, insn.op);
        Next::On
    }

    fn branch(&mut self, state: &mut State, insn: &Insn, to: u64) -> Next {
        let mut taken = state.clone();
        taken.pc = to;
        let mut certain = None;
        if let (Some((left, right)), Op::JumpEqual | Op::JumpNotEqual) = (state.compared, insn.op) {
            let jumps_if_equal = insn.op == Op::JumpEqual;
            if left.base == Base::Zero && right.base == Base::Zero {
                certain = Some((left.plus == right.plus) == jumps_if_equal);
            }
            if right == Value::constant(0) && self.is_type(left) {
                let (zero, other) = (TypeCheck::IsZero, TypeCheck::IsNotZero);
                let (of_taken, of_passed) = if jumps_if_equal {
                    (zero, other)
                } else {
                    (other, zero)
                };
                if state.checked != TypeCheck::None {
                    certain = Some(state.checked == of_taken);
                }
                (taken.checked, state.checked) = (of_taken, of_passed);
            }
        }
        // A jump out of the function (to its cold part) is followed here: it is still a branch.
        match certain {
            Some(true) => {
                *state = taken;
                Next::On
            }
            Some(false) => Next::On,
            None => Next::Fork(Box::new(taken)),
        }
    }

    /// Whether this is the int right behind argument 0.
    fn is_type(&self, value: Value) -> bool {
        let Base::Load(index) = value.base else {
            return false;
        };
        let load = self.run.loads.get(usize::from(index));
        value.plus == 0 && load.is_some_and(|l| l.from == Value::arg(0) && l.size == 4)
    }

    fn direct(&self, to: u64) -> Callee {
        match self.elf.import_at(to) {
            Some(name) => Callee::Import(name.to_owned()),
            None => Callee::Local(to),
        }
    }

    fn indirect(&self, insn: &Insn) -> Callee {
        let name = insn
            .mem()
            .filter(|m| m.rip_relative && !m.complex)
            .and_then(|m| self.elf.import_in_slot(m.disp.cast_unsigned()));
        name.map_or(Callee::Unknown, |n| Callee::Import(n.to_owned()))
    }

    fn call(&mut self, state: &State, callee: Callee) {
        let args = Reg::ARGS.map(|r| get(&state.regs, r));
        self.run.calls.insert(Call { callee, args });
    }

    fn call_and_return(&mut self, state: &mut State, callee: Callee) -> Next {
        const NEVER_RETURN: [&str; 4] =
            ["__stack_chk_fail", "abort", "__assert_fail", "OPENSSL_die"];
        if matches!(&callee, Callee::Import(name) if NEVER_RETURN.contains(&name.as_str())) {
            return Next::End;
        }
        self.call(state, callee);
        // What the callee was given a pointer to, it may have changed.
        for reg in Reg::ARGS {
            let pointer = get(&state.regs, reg);
            if pointer.base == Base::Stack {
                state.slots.retain(|(at, _)| (at - pointer.plus).abs() >= 8);
            }
        }
        for reg in [Reg::RAX, Reg::R10, Reg::R11].iter().chain(&Reg::ARGS) {
            set(&mut state.regs, *reg, Value::UNKNOWN);
        }
        state.compared = None;
        Next::On
    }

    /// Everything that is not about control: registers, stack slots, loads, stores.
    fn compute(&mut self, state: &mut State, insn: &Insn, op: Op) {
        let [first, second, _] = insn.operands;
        if insn.locked
            && let Some(mem) = insn.mem()
        {
            self.run.locked.insert(address(state, &mem));
        }
        let source = second.map_or(Value::UNKNOWN, |o| self.read(state, &o));
        let result = match op {
            Op::Mov | Op::Extend => narrowed(&self.run, source, first, second, op),
            Op::Lea => match second {
                Some(Operand::Mem(mem)) => address(state, &mem),
                _ => Value::UNKNOWN,
            },
            Op::Xor | Op::Sub if first.is_some() && first == second => Value::constant(0),
            Op::Add | Op::Sub if source.base == Base::Zero && is_wide(first) => {
                let amount = if op == Op::Add {
                    source.plus
                } else {
                    source.plus.wrapping_neg()
                };
                first.map_or(Value::UNKNOWN, |o| self.read(state, &o).add(amount))
            }
            Op::Push => {
                let value = first.map_or(Value::UNKNOWN, |o| self.read(state, &o));
                let top = get(&state.regs, Reg::RSP).add(-8);
                set(&mut state.regs, Reg::RSP, top);
                store_slot(state, top, 8, value);
                return;
            }
            Op::Pop => {
                let top = get(&state.regs, Reg::RSP);
                let value = slot(state, top);
                set(&mut state.regs, Reg::RSP, top.add(8));
                if let Some(Operand::Reg(reg, _)) = first {
                    set(&mut state.regs, reg, value);
                }
                return;
            }
            Op::Leave => {
                let frame = get(&state.regs, Reg::RBP);
                let callers = slot(state, frame);
                set(&mut state.regs, Reg::RBP, callers);
                set(&mut state.regs, Reg::RSP, frame.add(8));
                return;
            }
            Op::Cmp | Op::Test => {
                let left = first.map_or(Value::UNKNOWN, |o| self.read(state, &o));
                let known = left != Value::UNKNOWN && source != Value::UNKNOWN;
                state.compared = match op {
                    Op::Cmp if known => Some((left, source)),
                    Op::Test if known && first == second => Some((left, Value::constant(0))),
                    _ => None,
                };
                return;
            }
            _ => {
                // Reads that compute something unknown still say where fields are.
                if let Some(operand) = first {
                    self.read(state, &operand);
                }
                Value::UNKNOWN
            }
        };
        if !matches!(op, Op::Mov | Op::Extend | Op::Lea) {
            state.compared = None;
        }
        for reg in insn.writes.iter() {
            set(&mut state.regs, reg, Value::UNKNOWN);
        }
        match first {
            Some(Operand::Reg(reg, _)) if insn.writes.contains(reg) => {
                set(&mut state.regs, reg, result);
            }
            Some(Operand::Mem(mem)) if insn.stores => {
                let to = address(state, &mem);
                if let (Base::Arg(arg), Op::Mov) = (to.base, op) {
                    self.run.stores.insert(Store {
                        arg,
                        plus: to.plus,
                        value: result,
                        checked: state.checked,
                    });
                }
                store_slot(state, to, mem.size, result);
            }
            _ => {}
        }
    }

    fn read(&mut self, state: &State, operand: &Operand) -> Value {
        match operand {
            Operand::Reg(reg, size) => {
                let value = get(&state.regs, *reg);
                let whole = *size >= 4 || self.run.fits(value, *size);
                if whole { value } else { Value::UNKNOWN }
            }
            Operand::Imm(value) => Value::constant(*value),
            Operand::Mem(mem) => self.load(state, mem),
            Operand::Other => Value::UNKNOWN,
        }
    }

    fn load(&mut self, state: &State, mem: &Mem) -> Value {
        let from = address(state, mem);
        match from.base {
            Base::Stack if mem.size == 8 => slot(state, from),
            Base::Arg(_) | Base::Load(_) => {
                let load = Load {
                    from,
                    size: mem.size,
                };
                let known = self.run.loads.iter().position(|l| *l == load);
                let index = known.unwrap_or(self.run.loads.len());
                let Ok(number) = u16::try_from(index) else {
                    return Value::UNKNOWN;
                };
                if known.is_none() {
                    self.run.loads.push(load);
                }
                Value {
                    base: Base::Load(number),
                    plus: 0,
                }
            }
            _ => Value::UNKNOWN,
        }
    }
}

/// What a move leaves of `source` in its destination: a narrower register keeps the value of a
/// load that fits, and small constants; it cuts arguments and pointers.
fn narrowed(
    run: &Run,
    source: Value,
    first: Option<Operand>,
    second: Option<Operand>,
    op: Op,
) -> Value {
    let width = |operand| match operand {
        Some(Operand::Reg(_, size)) => size,
        Some(Operand::Mem(mem)) => mem.size,
        _ => 8,
    };
    let bytes = width(first).min(width(second));
    match (source.base, op) {
        // The rest of the register stays as it was.
        _ if matches!(first, Some(Operand::Reg(_, 1 | 2))) => Value::UNKNOWN,
        (Base::Load(_), _) if source.plus == 0 => {
            // A 64-bit length stored as 32 bits: the field is what it is.
            let stored = matches!(first, Some(Operand::Mem(_)));
            if stored || run.fits(source, bytes) {
                source
            } else {
                Value::UNKNOWN
            }
        }
        (Base::Zero, Op::Mov) => source,
        _ if bytes == 8 => source,
        _ => Value::UNKNOWN,
    }
}

fn is_wide(operand: Option<Operand>) -> bool {
    matches!(operand, Some(Operand::Reg(_, 8)))
}

fn address(state: &State, mem: &Mem) -> Value {
    match mem.base {
        Some(base) if !mem.complex => get(&state.regs, base).add(mem.disp),
        _ => Value::UNKNOWN,
    }
}

fn get(regs: &[Value; 16], reg: Reg) -> Value {
    regs.get(usize::from(reg.0))
        .copied()
        .unwrap_or(Value::UNKNOWN)
}

fn set(regs: &mut [Value; 16], reg: Reg, value: Value) {
    if let Some(slot) = regs.get_mut(usize::from(reg.0)) {
        *slot = value;
    }
}

fn slot(state: &State, at: Value) -> Value {
    let found = state.slots.iter().find(|(offset, _)| *offset == at.plus);
    match (at.base, found) {
        (Base::Stack, Some((_, value))) => *value,
        _ => Value::UNKNOWN,
    }
}

fn store_slot(state: &mut State, to: Value, size: u8, value: Value) {
    if to.base != Base::Stack {
        return;
    }
    let (from, end) = (to.plus, to.plus.saturating_add(i64::from(size)));
    state
        .slots
        .retain(|(at, _)| at.saturating_add(8) <= from || *at >= end);
    if size == 8 && value != Value::UNKNOWN && state.slots.len() < MAX_SLOTS {
        let at = state.slots.partition_point(|(other, _)| *other < from);
        state.slots.insert(at, (from, value));
    }
}
