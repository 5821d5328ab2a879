//! Turns ring buffer records into raw events.

#![allow(unsafe_code)]

use crate::bpf::{ConnKey, from_bytes, types};
use crate::event::{AddrSource, Dir};
use anyhow::{Context, Result};
use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};
use nix::errno::Errno;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

/// Takes one record; false stops the reader.
pub type Take = Box<dyn FnMut(&[u8]) -> bool>;

/// The reading end of the ring.
pub struct Reader(RingBuffer<'static>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// # Errors
    /// The ring cannot be mapped.
    pub fn new(map: &dyn MapCore, mut take: Take) -> Result<Reader> {
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |record: &[u8]| {
                if take(record) {
                    0
                } else {
                    -(Errno::ECANCELED as i32)
                }
            })
            .context("open the ring")?;
        Ok(Reader(builder.build().context("map the ring")?))
    }

    /// Takes up to `most` records; how many there were.
    ///
    /// # Errors
    /// The taker has stopped.
    pub fn take(&self, most: usize) -> Result<usize> {
        let taken = self.0.consume_raw_n(most);
        usize::try_from(taken)
            .map_err(|_| Errno::from_raw(-taken))
            .context("read the ring")
    }

    /// Readable when a record came with a wakeup.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the ring buffer, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.epoll_fd()) }
    }
}

/// A record as BPF wrote it, in terms that the stages after this one know. Times are nanoseconds
/// since boot, connections have the number that BPF gave them.
#[derive(Clone, Debug)]
pub enum Raw<'a> {
    Conn(Box<RawConn>),
    Data(RawData<'a>),
    Shutdown(RawEnd),
    Close(RawEnd),
    /// The address of a connection that was announced without.
    Addr(RawAddr),
    /// A thread of `tgid` waits until this ticket is released.
    Hold {
        tgid: u32,
        ticket: u64,
        ts: u64,
    },
    /// The process runs a file that is new, and does not wait.
    Exec {
        tgid: u32,
        ts: u64,
    },
}

/// What carries the connection, as BPF saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawTransport {
    Unknown,
    Tcp(SocketAddr, SocketAddr),
    Udp(SocketAddr, SocketAddr),
    Unix(Option<String>),
    Pipe,
    /// By BPF's number of the connection that carries it; 0 when that one is unknown.
    Tls(u64),
    /// A socket of another family (`AF_…`).
    Socket(u16),
    File,
}

#[derive(Clone, Debug)]
pub struct RawConn {
    pub conn: u64,
    pub target: u32,
    pub ts: u64,
    pub key: ConnKey,
    pub tid: u32,
    pub uid: u32,
    /// Device (as `st_dev`) and inode of the executable.
    pub exe: (u64, u64),
    pub comm: String,
    /// The process's number in its own pid namespace.
    pub own_pid: u32,
    /// The kernel's number of the cgroup (version 2) that it is in; 0: not known.
    pub cgroup: u64,
    pub transport: RawTransport,
    /// How that became known.
    pub addr_source: AddrSource,
    /// 1 client, 2 server.
    pub role: u8,
    pub version: u16,
    pub alpn: Option<String>,
    pub sni: Option<String>,
    /// [`Raw::Addr`] may follow.
    pub awaits_addr: bool,
    /// It was seen from its beginning on.
    pub begun: bool,
    /// When its process was started.
    pub started: u64,
}

impl RawConn {
    pub fn address(&self) -> Option<RawAddr> {
        (self.transport != RawTransport::Unknown).then(|| RawAddr {
            conn: self.conn,
            transport: self.transport.clone(),
            addr_source: self.addr_source,
        })
    }
}

#[derive(Clone, Debug)]
pub struct RawAddr {
    pub conn: u64,
    pub transport: RawTransport,
    pub addr_source: AddrSource,
}

