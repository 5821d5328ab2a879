//! What an instruction does to registers, stack slots and memory.

use super::{Base, Executor, Load, MAX_SLOTS, Run, State, Store, Value};
use crate::plan::disasm::{Insn, Mem, Op, Operand, Reg};

impl Executor<'_, '_> {
    /// Everything that is not about control: registers, stack slots, loads, stores.
    pub(super) fn compute(&mut self, state: &mut State, insn: &Insn, op: Op) {
        let moved = insn.mem().and_then(|mem| {
            let base = mem.base?;
            Some((base, get(&state.regs, base).add(mem.writeback?)))
        });
        self.move_data(state, insn, op);
        if let Some((base, value)) = moved {
            set(&mut state.regs, base, value);
        }
    }

    fn move_data(&mut self, state: &mut State, insn: &Insn, op: Op) {
        let [first, second, third] = insn.operands;
        if let (Op::LoadPair | Op::StorePair, Some(Operand::Mem(mem))) = (op, third) {
            self.move_pair(state, [first, second], mem, op);
            return;
        }
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
            Op::Clear => Value::constant(0),
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
                if let Some((one, other)) = state.compared {
                    if other.base == Base::Zero {
                        self.run.compared.insert((one, other.plus));
                    } else if one.base == Base::Zero {
                        self.run.compared.insert((other, one.plus));
                    }
                }
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
                let is_whole = matches!(op, Op::Mov | Op::Clear);
                self.store(state, &mem, result, is_whole);
            }
            _ => {}
        }
    }

    fn move_pair(&mut self, state: &mut State, pair: [Option<Operand>; 2], mem: Mem, op: Op) {
        let second = Mem {
            disp: mem.disp.wrapping_add(i64::from(mem.size)),
            ..mem
        };
        let places = [mem, second];
        if op == Op::StorePair {
            for (place, operand) in places.iter().zip(pair) {
                let value = operand.map_or(Value::UNKNOWN, |o| self.read(state, &o));
                self.store(state, place, value, true);
            }
            return;
        }
        let values = places.map(|place| self.load(state, &place));
        for (value, operand) in values.into_iter().zip(pair) {
            if let Some(Operand::Reg(reg, _)) = operand {
                set(&mut state.regs, reg, value);
            }
        }
    }

    /// `is_whole`: the value alone is what is there afterwards.
    fn store(&mut self, state: &mut State, mem: &Mem, value: Value, is_whole: bool) {
        let to = address(state, mem);
        if let (Base::Arg(arg), true) = (to.base, is_whole) {
            self.run.stores.insert(Store {
                arg,
                plus: to.plus,
                value,
                checked: state.checked,
            });
        }
        store_slot(state, to, mem.size, value);
    }

    pub(super) fn read(&mut self, state: &State, operand: &Operand) -> Value {
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

pub(super) fn get(regs: &[Value; 32], reg: Reg) -> Value {
    regs.get(usize::from(reg.0))
        .copied()
        .unwrap_or(Value::UNKNOWN)
}

pub(super) fn set(regs: &mut [Value; 32], reg: Reg, value: Value) {
    if let Some(slot) = regs.get_mut(usize::from(reg.0)) {
        *slot = value;
    }
}

pub(super) fn slot(state: &State, at: Value) -> Value {
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
