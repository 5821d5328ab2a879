//! Groups of processes: cgroups of the unified (version 2) hierarchy, and the containers they hold.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Where distributions mount the hierarchy: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The inode of the root of every kernfs, and so of a hierarchy that is seen from its top.
const ROOT_INO: u64 = 1;
/// A container's directory lies deeper than this on no system that is known.
const DEEPEST: u32 = 12;
/// More cgroups than a machine has; a strange mount must not hold up the start.
const MOST: usize = 100_000;
/// Container runtimes print this much of an id, which has 64 digits.
const SHORT_ID: usize = 12;
/// Fewer digits would name a container by chance.
const LEAST_ID: usize = 3;

/// One cgroup; its descendants belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// As /proc/PID/cgroup has it: `/system.slice/nginx.service`.
    pub path: PathBuf,
    /// What the kernel calls it: the inode number of its directory.
    pub id: u64,
    /// How deep it lies below the root, which is 0.
    pub level: u32,
}

impl Cgroup {
    /// Whether a process with this path in /proc/PID/cgroup belongs to it.
    pub fn holds(&self, path: &str) -> bool {
        Path::new(path).starts_with(&self.path)
    }
}

/// The cgroup at a path: below the hierarchy's root, or below its mount point.
///
/// # Errors
/// There is no such cgroup, or the hierarchy cannot be seen from its top.
pub fn at(path: &Path) -> Result<Cgroup> {
    let root = hierarchy(&MOUNTS)?;
    at_below(&root, path)
}

/// The cgroup of the container whose id begins so, or whose name this is where the runtime names
/// the cgroup by it (LXC, systemd-nspawn).
///
/// # Errors
/// None or several are named so, or the hierarchy cannot be seen from its top.
pub fn of_container(id: &str) -> Result<Cgroup> {
    let root = hierarchy(&MOUNTS)?;
    of_container_below(&root, id)
}

/// The short id of the container that a path of /proc/PID/cgroup lies in, the innermost one.
pub fn container_of(path: &str) -> Option<String> {
    let names = path.rsplit('/');
    let id = names.map(container_name).find(|name| is_id(name))?;
    id.get(..SHORT_ID).map(str::to_owned)
}

/// The short id of the container that the cgroup with this number lies in, as long as the cgroup is
/// there. Where the top of the hierarchy cannot be seen, nothing is known.
pub fn container_with(id: u64) -> Option<String> {
    let root = hierarchy(&MOUNTS).ok()?;
    container_with_below(&root, id)
}

fn hierarchy(mounts: &[&str]) -> Result<PathBuf> {
    let root = mounts
        .iter()
        .map(PathBuf::from)
        .find(|mount| mount.join("cgroup.controllers").is_file())
        .context(
            "find the cgroups: no hierarchy of version 2 is mounted at /sys/fs/cgroup; \
             give the processes with -p",
        )?;
    let ino = fs::metadata(&root)
        .with_context(|| format!("look at {}", root.display()))?
        .ino();
    if ino != ROOT_INO {
        bail!(
            "{} shows only a part of the cgroups; run tlssniff outside of the container, or in one \
             with the host's cgroup namespace (docker run --cgroupns=host)",
            root.display()
        );
    }
    Ok(root)
}

fn at_below(root: &Path, path: &Path) -> Result<Cgroup> {
    let relative = path
        .strip_prefix(root)
        .or_else(|_| path.strip_prefix("/"))
        .unwrap_or(path);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let dir = root.join(relative);
    if !plain || !dir.join("cgroup.procs").exists() {
        bail!(
            "there is no cgroup {} in {}; `cat /proc/PID/cgroup` names that of a process",
            path.display(),
            root.display()
        );
    }
    let meta = fs::metadata(&dir).with_context(|| format!("look at {}", dir.display()))?;
    Ok(Cgroup {
        path: Path::new("/").join(relative),
        id: meta.ino(),
        level: u32::try_from(relative.components().count()).context("count the path's parts")?,
    })
}

fn of_container_below(root: &Path, id: &str) -> Result<Cgroup> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for dir in directories(root) {
        let Some(name) = dir.file_name().and_then(OsStr::to_str) else {
            continue;
        };
        let name = container_name(name);
        let is_meant = name == id || (is_id(name) && id.len() >= LEAST_ID && name.starts_with(id));
        // What runs inside may have cgroups of its own that are named alike.
        if is_meant && !found.iter().any(|outer| dir.starts_with(outer)) {
            found.push(dir);
        } else if is_id(name) {
            known.extend(name.get(..SHORT_ID).map(str::to_owned));
        }
    }
    match found.as_slice() {
        [dir] => at_below(root, dir),
        [] => {
            known.sort();
            known.dedup();
            let others = match known.as_slice() {
                [] => "no containers are running".to_owned(),
                known => format!("running: {}", known.join(", ")),
            };
            bail!(
                "there is no container {id} ({others}); names are told by \
                 `docker ps` or `crictl ps`, and --cgroup takes any cgroup"
            );
        }
        several => bail!(
            "{} containers are meant by {id}; give more of the id",
            several.len()
        ),
    }
}

