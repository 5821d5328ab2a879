//! Who is captured: processes, their targets, and what BPF is told about them.

use crate::attach::{Found, Registry, Scope};
use crate::bpf::{Bpf, ConnKey};
use crate::config::{Group, Who};
use crate::discovery::cgroup::{self, Cgroup};
use crate::discovery::{FileId, ProcFs, system};
use crate::event::{Flavor, Lib, Proc};
use crate::filter::Filter;
use crate::filter::glob::glob_match;
use crate::flow::Facts;
use crate::ring::RawConn;
use crate::run::unseen;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Threads of a process whose receives are looked at from the start, at most.
const MOST_THREADS: usize = 256;

/// `TASK_COMM_LEN`, the final NUL included.
const COMM_LEN: usize = 16;

/// Those of `-p` that are there; a word on each of the others.
///
/// # Errors
/// None of them is.
pub fn existing(pids: &[u32]) -> Result<BTreeSet<u32>> {
    let procfs = ProcFs::default();
    let (found, missing): (BTreeSet<u32>, BTreeSet<u32>) =
        pids.iter().partition(|pid| procfs.exists(**pid));
    for pid in &missing {
        log::error!("there is no process {pid} (-p)");
    }
    if found.is_empty() {
        bail!("none of the processes given with -p exists; nothing to capture");
    }
    Ok(found)
}

/// What BPF can compare by itself of a pattern for command names: a plain name, or the beginning of
/// one. Other patterns are matched here, once per process.
pub fn plain_beginning(glob: &str) -> Option<Vec<u8>> {
    let (name, whole) = match glob.strip_suffix('*') {
        Some(beginning) => (beginning, false),
        None => (glob, true),
    };
    let mut bytes = name.as_bytes().to_vec();
    if whole {
        bytes.push(0);
    }
    let plain = !name.contains(['*', '?', '[', '\\']);
    (plain && bytes.len() <= COMM_LEN).then_some(bytes)
}

/// The one of `--cgroup` or `--container`.
pub fn cgroup(who: &Who) -> Result<Option<Cgroup>> {
    Ok(match &who.group {
        None => None,
        Some(Group::Cgroup(path)) => Some(cgroup::at(path)?),
        Some(Group::Container(id)) => Some(cgroup::of_container(id)?),
    })
}

/// The processes in question and the probes in their files.
#[derive(Debug)]
pub struct People {
    pub bpf: Bpf,
    pub registry: Registry,
    pub procfs: ProcFs,
    who: Who,
    /// What it excludes by the process alone, BPF does not send.
    filter: Option<Filter>,
    /// Device and inode of `--exe`.
    exe: Option<FileId>,
    /// The processes named by `-p`, or the command: those that are still there. Empty and
    /// unnamed: the whole machine.
    pub named: BTreeSet<u32>,
    is_named: bool,
    procs: HashMap<(u32, u32), Option<Rc<Proc>>>,
    muted: HashMap<u32, Vec<ConnKey>>,
    /// What processes that have started since the capture did execute: those that live shorter
    /// than it takes to ask for it are known, too.
    exes: HashMap<u32, Option<String>>,
    /// By the number of a cgroup, of processes that were gone when they were asked for.
    containers: HashMap<u64, Option<String>>,
    /// Files that could not be attached are told once.
    told: BTreeSet<String>,
}

impl People {
    /// `named` are the processes of `-p` or the command; `None` is the whole machine.
    ///
    /// # Errors
    /// `--exe` names no file.
    pub fn new(
        bpf: Bpf,
        who: Who,
        named: Option<BTreeSet<u32>>,
        filter: Option<Filter>,
    ) -> Result<People> {
        let exe = who.exe.as_ref().map(|path| {
            let meta = path
                .metadata()
                .with_context(|| format!("look up --exe {}", path.display()))?;
            anyhow::Ok(FileId {
                dev: meta.dev(),
                ino: meta.ino(),
            })
        });
        let each = named.is_some() && !who.follow;
        let scope = if each { Scope::Each } else { Scope::Everyone };
        let procfs = ProcFs::default();
        let is_named = named.is_some();
        Ok(People {
            registry: Registry::new(scope, procfs.clone()),
            bpf,
            procfs,
            exe: exe.transpose()?,
            who,
            filter,
            named: named.unwrap_or_default(),
            is_named,
            procs: HashMap::new(),
            muted: HashMap::new(),
            exes: HashMap::new(),
            containers: HashMap::new(),
            told: BTreeSet::new(),
        })
    }

    /// What else there is to say of who is captured.
    pub fn group(&self) -> Option<&Group> {
        self.who.group.as_ref()
    }

    /// Looks at everybody who is there now; the number of processes with a TLS library.
    pub fn look_around(&mut self) -> Result<()> {
        if !self.is_named {
            for pid in self.procfs.pids()? {
                self.look_at_older(pid);
            }
            return Ok(());
        }
        if self.who.follow {
            self.add_descendants();
        }
        for pid in self.named.clone() {
            self.bpf.trace(pid)?;
            self.look_at_older(pid);
        }
        Ok(())
    }

