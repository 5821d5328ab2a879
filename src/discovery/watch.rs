//! Reports exec, fork, exit and new executable mappings as they happen.
//!
//! The kernel writes these as side records of a perf event (`perf_event_open`): one dummy event
//! per CPU, which itself never fires. Only exec, fork, exit and mmap of executable memory pay for
//! it: under 1 µs a record, and some 8 µs more (an interrupt to itself, measured on a virtual
//! machine) for each record that wakes us. No other system call gets slower.

#![allow(unsafe_code)] // perf_event_open, and the ring that it shares with the kernel

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that happened to a process. Pids are those of our own pid namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch<'a> {
    /// The process runs another program now; nothing that was known of its mappings holds. When a
    /// thread other than the leader called exec, an `Exit` of the same pid comes before.
    Exec {
        pid: u32,
        /// Its new name, up to 15 bytes. Foreign.
        comm: &'a [u8],
    },
    /// A file was mapped executable, or its mapping was made so. The process runs on meanwhile.
    Map {
        pid: u32,
        tid: u32,
        /// Address in the process, and length.
        start: u64,
        len: u64,
        /// Offset in the file, in bytes.
        offset: u64,
        /// As in /proc/PID/maps: `libc::makedev`, inode. Neither is 0.
        dev: u64,
        ino: u64,
        /// Without ` (deleted)`, which the kernel does not add here. Foreign.
        path: &'a Path,
        /// `PROT_*`.
        prot: u32,
    },
    /// A new process (not a thread).
    Fork { pid: u32, ppid: u32 },
    /// The leader of the process has ended, and with it almost always the process. In the rare
    /// program whose main thread ends first (`pthread_exit`), others are still in /proc/PID/task.
    Exit { pid: u32 },
    /// This many records did not fit: look through /proc again.
    Lost(u64),
}

/// Watches all processes of the machine until it is dropped.
///
/// A CPU that comes online later is not watched.
#[derive(Debug)]
pub struct Watcher {
    rings: Vec<Ring>,
    /// What was taken out of the rings, and of each record in it: time and range.
    taken: Vec<u8>,
    order: Vec<(u64, usize, usize)>,
}

impl Watcher {
    /// `wake_after` bytes of records on one CPU make [`Watcher::fds`] readable: 1 is at once, for
    /// who must not miss the first bytes of a new library; more is cheaper for programs that start
    /// often (fork, exec and exit of a small program are about 1 KiB), for who drains by the clock.
    ///
    /// # Errors
    /// Without root or `CAP_PERFMON`, or on a kernel without perf events.
    pub fn new(wake_after: u32) -> Result<Watcher> {
        let online = fs::read_to_string("/sys/devices/system/cpu/online")
            .context("find the CPUs in /sys/devices/system/cpu/online")?;
        let mut rings = Vec::new();
        for cpu in parse_cpus(&online)? {
            match open_event(cpu, wake_after) {
                Ok(fd) => rings.push(
                    Ring::new(fd).with_context(|| format!("map the event ring of CPU {cpu}"))?,
                ),
                // Went offline since.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
                    "watch for new processes: permission denied (need CAP_PERFMON or root; \
                     kernel.perf_event_paranoid is {})",
                    fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
                        .map_or_else(|_| "unknown".into(), |value| value.trim().to_string())
                ),
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("watch for new processes on CPU {cpu} with perf_event_open")
                    });
                }
            }
        }
        if rings.is_empty() {
            bail!(
                "watch for new processes: no CPU of {:?} can be watched",
                online.trim()
            );
        }
        Ok(Watcher {
            rings,
            taken: Vec::new(),
            order: Vec::new(),
        })
    }

    /// Descriptors that poll(2) calls readable when there is something to [`Watcher::drain`].
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.fd.as_fd())
    }

    /// Hands over what has happened since the last time, with its time (nanoseconds since boot) and
    /// ordered by it across CPUs. What it
    /// borrows is not copied first, so to look at the pid and turn away is all that a process
    /// costs that nobody asked for.
    pub fn drain(&mut self, each: &mut dyn FnMut(u64, Watch<'_>)) {
        self.taken.clear();
        self.order.clear();
        for ring in &mut self.rings {
            let begin = self.taken.len();
            ring.take(&mut self.taken);
            index_records(&self.taken, begin, &mut self.order);
        }
        self.order.sort_by_key(|&(time, ..)| time);
        for &(time, begin, end) in &self.order {
            if let Some(watch) = self.taken.get(begin..end).and_then(parse_record) {
                each(time, watch);
            }
        }
    }
}

