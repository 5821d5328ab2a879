//! What the running kernel offers, as its type information says and a trial shows.

use super::syscall::may_sleep;
use anyhow::{Context, Result, bail};
use libbpf_rs::Btf;
use libbpf_rs::btf::types::{Enum, Func, Typedef};

/// Names features, separated by commas, that are not used though the kernel has them: so that what
/// is done without them can be tested and measured.
const WITHOUT: &str = "TLSSNIFF_WITHOUT";

/// Each best way is followed by what is done without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Probes tell their program what they are (Linux 5.15); else each has a copy of it, and what
    /// came between 5.11 and that is done without too.
    pub cookies: bool,
    /// One probe sees a call and its return (Linux 6.13); else two do.
    pub sessions: bool,
    /// All probes of a file are one link (Linux 6.6); else each is a perf event.
    pub multi: bool,
    /// Probes may sleep, so memory that is not resident is read too (Linux 6.0); else such bytes
    /// are a gap.
    pub sleepable: bool,
    /// Tables grow as they fill (Linux 6.1); else they have their size from the beginning, and it is
    /// smaller.
    pub growing: bool,
    /// Records take exactly the room they need (Linux 6.16); else up to twice that.
    pub exact_records: bool,
    /// Sockets are seen by tracepoints (Linux 6.3); else by kprobes.
    pub socket_tracepoints: bool,
    /// Which libraries a process has mapped is known to BPF (Linux 6.7); else each process that
    /// maps some is waited for.
    pub mappings: bool,
    /// A program is held before its first instruction (Linux 6.18); else its first calls may be
    /// missed if it is static and new.
    pub exec_holds: bool,
}

impl Features {
    /// # Errors
    /// The kernel has no BTF, or lacks something that there is no other way for.
    pub fn of_kernel() -> Result<Features> {
        let btf = Btf::from_vmlinux().context(
            "read the kernel's type information, /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)",
        )?;
        let has = |function: &str| btf.type_by_name::<Func<'_>>(function).is_some();
        let knows = |set: &str, value: &str| {
            let set = btf.type_by_name::<Enum<'_>>(set);
            set.is_some_and(|set| set.iter().any(|known| known.name == Some(value.as_ref())))
        };
        let attaches = |kind: &str| knows("bpf_attach_type", kind);
        if !knows("bpf_map_type", "BPF_MAP_TYPE_RINGBUF") {
            bail!("the kernel is older than Linux 5.8: its BPF programs have no ring buffer");
        }
        let sleepable = may_sleep()?;
        let mut features = Features {
            cookies: has("bpf_get_attach_cookie_pe"),
            sessions: attaches("BPF_TRACE_UPROBE_SESSION"),
            multi: attaches("BPF_TRACE_UPROBE_MULTI"),
            sleepable,
            growing: has("bpf_mem_alloc_init"),
            exact_records: sleepable && has("bpf_copy_from_user_dynptr"),
            socket_tracepoints: btf
                .type_by_name::<Typedef<'_>>("btf_trace_sock_send_length")
                .is_some(),
            mappings: has("bpf_iter_task_vma_new"),
            exec_holds: has("bpf_task_work_schedule_resume_impl"),
        };
        if !features.cookies {
            features = features.without_cookies();
        }
        features.leave_out(&std::env::var(WITHOUT).unwrap_or_default());
        Ok(features)
    }

    /// Does without these, as an older kernel would have to.
    fn leave_out(&mut self, names: &str) {
        for name in names.split(',') {
            match name {
                "cookies" => *self = self.without_cookies(),
                "growing" => self.growing = false,
                "sessions" => self.sessions = false,
                "multi" => (self.multi, self.sessions) = (false, false),
                "exact_records" => self.exact_records = false,
                "" => {}
                other => log::warn!("{WITHOUT}: there is no {other:?} to do without"),
            }
        }
    }

    /// What the object for old kernels can use.
    fn without_cookies(self) -> Features {
        Features {
            cookies: false,
            sessions: false,
            multi: false,
            sleepable: false,
            growing: self.growing,
            exact_records: false,
            socket_tracepoints: self.socket_tracepoints,
            mappings: false,
            exec_holds: false,
        }
    }

    /// For `--version --verbose` and `--debug`: one line each, what is used.
    pub fn describe(&self) -> [(&'static str, &'static str); 9] {
        let choose = |best, yes, no| if best { yes } else { no };
        [
            (
                "programs",
                choose(
                    self.cookies,
                    "one for all probes of a kind",
                    "one for each probe (cookies: Linux 5.15)",
                ),
            ),
            (
                "calls",
                choose(
                    self.sessions,
                    "session uprobes",
                    "a uprobe and a uretprobe each (sessions: Linux 6.13)",
                ),
            ),
            (
                "probes",
                choose(
                    self.multi,
                    "one uprobe_multi link per file",
                    "a perf event each (uprobe_multi: Linux 6.6)",
                ),
            ),
            (
                "memory",
                choose(
                    self.sleepable,
                    "pages are faulted in",
                    "pages that are not resident are gaps (sleepable uprobes: Linux 6.0)",
                ),
            ),
            (
                "tables",
                choose(
                    self.growing,
                    "grow as they fill",
                    "of fixed size, at most 65536 connections at a time (BPF's own allocator: \
                     Linux 6.1)",
                ),
            ),
            (
                "records",
                choose(
                    self.exact_records,
                    "of exact size",
                    "rounded up (bpf_copy_from_user_dynptr: Linux 6.16)",
                ),
            ),
            (
                "sockets",
                choose(
                    self.socket_tracepoints,
                    "tracepoints sock_send_length, sock_recv_length",
                    "kprobes on security_socket_sendmsg, security_socket_recvmsg (tracepoints: \
                     Linux 6.3)",
                ),
            ),
            (
                "libraries",
                choose(
                    self.mappings,
                    "only files not seen before are waited for",
                    "each process that maps some is looked at (task_vma: Linux 6.7)",
                ),
            ),
            (
                "exec",
                choose(
                    self.exec_holds,
                    "new programs are held before their first instruction",
                    "new programs are told of (task_work: Linux 6.18)",
                ),
            ),
        ]
    }
}
