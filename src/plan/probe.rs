//! Makes a probe of a C function and what is to be seen of its calls.

use crate::discovery::elf::{Elf, Symbol};
use crate::plan::disasm::Decoder;
use crate::plan::site::{Needs, plan_site};
use crate::plan::{Action, Count, Probe, Site};
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
    let candidates = plan_site(decoder, code, symbol.vaddr, needs(action))?;
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

/// What the BPF side reads at entry: of data calls also the length, whatever says the count.
fn needs(action: Action) -> Needs {
    match action {
        Action::Data(_, count) => Needs {
            args: count
                .argument()
                .map_or(0, |n| n.saturating_add(1))
                .max(Count::LENGTH + 1),
            returns: true,
        },
        Action::Handshake(_) | Action::Negotiate => Needs {
            args: 1,
            returns: true,
        },
        Action::Free | Action::Clear | Action::Shutdown => Needs {
            args: 1,
            returns: false,
        },
        // Planned in plan::golang, by other rules.
        Action::Go { .. } => Needs {
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
