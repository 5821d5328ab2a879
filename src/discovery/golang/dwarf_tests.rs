//! Over made-up sections of each version of DWARF, and over a program that `go` builds.

use super::*;
use crate::discovery::content::SparseFile;
use crate::discovery::golang::tests::build;

const G: &str = "runtime.g";
const FIELDS: [(&str, u8); 3] = [("stack", 0), ("goid", 0x98), ("waitsince", 0xa8)];

/// In the words of Go's linker (cmd/internal/dwarf): a unit, a structure with two of its own
/// attributes, a member with one, a typedef, a pointer.
fn abbreviations() -> Vec<u8> {
    let table: [(u8, u8, u8, &[u8]); 5] = [
        (1, 0x11, 1, &[0x03, 0x08]),
        (30, 0x13, 1, &[0x03, 0x08, 0x0b, 0x0f, 0x80, 0x52, 0x0b]),
        (
            14,
            0x0d,
            0,
            &[0x03, 0x08, 0x38, 0x0f, 0x49, 0x13, 0x83, 0x52, 0x0c],
        ),
        (31, 0x16, 0, &[0x03, 0x08, 0x49, 0x13]),
        (26, 0x0f, 0, &[0x03, 0x08, 0x49, 0x13]),
    ];
    let mut bytes = Vec::new();
    for (code, tag, has_children, attributes) in table {
        bytes.extend([code, tag, has_children]);
        bytes.extend(attributes);
        bytes.extend([0, 0]);
    }
    bytes.push(0);
    bytes
}

fn named(code: u8, name: &str, rest: &[u8]) -> Vec<u8> {
    [&[code], name.as_bytes(), &[0], rest].concat()
}

fn structure(name: &str) -> Vec<u8> {
    let mut bytes = named(30, name, &[0xb8, 3, 25]);
    for (field, offset) in FIELDS {
        // Such offsets take two bytes.
        bytes.extend(named(
            14,
            field,
            &[offset | 0x80, offset >> 7, 1, 0, 0, 0, 0],
        ));
    }
    bytes.push(0);
    bytes
}

fn unit(version: u8, abbreviations: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let header = match version {
        5 => vec![5, 0, 1, 8, abbreviations, 0, 0, 0],
        _ => vec![version, 0, abbreviations, 0, 0, 0, 8],
    };
    let body = [named(1, "a package", &[]), entries.concat(), vec![0]].concat();
    let length = (header.len() + body.len()) as u32;
    [&length.to_le_bytes(), header.as_slice(), &body].concat()
}

/// Each of the things that have this name, or end with it.
fn type_entries(name: &str) -> [Vec<u8>; 4] {
    [
        named(26, &format!("*{name}"), &[9, 0, 0, 0]),
        named(31, name, &[1, 0, 0, 0]),
        structure(&format!("{name}c")),
        structure(name),
    ]
}

fn goid_in(info: &[u8], abbreviations: &[u8]) -> Option<u32> {
    let found = structures_in(info, abbreviations, &[G, "crypto/tls.Conn"]);
    assert!(found.len() <= 1);
    found.get(G).map(|members| members["goid"])
}

#[test]
fn a_member_is_found_in_each_version_of_dwarf() {
    for version in [2, 3, 4, 5] {
        let info = [
            unit(version, 0, &[named(31, "int", &[0; 4])]),
            unit(version, 0, &type_entries(G)),
        ]
        .concat();
        let found = structures_in(&info, &abbreviations(), &[G]);
        let expected = FIELDS.map(|(name, offset)| (name.to_owned(), u32::from(offset)));
        assert_eq!(found[G], Members::from(expected), "version {version}");
    }
}

#[test]
fn an_entry_on_the_border_of_a_window_is_found() {
    // Names of types fill the section up to there.
    for distance in (STEP - 300..STEP + 10).step_by(7) {
        let mut filler = Vec::new();
        while filler.len() + 100 < distance {
            filler.push(named(31, &"x".repeat(90), &[0; 4]));
        }
        let before = unit(4, 0, &[filler.concat()]);
        let rest = "y".repeat(distance.saturating_sub(before.len()));
        let info = [
            before,
            unit(4, 0, &[named(31, &rest, &[0; 4]), structure(G)]),
        ]
        .concat();
        assert_eq!(goid_in(&info, &abbreviations()), Some(0x98), "{distance}");
    }
}

