//! Plans the probes of a library with the OpenSSL API.
//!
//! From OpenSSL 1.1.1 on, `SSL_read` and `SSL_read_ex` both end in `ssl_read_internal`, and so
//! does a read from an SSL BIO, which calls no exported function. So that inner function is
//! probed where it can be found and proved to be it; likewise for writing. A probe on a function
//! and one on another that it calls never double: BPF drops the nested call.

use crate::discovery::content::SparseFile;
use crate::discovery::debug_file;
use crate::discovery::elf::{Elf, Symbol};
use crate::event::{Dir, Flavor, Role};
use crate::plan::disasm::{Decoder, Kind};
use crate::plan::layout::{self, SSL_GETTERS};
use crate::plan::probe::{self, MAX_FUNCTION};
use crate::plan::stripped::{self, Stripped};
use crate::plan::symbolic::{self, Call, Callee, Run, Value};
use crate::plan::{Action, Count, Layout, Plan, Probe};
use anyhow::{Context, Result};
use std::collections::HashMap;

/// Functions that are probed as they are.
const PLAIN: [(&str, Action); 13] = [
    ("SSL_do_handshake", Action::Handshake(None)),
    ("SSL_connect", Action::Handshake(Some(Role::Client))),
    ("SSL_accept", Action::Handshake(Some(Role::Server))),
    ("SSL_free", Action::Free),
    ("SSL_clear", Action::Clear),
    ("SSL_shutdown", Action::Shutdown),
    ("SSL_set_fd", Action::Rebind),
    ("SSL_set_rfd", Action::Rebind),
    ("SSL_set_wfd", Action::Rebind),
    ("SSL_set_bio", Action::Rebind),
    ("SSL_set0_rbio", Action::Rebind),
    ("SSL_set0_wbio", Action::Rebind),
    (
        "SSL_sendfile",
        Action::Data(Dir::Out, Count::SendfileReturn),
    ),
];

/// Functions whose code or existence is evidence; they are never probed.
const EVIDENCE: [&str; 6] = [
    "SSL_peek",
    "SSL_peek_ex",
    "SSL_CTX_set_grease_enabled",
    "SSL_CTX_set_custom_verify",
    "SSL_get_peer_full_cert_chain",
    "SSL_CTX_load_verify_mem",
];

const BY_DEBUG_FILE: &str = "functions found by the separate file of debug symbols";
const BY_ERRORS: &str = "no symbols: functions found by the errors that they report";

/// The functions that move data in one direction.
struct Family {
    dir: Dir,
    /// The inner function's name, where a symbol table has it.
    inner: &'static str,
    /// Exported functions, each of which may be built on those before it.
    exported: &'static [(&'static str, Count)],
    /// The TLS 1.3 early data function, which is built on the others or does nothing.
    early: &'static str,
    /// Which exported functions pass their arguments on to the inner one, the surest first.
    callers: &'static [(&'static str, u8)],
    plain: &'static str,
}

const READ: Family = Family {
    dir: Dir::In,
    inner: "ssl_read_internal",
    exported: &[
        ("SSL_read_ex", Count::OutArg(3)),
        ("SSL_read", Count::Return),
    ],
    early: "SSL_read_early_data",
    callers: &[("SSL_read_ex", 3)],
    plain: "SSL_read",
};

const WRITE: Family = Family {
    dir: Dir::Out,
    inner: "ssl_write_internal",
    exported: &[
        ("SSL_write_ex2", Count::OutArg(4)),
        ("SSL_write_ex", Count::OutArg(3)),
        ("SSL_write", Count::Return),
    ],
    early: "SSL_write_early_data",
    // The count is argument 4 of SSL_write_ex2: argument 3 holds flags.
    callers: &[("SSL_write_ex2", 4), ("SSL_write_ex", 3)],
    plain: "SSL_write",
};

