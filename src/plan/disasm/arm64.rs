//! Facts of arm64 instructions, from Capstone.

use super::{Condition, Insn, Kind, Mem, Op, Operand, Reg, RegSet};
use capstone::arch::DetailsArchInsn;
use capstone::arch::arm64::{
    Arm64CC, Arm64Extender, Arm64Insn, Arm64InsnDetail, Arm64Operand, Arm64OperandType, Arm64Reg,
    Arm64Shift,
};
use capstone::prelude::ArchDetail;
use capstone::{AccessType, Capstone, Insn as CapstoneInsn, RegId};

/// A register as an operand names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// With how many bytes of it are meant.
    General(Reg, u8),
    Zero,
    /// Of vectors, with its bytes where they are known.
    Other(u8),
}

pub(super) fn facts(capstone: &Capstone, insn: &CapstoneInsn<'_>) -> Option<Insn> {
    let detail = capstone.insn_detail(insn).ok()?;
    let ArchDetail::Arm64Detail(arm64) = detail.arch_detail() else {
        return None;
    };
    let mnemonic = insn.mnemonic()?;
    let parts: Vec<Arm64Operand> = arm64.operands().collect();
    let kind = kind(insn, &arm64, &parts);
    let access = Access::of(mnemonic);
    let mut operands: Vec<Operand> = parts
        .iter()
        .map(|part| operand(part, access.size))
        .collect();
    let reads_first = reads_first(mnemonic);
    let compares = matches!(mnemonic, "cmp" | "cmn" | "tst" | "ccmp" | "ccmn");
    // Capstone says that a comparison writes what it compares.
    let mut writes: RegSet = detail
        .regs_write()
        .iter()
        .filter(|_| !compares)
        .filter_map(|reg| match named(*reg) {
            Named::General(reg, _) => Some(reg),
            _ => None,
        })
        .collect();
    for (index, part) in parts.iter().enumerate() {
        let Arm64OperandType::Reg(reg) = part.op_type else {
            continue;
        };
        let told = !compares && part.access.is_some_and(AccessType::is_writable);
        let is_written = match index {
            0 => !reads_first,
            1 => told || access.loads_pair,
            _ => told,
        };
        if let (true, Named::General(reg, _)) = (is_written, named(reg)) {
            writes.insert(reg);
        }
    }
    writeback(&arm64, &mut operands, &parts, &mut writes);
    let op = op(insn, &arm64, &mut operands, &parts, access);
    if matches!(kind, Kind::Call(_) | Kind::CallIndirect) {
        writes.insert(Reg::X30);
    }
    let mut operands = operands.into_iter();
    Some(Insn {
        addr: insn.address(),
        len: u8::try_from(insn.len()).ok()?,
        kind,
        op,
        writes,
        operands: [operands.next(), operands.next(), operands.next()],
        stores: access.stores,
        locked: access.is_atomic,
    })
}

/// What a mnemonic says of memory.
#[derive(Clone, Copy, Debug, Default)]
struct Access {
    stores: bool,
    loads_pair: bool,
    is_atomic: bool,
    /// Bytes, where the register does not say it.
    size: Option<u8>,
}

impl Access {
    fn of(mnemonic: &str) -> Access {
        let starts = |any: &[&str]| any.iter().any(|start| mnemonic.starts_with(start));
        let is_exclusive = starts(&["stx", "stlx", "ldx", "ldax"]);
        let is_atomic = starts(&[
            "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "swp",
            "cas", "stadd", "stclr", "steor", "stset", "stsmax", "stsmin", "stumax", "stumin",
        ]);
        let size = match mnemonic {
            "ldrb" | "ldurb" | "ldrsb" | "ldursb" | "ldarb" | "ldaprb" | "strb" | "sturb"
            | "stlrb" => Some(1),
            "ldrh" | "ldurh" | "ldrsh" | "ldursh" | "ldarh" | "ldaprh" | "strh" | "sturh"
            | "stlrh" => Some(2),
            "ldrsw" | "ldursw" | "ldpsw" => Some(4),
            _ => None,
        };
        Access {
            stores: starts(&["st"]) || is_atomic,
            loads_pair: starts(&["ldp", "ldnp", "ldxp", "ldaxp"]),
            is_atomic: is_atomic || (is_exclusive && starts(&["st"])),
            size,
        }
    }
}

