//! Learns structure offsets from the code of a library's getters.
//!
//! No table of versions: `SSL_get_rbio` is executed symbolically, and what it returns says where
//! `rbio` is. Where the paths of a getter disagree and nothing settles it, the answer is unknown.

use crate::discovery::elf::{Elf, Symbol};
use crate::plan::disasm::Decoder;
use crate::plan::symbolic::{self, Base, Callee, Run, TypeCheck, Value};
use crate::plan::{BioLayout, Layout, LoadChain};
use std::collections::{BTreeSet, HashMap};

/// The functions that [`ssl_layout`] wants to look at.
pub const SSL_GETTERS: [&str; 8] = [
    "SSL_get_rbio",
    "SSL_version",
    "SSL_is_server",
    "SSL_get0_alpn_selected",
    "SSL_get_servername",
    "SSL_up_ref",
    "SSL_get_client_random",
    "SSL_get_server_random",
];

/// Getters are small; more than this of one is never looked at.
const MAX_GETTER: u64 = 4096;

/// Learns the layout of `SSL` from those of [`SSL_GETTERS`] that were found.
pub fn ssl_layout(elf: &Elf<'_>, decoder: &Decoder, found: &HashMap<&str, Symbol>) -> Layout {
    let run = |name: &str| found.get(name).map(|symbol| execute(elf, decoder, symbol));
    let returned = |name: &str, sizes: &[u8]| run(name).and_then(|r| returned_chain(&r, sizes));
    Layout {
        rbio: returned("SSL_get_rbio", &[8]),
        // BoringSSL keeps the version in 16 bits.
        version: returned("SSL_version", &[4, 2]),
        server: returned("SSL_is_server", &[4]),
        alpn: run("SSL_get0_alpn_selected").and_then(|r| alpn(&r)),
        sni: returned("SSL_get_servername", &[8]),
        references: run("SSL_up_ref").and_then(|r| references(&r)),
        client_random: run("SSL_get_client_random").and_then(|r| copied(&r)),
        server_random: run("SSL_get_server_random").and_then(|r| copied(&r)),
        ..Layout::default()
    }
}

/// Learns the layout of `BIO` from a libcrypto, or from a program that contains one.
pub fn bio_layout(elf: &Elf<'_>) -> Option<BioLayout> {
    let names = [
        "BIO_method_type",
        "BIO_test_flags",
        "BIO_get_data",
        "BIO_next",
    ];
    let found = elf.find(&names);
    let decoder = Decoder::of(elf.machine()).ok()?;
    let run = |name: &str| found.get(name).map(|symbol| execute(elf, &decoder, symbol));
    let method = match returned_chain(&run("BIO_method_type")?, &[4])?.as_slice() {
        // The type is the first field of the method.
        [method, 0] => *method,
        _ => return None,
    };
    let flags = run("BIO_test_flags")?;
    let mut flags = flags
        .loads
        .iter()
        .filter(|l| l.from.base == Base::Arg(0) && l.size == 4)
        .map(|l| l.from.plus);
    // `int flags; int retry_reason; int num;` in every version since SSLeay.
    let num = u32::try_from(flags.next()?.checked_add(8)?).ok()?;
    if flags.next().is_some() {
        return None;
    }
    // `int num; references or padding; void *ptr;`
    if let Some(getter) = run("BIO_get_data") {
        match returned_chain(&getter, &[8])?.as_slice() {
            [ptr] if num.checked_add(8) == Some(*ptr) => {}
            _ => return None,
        }
    }
    match returned_chain(&run("BIO_next")?, &[8])?.as_slice() {
        [next] => Some(BioLayout {
            method,
            num,
            next: *next,
        }),
        _ => None,
    }
}

fn execute(elf: &Elf<'_>, decoder: &Decoder, symbol: &Symbol) -> Run {
    symbolic::execute(elf, decoder, symbol.vaddr, symbol.size.min(MAX_GETTER))
}

/// The field of one of these sizes that a getter returns.
pub(super) fn returned_field(
    elf: &Elf<'_>,
    decoder: &Decoder,
    getter: &Symbol,
    sizes: &[u8],
) -> Option<LoadChain> {
    returned_chain(&execute(elf, decoder, getter), sizes)
}

