//! Which function of another file a call goes to.

use super::{Elf, MAX_NAME, MAX_RELOCATIONS, Machine, c_string, u32_at, u64_at};
use std::collections::HashMap;

const R_X86_64_GLOB_DAT: u64 = 6;
const R_X86_64_JUMP_SLOT: u64 = 7;
const R_AARCH64_GLOB_DAT: u64 = 1025;
const R_AARCH64_JUMP_SLOT: u64 = 1026;

impl Elf<'_> {
    /// The imported symbol that a call to `target` ends up in, when `target` is a PLT stub.
    pub fn import_at(&self, target: u64) -> Option<&str> {
        let stub = self.code(target, 16)?;
        self.import_in_slot(match self.machine() {
            Machine::Aarch64 => arm64_slot(stub, target)?,
            _ => x86_64_slot(stub, target)?,
        })
    }

    /// The imported symbol whose address the loader puts into the slot at `vaddr` of the global
    /// offset table: what `call *slot(%rip)` of code built with `-fno-plt` ends up in.
    pub fn import_in_slot(&self, vaddr: u64) -> Option<&str> {
        self.imports
            .get_or_init(|| self.read_imports())
            .get(&vaddr)
            .map(String::as_str)
    }

    fn read_imports(&self) -> HashMap<u64, String> {
        const DT_RELA: u64 = 7;
        const DT_RELASZ: u64 = 8;
        const DT_JMPREL: u64 = 23;
        const DT_PLTRELSZ: u64 = 2;
        let kinds = match self.machine() {
            Machine::Aarch64 => [R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT],
            _ => [R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT],
        };
        let mut imports = HashMap::new();
        let Some(table) = &self.dynsym else {
            return imports;
        };
        for (address, size) in [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)] {
            let entries = self
                .dynamic_value(address)
                .zip(self.dynamic_value(size))
                .and_then(|(address, size)| self.loaded(address, size))
                .unwrap_or_default();
            for entry in entries.chunks_exact(24).take(MAX_RELOCATIONS) {
                let (Some(slot), Some(info)) = (u64_at(entry, 0), u64_at(entry, 8)) else {
                    continue;
                };
                if !kinds.contains(&(info & 0xffff_ffff)) {
                    continue;
                }
                let name = usize::try_from(info >> 32)
                    .ok()
                    .and_then(|index| table.symbols.get(index))
                    .and_then(|symbol| c_string(table.name_tail(&symbol)?, 0, MAX_NAME));
                if let Some(name) = name {
                    imports.insert(slot, name.to_owned());
                }
            }
        }
        imports
    }
}

/// `[endbr64] [bnd] jmp *slot(%rip)`
fn x86_64_slot(stub: &[u8], at: u64) -> Option<u64> {
    let rest = stub.strip_prefix(b"\xf3\x0f\x1e\xfa").unwrap_or(stub);
    let rest = rest.strip_prefix(b"\xf2").unwrap_or(rest);
    let rest = rest.strip_prefix(b"\xff\x25")?;
    let (disp, rest) = rest.split_first_chunk::<4>()?;
    let next = at.checked_add((stub.len() - rest.len()) as u64)?;
    next.checked_add_signed(i64::from(i32::from_le_bytes(*disp)))
}

/// `[bti c;] adrp x16, page; ldr x17, [x16, #offset]`
fn arm64_slot(stub: &[u8], at: u64) -> Option<u64> {
    const BTI_C: u32 = 0xd503_245f;
    let first = usize::from(u32_at(stub, 0)? == BTI_C) * 4;
    let (adrp, ldr) = (u32_at(stub, first)?, u32_at(stub, first + 4)?);
    if adrp & 0x9f00_001f != 0x9000_0010 || ldr & 0xffc0_03ff != 0xf940_0211 {
        return None;
    }
    // 21 bits of pages with a sign: immhi, bits 23 to 5, and immlo, bits 30 and 29.
    let pages = u64::from((adrp >> 3 & 0x1f_fffc) | (adrp >> 29 & 3));
    let pages = ((pages << 43).cast_signed() >> 43) << 12;
    let page = at.checked_add(first as u64)? & !0xfff;
    page.checked_add_signed(pages)?
        .checked_add(u64::from(ldr >> 10 & 0xfff) * 8)
}