/// Whether the first operand is only read. Of all else it counts as written.
fn reads_first(mnemonic: &str) -> bool {
    // stxr and the like write whether they succeeded.
    let stores =
        mnemonic.starts_with("st") && !mnemonic.starts_with("stx") && !mnemonic.starts_with("stlx");
    stores
        || matches!(
            mnemonic,
            "cmp"
                | "cmn"
                | "tst"
                | "ccmp"
                | "ccmn"
                | "cbz"
                | "cbnz"
                | "tbz"
                | "tbnz"
                | "br"
                | "blr"
                | "ret"
                | "prfm"
                | "prfum"
                | "msr"
        )
}

fn kind(insn: &CapstoneInsn<'_>, arm64: &Arm64InsnDetail<'_>, parts: &[Arm64Operand]) -> Kind {
    use Arm64Insn::*;
    let id = insn.id().0;
    let is = |wanted: &[Arm64Insn]| wanted.iter().any(|w| *w as u32 == id);
    let target = parts.iter().rev().find_map(|part| match part.op_type {
        Arm64OperandType::Imm(value) => Some(value.cast_unsigned()),
        _ => None,
    });
    let is_conditional = !matches!(
        arm64.cc(),
        Arm64CC::ARM64_CC_INVALID | Arm64CC::ARM64_CC_AL | Arm64CC::ARM64_CC_NV
    );
    if is(&[ARM64_INS_B]) {
        return match target {
            Some(to) if is_conditional => Kind::Branch(to),
            Some(to) => Kind::Jump(to),
            None => Kind::JumpIndirect,
        };
    }
    if is(&[
        ARM64_INS_BC,
        ARM64_INS_CBZ,
        ARM64_INS_CBNZ,
        ARM64_INS_TBZ,
        ARM64_INS_TBNZ,
    ]) {
        return target.map_or(Kind::Other, Kind::Branch);
    }
    if is(&[ARM64_INS_BL]) {
        return target.map_or(Kind::CallIndirect, Kind::Call);
    }
    if is(&[
        ARM64_INS_BLR,
        ARM64_INS_BLRAA,
        ARM64_INS_BLRAAZ,
        ARM64_INS_BLRAB,
        ARM64_INS_BLRABZ,
    ]) {
        return Kind::CallIndirect;
    }
    if is(&[
        ARM64_INS_BR,
        ARM64_INS_BRAA,
        ARM64_INS_BRAAZ,
        ARM64_INS_BRAB,
        ARM64_INS_BRABZ,
    ]) {
        return Kind::JumpIndirect;
    }
    if is(&[ARM64_INS_RET, ARM64_INS_RETAA, ARM64_INS_RETAB]) {
        return Kind::Ret;
    }
    if is(&[ARM64_INS_NOP]) {
        return Kind::Nop;
    }
    if is(&[ARM64_INS_BTI]) {
        return Kind::Endbr;
    }
    let traps = [
        ARM64_INS_SVC,
        ARM64_INS_HVC,
        ARM64_INS_SMC,
        ARM64_INS_BRK,
        ARM64_INS_HLT,
        ARM64_INS_UDF,
        ARM64_INS_ERET,
    ];
    if is(&traps) { Kind::Trap } else { Kind::Other }
}

fn condition(cc: Arm64CC) -> Condition {
    match cc {
        Arm64CC::ARM64_CC_EQ => Condition::Equal,
        Arm64CC::ARM64_CC_NE => Condition::NotEqual,
        Arm64CC::ARM64_CC_LS => Condition::BelowEqual,
        _ => Condition::Other,
    }
}

