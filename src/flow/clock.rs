//! Turns the kernel's time since boot into wall-clock time.

use crate::event::Nanos;
use nix::time::{ClockId, clock_gettime};

/// A step of the wall clock smaller than this is slewing, and following it would only reorder.
const STEP_NS: i64 = 1_000_000;

/// The difference between the two clocks, followed when the wall clock is set.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: i64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { offset: measure() }
    }
}

impl Clock {
    pub fn wall(&self, since_boot: u64) -> Nanos {
        since_boot.saturating_add_signed(self.offset)
    }

    /// To be called now and then.
    pub fn adjust(&mut self) {
        let offset = measure();
        if offset.abs_diff(self.offset) > STEP_NS.unsigned_abs() {
            self.offset = offset;
        }
    }
}

/// Now, in nanoseconds since boot, sleep included.
pub fn since_boot() -> u64 {
    nanos(ClockId::CLOCK_BOOTTIME).unsigned_abs()
}

fn measure() -> i64 {
    nanos(ClockId::CLOCK_REALTIME) - nanos(ClockId::CLOCK_BOOTTIME)
}

fn nanos(clock: ClockId) -> i64 {
    // Both clocks exist in every kernel with BPF, so that an error cannot happen.
    clock_gettime(clock).map_or(0, |now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}
