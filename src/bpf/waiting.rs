//! Threads that sleep in a receive, and the calls that they are in.

use super::object::Map;
use super::{Bpf, Plain, bytes_of, from_bytes, types};
use anyhow::{Context, Result};
use libbpf_rs::{Iter, MapCore, MapFlags};
use std::io::Read;

pub(super) const TOO_OLD: &str = "a kernel before 5.15";
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
        let program = self.parts.sleepers.context(TOO_OLD)?;
        let link = program.attach().context("attach to the tasks")?;
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
        let waits = self.parts.waits.context(TOO_OLD)?;
        let placed = waits.update(key, wait, MapFlags::ANY);
        placed.context("hand a call that has begun to BPF")
    }

    /// Whether the thread is still in that call, as far as is known.
    pub fn is_waited_for(&self, key: &types::ts_wait_key) -> bool {
        let find = |waits: Map| waits.lookup(bytes_of(key), MapFlags::ANY).ok().flatten();
        let found = self.parts.waits.and_then(find);
        let wait: Option<types::ts_wait> = found.and_then(|value| from_bytes(&value));
        wait.is_some_and(|wait| wait.state == u64::from(types::ts_wait_state::TS_WAIT_COUNTS.0))
    }

    pub fn forget_wait(&self, key: &types::ts_wait_key) {
        if let Some(waits) = self.parts.waits {
            // Absent entries are no harm.
            let _ = waits.delete(bytes_of(key));
        }
    }
}
