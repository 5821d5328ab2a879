//! Loads the BPF object and wraps its maps.
#![allow(unsafe_code)]

mod features;
mod waiting;

pub use features::Features;

use crate::plan::{BioLayout, Deferred, Layout, LoadChain};
use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, Program, ProgramAttachType, ProgramMut, libbpf_sys};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[allow(
    clippy::all,
    clippy::pedantic,
    dead_code,
    missing_debug_implementations,
    non_camel_case_types,
    unused_qualifications
)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/tlssniff.skel.rs"));
}
pub use skel::types;
use skel::{OpenTlssniffProgs, TlssniffSkel, TlssniffSkelBuilder};

// The same numbers as in bpf/abi.h: what the skeleton made of the types must be what C meant.
const _: () = {
    assert!(size_of::<types::ts_layout>() == 228);
    assert!(size_of::<types::ts_conn_key>() == 16);
    assert!(size_of::<types::ts_conn>() == 88);
    assert!(offset_of!(types::ts_conn, off) == 8);
    assert!(size_of::<types::ts_rec_conn>() == 528);
    assert!(offset_of!(types::ts_rec_conn, addr) == 64);
    assert!(size_of::<types::ts_rec_data>() == 80);
    assert!(offset_of!(types::ts_rec_data, captured) == 76);
    assert!(size_of::<types::ts_rec_end>() == 40);
    assert!(size_of::<types::ts_rec_hold>() == 16);
    assert!(size_of::<types::ts_wait_key>() == 16);
    assert!(size_of::<types::ts_wait>() == 56);
    assert!(size_of::<types::ts_sleeper>() == 176);
};

/// Which threads that have just mapped libraries wait until those are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Those of each process looked at, for a second at most; on an idle machine it takes some
    /// milliseconds.
    #[default]
    Always,
    /// Those with a file among their code that has not been noticed before: a pause per file for
    /// the whole machine, and a short one.
    NewFiles,
}

impl Hold {
    fn most(self) -> Duration {
        match self {
            Hold::Always => Duration::from_secs(1),
            Hold::NewFiles => Duration::from_millis(200),
        }
    }
}

/// What BPF is told before it is loaded.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes kept of a call, 0 for all.
    pub snaplen: u32,
    /// Only processes given to [`Bpf::trace`].
    pub by_tgid: bool,
    /// And their children.
    pub follow: bool,
    pub uid: Option<u32>,
    /// Beginning of the command's name, up to 16 bytes; with a final NUL it is the whole name.
    pub comm: Option<Vec<u8>>,
    /// A cgroup's id, and how deep below the root it lies.
    pub cgroup: Option<(u64, u32)>,
    /// Inode of our pid namespace when it is not the machine's own: processes have their numbers
    /// there, and those outside of it are not looked at.
    pub pid_namespace: Option<u32>,
    /// A power of two, at least a page.
    pub ring_bytes: u32,
    /// Which threads wait for the probes of libraries that they have just mapped, and how long at
    /// most.
    pub hold: Hold,
}

/// Losses that BPF has counted, over all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub dropped_calls: u64,
    pub dropped_bytes: u64,
    pub unreadable_bytes: u64,
    pub missed_calls: u64,
    pub dropped_notes: u64,
    pub expired_holds: u64,
}

/// How large a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    pub name: String,
    /// In instructions, functions that it calls included.
    pub length: u64,
    /// How many the verifier has walked, over all paths.
    pub verified: u64,
}

