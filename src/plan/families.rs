//! Plans the probes of libraries whose functions are known by name: one table for all of them.
//!
//! In each function the handle is argument 0 and the buffer argument 1. A function that calls
//! another of its kind on the same handle is no problem: BPF counts the outermost call.

use crate::discovery::elf::{Elf, Symbol};
use crate::event::{Dir, Flavor, Role};
use crate::plan::disasm::Decoder;
use crate::plan::symbolic::{self, Callee, Run};
use crate::plan::{Action, Count, Layout, LoadChain, Plan, Probe, layout, nss, probe};
use anyhow::Result;
use std::collections::HashMap;

/// A library and its functions; each function is optional.
struct Family {
    flavor: Flavor,
    /// A function that only this library has, where names of the others are not proof enough.
    proof: Option<&'static str>,
    functions: &'static [(&'static str, Action)],
    /// Returns the protocol's version, in the library's own numbers or those of the wire.
    version: Option<&'static str>,
    /// Refuses what is asked of a client, and what the library's field of the role holds in one; in a
    /// server it holds 1.
    role: Option<(&'static str, u32)>,
    /// Returns the negotiated protocol as a C string.
    alpn: Option<&'static str>,
    /// Returns what the program has said to be the transport that is read from.
    transport: Option<&'static str>,
    /// What is not seen although the library has it: the function, and what to say.
    limits: &'static [(&'static str, &'static str)],
}

const fn read(count: Count) -> Action {
    Action::Data(Dir::In, count)
}

const fn write(count: Count) -> Action {
    Action::Data(Dir::Out, count)
}

const CONNECT: Action = Action::Handshake(Some(Role::Client));
const ACCEPT: Action = Action::Handshake(Some(Role::Server));

const FAMILIES: [Family; 6] = [
    Family {
        flavor: Flavor::GnuTls,
        proof: None,
        functions: &[
            ("gnutls_record_send2", write(Count::ReturnAhead)),
            ("gnutls_record_send", write(Count::ReturnAhead)),
            ("gnutls_record_send_range", write(Count::ReturnAhead)),
            ("gnutls_record_send_early_data", write(Count::Whole)),
            // What was written while corked was counted then.
            ("gnutls_record_uncork", write(Count::ToldBefore)),
            ("gnutls_record_recv", read(Count::WideReturn)),
            ("gnutls_record_recv_seq", read(Count::WideReturn)),
            ("gnutls_record_recv_early_data", read(Count::WideReturn)),
            ("gnutls_handshake", Action::Negotiate),
            ("gnutls_bye", Action::Shutdown),
            ("gnutls_deinit", Action::Free),
        ],
        version: Some("gnutls_protocol_get_version"),
        // GNUTLS_CLIENT
        role: Some(("gnutls_server_name_get", 2)),
        alpn: None,
        transport: Some("gnutls_transport_get_ptr"),
        limits: &[(
            "gnutls_record_recv_packet",
            "what is received by gnutls_record_recv_packet is not seen",
        )],
    },
    Family {
        flavor: Flavor::Nss,
        // The names of its methods are not exported, and other libraries may use them.
        proof: Some(nss::EXPORTED),
        functions: &[
            (nss::READ, read(Count::Return)),
            ("ssl_Recv", read(Count::UnlessPeek)),
            ("ssl_Write", write(Count::Return)),
            ("ssl_Send", write(Count::Return)),
            ("ssl_WriteV", write(Count::ShortVector)),
            ("ssl_Shutdown", Action::Shutdown),
            ("ssl_Close", Action::Free),
        ],
        version: None,
        role: None,
        alpn: None,
        transport: None,
        limits: &[],
    },
    Family {
        flavor: Flavor::WolfSsl,
        proof: None,
        functions: &[
            ("wolfSSL_read", read(Count::Return)),
            ("wolfSSL_read_ex", read(Count::OutArg(3))),
            ("wolfSSL_recv", read(Count::Return)),
            ("wolfSSL_read_early_data", read(Count::Return)),
            ("wolfSSL_write", write(Count::Return)),
            ("wolfSSL_write_ex", write(Count::OutArg(3))),
            ("wolfSSL_send", write(Count::Return)),
            ("wolfSSL_write_early_data", write(Count::Return)),
            ("wolfSSL_connect", CONNECT),
            ("wolfSSL_accept", ACCEPT),
            ("wolfSSL_connect_TLSv13", CONNECT),
            ("wolfSSL_accept_TLSv13", ACCEPT),
            ("wolfSSL_set_fd", Action::Rebind),
            ("wolfSSL_shutdown", Action::Shutdown),
            ("wolfSSL_clear", Action::Clear),
            ("wolfSSL_free", Action::Free),
        ],
        version: None,
        role: None,
        alpn: None,
        transport: None,
        limits: &[],
    },
    Family {
        flavor: Flavor::MbedTls,
        proof: None,
        functions: &[
            ("mbedtls_ssl_read", read(Count::Return)),
            ("mbedtls_ssl_read_early_data", read(Count::Return)),
            ("mbedtls_ssl_write", write(Count::Return)),
            ("mbedtls_ssl_write_early_data", write(Count::Return)),
            ("mbedtls_ssl_handshake", Action::Negotiate),
            ("mbedtls_ssl_set_bio", Action::Rebind),
            ("mbedtls_ssl_close_notify", Action::Shutdown),
            ("mbedtls_ssl_session_reset", Action::Clear),
            ("mbedtls_ssl_free", Action::Free),
        ],
        version: None,
        role: None,
        alpn: Some("mbedtls_ssl_get_alpn_protocol"),
        transport: None,
        limits: &[],
    },
    Family {
        flavor: Flavor::S2n,
        proof: None,
        functions: &[
            // The functions for early data call these.
            ("s2n_recv", read(Count::WideReturn)),
            ("s2n_send", write(Count::WideReturn)),
            ("s2n_sendv", write(Count::Vector(None))),
            ("s2n_sendv_with_offset", write(Count::Vector(Some(3)))),
            ("s2n_negotiate", Action::Negotiate),
            ("s2n_shutdown", Action::Shutdown),
            ("s2n_connection_wipe", Action::Clear),
            ("s2n_connection_free", Action::Free),
        ],
        version: Some("s2n_connection_get_actual_protocol_version"),
        role: None,
        alpn: None,
        transport: None,
        limits: &[],
    },
    // Mono's own copy of BoringSSL, behind functions that take its handle out of theirs.
    Family {
        flavor: Flavor::BoringSsl,
        proof: None,
        functions: &[
            ("mono_btls_ssl_read", read(Count::Return)),
            ("mono_btls_ssl_write", write(Count::Return)),
            ("mono_btls_ssl_shutdown", Action::Shutdown),
            ("mono_btls_ssl_destroy", Action::Free),
        ],
        version: None,
        role: None,
        alpn: None,
        transport: None,
        limits: &[],
    },
];

