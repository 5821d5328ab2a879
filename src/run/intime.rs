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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::ConnKey;
    use crate::event::AddrSource;
    use crate::ring::RawTransport;

    fn conn(tgid: u32, started: u64) -> RawConn {
        RawConn {
            conn: 1,
            target: 0,
            ts: 0,
            key: ConnKey {
                handle: 1,
                tgid,
                exec_id: 0,
            },
            tid: tgid,
            uid: 0,
            exe: (0, 0),
            comm: String::new(),
            own_pid: tgid,
            cgroup: 0,
            transport: RawTransport::Unknown,
            addr_source: AddrSource::Socket,
            role: 0,
            version: 0,
            alpn: None,
            sni: None,
            awaits_addr: false,
            begun: false,
            started,
        }
    }

    #[test]
    fn only_a_process_that_ran_before_its_probes_may_lack_a_beginning() {
        let mut in_time = InTime::new(false);
        let began = in_time.since;
        assert_eq!(in_time.unseen(&conn(1, began + 1)), None);
        in_time.probed(1, &[0]);
        let probed = in_time.probed[&(0, 0)];
        in_time.since = probed - 10;
        assert_eq!(in_time.unseen(&conn(1, probed - 20)), Some(Unseen::Older));
        assert_eq!(in_time.unseen(&conn(2, probed - 5)), Some(Unseen::Late));
        assert_eq!(in_time.unseen(&conn(3, probed)), None);
        let begun = RawConn {
            begun: true,
            ..conn(2, probed - 5)
        };
        assert_eq!(in_time.unseen(&begun), None);
    }

    #[test]
    fn who_has_waited_lacks_nothing_until_it_executes_another_program() {
        let mut in_time = InTime::new(false);
        in_time.probed(1, &[0]);
        let early = conn(7, in_time.since);
        in_time.waited(7, 100);
        in_time.executes(7, 90);
        assert_eq!(in_time.unseen(&early), None);
        in_time.executes(7, 110);
        assert!(in_time.unseen(&early).is_some());
        in_time.will_start(7);
        assert!(!in_time.starts(8, 120));
        assert!(in_time.starts(7, 120));
        assert!(!in_time.starts(7, 130));
        assert_eq!(in_time.unseen(&early), None);
    }

    #[test]
    fn processes_that_are_attached_to_one_by_one_are_apart() {
        let mut in_time = InTime::new(true);
        in_time.probed(1, &[0]);
        let since = in_time.since;
        assert!(in_time.unseen(&conn(1, since - 1)).is_some());
        assert_eq!(in_time.unseen(&conn(2, since - 1)), None);
        in_time.forget(1);
        assert_eq!(in_time.unseen(&conn(1, since - 1)), None);
    }
}
