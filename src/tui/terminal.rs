//! The terminal: made ours, and given back whatever happens.

use super::journal;
use super::text::harmless;
use anyhow::{Context, Result, bail};
use crossterm::event::{self, Event};
use crossterm::{cursor, execute, queue, terminal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use ratatui_core::layout::{Position, Rect};
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// How long a terminal that takes nothing can keep us from giving it back.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the screen is ours. Whoever writes to it holds this meanwhile.
static IS_OURS: Mutex<bool> = Mutex::new(false);

/// Bytes of a picture, collected.
#[derive(Clone, Debug, Default)]
struct Picture(Arc<Mutex<Vec<u8>>>);

impl Write for Picture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, while it is ours.
///
/// Pictures are made in the thread that reads the ring, which takes a millisecond or two, but
/// written by another one: a slow link would keep us from the ring. While one is being written, none
/// is made.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Picture>>,
    picture: Picture,
    to_writer: SyncSender<Vec<u8>>,
    is_writing: Arc<AtomicBool>,
    /// To be stopped, and to go on.
    stops: SignalFd,
    /// To end: only looked at while nobody else does.
    ends: SignalFd,
    /// Where keys come from.
    keys: File,
    is_open: bool,
    /// The next picture is drawn as a whole.
    is_stale: bool,
}

/// What has happened at the terminal.
#[derive(Debug)]
pub enum Happened {
    Event(Event),
    /// We were stopped, and go on.
    Continued,
    /// By a signal, or because the terminal has gone.
    End(Option<Signal>),
}