/// The field that a getter returns.
fn returned_chain(run: &Run, sizes: &[u8]) -> Option<LoadChain> {
    if run.incomplete {
        return None;
    }
    let returned = run
        .returns
        .iter()
        .map(|(value, checked)| (*value, *checked));
    settle(run, returned, sizes)
}

/// The one chain among the values: where a path has checked that the object is a TLS connection
/// (and no QUIC one), only such paths count; then the shortest chain, for copies of the field in
/// the session or the handshake hang one pointer further.
fn settle(
    run: &Run,
    values: impl Iterator<Item = (Value, TypeCheck)>,
    sizes: &[u8],
) -> Option<LoadChain> {
    let mut chains: Vec<(LoadChain, TypeCheck)> = values
        .filter_map(|(value, checked)| {
            let (chain, size) = run.chain(value)?;
            sizes.contains(&size).then_some((chain, checked))
        })
        .collect();
    if chains.iter().any(|(_, c)| *c == TypeCheck::IsZero) {
        chains.retain(|(_, c)| *c == TypeCheck::IsZero);
    }
    let shortest = chains.iter().map(|(chain, _)| chain.len()).min()?;
    let mut distinct: BTreeSet<LoadChain> = chains
        .into_iter()
        .map(|(chain, _)| chain)
        .filter(|chain| chain.len() == shortest)
        .collect();
    let only = distinct.pop_first()?;
    distinct.is_empty().then_some(only)
}

/// `SSL_get0_alpn_selected(ssl, const unsigned char **data, unsigned *len)` stores both.
fn alpn(run: &Run) -> Option<(LoadChain, LoadChain)> {
    if run.incomplete {
        return None;
    }
    let stored = |arg| {
        let stores = run
            .stores
            .iter()
            .filter(move |s| s.arg == arg && s.plus == 0);
        stores.map(|s| (s.value, s.checked))
    };
    let data = settle(run, stored(1), &[8])?;
    let len = settle(run, stored(2), &[4, 8])?;
    // Both are fields of the same structure.
    let same = data.split_last()?.1 == len.split_last()?.1;
    same.then_some((data, len))
}

/// What a getter copies to its argument 1: with `memcpy` or a function in its place, or with loads
/// and stores, the first of which tells where it begins. Their loop over an unknown length makes
/// the run incomplete; that the bytes leave the process is checked each time they are used.
fn copied(run: &Run) -> Option<LoadChain> {
    let stored = run.stores.iter().filter(|s| s.arg == 1 && s.plus == 0);
    let stored = stored.map(|s| (s.value, s.checked));
    if let Some(chain) = settle(run, stored, &[1, 2, 4, 8, 16]) {
        return Some(chain);
    }
    let called = run.calls.iter().filter(|c| c.args[0] == Value::arg(1));
    let chains: BTreeSet<LoadChain> = called.filter_map(|c| run.address(c.args[1])).collect();
    // A QUIC connection has its TLS connection one pointer further.
    let shortest = chains.iter().map(Vec::len).min()?;
    let mut chains = chains.into_iter().filter(|c| c.len() == shortest);
    chains.next().filter(|_| chains.next().is_none())
}

