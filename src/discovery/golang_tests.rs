//! Over small made-up files of every shape of table, and over programs that `go` builds.

use super::*;
use crate::discovery::content::SparseFile;
use std::path::{Path, PathBuf};
use std::process::Command;

const NEEDLE: &str = "crypto/tls.(*Conn).";

fn is_wanted(name: &str) -> bool {
    name == "crypto/tls.(*Conn).Read" || name == "crypto/tls.(*Conn).Write"
}

fn inspect_bytes(bytes: &[u8]) -> Option<GoProgram> {
    inspect(&Elf::parse(bytes).ok()?, NEEDLE, &is_wanted)
}

const TEXT: u64 = 0x40_1000;
const TABLE: u64 = 0x50_0000;
const DATA: u64 = 0x60_0000;
/// Where in the made-up files the segments are: code, constants, data.
const OFFSETS: [u64; 3] = [0x1000, 0x2000, 0x3000];
/// In the data of the made-up files.
const MODULEDATA: u64 = DATA + 0x100;
const RELA: u64 = DATA + 0x300;
const DYNAMIC: u64 = DATA + 0x500;
const STRING: u64 = DATA + 0x600;

/// Name and distance from where code begins; the last function ends at 0x120.
const FUNCTIONS: [(&str, u64); 4] = [
    ("runtime.text", 0),
    ("crypto/tls.(*Conn).Read", 0x40),
    ("crypto/tls.(*Conn).Write", 0x80),
    ("crypto/tls.(*Conn).Close", 0x100),
];
const END: u64 = 0x120;

/// How the addresses are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linked {
    Fixed,
    /// Zero, and in a relocation.
    Pie,
}

/// A program without sections and with just what is looked for.
struct Made {
    magic: u32,
    minor: u32,
    linked: Linked,
    relocations: Vec<(u64, u64)>,
    file: Vec<u8>,
}

impl Made {
    fn new(magic: u32, minor: u32, linked: Linked) -> Made {
        let mut made = Made {
            magic,
            minor,
            linked,
            relocations: Vec::new(),
            file: vec![0; 0x4000],
        };
        made.put_headers();
        made.put_table();
        made.put_buildinfo();
        if minor >= 26 {
            let words = [(0, TABLE), (160, TEXT), (168, TEXT + END), (176, TEXT)];
            for (at, address) in words.into_iter().chain([(184, TEXT + END)]) {
                made.put_address(MODULEDATA + at, address);
            }
        }
        for (index, (at, address)) in made.relocations.clone().into_iter().enumerate() {
            made.put(RELA + 24 * index as u64, &at.to_le_bytes());
            made.put(RELA + 24 * index as u64 + 8, &8u64.to_le_bytes());
            made.put(RELA + 24 * index as u64 + 16, &address.to_le_bytes());
        }
        let size = 24 * made.relocations.len() as u64;
        for (index, word) in [7, RELA, 8, size, 0, 0].into_iter().enumerate() {
            made.put(DYNAMIC + 8 * index as u64, &word.to_le_bytes());
        }
        made
    }