/// The loaded object.
pub struct Bpf {
    skel: TlssniffSkel<'static>,
    pub features: Features,
    /// Whether sockets used inside TLS calls are seen.
    pub sees_sockets: bool,
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
        // One object per run, used until the process ends: leaking it spares a self-reference.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = TlssniffSkelBuilder::default()
            .open(storage)
            .context("open the BPF object")?;
        let ring = u64::from(options.ring_bytes);
        open.maps
            .ring
            .set_max_entries(options.ring_bytes)
            .context("set the size of the ring")?;
        let rodata = open
            .maps
            .rodata_data
            .as_mut()
            .context("find the BPF configuration")?;
        let config = &mut rodata.config;
        config.self_tgid = std::process::id();
        config.snaplen = options.snaplen;
        config.by_tgid = options.by_tgid.into();
        config.follow = options.follow.into();
        config.by_uid = options.uid.is_some().into();
        config.uid = options.uid.unwrap_or_default();
        let comm = options.comm.as_deref().unwrap_or_default();
        for (to, from) in config.comm.iter_mut().zip(comm) {
            *to = from.cast_signed();
        }
        config.comm_len = u32::try_from(comm.len()).context("length of the command's name")?;
        (config.cgroup, config.cgroup_level) = options.cgroup.unwrap_or_default();
        config.pid_namespace = options.pid_namespace.unwrap_or_default();
        config.hold_all = (options.hold == Hold::Always).into();
        config.hold_ns = u64::try_from(options.hold.most().as_nanos()).unwrap_or(u64::MAX);
        config.wakeup_at = ring / 16;
        config.large_call = ring / 2;
        let features = Features::of_kernel()?;
        for (what, how) in features.describe() {
            log::debug!("{what}: {how}");
        }
        config.can_sleep = features.sleepable.into();
        config.exact_records = features.exact_records.into();
        choose_programs(&mut open.progs, features);
        let skel = open
            .load()
            .context("load the BPF programs (tlssniff --debug shows the kernel's own words)")?;
        let mut bpf = Bpf {
            skel,
            features,
            sees_sockets: false,
        };
        bpf.attach_tracepoints(options)?;
        Ok(bpf)
    }

    fn attach_tracepoints(&mut self, options: &Options) -> Result<()> {
        let progs = &mut self.skel.progs;
        let links = &mut self.skel.links;
        let sockets = if self.features.socket_tracepoints {
            let sends = progs.sock_send_length.attach_trace();
            sends.and_then(|sends| {
                links.sock_send_length = Some(sends);
                links.sock_recv_length = Some(progs.sock_recv_length.attach_trace()?);
                Ok(())
            })
        } else {
            let sends = progs
                .socket_sends
                .attach_kprobe(false, "security_socket_sendmsg");
            sends.and_then(|sends| {
                links.socket_sends = Some(sends);
                let receives = &progs.socket_receives;
                links.socket_receives =
                    Some(receives.attach_kprobe(false, "security_socket_recvmsg")?);
                Ok(())
            })
        };
        self.sees_sockets = sockets.is_ok();
        if let Err(error) = sockets {
            log::warn!(
                "addresses come from the library's file descriptors alone: the kernel refused to \
                 show what sockets are used: {error:#}"
            );
        }
        links.process_executes = Some(
            progs
                .process_executes
                .attach_trace()
                .context("attach to sched_process_exec")?,
        );
        if options.follow {
            links.process_forked = Some(
                progs
                    .process_forked
                    .attach_trace()
                    .context("attach to sched_process_fork")?,
            );
        }
        Ok(())
    }

    /// The program for calls whose return matters: a session.
    pub fn call_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.tls_call
    }

    /// The two programs for such calls where there are no sessions.
    pub fn enter_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.tls_enters
    }

    pub fn return_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.tls_returns
    }

    /// The program for calls without.
    pub fn event_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.tls_event
    }

    /// The programs for the beginning and the return of a Go function.
    pub fn go_enter_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.go_enters
    }

    pub fn go_return_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.go_returns
    }

    /// The program that holds a thread which has just mapped libraries.
    pub fn hold_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.libraries_mapped
    }

    /// Of the programs that this kernel uses.
    pub fn program_sizes(&self) -> Vec<ProgramSize> {
        let size = |program: Program<'_>| {
            let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
            let info = std::fs::read_to_string(path).ok()?;
            let verified = info
                .lines()
                .find_map(|line| line.strip_prefix("verified_insns:"))?;
            Some(ProgramSize {
                name: program.name().to_string_lossy().into_owned(),
                length: program.insn_cnt() as u64,
                verified: verified.trim().parse().ok()?,
            })
        };
        self.skel.object().progs().filter_map(size).collect()
    }

    pub fn ring(&self) -> &dyn MapCore {
        &self.skel.maps.ring
    }

    /// Must be called before the target's first probe is attached.
    pub fn set_layout(&self, target: u32, ssl: &Layout, bio: Option<BioLayout>) -> Result<()> {
        let (alpn, alpn_len) = ssl.alpn.clone().unzip();
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
            bio_method: bio.map_or(0, |bio| bio.method),
            bio_num: bio.map_or(0, |bio| bio.num),
            bio_next: bio.map_or(0, |bio| bio.next),
            bio_known: bio.is_some().into(),
            go_defer: [go_defer(ssl.write_defer), go_defer(ssl.read_defer)],
        };
        self.skel
            .maps
            .layouts
            .update(&target.to_ne_bytes(), bytes_of(&layout), MapFlags::ANY)
            .with_context(|| format!("hand the layout of target {target} to BPF"))
    }

    /// Looks at this process from now on (`by_tgid`).
    pub fn trace(&self, pid: u32) -> Result<()> {
        self.skel
            .maps
            .traced
            .update(&pid.to_ne_bytes(), &[1], MapFlags::ANY)
            .with_context(|| format!("add process {pid} to those that are traced"))
    }

    pub fn is_traced(&self, pid: u32) -> bool {
        matches!(
            self.skel
                .maps
                .traced
                .lookup(&pid.to_ne_bytes(), MapFlags::ANY),
            Ok(Some(_))
        )
    }

    /// The process has gone. Its pid may be used again.
    pub fn forget_process(&self, pid: u32) {
        // Absent entries are the normal case.
        let _ = self.skel.maps.traced.delete(&pid.to_ne_bytes());
        let _ = self.skel.maps.released.delete(&pid.to_ne_bytes());
    }

    /// Never mind the calls of this process, until it executes another program.
    pub fn mute(&mut self, key: &ConnKey) -> Result<()> {
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            bss.mutes_somebody = 1;
        }
        let key = ConnKey { handle: 0, ..*key };
        self.skel
            .maps
            .muted
            .update(&key.bytes(), &[1], MapFlags::ANY)
            .with_context(|| format!("mute process {}", key.tgid))
    }

    pub fn unmute(&self, key: &ConnKey) {
        let _ = self
            .skel
            .maps
            .muted
            .delete(&ConnKey { handle: 0, ..*key }.bytes());
    }

    /// Lets a thread go on that waits for its probes.
    pub fn release(&self, tgid: u32, ticket: u64) -> Result<()> {
        self.skel
            .maps
            .released
            .update(&tgid.to_ne_bytes(), &ticket.to_ne_bytes(), MapFlags::ANY)
            .with_context(|| format!("let process {tgid} go on"))
    }

    /// Bytes that the connection has moved, out and in, as far as BPF knows it by this id.
    pub fn conn_offsets(&self, key: &ConnKey, id: u64) -> Option<[u64; 2]> {
        let value = self
            .skel
            .maps
            .conns
            .lookup(&key.bytes(), MapFlags::ANY)
            .ok()??;
        let conn: types::ts_conn = from_bytes(&value)?;
        (conn.id == id).then_some(conn.off)
    }

    pub fn forget_conn(&self, key: &ConnKey) {
        let _ = self.skel.maps.conns.delete(&key.bytes());
    }

    pub fn counters(&self) -> Counters {
        let read = |counter: types::ts_counter| -> u64 {
            let map = &self.skel.maps.counters;
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
        }
    }

    /// The capture ends: whoever is held goes on, and nobody is held from now on.
    pub fn hold_nobody(&mut self) {
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            bss.holds_nobody = 1;
        }
    }

    /// The program that this process executes next is attached already: it must not be held.
    pub fn will_start(&mut self, pid: u32) {
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            bss.starting_tgid = pid;
        }
    }

    /// Says that the next record must wake the reader. The ring has to be looked at once more
    /// between this and blocking.
    pub fn will_sleep(&mut self) {
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            // SAFETY: the field is an aligned u32 in memory that is shared with BPF programs for
            // as long as the map lives; both sides access it atomically from here on.
            let flag = unsafe { AtomicU32::from_ptr(&raw mut bss.reader_sleeps) };
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

/// Leaves out the programs that this kernel would refuse, or has better ones for.
fn choose_programs(progs: &mut OpenTlssniffProgs<'_>, features: Features) {
    progs.tls_call.set_autoload(features.sessions);
    progs.tls_enters.set_autoload(!features.sessions);
    progs.tls_returns.set_autoload(!features.sessions);
    progs
        .sock_send_length
        .set_autoload(features.socket_tracepoints);
    progs
        .sock_recv_length
        .set_autoload(features.socket_tracepoints);
    progs
        .socket_sends
        .set_autoload(!features.socket_tracepoints);
    progs
        .socket_receives
        .set_autoload(!features.socket_tracepoints);
    for program in [
        &mut progs.tls_enters,
        &mut progs.tls_returns,
        &mut progs.tls_event,
        &mut progs.go_enters,
        &mut progs.go_returns,
        &mut progs.libraries_mapped,
        &mut progs.waited_returns,
    ] {
        if features.sleepable {
            program.set_flags(libbpf_sys::BPF_F_SLEEPABLE);
        }
        if features.multi {
            program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
        }
    }
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
impl Plain for types::ts_layout {}
impl Plain for types::ts_conn_key {}
impl Plain for types::ts_conn {}
impl Plain for types::ts_rec_conn {}
impl Plain for types::ts_rec_data {}
impl Plain for types::ts_rec_end {}
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
