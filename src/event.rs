//! The one type that flows from the ring (or a capture file) to the sinks.
//!
//! A producer (`flow` live, `readback` for `-r`) calls a consumer with one borrowed [`Event`] at a
//! time, in order. Nothing here knows BPF, files or terminals.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// Nanoseconds since the Unix epoch (UTC).
pub type Nanos = u64;

/// Direction of plaintext, as the captured program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// Read by the program: came from the peer.
    In,
    /// Written by the program: goes to the peer.
    Out,
}

/// Which end of the TLS handshake the captured program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Client,
    Server,
}

/// Which TLS implementation a target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    OpenSsl,
    LibreSsl,
    BoringSsl,
    /// Go's crypto/tls.
    Go,
    GnuTls,
    /// libssl3 of Mozilla's NSS.
    Nss,
    WolfSsl,
    MbedTls,
    S2n,
    Rustls,
}

impl Flavor {
    /// Whether it may lie in two files, of which libcrypto states the version.
    pub fn has_libcrypto(self) -> bool {
        matches!(self, Flavor::OpenSsl | Flavor::LibreSsl)
    }

    pub fn has_openssl_api(self) -> bool {
        self.has_libcrypto() || self == Flavor::BoringSsl
    }

    /// The name in every output format and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Flavor::OpenSsl => "openssl",
            Flavor::LibreSsl => "libressl",
            Flavor::BoringSsl => "boringssl",
            Flavor::Go => "go",
            Flavor::GnuTls => "gnutls",
            Flavor::Nss => "nss",
            Flavor::WolfSsl => "wolfssl",
            Flavor::MbedTls => "mbedtls",
            Flavor::S2n => "s2n",
            Flavor::Rustls => "rustls",
        }
    }

    /// The protocol version as on the wire, of what the library's own field holds; numbers that
    /// mean nothing to it stay as they are.
    pub fn wire_version(self, field: u16) -> u16 {
        let low = field & 0xff;
        match (self, field) {
            // gnutls_protocol_t
            (Flavor::GnuTls, 1..=5) => 0x02ff + field,
            (Flavor::GnuTls, 201) => 0xfeff,
            (Flavor::GnuTls, 202) => 0xfefd,
            // S2N_SSLv3 (30) to S2N_TLS13, in one byte
            (Flavor::S2n, _) if (30..=34).contains(&low) => 0x0300 + low - 30,
            (_, other) => other,
        }
    }

    /// Every one.
    pub const ALL: &[Flavor] = &[
        Flavor::OpenSsl,
        Flavor::LibreSsl,
        Flavor::BoringSsl,
        Flavor::Go,
        Flavor::GnuTls,
        Flavor::Nss,
        Flavor::WolfSsl,
        Flavor::MbedTls,
        Flavor::S2n,
        Flavor::Rustls,
    ];

    /// The inverse of [`Flavor::name`].
    pub fn from_name(name: &str) -> Option<Flavor> {
        Flavor::ALL.iter().copied().find(|f| f.name() == name)
    }
}

/// What carries the TLS records of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// Not known (yet): memory BIOs, or the connection has not touched its socket since the start.
    #[default]
    Unknown,
    /// TCP, with the address of the captured program first.
    Tcp {
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// UDP (DTLS, QUIC), likewise.
    Udp {
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// A stream socket of the Unix domain; the bound path of either end where there is one.
    Unix { path: Option<String> },
    /// A pipe or FIFO.
    Pipe,
    /// Another TLS connection of the same process (TLS in TLS): its conn number.
    Tls { conn: u64 },
    /// Anything else, by the kernel's name for it (`vsock`, `sctp`, `file`).
    Other(String),
}

impl Transport {
    /// Local and remote address where there are any; an IPv4 address mapped into IPv6
    /// (`::ffff:1.2.3.4`, RFC 4291 section 2.5.5.2) is given as IPv4.
    pub fn addrs(&self) -> Option<(SocketAddr, SocketAddr)> {
        let plain = |addr: SocketAddr| match addr.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
            IpAddr::V6(_) => addr,
        };
        match *self {
            Transport::Tcp { local, remote } | Transport::Udp { local, remote } => {
                Some((plain(local), plain(remote)))
            }
            _ => None,
        }
    }
}

/// Why the beginning of a connection may be missing: it may have moved bytes before it was seen, and
/// nobody can tell how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unseen {
    /// Its process is older than the capture.
    Older,
    /// Its process began during the capture, and ran before the probes were in place.
    Late,
}

impl Unseen {
    pub fn name(self) -> &'static str {
        match self {
            Unseen::Older => "older",
            Unseen::Late => "late",
        }
    }

    pub fn from_name(name: &str) -> Option<Unseen> {
        [Unseen::Older, Unseen::Late]
            .into_iter()
            .find(|unseen| unseen.name() == name)
    }
}

/// How an address became known, best first. Kept with the connection and shown by `-v` and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddrSource {
    /// The thread used this socket inside the TLS call.
    Socket,
    /// The file descriptor in the library's BIO.
    Fd,
    /// A record that only this connection can have made was sent through this socket.
    Record,
}

