//! Executes small functions with unknown arguments, to see what they load, store, call and return.
//!
//! Every path is followed, within bounds. A value is known when it is a constant or an argument,
//! the stack pointer or something loaded through them, plus a constant; everything else is
//! unknown, and unknown is never a fact.

mod compute;
mod kept;

use crate::discovery::elf::Elf;
use crate::plan::disasm::{Condition, Convention, Decoder, Insn, Kind, Op, Operand};
use compute::{get, set, slot};
pub use kept::{Keeper, Kept};
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

    pub fn constant(plus: i64) -> Value {
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

    /// What was loaded, by the index of the load.
    pub fn load(index: u16) -> Value {
        Value {
            base: Base::Load(index),
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
    /// Where a call through a pointer in memory finds that.
    pub through: Option<Value>,
    /// Of arguments that point into the stack, what three words are there.
    pub behind: [Option<[Value; 3]>; 6],
}

impl Call {
    /// Whether the first `n` arguments are passed on as they came in.
    pub fn passes(&self, n: u8) -> bool {
        (0..)
            .zip(&self.args)
            .take(usize::from(n))
            .all(|(n, value)| *value == Value::arg(n))
    }
}

/// A jump out of the function: to this address of the file, or to what a pointer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tail {
    pub to: Value,
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
    /// What is returned.
    pub returns: HashSet<(Value, TypeCheck)>,
    pub stores: HashSet<Store>,
    pub calls: HashSet<Call>,
    /// Values that were compared with a constant, and that.
    pub compared: HashSet<(Value, i64)>,
    /// Jumps out of the function, which leave its caller's return address to where they go.
    pub tails: HashSet<Tail>,
    /// What is where at the call that was asked for.
    pub kept: Option<Kept>,
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

    /// The chain to the field in the structures behind argument 0 whose address `value` is.
    pub fn address(&self, value: Value) -> Option<Vec<u32>> {
        let last = u32::try_from(value.plus).ok()?;
        if value.base == Base::Arg(0) {
            return Some(vec![last]);
        }
        let base = Value {
            base: value.base,
            plus: 0,
        };
        let (mut chain, size) = self.chain(base)?;
        chain.push(last);
        (size == 8).then_some(chain)
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
    regs: [Value; 32],
    /// 8-byte slots of the stack that hold something known, by offset from the stack pointer at
    /// entry.
    slots: Vec<(i64, Value)>,
    /// What the last comparison compared: equal if the two are.
    compared: Option<(Value, Value)>,
    checked: TypeCheck,
}

/// Executes the function `[start, start + size)`. Jumps out of it end a path and count as calls.
pub fn execute(elf: &Elf<'_>, decoder: &Decoder, start: u64, size: u64) -> Run {
    execute_watching(elf, decoder, start, size, None)
}

/// As [`execute`]; besides, [`Run::kept`] is what is kept at the call that returns to `watched`.
pub fn execute_watching(
    elf: &Elf<'_>,
    decoder: &Decoder,
    start: u64,
    size: u64,
    watched: Option<u64>,
) -> Run {
    let mut executor = Executor {
        watched,
        elf,
        decoder,
        start,
        end: start.saturating_add(size),
        insns: HashMap::new(),
        run: Run::default(),
    };
    let mut regs = [Value::UNKNOWN; 32];
    for (n, reg) in (0..).zip(decoder.convention.args) {
        set(&mut regs, reg, Value::arg(n));
    }
    let stack = Value {
        base: Base::Stack,
        plus: 0,
    };
    set(&mut regs, decoder.convention.stack, stack);
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
    /// The return address of a call.
    watched: Option<u64>,
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
                let result = get(&state.regs, self.decoder.convention.result);
                self.run.returns.insert((result, state.checked));
                return Next::End;
            }
            Kind::Trap => return Next::End,
            Kind::JumpIndirect => {
                let to = insn.operands[0].map_or(Value::UNKNOWN, |o| self.read(state, &o));
                let (callee, through) = self.indirect(state, insn);
                self.tail(state, to, callee, through);
                return Next::End;
            }
            Kind::Jump(to) if (self.start..self.end).contains(&to) => {
                state.pc = to;
                return Next::On;
            }
            Kind::Jump(to) => {
                let callee = self.direct(to);
                self.tail(state, Value::constant(to.cast_signed()), callee, None);
                return Next::End;
            }
            Kind::Branch(to) => return self.branch(state, insn, to),
            Kind::Call(to) => return self.call_and_return(state, self.direct(to), None),
            Kind::CallIndirect => {
                let (callee, through) = self.indirect(state, insn);
                return self.call_and_return(state, callee, through);
            }
            Kind::Nop | Kind::Endbr => return Next::On,
            Kind::Push(_) | Kind::Other => {}
        }
        if let Op::Select(condition) = insn.op {
            return self.select(state, insn, condition);
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
        let register = insn.operands[0].map(|o| (self.read(state, &o), Value::constant(0)));
        let (compared, condition) = match insn.op {
            Op::Jump(condition) => (state.compared, condition),
            Op::JumpZero => (register, Condition::Equal),
            Op::JumpNotZero => (register, Condition::NotEqual),
            _ => (None, Condition::Other),
        };
        // A jump out of the function (to its cold part) is followed here: it is still a branch.
        let mut taken = state.clone();
        taken.pc = to;
        self.choose(state, taken, compared, condition)
    }

    fn select(&mut self, state: &mut State, insn: &Insn, condition: Condition) -> Next {
        let [Some(Operand::Reg(to, _)), Some(one), Some(other)] = insn.operands else {
            self.compute(state, insn, Op::Other);
            return Next::On;
        };
        let (one, other) = (self.read(state, &one), self.read(state, &other));
        let mut chosen = state.clone();
        set(&mut chosen.regs, to, one);
        set(&mut state.regs, to, other);
        self.choose(state, chosen, state.compared, condition)
    }

    /// Goes on with `met`, the state in which the condition on what was compared is met, or with
    /// `state`, in which it is not, or with both.
    fn choose(
        &self,
        state: &mut State,
        mut met: State,
        compared: Option<(Value, Value)>,
        condition: Condition,
    ) -> Next {
        let mut certain = None;
        if let (Some((left, right)), Condition::Equal | Condition::NotEqual) = (compared, condition)
        {
            let wants_equal = condition == Condition::Equal;
            if left.base == Base::Zero && right.base == Base::Zero {
                certain = Some((left.plus == right.plus) == wants_equal);
            }
            if right == Value::constant(0) && self.is_type(left) {
                let (zero, other) = (TypeCheck::IsZero, TypeCheck::IsNotZero);
                let (if_met, if_not) = if wants_equal {
                    (zero, other)
                } else {
                    (other, zero)
                };
                if state.checked != TypeCheck::None {
                    certain = Some(state.checked == if_met);
                }
                (met.checked, state.checked) = (if_met, if_not);
            }
        }
        match certain {
            Some(true) => {
                *state = met;
                Next::On
            }
            Some(false) => Next::On,
            None => Next::Fork(Box::new(met)),
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

    /// Where a call through a pointer goes, and where that pointer is.
    fn indirect(&mut self, state: &State, insn: &Insn) -> (Callee, Option<Value>) {
        let name = insn
            .mem()
            .filter(|m| m.rip_relative && !m.complex)
            .and_then(|m| self.elf.import_in_slot(m.disp.cast_unsigned()));
        if let Some(name) = name {
            return (Callee::Import(name.to_owned()), None);
        }
        // Rust calls functions of other crates so, of which most end up in the same file.
        let slot = insn.mem().filter(|m| m.rip_relative && !m.complex);
        let local = slot
            .and_then(|m| self.elf.pointer_at(m.disp.cast_unsigned()))
            .filter(|to| self.elf.file_offset(*to).is_some());
        if let Some(to) = local {
            return (Callee::Local(to), None);
        }
        let pointer = insn.operands[0].map(|operand| self.read(state, &operand));
        let Some(Base::Load(index)) = pointer.filter(|p| p.plus == 0).map(|p| p.base) else {
            return (Callee::Unknown, None);
        };
        let load = self.run.loads.get(usize::from(index));
        (Callee::Unknown, load.map(|load| load.from))
    }

    fn call(&mut self, state: &State, callee: Callee, through: Option<Value>) {
        let args = self.decoder.convention.args.map(|r| get(&state.regs, r));
        let behind = args.map(|arg| {
            let words = [0, 8, 16].map(|at| slot(state, arg.add(at)));
            (arg.base == Base::Stack).then_some(words)
        });
        let call = Call {
            callee,
            args,
            through,
            behind,
        };
        self.run.calls.insert(call);
    }

    fn tail(&mut self, state: &State, to: Value, callee: Callee, through: Option<Value>) {
        let args = self.decoder.convention.args.map(|r| get(&state.regs, r));
        self.run.tails.insert(Tail { to, args });
        self.call(state, callee, through);
    }

    fn keep(&mut self, state: &State) {
        let stack = self.decoder.convention.stack;
        match &mut self.run.kept {
            Some(kept) => kept.agree(state, stack),
            kept @ None => *kept = Some(Kept::of(state, stack)),
        }
    }

    fn call_and_return(
        &mut self,
        state: &mut State,
        callee: Callee,
        through: Option<Value>,
    ) -> Next {
        const NEVER_RETURN: [&str; 4] =
            ["__stack_chk_fail", "abort", "__assert_fail", "OPENSSL_die"];
        if matches!(&callee, Callee::Import(name) if NEVER_RETURN.contains(&name.as_str())) {
            return Next::End;
        }
        self.call(state, callee, through);
        if self.watched == Some(state.pc) {
            self.keep(state);
        }
        // What the callee was given a pointer to, it may have changed.
        for reg in self.decoder.convention.args {
            let pointer = get(&state.regs, reg);
            if pointer.base == Base::Stack {
                state.slots.retain(|(at, _)| (at - pointer.plus).abs() >= 8);
            }
        }
        let Convention { args, scratch, .. } = self.decoder.convention;
        for reg in scratch.iter().chain(args) {
            set(&mut state.regs, *reg, Value::UNKNOWN);
        }
        state.compared = None;
        Next::On
    }
}

#[cfg(test)]
#[path = "symbolic_tests.rs"]
mod tests;