/// `0-3,8,10-11`
fn parse_cpus(list: &str) -> Result<Vec<i32>> {
    /// More than any kernel can be built for.
    const MOST_CPUS: usize = 8192;
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.parse::<i32>()
                .with_context(|| format!("make sense of the CPU list {list:?}"))
        };
        cpus.extend((number(first)?..=number(last)?).take(MOST_CPUS));
        cpus.truncate(MOST_CPUS);
    }
    Ok(cpus)
}

const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
/// What `sample_id_all` puts at the end of each record: pid, tid, time.
const TRAILER: usize = 16;

/// `struct perf_event_attr` up to the fields of `PERF_ATTR_SIZE_VER3` (`linux/perf_event.h`).
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
}

const ATTR_SIZE: u32 = 96;
const _: () = assert!(size_of::<Attr>() == ATTR_SIZE as usize);

fn open_event(cpu: i32, wake_after: u32) -> std::io::Result<OwnedFd> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_DUMMY: u64 = 9;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    const EXCLUDE_KERNEL: u64 = 1 << 5;
    const EXCLUDE_HV: u64 = 1 << 6;
    /// Executable mappings; `mmap_data` would be the others.
    const MMAP: u64 = 1 << 8;
    const COMM: u64 = 1 << 9;
    const TASK: u64 = 1 << 13;
    const WATERMARK: u64 = 1 << 14;
    const SAMPLE_ID_ALL: u64 = 1 << 18;
    /// The records of mappings carry device and inode.
    const MMAP2: u64 = 1 << 23;
    /// The record of a name says whether it comes from exec.
    const COMM_EXEC: u64 = 1 << 24;
    const USE_CLOCKID: u64 = 1 << 25;
    let attr = Attr {
        kind: PERF_TYPE_SOFTWARE,
        size: ATTR_SIZE,
        config: PERF_COUNT_SW_DUMMY,
        sample_type: SAMPLE_TID | SAMPLE_TIME,
        flags: EXCLUDE_KERNEL
            | EXCLUDE_HV
            | MMAP
            | COMM
            | TASK
            | WATERMARK
            | SAMPLE_ID_ALL
            | MMAP2
            | COMM_EXEC
            | USE_CLOCKID,
        // A watermark of 0 would mean half of the ring.
        wakeup_watermark: wake_after.max(1),
        // One clock for all CPUs, so that their records can be put in order.
        clockid: libc::CLOCK_BOOTTIME,
        ..Attr::default()
    };
    let (all_processes, no_group): (libc::pid_t, libc::c_int) = (-1, -1);
    // SAFETY: `attr` is a perf_event_attr of the size that it names, and lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            all_processes,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Error::last_os_error()),
    }
}

/// A power of two, as the kernel demands.
const RING_BYTES: usize = 64 << 10;

/// The ring of one CPU: a page of control fields and [`RING_BYTES`] of records.
#[derive(Debug)]
struct Ring {
    fd: OwnedFd,
    base: NonNull<u8>,
    page: usize,
}

/// Of `data_head` and `data_tail` in `struct perf_event_mmap_page`.
const HEAD_OFFSET: usize = 1024;
const TAIL_OFFSET: usize = 1032;

impl Ring {
    fn new(fd: OwnedFd) -> Result<Ring> {
        // SAFETY: sysconf only reads.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
            .context("look up the page size")?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                page + RING_BYTES,
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error().into());
        }
        let base = NonNull::new(base.cast()).context("got a ring at address 0")?;
        Ok(Ring { fd, base, page })
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: an aligned u64 within the control page, which stays mapped as long as `self` and
        // which both sides access atomically.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// Moves all complete records to the end of `out`.
    fn take(&mut self, out: &mut Vec<u8>) {
        // Acquire: the records were written before the head was moved.
        let head = self.counter(HEAD_OFFSET).load(Ordering::Acquire);
        let tail = self.counter(TAIL_OFFSET).load(Ordering::Relaxed);
        // SAFETY: RING_BYTES of records follow the control page. The kernel writes only outside
        // of tail..head, and `copy_ring` reads only inside, before the tail is moved below.
        let ring = unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(self.page).cast_const(), RING_BYTES)
        };
        copy_ring(ring, tail, head, out);
        // Release: the copy is done before the kernel may overwrite.
        self.counter(TAIL_OFFSET).store(head, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page + RING_BYTES) };
    }
}

