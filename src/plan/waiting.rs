//! Finds a read that has begun before its probe was in place, in the stack of the thread that
//! waits in it, with its arguments: exactly, or not at all.
//!
//! `ssl_read_internal` leaves its return address to `ssl3_read`, and that to `ssl3_read_internal`,
//! which keeps the arguments where its code says. All three are executed symbolically.

use crate::discovery::elf::unwinding::Registers;
use crate::discovery::stack::{Frame, Memory, Module, Space};
use crate::event::{Dir, Flavor};
use crate::plan::disasm::{Decoder, Kind};
use crate::plan::symbolic::{self, Base, Keeper, Run, Value};
use crate::plan::{Action, BioLayout, Count, Plan, Probe};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Functions that leave their return address to the next one, at most.
const MAX_TAILS: u8 = 3;
/// Most bytes of a function that are looked at.
const MAX_FUNCTION: u64 = 16 << 10;
/// BIOs in front of the one that has the descriptor, itself included.
const MAX_BIOS: usize = 4;
/// Loads that lead to a function, at most.
const MAX_LOADS: u8 = 4;

/// Which of the probed function's arguments each argument of another function is.
type Passed = [Option<u8>; 6];
const AS_THEY_ARE: Passed = [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)];

/// A read that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Index of its probe in the plan.
    pub probe: usize,
    pub handle: u64,
    pub buf: u64,
    /// Where the count will be, or 0.
    pub out: u64,
    /// The stack pointer at the function's entry.
    pub entry: u64,
    /// Where it will return to, in the process.
    pub returns_to: u64,
}

/// What is known of the target that the threads may wait in.
#[derive(Debug)]
pub struct Finder<'p> {
    plan: &'p Plan,
    bio: Option<BioLayout>,
    decoder: Decoder,
    runs: RefCell<HashMap<(u64, u64), Rc<Run>>>,
}

/// What a connection reads from.
enum Descriptor {
    Number(u64),
    /// What the program has made for it.
    Other,
}

/// A call of a probed function: what of the stack belongs to it.
struct Found<'f, 's, 'a> {
    probe: usize,
    /// Where the probed function begins.
    start: u64,
    /// The function that has its return address now, which may be itself.
    frame: &'f Frame<'s, 'a>,
}

impl<'p> Finder<'p> {
    /// `None` when nothing can be found with this plan.
    pub fn new(plan: &'p Plan, bio: Option<BioLayout>, decoder: Decoder) -> Option<Finder<'p>> {
        let reads = plan.probes.iter().any(is_read);
        let has_bio = plan.layout.rbio.is_some() && bio.is_some();
        (reads && (has_bio || plan.layout.transport.is_some())).then(|| Finder {
            plan,
            bio,
            decoder,
            runs: RefCell::default(),
        })
    }

    /// The read that a thread with these registers waits in, while it sleeps in a system call on
    /// this descriptor (`None`: in one that waits for any). `is_target` says of a file whether it is the target.
    pub fn find(
        &self,
        space: &Space<'_>,
        registers: Registers,
        fd: Option<u64>,
        is_target: &dyn Fn(&Module<'_>) -> bool,
    ) -> Option<InFlight> {
        let frames = space.frames(registers);
        for frame in frames.filter(|frame| is_target(frame.module)) {
            let Some(found) = self.call_of_probed(space, &frame) else {
                continue;
            };
            let call = self.arguments(space, &found)?;
            return self
                .reads_from(&space.memory, call.handle, fd)
                .then_some(call);
        }
        None
    }

    /// Whether the frame is a call of a probed function, or of one that has its return address.
    fn call_of_probed<'f, 's, 'a>(
        &self,
        space: &Space<'_>,
        frame: &'f Frame<'s, 'a>,
    ) -> Option<Found<'f, 's, 'a>> {
        let probes = self.plan.probes.iter().enumerate();
        for (number, probe) in probes.filter(|(_, probe)| is_read(probe)) {
            let start = frame.module.unwinding.function(probe.site.vaddr)?.start;
            let is_itself = frame.function.start == start;
            if is_itself || self.is_call_of(space, frame, start, &probe.func) {
                return Some(Found {
                    probe: number,
                    start,
                    frame,
                });
            }
        }
        None
    }