#[derive(Clone, Copy, Debug)]
pub struct RawData<'a> {
    pub conn: u64,
    pub target: u32,
    pub ts: u64,
    pub tgid: u32,
    pub tid: u32,
    /// Index among the target's probes.
    pub func: u16,
    pub dir: Dir,
    pub off: u64,
    pub len: u64,
    pub call_len: u64,
    pub call_off: u64,
    pub goid: u64,
    pub unreadable: bool,
    pub sendfile: bool,
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct RawEnd {
    pub conn: u64,
    pub tid: u32,
    pub ts: u64,
    /// Bytes moved in all, out and in.
    pub off: [u64; 2],
}

/// Decodes one record; `None` for one that this program did not write.
pub fn decode(record: &[u8]) -> Option<Raw<'_>> {
    let kind = types::ts_record(u32::from_ne_bytes(record.get(..4)?.try_into().ok()?));
    match kind {
        types::ts_record::TS_REC_CONN => Some(Raw::Conn(Box::new(conn(&from_bytes(record)?)))),
        types::ts_record::TS_REC_DATA => data(record),
        types::ts_record::TS_REC_SHUTDOWN => Some(Raw::Shutdown(end(&from_bytes(record)?))),
        types::ts_record::TS_REC_CLOSE => Some(Raw::Close(end(&from_bytes(record)?))),
        types::ts_record::TS_REC_ADDR => Some(Raw::Addr(addr(&from_bytes(record)?))),
        types::ts_record::TS_REC_HOLD => {
            let hold: types::ts_rec_hold = from_bytes(record)?;
            Some(Raw::Hold {
                tgid: hold.tgid,
                ticket: hold.ticket,
                ts: hold.ts,
            })
        }
        types::ts_record::TS_REC_EXEC => {
            let exec: types::ts_rec_hold = from_bytes(record)?;
            Some(Raw::Exec {
                tgid: exec.tgid,
                ts: exec.ts,
            })
        }
        _ => None,
    }
}

fn data(record: &[u8]) -> Option<Raw<'_>> {
    let head: types::ts_rec_data = from_bytes(record)?;
    // The ring rounds a record's size up to eight bytes.
    let payload = record.get(size_of::<types::ts_rec_data>()..)?;
    let has = |flag: types::ts_flag| u32::from(head.flags) & flag.0 != 0;
    Some(Raw::Data(RawData {
        conn: head.conn,
        target: head.target,
        ts: head.ts,
        tgid: head.tgid,
        tid: head.tid,
        func: head.func,
        dir: if u32::from(head.dir) == types::ts_dir::TS_OUT.0 {
            Dir::Out
        } else {
            Dir::In
        },
        off: head.off,
        len: head.len,
        call_len: head.call_len,
        call_off: head.call_off,
        goid: head.goid,
        unreadable: has(types::ts_flag::TS_FL_UNREADABLE),
        sendfile: has(types::ts_flag::TS_FL_SENDFILE),
        bytes: payload.get(..usize::try_from(head.captured).ok()?)?,
    }))
}

fn end(record: &types::ts_rec_end) -> RawEnd {
    RawEnd {
        conn: record.conn,
        tid: record.tid,
        ts: record.ts,
        off: record.off,
    }
}

fn conn(record: &types::ts_rec_conn) -> RawConn {
    // The kernel's dev_t has 12 bits of major above 20 of minor (include/linux/kdev_t.h).
    let (major, minor) = (record.exe_dev >> 20, record.exe_dev & 0xf_ffff);
    let alpn = record
        .alpn
        .get(..usize::from(record.alpn_len))
        .unwrap_or_default();
    RawConn {
        conn: record.conn,
        target: record.target,
        ts: record.ts,
        key: record.key.into(),
        tid: record.tid,
        uid: record.uid,
        exe: (libc::makedev(major, minor), record.exe_ino),
        comm: c_string(&record.comm).unwrap_or_default(),
        own_pid: record.own_tgid,
        cgroup: record.cgroup,
        transport: transport(&record.addr, c_string(&record.unix_path)),
        addr_source: addr_source(&record.addr),
        role: record.role,
        version: record.version,
        alpn: (!alpn.is_empty()).then(|| String::from_utf8_lossy(alpn).into_owned()),
        sni: c_string(&record.sni),
        awaits_addr: record.awaits_addr != 0,
        begun: record.begun != 0,
        started: record.started,
    }
}

