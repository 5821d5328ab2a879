//! What BPF is told before it is loaded.

use super::{Features, types};
use anyhow::{Context, Result};
use std::time::Duration;

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
    /// Where processes are named, and where the whole machine is looked at.
    pub fn of(is_named: bool) -> Hold {
        match is_named {
            true => Hold::Always,
            false => Hold::NewFiles,
        }
    }

    /// How long a thread waits at most.
    pub fn most(self) -> Duration {
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

pub(super) fn configure(
    config: &mut types::ts_config,
    options: &Options,
    features: Features,
) -> Result<()> {
    let ring = u64::from(options.ring_bytes);
    let name = options.comm.as_deref().unwrap_or_default();
    config.self_tgid = std::process::id();
    config.snaplen = options.snaplen;
    config.by_tgid = options.by_tgid.into();
    config.follow = options.follow.into();
    config.by_uid = options.uid.is_some().into();
    config.uid = options.uid.unwrap_or_default();
    for (to, from) in config.comm.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    config.comm_len = u32::try_from(name.len()).context("length of the command's name")?;
    (config.cgroup, config.cgroup_level) = options.cgroup.unwrap_or_default();
    config.pid_namespace = options.pid_namespace.unwrap_or_default();
    config.hold_all = (options.hold == Hold::Always).into();
    config.hold_ns = u64::try_from(options.hold.most().as_nanos()).unwrap_or(u64::MAX);
    config.wakeup_at = ring / 16;
    config.large_call = ring / 2;
    config.can_sleep = features.sleepable.into();
    config.exact_records = features.exact_records.into();
    Ok(())
}
