//! What the kernel makes of a probe on an instruction.

use crate::discovery::elf::Machine;
use crate::plan::SiteCost;
use crate::plan::disasm::{Insn, Kind};

/// `None` when the kernel refuses the probe, or when stepping would not end at the next
/// instruction. `bytes` are those of the instruction.
pub(in crate::plan) fn of(machine: Machine, insn: &Insn, bytes: &[u8]) -> Option<SiteCost> {
    match machine {
        Machine::Aarch64 => arm64(u32::from_le_bytes(bytes.try_into().ok()?)),
        _ => x86(insn, bytes),
    }
}

/// arch/x86/kernel/uprobes.c: `branch_setup_xol_ops`, `push_setup_xol_ops`, `is_prefix_bad`.
fn x86(insn: &Insn, bytes: &[u8]) -> Option<SiteCost> {
    const REFUSED_PREFIXES: [u8; 5] = [0xf0, 0x26, 0x2e, 0x36, 0x3e];
    let prefixes = bytes.iter().take_while(|b| {
        matches!(b, 0x66 | 0x67 | 0xf2 | 0xf3 | 0x64 | 0x65) || REFUSED_PREFIXES.contains(b)
    });
    let (mut has_66, mut count) = (false, 0);
    for prefix in prefixes {
        if REFUSED_PREFIXES.contains(prefix) {
            return None;
        }
        has_66 |= *prefix == 0x66;
        count += 1;
    }
    let opcode = bytes.get(count..).unwrap_or_default();
    match (insn.kind, opcode) {
        (Kind::Trap, _) => None,
        (Kind::Nop, [0x0f, 0x1f, ..]) if bytes.len() == 5 => Some(SiteCost::Nop5),
        (Kind::Nop, [0x90 | 0x0f, ..]) => Some(SiteCost::Emulated),
        (Kind::Push(_), [0x50..=0x57] | [0x41, 0x50..=0x57]) if count == 0 => {
            Some(SiteCost::Emulated)
        }
        // A branch with an operand-size prefix means different things to Intel and AMD.
        (Kind::Call(_) | Kind::Jump(_) | Kind::Branch(_), _) if has_66 => None,
        (Kind::Call(_), [0xe8, ..])
        | (Kind::Jump(_), [0xeb | 0xe9, ..])
        | (Kind::Branch(_), [0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..]) => {
            Some(SiteCost::Emulated)
        }
        _ => Some(SiteCost::SingleStepped),
    }
}

/// arch/arm64/kernel/probes/decode-insn.c: `arm_probe_decode_insn`, `aarch64_insn_is_steppable`.
/// What the kernel would step though it reads its own address (vectors from literals), and system
/// instructions that no compiler puts into a prologue, are left out too.
fn arm64(word: u32) -> Option<SiteCost> {
    let is = |mask: u32, value: u32| word & mask == value;
    let branches = [
        (0xff00_0010, 0x5400_0000), // b.cond
        (0x7e00_0000, 0x3400_0000), // cbz, cbnz
        (0x7e00_0000, 0x3600_0000), // tbz, tbnz
        (0x7c00_0000, 0x1400_0000), // b, bl
        (0xffff_fc1f, 0xd61f_0000), // br
        (0xffff_fc1f, 0xd63f_0000), // blr
        (0xffff_fc1f, 0xd65f_0000), // ret
        (0x1f00_0000, 0x1000_0000), // adr, adrp
        (0xbf00_0000, 0x1800_0000), // ldr of a literal
        (0xff00_0000, 0x9800_0000), // ldrsw of a literal
        (0xffff_ffff, 0xd503_201f), // nop, since 6.13; stepped before
    ];
    let steppable_system = [
        (0xffff_ff3f, 0xd503_241f), // bti
        (0xffff_ffff, 0xd503_233f), // paciasp
        (0xffff_ffff, 0xd503_237f), // pacibsp
        (0xffff_ffe0, 0xd53b_d040), // mrs of tpidr_el0
    ];
    let refused = [
        (0x1e00_0000, 0x0000_0000), // no instruction
        (0x1c00_0000, 0x1400_0000), // other branches, exceptions, system instructions
        (0x3b00_0000, 0x1800_0000), // other literals
        (0x3f80_0000, 0x0800_0000), // exclusive
        (0x3b20_0c00, 0x1900_0400), // copying and setting of memory
    ];
    let any = |list: &[(u32, u32)]| list.iter().any(|(mask, value)| is(*mask, *value));
    if any(&branches) {
        Some(SiteCost::Emulated)
    } else if any(&steppable_system) || !any(&refused) {
        Some(SiteCost::SingleStepped)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_arm64_the_kernel_emulates_what_knows_its_own_address() {
        for word in [
            0x5400_0049, // b.ls
            0xb400_0040, // cbz x0
            0x3500_0041, // cbnz w1
            0x3700_0040, // tbnz w0, #0
            0x1400_0010, // b
            0x9400_0010, // bl
            0xd65f_03c0, // ret
            0x9000_0000, // adrp x0
            0x5800_0040, // ldr x0, literal
            0xd503_201f, // nop
        ] {
            assert_eq!(arm64(word), Some(SiteCost::Emulated), "{word:#x}");
        }
        for word in [
            0xa9bd_7bfd, // stp x29, x30, [sp, #-48]!
            0xd503_233f, // paciasp
            0xd503_245f, // bti c
            0xaa01_03e2, // mov x2, x1
            0xd53b_d048, // mrs x8, tpidr_el0
            0xb8e0_0020, // ldaddal w0, w0, [x1]
            0x4f00_0400, // movi v0.4s, #0
        ] {
            assert_eq!(arm64(word), Some(SiteCost::SingleStepped), "{word:#x}");
        }
    }

    #[test]
    fn of_arm64_what_the_kernel_refuses_or_would_step_wrongly_is_none() {
        for word in [
            0x885f_fc20, // ldaxr w0, [x1]
            0x8802_fc20, // stlxr w2, w0, [x1]
            0xd420_0000, // brk
            0xd400_0001, // svc
            0xd65f_0bff, // retaa
            0xd51b_d040, // msr tpidr_el0, x0
            0x1c00_0040, // ldr s0, literal
            0xd800_0000, // prfm, literal
            0x0000_0000, // udf
        ] {
            assert_eq!(arm64(word), None, "{word:#x}");
        }
    }
}
