//! Reads processes and their executable mappings from /proc.

use crate::discovery::FileId;
use crate::discovery::cgroup;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files of /proc have no size of their own; none of those read here is near this many bytes.
/// `vm.max_map_count` allows a process some 65,000 mappings of about 100 bytes each.
const LARGEST_PROC_FILE: u64 = 64 << 20;

/// A process, as its files in /proc tell.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Process {
    pub pid: u32,
    pub ppid: u32,
    /// Of the thread group leader: up to 15 bytes, invalid UTF-8 replaced. Foreign.
    pub comm: String,
    /// Effective: that is whose files and sockets it uses.
    pub uid: u32,
    /// In clock ticks since boot; with the pid it identifies a process for ever.
    pub start_time: u64,
    pub is_kernel_thread: bool,
}

/// A file that a process has mapped executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses in the process: `start..end`.
    pub start: u64,
    pub end: u64,
    /// Where in the file `start` is.
    pub offset: u64,
    pub id: FileId,
    /// In the process's own mount namespace, without ` (deleted)`. Foreign.
    pub path: PathBuf,
    pub deleted: bool,
}

/// A /proc file system.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
}

impl Default for ProcFs {
    fn default() -> ProcFs {
        ProcFs::new("/proc")
    }
}

impl ProcFs {
    pub fn new(root: impl Into<PathBuf>) -> ProcFs {
        ProcFs { root: root.into() }
    }

