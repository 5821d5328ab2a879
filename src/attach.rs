//! Puts a target's probes in place, once per file.

mod place;
mod waiting;

use crate::bpf::{Bpf, Kind};
use crate::discovery::content::SparseFile;
use crate::discovery::elf::Elf;
use crate::discovery::{FileId, Mapping, ProcFs, Stamp};
use crate::event::{Flavor, Lib};
use crate::plan::{self, BioLayout, Plan};
use anyhow::{Context, Result};
use place::{Link, Place};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use waiting::Waits;

/// The function that the dynamic linker calls for debuggers each time it has mapped libraries, in
/// glibc and in musl (`elf/dl-debug.c`, `ldso/dynlink.c`).
const LIBRARIES_MAPPED: &str = "_dl_debug_state";
/// How often it is tried to attach to a file.
const MAX_TRIES: u32 = 3;
/// How many links are closed at a time.
const CLOSERS: usize = 512;

/// For which processes the breakpoints are put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whoever maps the file, now or later.
    Everyone,
    /// Only processes that are named one by one: no other pays for a breakpoint.
    Each,
}

/// A target in the order of its number.
#[derive(Debug)]
pub struct Target {
    pub id: FileId,
    pub lib: Rc<Lib>,
    /// Names of the functions, by the index that a data record carries.
    pub funcs: Vec<String>,
    /// Whether the libcrypto that goes with it has been seen.
    has_crypto: bool,
    pub notes: Vec<String>,
}

/// What a file is to us.
#[derive(Clone, Debug)]
enum Content {
    /// Nothing to probe here. Nothing of ours keeps the file, so another one may get its inode.
    Other(Option<Stamp>),
    /// One planned target for each library in it.
    Tls(Vec<(u32, Rc<Plan>)>),
    /// A dynamic linker, and where it says that libraries were mapped.
    Linker(u64),
}

#[derive(Clone, Debug)]
struct Crypto {
    bio: BioLayout,
    version: Option<String>,
}

/// What one look at a process has changed.
#[derive(Debug, Default)]
pub struct Found {
    /// Targets that were attached just now, by number.
    pub attached: Vec<u32>,
    /// Files that hold TLS functions but could not be attached: path and reason.
    pub failed: Vec<(String, String)>,
    /// Whether the process has mapped TLS functions, attached now or before.
    pub has_tls: bool,
}

impl Found {
    fn fails(&mut self, mapping: &Mapping, error: &anyhow::Error) {
        let path = mapping.path.to_string_lossy();
        self.failed.push((path.into(), format!("{error:#}")));
    }
}

/// All files that were looked at, and the links to those that hold TLS functions.
#[derive(Debug)]
pub struct Registry {
    scope: Scope,
    procfs: ProcFs,
    contents: HashMap<FileId, Content>,
    /// By the file that holds libcrypto's functions: the layout of a `BIO`, and the version.
    cryptos: HashMap<FileId, Crypto>,
    targets: Vec<Target>,
    /// What is linked, for which process (0: for all).
    linked: HashMap<(FileId, u32), Vec<Link>>,
    /// How often the kernel has refused it. Another tracer that comes or goes can be the reason, so
    /// it is tried again, but not for ever.
    refused: HashMap<(FileId, u32), u32>,
    /// Files with TLS in which nothing can be probed, of processes of which nothing is captured yet.
    unplanned: Vec<Unplanned>,
    /// Calls that had begun before.
    waits: Vec<Waits>,
}

#[derive(Debug)]
struct Unplanned {
    /// The process in which it was met; `None`: in the one that is looked at.
    pid: Option<u32>,
    path: String,
    reason: String,
}

fn open_unmapped(path: &Path) -> Result<(Mapping, File)> {
    use std::os::unix::fs::MetadataExt;
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let meta = file
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?;
    let mapping = Mapping {
        start: 0,
        end: 0,
        offset: 0,
        id: FileId {
            dev: meta.dev(),
            ino: meta.ino(),
        },
        path: path.to_path_buf(),
        deleted: false,
    };
    Ok((mapping, file))
}

