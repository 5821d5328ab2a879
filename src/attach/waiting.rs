//! Reads that had begun before the probes were in place: finds them, and sees them return.

use super::place::{Link, Place, cookie_of};
use super::{Content, Registry};
use crate::bpf::{Bpf, Kind, types};
use crate::discovery::Mapping;
use crate::discovery::elf::Machine;
use crate::discovery::elf::unwinding::Registers;
use crate::discovery::stack::{Contents, Files, Space};
use crate::plan::disasm::Decoder;
use crate::plan::waiting::Finder;
use crate::plan::{BioLayout, Plan};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Instant;

/// `TS_NO_FD`
const NO_FD: u64 = u64::MAX;
/// The registers of x86-64 that a call preserves, and the stack pointer.
const KNOWN: [usize; 7] = [3, 4, 5, 12, 13, 14, 15];

/// What is waited for in one process.
#[derive(Debug)]
pub(super) struct Waits {
    pub pid: u32,
    pub links: Vec<Link>,
    threads: Vec<types::ts_wait_key>,
}

/// A target as it is mapped by a process.
struct Mapped {
    mapping: Mapping,
    number: u32,
    plan: Rc<Plan>,
    bio: Option<BioLayout>,
}

/// A call, and where the breakpoint for its return has to be.
struct Waiting {
    key: types::ts_wait_key,
    wait: types::ts_wait,
    /// In which file, and there: offset and cookie.
    file: Mapping,
    site: (u64, u64),
}

impl Registry {
    /// Looks for reads that threads of these processes (`None`: of all) are in already. What is not
    /// certain is left alone.
    ///
    /// # Errors
    /// The kernel does not tell what threads there are.
    pub fn look_at_waiting(&mut self, bpf: &mut Bpf, pids: Option<&BTreeSet<u32>>) -> Result<()> {
        if Machine::HOST != Machine::X86_64 || !self.has_reads() {
            return Ok(());
        }
        let began = Instant::now();
        let mut by_process: BTreeMap<u32, Vec<types::ts_sleeper>> = BTreeMap::new();
        for sleeper in bpf.sleepers()? {
            // On a whole machine most threads are in a poll, and few of these in a read.
            let is_wanted = match pids {
                Some(pids) => pids.contains(&sleeper.tgid),
                None => sleeper.fd != NO_FD,
            };
            if is_wanted && sleeper.tgid != 0 {
                by_process.entry(sleeper.tgid).or_default().push(sleeper);
            }
        }
        let mut placed = false;
        for (pid, sleepers) in by_process {
            match self.wait_in_process(bpf, pid, &sleepers) {
                Ok(waits) => {
                    placed |= !waits.threads.is_empty();
                    self.waits.push(waits);
                }
                Err(error) => log::debug!("process {pid}: {error:#}"),
            }
        }
        if placed {
            // Those that have slept all the while count from here on.
            bpf.sleepers()?;
        }
        self.drop_waited(bpf);
        let waiting: usize = self.waits.iter().map(|waits| waits.threads.len()).sum();
        log::debug!("{waiting} reads have begun before: {:?}", began.elapsed());
        Ok(())
    }

    fn has_reads(&self) -> bool {
        let mut contents = self.contents.values();
        contents.any(|content| matches!(content, Content::Tls(_)))
    }

    /// Drops what has returned.
    pub fn drop_waited(&mut self, bpf: &Bpf) {
        for waits in &mut self.waits {
            let over = |key: &mut types::ts_wait_key| !bpf.is_waited_for(key);
            for key in waits.threads.extract_if(.., over) {
                bpf.forget_wait(&key);
            }
        }
        let done = self.waits.extract_if(.., |waits| waits.threads.is_empty());
        let links: Vec<Link> = done.flat_map(|waits| waits.links).collect();
        super::close_apart(links);
    }

    /// The process has gone, or runs another program.
    pub fn forget_waiting(&mut self, bpf: &Bpf, pid: u32) {
        let gone = self.waits.extract_if(.., |waits| waits.pid == pid);
        let mut links = Vec::new();
        for waits in gone {
            waits.threads.iter().for_each(|key| bpf.forget_wait(key));
            links.extend(waits.links);
        }
        super::close_apart(links);
    }

