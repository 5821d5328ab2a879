//! Any bytes as a capture file: reading ends, with events or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlssniff::event::Kind;

fuzz_target!(|file: &[u8]| {
    let _ = tlssniff::readback::read(file, &mut |event| {
        if let Kind::Data(data) = event.kind {
            assert!(data.bytes.len() as u64 <= data.len);
        }
        Ok(())
    });
});
