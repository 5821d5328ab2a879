//! `BoringSSL` and AWS-LC: told apart by the reasons of their errors and by who calls whom.
//!
//! The numbers of reasons are part of the library's interface (`SSL_R_…` in `openssl/ssl.h`).

use super::facts::Facts;
use super::{Named, only, symbol};
use crate::discovery::elf::Elf;
use crate::plan::disasm::Decoder;
use crate::plan::symbolic::{self, Callee, Value};

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

fn reports(facts: &Facts, reason: i64) -> bool {
    let has = |arg: usize, value| facts.constants.get(arg).is_some_and(|c| c.contains(&value));
    has(LIBRARY, ERR_LIB_SSL) && has(REASON, reason)
}

pub(super) fn choose(elf: &Elf<'_>, decoder: &Decoder, facts: &[Facts]) -> Named {
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
    // Reading is peeking, and taking away what was read.
    let peeks = |f: &Facts| {
        f.calls.contains(&reader.start) && reports(f, ERR_R_SHOULD_NOT_HAVE_BEEN_CALLED)
    };
    let read = only(facts, |f| peeks(f) && f.stores);
    if let Some(read) = read.filter(|f| calls_first(elf, decoder, f, reader.start)) {
        named.insert("SSL_read", symbol(read));
    }
    let shutdown = only(facts, |f| {
        f.calls.contains(&reader.start) && reports(f, SSL_R_APPLICATION_DATA_ON_SHUTDOWN)
    });
    if let Some(shutdown) = shutdown {
        named.insert("SSL_shutdown", symbol(shutdown));
    }
    // With `SSL_do_handshake` inlined: they differ in what they make of the bit for servers.
    let inlined =
        |f: &Facts| reports(f, SSL_R_CONNECTION_TYPE_NOT_SET) && f.start != handshake.start;
    let client = only(facts, |f| inlined(f) && f.clears_bit && !f.sets_bit);
    let server = only(facts, |f| inlined(f) && f.sets_bit && !f.clears_bit);
    for (name, found) in [("SSL_connect", client), ("SSL_accept", server)] {
        if let Some(found) = found {
            named.insert(name, symbol(found));
        }
    }
    named
}

/// `method->write_app_data(ssl, …, buf, …)`: the handle first, and the buffer somewhere.
fn takes_buffer(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> bool {
    let run = symbolic::execute(elf, decoder, facts.start, facts.end - facts.start);
    run.calls.iter().any(|call| {
        call.callee == Callee::Unknown
            && call.args[0] == Value::arg(0)
            && call.args.contains(&Value::arg(1))
    })
}

/// Whether it begins with a call of that function for its own handle.
fn calls_first(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts, callee: u64) -> bool {
    let run = symbolic::execute(elf, decoder, facts.start, facts.end - facts.start);
    run.calls
        .iter()
        .any(|call| call.callee == Callee::Local(callee) && call.args[0] == Value::arg(0))
}
