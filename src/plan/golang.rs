//! Plans the probes of Go's crypto/tls.
//!
//! A Go function begins with a comparison of the stack pointer and a branch to code that lets the
//! stack grow and begins the function anew. That branch is emulated by the kernel and sees all
//! arguments; whether it will be taken is in the flags, so BPF can tell the pass that counts.
//! Returns are probed at each `ret`: a return probe would replace the return address, which Go's
//! runtime finds when it moves the stack, and end the program (golang/go#22008).

use crate::discovery::elf::Elf;
use crate::discovery::golang::{self, GoFunction};
use crate::event::{Dir, Flavor};
use crate::plan::disasm::{Decoder, Insn, Kind, Op, Operand, Reg, RegSet};
use crate::plan::{Action, GoAt, GoCall, Layout, Plan, Probe, Site, SiteCost};
use anyhow::{Context, Result, bail};

/// What every function that is probed has in its name, whatever package path comes before it.
const NEEDLE: &str = "crypto/tls.(*Conn).";
const FUNCTIONS: [(&str, GoCall); 6] = [
    ("Read", GoCall::Move(Dir::In)),
    ("Write", GoCall::Move(Dir::Out)),
    ("Close", GoCall::Close),
    ("CloseWrite", GoCall::CloseWrite),
    ("clientHandshake", GoCall::Handshake),
    ("serverHandshake", GoCall::Handshake),
];

/// `runtime.g`'s register from Go 1.17 on (src/cmd/compile/abi-internal.md), and where `g.stackguard0`
/// is that the stack pointer is compared with.
const G: Reg = Reg(14);
const STACK_GUARD: i64 = 0x10;
/// `mov %fs:-8,%rcx`: how code before 1.17 that is not linked with C loads g (src/cmd/internal/obj/x86).
const LOAD_G: [u8; 9] = [0x64, 0x48, 0x8b, 0x0c, 0x25, 0xf8, 0xff, 0xff, 0xff];
/// The comparison and its branch come at once; a large frame has a `lea` before them, and code
/// before 1.17 the load of g.
const MAX_PROLOGUE: usize = 4;
/// None of these functions is near this many bytes.
const MAX_FUNCTION: u64 = 64 << 10;

/// The probes for a Go program; `None` when it is none, or has no crypto/tls by name.
///
/// # Errors
/// There are functions, but none can be probed.
pub fn plan(elf: &Elf<'_>, path: &str) -> Result<Option<Plan>> {
    let Some(program) = golang::inspect(elf, NEEDLE, &|name| call_of(name).is_some()) else {
        return Ok(None);
    };
    if program.functions.is_empty() {
        return Ok(None);
    }
    let decoder = Decoder::x86_64()?;
    let mut notes = program.notes;
    let mut probes = Vec::new();
    for function in &program.functions {
        let Some(call) = call_of(&function.name) else {
            continue;
        };
        match plan_function(elf, &decoder, function, call) {
            Ok(planned) => probes.extend(planned),
            Err(error) => notes.push(format!("{} is not seen: {error:#}", function.name)),
        }
    }
    if probes.is_empty() {
        bail!(
            "plan probes in {path}: found Go's TLS functions, but none can be probed: {}",
            notes.join("; ")
        );
    }
    let layout = layout(program.minor);
    if layout.version.is_none() {
        notes.push(format!(
            "TLS version, ALPN and server name are not known: {} is new to this version",
            program.version
        ));
    }
    Ok(Some(Plan {
        flavor: Flavor::Go,
        version: Some(program.version),
        probes,
        layout,
        notes,
    }))
}

/// Also of a vendored copy: `…/vendor/crypto/tls.(*Conn).Read`.
fn call_of(name: &str) -> Option<GoCall> {
    let (package, method) = name.split_once(NEEDLE)?;
    if !package.is_empty() && !package.ends_with('/') {
        return None;
    }
    let (_, call) = FUNCTIONS.iter().find(|(known, _)| *known == method)?;
    Some(*call)
}