/// `SSL_up_ref` adds to the count with a locked instruction, in `LibreSSL` with a call that is
/// given its address, or on arm64 with a call of `__aarch64_ldadd4_relax(1, &references)`, which
/// the compiler puts into each library and `strip` leaves without a name.
fn references(run: &Run) -> Option<LoadChain> {
    let one = Value {
        base: Base::Zero,
        plus: 1,
    };
    let called = run.calls.iter().filter_map(|call| match &call.callee {
        Callee::Import(name) if name == "CRYPTO_add_lock" || name == "CRYPTO_atomic_add" => {
            Some(call.args[0])
        }
        Callee::Local(_) if call.args[0] == one => Some(call.args[1]),
        _ => None,
    });
    let mut distinct: BTreeSet<u32> = run
        .locked
        .iter()
        .copied()
        .chain(called)
        .filter(|at| at.base == Base::Arg(0))
        .filter_map(|at| u32::try_from(at.plus).ok())
        .collect();
    let only = distinct.pop_first()?;
    distinct.is_empty().then(|| vec![only])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::elf::Machine;
    use crate::plan::compiled::{BOTH, library};
    use std::process::Command;

    const LIBSSL: &str = "/lib/x86_64-linux-gnu/libssl.so.3";
    const LIBCRYPTO: &str = "/lib/x86_64-linux-gnu/libcrypto.so.3";

    /// The layout that is learnt from getters written in C.
    fn learn_of(machine: Machine, source: &str, options: &[&str]) -> Layout {
        let data = library(machine, source, options);
        let elf = Elf::parse(&data).unwrap();
        let decoder = Decoder::of(machine).unwrap();
        ssl_layout(&elf, &decoder, &elf.find(&SSL_GETTERS))
    }

    /// As `cc` compiles them: how a choice is compiled is another matter with each compiler.
    fn learn(source: &str, options: &[&str]) -> Layout {
        learn_of(Machine::X86_64, source, options)
    }

    #[test]
    fn layout_of_the_system_library_is_what_its_functions_do() {
        let data = std::fs::read(LIBSSL).unwrap();
        let elf = Elf::parse(&data).unwrap();
        let decoder = Decoder::x86_64().unwrap();
        let layout = ssl_layout(&elf, &decoder, &elf.find(&SSL_GETTERS));
        let crypto = std::fs::read(LIBCRYPTO).unwrap();
        let bio = bio_layout(&Elf::parse(&crypto).unwrap()).unwrap();
        let one = |chain: Option<LoadChain>| match chain.as_deref() {
            Some([offset]) => *offset,
            other => panic!("{other:?}"),
        };
        let source = r#"
            #include <openssl/ssl.h>
            #include <stdlib.h>
            #include <string.h>
            #define AT(p, n, type) (*(type *)((char *)(p) + atoi(argv[n])))
            int main(int argc, char **argv) {
                SSL_CTX *ctx = SSL_CTX_new(TLS_method());
                SSL *ssl = SSL_new(ctx);
                BIO *in = BIO_new(BIO_s_socket()), *out = BIO_new(BIO_s_mem());
                BIO_set_fd(in, 1234, BIO_NOCLOSE);
                SSL_set_bio(ssl, in, out);
                SSL_set_accept_state(ssl);
                SSL_set_tlsext_host_name(ssl, "name.test");
                SSL_up_ref(ssl);
                BIO_push(in, out);
                if (AT(ssl, 1, BIO *) != in) return 1;
                if (AT(ssl, 2, int) != SSL_version(ssl)) return 2;
                if (AT(ssl, 3, int) != 1) return 3;
                if (AT(ssl, 4, int) != 2) return 4;
                if (strcmp(AT(ssl, 5, char *), "name.test")) return 5;
                if (AT(in, 7, int) != 1234) return 7;
                if (*AT(in, 6, int *) != BIO_TYPE_SOCKET) return 6;
                SSL *client = SSL_new(ctx);
                BIO *out_of_client = BIO_new(BIO_s_mem()), *out_of_server = BIO_new(BIO_s_mem());
                SSL_set_bio(client, out_of_server, out_of_client);
                SSL_set_connect_state(client);
                SSL_do_handshake(client);
                char random[32];
                SSL_get_client_random(client, random, 32);
                if (memcmp(&AT(client, 9, char), random, 32)) return 9;
                char sent[43];
                if (BIO_read(out_of_client, sent, 43) != 43) return 11;
                if (memcmp(sent + 11, random, 32)) return 12;
                memcpy(&AT(client, 10, char), "0123456789abcdef0123456789abcdef", 32);
                SSL_get_server_random(client, random, 32);
                if (memcmp(random, "0123456789abcdef0123456789abcdef", 32)) return 10;
                if (AT(in, 8, BIO *) != out) return 8;
                return 0;
            }"#;
        let dir = tempfile::tempdir().unwrap();
        let (input, program) = (dir.path().join("truth.c"), dir.path().join("truth"));
        std::fs::write(&input, source).unwrap();
        let compiled = Command::new("cc")
            .arg("-o")
            .arg(&program)
            .arg(&input)
            .args(["-lssl", "-lcrypto"])
            .status();
        if !compiled.is_ok_and(|s| s.success()) {
            return;
        }
        let offsets = [
            one(layout.rbio),
            one(layout.version),
            one(layout.server),
            one(layout.references),
            one(layout.sni),
            bio.method,
            bio.num,
            bio.next,
            one(layout.client_random),
            one(layout.server_random),
        ];
        let status = Command::new(&program)
            .args(offsets.map(|o| o.to_string()))
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{offsets:#x?}");
        let (alpn, alpn_len) = layout.alpn.unwrap();
        assert_eq!(one(Some(alpn)) + 8, one(Some(alpn_len)));
    }

    /// OpenSSL 1.1.1: a second structure behind the handle.
    const S3: &str = "
        struct s3 { long a[7]; char *alpn; unsigned long alpn_len; };
        struct ssl { int version; void *method; void *rbio; struct s3 *s3; };
        void SSL_get0_alpn_selected(struct ssl *s, char **data, unsigned *len) {
            *data = 0;
            if (s->s3) *data = s->s3->alpn;
            if (*data == 0) *len = 0; else *len = s->s3->alpn_len;
        }";

    #[test]
    fn chains_of_pointers_are_followed_however_compiled() {
        for options in [&["-O2"], &["-O0"], &["-Os"]] {
            let layout = learn(S3, options);
            let expected = (vec![24, 56], vec![24, 64]);
            // Without optimisation, `*data` is read back through the argument: then unknown.
            match layout.alpn {
                None => assert_eq!(options, &["-O0"]),
                Some(alpn) => assert_eq!(alpn, expected, "{options:?}"),
            }
        }
    }

    #[test]
    fn type_check_of_quic_decides_between_paths() {
        let source = "
            struct ssl { int type; int x; void *tls; char pad[0x40]; void *rbio; int version; };
            struct ssl *other(struct ssl *);
            void *SSL_get_rbio(struct ssl *s) {
                struct ssl *c = !s ? 0 : s->type == 0 ? s : s->type & 0x80 ? s->tls : 0;
                return c ? c->rbio : 0;
            }
            int SSL_version(struct ssl *s) {
                if (s->type == 0) return s->version;
                return *(int *)((char *)s + 12);
            }";
        let layout = learn(source, &["-O2"]);
        assert_eq!(layout.rbio, Some(vec![0x50]));
        assert_eq!(layout.version, Some(vec![0x58]));
    }

    #[test]
    fn paths_that_disagree_make_it_unknown() {
        let source = "
            struct ssl { long a; int *b; int c, d; };
            int SSL_version(struct ssl *s) { return s->a ? s->c : s->d; }
            int SSL_is_server(struct ssl *s) { return s->c & 1; }
            void *SSL_get_rbio(struct ssl *s) { return s->b + 5; }";
        let layout = learn(source, &["-O2", "-fno-if-conversion"]);
        assert_eq!(layout, Layout::default());
    }

    #[test]
    fn nearest_name_wins_over_that_of_the_session() {
        let source = "
            struct session { long x; char *name; };
            struct ssl { struct session *session; char *name; int server; };
            int busy(struct ssl *);
            char *SSL_get_servername(struct ssl *s, int type) {
                if (type) return 0;
                if (s->server && busy(s)) return s->session->name;
                return s->session && !s->name ? s->session->name : s->name;
            }";
        for machine in BOTH {
            let layout = learn_of(machine, source, &["-O2"]);
            assert_eq!(layout.sni, Some(vec![8]), "{machine:?}");
        }
    }

    #[test]
    fn fields_and_chains_are_found_on_both_machines() {
        let source = "
            struct s3 { long a[7]; char *alpn; unsigned long alpn_len; };
            struct ssl { int version; void *method; void *rbio; struct s3 *s3; int server; };
            void SSL_get0_alpn_selected(struct ssl *s, char **data, unsigned *len) {
                *data = s->s3->alpn; *len = s->s3->alpn_len; }
            void *SSL_get_rbio(struct ssl *s) { return s->rbio; }
            int SSL_version(struct ssl *s) { return s->version; }
            int SSL_is_server(struct ssl *s) { return s->server; }";
        for machine in BOTH {
            for option in ["-O2", "-Os"] {
                let layout = learn_of(machine, source, &[option]);
                assert_eq!(layout.rbio, Some(vec![16]), "{machine:?}");
                assert_eq!(layout.version, Some(vec![0]), "{machine:?}");
                assert_eq!(layout.server, Some(vec![32]), "{machine:?}");
                let alpn = (vec![24, 56], vec![24, 64]);
                assert_eq!(layout.alpn, Some(alpn), "{machine:?}");
            }
        }
    }

    #[test]
    fn what_is_copied_is_found_inline_and_by_memcpy() {
        // OpenSSL 1.1.1 and BoringSSL have a pointer more than OpenSSL 3.
        let source = "
            typedef unsigned long size;
            struct s3 { long a[9]; unsigned char server_random[32], client_random[32]; };
            struct ssl { long a[2]; struct s3 *s3; struct s3 in; };
            void *memcpy(void *, const void *, size);
            size SSL_get_client_random(const struct ssl *s, unsigned char *out, size len) {
                if (len == 0) return sizeof(s->in.client_random);
                if (len > sizeof(s->in.client_random)) len = sizeof(s->in.client_random);
                memcpy(out, s->in.client_random, len);
                return len;
            }
            size SSL_get_server_random(const struct ssl *s, unsigned char *out, size len) {
                if (len == 0) return sizeof(s->s3->server_random);
                if (len > sizeof(s->s3->server_random)) len = sizeof(s->s3->server_random);
                memcpy(out, s->s3->server_random, len);
                return len;
            }";
        for machine in BOTH {
            for options in [&["-O2"][..], &["-O1"], &["-O2", "-fno-builtin"]] {
                let layout = learn_of(machine, source, options);
                let found = (layout.client_random, layout.server_random);
                let expected = (Some(vec![24 + 72 + 32]), Some(vec![16, 72]));
                assert_eq!(found, expected, "{machine:?} {options:?}");
            }
        }
    }

    #[test]
    fn what_is_copied_of_a_quic_connection_does_not_count() {
        let source = "
            typedef unsigned long size;
            struct ssl { int type; long a[2]; struct ssl *tls; unsigned char random[32]; };
            struct ssl *of_quic(struct ssl *);
            void *memcpy(void *, const void *, size);
            size SSL_get_client_random(struct ssl *s, unsigned char *out, size len) {
                s = !s ? 0 : s->type == 0 ? s : s->type & 128 ? s->tls : 0;
                if (!s) return 0;
                if (len == 0) return sizeof(s->random);
                if (len > sizeof(s->random)) len = sizeof(s->random);
                memcpy(out, s->random, len);
                return len;
            }";
        for machine in BOTH {
            for options in [&["-O2"][..], &["-O2", "-fno-builtin"]] {
                let layout = learn_of(machine, source, options);
                assert_eq!(
                    layout.client_random,
                    Some(vec![32]),
                    "{machine:?} {options:?}"
                );
            }
        }
    }

    #[test]
    fn references_are_counted_inline_or_by_a_function_of_the_compiler() {
        let inline = "
            struct ssl { long a[5]; int references; };
            int SSL_up_ref(struct ssl *s) {
                return __atomic_fetch_add(&s->references, 1, __ATOMIC_RELAXED) > 0; }";
        let outline = "
            struct ssl { long a[5]; int references; };
            __attribute__((visibility(\"hidden\"))) int ldadd(int, int *);
            __asm__(\".text\\nldadd: ret\\n\");
            int SSL_up_ref(struct ssl *s) { return ldadd(1, &s->references) > 0; }";
        for (machine, source, options) in [
            (Machine::X86_64, inline, &["-O2", "-s"][..]),
            (Machine::Aarch64, inline, &["-O2", "-s", "-march=armv8.1-a"]),
            (Machine::Aarch64, outline, &["-O2", "-s"]),
        ] {
            let layout = learn_of(machine, source, options);
            assert_eq!(layout.references, Some(vec![40]), "{machine:?} {source}");
        }
    }
}