/// What is computed; the operands become those of [`Op`]: the destination first, and an address
/// that is computed as an operand in memory.
fn op(
    insn: &CapstoneInsn<'_>,
    arm64: &Arm64InsnDetail<'_>,
    operands: &mut [Operand],
    parts: &[Arm64Operand],
    access: Access,
) -> Op {
    use Arm64Insn::*;
    let id = insn.id().0;
    let is = |wanted: &[Arm64Insn]| wanted.iter().any(|w| *w as u32 == id);
    if access.is_atomic {
        return Op::Other;
    }
    if is(&[
        ARM64_INS_LDR,
        ARM64_INS_LDUR,
        ARM64_INS_LDAR,
        ARM64_INS_LDAPR,
    ]) {
        // From the code itself: its operand is an address that is not read here.
        return match operands {
            [_, Operand::Mem(_), ..] => Op::Mov,
            _ => Op::Other,
        };
    }
    if access.size.is_some() && !access.stores && !access.loads_pair {
        return Op::Extend;
    }
    if is(&[
        ARM64_INS_STR,
        ARM64_INS_STUR,
        ARM64_INS_STLR,
        ARM64_INS_STRB,
        ARM64_INS_STURB,
        ARM64_INS_STLRB,
        ARM64_INS_STRH,
        ARM64_INS_STURH,
        ARM64_INS_STLRH,
    ]) {
        if let [value, memory, ..] = operands {
            std::mem::swap(value, memory);
        }
        return Op::Mov;
    }
    if is(&[ARM64_INS_LDP, ARM64_INS_LDNP]) {
        return Op::LoadPair;
    }
    if is(&[ARM64_INS_STP, ARM64_INS_STNP]) {
        return Op::StorePair;
    }
    let is_plain = parts.iter().all(|part| {
        part.shift == Arm64Shift::Invalid && part.ext == Arm64Extender::ARM64_EXT_INVALID
    });
    if is(&[ARM64_INS_MOV, ARM64_INS_MOVZ]) && is_plain {
        return Op::Mov;
    }
    if is(&[
        ARM64_INS_SXTW,
        ARM64_INS_SXTB,
        ARM64_INS_SXTH,
        ARM64_INS_UXTB,
        ARM64_INS_UXTH,
    ]) {
        return Op::Extend;
    }
    if is(&[ARM64_INS_ADD, ARM64_INS_SUB]) {
        let shift = parts.get(2).map_or(Arm64Shift::Invalid, |part| part.shift);
        return match operands {
            [
                Operand::Reg(_, 8),
                second @ Operand::Reg(..),
                Operand::Imm(amount),
            ] => {
                let amount = match shift {
                    Arm64Shift::Lsl(bits) => amount.wrapping_shl(bits),
                    _ => *amount,
                };
                let disp = if is(&[ARM64_INS_SUB]) {
                    amount.wrapping_neg()
                } else {
                    amount
                };
                if let Operand::Reg(base, _) = *second {
                    *second = Operand::Mem(plain_address(Some(base), disp));
                }
                Op::Lea
            }
            _ => Op::Other,
        };
    }
    if is(&[ARM64_INS_ADR, ARM64_INS_ADRP]) {
        if let [_, second] = operands
            && let Operand::Imm(address) = *second
        {
            let mut mem = plain_address(None, address);
            mem.rip_relative = true;
            *second = Operand::Mem(mem);
        }
        return Op::Lea;
    }
    if is(&[ARM64_INS_CMP]) && is_plain {
        return Op::Cmp;
    }
    if is(&[ARM64_INS_TST]) && is_plain {
        return Op::Test;
    }
    if is(&[ARM64_INS_CSEL]) {
        return Op::Select(condition(arm64.cc()));
    }
    if is(&[ARM64_INS_CBZ]) {
        return Op::JumpZero;
    }
    if is(&[ARM64_INS_CBNZ]) {
        return Op::JumpNotZero;
    }
    if is(&[ARM64_INS_B]) {
        return Op::Jump(condition(arm64.cc()));
    }
    Op::Other
}

fn plain_address(base: Option<Reg>, disp: i64) -> Mem {
    Mem {
        base,
        complex: false,
        rip_relative: false,
        disp,
        size: 8,
        writeback: None,
    }
}

