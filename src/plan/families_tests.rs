//! Over libraries made from C, of both machines, and those that are installed.

use super::*;
use crate::discovery::elf::Machine;
use crate::plan::compiled::{BOTH, library};

fn planned(data: &[u8]) -> Option<Plan> {
    let mut plans = plan(&Elf::parse(data).unwrap(), "test").unwrap();
    plans.pop().map(Result::unwrap)
}

fn actions(plan: &Plan) -> Vec<(&str, Action)> {
    let probes = plan.probes.iter();
    probes.map(|p| (p.func.as_str(), p.action)).collect()
}

#[test]
fn gnutls_is_probed_once_per_call_and_tells_its_version() {
    let Ok(data) = std::fs::read("/usr/lib/x86_64-linux-gnu/libgnutls.so.30") else {
        return;
    };
    let plan = planned(&data).unwrap();
    assert_eq!(plan.flavor, Flavor::GnuTls);
    let actions = actions(&plan);
    assert!(actions.contains(&("gnutls_record_send2", write(Count::ReturnAhead))));
    assert!(actions.contains(&("gnutls_record_uncork", write(Count::ToldBefore))));
    // It only jumps to gnutls_record_send2.
    assert!(
        actions
            .iter()
            .all(|(name, _)| *name != "gnutls_record_send")
    );
    assert!(matches!(plan.layout.version.as_deref(), Some([_, 8])));
    assert_eq!((plan.layout.server, plan.layout.client), (Some(vec![0]), 2));
}

#[test]
fn a_function_that_changes_what_it_hands_on_is_probed_too() {
    let source = "
        long s2n_send(void *c, const void *b, long n, int *blocked) {
            return *(volatile long *)c + n; }
        long s2n_sendv(void *c, const void *b, long n, int *blocked) {
            return s2n_send(c, (char *)b + 1, n, blocked); }
        long s2n_recv(void *c, void *b, long n, int *blocked) { return *blocked; }
        int s2n_connection_get_actual_protocol_version(unsigned char *c) { return c[40]; }";
    for machine in BOTH {
        let plan = planned(&library(machine, source, &["-O2"]));
        if machine != Machine::HOST {
            assert!(plan.is_some());
            continue;
        }
        let plan = plan.unwrap();
        assert_eq!(plan.flavor, Flavor::S2n);
        let expected = [
            ("s2n_recv", read(Count::WideReturn)),
            ("s2n_send", write(Count::WideReturn)),
            ("s2n_sendv", write(Count::Vector(None))),
        ];
        assert_eq!(actions(&plan), expected);
        assert_eq!(plan.layout.version, Some(vec![40]));
    }
}

#[test]
fn a_function_that_only_jumps_to_its_like_is_not_probed() {
    let source = "
        long gnutls_record_send2(void *s, const void *b, unsigned long n, int pad, int flags) {
            return *(volatile long *)s + pad; }
        long gnutls_record_send(void *s, const void *b, unsigned long n) {
            return gnutls_record_send2(s, b, n, 0, 0); }";
    for options in [
        &["-O2"][..],
        &["-O2", "-fno-plt"],
        &["-O2", "-Wl,-Bsymbolic"],
    ] {
        let plan = planned(&library(Machine::X86_64, source, options)).unwrap();
        let expected = [("gnutls_record_send2", write(Count::ReturnAhead))];
        assert_eq!(actions(&plan), expected, "{options:?}");
    }
}

#[test]
fn names_of_nss_alone_prove_nothing() {
    let source = "int ssl_Read(void *f, void *b, int n) { return n; }";
    assert_eq!(planned(&library(Machine::X86_64, source, &["-O2"])), None);
    let proof = format!("{source} void *SSL_ImportFD(void *m, void *f) {{ return m; }}");
    let plan = planned(&library(Machine::X86_64, &proof, &["-O2"])).unwrap();
    assert_eq!(plan.flavor, Flavor::Nss);
}

#[test]
fn of_two_libraries_in_one_file_both_are_planned() {
    let source = "
        int mbedtls_ssl_write(void *s, const void *b, unsigned long n) { return n; }
        int wolfSSL_write(void *s, const void *b, int n) { return n; }";
    let data = library(Machine::HOST, source, &["-O2"]);
    let plans = crate::plan::plan(&Elf::parse(&data).unwrap(), "test").unwrap();
    let flavors: Vec<Flavor> = plans.iter().map(|plan| plan.flavor).collect();
    assert_eq!(flavors, [Flavor::WolfSsl, Flavor::MbedTls]);
}

#[test]
fn where_a_function_cannot_carry_a_probe_the_one_that_does_its_work_is_probed() {
    let source = r#"
        __attribute__((noinline, visibility("hidden")))
        long s2n_recv_impl(void *c, void *b, long n, int *blocked) { return *blocked + n; }
        __asm__(".text\n.globl s2n_recv\n.type s2n_recv, @function\n"
            // cs push %rbx
            "s2n_recv: .byte 0x2e, 0x53\n sub $16, %rsp\n call CALLEE\n add $16, %rsp\n pop %rbx\n ret\n"
            ".size s2n_recv, .-s2n_recv\n");
        long s2n_send(void *c, const void *b, long n, int *blocked) {
            return s2n_recv_impl(c, 0, n, blocked) + 1; }"#;
    let of = |callee| {
        let source = source.replace("CALLEE", callee);
        planned(&library(Machine::X86_64, &source, &["-O2"])).unwrap()
    };
    let found = of("s2n_recv_impl");
    let expected = [
        ("s2n_recv_impl", read(Count::WideReturn)),
        ("s2n_send", write(Count::WideReturn)),
    ];
    assert_eq!(actions(&found), expected);
    let other = of("s2n_send");
    assert_eq!(actions(&other), expected[1..]);
    assert!(other.notes[0].starts_with("s2n_recv is not seen"));
}
