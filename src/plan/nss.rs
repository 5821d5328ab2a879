//! Finds the functions of NSS's TLS layer, which are static, in a libssl3 without symbols.
//!
//! NSPR calls a layer through a table, `PRIOMethods`, whose form is part of its interface. libssl3
//! makes its own out of NSPR's default one: the code that follows the only call of
//! `PR_GetDefaultIOMethods` puts the layer's type and the addresses of its functions there. That
//! code is executed, as far as addresses go; what it leaves in the table is a fact.

use crate::discovery::elf::{Elf, Machine, Symbol};
use crate::plan::LoadChain;
use crate::plan::disasm::{Decoder, Insn, Kind, Mem, Op, Operand, Reg};
use std::collections::HashMap;

/// Through which every program makes a TLS connection of a socket.
pub(super) const EXPORTED: &str = "SSL_ImportFD";
pub(super) const READ: &str = "ssl_Read";
/// Where in `PRIOMethods` the functions are (prio.h).
const METHODS: [(&str, u64); 7] = [
    ("ssl_Close", 8),
    (READ, 16),
    ("ssl_Write", 24),
    ("ssl_WriteV", 88),
    ("ssl_Shutdown", 128),
    ("ssl_Recv", 136),
    ("ssl_Send", 144),
];
/// Where in `PRFileDesc` a layer keeps what is its own (prio.h).
const SECRET: u32 = 8;
/// `PR_DESC_LAYERED`, the table's first field.
const LAYERED: i64 = 4;
const DEFAULTS: &str = "PR_GetDefaultIOMethods";
/// Code that is searched, at most; libssl3 has half a megabyte.
const MAX_CODE: u64 = 16 << 20;
const MAX_INSNS: usize = 256;

/// The functions by the names that they have in the source; empty where they cannot be told.
pub(super) fn methods(elf: &Elf<'_>, decoder: &Decoder) -> Vec<(&'static str, Symbol)> {
    // What makes the table is vector code that has not been seen for other machines.
    if elf.machine() != Machine::X86_64 {
        return Vec::new();
    }
    let mut after = calls_of_defaults(elf);
    let (Some(start), None) = (after.pop(), after.pop()) else {
        return Vec::new();
    };
    let mut maker = Maker::new(elf);
    maker.run(decoder, start);
    maker.methods()
}

/// Where the layer's descriptor says whether it does TLS, or hands on all as it is: programs that speak
/// plainly first have it so until then. These functions ask that first of what they find for it, as they
/// have no answer otherwise.
pub(super) fn secured(elf: &Elf<'_>, decoder: &Decoder) -> Option<(LoadChain, u8)> {
    const ASKING: [&str; 2] = ["SSL_DataPending", "SSL_HandshakeNegotiatedExtension"];
    let functions = elf.find(&ASKING);
    let mut asked = ASKING.map(|name| asked_first(elf, decoder, functions.get(name)?));
    let (offset, bit) = asked[0].take()?;
    (asked[1] == Some((offset, bit))).then(|| (vec![SECRET, offset], bit))
}

/// The first byte of which a bit is tested behind a call.
fn asked_first(elf: &Elf<'_>, decoder: &Decoder, symbol: &Symbol) -> Option<(u32, u8)> {
    let code = elf.code(symbol.vaddr, symbol.size)?;
    let mut has_called = false;
    let mut tested = None;
    decoder.sweep(code, symbol.vaddr, |insn| {
        has_called |= matches!(insn.kind, Kind::Call(_));
        if let (true, Op::Test, [Some(Operand::Mem(mem)), Some(Operand::Imm(bits)), _]) =
            (has_called, insn.op, insn.operands)
            && tested.is_none()
        {
            let bit = u8::try_from(bits).ok().filter(|bit| bit.is_power_of_two());
            let is_stack = mem.base == Some(decoder.convention.stack);
            let is_byte = mem.size == 1 && !mem.complex && !mem.rip_relative && !is_stack;
            let offset = u32::try_from(mem.disp).ok().filter(|_| is_byte);
            tested = Some(offset.zip(bit));
        }
    });
    tested?
}