    /// Of connections that are older than the capture, not even the first read comes unawares.
    fn look_at_older(&mut self, pid: u32) {
        if !self.look_at(pid) {
            return;
        }
        for tid in self.procfs.threads(pid).into_iter().take(MOST_THREADS) {
            if let Err(error) = self.bpf.watch_receives(tid) {
                log::debug!("thread {tid}: {error:#}");
            }
        }
    }

    /// What threads wait for already when the capture begins is seen when they return.
    pub fn look_at_waiting(&mut self) {
        let pids = self.is_named.then_some(&self.named);
        if let Err(error) = self.registry.look_at_waiting(&mut self.bpf, pids) {
            log::debug!("reads that have begun are not seen: {error:#}");
        }
    }

    /// Children that were there before the start belong to `-f` as those that come later do.
    fn add_descendants(&mut self) {
        let mut parents: Vec<u32> = self.named.iter().copied().collect();
        while let Some(pid) = parents.pop() {
            for child in self.procfs.children(pid).unwrap_or_default() {
                if self.named.insert(child) {
                    parents.push(child);
                }
            }
        }
    }

    /// Whether a process may be captured at all.
    pub fn is_looked_at(&self, pid: u32) -> bool {
        if pid == std::process::id() {
            return false;
        }
        !self.is_named || self.named.contains(&pid) || (self.who.follow && self.bpf.is_traced(pid))
    }

    /// Attaches what the process has mapped by now. Processes come and go; that one of them is
    /// gone is nothing to tell. Whether it has TLS functions.
    pub fn look_at(&mut self, pid: u32) -> bool {
        if pid == std::process::id() {
            return false;
        }
        match self.registry.look_at(&mut self.bpf, pid) {
            Ok(found) => {
                self.tell(pid, &found);
                found.has_tls
            }
            Err(error) => {
                log::debug!("process {pid}: {error:#}");
                false
            }
        }
    }

    /// Attaches what the process, or any, will map.
    pub fn foresee(&mut self, pid: u32, files: &[PathBuf]) {
        let found = self.registry.look_at_files(&mut self.bpf, pid, files);
        self.tell(pid, &found);
    }

    /// Attaches the system's own TLS libraries for programs that begin later: those of a command,
    /// of children, or of the whole machine. Processes that run already have mapped theirs.
    pub fn foresee_system(&mut self, command: Option<u32>) {
        if command.is_none() && self.is_named && !self.who.follow {
            return;
        }
        for files in system::libraries() {
            self.foresee(command.unwrap_or_default(), &files);
        }
    }

    fn tell(&mut self, pid: u32, found: &Found) {
        // What happens to a process that is ending is nothing to tell.
        let failed = found.failed.iter().filter(|_| self.procfs.exists(pid));
        for (path, reason) in failed {
            if self.told.insert(path.clone()) {
                log::warn!("{path} (process {pid}) is not captured: {reason}");
            }
        }
        for number in &found.attached {
            let Some(target) = self.registry.target(*number) else {
                continue;
            };
            let lib = &target.lib;
            if self.told.insert(format!("attached {}", lib.path)) {
                match &lib.version {
                    Some(version) => log::info!("attached to {} ({version})", lib.path),
                    None => log::info!("attached to {}", lib.path),
                }
                for note in &target.notes {
                    log::info!("{}: {note}", lib.path);
                }
            }
        }
    }

    /// The process has begun another program, whose file it maps next.
    pub fn executes(&mut self, pid: u32) {
        if self.is_looked_at(pid) {
            self.exes.insert(pid, None);
        }
    }

    /// The process has mapped a file; the first one after exec is the program itself.
    pub fn mapped(&mut self, pid: u32, path: &Path) {
        if let Some(exe @ None) = self.exes.get_mut(&pid) {
            *exe = Some(path.to_string_lossy().into_owned());
        }
    }

    fn exe(&self, pid: u32) -> Option<String> {
        let started = self.exes.get(&pid).cloned().flatten();
        started.or_else(|| Some(self.procfs.exe(pid).ok()?.to_string_lossy().into_owned()))
    }

    /// Processes may have ended before they are asked for; their cgroup mostly is still there.
    fn container(&mut self, conn: &RawConn) -> Option<String> {
        match self.procfs.container(conn.key.tgid) {
            Ok(container) => container,
            Err(_) => self
                .containers
                .entry(conn.cgroup)
                .or_insert_with(|| cgroup::container_with(conn.cgroup))
                .clone(),
        }
    }

    /// The process has gone.
    pub fn forget(&mut self, pid: u32) {
        self.forget_program(pid);
        self.bpf.forget_process(pid);
        self.registry.forget_process(pid);
        self.named.remove(&pid);
        self.exes.remove(&pid);
    }

