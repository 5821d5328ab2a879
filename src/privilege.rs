//! Checks capabilities and kernel, and gives the capabilities up (`-Z`).

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{User, initgroups, setresgid, setresuid};
use std::ffi::CString;
use std::path::Path;

/// What a capture cannot do without.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
];

/// What it works better with: files in directories closed to others, deleted libraries.
const USEFUL: [Capability; 2] = [
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// Whether we may capture.
///
/// # Errors
/// Which capabilities are needed, which of them there are, and how to get them.
pub fn check() -> Result<()> {
    let have = caps::read(None, CapSet::Effective).context("read our own capabilities")?;
    let exe = std::env::current_exe()
        .map_or_else(|_| "tlssniff".into(), |path| path.display().to_string());
    check_set(&have, &exe)
}

fn check_set(have: &CapsHashSet, exe: &str) -> Result<()> {
    // The kernel takes CAP_SYS_ADMIN for the two that were split off from it in Linux 5.8.
    let admin = have.contains(&Capability::CAP_SYS_ADMIN);
    let granted =
        |cap: &Capability| have.contains(cap) || (admin && *cap != Capability::CAP_SYS_PTRACE);
    if NEEDED.iter().all(granted) {
        return Ok(());
    }
    let present: Vec<String> = NEEDED
        .iter()
        .filter(|cap| granted(cap))
        .map(ToString::to_string)
        .collect();
    let present = if present.is_empty() {
        "none of them".into()
    } else {
        present.join(", ")
    };
    let list: Vec<String> = NEEDED
        .iter()
        .chain(&USEFUL)
        .map(|cap| cap.to_string().to_lowercase())
        .collect();
    bail!(
        "need root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE (have: {present}); run it with \
         sudo, or once: sudo setcap {}=ep {exe}",
        list.join(",")
    );
}

/// Major and minor number of the running kernel.
pub fn kernel_version() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("read the kernel's version from /proc/sys/kernel/osrelease")?;
    parse_release(&release)
        .with_context(|| format!("make sense of the kernel's version {:?}", release.trim()))
}

/// `6.18.44-extra`, `6.1-rc3`
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.trim().split_once('.')?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..end)?.parse().ok()?))
}

/// Whether the running kernel is of version `least` or newer and was built with what we need.
///
/// # Errors
/// One sentence that names the missing thing.
pub fn kernel_check(least: (u32, u32)) -> Result<()> {
    check_kernel(kernel_version()?, least, Path::new("/sys"))
}

fn check_kernel(version: (u32, u32), least: (u32, u32), sys: &Path) -> Result<()> {
    if version < least {
        bail!(
            "Linux {}.{} is too old: this version of tlssniff needs {}.{} or newer",
            version.0,
            version.1,
            least.0,
            least.1
        );
    }
    if !sys.join("kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no type information (BTF): /sys/kernel/btf/vmlinux is missing; use a \
             kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of current distributions are"
        );
    }
    // CONFIG_UPROBES cannot be set by itself: CONFIG_UPROBE_EVENTS brings it, and this device.
    let devices = sys.join("bus/event_source/devices");
    if devices.exists() && !devices.join("uprobe").exists() {
        bail!("this kernel has no uprobes; use one built with CONFIG_UPROBE_EVENTS=y");
    }
    Ok(())
}