/// The addresses behind the calls of the function that returns NSPR's table.
fn calls_of_defaults(elf: &Elf<'_>) -> Vec<u64> {
    // With NSPR in the same file it is called without detours.
    let own = elf.find(&[DEFAULTS]).get(DEFAULTS).map(|s| s.vaddr);
    let mut known: HashMap<u64, bool> = HashMap::new();
    let mut found = Vec::new();
    for (start, size) in elf.code_ranges().filter(|(_, size)| *size <= MAX_CODE) {
        let code = elf.code(start, size).unwrap_or_default();
        for at in memchr::memchr_iter(0xe8, code) {
            let operand = code.get(at + 1..).and_then(|rest| rest.first_chunk::<4>());
            let (Some(operand), Some(next)) = (operand, start.checked_add(at as u64 + 5)) else {
                continue;
            };
            let to = next.wrapping_add_signed(i64::from(i32::from_le_bytes(*operand)));
            let calls = *known.entry(to).or_insert_with(|| {
                own.map_or_else(|| elf.import_at(to) == Some(DEFAULTS), |own| own == to)
            });
            if calls {
                found.push(next);
            }
        }
    }
    found
}

/// An address, where it is known.
type Word = Option<u64>;

/// Executes straight-line code.
struct Maker<'e, 'a> {
    elf: &'e Elf<'a>,
    general: [Word; 16],
    vector: [[Word; 2]; 16],
    stored: HashMap<u64, Word>,
    /// Where the type of a layer was stored.
    table: Word,
}

impl<'e, 'a> Maker<'e, 'a> {
    fn new(elf: &'e Elf<'a>) -> Maker<'e, 'a> {
        Maker {
            elf,
            general: [None; 16],
            vector: [[None; 2]; 16],
            stored: HashMap::new(),
            table: None,
        }
    }

    fn methods(&self) -> Vec<(&'static str, Symbol)> {
        let Some(table) = self.table else {
            return Vec::new();
        };
        let method = |offset: u64| {
            let vaddr = (*self.stored.get(&table.checked_add(offset)?)?)?;
            self.elf.code(vaddr, 1)?;
            Some(Symbol {
                vaddr,
                size: self.elf.extent(vaddr),
                exported: false,
            })
        };
        let found: Vec<(&str, Symbol)> = METHODS
            .iter()
            .filter_map(|(name, offset)| Some((*name, method(*offset)?)))
            .collect();
        let mut distinct: Vec<u64> = found.iter().map(|(_, symbol)| symbol.vaddr).collect();
        distinct.sort_unstable();
        distinct.dedup();
        // A layer reads and writes by functions of their own.
        if distinct.len() == found.len() {
            found
        } else {
            Vec::new()
        }
    }

    fn run(&mut self, decoder: &Decoder, start: u64) {
        let mut at = start;
        for _ in 0..MAX_INSNS {
            let Some(code) = self.elf.code(at, 16) else {
                return;
            };
            let Some(insn) = decoder.decode(code, at) else {
                return;
            };
            match insn.kind {
                Kind::Ret | Kind::Jump(_) | Kind::JumpIndirect | Kind::Branch(_) | Kind::Trap => {
                    return;
                }
                Kind::Call(_) | Kind::CallIndirect => {
                    self.vector = [[None; 2]; 16];
                    let convention = decoder.convention;
                    for reg in convention.scratch.iter().chain(&convention.args) {
                        self.set(*reg, None);
                    }
                }
                _ if matches!(insn.op, Op::Mov | Op::Lea) => self.move_word(&insn),
                _ => self.move_vector(&insn, &decoder.text(code, at)),
            }
            at = insn.next();
        }
    }

    fn set(&mut self, reg: Reg, value: Word) {
        if let Some(slot) = self.general.get_mut(usize::from(reg.0)) {
            *slot = value;
        }
    }

    fn get(&self, reg: Reg) -> Word {
        self.general.get(usize::from(reg.0)).copied().flatten()
    }

    fn address(&self, mem: &Mem) -> Word {
        if mem.complex {
            None
        } else if mem.rip_relative {
            Some(mem.disp.cast_unsigned())
        } else {
            self.get(mem.base?)?.checked_add_signed(mem.disp)
        }
    }

