//! Where in a `CommonState` the fields are that probes look at, proven from the code.

use crate::discovery::elf::Elf;
use crate::discovery::rustls::{Method, Named};
use crate::plan::disasm::Decoder;
use crate::plan::symbolic::{self, Base, Callee, Run, Value};
use crate::plan::{Layout, LoadChain};
use std::collections::{BTreeSet, VecDeque};

/// Functions executed, from one that takes plaintext to the one that encrypts it: five at most lie
/// between the two, some of which call others.
const MAX_FUNCTIONS: usize = 24;
/// In the table of a trait object, behind how to drop it, its size and alignment.
const FIRST_METHOD: i64 = 24;

/// What all functions agree on.
pub fn learn(elf: &Elf<'_>, decoder: &Decoder, functions: &[Named]) -> Layout {
    let of = |method: Method| functions.iter().filter(move |f| f.method == method);
    let writes: Vec<&Named> = of(Method::BufferPlaintext)
        .chain(of(Method::SendSomePlaintext))
        .collect();
    let starts: Vec<&Named> = of(Method::StartOutgoingTraffic).collect();
    let encrypter = agreed(writes.iter().map(|f| encrypter(elf, decoder, f)));
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
fn bytes_loaded(run: &Run) -> BTreeSet<u32> {
    let bytes = run.loads.iter().filter(|load| load.size == 1);
    bytes
        .filter(|load| load.from.base == Base::Arg(0))
        .filter_map(|load| u32::try_from(load.from.plus).ok())
        .collect()
}

/// Offsets behind argument 0 at which a 1 is stored.
fn ones_stored(run: &Run) -> BTreeSet<u32> {
    let one = Value {
        base: Base::Zero,
        plus: 1,
    };
    let ones = run.stores.iter().filter(|s| s.arg == 0 && s.value == one);
    ones.filter_map(|store| u32::try_from(store.plus).ok())
        .collect()
}

/// Where the `Box<dyn MessageEncrypter>` is: on its way into records, plaintext meets no other trait
/// object within the `CommonState` that has one of its methods called.
fn encrypter(elf: &Elf<'_>, decoder: &Decoder, write: &Named) -> Option<u32> {
    let mut waiting = VecDeque::from([(write.vaddr, write.size)]);
    let mut seen = BTreeSet::from([write.vaddr]);
    let mut found = BTreeSet::new();
    let mut executed = 0;
    while let Some((vaddr, size)) = waiting.pop_front() {
        executed += 1;
        if executed > MAX_FUNCTIONS {
            break;
        }
        let run = execute(elf, decoder, vaddr, size);
        found.extend(objects_called(&run));
        for call in &run.calls {
            if let Callee::Local(to) = call.callee
                && call.args.contains(&Value::arg(0))
                && call.args[0] == Value::arg(0)
                && seen.insert(to)
            {
                waiting.push_back((to, extent(elf, to)));
            }
        }
    }
    only(found)
}

fn extent(elf: &Elf<'_>, vaddr: u64) -> u64 {
    elf.frames()
        .and_then(|frames| elf.frame_around(&frames, vaddr))
        .filter(|frame| frame.start == vaddr)
        .map_or_else(|| elf.extent(vaddr), |frame| frame.end - frame.start)
}

/// Offsets behind argument 0 of trait objects (two words: data, table of methods) of which a method
/// is called.
fn objects_called(run: &Run) -> BTreeSet<u32> {
    let field = |value: Value| match run.chain(value) {
        Some((chain, 8)) => <[u32; 1]>::try_from(chain as LoadChain).ok().map(|[at]| at),
        _ => None,
    };
    let calls = run.calls.iter().filter_map(|call| {
        let through = call.through.filter(|t| t.plus >= FIRST_METHOD)?;
        let table = field(Value {
            base: through.base,
            plus: 0,
        })?;
        let data = table.checked_sub(8)?;
        let passes_data = call.args.iter().any(|arg| field(*arg) == Some(data));
        passes_data.then_some(data)
    });
    calls.collect()
}
