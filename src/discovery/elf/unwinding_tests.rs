//! Over the system's libssl, and stacks that are made up.

use super::*;

const LIBSSL: &str = "/lib/x86_64-linux-gnu/libssl.so.3";

#[test]
fn functions_are_where_the_symbols_say() {
    let Ok(data) = std::fs::read(LIBSSL) else {
        return;
    };
    let elf = Elf::parse(&data).unwrap();
    let unwinding = elf.unwinding().unwrap();
    for (name, symbol) in elf.find(&["SSL_read", "SSL_read_ex", "SSL_write"]) {
        let end = symbol.vaddr + symbol.size;
        let expected = Some(symbol.vaddr..end);
        assert_eq!(unwinding.function(symbol.vaddr), expected, "{name}");
        assert_eq!(unwinding.function(end - 1), expected, "{name}");
    }
    assert_eq!(unwinding.function(u64::MAX), None);
}

#[test]
fn at_its_first_instruction_a_function_has_changed_nothing_of_its_caller() {
    let Ok(data) = std::fs::read(LIBSSL) else {
        return;
    };
    let elf = Elf::parse(&data).unwrap();
    let unwinding = elf.unwinding().unwrap();
    let symbol = elf.find(&["SSL_read"]).remove("SSL_read").unwrap();
    let registers = Registers {
        general: std::array::from_fn(|n| Some(n as u64 * 0x1000)),
        ip: 0,
    };
    let stack = 4 * 0x1000;
    let read = |at| (at == stack).then_some(0xca11);
    let caller = unwinding.caller(symbol.vaddr, &registers, &read);
    let (caller, above) = caller.unwrap();
    assert_eq!(above, stack + 8);
    assert_eq!(caller.ip, 0xca11);
    assert_eq!(caller.general[4], Some(stack + 8));
    for preserved in [3, 5, 12, 13, 14, 15] {
        assert_eq!(caller.general[preserved], registers.general[preserved]);
    }
    // Not preserved by calls, so not known in the caller.
    assert_eq!(caller.general[0], None);
    // Memory that cannot be read ends it.
    let caller = unwinding.caller(symbol.vaddr, &registers, &|_| None);
    assert_eq!(caller, None);
}