    fn path(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    fn read(&self, pid: u32, name: &str) -> Result<Vec<u8>> {
        let path = self.path(pid, name);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LARGEST_PROC_FILE).read_to_end(&mut bytes))
            .with_context(|| format!("read {}", path.display()))?;
        Ok(bytes)
    }

    /// The processes (not threads) that there are, in ascending order.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let entries =
            fs::read_dir(&self.root).with_context(|| format!("list {}", self.root.display()))?;
        let mut pids: Vec<u32> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// The threads of a process; none when it has gone.
    pub fn threads(&self, pid: u32) -> Vec<u32> {
        let tasks = fs::read_dir(self.root.join(format!("{pid}/task")));
        tasks
            .into_iter()
            .flatten()
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .collect()
    }

    pub fn exists(&self, pid: u32) -> bool {
        self.path(pid, "stat").exists()
    }

    /// # Errors
    /// When there is no such process, or it ended while being looked at.
    pub fn process(&self, pid: u32) -> Result<Process> {
        let stat = self.read(pid, "stat")?;
        let stat = parse_stat(&stat)
            .with_context(|| format!("make sense of {}", self.path(pid, "stat").display()))?;
        let status = self.read(pid, "status")?;
        let uid = parse_effective_uid(&status)
            .with_context(|| format!("find the user in {}", self.path(pid, "status").display()))?;
        Ok(Process { pid, uid, ..stat })
    }

    /// The name of the thread group leader, invalid UTF-8 replaced. Foreign.
    pub fn comm(&self, pid: u32) -> Result<String> {
        let comm = self.read(pid, "comm")?;
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        Ok(String::from_utf8_lossy(comm).into_owned())
    }

    /// The executable's path in the process's own mount namespace, without ` (deleted)`. Foreign.
    pub fn exe(&self, pid: u32) -> Result<PathBuf> {
        let link = self.path(pid, "exe");
        let path = fs::read_link(&link).with_context(|| format!("read {}", link.display()))?;
        Ok(split_deleted(path.as_os_str().as_bytes()).0)
    }

    /// The executable itself, open for reading, also when it was deleted or lies in another mount
    /// namespace.
    pub fn open_exe(&self, pid: u32) -> Result<File> {
        open_regular(&self.path(pid, "exe"))
    }

    /// The memory of a process, by address.
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked at (`CAP_SYS_PTRACE`).
    pub fn open_memory(&self, pid: u32) -> Result<File> {
        let path = self.path(pid, "mem");
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// The arguments; none for a kernel thread or a process that has ended. Foreign.
    pub fn cmdline(&self, pid: u32) -> Result<Vec<OsString>> {
        let bytes = self.read(pid, "cmdline")?;
        let Some(bytes) = bytes
            .strip_suffix(b"\0")
            .or((!bytes.is_empty()).then_some(&bytes[..]))
        else {
            return Ok(Vec::new());
        };
        Ok(bytes
            .split(|&b| b == 0)
            .map(|arg| OsString::from_vec(arg.to_vec()))
            .collect())
    }

    /// The path in the unified (version 2) cgroup hierarchy. Foreign.
    pub fn cgroup(&self, pid: u32) -> Result<Option<String>> {
        let bytes = self.read(pid, "cgroup")?;
        Ok(bytes
            .split(|&b| b == b'\n')
            .find_map(|line| line.strip_prefix(b"0::"))
            .map(|path| String::from_utf8_lossy(path).into_owned()))
    }

    /// The short id of the process's container, in whatever cgroup hierarchy it shows. Foreign.
    pub fn container(&self, pid: u32) -> Result<Option<String>> {
        let bytes = self.read(pid, "cgroup")?;
        Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .find_map(|line| cgroup::container_of(line.splitn(3, ':').nth(2)?)))
    }

    /// The children of all threads of a process, in ascending order.
    pub fn children(&self, pid: u32) -> Result<Vec<u32>> {
        let mut children: Vec<u32> = self
            .pids()?
            .into_iter()
            .filter(|&other| {
                self.read(other, "stat")
                    .ok()
                    .and_then(|stat| parse_stat(&stat))
                    .is_some_and(|stat| stat.ppid == pid)
            })
            .collect();
        children.sort_unstable();
        Ok(children)
    }

    /// The files that a process has mapped executable, each once (its first mapping), in the order
    /// of their addresses. Empty for a kernel thread and for a process that is ending.
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked at (`CAP_SYS_PTRACE`).
    pub fn exec_mappings(&self, pid: u32) -> Result<Vec<Mapping>> {
        Ok(parse_maps(&self.read(pid, "maps")?))
    }

    /// Opens the mapped file itself, also when it was deleted, replaced, or lies in another mount
    /// namespace.
    ///
    /// # Errors
    /// When the mapping has gone, or only its path can be used and that leads to another file now.
    pub fn open_mapping(&self, pid: u32, mapping: &Mapping) -> Result<File> {
        let link = self
            .path(pid, "map_files")
            .join(format!("{:x}-{:x}", mapping.start, mapping.end));
        let by_link = open_regular(&link).and_then(|file| same_file(file, mapping));
        // Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; the path does without.
        let by_link = match by_link {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        if mapping.deleted {
            return Err(by_link).with_context(|| {
                format!(
                    "open the deleted {} of process {pid}",
                    mapping.path.display()
                )
            });
        }
        let relative = mapping.path.strip_prefix("/").unwrap_or(&mapping.path);
        let path = self.path(pid, "root").join(relative);
        open_regular(&path)
            .and_then(|file| same_file(file, mapping))
            .with_context(|| {
                format!(
                    "open {} (and before that: {by_link:#})",
                    mapping.path.display()
                )
            })
    }

    /// Size and time of change of the mapped file, without opening it.
    pub fn stamp(&self, pid: u32, mapping: &Mapping) -> Option<Stamp> {
        let link = self
            .path(pid, "map_files")
            .join(format!("{:x}-{:x}", mapping.start, mapping.end));
        Some(Stamp::of(&link.metadata().ok()?))
    }
}

/// The inode of this process's pid namespace, when it is not that of the machine itself.
pub fn own_pid_namespace() -> Option<u32> {
    /// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`
    const MACHINE: u64 = 0xefff_fffc;
    let ino = fs::metadata("/proc/self/ns/pid").ok()?.ino();
    u32::try_from(ino).ok().filter(|_| ino != MACHINE)
}

