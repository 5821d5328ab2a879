//! Over functions in C, as a compiler for each machine makes them.

use super::*;
use crate::discovery::elf::Machine;
use crate::plan::compiled::{BOTH, library};

/// Runs `outer` of a library, and once more for each of its calls, with what is kept there.
fn runs(machine: Machine, source: &str, options: &[&str]) -> (Run, Vec<Kept>, Convention) {
    let data = library(machine, source, options);
    let elf = Elf::parse(&data).unwrap();
    let decoder = Decoder::of(machine).unwrap();
    let f = elf.find(&["outer"]).remove("outer").unwrap();
    let mut returns = Vec::new();
    let code = elf.code(f.vaddr, f.size).unwrap();
    decoder.sweep(code, f.vaddr, |insn| {
        if matches!(insn.kind, Kind::Call(_) | Kind::CallIndirect) {
            returns.push(insn.next());
        }
    });
    let at = |watched| execute_watching(&elf, &decoder, f.vaddr, f.size, watched);
    let kept = returns.into_iter().map(|to| at(Some(to)).kept.unwrap());
    let kept = kept.collect();
    let Convention {
        args,
        result,
        stack,
        link,
        scratch,
    } = *decoder.convention;
    let convention = Convention {
        args,
        result,
        stack,
        link,
        scratch,
    };
    (at(None), kept, convention)
}

#[test]
fn what_is_used_after_a_call_is_found_where_the_code_keeps_it() {
    let source = "
        int inner(void *, void *, long, int, long *), more(void *, void *, long *);
        int outer(void *a, void *b, long c, int d, long *e) {
            int n = inner(a, b, c, d, e);
            return n < 0 ? n : more(a, b, e) + n;
        }";
    for machine in BOTH {
        for option in ["-O2", "-O1"] {
            let (_, kept, convention) = runs(machine, source, &[option]);
            let first = kept.first().unwrap();
            for argument in [0, 1, 4] {
                let keepers = first.keepers(&convention, Value::arg(argument));
                assert!(!keepers.is_empty(), "{machine:?} {option} {argument}");
            }
        }
    }
}

#[test]
fn what_paths_disagree_on_is_not_kept() {
    let source = "
        int inner(void *), more(void *, void *);
        int outer(void *a, void *b, long c) {
            void *d = a;
            if (c & 1) d = b;
            return inner(d) + more(d, a);
        }";
    for machine in BOTH {
        let (_, kept, convention) = runs(machine, source, &["-O2"]);
        let first = kept.first().unwrap();
        let of = |argument| first.keepers(&convention, Value::arg(argument));
        assert_eq!(of(0).len(), 1, "{machine:?}");
        assert_eq!(of(1), [], "{machine:?}");
    }
}

#[test]
fn a_jump_out_of_a_function_says_where_to_and_with_what() {
    let source = "
        struct method { long x; int (*read)(void *, void *, long, int, long *); };
        struct handle { long x; struct method *method; };
        int outer(struct handle *a, void *b, long c, long *e) {
            return a->method->read(a, b, c, 0, e);
        }";
    for machine in BOTH {
        let (run, _, _) = runs(machine, source, &["-O2"]);
        let tails: Vec<&Tail> = run.tails.iter().collect();
        let [tail] = tails.as_slice() else {
            panic!("{tails:?}");
        };
        let expected = [0, 1, 2].map(Value::arg);
        assert_eq!(tail.args[..3], expected, "{machine:?}");
        assert_eq!(tail.args[4], Value::arg(3), "{machine:?}");
        let chain = run.chain(tail.to);
        assert_eq!(chain, Some((vec![8, 8], 8)), "{machine:?}");
    }
}

#[test]
fn and_with_zero_is_a_store_of_zero() {
    let source = "
        void outer(long *a) { __asm__ volatile(\"andq $0, 8(%0)\" : : \"r\"(a) : \"memory\"); }";
    let (run, _, _) = runs(Machine::X86_64, source, &["-O2"]);
    let stored = Store {
        arg: 0,
        plus: 8,
        value: Value::constant(0),
        checked: TypeCheck::None,
    };
    assert!(run.stores.contains(&stored), "{:?}", run.stores);
}
