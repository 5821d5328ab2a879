//! Over libraries made from C, whose symbols say what should have been found without them.

use super::*;
use crate::discovery::elf::Machine;
use crate::plan::compiled::{BOTH, library};

/// As much code as a TLS library has, and how OpenSSL 3 reports an error.
const OPENSSL: &str = r#"
    #define HIDDEN __attribute__((visibility("hidden"), noinline))
    #define PUBLIC __attribute__((noinline))
    typedef unsigned long size_t;
    __asm__(".text\n.skip 200000\n.balign 16\n");
    struct method { void *a[3]; int (*read)(void *, void *, size_t, size_t *);
        int (*write)(void *, const void *, size_t, size_t *); int (*peek)(void *, void *, size_t, size_t *); };
    typedef struct { int version; struct method *method; void *rbio; int (*handshake)(void *);
        int server, shutdown, references; long ex_data; } SSL;
    volatile int last;
    void put(const char *file, int line, const char *func, int code);
    void free_ex_data(int class, void *of, long *data);
    void free_memory(void *of, const char *file, int line);
    void clear_state(SSL *s);
    #ifndef NUMBERS
    #define ERROR(func, number, reason) put("../ssl/ssl_lib.c", __LINE__, func, reason)
    #else
    void put_error(int lib, int func, int reason, const char *file, int line);
    #define ERROR(func, number, reason) put_error(20, number, reason, "../ssl/ssl_lib.c", __LINE__)
    #endif
    PUBLIC int ssl_read_internal(SSL *s, void *buf, size_t num, size_t *count) {
        if (!s->handshake) { ERROR("ssl_read_internal", 523, 276); return -1; }
        if (s->shutdown & 2) return 0;
        return s->method->read(s, buf, num, count);
    }
    PUBLIC int SSL_read(SSL *s, void *buf, int num) {
        size_t count; int ret;
        if (num < 0) { ERROR("SSL_read", 223, 271); return -1; }
        ret = ssl_read_internal(s, buf, num, &count);
        return ret > 0 ? (int)count : ret;
    }
    PUBLIC int SSL_peek(SSL *s, void *buf, int num) {
        size_t count; int ret;
        if (num < 0) { ERROR("SSL_peek", 270, 271); return -1; }
        if (!s->handshake) { ERROR("ssl_peek_internal", 522, 276); return -1; }
        ret = s->method->peek(s, buf, num, &count);
        return ret > 0 ? (int)count : ret;
    }
    PUBLIC int ssl_write_internal(SSL *s, const void *buf, size_t num, WRITE_FLAGS size_t *count) {
        if (!s->handshake) { ERROR("ssl_write_internal", 524, 276); return -1; }
        if (s->shutdown & 1) { ERROR("ssl_write_internal", 524, 207); return -1; }
        return s->method->write(s, buf, num, count);
    }
    PUBLIC int SSL_write(SSL *s, const void *buf, int num) {
        size_t count; int ret;
        if (num < 0) { ERROR("SSL_write", 208, 271); return -1; }
        ret = ssl_write_internal(s, buf, num, NO_FLAGS &count);
        return ret > 0 ? (int)count : ret;
    }
    PUBLIC int SSL_do_handshake(SSL *s) {
        if (!s->handshake) { ERROR("SSL_do_handshake", 180, 144); return -1; }
        return s->handshake(s);
    }
    PUBLIC int SSL_connect(SSL *s) {
        if (!s->handshake) { s->server = 0; s->shutdown = 0; clear_state(s); s->handshake = s->method->a[1]; }
        return SSL_do_handshake(s);
    }
    PUBLIC int SSL_accept(SSL *s) {
        if (!s->handshake) { s->server = 1; s->shutdown = 0; clear_state(s); s->handshake = s->method->a[2]; }
        return SSL_do_handshake(s);
    }
    PUBLIC int SSL_read_early_data(SSL *s, void *buf, size_t num, size_t *count) {
        if (!s->server) { ERROR("SSL_read_early_data", 529, 66); return 0; }
        return SSL_accept(s) > 0 && ssl_read_internal(s, buf, num, count) > 0;
    }
    PUBLIC int SSL_write_early_data(SSL *s, void *buf, size_t num, size_t *count) {
        if (s->server) { ERROR("SSL_write_early_data", 526, 66); return 0; }
        return SSL_connect(s) > 0 && ssl_write_internal(s, buf, num, NO_FLAGS count) > 0;
    }
    PUBLIC int SSL_shutdown(SSL *s) {
        if (!s->handshake) { ERROR("SSL_shutdown", 224, 276); return -1; }
        return ((int (*)(void *))s->method->a[0])(s);
    }
    PUBLIC void CTX_free(SSL *s) {
        if (!s || __atomic_sub_fetch(&s->references, 1, __ATOMIC_RELAXED) > 0) return;
        free_ex_data(1, s, &s->ex_data);
        free_memory(s, "../ssl/ssl_lib.c", __LINE__);
    }
    PUBLIC void SSL_free(SSL *s) {
        if (!s || __atomic_sub_fetch(&s->references, 1, __ATOMIC_RELAXED) > 0) return;
        free_ex_data(0, s, &s->ex_data);
        free_memory(s, "../ssl/ssl_lib.c", __LINE__);
    }
    int program(SSL *s, char *b, size_t *n) {
        last = SSL_read(s, b, 1); last = SSL_write(s, b, 2); last = SSL_peek(s, b, 2); last = SSL_shutdown(s);
        last = SSL_read_early_data(s, b, 3, n); last = SSL_write_early_data(s, b, 4, n);
        last = SSL_connect(s); last = SSL_accept(s); SSL_free(s); CTX_free(s); return SSL_do_handshake(s); }
