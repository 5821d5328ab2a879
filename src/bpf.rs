//! Loads the BPF object and wraps its maps.
#![allow(unsafe_code)]

mod copies;
mod features;
mod object;
mod options;
mod probes;
mod program;
mod syscall;
mod waiting;

pub use features::Features;
pub use options::{Hold, Options};
pub use probes::{Kind, ProgramSize};

use copies::Copies;
use object::Parts;
use syscall::UprobeEvents;

use crate::plan::{BioLayout, Deferred, Layout, LoadChain};
use anyhow::{Context, Result};
use libbpf_rs::{Link, MapCore, MapFlags, ProgramMut};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use object::usual::types;

// The same numbers as in bpf/abi.h: what the skeleton made of the types must be what C meant.
const _: () = {
    assert!(size_of::<types::ts_layout>() == 372);
    assert!(size_of::<types::ts_conn_key>() == 16);
    assert!(size_of::<types::ts_conn>() == 120);
    assert!(offset_of!(types::ts_conn, off) == 8);
    assert!(size_of::<types::ts_rec_conn>() == 552);
    assert!(offset_of!(types::ts_rec_conn, addr) == 72);
    assert!(size_of::<types::ts_rec_data>() == 80);
    assert!(offset_of!(types::ts_rec_data, captured) == 76);
    assert!(size_of::<types::ts_rec_end>() == 40);
    assert!(size_of::<types::ts_rec_addr>() == 64);
    assert!(size_of::<types::ts_rec_hold>() == 24);
    assert!(size_of::<types::ts_wait_key>() == 16);
    assert!(size_of::<types::ts_wait>() == 104);
    assert!(size_of::<types::ts_sleeper>() == 176);
};

/// Losses that BPF has counted, over all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub dropped_calls: u64,
    pub dropped_bytes: u64,
    pub unreadable_bytes: u64,
    pub missed_calls: u64,
    pub dropped_notes: u64,
    pub expired_holds: u64,
    /// Calls of functions that were taken for others: their targets are silent from then on.
    pub wrong_calls: u64,
}

/// The loaded object.
pub struct Bpf {
    parts: Parts,
    pub features: Features,
    /// Whether sockets used inside TLS calls are looked at.
    sees_sockets: bool,
    /// Of what belongs to no target.
    links: Vec<Link>,
    copies: Copies,
    /// Asked for at the first probe that needs them.
    events: Option<UprobeEvents>,
}

impl std::fmt::Debug for Bpf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bpf").finish_non_exhaustive()
    }
}

impl Bpf {
    /// Opens, configures and loads the object, and attaches what belongs to no target.
    ///
    /// # Errors
    /// The kernel refuses it: too old, or privileges are missing.
    pub fn load(options: &Options) -> Result<Bpf> {
        let features = Features::of_kernel()?;
        for (what, how) in features.describe() {
            log::debug!("{what}: {how}");
        }
        let mut config = types::ts_config::default();
        options::configure(&mut config, options, features)?;
        let mut bpf = Bpf {
            parts: Parts::load(features, options.ring_bytes, &config)?,
            features,
            sees_sockets: false,
            links: Vec::new(),
            copies: Copies::default(),
            events: None,
        };
        bpf.attach_tracepoints(options)?;
        Ok(bpf)
    }

    /// Has BPF look at the sockets that are used inside TLS calls, from the first probe on whose calls
    /// learn their address so: it slows each send and receive of the machine by some 50 ns.
    fn see_sockets(&mut self) {
        if std::mem::replace(&mut self.sees_sockets, true) {
            return;
        }
        let parts = &self.parts;
        let sockets = if self.features.socket_tracepoints {
            parts.sock_send_length.attach_trace().and_then(|sends| {
                let receives = parts.sock_recv_length.attach_trace()?;
                Ok([sends, receives])
            })
        } else {
            let sends = parts
                .socket_sends
                .attach_kprobe(false, "security_socket_sendmsg");
            sends.and_then(|sends| {
                let receives = parts
                    .socket_receives
                    .attach_kprobe(false, "security_socket_recvmsg")?;
                Ok([sends, receives])
            })
        };
        match sockets {
            Ok(links) => self.links.extend(links),
            Err(error) => log::warn!(
                "addresses come from the library's file descriptors alone: the kernel refused to \
                 show what sockets are used: {error:#}"
            ),
        }
    }

