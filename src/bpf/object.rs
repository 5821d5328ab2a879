//! The two objects, for the kernels of today and for old ones: what they have in common.

use super::{Features, Options, Plain, bytes_of, from_bytes};
use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapMut, OpenProgramMut, ProgramAttachType, ProgramMut, libbpf_sys};
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
/// Of the kernel's `bpf_verifier.h`: the verifier's log has its counts alone.
const BPF_LOG_STATS: u32 = 4;

pub type Map = &'static MapMut<'static>;
type Program = &'static ProgramMut<'static>;

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
    pub flags: Option<Flags>,
    /// All of them, also those that this kernel does without.
    pub programs: Vec<Program>,
    pub sock_send_length: Program,
    pub sock_recv_length: Program,
    pub socket_sends: Program,
    pub socket_receives: Program,
    pub process_forked: Program,
    pub process_executes: Program,
    /// Only for old kernels.
    pub thread_exits: Option<Program>,
    /// Not for old kernels.
    pub tls_call: Option<Program>,
    pub sleepers: Option<Program>,
    pub waited_returns: Option<Program>,
    pub waits: Option<Map>,
    pub tls_enters: Program,
    pub tls_returns: Program,
    pub tls_event: Program,
    pub go_enters: Program,
    pub go_returns: Program,
    pub libraries_mapped: Program,
    /// Not for old kernels.
    pub rustls: Option<Rustls>,
}

/// Its programs.
pub struct Rustls {
    pub call: Program,
    pub enters: Program,
    pub returns: Program,
    pub event: Program,
}

/// What user space writes while BPF programs read it.
pub struct Flags {
    pub reader_sleeps: &'static mut u32,
    pub mutes_somebody: &'static mut u32,
    pub holds_nobody: &'static mut u32,
    pub starting_tgid: &'static mut u32,
    pub hellos_until: &'static mut u64,
}

/// Opens, configures and loads one of them, and takes it apart. `$more` are the programs that only
/// it has; then come those
/// for rustls: a session, its ends, and what is neither.
macro_rules! load {
    ($skeleton:ident, $features:expr, $options:expr, $config:expr, [$($more:ident),+],
        [$($whole:ident),*], [$($end:ident),*], [$($event:ident),*]) => {{
        let features: Features = $features;
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = $skeleton::TlssniffSkelBuilder::default()
            .open(storage)
            .context("open the BPF object")?;
        let maps = &mut open.maps;
        maps.ring
            .set_max_entries($options.ring_bytes)
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
        let progs = &mut open.progs;
        for (program, wanted) in [
            (&mut progs.tls_enters, !features.sessions),
            (&mut progs.tls_returns, !features.sessions),
            (&mut progs.sock_send_length, features.socket_tracepoints),
            (&mut progs.sock_recv_length, features.socket_tracepoints),
            (&mut progs.socket_sends, !features.socket_tracepoints),
            (&mut progs.socket_receives, !features.socket_tracepoints),
        ] {
            program.set_autoload(wanted);
        }
        $(progs.$more.set_autoload(features.sessions || !features.cookies);)+
        $(progs.$whole.set_autoload(features.sessions);)*
        $(progs.$end.set_autoload(!features.sessions);)*
        for program in [
            &mut progs.tls_enters,
            &mut progs.tls_returns,
            &mut progs.tls_event,
            &mut progs.go_enters,
            &mut progs.go_returns,
            $(&mut progs.$end,)*
            $(&mut progs.$event,)*
            &mut progs.libraries_mapped,
        ] {
            prepare(program, features);
        }
        load!(@prepare $skeleton, progs, features);
        if $options.count_verified {
            for mut program in open.open_object_mut().progs_mut() {
                program.set_log_level(BPF_LOG_STATS);
            }
        }
        let skel = open
            .load()
            .context("load the BPF programs (tlssniff --debug shows the kernel's own words)")?;
        let skel = Box::leak(Box::new(skel));
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
            flags: maps.bss_data.as_deref_mut().map(|bss| Flags {
                reader_sleeps: &mut bss.reader_sleeps,
                mutes_somebody: &mut bss.mutes_somebody,
                holds_nobody: &mut bss.holds_nobody,
                starting_tgid: &mut bss.starting_tgid,
                hellos_until: &mut bss.hellos_until,
            }),
            programs: vec![
                $(&progs.$more,)+
                $(&progs.$whole,)*
                $(&progs.$end,)*
                $(&progs.$event,)*
                &progs.sock_send_length,
                &progs.sock_recv_length,
                &progs.socket_sends,
                &progs.socket_receives,
                &progs.process_forked,
                &progs.process_executes,
                &progs.tls_enters,
                &progs.tls_returns,
                &progs.tls_event,
                &progs.go_enters,
                &progs.go_returns,
                &progs.libraries_mapped,
            ],
            sock_send_length: &progs.sock_send_length,
            sock_recv_length: &progs.sock_recv_length,
            socket_sends: &progs.socket_sends,
            socket_receives: &progs.socket_receives,
            process_forked: &progs.process_forked,
            process_executes: &progs.process_executes,
            tls_enters: &progs.tls_enters,
            tls_returns: &progs.tls_returns,
            tls_event: &progs.tls_event,
            go_enters: &progs.go_enters,
            go_returns: &progs.go_returns,
            libraries_mapped: &progs.libraries_mapped,
            rustls: load!(@rustls $skeleton, progs),
            thread_exits: load!(@thread_exits $skeleton, progs),
            tls_call: load!(@tls_call $skeleton, progs),
            sleepers: load!(@sleepers $skeleton, progs),
            waited_returns: load!(@waited_returns $skeleton, progs),
            waits: load!(@waits $skeleton, maps),
        }
    }};
    (@thread_exits old, $progs:ident) => {
        Some(&$progs.thread_exits)
    };
    (@tls_call usual, $progs:ident) => {
        Some(&$progs.tls_call)
    };
    (@rustls usual, $progs:ident) => {
        Some(Rustls {
            call: &$progs.rustls_write,
            enters: &$progs.rustls_write_enters,
            returns: &$progs.rustls_write_returns,
            event: &$progs.rustls_event,
        })
    };
    (@sleepers usual, $progs:ident) => {
        Some(&$progs.sleepers)
    };
    (@waited_returns usual, $progs:ident) => {
        Some(&$progs.waited_returns)
    };
    (@waits usual, $maps:ident) => {
        Some(&$maps.waits)
    };
    (@prepare usual, $progs:ident, $features:ident) => {
        prepare(&mut $progs.waited_returns, $features)
    };
    (@prepare old, $progs:ident, $features:ident) => {};
    (@threads usual, $maps:ident) => {
        Some(&$maps.threads)
    };
    (@$program:ident $skeleton:ident, $progs:ident) => {
        None
    };
}

/// Says of a program for uprobes how this kernel can run it.
fn prepare(program: &mut OpenProgramMut<'_>, features: Features) {
    if features.sleepable {
        program.set_flags(libbpf_sys::BPF_F_SLEEPABLE);
    }
    if features.multi {
        program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
    }
}

impl Parts {
    /// Of the object that this kernel can load.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(features: Features, options: &Options, config: &types::ts_config) -> Result<Parts> {
        if features.cookies {
            Ok(load!(
                usual,
                features,
                options,
                config,
                [tls_call],
                [rustls_write],
                [rustls_write_enters, rustls_write_returns],
                [rustls_event]
            ))
        } else {
            Ok(load!(
                old,
                features,
                options,
                config,
                [thread_exits, tls_finishes, go_finishes],
                [],
                [],
                []
            ))
        }
    }
}