#[test]
fn abbreviations_are_those_of_the_unit() {
    let others = [vec![1, 0x11, 0, 0, 0, 0], abbreviations()].concat();
    let info = unit(5, 6, &type_entries(G));
    assert_eq!(goid_in(&info, &others), Some(0x98));
    assert_eq!(goid_in(&info, &abbreviations()), None);
    assert_eq!(goid_in(&unit(5, 200, &type_entries(G)), &others), None);
}

#[test]
fn a_name_that_is_no_structure_of_that_name_is_passed_over() {
    let abbreviations = abbreviations();
    let [pointer, typedef, other, _] = type_entries(G);
    let info = unit(4, 0, &[pointer, typedef, other]);
    assert_eq!(goid_in(&info, &abbreviations), None);
    // Within the bytes of something else: behind a code that happens to be that of a structure.
    let text = named(31, &format!("a\u{1e}{G}"), &[0; 4]);
    assert_eq!(
        goid_in(&unit(4, 0, std::slice::from_ref(&text)), &abbreviations),
        None
    );
    let info = unit(4, 0, &[text, structure(G)]);
    assert_eq!(goid_in(&info, &abbreviations), Some(0x98));
}

#[test]
fn units_of_another_kind_are_passed_over() {
    let abbreviations = abbreviations();
    let right = unit(5, 0, &type_entries(G));
    for (at, byte) in [(4, 6), (4, 1), (6, 2), (6, 4)] {
        let mut other = right.clone();
        other[at] = byte;
        assert_eq!(goid_in(&other, &abbreviations), None, "{at} {byte}");
        let info = [other, right.clone()].concat();
        assert_eq!(goid_in(&info, &abbreviations), Some(0x98), "{at} {byte}");
    }
    // A length that is none ends the section.
    for length in [0, 6, 0xffff_ffff_u32] {
        let info = [&length.to_le_bytes(), right.as_slice()].concat();
        assert_eq!(goid_in(&info, &abbreviations), None, "{length}");
    }
}

#[test]
fn sections_cut_anywhere_are_read_without_harm() {
    let abbreviations = abbreviations();
    let info = unit(5, 0, &type_entries(G));
    // A structure that is cut has perhaps lost a member; only the end of the unit is not needed.
    let needed = info.len() - 1;
    for len in 0..=info.len() {
        let expected = (len >= needed).then_some(0x98);
        assert_eq!(goid_in(&info[..len], &abbreviations), expected, "{len}");
    }
    for len in 0..abbreviations.len() {
        let _ = goid_in(&info, &abbreviations[..len]);
    }
    for at in 0..info.len() {
        for bit in 0..8 {
            let mut damaged = info.clone();
            damaged[at] ^= 1 << bit;
            let _ = structures_in(&damaged, &abbreviations, &[G]);
        }
    }
}

#[test]
fn many_entries_of_that_name_end_the_search() {
    let typedefs = vec![named(31, G, &[0; 4]); MAX_CANDIDATES + 1];
    let info = unit(4, 0, &[typedefs.concat(), structure(G)]);
    assert_eq!(goid_in(&info, &abbreviations()), None);
}

#[test]
fn what_go_writes_is_read_compressed_and_not() {
    for options in [
        &[][..],
        &["-ldflags=-compressdwarf=false"],
        &["-ldflags=-w"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(program) = build(dir.path(), "program", options, "amd64") else {
            eprintln!("NOT RUN: debug information of Go: `go` is missing");
            return;
        };
        let file = std::fs::File::open(&program).unwrap();
        let sparse = SparseFile::new(&file).unwrap();
        let elf = Elf::open(&sparse).unwrap();
        let found = structures(&elf, &[G, "crypto/tls.Conn", "nowhere.T"]);
        if options == ["-ldflags=-w"] {
            assert!(found.is_empty());
            continue;
        }
        assert_eq!(found.len(), 2, "{options:?}");
        assert!(found[G]["goid"] > 0x80);
        let conn = &found["crypto/tls.Conn"];
        assert_eq!((conn["conn"], conn["isClient"]), (0, 16));
        assert!(conn["vers"] < conn["serverName"] && conn["serverName"] < conn["clientProtocol"]);
    }
}
