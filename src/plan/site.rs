//! Chooses the instruction of a function to put a probe on.
//!
//! The kernel emulates some instructions under a uprobe and single-steps the rest, which costs nine
//! times as much on a virtual machine. A site must see the argument registers as the caller left
//! them, and be passed exactly once by every call.

pub mod cost;

use crate::plan::SiteCost;
use crate::plan::disasm::{Decoder, Insn, Kind};
use anyhow::{Result, bail};
use std::collections::HashSet;

/// How far into a function a site is looked for. Compilers put the prologue first; later than
/// this, no argument register has survived.
const MAX_STRAIGHT_LINE: usize = 40;

/// What a probe reads when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// How many argument registers, in the order of the calling convention, must be intact.
    pub args: u8,
    /// The return is probed too: the return address must be where the caller left it.
    pub returns: bool,
}

/// An instruction that can carry the probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteCandidate {
    /// Bytes from the function's start.
    pub offset: u64,
    pub cost: SiteCost,
    /// The instruction and why it was chosen, for `--debug`.
    pub reason: String,
}

/// The places in the function `code` at address `vaddr` where a probe with `needs` sees what it
/// needs, cheapest first. The function's start is the last of them, unless it is a cheap one.
///
/// # Errors
/// No instruction of the prologue can carry a probe, or the bytes are no code.
pub fn plan_site(
    decoder: &Decoder,
    code: &[u8],
    vaddr: u64,
    needs: Needs,
) -> Result<Vec<SiteCandidate>> {
    let line = straight_line(decoder, code, vaddr, needs);
    let mut targets = HashSet::new();
    if line.iter().any(|step| step.insn.addr != vaddr) {
        decoder.sweep(code, vaddr, |insn| {
            if let Kind::Branch(to) | Kind::Jump(to) | Kind::Call(to) = insn.kind {
                targets.insert(to);
            }
        });
    }
    let mut stepped = None;
    let mut candidates = Vec::new();
    for step in &line {
        let insn = &step.insn;
        let offset = insn.addr.wrapping_sub(vaddr);
        // A loop back to it would fire the probe more than once a call.
        if offset != 0 && targets.contains(&insn.addr) {
            continue;
        }
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|o| code.get(o..o + usize::from(insn.len)))
            .unwrap_or_default();
        let cost = match cost::of(decoder.machine, insn, bytes) {
            // The call that replaces the nop writes below the stack pointer on 6.18.
            Some(SiteCost::Nop5) if step.has_stored => continue,
            Some(cost) => cost,
            None => continue,
        };
        let text = decoder.text(bytes, insn.addr);
        match cost {
            SiteCost::SingleStepped => {
                stepped.get_or_insert(SiteCandidate {
                    offset,
                    cost: SiteCost::SingleStepped,
                    reason: format!("{text}: no cheaper instruction has its arguments intact"),
                });
            }
            cost => candidates.push(SiteCandidate {
                offset,
                cost,
                reason: reason(&text, cost, offset, needs),
            }),
        }
    }
    candidates.sort_by_key(|c| (c.cost, c.offset));
    candidates.extend(stepped);
    if candidates.is_empty() {
        bail!("no instruction at the function's start ({vaddr:#x}) can carry a probe");
    }
    Ok(candidates)
}

fn reason(text: &str, cost: SiteCost, offset: u64, needs: Needs) -> String {
    let how = match cost {
        SiteCost::Nop5 => "optimised into a call by kernels from 6.18 on",
        _ => "emulated by the kernel",
    };
    match (offset, needs.returns) {
        (0, _) => format!("{text}: first instruction, {how}"),
        (_, true) => format!("{text}: {how}, arguments and return address intact"),
        (_, false) => format!("{text}: {how}, arguments intact"),
    }
}

struct Step {
    insn: Insn,
    /// An earlier instruction wrote to memory, perhaps into the red zone.
    has_stored: bool,
}

