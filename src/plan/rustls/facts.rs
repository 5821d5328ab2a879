//! Where in a `CommonState` the fields are that probes look at, proven from the code.

use crate::discovery::elf::Elf;
use crate::discovery::rustls::{Method, Named};
use crate::plan::Layout;
use crate::plan::disasm::{Decoder, Insn, Kind};
use crate::plan::functions::Functions;
use crate::plan::symbolic::{self, Base, Callee, Run, Value};
use std::collections::{BTreeSet, VecDeque};

/// Functions executed, from one that takes plaintext to the one that encrypts it: five at most lie
/// between the two, some of which call others.
const MAX_FUNCTIONS: usize = 24;
/// In the table of a trait object, behind how to drop it, its size and alignment.
const FIRST_METHOD: i64 = 24;
/// Calls looked at of what has plaintext encrypted.
const MAX_CALLERS: usize = 256;
/// Arguments of `ExpectTraffic::handle`, the first of which is where its result goes.
const CONTEXT: u8 = 2;
const MESSAGE: u8 = 3;
/// Variants of messages: there are five.
const MAX_KINDS: u32 = 16;

/// What all functions agree on.
pub fn learn(elf: &Elf<'_>, decoder: &Decoder, functions: &[Named], ways: &[Way]) -> Layout {
    let of = |method: Method| functions.iter().filter(move |f| f.method == method);
    let writes: Vec<&Named> = of(Method::BufferPlaintext)
        .chain(of(Method::SendSomePlaintext))
        .collect();
    let starts: Vec<&Named> = of(Method::StartOutgoingTraffic).collect();
    let encrypter = agreed(ways.iter().map(|way| way.encrypter));
    let tested = |f: &&Named| bytes_loaded(&execute(elf, decoder, f.vaddr, f.size));
    let set = |f: &&Named| ones_stored(&execute(elf, decoder, f.vaddr, f.size));
    let written: Vec<BTreeSet<u32>> = writes.iter().map(tested).collect();
    let sends = agreed(starts.iter().map(|start| {
        let set = set(start);
        let both: BTreeSet<u32> = written
            .iter()
            .flat_map(|tested| tested.intersection(&set))
            .copied()
            .collect();
        only(both)
    }));
    Layout {
        encrypter: encrypter.map(|offset| vec![offset]),
        sends: sends.map(|offset| vec![offset]),
        ..Layout::default()
    }
}

/// Leaves in `functions` those through which all that is received passes, and says which variant of
/// a message is meant, where that matters.
///
/// `ExpectTraffic::handle` is called for every record of data, since it is called through a table of
/// methods. Each calls `take_received_plaintext`, unless the compiler has put that into it.
pub fn choose_receivers(
    elf: &Elf<'_>,
    decoder: &Decoder,
    functions: &mut Vec<Named>,
) -> Option<u32> {
    let of = |method: Method| functions.iter().filter(move |f| f.method == method);
    let takers: BTreeSet<u64> = of(Method::TakeReceivedPlaintext).map(|f| f.vaddr).collect();
    let calls_taker = |handle: &Named| {
        let mut calls = false;
        let code = elf.code(handle.vaddr, handle.size).unwrap_or_default();
        decoder.sweep(code, handle.vaddr, |insn| {
            calls |= destination(elf, insn).is_some_and(|to| takers.contains(&to));
        });
        calls
    };
    let is_handle = |f: &Named| matches!(f.method, Method::Handle12 | Method::Handle13);
    let mut handles = functions.iter().filter(|f| is_handle(f)).peekable();
    let has_handles = handles.peek().is_some();
    if !takers.is_empty() && handles.all(calls_taker) {
        functions.retain(|f| !is_handle(f));
        return None;
    }
    let runs_of = |method: Method| -> Vec<Run> {
        of(method)
            .map(|f| execute(elf, decoder, f.vaddr, f.size))
            .collect()
    };
    // Those for TLS 1.2 take data and nothing else, so that they look for one variant only.
    let mut runs = runs_of(Method::Handle12);
    if runs.is_empty() {
        runs = runs_of(Method::Handle13);
    }
    let kinds: BTreeSet<u32> = runs.iter().flat_map(kinds).collect();
    let kind = only(kinds).filter(|_| runs.iter().all(has_payload));
    functions.retain(|f| match f.method {
        Method::Handle12 | Method::Handle13 => kind.is_some(),
        // Some of what is received would not be seen.
        Method::TakeReceivedPlaintext => !has_handles,
        _ => true,
    });
    kind
}

