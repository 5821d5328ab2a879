//! Over small pieces of code; whole programs are in `golang_tests`.

use super::*;

/// From the load of a closure to the return, as Go 1.27 compiles it.
const EXIT: [&[u8]; 7] = [
    &[0x48, 0x8b, 0x54, 0x24, 0x50], // mov rdx, [rsp + 0x50]
    &[0x48, 0x8b, 0x02],             // mov rax, [rdx]
    &[0xff, 0xd0],                   // call rax
    &[0x48, 0x8b, 0x44, 0x24, 0x20], // mov rax, [rsp + 0x20]
    &[0x48, 0x83, 0xc4, 0x58],       // add rsp, 0x58
    &[0x5d],                         // pop rbp
    &[0xc3],                         // ret
];
const EXPECTED: Exit = Exit {
    closure: 0x50,
    slot: 0x20,
    frame: 0x60,
};
/// mov byte [rsp + 0x1f], 0
const CLEAR_BIT: &[u8] = &[0xc6, 0x44, 0x24, 0x1f, 0];

fn body(insns: &[&[u8]]) -> Body {
    Body::new(&Decoder::x86_64().unwrap(), &insns.concat(), 0x1000)
}

fn exits(insns: &[&[u8]]) -> Vec<Exit> {
    let body = body(insns);
    let ret = body.insns.iter().position(|i| i.kind == Kind::Ret);
    ret.map_or_else(Vec::new, |ret| body.exits(ret))
}

fn with(at: usize, insn: &[u8]) -> Vec<Exit> {
    let mut insns = EXIT.to_vec();
    insns.insert(at, insn);
    exits(&insns)
}

#[test]
fn deferred_calls_before_a_return_are_found_the_last_first() {
    assert_eq!(exits(&EXIT), [EXPECTED]);
    let mut two = EXIT[..3].to_vec();
    two[0] = &[0x48, 0x8b, 0x54, 0x24, 0x58]; // mov rdx, [rsp + 0x58]
    two.push(CLEAR_BIT);
    two.extend(EXIT);
    let first = Exit {
        closure: 0x58,
        ..EXPECTED
    };
    assert_eq!(exits(&two), [EXPECTED, first]);
    // mov rbp, [rsp + 0x60], as before 1.21
    assert_eq!(with(4, &[0x48, 0x8b, 0x6c, 0x24, 0x60]), [EXPECTED]);
}

#[test]
fn a_result_that_may_change_after_the_call_is_no_exit() {
    let clear = [0x48, 0xc7, 0x44, 0x24, 0x20, 0, 0, 0, 0]; // mov qword [rsp + 0x20], 0
    let overlap = [0x48, 0xc7, 0x44, 0x24, 0x1c, 0, 0, 0, 0]; // [rsp + 0x1c]
    let through = [0x48, 0x89, 0x01]; // mov [rcx], rax
    for store in [&clear[..], &overlap, &through] {
        assert_eq!(with(3, store), [], "{store:x?}");
    }
    assert_eq!(with(4, &[0x31, 0xc0]), []); // xor eax, eax
    assert_eq!(with(4, &[0x48, 0x29, 0xcc]), []); // sub rsp, rcx
    assert_eq!(with(4, &[0xe8, 0, 0, 0, 0]), []); // call
}

#[test]
fn what_is_also_reached_another_way_is_no_exit() {
    // jmp to each instruction from the one that loads the code to the return
    let mut offset = 2;
    for (at, insn) in EXIT.iter().enumerate() {
        let mut insns = vec![&[0xeb, 0][..]];
        insns.extend(EXIT);
        let jump = [0xeb, u8::try_from(offset - 2).unwrap()];
        insns[0] = &jump;
        let expected: &[Exit] = if at == 0 { &[EXPECTED] } else { &[] };
        assert_eq!(exits(&insns), expected, "{at}");
        offset += insn.len();
    }
}

