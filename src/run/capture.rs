//! The live capture: one loop over the ring, the watcher, signals and the command.

use crate::bpf::{Bpf, Hold, Options};
use crate::child::{Child, Status, Stdio};
use crate::config::{Command, Config};
use crate::discovery::watch::{Watch, Watcher};
use crate::discovery::{FileId, image, procfs};
use crate::flow::wait::Waiting;
use crate::flow::{ConnTable, Facts, clock};
use crate::privilege;
use crate::ring::Reader;
use crate::run::Outcome;
use crate::run::outputs::Outputs;
use crate::run::people::{self, People};
use crate::run::pipeline::Pipeline;
use crate::run::signals::{Request, Signals};
use crate::run::{list, say, summary};
use crate::sink::output::is_broken_pipe;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The oldest kernel with `bpf_copy_from_user_dynptr`; session uprobes came with 6.13.
const OLDEST_KERNEL: (u32, u32) = (5, 8);
/// Records taken from the ring before anything else gets a look.
const BATCH: usize = 8192;
/// Likewise with a user interface, whose keys are to be answered within some milliseconds.
const BATCH_WITH_KEYS: usize = 512;
/// While records come, the ring is looked at this often, and nobody has to wake us.
const BUSY_POLL: Duration = Duration::from_millis(2);
/// After this long without a record we block until one wakes us.
const BUSY_FOR: Duration = Duration::from_millis(30);
/// The watcher is looked at this often: what is in a hurry, a program that starts or a library that
/// the dynamic linker loads, comes through the ring. Each wakeup by the watcher itself would slow
/// whoever starts programs by some 10 µs, and there are eight to a program.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// By now a program has loaded what it was linked with, and a JVM its TLS.
const EXPLAIN_AFTER: Duration = Duration::from_millis(500);
/// How often the user interface is told what was lost.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked which calls that had begun before have returned.
const WAITED_POLL: Duration = Duration::from_secs(1);
/// Bytes of the watcher's records on one CPU that are worth a wakeup: a quarter of what it holds.
const WATCH_WAKEUP: u32 = 16 << 10;

/// Runs until it is told to stop, the command has ended, or all named processes have.
///
/// # Errors
/// Privileges or the kernel do not suffice, a named process does not exist, or an output fails.
pub fn capture(config: Config) -> Result<Outcome> {
    let started = Instant::now();
    privilege::check()?;
    privilege::kernel_check(OLDEST_KERNEL)?;
    privilege::raise_memlock_limit();
    let mut signals = Signals::new()?;
    // Before the capture begins, so that a name that cannot be written costs nothing.
    let scan = config
        .tui
        .is_some()
        .then(|| list::scanner(config.who.clone()));
    let outputs = Outputs::new(&config, scan)?;
    let is_named = config.command.is_some() || !config.who.pids.is_empty();
    let bpf = Bpf::load(&Options {
        snaplen: config.snaplen,
        by_tgid: is_named,
        follow: config.who.follow,
        uid: config.who.uid,
        comm: config.who.comm.as_deref().and_then(people::plain_beginning),
        cgroup: people::cgroup(&config.who)?.map(|group| (group.id, group.level)),
        pid_namespace: procfs::own_pid_namespace(),
        ring_bytes: config.ring_kib.saturating_mul(1024),
        hold: Hold::of(is_named),
    })?;
    let mut watcher = watch();
    let stdio = match config.tui {
        Some(_) => Stdio::WithoutTerminal,
        None => Stdio::Ours,
    };
    let command = config.command.as_ref();
    let mut child = command.map(|command| spawn(command, stdio)).transpose()?;
    let named = match &child {
        Some(child) => Some(BTreeSet::from([child.pid()])),
        None if config.who.pids.is_empty() => None,
        None => Some(people::existing(&config.who.pids)?),
    };
    let mut people = People::new(bpf, config.who.clone(), named, config.filter.clone())?;
    people.look_around()?;
    people.bpf.check()?;
    people.look_at_waiting();
    people.foresee_system(child.as_ref().map(Child::pid));
    if let (Some(child), Some(command)) = (&child, &config.command) {
        look_at_image(&mut people, child.pid(), command);
    }
    if let Some(user) = &config.drop_to {
        privilege::drop_to(user)?;
    }
    if config.reports {
        eprintln!("{}", summary::listening(&people, config.command.as_ref()));
    }
    log::debug!("ready after {} ms", started.elapsed().as_millis());

    let shared = Rc::new(RefCell::new(Pipeline {
        table: ConnTable::default(),
        people,
        outputs,
        waiting: Waiting::default(),
        error: None,
    }));
    let reader = read_ring(&shared)?;
    if let Some(child) = &child {
        shared.borrow_mut().people.will_start(child.pid());
    }
    if let Some(Err(error)) = child.as_mut().map(Child::release) {
        log::error!("{error}");
        return Ok(Outcome::Code(u8::try_from(error.exit_code()).unwrap_or(1)));
    }
    let batch = match &mut shared.borrow_mut().outputs.tui {
        Some(tui) => {
            tui.open()?;
            BATCH_WITH_KEYS
        }
        None => BATCH,
    };
    let mut capture = Capture {
        shared,
        reader,
        watcher: watcher.as_mut(),
        signals: &mut signals,
        child: child.as_mut(),
        deadline: config.duration.map(|duration| Instant::now() + duration),
        explain_at: Some(Instant::now() + EXPLAIN_AFTER),
        stopped_by: None,
        status: None,
        reports: config.reports,
        leaving: BTreeSet::new(),
        waited_at: Instant::now(),
        batch,
        counted_at: Instant::now(),
    };
    let result = capture.run();
    let status = capture.finish(result)?;
    Ok(match (status, capture.stopped_by) {
        (Some(Status::Exited(code)), _) => Outcome::Code(u8::try_from(code).unwrap_or(1)),
        (Some(Status::Signaled(signal)), _) => Outcome::Signal(signal),
        // The second signal did not wait for the command.
        (None, Some(signal)) if config.command.is_some() => Outcome::Signal(signal as i32),
        (None, _) => Outcome::Code(0),
    })
}