/// Plans the probes of each of these libraries that a file defines functions of that move data.
/// `path` is only for messages.
///
/// # Errors
/// The disassembler does not start; of a library: no function that moves data can be probed.
pub fn plan(elf: &Elf<'_>, path: &str) -> Result<Vec<Result<Plan>>> {
    let mut names: Vec<&str> = Vec::new();
    for family in &FAMILIES {
        names.extend(family.functions.iter().map(|(name, _)| name));
        names.extend(family.limits.iter().map(|(name, _)| name));
        let getters = [family.version, family.alpn, family.transport];
        names.extend(family.proof.iter().chain(getters.iter().flatten()));
        names.extend(family.role.iter().map(|(name, _)| name));
    }
    let mut found = elf.find(&names);
    if found.contains_key(nss::EXPORTED) && !found.contains_key(nss::READ) {
        found.extend(nss::methods(elf, &Decoder::of(elf.machine())?));
    }
    let moves_data = |family: &&Family| {
        let proved = family.proof.is_none_or(|name| found.contains_key(name));
        let mut rows = family.functions.iter();
        let is_here = |(name, action): &(&str, Action)| {
            matches!(action, Action::Data(..)) && found.contains_key(name)
        };
        proved && rows.any(is_here)
    };
    let here = FAMILIES.iter().filter(moves_data);
    here.map(|family| Ok(plan_of(family, elf, path, &found)))
        .collect()
}

