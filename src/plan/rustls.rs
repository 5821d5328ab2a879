//! Plans the probes of rustls, a library that is part of the program.
//!
//! All plaintext to be sent goes into `CommonState::buffer_plaintext`, which says how much of it was
//! taken; that of a record that was received goes into `CommonState::take_received_plaintext`. Both
//! have the `CommonState` as their first argument, so that they agree on the connection.

mod facts;
mod search;

use crate::discovery::elf::{Elf, Symbol};
use crate::discovery::rustls::{self as discovered, Method, Named};
use crate::event::{Dir, Flavor};
use crate::plan::disasm::Decoder;
use crate::plan::functions::Functions;
use crate::plan::{Action, Layout, Plan, RustlsBytes, RustlsCall, probe};
use anyhow::{Result, bail};

const BY_PANICS: &str = "no symbols: functions found by what one of them says when it panics";

/// The probes for a program with rustls in it; `None` when it is not. `may_hide`: it may be inside
/// without names.
///
/// # Errors
/// It is there, but neither direction can be probed.
pub fn plan(elf: &Elf<'_>, path: &str, may_hide: bool) -> Result<Option<Plan>> {
    let mut functions = discovered::functions(elf);
    let mut found_by = None;
    if !functions.iter().any(|f| direction(f.method).is_some()) {
        if !may_hide || !discovered::is_inside(elf) {
            return Ok(None);
        }
        found_by = Some(BY_PANICS);
    }
    let decoder = Decoder::of(elf.machine())?;
    let in_file = Functions::of(elf, &decoder);
    if found_by.is_some() {
        functions = search::find(&in_file).functions;
    }
    let mut notes = Vec::new();
    let named: Vec<Dir> = functions
        .iter()
        .filter_map(|f| direction(f.method))
        .collect();
    let app_data = facts::choose_receivers(elf, &decoder, &mut functions);
    let mut ways = Vec::new();
    let starts: Vec<u64> = functions
        .iter()
        .filter(|f| f.method == Method::StartOutgoingTraffic)
        .map(|f| f.vaddr)
        .collect();
    functions.retain(|function| {
        if direction(function.method) != Some(Dir::Out) {
            return true;
        }
        let way = facts::way(&in_file, function.vaddr);
        let is_alone = facts::is_alone(&in_file, &way, function.vaddr, |start| {
            starts.contains(&start) || discovered::is_of_common_state(elf, start)
        });
        ways.push(way);
        is_alone
    });
    let mut probes = Vec::new();
    for function in &functions {
        let symbol = Symbol {
            vaddr: function.vaddr,
            size: function.size,
            exported: false,
        };
        let name = function.method.name();
        match probe::plan(elf, &decoder, name, &symbol, action(function.method)) {
            Ok(probe) => probes.push(probe),
            Err(error) => notes.push(format!("{}: {error:#}", function.method.name())),
        }
    }
    let is_seen = |dir| functions.iter().any(|f| direction(f.method) == Some(dir));
    for (dir, what) in [(Dir::Out, "sent"), (Dir::In, "received")] {
        if !is_seen(dir) {
            let reason = match named.contains(&dir) {
                true => "the compiler has put copies of its function into others",
                false => "its function was not found",
            };
            notes.push(format!("what is {what} is not seen: {reason}"));
        }
    }
    if !is_seen(Dir::Out) && !is_seen(Dir::In) || probes.is_empty() {
        bail!(
            "plan probes in {path}: found rustls, but nothing of it can be probed: {}",
            notes.join("; ")
        );
    }
    let layout = Layout {
        app_data,
        unproved: found_by.is_some(),
        ..facts::learn(elf, &decoder, &functions, &ways)
    };
    notes.extend(limits(&layout, &functions).map(str::to_owned));
    Ok(Some(Plan {
        flavor: Flavor::Rustls,
        version: discovered::version(elf),
        found_by,
        probes,
        layout,
        notes,
    }))
}

fn direction(method: Method) -> Option<Dir> {
    match method {
        Method::BufferPlaintext | Method::SendSomePlaintext => Some(Dir::Out),
        Method::TakeReceivedPlaintext | Method::Handle12 | Method::Handle13 => Some(Dir::In),
        Method::StartOutgoingTraffic | Method::Drop => None,
    }
}

fn action(method: Method) -> Action {
    Action::Rustls(match method {
        Method::BufferPlaintext => RustlsCall::Write(RustlsBytes::Chunks),
        Method::SendSomePlaintext => RustlsCall::Write(RustlsBytes::Slice),
        Method::TakeReceivedPlaintext => RustlsCall::Read(RustlsBytes::Payload),
        Method::Handle12 | Method::Handle13 => RustlsCall::Read(RustlsBytes::Message),
        Method::StartOutgoingTraffic => RustlsCall::Start,
        Method::Drop => RustlsCall::Drop,
    })
}

fn limits(layout: &Layout, functions: &[Named]) -> impl Iterator<Item = &'static str> {
    let starts = layout.sends.is_some();
    let drops = functions.iter().any(|f| f.method == Method::Drop);
    let moves = layout.encrypter.is_none().then_some(
        "a connection that the program moves in memory becomes another one: where its keys are is \
         not provable",
    );
    let reused = (!starts && !drops)
        .then_some("connections may be joined: where they begin and end is not found");
    moves.into_iter().chain(reused)
}

#[cfg(test)]
#[path = "rustls_tests.rs"]
mod tests;
