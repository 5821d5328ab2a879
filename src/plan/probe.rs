//! Makes a probe of a C function and what is to be seen of its calls.

use crate::discovery::elf::{Elf, Symbol};
use crate::plan::disasm::Decoder;
use crate::plan::site::{Needs, plan_site};
use crate::plan::{Action, Probe, Site};
use anyhow::{Context, Result};

/// Most bytes of a function that are looked at.
pub(super) const MAX_FUNCTION: u64 = 64 << 10;

/// The probe of one function, with all sites that can carry it.
pub(super) fn plan(
    elf: &Elf<'_>,
    decoder: &Decoder,
    name: &str,
    symbol: &Symbol,
    action: Action,
) -> Result<Probe> {
    const NO_CODE: &str = "its code is not in the file";
    let code = elf
        .code(symbol.vaddr, symbol.size.min(MAX_FUNCTION))
        .context(NO_CODE)?;
    let needs = Needs {
        args: action.arguments(),
        returns: action.returns(),
    };
    let candidates = plan_site(decoder, code, symbol.vaddr, needs)?;
    let mut sites = candidates.into_iter().filter_map(|candidate| {
        let vaddr = symbol.vaddr.checked_add(candidate.offset)?;
        Some(Site {
            vaddr,
            file_offset: elf.file_offset(vaddr)?,
            cost: candidate.cost,
            reason: candidate.reason,
        })
    });
    let site = sites.next().context(NO_CODE)?;
    Ok(Probe {
        func: name.to_owned(),
        action,
        site,
        fallbacks: sites.collect(),
    })
}
