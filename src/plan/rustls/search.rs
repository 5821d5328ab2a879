//! Finds the functions of a rustls that no symbol names.
//!
//! What encrypts a record panics rather than use a key too often, and the text of that panic stays in
//! a stripped file. From there callers lead up to where plaintext comes in: `write(&mut self, &[u8])`
//! puts address and length into an `OutboundChunks` on the stack and passes it to the function that is
//! looked for. What is received is put at the end of a queue as what is sent is, by the same function.
//! All of that is checked in the code, nothing of it is particular to one build.

use super::facts::{self, Way};
use crate::discovery::elf::Elf;
use crate::discovery::rustls::{self as discovered, Method, Named};
use crate::plan::disasm::{Decoder, Op};
use crate::plan::functions::{Function, Functions};
use crate::plan::symbolic::{self, Base, Call, Callee, Run, Value};
use std::collections::{BTreeMap, BTreeSet};

/// From what encrypts a record to `write`, callers and their callers.
const LEVELS: usize = 5;
/// Functions looked at, at most, and calls of one.
const MAX_FUNCTIONS: usize = 600;
const MAX_CALLERS: usize = 200;
/// Of `handle`, the first argument of which is where its result goes.
const CONTEXT: u8 = 2;
/// Words of a table before its methods: how to drop, size, alignment.
const METHODS: u64 = 24;
/// Larger than any part of a connection.
const LARGEST_OFFSET: i64 = 1 << 16;

/// What was found: functions, and how those that take plaintext lead to the encrypter.
#[derive(Debug, Default)]
pub struct Found {
    pub functions: Vec<Named>,
    pub ways: Vec<Way>,
}

struct Known {
    function: Function,
    run: Run,
}

struct Search<'s, 'a> {
    elf: &'s Elf<'a>,
    decoder: &'s Decoder,
    functions: &'s Functions<'s, 'a>,
    /// By address: what encrypts, and what calls that.
    known: BTreeMap<u64, Known>,
}

/// What is found of both directions, or of one.
pub fn find(functions: &Functions<'_, '_>) -> Found {
    let (elf, decoder) = (functions.elf, functions.decoder);
    let mut search = Search {
        elf,
        decoder,
        functions,
        known: BTreeMap::new(),
    };
    let mut found = Found::default();
    search.climb();
    for vaddr in search.takers() {
        let way = facts::way(functions, vaddr);
        // One that is given more than the `CommonState` would not agree with the others.
        if way.encrypter.is_none() || way.next.is_empty() || way.state != 0 {
            continue;
        }
        found
            .functions
            .push(search.named(Method::BufferPlaintext, vaddr));
        found.ways.push(way);
    }
    if found.functions.is_empty() {
        return found;
    }
    let next: BTreeSet<u64> = found.ways.iter().flat_map(|way| way.next.clone()).collect();
    let starts = search.starts(&found, &next);
    for start in starts {
        found
            .functions
            .push(search.named(Method::StartOutgoingTraffic, start));
    }
    let queues = found.ways.iter().flat_map(|way| way.queues.clone());
    found
        .functions
        .extend(search.receivers(&next, queues.collect()));
    found
}

impl Search<'_, '_> {
    fn named(&self, method: Method, vaddr: u64) -> Named {
        let known = self.known.get(&vaddr);
        let size = known.map_or_else(
            || self.functions.size(vaddr),
            |known| known.function.end - known.function.start,
        );
        Named {
            method,
            vaddr,
            size,
        }
    }

    /// Adds the functions that the places are in; which of them are new.
    fn add(&mut self, places: &[u64]) -> BTreeSet<u64> {
        let mut added = BTreeSet::new();
        for function in self.functions.around(places) {
            if self.known.len() >= MAX_FUNCTIONS || self.known.contains_key(&function.start) {
                continue;
            }
            let size = function.end - function.start;
            let run = symbolic::execute(self.elf, self.decoder, function.start, size);
            added.insert(function.start);
            self.known.insert(function.start, Known { function, run });
        }
        added
    }