    /// What is at an address of the file when the loader is done, unless it is another file's.
    fn load(&self, address: Word) -> Word {
        let address = address?;
        match self.stored.get(&address) {
            Some(stored) => *stored,
            None => self.elf.word(address).filter(|word| *word != 0),
        }
    }

    fn store(&mut self, address: Word, value: Word) {
        if let Some(address) = address {
            self.stored.insert(address, value);
        }
    }

    fn move_word(&mut self, insn: &Insn) {
        let [first, second, _] = insn.operands;
        let value = match (insn.op, second) {
            (Op::Lea, Some(Operand::Mem(mem))) => self.address(&mem),
            (_, Some(Operand::Mem(mem))) if mem.size == 8 => self.load(self.address(&mem)),
            (_, Some(Operand::Reg(reg, 8))) => self.get(reg),
            _ => None,
        };
        match first {
            Some(Operand::Mem(mem)) => {
                let to = self.address(&mem);
                if mem.size == 4 && second == Some(Operand::Imm(LAYERED)) {
                    self.table = to;
                }
                self.store(to, value.filter(|_| mem.size == 8));
            }
            Some(Operand::Reg(reg, _)) => self.set(reg, value),
            _ => {}
        }
    }

    /// Vector registers are told by their names: nothing else in the planner needs them.
    fn move_vector(&mut self, insn: &Insn, text: &str) {
        for reg in insn.writes.iter() {
            self.set(reg, None);
        }
        let (mnemonic, operands) = text.split_once(' ').unwrap_or((text, ""));
        let mut operands = operands.split(", ").map(number);
        let (first, second, third) = (operands.next(), operands.next(), operands.next());
        let general = insn.operands.iter().find_map(|o| match o {
            Some(Operand::Reg(reg, 8)) => Some(*reg),
            _ => None,
        });
        let in_memory = insn.mem().map(|mem| self.address(&mem));
        let high = |address: Word| address.and_then(|address| address.checked_add(8));
        let vector = |n: Option<Option<usize>>| {
            let pair = n.flatten().and_then(|n| self.vector.get(n));
            pair.copied().unwrap_or_default()
        };
        let plain = mnemonic.strip_prefix('v').unwrap_or(mnemonic);
        let result = match plain {
            "movaps" | "movups" | "movapd" | "movupd" | "movdqa" | "movdqu" => {
                if let (Some(None), Some(to)) = (first, in_memory) {
                    let [low, upper] = vector(second);
                    self.store(to, low);
                    self.store(high(to), upper);
                    return;
                }
                match in_memory {
                    Some(from) => [self.load(from), self.load(high(from))],
                    None => vector(second),
                }
            }
            "movq" | "movlps" | "movhps" | "movlpd" | "movhpd"
                if matches!((first, in_memory), (Some(None), Some(_))) =>
            {
                let half = usize::from(plain.starts_with("movh"));
                let value = vector(second).get(half).copied().flatten();
                self.store(in_memory.flatten(), value);
                return;
            }
            "movq" => match (in_memory, general) {
                (Some(from), _) => [self.load(from), None],
                (None, Some(reg)) => [self.get(reg), None],
                (None, None) => [vector(second)[0], None],
            },
            "movhps" | "movhpd" if third.is_none() => {
                [vector(first)[0], in_memory.and_then(|from| self.load(from))]
            }
            "punpcklqdq" | "unpcklpd" | "movlhps" => match third {
                Some(_) => [vector(second)[0], vector(third)[0]],
                None => [vector(first)[0], vector(second)[0]],
            },
            "pinsrq" => {
                let value = match (in_memory, general) {
                    (Some(from), _) => self.load(from),
                    (None, reg) => reg.and_then(|reg| self.get(reg)),
                };
                let kept = if mnemonic == plain { first } else { second };
                [vector(kept)[0], value.filter(|_| text.ends_with('1'))]
            }
            _ => [None; 2],
        };
        if let Some(slot) = first.flatten().and_then(|n| self.vector.get_mut(n)) {
            *slot = result;
        }
    }
}

/// The number of a vector register.
fn number(operand: &str) -> Option<usize> {
    let digits = operand
        .strip_prefix("xmm")
        .or_else(|| operand.strip_prefix("ymm"))?;
    digits.parse().ok()
}

#[cfg(test)]
#[path = "nss_tests.rs"]
mod tests;