/// Where a call or jump goes, also by way of a pointer that the loader puts in place.
pub(super) fn destination(elf: &Elf<'_>, insn: &Insn) -> Option<u64> {
    match insn.kind {
        Kind::Call(to) | Kind::Jump(to) => Some(to),
        Kind::CallIndirect | Kind::JumpIndirect => {
            let slot = insn.mem().filter(|mem| mem.rip_relative && !mem.complex)?;
            elf.pointer_at(slot.disp.cast_unsigned())
        }
        _ => None,
    }
}

/// The variants of the message that is argument 3 which are told from others by its first word: that
/// is the capacity of a vector in the largest of them, and more than any such in all others.
pub(super) fn kinds(run: &Run) -> BTreeSet<u32> {
    let first = |value: Value| match value.base {
        Base::Load(index) => run.loads.get(usize::from(index)).is_some_and(|load| {
            value.plus == 0 && load.size == 8 && load.from == Value::arg(MESSAGE)
        }),
        _ => false,
    };
    let compared = run.compared.iter().filter(|(value, _)| first(*value));
    compared
        .filter_map(|(_, with)| u32::try_from(with.wrapping_sub(i64::MIN)).ok())
        .filter(|kind| (1..MAX_KINDS).contains(kind))
        .collect()
}

/// Whether the three words behind the first one of the message are used, or handed to somebody, and
/// the `CommonState` that the context of argument 2 begins with.
fn has_payload(run: &Run) -> bool {
    let behind = |arg: u8, plus: i64| Value {
        base: Base::Arg(arg),
        plus,
    };
    let loaded = |from: Value| run.loads.iter().any(|l| l.size == 8 && l.from == from);
    let handed = run
        .calls
        .iter()
        .any(|call| call.args.contains(&behind(MESSAGE, 8)));
    let words = [8, 16, 24].iter().all(|at| loaded(behind(MESSAGE, *at)));
    (handed || words) && loaded(Value::arg(CONTEXT))
}

fn execute(elf: &Elf<'_>, decoder: &Decoder, vaddr: u64, size: u64) -> Run {
    symbolic::execute(elf, decoder, vaddr, size)
}

/// The value, if there is any and all say the same.
fn agreed(mut values: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let first = values.next()??;
    values.all(|value| value == Some(first)).then_some(first)
}

fn only(values: BTreeSet<u32>) -> Option<u32> {
    let mut values = values.into_iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Offsets of bytes that are looked at behind argument 0.
pub(super) fn bytes_loaded(run: &Run) -> BTreeSet<u32> {
    let bytes = run.loads.iter().filter(|load| load.size == 1);
    bytes
        .filter(|load| load.from.base == Base::Arg(0))
        .filter_map(|load| u32::try_from(load.from.plus).ok())
        .collect()
}

/// Offsets behind argument 0 at which a 1 is stored.
pub(super) fn ones_stored(run: &Run) -> BTreeSet<u32> {
    let one = Value {
        base: Base::Zero,
        plus: 1,
    };
    let ones = run.stores.iter().filter(|s| s.arg == 0 && s.value == one);
    ones.filter_map(|store| u32::try_from(store.plus).ok())
        .collect()
}

/// A function on the way from where plaintext is taken to where it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    vaddr: u64,
    /// Which of its arguments is an address within the `CommonState`, and how far from its beginning.
    arg: u8,
    within: u32,
}

/// How a function that takes plaintext has it encrypted.
#[derive(Debug, Default)]
pub struct Way {
    /// Where in the `CommonState` the `Box<dyn MessageEncrypter>` is.
    pub encrypter: Option<u32>,
    /// Functions that it calls itself for that.
    pub next: BTreeSet<u64>,
    /// How far from its argument 0 the `CommonState` is, which those get. Offsets are from there on.
    pub state: u32,
    /// Functions that put something on the stack into a part of the `CommonState`, and where that is.
    pub queues: BTreeSet<(u64, i64)>,
}

