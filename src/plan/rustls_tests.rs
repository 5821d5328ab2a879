//! Plans of a rustls without symbols, of C that does what its functions do.

use super::*;
use crate::plan::compiled::{BOTH, library};

/// `CommonState` and what `write` leads to, in the order of calls.
const SOURCE: &str = r#"
    typedef unsigned long u64;
    struct state { u64 first; void *data; u64 *table; u64 sequence; unsigned char sends; };
    struct conn { u64 own[2]; struct state state; u64 waiting[4]; };
    #define NEVER_INLINE __attribute__((noipa, noinline, visibility("hidden")))
    extern void panics(const char *) __attribute__((noreturn));
    extern void put(u64 *, u64 *);
    const char *file(void) { return "/registry/rustls-0.23.5/src/conn.rs"; }
    NEVER_INLINE void encrypts(struct state *s, u64 *chunks)
    {
        u64 result[8], sequence = s->sequence;
        if (sequence == -1UL)
            panics("assertion failed: !self.encrypt_exhausted()");
        s->sequence = sequence + 1;
        ((void (*)(u64 *, void *, u64 *, u64))s->table[3])(result, s->data, chunks, sequence);
        put(result, chunks);
    }
    NEVER_INLINE u64 sends(struct state *s, u64 *chunks)
    {
        encrypts(s, chunks);
        return chunks[2];
    }
    NEVER_INLINE u64 takes(struct state *s, u64 *chunks, u64 *waiting)
    {
        if (s->sends)
            return sends(s, chunks);
        put(waiting, chunks);
        return chunks[2];
    }
    NEVER_INLINE u64 starts(struct state *s, u64 *waiting)
    {
        s->sends = 1;
        return sends(s, waiting);
    }
    u64 writes(struct conn *c, char *buf, u64 len)
    {
        u64 chunks[4] = {0, (u64)buf, len, 0};
        return takes(&c->state, chunks, c->waiting) + 1;
    }
    u64 begins(struct conn *c) { return starts(&c->state, c->waiting) + 1; }
"#;

/// Jumps from one function to another are as long as in a large file.
const OPTIONS: [&str; 2] = ["-O2", "-ffunction-sections"];

#[test]
fn what_takes_plaintext_is_found_by_what_its_callee_says_when_it_panics() {
    for machine in BOTH {
        let data = library(machine, SOURCE, &OPTIONS);
        let elf = Elf::parse(&data).unwrap();
        let decoder = Decoder::of(elf.machine()).unwrap();
        let known = elf.find(&["takes", "starts"]);
        let found = search::find(&Functions::of(&elf, &decoder));
        let at = |method| {
            let mut all = found.functions.iter().filter(|f| f.method == method);
            (all.next().map(|f| f.vaddr), all.count())
        };
        let takes = (Some(known["takes"].vaddr), 0);
        assert_eq!(at(Method::BufferPlaintext), takes, "{machine:?}");
        let starts = (Some(known["starts"].vaddr), 0);
        assert_eq!(at(Method::StartOutgoingTraffic), starts, "{machine:?}");
        assert_eq!(at(Method::TakeReceivedPlaintext), (None, 0));
    }
}

#[test]
fn its_plan_is_unproved_and_says_what_is_missing() {
    let data = library(crate::discovery::elf::Machine::HOST, SOURCE, &OPTIONS);
    let elf = Elf::parse(&data).unwrap();
    let plan = plan(&elf, "x", true).unwrap().unwrap();
    assert_eq!(plan.version.as_deref(), Some("0.23.5"));
    assert!(plan.found_by.is_some() && plan.layout.unproved);
    assert_eq!(plan.layout.encrypter, Some(vec![8]));
    assert_eq!(plan.layout.sends, Some(vec![32]));
    let actions: Vec<Action> = plan.probes.iter().map(|probe| probe.action).collect();
    let write = Action::Rustls(RustlsCall::Write(RustlsBytes::Chunks));
    assert!(actions.contains(&write) && actions.contains(&Action::Rustls(RustlsCall::Start)));
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("what is received is not seen: its function was not found"))
    );
}

#[test]
fn where_others_send_too_it_is_refused() {
    let copy =
        format!("{SOURCE} u64 copy(struct conn *c, u64 *p) {{ return sends(&c->state, p) + 2; }}");
    let data = library(crate::discovery::elf::Machine::HOST, &copy, &OPTIONS);
    let refusal = plan(&Elf::parse(&data).unwrap(), "x", true).unwrap_err();
    assert!(format!("{refusal:#}").contains("what is sent is not seen: the compiler"));
}

