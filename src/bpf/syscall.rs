//! What libbpf does only for programs of an object of its own: to load instructions, and to have a
//! probe run them.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail};
use libbpf_rs::{AsRawLibbpf, OpenObject, OpenProgramMut, ProgramType, libbpf_sys};
use std::ffi::{CStr, CString};
use std::fs;
use std::io::Error;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Room for what the kernel has to say of a program that it refuses.
const LOG_BYTES: usize = 1 << 24;

/// What is loaded.
#[derive(Clone, Debug, Default)]
pub struct Code {
    pub instructions: Vec<libbpf_sys::bpf_insn>,
    /// The types of its functions and the lines of its source, in `types`. Without them the kernel
    /// looks at no function by itself.
    pub functions: Vec<libbpf_sys::bpf_func_info>,
    pub lines: Vec<libbpf_sys::bpf_line_info>,
    pub types: Option<Arc<OwnedFd>>,
    pub attach_type: u32,
    pub flags: u32,
}

/// Makes the maps of an object, and adapts its programs to them and to the kernel; loads none.
///
/// # Errors
/// As the kernel says it.
pub fn prepare(object: &mut OpenObject) -> std::io::Result<()> {
    // SAFETY: it is open and has not been loaded.
    match unsafe { libbpf_sys::bpf_object__prepare(object.as_libbpf_object().as_ptr()) } {
        0.. => Ok(()),
        error => Err(Error::from_raw_os_error(-error)),
    }
}

/// The types that an object's programs speak of, once it has been prepared.
pub fn types_of(object: &OpenObject) -> Option<Arc<OwnedFd>> {
    // SAFETY: it has been opened.
    let fd = unsafe { libbpf_sys::bpf_object__btf_fd(object.as_libbpf_object().as_ptr()) };
    // SAFETY: the object has it open while it is borrowed here.
    let types = (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) });
    types?.try_clone_to_owned().ok().map(Arc::new)
}

/// A program of an object that has been prepared.
pub fn code_of(program: &OpenProgramMut<'_>, types: Option<Arc<OwnedFd>>) -> Code {
    let raw = program.as_libbpf_object().as_ptr();
    // SAFETY: the program exists while it is borrowed here, and each array is of the length that
    // libbpf tells.
    unsafe {
        Code {
            instructions: program.insns().to_vec(),
            functions: copied(
                libbpf_sys::bpf_program__func_info(raw),
                libbpf_sys::bpf_program__func_info_cnt(raw),
            ),
            lines: copied(
                libbpf_sys::bpf_program__line_info(raw),
                libbpf_sys::bpf_program__line_info_cnt(raw),
            ),
            types,
            ..Default::default()
        }
    }
}

/// # Safety
/// `from` must be null or point to `count` values.
unsafe fn copied<T: Copy>(from: *const T, count: u32) -> Vec<T> {
    if from.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(from, count as usize) }.to_vec()
}

/// Loads a program of the kind that uprobes run.
///
/// # Errors
/// As the kernel says it.
pub fn load_probe(name: &CStr, code: &Code) -> std::io::Result<OwnedFd> {
    load_and_listen(name, code, &mut []).or_else(|error| {
        if !log::log_enabled!(log::Level::Debug) {
            return Err(error);
        }
        // Once more, to learn why.
        let mut words = vec![0; LOG_BYTES];
        let loaded = load_and_listen(name, code, &mut words);
        let said = CStr::from_bytes_until_nul(&words).unwrap_or_default();
        log::debug!("{}: {}", name.to_string_lossy(), said.to_string_lossy());
        loaded
    })
}