    fn mapped_targets(&self, mappings: &[Mapping]) -> Vec<Mapped> {
        let crypto = mappings
            .iter()
            .find_map(|mapping| self.cryptos.get(&mapping.id));
        let mut mapped = Vec::new();
        for mapping in mappings {
            // A static program has both in one file.
            let crypto = self.cryptos.get(&mapping.id).or(crypto);
            let Some(Content::Tls(targets)) = self.contents.get(&mapping.id) else {
                continue;
            };
            mapped.extend(targets.iter().map(|(number, plan)| Mapped {
                mapping: mapping.clone(),
                number: *number,
                plan: Rc::clone(plan),
                bio: crypto.map(|crypto| crypto.bio),
            }));
        }
        mapped
    }

    /// Places the calls that threads of the process are in, after the breakpoints for their returns.
    fn wait_in_process(
        &self,
        bpf: &mut Bpf,
        pid: u32,
        sleepers: &[types::ts_sleeper],
    ) -> Result<Waits> {
        let mut waits = Waits {
            pid,
            links: Vec::new(),
            threads: Vec::new(),
        };
        let mappings = self.procfs.exec_mappings(pid)?;
        let targets = self.mapped_targets(&mappings);
        if targets.is_empty() {
            return Ok(waits);
        }
        let files = Files::of(&mappings);
        let contents = Contents::of(&files);
        let space = Space::new(&self.procfs, pid, &mappings, &files, &contents)?;
        for target in targets {
            let decoder = Decoder::of(Machine::HOST)?;
            // What is asked of such functions at their return is not known of a call in flight.
            if target.plan.layout.unproved {
                continue;
            }
            let Some(finder) = Finder::new(&target.plan, target.bio, decoder) else {
                continue;
            };
            let found: Vec<Waiting> = sleepers
                .iter()
                .filter_map(|sleeper| find(&space, &finder, &target, sleeper))
                .collect();
            let starts: BTreeSet<u64> = found.iter().map(|waiting| waiting.file.start).collect();
            for start in starts {
                let of_file = || found.iter().filter(|waiting| waiting.file.start == start);
                let Some(first) = of_file().next() else {
                    continue;
                };
                let sites: BTreeSet<(u64, u64)> = of_file().map(|waiting| waiting.site).collect();
                let sites: Vec<(u64, u64)> = sites.into_iter().collect();
                let file = self.procfs.open_mapping(pid, &first.file)?;
                let at = Place {
                    path: format!("/proc/self/fd/{}", file.as_raw_fd()),
                    pid,
                };
                waits.links.extend(at.link(bpf, Kind::Waited, &sites)?);
            }
            for waiting in found {
                match bpf.place_wait(&waiting.key, &waiting.wait) {
                    Ok(()) => waits.threads.push(waiting.key),
                    Err(error) => log::debug!("{error:#}"),
                }
            }
        }
        Ok(waits)
    }
}

fn find(
    space: &Space<'_>,
    finder: &Finder<'_>,
    target: &Mapped,
    sleeper: &types::ts_sleeper,
) -> Option<Waiting> {
    let mut registers = Registers {
        general: [None; 16],
        ip: sleeper.ip,
    };
    for number in KNOWN {
        *registers.general.get_mut(number)? = sleeper.regs.get(number).copied();
    }
    let fd = Some(sleeper.fd).filter(|fd| *fd != NO_FD);
    let call = finder.find(space, registers, fd, &|module| {
        module.mapping.id == target.mapping.id
    });
    let Some(call) = call else {
        log::debug!("thread {} waits in no read that is known", sleeper.key.tid);
        return None;
    };
    let module = space.module(call.returns_to)?;
    let offset = module.elf.file_offset(module.vaddr(call.returns_to))?;
    let cookie = cookie_of(target.number, &target.plan, call.probe)?;
    log::debug!(
        "thread {} waits in {}({:#x}, {:#x}) since before",
        sleeper.key.tid,
        target.plan.probes.get(call.probe)?.func,
        call.handle,
        call.buf
    );
    Some(Waiting {
        key: sleeper.key,
        file: module.mapping.clone(),
        wait: types::ts_wait {
            handle: call.handle,
            buf: call.buf,
            out: call.out,
            sp: call.entry,
            cookie,
            switches: sleeper.switches,
            state: types::ts_wait_state::TS_WAIT_PLACED.0.into(),
            addr: types::ts_addr::default(),
        },
        site: (offset, cookie),
    })
}