#[test]
fn what_offers_another_librarys_functions_on_top_of_it_is_planned_once() {
    let facade = format!(
        "{SOURCE} int SSL_write(void *s, const void *b, int n) {{ return *(volatile int *)s + n; }}"
    );
    let bare = library(
        crate::discovery::elf::Machine::HOST,
        &facade,
        &[OPTIONS[0], OPTIONS[1], "-s"],
    );
    let plans = crate::plan::plan(&Elf::parse(&bare).unwrap(), "x").unwrap();
    let flavors: Vec<Flavor> = plans.iter().map(|plan| plan.flavor).collect();
    assert_eq!(flavors, [Flavor::Rustls]);
}

/// What is received is put into a queue as what is sent is, by the same function. `INTO` is what makes
/// a vector of a payload.
const RECEIVING: &str = r#"
    typedef unsigned long u64;
    struct queue { u64 limit, room; char *at; u64 first, count; };
    struct payload { u64 kind; char *data; u64 len; };
    struct state { u64 first; void *data; u64 *table; u64 sequence; struct queue sent, received; unsigned char sends; };
    struct conn { u64 own[2]; struct state state; u64 waiting[4]; };
    #define NEVER_INLINE __attribute__((noipa, noinline, visibility("hidden")))
    extern void panics(const char *) __attribute__((noreturn));
    extern void copies(u64 *, const char *, u64);
    extern void encodes(u64 *, u64 *);
    const char *file(void) { return "/registry/rustls-0.23.5/src/conn.rs"; }
    NEVER_INLINE void grows(struct queue *q) { q->room = q->room * 2 + 4; }
    NEVER_INLINE void appends(struct queue *q, u64 *vec)
    {
        if (q->count == q->room)
            grows(q);
        ((u64 *)q->at)[q->count++] = vec[1];
    }
    NEVER_INLINE void encrypts(u64 *result, struct state *s, u64 *chunks)
    {
        u64 sequence = s->sequence;
        if (sequence == -1UL)
            panics("assertion failed: !self.encrypt_exhausted()");
        s->sequence = sequence + 1;
        ((void (*)(u64 *, void *, u64 *, u64))s->table[3])(result, s->data, chunks, sequence);
    }
    NEVER_INLINE u64 sends(struct state *s, u64 *chunks)
    {
        u64 result[8], vec[3];
        encrypts(result, s, chunks);
        encodes(vec, result);
        appends(&s->sent, vec);
        return chunks[2];
    }
    NEVER_INLINE u64 takes(struct state *s, u64 *chunks, u64 *waiting)
    {
        if (s->sends)
            return sends(s, chunks);
        encodes(waiting, chunks);
        return chunks[2];
    }
    NEVER_INLINE u64 starts(struct state *s, u64 *waiting)
    {
        s->sends = 1;
        return sends(s, waiting) + 1;
    }
    u64 begins(struct conn *c) { return starts(&c->state, c->waiting) + 1; }
    u64 writes(struct conn *c, char *buf, u64 len)
    {
        u64 chunks[4] = {0, (u64)buf, len, 0};
        return takes(&c->state, chunks, c->waiting) + 1;
    }
    INTO void into_vec(u64 *vec, struct payload *p)
    {
        if (p->kind == 1UL << 63) {
            copies(vec, p->data, p->len);
        } else {
            vec[0] = p->kind;
            vec[1] = (u64)p->data;
            vec[2] = p->len;
        }
    }
    NEVER_INLINE void receives(struct state *s, struct payload *p)
    {
        u64 vec[3];
        into_vec(vec, p);
        appends(&s->received, vec);
    }
    void handles(u64 *result, void *self, struct state **context, struct payload *message)
    {
        if (message->kind == (1UL << 63) + 4)
            receives(*context, message + 1);
        *result = (u64)self;
    }
"#;

#[test]
fn what_takes_received_plaintext_is_found_by_the_queue_that_it_fills() {
    // With the tables for unwinding and without, and small code, in which nothing is aligned.
    const BARE: &str = "-fno-asynchronous-unwind-tables";
    for into in ["-DINTO=static inline", "-DINTO=NEVER_INLINE"] {
        for options in [&["-O2"][..], &["-O2", BARE], &["-Os", BARE]] {
            let of = |more: &[&str]| {
                let all = [options, &["-ffunction-sections", into], more].concat();
                library(crate::discovery::elf::Machine::X86_64, RECEIVING, &all)
            };
            let known = of(&[]);
            let known = Elf::parse(&known)
                .unwrap()
                .find(&["takes", "starts", "receives"]);
            let stripped = of(&["-s"]);
            let elf = Elf::parse(&stripped).unwrap();
            let decoder = Decoder::of(elf.machine()).unwrap();
            let found = search::find(&Functions::of(&elf, &decoder)).functions;
            let found: Vec<(Method, u64)> = found.iter().map(|f| (f.method, f.vaddr)).collect();
            let expected = [
                (Method::BufferPlaintext, known["takes"].vaddr),
                (Method::StartOutgoingTraffic, known["starts"].vaddr),
                (Method::TakeReceivedPlaintext, known["receives"].vaddr),
            ];
            assert_eq!(found, expected, "{into} {options:?}");
        }
    }
}
