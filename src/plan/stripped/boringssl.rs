//! `BoringSSL` and AWS-LC: told apart by the reasons of their errors and by who calls whom.
//!
//! The numbers of reasons are part of the library's interface (`SSL_R_…` in `openssl/ssl.h`).

use super::facts::Facts;
use super::{Named, only, symbol};
use crate::discovery::elf::Elf;
use crate::plan::disasm::Decoder;
use crate::plan::functions::Functions;
use crate::plan::symbolic::{self, Callee, Run, Value};
use std::collections::HashSet;

/// `ERR_put_error(library, unused, reason, file, line)`
const LIBRARY: usize = 0;
const REASON: usize = 2;
const ERR_LIB_SSL: i64 = 16;
const ERR_R_SHOULD_NOT_HAVE_BEEN_CALLED: i64 = 66;
const SSL_R_BAD_LENGTH: i64 = 111;
const SSL_R_CONNECTION_TYPE_NOT_SET: i64 = 134;
const SSL_R_SSL_HANDSHAKE_FAILURE: i64 = 215;
const SSL_R_UNINITIALIZED: i64 = 226;
const SSL_R_APPLICATION_DATA_ON_SHUTDOWN: i64 = 291;

/// Most bytes of `SSL_connect` where it calls `SSL_do_handshake`.
const MAX_WRAPPER: u64 = 256;
/// Most calls of one function that are looked at.
const MAX_CALLERS: usize = 256;

fn reports(facts: &Facts, reason: i64) -> bool {
    let has = |arg: usize, value| facts.constants.get(arg).is_some_and(|c| c.contains(&value));
    has(LIBRARY, ERR_LIB_SSL) && has(REASON, reason)
}

pub(super) fn choose(functions: &Functions<'_, '_>, facts: &[Facts]) -> Named {
    let (elf, decoder) = (functions.elf, functions.decoder);
    let mut named = Named::new();
    let hands_shakes =
        |f: &Facts| reports(f, SSL_R_UNINITIALIZED) && reports(f, SSL_R_SSL_HANDSHAKE_FAILURE);
    let write = only(facts, |f| hands_shakes(f) && reports(f, SSL_R_BAD_LENGTH));
    // `ssl_read_impl(ssl)`, for reading, peeking and shutting down.
    let reader = only(facts, |f| hands_shakes(f) && !reports(f, SSL_R_BAD_LENGTH));
    let (Some(write), Some(reader)) = (write, reader) else {
        return named;
    };
    // Both begin with the handshake if there was none.
    let handshake = only(facts, |f| {
        reports(f, SSL_R_CONNECTION_TYPE_NOT_SET)
            && write.calls.contains(&f.start)
            && reader.calls.contains(&f.start)
    });
    let Some(handshake) = handshake else {
        return named;
    };
    if !takes_buffer(elf, decoder, write) {
        return named;
    }
    named.insert("SSL_write", symbol(write));
    named.insert("SSL_do_handshake", symbol(handshake));
    let shutdown = only(facts, |f| {
        f.calls.contains(&reader.start) && reports(f, SSL_R_APPLICATION_DATA_ON_SHUTDOWN)
    });
    if let Some(shutdown) = shutdown {
        named.insert("SSL_shutdown", symbol(shutdown));
    }
    let peeks = |f: &Facts| {
        f.calls.contains(&reader.start)
            && reports(f, ERR_R_SHOULD_NOT_HAVE_BEEN_CALLED)
            // A program into which it was inlined does more.
            && !f.calls.contains(&write.start)
            && !f.calls.contains(&handshake.start)
    };
    // Reading is peeking, and taking away what was read: by itself, or by calling the other.
    let read = only(facts, |f| peeks(f) && f.stores > 0);
    let peek = only(facts, |f| peeks(f) && f.stores == 0);
    let callees = [Some(handshake.start), peek.map(|f| f.start)];
    let callers = callers(functions, &callees.map(Option::unwrap_or_default));
    match (read, peek) {
        (Some(read), _) => {
            if passes(elf, decoder, read, reader.start, 1) && fills_buffer(elf, decoder, read) {
                named.insert("SSL_read", symbol(read));
            }
        }
        (None, Some(peek)) => {
            let read = only(&callers, |f| {
                f.stores > 0
                    && passes(elf, decoder, f, peek.start, 3)
                    && share_fields(elf, decoder, f, peek)
            });
            named.extend(read.map(|read| ("SSL_read", symbol(read))));
        }
        (None, None) => {}
    }
    // The handshake of one role, with the other inlined or called. They differ in what they make of
    // the bit for servers.
    let inlined = |f: &&Facts| reports(f, SSL_R_CONNECTION_TYPE_NOT_SET);
    let calling =
        |f: &&Facts| f.end - f.start <= MAX_WRAPPER && passes(elf, decoder, f, handshake.start, 1);
    let inlined = facts.iter().filter(inlined);
    let either: Vec<&Facts> = inlined
        .chain(callers.iter().filter(calling))
        .filter(|f| f.start != handshake.start)
        .collect();
    for (name, is_server) in [("SSL_connect", false), ("SSL_accept", true)] {
        let mut fitting = either
            .iter()
            .filter(|f| f.sets_bit == is_server && f.clears_bit != is_server);
        if let (Some(found), None) = (fitting.next(), fitting.next()) {
            named.insert(name, symbol(found));
        }
    }
    named
}

/// The functions that call one of these, or end in a jump to it.
fn callers(functions: &Functions<'_, '_>, callees: &[u64]) -> Vec<Facts> {
    let (elf, decoder) = (functions.elf, functions.decoder);
    let mut places = Vec::new();
    elf.transfers(|transfer| {
        if transfer.to != 0 && callees.contains(&transfer.to) && places.len() < MAX_CALLERS {
            places.push(transfer.from);
        }
    });
    places.sort_unstable();
    functions
        .around(&places)
        .iter()
        .map(|function| Facts::of(elf, decoder, function, &[], &[]))
        .filter(|f| callees.iter().any(|callee| f.calls.contains(callee)))
        .collect()
}

/// `method->write_app_data(ssl, …, buf, …)`: the handle first, and the buffer somewhere.
fn takes_buffer(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> bool {
    execute(elf, decoder, facts).calls.iter().any(|call| {
        call.callee == Callee::Unknown
            && call.args[0] == Value::arg(0)
            && call.args.contains(&Value::arg(1))
    })
}

/// `memcpy(buf, …)`
fn fills_buffer(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> bool {
    let calls = execute(elf, decoder, facts).calls;
    calls.iter().any(|call| call.args[0] == Value::arg(1))
}

fn execute(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> Run {
    symbolic::execute(elf, decoder, facts.start, facts.end - facts.start)
}

/// Whether it calls that function with its own first arguments.
fn passes(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts, callee: u64, count: u8) -> bool {
    execute(elf, decoder, facts).calls.iter().any(|call| {
        call.callee == Callee::Local(callee)
            && (0..count)
                .zip(&call.args)
                .all(|(n, value)| *value == Value::arg(n))
    })
}

/// Whether both look into the same field of what a field of the handle points to: no program knows
/// where those are.
fn share_fields(elf: &Elf<'_>, decoder: &Decoder, one: &Facts, other: &Facts) -> bool {
    let fields = |facts| {
        let run = execute(elf, decoder, facts);
        let all = (0..run.loads.len()).filter_map(|index| {
            let (chain, _) = run.chain(Value::load(u16::try_from(index).ok()?))?;
            (chain.len() == 2).then_some(chain)
        });
        all.collect::<HashSet<_>>()
    };
    !fields(one).is_disjoint(&fields(other))
}