impl AddrSource {
    pub fn name(self) -> &'static str {
        match self {
            AddrSource::Socket => "socket",
            AddrSource::Fd => "fd",
            AddrSource::Record => "record",
        }
    }

    pub fn from_name(name: &str) -> Option<AddrSource> {
        [AddrSource::Socket, AddrSource::Fd, AddrSource::Record]
            .into_iter()
            .find(|s| s.name() == name)
    }
}

/// A process, as it was when its connection was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Proc {
    pub pid: u32,
    /// `task->comm` of the thread group leader: up to 15 bytes, invalid UTF-8 replaced. Foreign.
    pub comm: String,
    /// The executable's path in the process's own mount namespace. Foreign.
    pub exe: Option<String>,
    pub uid: Option<u32>,
    /// Its number in its own pid namespace, where that is another: what it calls itself in a
    /// container.
    pub own_pid: Option<u32>,
    /// The short id of its container. Foreign.
    pub container: Option<String>,
}

/// The file that holds the TLS functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lib {
    pub flavor: Flavor,
    /// As mapped by the first process it was found in. Foreign.
    pub path: String,
    /// As it stands in the file: `OpenSSL 3.0.17 1 Jul 2025`. Foreign.
    pub version: Option<String>,
}

/// One TLS connection. Facts may be added while it lives; they never change to other values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Shown as `#17`; unique within one capture, counted from 1.
    pub id: u64,
    pub proc: Rc<Proc>,
    pub lib: Rc<Lib>,
    pub transport: Transport,
    pub addr_source: Option<AddrSource>,
    /// Set if its beginning may be missing.
    pub unseen: Option<Unseen>,
    pub role: Option<Role>,
    /// The protocol version on the wire: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: Option<u16>,
    /// Server name indication. Foreign.
    pub sni: Option<String>,
    /// The negotiated protocol (RFC 7301), lossy UTF-8. Foreign.
    pub alpn: Option<String>,
}

impl Conn {
    /// `TLS 1.3` and so on; `None` for an unknown number.
    pub fn version_name(&self) -> Option<&'static str> {
        match self.version? {
            0x0300 => Some("SSL 3.0"),
            0x0301 => Some("TLS 1.0"),
            0x0302 => Some("TLS 1.1"),
            0x0303 => Some("TLS 1.2"),
            0x0304 => Some("TLS 1.3"),
            0xfeff => Some("DTLS 1.0"),
            0xfefd => Some("DTLS 1.2"),
            _ => None,
        }
    }
}

/// Why bytes of a stream are known by their number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The ring buffer was full: our loss.
    Dropped,
    /// The program's memory could not be read when the call returned: our loss.
    Unreadable,
    /// The kernel sent them from a file (`SSL_sendfile`): they never were in the program's memory.
    Sendfile,
}

impl GapCause {
    pub fn name(self) -> &'static str {
        match self {
            GapCause::Dropped => "dropped",
            GapCause::Unreadable => "unreadable",
            GapCause::Sendfile => "sendfile",
        }
    }

    pub fn from_name(name: &str) -> Option<GapCause> {
        [GapCause::Dropped, GapCause::Unreadable, GapCause::Sendfile]
            .into_iter()
            .find(|c| c.name() == name)
    }
}

/// A piece of one half of a connection. A call of up to 256 KiB is one piece; a longer one is
/// several, in order, each with the same `call_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    pub dir: Dir,
    /// Stream offset of the first byte of this piece.
    pub off: u64,
    /// Bytes that this piece stands for. `bytes.len() < len` means cut by `-s` (truncated).
    pub len: u64,
    /// Bytes of the whole call, and where in it this piece begins (0: first or only piece).
    pub call_len: u64,
    pub call_off: u64,
    /// The goroutine that called, 0 when there is none.
    pub goid: u64,
    /// What was kept. Foreign.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The connection is new to us: its handshake has ended, or its first bytes follow.
    Open,
    Data(Data<'a>),
    /// `len` bytes from stream offset `off` on are missing.
    Gap {
        dir: Dir,
        off: u64,
        len: u64,
        cause: GapCause,
    },
    /// The program has sent its `close_notify`: no more `Out` data.
    Shutdown,
    /// The connection object was freed or reused, or its process has gone.
    Close,
}

/// One thing that happened on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// For written data when the call began, for read data when it returned: so that a request
    /// is never later than its response.
    pub ts: Nanos,
    pub conn: &'a Conn,
    /// The thread, 0 when unknown.
    pub tid: u32,
    /// The library function that the probe sits in (`SSL_write`, `ssl_read_internal`), or "".
    pub func: &'a str,
    pub kind: Kind<'a>,
}

/// What was counted, for the summary and the last JSON line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Reads and writes that reached us, whole or in part.
    pub captured: u64,
    /// Those that passed the filter and were shown or written.
    pub shown: u64,
    /// Reads and writes of which bytes were lost, and how many bytes: ring full or unreadable.
    pub dropped: u64,
    pub dropped_bytes: u64,
    /// Reads and writes cut by `-s`.
    pub truncated: u64,
    /// Programs that ran before their probes were in place: what they moved until then is missing.
    pub late: u64,
}