#[test]
fn another_call_is_no_deferred_one() {
    for (at, other) in [
        (0, &[0x48, 0x8b, 0x55, 0x50][..]),   // mov rdx, [rbp + 0x50]
        (0, &[0x48, 0x8b, 0x4c, 0x24, 0x50]), // mov rcx, [rsp + 0x50]
        (1, &[0x48, 0x8b, 0x42, 0x08]),       // mov rax, [rdx + 8]
        (1, &[0x48, 0x8b, 0x0a]),             // mov rcx, [rdx]
        (2, &[0xff, 0xd1]),                   // call rcx
        (2, &[0xe8, 0, 0, 0, 0]),             // call
    ] {
        let mut insns = EXIT.to_vec();
        insns[at] = other;
        assert_eq!(exits(&insns), [], "{other:x?}");
    }
}

#[test]
fn an_address_that_is_given_away_is_known() {
    let takes = |insn: &[u8]| body(&[insn, &[0xc3]]).takes_address(0x20);
    assert!(takes(&[0x48, 0x8d, 0x7c, 0x24, 0x20])); // lea rdi, [rsp + 0x20]
    assert!(takes(&[0x48, 0x8d, 0x7c, 0x24, 0x10])); // lea rdi, [rsp + 0x10]
    assert!(takes(&[0x48, 0x8d, 0x7d, 0xe0])); // lea rdi, [rbp - 0x20]
    assert!(takes(&[0x48, 0x89, 0xe7])); // mov rdi, rsp
    assert!(!takes(&[0x48, 0x8d, 0x7c, 0x24, 0x28])); // lea rdi, [rsp + 0x28]
    assert!(!takes(&[0x4c, 0x8d, 0x64, 0x24, 0xb8])); // lea r12, [rsp - 0x48]: below the frame
    assert!(!takes(&[0x48, 0x89, 0xe5])); // mov rbp, rsp
}

#[test]
fn the_function_in_a_closure_is_known_unless_there_are_two() {
    let code = [0x48, 0x8d, 0x3d, 0x10, 0, 0, 0]; // lea rdi, [rip + 0x10]
    let other = [0x48, 0x8d, 0x3d, 0x20, 0, 0, 0]; // lea rdi, [rip + 0x20]
    let store = [0x48, 0x89, 0x7c, 0x24, 0x40]; // mov [rsp + 0x40], rdi
    let empty = [0x48, 0xc7, 0x44, 0x24, 0x40, 0, 0, 0, 0]; // mov qword [rsp + 0x40], 0
    let zeros = [0x44, 0x0f, 0x11, 0x7c, 0x24, 0x40]; // movups [rsp + 0x40], xmm15
    let zero = [0x48, 0xc7, 0xc7, 0, 0, 0, 0]; // mov rdi, 0
    let one = body(&[&empty, &zeros, &zero, &store, &code, &store]);
    let function = 0x1000 + 9 + 6 + 7 + 5 + 7 + 0x10;
    assert_eq!(one.function_at(0x40), Some(function));
    assert_eq!(one.function_at(0x48), None);
    assert_eq!(
        body(&[&code, &store, &other, &store]).function_at(0x40),
        None
    );
    // mov rdi, [rsp + 8]: not an address
    let loaded = [0x48, 0x8b, 0x7c, 0x24, 0x08];
    assert_eq!(body(&[&code, &loaded, &store]).function_at(0x40), None);
}

#[test]
fn each_load_of_a_closure_is_counted() {
    // Also one into another register: a call that is not understood.
    let other = [0x48, 0x8b, 0x4c, 0x24, 0x50]; // mov rcx, [rsp + 0x50]
    assert_eq!(body(&EXIT).loads_of(0x50), 1);
    assert_eq!(body(&[&EXIT.concat(), &other]).loads_of(0x50), 2);
    assert_eq!(body(&EXIT).loads_of(0x58), 0);
}

#[test]
fn code_cut_anywhere_never_panics() {
    let code = EXIT.concat();
    for len in 0..=code.len() {
        exits(&[&code[..len]]);
        exits(&[&code[len..]]);
    }
}