/// The kernel explains itself in `words`, when there is room.
fn load_and_listen(name: &CStr, code: &Code, words: &mut [u8]) -> std::io::Result<OwnedFd> {
    const LICENSE: &CStr = c"Dual MIT/GPL";
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as u64,
        expected_attach_type: code.attach_type,
        prog_flags: code.flags,
        ..Default::default()
    };
    if let Some(types) = &code.types {
        options.prog_btf_fd = types.as_raw_fd().cast_unsigned();
        options.func_info = code.functions.as_ptr().cast();
        options.func_info_cnt = code.functions.len() as u32;
        options.func_info_rec_size = size_of::<libbpf_sys::bpf_func_info>() as u32;
        options.line_info = code.lines.as_ptr().cast();
        options.line_info_cnt = code.lines.len() as u32;
        options.line_info_rec_size = size_of::<libbpf_sys::bpf_line_info>() as u32;
    }
    if !words.is_empty() {
        options.log_level = 1;
        options.log_buf = words.as_mut_ptr().cast();
        options.log_size = words.len() as u32;
    }
    // SAFETY: all pointers are to memory that outlives the call, and each count is that of what the
    // pointer before it points to.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            ProgramType::Kprobe as u32,
            name.as_ptr(),
            LICENSE.as_ptr(),
            code.instructions.as_ptr(),
            code.instructions.len() as u64,
            &raw mut options,
        )
    };
    owned(fd)
}

/// What libbpf's system calls return: a descriptor, or an error below 0.
fn owned(fd: i32) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// At which end of a call a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Begin,
    Return,
    /// At both, as one session.
    Both,
}

/// Puts probes in a file in place, at these offsets and with these cookies, for one process or for all
/// (0). They are there until what this returns is dropped.
///
/// # Errors
/// As the kernel says it.
pub fn link_probes(
    program: BorrowedFd<'_>,
    path: &CStr,
    pid: u32,
    end: End,
    sites: &[(u64, u64)],
) -> Result<OwnedFd> {
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = sites.iter().copied().unzip();
    let mut options = link_options();
    options.__bindgen_anon_1.uprobe_multi =
        libbpf_sys::bpf_link_create_opts__bindgen_ty_1__bindgen_ty_3 {
            flags: match end {
                End::Return => libbpf_sys::BPF_F_UPROBE_MULTI_RETURN,
                End::Begin | End::Both => 0,
            },
            cnt: u32::try_from(sites.len()).context("count of probes")?,
            path: path.as_ptr(),
            offsets: offsets.as_ptr(),
            cookies: cookies.as_ptr(),
            pid,
            ..Default::default()
        };
    let attach_type = match end {
        End::Both => libbpf_sys::BPF_TRACE_UPROBE_SESSION,
        End::Begin | End::Return => libbpf_sys::BPF_TRACE_UPROBE_MULTI,
    };
    // SAFETY: the arrays have as many elements as is said, and outlive the call with the path.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), 0, attach_type, &raw const options)
    };
    owned(fd).context("attach to several places of the file")
}

fn link_options() -> libbpf_sys::bpf_link_create_opts {
    libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as u64,
        ..Default::default()
    }
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

    /// A probe that knows no cookie: it is there until what this returns is dropped.
    ///
    /// # Errors
    /// As the kernel says it.
    pub fn attach(self, program: BorrowedFd<'_>, place: &Place) -> Result<OwnedFd> {
        let event = self.open(place)?;
        tell(&event, SET_BPF, program.as_raw_fd()).context("give the probe its program")?;
        tell(&event, ENABLE, 0).context("switch the probe on")?;
        Ok(event)
    }

    /// A probe whose program is told its cookie; it is there until what this returns is dropped.
    ///
    /// # Errors
    /// As the kernel says it.
    pub fn link(self, program: BorrowedFd<'_>, place: &Place, cookie: u64) -> Result<OwnedFd> {
        let event = self.open(place)?;
        let mut options = link_options();
        options.__bindgen_anon_1.perf_event.bpf_cookie = cookie;
        // SAFETY: it is given descriptors, and options that outlive the call.
        let fd = unsafe {
            libbpf_sys::bpf_link_create(
                program.as_raw_fd(),
                event.as_raw_fd(),
                libbpf_sys::BPF_PERF_EVENT,
                &raw const options,
            )
        };
        // The link keeps the event.
        let link = owned(fd).context("give the probe its program")?;
        tell(&event, ENABLE, 0).context("switch the probe on")?;
        Ok(link)
    }

    fn open(self, place: &Place) -> Result<OwnedFd> {
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
        match i32::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(Error::last_os_error()).context("perf_event_open"),
        }
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
    let code = Code {
        instructions: instructions.to_vec(),
        flags: libbpf_sys::BPF_F_SLEEPABLE,
        ..Default::default()
    };
    match load_and_listen(c"trial", &code, &mut []) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            bail!("load a trial program: Operation not permitted; run as root")
        }
        Err(_) => Ok(false),
    }
}
