//! Over the memory of the test itself.

use super::*;

#[test]
fn memory_is_read_as_it_is_also_across_pages() {
    let bytes: Vec<u8> = (0..3 * PAGE).map(|n| (n / 3) as u8).collect();
    let memory = Memory::open(&ProcFs::default(), std::process::id()).unwrap();
    let start = bytes.as_ptr().addr() as u64;
    let into_page = start.next_multiple_of(PAGE) + PAGE - start;
    for offset in [0, into_page - 8, into_page - 5, into_page - 1, into_page] {
        let at = usize::try_from(offset).unwrap();
        let expected = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(memory.u64(start + offset), Some(expected), "{offset}");
        assert_eq!(memory.u32(start + offset), Some(expected as u32));
    }
    assert_eq!(memory.u64(0), None);
    assert_eq!(memory.u64(u64::MAX), None);
    assert_eq!(memory.u64(u64::MAX - 7), None);
}

#[test]
fn an_address_outside_of_all_code_is_in_no_function() {
    let procfs = ProcFs::default();
    let pid = std::process::id();
    let mappings = procfs.exec_mappings(pid).unwrap();
    let files = Files::of(&mappings);
    let contents = Contents::of(&files);
    let space = Space::new(&procfs, pid, &mappings, &files, &contents).unwrap();
    let registers = Registers {
        general: [Some(0x1000); 16],
        ip: 0x1000,
    };
    assert_eq!(space.frames(registers).count(), 0);
    // In code, but with a stack that is none.
    let ip = mappings[0].start + (mappings[0].end - mappings[0].start) / 2;
    let registers = Registers { ip, ..registers };
    assert_eq!(space.frames(registers).count(), 0);
}
