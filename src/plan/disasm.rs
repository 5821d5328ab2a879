//! Decodes instructions into the few facts that planning needs.
//!
//! [`Insn`] knows nothing of one instruction set; the functions that fill it from Capstone do.

mod arm64;
mod x86;

use crate::discovery::elf::Machine;
use anyhow::{Result, anyhow, bail};
use capstone::arch::{arm64::ArchMode as Arm64Mode, x86::ArchMode as X86Mode};
use capstone::prelude::BuildsCapstone;
use capstone::{Capstone, Insn as CapstoneInsn};

/// A general register of 64 bits, numbered as in machine code: on x86 rax 0 … r15 15, on arm64
/// x0 0 … x30 30 and sp 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u8);

impl Reg {
    pub const RAX: Reg = Reg(0);
    pub const RCX: Reg = Reg(1);
    pub const RDX: Reg = Reg(2);
    pub const RBX: Reg = Reg(3);
    pub const RSP: Reg = Reg(4);
    pub const RBP: Reg = Reg(5);
    pub const RSI: Reg = Reg(6);
    pub const RDI: Reg = Reg(7);
    pub const R8: Reg = Reg(8);
    pub const R9: Reg = Reg(9);
    pub const R10: Reg = Reg(10);
    pub const R11: Reg = Reg(11);
    /// Of arm64: the return address, and the stack pointer.
    pub const X30: Reg = Reg(30);
    pub const SP: Reg = Reg(31);
}

/// What a calling convention does with registers.
#[derive(Debug)]
pub struct Convention {
    /// The first six arguments.
    pub args: [Reg; 6],
    pub result: Reg,
    pub stack: Reg,
    /// Holds the return address; where there is none, it is on the stack.
    pub link: Option<Reg>,
    /// What a callee may change, beside the registers of arguments.
    pub scratch: &'static [Reg],
}

/// System V psABI, x86-64, §3.2.3.
static X86_64: Convention = Convention {
    args: [Reg::RDI, Reg::RSI, Reg::RDX, Reg::RCX, Reg::R8, Reg::R9],
    result: Reg::RAX,
    stack: Reg::RSP,
    link: None,
    scratch: &[Reg::RAX, Reg::R10, Reg::R11],
};

/// Procedure Call Standard for the Arm 64-bit Architecture, §6.1.1.
static ARM64: Convention = Convention {
    args: [Reg(0), Reg(1), Reg(2), Reg(3), Reg(4), Reg(5)],
    result: Reg(0),
    stack: Reg::SP,
    link: Some(Reg::X30),
    scratch: &{
        let mut regs = [Reg::X30; 14];
        let mut n = 0;
        while n < 13 {
            regs[n] = Reg(6 + n as u8);
            n += 1;
        }
        regs
    },
};

/// A set of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegSet(u32);

impl RegSet {
    pub fn insert(&mut self, reg: Reg) {
        self.0 |= 1u32.checked_shl(u32::from(reg.0)).unwrap_or(0);
    }

    pub fn contains(self, reg: Reg) -> bool {
        self.0 & 1u32.checked_shl(u32::from(reg.0)).unwrap_or(0) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Reg> {
        (0..32).map(Reg).filter(move |r| self.contains(*r))
    }
}

impl FromIterator<Reg> for RegSet {
    fn from_iter<I: IntoIterator<Item = Reg>>(regs: I) -> RegSet {
        let mut set = RegSet::default();
        regs.into_iter().for_each(|r| set.insert(r));
        set
    }
}

/// How control and the stack go on after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Push(Reg),
    Nop,
    /// Direct: to this address.
    Call(u64),
    Jump(u64),
    /// Conditional: to this address or to the next instruction.
    Branch(u64),
    CallIndirect,
    JumpIndirect,
    Ret,
    /// A mark for indirect branches: `endbr64`, `bti`.
    Endbr,
    /// Ends the program or cannot be stepped: int3, hlt, ud2, syscall; brk, udf, svc.
    Trap,
    Other,
}

/// What is computed; only what the executor of getters understands is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Mov,
    /// Zero- or sign-extending moves.
    Extend,
    Lea,
    Add,
    Sub,
    Xor,
    /// The result is zero: `and` with zero, which is shorter than a move.
    Clear,
    Cmp,
    Test,
    /// A conditional move.
    Cmov,
    /// The first operand becomes the second where the last comparison was as the condition says,
    /// else the third.
    Select(Condition),
    /// Two registers from or to memory, which is the third operand; its size is that of each.
    LoadPair,
    StorePair,
    Push,
    Pop,
    Leave,
    /// A jump that is taken when the last comparison was so.
    Jump(Condition),
    /// A jump that is taken when the register that is the first operand is zero, or is not.
    JumpZero,
    JumpNotZero,
    Other,
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Equal,
    NotEqual,
    /// Below or the same, without sign.
    BelowEqual,
    Other,
}