"#;

const OPENSSL_FOUND: [&str; 11] = [
    "SSL_read",
    "ssl_read_internal",
    "SSL_write",
    "ssl_write_internal",
    "SSL_do_handshake",
    "SSL_shutdown",
    "SSL_free",
    "SSL_peek",
    "SSL_read_early_data",
    "SSL_connect",
    "SSL_accept",
];

/// BoringSSL, as far as its structure tells the functions from each other.
const BORINGSSL: &str = r#"
    #define HIDDEN __attribute__((visibility("hidden"), noinline))
    #define PUBLIC __attribute__((noinline))
    typedef unsigned long size_t;
    __asm__(".text\n.skip 200000\n.balign 16\n");
    typedef struct { char *data; size_t len; int error; } S3;
    typedef struct { void *a[9]; int (*write)(void *, char *, size_t *, const void *, size_t); } Method;
    typedef struct { Method *method; int (*handshake)(void *); S3 *s3; void *quic; unsigned char server; } SSL;
    volatile int last;
    void put_error(int lib, int unused, int reason, const char *file, int line);
    #define ERROR(reason) put_error(16, 0, reason, "third_party/boringssl/ssl/ssl_lib.cc", __LINE__)
    void copy(char *to, const char *from, size_t n);
    void discard(S3 *s);
    HIDDEN int client_handshake(void *s) { return last + !s; }
    HIDDEN int server_handshake(void *s) { return last - !s; }
    #define LONG discard(s->s3); discard(s->s3); discard(s->s3); discard(s->s3); discard(s->s3); discard(s->s3);
    PUBLIC int SSL_do_handshake(SSL *s) {
        s->s3->error = 0;
        if (!s->handshake) { ERROR(134); return -1; }
        LONG LONG LONG LONG LONG LONG
        return s->handshake(s);
    }
    PUBLIC int SSL_connect(SSL *s) {
        if (!s->handshake) { s->server &= 0xfe; s->handshake = client_handshake; }
        return SSL_do_handshake(s);
    }
    PUBLIC int SSL_accept(SSL *s) {
        if (!s->handshake) { s->server |= 1; s->handshake = server_handshake; }
        return SSL_do_handshake(s);
    }
    HIDDEN int read_impl(SSL *s) {
        s->s3->error = 0;
        if (!s->handshake) { ERROR(226); return -1; }
        while (!s->s3->len) {
            int ret = SSL_do_handshake(s);
            if (ret < 0) return ret;
            if (!ret) { ERROR(215); return -1; }
            ((void (*)(void *))s->method->a[2])(s);
        }
        return 1;
    }
    PEEK int SSL_peek(SSL *s, void *buf, int num) {
        if (s->quic) { ERROR(66); return -1; }
        int ret = read_impl(s);
        if (ret <= 0) return ret;
        if (num <= 0) return num;
        size_t n = s->s3->len < (size_t)num ? s->s3->len : (size_t)num;
        copy(buf, s->s3->data, n);
        return n;
    }
    PUBLIC int SSL_read(SSL *s, void *buf, int num) {
        int ret = SSL_peek(s, buf, num);
        if (ret <= 0) return ret;
        s->s3->data += ret;
        s->s3->len -= ret;
        if (!s->s3->len) discard(s->s3);
        return ret;
    }
    PUBLIC int SSL_write(SSL *s, const void *buf, int num) {
        s->s3->error = 0;
        if (s->quic) { ERROR(66); return -1; }
        if (!s->handshake) { ERROR(226); return -1; }
        int ret; size_t written = 0; char again = 0;
        do {
            if (!s->s3->len) {
                ret = SSL_do_handshake(s);
                if (ret < 0) return ret;
                if (!ret) { ERROR(215); return -1; }
            }
            if (num < 0) { ERROR(111); return -1; }
            ret = s->method->write(s, &again, &written, buf, num);
        } while (again);
        return ret <= 0 ? ret : (int)written;
    }
    PUBLIC int SSL_shutdown(SSL *s) {
        s->s3->error = 0;
        if (!s->handshake) { ERROR(226); return -1; }
        if (read_impl(s) > 0) { ERROR(291); return -1; }
        return 1;
    }
    /* A program of its own that looks, and remembers. */
    PUBLIC int look(SSL *s, char *buf, int num) {
        int (*volatile peek)(SSL *, void *, int) = SSL_peek;
        int n = SEPARATE ? SSL_peek(s, buf, num) : peek(s, buf, num);
        if (n > 0) buf[n] = 0;
        return n;
    }
    int program(SSL *s, char *b) {
        last = SSL_read(s, b, 1); last = SSL_write(s, b, 2); last = SSL_peek(s, b, 2); last = SSL_shutdown(s);
        last = look(s, b, 5); last = SSL_connect(s); last = SSL_accept(s); return SSL_do_handshake(s); }