fn plan_function(
    elf: &Elf<'_>,
    decoder: &Decoder,
    function: &GoFunction,
    call: GoCall,
) -> Result<Vec<Probe>> {
    let size = function.size.min(MAX_FUNCTION);
    let code = elf
        .code(function.vaddr, size)
        .context("its code is not in the file")?;
    let entry = entry(decoder, code, function.vaddr)?;
    let probe = |offset: u64, at: GoAt, cost: SiteCost, reason: &str| -> Result<Probe> {
        let vaddr = function
            .vaddr
            .checked_add(offset)
            .context("its address overflows")?;
        Ok(Probe {
            func: function.name.clone(),
            action: Action::Go {
                call,
                at,
                abi0: entry.abi0,
            },
            site: Site {
                vaddr,
                file_offset: elf.file_offset(vaddr).context("it is not in the file")?,
                cost,
                reason: reason.to_owned(),
            },
            fallbacks: Vec::new(),
        })
    };
    let mut probes = vec![probe(
        entry.offset,
        GoAt::Enter,
        SiteCost::Emulated,
        "branch of the stack check, emulated by the kernel",
    )?];
    if let GoCall::Move(_) = call {
        for offset in returns(decoder, code, function.vaddr)? {
            probes.push(probe(offset, GoAt::Return, SiteCost::SingleStepped, "ret")?);
        }
    }
    Ok(probes)
}

struct Entry {
    offset: u64,
    /// Arguments on the stack, g in thread-local storage.
    abi0: bool,
}

/// The branch to `runtime.morestack`.
fn entry(decoder: &Decoder, code: &[u8], vaddr: u64) -> Result<Entry> {
    let mut at = 0usize;
    let mut before: Option<Insn> = None;
    let mut written = RegSet::default();
    for _ in 0..=MAX_PROLOGUE {
        let rest = code.get(at..).unwrap_or_default();
        let addr = vaddr
            .checked_add(at as u64)
            .context("its address overflows")?;
        let Some(insn) = decoder.decode(rest, addr) else {
            break;
        };
        if let (Kind::Branch(to), Some(compare)) = (insn.kind, before) {
            let end = vaddr.saturating_add(code.len() as u64);
            let is_forward = to > addr && to < end;
            // Below or equal, unsigned: CF or ZF.
            let is_jbe = matches!(rest, [0x76, ..] | [0x0f, 0x86, ..]);
            let Some(g) = compared_with(&compare).filter(|_| is_forward && is_jbe) else {
                break;
            };
            let abi0 = g != G;
            // Nothing before the branch may have changed what is read there.
            let spoils = |reg: &Reg| written.contains(*reg);
            if !abi0 && [Reg::RAX, Reg::RBX, G].iter().any(spoils) {
                bail!("its arguments are gone at the stack check");
            }
            if abi0 && !code.starts_with(&LOAD_G) {
                bail!("it is of Go before 1.17, linked with C, and finds its goroutine otherwise");
            }
            return Ok(Entry {
                offset: at as u64,
                abi0,
            });
        }
        if insn.kind != Kind::Other || insn.stores || insn.writes.contains(Reg::RSP) {
            break;
        }
        written = written.iter().chain(insn.writes.iter()).collect();
        at += usize::from(insn.len);
        before = Some(insn);
    }
    bail!("it does not begin with a stack check")
}

/// The register that holds g, when this compares the stack pointer (or what `lea` made of it)
/// with the guard in it.
fn compared_with(insn: &Insn) -> Option<Reg> {
    let [Some(Operand::Reg(..)), Some(Operand::Mem(guard)), _] = insn.operands else {
        return None;
    };
    let is_guard = insn.op == Op::Cmp && guard.disp == STACK_GUARD && !guard.complex;
    guard.base.filter(|_| is_guard)
}

/// Offsets of all returns.
fn returns(decoder: &Decoder, code: &[u8], vaddr: u64) -> Result<Vec<u64>> {
    let mut returns = Vec::new();
    let mut next = vaddr;
    let mut is_whole = true;
    decoder.sweep(code, vaddr, |insn| {
        // A byte that is no code puts everything after it in doubt.
        is_whole &= insn.addr == next;
        next = insn.addr.wrapping_add(u64::from(insn.len));
        if insn.kind == Kind::Ret {
            returns.push(insn.addr.wrapping_sub(vaddr));
        }
    });
    if !is_whole || next != vaddr.wrapping_add(code.len() as u64) {
        bail!("its code cannot be disassembled");
    }
    if returns.is_empty() {
        bail!("it never returns");
    }
    Ok(returns)
}