impl Screen {
    /// Looks whether there is a terminal. Signals that the user interface needs are blocked from
    /// now on, so this comes before other threads.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Result<Screen> {
        if !io::stdout().is_terminal() {
            bail!("show the user interface (--tui): standard output is not a terminal");
        }
        let keys = match io::stdin().is_terminal() {
            true => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            // Standard input may be the capture.
            false => File::open("/dev/tty").context(
                "show the user interface (--tui): there is no terminal to read keys from",
            )?,
        };
        let (to_writer, pictures) = sync_channel::<Vec<u8>>(1);
        let is_writing = Arc::new(AtomicBool::new(false));
        let picture = Picture::default();
        let backend = CrosstermBackend::new(picture.clone());
        let screen = Screen {
            terminal: Terminal::new(backend).context("ask for the size of the terminal")?,
            picture,
            to_writer,
            is_writing: Arc::clone(&is_writing),
            stops: signalfd(&[Signal::SIGTSTP, Signal::SIGCONT])?,
            ends: signalfd(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?,
            keys,
            is_open: false,
            is_stale: true,
        };
        let mut out = stdout()?;
        std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || {
                for picture in pictures {
                    let is_ours = IS_OURS.lock().unwrap_or_else(PoisonError::into_inner);
                    if *is_ours {
                        // Of a terminal that has gone we hear as its reader.
                        let _ = out.write_all(&picture);
                    }
                    drop(is_ours);
                    is_writing.store(false, Ordering::Release);
                }
            })
            .context("start a thread for the terminal")?;
        Ok(screen)
    }

    /// Takes the screen.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn open(&mut self) -> Result<()> {
        give_back_on_panic();
        self.take()?;
        self.is_open = true;
        journal::open();
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        terminal::enable_raw_mode().context("set the terminal to single keys")?;
        let mut is_ours = IS_OURS.lock().unwrap_or_else(PoisonError::into_inner);
        *is_ours = true;
        let mut out = stdout()?;
        execute!(out, terminal::EnterAlternateScreen, cursor::Hide)
            .context("write to the terminal")?;
        self.is_stale = true;
        Ok(())
    }

    /// Gives the screen back, and prints what was to be said meanwhile.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.is_open, false) {
            give_back();
            for line in journal::close() {
                eprintln!("{line}");
            }
        }
    }

    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Readable when something has happened.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.keys.as_fd(), self.stops.as_fd()]
    }

    /// Waits, at most so long, until something has happened.
    pub fn wait(&self, timeout: Duration) {
        let fds = self.fds().into_iter().chain([self.ends.as_fd()]);
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        // What there is, is looked at in any case.
        let _ = poll(&mut fds, timeout);
    }

    /// What has happened next. `ends`: also signals that end us, where nobody else sees to them.
    pub fn happened(&mut self, ends: bool) -> Result<Option<Happened>> {
        if let Ok(Some(info)) = self.stops.read_signal() {
            if i32::try_from(info.ssi_signo) == Ok(Signal::SIGTSTP as i32) {
                self.suspend(false)?;
            } else {
                // Whoever had the terminal meanwhile has set it as it liked.
                self.take()?;
            }
            return Ok(Some(Happened::Continued));
        }
        if ends && let Ok(Some(info)) = self.ends.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            return Ok(Some(Happened::End(Signal::try_from(number).ok())));
        }
        if self.has_gone() {
            return Ok(Some(Happened::End(None)));
        }
        match event::poll(Duration::ZERO) {
            Ok(true) => {
                let event = event::read().context("read keys")?;
                self.is_stale |= matches!(event, Event::Resize(..));
                Ok(Some(Happened::Event(event)))
            }
            Ok(false) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error).context("wait for keys"),
        }
    }

    /// Reading from a terminal that has gone would never end.
    fn has_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.keys.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds
                .iter()
                .any(|fd| fd.revents().is_some_and(|events| events.intersects(gone)))
    }

    /// Gives the terminal back, stops, and takes it again when told to go on. `all`: with the
    /// command that we have started, as a terminal does.
    pub fn suspend(&mut self, all: bool) -> Result<()> {
        give_back();
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTSTP);
        stop.thread_unblock().context("unblock SIGTSTP")?;
        let whom = if all { Pid::from_raw(0) } else { Pid::this() };
        let stopped = kill(whom, Signal::SIGTSTP);
        stop.thread_block().context("block SIGTSTP")?;
        // That we were told to go on is no news.
        while matches!(self.stops.read_signal(), Ok(Some(_))) {}
        self.take()?;
        stopped.context("stop the process")
    }

    /// The next picture is drawn as a whole.
    pub fn redraw(&mut self) {
        self.is_stale = true;
    }

    /// Whether the last picture has not gone out yet.
    pub fn is_busy(&self) -> bool {
        self.is_writing.load(Ordering::Acquire)
    }

    /// Makes a picture, and has it written.
    pub fn draw(
        &mut self,
        draw: impl FnOnce(&mut ratatui_core::buffer::Buffer) -> Option<Position>,
    ) -> Result<()> {
        if std::mem::replace(&mut self.is_stale, false) {
            let size = self
                .terminal
                .size()
                .context("ask for the terminal's size")?;
            // Clears, without asking the terminal for its cursor as `clear` does.
            self.terminal
                .resize(Rect::new(0, 0, size.width, size.height))
                .context("draw")?;
        }
        let picture = self.terminal.draw(|frame| {
            if let Some(cursor) = draw(frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        });
        picture.context("draw")?;
        let bytes = {
            let mut bytes = self
                .picture
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *bytes)
        };
        if bytes.is_empty() {
            return Ok(());
        }
        self.is_writing.store(true, Ordering::Release);
        match self.to_writer.try_send(bytes) {
            Ok(()) => Ok(()),
            // Not while we look at `is_busy` first; then the whole is drawn the next time.
            Err(TrySendError::Full(_)) => {
                self.is_stale = true;
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => bail!("the thread that writes has ended"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// Signals that come as a descriptor from now on.
fn signalfd(signals: &[Signal]) -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for &signal in signals {
        set.add(signal);
    }
    set.thread_block().context("block signals")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&set, flags).context("open a signalfd")
}

/// Without the buffer of `std::io::Stdout`.
fn stdout() -> Result<File> {
    let fd = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("use standard output")?;
    Ok(File::from(fd))
}

/// Does nothing where the screen is not ours.
fn give_back() {
    let begin = Instant::now();
    let mut is_ours = loop {
        match IS_OURS.try_lock() {
            Ok(is_ours) => break Some(is_ours),
            Err(std::sync::TryLockError::Poisoned(error)) => break Some(error.into_inner()),
            // The terminal takes nothing: it gets its modes back all the same.
            Err(_) if begin.elapsed() > PATIENCE => break None,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if let Some(is_ours) = &mut is_ours {
        if !std::mem::replace(&mut **is_ours, false) {
            return;
        }
        if let Ok(mut out) = stdout() {
            let _ = queue!(out, cursor::Show, terminal::LeaveAlternateScreen);
            let _ = out.flush();
        }
    }
    let _ = terminal::disable_raw_mode();
}

/// The message of a panic is to be read on the shell's screen.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Of another thread we go on without.
            if std::thread::current().name() == Some("main") {
                give_back();
                before(info);
            } else if !journal::take(&harmless(info.to_string().as_bytes())) {
                before(info);
            }
        }));
    });
}
