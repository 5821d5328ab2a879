//! Threads that sleep in a receive, and the calls that they are in.

use super::{Bpf, Plain, bytes_of, from_bytes, types};
use anyhow::{Context, Result};
use libbpf_rs::{Iter, MapCore, MapFlags, ProgramMut};
use std::io::Read;

/// Most threads that are looked at.
const MAX_SLEEPERS: usize = 1 << 16;

impl Plain for types::ts_sleeper {}
impl Plain for types::ts_wait_key {}
impl Plain for types::ts_wait {}

impl Bpf {
    /// The threads of all processes that sleep in a receive. A call that was placed counts from now
    /// on if its thread has not stirred since it was seen here before.
    ///
    /// # Errors
    /// The kernel refuses to go through its tasks.
    pub fn sleepers(&self) -> Result<Vec<types::ts_sleeper>> {
        const SIZE: usize = size_of::<types::ts_sleeper>();
        let link = self.skel.progs.sleepers.attach();
        let link = link.context("attach to the tasks")?;
        let tasks = Iter::new(&link).context("go through the tasks")?;
        let mut bytes = Vec::new();
        tasks
            .take((MAX_SLEEPERS * SIZE) as u64)
            .read_to_end(&mut bytes)
            .context("read the tasks")?;
        Ok(bytes.chunks_exact(SIZE).filter_map(from_bytes).collect())
    }

    /// Says which call a sleeping thread is in.
    ///
    /// # Errors
    /// There are too many.
    pub fn place_wait(&self, key: &types::ts_wait_key, wait: &types::ts_wait) -> Result<()> {
        let (key, wait) = (bytes_of(key), bytes_of(wait));
        let placed = self.skel.maps.waits.update(key, wait, MapFlags::ANY);
        placed.context("hand a call that has begun to BPF")
    }

    /// Whether the thread is still in that call, as far as is known.
    pub fn is_waited_for(&self, key: &types::ts_wait_key) -> bool {
        let found = self.skel.maps.waits.lookup(bytes_of(key), MapFlags::ANY);
        let wait = found.ok().flatten().and_then(|value| {
            let wait: Option<types::ts_wait> = from_bytes(&value);
            wait
        });
        wait.is_some_and(|wait| wait.state == u64::from(types::ts_wait_state::TS_WAIT_COUNTS.0))
    }

    pub fn forget_wait(&self, key: &types::ts_wait_key) {
        // Absent entries are no harm.
        let _ = self.skel.maps.waits.delete(bytes_of(key));
    }

    /// The program for where such a call returns to.
    pub fn waited_program(&mut self) -> &ProgramMut<'static> {
        &self.skel.progs.waited_returns
    }
}
