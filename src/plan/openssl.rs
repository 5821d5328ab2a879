//! Plans the probes of a library with the OpenSSL API.
//!
//! From OpenSSL 1.1.1 on, `SSL_read` and `SSL_read_ex` both end in `ssl_read_internal`, and so
//! does a read from an SSL BIO, which calls no exported function. So that inner function is
//! probed where it can be found and proved to be it; likewise for writing. A probe on a function
//! and one on another that it calls never double: BPF drops the nested call.

use crate::discovery::elf::{Elf, Symbol};
use crate::event::{Dir, Flavor, Role};
use crate::plan::disasm::{Decoder, Kind};
use crate::plan::layout::{self, SSL_GETTERS};
use crate::plan::site::{Needs, plan_site};
use crate::plan::symbolic::{self, Call, Callee, Run, Value};
use crate::plan::{Action, Count, Plan, Probe, Site};
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

/// Most bytes of a function that are looked at.
const MAX_FUNCTION: u64 = 64 << 10;

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
    let mut names: Vec<&str> = Vec::new();
    names.extend(PLAIN.iter().map(|(name, _)| name));
    names.extend(EVIDENCE);
    names.extend(SSL_GETTERS);
    for family in [&READ, &WRITE] {
        names.extend(family.exported.iter().map(|(name, _)| name));
        names.extend([family.inner, family.early]);
    }
    let found = elf.find(&names);
    let moves_data = |family: &Family| family.exported.iter().any(|(n, _)| found.contains_key(n));
    if !moves_data(&READ) && !moves_data(&WRITE) {
        return Ok(None);
    }
    let flavor = flavor(elf, &found);
    let planner = Planner {
        elf,
        decoder: Decoder::of(elf.machine())?,
        version: version(elf, flavor),
        found: &found,
        flavor,
    };
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
    let layout = layout::ssl_layout(elf, &planner.decoder, &found);
    Ok(Some(Plan {
        flavor,
        version: planner.version,
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
        Flavor::BoringSsl | Flavor::Go | Flavor::Rustls => return None,
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
                    if !passes(call, 2) {
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
        let count = match family.dir {
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
        match self.sites(symbol, needs(action)) {
            Ok((site, fallbacks)) => {
                probes.push(Probe {
                    func: name.to_owned(),
                    action,
                    site,
                    fallbacks,
                });
                true
            }
            Err(error) => {
                notes.push(format!("{name} is not seen: {error:#}"));
                false
            }
        }
    }

    fn sites(&self, symbol: &Symbol, needs: Needs) -> Result<(Site, Vec<Site>)> {
        let code = self.code(symbol).context("its code is not in the file")?;
        let candidates = plan_site(&self.decoder, code, symbol.vaddr, needs)?;
        let mut sites = candidates.into_iter().filter_map(|candidate| {
            let vaddr = symbol.vaddr.checked_add(candidate.offset)?;
            Some(Site {
                vaddr,
                file_offset: self.elf.file_offset(vaddr)?,
                cost: candidate.cost,
                reason: candidate.reason,
            })
        });
        let best = sites.next().context("its code is not in the file")?;
        Ok((best, sites.collect()))
    }
}

/// What the BPF side reads at entry: of data calls also the length, whatever says the count.
fn needs(action: Action) -> Needs {
    match action {
        Action::Data(_, Count::OutArg(n)) => Needs {
            args: n.saturating_add(1).max(3),
            returns: true,
        },
        Action::Data(..) => Needs {
            args: 3,
            returns: true,
        },
        Action::Handshake(_) => Needs {
            args: 1,
            returns: true,
        },
        Action::Free | Action::Clear | Action::Shutdown => Needs {
            args: 1,
            returns: false,
        },
        // Planned in plan::golang and plan::rustls, by other rules.
        Action::Go { .. } | Action::Rustls(_) => Needs {
            args: 0,
            returns: false,
        },
        // SSL_set_bio has three.
        Action::Rebind => Needs {
            args: 3,
            returns: false,
        },
    }
}

/// Whether the first `n` arguments are passed on as they came in.
fn passes(call: &Call, n: u8) -> bool {
    (0..)
        .zip(&call.args)
        .take(usize::from(n))
        .all(|(n, value)| *value == Value::arg(n))
}

/// In which argument the callee is given the count pointer that came in as argument `count`, if
/// everything before it is passed on too: at its own place, or behind flags of 0 that
/// `SSL_write_ex` puts in for `SSL_write_ex2`.
fn passed_count(call: &Call, count: u8) -> Option<u8> {
    let zero = Value {
        plus: 0,
        base: symbolic::Base::Zero,
    };
    if passes(call, count.checked_add(1)?) {
        Some(count)
    } else if count == 3 && passes(call, 3) && call.args[3] == zero {
        (call.args[4] == Value::arg(3)).then_some(4)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "openssl_tests.rs"]
mod tests;
