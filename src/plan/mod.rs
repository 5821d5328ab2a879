//! Decides where in a target to probe and which layout offsets BPF needs; knows no BPF.

#[cfg(test)]
pub(crate) mod compiled;
pub mod disasm;
pub mod families;
mod functions;
pub mod golang;
pub mod layout;
mod nss;
pub mod openssl;
mod probe;
pub mod rustls;
pub mod site;
pub mod stripped;
pub mod symbolic;
pub mod waiting;

use crate::discovery::elf::{Elf, Machine};
use crate::event::{Dir, Flavor, Role};
use anyhow::{Result, bail};

/// Where the byte count of a read or write is found when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The return value: an int (32 bits, sign matters), counted when > 0.
    Return,
    /// Counted when the return value (int) is > 0: a `size_t` behind argument `n` (0-based).
    OutArg(u8),
    /// `SSL_sendfile`: the return value (64 bits) is a length without bytes in memory.
    SendfileReturn,
    /// The return value: a `ssize_t`, counted when > 0.
    WideReturn,
    /// Likewise, of a write that takes its bytes also when it says that it would block: `GnuTLS`.
    ReturnAhead,
    /// As `Return`, unless argument 3 has the flag `MSG_PEEK`.
    UnlessPeek,
    /// Argument 2, when the return value (64 bits) is not < 0.
    Whole,
    /// As `WideReturn`; argument 1 is an array of `struct iovec`, of which so many bytes as this
    /// argument says come before those that are meant.
    Vector(Option<u8>),
    /// As `Return`; argument 1 is an array of NSPR's `PRIOVec`.
    ShortVector,
    /// Nothing: what the call hands on to others was counted when the program gave it away.
    ToldBefore,
}

impl Count {
    /// The argument that holds the length of a buffer.
    const LENGTH: u8 = 2;

    /// Which argument besides handle and buffer is needed when the call returns.
    pub fn argument(self) -> Option<u8> {
        match self {
            Count::OutArg(n) => Some(n),
            Count::ReturnAhead | Count::Whole => Some(Count::LENGTH),
            Count::UnlessPeek => Some(3),
            Count::Vector(skip) => skip,
            Count::Return
            | Count::SendfileReturn
            | Count::WideReturn
            | Count::ShortVector
            | Count::ToldBefore => None,
        }
    }
}

/// What a probe does; the handle is argument 0 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A read or write: buffer in argument 1, entry and return.
    Data(Dir, Count),
    /// A handshake function, entry and return; success is a return value of 1.
    Handshake(Option<Role>),
    /// A handshake function of either role, entry and return; success is a return value of 0.
    Negotiate,
    /// Entry only: the handle is given up.
    Free,
    /// Entry only: the handle will be used for another connection.
    Clear,
    /// Entry only: `close_notify` will be sent.
    Shutdown,
    /// Entry only: the transport of the handle changes.
    Rebind,
    /// A function of rustls.
    Rustls(RustlsCall),
    /// A point in a function of Go's crypto/tls.
    Go {
        call: GoCall,
        at: GoAt,
        /// Arguments on the stack, as before Go 1.17.
        abi0: bool,
    },
}

impl Action {
    /// How many arguments are looked at when a call begins: of data calls also the length,
    /// whatever says the count.
    fn arguments(self) -> u8 {
        match self {
            Action::Data(_, count) => {
                let other = count.argument().map_or(0, |n| n.saturating_add(1));
                other.max(Count::LENGTH + 1)
            }
            // SSL_set_bio has three.
            Action::Rebind => 3,
            // Planned in plan::golang, by other rules.
            Action::Go { .. } => 0,
            Action::Rustls(RustlsCall::Read(RustlsBytes::Message)) => 4,
            Action::Rustls(RustlsCall::Write(_)) => 3,
            Action::Rustls(RustlsCall::Read(_)) => 2,
            _ => 1,
        }
    }

    /// Whether the call's return matters.
    fn returns(self) -> bool {
        matches!(
            self,
            Action::Data(..)
                | Action::Handshake(_)
                | Action::Negotiate
                | Action::Rustls(RustlsCall::Write(_))
        )
    }
}

/// What a function of rustls does. Its argument 0 is a `CommonState` in nearly all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RustlsCall {
    /// Takes plaintext to be sent, and returns how much of it: entry and return.
    Write(RustlsBytes),
    /// Entry only: gets the plaintext of a record that was received.
    Read(RustlsBytes),
    /// Entry only: application data may be sent from now on.
    Start,
    /// Entry only: the connection is dropped.
    Drop,
}

/// How a function of rustls gets bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RustlsBytes {
    /// `&[u8]`: address and length in arguments 1 and 2.
    Slice,
    /// Argument 1 points to an `OutboundChunks`.
    Chunks,
    /// Argument 1 points to a `Payload`.
    Payload,
    /// Argument 3 points to a `Message`, and argument 2 to a pointer to the `CommonState`.
    Message,
}

/// What a Go function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoCall {
    Move(Dir),
    Close,
    CloseWrite,
    Handshake,
}