    fn attach_tracepoints(&mut self, options: &Options) -> Result<()> {
        let parts = &self.parts;
        let mut attach = |program: &ProgramMut<'_>, what| -> Result<()> {
            let link = program.attach_trace();
            self.links
                .push(link.with_context(|| format!("attach to {what}"))?);
            Ok(())
        };
        attach(parts.process_executes, "sched_process_exec")?;
        if options.follow {
            attach(parts.process_forked, "sched_process_fork")?;
        }
        if let Some(program) = parts.thread_exits {
            attach(program, "sched_process_exit")?;
        }
        Ok(())
    }

    pub fn ring(&self) -> &dyn MapCore {
        self.parts.ring
    }

    /// Must be called before the target's first probe is attached.
    pub fn set_layout(&self, target: u32, ssl: &Layout, bio: Option<BioLayout>) -> Result<()> {
        let (alpn, alpn_len) = ssl.alpn.clone().unzip();
        let (secured, secured_bit) = ssl.secured.clone().unzip();
        let layout = types::ts_layout {
            rbio: chain(ssl.rbio.as_ref()),
            version: chain(ssl.version.as_ref()),
            server: chain(ssl.server.as_ref()),
            alpn: chain(alpn.as_ref()),
            alpn_len: chain(alpn_len.as_ref()),
            sni: chain(ssl.sni.as_ref()),
            sni_len: chain(ssl.sni_len.as_ref()),
            goid: ssl.goid.unwrap_or_default(),
            g_tls: ssl.g_tls.unwrap_or_default(),
            input: ssl.input.unwrap_or_default(),
            references: chain(ssl.references.as_ref()),
            client_random: chain(ssl.client_random.as_ref()),
            server_random: chain(ssl.server_random.as_ref()),
            encrypter: chain(ssl.encrypter.as_ref()),
            sends: chain(ssl.sends.as_ref()),
            transport: chain(ssl.transport.as_ref()),
            app_data: ssl.app_data.unwrap_or_default(),
            bio_method: bio.map_or(0, |bio| bio.method),
            bio_num: bio.map_or(0, |bio| bio.num),
            bio_next: bio.map_or(0, |bio| bio.next),
            bio_known: bio.is_some().into(),
            go_defer: [go_defer(ssl.write_defer), go_defer(ssl.read_defer)],
            unfreed: ssl.unfreed.into(),
            unproved: ssl.unproved.into(),
            secured: chain(secured.as_ref()),
            secured_bit: secured_bit.unwrap_or_default().into(),
            client: ssl.client,
            wrong: 0,
        };
        self.parts
            .layouts
            .update(&target.to_ne_bytes(), bytes_of(&layout), MapFlags::ANY)
            .with_context(|| format!("hand the layout of target {target} to BPF"))
    }

    /// Looks at this process from now on (`by_tgid`).
    pub fn trace(&self, pid: u32) -> Result<()> {
        self.parts
            .traced
            .update(&pid.to_ne_bytes(), &[1], MapFlags::ANY)
            .with_context(|| format!("add process {pid} to those that are traced"))
    }

    /// Looks at what the thread receives next, as if it had a connection without an address. Before
    /// Linux 6.9 only the first thread of a process can be named.
    pub fn watch_receives(&self, tid: u32) -> Result<()> {
        let thread = types::thread {
            watched: u8::MAX,
            ..Default::default()
        };
        let Some(threads) = self.parts.threads else {
            return Ok(());
        };
        let pidfd = thread_fd(tid)?;
        threads
            .update(
                &pidfd.as_raw_fd().to_ne_bytes(),
                bytes_of(&thread),
                MapFlags::NO_EXIST,
            )
            .context("begin to look at a thread")
    }

    pub fn is_traced(&self, pid: u32) -> bool {
        matches!(
            self.parts.traced.lookup(&pid.to_ne_bytes(), MapFlags::ANY),
            Ok(Some(_))
        )
    }

    /// The process has gone. Its pid may be used again.
    pub fn forget_process(&self, pid: u32) {
        // Absent entries are the normal case.
        let _ = self.parts.traced.delete(&pid.to_ne_bytes());
        let _ = self.parts.released.delete(&pid.to_ne_bytes());
    }

    /// Never mind the calls of this process, until it executes another program.
    pub fn mute(&mut self, key: &ConnKey) -> Result<()> {
        if let Some(flags) = self.parts.flags.as_mut() {
            *flags.mutes_somebody = 1;
        }
        let key = ConnKey { handle: 0, ..*key };
        self.parts
            .muted
            .update(&key.bytes(), &[1], MapFlags::ANY)
            .with_context(|| format!("mute process {}", key.tgid))
    }

    pub fn unmute(&self, key: &ConnKey) {
        let _ = self
            .parts
            .muted
            .delete(&ConnKey { handle: 0, ..*key }.bytes());
    }

    /// Lets a thread go on that waits for its probes.
    pub fn release(&self, tgid: u32, ticket: u64) -> Result<()> {
        self.parts
            .released
            .update(&tgid.to_ne_bytes(), &ticket.to_ne_bytes(), MapFlags::ANY)
            .with_context(|| format!("let process {tgid} go on"))
    }

    /// Bytes that the connection has moved, out and in, as far as BPF knows it by this id.
    pub fn conn_offsets(&self, key: &ConnKey, id: u64) -> Option<[u64; 2]> {
        let value = self
            .parts
            .conns
            .lookup(&key.bytes(), MapFlags::ANY)
            .ok()??;
        let conn: types::ts_conn = from_bytes(&value)?;
        (conn.id == id).then_some(conn.off)
    }

    pub fn forget_conn(&self, key: &ConnKey) {
        let _ = self.parts.conns.delete(&key.bytes());
    }

    pub fn counters(&self) -> Counters {
        let read = |counter: types::ts_counter| -> u64 {
            let map = self.parts.counters;
            match map.lookup_percpu(&counter.0.to_ne_bytes(), MapFlags::ANY) {
                Ok(Some(values)) => values
                    .iter()
                    .filter_map(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?)))
                    .sum(),
                _ => 0,
            }
        };
        Counters {
            dropped_calls: read(types::ts_counter::TS_CTR_DROPPED_CALLS),
            dropped_bytes: read(types::ts_counter::TS_CTR_DROPPED_BYTES),
            unreadable_bytes: read(types::ts_counter::TS_CTR_UNREADABLE_BYTES),
            missed_calls: read(types::ts_counter::TS_CTR_MISSED_CALLS),
            dropped_notes: read(types::ts_counter::TS_CTR_DROPPED_NOTES),
            expired_holds: read(types::ts_counter::TS_CTR_EXPIRED_HOLDS),
            wrong_calls: read(types::ts_counter::TS_CTR_WRONG_CALLS),
        }
    }

    /// The capture ends: whoever is held goes on, and nobody is held from now on.
    pub fn hold_nobody(&mut self) {
        if let Some(flags) = self.parts.flags.as_mut() {
            *flags.holds_nobody = 1;
        }
    }

    /// The program that this process executes next is attached already: it must not be held.
    pub fn will_start(&mut self, pid: u32) {
        if let Some(flags) = self.parts.flags.as_mut() {
            *flags.starting_tgid = pid;
        }
    }

    /// Sends are not looked at any more once those hellos have had their time (boot time) that
    /// programs were to send.
    pub fn stop_awaiting_hellos(&mut self, now: impl FnOnce() -> u64) {
        if let Some(flags) = self.parts.flags.as_mut() {
            // SAFETY: as in `will_sleep`, of an aligned u64.
            let until = unsafe { AtomicU64::from_ptr(&raw mut *flags.hellos_until) };
            let then = until.load(Ordering::Relaxed);
            if then != 0 && then < now() {
                // Another hello may have come meanwhile.
                let _ = until.compare_exchange(then, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Says that the next record must wake the reader. The ring has to be looked at once more
    /// between this and blocking.
    pub fn will_sleep(&mut self) {
        if let Some(flags) = self.parts.flags.as_mut() {
            // SAFETY: the field is an aligned u32 in memory that is shared with BPF programs for
            // as long as the map lives; both sides access it atomically from here on.
            let flag = unsafe { AtomicU32::from_ptr(&raw mut *flags.reader_sleeps) };
            flag.store(1, Ordering::SeqCst);
        }
    }
}

/// The key of a connection in BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// The library's connection pointer.
    pub handle: u64,
    pub tgid: u32,
    /// `task->self_exec_id`: tells programs of one process apart.
    pub exec_id: u32,
}

impl ConnKey {
    fn bytes(&self) -> [u8; 16] {
        let key = types::ts_conn_key {
            handle: self.handle,
            tgid: self.tgid,
            exec_id: self.exec_id,
        };
        let mut bytes = [0; 16];
        bytes.copy_from_slice(bytes_of(&key));
        bytes
    }
}

impl From<types::ts_conn_key> for ConnKey {
    fn from(key: types::ts_conn_key) -> ConnKey {
        ConnKey {
            handle: key.handle,
            tgid: key.tgid,
            exec_id: key.exec_id,
        }
    }
}

fn thread_fd(tid: u32) -> Result<OwnedFd> {
    let open = |flags: libc::c_uint| {
        // SAFETY: a system call that takes numbers alone.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, flags) };
        // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
        let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).map(owned)
    };
    open(libc::PIDFD_THREAD)
        .or_else(|| open(0))
        .with_context(|| format!("open a pidfd: {}", std::io::Error::last_os_error()))
}

fn go_defer(known: Option<Deferred>) -> types::ts_go_defer {
    known.map_or_else(Default::default, |known| types::ts_go_defer {
        to_return: known.to_return,
        to_entry: known.to_entry,
        to_result: known.to_result,
        caller: known.caller,
        caller_size: known.caller_size,
    })
}

fn chain(offsets: Option<&LoadChain>) -> types::ts_chain {
    let mut chain = types::ts_chain::default();
    let Some(offsets) = offsets.filter(|offsets| offsets.len() <= chain.off.len()) else {
        return chain;
    };
    for (to, from) in chain.off.iter_mut().zip(offsets) {
        *to = *from;
    }
    chain.len = u32::try_from(offsets.len()).unwrap_or_default();
    chain
}

/// Types of the skeleton that consist of integers alone, without padding.
pub trait Plain: Copy {}
impl Plain for types::thread {}
impl Plain for types::ts_layout {}
impl Plain for types::ts_conn_key {}
impl Plain for types::ts_conn {}
impl Plain for types::ts_rec_conn {}
impl Plain for types::ts_rec_data {}
impl Plain for types::ts_rec_end {}
impl Plain for types::ts_rec_addr {}
impl Plain for types::ts_rec_hold {}

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a `Plain` value is initialised in every byte; the slice borrows it.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Reads a value from the start of `bytes`; `None` when there are too few.
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: there are enough bytes, alignment is not asked for, and every bit pattern is a
    // value of a `Plain` type.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