    fn put(&mut self, vaddr: u64, bytes: &[u8]) {
        let (start, offset) = [DATA, TABLE, TEXT]
            .into_iter()
            .zip(OFFSETS.into_iter().rev())
            .find(|(start, _)| vaddr >= *start)
            .unwrap();
        let at = (vaddr - start + offset) as usize;
        self.file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_address(&mut self, vaddr: u64, address: u64) {
        match self.linked {
            Linked::Fixed => self.put(vaddr, &address.to_le_bytes()),
            Linked::Pie => self.relocations.push((vaddr, address)),
        }
    }

    fn put_headers(&mut self) {
        self.file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (at, half) in [(16, 2u16), (18, 62), (20, 1), (52, 64), (54, 56), (56, 4)] {
            self.file[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        self.file[32..40].copy_from_slice(&64u64.to_le_bytes());
        let dynamic = (2u32, 6u32, OFFSETS[2] + DYNAMIC - DATA, DYNAMIC, 0x60);
        let segments = [
            (1, 5, OFFSETS[0], TEXT, 0x200),
            (1, 4, OFFSETS[1], TABLE, 0x400),
            (1, 6, OFFSETS[2], DATA, 0x700),
            dynamic,
        ];
        for (index, (kind, flags, offset, vaddr, size)) in segments.into_iter().enumerate() {
            let at = 64 + 56 * index;
            let words = [offset, vaddr, vaddr, size, size, 0x1000];
            self.file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            self.file[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
            for (index, word) in words.into_iter().enumerate() {
                let at = at + 8 + 8 * index;
                self.file[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    fn put_table(&mut self) {
        let (absolute, names, functab) = match self.magic {
            0xffff_fffb => (true, 0, 16),
            0xffff_fffa => (true, 0x40, 0x100),
            _ => (false, 0x48, 0x100),
        };
        self.put(TABLE, &self.magic.to_le_bytes());
        self.put(TABLE + 4, &[0, 0, 1, 8]);
        self.put(TABLE + 8, &(FUNCTIONS.len() as u64).to_le_bytes());
        // Names, compilation units, files, pcs, functab.
        let parts: [u64; 5] = [names, 0xe0, 0xe8, 0xf0, functab];
        let first = match self.magic {
            0xffff_fffb => None,
            0xffff_fffa => Some(24),
            _ => Some(32),
        };
        for (index, part) in parts.into_iter().enumerate().filter(|_| first.is_some()) {
            let at = TABLE + first.unwrap() + 8 * index as u64;
            self.put(at, &part.to_le_bytes());
        }
        if !absolute && self.minor < 26 {
            self.put_address(TABLE + 24, TEXT);
        }
        let mut name_at = if names == 0 { 0x300 } else { 0x48 };
        let field = if absolute { 8 } else { 4 };
        for (index, (name, distance)) in FUNCTIONS.into_iter().enumerate() {
            self.put(TABLE + name_at, name.as_bytes());
            let entry = TABLE + functab + 2 * field * index as u64;
            let func = 0x200 + 0x10 * index as u64;
            let offset = if names == 0 { func } else { func - functab };
            if absolute {
                self.put_address(entry, TEXT + distance);
                self.put(entry + 8, &offset.to_le_bytes());
            } else {
                self.put(entry, &(distance as u32).to_le_bytes());
                self.put(entry + 4, &(offset as u32).to_le_bytes());
            }
            let name_offset = (name_at - names) as u32;
            self.put(TABLE + func + field, &name_offset.to_le_bytes());
            name_at += name.len() as u64 + 1;
        }
        let end = TABLE + functab + 2 * field * FUNCTIONS.len() as u64;
        if absolute {
            self.put_address(end, TEXT + END);
        } else {
            self.put(end, &(END as u32).to_le_bytes());
        }
    }

    fn put_buildinfo(&mut self) {
        let version = format!("go1.{}.3", self.minor);
        self.put(DATA, b"\xff Go buildinf:\x08");
        if self.minor >= 18 {
            self.put(DATA + 15, &[2]);
            self.put(DATA + 32, &[version.len() as u8]);
            self.put(DATA + 33, version.as_bytes());
        } else {
            self.put_address(DATA + 16, STRING);
            self.put_address(STRING, STRING + 16);
            self.put(STRING + 8, &(version.len() as u64).to_le_bytes());
            self.put(STRING + 16, version.as_bytes());
        }
    }
}

/// Every shape: the magic, a version that writes it.
fn shapes() -> impl Iterator<Item = Made> {
    let magics = [
        (0xffff_fffb, 15),
        (0xffff_fffa, 17),
        (0xffff_fff0, 19),
        (0xffff_fff1, 25),
        (0xffff_fff1, 27),
    ];
    magics.into_iter().flat_map(|(magic, minor)| {
        [Linked::Fixed, Linked::Pie].map(|linked| Made::new(magic, minor, linked))
    })
}

#[test]
fn functions_are_found_in_every_shape_of_table() {
    for made in shapes() {
        let shape = format!("{:x} go1.{} {:?}", made.magic, made.minor, made.linked);
        let found = inspect_bytes(&made.file).unwrap_or_else(|| panic!("{shape}"));
        assert_eq!(found.version, format!("go1.{}.3", made.minor), "{shape}");
        assert_eq!(found.minor, Some(made.minor), "{shape}");
        assert_eq!(found.source, FunctionSource::Pclntab, "{shape}");
        assert_eq!(found.notes, [""; 0], "{shape}");
        let function = |name: &str, distance, size| GoFunction {
            name: format!("crypto/tls.(*Conn).{name}"),
            vaddr: TEXT + distance,
            size,
        };
        assert_eq!(
            found.functions,
            [function("Read", 0x40, 0x40), function("Write", 0x80, 0x80)],
            "{shape}"
        );
        let elf = Elf::parse(&made.file).unwrap();
        let all = inspect(&elf, NEEDLE, &|_| true).unwrap().functions;
        assert_eq!(all.len(), 3, "{shape}");
        assert_eq!(all[2], function("Close", 0x100, 0x20), "{shape}");
        let none = inspect(&elf, "no such name", &|_| true).unwrap();
        assert_eq!(none.source, FunctionSource::Nowhere);
        assert_eq!(none.notes, [""; 0], "{shape}");
    }
}

#[test]
fn only_names_with_the_needle_are_asked_about() {
    let made = Made::new(0xffff_fff1, 27, Linked::Fixed);
    let asked = std::cell::RefCell::new(Vec::new());
    let ask = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        false
    };
    let elf = Elf::parse(&made.file).unwrap();
    assert!(inspect(&elf, "Conn).Write", &ask).is_some());
    assert_eq!(*asked.borrow(), ["crypto/tls.(*Conn).Write"]);
}

#[test]
fn a_table_without_build_information_is_go_of_unknown_version() {
    let mut made = Made::new(0xffff_fff1, 25, Linked::Fixed);
    made.put(DATA, &[0]);
    let found = inspect_bytes(&made.file).unwrap();
    assert_eq!((found.version.as_str(), found.minor), ("go?", None));
    assert_eq!(found.functions.len(), 2);
    assert!(
        found.notes[0].contains("Go 1.20 or newer"),
        "{:?}",
        found.notes
    );
    made.put(TABLE, &[0]);
    assert_eq!(inspect_bytes(&made.file), None);
}

#[test]
fn a_blanked_version_is_that_of_the_runtime() {
    const TEXT: u64 = TABLE + 0x3f0;
    let mut made = Made::new(0xffff_fff1, 25, Linked::Fixed);
    made.put(DATA, &[0; 48]);
    made.put(TEXT, b"go1.26.5go1.22");
    made.put_address(STRING, TEXT);
    made.put(STRING + 8, &8u64.to_le_bytes());
    let found = inspect_bytes(&made.file).unwrap();
    assert_eq!(
        (found.version.as_str(), found.minor),
        ("go1.26.5", Some(26))
    );
}

#[test]
fn what_is_missing_is_said() {
    // moduledata that does not point back
    let mut made = Made::new(0xffff_fff1, 27, Linked::Fixed);
    made.put(MODULEDATA, &[1]);
    let found = inspect_bytes(&made.file).unwrap();
    assert_eq!(found.source, FunctionSource::Nowhere);
    assert!(found.notes[0].contains("moduledata"), "{:?}", found.notes);
    // or whose addresses are in disorder
    let mut made = Made::new(0xffff_fff1, 27, Linked::Fixed);
    made.put(MODULEDATA + 168, &TEXT.to_le_bytes());
    assert_eq!(
        inspect_bytes(&made.file).unwrap().source,
        FunctionSource::Nowhere
    );
    let mut made = Made::new(0xffff_fff1, 27, Linked::Fixed);
    made.put(TABLE, &[0]);
    let found = inspect_bytes(&made.file).unwrap();
    assert_eq!(found.version, "go1.27.3");
    assert!(found.notes[0].contains("pclntab"), "{:?}", found.notes);
}

#[test]
fn development_versions_have_a_minor_number() {
    let cases = [
        ("go1.22.3", Some(22)),
        ("go1.9", Some(9)),
        ("go1.23rc1", Some(23)),
        ("devel go1.23-abc1234 Thu Jan 1 2024", Some(23)),
        ("go1.22.3 X:boringcrypto", Some(22)),
        ("devel +abc1234", None),
        ("go2.1", None),
        ("go1.", None),
        ("go1.99999999999", None),
        ("go?", None),
    ];
    for (version, minor) in cases {
        assert_eq!(buildinfo::minor(version), minor, "{version}");
    }
}

#[test]
fn versions_are_printable_and_short() {
    let mut made = Made::new(0xffff_fff1, 27, Linked::Fixed);
    made.put(DATA + 34, &[0x1b]);
    assert_eq!(inspect_bytes(&made.file).unwrap().version, "go?");
    let long = format!("devel go1.27-{}", "x".repeat(150));
    made.put(DATA + 32, &[long.len() as u8 | 0x80, 1]);
    made.put(DATA + 34, long.as_bytes());
    let found = inspect_bytes(&made.file).unwrap();
    assert_eq!(found.version, long[..64]);
    assert_eq!(found.minor, Some(27));
}

#[test]
fn programs_of_other_languages_are_not_go() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(inspect_bytes(&file), None);
    assert_eq!(inspect_bytes(b"\x7fELF"), None);
}

#[test]
fn file_truncated_at_any_length_is_read_or_refused() {
    for made in shapes() {
        for len in 0..made.file.len() {
            let _ = inspect_bytes(&made.file[..len]);
        }
    }
}

#[test]
fn file_with_any_byte_damaged_is_read_or_refused() {
    for mut made in shapes() {
        for at in (0..made.file.len()).filter(|at| !(0x200..0x2000).contains(at)) {
            for value in [0, 0x7f, 0xff] {
                let old = std::mem::replace(&mut made.file[at], value);
                for function in inspect_bytes(&made.file).map_or(Vec::new(), |go| go.functions) {
                    assert!(is_wanted(&function.name), "byte {at} = {value}");
                }
                made.file[at] = old;
            }
        }
    }
}

/// A program that serves HTTPS, built with `options`; `None` where `go` is missing.
pub(crate) fn build(dir: &Path, name: &str, options: &[&str], machine: &str) -> Option<PathBuf> {
    let source = "package main
        import \"net/http\"
        func main() { http.ListenAndServeTLS(\"\", \"\", \"\", nil) }";
    std::fs::write(dir.join("main.go"), source).unwrap();
    let output = dir.join(name);
    let go = Command::new("go")
        .arg("build")
        .args(options)
        .arg("-o")
        .args([&output, &dir.join("main.go")])
        .envs([("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")])
        .env("GOFLAGS", "")
        .env("GOARCH", machine)
        .output()
        .ok()?;
    assert!(
        go.status.success(),
        "{}",
        String::from_utf8_lossy(&go.stderr)
    );
    Some(output)
}

/// Read in part, as the program itself does it.
fn inspect_file(path: &Path) -> GoProgram {
    let file = std::fs::File::open(path).unwrap();
    let sparse = SparseFile::new(&file).unwrap();
    inspect(&Elf::open(&sparse).unwrap(), NEEDLE, &is_wanted).unwrap()
}

fn inspect_without_sections(path: &Path) -> GoProgram {
    let mut file = std::fs::read(path).unwrap();
    // e_shoff, e_shnum, e_shstrndx
    file[40..48].fill(0);
    file[60..64].fill(0);
    inspect_bytes(&file).unwrap()
}

/// Symbols do not count the padding behind a function.
fn assert_same_places(one: &GoProgram, other: &GoProgram) {
    assert_eq!(one.functions.len(), 2, "{one:?}");
    assert_eq!(other.functions.len(), 2, "{other:?}");
    for (one, other) in one.functions.iter().zip(&other.functions) {
        assert_eq!((&one.name, one.vaddr), (&other.name, other.vaddr));
        assert!(one.size.abs_diff(other.size) < 64, "{one:?} {other:?}");
    }
}

#[test]
fn functions_of_real_programs_are_where_their_symbols_are() {
    let dir = tempfile::tempdir().unwrap();
    for (index, (option, machine)) in [
        ("-buildmode=default", "amd64"),
        ("-buildmode=pie", "amd64"),
        ("-buildmode=default", "arm64"),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(path) = build(dir.path(), &format!("whole{index}"), &[option], machine) else {
            eprintln!("NOT RUN: functions of real programs: `go` is missing");
            return;
        };
        let whole = inspect_file(&path);
        assert_eq!(whole.source, FunctionSource::Symbols);
        assert!(whole.version.starts_with("go1."), "{}", whole.version);
        let options = [option, "-ldflags=-s -w"];
        let path = build(dir.path(), &format!("bare{index}"), &options, machine).unwrap();
        let bare = inspect_file(&path);
        assert_eq!(bare.source, FunctionSource::Pclntab);
        assert_eq!(bare.version, whole.version);
        assert_eq!(bare.notes, [""; 0]);
        assert_same_places(&bare, &whole);
        assert_eq!(inspect_without_sections(&path), bare);
    }
}

#[test]
fn functions_of_a_shared_library_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let source = "package main
        import \"C\"
        import \"net/http\"
        //export serve
        func serve() { http.ListenAndServeTLS(\"\", \"\", \"\", nil) }
        func main() {}";
    let build = |name: &str, flags: &str| {
        std::fs::write(dir.path().join("main.go"), source).unwrap();
        let go = Command::new("go")
            .args(["build", "-buildmode=c-shared", flags, "-o"])
            .args([dir.path().join(name), dir.path().join("main.go")])
            .envs([("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "1")])
            .env("GOFLAGS", "")
            .status();
        let path = dir.path().join(name);
        go.is_ok_and(|status| status.success()).then_some(path)
    };
    let Some(whole) = build("whole.so", "-ldflags=") else {
        eprintln!("NOT RUN: functions of a Go library: `go` or a C compiler is missing");
        return;
    };
    let bare = build("bare.so", "-ldflags=-s -w").unwrap();
    let (whole, found) = (inspect_file(&whole), inspect_file(&bare));
    assert_eq!(whole.source, FunctionSource::Symbols);
    assert_eq!(found.source, FunctionSource::Pclntab);
    assert_same_places(&found, &whole);
    assert_eq!(inspect_without_sections(&bare), found);
}