impl Registry {
    pub fn new(scope: Scope, procfs: ProcFs) -> Registry {
        Registry {
            scope,
            procfs,
            contents: HashMap::new(),
            cryptos: HashMap::new(),
            targets: Vec::new(),
            linked: HashMap::new(),
            refused: HashMap::new(),
            unplanned: Vec::new(),
            waits: Vec::new(),
        }
    }

    pub fn target(&self, number: u32) -> Option<&Target> {
        self.targets.get(usize::try_from(number).ok()?)
    }

    /// Whether the process has mapped a file with TLS functions that are known.
    pub fn has_target(&self, pid: u32) -> bool {
        let is_target = |id| matches!(self.contents.get(&id), Some(Content::Tls(_)));
        self.procfs
            .exec_mappings(pid)
            .is_ok_and(|mappings| mappings.iter().any(|mapping| is_target(mapping.id)))
    }

    /// Whether the process has a dynamic linker that is known, in which it waits for its libraries.
    pub fn has_linker(&self, pid: u32) -> bool {
        let is_linker = |id| matches!(self.contents.get(&id), Some(Content::Linker(_)));
        self.procfs
            .exec_mappings(pid)
            .is_ok_and(|mappings| mappings.iter().any(|mapping| is_linker(mapping.id)))
    }

    /// Those with probes in place.
    pub fn attached(&self) -> impl Iterator<Item = &Target> {
        let ids: HashSet<FileId> = self.linked.keys().map(|(id, _)| *id).collect();
        self.targets
            .iter()
            .filter(move |target| ids.contains(&target.id))
    }

    /// Whether a file that was mapped needs a look at the process.
    pub fn is_news(&self, id: FileId, pid: u32) -> bool {
        match self.contents.get(&id) {
            None => true,
            Some(Content::Tls(_) | Content::Linker(_)) => {
                let key = (id, self.link_pid(pid));
                !self.linked.contains_key(&key)
                    && self
                        .refused
                        .get(&key)
                        .is_none_or(|times| *times < MAX_TRIES)
            }
            Some(Content::Other(_)) => false,
        }
    }

    fn link_pid(&self, pid: u32) -> u32 {
        match self.scope {
            Scope::Everyone => 0,
            Scope::Each => pid,
        }
    }

    /// Attaches whatever TLS functions the process has mapped and that are not attached yet.
    ///
    /// # Errors
    /// The process has gone, or may not be looked at. A file that cannot be attached is no error
    /// but a line in [`Found::failed`].
    pub fn look_at(&mut self, bpf: &mut Bpf, pid: u32) -> Result<Found> {
        let mappings = self.procfs.exec_mappings(pid)?;
        let mut found = Found::default();
        let mut opened = Vec::new();
        for mapping in &mappings {
            self.forget_replaced(pid, mapping);
            if !self.is_news(mapping.id, pid) {
                continue;
            }
            // Opened once: what is attached stays attached if the process ends meanwhile.
            match self.procfs.open_mapping(pid, mapping) {
                Ok(file) => opened.extend(self.worth_attaching(mapping, file)),
                // It may have gone: another process that maps the file gets another look.
                Err(error) if self.contents.contains_key(&mapping.id) => {
                    found.fails(mapping, &error);
                }
                Err(error) => log::debug!("{}: {error:#}", mapping.path.display()),
            }
        }
        self.join_crypto(bpf, &mappings)?;
        for (mapping, file) in &opened {
            if let Err(error) = self.attach(bpf, pid, mapping, file, &mut found) {
                *self
                    .refused
                    .entry((mapping.id, self.link_pid(pid)))
                    .or_default() += 1;
                found.fails(mapping, &error);
            }
        }
        found.has_tls = mappings
            .iter()
            .any(|mapping| matches!(self.contents.get(&mapping.id), Some(Content::Tls(_))));
        self.tell_unplanned(pid, &mut found);
        Ok(found)
    }

    /// Of a process of which other files are captured nobody else says what is missing.
    fn tell_unplanned(&mut self, pid: u32, found: &mut Found) {
        for unplanned in &mut self.unplanned {
            unplanned.pid.get_or_insert(pid);
        }
        let has_tls = found.has_tls;
        let told = self
            .unplanned
            .extract_if(.., |unplanned| has_tls && unplanned.pid == Some(pid));
        found
            .failed
            .extend(told.map(|unplanned| (unplanned.path, unplanned.reason)));
    }

