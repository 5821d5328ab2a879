//! Runs real programs under the real `tlssniff` and compares what it saw with what they did.
//!
//! Everything has a time limit, its own directory, ports and process groups, and is killed by
//! number when its owner is dropped, so that the tests can run side by side.

// Each test crate uses a part of this module.
#![allow(dead_code, unused_imports)]

pub mod capture;
pub mod golang;
pub mod oracle;
pub mod place;
pub mod process;
pub mod rust;
pub mod servers;
pub mod sniff;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

pub use capture::{Capture, Conn, Half};
pub use oracle::{Checks, Truth};
pub use place::{programs, tlssniff};
pub use process::Running;
pub use sniff::Sniff;

/// How long anything may take that is expected to end by itself; under emulation [`place::patience`]
/// times that.
pub const LIMIT: Duration = Duration::from_secs(60);

/// False, after one line that names what was not run, where captures are impossible.
pub fn can_capture(test: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    // CAP_SYS_ADMIN is bit 21, CAP_BPF bit 39 (include/uapi/linux/capability.h)
    let missing = if !nix::unistd::geteuid().is_root() {
        Some("root")
    } else if effective & (1 << 21 | 1 << 39) == 0 {
        Some("CAP_BPF")
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("kernel BTF")
    } else {
        None
    };
    if let Some(missing) = missing {
        eprintln!("NOT RUN: {test} (no {missing})");
    }
    missing.is_none()
}

/// False, after one line that names what was not run, when a program is not installed.
pub fn installed(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        eprintln!("NOT RUN: {test} (not installed: {missing:?})");
    }
    missing.is_empty()
}

/// The path of an executable; `sbin` directories count.
pub fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}

/// A fresh directory that goes with its owner.
pub fn new_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("lab")
        .tempdir_in(place::scratch())
        .unwrap();
    // servers give up root and must still reach their files
    open_to_all(dir.path());
    dir
}

/// Lets every user read a file or enter a directory.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o777 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A command name that no other process has: at most 15 bytes, as the kernel keeps them.
pub fn unique_comm(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{:.3}{:x}-{n}", stem, std::process::id());
    assert!(name.len() <= 15, "{name}");
    name
}

/// A program that runs under a name of its own: a symbolic link, so the file stays the same.
pub fn renamed(program: &Path, dir: &Path, comm: &str) -> PathBuf {
    let link = dir.join(comm);
    std::os::unix::fs::symlink(program, &link).unwrap();
    link
}

/// Polls until `ready` holds.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let limit = limit * place::patience();
    let end = Instant::now() + limit;
    while !ready() {
        assert!(Instant::now() < end, "timed out after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program `odd`, built once.
pub fn odd() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        build(
            "odd",
            &[
                "odd.c",
                "odd_calls.c",
                "odd_conns.c",
                "odd_transports.c",
                "odd_waiting.c",
            ],
            &["-lssl", "-lcrypto", "-lpthread"],
        )
    })
}

/// `odd` without a dynamic linker, built once.
pub fn odd_static() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        build(
            "odd-static",
            &[
                "odd.c",
                "odd_calls.c",
                "odd_conns.c",
                "odd_transports.c",
                "odd_waiting.c",
            ],
            // glibc warns of functions that a static program does not wholly hold
            &[
                "-static",
                "-Wl,--no-warnings",
                "-lssl",
                "-lcrypto",
                "-lpthread",
                "-ldl",
            ],
        )
    })
}

/// The release of the running kernel: major, minor.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The program `family` with one of the libraries that it is written for, built once.
pub fn family(library: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let (source, options): (&str, &[&str]) = match library {
        "gnutls" => ("family_gnutls.c", &["-lgnutls", "-lpthread"]),
        "wolfssl" => ("family_wolfssl.c", &["-lwolfssl", "-lpthread"]),
        "mbedtls" => (
            "family_mbedtls.c",
            &["-lmbedtls", "-lmbedx509", "-lmbedcrypto", "-lpthread"],
        ),
        "mbedtls-static" => (
            "family_mbedtls.c",
            &[
                "-Wl,-Bstatic",
                "-lmbedtls",
                "-lmbedx509",
                "-lmbedcrypto",
                "-Wl,-Bdynamic",
                "-lpthread",
            ],
        ),
        "s2n" => ("family_pieces.c", &["-DS2N", "-lpthread"]),
        "nss" => ("family_pieces.c", &["-lpthread"]),
        other => panic!("no such library: {other}"),
    };
    let mut built = BUILT.lock().unwrap();
    let entry = built.entry(library.to_owned());
    entry
        .or_insert_with(|| build(&format!("family-{library}"), &["family.c", source], options))
        .clone()
}

