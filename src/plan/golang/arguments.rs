//! Proves that the arguments of a call still stand above the return address when it returns.
//!
//! Go passes them in registers, and the caller leaves room for them there (abi-internal.md, "spill
//! area"). A function that needs them after a call stores them into it at once. Before Go 1.17 they
//! are there from the beginning. That is how a call is understood that began before the capture.

use crate::plan::disasm::{Decoder, Insn, Kind, Op, Operand, Reg, RegSet};

/// The first two: bytes from the return address, one behind the other.
const PLACES: [i64; 2] = [8, 16];
const END: i64 = 24;

/// What follows the branch of the stack check, up to the first jump or call.
struct Beginning {
    /// How far the stack pointer is below the return address from then on.
    depth: i64,
    /// Where the arguments are stored.
    stores: [Option<u64>; 2],
}

/// Whether both are there at each return. `branch` is the address of that of the stack check;
/// `args` are the registers of the arguments, `None` when the caller has put them there.
pub(super) fn stay(
    decoder: &Decoder,
    code: &[u8],
    vaddr: u64,
    branch: u64,
    args: Option<[Reg; 2]>,
) -> bool {
    let mut insns = Vec::new();
    decoder.sweep(code, vaddr, |insn| insns.push(insn.clone()));
    let stack = decoder.convention.stack;
    let Some((check, rest)) = insns
        .iter()
        .position(|insn| insn.addr == branch)
        .and_then(|at| insns.get(at..)?.split_first())
    else {
        return false;
    };
    let straight = rest
        .iter()
        .take_while(|insn| matches!(insn.kind, Kind::Other | Kind::Nop | Kind::Push(_)))
        .count();
    let (first, rest) = rest.split_at(straight);
    let Some(beginning) = beginning(first, stack, args) else {
        return false;
    };
    let is_stored = |store: &Option<u64>| store.is_some();
    if args.is_some() && !beginning.stores.iter().all(is_stored) {
        return false;
    }
    // Nothing may jump in between, past a store.
    let is_entered = insns.iter().any(|insn| match insn.kind {
        Kind::Branch(to) | Kind::Jump(to) => {
            first.iter().any(|insn| insn.addr == to) && to != check.next()
        }
        Kind::JumpIndirect => true,
        _ => false,
    });
    let spoils = |insn: &Insn| {
        !beginning.stores.contains(&Some(insn.addr)) && may_spoil(insn, stack, beginning.depth)
    };
    !is_entered && !first.iter().chain(rest).any(spoils) && !rest.iter().any(|i| sinks(i, stack))
}

fn beginning(insns: &[Insn], stack: Reg, args: Option<[Reg; 2]>) -> Option<Beginning> {
    let mut beginning = Beginning {
        depth: 0,
        stores: [None; 2],
    };
    let mut written = RegSet::default();
    for insn in insns {
        let stored = match insn.operands {
            [Some(Operand::Mem(to)), Some(Operand::Reg(from, 8)), _] if insn.op == Op::Mov => {
                let is_plain = to.base == Some(stack) && !to.complex && !written.contains(from);
                is_plain.then_some((to.disp.checked_sub(beginning.depth)?, from))
            }
            _ => None,
        };
        let registers = args.into_iter().flatten().zip(PLACES);
        for (kept, (register, place)) in beginning.stores.iter_mut().zip(registers) {
            if stored == Some((place, register)) {
                *kept = Some(insn.addr);
            }
        }
        if insn.writes.contains(stack) {
            beginning.depth = beginning.depth.checked_add(lowered(insn)?)?;
        }
        insn.writes.iter().for_each(|reg| written.insert(reg));
    }
    Some(beginning)
}

/// By how much an instruction that changes the stack pointer lowers it.
fn lowered(insn: &Insn) -> Option<i64> {
    match (insn.kind, insn.op, insn.operands) {
        (Kind::Push(_), ..) => Some(8),
        (_, Op::Sub, [_, Some(Operand::Imm(size)), _]) if size > 0 => Some(size),
        _ => None,
    }
}

/// Whether it lowers the stack pointer, or sets it, which must not happen after the beginning.
fn sinks(insn: &Insn, stack: Reg) -> bool {
    let is_call = matches!(insn.kind, Kind::Call(_) | Kind::CallIndirect | Kind::Ret);
    let rises = match (insn.op, insn.operands) {
        (Op::Pop, _) => true,
        (Op::Add, [_, Some(Operand::Imm(size)), _]) => size > 0,
        _ => false,
    };
    insn.writes.contains(stack) && !is_call && !rises
}