/// Lifts the limit of locked memory, which kernels before 5.11 charge BPF maps to. Newer ones do
/// not, so it is no error when we may not (`CAP_SYS_RESOURCE`).
pub fn raise_memlock_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// Becomes `user`, with that user's groups, and keeps of the capabilities only those that a running
/// capture needs. Call it before any thread is started: capabilities belong to a thread, and other
/// threads would keep none.
///
/// Afterwards the process is not dumpable (the kernel's doing): nobody else of that user can read
/// the plaintext out of its memory.
///
/// # Errors
/// When there is no such user, or we are not root. Part of it may have been done then: end the run.
pub fn drop_to(user: &str) -> Result<()> {
    let found = User::from_name(user)
        .with_context(|| format!("look up user {user:?} (-Z)"))?
        .with_context(|| format!("there is no user {user:?} (-Z)"))?;
    let name = CString::new(found.name.as_str())
        .with_context(|| format!("user {user:?} has a NUL in its name"))?;
    let permitted = caps::read(None, CapSet::Permitted).context("read our own capabilities")?;
    let keep: CapsHashSet = NEEDED
        .into_iter()
        .chain(USEFUL)
        .filter(|cap| permitted.contains(cap))
        .collect();
    nix::sys::prctl::set_keepcaps(true).context("keep capabilities across setuid")?;
    initgroups(&name, found.gid)
        .and_then(|()| setresgid(found.gid, found.gid, found.gid))
        .and_then(|()| setresuid(found.uid, found.uid, found.uid))
        .with_context(|| format!("become user {user:?} (-Z works as root only)"))?;
    // Root stays root with an empty effective set too; permitted goes last, it bounds the others.
    let kept = caps::clear(None, CapSet::Inheritable)
        .and_then(|()| caps::clear(None, CapSet::Ambient))
        .and_then(|()| caps::set(None, CapSet::Effective, &keep))
        .and_then(|()| caps::set(None, CapSet::Permitted, &keep));
    kept.with_context(|| format!("keep only the needed capabilities as user {user:?}"))?;
    nix::sys::prctl::set_keepcaps(false).context("give up keeping capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use test_tag::tag;

    #[test]
    fn missing_capabilities_are_named_with_the_remedy() {
        let set = |caps: &[Capability]| caps.iter().copied().collect::<CapsHashSet>();
        assert!(check_set(&set(&NEEDED), "x").is_ok());
        let admin = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];
        assert!(check_set(&set(&admin), "x").is_ok());
        let error = check_set(&set(&[]), "/opt/tlssniff")
            .unwrap_err()
            .to_string();
        assert!(error.contains("(have: none of them)"), "{error}");
        assert!(
            error.ends_with(
                "setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,\
                 cap_checkpoint_restore=ep /opt/tlssniff"
            ),
            "{error}"
        );
        for missing in NEEDED {
            let others: Vec<_> = NEEDED.into_iter().filter(|cap| *cap != missing).collect();
            let error = check_set(&set(&others), "x").unwrap_err().to_string();
            assert!(
                error.contains(&format!("(have: {}, {})", others[0], others[1])),
                "{error}"
            );
        }
        assert!(check_set(&set(&[Capability::CAP_SYS_ADMIN]), "x").is_err());
    }

    #[test]
    fn releases_of_all_shapes_give_a_version() {
        assert_eq!(parse_release("6.18.44-extra\n"), Some((6, 18)));
        assert_eq!(parse_release("6.1-rc3"), Some((6, 1)));
        assert_eq!(parse_release("7.0"), Some((7, 0)));
        assert_eq!(parse_release("6"), None);
        assert_eq!(parse_release("6.x"), None);
        assert!(kernel_version().unwrap() > (2, 6));
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let check = |version| check_kernel(version, (6, 13), sys.path());
        let fails = |version, with: &str| {
            let error = check(version).unwrap_err().to_string();
            assert!(error.contains(with), "{error}");
        };
        fails((6, 12), "Linux 6.12 is too old");
        fails((5, 99), "needs 6.13");
        fails((6, 13), "BTF");
        fs::create_dir_all(sys.path().join("kernel/btf/vmlinux")).unwrap();
        assert!(
            check((6, 13)).is_ok(),
            "sysfs without perf devices says nothing"
        );
        let devices = sys.path().join("bus/event_source/devices");
        fs::create_dir_all(&devices).unwrap();
        fails((7, 0), "uprobes");
        fs::create_dir(devices.join("uprobe")).unwrap();
        assert!(check((6, 13)).is_ok());
    }

    #[test]
    fn an_unknown_user_is_an_error_that_changes_nothing() {
        let before = caps::read(None, CapSet::Effective).unwrap();
        let error = drop_to("no-such-user").unwrap_err().to_string();
        assert!(error.contains("no user \"no-such-user\""), "{error}");
        assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before);
    }

    #[test]
    fn raising_the_memory_limit_never_fails() {
        raise_memlock_limit();
    }

    /// Runs only in the process that the test below starts.
    #[test]
    fn drop_here_when_asked() {
        let Ok(user) = std::env::var("DROP_TO_IN_TEST") else {
            return;
        };
        drop_to(&user).unwrap();
        println!(
            "{}",
            fs::read_to_string("/proc/thread-self/status").unwrap()
        );
    }

    #[tag(root)]
    #[test]
    fn dropping_to_a_user_keeps_only_what_a_capture_needs() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "privilege::tests::drop_here_when_asked",
                "--exact",
                "--nocapture",
            ])
            .env("DROP_TO_IN_TEST", "nobody")
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&output.stdout);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {output:?}"))
                .trim()
                .to_string()
        };
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert_eq!(
            field("Uid:"),
            [nobody.uid; 4].map(|uid| uid.to_string()).join("\t")
        );
        assert_eq!(
            field("Gid:"),
            [nobody.gid; 4].map(|gid| gid.to_string()).join("\t")
        );
        assert_eq!(field("Groups:"), nobody.gid.to_string());
        let mask: u64 = NEEDED.iter().chain(&USEFUL).map(Capability::bitmask).sum();
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), mask, "{set}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
        }
    }
}
