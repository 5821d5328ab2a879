//! Over made-up prologues, and over programs that `go` builds.

use super::*;

const START: u64 = 0x1000;
/// `cmp 0x10(%r14),%rsp; jbe .+3; nop; ret; nop; ret`
const SMALL: [u8; 10] = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x02, 0x90, 0xc3, 0x90, 0xc3];

fn entry_of(code: &[u8]) -> Result<(u64, bool)> {
    let decoder = Decoder::x86_64().unwrap();
    entry(&decoder, code, START, None).map(|entry| (entry.offset, entry.abi0))
}

fn with(before: &[u8], compare: [u8; 4]) -> Vec<u8> {
    [before, &compare, &[0x76, 0x02, 0x90, 0xc3, 0x90, 0xc3]].concat()
}

#[test]
fn the_probe_sits_on_the_branch_of_the_stack_check() {
    assert_eq!(entry_of(&SMALL).unwrap(), (4, false));
    // lea -0x80(%rsp),%r12; cmp 0x10(%r14),%r12
    let large = with(&[0x4c, 0x8d, 0x64, 0x24, 0x80], [0x4d, 0x3b, 0x66, 0x10]);
    assert_eq!(entry_of(&large).unwrap(), (9, false));
    // cmp 0x10(%rcx),%rsp
    let old = with(&load_g(-8), [0x48, 0x3b, 0x61, 0x10]);
    assert_eq!(entry_of(&old).unwrap(), (13, true));
    let old = with(&load_g_from(-8), [0x48, 0x3b, 0x61, 0x10]);
    assert_eq!(entry_of(&old).unwrap(), (15, true));
}

/// `mov %fs:offset,%rcx`
fn load_g(offset: i32) -> Vec<u8> {
    [&LOAD_G[..], &offset.to_le_bytes()].concat()
}

/// `mov $offset,%rcx; mov %fs:(%rcx),%rcx`
fn load_g_from(offset: i32) -> Vec<u8> {
    [&LOAD_TLS[..], &offset.to_le_bytes(), &LOAD_G_FROM].concat()
}

#[test]
fn where_old_programs_have_g_is_in_their_code() {
    for offset in [-8, -0x3f0, i32::MIN] {
        for load in [load_g(offset), load_g_from(offset)] {
            let code = with(&load, [0x48, 0x3b, 0x61, 0x10]);
            assert_eq!(g_tls(&code).unwrap(), offset);
            for len in 0..load.len() {
                assert!(g_tls(&code[..len]).is_err());
            }
        }
    }
    // mov 0x100(%rip),%rcx; mov %fs:(%rcx),%rcx
    let library = [&LOAD_TLS_OF_LIBRARY[..], &[0, 1, 0, 0], &LOAD_G_FROM].concat();
    let code = with(&library, [0x48, 0x3b, 0x61, 0x10]);
    assert!(entry_of(&code).unwrap_err().to_string().contains("library"));
}

#[test]
fn a_site_without_its_arguments_is_refused() {
    // mov %rbx,%rax
    assert!(entry_of(&with(&[0x48, 0x89, 0xd8], [0x49, 0x3b, 0x66, 0x10])).is_err());
    // push %rbp; and a comparison with something else
    assert!(entry_of(&with(&[0x55], [0x49, 0x3b, 0x66, 0x10])).is_err());
    assert!(entry_of(&with(&[], [0x49, 0x3b, 0x66, 0x18])).is_err());
    // g from elsewhere: mov %fs:(%rcx),%rcx
    assert!(entry_of(&with(&[0x64, 0x48, 0x8b, 0x09], [0x48, 0x3b, 0x61, 0x10])).is_err());
    let mut other_branch = SMALL;
    other_branch[4] = 0x77;
    assert!(entry_of(&other_branch).is_err());
    let mut backward = SMALL;
    backward[5] = 0xf0;
    assert!(entry_of(&backward).is_err());
}

#[test]
fn each_return_is_found_and_code_that_is_none_is_refused() {
    let decoder = Decoder::x86_64().unwrap();
    let returns = |code: &[u8]| returns(&decoder, code, START);
    assert_eq!(returns(&SMALL).unwrap(), [START + 7, START + 9]);
    // 0xc3 within an instruction: mov $0xc3,%eax
    assert!(returns(&[0xb8, 0xc3, 0, 0, 0]).is_err());
    // A byte that begins no instruction, and one that is cut.
    assert!(returns(&[0xc3, 0x06, 0xc3]).is_err());
    assert!(returns(&[0xc3, 0xb8, 0xc3]).is_err());
}

#[test]
fn code_cut_anywhere_is_read_without_harm() {
    for len in 0..SMALL.len() {
        let _ = entry_of(&SMALL[..len]);
    }
}

#[test]
fn vendored_copies_count_and_closures_do_not() {
    let is_wanted = |name| call_of(name).is_some();
    assert!(is_wanted("crypto/tls.(*Conn).Read"));
    assert!(is_wanted("example.com/x/vendor/crypto/tls.(*Conn).Write"));
    assert!(!is_wanted("example.com/notcrypto/tls.(*Conn).Write"));
    assert!(!is_wanted("crypto/tls.(*Conn).Write.func1"));
    assert!(!is_wanted("crypto/tls.(*Conn).readRecord"));
}