    /// Whether the frame's return address is behind a call of the function at `start`: a direct one,
    /// or from any file one that the loader has directed to the function of this name.
    fn is_call_of(&self, space: &Space<'_>, frame: &Frame<'_, '_>, start: u64, name: &str) -> bool {
        /// Bytes of a call with a distance of 32 bits, and of one through a pointer at such a distance.
        const CALLS: [u64; 2] = [5, 6];
        let Some(caller) = space.module(frame.returns_to) else {
            return false;
        };
        let is_same = caller.mapping.id == frame.module.mapping.id;
        let end = caller.vaddr(frame.returns_to);
        let is_call = |len: u64| {
            let at = end.checked_sub(len)?;
            let insn = self.decoder.decode(caller.elf.code(at, len)?, at)?;
            if u64::from(insn.len) != len {
                return None;
            }
            match insn.kind {
                Kind::Call(to) if is_same && to == start => Some(true),
                Kind::Call(to) => Some(caller.elf.import_at(to)? == name),
                Kind::CallIndirect => {
                    let slot = insn.mem().filter(|mem| mem.rip_relative)?;
                    Some(caller.elf.import_in_slot(slot.disp.cast_unsigned())? == name)
                }
                _ => None,
            }
        };
        CALLS.iter().any(|len| is_call(*len) == Some(true))
    }

    fn arguments(&self, space: &Space<'_>, found: &Found<'_, '_, '_>) -> Option<InFlight> {
        let frame = found.frame;
        let function = &frame.function;
        let size = function.end.checked_sub(function.start)?;
        if size > MAX_FUNCTION {
            return None;
        }
        let run = self.run(frame.module, function.start, Some(frame.goes_on))?;
        let kept = run.kept.as_ref()?;
        let held = |argument: Option<u8>| -> Option<u64> {
            let keepers = kept.keepers(self.decoder.convention, Value::arg(argument?));
            let value = |keeper: &Keeper| match keeper {
                Keeper::Register(reg) => *frame.registers.general.get(usize::from(reg.0))?,
                Keeper::Slot(at) => space.memory.u64(frame.entry.checked_add_signed(*at)?),
            };
            let mut values = keepers.iter().map(value);
            let first = values.next()??;
            values.all(|other| other == Some(first)).then_some(first)
        };
        // That the handle is passed on as it is has to be assumed first, to follow its pointers.
        let handle = held(Some(0))?;
        let passed = if function.start == found.start {
            AS_THEY_ARE
        } else {
            self.passed_on(space, found, found.start, AS_THEY_ARE, handle, 0)?
        };
        let place = |argument: u8| {
            let at = passed.iter().position(|of| *of == Some(argument))?;
            u8::try_from(at).ok()
        };
        if place(0)? != 0 {
            return None;
        }
        let probe = self.plan.probes.get(found.probe)?;
        let out = match probe.action {
            Action::Data(_, Count::OutArg(n)) => held(place(n))?,
            _ => 0,
        };
        Some(InFlight {
            probe: found.probe,
            handle,
            buf: held(place(1))?,
            out,
            entry: frame.entry,
            returns_to: frame.returns_to,
        })
    }

    /// How the arguments come from the function at `start`, where they are `own`, to that of the
    /// frame: by jumps, of which the one that leads there must be the only way.
    fn passed_on(
        &self,
        space: &Space<'_>,
        found: &Found<'_, '_, '_>,
        start: u64,
        own: Passed,
        handle: u64,
        depth: u8,
    ) -> Option<Passed> {
        let module = found.frame.module;
        let run = self.run(module, start, None)?;
        let mut ways = Vec::new();
        for tail in &run.tails {
            let to = match tail.to.base {
                Base::Zero => tail.to.plus.cast_unsigned(),
                _ => {
                    let to = follow(&run, &space.memory, tail.to, handle, 0)?;
                    let to_module = space.module(to)?;
                    if to_module.mapping.id != module.mapping.id {
                        continue;
                    }
                    module.vaddr(to)
                }
            };
            let passed = tail.args.map(|value| match value {
                Value {
                    base: Base::Arg(n),
                    plus: 0,
                } => *own.get(usize::from(n))?,
                _ => None,
            });
            let way = if to == found.frame.function.start {
                Some(passed)
            } else if depth < MAX_TAILS && module.unwinding.function(to).is_some() {
                self.passed_on(space, found, to, passed, handle, depth + 1)
            } else {
                None
            };
            ways.extend(way);
        }
        ways.sort_unstable();
        ways.dedup();
        match ways.as_slice() {
            [way] => Some(*way),
            _ => None,
        }
    }