fn plan_of(
    family: &Family,
    elf: &Elf<'_>,
    path: &str,
    found: &HashMap<&str, Symbol>,
) -> Result<Plan> {
    let decoder = Decoder::of(elf.machine())?;
    let mut probes: Vec<Probe> = Vec::new();
    let mut notes = Vec::new();
    for (name, action) in family.functions {
        let Some(symbol) = found.get(name) else {
            continue;
        };
        if passes_on(elf, &decoder, symbol, *action, &probes, found) {
            continue;
        }
        let planned = probe::plan(elf, &decoder, name, symbol, *action).or_else(|error| {
            let (inner, symbol) = inner(elf, &decoder, name, symbol, *action).ok_or(error)?;
            probe::plan(elf, &decoder, inner, &symbol, *action)
        });
        match planned {
            Ok(probe) => probes.push(probe),
            Err(error) => notes.push(format!("{name} is not seen: {error:#}")),
        }
    }
    let data = |probe: &Probe| matches!(probe.action, Action::Data(..));
    if !probes.iter().any(data) {
        anyhow::bail!(
            "plan probes in {path}: found functions of {}, but none can be probed: {}",
            family.flavor.name(),
            notes.join("; ")
        );
    }
    let limits = family.limits.iter();
    notes.extend(
        limits
            .filter(|(name, _)| found.contains_key(name))
            .map(|(_, limit)| (*limit).to_owned()),
    );
    Ok(Plan {
        found_by: None,
        flavor: family.flavor,
        version: None,
        probes,
        layout: layout_of(family, elf, &decoder, found),
        notes,
    })
}

/// Where the function's work is done, in a library that calls that by the function's name and `_impl`:
/// s2n, which looks for calls within calls before. Compilers can be told to fill up with prefixes that
/// the kernel refuses (`-mbranches-within-32B-boundaries`), so that the function itself has no site.
fn inner<'a>(
    elf: &Elf<'a>,
    decoder: &Decoder,
    name: &str,
    symbol: &Symbol,
    action: Action,
) -> Option<(&'a str, Symbol)> {
    let run = symbolic::execute(elf, decoder, symbol.vaddr, symbol.size);
    let mut passed = run.calls.iter().filter_map(|call| match call.callee {
        Callee::Local(to) if call.passes(action.arguments()) => elf.function_at(to),
        _ => None,
    });
    passed.find(|(inner, _)| inner.strip_prefix(name) == Some("_impl"))
}

/// Whether all the function does is to jump to one that is probed for the same, with all that a
/// probe looks at as it came in.
fn passes_on(
    elf: &Elf<'_>,
    decoder: &Decoder,
    symbol: &Symbol,
    action: Action,
    probes: &[Probe],
    found: &HashMap<&str, Symbol>,
) -> bool {
    const LONGEST: u64 = 64;
    if !matches!(action, Action::Data(..)) || symbol.size > LONGEST {
        return false;
    }
    let run = symbolic::execute(elf, decoder, symbol.vaddr, symbol.size);
    let mut calls = run.calls.iter();
    let (Some(call), None) = (calls.next(), calls.next()) else {
        return false;
    };
    let to = match &call.callee {
        Callee::Local(to) => Some(*to),
        Callee::Import(name) => found.get(name.as_str()).map(|symbol| symbol.vaddr),
        Callee::Unknown => None,
    };
    let is_probed = |probe: &Probe| {
        let at = found.get(probe.func.as_str()).map(|symbol| symbol.vaddr);
        probe.action == action && at == to
    };
    let needed = action.arguments();
    !run.incomplete
        && run.returns.is_empty()
        && call.passes(needed)
        && to.is_some()
        && probes.iter().any(is_probed)
}

fn layout_of(
    family: &Family,
    elf: &Elf<'_>,
    decoder: &Decoder,
    found: &HashMap<&str, Symbol>,
) -> Layout {
    let getter = |name: Option<&str>, sizes| {
        let symbol = found.get(name?)?;
        layout::returned_field(elf, decoder, symbol, sizes)
    };
    let role = family.role.and_then(|(name, client)| {
        let symbol = found.get(name)?;
        let run = symbolic::execute(elf, decoder, symbol.vaddr, symbol.size);
        Some((compared_field(&run, client)?, client))
    });
    let (server, client) = role.unzip();
    Layout {
        server,
        client: client.unwrap_or_default(),
        version: getter(family.version, &[4, 1]),
        // No length: it ends in a NUL.
        transport: getter(family.transport, &[8]),
        alpn: getter(family.alpn, &[8]).map(|text| (text, Vec::new())),
        secured: (family.flavor == Flavor::Nss)
            .then(|| nss::secured(elf, decoder))
            .flatten(),
        ..Layout::default()
    }
}

/// The only int behind the handle that is compared with this number.
fn compared_field(run: &Run, with: u32) -> Option<LoadChain> {
    let mut fields: Vec<LoadChain> = run
        .compared
        .iter()
        .filter(|(_, number)| *number == i64::from(with))
        .filter_map(|(value, _)| run.chain(*value))
        .filter(|(_, size)| *size == 4)
        .map(|(chain, _)| chain)
        .collect();
    fields.dedup();
    let field = fields.pop();
    field.filter(|_| fields.is_empty())
}

#[cfg(test)]
#[path = "families_tests.rs"]
mod tests;
