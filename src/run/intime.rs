//! Who had probes in place before the first call, and whose first bytes may be missing.

use crate::event::Unseen;
use crate::flow::clock;
use crate::ring::RawConn;
use std::collections::HashMap;

/// When targets got their probes, and which processes waited for that. All times are nanoseconds
/// since boot.
#[derive(Debug)]
pub struct InTime {
    /// When the capture began.
    since: u64,
    /// Probes are put in place for each process by itself.
    each: bool,
    /// By target and process (0: all), when its probes were in place.
    probed: HashMap<(u32, u32), u64>,
    /// Processes that waited until all of theirs were, and when that was.
    waited: HashMap<u32, u64>,
    /// The command, until it runs.
    starting: Option<u32>,
    /// Programs that ran before.
    pub late: u64,
}

impl InTime {
    pub fn new(each: bool) -> InTime {
        InTime {
            since: clock::since_boot(),
            each,
            probed: HashMap::new(),
            waited: HashMap::new(),
            starting: None,
            late: 0,
        }
    }

    /// These targets, as this process has mapped them, have their probes now.
    pub fn probed(&mut self, pid: u32, targets: &[u32]) {
        if targets.is_empty() {
            return;
        }
        let pid = self.scope(pid);
        let now = clock::since_boot();
        self.probed
            .extend(targets.iter().map(|target| ((*target, pid), now)));
    }

    fn scope(&self, pid: u32) -> u32 {
        if self.each { pid } else { 0 }
    }

    /// The process has waited, from then on, until what it had mapped was probed.
    pub fn waited(&mut self, pid: u32, since: u64) {
        self.waited.insert(pid, since);
    }

    pub fn will_start(&mut self, pid: u32) {
        self.starting = Some(pid);
    }

    /// Whether it is the command that runs its program now.
    pub fn starts(&mut self, pid: u32, since: u64) -> bool {
        let is_command = self.starting == Some(pid);
        if is_command {
            self.starting = None;
            self.waited(pid, since);
        }
        is_command
    }

    /// What the process did before then was another program.
    pub fn executes(&mut self, pid: u32, time: u64) {
        if self.waited.get(&pid).is_some_and(|since| *since < time) {
            self.waited.remove(&pid);
        }
    }

    pub fn forget(&mut self, pid: u32) {
        self.waited.remove(&pid);
        if self.each {
            self.probed.retain(|(_, known), _| *known != pid);
        }
    }

    /// Whether, and why, a new connection may have moved bytes before it was seen.
    pub fn unseen(&self, conn: &RawConn) -> Option<Unseen> {
        let pid = conn.key.tgid;
        if conn.begun || self.waited.contains_key(&pid) {
            return None;
        }
        let probed = *self.probed.get(&(conn.target, self.scope(pid)))?;
        match conn.started {
            started if started >= probed => None,
            started if started < self.since => Some(Unseen::Older),
            _ => Some(Unseen::Late),
        }
    }
}