/// Tells the contents of a file apart from those that had its inode number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub fn of(meta: &Metadata) -> Stamp {
        Stamp {
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// Opens a path that somebody else controls: a device or FIFO must not be touched by the look.
fn open_regular(path: &Path) -> Result<File> {
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .with_context(|| format!("find {}", path.display()))?;
    let kind = handle
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?;
    if !kind.is_file() {
        bail!("{} is not a regular file", path.display());
    }
    let reopened = format!("/proc/self/fd/{}", handle.as_raw_fd());
    File::open(reopened).with_context(|| format!("open {}", path.display()))
}

/// Only the inode is compared: on btrfs and overlayfs the device that stat(2) names is not the one
/// in /proc/PID/maps. Overlayfs may number inodes differently as well (`xino`), and there the file
/// that was found is taken as it is.
fn same_file(file: File, mapping: &Mapping) -> Result<File> {
    let found = file.metadata().context("look at the opened file")?;
    if found.ino() == mapping.id.ino {
        return Ok(file);
    }
    let overlay = nix::sys::statfs::fstatfs(&file)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC);
    if overlay {
        return Ok(file);
    }
    bail!(
        "inode {} was mapped, {} is there now",
        mapping.id.ino,
        found.ino()
    );
}

/// All of `stat` but the user; `None` when it is not the format of proc(5).
fn parse_stat(stat: &[u8]) -> Option<Process> {
    // The name may hold spaces and parentheses: it ends at the last one.
    let open = stat.iter().position(|&b| b == b'(')?;
    let close = stat.iter().rposition(|&b| b == b')')?;
    let pid = std::str::from_utf8(stat.get(..open)?)
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let comm = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbers of proc(5), of which the state after the name is 3.
    let field = |number: usize| fields.get(number - 3);
    let flags: u64 = field(9)?.parse().ok()?;
    const PF_KTHREAD: u64 = 0x0020_0000;
    Some(Process {
        pid,
        ppid: field(4)?.parse().ok()?,
        comm,
        uid: 0,
        start_time: field(22)?.parse().ok()?,
        is_kernel_thread: flags & PF_KTHREAD != 0,
    })
}

/// `Uid:` real, effective, saved, file system.
fn parse_effective_uid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// The executable mappings of files in a `maps` file, each file once; other lines are passed over.
pub fn parse_maps(maps: &[u8]) -> Vec<Mapping> {
    let mut seen = std::collections::HashSet::new();
    maps.split(|&b| b == b'\n')
        .filter_map(parse_maps_line)
        .filter(|mapping| seen.insert(mapping.id))
        .collect()
}

/// `start-end perms offset major:minor inode   path`, of which inode 0 is no file.
fn parse_maps_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut next = || {
        let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        let (field, after) = rest.split_at_checked(end)?;
        rest = after.strip_prefix(b" ").unwrap_or(after);
        std::str::from_utf8(field).ok()
    };
    let (start, end) = next()?.split_once('-')?;
    let perms = next()?;
    let offset = next()?;
    let (major, minor) = next()?.split_once(':')?;
    let ino: u64 = next()?.parse().ok()?;
    if ino == 0 || perms.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let device = libc::makedev(
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    let path = rest
        .iter()
        .position(|&b| b != b' ')
        .and_then(|at| rest.get(at..))?;
    let (path, deleted) = split_deleted(&unescape_newlines(path));
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        id: FileId { dev: device, ino },
        path,
        deleted,
    })
}

/// A file may really be called `x (deleted)`; then it is opened through `map_files` all the same.
fn split_deleted(path: &[u8]) -> (PathBuf, bool) {
    match path.strip_suffix(b" (deleted)") {
        Some(path) => (PathBuf::from(OsStr::from_bytes(path)), true),
        None => (PathBuf::from(OsStr::from_bytes(path)), false),
    }
}