    fn run(&self, module: &Module<'_>, start: u64, watched: Option<u64>) -> Option<Rc<Run>> {
        let key = (start, watched.unwrap_or_default());
        if let Some(run) = self.runs.borrow().get(&key) {
            return Some(Rc::clone(run));
        }
        let function = module.unwinding.function(start)?;
        let size = function.end.checked_sub(start)?.min(MAX_FUNCTION);
        let run = symbolic::execute_watching(&module.elf, &self.decoder, start, size, watched);
        if run.incomplete {
            return None;
        }
        let run = Rc::new(run);
        self.runs.borrow_mut().insert(key, Rc::clone(&run));
        Some(run)
    }

    /// Whether the connection reads from this descriptor, or from something of the program's own: then
    /// its version has to be one of TLS.
    fn reads_from(&self, memory: &Memory, handle: u64, fd: Option<u64>) -> bool {
        match (self.descriptor(memory, handle), fd) {
            (Some(Descriptor::Number(number)), Some(fd)) => number == fd,
            (Some(_), _) => self.has_version(memory, handle),
            (None, _) => false,
        }
    }

    fn descriptor(&self, memory: &Memory, handle: u64) -> Option<Descriptor> {
        let Some(chain) = &self.plan.layout.transport else {
            return self.descriptor_of_bio(memory, handle);
        };
        let said = memory.u64(field(memory, handle, chain)?)?;
        let is_number = i32::try_from(said).is_ok_and(|number| number != 0);
        Some(if is_number {
            Descriptor::Number(said)
        } else {
            Descriptor::Other
        })
    }

    /// That of the BIO, past filters.
    fn descriptor_of_bio(&self, memory: &Memory, handle: u64) -> Option<Descriptor> {
        /// `include/openssl/bio.h`, as in bpf/sock.bpf.h.
        const WITH_DESCRIPTOR: [u32; 3] = [0x504, 0x505, 0x50c];
        const FILTER: u32 = 0x200;
        let layout = self.bio?;
        let at = |bio: u64, offset: u32| bio.checked_add(u64::from(offset));
        let chain = self.plan.layout.rbio.as_deref()?;
        let mut bio = memory.u64(field(memory, handle, chain)?)?;
        for _ in 0..MAX_BIOS {
            let kind = memory.u32(memory.u64(at(bio, layout.method)?)?)?;
            if WITH_DESCRIPTOR.contains(&kind) {
                let number = memory.u32(at(bio, layout.num)?)?;
                return Some(Descriptor::Number(number.into()));
            }
            if kind & FILTER == 0 {
                return Some(Descriptor::Other);
            }
            bio = memory.u64(at(bio, layout.next)?)?;
        }
        None
    }

    /// As the library numbers it, or as it is sent.
    fn has_version(&self, memory: &Memory, handle: u64) -> bool {
        let chain = self.plan.layout.version.as_deref();
        let at = chain.and_then(|chain| field(memory, handle, chain));
        let version = at.and_then(|at| memory.u32(at));
        version.is_some_and(|version| match self.plan.flavor {
            Flavor::GnuTls => (1..=5).contains(&version),
            _ => (0x0300..=0x0304).contains(&version),
        })
    }
}

/// The address of a field.
fn field(memory: &Memory, handle: u64, chain: &[u32]) -> Option<u64> {
    let (last, before) = chain.split_last()?;
    let mut object = handle;
    for offset in before {
        object = memory.u64(object.checked_add(u64::from(*offset))?)?;
    }
    object.checked_add(u64::from(*last))
}

fn is_read(probe: &Probe) -> bool {
    matches!(probe.action, Action::Data(Dir::In, _))
}

/// What a value that was loaded through the handle is in the process now.
fn follow(run: &Run, memory: &Memory, value: Value, handle: u64, depth: u8) -> Option<u64> {
    let base = match value.base {
        Base::Zero => 0,
        Base::Arg(0) => handle,
        Base::Load(index) if depth < MAX_LOADS => {
            let load = run.loads.get(usize::from(index))?;
            if load.size != 8 {
                return None;
            }
            memory.u64(follow(run, memory, load.from, handle, depth + 1)?)?
        }
        _ => return None,
    };
    base.checked_add_signed(value.plus)
}
