//! What tells the functions of one source file of a TLS library from each other.

use crate::discovery::elf::Elf;
use crate::plan::disasm::{Convention, Decoder, Insn, Kind, Op, Operand, Reg};
use crate::plan::functions::Function;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Longest name of a function that is looked for, with its NUL.
const MAX_NAME: usize = 32;
/// Instructions followed from where an error is made to the call that reports it.
const MAX_STEPS: usize = 24;

/// Constants in the argument registers of a call, where they are known.
pub type Constants = [Option<i64>; 6];

/// What is known of a function.
#[derive(Debug)]
pub struct Facts {
    pub start: u64,
    pub end: u64,
    /// Names of functions that it passes to somebody.
    pub names: BTreeSet<&'static str>,
    /// For each time that it takes the address of the source file's name: what else the call gets.
    pub errors: Vec<Constants>,
    /// Constants that it puts anywhere into each argument register.
    pub constants: [BTreeSet<i64>; 6],
    /// Where it calls, or jumps away to.
    pub calls: BTreeSet<u64>,
    /// Whether the source file's name is the second argument of a call, as it is of
    /// `CRYPTO_free(pointer, file, line)`.
    pub frees: bool,
    /// How often it writes to memory that is not its own stack, and how often it writes an int of 1.
    pub stores: usize,
    pub ones: usize,
    /// Bits set, and bits cleared, by an instruction in a byte of memory.
    pub sets_bit: bool,
    pub clears_bit: bool,
}

impl Facts {
    /// `names` are those to look for; `file` says whether something is the source file's name.
    pub fn of(
        elf: &Elf<'_>,
        decoder: &Decoder,
        function: &Function,
        names: &[&'static str],
        files: &[Range<u64>],
    ) -> Facts {
        let args = decoder.convention.args;
        let mut facts = Facts {
            start: function.start,
            end: function.end,
            names: BTreeSet::new(),
            errors: Vec::new(),
            constants: Default::default(),
            calls: BTreeSet::new(),
            frees: false,
            stores: 0,
            ones: 0,
            sets_bit: false,
            clears_bit: false,
        };
        let body = function.start..function.end;
        let mut known = Known::default();
        let mut stack = vec![decoder.convention.stack];
        for (index, insn) in function.insns.iter().enumerate() {
            known.step(insn);
            stack.extend(frame_pointer(insn, decoder.convention.stack));
            if let Some((reg, value)) = known.last {
                if let Some(arg) = args.iter().position(|arg| *arg == reg)
                    && let Some(set) = facts.constants.get_mut(arg)
                {
                    set.insert(value);
                }
                let at = value.cast_unsigned();
                if files.iter().any(|file| file.contains(&at)) {
                    let constants = around(&function.insns, index, &body);
                    facts.frees |= args[1] == reg;
                    facts
                        .errors
                        .push(args.map(|arg| constants.get(&arg).copied()));
                } else if let Some(text) = elf.text_at(at, MAX_NAME) {
                    facts
                        .names
                        .extend(names.iter().filter(|name| **name == text));
                }
            }
            match insn.kind {
                Kind::Call(to) => {
                    facts.calls.insert(to);
                    known.call(decoder.convention);
                }
                Kind::CallIndirect => known.call(decoder.convention),
                Kind::Jump(to) | Kind::Branch(to) if !body.contains(&to) => {
                    facts.calls.insert(to);
                }
                _ => {}
            }
            facts.memory(insn, &stack);
        }
        facts
    }

    fn memory(&mut self, insn: &Insn, stack: &[Reg]) {
        let Some(mem) = insn.mem().filter(|_| insn.stores) else {
            return;
        };
        if mem.base.is_none_or(|base| stack.contains(&base)) {
            return;
        }
        self.stores += 1;
        self.ones += usize::from(mem.size == 4 && insn.operands[1] == Some(Operand::Imm(1)));
        if let Some(Operand::Imm(bits)) = insn.operands[1] {
            self.sets_bit |= mem.size == 1 && bits == 1;
            self.clears_bit |= mem.size == 1 && bits & 0xff == 0xfe;
        }
    }
}

/// The register that becomes another name for the stack, if the instruction makes one.
fn frame_pointer(insn: &Insn, stack: Reg) -> Option<Reg> {
    match (insn.op, insn.operands) {
        (Op::Mov, [Some(Operand::Reg(to, 8)), Some(Operand::Reg(from, 8)), None]) => {
            (from == stack).then_some(to)
        }
        (Op::Lea, [Some(Operand::Reg(to, 8)), Some(Operand::Mem(mem)), _]) => {
            (mem.base == Some(stack) && !mem.complex).then_some(to)
        }
        _ => None,
    }
}

/// Registers that hold a constant, in the order of the code.
#[derive(Default)]
struct Known {
    regs: HashMap<Reg, i64>,
    /// What the last instruction put where.
    last: Option<(Reg, i64)>,
}

impl Known {
    fn step(&mut self, insn: &Insn) {
        let value = self.value(insn);
        self.last = None;
        for reg in insn.writes.iter() {
            self.regs.remove(&reg);
        }
        if let (Some(Operand::Reg(reg, _)), Some(value)) = (insn.operands[0], value) {
            self.regs.insert(reg, value);
            self.last = Some((reg, value));
        }
    }

    /// What the called function may change is no longer known.
    fn call(&mut self, convention: &Convention) {
        for reg in convention.scratch.iter().chain(&convention.args) {
            self.regs.remove(reg);
        }
    }

    fn value(&self, insn: &Insn) -> Option<i64> {
        match (insn.op, insn.operands) {
            (Op::Mov, [Some(Operand::Reg(..)), Some(Operand::Imm(value)), None]) => Some(value),
            (Op::Mov, [Some(Operand::Reg(_, 8)), Some(Operand::Reg(from, 8)), None]) => {
                self.regs.get(&from).copied()
            }
            (
                Op::Xor,
                [
                    Some(Operand::Reg(one, _)),
                    Some(Operand::Reg(other, _)),
                    None,
                ],
            ) => (one == other).then_some(0),
            (Op::Lea, [Some(Operand::Reg(..)), Some(Operand::Mem(mem)), _]) if !mem.complex => {
                match mem.base {
                    None => Some(mem.disp),
                    Some(base) => Some(self.regs.get(&base)?.wrapping_add(mem.disp)),
                }
            }
            _ => None,
        }
    }
}

/// The constants in registers at the call that an instruction is a preparation of: what is put there
/// since the last call or jump, and, where the rest of the preparation is shared, after a jump.
fn around(insns: &[Insn], index: usize, body: &Range<u64>) -> HashMap<Reg, i64> {
    let ends = |insn: &Insn| {
        !matches!(
            insn.kind,
            Kind::Push(_) | Kind::Nop | Kind::Endbr | Kind::Other | Kind::Branch(_)
        )
    };
    let before = insns.get(..index).unwrap_or_default();
    let start = before.iter().rposition(ends).map_or(0, |at| at + 1);
    let mut known = Known::default();
    let mut at = start.max(index.saturating_sub(MAX_STEPS));
    for _ in 0..2 * MAX_STEPS {
        let Some(insn) = insns.get(at) else {
            break;
        };
        match insn.kind {
            Kind::Jump(to) if body.contains(&to) => {
                at = insns.partition_point(|insn| insn.addr < to);
                continue;
            }
            _ if ends(insn) => break,
            _ => known.step(insn),
        }
        at += 1;
    }
    known.regs
}
