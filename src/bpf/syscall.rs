//! What libbpf does only for programs of an object of its own: to load instructions, and to have a
//! probe run them.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail};
use libbpf_rs::{ProgramType, libbpf_sys};
use std::ffi::{CStr, CString};
use std::fs;
use std::io::Error;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Loads a program of the kind that uprobes run.
///
/// # Errors
/// As the kernel says it.
pub fn load_probe(
    name: &CStr,
    instructions: &[libbpf_sys::bpf_insn],
    flags: u32,
) -> std::io::Result<OwnedFd> {
    const LICENSE: &CStr = c"Dual MIT/GPL";
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as u64,
        prog_flags: flags,
        ..Default::default()
    };
    // SAFETY: all pointers are to memory that outlives the call, and the count is that of the
    // instructions.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            ProgramType::Kprobe as u32,
            name.as_ptr(),
            LICENSE.as_ptr(),
            instructions.as_ptr(),
            instructions.len() as u64,
            &raw mut options,
        )
    };
    if fd < 0 {
        return Err(Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where a probe is put.
#[derive(Clone, Debug)]
pub struct Place {
    /// Of the file.
    pub path: CString,
    pub offset: u64,
    /// At the returns of the function that begins there.
    pub returns: bool,
    /// Only in this process; 0: in all.
    pub pid: u32,
}

/// The kernel's numbers for uprobes as perf events.
#[derive(Clone, Copy, Debug)]
pub struct UprobeEvents {
    kind: u32,
    /// Of `config`: the probe is one of returns.
    returns: u64,
}

impl UprobeEvents {
    /// # Errors
    /// The kernel was built without `CONFIG_UPROBES`.
    pub fn of_kernel() -> Result<UprobeEvents> {
        const DIRECTORY: &str = "/sys/bus/event_source/devices/uprobe";
        let read = |name: &str| {
            let path = format!("{DIRECTORY}/{name}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let kind = read("type")?;
        let kind = kind.trim().parse().context("type of uprobe events")?;
        let format = read("format/retprobe")?;
        let bit = format.trim().strip_prefix("config:");
        let bit: Option<u32> = bit.and_then(|bit| bit.parse().ok());
        let returns = bit.and_then(|bit| 1u64.checked_shl(bit));
        Ok(UprobeEvents {
            kind,
            returns: returns.with_context(|| format!("bit of return probes: {format:?}"))?,
        })
    }

    /// The probe is there until what this returns is dropped.
    ///
    /// # Errors
    /// As the kernel says it.
    pub fn attach(self, program: BorrowedFd<'_>, place: &Place) -> Result<OwnedFd> {
        const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
        // SAFETY: it consists of integers, for which 0 is a value.
        let mut attr: libbpf_sys::perf_event_attr = unsafe { zeroed() };
        attr.type_ = self.kind;
        attr.size = u32::try_from(size_of::<libbpf_sys::perf_event_attr>())
            .context("size of the description of an event")?;
        attr.config = if place.returns { self.returns } else { 0 };
        attr.__bindgen_anon_3.uprobe_path = place.path.as_ptr().expose_provenance() as u64;
        attr.__bindgen_anon_4.probe_offset = place.offset;
        // The event of all processes is made on one CPU; its program runs on each.
        let (pid, cpu) = match place.pid {
            0 => (-1, 0),
            pid => (i32::try_from(pid).context("pid out of range")?, -1),
        };
        let no_group: libc::c_int = -1;
        // SAFETY: `attr` is of the size that it names; it and the path in it live through the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                pid,
                cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let event = match i32::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
            _ => return Err(Error::last_os_error()).context("perf_event_open"),
        };
        tell(&event, SET_BPF, program.as_raw_fd()).context("give the probe its program")?;
        tell(&event, ENABLE, 0).context("switch the probe on")?;
        Ok(event)
    }
}

/// `PERF_EVENT_IOC_SET_BPF` and `PERF_EVENT_IOC_ENABLE` (`linux/perf_event.h`).
const SET_BPF: libc::Ioctl = 0x4004_2408;
const ENABLE: libc::Ioctl = 0x2400;

fn tell(event: &OwnedFd, request: libc::Ioctl, argument: i32) -> std::io::Result<()> {
    // SAFETY: these requests take an integer.
    match unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } {
        0.. => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Whether a uprobe program may call what sleeps; nothing but a trial tells.
///
/// # Errors
/// Privileges are missing for the trial.
pub fn may_sleep() -> Result<bool> {
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
    match load_probe(c"trial", &instructions, libbpf_sys::BPF_F_SLEEPABLE) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            bail!("load a trial program: Operation not permitted; run as root")
        }
        Err(_) => Ok(false),
    }
}