    /// Places of calls of these functions, in ascending order.
    fn calls_of(&self, to: &BTreeSet<u64>) -> Vec<u64> {
        let mut places: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        // Rust calls functions of other crates through pointers that the loader puts in place.
        let pointers = self.elf.pointers().iter();
        let slots: BTreeMap<u64, u64> = pointers
            .filter(|(_, address)| to.contains(address))
            .copied()
            .collect();
        if !slots.is_empty() {
            self.elf.slot_uses(|from, slot| {
                if let Some(to) = slots.get(&slot) {
                    places.entry(*to).or_default().push(from);
                }
            });
        }
        self.elf.transfers(|transfer| {
            if to.contains(&transfer.to) {
                places.entry(transfer.to).or_default().push(transfer.from);
            }
        });
        // What everybody calls leads nowhere.
        places.retain(|_, from| from.len() <= MAX_CALLERS);
        let mut places: Vec<u64> = places.into_values().flatten().collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    fn climb(&mut self) {
        let texts = discovered::encrypters(self.elf);
        let places = self.elf.references(&texts);
        let mut level = self.add(&places);
        for _ in 0..LEVELS {
            if level.is_empty() {
                break;
            }
            let places = self.calls_of(&level);
            level = self.add(&places);
        }
    }

    /// Functions to which a `write` passes its bytes.
    fn takers(&self) -> BTreeSet<u64> {
        let zero = Value {
            base: Base::Zero,
            plus: 0,
        };
        let single = Some([zero, Value::arg(1), Value::arg(2)]);
        let calls = self.known.values().flat_map(|known| &known.run.calls);
        let passed = calls.filter(|call| call.behind[1] == single && is_within_self(call, 0));
        let outer: BTreeSet<u64> = passed
            .filter_map(local)
            .filter(|to| self.known.contains_key(to))
            .collect();
        outer.into_iter().map(|outer| self.inner(outer)).collect()
    }

    /// The function itself, where it is called by another one for each part of a connection (0.23.41
    /// and later). It gets the `CommonState`, and where plaintext waits for the end of the handshake.
    fn inner(&self, outer: u64) -> u64 {
        let calls = self
            .known
            .get(&outer)
            .into_iter()
            .flat_map(|k| &k.run.calls);
        let inner: BTreeSet<u64> = calls
            .filter(|call| {
                let is_waiting = is_within_self(call, 2) && call.args[2] != call.args[0];
                is_within_self(call, 0) && is_waiting && call.args[1].base == Base::Stack
            })
            .filter_map(local)
            .filter(|to| self.known.contains_key(to))
            .collect();
        let mut inner = inner.into_iter();
        let first = inner.next().filter(|_| inner.next().is_none());
        first.unwrap_or(outer)
    }

    /// Of those that have plaintext encrypted, the ones that say first that it may be sent.
    fn starts(&self, found: &Found, next: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut tested = BTreeSet::new();
        for (function, way) in found.functions.iter().zip(&found.ways) {
            let run = self.known.get(&function.vaddr).map(|known| &known.run);
            let bytes = run.map(facts::bytes_loaded).unwrap_or_default();
            tested.extend(bytes.iter().filter_map(|at| at.checked_sub(way.state)));
        }
        let is_start = |known: &&Known| {
            let calls = known.run.calls.iter().filter_map(local);
            let ones = facts::ones_stored(&known.run);
            calls.into_iter().any(|to| next.contains(&to)) && !ones.is_disjoint(&tested)
        };
        let starts = self.known.values().filter(is_start);
        starts.map(|known| known.function.start).collect()
    }

    /// Whether a `handle(self, context, message)` passes on the `CommonState` that the context begins
    /// with. That of early data passes on something else.
    fn is_given_context(&self, to: u64) -> bool {
        self.known.values().any(|known| {
            let mut calls = known
                .run
                .calls
                .iter()
                .filter(|call| local(call) == Some(to));
            calls.any(|call| call.args[0].plus == 0 && is_context(&known.run, call.args[0]))
        })
    }

    /// What takes the plaintext of a record: it puts it into a queue of the `CommonState`, as what is
    /// sent is put into another one, with the same function to make a queue larger.
    fn receivers(&mut self, next: &BTreeSet<u64>, queues: BTreeSet<(u64, i64)>) -> Vec<Named> {
        let mut growers: BTreeMap<u64, BTreeSet<i64>> = BTreeMap::new();
        for (to, queue) in queues {
            growers.entry(to).or_default().insert(queue);
        }
        for known in self.known.values() {
            for call in known
                .run
                .calls
                .iter()
                .filter(|call| is_within_self(call, 0))
            {
                if let Some(to) = local(call).filter(|to| !next.contains(to)) {
                    growers.entry(to).or_default().insert(call.args[0].plus);
                }
            }
        }
        growers.retain(|_, queues| queues.iter().any(|queue| *queue > 0));
        let all: BTreeSet<u64> = growers.keys().copied().collect();
        let places = self.calls_of(&all);
        self.add(&places);
        let mut found = BTreeSet::new();
        for known in self.known.values() {
            for call in &known.run.calls {
                let grows = local(call).is_some_and(|to| growers.contains_key(&to));
                let own_queue = grows && is_within_self(call, 0) && call.args[0].plus > 0;
                if own_queue && (takes_payload(&known.run) || self.hands_payload(known, call)) {
                    found.insert((known.function.start, call.args[0].plus));
                }
            }
        }
        let candidates: BTreeSet<u64> = found.into_iter().map(|(vaddr, _)| vaddr).collect();
        let places = self.calls_of(&candidates);
        self.add(&places);
        let takers = candidates
            .into_iter()
            .filter(|to| self.is_given_context(*to));
        let takers: BTreeSet<u64> = takers.collect();
        let mut puts_itself = false;
        let mut handles = Vec::new();
        for known in self
            .known
            .values()
            .filter(|known| self.returns_itself(known))
        {
            let calls = || known.run.calls.iter();
            let to_taker = calls().any(|call| local(call).is_some_and(|to| takers.contains(&to)));
            let to_queue = calls().any(|call| {
                let grows = local(call).is_some_and(|to| growers.contains_key(&to));
                grows && call.args[0].plus > 0 && is_context(&known.run, call.args[0])
            });
            puts_itself |= to_queue;
            if to_taker || to_queue {
                handles.push(known.function.start);
            }
        }
        if !puts_itself {
            let one = takers.first().filter(|_| takers.len() == 1);
            return one
                .map(|taker| self.named(Method::TakeReceivedPlaintext, *taker))
                .into_iter()
                .collect();
        }
        handles
            .into_iter()
            .filter_map(|vaddr| {
                let kinds = facts::kinds(&self.known.get(&vaddr)?.run);
                let method = if kinds.len() == 1 {
                    Method::Handle12
                } else {
                    Method::Handle13
                };
                Some(self.named(method, vaddr))
            })
            .collect()
    }

    /// Whether what is put into a queue was made of the `Payload` by another function.
    fn hands_payload(&self, known: &Known, put: &Call) -> bool {
        let made = put.args[1];
        let makers = known.run.calls.iter().filter(|call| {
            made.base == Base::Stack && call.args[0] == made && call.args[1] == Value::arg(1)
        });
        makers.filter_map(local).any(|maker| {
            let size = self.functions.size(maker);
            takes_payload(&symbolic::execute(self.elf, self.decoder, maker, size))
        })
    }

    /// Whether the function is the first method in a table of them and takes the address of that
    /// table, as a state does that goes on as it is.
    fn returns_itself(&self, known: &Known) -> bool {
        let start = known.function.start;
        let pointers = self.elf.pointers().iter();
        let mut tables = pointers
            .filter(|(_, to)| *to == start)
            .filter_map(|(slot, _)| slot.checked_sub(METHODS));
        tables.any(|table| {
            known.function.insns.iter().any(|insn| {
                let mem = insn
                    .mem()
                    .filter(|mem| mem.rip_relative && insn.op == Op::Lea);
                mem.is_some_and(|mem| mem.disp.cast_unsigned() == table)
            })
        })
    }
}

/// Whether a value is an address within the `CommonState` that the context of `handle` begins with.
fn is_context(run: &Run, value: Value) -> bool {
    match value.base {
        Base::Load(index) => {
            let load = run.loads.get(usize::from(index));
            load.is_some_and(|load| load.size == 8 && load.from == Value::arg(CONTEXT))
        }
        _ => false,
    }
}

fn local(call: &Call) -> Option<u64> {
    match call.callee {
        Callee::Local(to) => Some(to),
        _ => None,
    }
}

fn is_within_self(call: &Call, arg: usize) -> bool {
    call.args.get(arg).is_some_and(|value| {
        value.base == Base::Arg(0) && (0..LARGEST_OFFSET).contains(&value.plus)
    })
}

/// Whether the function copies the bytes that a `Payload` behind argument 1 borrows.
fn takes_payload(run: &Run) -> bool {
    let word = |value: Value, at: i64| match value.base {
        Base::Load(index) => run.loads.get(usize::from(index)).is_some_and(|load| {
            let from = Value {
                base: Base::Arg(1),
                plus: at,
            };
            value.plus == 0 && load.size == 8 && load.from == from
        }),
        _ => false,
    };
    let reads_kind = run
        .loads
        .iter()
        .any(|load| load.size == 8 && load.from == Value::arg(1));
    reads_kind
        && run
            .calls
            .iter()
            .any(|call| word(call.args[1], 8) && word(call.args[2], 16))
}
