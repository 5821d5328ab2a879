//! Decodes instructions into the few facts that planning needs.
//!
//! [`Insn`] knows nothing of one instruction set; the function that fills it from Capstone does.

use anyhow::{Result, anyhow};
use capstone::arch::DetailsArchInsn;
use capstone::arch::x86::{ArchMode, X86Insn, X86InsnDetail, X86OperandType, X86Reg};
use capstone::prelude::{ArchDetail, BuildsCapstone};
use capstone::{AccessType, Capstone, Insn as CapstoneInsn, RegId};

/// A general register of 64 bits, numbered as in x86 machine code (rax 0 … r15 15).
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
    /// The registers of the first six arguments (System V psABI, x86-64, §3.2.3).
    pub const ARGS: [Reg; 6] = [Reg::RDI, Reg::RSI, Reg::RDX, Reg::RCX, Reg::R8, Reg::R9];
}

/// A set of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegSet(u16);

impl RegSet {
    pub fn insert(&mut self, reg: Reg) {
        self.0 |= 1u16.checked_shl(u32::from(reg.0)).unwrap_or(0);
    }

    pub fn contains(self, reg: Reg) -> bool {
        self.0 & 1u16.checked_shl(u32::from(reg.0)).unwrap_or(0) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Reg> {
        (0..16).map(Reg).filter(move |r| self.contains(*r))
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
    Endbr,
    /// Ends the program or cannot be stepped: int3, hlt, ud2, syscall.
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
    Cmp,
    Test,
    /// A conditional move.
    Cmov,
    Push,
    Pop,
    Leave,
    /// Jumps taken when the last comparison was equal (zero), or was not.
    JumpEqual,
    JumpNotEqual,
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
    /// Has a `lock` prefix, or is an `xchg` with memory.
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
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// # Errors
    /// Capstone was built without this instruction set, or has no memory.
    pub fn x86_64() -> Result<Decoder> {
        let capstone = Capstone::new()
            .x86()
            .mode(ArchMode::Mode64)
            .detail(true)
            .build()
            .map_err(|e| anyhow!("start the x86-64 disassembler: {e}"))?;
        Ok(Decoder { capstone })
    }

    /// The instruction at the start of `code`, which is at address `addr`; `None` when the bytes
    /// are none, or end too early.
    pub fn decode(&self, code: &[u8], addr: u64) -> Option<Insn> {
        // 15 bytes are the longest instruction; more would only be looked at in vain.
        let code = code.get(..code.len().min(15))?;
        let mut insns = self.capstone.disasm_iter(code, addr).ok()?;
        x86_facts(&self.capstone, &insns.next()?)
    }

    /// The text of the instruction at the start of `code`, in Intel syntax: `push r13`.
    pub fn text(&self, code: &[u8], addr: u64) -> String {
        let code = code.get(..code.len().min(15)).unwrap_or_default();
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
                if let Some(facts) = x86_facts(&self.capstone, &insn) {
                    each(&facts);
                }
            }
            at += 1;
        }
    }
}

