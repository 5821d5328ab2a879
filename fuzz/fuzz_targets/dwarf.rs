//! Any bytes as debug information: the search for structures must end, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlssniff::discovery::golang::dwarf;

// The first byte says how many of the others are abbreviations.
fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let (abbreviations, info) = rest.split_at(rest.len().min(usize::from(*first)));
    let found = dwarf::structures_in(info, abbreviations, &["g", "crypto/tls.Conn"]);
    assert!(found.len() <= 2);
    assert!(found.values().all(|members| !members.is_empty()));
});