/// Plans the probes of a file that defines functions of the OpenSSL API; `None` when it defines
/// none that move data (importing them does not count). `path` is only for messages.
///
/// # Errors
/// The disassembler does not start, or no function that moves data can be probed.
pub fn plan(elf: &Elf<'_>, path: &str) -> Result<Option<Plan>> {
    let found = named(elf);
    if !moves_data(&found) {
        return Ok(None);
    }
    let flavor = flavor(elf, &found);
    plan_of(elf, path, &found, flavor, None)
}

/// As [`plan`], of a file without symbols that has such libraries inside.
///
/// # Errors
/// A file with debug symbols cannot be read, or the disassembler does not start; of a library: as
/// [`plan`].
pub fn plan_stripped(elf: &Elf<'_>, path: &str) -> Result<Vec<Result<Option<Plan>>>> {
    if !stripped::is_inside(elf) {
        return Ok(Vec::new());
    }
    if let Some(file) = debug_file::of(elf) {
        let file = SparseFile::new(&file).context("look at the file with the debug symbols")?;
        let symbols = Elf::open(&file)?;
        let found = named(&symbols);
        if moves_data(&found) {
            let flavor = flavor(elf, &found);
            let plan = plan_of(elf, path, &found, flavor, Some(BY_DEBUG_FILE));
            return Ok(vec![plan]);
        }
    }
    let libraries = stripped::find(elf, &Decoder::of(elf.machine())?);
    let plans = libraries
        .iter()
        .map(|library| plan_found(elf, path, library));
    Ok(plans.collect())
}

fn plan_found(elf: &Elf<'_>, path: &str, stripped: &Stripped) -> Result<Option<Plan>> {
    let found = &stripped.functions;
    let Some(mut plan) = plan_of(elf, path, found, stripped.flavor, Some(BY_ERRORS))? else {
        return Ok(None);
    };
    for family in [&READ, &WRITE] {
        let moves =
            |probe: &Probe| matches!(probe.action, Action::Data(dir, _) if dir == family.dir);
        if !plan.probes.iter().any(moves) {
            plan.notes.push(format!(
                "{} is not seen: it was not found in a file without symbols",
                family.plain
            ));
        }
    }
    Ok(Some(plan))
}