fn x86_facts(capstone: &Capstone, insn: &CapstoneInsn<'_>) -> Option<Insn> {
    use X86Insn::*;
    let detail = capstone.insn_detail(insn).ok()?;
    let ArchDetail::X86Detail(x86) = detail.arch_detail() else {
        return None;
    };
    let id = insn.id().0;
    let is = |wanted: &[X86Insn]| wanted.iter().any(|w| *w as u32 == id);
    let locked = x86.prefix()[0] == 0xf0;
    let mut writes: RegSet = detail
        .regs_write()
        .iter()
        .filter_map(|r| full(*r))
        .collect();
    let mut operands = [None; 3];
    let mut stores = false;
    // Comparisons and jumps write no operand; for all else the first operand counts as written,
    // and the tables of Capstone are trusted only to add to it.
    let reads_only = is(&[
        X86_INS_CMP,
        X86_INS_TEST,
        X86_INS_PUSH,
        X86_INS_BT,
        X86_INS_NOP,
    ]) || is(&[X86_INS_CALL, X86_INS_JMP]);
    let writes_all = is(&[X86_INS_XCHG, X86_INS_XADD, X86_INS_CMPXCHG]);
    let next = insn.address().wrapping_add(insn.len() as u64);
    for (index, operand) in x86.operands().enumerate() {
        let told = operand.access.is_some_and(AccessType::is_writable);
        let written = !reads_only && (told || index == 0 || writes_all);
        let fact = match operand.op_type {
            X86OperandType::Reg(reg) => {
                let reg = full(reg);
                if let (true, Some(reg)) = (written, reg) {
                    writes.insert(reg);
                }
                reg.map_or(Operand::Other, |r| Operand::Reg(r, operand.size))
            }
            X86OperandType::Imm(value) => Operand::Imm(value),
            X86OperandType::Mem(mem) => {
                stores |= written;
                let rip = u32::from(mem.base().0) == X86Reg::X86_REG_RIP;
                let disp = if rip {
                    mem.disp().wrapping_add(next.cast_signed())
                } else {
                    mem.disp()
                };
                Operand::Mem(Mem {
                    base: full(mem.base()),
                    complex: mem.index().0 != 0 || mem.segment().0 != 0,
                    rip_relative: rip,
                    disp,
                    size: operand.size,
                })
            }
            X86OperandType::Invalid => continue,
        };
        if let Some(slot) = operands.get_mut(index) {
            *slot = Some(fact);
        }
    }
    let (kind, op) = x86_kind(&x86, id, operands[0]);
    if matches!(
        kind,
        Kind::Push(_) | Kind::Call(_) | Kind::CallIndirect | Kind::Ret
    ) || matches!(op, Op::Push | Op::Pop | Op::Leave)
    {
        writes.insert(Reg::RSP);
    }
    if op == Op::Leave {
        writes.insert(Reg::RBP);
    }
    if is(&[X86_INS_CMPXCHG]) {
        writes.insert(Reg::RAX);
    }
    Some(Insn {
        addr: insn.address(),
        len: u8::try_from(insn.len()).ok()?,
        kind,
        op,
        writes,
        operands,
        stores: stores && op != Op::Push,
        locked: locked || (is(&[X86_INS_XCHG]) && stores),
    })
}

fn x86_kind(x86: &X86InsnDetail<'_>, id: u32, first: Option<Operand>) -> (Kind, Op) {
    use X86Insn::*;
    let is = |wanted: &[X86Insn]| wanted.iter().any(|w| *w as u32 == id);
    let target = match first {
        Some(Operand::Imm(value)) => Some(value.cast_unsigned()),
        _ => None,
    };
    let opcode = x86.opcode();
    let is_branch = matches!(opcode[0], 0x70..=0x7f | 0xe0..=0xe3)
        || (opcode[0] == 0x0f && matches!(opcode[1], 0x80..=0x8f));
    if let (true, Some(target)) = (is_branch, target) {
        let op = match (opcode[0], opcode[1]) {
            (0x74, _) | (0x0f, 0x84) => Op::JumpEqual,
            (0x75, _) | (0x0f, 0x85) => Op::JumpNotEqual,
            _ => Op::Other,
        };
        return (Kind::Branch(target), op);
    }
    let kind = if is(&[X86_INS_CALL, X86_INS_LCALL]) {
        target.map_or(Kind::CallIndirect, Kind::Call)
    } else if is(&[X86_INS_JMP, X86_INS_LJMP]) {
        target.map_or(Kind::JumpIndirect, Kind::Jump)
    } else if is(&[
        X86_INS_RET,
        X86_INS_RETF,
        X86_INS_RETFQ,
        X86_INS_IRET,
        X86_INS_IRETQ,
    ]) {
        Kind::Ret
    } else if is(&[X86_INS_ENDBR64, X86_INS_ENDBR32]) {
        Kind::Endbr
    } else if is(&[X86_INS_NOP]) {
        Kind::Nop
    } else if is(&[
        X86_INS_INT3,
        X86_INS_INT,
        X86_INS_INT1,
        X86_INS_HLT,
        X86_INS_UD2,
    ]) || is(&[
        X86_INS_UD0,
        X86_INS_UD1,
        X86_INS_SYSCALL,
        X86_INS_SYSENTER,
        X86_INS_CLI,
    ]) || is(&[X86_INS_STI, X86_INS_IN, X86_INS_OUT])
    {
        Kind::Trap
    } else {
        match (is(&[X86_INS_PUSH]), first) {
            (true, Some(Operand::Reg(reg, 8))) => Kind::Push(reg),
            _ => Kind::Other,
        }
    };
    let op = if is(&[X86_INS_MOV, X86_INS_MOVABS]) {
        Op::Mov
    } else if is(&[X86_INS_MOVZX, X86_INS_MOVSX, X86_INS_MOVSXD]) {
        Op::Extend
    } else if is(&[X86_INS_LEA]) {
        Op::Lea
    } else if is(&[X86_INS_ADD]) {
        Op::Add
    } else if is(&[X86_INS_SUB]) {
        Op::Sub
    } else if is(&[X86_INS_XOR]) {
        Op::Xor
    } else if is(&[X86_INS_CMP]) {
        Op::Cmp
    } else if is(&[X86_INS_TEST]) {
        Op::Test
    } else if is(&[X86_INS_PUSH]) {
        Op::Push
    } else if is(&[X86_INS_POP]) {
        Op::Pop
    } else if is(&[X86_INS_LEAVE]) {
        Op::Leave
    } else if opcode[0] == 0x0f && matches!(opcode[1], 0x40..=0x4f) {
        Op::Cmov
    } else {
        Op::Other
    };
    (kind, op)
}