"#;

const BORINGSSL_FOUND: [&str; 6] = [
    "SSL_read",
    "SSL_write",
    "SSL_do_handshake",
    "SSL_shutdown",
    "SSL_connect",
    "SSL_accept",
];

fn find_in(bytes: &[u8]) -> Option<Stripped> {
    let elf = Elf::parse(bytes).unwrap();
    find(&elf, &Decoder::of(elf.machine()).unwrap()).pop()
}

/// Finds the functions in a stripped library, and checks each with its twin that has symbols.
fn check(machine: Machine, source: &str, options: &[&str], flavor: Flavor, wanted: &[&str]) {
    let what = format!("{machine:?} {options:?}");
    let names = [&OPENSSL_FOUND[..], &openssl::NAMES, &BORINGSSL_FOUND].concat();
    let hidden = [options, &["-fvisibility=hidden"]].concat();
    let twin = library(machine, source, &hidden);
    let truth = Elf::parse(&twin).unwrap().find(&names);
    let stripped = library(machine, source, &[&hidden[..], &["-s"]].concat());
    let symbols = Elf::parse(&stripped).unwrap().find(&names);
    assert!(symbols.is_empty(), "{what}: it has symbols");
    let found = find_in(&stripped).unwrap_or_else(|| panic!("{what}: nothing found"));
    assert_eq!(found.flavor, flavor, "{what}");
    for (name, symbol) in &found.functions {
        let truth = truth.get(name).map(|s| s.vaddr);
        assert_eq!(Some(symbol.vaddr), truth, "{what}: {name}");
    }
    for name in wanted {
        assert!(found.functions.contains_key(name), "{what}: no {name}");
    }
}

