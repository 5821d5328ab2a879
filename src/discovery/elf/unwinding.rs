//! What a compiler leaves for unwinding the stack (`.eh_frame`): whose code an address is in, and
//! where that function keeps what belongs to its caller.

use super::Elf;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry, LittleEndian,
    ParsedEhFrameHdr, Pointer, Register, RegisterRule, UnwindContext, UnwindSection,
};
use goblin::elf::program_header::{PF_X, PT_GNU_EH_FRAME};
use std::ops::Range;

/// Most bytes of `.eh_frame` that are read: programs linked statically with everything have a
/// tenth of it.
const MAX_FRAMES: u64 = 64 << 20;
/// Of x86-64, in DWARF's numbers (psABI, figure 3.36): the stack pointer, and what a call preserves.
const STACK: Register = Register(7);
const PRESERVED: [Register; 6] = [
    Register(3),
    Register(6),
    Register(12),
    Register(13),
    Register(14),
    Register(15),
];

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Registers of x86-64 at a point of a function, by their numbers in machine code; `None` is not
/// known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    pub general: [Option<u64>; 16],
    pub ip: u64,
}

impl Registers {
    fn get(&self, reg: Register) -> Option<u64> {
        *self.general.get(machine_number(reg)?)?
    }
}

/// The numbers of DWARF are others up to 7.
fn machine_number(reg: Register) -> Option<usize> {
    const FIRST: [usize; 8] = [0, 2, 1, 3, 6, 7, 5, 4];
    match usize::from(reg.0) {
        number @ 0..=7 => FIRST.get(number).copied(),
        number @ 8..=15 => Some(number),
        _ => None,
    }
}

/// The unwinding tables of a file.
#[derive(Debug)]
pub struct Unwinding<'a> {
    header: ParsedEhFrameHdr<Slice<'a>>,
    frames: EhFrame<Slice<'a>>,
    bases: BaseAddresses,
}

impl<'a> Elf<'a> {
    /// `None` where there is no sorted table of them.
    pub fn unwinding(&self) -> Option<Unwinding<'a>> {
        let segment = self.segments.iter().find(|s| s.p_type == PT_GNU_EH_FRAME)?;
        let at = segment.p_vaddr;
        let bases = BaseAddresses::default().set_eh_frame_hdr(at);
        let header = EhFrameHdr::new(self.loaded(at, segment.p_filesz)?, LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        header.table()?;
        let Pointer::Direct(start) = header.eh_frame_ptr() else {
            return None;
        };
        let section = self.section(".eh_frame").filter(|s| s.vaddr == start);
        let size = section.map_or(MAX_FRAMES, |s| s.size.min(MAX_FRAMES));
        Some(Unwinding {
            header,
            frames: EhFrame::new(self.loaded(start, size)?, LittleEndian),
            bases: bases.set_eh_frame(start),
        })
    }

    /// The virtual address of code at this place of the file.
    pub fn code_at(&self, offset: u64) -> Option<u64> {
        self.loads()
            .filter(|s| s.p_flags & PF_X != 0)
            .find_map(|s| {
                let into = offset.checked_sub(s.p_offset)?;
                (into < s.p_filesz).then(|| s.p_vaddr.checked_add(into))?
            })
    }
}

impl<'a> Unwinding<'a> {
    /// The function that the code at `vaddr` belongs to. A part that the compiler has put elsewhere
    /// (`.cold`) is a function of its own here.
    pub fn function(&self, vaddr: u64) -> Option<Range<u64>> {
        let entry = self.entry(vaddr)?;
        Some(entry.initial_address()..entry.end_address())
    }

    fn entry(&self, vaddr: u64) -> Option<FrameDescriptionEntry<Slice<'a>>> {
        self.header
            .table()?
            .fde_for_address(&self.frames, &self.bases, vaddr, EhFrame::cie_from_offset)
            .ok()
    }

    /// The registers of the caller, and the stack pointer right before the call pushed its return
    /// address, from those of a function that is at `vaddr`. Where a function needs a computation to
    /// say where it keeps something (signal frames, stubs of the linker), the answer is `None`.
    pub fn caller(
        &self,
        vaddr: u64,
        registers: &Registers,
        read: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<(Registers, u64)> {
        let entry = self.entry(vaddr)?;
        if entry.is_signal_trampoline() {
            return None;
        }
        let mut context = UnwindContext::new();
        let row = entry
            .unwind_info_for_address(&self.frames, &self.bases, &mut context, vaddr)
            .ok()?;
        let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
            return None;
        };
        let frame = registers.get(*register)?.checked_add_signed(*offset)?;
        let saved = |reg: Register| match row.register(reg) {
            None | Some(RegisterRule::SameValue) => registers.get(reg),
            Some(RegisterRule::Offset(offset)) => read(frame.checked_add_signed(offset)?),
            Some(RegisterRule::ValOffset(offset)) => frame.checked_add_signed(offset),
            Some(RegisterRule::Register(other)) => registers.get(other),
            Some(_) => None,
        };
        let returns = match row.register(entry.cie().return_address_register()) {
            Some(RegisterRule::Offset(offset)) => read(frame.checked_add_signed(offset)?)?,
            _ => return None,
        };
        let mut general = [None; 16];
        for reg in PRESERVED {
            *general.get_mut(machine_number(reg)?)? = saved(reg);
        }
        *general.get_mut(machine_number(STACK)?)? = Some(frame);
        let caller = Registers {
            general,
            ip: returns,
        };
        Some((caller, frame))
    }
}

#[cfg(test)]
#[path = "unwinding_tests.rs"]
mod tests;