/// The functions of the API that symbols name.
fn named(elf: &Elf<'_>) -> HashMap<&'static str, Symbol> {
    let mut names: Vec<&str> = Vec::new();
    names.extend(PLAIN.iter().map(|(name, _)| name));
    names.extend(EVIDENCE);
    names.extend(SSL_GETTERS);
    for family in [&READ, &WRITE] {
        names.extend(family.exported.iter().map(|(name, _)| name));
        names.extend([family.inner, family.early]);
    }
    elf.find(&names)
}

fn has_any(family: &Family, found: &HashMap<&str, Symbol>) -> bool {
    let mut names = family.exported.iter().map(|(name, _)| name);
    names.any(|name| found.contains_key(name))
}

fn moves_data(found: &HashMap<&str, Symbol>) -> bool {
    has_any(&READ, found) || has_any(&WRITE, found)
}

fn plan_of(
    elf: &Elf<'_>,
    path: &str,
    found: &HashMap<&str, Symbol>,
    flavor: Flavor,
    found_by: Option<&'static str>,
) -> Result<Option<Plan>> {
    let planner = Planner {
        elf,
        decoder: Decoder::of(elf.machine())?,
        version: version(elf, flavor),
        found,
        flavor,
    };
    if planner.wraps_gnutls() {
        return Ok(None);
    }
    let mut probes = Vec::new();
    let mut notes = Vec::new();
    for family in [&READ, &WRITE] {
        planner.family(family, &mut probes, &mut notes);
    }
    if probes.is_empty() {
        anyhow::bail!(
            "plan probes in {path}: found TLS functions, but none can be probed: {}",
            notes.join("; ")
        );
    }
    for (name, action) in PLAIN {
        if let Some(symbol) = found.get(name) {
            planner.probe(name, symbol, action, &mut probes, &mut notes);
        }
    }
    let layout = Layout {
        unfreed: probes.iter().all(|probe| probe.action != Action::Free),
        unproved: found_by == Some(BY_ERRORS),
        ..layout::ssl_layout(elf, &planner.decoder, found)
    };
    Ok(Some(Plan {
        flavor,
        version: planner.version,
        found_by,
        probes,
        layout,
        notes,
    }))
}

/// The version as it stands in the file, for those libraries that state one; the libssl of
/// OpenSSL does not, its libcrypto does. Foreign.
pub fn version(elf: &Elf<'_>, flavor: Flavor) -> Option<String> {
    let prefix = match flavor {
        Flavor::OpenSsl => "OpenSSL ",
        Flavor::LibreSsl => "LibreSSL ",
        _ => return None,
    };
    let version = elf.version_string()?;
    version.starts_with(prefix).then(|| version.to_owned())
}

/// Told apart by functions that only one of them has.
fn flavor(elf: &Elf<'_>, found: &HashMap<&str, Symbol>) -> Flavor {
    let has = |name: &str| found.contains_key(name);
    if has("SSL_CTX_set_grease_enabled")
        || has("SSL_CTX_set_custom_verify")
        || has("SSL_get_peer_full_cert_chain")
    {
        Flavor::BoringSsl
    } else if has("SSL_CTX_load_verify_mem") || version(elf, Flavor::LibreSsl).is_some() {
        Flavor::LibreSsl
    } else {
        Flavor::OpenSsl
    }
}

/// An inner function: the one place where all data of a direction passes.
struct Inner {
    name: String,
    symbol: Symbol,
    /// The argument behind which it stores the count.
    count: u8,
}

struct Planner<'p, 'a> {
    elf: &'p Elf<'a>,
    decoder: Decoder,
    version: Option<String>,
    found: &'p HashMap<&'p str, Symbol>,
    flavor: Flavor,
}

impl Planner<'_, '_> {
    /// Whether this is `libgnutls-openssl`, whose data is seen in `GnuTLS`.
    fn wraps_gnutls(&self) -> bool {
        let calls_it = |symbol: &Symbol| {
            let run = self.execute(symbol);
            let mut callees = run.calls.iter().map(|call| &call.callee);
            callees.any(|to| matches!(to, Callee::Import(name) if name.starts_with("gnutls_")))
        };
        self.found.get(WRITE.plain).is_some_and(calls_it)
    }

    /// Plans one direction: the inner function, and every exported one that does not provably go
    /// through it.
    fn family(&self, family: &Family, probes: &mut Vec<Probe>, notes: &mut Vec<String>) {
        let runs: HashMap<&str, Run> = family
            .exported
            .iter()
            .filter_map(|(name, _)| Some((*name, self.execute(self.found.get(name)?))))
            .collect();
        // Addresses of functions through which data is seen, by a probe on them or further in.
        let mut seen = Vec::new();
        match self.inner(family, &runs) {
            Ok(inner) => {
                let action = Action::Data(family.dir, Count::OutArg(inner.count));
                if self.probe(&inner.name, &inner.symbol, action, probes, notes) {
                    seen.push(inner.symbol.vaddr);
                }
            }
            Err(why) => {
                let has_inner = self.flavor == Flavor::OpenSsl
                    && family
                        .callers
                        .iter()
                        .any(|(n, _)| self.found.contains_key(n));
                if has_inner {
                    notes.push(format!(
                        "SSL BIOs are not seen ({:?}): {} is not provable: {why}",
                        family.dir, family.inner
                    ));
                }
            }
        }
        let mut uncovered = Vec::new();
        for (name, count) in family.exported {
            let (Some(symbol), Some(run)) = (self.found.get(name), runs.get(name)) else {
                continue;
            };
            if self.is_covered(run, &seen) {
                seen.push(symbol.vaddr);
            } else {
                uncovered.push((*name, *count, symbol, run));
            }
        }
        // LibreSSL's SSL_read_ex is built on SSL_read, not the other way round.
        let plain = self.found.get(family.plain).map(|s| s.vaddr);
        for (name, count, symbol, run) in uncovered {
            let through_plain = plain.filter(|plain| *plain != symbol.vaddr);
            if through_plain.is_some_and(|plain| self.is_covered(run, &[plain])) {
                continue;
            }
            let action = Action::Data(family.dir, count);
            if self.probe(name, symbol, action, probes, notes) {
                seen.push(symbol.vaddr);
            }
        }
        if let Some(symbol) = self.found.get(family.early)
            && !self.calls_any(symbol, &seen)
        {
            let action = Action::Data(family.dir, Count::OutArg(3));
            self.probe(family.early, symbol, action, probes, notes);
        }
    }

    /// Whether all data that goes through the function goes through one of `seen`, with handle
    /// and buffer as they were passed in.
    fn is_covered(&self, run: &Run, seen: &[u64]) -> bool {
        let mut calls = 0;
        for call in &run.calls {
            match self.address(&call.callee) {
                Some(to) if seen.contains(&to) => {
                    if !call.passes(2) {
                        return false;
                    }
                    calls += 1;
                }
                Some(_) => {}
                // A method's own read: an inlined copy of what is looked for.
                None if call.callee == Callee::Unknown => return false,
                None => {}
            }
        }
        calls > 0 && !run.incomplete
    }

    /// Finds the inner function, or says why not.
    fn inner(&self, family: &Family, runs: &HashMap<&str, Run>) -> Result<Inner, String> {
        if self.flavor != Flavor::OpenSsl {
            return Err(format!("{} has none", self.flavor.name()));
        }
        let mut why = "no function passes its arguments on to it unchanged".to_owned();
        for (caller, count) in family.callers {
            let Some(run) = runs.get(caller) else {
                continue;
            };
            let mut candidates: Vec<(u64, u8)> = run
                .calls
                .iter()
                .filter_map(|call| match call.callee {
                    Callee::Local(to) => Some((to, passed_count(call, *count)?)),
                    _ => None,
                })
                .filter(|(to, _)| {
                    self.found.values().all(|s| s.vaddr != *to || !s.exported)
                        || self.is_named(family, *to)
                })
                .collect();
            candidates.sort_unstable();
            candidates.dedup();
            let [(to, count)] = candidates.as_slice() else {
                continue;
            };
            match self.confirm(family, runs, *to, *count) {
                Ok(inner) => return Ok(inner),
                Err(reason) => why = reason,
            }
        }
        // Inlined into the exported functions, but with a symbol: SSL BIOs still call it.
        let symbol = self.found.get(family.inner).ok_or(why)?;
        let proved = stripped::count_argument(&self.execute(symbol));
        let count = match family.dir {
            _ if proved.is_some() => proved,
            Dir::In => Some(3),
            Dir::Out if self.found.contains_key("SSL_write_ex2") => Some(4),
            Dir::Out => self.has_flags_argument().map(|has| if has { 4 } else { 3 }),
        };
        let count = count.ok_or("where it stores its count is not known")?;
        Ok(Inner {
            name: family.inner.to_owned(),
            symbol: symbol.clone(),
            count,
        })
    }

    /// Whether `ssl_write_internal` has an argument for flags before that for the count: from
    /// 3.3 on, together with `SSL_write_ex2`, which a shared library cannot leave out.
    fn has_flags_argument(&self) -> Option<bool> {
        let exports = self.found.get("SSL_write_ex").is_some_and(|s| s.exported);
        if exports && !self.elf.is_executable() {
            return Some(false);
        }
        let number = self.version.as_deref()?.strip_prefix("OpenSSL ")?;
        let mut parts = number.split(['.', ' ']).map(str::parse::<u32>);
        let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
        Some((major, minor) >= (3, 3))
    }

    fn is_named(&self, family: &Family, vaddr: u64) -> bool {
        self.found
            .get(family.inner)
            .is_some_and(|s| s.vaddr == vaddr)
    }

    /// Checks a candidate that a caller passes its arguments on to.
    fn confirm(
        &self,
        family: &Family,
        runs: &HashMap<&str, Run>,
        to: u64,
        count: u8,
    ) -> Result<Inner, String> {
        let calls_it = |run: &Run| {
            run.calls
                .iter()
                .any(|c| self.address(&c.callee) == Some(to))
        };
        for peek in ["SSL_peek", "SSL_peek_ex"] {
            if let Some(symbol) = self.found.get(peek)
                && calls_it(&self.execute(symbol))
            {
                return Err(format!("{peek} calls it too"));
            }
        }
        let symbol = match self.elf.function_at(to) {
            Some((name, _)) if name != family.inner && !name.starts_with(family.inner) => {
                return Err("another function is called in its place".to_owned());
            }
            Some((name, symbol)) if symbol.size != 0 => {
                return Ok(Inner {
                    name: name.to_owned(),
                    symbol,
                    count,
                });
            }
            _ => Symbol {
                vaddr: to,
                size: self.elf.extent(to),
                exported: false,
            },
        };
        // Without a name, the plain function must lead to it too.
        match runs.get(family.plain) {
            Some(run) if self.is_covered(run, &[to]) => Ok(Inner {
                name: family.inner.to_owned(),
                symbol,
                count,
            }),
            _ => Err(format!("{} does not lead to it", family.plain)),
        }
    }

    /// The address of a callee in this file; an import that this file defines itself is a call
    /// of its own function through the PLT.
    fn address(&self, callee: &Callee) -> Option<u64> {
        match callee {
            Callee::Local(to) => Some(*to),
            Callee::Import(name) => self.found.get(name.as_str()).map(|s| s.vaddr),
            Callee::Unknown => None,
        }
    }

    /// Whether the function's code has a direct call of, or jump to, any of these functions.
    fn calls_any(&self, symbol: &Symbol, any: &[u64]) -> bool {
        let mut calls = false;
        let code = self.code(symbol).unwrap_or_default();
        self.decoder.sweep(code, symbol.vaddr, |insn| {
            if let Kind::Call(to) | Kind::Jump(to) = insn.kind {
                let own = self.elf.import_at(to).and_then(|name| self.found.get(name));
                calls |= any.contains(&own.map_or(to, |s| s.vaddr));
            }
        });
        calls
    }

    fn execute(&self, symbol: &Symbol) -> Run {
        let size = symbol.size.min(MAX_FUNCTION);
        symbolic::execute(self.elf, &self.decoder, symbol.vaddr, size)
    }

    fn code(&self, symbol: &Symbol) -> Option<&[u8]> {
        self.elf.code(symbol.vaddr, symbol.size.min(MAX_FUNCTION))
    }

    /// Adds the probe of one function; a note instead, and false, when it can carry none.
    fn probe(
        &self,
        name: &str,
        symbol: &Symbol,
        action: Action,
        probes: &mut Vec<Probe>,
        notes: &mut Vec<String>,
    ) -> bool {
        match probe::plan(self.elf, &self.decoder, name, symbol, action) {
            Ok(probe) => {
                probes.push(probe);
                true
            }
            Err(error) => {
                notes.push(format!("{name} is not seen: {error:#}"));
                false
            }
        }
    }
}

/// In which argument the callee is given the count pointer that came in as argument `count`, if
/// everything before it is passed on too: at its own place, or behind flags of 0 that
/// `SSL_write_ex` puts in for `SSL_write_ex2`.
fn passed_count(call: &Call, count: u8) -> Option<u8> {
    let zero = Value {
        plus: 0,
        base: symbolic::Base::Zero,
    };
    if call.passes(count.checked_add(1)?) {
        Some(count)
    } else if count == 3 && call.passes(3) && call.args[3] == zero {
        (call.args[4] == Value::arg(3)).then_some(4)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "openssl_tests.rs"]
mod tests;