/// Appends the bytes between two free-running positions of a ring whose size is a power of two.
fn copy_ring(ring: &[u8], tail: u64, head: u64, out: &mut Vec<u8>) {
    let len = head.wrapping_sub(tail);
    if ring.is_empty() || len > ring.len() as u64 {
        return;
    }
    let (begin, len) = ((tail % ring.len() as u64) as usize, len as usize);
    let straight = len.min(ring.len() - begin);
    out.extend_from_slice(ring.get(begin..begin + straight).unwrap_or_default());
    out.extend_from_slice(ring.get(..len - straight).unwrap_or_default());
}

/// `struct perf_event_header`: type (u32), misc (u16), size of the record (u16).
const HEADER: usize = 8;

const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_EXIT: u32 = 4;
const RECORD_FORK: u32 = 7;
const RECORD_MMAP2: u32 = 10;

/// `misc` of a name that comes from exec, and of a mapping with a build id instead of an inode.
const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;

/// Notes time, begin and end of each whole record from `begin` on.
fn index_records(bytes: &[u8], mut begin: usize, order: &mut Vec<(u64, usize, usize)>) {
    while let Some(size) = bytes.get(begin..).and_then(|rest| u16_at(rest, 6)) {
        let end = begin + usize::from(size);
        if usize::from(size) < HEADER || end > bytes.len() {
            return;
        }
        let time = end
            .checked_sub(8)
            .and_then(|at| u64_at(bytes, at))
            .unwrap_or(0);
        order.push((time, begin, end));
        begin = end;
    }
}

/// One record; `None` when it is of no interest, or not whole.
fn parse_record(record: &[u8]) -> Option<Watch<'_>> {
    let kind = u32_at(record, 0)?;
    let misc = u16_at(record, 4)?;
    let body = record.get(HEADER..record.len().checked_sub(TRAILER)?)?;
    match kind {
        RECORD_LOST => Some(Watch::Lost(u64_at(body, 8)?)),
        RECORD_COMM if misc & MISC_COMM_EXEC != 0 => Some(Watch::Exec {
            pid: u32_at(body, 0)?,
            comm: text_at(body, 8)?,
        }),
        // pid, ppid, tid, ptid, time: of every thread.
        RECORD_FORK | RECORD_EXIT => {
            let (pid, ppid, tid) = (u32_at(body, 0)?, u32_at(body, 4)?, u32_at(body, 8)?);
            if pid != tid {
                return None;
            }
            Some(match kind {
                RECORD_FORK => Watch::Fork { pid, ppid },
                _ => Watch::Exit { pid },
            })
        }
        RECORD_MMAP2 if misc & MISC_MMAP_BUILD_ID == 0 => {
            let (major, minor, ino) = (u32_at(body, 32)?, u32_at(body, 36)?, u64_at(body, 40)?);
            // Memory without a file: the output of a JIT compiler.
            if ino == 0 {
                return None;
            }
            Some(Watch::Map {
                pid: u32_at(body, 0)?,
                tid: u32_at(body, 4)?,
                start: u64_at(body, 8)?,
                len: u64_at(body, 16)?,
                offset: u64_at(body, 24)?,
                dev: libc::makedev(major, minor),
                ino,
                prot: u32_at(body, 56)?,
                path: Path::new(OsStr::from_bytes(text_at(body, 64)?)),
            })
        }
        _ => None,
    }
}