/// Offsets in `tls.Conn` of `vers`, `serverName` and `clientProtocol`, and in `runtime.g` of `goid`, as
/// the DWARF gives them that 1.15, 1.19 and 1.21 to 1.27 write. A stripped program says nothing of
/// them.
fn layout(minor: Option<u32>) -> Layout {
    let goid = match minor {
        Some(13..=22 | 25..=27) => Some(152),
        Some(23 | 24) => Some(160),
        _ => None,
    };
    let (version, sni, alpn) = match minor {
        Some(15..=19) => (64, 192, 328),
        Some(21 | 22) => (72, 224, 360),
        Some(23 | 24) => (72, 224, 368),
        Some(25 | 26) => (72, 208, 352),
        Some(27) => (72, 232, 376),
        _ => {
            return Layout {
                goid,
                ..Layout::default()
            };
        }
    };
    // A string is a pointer and a length.
    Layout {
        version: Some(vec![version]),
        sni: Some(vec![sni]),
        sni_len: Some(vec![sni + 8]),
        alpn: Some((vec![alpn], vec![alpn + 8])),
        goid,
        ..Layout::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;
    /// `cmp 0x10(%r14),%rsp; jbe .+3; nop; ret; nop; ret`
    const SMALL: [u8; 10] = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x02, 0x90, 0xc3, 0x90, 0xc3];

    fn entry_of(code: &[u8]) -> Result<(u64, bool)> {
        let decoder = Decoder::x86_64().unwrap();
        entry(&decoder, code, START).map(|entry| (entry.offset, entry.abi0))
    }

    fn with(before: &[u8], compare: [u8; 4]) -> Vec<u8> {
        [before, &compare, &[0x76, 0x02, 0x90, 0xc3, 0x90, 0xc3]].concat()
    }

    #[test]
    fn the_probe_sits_on_the_branch_of_the_stack_check() {
        assert_eq!(entry_of(&SMALL).unwrap(), (4, false));
        // lea -0x80(%rsp),%r12; cmp 0x10(%r14),%r12
        let large = with(&[0x4c, 0x8d, 0x64, 0x24, 0x80], [0x4d, 0x3b, 0x66, 0x10]);
        assert_eq!(entry_of(&large).unwrap(), (9, false));
        // cmp 0x10(%rcx),%rsp
        let old = with(&LOAD_G, [0x48, 0x3b, 0x61, 0x10]);
        assert_eq!(entry_of(&old).unwrap(), (13, true));
    }

    #[test]
    fn a_site_without_its_arguments_is_refused() {
        // mov %rbx,%rax
        assert!(entry_of(&with(&[0x48, 0x89, 0xd8], [0x49, 0x3b, 0x66, 0x10])).is_err());
        // push %rbp; and a comparison with something else
        assert!(entry_of(&with(&[0x55], [0x49, 0x3b, 0x66, 0x10])).is_err());
        assert!(entry_of(&with(&[], [0x49, 0x3b, 0x66, 0x18])).is_err());
        // g from elsewhere: mov %fs:(%rcx),%rcx
        assert!(entry_of(&with(&[0x64, 0x48, 0x8b, 0x09], [0x48, 0x3b, 0x61, 0x10])).is_err());
        let mut other_branch = SMALL;
        other_branch[4] = 0x77;
        assert!(entry_of(&other_branch).is_err());
        let mut backward = SMALL;
        backward[5] = 0xf0;
        assert!(entry_of(&backward).is_err());
    }

    #[test]
    fn each_return_is_found_and_code_that_is_none_is_refused() {
        let decoder = Decoder::x86_64().unwrap();
        let returns = |code: &[u8]| returns(&decoder, code, START);
        assert_eq!(returns(&SMALL).unwrap(), [7, 9]);
        // 0xc3 within an instruction: mov $0xc3,%eax
        assert!(returns(&[0xb8, 0xc3, 0, 0, 0]).is_err());
        // A byte that begins no instruction, and one that is cut.
        assert!(returns(&[0xc3, 0x06, 0xc3]).is_err());
        assert!(returns(&[0xc3, 0xb8, 0xc3]).is_err());
    }

    #[test]
    fn code_cut_anywhere_is_read_without_harm() {
        for len in 0..SMALL.len() {
            let _ = entry_of(&SMALL[..len]);
        }
    }

    #[test]
    fn vendored_copies_count_and_closures_do_not() {
        let is_wanted = |name| call_of(name).is_some();
        assert!(is_wanted("crypto/tls.(*Conn).Read"));
        assert!(is_wanted("example.com/x/vendor/crypto/tls.(*Conn).Write"));
        assert!(!is_wanted("example.com/notcrypto/tls.(*Conn).Write"));
        assert!(!is_wanted("crypto/tls.(*Conn).Write.func1"));
        assert!(!is_wanted("crypto/tls.(*Conn).readRecord"));
    }
}
