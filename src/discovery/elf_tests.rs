//! Over the system's libraries (Debian's libssl3) and small objects that the tests compile.

use super::search::{MAX_FOUND, SEARCH_STEP};
use super::*;
use goblin::elf::program_header::PF_W;
use std::path::Path;
use std::process::Command;

const LIBSSL: &str = "/lib/x86_64-linux-gnu/libssl.so.3";
const LIBCRYPTO: &str = "/lib/x86_64-linux-gnu/libcrypto.so.3";

/// Compiles C source into an object; `None` where there is no compiler.
fn compile(source: &str, options: &[&str]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.c"), dir.path().join("out"));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("cc")
        .arg("-o")
        .arg(&output)
        .arg(&input)
        .args(options)
        .status()
        .ok()?;
    assert!(status.success(), "cc {options:?}");
    Some(std::fs::read(&output).unwrap())
}

fn small_library() -> Option<Vec<u8>> {
    let source = "extern int outside(int); int inside(int a) { return outside(a) + 1; }
        const char text[] = \"OpenSSL 9.8.7 1 Jan 2030\";";
    let options = [
        "-shared",
        "-fPIC",
        "-nostdlib",
        "-O1",
        "-Wl,--build-id",
        "-Wl,-z,norelro",
    ];
    compile(source, &options)
}

/// Asks everything there is to ask.
fn exercise(data: &[u8]) {
    let Ok(elf) = Elf::parse(data) else {
        return;
    };
    let _ = (
        elf.machine(),
        elf.is_executable(),
        elf.needed(),
        elf.build_id(),
    );
    for (_, symbol) in elf.find(&["inside", "outside", "text"]) {
        if let Some(unwinding) = elf.unwinding() {
            let registers = unwinding::Registers {
                general: [Some(symbol.vaddr); 16],
                ip: symbol.vaddr,
            };
            let _ = unwinding.caller(symbol.vaddr, &registers, &Some);
            let _ = unwinding.function(symbol.vaddr);
        }
        let code = elf.code(symbol.vaddr, symbol.size).unwrap_or_default();
        assert!(code.len() as u64 <= symbol.size);
        for vaddr in symbol.vaddr..symbol.vaddr.saturating_add(32).min(symbol.vaddr + 32) {
            let _ = (
                elf.import_at(vaddr),
                elf.file_offset(vaddr),
                elf.function_at(vaddr),
            );
        }
        let _ = elf.extent(symbol.vaddr);
    }
    let _ = (elf.version_string(), elf.extent(0));
    for (file, _) in elf.sources("text.c") {
        elf.references(&[file]);
    }
    elf.transfers(|_| {});
    if let Some(frames) = elf.frames() {
        for at in [0, 0x1000, 0x1004, 0x1010, u64::MAX] {
            elf.frame_around(&frames, at);
        }
    }
}

#[test]
fn exported_functions_are_found_where_nm_puts_them() {
    let data = std::fs::read(LIBSSL).unwrap();
    let elf = Elf::parse(&data).unwrap();
    assert_eq!(elf.machine(), Machine::X86_64);
    assert!(!elf.is_executable());
    let found = elf.find(&["SSL_read", "SSL_write", "SSL_read_", "BIO_new"]);
    let mut names: Vec<&str> = found.keys().copied().collect();
    names.sort_unstable();
    // Neither a prefix of a name nor an import.
    assert_eq!(names, ["SSL_read", "SSL_write"]);
    let Ok(nm) = Command::new("nm")
        .args(["-D", "--defined-only", "-S", LIBSSL])
        .output()
    else {
        return;
    };
    let nm = String::from_utf8(nm.stdout).unwrap();
    let line = nm.lines().find(|l| l.contains(" T SSL_read@@")).unwrap();
    let mut numbers = line.split(' ').map(|n| u64::from_str_radix(n, 16));
    let symbol = &found["SSL_read"];
    assert_eq!(numbers.next().unwrap().unwrap(), symbol.vaddr);
    assert_eq!(numbers.next().unwrap().unwrap(), symbol.size);
    assert!(symbol.exported);
}

#[test]
fn libraries_say_what_they_need_and_which_version_they_are() {
    let data = std::fs::read(LIBSSL).unwrap();
    let elf = Elf::parse(&data).unwrap();
    assert!(
        elf.needed().contains(&"libcrypto.so.3"),
        "{:?}",
        elf.needed()
    );
    assert_eq!(elf.build_id().map(<[u8]>::len), Some(20));
    let data = std::fs::read(LIBCRYPTO).unwrap();
    let elf = Elf::parse(&data).unwrap();
    let version = elf.version_string().unwrap();
    assert!(version.starts_with("OpenSSL 3."), "{version}");
    assert!(version.len() > "OpenSSL 3.0.1 1 Jan".len(), "{version}");
}

#[test]
fn programs_are_told_from_libraries() {
    let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let elf = Elf::parse(&data).unwrap();
    assert!(elf.is_executable());
    assert!(Path::new(elf.interpreter().unwrap()).exists());
}

