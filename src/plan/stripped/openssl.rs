//! OpenSSL: its functions report errors with their own name, before 3.0 with a number of their own.
//!
//! The numbers are part of the library's interface (`SSL_F_…` in `openssl/sslerr.h`).

use super::facts::Facts;
use super::{Named, only, symbol};
use crate::discovery::elf::Elf;
use crate::plan::disasm::Decoder;
use crate::plan::functions::Functions;
use crate::plan::symbolic::{self, Callee, Value};

/// `ERR_put_error(library, function, reason, file, line)`
const LIBRARY: usize = 0;
const FUNCTION: usize = 1;
const ERR_LIB_SSL: i64 = 20;

/// Names that are looked for, with their numbers where there are such.
const NUMBERS: [(&str, i64); 14] = [
    ("SSL_read", 223),
    ("SSL_peek", 270),
    ("SSL_write", 208),
    ("SSL_do_handshake", 180),
    ("SSL_shutdown", 224),
    ("SSL_clear", 164),
    ("SSL_set_fd", 192),
    ("SSL_set_rfd", 194),
    ("SSL_set_wfd", 196),
    ("SSL_read_early_data", 529),
    ("SSL_write_early_data", 526),
    ("ssl_read_internal", 523),
    ("ssl_peek_internal", 522),
    ("ssl_write_internal", 524),
];

pub(super) const NAMES: [&str; NUMBERS.len()] = {
    let mut names = [""; NUMBERS.len()];
    let mut n = 0;
    while n < names.len() {
        names[n] = NUMBERS[n].0;
        n += 1;
    }
    names
};

