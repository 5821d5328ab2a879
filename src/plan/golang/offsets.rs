//! Where in Go's structures the fields are that are shown: from the debug information, else by version.

use crate::discovery::elf::Elf;
use crate::discovery::golang::dwarf::{self, Members};
use crate::plan::Layout;
use anyhow::{Result, bail};

/// The structure of goroutines.
const G: &str = "runtime.g";
/// Behind the path of the package.
const CONN: &str = "crypto/tls.Conn";
/// Fields of it that BPF reads where they have been in all versions (gotls.bpf.h).
const FIXED: [(&str, u32); 2] = [("conn", 0), ("isClient", 16)];

/// Offsets in `tls.Conn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conn {
    version: Option<u32>,
    server_name: Option<u32>,
    protocol: Option<u32>,
    input: Option<u32>,
}

/// `packages` are the paths before `crypto/tls` of the copies that are probed: one, and empty, but
/// for programs with a copy of their own.
///
/// # Errors
/// A copy is so different that BPF would read other fields than it means.
pub(super) fn learn(elf: &Elf<'_>, packages: &[&str], minor: Option<u32>) -> Result<Layout> {
    let names: Vec<String> = packages
        .iter()
        .map(|package| format!("{package}{CONN}"))
        .collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).chain([G]).collect();
    let structures = dwarf::structures(elf, &wanted);
    let goid = structures
        .get(G)
        .and_then(|members| members.get("goid").copied());
    let mut conns = Vec::new();
    for name in &names {
        conns.push(match structures.get(name) {
            Some(members) => in_members(name, members)?,
            None => by_version(minor),
        });
    }
    // Copies that differ cannot be told apart when a call returns.
    let conn = match conns.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => *first,
        _ => Conn::default(),
    };
    // A string is a pointer and a length.
    let length = |offset: u32| vec![offset.saturating_add(8)];
    Ok(Layout {
        version: conn.version.map(|offset| vec![offset]),
        sni: conn.server_name.map(|offset| vec![offset]),
        sni_len: conn.server_name.map(length),
        alpn: conn.protocol.map(|offset| (vec![offset], length(offset))),
        input: conn.input,
        goid: goid.or_else(|| goid_by_version(minor)),
        ..Layout::default()
    })
}

fn in_members(name: &str, members: &Members) -> Result<Conn> {
    for (field, expected) in FIXED {
        match members.get(field) {
            Some(offset) if *offset == expected => {}
            Some(offset) => bail!(
                "the debug information has `{field}` of {name} at {offset}, and it was at \
                 {expected} in every version up to Go 1.27: altered, or newer than this version"
            ),
            None => bail!("the debug information has no `{field}` of {name}: altered"),
        }
    }
    let offset = |field| members.get(field).copied();
    Ok(Conn {
        version: offset("vers"),
        server_name: offset("serverName"),
        protocol: offset("clientProtocol"),
        input: offset("input"),
    })
}

/// For stripped programs: as the DWARF gives it that each of these versions writes.
fn by_version(minor: Option<u32>) -> Conn {
    let (version, server_name, protocol, input) = match minor {
        Some(13 | 14) => (48, 176, 288, 640),
        Some(15) => (64, 192, 328, 680),
        Some(16..=19) => (64, 192, 328, 672),
        Some(20) => (64, 216, 352, 696),
        Some(21 | 22) => (72, 224, 360, 720),
        Some(23 | 24) => (72, 224, 368, 728),
        Some(25 | 26) => (72, 208, 352, 712),
        Some(27) => (72, 232, 376, 736),
        _ => return Conn::default(),
    };
    Conn {
        version: Some(version),
        server_name: Some(server_name),
        protocol: Some(protocol),
        input: Some(input),
    }
}

fn goid_by_version(minor: Option<u32>) -> Option<u32> {
    match minor {
        Some(13..=22 | 25..=27) => Some(152),
        Some(23 | 24) => Some(160),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, u32)]) -> Members {
        let owned = fields
            .iter()
            .map(|(name, offset)| ((*name).to_owned(), *offset));
        owned.collect()
    }

    #[test]
    fn fields_that_are_elsewhere_than_bpf_reads_them_are_refused() {
        assert!(in_members(CONN, &of(&[("conn", 0), ("isClient", 16)])).is_ok());
        let error = in_members(CONN, &of(&[("conn", 8), ("isClient", 24)])).unwrap_err();
        assert!(error.to_string().contains("`conn`"), "{error}");
        assert!(in_members(CONN, &of(&[("conn", 0), ("isClient", 24)])).is_err());
        assert!(in_members(CONN, &of(&[("conn", 0)])).is_err());
    }

    #[test]
    fn a_version_that_nobody_has_seen_is_not_guessed() {
        for minor in [None, Some(12), Some(28)] {
            assert_eq!(by_version(minor), Conn::default());
            assert_eq!(goid_by_version(minor), None);
        }
    }
}