/// An operand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// None: absolute, relative to the instruction pointer (then `disp` is the address), or a
    /// register that is not general.
    pub base: Option<Reg>,
    /// Has an index register or a segment (`%fs:0x28`): its address is not base + disp.
    pub complex: bool,
    pub rip_relative: bool,
    pub disp: i64,
    /// Bytes.
    pub size: u8,
    /// What its base register becomes: itself plus this (arm64's pre- and post-index). Before a
    /// post-index access `disp` is 0.
    pub writeback: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The full register and how many bytes of it are meant.
    Reg(Reg, u8),
    Imm(i64),
    Mem(Mem),
    /// A register that is not general (xmm0, %fs).
    Other,
}

/// The facts of one instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insn {
    pub addr: u64,
    pub len: u8,
    pub kind: Kind,
    pub op: Op,
    /// General registers it writes, in whole or in part, also implicitly.
    pub writes: RegSet,
    /// In Intel's order: destination first. At most three are kept.
    pub operands: [Option<Operand>; 3],
    /// Writes to memory other than by a push or call.
    pub stores: bool,
    /// Atomic: has a `lock` prefix, or is an `xchg` with memory; `ldadd` and the like, `stxr`.
    pub locked: bool,
}

impl Insn {
    /// The address of the next instruction.
    pub fn next(&self) -> u64 {
        self.addr.wrapping_add(u64::from(self.len))
    }

    /// Its operand in memory, if it has one.
    pub fn mem(&self) -> Option<Mem> {
        self.operands.iter().find_map(|o| match o {
            Some(Operand::Mem(mem)) => Some(*mem),
            _ => None,
        })
    }
}

/// A disassembler for one instruction set.
pub struct Decoder {
    capstone: Capstone,
    pub machine: Machine,
    pub convention: &'static Convention,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// # Errors
    /// The machine is another one, Capstone was built without it, or has no memory.
    pub fn of(machine: Machine) -> Result<Decoder> {
        let builder = Capstone::new();
        let (capstone, convention) = match machine {
            Machine::X86_64 => (
                builder.x86().mode(X86Mode::Mode64).detail(true).build(),
                &X86_64,
            ),
            Machine::Aarch64 => (
                builder.arm64().mode(Arm64Mode::Arm).detail(true).build(),
                &ARM64,
            ),
            other @ Machine::Other(_) => bail!(
                "only code for x86-64 and arm64 can be read, not for {}",
                other.name()
            ),
        };
        Ok(Decoder {
            capstone: capstone.map_err(|e| anyhow!("start the disassembler: {e}"))?,
            machine,
            convention,
        })
    }

    /// # Errors
    /// As [`Decoder::of`].
    #[cfg(test)]
    pub fn x86_64() -> Result<Decoder> {
        Decoder::of(Machine::X86_64)
    }

    /// Bytes of the longest instruction, and what all addresses of code are multiples of.
    fn sizes(&self) -> (usize, usize) {
        match self.machine {
            Machine::Aarch64 => (4, 4),
            _ => (15, 1),
        }
    }

    fn facts(&self, insn: &CapstoneInsn<'_>) -> Option<Insn> {
        match self.machine {
            Machine::Aarch64 => arm64::facts(&self.capstone, insn),
            _ => x86::facts(&self.capstone, insn),
        }
    }

    /// The instruction at the start of `code`, which is at address `addr`; `None` when the bytes
    /// are none, or end too early.
    pub fn decode(&self, code: &[u8], addr: u64) -> Option<Insn> {
        // More than the longest instruction would only be looked at in vain.
        let code = code.get(..code.len().min(self.sizes().0))?;
        let mut insns = self.capstone.disasm_iter(code, addr).ok()?;
        self.facts(&insns.next()?)
    }

    /// The text of the instruction at the start of `code`, in Intel's or Arm's syntax: `push r13`.
    pub fn text(&self, code: &[u8], addr: u64) -> String {
        let code = code
            .get(..code.len().min(self.sizes().0))
            .unwrap_or_default();
        let Ok(mut insns) = self.capstone.disasm_iter(code, addr) else {
            return String::new();
        };
        insns.next().map_or(String::new(), |insn| {
            let mnemonic = insn.mnemonic().unwrap_or_default();
            let operands = insn.op_str().unwrap_or_default();
            format!("{mnemonic} {operands}").trim_end().to_owned()
        })
    }

    /// Calls `each` with every instruction of `code` from its start to its end. Bytes that are no
    /// instruction are stepped over one by one, as data between functions would be.
    pub fn sweep(&self, code: &[u8], addr: u64, mut each: impl FnMut(&Insn)) {
        let mut at = 0;
        while let Some(rest) = code.get(at..).filter(|r| !r.is_empty()) {
            let Some(base) = addr.checked_add(at as u64) else {
                return;
            };
            let Ok(mut insns) = self.capstone.disasm_iter(rest, base) else {
                return;
            };
            while let Some(insn) = insns.next() {
                at += insn.len().max(1);
                if let Some(facts) = self.facts(&insn) {
                    each(&facts);
                }
            }
            at += self.sizes().1;
        }
    }
}
