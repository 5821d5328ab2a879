//! What can be captured of which process (`-D`), looked up again and again in a thread of its own:
//! files are read for it, and the capture must not wait.

use crate::discovery::listing::Row;
use anyhow::Result;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Looks once.
pub type Scan = Box<dyn FnMut() -> Result<Vec<Row>> + Send>;

/// From the end of a look to the next; on a busy machine so many times as long as it took.
const PAUSE: Duration = Duration::from_secs(5);
const TIMES: u32 = 8;

/// Of the thread: where wishes go, and where lists come from.
type Ends = (Sender<()>, Receiver<Result<Vec<Row>>>);

/// The list, as it was when it was last looked up.
#[allow(missing_debug_implementations)] // closures
pub struct Processes {
    /// Until the thread has it.
    scan: Option<Scan>,
    thread: Option<Ends>,
    is_looking: bool,
    looked: Option<Instant>,
    began: Instant,
    took: Duration,
    pub rows: Vec<Row>,
    pub error: Option<String>,
    /// Whether processes are looked up at all: not for a file.
    pub is_live: bool,
}

impl Processes {
    pub fn new(scan: Option<Scan>) -> Processes {
        Processes {
            is_live: scan.is_some(),
            scan,
            thread: None,
            is_looking: false,
            looked: None,
            began: Instant::now(),
            took: Duration::ZERO,
            rows: Vec::new(),
            error: None,
        }
    }

    /// Whether nothing was found out yet.
    pub fn is_first(&self) -> bool {
        self.is_live && self.looked.is_none()
    }

    /// Somebody looks at the list: sees to it that it is fresh. Whether it is new.
    pub fn turn(&mut self) -> bool {
        if let Some(scan) = self.scan.take() {
            self.thread = start(scan);
        }
        let Some((wish, result)) = &self.thread else {
            return false;
        };
        let pause = PAUSE.max(self.took.saturating_mul(TIMES));
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() > pause);
        if !self.is_looking && is_due {
            self.began = Instant::now();
            self.is_looking = wish.send(()).is_ok();
        }
        let Ok(found) = result.try_recv() else {
            return false;
        };
        self.is_looking = false;
        self.looked = Some(Instant::now());
        self.took = self.began.elapsed();
        match found {
            Ok(rows) => {
                self.rows = rows;
                self.error = None;
            }
            Err(error) => self.error = Some(format!("{error:#}")),
        }
        true
    }
}

fn start(mut scan: Scan) -> Option<Ends> {
    let (wish, wishes) = channel::<()>();
    let (found, result) = channel();
    let thread = std::thread::Builder::new().name("processes".to_owned());
    let run = move || {
        while wishes.recv().is_ok() {
            if found.send(scan()).is_err() {
                return;
            }
        }
    };
    match thread.spawn(run) {
        Ok(_) => Some((wish, result)),
        Err(error) => {
            log::warn!("processes are not listed: {error}");
            None
        }
    }
}
