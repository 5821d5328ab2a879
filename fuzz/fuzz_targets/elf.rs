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
    // What finds functions without symbols, of files too small for a library.
    for (file, _) in elf.sources("ssl_lib.c") {
        let _ = elf.references(&[file]);
    }
    elf.transfers(|_| {});
    if let Some(frames) = elf.frames() {
        for at in [0, 0x1000, 0x40_1000, u64::MAX] {
            let _ = elf.frame_around(&frames, at);
        }
    }
    for plan in plan::plan(&elf, "fuzz").unwrap_or_default() {
        let _ = plan.describe();
    }
});