#[test]
fn calls_through_the_plt_are_named() {
    let source = "extern int outside(int); int inside(int a) { return outside(a) + 1; }";
    let flavours: [&[&str]; 3] = [&[], &["-fcf-protection=full"], &["-fno-plt"]];
    for flavour in flavours {
        let options = [&["-shared", "-fPIC", "-nostdlib", "-O1"], flavour].concat();
        let Some(data) = compile(source, &options) else {
            return;
        };
        let elf = Elf::parse(&data).unwrap();
        let symbol = elf.find(&["inside"]).remove("inside").unwrap();
        let code = elf.code(symbol.vaddr, symbol.size).unwrap();
        // The target of `e8 rel32`, or the slot of `ff 15 rel32`.
        let named = (0..code.len().saturating_sub(5)).find_map(|at| {
            let rel = |off: usize| {
                let bytes = code.get(at + off..at + off + 4)?.try_into().ok()?;
                let next = symbol.vaddr + (at + off + 4) as u64;
                next.checked_add_signed(i64::from(i32::from_le_bytes(bytes)))
            };
            match code[at..] {
                [0xe8, ..] => elf.import_at(rel(1)?),
                [0xff, 0x15, ..] => elf.import_in_slot(rel(2)?),
                _ => None,
            }
        });
        assert_eq!(named, Some("outside"), "{flavour:?}");
        assert_eq!(elf.import_at(symbol.vaddr), None);
    }
}

#[test]
fn symbols_survive_without_section_headers() {
    let mut data = std::fs::read(LIBSSL).unwrap();
    let with = Elf::parse(&data).unwrap().find(&["SSL_read", "SSL_free"]);
    // e_shoff, e_shnum, e_shstrndx
    data[40..48].fill(0);
    data[60..64].fill(0);
    assert_eq!(
        Elf::parse(&data).unwrap().find(&["SSL_read", "SSL_free"]),
        with
    );
    assert_eq!(with.len(), 2);
}

#[test]
fn other_classes_and_orders_are_refused_by_name() {
    let mut data = std::fs::read(LIBSSL).unwrap();
    data[4] = 1;
    let message = Elf::parse(&data).unwrap_err().to_string();
    assert!(message.contains("64-bit little-endian"), "{message}");
    assert!(
        Elf::parse(b"#!/bin/sh")
            .unwrap_err()
            .to_string()
            .contains("not an ELF")
    );
}

#[test]
fn file_truncated_at_any_length_is_read_or_refused() {
    let Some(data) = small_library() else {
        return;
    };
    let elf = Elf::parse(&data).unwrap();
    assert_eq!(elf.find(&["inside", "outside"]).len(), 1);
    assert_eq!(elf.version_string(), Some("OpenSSL 9.8.7 1 Jan 2030"));
    for len in 0..data.len() {
        exercise(&data[..len]);
    }
}

#[test]
fn file_with_any_header_byte_damaged_is_read_or_refused() {
    let Some(mut data) = small_library() else {
        return;
    };
    for at in (0..1024).chain(data.len() - 1024..data.len()) {
        for value in [0, 0x7f, 0xff] {
            let old = std::mem::replace(&mut data[at], value);
            exercise(&data);
            data[at] = old;
        }
    }
}

#[test]
fn versions_are_found_at_any_place() {
    let Some(data) = small_library() else {
        return;
    };
    // In a segment of its own at the end, around the places where one step of the search ends.
    let segment = Elf::parse(&data)
        .unwrap()
        .loads()
        .find(|s| s.p_flags & (PF_W | PF_X) == 0)
        .unwrap()
        .clone();
    let entry = data
        .windows(8)
        .skip(64)
        .step_by(8)
        .position(|w| w == segment.p_filesz.to_le_bytes())
        .map(|index| 64 + index * 8)
        .unwrap();
    let mut large = data.clone();
    large.resize(data.len() + 2 * SEARCH_STEP + 1000, b'O');
    // p_offset is three words before p_filesz.
    large[entry - 24..entry - 16].copy_from_slice(&(data.len() as u64).to_le_bytes());
    large[entry..entry + 8].copy_from_slice(&(2 * SEARCH_STEP as u64 + 1000).to_le_bytes());
    let text = b"LibreSSL 4.1.0\0";
    // The one that it had.
    let old = data.windows(8).position(|w| w == b"OpenSSL ").unwrap();
    large[old] = b'o';
    let around = |middle: usize| middle.saturating_sub(20)..middle + 20;
    for at in [0, SEARCH_STEP, SEARCH_STEP + MAX_FOUND, 2 * SEARCH_STEP].map(around) {
        for at in at.map(|at| data.len() + at) {
            let mut with = large.clone();
            with[at..at + text.len()].copy_from_slice(text);
            let elf = Elf::parse(&with).unwrap();
            assert_eq!(elf.version_string(), Some("LibreSSL 4.1.0"), "at {at}");
        }
    }
}

