//! Over the system's libraries (Debian's libssl3, libssl-dev) and small objects compiled here.

use super::*;
use crate::discovery::elf::Machine;
use crate::plan::SiteCost;
use crate::plan::compiled::{BOTH, library};
use std::process::Command;

const LIBSSL: &str = "/lib/x86_64-linux-gnu/libssl.so.3";

/// Compiles C source; `None` where there is no compiler or a library is missing.
fn compile(source: &str, options: &[&str]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.c"), dir.path().join("out"));
    std::fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command.arg("-o").arg(&output).arg(&input).args(options);
    let done = command.output().ok()?;
    done.status
        .success()
        .then(|| std::fs::read(&output).unwrap())
}

/// The plan for a stripped library made of C source.
fn plan_of(machine: Machine, source: &str) -> Option<Plan> {
    let data = library(machine, source, &["-O2", "-s"]);
    plan(&Elf::parse(&data).unwrap(), "test").unwrap()
}

/// The plans of each machine.
fn plan_for(source: &str) -> [Option<Plan>; 2] {
    BOTH.map(|machine| plan_of(machine, source))
}

fn data_probes(plan: &Plan) -> Vec<(&str, Dir, Count)> {
    plan.probes
        .iter()
        .filter_map(|p| match p.action {
            Action::Data(dir, count) => Some((p.func.as_str(), dir, count)),
            _ => None,
        })
        .collect()
}

#[test]
fn system_library_is_probed_at_its_inner_functions_only() {
    let data = std::fs::read(LIBSSL).unwrap();
    let plan = plan(&Elf::parse(&data).unwrap(), LIBSSL).unwrap().unwrap();
    let expected = [
        ("ssl_read_internal", Dir::In, Count::OutArg(3)),
        ("ssl_write_internal", Dir::Out, Count::OutArg(3)),
        ("SSL_sendfile", Dir::Out, Count::SendfileReturn),
    ];
    assert_eq!(data_probes(&plan), expected);
    assert_eq!(plan.flavor, Flavor::OpenSsl);
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    let funcs: Vec<&str> = plan.probes.iter().map(|p| p.func.as_str()).collect();
    for name in PLAIN.map(|(name, _)| name) {
        assert!(funcs.contains(&name), "{name} in {funcs:?}");
    }
}

#[test]
fn every_site_of_the_system_library_is_cheap() {
    let data = std::fs::read(LIBSSL).unwrap();
    let elf = Elf::parse(&data).unwrap();
    let plan = plan(&elf, LIBSSL).unwrap().unwrap();
    for probe in &plan.probes {
        assert!(probe.site.cost < SiteCost::SingleStepped, "{probe:?}");
        let in_file = usize::try_from(probe.site.file_offset).unwrap();
        assert_eq!(
            elf.code(probe.site.vaddr, 4),
            data.get(in_file..in_file + 4)
        );
    }
    let text = plan.describe();
    assert!(text.contains("ssl_read_internal"), "{text}");
    assert!(text.contains("emulated by the kernel"), "{text}");
    assert!(text.contains("layout: rbio=0x"), "{text}");
}

#[test]
fn static_program_is_a_target_by_its_symbol_table() {
    let source = "#include <openssl/ssl.h>
        int main(void) { OpenSSL_version(0); SSL *s = SSL_new(SSL_CTX_new(TLS_method())); char b[9]; size_t n;
        return SSL_read(s, b, 9) + SSL_write(s, b, 9) + SSL_read_ex(s, b, 9, &n); }";
    let options = [
        "-Wl,-Bstatic",
        "-lssl",
        "-lcrypto",
        "-Wl,-Bdynamic",
        "-lpthread",
        "-ldl",
    ];
    let Some(data) = compile(source, &options) else {
        return;
    };
    let elf = Elf::parse(&data).unwrap();
    let plan = plan(&elf, "static").unwrap().unwrap();
    assert!(plan.version.as_deref().unwrap().starts_with("OpenSSL 3."));
    let probes = data_probes(&plan);
    assert!(
        probes.contains(&("ssl_read_internal", Dir::In, Count::OutArg(3))),
        "{probes:?}"
    );
    assert!(
        probes.contains(&("ssl_write_internal", Dir::Out, Count::OutArg(3))),
        "{probes:?}"
    );
    assert!(layout::bio_layout(&elf).is_some());
}

#[test]
fn program_that_only_imports_is_no_target() {
    let source = "int SSL_read(void *, void *, int);
        int inside(void *s, void *b) { return SSL_read(s, b, 1); }";
    assert_eq!(plan_for(source), [None, None]);
}

/// Exported functions over an inner one, as in OpenSSL; `PEEK` is what peeking calls.
const INNER: &str = "
    typedef unsigned long size_t;
    struct ssl { long x; int (*method)(void *, void *, size_t, size_t *); };
    extern int work(void *, void *, size_t, size_t *);
    __attribute__((noinline)) static int rd(struct ssl *s, void *b, size_t n, size_t *got) {
        return s->x ? s->method(s, b, n, got) : work(s, b, n, got) + 1; }
    __attribute__((noinline)) static int pk(struct ssl *s, void *b, size_t n, size_t *got) {
        return s->method(s, b, n, got) + 2; }
    int SSL_read(struct ssl *s, void *b, int n) {
        size_t got; if (n < 0) return -1;
        int r = rd(s, b, n, &got); return r > 0 ? (int)got : r; }
    int SSL_read_ex(struct ssl *s, void *b, size_t n, size_t *got) {
        int r = rd(s, b, n, got); return r < 0 ? 0 : r; }
    int SSL_peek(struct ssl *s, void *b, int n) {
        size_t got; int r = PEEK(s, b, n, &got); return r > 0 ? (int)got : r; }";

