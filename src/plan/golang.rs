//! Plans the probes of Go's crypto/tls.
//!
//! A Go function begins with a comparison of the stack pointer and a branch to code that lets the
//! stack grow and begins the function anew. That branch is emulated by the kernel and sees all
//! arguments; whether it will be taken is in the flags, so BPF can tell the pass that counts.
//! Returns are probed in a deferred function ([`deferred`]) or at each `ret`: a return probe would
//! replace the return address, which Go's runtime finds when it moves the stack, and end the program
//! (golang/go#22008).

mod arguments;
mod deferred;
mod offsets;

use crate::discovery::elf::{Elf, Machine};
use crate::discovery::golang::{self, GoFunction};
use crate::event::{Dir, Flavor};
use crate::plan::disasm::{Condition, Decoder, Insn, Kind, Op, Operand, Reg, RegSet};
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

/// `runtime.g`'s register (src/cmd/compile/abi-internal.md): on x86-64 from Go 1.17 on, on arm64 always.
const G_X86_64: Reg = Reg(14);
const G_ARM64: Reg = Reg(28);
/// The registers of the first two arguments.
const ARGS_X86_64: [Reg; 2] = [Reg::RAX, Reg::RBX];
const ARGS_ARM64: [Reg; 2] = [Reg(0), Reg(1)];
/// From here on functions of arm64 have their arguments in registers.
const ARM64_ABI_INTERNAL: u32 = 18;
/// Where in g `stackguard0` is, that the stack pointer is compared with.
const STACK_GUARD: i64 = 0x10;
/// How code before 1.17 loads g from thread-local storage (src/cmd/internal/obj/x86): `mov
/// %fs:disp32,%rcx`, or when position independent `mov $imm32,%rcx; mov %fs:(%rcx),%rcx`.
const LOAD_G: [u8; 5] = [0x64, 0x48, 0x8b, 0x0c, 0x25];
const LOAD_TLS: [u8; 3] = [0x48, 0xc7, 0xc1];
const LOAD_G_FROM: [u8; 4] = [0x64, 0x48, 0x8b, 0x09];
/// `mov disp32(%rip),%rcx`: from where the loader says where, in a shared library.
const LOAD_TLS_OF_LIBRARY: [u8; 3] = [0x48, 0x8b, 0x0d];
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
    let Some(program) = golang::inspect(elf, NEEDLE, &is_wanted) else {
        return Ok(None);
    };
    if program.functions.iter().all(|f| call_of(&f.name).is_none()) {
        return Ok(None);
    }
    let decoder = Decoder::of(elf.machine())?;
    let mut notes = program.notes;
    let mut probes = Vec::new();
    let mut packages: Vec<&str> = program
        .functions
        .iter()
        .filter_map(|function| function.name.split_once(NEEDLE))
        .map(|(package, _)| package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    let mut layout = offsets::learn(elf, &packages, program.minor)
        .with_context(|| format!("plan probes in {path}"))?;
    for function in &program.functions {
        let Some(call) = call_of(&function.name) else {
            continue;
        };
        let inner: Vec<&GoFunction> = program
            .functions
            .iter()
            .filter(|other| is_inside(&other.name, &function.name))
            .collect();
        let planner = Planner {
            elf,
            decoder: &decoder,
            function,
            call,
        };
        match planner.plan(program.minor, &inner, &mut layout) {
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
    if layout.version.is_none() {
        notes.push(format!(
            "TLS version, ALPN and server name are not known: it has no debug information, and {} \
             is new to this version",
            program.version
        ));
    }
    Ok(Some(Plan {
        flavor: Flavor::Go,
        version: Some(program.version),
        found_by: None,
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

/// Functions that the compiler makes of what is written inside another one, or deferred there:
/// `….func1`, `….deferwrap1`, `…·dwrap·1`.
fn is_inside(name: &str, outer: &str) -> bool {
    let rest = name.strip_prefix(outer);
    rest.is_some_and(|rest| rest.starts_with(['.', '·']))
}

fn is_wanted(name: &str) -> bool {
    let outer = FUNCTIONS.iter().filter_map(|(method, _)| {
        let end = name.find(NEEDLE)? + NEEDLE.len() + method.len();
        name.get(..end)
    });
    call_of(name).is_some()
        || outer
            .filter(|outer| call_of(outer).is_some())
            .any(|outer| is_inside(name, outer))
}

struct Planner<'p, 'a> {
    elf: &'p Elf<'a>,
    decoder: &'p Decoder,
    function: &'p GoFunction,
    call: GoCall,
}

impl Planner<'_, '_> {
    fn plan(
        &self,
        minor: Option<u32>,
        inner: &[&GoFunction],
        layout: &mut Layout,
    ) -> Result<Vec<Probe>> {
        let vaddr = self.function.vaddr;
        let size = self.function.size.min(MAX_FUNCTION);
        let code = self
            .elf
            .code(vaddr, size)
            .context("its code is not in the file")?;
        let entry = entry(self.decoder, code, vaddr, minor)?;
        // The linker gives the same to all functions.
        layout.g_tls = layout.g_tls.or(entry.g_tls);
        let at = vaddr
            .checked_add(entry.offset)
            .context("its address overflows")?;
        let mut probes = vec![self.probe(
            (GoAt::Enter, entry.abi0),
            at,
            SiteCost::Emulated,
            "branch of the stack check, emulated by the kernel",
        )?];
        let GoCall::Move(dir) = self.call else {
            return Ok(probes);
        };
        let (cost, known) = match self.decoder.machine {
            Machine::Aarch64 => (SiteCost::Emulated, None),
            _ => (SiteCost::SingleStepped, Some(dir).filter(|_| !entry.abi0)),
        };
        let stays = self.decoder.machine == Machine::X86_64
            && arguments::stay(
                self.decoder,
                code,
                vaddr,
                at,
                (!entry.abi0).then_some(ARGS_X86_64),
            );
        if dir == Dir::In && !stays {
            layout.input = None;
        }
        let mut returns = returns(self.decoder, code, vaddr)?;
        let place = match known {
            Some(Dir::In) => Some(&mut layout.read_defer),
            Some(Dir::Out) => Some(&mut layout.write_defer),
            None => None,
        };
        // Of several copies of a function, one gets the place.
        if let Some(place) = place.filter(|place| place.is_none())
            && let Some(planned) =
                deferred::plan(self.elf, self.decoder, self.function, code, inner)
        {
            *place = Some(planned.facts);
            let at = (GoAt::Defer, false);
            probes.push(self.probe(at, planned.vaddr, SiteCost::Emulated, &planned.reason)?);
            returns.retain(|ret| !planned.covers.contains(ret));
        }
        for ret in returns {
            probes.push(self.probe((GoAt::Return, entry.abi0), ret, cost, "ret")?);
        }
        Ok(probes)
    }

    fn probe(
        &self,
        (at, abi0): (GoAt, bool),
        vaddr: u64,
        cost: SiteCost,
        reason: &str,
    ) -> Result<Probe> {
        let call = self.call;
        Ok(Probe {
            func: self.function.name.clone(),
            action: Action::Go { call, at, abi0 },
            site: Site {
                vaddr,
                file_offset: self
                    .elf
                    .file_offset(vaddr)
                    .context("it is not in the file")?,
                cost,
                reason: reason.to_owned(),
            },
            fallbacks: Vec::new(),
        })
    }
}

struct Entry {
    offset: u64,
    /// Arguments on the stack.
    abi0: bool,
    /// Where g is in thread-local storage, if it is there.
    g_tls: Option<i32>,
}

/// From the thread pointer on. The linker writes it into the code of programs.
fn g_tls(code: &[u8]) -> Result<i32> {
    let number = |at: usize| Some(i32::from_le_bytes(*code.get(at..)?.first_chunk()?));
    let place = if code.starts_with(&LOAD_G) {
        number(LOAD_G.len())
    } else if code.starts_with(&LOAD_TLS) && code.get(7..11) == Some(&LOAD_G_FROM) {
        number(LOAD_TLS.len())
    } else if code.starts_with(&LOAD_TLS_OF_LIBRARY) {
        bail!("it is of Go before 1.17 in a shared library, where each process has g elsewhere");
    } else {
        None
    };
    place.context("it is of Go before 1.17, and where it finds its goroutine is not known")
}

/// The branch to `runtime.morestack`.
fn entry(decoder: &Decoder, code: &[u8], vaddr: u64, minor: Option<u32>) -> Result<Entry> {
    let (g_register, args) = match decoder.machine {
        Machine::Aarch64 => (G_ARM64, ARGS_ARM64),
        _ => (G_X86_64, ARGS_X86_64),
    };
    let mut at = 0usize;
    let mut before: Vec<Insn> = Vec::new();
    let mut written = RegSet::default();
    for _ in 0..=MAX_PROLOGUE {
        let rest = code.get(at..).unwrap_or_default();
        let addr = vaddr
            .checked_add(at as u64)
            .context("its address overflows")?;
        let Some(insn) = decoder.decode(rest, addr) else {
            break;
        };
        if let Kind::Branch(to) = insn.kind {
            let end = vaddr.saturating_add(code.len() as u64);
            let is_forward = to > addr && to < end;
            let grows = insn.op == Op::Jump(Condition::BelowEqual);
            let Some(g) = compared_with(&before).filter(|_| is_forward && grows) else {
                break;
            };
            let spoils = |reg: &Reg| written.contains(*reg);
            let abi0 = match (decoder.machine, minor) {
                (Machine::Aarch64, Some(minor)) => minor < ARM64_ABI_INTERNAL,
                (Machine::Aarch64, None) => args.iter().any(spoils),
                _ => g != g_register,
            };
            // Nothing before the branch may have changed what is read there.
            if !abi0 && args.iter().chain([&g_register]).any(spoils) {
                bail!("its arguments are gone at the stack check");
            }
            if decoder.machine == Machine::Aarch64 && g != g_register {
                bail!("it does not begin with a stack check");
            }
            let g_tls = match g == g_register {
                true => None,
                false => Some(g_tls(code)?),
            };
            return Ok(Entry {
                offset: at as u64,
                abi0,
                g_tls,
            });
        }
        if insn.kind != Kind::Other || insn.stores || insn.writes.contains(decoder.convention.stack)
        {
            break;
        }
        written = written.iter().chain(insn.writes.iter()).collect();
        at += usize::from(insn.len);
        before.push(insn);
    }
    bail!("it does not begin with a stack check")
}

/// The register that holds g, when the last of these instructions compares the stack pointer (or
/// what was made of it) with the guard in g: in memory, or loaded just before.
fn compared_with(insns: &[Insn]) -> Option<Reg> {
    let (compare, before) = insns.split_last()?;
    let [Some(Operand::Reg(..)), Some(guard), _] = compare.operands else {
        return None;
    };
    let guard = match guard {
        Operand::Mem(guard) => guard,
        Operand::Reg(loaded, 8) => before.iter().rev().find_map(|insn| match insn.operands {
            [Some(Operand::Reg(to, 8)), Some(Operand::Mem(guard)), _] if to == loaded => {
                (insn.op == Op::Mov).then_some(guard)
            }
            _ => None,
        })?,
        _ => return None,
    };
    let is_guard = compare.op == Op::Cmp && guard.disp == STACK_GUARD && !guard.complex;
    guard.base.filter(|_| is_guard)
}

/// Addresses of all returns.
fn returns(decoder: &Decoder, code: &[u8], vaddr: u64) -> Result<Vec<u64>> {
    let mut returns = Vec::new();
    let mut next = vaddr;
    let mut is_whole = true;
    decoder.sweep(code, vaddr, |insn| {
        // A byte that is no code puts everything after it in doubt.
        is_whole &= insn.addr == next;
        next = insn.addr.wrapping_add(u64::from(insn.len));
        if insn.kind == Kind::Ret {
            returns.push(insn.addr);
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

#[cfg(test)]
#[path = "golang_tests.rs"]
mod tests;
