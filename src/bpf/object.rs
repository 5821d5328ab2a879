//! The two objects, for the kernels of today and for old ones: what they have in common.

use super::program::{self, Program};
use super::{Features, Plain, bytes_of, from_bytes, syscall};
use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapMut, OpenObject, ProgramMut};
use std::mem::{MaybeUninit, offset_of};

macro_rules! skeleton {
    ($name:ident, $file:literal) => {
        #[allow(
            clippy::all,
            clippy::pedantic,
            dead_code,
            missing_debug_implementations,
            non_camel_case_types,
            unused_qualifications
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), $file));
        }
    };
}
skeleton!(usual, "/usual/tlssniff.skel.rs");
skeleton!(old, "/old/tlssniff.skel.rs");

use usual::types;

// Both objects say the same with the same bytes.
const _: () = {
    assert!(size_of::<types::ts_config>() == size_of::<old::types::ts_config>());
    assert!(size_of::<types::ts_layout>() == size_of::<old::types::ts_layout>());
    assert!(offset_of!(types::ts_config, never) == offset_of!(old::types::ts_config, never));
};

impl Plain for types::ts_config {}
impl Plain for old::types::ts_config {}

/// Entries of tables that have their full size from the beginning.
const FIXED_CONNS: u32 = 65536;
const FIXED_PROCESSES: u32 = 16384;

pub type Map = &'static MapMut<'static>;
type Traced = &'static ProgramMut<'static>;

/// What user space needs of a loaded object. It lives until the process ends: there is one in a run,
/// and leaking it spares a self-reference.
pub struct Parts {
    pub ring: Map,
    pub conns: Map,
    pub layouts: Map,
    pub traced: Map,
    pub muted: Map,
    pub released: Map,
    pub counters: Map,
    /// Not for old kernels.
    pub threads: Option<Map>,
    pub waits: Option<Map>,
    pub flags: Option<Flags>,
    /// All that this kernel uses.
    pub programs: &'static [Program],
    pub sock_send_length: Traced,
    pub sock_recv_length: Traced,
    pub socket_sends: Traced,
    pub socket_receives: Traced,
    pub process_forked: Traced,
    pub process_executes: Traced,
    /// Only for old kernels.
    pub thread_exits: Option<Traced>,
    /// Not for old kernels.
    pub sleepers: Option<Traced>,
}

/// What user space writes while BPF programs read it.
pub struct Flags {
    pub reader_sleeps: &'static mut u32,
    pub mutes_somebody: &'static mut u32,
    pub holds_nobody: &'static mut u32,
    pub starting_tgid: &'static mut u32,
    pub hellos_until: &'static mut u64,
}

/// What nearly every target needs.
const MOST_USED: [&str; 4] = ["tls_call", "tls_enters", "tls_returns", "tls_event"];

/// Whether this kernel needs the program.
fn is_used(name: &str, features: Features) -> bool {
    match name {
        "tls_call" | "rustls_write" => features.sessions,
        "tls_enters" | "tls_returns" | "rustls_write_enters" | "rustls_write_returns" => {
            !features.sessions
        }
        "sock_send_length" | "sock_recv_length" => features.socket_tracepoints,
        "socket_sends" | "socket_receives" => !features.socket_tracepoints,
        _ => true,
    }
}

/// Makes the maps, and adapts the programs to them and to the kernel. Those of probes are left to be
/// loaded when they are needed.
fn prepare(object: &mut OpenObject, features: Features) -> Result<&'static [Program]> {
    for mut program in object.progs_mut() {
        let wanted = is_used(&program.name().to_string_lossy(), features);
        program.set_autoload(wanted);
    }
    syscall::prepare(object).context("make the BPF maps")?;
    let types = syscall::types_of(object);
    let mut programs = Vec::new();
    for mut program in object.progs_mut().filter(|program| program.autoload()) {
        let known = Program::of(&program, types.clone(), features);
        program.set_autoload(!known.is_of_probe);
        programs.push(known);
    }
    let programs = Box::leak(programs.into_boxed_slice());
    if features.cookies {
        program::load_meanwhile(programs, &MOST_USED);
    }
    Ok(programs)
}

/// Opens, configures and loads one of them, and takes it apart.
macro_rules! load {
    ($skeleton:ident, $features:expr, $ring_bytes:expr, $config:expr) => {{
        let features: Features = $features;
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = $skeleton::TlssniffSkelBuilder::default()
            .open(storage)
            .context("open the BPF object")?;
        let maps = &mut open.maps;
        maps.ring
            .set_max_entries($ring_bytes)
            .context("set the size of the ring")?;
        if !features.growing {
            for (map, entries) in [
                (&mut maps.conns, FIXED_CONNS),
                (&mut maps.traced, FIXED_PROCESSES),
                (&mut maps.muted, FIXED_PROCESSES),
            ] {
                map.set_map_flags(0)
                    .and_then(|()| map.set_max_entries(entries))
                    .context("set the size of a table")?;
            }
        }
        maps.rodata_data
            .as_mut()
            .context("find the BPF configuration")?
            .config = from_bytes(bytes_of($config)).context("hand over the configuration")?;
        let programs = prepare(open.open_object_mut(), features)?;
        let skel = open
            .load()
            .context("load the BPF programs (tlssniff --debug shows the kernel's own words)")?;
        let skel = Box::leak(Box::new(skel));
        program::are_loaded(programs, skel.object());
        let (maps, progs) = (&mut skel.maps, &skel.progs);
        Parts {
            ring: &maps.ring,
            conns: &maps.conns,
            layouts: &maps.layouts,
            traced: &maps.traced,
            muted: &maps.muted,
            released: &maps.released,
            counters: &maps.counters,
            threads: load!(@threads $skeleton, maps),
            waits: load!(@waits $skeleton, maps),
            flags: maps.bss_data.as_deref_mut().map(|bss| Flags {
                reader_sleeps: &mut bss.reader_sleeps,
                mutes_somebody: &mut bss.mutes_somebody,
                holds_nobody: &mut bss.holds_nobody,
                starting_tgid: &mut bss.starting_tgid,
                hellos_until: &mut bss.hellos_until,
            }),
            programs,
            sock_send_length: &progs.sock_send_length,
            sock_recv_length: &progs.sock_recv_length,
            socket_sends: &progs.socket_sends,
            socket_receives: &progs.socket_receives,
            process_forked: &progs.process_forked,
            process_executes: &progs.process_executes,
            thread_exits: load!(@thread_exits $skeleton, progs),
            sleepers: load!(@sleepers $skeleton, progs),
        }
    }};
    (@thread_exits old, $progs:ident) => {
        Some(&$progs.thread_exits)
    };
    (@sleepers usual, $progs:ident) => {
        Some(&$progs.sleepers)
    };
    (@threads usual, $maps:ident) => {
        Some(&$maps.threads)
    };
    (@waits usual, $maps:ident) => {
        Some(&$maps.waits)
    };
    (@$part:ident $skeleton:ident, $of:ident) => {
        None
    };
}

impl Parts {
    /// Of the object that this kernel can load.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(features: Features, ring_bytes: u32, config: &types::ts_config) -> Result<Parts> {
        if features.cookies {
            Ok(load!(usual, features, ring_bytes, config))
        } else {
            Ok(load!(old, features, ring_bytes, config))
        }
    }

    /// If it is in the object, and this kernel uses it.
    pub fn program(&self, name: &str) -> Option<&'static Program> {
        let mut programs = self.programs.iter();
        programs.find(|program| program.name.as_bytes() == name.as_bytes())
    }
}