/// New files are noticed by perf events; without them the capture is still worth having.
fn watch() -> Option<Watcher> {
    Watcher::new(WATCH_WAKEUP)
        .inspect_err(|error| {
            log::warn!("libraries that are loaded from now on are not noticed: {error:#}");
        })
        .ok()
}

fn spawn(command: &Command, stdio: Stdio) -> Result<Child> {
    Child::spawn(&command.argv, command.run_as.as_ref(), stdio)
}

/// What the command will map first is attached before it runs; what its dynamic linker adds is
/// attached while that waits.
fn look_at_image(people: &mut People, pid: u32, command: &Command) {
    let path_env = std::env::var_os("PATH");
    let Some(path) = command
        .argv
        .first()
        .and_then(|name| image::resolve(name, path_env.as_deref()))
    else {
        return;
    };
    // Each for itself: a program and its linker tell nothing about one another.
    for file in image::image_files(&path, path_env.as_deref()) {
        people.foresee(pid, &[file]);
    }
}

fn read_ring(shared: &Rc<RefCell<Pipeline>>) -> Result<Reader> {
    let pipeline = Rc::clone(shared);
    Reader::new(
        shared.borrow().people.bpf.ring(),
        Box::new(move |record: &[u8]| {
            let mut pipeline = pipeline.borrow_mut();
            match pipeline.record(record) {
                Ok(()) => true,
                Err(error) => {
                    pipeline.error.get_or_insert(error);
                    false
                }
            }
        }),
    )
}

struct Capture<'a> {
    shared: Rc<RefCell<Pipeline>>,
    reader: Reader,
    watcher: Option<&'a mut Watcher>,
    signals: &'a mut Signals,
    child: Option<&'a mut Child>,
    deadline: Option<Instant>,
    /// When those of whom nothing can be seen are told of, once.
    explain_at: Option<Instant>,
    stopped_by: Option<Signal>,
    status: Option<Status>,
    reports: bool,
    /// Processes that were said to end. Some are still running: the leader may have ended before its
    /// other threads, and it was seen of one that had just begun.
    leaving: BTreeSet<u32>,
    /// When it was last seen who still waits in a call that had begun before.
    waited_at: Instant,
    /// Records taken before anything else gets a look.
    batch: usize,
    /// When the user interface was last told what was lost.
    counted_at: Instant,
}

