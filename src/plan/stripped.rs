//! Finds the functions of an OpenSSL or `BoringSSL` that no symbol names.
//!
//! They report errors, and pass the name of their source file for that; OpenSSL from 3.0 on also the
//! function's own name, before a number for the function, `BoringSSL` only a number for the reason.
//! So each function of `ssl_lib.c` shows what it is. All of that stays in a stripped file, and none
//! of it is particular to one build. What is not proved is left out.

mod boringssl;
mod facts;
mod openssl;

use crate::discovery::elf::{Elf, Symbol};
use crate::event::Flavor;
use crate::plan::disasm::Decoder;
use crate::plan::functions::Functions;
use facts::Facts;
pub(in crate::plan) use openssl::count_argument;
use std::collections::HashMap;

/// The source file that the functions are in, of both.
const SOURCE: &str = "ssl_lib.c";
/// A TLS library has several times as much code.
const MIN_CODE: u64 = 128 << 10;

/// Functions that were found, by their names.
pub type Named = HashMap<&'static str, Symbol>;

/// What was found in a file.
#[derive(Debug)]
pub struct Stripped {
    pub flavor: Flavor,
    pub functions: Named,
}

/// Whether such a library is in the file, with symbols or without: most files have less code.
pub fn is_inside(elf: &Elf<'_>) -> bool {
    elf.code_size() >= MIN_CODE && !elf.sources(SOURCE).is_empty()
}

/// Finds the functions that move data, and some others, of each such library in the file.
pub fn find(elf: &Elf<'_>, decoder: &Decoder) -> Vec<Stripped> {
    if elf.code_size() < MIN_CODE {
        return Vec::new();
    }
    let sources = elf.sources(SOURCE);
    let of = |is_cpp| {
        let files = sources.iter().filter(move |(_, longer)| *longer == is_cpp);
        files.map(|(file, _)| file.clone()).collect::<Vec<_>>()
    };
    let functions = Functions::of(elf, decoder);
    let find_in = |is_cpp: bool, flavor, choose: fn(&Functions<'_, '_>, &[Facts]) -> Named| {
        let files = of(is_cpp);
        if files.is_empty() {
            return None;
        }
        let places = elf.references(&files);
        let facts: Vec<Facts> = functions
            .around(&places)
            .iter()
            .map(|function| Facts::of(elf, decoder, function, &openssl::NAMES, &files))
            .collect();
        let named = choose(&functions, &facts);
        let moves_data = named.contains_key("SSL_read") || named.contains_key("SSL_write");
        moves_data.then_some(Stripped {
            flavor,
            functions: named,
        })
    };
    [
        find_in(true, Flavor::BoringSsl, boringssl::choose),
        find_in(false, Flavor::OpenSsl, openssl::choose),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn symbol(facts: &Facts) -> Symbol {
    Symbol {
        vaddr: facts.start,
        size: facts.end.saturating_sub(facts.start),
        exported: false,
    }
}

/// The only one of which something is true.
fn only(facts: &[Facts], is: impl Fn(&Facts) -> bool) -> Option<&Facts> {
    let mut those = facts.iter().filter(|facts| is(facts));
    let first = those.next()?;
    those.next().is_none().then_some(first)
}

#[cfg(test)]
#[path = "stripped/tests.rs"]
mod tests;