    /// Attaches to files before any process maps them; what one of them tells about another, as
    /// libcrypto about libssl, is used. A file that cannot be attached is not refused for good:
    /// the first process that maps it tells why.
    pub fn look_at_files(&mut self, bpf: &mut Bpf, pid: u32, paths: &[PathBuf]) -> Found {
        let mut found = Found::default();
        let mut mappings = Vec::new();
        let mut opened = Vec::new();
        for path in paths {
            match open_unmapped(path) {
                Ok((mapping, file)) => {
                    mappings.push(mapping.clone());
                    opened.extend(self.worth_attaching(&mapping, file));
                }
                Err(error) => log::debug!("{error:#}"),
            }
        }
        if let Err(error) = self.join_crypto(bpf, &mappings) {
            log::debug!("{error:#}");
            return found;
        }
        for (mapping, file) in &opened {
            if self.is_news(mapping.id, pid)
                && let Err(error) = self.attach(bpf, pid, mapping, file, &mut found)
            {
                log::debug!("{}: {error:#}", mapping.path.display());
            }
        }
        found
    }

    /// Forgets what was in a file that has gone, and whose inode another one has now.
    fn forget_replaced(&mut self, pid: u32, mapping: &Mapping) {
        if let Some(Content::Other(Some(then))) = self.contents.get(&mapping.id)
            && let Some(now) = self.procfs.stamp(pid, mapping)
            && *then != now
        {
            self.contents.remove(&mapping.id);
            self.cryptos.remove(&mapping.id);
        }
    }

    /// The file again, if there is something in it to attach to.
    fn worth_attaching(&mut self, mapping: &Mapping, file: File) -> Option<(Mapping, File)> {
        if !self.contents.contains_key(&mapping.id) {
            self.classify(mapping, &file);
        }
        match self.contents.get(&mapping.id) {
            None | Some(Content::Other(_)) => None,
            Some(Content::Tls(_) | Content::Linker(_)) => Some((mapping.clone(), file)),
        }
    }

    /// Drops the links that were made for one process.
    pub fn forget_process(&mut self, pid: u32) {
        if self.scope == Scope::Each {
            let gone = self.linked.extract_if(|(_, linked), _| *linked == pid);
            close_apart(gone.flat_map(|(_, links)| links).collect());
            self.refused.retain(|(_, refused), _| *refused != pid);
        }
    }

    /// Takes all probes out.
    pub fn detach(&mut self) {
        let waits = self.waits.drain(..).flat_map(|waits| waits.links);
        close(
            self.linked
                .drain()
                .flat_map(|(_, links)| links)
                .chain(waits)
                .collect(),
        );
    }

    /// What a target can be told only by the libcrypto of the same process: the layout of a `BIO`,
    /// and for libssl.so.3 its version. The two are not always mapped at the same time.
    fn join_crypto(&mut self, bpf: &Bpf, mappings: &[Mapping]) -> Result<()> {
        let crypto = mappings
            .iter()
            .find_map(|mapping| self.cryptos.get(&mapping.id));
        let planned = mappings.iter().flat_map(|mapping| {
            let targets = match self.contents.get(&mapping.id) {
                Some(Content::Tls(targets)) => targets.as_slice(),
                _ => &[],
            };
            targets.iter().map(move |target| (mapping, target))
        });
        for (mapping, (number, plan)) in planned {
            let target = usize::try_from(*number)
                .ok()
                .and_then(|n| self.targets.get_mut(n));
            let Some(target) = target.filter(|target| !target.has_crypto) else {
                continue;
            };
            // A static program has both in one file, and only OpenSSL has two at all.
            let is_alone = plan.found_by.is_some() || !plan.flavor.has_libcrypto();
            let own = self.cryptos.get(&mapping.id);
            let own = own.filter(|_| plan.flavor.has_openssl_api());
            let crypto = own.or(crypto.filter(|_| !is_alone));
            bpf.set_layout(*number, &plan.layout, crypto.map(|crypto| crypto.bio))?;
            target.has_crypto = crypto.is_some();
            let version = crypto.and_then(|crypto| crypto.version.clone());
            if target.lib.version.is_none() && version.is_some() {
                target.lib = Rc::new(Lib {
                    version,
                    ..(*target.lib).clone()
                });
            }
        }
        Ok(())
    }