#[test]
fn inner_read_is_proved_without_symbols() {
    for plan in plan_for(&INNER.replace("PEEK", "pk")) {
        let plan = plan.unwrap();
        let expected = [("ssl_read_internal", Dir::In, Count::OutArg(3))];
        assert_eq!(data_probes(&plan), expected);
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    }
}

#[test]
fn function_that_peeks_too_is_never_probed() {
    for plan in plan_for(&INNER.replace("PEEK", "rd")) {
        let plan = plan.unwrap();
        let expected = [
            ("SSL_read_ex", Dir::In, Count::OutArg(3)),
            ("SSL_read", Dir::In, Count::Return),
        ];
        assert_eq!(data_probes(&plan), expected);
        assert!(
            plan.notes[0].contains("SSL BIOs are not seen"),
            "{:?}",
            plan.notes
        );
        assert!(
            plan.notes[0].contains("SSL_peek calls it too"),
            "{:?}",
            plan.notes
        );
    }
}

#[test]
fn changed_buffer_is_no_proof() {
    // SSL_read passes another buffer on: probing only the inner function would report it.
    let source = INNER
        .replace("PEEK", "pk")
        .replace("rd(s, b, n, &got)", "rd(s, (char *)b + 8, n, &got)");
    for plan in plan_for(&source) {
        let plan = plan.unwrap();
        let names: Vec<&str> = data_probes(&plan).iter().map(|p| p.0).collect();
        assert_eq!(names, ["SSL_read_ex", "SSL_read"]);
    }
}

#[test]
fn count_moves_behind_the_flags_of_write_ex2() {
    let source = "
        typedef unsigned long size_t;
        extern int work(void *, const void *, size_t, size_t *);
        __attribute__((noipa)) static int wr(void *s, const void *b, size_t n, size_t flags, size_t *put) {
            return work(s, b, n + flags, put) + 1; }
        int SSL_write(void *s, const void *b, int n) {
            size_t put; if (n < 0) return -1;
            int r = wr(s, b, n, 0, &put); return r > 0 ? (int)put : r; }
        int SSL_write_ex2(void *s, const void *b, size_t n, size_t flags, size_t *put) {
            int r = wr(s, b, n, flags, put); return r < 0 ? 0 : r; }
        int SSL_write_ex(void *s, const void *b, size_t n, size_t *put) {
            return SSL_write_ex2(s, b, n, 0, put); }";
    let sources = [
        source.to_owned(),
        // Without SSL_write_ex2, the flags that SSL_write_ex puts in tell as much.
        source.replace("int SSL_write_ex2", "static inline int SSL_write_ex2"),
    ];
    for source in sources {
        // By `cc`: others pass no constant flags to a function of their own.
        let plan = plan_of(Machine::X86_64, &source).unwrap();
        let expected = [("ssl_write_internal", Dir::Out, Count::OutArg(4))];
        assert_eq!(data_probes(&plan), expected, "{source}");
    }
}

#[test]
fn library_without_ex_functions_works() {
    let source = "extern int work(void *, void *, int);
        int SSL_read(void *s, void *b, int n) { return work(s, b, n) + 1; }
        int SSL_write(void *s, void *b, int n) { return work(s, b, n) + 2; }";
    for plan in plan_for(source) {
        let plan = plan.unwrap();
        let expected = [
            ("SSL_read", Dir::In, Count::Return),
            ("SSL_write", Dir::Out, Count::Return),
        ];
        assert_eq!(data_probes(&plan), expected);
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        let nothing = Layout {
            unfreed: true,
            ..Layout::default()
        };
        assert_eq!(plan.layout, nothing);
    }
}

#[test]
fn read_ex_over_read_needs_one_probe() {
    // As LibreSSL does it; early data there does nothing, but is not known to.
    let source = "typedef unsigned long size_t;
        extern int work(void *, void *, int);
        void SSL_CTX_load_verify_mem(void) {}
        int SSL_read(void *s, void *b, int n) { return work(s, b, n) + 1; }
        int SSL_read_ex(void *s, void *b, size_t n, size_t *got) {
            if (n > 0x7fffffff) return 0;
            int r = SSL_read(s, b, (int)n); if (r < 0) r = 0; *got = r; return r > 0; }
        int SSL_read_early_data(void *s, void *b, size_t n, size_t *got) { *got = 0; return 2; }";
    // By `cc`: others put SSL_read into SSL_read_ex.
    let plan = plan_of(Machine::X86_64, source).unwrap();
    assert_eq!(plan.flavor, Flavor::LibreSsl);
    let expected = [
        ("SSL_read", Dir::In, Count::Return),
        ("SSL_read_early_data", Dir::In, Count::OutArg(3)),
    ];
    assert_eq!(data_probes(&plan), expected);
}

#[test]
fn damaged_code_never_panics() {
    for machine in BOTH {
        let mut data = library(machine, &INNER.replace("PEEK", "pk"), &["-O2", "-s"]);
        let (offset, size) = {
            let elf = Elf::parse(&data).unwrap();
            let found = elf.find(&["SSL_read_ex"]);
            let symbol = &found["SSL_read_ex"];
            let offset = elf.file_offset(symbol.vaddr).unwrap();
            (
                usize::try_from(offset).unwrap(),
                usize::try_from(symbol.size).unwrap(),
            )
        };
        for at in offset..offset + size {
            for value in [0x00, 0x0f, 0x66, 0xe9, 0xeb, 0xff] {
                let old = std::mem::replace(&mut data[at], value);
                let _ = plan(&Elf::parse(&data).unwrap(), "damaged");
                data[at] = old;
            }
        }
    }
}