/// Whether it may change what is there, or tell others where that is.
fn may_spoil(insn: &Insn, stack: Reg, depth: i64) -> bool {
    let Some(mem) = insn.mem() else {
        return false;
    };
    let reaches = |from: i64, to: i64| from < depth + END && to > depth + PLACES[0];
    match (mem.base, insn.op) {
        (Some(base), Op::Lea) if base == stack => mem.complex || mem.disp >= depth,
        (Some(Reg::RBP), Op::Lea) => mem.disp > 0 && !insn.writes.contains(Reg::RBP),
        (Some(base), _) if base == stack && insn.stores => {
            mem.complex || reaches(mem.disp, mem.disp + i64::from(mem.size))
        }
        (Some(Reg::RBP), _) => insn.stores,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;
    /// `cmp 0x10(%r14),%rsp; jbe`, to the end of what follows.
    const CHECK: [u8; 4] = [0x49, 0x3b, 0x66, 0x10];
    /// `push %rbp; mov %rsp,%rbp; sub $0x20,%rsp`
    const PROLOGUE: [u8; 8] = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20];
    /// `mov %rax,0x30(%rsp)`, `mov %rbx,0x38(%rsp)`
    const STORES: [u8; 10] = [0x48, 0x89, 0x44, 0x24, 0x30, 0x48, 0x89, 0x5c, 0x24, 0x38];
    /// `call .+0; mov 0x38(%rsp),%rax`
    const BODY: [u8; 10] = [0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x44, 0x24, 0x38];
    /// `add $0x20,%rsp; pop %rbp; ret`
    const EPILOGUE: [u8; 6] = [0x48, 0x83, 0xc4, 0x20, 0x5d, 0xc3];
    /// `mov %rax,8(%rsp); mov %rbx,16(%rsp); call .+0`
    const GROWS: [u8; 15] = [
        0x48, 0x89, 0x44, 0x24, 8, 0x48, 0x89, 0x5c, 0x24, 16, 0xe8, 0, 0, 0, 0,
    ];

    fn stays_in(parts: &[&[u8]], args: Option<[Reg; 2]>) -> bool {
        let body = parts.concat();
        let mut code = CHECK.to_vec();
        code.extend([0x76, body.len() as u8]);
        code.extend(body);
        code.extend(GROWS);
        code.extend([0xeb, (-(code.len() as i8) - 2) as u8]);
        let decoder = Decoder::x86_64().unwrap();
        for len in 0..code.len() {
            let _ = stay(&decoder, &code[..len], START, START + 4, args);
        }
        stay(&decoder, &code, START, START + 4, args)
    }

    fn stays(parts: &[&[u8]]) -> bool {
        stays_in(parts, Some([Reg::RAX, Reg::RBX]))
    }

    #[test]
    fn arguments_that_are_stored_at_once_stay() {
        assert!(stays(&[&PROLOGUE, &STORES, &BODY, &EPILOGUE]));
        // Something else between them: mov %rcx,0x40(%rsp)
        let other = [0x48, 0x89, 0x4c, 0x24, 0x40];
        assert!(stays(&[&PROLOGUE, &other, &STORES, &BODY, &EPILOGUE]));
        // movups %xmm15,0x18(%rsp), and lea 0x10(%rsp),%rcx
        let local = [
            0x44, 0x0f, 0x11, 0x7c, 0x24, 0x18, 0x48, 0x8d, 0x4c, 0x24, 0x10,
        ];
        assert!(stays(&[&PROLOGUE, &STORES, &local, &BODY, &EPILOGUE]));
    }

    #[test]
    fn arguments_that_are_not_stored_or_not_in_time_do_not() {
        let code = |stores: &[u8]| stays(&[&PROLOGUE, stores, &BODY, &EPILOGUE]);
        assert!(!code(&[]));
        assert!(!code(&STORES[..5]));
        assert!(!code(&STORES[5..]));
        // mov %rdx,%rax before it; the places changed; and with another width: mov %eax,0x30(%rsp)
        assert!(!code(&[&[0x48, 0x89, 0xd0][..], &STORES].concat()));
        let mut swapped = STORES;
        swapped.swap(4, 9);
        assert!(!code(&swapped));
        assert!(!code(&[&[0x89, 0x44, 0x24, 0x30], &STORES[5..]].concat()));
        // After a call.
        assert!(!stays(&[&PROLOGUE, &BODY, &STORES, &EPILOGUE]));
    }

    #[test]
    fn what_may_be_changed_does_not_stay() {
        let with = |more: &[u8]| stays(&[&PROLOGUE, &STORES, &BODY, more, &EPILOGUE]);
        assert!(with(&[]));
        let changes: [&[u8]; 8] = [
            &[0x48, 0x89, 0x4c, 0x24, 0x38],       // mov %rcx,0x38(%rsp)
            &[0xc6, 0x44, 0x24, 0x3f, 0],          // movb $0,0x3f(%rsp)
            &[0x44, 0x0f, 0x11, 0x7c, 0x24, 0x28], // movups %xmm15,0x28(%rsp)
            &[0x48, 0x89, 0x0c, 0x04],             // mov %rcx,(%rsp,%rax)
            &[0x48, 0x89, 0x4d, 0x10],             // mov %rcx,0x10(%rbp)
            &[0x48, 0x8d, 0x4c, 0x24, 0x30],       // lea 0x30(%rsp),%rcx
            &[0x48, 0x83, 0xec, 0x10],             // sub $0x10,%rsp
            &[0x48, 0x89, 0xcc],                   // mov %rcx,%rsp
        ];
        for change in changes {
            assert!(!with(change), "{change:x?}");
        }
        // A jump back to between the stores: to 5 before the body.
        let body_and_jump = [&BODY[..], &[0xeb, (-17i8) as u8]].concat();
        assert!(!stays(&[&PROLOGUE, &STORES, &body_and_jump, &EPILOGUE]));
    }

    #[test]
    fn arguments_of_old_programs_are_there_from_the_beginning() {
        assert!(stays_in(&[&PROLOGUE, &BODY, &EPILOGUE], None));
        let change = [0x48, 0x89, 0x4c, 0x24, 0x38];
        assert!(!stays_in(&[&PROLOGUE, &BODY, &change, &EPILOGUE], None));
    }
}