    fn classify(&mut self, mapping: &Mapping, file: &File) {
        let path = mapping.path.to_string_lossy();
        let stamp = file.metadata().ok().map(|meta| Stamp::of(&meta));
        let content = match self.read_content(mapping.id, &path, file) {
            Ok(content) => content.unwrap_or(Content::Other(stamp)),
            Err(error) => {
                log::debug!("{path}: {error:#}");
                Content::Other(stamp)
            }
        };
        self.contents.insert(mapping.id, content);
    }

    /// `None`: nothing to probe.
    fn read_content(&mut self, id: FileId, path: &str, file: &File) -> Result<Option<Content>> {
        let file = SparseFile::new(file).context("look at the file")?;
        let elf = Elf::open(&file)?;
        if let Some(bio) = plan::layout::bio_layout(&elf) {
            let version = plan::openssl::version(&elf, Flavor::OpenSsl);
            self.cryptos.insert(id, Crypto { bio, version });
        }
        let mut planned = Vec::new();
        let plans = plan::plan(&elf, path).inspect_err(|error| {
            self.unplanned.push(Unplanned {
                pid: None,
                path: path.to_owned(),
                reason: format!("{error:#}"),
            });
        });
        for plan in plans? {
            log::debug!("{path}: {}", plan.describe());
            let target = u32::try_from(self.targets.len()).context("number the target")?;
            self.targets.push(Target {
                id,
                lib: Rc::new(Lib {
                    flavor: plan.flavor,
                    path: path.to_owned(),
                    version: plan.version.clone(),
                }),
                funcs: plan.probes.iter().map(|probe| probe.func.clone()).collect(),
                has_crypto: false,
                notes: plan
                    .found_by
                    .map(str::to_owned)
                    .into_iter()
                    .chain(plan.notes.iter().cloned())
                    .collect(),
            });
            planned.push((target, Rc::new(plan)));
        }
        if !planned.is_empty() {
            return Ok(Some(Content::Tls(planned)));
        }
        let found = elf.find(&[LIBRARIES_MAPPED]);
        let site = found
            .get(LIBRARIES_MAPPED)
            .and_then(|symbol| elf.file_offset(symbol.vaddr));
        Ok(site.map(Content::Linker))
    }

    fn attach(
        &mut self,
        bpf: &mut Bpf,
        pid: u32,
        mapping: &Mapping,
        file: &File,
        found: &mut Found,
    ) -> Result<()> {
        let link_pid = self.link_pid(pid);
        let at = Place {
            path: format!("/proc/self/fd/{}", file.as_raw_fd()),
            pid: link_pid,
        };
        let links = match self.contents.get(&mapping.id) {
            Some(Content::Linker(offset)) => at.link(bpf, Kind::Hold, &[(*offset, 0)])?,
            Some(Content::Tls(targets)) => {
                let mut links = Vec::new();
                for (target, plan) in targets {
                    match at.link_plan(bpf, *target, plan) {
                        Ok(more) => {
                            links.extend(more);
                            found.attached.push(*target);
                        }
                        // What is attached stays.
                        Err(error) if targets.len() > 1 => found.fails(mapping, &error),
                        Err(error) => return Err(error),
                    }
                }
                anyhow::ensure!(
                    !links.is_empty(),
                    "none of its libraries can be attached to"
                );
                links
            }
            _ => return Ok(()),
        };
        self.linked.insert((mapping.id, link_pid), links);
        Ok(())
    }
}

/// Takes probes out while the ring is read.
fn close_apart(links: Vec<Link>) {
    if !links.is_empty() {
        let _ = std::thread::Builder::new().spawn(move || close(links));
    }
}

/// Takes probes out. For each link the kernel waits for an RCU grace period, some 40 ms; those that
/// are closed at the same time wait for the same one.
fn close(mut links: Vec<Link>) {
    let share = links.len().div_ceil(CLOSERS);
    std::thread::scope(|scope| {
        while !links.is_empty() {
            let some = links.split_off(links.len().saturating_sub(share));
            // Without another thread they are closed here.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(some));
        }
    });
}
