//! Any bytes as an ELF file: reading and planning must end, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlssniff::discovery::elf::Elf;
use tlssniff::plan;

fuzz_target!(|data: &[u8]| {
    let Ok(elf) = Elf::parse(data) else {
        return;
    };
    let _ = (elf.needed(), elf.build_id(), elf.interpreter(), elf.is_executable());
    let _ = elf.version_string();
    let _ = plan::layout::bio_layout(&elf);
    if let Ok(Some(plan)) = plan::plan(&elf, "fuzz") {
        let _ = plan.describe();
    }
});