/// The instructions that every call executes first, exactly as entered as far as `needs` go.
fn straight_line(decoder: &Decoder, code: &[u8], vaddr: u64, needs: Needs) -> Vec<Step> {
    let mut line = Vec::new();
    let mut at = 0usize;
    let mut has_stored = false;
    while line.len() < MAX_STRAIGHT_LINE {
        let Some(insn) = code
            .get(at..)
            .zip(vaddr.checked_add(at as u64))
            .and_then(|(rest, addr)| decoder.decode(rest, addr))
        else {
            break;
        };
        at += usize::from(insn.len);
        let ends = !matches!(
            insn.kind,
            Kind::Push(_) | Kind::Nop | Kind::Endbr | Kind::Other
        );
        let convention = decoder.convention;
        let args = convention.args.iter().take(usize::from(needs.args));
        // Where a return address is that is signed with the stack pointer (`paciasp`), the kernel
        // must have replaced it before.
        let returns = convention.link.iter().chain([&convention.stack]);
        let spoils = args
            .chain(returns.filter(|_| needs.returns))
            .any(|r| insn.writes.contains(*r));
        let stores = insn.stores || matches!(insn.kind, Kind::Push(_));
        line.push(Step { insn, has_stored });
        // The instruction itself is fine: a probe fires before it executes.
        if ends || spoils {
            break;
        }
        has_stored |= stores;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::elf::Machine;

    const CALL: Needs = Needs {
        args: 4,
        returns: true,
    };
    const ENTRY: Needs = Needs {
        args: 4,
        returns: false,
    };

    fn sites(code: &[u8], needs: Needs) -> Vec<(u64, SiteCost)> {
        let decoder = Decoder::x86_64().unwrap();
        plan_site(&decoder, code, 0x1000, needs)
            .map(|all| all.iter().map(|c| (c.offset, c.cost)).collect())
            .unwrap_or_default()
    }

    #[test]
    fn first_push_is_taken_as_it_is() {
        // push r13; push r12; ret
        let code = [0x41, 0x55, 0x41, 0x54, 0xc3];
        assert_eq!(sites(&code, CALL), [(0, SiteCost::Emulated)]);
    }

    #[test]
    fn endbr_is_skipped_and_stays_the_last_resort() {
        // endbr64; push rbp; ret
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3];
        let expected = [(4, SiteCost::Emulated), (0, SiteCost::SingleStepped)];
        assert_eq!(sites(&code, CALL), expected);
    }

    #[test]
    fn second_push_is_no_site_when_the_return_is_probed() {
        // mov rax, rdi; push rbp; push rbx; ret
        let code = [0x48, 0x89, 0xf8, 0x55, 0x53, 0xc3];
        let start = (0, SiteCost::SingleStepped);
        assert_eq!(sites(&code, CALL), [(3, SiteCost::Emulated), start]);
        let both = [(3, SiteCost::Emulated), (4, SiteCost::Emulated), start];
        assert_eq!(sites(&code, ENTRY), both);
    }

    #[test]
    fn no_site_after_the_stack_pointer_moved_when_the_return_is_probed() {
        // sub rsp, 8; call next; ret
        let code = [0x48, 0x83, 0xec, 0x08, 0xe8, 0, 0, 0, 0, 0xc3];
        assert_eq!(sites(&code, CALL), [(0, SiteCost::SingleStepped)]);
        let entry = [(4, SiteCost::Emulated), (0, SiteCost::SingleStepped)];
        assert_eq!(sites(&code, ENTRY), entry);
    }

    #[test]
    fn no_site_after_an_argument_register_is_written() {
        // xor ecx, ecx; push rbp; ret: argument 3 is gone, argument 2 is not
        let code = [0x31, 0xc9, 0x55, 0xc3];
        assert_eq!(sites(&code, CALL), [(0, SiteCost::SingleStepped)]);
        let three = Needs { args: 3, ..CALL };
        let expected = [(2, SiteCost::Emulated), (0, SiteCost::SingleStepped)];
        assert_eq!(sites(&code, three), expected);
        // mov cl, 1; push rbp: a part of a register is the register
        assert_eq!(sites(&[0xb1, 1, 0x55, 0xc3], CALL).len(), 1);
        // cpuid; push rbp: written without being an operand
        assert_eq!(sites(&[0x0f, 0xa2, 0x55, 0xc3], CALL).len(), 1);
        // xchg rax, rdi; push rbp: the second operand is written too
        assert_eq!(sites(&[0x48, 0x97, 0x55, 0xc3], CALL).len(), 1);
    }

    #[test]
    fn no_site_behind_a_conditional_branch_but_the_branch_is_one() {
        // test rdi, rdi; je +1; push rbp; ret
        let code = [0x48, 0x85, 0xff, 0x74, 0x01, 0x55, 0xc3];
        let expected = [(3, SiteCost::Emulated), (0, SiteCost::SingleStepped)];
        assert_eq!(sites(&code, CALL), expected);
        assert_eq!(sites(&code, ENTRY), expected);
    }

    #[test]
    fn no_site_behind_a_call_jump_or_return() {
        // each followed by push rbp
        for end in [&[0xe8, 0, 0, 0, 0][..], &[0xeb, 0], &[0xc3], &[0xff, 0xe0]] {
            let code = [&[0x90][..], end, &[0x55, 0xc3]].concat();
            let offsets: Vec<u64> = sites(&code, ENTRY).iter().map(|s| s.0).collect();
            assert!(!offsets.contains(&(1 + end.len() as u64)), "{end:x?}");
        }
    }

    #[test]
    fn loop_head_is_no_site() {
        // mov rax, rdi; nop; test al, al; jne nop; ret
        let code = [0x48, 0x89, 0xf8, 0x90, 0x84, 0xc0, 0x75, 0xfb, 0xc3];
        let offsets: Vec<u64> = sites(&code, CALL).iter().map(|s| s.0).collect();
        assert!(!offsets.contains(&3), "{offsets:?}");
        assert!(offsets.contains(&6), "{offsets:?}");
    }

    #[test]
    fn five_byte_nop_is_best_unless_the_red_zone_may_be_in_use() {
        // endbr64; nop5; push rbp
        let nop5 = [0x0f, 0x1f, 0x44, 0, 0];
        let code = [&[0xf3, 0x0f, 0x1e, 0xfa][..], &nop5, &[0x55, 0xc3]].concat();
        assert_eq!(sites(&code, CALL)[0], (4, SiteCost::Nop5));
        // mov [rsp-8], rdi; nop5; ret
        let code = [&[0x48, 0x89, 0x7c, 0x24, 0xf8][..], &nop5, &[0xc3]].concat();
        assert_eq!(sites(&code, CALL), [(0, SiteCost::SingleStepped)]);
    }

    #[test]
    fn short_nops_and_near_branches_are_emulated() {
        for insn in [
            &[0x90][..],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x84, 0, 0, 0, 0],
            &[0xe9, 0, 0, 0, 0],
        ] {
            let code = [insn, &[0xc3]].concat();
            assert_eq!(sites(&code, CALL)[0], (0, SiteCost::Emulated), "{insn:x?}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_never_a_site() {
        // lock inc [rdi]; nop [cs:..]; 66 jmp; int3; hlt; ud2
        for insn in [
            &[0xf0, 0x48, 0xff, 0x07][..],
            &[0x2e, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0xcc],
            &[0xf4],
            &[0x0f, 0x0b],
        ] {
            let code = [insn, &[0x55, 0xc3]].concat();
            let offsets: Vec<u64> = sites(&code, ENTRY).iter().map(|s| s.0).collect();
            assert!(!offsets.contains(&0), "{insn:x?}");
        }
        // pushes that do not push a register
        assert_eq!(sites(&[0x6a, 1, 0xc3], CALL)[0].1, SiteCost::SingleStepped);
        assert_eq!(
            sites(&[0xff, 0x37, 0xc3], CALL)[0].1,
            SiteCost::SingleStepped
        );
    }

    fn arm64_sites(words: &[u32], needs: Needs) -> Vec<(u64, SiteCost)> {
        let decoder = Decoder::of(Machine::Aarch64).unwrap();
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        plan_site(&decoder, &code, 0x1000, needs)
            .map(|all| all.iter().map(|c| (c.offset, c.cost)).collect())
            .unwrap_or_default()
    }

    #[test]
    fn on_arm64_a_return_is_probed_before_its_address_is_signed_or_stored() {
        const PACIASP: u32 = 0xd503_233f;
        const STP: u32 = 0xa9bd_7bfd; // stp x29, x30, [sp, #-48]!
        const CBZ_X0: u32 = 0xb400_0080;
        const RET: u32 = 0xd65f_03c0;
        let first = (0, SiteCost::SingleStepped);
        for prologue in [PACIASP, STP] {
            let code = [prologue, CBZ_X0, RET];
            assert_eq!(arm64_sites(&code, CALL), [first], "{prologue:#x}");
            let entry = [(4, SiteCost::Emulated), first];
            assert_eq!(arm64_sites(&code, ENTRY), entry, "{prologue:#x}");
        }
        // mov x8, x1; cbz x0
        let code = [0xaa01_03e8, CBZ_X0, STP, RET];
        assert_eq!(arm64_sites(&code, CALL), [(4, SiteCost::Emulated), first]);
        // mov x1, x8; cbz x0: an argument is gone
        assert_eq!(arm64_sites(&[0xaa08_03e1, CBZ_X0, RET], CALL), [first]);
    }

    #[test]
    fn truncated_code_never_panics() {
        let code = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x89, 0xf8, 0x0f, 0x1f, 0x44, 0, 0, 0x41, 0x55, 0xe8, 1,
            2, 3, 4, 0x0f, 0x84, 5, 6, 7, 8, 0xc3,
        ];
        for len in 0..=code.len() {
            sites(&code[..len], CALL);
            sites(&code[len..], ENTRY);
        }
    }
}
