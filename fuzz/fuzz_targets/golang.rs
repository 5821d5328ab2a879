//! Any bytes as a Go program: the search for its functions must end, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlssniff::discovery::elf::Elf;
use tlssniff::discovery::golang;

fuzz_target!(|data: &[u8]| {
    let Ok(elf) = Elf::parse(data) else {
        return;
    };
    let Some(program) = golang::inspect(&elf, "crypto/tls.(*Conn).", &|_| true) else {
        return;
    };
    assert!(program.version.len() <= 64 && program.version.is_ascii());
    assert!(program.functions.is_sorted_by_key(|function| function.vaddr));
});