/// `ldr x16, [x28, #16]; cmp sp, x16; b.ls .+12; nop; ret; udf #0`
const ARM64: [u32; 6] = [
    0xf940_0b90,
    0xeb30_63ff,
    0x5400_0069,
    0xd503_201f,
    0xd65f_03c0,
    0,
];

fn arm64_entry(words: &[u32], minor: Option<u32>) -> Result<(u64, bool)> {
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let decoder = Decoder::of(Machine::Aarch64).unwrap();
    entry(&decoder, &code, START, minor).map(|entry| (entry.offset, entry.abi0))
}

#[test]
fn on_arm64_too_the_probe_sits_on_the_branch_of_the_stack_check() {
    assert_eq!(arm64_entry(&ARM64, None).unwrap(), (8, false));
    assert_eq!(arm64_entry(&ARM64, Some(18)).unwrap(), (8, false));
    assert_eq!(arm64_entry(&ARM64, Some(17)).unwrap(), (8, true));
    // sub x17, sp, #112; cmp x17, x16
    let mut large = ARM64.to_vec();
    large.splice(1..2, [0xd101_c3f1, 0xeb10_023f]);
    assert_eq!(arm64_entry(&large, Some(27)).unwrap(), (12, false));
    // ldr x1, [x28, #16]; mov x2, sp; cmp x2, x1: before 1.17
    let mut old = ARM64.to_vec();
    old.splice(0..2, [0xf940_0b81, 0x9100_03e2, 0xeb01_005f]);
    assert_eq!(arm64_entry(&old, Some(16)).unwrap(), (12, true));
    assert_eq!(arm64_entry(&old, None).unwrap(), (12, true));
    assert!(arm64_entry(&old, Some(18)).is_err());
}

#[test]
fn on_arm64_another_comparison_is_no_stack_check() {
    for (at, word) in [
        (0, 0xf940_0f90), // ldr x16, [x28, #24]
        (0, 0xf940_0b70), // ldr x16, [x27, #16]
        (1, 0xeb31_63ff), // cmp sp, x17
        (2, 0x5400_0068), // b.hi
        (2, 0x54ff_ffe9), // b.ls backward
    ] {
        let mut other = ARM64;
        other[at] = word;
        assert!(arm64_entry(&other, Some(27)).is_err(), "{word:#x}");
    }
    for len in 0..ARM64.len() {
        let _ = arm64_entry(&ARM64[..len], Some(27));
    }
}

/// `go tool objdump` of one function: address and text of each instruction.
fn objdump(program: &std::path::Path, function: &str) -> Vec<(u64, String)> {
    let listing = std::process::Command::new("go")
        .args(["tool", "objdump", "-s"])
        .arg(format!("^{}$", function.replace(['(', ')', '*', '.'], ".")))
        .arg(program)
        .output()
        .unwrap();
    String::from_utf8_lossy(&listing.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let address = words.next()?.strip_prefix("0x")?;
            let address = u64::from_str_radix(address, 16).ok()?;
            Some((address, words.skip(1).collect::<Vec<_>>().join(" ")))
        })
        .collect()
}

/// The returns, less those that follow a call of what is deferred, if that is probed instead.
fn returns_of(listed: &[(u64, String)], probed_in_deferred: bool) -> Vec<u64> {
    let mut after_deferred = false;
    let mut returns = Vec::new();
    for (at, text) in listed {
        match text.split(' ').next().unwrap_or_default() {
            "CALL" => after_deferred = text == "CALL AX",
            "RET" => {
                if !(after_deferred && probed_in_deferred) {
                    returns.push(*at);
                }
                after_deferred = false;
            }
            _ => {}
        }
    }
    returns
}

#[test]
fn probes_are_where_the_disassembler_of_go_says() {
    for (machine, branch) in [("amd64", "JBE"), ("arm64", "BLS")] {
        let dir = tempfile::tempdir().unwrap();
        let Some(program) = golang::tests::build(dir.path(), "program", &[], machine) else {
            eprintln!("NOT RUN: probes in programs of Go: `go` is missing");
            return;
        };
        let data = std::fs::read(&program).unwrap();
        let elf = Elf::parse(&data).unwrap();
        let plan = plan(&elf, "program").unwrap().unwrap();
        assert!(plan.notes.is_empty(), "{machine}: {:?}", plan.notes);
        assert_eq!(plan.layout.input.is_some(), machine == "amd64");
        for (name, call) in FUNCTIONS {
            let function = format!("{NEEDLE}{name}");
            let of = |wanted: GoAt| -> Vec<u64> {
                let probes = plan.probes.iter().filter(|p| p.func == function);
                probes
                    .filter(|p| matches!(p.action, Action::Go { at, .. } if at == wanted))
                    .map(|p| p.site.vaddr)
                    .collect()
            };
            let listed = objdump(&program, &function);
            let is_check = |text: &str| text.split(' ').next() == Some(branch);
            let first = listed.iter().find(|(_, text)| is_check(text)).unwrap().0;
            assert_eq!(of(GoAt::Enter), [first], "{machine} {name}");
            let GoCall::Move(_) = call else {
                continue;
            };
            let deferred = of(GoAt::Defer);
            assert_eq!(deferred.len(), usize::from(machine == "amd64"), "{name}");
            let returns = returns_of(&listed, !deferred.is_empty());
            assert!(!returns.is_empty());
            assert_eq!(of(GoAt::Return), returns, "{machine} {name}");
        }
    }
}
