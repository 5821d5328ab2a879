//! Facts of x86-64 instructions, from Capstone.

use super::{Condition, Insn, Kind, Mem, Op, Operand, Reg, RegSet};
use capstone::arch::DetailsArchInsn;
use capstone::arch::x86::{X86Insn, X86InsnDetail, X86OperandType, X86Reg};
use capstone::prelude::ArchDetail;
use capstone::{AccessType, Capstone, Insn as CapstoneInsn, RegId};

pub(super) fn facts(capstone: &Capstone, insn: &CapstoneInsn<'_>) -> Option<Insn> {
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
                    writeback: None,
                })
            }
            X86OperandType::Invalid => continue,
        };
        if let Some(slot) = operands.get_mut(index) {
            *slot = Some(fact);
        }
    }
    let (kind, op) = x86_kind(&x86, id, operands);
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

fn x86_kind(x86: &X86InsnDetail<'_>, id: u32, operands: [Option<Operand>; 3]) -> (Kind, Op) {
    use X86Insn::*;
    let [first, second, _] = operands;
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
            (0x74, _) | (0x0f, 0x84) => Op::Jump(Condition::Equal),
            (0x75, _) | (0x0f, 0x85) => Op::Jump(Condition::NotEqual),
            (0x76, _) | (0x0f, 0x86) => Op::Jump(Condition::BelowEqual),
            _ => Op::Jump(Condition::Other),
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
    } else if is(&[X86_INS_AND]) && second == Some(Operand::Imm(0)) {
        Op::Clear
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
