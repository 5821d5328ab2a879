//! Copies of a program, each with a cookie in its instructions: for kernels whose probes carry none.

use super::Kind;
use super::program::Program;
use super::syscall::{Code, Place, UprobeEvents, load_probe};
use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, OwnedFd};

/// `TS_COOKIE_PLACE` in bpf/abi.h.
const COOKIE_PLACE: u64 = 0x7ab1_e0fc_00c1_e5ed;
/// `r = 64 bits`, in two instructions of which each has half of them.
const LOAD_64_BITS: u8 = 0x18;

/// Those that are loaded. A file that is attached for several processes has the same for all.
#[derive(Debug, Default)]
pub struct Copies {
    loaded: HashMap<(Kind, u64), OwnedFd>,
}

impl Copies {
    /// Puts a probe in place; it is there until what this returns is dropped.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn attach(
        &mut self,
        kind: Kind,
        program: &Program,
        cookie: u64,
        place: &Place,
        events: UprobeEvents,
    ) -> Result<OwnedFd> {
        let copy = match self.loaded.entry((kind, cookie)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(load(program, cookie)?),
        };
        events.attach(copy.as_fd(), place)
    }
}

fn load(program: &Program, cookie: u64) -> Result<OwnedFd> {
    let mut code = Code {
        instructions: program.code.instructions.clone(),
        ..Default::default()
    };
    write_cookie(&mut code.instructions, cookie);
    load_probe(&program.name, &code).with_context(|| {
        let name = program.name.to_string_lossy();
        format!("load {name} for the probes with the cookie {cookie:#x}")
    })
}

fn write_cookie(instructions: &mut [libbpf_sys::bpf_insn], cookie: u64) {
    let [place_low, place_high] = halves(COOKIE_PLACE);
    let [cookie_low, cookie_high] = halves(cookie);
    for at in 1..instructions.len() {
        if let Some([low, high]) = instructions.get_mut(at - 1..=at)
            && low.code == LOAD_64_BITS
            && (low.imm, high.imm) == (place_low, place_high)
        {
            (low.imm, high.imm) = (cookie_low, cookie_high);
        }
    }
}

fn halves(value: u64) -> [i32; 2] {
    [value as u32, (value >> 32) as u32].map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_sys::bpf_insn;

    fn instruction(code: u8, imm: i32) -> bpf_insn {
        bpf_insn {
            code,
            imm,
            ..Default::default()
        }
    }

    #[test]
    fn the_cookie_comes_wherever_its_place_is_and_nowhere_else() {
        let [low, high] = halves(COOKIE_PLACE);
        let mut instructions = [
            instruction(LOAD_64_BITS, low),
            instruction(0, high),
            instruction(0xb7, low),
            instruction(LOAD_64_BITS, high),
            instruction(0, low),
            instruction(LOAD_64_BITS, low),
            instruction(0, high),
        ];
        write_cookie(&mut instructions, 0xfedc_ba98_7654_3210);
        let imms: Vec<i32> = instructions.iter().map(|i| i.imm).collect();
        let [cookie_low, cookie_high] = [0x7654_3210, 0xfedc_ba98u32.cast_signed()];
        assert_eq!(
            imms,
            [
                cookie_low,
                cookie_high,
                low,
                high,
                low,
                cookie_low,
                cookie_high
            ]
        );
    }

    #[test]
    fn the_place_is_the_one_that_bpf_leaves() {
        let abi = include_str!("../../bpf/abi.h");
        assert!(abi.contains(&format!("#define TS_COOKIE_PLACE {COOKIE_PLACE:#x}\n")));
    }
}
