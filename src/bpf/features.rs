//! What the running kernel offers, as its type information says and a trial shows.

use anyhow::{Context, Result, bail};
use libbpf_rs::btf::types::{Enum, Func, Typedef};
use libbpf_rs::{Btf, ProgramType, libbpf_sys};
use std::ffi::CStr;
use std::mem::size_of;

/// Names features, separated by commas, that are not used though the kernel has them: so that what
/// is done without them can be tested and measured.
const WITHOUT: &str = "TLSSNIFF_WITHOUT";

/// Each best way is followed by what is done without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// One probe sees a call and its return (Linux 6.13); else two do.
    pub sessions: bool,
    /// All probes of a file are one link (Linux 6.6); else each is a perf event.
    pub multi: bool,
    /// Probes may sleep, so memory that is not resident is read too (Linux 6.0); else such bytes
    /// are a gap.
    pub sleepable: bool,
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
        let attaches = |kind: &str| {
            let kinds = btf.type_by_name::<Enum<'_>>("bpf_attach_type");
            kinds.is_some_and(|kinds| kinds.iter().any(|known| known.name == Some(kind.as_ref())))
        };
        if !has("bpf_get_attach_cookie_pe") {
            bail!("the kernel is older than Linux 5.15: its probes carry no cookies");
        }
        let sleepable = may_sleep()?;
        let mut features = Features {
            sessions: attaches("BPF_TRACE_UPROBE_SESSION"),
            multi: attaches("BPF_TRACE_UPROBE_MULTI"),
            sleepable,
            exact_records: sleepable && has("bpf_copy_from_user_dynptr"),
            socket_tracepoints: btf
                .type_by_name::<Typedef<'_>>("btf_trace_sock_send_length")
                .is_some(),
            mappings: has("bpf_iter_task_vma_new"),
            exec_holds: has("bpf_task_work_schedule_resume_impl"),
        };
        features.leave_out(&std::env::var(WITHOUT).unwrap_or_default());
        Ok(features)
    }

    /// Does without these, as an older kernel would have to.
    fn leave_out(&mut self, names: &str) {
        for name in names.split(',') {
            match name {
                "sessions" => self.sessions = false,
                "multi" => (self.multi, self.sessions) = (false, false),
                "exact_records" => self.exact_records = false,
                "" => {}
                other => log::warn!("{WITHOUT}: there is no {other:?} to do without"),
            }
        }
    }

    /// For `--version --verbose` and `--debug`: one line each, what is used.
    pub fn describe(&self) -> [(&'static str, &'static str); 7] {
        let choose = |best, yes, no| if best { yes } else { no };
        [
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

/// Whether a uprobe program may call what sleeps; nothing but a trial tells.
///
/// # Errors
/// Privileges are missing for the trial.
fn may_sleep() -> Result<bool> {
    // r0 = 0; exit
    let instructions = [
        libbpf_sys::bpf_insn {
            code: 0xb7,
            ..Default::default()
        },
        libbpf_sys::bpf_insn {
            code: 0x95,
            ..Default::default()
        },
    ];
    const NAME: &CStr = c"trial";
    const LICENSE: &CStr = c"GPL";
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as u64,
        prog_flags: libbpf_sys::BPF_F_SLEEPABLE,
        ..Default::default()
    };
    // SAFETY: all pointers are to memory that outlives the call, and the count is that of the
    // instructions.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            ProgramType::Kprobe as u32,
            NAME.as_ptr(),
            LICENSE.as_ptr(),
            instructions.as_ptr(),
            instructions.len() as u64,
            &raw mut options,
        )
    };
    if fd == -libc::EPERM {
        bail!("load a trial program: Operation not permitted; run as root");
    }
    if fd >= 0 {
        // SAFETY: the descriptor is ours and is not used again.
        unsafe { libc::close(fd) };
    }
    Ok(fd >= 0)
}