fn addr(record: &types::ts_rec_addr) -> RawAddr {
    RawAddr {
        conn: record.conn,
        transport: transport(&record.addr, None),
        addr_source: addr_source(&record.addr),
    }
}

fn addr_source(addr: &types::ts_addr) -> AddrSource {
    match types::ts_addr_source(addr.source.into()) {
        types::ts_addr_source::TS_SRC_FD => AddrSource::Fd,
        types::ts_addr_source::TS_SRC_RECORD => AddrSource::Record,
        _ => AddrSource::Socket,
    }
}

fn transport(addr: &types::ts_addr, unix_path: Option<String>) -> RawTransport {
    let pair = || {
        (
            SocketAddr::new(ip(addr.family, &addr.local), addr.local_port),
            SocketAddr::new(ip(addr.family, &addr.remote), addr.remote_port),
        )
    };
    match types::ts_transport(addr.transport.into()) {
        types::ts_transport::TS_TP_TCP => {
            let (local, remote) = pair();
            RawTransport::Tcp(local, remote)
        }
        types::ts_transport::TS_TP_UDP => {
            let (local, remote) = pair();
            RawTransport::Udp(local, remote)
        }
        types::ts_transport::TS_TP_UNIX => RawTransport::Unix(unix_path),
        types::ts_transport::TS_TP_PIPE => RawTransport::Pipe,
        types::ts_transport::TS_TP_TLS => RawTransport::Tls(addr.via),
        types::ts_transport::TS_TP_OTHER_SOCKET => RawTransport::Socket(addr.family),
        types::ts_transport::TS_TP_FILE => RawTransport::File,
        _ => RawTransport::Unknown,
    }
}

/// An IPv4 address that a dual-stack socket holds in IPv6 form is the IPv4 address it is.
fn ip(family: u16, bytes: &[u8; 16]) -> IpAddr {
    if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = *bytes;
        return Ipv4Addr::new(a, b, c, d).into();
    }
    Ipv6Addr::from(*bytes).to_canonical()
}

/// Up to the first NUL; `None` when empty.
fn c_string<T: Copy + CChar>(chars: &[T]) -> Option<String> {
    let bytes: Vec<u8> = chars
        .iter()
        .map(|c| c.byte())
        .take_while(|byte| *byte != 0)
        .collect();
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// `char` is signed in some skeletons and not in others.
trait CChar {
    fn byte(self) -> u8;
}

impl CChar for u8 {
    fn byte(self) -> u8 {
        self
    }
}

impl CChar for i8 {
    fn byte(self) -> u8 {
        self.cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_cut_at_any_length_are_refused() {
        let mut record = vec![0u8; 80];
        record[0] = 2;
        record[76] = 5;
        record.extend(b"hello");
        for len in 0..record.len() {
            assert!(decode(&record[..len]).is_none(), "cut to {len}");
        }
        let Some(Raw::Data(data)) = decode(&record) else {
            panic!("whole record")
        };
        assert_eq!(data.bytes, b"hello");
    }

    #[test]
    fn unknown_records_are_refused() {
        assert!(decode(&[9; 600]).is_none());
        assert!(decode(&[]).is_none());
    }

    #[test]
    fn a_mapped_ipv4_address_is_shown_as_ipv4() {
        let bytes = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
        let family = u16::try_from(libc::AF_INET6).unwrap();
        assert_eq!(ip(family, &bytes), IpAddr::from([10, 0, 0, 1]));
    }
}