const NO_FLAGS: [&str; 2] = ["-DWRITE_FLAGS=", "-DNO_FLAGS="];
const FLAGS: [&str; 2] = ["-DWRITE_FLAGS=long flags,", "-DNO_FLAGS=0,"];

#[test]
fn functions_of_openssl_are_found_by_the_names_they_report() {
    for machine in BOTH {
        for (level, flags) in [("-O2", NO_FLAGS), ("-O1", FLAGS), ("-Os", NO_FLAGS)] {
            let options = [flags[0], flags[1], level];
            check(machine, OPENSSL, &options, Flavor::OpenSsl, &OPENSSL_FOUND);
        }
    }
}

#[test]
fn functions_of_older_openssl_are_found_by_their_numbers() {
    for machine in BOTH {
        let options = [NO_FLAGS[0], NO_FLAGS[1], "-O2", "-DNUMBERS"];
        check(machine, OPENSSL, &options, Flavor::OpenSsl, &OPENSSL_FOUND);
    }
}

#[test]
fn functions_of_boringssl_are_found_by_their_reasons() {
    // Peeking is a function of its own that reading calls, or is a part of reading.
    for peek in [
        ["-DPEEK=PUBLIC", "-DSEPARATE=1"],
        ["-DPEEK=", "-DSEPARATE=0"],
    ] {
        for level in ["-O2", "-O1"] {
            for machine in BOTH {
                // The bit of the role is not looked for in the code of arm64.
                let wanted = match machine {
                    Machine::X86_64 => &BORINGSSL_FOUND[..],
                    _ => &BORINGSSL_FOUND[..4],
                };
                let options = [peek[0], peek[1], level];
                check(machine, BORINGSSL, &options, Flavor::BoringSsl, wanted);
            }
        }
    }
}

#[test]
fn functions_are_found_without_what_unwinds_the_stack() {
    let bare = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    for machine in BOTH {
        let options = [&bare[..], &["-DPEEK=PUBLIC", "-DSEPARATE=1", "-O2"]].concat();
        let wanted = &BORINGSSL_FOUND[..4];
        check(machine, BORINGSSL, &options, Flavor::BoringSsl, wanted);
        let options = [&bare[..], &NO_FLAGS, &["-O2"]].concat();
        check(
            machine,
            OPENSSL,
            &options,
            Flavor::OpenSsl,
            &OPENSSL_FOUND[..4],
        );
    }
}

#[test]
fn what_two_functions_claim_to_be_is_neither() {
    let twice = OPENSSL.replace(
        "int program(",
        r#"PUBLIC int other(SSL *s, void *buf, int num) {
            size_t count; int ret;
            if (num < 0) { ERROR("SSL_write", 208, 271); return -2; }
            ret = ssl_write_internal(s, buf, num, &count);
            return ret > 0 ? (int)count + 1 : ret;
        }
        int program("#,
    );
    let bytes = library(
        Machine::X86_64,
        &twice,
        &["-s", "-fvisibility=hidden", "-O2", NO_FLAGS[0], NO_FLAGS[1]],
    );
    let found = find_in(&bytes).unwrap();
    assert!(found.functions.contains_key("SSL_read"));
    assert!(!found.functions.contains_key("SSL_write"), "{found:?}");
}

