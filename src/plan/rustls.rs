//! Plans the probes of rustls, a library that is part of the program.
//!
//! All plaintext to be sent goes into `CommonState::buffer_plaintext`, which says how much of it was
//! taken; that of a record that was received goes into `CommonState::take_received_plaintext`. Both
//! have the `CommonState` as their first argument, so that they agree on the connection.

mod facts;
mod search;

use crate::discovery::elf::Elf;
use crate::discovery::rustls::{self as discovered, Method, Named};
use crate::event::{Dir, Flavor};
use crate::plan::disasm::Decoder;
use crate::plan::site::{Needs, plan_site};
use crate::plan::{Action, Layout, Plan, Probe, RustlsBytes, RustlsCall, Site};
use anyhow::{Context, Result, bail};

/// Most bytes of a function that are looked at for a site.
const MAX_FUNCTION: u64 = 64 << 10;

/// The probes for a program with rustls in it; `None` when it is not.
///
/// # Errors
/// It is there, but neither direction can be probed.
pub fn plan(elf: &Elf<'_>, path: &str) -> Result<Option<Plan>> {
    let mut functions = discovered::functions(elf);
    let decoder = Decoder::of(elf.machine())?;
    if !functions.iter().any(|f| direction(f.method).is_some()) {
        if discovered::version(elf).is_none() {
            return Ok(None);
        }
        functions = search::find(elf, &decoder).functions;
    }
    let mut notes = Vec::new();
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
        let way = facts::way(elf, &decoder, function.vaddr);
        let is_alone = facts::is_alone(elf, &way, function.vaddr, |start| {
            starts.contains(&start) || discovered::is_of_common_state(elf, start)
        });
        ways.push(way);
        is_alone
    });
    let mut probes = Vec::new();
    for function in &functions {
        match probe(elf, &decoder, function) {
            Ok(probe) => probes.push(probe),
            Err(error) => notes.push(format!("{}: {error:#}", function.method.name())),
        }
    }
    let is_seen = |dir| functions.iter().any(|f| direction(f.method) == Some(dir));
    for (dir, what) in [(Dir::Out, "sent"), (Dir::In, "received")] {
        if !is_seen(dir) {
            notes.push(format!(
                "what is {what} is not seen: the compiler has put its function into others"
            ));
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
        ..facts::learn(elf, &decoder, &functions, &ways)
    };
    notes.extend(limits(&layout, &functions).map(str::to_owned));
    Ok(Some(Plan {
        flavor: Flavor::Rustls,
        version: discovered::version(elf),
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

fn probe(elf: &Elf<'_>, decoder: &Decoder, function: &Named) -> Result<Probe> {
    let needs = match function.method {
        Method::BufferPlaintext | Method::SendSomePlaintext => Needs {
            args: 3,
            returns: true,
        },
        Method::TakeReceivedPlaintext => Needs {
            args: 2,
            returns: false,
        },
        Method::Handle12 | Method::Handle13 => Needs {
            args: 4,
            returns: false,
        },
        Method::StartOutgoingTraffic | Method::Drop => Needs {
            args: 1,
            returns: false,
        },
    };
    let code = elf
        .code(function.vaddr, function.size.min(MAX_FUNCTION))
        .context("its code is not in the file")?;
    let candidates = plan_site(decoder, code, function.vaddr, needs)?;
    let mut sites = candidates.into_iter().filter_map(|candidate| {
        let vaddr = function.vaddr.checked_add(candidate.offset)?;
        Some(Site {
            vaddr,
            file_offset: elf.file_offset(vaddr)?,
            cost: candidate.cost,
            reason: candidate.reason,
        })
    });
    let site = sites.next().context("its code is not in the file")?;
    Ok(Probe {
        func: function.method.name().to_owned(),
        action: action(function.method),
        site,
        fallbacks: sites.collect(),
    })
}