/// A client of NSS that begins TLS late, built once.
pub fn starttls() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        build(
            "starttls-nss",
            &["starttls_nss.c"],
            &[
                "-I/usr/include/nss",
                "-I/usr/include/nspr",
                "-lssl3",
                "-lnss3",
                "-lnspr4",
                "-lssl",
                "-lcrypto",
                "-lpthread",
            ],
        )
    })
}

/// A client that has its TLS from rustls and gets URLs, built once; `None` where its crates cannot be
/// had.
pub fn rustls_client() -> Option<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _lock = BUILDING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(home) = place::prebuilt() {
        return Some(home.join("reqwest"));
    }
    let target = place::scratch().join("rustls");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--no-default-features"])
        .args(["--features", "client", "--bin", "reqwest", "--target-dir"])
        .arg(&target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/collection/programs/rust"))
        .status();
    status
        .is_ok_and(|status| status.success())
        .then(|| target.join("release/reqwest"))
}

/// False, after one line that says so, where nobody is held until a new library is attached to.
pub fn holds(test: &str) -> bool {
    let holds = kernel() >= (6, 0);
    if !holds {
        eprintln!("NOT RUN: {test} (before Linux 6.0 nobody waits for the probes of new code)");
    }
    holds
}

/// The program `late`, which knows no libssl when it starts, built once.
pub fn late() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("late", &["late.c"], &["-ldl"]))
}

/// The libssl that test programs are linked with.
pub fn system_libssl() -> PathBuf {
    let output = Command::new("ldd").arg(odd()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("libssl"));
    let path = line.and_then(|line| line.split_whitespace().nth(2));
    path.expect("odd is linked with libssl").into()
}

/// A libssl that no process has mapped yet.
pub fn fresh_libssl(dir: &Path) -> PathBuf {
    let copy = dir.join("libssl.so.3");
    fs::copy(system_libssl(), &copy).unwrap();
    copy
}

fn build(name: &str, sources: &[&str], libraries: &[&str]) -> PathBuf {
    let directory = programs();
    let built = place::scratch().join(name);
    if place::prebuilt().is_some() {
        return built;
    }
    let changed = |file: &Path| file.metadata().and_then(|m| m.modified()).ok();
    let newest = fs::read_dir(&directory)
        .unwrap()
        .filter_map(|entry| changed(&entry.unwrap().path()))
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH);
    if changed(&built).is_some_and(|time| time > newest) {
        return built;
    }
    // built aside and renamed: another test crate may be running the old one
    let aside = built.with_extension(std::process::id().to_string());
    let output = Command::new("gcc")
        .current_dir(&directory)
        .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&aside)
        .args(sources)
        .args(libraries)
        .output()
        .expect("gcc is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&aside, &built).unwrap();
    built
}

/// A throw-away certificate for 127.0.0.1 and lab.test, and its key.
#[derive(Debug)]
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Made once for each test crate.
pub fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = place::scratch();
        let stem = std::process::id();
        let made = Certificate {
            cert: dir.join(format!("cert-{stem}.pem")),
            key: dir.join(format!("key-{stem}.pem")),
        };
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=lab.test", "-addext"])
            .arg("subjectAltName=DNS:lab.test,DNS:localhost,IP:127.0.0.1,IP:::1")
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.cert)
            .output()
            .expect("openssl is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        open_to_all(&made.cert);
        open_to_all(&made.key);
        made
    })
}

/// The body that the servers of the lab answer with: no two places of it alike.
pub fn body(len: usize) -> Vec<u8> {
    let mut text = String::with_capacity(len + 16);
    for at in (0..len + 16).step_by(16) {
        text += &format!("{at:015x}\n");
    }
    text.truncate(len);
    text.into_bytes()
}