/// `size`: that of an access to memory, where the mnemonic says it. Otherwise the register that is
/// moved does; that is put in by [`writeback`], which knows all operands.
fn operand(part: &Arm64Operand, size: Option<u8>) -> Operand {
    match part.op_type {
        Arm64OperandType::Reg(reg) => match named(reg) {
            Named::General(reg, size) => Operand::Reg(reg, size),
            Named::Zero => Operand::Imm(0),
            Named::Other(_) => Operand::Other,
        },
        Arm64OperandType::Imm(value) => Operand::Imm(value),
        Arm64OperandType::Mem(mem) => Operand::Mem(Mem {
            base: match named(mem.base()) {
                Named::General(reg, _) => Some(reg),
                _ => None,
            },
            complex: mem.index().0 != 0,
            rip_relative: false,
            disp: i64::from(mem.disp()),
            size: size.unwrap_or(0),
            writeback: None,
        }),
        _ => Operand::Other,
    }
}

/// Gives an access to memory its size, and its base register what it becomes.
fn writeback(
    arm64: &Arm64InsnDetail<'_>,
    operands: &mut Vec<Operand>,
    parts: &[Arm64Operand],
    writes: &mut RegSet,
) {
    let Some(at) = operands.iter().position(|o| matches!(o, Operand::Mem(_))) else {
        return;
    };
    let moved = parts.first().map_or(0, |part| match part.op_type {
        Arm64OperandType::Reg(reg) => match named(reg) {
            Named::General(_, size) | Named::Other(size) => size,
            Named::Zero if u32::from(reg.0) == Arm64Reg::ARM64_REG_WZR => 4,
            Named::Zero => 8,
        },
        _ => 0,
    });
    let after = match operands.get(at + 1) {
        Some(Operand::Imm(amount)) => Some(*amount),
        _ => None,
    };
    operands.truncate(at + 1);
    let Some(Operand::Mem(mem)) = operands.get_mut(at) else {
        return;
    };
    if mem.size == 0 {
        mem.size = moved;
    }
    if !arm64.writeback() {
        return;
    }
    mem.writeback = Some(after.unwrap_or(mem.disp));
    if after.is_some() {
        mem.disp = 0;
    }
    if let Some(base) = mem.base {
        writes.insert(base);
    }
}

