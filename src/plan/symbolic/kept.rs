//! What is where at a call that a run watches: which registers and stack slots hold a value after it.

use super::compute::get;
use super::{State, Value};
use crate::plan::disasm::{Convention, Reg};

/// Bytes at the stack pointer that a call may have put there for its callee: one argument, and what
/// aligns it. No function that is looked at here has more than seven.
const ARGUMENT_BYTES: i64 = 16;

/// What registers and stack slots hold at a call, on every path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    regs: [Value; 32],
    /// The stack pointer at the call.
    stack: Value,
    slots: Vec<(i64, Value)>,
}

/// Where a value is kept: in a register that callees preserve, or on the stack, this far from the
/// stack pointer at the function's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    Register(Reg),
    Slot(i64),
}

impl Kept {
    pub(super) fn of(state: &State, stack: Reg) -> Kept {
        Kept {
            regs: state.regs,
            stack: get(&state.regs, stack),
            slots: state.slots.clone(),
        }
    }

    /// Keeps what another path agrees on.
    pub(super) fn agree(&mut self, state: &State, stack: Reg) {
        for (own, other) in self.regs.iter_mut().zip(state.regs) {
            if *own != other {
                *own = Value::UNKNOWN;
            }
        }
        if get(&state.regs, stack) != self.stack {
            self.slots.clear();
        }
        self.slots.retain(|slot| state.slots.contains(slot));
    }

    /// Everything that still holds `value` after the call. What lies right at the stack pointer may
    /// be arguments, which are the callee's to change.
    pub fn keepers(&self, convention: &Convention, value: Value) -> Vec<Keeper> {
        let preserved = |reg: &Reg| {
            !convention.args.contains(reg)
                && !convention.scratch.contains(reg)
                && *reg != convention.stack
        };
        let holds = |reg: &Reg| get(&self.regs, *reg) == value;
        let own = self.stack.plus.saturating_add(ARGUMENT_BYTES);
        let slots = self
            .slots
            .iter()
            .filter(|(at, held)| *held == value && *at >= own);
        (0..32)
            .map(Reg)
            .filter(preserved)
            .filter(holds)
            .map(Keeper::Register)
            .chain(slots.map(|(at, _)| Keeper::Slot(*at)))
            .collect()
    }
}