/// Where in a Go function a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoAt {
    /// On the branch that is taken when the stack has to grow first.
    Enter,
    Return,
    /// In a function that runs last before the return: see [`Deferred`].
    Defer,
}

/// What a hit costs (DESIGN: the site decides the cost).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteCost {
    /// x86: a 5-byte nop, which kernels from 6.18 on turn into a call.
    Nop5,
    /// Emulated by the kernel: one trap.
    Emulated,
    /// Single-stepped out of line: two traps.
    SingleStepped,
}

/// A place for a breakpoint at which argument registers (and for a return probe, the stack
/// pointer) are as they were at the function's first instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Virtual address in the ELF file, and the file offset that a uprobe wants.
    pub vaddr: u64,
    pub file_offset: u64,
    pub cost: SiteCost,
    /// For `--debug`: the instruction and why it was chosen.
    pub reason: String,
}

/// One function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The function's own name: `SSL_write`, or `ssl_write_internal` when that is what is probed.
    pub func: String,
    pub action: Action,
    pub site: Site,
    /// Further sites of the same function, best first, to try when attaching to `site` fails.
    pub fallbacks: Vec<Site>,
}

/// A chain of loads from the handle: `[0x8, 0x2c0]` reads the pointer at handle+8, then the
/// field at that pointer+0x2c0.
pub type LoadChain = Vec<u32>;

/// What was learnt from the code of the library's own getters; each is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `BIO *` from `SSL_get_rbio`.
    pub rbio: Option<LoadChain>,
    /// `void *` from `gnutls_transport_get_ptr`: the descriptor, or what the program has instead.
    pub transport: Option<LoadChain>,
    /// `int` from `SSL_version`; in `BoringSSL` a `uint16_t`, so only the low 16 bits count.
    pub version: Option<LoadChain>,
    /// `int` from `SSL_is_server`: 1 in a server, and in a client this.
    pub server: Option<LoadChain>,
    pub client: u32,
    /// `char *` and its length (`size_t` or `unsigned`) from `SSL_get0_alpn_selected`; where there
    /// is no chain to the length, the text ends in a NUL.
    pub alpn: Option<(LoadChain, LoadChain)>,
    /// `char *` from `SSL_get_servername`, or the pointer in a Go string.
    pub sni: Option<LoadChain>,
    /// Its length where it does not end in a NUL.
    pub sni_len: Option<LoadChain>,
    /// `int` reference count from `SSL_up_ref`.
    pub references: Option<LoadChain>,
    /// The 32 bytes that `SSL_get_client_random` and `SSL_get_server_random` copy.
    pub client_random: Option<LoadChain>,
    pub server_random: Option<LoadChain>,
    /// The end of a connection is not seen: its handle may come back as another one.
    pub unfreed: bool,
    /// The functions were found without symbols: what they return is checked.
    pub unproved: bool,
    /// Of rustls: the data pointer of its `Box<dyn MessageEncrypter>`, which goes by the connection
    /// when the program moves it in memory.
    pub encrypter: Option<LoadChain>,
    /// Of rustls: the byte `may_send_application_data`, set when the handshake is done.
    pub sends: Option<LoadChain>,
    /// Of NSS: a byte, and the bit in it that says that what is read and written is TLS's.
    pub secured: Option<(LoadChain, u8)>,
    /// Of rustls: which variant of its messages holds application data.
    pub app_data: Option<u32>,
    /// Offset of `goid` in Go's `runtime.g`.
    pub goid: Option<u32>,
    /// Where Go before 1.17 on x86-64 has `g`, from the thread pointer on.
    pub g_tls: Option<i32>,
    /// Offset of `input` in Go's `tls.Conn`, where the arguments of `Read` are found at its return.
    pub input: Option<u32>,
    /// Of Go's `Read`, and of its `Write`.
    pub read_defer: Option<Deferred>,
    pub write_defer: Option<Deferred>,
}

/// What is known at a probe in a function that a Go function has deferred. Distances are in bytes
/// from the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// To the return address, which says who calls.
    pub to_return: u32,
    /// To where the stack pointer was at the entry of the function that has deferred it.
    pub to_entry: u32,
    /// To that function's first result.
    pub to_result: u32,
    /// From the probe to the code of that function, and its length.
    pub caller: i32,
    pub caller_size: u32,
}

/// Offsets within `BIO`, learnt from libcrypto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BioLayout {
    /// `const BIO_METHOD *`, whose first int is the type.
    pub method: u32,
    /// `int num`: the file descriptor of a socket BIO.
    pub num: u32,
    /// `BIO *next_bio`.
    pub next: u32,
}