fn container_with_below(root: &Path, id: u64) -> Option<String> {
    let is_meant = |dir: &PathBuf| fs::metadata(dir).is_ok_and(|meta| meta.ino() == id);
    let dir = directories(root).into_iter().find(is_meant)?;
    container_of(dir.strip_prefix(root).ok()?.to_str()?)
}

/// All directories below `root`, each before those in it.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut level = vec![root.to_path_buf()];
    for _ in 0..DEEPEST {
        let mut next: Vec<PathBuf> = level
            .iter()
            .flat_map(fs::read_dir)
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        next.truncate(MOST.saturating_sub(all.len()));
        all.extend(next.iter().cloned());
        level = next;
    }
    all
}

/// What a runtime's name of a cgroup says of the container: `docker-ID.scope`, `crio-ID.scope`,
/// `cri-containerd-ID.scope`, `libpod-ID.scope`, `ID` (cgroupfs driver), `lxc.payload.NAME`,
/// `machine-NAME.scope`.
fn container_name(cgroup: &str) -> &str {
    let name = cgroup.strip_suffix(".scope").unwrap_or(cgroup);
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return name;
    }
    if let Some(name) = name.strip_prefix("machine-") {
        return name;
    }
    match name.rsplit_once(['-', ':']) {
        Some((_, id)) if is_id(id) => id,
        _ => name,
    }
}

/// 64 hexadecimal digits: the id of a container of Docker, containerd, CRI-O or Podman.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const TWO: &str = "0123999999abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn machine(groups: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for group in groups {
            let dir = root.path().join(group);
            fs::create_dir_all(&dir).expect("create");
            for part in dir.ancestors().take_while(|part| *part != root.path()) {
                fs::write(part.join("cgroup.procs"), "").expect("write");
            }
        }
        root
    }

    #[test]
    fn the_container_of_a_process_is_told_by_each_runtime_s_name() {
        for path in [
            format!("/system.slice/docker-{ONE}.scope"),
            format!("/docker/{ONE}"),
            format!("/docker/{ONE}/init.scope"),
            format!("/kubepods.slice/kubepods-pod7.slice/cri-containerd-{ONE}.scope"),
            format!("/kubepods.slice/kubepods-pod7.slice/crio-{ONE}.scope"),
            format!("/kubepods/besteffort/pod7/{ONE}"),
            format!("/machine.slice/libpod-{ONE}.scope/container"),
            format!("/system.slice/containerd.service/kubepods-pod7.slice:cri-containerd:{ONE}"),
        ] {
            assert_eq!(
                container_of(&path).as_deref(),
                Some("0123456789ab"),
                "{path}"
            );
        }
        for path in ["/", "/user.slice", "/docker/0123456789ab", "", "/a-\u{e9}"] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id() {
        let one = format!("system.slice/docker-{ONE}.scope");
        let root = machine(&[&one, &format!("docker/{TWO}/inner"), "lxc.payload.web"]);
        let find = |id: &str| of_container_below(root.path(), id);
        let found = find("01234").expect("one");
        assert_eq!(found.path, Path::new("/").join(&one));
        assert_eq!(found.level, 2);
        let ino = fs::metadata(root.path().join(&one)).expect("there").ino();
        assert_eq!(found.id, ino);
        assert!(found.holds(&format!("/{one}")) && found.holds(&format!("/{one}/x")));
        assert!(!found.holds("/system.slice"));
        assert_eq!(find(ONE).expect("one"), found);
        assert_eq!(find("web").expect("lxc").level, 1);
        let several = find("0123").expect_err("two").to_string();
        assert!(several.starts_with("2 containers"), "{several}");
        let none = find("77").expect_err("none").to_string();
        assert!(none.contains("running: 0123456789ab, 012399999"), "{none}");
        assert!(find("01").is_err());
    }

    #[test]
    fn the_container_of_a_process_that_is_gone_is_told_by_the_number_of_its_cgroup() {
        let inner = format!("docker/{ONE}/init");
        let root = machine(&[&inner, "system.slice"]);
        let container = |path: &str| {
            let ino = fs::metadata(root.path().join(path)).expect("there").ino();
            container_with_below(root.path(), ino)
        };
        assert_eq!(container(&inner).as_deref(), Some("0123456789ab"));
        assert_eq!(container("system.slice"), None);
        assert_eq!(container_with_below(root.path(), 0), None);
    }

    #[test]
    fn a_cgroup_is_found_by_its_path_with_or_without_the_mount_point() {
        let root = machine(&["system.slice/nginx.service"]);
        let whole = root.path().join("system.slice/nginx.service");
        let ways = [
            Path::new("/system.slice/nginx.service"),
            Path::new("system.slice/nginx.service"),
            &whole,
        ];
        for way in ways {
            let found = at_below(root.path(), way).expect("found");
            assert_eq!(found.path, Path::new("/system.slice/nginx.service"));
            assert_eq!(found.level, 2);
        }
        for wrong in ["/system.slice/apache.service", "/../etc", "a/./b"] {
            assert!(at_below(root.path(), Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
