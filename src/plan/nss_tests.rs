//! Over a libssl3 made from C, compiled in several ways, and the one that is installed.

use super::*;
use crate::plan::compiled::library;

fn found(data: &[u8]) -> Vec<(&'static str, u64)> {
    let elf = Elf::parse(data).unwrap();
    let decoder = Decoder::x86_64().unwrap();
    let methods = methods(&elf, &decoder);
    methods.into_iter().map(|(n, s)| (n, s.vaddr)).collect()
}

/// As libssl3 does it, whose functions have names here.
const SOURCE: &str = "
    typedef long (*method)(void);
    struct methods { int type; method of[30]; };
    struct methods *PR_GetDefaultIOMethods(void);
    #define METHOD(name, n) __attribute__((visibility(\"hidden\"))) long name(void) { return n; }
    METHOD(ssl_Close, 0) METHOD(ssl_Read, 1) METHOD(ssl_Write, 2) METHOD(ssl_WriteV, 10)
    METHOD(ssl_Shutdown, 15) METHOD(ssl_Recv, 16) METHOD(ssl_Send, 17)
    static const struct methods mine = { 4, { [0] = ssl_Close, [1] = ssl_Read, [2] = ssl_Write,
        [10] = ssl_WriteV, [15] = ssl_Shutdown, [16] = ssl_Recv, [17] = ssl_Send } };
    static struct methods table;
    struct methods *setup(void) {
        const struct methods *from = &mine;
        struct methods *to = &table;
        *to = *PR_GetDefaultIOMethods();
        to->type = from->type;
        to->of[0] = from->of[0]; to->of[1] = from->of[1]; to->of[2] = from->of[2];
        to->of[10] = from->of[10]; to->of[15] = from->of[15]; to->of[16] = from->of[16];
        to->of[17] = from->of[17];
        return 0;
    }
    struct methods *get(void) { return &table; }";

#[test]
fn methods_are_those_that_the_table_gets_however_compiled() {
    for options in [
        &["-O3"][..],
        &["-O2"],
        &["-Os"],
        &["-O2", "-mavx2"],
        &["-O2", "-fno-tree-vectorize"],
    ] {
        let data = library(Machine::X86_64, SOURCE, options);
        let elf = Elf::parse(&data).unwrap();
        let mut expected: Vec<(&str, u64)> = METHODS
            .iter()
            .map(|(name, _)| (*name, elf.find(&[name])[name].vaddr))
            .collect();
        expected.sort_unstable();
        let mut found = found(&data);
        found.sort_unstable();
        assert_eq!(found, expected, "{options:?}");
    }
}

#[test]
fn a_table_that_is_not_of_a_layer_is_nobodys() {
    let data = library(Machine::X86_64, &SOURCE.replace("{ 4,", "{ 2,"), &["-O2"]);
    assert_eq!(found(&data), []);
}

#[test]
fn methods_of_the_system_library_read_and_write() {
    let Ok(data) = std::fs::read("/usr/lib/x86_64-linux-gnu/libssl3.so") else {
        return;
    };
    let names: Vec<&str> = found(&data).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, METHODS.map(|(name, _)| name));
}

#[test]
fn where_it_is_said_that_data_is_of_tls_two_functions_agree_on() {
    let source = r#"
        struct socket { char *lower, *ops, *more[4]; unsigned use : 1, socks : 1, other : 6; int end, at; };
        extern struct socket *find(void *);
        extern int knows(struct socket *, short);
        int SSL_DataPending(void *f) {
            struct socket *s = find(f);
            return s && s->use ? s->end - s->at : 0;
        }
        int SSL_HandshakeNegotiatedExtension(void *f, short n, int *told) {
            struct socket *s = find(f);
            if (!s) return -1;
            *told = 0;
            if (s->BIT) *told = knows(s, n);
            return 0;
        }"#;
    let of = |bit: &str| {
        let data = library(Machine::X86_64, &source.replace("BIT", bit), &["-O2"]);
        let elf = Elf::parse(&data).unwrap();
        secured(&elf, &Decoder::of(elf.machine()).unwrap())
    };
    assert_eq!(of("use"), Some((vec![8, 48], 1)));
    assert_eq!(of("socks"), None);
}