/// Plans the probes of one file, for each TLS library in it that we know.
///
/// `path` is only for messages.
///
/// # Errors
/// There are some, but none can be probed: the file is for another machine, or its code cannot be
/// understood.
pub fn plan(elf: &Elf<'_>, path: &str) -> Result<Vec<Plan>> {
    let mut found = Found::default();
    found.add(openssl::plan(elf, path));
    let has_openssl = !found.is_empty();
    for library in families::plan(elf, path)? {
        found.add(library.map(Some));
    }
    found.add(golang::plan(elf, path));
    // Of a file that names some, and its own functions too, all are known by now.
    let may_hide = found.is_empty() || !elf.names_own_functions();
    if may_hide && !has_openssl {
        for library in openssl::plan_stripped(elf, path)? {
            found.add(library);
        }
    }
    found.add(rustls::plan(elf, path, may_hide));
    if found.has(Flavor::Rustls) && has_openssl && !stripped::is_inside(elf) {
        // All that is read and written through the former is seen in rustls.
        found.plans.retain(|plan| !plan.flavor.has_openssl_api());
    }
    let plans = found.all()?;
    // An emulator maps such files; a breakpoint would be one more instruction to translate.
    if !plans.is_empty() && elf.machine() != Machine::HOST {
        bail!(
            "plan probes in {path}: it has TLS functions for {}, which only an emulator runs here",
            elf.machine().name()
        );
    }
    Ok(plans)
}

/// What was found in one file.
#[derive(Debug, Default)]
struct Found {
    plans: Vec<Plan>,
    refusals: Vec<anyhow::Error>,
}

impl Found {
    fn add(&mut self, library: Result<Option<Plan>>) {
        match library {
            Ok(plan) => self.plans.extend(plan),
            Err(error) => self.refusals.push(error),
        }
    }

    /// Whether no library was met with, be it one that cannot be probed.
    fn is_empty(&self) -> bool {
        self.plans.is_empty() && self.refusals.is_empty()
    }

    fn has(&self, flavor: Flavor) -> bool {
        self.plans.iter().any(|plan| plan.flavor == flavor)
    }

    /// One that cannot be probed is a limit of the others.
    fn all(mut self) -> Result<Vec<Plan>> {
        let Some(first) = self.plans.first_mut() else {
            return match self.refusals.into_iter().next() {
                Some(error) => Err(error),
                None => Ok(Vec::new()),
            };
        };
        let refusals = self.refusals.iter();
        first
            .notes
            .extend(refusals.map(|error| format!("{error:#}")));
        Ok(self.plans)
    }
}

/// Everything to attach to one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub flavor: Flavor,
    pub version: Option<String>,
    /// How the functions were found, where the file's own symbols did not say.
    pub found_by: Option<&'static str>,
    pub probes: Vec<Probe>,
    pub layout: Layout,
    /// Limits worth telling: "SSL BIOs are not seen: …".
    pub notes: Vec<String>,
}

impl Plan {
    /// For `--debug`: a line for each probe (function, action, offset in the file, cost, reason), then
    /// the layout and the notes. Holds no foreign bytes but the version.
    pub fn describe(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", self.flavor.name());
        if let Some(version) = &self.version {
            let _ = write!(text, " ({version})");
        }
        if let Some(found_by) = self.found_by {
            let _ = write!(text, ": {found_by}");
        }
        text.push('\n');
        for probe in &self.probes {
            let Site {
                file_offset,
                cost,
                reason,
                ..
            } = &probe.site;
            let _ = writeln!(
                text,
                "  {} {:?} at {file_offset:#x}: {cost:?}: {reason}",
                probe.func, probe.action
            );
        }
        let layout = &self.layout;
        let (alpn, alpn_len) = layout.alpn.clone().unzip();
        let secured = layout.secured.as_ref().map(|(chain, _)| chain.clone());
        let fields = [
            ("rbio", &layout.rbio),
            ("version", &layout.version),
            ("server", &layout.server),
            ("alpn", &alpn),
            ("alpn_len", &alpn_len),
            ("sni", &layout.sni),
            ("references", &layout.references),
            ("client_random", &layout.client_random),
            ("server_random", &layout.server_random),
            ("encrypter", &layout.encrypter),
            ("sends", &layout.sends),
            ("secured", &secured),
            ("transport", &layout.transport),
        ];
        text.push_str("  layout:");
        for (name, chain) in fields {
            let _ = match chain {
                Some(chain) => write!(text, " {name}={}", chain_text(chain)),
                None => write!(text, " {name}=unknown"),
            };
        }
        if let Some(offset) = layout.goid {
            let _ = write!(text, " goid={offset:#x}");
        }
        if let Some(offset) = layout.g_tls {
            let _ = write!(text, " g_tls={offset}");
        }
        if let Some(offset) = layout.input {
            let _ = write!(text, " input={offset:#x}");
        }
        if layout.unfreed {
            text.push_str(" unfreed");
        }
        for note in &self.notes {
            let _ = write!(text, "\n  note: {note}");
        }
        text
    }
}

/// `0x8->0x2c0` for the field at 0x2c0 of what the pointer at 0x8 points to.
fn chain_text(chain: &[u32]) -> String {
    let steps: Vec<String> = chain.iter().map(|offset| format!("{offset:#x}")).collect();
    steps.join("->")
}
