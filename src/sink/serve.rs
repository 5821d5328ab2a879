//! Serves the capture as pcapng over TCP (`--listen`): Wireshark's `TCP@host:port`, PCAP-over-IP.
//!
//! Each reader gets a file of its own that begins when it joins. Nobody is waited for: what a
//! reader has not taken yet is kept up to a limit, and beyond it bytes are left out of that
//! reader's stream, where they show as missing TCP segments and in the statistics at its end.

use super::Sink;
use super::escape::shown;
use super::pcapng::{self, PcapSink};
use super::rotate::Output;
use crate::discovery::sockets;
use crate::event::{Event, Kind, Totals};
use anyhow::{Context, Result};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What one reader may leave lying, in bytes; about as much as the ring holds.
const BACKLOG: usize = 16 << 20;
/// Readers at a time; each costs as much as a capture file.
const READERS: usize = 16;
/// How long the end of the capture waits for readers to take what is theirs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where to listen and whom to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub addr: SocketAddr,
    /// The users of this machine whose connections are served; `None`: whoever connects.
    pub users: Option<Vec<u32>>,
}

/// The sink behind `--listen`.
#[derive(Debug)]
pub struct ServeSink {
    listener: TcpListener,
    users: Option<Vec<u32>>,
    options: pcapng::Options,
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    peer: SocketAddr,
    socket: TcpStream,
    sink: PcapSink,
    backlog: Rc<RefCell<VecDeque<u8>>>,
    /// Reads and writes that were left out, and their bytes.
    lost: (u64, u64),
}

/// The end of a [`PcapSink`] from which a [`Reader`] takes.
struct Backlog(Rc<RefCell<VecDeque<u8>>>);

impl Write for Backlog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ServeSink {
    /// Says where it listens.
    ///
    /// # Errors
    /// The address is not ours, or is in use.
    pub fn new(listen: Listen, options: pcapng::Options) -> Result<ServeSink> {
        let listener = TcpListener::bind(listen.addr)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("listen on {} (--listen)", listen.addr))?;
        let addr = listener.local_addr().context("ask for our own address")?;
        log::warn!("serving pcapng on {addr} (wireshark -k -i TCP@{addr})");
        if listen.users.is_none() {
            log::warn!("the plaintext goes in the clear to whoever connects to {addr}");
        }
        Ok(ServeSink {
            listener,
            users: listen.users,
            options: pcapng::Options {
                may_join_late: true,
                ..options
            },
            readers: Vec::new(),
        })
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, peer)) => match self.admit(socket, peer) {
                    Ok(reader) => {
                        log::info!("{peer} reads along");
                        self.readers.push(reader);
                    }
                    Err(error) => log::warn!("{peer} is not served: {error:#}"),
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Also when we have no descriptor left: the next turn tries again.
                Err(_) => return,
            }
        }
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr) -> Result<Reader> {
        if let Some(users) = &self.users {
            let addr = socket.local_addr().context("ask for our own address")?;
            let user = sockets::owner(peer, addr)?.context("nobody here has this connection")?;
            anyhow::ensure!(
                users.contains(&user),
                "it is of user {user}; --listen-anyone serves other users, too"
            );
        }
        anyhow::ensure!(
            self.readers.len() < READERS,
            "there are {READERS} readers already"
        );
        socket.set_nonblocking(true).context("set up the socket")?;
        let backlog = Rc::new(RefCell::new(VecDeque::new()));
        let output = Output::stream(Box::new(Backlog(Rc::clone(&backlog))), "a reader");
        Ok(Reader {
            peer,
            socket,
            sink: PcapSink::new(output, self.options.clone())?,
            backlog,
            lost: (0, 0),
        })
    }

    /// Does something with each reader; one that has gone is forgotten.
    fn each(&mut self, mut what: impl FnMut(&mut Reader) -> Result<()>) {
        self.readers.retain_mut(|reader| match what(reader) {
            Ok(()) => true,
            Err(error) => {
                log::info!("{} has gone: {}", reader.peer, shown(&format!("{error:#}")));
                false
            }
        });
    }
}

impl Reader {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        let waits = self.backlog.borrow().len();
        match event.kind {
            Kind::Data(data) if waits > BACKLOG => {
                if self.lost.0 == 0 {
                    log::warn!(
                        "reader {} is too slow: it does not get everything",
                        self.peer
                    );
                }
                self.lost.0 += 1;
                self.lost.1 = self.lost.1.saturating_add(data.len);
                Ok(())
            }
            // Without these it could make no sense of the rest. One that takes nothing at all has
            // to go in the end.
            _ => {
                anyhow::ensure!(waits <= 2 * BACKLOG, "it takes nothing");
                self.sink.event(event)
            }
        }
    }

    /// Hands on what the socket takes without waiting.
    fn give(&mut self) -> Result<()> {
        self.sink.flush()?;
        let mut backlog = self.backlog.borrow_mut();
        while !backlog.is_empty() {
            match self.socket.write(backlog.as_slices().0) {
                Ok(0) => anyhow::bail!("it takes nothing"),
                Ok(count) => drop(backlog.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("write to it"),
            }
        }
        Ok(())
    }

    fn finish(&mut self, totals: &Totals, until: Instant) -> Result<()> {
        self.sink.finish(&Totals {
            dropped: totals.dropped.saturating_add(self.lost.0),
            dropped_bytes: totals.dropped_bytes.saturating_add(self.lost.1),
            ..*totals
        })?;
        self.socket
            .set_nonblocking(false)
            .context("set up the socket")?;
        while !self.backlog.borrow().is_empty() {
            let rest = until.saturating_duration_since(Instant::now());
            anyhow::ensure!(!rest.is_zero(), "it is too slow");
            self.socket
                .set_write_timeout(Some(rest))
                .context("set up the socket")?;
            self.give()?;
        }
        Ok(())
    }
}

impl Sink for ServeSink {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        self.each(|reader| reader.event(event));
        Ok(())
    }

    fn attend(&mut self) -> Result<()> {
        self.accept();
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        self.each(Reader::give);
        Ok(())
    }

    fn finish(&mut self, totals: &Totals) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        self.each(|reader| reader.finish(totals, until));
        for reader in self.readers.drain(..) {
            if reader.lost.0 > 0 {
                log::warn!(
                    "reader {} was too slow: {} reads and writes ({} bytes) are missing there",
                    reader.peer,
                    reader.lost.0,
                    reader.lost.1
                );
            }
        }
        Ok(())
    }
}