    /// The process has gone, or runs another program.
    pub fn forget_program(&mut self, pid: u32) {
        self.registry.forget_waiting(&self.bpf, pid);
        self.procs.retain(|(known, _), _| *known != pid);
        for key in self.muted.remove(&pid).unwrap_or_default() {
            self.bpf.unmute(&key);
        }
    }

    /// Says of the processes that were named, and of which nothing can be captured, why not.
    pub fn explain_unseen(&self) {
        let unseen = |pid: &u32| !self.registry.has_target(*pid);
        let pids = self.named.iter().copied().filter(unseen).collect();
        unseen::explain(self.procfs.clone(), pids);
    }

    /// Everybody that was named has ended.
    pub fn is_alone(&self) -> bool {
        self.is_named && self.named.is_empty()
    }

    fn is_wanted(&self, conn: &RawConn, exe: Option<&str>) -> bool {
        let comm = self
            .who
            .comm
            .as_ref()
            .is_none_or(|glob| glob_match(glob, &conn.comm));
        let wanted_exe = self.exe.is_none_or(|wanted| {
            let target = self.registry.target(conn.target).map(|target| target.id);
            // Some file systems give stat another device than the kernel has inside.
            let same_path = || exe.map(AsRef::as_ref) == self.who.exe.as_deref();
            conn.exe == (wanted.dev, wanted.ino) || target == Some(wanted) || same_path()
        });
        comm && wanted_exe
    }
}

impl Facts for People {
    fn lib(&self, target: u32) -> Rc<Lib> {
        match self.registry.target(target) {
            Some(target) => Rc::clone(&target.lib),
            None => Rc::new(Lib {
                flavor: Flavor::OpenSsl,
                path: String::new(),
                version: None,
            }),
        }
    }

    fn func(&self, target: u32, index: u16) -> &str {
        self.registry
            .target(target)
            .and_then(|target| target.funcs.get(usize::from(index)))
            .map_or("", String::as_str)
    }

    fn admit(&mut self, conn: &RawConn) -> Option<Rc<Proc>> {
        let key = (conn.key.tgid, conn.key.exec_id);
        if let Some(known) = self.procs.get(&key) {
            return known.clone();
        }
        let exe = self.exe(conn.key.tgid);
        let wanted = self.is_wanted(conn, exe.as_deref());
        let process = wanted.then(|| {
            Rc::new(Proc {
                pid: conn.key.tgid,
                comm: conn.comm.clone(),
                exe,
                uid: Some(conn.uid),
                own_pid: (conn.own_pid != conn.key.tgid).then_some(conn.own_pid),
                container: self.container(conn),
            })
        });
        let excludes = |process: &Rc<Proc>| {
            let filter = self.filter.as_ref();
            filter.is_some_and(|filter| filter.excludes(process))
        };
        let process = process.filter(|process| !excludes(process));
        if process.is_none() {
            match self.bpf.mute(&conn.key) {
                Ok(()) => self.muted.entry(conn.key.tgid).or_default().push(conn.key),
                Err(error) => log::debug!("{error:#}"),
            }
        }
        self.procs.insert(key, process.clone());
        process
    }

    fn guess(&mut self, pid: u32) -> Option<Rc<Proc>> {
        let known = self.procs.iter().find(|((known, _), _)| *known == pid);
        if let Some((_, process)) = known {
            return process.clone();
        }
        let process = self.procfs.process(pid).ok();
        let comm = process
            .as_ref()
            .map(|process| process.comm.clone())
            .unwrap_or_default();
        if self
            .who
            .comm
            .as_ref()
            .is_some_and(|glob| !glob_match(glob, &comm))
        {
            return None;
        }
        let exe = self.exe(pid);
        if self.who.exe.is_some() && exe.as_deref().map(AsRef::as_ref) != self.who.exe.as_deref() {
            return None;
        }
        Some(Rc::new(Proc {
            pid,
            comm,
            exe,
            uid: process.map(|process| process.uid),
            own_pid: None,
            container: self.procfs.container(pid).ok().flatten(),
        }))
    }

    fn offsets(&self, key: &ConnKey, conn: u64) -> Option<[u64; 2]> {
        self.bpf.conn_offsets(key, conn)
    }
}

#[cfg(test)]
mod tests {
    use super::plain_beginning;

    #[test]
    fn plain_names_and_beginnings_are_compared_in_the_kernel() {
        assert_eq!(plain_beginning("curl"), Some(b"curl\0".to_vec()));
        assert_eq!(plain_beginning("python*"), Some(b"python".to_vec()));
        assert_eq!(plain_beginning("*"), Some(Vec::new()));
        assert_eq!(plain_beginning("p?thon*"), None);
        assert_eq!(plain_beginning("[a-c]"), None);
        assert_eq!(plain_beginning("a name of more than 15 bytes"), None);
    }
}