impl Capture<'_> {
    fn run(&mut self) -> Result<()> {
        let mut last_record = Instant::now();
        loop {
            let taken = self.take(self.batch)?;
            if self.shared.borrow().outputs.is_full() || self.is_over()? {
                return Ok(());
            }
            if taken > 0 {
                last_record = Instant::now();
                if taken >= self.batch {
                    self.turn(Duration::ZERO)?;
                    continue;
                }
            } else {
                self.shared.borrow_mut().outputs.flush()?;
            }
            self.shared.borrow_mut().tell_waiting()?;
            let is_waiting = !self.shared.borrow().waiting.is_empty();
            if is_waiting || last_record.elapsed() < BUSY_FOR {
                self.turn(BUSY_POLL)?;
                continue;
            }
            self.shared.borrow_mut().people.bpf.will_sleep();
            // A record may have come before the flag was seen.
            if self.take(self.batch)? > 0 {
                last_record = Instant::now();
                continue;
            }
            self.explain_unseen();
            self.shared.borrow_mut().table.clock.adjust();
            self.turn(IDLE_POLL)?;
        }
    }

    fn explain_unseen(&mut self) {
        if self.explain_at.is_some_and(|time| time <= Instant::now()) {
            self.explain_at = None;
            self.shared.borrow().people.explain_unseen();
        }
    }

    /// Takes up to `most` records from the ring; the number taken.
    fn take(&mut self, most: usize) -> Result<usize> {
        let taken = self.reader.take(most);
        match self.shared.borrow_mut().error.take() {
            Some(error) => Err(error),
            None => taken,
        }
    }

    /// Takes what is in the ring now.
    fn drain(&mut self) -> Result<()> {
        while self.take(BATCH)? > 0 {}
        Ok(())
    }

    /// Waits for something else than records, and sees to it.
    fn turn(&mut self, timeout: Duration) -> Result<()> {
        self.shared
            .borrow_mut()
            .people
            .bpf
            .stop_awaiting_hellos(clock::since_boot);
        let timeout = match self.deadline {
            Some(deadline) => timeout.min(deadline.saturating_duration_since(Instant::now())),
            None => timeout,
        };
        let shared = self.shared.borrow();
        let tui = shared.outputs.tui.as_ref();
        let timeout = tui.map_or(timeout, |tui| timeout.min(tui.timeout()));
        let timeout = PollTimeout::try_from(timeout.as_millis()).unwrap_or(PollTimeout::ZERO);
        let ready = {
            let mut fds = vec![PollFd::new(self.reader.fd(), PollFlags::POLLIN)];
            fds.push(PollFd::new(self.signals.fd(), PollFlags::POLLIN));
            if let Some(child) = &self.child {
                fds.push(PollFd::new(child.pidfd(), PollFlags::POLLIN));
            }
            if let Some(watcher) = &self.watcher {
                fds.extend(watcher.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            }
            if let Some(tui) = tui {
                fds.extend(tui.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            }
            poll(&mut fds, timeout)
        };
        drop(shared);
        match ready {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        self.drop_waited();
        self.shared.borrow_mut().outputs.attend()?;
        self.see_signals()?;
        self.see_keys()?;
        self.see_news()
    }

    /// A breakpoint where nothing returns to any more costs every call that passes there.
    fn drop_waited(&mut self) {
        if self.waited_at.elapsed() < WAITED_POLL {
            return;
        }
        self.waited_at = Instant::now();
        let mut shared = self.shared.borrow_mut();
        let People { registry, bpf, .. } = &mut shared.people;
        registry.drop_waited(bpf);
    }

    fn see_signals(&mut self) -> Result<()> {
        while let Some(request) = self.signals.next() {
            match request {
                Request::Counts => {
                    let shared = self.shared.borrow();
                    let counters = shared.people.bpf.counters();
                    say(&summary::counts(&shared.totals(), Some(&counters)));
                }
                Request::Flush => self.shared.borrow_mut().outputs.flush()?,
                Request::Stop(signal) => self.stop(signal),
            }
        }
        Ok(())
    }

    /// What the user wants of the user interface, and what it shows of the capture.
    fn see_keys(&mut self) -> Result<()> {
        let mut shared = self.shared.borrow_mut();
        if shared.outputs.tui.is_none() {
            return Ok(());
        }
        let is_due = self.counted_at.elapsed() >= COUNT_EVERY;
        let totals = is_due.then(|| shared.totals());
        let Some(tui) = &mut shared.outputs.tui else {
            return Ok(());
        };
        if let Some(totals) = totals {
            self.counted_at = Instant::now();
            tui.set_totals(&totals);
        }
        tui.turn(false)?;
        let quits = tui.quits();
        if quits && self.stopped_by.is_none() && self.child.is_some() {
            tui.tell("waiting for the command to end; q does not wait");
        }
        drop(shared);
        if quits {
            self.stop(Signal::SIGTERM);
        }
        Ok(())
    }

    /// A command that was started here is waited for: it has got a terminal's ^C itself, other
    /// signals are handed on. The second signal does not wait.
    fn stop(&mut self, signal: Signal) {
        let again = self.stopped_by.replace(signal).is_some();
        if let Some(child) = &self.child
            && self.status.is_none()
            && !again
        {
            if signal != Signal::SIGINT {
                let pid = i32::try_from(child.pid()).map(Pid::from_raw);
                if let Ok(pid) = pid {
                    // It may have ended just now.
                    let _ = kill(pid, signal);
                }
            }
            return;
        }
        self.deadline = Some(Instant::now());
    }

    fn see_news(&mut self) -> Result<()> {
        let Some(watcher) = self.watcher.as_deref_mut() else {
            return Ok(());
        };
        let mut look = BTreeMap::new();
        let mut executed = Vec::new();
        let mut lost = false;
        {
            let mut shared = self.shared.borrow_mut();
            let people = &mut shared.people;
            watcher.drain(&mut |time, news| match news {
                Watch::Map {
                    pid,
                    dev,
                    ino,
                    path,
                    ..
                } => {
                    people.mapped(pid, path);
                    let id = FileId { dev, ino };
                    if people.registry.is_news(id, pid) && people.is_looked_at(pid) {
                        let (_, files) = look.entry(pid).or_insert((time, Vec::new()));
                        files.push((id, path.to_path_buf()));
                    }
                }
                Watch::Exec { pid, .. } => {
                    people.executes(pid, time);
                    executed.push((pid, time));
                }
                Watch::Exit { pid } => {
                    self.leaving.insert(pid);
                }
                Watch::Fork { .. } => {}
                Watch::Lost(_) => lost = true,
            });
        }
        let (running, gone): (BTreeSet<u32>, BTreeSet<u32>) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|pid| is_running(*pid));
        self.leaving = running;
        if !executed.is_empty() || !gone.is_empty() {
            // What the process did before is in the ring by now, and has to be told first.
            self.drain()?;
        }
        let mut shared = self.shared.borrow_mut();
        for (pid, time) in executed {
            shared.program_ended(pid, time)?;
        }
        for pid in gone {
            shared.program_ended(pid, u64::MAX)?;
            shared.people.forget(pid);
        }
        if lost {
            log::warn!("too many processes at once: looking through all of them again");
            shared.people.look_around()?;
        }
        for (pid, (since, files)) in look {
            shared.people.look_at_mapped(pid, since, &files);
        }
        Ok(())
    }

    fn is_over(&mut self) -> Result<bool> {
        if let Some(child) = self.child.as_deref_mut()
            && self.status.is_none()
        {
            self.status = child.try_wait()?;
        }
        let over = self.status.is_some()
            || self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            || (self.child.is_none() && self.shared.borrow().people.is_alone());
        Ok(over)
    }

    /// Takes the probes out, tells what is left in the ring, and ends the outputs.
    fn finish(&mut self, result: Result<()>) -> Result<Option<Status>> {
        let full = self.shared.borrow().outputs.is_full();
        if let Some(tui) = &mut self.shared.borrow_mut().outputs.tui
            && (result.is_err() || self.stopped_by.is_some())
        {
            // Nobody is to look at what there is: the shell has its screen back at once.
            tui.end();
        }
        let result = match result {
            Ok(()) if !full => self.see_news(),
            other => other,
        };
        // Taking the probes out takes a while, in which nobody would end a hold.
        self.shared.borrow_mut().people.bpf.hold_nobody();
        self.shared.borrow_mut().people.registry.detach();
        let drained = if result.is_ok() && !full {
            self.drain()
        } else {
            Ok(())
        };
        let mut shared = self.shared.borrow_mut();
        let drained = drained.and_then(|()| shared.tell_all());
        let Pipeline {
            table,
            people,
            outputs,
            ..
        } = &mut *shared;
        let told = if result.is_ok() && drained.is_ok() && !full {
            table.finish(people as &dyn Facts, &mut |event| outputs.event(event))
        } else {
            Ok(())
        };
        let totals = shared.totals();
        let finished = shared.outputs.finish(&totals);
        let counters = shared.people.bpf.counters();
        drop(shared);
        let result = result.and(drained).and(told).and(finished);
        if self.reports && !result.as_ref().is_err_and(is_broken_pipe) {
            eprintln!("{}", summary::counts(&totals, Some(&counters)));
        }
        // The command goes on without us looking; its status is ours to pass on.
        if result.is_ok()
            && self.status.is_none()
            && self.stopped_by.is_none()
            && let Some(child) = self.child.as_deref_mut()
        {
            Signals::restore()?;
            self.status = Some(child.wait()?);
        }
        result.map(|()| self.status)
    }
}

/// Whether there is memory to run in, or another thread than the one that has ended.
fn is_running(pid: u32) -> bool {
    let has_memory = std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task"));
    has_memory || threads().is_ok_and(|tasks| tasks.count() > 1)
}