/// A function that moves data in one direction, into which others may have been put.
struct Family {
    plain: &'static str,
    inner: &'static str,
    /// Names for further functions like the inner one, by the argument behind which they count.
    others: [(u8, &'static str); 2],
}

const FAMILIES: [Family; 2] = [
    Family {
        plain: "SSL_read",
        inner: "ssl_read_internal",
        others: [(3, "SSL_read_ex"), (4, "")],
    },
    Family {
        plain: "SSL_write",
        inner: "ssl_write_internal",
        others: [(3, "SSL_write_ex"), (4, "SSL_write_ex2")],
    },
];

fn names(facts: &Facts) -> impl Iterator<Item = &'static str> {
    let by_number = |number: i64| {
        facts.errors.iter().any(|error| {
            error[FUNCTION] == Some(number) && error[LIBRARY].is_none_or(|lib| lib == ERR_LIB_SSL)
        })
    };
    NUMBERS
        .iter()
        .filter(move |(name, number)| facts.names.contains(name) || by_number(*number))
        .map(|(name, _)| *name)
}

/// Whether it is this function: its name, and that of no other that programs call.
fn is(facts: &Facts, name: &str) -> bool {
    let mut public = names(facts).filter(|name| name.starts_with("SSL_"));
    public.next() == Some(name) && public.next().is_none()
}

pub(super) fn choose(functions: &Functions<'_, '_>, facts: &[Facts]) -> Named {
    let (elf, decoder) = (functions.elf, functions.decoder);
    let mut named = Named::new();
    for name in NAMES.iter().filter(|name| name.starts_with("SSL_")) {
        if let Some(found) = only(facts, |f| is(f, name)) {
            named.insert(*name, symbol(found));
        }
    }
    for Family {
        plain,
        inner,
        others,
    } in &FAMILIES
    {
        // `method->ssl_read(ssl, buf, num, count)`, or a function of the same arguments.
        let outer = facts.iter().find(|f| is(f, plain));
        let moves = |f: &Facts| passes_buffer(elf, decoder, f);
        if outer.is_some_and(|f| !moves(f)) {
            named.remove(plain);
        }
        let mut like_inner: Vec<(&Facts, u8)> = facts
            .iter()
            .filter(|f| names(f).eq([*inner]))
            .filter_map(|f| Some((f, counts_behind(elf, decoder, f)?)))
            .collect();
        // The inner one has more arguments than those built on it, or as many.
        let calls = |to: &Facts| outer.is_some_and(|f| f.calls.contains(&to.start));
        like_inner.sort_by_key(|(f, count)| (!calls(f), std::cmp::Reverse(*count), f.start));
        let mut found = like_inner.into_iter();
        if let Some((first, _)) = found.next() {
            named.insert(inner, symbol(first));
        }
        for (found, count) in found {
            let free = others
                .iter()
                .find(|(behind, name)| *behind == count && !named.contains_key(name));
            if let Some((_, name)) = free {
                named.insert(name, symbol(found));
            }
        }
    }
    inlined_handshakes(facts, &mut named);
    called_handshakes(functions, facts, &mut named);
    if let Some(free) = only(facts, |f| frees_connection(elf, decoder, f)) {
        named.insert("SSL_free", symbol(free));
    }
    named
}

/// With `SSL_do_handshake` inlined into them, three functions report errors in its name. The other
/// two also put the connection into the state of a client or a server, which writes a 1 more.
fn inlined_handshakes(facts: &[Facts], named: &mut Named) {
    let mut those: Vec<&Facts> = facts.iter().filter(|f| is(f, "SSL_do_handshake")).collect();
    those.sort_by_key(|f| f.stores);
    let [plain, others @ ..] = those.as_slice() else {
        return;
    };
    if others.first().is_none_or(|f| f.stores == plain.stores) || others.len() > 2 {
        return;
    }
    named.insert("SSL_do_handshake", symbol(plain));
    for (name, more) in [("SSL_connect", 0), ("SSL_accept", 1)] {
        let mut fitting = others.iter().filter(|f| f.ones == plain.ones + more);
        if let (Some(found), None) = (fitting.next(), fitting.next()) {
            named.insert(name, symbol(found));
        }
    }
}

/// Those two, where they call it. Early data is written by a client and read by a server, which
/// begin with the handshake.
fn called_handshakes(functions: &Functions<'_, '_>, facts: &[Facts], named: &mut Named) {
    let (elf, decoder) = (functions.elf, functions.decoder);
    let Some(handshake) = named.get("SSL_do_handshake").map(|symbol| symbol.vaddr) else {
        return;
    };
    let early = [
        ("SSL_connect", "SSL_write_early_data"),
        ("SSL_accept", "SSL_read_early_data"),
    ];
    for (name, early) in early {
        let Some(early) = only(facts, |f| is(f, early)) else {
            continue;
        };
        let callees: Vec<u64> = early.calls.iter().copied().collect();
        let callees: Vec<Facts> = functions
            .around(&callees)
            .iter()
            .map(|function| Facts::of(elf, decoder, function, &[], &[]))
            .collect();
        let between = only(&callees, |f| {
            early.calls.contains(&f.start) && f.calls.contains(&handshake)
        });
        if let (Some(between), false) = (between, named.contains_key(name)) {
            named.insert(name, symbol(between));
        }
    }
}

/// `SSL_free` gives up what programs have attached to the connection, as of class 0:
/// `CRYPTO_free_ex_data(CRYPTO_EX_INDEX_SSL, ssl, &ssl->ex_data)`, and then itself. Where the count of
/// owners has been split off, this is what the last of them comes to.
fn frees_connection(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> bool {
    facts.frees
        && symbolic::execute(elf, decoder, facts.start, facts.end - facts.start)
            .calls
            .iter()
            .any(|call| {
                let within = call.args[2];
                call.args[0] == Value::constant(0)
                    && call.args[1] == Value::arg(0)
                    && within.base == Value::arg(0).base
                    && within.plus > 0
            })
}

/// Whether it hands the handle and the buffer on as it gets them.
fn passes_buffer(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> bool {
    let run = symbolic::execute(elf, decoder, facts.start, facts.end - facts.start);
    run.calls
        .iter()
        .any(|call| call.args[0] == Value::arg(0) && call.args[1] == Value::arg(1))
}

/// The argument behind which the count is stored, by what is passed to the function that does the
/// work: `method->ssl_read(ssl, buf, num, count)`.
pub(in crate::plan) fn count_argument(run: &symbolic::Run) -> Option<u8> {
    let mut found = run.calls.iter().filter_map(|call| {
        let moves = call.callee == Callee::Unknown
            && (0..3)
                .zip(&call.args)
                .all(|(n, value)| *value == Value::arg(n));
        let count = (3..5).find(|n| call.args[3] == Value::arg(*n));
        count.filter(|_| moves)
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

fn counts_behind(elf: &Elf<'_>, decoder: &Decoder, facts: &Facts) -> Option<u8> {
    let size = facts.end - facts.start;
    count_argument(&symbolic::execute(elf, decoder, facts.start, size))
}