/// A string that ends at its NUL; without one it is not whole.
fn text_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    rest.get(..rest.iter().position(|&b| b == 0)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;
    use std::time::{Duration, Instant};
    use test_tag::tag;

    fn record(kind: u32, misc: u16, body: &[u8], time: u64) -> Vec<u8> {
        let size = (HEADER + body.len() + TRAILER) as u16;
        let trailer = [1u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
        [
            &kind.to_ne_bytes()[..],
            &misc.to_ne_bytes(),
            &size.to_ne_bytes(),
            body,
            &trailer,
            &time.to_ne_bytes(),
        ]
        .concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn mmap2(misc: u16, ino: u32) -> Vec<u8> {
        let mut body = words(&[
            7, 8, 0x1000, 0, 0x2000, 0, 0x3000, 0, 0xfe, 2, ino, 0, 0, 0, 5, 2,
        ]);
        body.extend_from_slice(b"/lib/x.so\0\0\0\0\0\0\0");
        record(RECORD_MMAP2, misc, &body, 50)
    }

    #[test]
    fn a_mapping_is_reported_with_its_file() {
        assert_eq!(
            parse_record(&mmap2(0, 99)),
            Some(Watch::Map {
                pid: 7,
                tid: 8,
                start: 0x1000,
                len: 0x2000,
                offset: 0x3000,
                dev: libc::makedev(0xfe, 2),
                ino: 99,
                path: Path::new("/lib/x.so"),
                prot: 5,
            })
        );
        assert_eq!(parse_record(&mmap2(0, 0)), None);
        assert_eq!(parse_record(&mmap2(MISC_MMAP_BUILD_ID, 99)), None);
    }

    #[test]
    fn names_count_only_from_exec_and_fork_and_exit_only_of_processes() {
        let comm = [words(&[7, 7]), b"curl\0\0\0\0".to_vec()].concat();
        let exec = record(RECORD_COMM, MISC_COMM_EXEC, &comm, 1);
        assert_eq!(
            parse_record(&exec),
            Some(Watch::Exec {
                pid: 7,
                comm: b"curl"
            })
        );
        assert_eq!(parse_record(&record(RECORD_COMM, 0, &comm, 1)), None);
        let task = |kind, pid, ppid, tid| record(kind, 0, &words(&[pid, ppid, tid, 1, 0, 0]), 1);
        let fork = task(RECORD_FORK, 8, 7, 8);
        assert_eq!(parse_record(&fork), Some(Watch::Fork { pid: 8, ppid: 7 }));
        assert_eq!(parse_record(&task(RECORD_FORK, 7, 7, 9)), None);
        assert_eq!(
            parse_record(&task(RECORD_EXIT, 8, 7, 8)),
            Some(Watch::Exit { pid: 8 })
        );
        assert_eq!(parse_record(&task(RECORD_EXIT, 8, 7, 9)), None);
        let lost = record(RECORD_LOST, 0, &words(&[1, 0, 12, 0]), 1);
        assert_eq!(parse_record(&lost), Some(Watch::Lost(12)));
        assert_eq!(parse_record(&record(77, 0, &[0; 80], 1)), None);
    }

    #[test]
    fn a_record_cut_anywhere_is_never_taken_for_another() {
        for whole in [
            mmap2(0, 99),
            record(
                RECORD_COMM,
                MISC_COMM_EXEC,
                b"\x01\0\0\0\x01\0\0\0curl\0\0\0\0",
                1,
            ),
            record(RECORD_FORK, 0, &words(&[8, 7, 8, 1, 0, 0]), 1),
        ] {
            let parsed = parse_record(&whole);
            assert!(parsed.is_some());
            for len in 0..whole.len() {
                let cut = parse_record(&whole[..len]);
                assert!(cut.is_none() || cut == parsed, "at {len}: {cut:?}");
                let mut order = Vec::new();
                index_records(&whole[..len], 0, &mut order);
                assert!(order.is_empty(), "at {len}");
            }
        }
        // A size of 0 must not be walked for ever.
        let mut order = Vec::new();
        index_records(&[0; 64], 0, &mut order);
        assert!(order.is_empty());
    }

    #[test]
    fn records_are_whole_across_the_end_of_the_ring() {
        let whole = mmap2(0, 99);
        for begin in 0..128u64 {
            let mut ring = [0u8; 128];
            let tail = begin + (u64::MAX - 127);
            for (n, &byte) in whole.iter().enumerate() {
                ring[(tail.wrapping_add(n as u64) % 128) as usize] = byte;
            }
            let mut out = vec![1, 2, 3];
            copy_ring(&ring, tail, tail.wrapping_add(whole.len() as u64), &mut out);
            assert_eq!(out[3..], whole, "from {begin}");
            let mut order = Vec::new();
            index_records(&out, 3, &mut order);
            assert_eq!(order, [(50, 3, out.len())]);
        }
        let mut out = Vec::new();
        copy_ring(&[0; 8], 0, 9, &mut out);
        copy_ring(&[], 0, 0, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn cpu_lists_are_ranges_and_numbers() {
        assert_eq!(parse_cpus("0-2,5,7-8\n").unwrap(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse_cpus("0\n").unwrap(), [0]);
        assert_eq!(parse_cpus("0-2147483647").unwrap().len(), 8192);
        assert!(parse_cpus("0-x").is_err());
    }

    /// Waits until `done` says so of what was seen, at most five seconds.
    fn drain_until(watcher: &mut Watcher, done: &mut dyn FnMut(Watch<'_>) -> bool) -> bool {
        let limit = Instant::now() + Duration::from_secs(5);
        let mut ended = false;
        while !ended && Instant::now() < limit {
            let mut fds: Vec<_> = watcher
                .fds()
                .map(|fd| nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN))
                .collect();
            nix::poll::poll(&mut fds, 500u16).unwrap();
            watcher.drain(&mut |_, watch| ended |= done(watch));
        }
        ended
    }

    #[tag(root)]
    #[test]
    fn a_library_loaded_late_is_reported_between_exec_and_exit() {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("late.so");
        let libz = [
            "/lib/x86_64-linux-gnu",
            "/lib/aarch64-linux-gnu",
            "/lib64",
            "/usr/lib64",
        ]
        .iter()
        .map(|dir| Path::new(dir).join("libm.so.6"))
        .find(|path| path.exists())
        .unwrap();
        fs::copy(libz, &library).unwrap();
        let expected = fs::metadata(&library).unwrap();
        let mut watcher = Watcher::new(1).unwrap();
        let script = format!(
            "import ctypes; ctypes.CDLL({:?})",
            library.to_str().unwrap()
        );
        let mut child = Command::new("/usr/bin/python3")
            .args(["-S", "-c", &script])
            .spawn()
            .unwrap();
        let (pid, us) = (child.id(), std::process::id());
        let mut seen = Vec::new();
        let ended = drain_until(&mut watcher, &mut |watch| match watch {
            Watch::Fork { pid: new, ppid } if new == pid => {
                assert_eq!(ppid, us);
                seen.push("fork");
                false
            }
            Watch::Exec { pid: p, comm } if p == pid => {
                assert!(comm.starts_with(b"python3"), "{comm:?}");
                seen.push("exec");
                false
            }
            Watch::Map {
                pid: p,
                tid,
                ino,
                path,
                prot,
                ..
            } if p == pid && path == library => {
                assert_eq!((tid, ino), (pid, expected.ino()));
                assert_ne!(prot & libc::PROT_EXEC as u32, 0);
                seen.push("map");
                false
            }
            Watch::Exit { pid: p } => p == pid,
            _ => false,
        });
        child.wait().unwrap();
        assert!(ended, "no exit of {pid}; seen: {seen:?}");
        assert_eq!(seen, ["fork", "exec", "map"]);
    }

    #[tag(root)]
    #[test]
    fn what_did_not_fit_is_counted() {
        let mut watcher = Watcher::new(1).unwrap();
        // On one CPU, so that it does not matter how many rings there are.
        let run = |times: u32| {
            let script = format!("i=0; while [ $i -lt {times} ]; do /bin/true; i=$((i+1)); done");
            let status = Command::new("taskset")
                .args(["-c", "0", "sh", "-c", &script])
                .status();
            assert!(status.unwrap().success());
        };
        run(500);
        watcher.drain(&mut |_, _| ());
        // The kernel tells of a loss with the next record of that CPU that fits.
        run(2);
        let mut lost = 0;
        watcher.drain(&mut |_, watch| {
            if let Watch::Lost(count) = watch {
                lost += count;
            }
        });
        assert!(
            lost > 100,
            "{lost} lost of some 4000 records, where a ring holds some 600"
        );
    }

    #[tag(root)]
    #[test]
    fn who_drains_by_the_clock_is_not_woken_by_a_single_process() {
        let mut watcher = Watcher::new(RING_BYTES as u32 / 2).unwrap();
        let pid = {
            let mut child = Command::new("/bin/true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        let mut fds: Vec<_> = watcher
            .fds()
            .map(|fd| nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN))
            .collect();
        let ready = nix::poll::poll(&mut fds, 0u16).unwrap();
        let mut seen = false;
        watcher.drain(&mut |_, watch| seen |= watch == Watch::Exit { pid });
        assert_eq!(ready, 0);
        assert!(seen);
    }
}