/// The kernel writes a newline as `\012` and leaves a backslash as it is (`fs/proc/task_mmu.c`).
fn unescape_newlines(path: &[u8]) -> Vec<u8> {
    const ESCAPED: &[u8] = b"\\012";
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(ESCAPED) {
            plain.push(b'\n');
            rest = after;
        } else {
            plain.push(first);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use test_tag::tag;

    const MAPS: &str = "\
55d0c0a00000-55d0c0a01000 r--p 00000000 fe:02 1234                       /usr/bin/curl
55d0c0a01000-55d0c0a20000 r-xp 00001000 fe:02 1234                       /usr/bin/curl
55d0c0a20000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f0000100000-7f0000200000 r-xp 00003000 00:2f 18446744073709551615       /a b/x\\012y.so (deleted)
7f0000300000-7f0000400000 r-xs 00000000 00:01 77                         /memfd:jit (deleted)
7f0000500000-7f0000600000 r-xp 00021000 fe:02 1234                       /usr/bin/curl
7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn executable_files_are_found_once_with_their_identity() {
        let maps = parse_maps(MAPS.as_bytes());
        assert_eq!(maps.len(), 3);
        assert_eq!(
            maps[0],
            Mapping {
                start: 0x55d0_c0a0_1000,
                end: 0x55d0_c0a2_0000,
                offset: 0x1000,
                id: FileId {
                    dev: libc::makedev(0xfe, 2),
                    ino: 1234
                },
                path: "/usr/bin/curl".into(),
                deleted: false,
            }
        );
        assert_eq!(maps[1].path, Path::new("/a b/x\ny.so"));
        assert_eq!(
            maps[1].id,
            FileId {
                dev: libc::makedev(0, 0x2f),
                ino: u64::MAX
            }
        );
        assert!(maps[1].deleted);
        assert_eq!(
            (maps[2].path.to_str(), maps[2].deleted),
            (Some("/memfd:jit"), true)
        );
    }

    #[test]
    fn maps_cut_at_any_byte_give_no_more_than_the_whole() {
        let whole = parse_maps(MAPS.as_bytes());
        for len in 0..=MAPS.len() {
            let cut = parse_maps(&MAPS.as_bytes()[..len]);
            assert!(cut.len() <= whole.len(), "at {len}");
            // Only the last mapping may differ: its path may be cut.
            for (a, b) in cut.iter().zip(&whole).take(cut.len().saturating_sub(1)) {
                assert_eq!(a, b, "at {len}");
            }
        }
        assert!(parse_maps(b"zz-1 r-xp 0 0:0 1 /x\n\xff\xfe\n-\n1-2 r-xp 0 1:1 1 \n").is_empty());
    }

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let stat = b"42 (a) S 1 (b)) S 7 42 42 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 987 0 0";
        let process = parse_stat(stat).unwrap();
        assert_eq!(
            (process.pid, process.ppid, process.start_time),
            (42, 7, 987)
        );
        assert_eq!(process.comm, "a) S 1 (b)");
        assert!(process.is_kernel_thread);
        for len in 0..stat.len() - 6 {
            assert_eq!(parse_stat(&stat[..len]), None, "at {len}");
        }
    }

    #[test]
    fn the_user_is_the_effective_one() {
        assert_eq!(
            parse_effective_uid(b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\n"),
            Some(2)
        );
        assert_eq!(parse_effective_uid(b"Uid:\t1\n"), None);
    }

    #[test]
    fn a_process_tree_is_read_from_any_root() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("42");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(root.path().join("self")).unwrap();
        let stat = "42 (x) S 7 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 987 0 0";
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("status"), "Uid:\t0\t33\t0\t0\n").unwrap();
        fs::write(dir.join("comm"), "x\n").unwrap();
        fs::write(dir.join("cmdline"), b"x\0-a b\0\0").unwrap();
        fs::write(dir.join("cgroup"), "1:name=systemd:/y\n0::/user.slice\n").unwrap();
        fs::write(dir.join("maps"), MAPS).unwrap();
        symlink("/usr/bin/x (deleted)", dir.join("exe")).unwrap();
        let proc = ProcFs::new(root.path());
        assert_eq!(proc.pids().unwrap(), [42]);
        assert_eq!(proc.process(42).unwrap().uid, 33);
        assert_eq!(proc.comm(42).unwrap(), "x");
        assert_eq!(proc.exe(42).unwrap(), Path::new("/usr/bin/x"));
        assert_eq!(proc.cmdline(42).unwrap(), ["x", "-a b", ""]);
        assert_eq!(proc.cgroup(42).unwrap().as_deref(), Some("/user.slice"));
        assert_eq!(proc.exec_mappings(42).unwrap().len(), 3);
        assert_eq!(proc.children(7).unwrap(), [42]);
        assert!(proc.exists(42) && !proc.exists(43));
        let error = format!("{:#}", proc.process(43).unwrap_err());
        assert!(error.contains("/43/stat"), "{error}");
    }

    /// A fake process with one mapping of `file`, and where its path leads.
    fn fake(root: &Path, file: &Path, at: &str) -> (ProcFs, Mapping) {
        let dir = root.join("42/root");
        fs::create_dir_all(&dir).unwrap();
        let id = FileId {
            dev: 1,
            ino: file.metadata().unwrap().ino(),
        };
        let (path, deleted) = (PathBuf::from(at), false);
        (
            ProcFs::new(root),
            Mapping {
                start: 16,
                end: 32,
                offset: 0,
                id,
                path,
                deleted,
            },
        )
    }

    #[test]
    fn a_mapping_is_opened_by_its_path_only_while_that_is_the_same_file() {
        let root = tempfile::tempdir().unwrap();
        let mapped = root.path().join("mapped");
        fs::write(&mapped, "old").unwrap();
        let (proc, mapping) = fake(root.path(), &mapped, "/lib.so");
        let there = root.path().join("42/root/lib.so");
        fs::hard_link(&mapped, &there).unwrap();
        let mut text = String::new();
        proc.open_mapping(42, &mapping)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "old");
        fs::remove_file(&there).unwrap();
        fs::write(&there, "new").unwrap();
        let error = format!("{:#}", proc.open_mapping(42, &mapping).unwrap_err());
        assert!(error.contains("is there now"), "{error}");
        // The same file under map_files is what it was.
        let links = root.path().join("42/map_files");
        fs::create_dir(&links).unwrap();
        symlink(&mapped, links.join("10-20")).unwrap();
        assert!(proc.open_mapping(42, &mapping).is_ok());
    }

    #[test]
    fn a_fifo_in_place_of_a_library_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let (proc, mapping) = fake(root.path(), root.path(), "/fifo");
        let fifo = root.path().join("42/root/fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = format!("{:#}", proc.open_mapping(42, &mapping).unwrap_err());
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn our_own_mappings_lead_to_our_own_executable() {
        let proc = ProcFs::default();
        let pid = std::process::id();
        let exe = proc.exe(pid).unwrap();
        let maps = proc.exec_mappings(pid).unwrap();
        let own = maps.iter().find(|m| m.path == exe).unwrap();
        let expected = fs::metadata(&exe).unwrap();
        assert_eq!(own.id.ino, expected.ino());
        let opened = proc.open_mapping(pid, own).unwrap();
        assert_eq!(opened.metadata().unwrap().ino(), expected.ino());
        assert_eq!(
            proc.open_exe(pid).unwrap().metadata().unwrap().ino(),
            expected.ino()
        );
        let process = proc.process(pid).unwrap();
        assert!(!process.is_kernel_thread && process.ppid != 0);
    }

    #[tag(root)]
    #[test]
    fn a_deleted_library_is_opened_through_its_mapping() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("sleep copy");
        fs::copy("/bin/sleep", &copy).unwrap();
        let ino = fs::metadata(&copy).unwrap().ino();
        let mut child = std::process::Command::new(&copy).arg("20").spawn().unwrap();
        fs::remove_file(&copy).unwrap();
        let proc = ProcFs::default();
        // spawn returns when exec can no longer fail, which is before it maps the file
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mapping = loop {
            let maps = proc.exec_mappings(child.id()).unwrap();
            if let Some(mapping) = maps.into_iter().find(|m| m.path == copy) {
                break mapping;
            }
            assert!(std::time::Instant::now() < deadline, "never mapped");
        };
        let mapping = &mapping;
        let opened = proc.open_mapping(child.id(), mapping);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(mapping.deleted);
        assert_eq!(opened.unwrap().metadata().unwrap().ino(), ino);
        assert!(!proc.exists(child.id()));
    }
}