/// Follows what the function calls with a part of the `CommonState` to where plaintext is encrypted.
pub fn way(functions: &Functions<'_, '_>, vaddr: u64) -> Way {
    let (elf, decoder) = (functions.elf, functions.decoder);
    let first = Step {
        vaddr,
        arg: 0,
        within: 0,
    };
    let mut waiting = VecDeque::from([(first, None::<Step>)]);
    let mut seen = BTreeSet::from([first]);
    let mut found = BTreeSet::new();
    let mut next = BTreeSet::new();
    let mut states = BTreeSet::new();
    let mut queues = BTreeSet::new();
    let mut executed = 0;
    while let Some((step, by)) = waiting.pop_front() {
        executed += 1;
        if executed > MAX_FUNCTIONS {
            break;
        }
        let run = execute(elf, decoder, step.vaddr, functions.size(step.vaddr));
        let objects = encrypters_called(&run, step);
        if !objects.is_empty() {
            next.extend(by.map(|by: Step| by.vaddr));
            states.extend(by.filter(|by| by.arg == 0).map(|by| by.within));
        }
        found.extend(objects);
        for call in &run.calls {
            let Callee::Local(to) = call.callee else {
                continue;
            };
            if call.args[0].base == Base::Arg(step.arg) && call.args[1].base == Base::Stack {
                let part = call.args[0].plus.saturating_add(i64::from(step.within));
                queues.insert((to, part));
            }
            let inside = (0..).zip(&call.args).find_map(|(arg, value)| {
                let is_within = value.base == Base::Arg(step.arg);
                let plus = u32::try_from(value.plus).ok().filter(|_| is_within)?;
                Some(Step {
                    vaddr: to,
                    arg,
                    within: step.within.checked_add(plus)?,
                })
            });
            if let Some(inside) = inside
                && seen.insert(inside)
            {
                waiting.push_back((inside, by.or(Some(inside))));
            }
        }
    }
    let state = only(states).unwrap_or_default();
    Way {
        encrypter: only(found).and_then(|at| at.checked_sub(state)),
        next,
        state,
        queues,
    }
}

/// Offsets in the `CommonState` of trait objects (two words: data, table of methods) of which a method
/// is called that gets a number of the `CommonState` too.
fn encrypters_called(run: &Run, step: Step) -> BTreeSet<u32> {
    let field = |value: Value| {
        let Base::Load(index) = value.base else {
            return None;
        };
        let load = run.loads.get(usize::from(index))?;
        let is_field = value.plus == 0 && load.size == 8 && load.from.base == Base::Arg(step.arg);
        let plus = u32::try_from(load.from.plus).ok().filter(|_| is_field)?;
        step.within.checked_add(plus)
    };
    let calls = run.calls.iter().filter_map(|call| {
        let through = call.through.filter(|t| t.plus >= FIRST_METHOD)?;
        let table = field(Value {
            base: through.base,
            plus: 0,
        })?;
        let data = table.checked_sub(8)?;
        // `encrypt(&self, message, sequence number)`, before which is where the result goes.
        let is_encrypt = field(call.args[1]) == Some(data) && field(call.args[3]).is_some();
        is_encrypt.then_some(data)
    });
    calls.collect()
}

/// Whether all that a function does is done by that function alone, not by copies of it that the
/// compiler has put into others: those would call what it calls to have plaintext encrypted. Others
/// that do are of the library itself.
pub fn is_alone(
    functions: &Functions<'_, '_>,
    way: &Way,
    write: u64,
    is_known: impl Fn(u64) -> bool,
) -> bool {
    let mut callers = BTreeSet::new();
    let mut all_known = true;
    functions.elf.transfers(|transfer| {
        if way.next.contains(&transfer.to) && callers.len() < MAX_CALLERS {
            callers.insert(transfer.from);
        }
    });
    for from in callers {
        let start = functions.start_around(from);
        all_known &= start.is_some_and(|start| start == write || is_known(start));
    }
    all_known
}