#[test]
fn a_name_alone_makes_no_function() {
    // Somebody passes on these names, but no buffer.
    let source = r#"
        __asm__(".text\n.skip 200000\n.balign 16\n");
        volatile int last;
        __attribute__((noinline)) void put(const char *file, const char *func) { last += file != func; }
        void one(void) { put("ssl/ssl_lib.c", "SSL_read"); }
        void two(void) { put("ssl/ssl_lib.c", "SSL_write"); }
        void three(void) { put("ssl/ssl_lib.c", "ssl_read_internal"); }"#;
    for machine in BOTH {
        let bytes = library(machine, source, &["-O2", "-s"]);
        assert!(is_inside(&Elf::parse(&bytes).unwrap()));
        assert!(find_in(&bytes).is_none(), "{machine:?}");
    }
}

#[test]
fn a_file_cut_anywhere_has_other_functions_or_none_but_does_no_harm() {
    let options = ["-O2", "-s", "-fvisibility=hidden", NO_FLAGS[0], NO_FLAGS[1]];
    let whole = library(Machine::X86_64, OPENSSL, &options);
    let all = find_in(&whole).unwrap().functions;
    for len in (0..whole.len()).step_by(1731) {
        let Ok(elf) = Elf::parse(&whole[..len]) else {
            continue;
        };
        let decoder = Decoder::of(elf.machine()).unwrap();
        let found = find(&elf, &decoder).into_iter();
        for (name, symbol) in found.flat_map(|found| found.functions) {
            assert_eq!(
                Some(symbol.vaddr),
                all.get(name).map(|s| s.vaddr),
                "{name} at {len}"
            );
        }
    }
}

#[test]
fn a_static_program_is_planned_like_its_twin_with_symbols() {
    let dir = tempfile::tempdir().unwrap();
    let source = r#"
        #include <openssl/ssl.h>
        int main(void) {
            char b[8];
            SSL *s = SSL_new(SSL_CTX_new(TLS_method()));
            SSL_connect(s);
            SSL_accept(s);
            SSL_peek(s, b, SSL_read(s, b, SSL_write(s, b, 8)));
            SSL_free(s);
        }"#;
    let build = |name: &str, option: &str| {
        let (input, output) = (dir.path().join("in.c"), dir.path().join(name));
        std::fs::write(&input, source).unwrap();
        let done = std::process::Command::new("cc")
            .args(["-w", "-static", option, "-o"])
            .args([&output, &input])
            .args(["-lssl", "-lcrypto"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        std::fs::read(&output).unwrap()
    };
    let (twin, stripped) = (build("twin", "-O2"), build("stripped", "-s"));
    let plan_of = |bytes: &[u8]| {
        let elf = Elf::parse(bytes).unwrap();
        crate::plan::plan(&elf, "test").unwrap().remove(0)
    };
    let (known, found) = (plan_of(&twin), plan_of(&stripped));
    let moves = |plan: &crate::plan::Plan| {
        let data = |probe: &&crate::plan::Probe| {
            matches!(probe.action, crate::plan::Action::Data(..))
                && ![
                    "SSL_sendfile",
                    "SSL_read_early_data",
                    "SSL_write_early_data",
                ]
                .contains(&probe.func.as_str())
        };
        let probes = plan.probes.iter().filter(data);
        let what = probes.map(|p| (p.func.clone(), p.action, p.site.cost));
        what.collect::<Vec<_>>()
    };
    assert_eq!(moves(&known), moves(&found));
    assert!(found.found_by.is_some_and(|how| how.contains("errors")));
    assert!(found.layout.unproved && !found.layout.unfreed);
    assert!(known.found_by.is_none() && !known.layout.unproved);
    let funcs: Vec<&str> = found.probes.iter().map(|p| p.func.as_str()).collect();
    for name in ["SSL_do_handshake", "SSL_connect", "SSL_accept", "SSL_free"] {
        assert!(funcs.contains(&name), "{name} in {funcs:?}");
    }
}
