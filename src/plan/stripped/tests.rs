//! Over files given by hand.

use super::*;
use crate::discovery::content::SparseFile;

#[test]
fn by_hand() {
    for path in std::env::var("STRIPPED").unwrap_or_default().split(':') {
        if path.is_empty() {
            continue;
        }
        let began = std::time::Instant::now();
        let file = std::fs::File::open(path).unwrap();
        let sparse = SparseFile::new(&file).unwrap();
        let Ok(elf) = Elf::open(&sparse) else {
            continue;
        };
        let Ok(decoder) = Decoder::of(elf.machine()) else {
            continue;
        };
        let found = find(&elf, &decoder);
        let took = began.elapsed();
        if std::env::var("QUIET").is_ok() && found.is_none() {
            continue;
        }
        println!("{path}: {took:?}");
        if let Some(found) = found {
            let mut all: Vec<_> = found.functions.iter().collect();
            all.sort_by_key(|(_, s)| s.vaddr);
            for (name, symbol) in all {
                println!(
                    "  {:?} {:x} {name} {}",
                    found.flavor, symbol.vaddr, symbol.size
                );
            }
        }
    }
}