/// The full general register that a register is, or is a part of.
fn full(reg: RegId) -> Option<Reg> {
    Some(match u32::from(reg.0) {
        X86Reg::X86_REG_RAX
        | X86Reg::X86_REG_EAX
        | X86Reg::X86_REG_AX
        | X86Reg::X86_REG_AL
        | X86Reg::X86_REG_AH => Reg::RAX,
        X86Reg::X86_REG_RCX
        | X86Reg::X86_REG_ECX
        | X86Reg::X86_REG_CX
        | X86Reg::X86_REG_CL
        | X86Reg::X86_REG_CH => Reg::RCX,
        X86Reg::X86_REG_RDX
        | X86Reg::X86_REG_EDX
        | X86Reg::X86_REG_DX
        | X86Reg::X86_REG_DL
        | X86Reg::X86_REG_DH => Reg::RDX,
        X86Reg::X86_REG_RBX
        | X86Reg::X86_REG_EBX
        | X86Reg::X86_REG_BX
        | X86Reg::X86_REG_BL
        | X86Reg::X86_REG_BH => Reg::RBX,
        X86Reg::X86_REG_RSP | X86Reg::X86_REG_ESP | X86Reg::X86_REG_SP | X86Reg::X86_REG_SPL => {
            Reg::RSP
        }
        X86Reg::X86_REG_RBP | X86Reg::X86_REG_EBP | X86Reg::X86_REG_BP | X86Reg::X86_REG_BPL => {
            Reg::RBP
        }
        X86Reg::X86_REG_RSI | X86Reg::X86_REG_ESI | X86Reg::X86_REG_SI | X86Reg::X86_REG_SIL => {
            Reg::RSI
        }
        X86Reg::X86_REG_RDI | X86Reg::X86_REG_EDI | X86Reg::X86_REG_DI | X86Reg::X86_REG_DIL => {
            Reg::RDI
        }
        X86Reg::X86_REG_R8 | X86Reg::X86_REG_R8D | X86Reg::X86_REG_R8W | X86Reg::X86_REG_R8B => {
            Reg(8)
        }
        X86Reg::X86_REG_R9 | X86Reg::X86_REG_R9D | X86Reg::X86_REG_R9W | X86Reg::X86_REG_R9B => {
            Reg(9)
        }
        X86Reg::X86_REG_R10
        | X86Reg::X86_REG_R10D
        | X86Reg::X86_REG_R10W
        | X86Reg::X86_REG_R10B => Reg(10),
        X86Reg::X86_REG_R11
        | X86Reg::X86_REG_R11D
        | X86Reg::X86_REG_R11W
        | X86Reg::X86_REG_R11B => Reg(11),
        X86Reg::X86_REG_R12
        | X86Reg::X86_REG_R12D
        | X86Reg::X86_REG_R12W
        | X86Reg::X86_REG_R12B => Reg(12),
        X86Reg::X86_REG_R13
        | X86Reg::X86_REG_R13D
        | X86Reg::X86_REG_R13W
        | X86Reg::X86_REG_R13B => Reg(13),
        X86Reg::X86_REG_R14
        | X86Reg::X86_REG_R14D
        | X86Reg::X86_REG_R14W
        | X86Reg::X86_REG_R14B => Reg(14),
        X86Reg::X86_REG_R15
        | X86Reg::X86_REG_R15D
        | X86Reg::X86_REG_R15W
        | X86Reg::X86_REG_R15B => Reg(15),
        _ => return None,
    })
}