#[test]
fn a_file_that_is_read_in_part_tells_the_same() {
    let data = std::fs::read(LIBSSL).unwrap();
    let file = std::fs::File::open(LIBSSL).unwrap();
    let sparse = SparseFile::new(&file).unwrap();
    let (part, whole) = (Elf::open(&sparse).unwrap(), Elf::parse(&data).unwrap());
    let names = ["SSL_read", "SSL_write", "SSL_free"];
    assert_eq!(part.find(&names), whole.find(&names));
    for symbol in whole.find(&names).values() {
        let code = |elf: &Elf<'_>| elf.code(symbol.vaddr, symbol.size).map(<[u8]>::to_vec);
        assert_eq!(code(&part), code(&whole));
    }
    assert_eq!(part.needed(), whole.needed());
    assert_eq!(part.build_id(), whole.build_id());
}

#[test]
fn functions_of_every_library_end_where_their_symbols_say() {
    for path in [LIBSSL, LIBCRYPTO] {
        let data = std::fs::read(path).unwrap();
        let elf = Elf::parse(&data).unwrap();
        let frames = elf.frames().unwrap();
        let mut same = 0;
        // Code written in assembly is not always described as it is.
        let in_c = |name: &str| {
            ["SSL_", "BIO_", "EVP_", "X509_"]
                .iter()
                .any(|s| name.starts_with(s))
        };
        let functions = elf.functions(MAX_NAME).filter(|(name, _, _)| in_c(name));
        for (name, vaddr, size) in functions {
            if let Some(range) = elf.frame_around(&frames, vaddr) {
                let last = elf.frame_around(&frames, vaddr + size - 1);
                assert_eq!(
                    (range.start, Some(&range)),
                    (vaddr, last.as_ref()),
                    "{name}"
                );
                assert_eq!(range.end - range.start, size, "{name}");
                same += 1;
            }
        }
        assert!(same > 300, "{path}: {same}");
        assert_eq!(elf.frame_around(&frames, 0), None);
    }
}

#[test]
fn functions_are_found_without_a_table_of_them_too() {
    let source = "int first(int a) { return a + 1; } int second(int a) { return first(a) * 3; }";
    let options = ["-shared", "-fPIC", "-nostdlib", "-O1"];
    for more in ["-Wl,--eh-frame-hdr", "-Wl,--no-eh-frame-hdr"] {
        let data = compile(source, &[&options[..], &[more]].concat()).unwrap();
        let elf = Elf::parse(&data).unwrap();
        let frames = elf.frames().unwrap();
        let found = elf.find(&["first", "second"]);
        assert_eq!(found.len(), 2);
        for symbol in found.values() {
            let range = symbol.vaddr..symbol.vaddr + symbol.size;
            assert_eq!(
                elf.frame_around(&frames, range.end - 1),
                Some(range),
                "{more}"
            );
        }
    }
}

#[test]
fn code_that_names_a_source_file_is_found_on_both_machines() {
    use crate::plan::compiled::{BOTH, library};
    let source = "
        extern void say(const char *, int);
        __attribute__((noinline)) void first(int a) { say(\"x/y/text.c\", a + 1); }
        void second(int a) { first(a); say(\"x/y/text.c\", 2); say(\"other.c\", 3); first(5); say(\"\", 6); }
        void third(int a) { first(a); say(\"text.cc\", a); }";
    for machine in BOTH {
        let data = library(machine, source, &["-O2", "-fvisibility=hidden"]);
        let elf = Elf::parse(&data).unwrap();
        let found = elf.find(&["first", "second", "third"]);
        let within = |at: u64| {
            let inside = |s: &Symbol| (s.vaddr..s.vaddr + s.size).contains(&at);
            found.iter().find(|(_, s)| inside(s)).map(|(name, _)| *name)
        };
        let users = |is_longer: bool| {
            let sources = elf.sources("text.c");
            let (file, _) = sources
                .into_iter()
                .find(|(_, long)| *long == is_longer)
                .unwrap();
            let text = elf.text_at(file.start, 32).unwrap();
            assert_eq!(text, if is_longer { "text.cc" } else { "x/y/text.c" });
            let places = elf.references(&[file]).into_iter();
            places.filter_map(within).collect::<Vec<_>>()
        };
        let mut plain = users(false);
        plain.sort_unstable();
        assert_eq!(plain, ["first", "second"], "{machine:?}");
        assert_eq!(users(true), ["third"], "{machine:?}");
        let mut calls = Vec::new();
        elf.transfers(|t| calls.extend((t.to == found["first"].vaddr).then(|| within(t.from))));
        calls.sort_unstable();
        assert_eq!(
            calls,
            [Some("second"), Some("second"), Some("third")],
            "{machine:?}"
        );
    }
}

#[test]
fn addresses_in_a_program_loaded_where_its_file_says_are_found() {
    let source = "
        void say(const char *p) { __asm__ volatile(\"\" :: \"r\"(p)); }
        void _start(void) { __asm__ volatile(\"\" :: \"r\"(\"x/text.c\")); say(\"x/text.c\"); }";
    let options = ["-nostdlib", "-static", "-no-pie", "-fno-pie", "-O0"];
    let data = compile(source, &options).unwrap();
    let elf = Elf::parse(&data).unwrap();
    let (file, _) = elf.sources("text.c").remove(0);
    assert_eq!(elf.references(&[file]).len(), 2);
}