fn named(reg: RegId) -> Named {
    use Arm64Reg as R;
    let id = u32::from(reg.0);
    let general = |first: u32, size| {
        let number = id.wrapping_sub(first);
        u8::try_from(number).map_or(Named::Other(0), |n| Named::General(Reg(n), size))
    };
    match id {
        R::ARM64_REG_WZR | R::ARM64_REG_XZR => Named::Zero,
        R::ARM64_REG_SP => Named::General(Reg::SP, 8),
        R::ARM64_REG_WSP => Named::General(Reg::SP, 4),
        R::ARM64_REG_X29 => Named::General(Reg(29), 8),
        R::ARM64_REG_X30 => Named::General(Reg::X30, 8),
        R::ARM64_REG_W0..=R::ARM64_REG_W30 => general(R::ARM64_REG_W0, 4),
        R::ARM64_REG_X0..=R::ARM64_REG_X28 => general(R::ARM64_REG_X0, 8),
        R::ARM64_REG_Q0..=R::ARM64_REG_Q31 => Named::Other(16),
        R::ARM64_REG_D0..=R::ARM64_REG_D31 => Named::Other(8),
        R::ARM64_REG_S0..=R::ARM64_REG_S31 => Named::Other(4),
        R::ARM64_REG_H0..=R::ARM64_REG_H31 => Named::Other(2),
        R::ARM64_REG_B0..=R::ARM64_REG_B31 => Named::Other(1),
        _ => Named::Other(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::elf::Machine;
    use crate::plan::disasm::Decoder;

    fn insn(word: u32) -> Insn {
        let decoder = Decoder::of(Machine::Aarch64).unwrap();
        decoder.decode(&word.to_le_bytes(), 0x1000).unwrap()
    }

    fn writes(word: u32) -> Vec<u8> {
        insn(word).writes.iter().map(|reg| reg.0).collect()
    }

    fn mem(word: u32) -> (Option<u8>, i64, u8, Option<i64>) {
        let mem = insn(word).mem().unwrap();
        (mem.base.map(|reg| reg.0), mem.disp, mem.size, mem.writeback)
    }

    #[test]
    fn jumps_and_calls_are_told_apart() {
        let kinds = [
            (0x5400_0049, Kind::Branch(0x1008)), // b.ls
            (0xb400_0040, Kind::Branch(0x1008)), // cbz x0
            (0x3700_0040, Kind::Branch(0x1008)), // tbnz w0, #0
            (0x1400_0010, Kind::Jump(0x1040)),
            (0x9400_0010, Kind::Call(0x1040)),
            (0xd63f_0020, Kind::CallIndirect),
            (0xd61f_0020, Kind::JumpIndirect),
            (0xd65f_03c0, Kind::Ret),
            (0xd65f_0bff, Kind::Ret), // retaa
            (0xd503_201f, Kind::Nop),
            (0xd503_245f, Kind::Endbr), // bti c
            (0xd420_0000, Kind::Trap),  // brk
            (0x0000_0000, Kind::Trap),  // udf
            (0xd400_0001, Kind::Trap),  // svc
            (0xd503_233f, Kind::Other), // paciasp
        ];
        for (word, kind) in kinds {
            assert_eq!(insn(word).kind, kind, "{word:#x}");
        }
        assert_eq!(insn(0x5400_0049).op, Op::Jump(Condition::BelowEqual));
        assert_eq!(insn(0x5400_0040).op, Op::Jump(Condition::Equal));
    }

    #[test]
    fn what_is_written_is_known() {
        assert!(writes(0xeb30_63ff).is_empty()); // cmp sp, x16
        assert!(writes(0x6a01_003f).is_empty()); // tst w1, w1
        assert_eq!(writes(0xd503_233f), [30]); // paciasp
        assert_eq!(writes(0x9400_0010), [30]); // bl
        assert_eq!(writes(0xa9bd_7bfd), [31]); // stp x29, x30, [sp, #-48]!
        assert_eq!(writes(0xa8c3_7bfd), [29, 30, 31]); // ldp x29, x30, [sp], #48
        assert_eq!(writes(0xf800_8420), [1]); // str x0, [x1], #8
        assert_eq!(writes(0x8802_fc20), [2]); // stlxr w2, w0, [x1]
        assert_eq!(writes(0xb8e0_0020), [0]); // ldaddal w0, w0, [x1]
        assert_eq!(writes(0x9a81_0000), [0]); // csel x0, x0, x1, eq
    }

    #[test]
    fn addresses_and_what_becomes_of_their_base_are_known() {
        assert_eq!(mem(0xf940_0810), (Some(0), 16, 8, None)); // ldr x16, [x0, #16]
        assert_eq!(mem(0xa9bd_7bfd), (Some(31), -48, 8, Some(-48))); // stp …, [sp, #-48]!
        assert_eq!(mem(0xa8c3_7bfd), (Some(31), 0, 8, Some(48))); // ldp …, [sp], #48
        assert_eq!(mem(0x3940_0001), (Some(0), 0, 1, None)); // ldrb w1, [x0]
        assert_eq!(mem(0xb900_0c1f), (Some(0), 12, 4, None)); // str wzr, [x0, #12]
        assert_eq!(mem(0xad00_07e0), (Some(31), 0, 16, None)); // stp q0, q1, [sp]
        assert_eq!(mem(0xd100_43ff), (Some(31), -16, 8, None)); // sub sp, sp, #16
        assert!(insn(0xf862_6820).mem().unwrap().complex); // ldr x0, [x1, x2]
    }

    #[test]
    fn code_cut_anywhere_is_none() {
        let decoder = Decoder::of(Machine::Aarch64).unwrap();
        for len in 0..4 {
            assert_eq!(
                decoder.decode(&0xd65f_03c0u32.to_le_bytes()[..len], 0),
                None
            );
        }
    }
}
