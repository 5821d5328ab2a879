//! Where processes live: containers, cgroups, pid namespaces, file systems laid over one another.

mod lab;

use lab::{Capture, Checks, LIMIT, Running, Sniff, Truth, oracle};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_tag::tag;

/// A cgroup of this test, removed at its end.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `path` may lead through cgroups that are new as well.
    fn new(path: &str) -> Cgroup {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let root = mounts
            .iter()
            .map(Path::new)
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("a cgroup hierarchy of version 2");
        let group = root.join(path);
        fs::create_dir_all(&group).unwrap();
        Cgroup(group)
    }

    /// The shell's words that put it into the cgroup.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in self.0.ancestors().take(2) {
            // The parent may be somebody else's.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// `odd plain` to its end; what it says of itself is its standard output.
fn run_odd(command: &mut Command, dir: &Path) -> Running {
    let mut odd = Running::start(command, dir);
    odd.wait_success(LIMIT);
    odd
}

fn books(odd: &Running) -> Vec<Truth> {
    Truth::parse_all(&odd.stdout_text())
}

#[tag(root)]
#[test]
fn only_processes_of_the_container_are_captured_and_known_by_both_numbers() {
    if !lab::can_capture("only_processes_of_the_container_are_captured_and_known_by_both_numbers") {
        return;
    }
    let dir = lab::new_dir();
    let comm = lab::unique_comm("ctr");
    let program = lab::renamed(lab::odd(), dir.path(), &comm);
    let id = format!("{:064x}", u64::from(std::process::id()) << 32 | 0xc0);
    let id: String = id.chars().rev().collect();
    let group = Cgroup::new(&format!("tlssniff-test-{comm}.slice/docker-{id}.scope"));
    let sniff = Sniff::start(dir.path(), &["--container", &id[..20]]);
    let program = program.display();
    let inside = format!(
        "{} && exec unshare -pf --mount-proc {program} plain",
        group.enter()
    );
    let inside = run_odd(&mut shell(&inside), dir.path());
    run_odd(&mut shell(&format!("exec {program} plain")), dir.path());
    let capture = sniff.stop();
    capture.assert_complete();
    let seen = capture.of_comm(&comm);
    let truths = books(&inside);
    let pids: Vec<u32> = truths.iter().map(|truth| truth.pid).collect();
    assert!(
        pids.iter().all(|pid| *pid == 1),
        "no pid namespace: {pids:?}"
    );
    assert_eq!(
        seen.len(),
        truths.len(),
        "connections of the container alone"
    );
    for line in capture.lines_of("data") {
        assert_eq!(line["proc"]["own_pid"], 1, "{line}");
        assert_eq!(line["proc"]["container"], id[..12], "{line}");
        assert_ne!(line["proc"]["pid"], 1, "{line}");
    }
    let sent: u64 = truths.iter().map(|truth| truth.out.0).sum();
    assert_eq!(seen.iter().map(|conn| conn.out.len()).sum::<u64>(), sent);
}

#[tag(root)]
#[test]
fn processes_of_a_cgroup_below_the_given_one_are_captured() {
    if !lab::can_capture("processes_of_a_cgroup_below_the_given_one_are_captured") {
        return;
    }
    let dir = lab::new_dir();
    let name = format!("tlssniff-test-{}", lab::unique_comm("cgr"));
    let group = Cgroup::new(&format!("{name}/below"));
    let sniff = Sniff::start(dir.path(), &["--cgroup", &format!("/{name}")]);
    let script = format!("{} && exec {} plain", group.enter(), lab::odd().display());
    let inside = run_odd(&mut shell(&script), dir.path());
    let outside = run_odd(Command::new(lab::odd()).arg("plain"), dir.path());
    let capture = sniff.stop();
    oracle::assert_equal(&capture, &books(&inside), Checks::default());
    for truth in books(&outside) {
        assert!(capture.of(truth.pid).is_empty(), "{truth:?}");
    }
}

#[tag(root)]
#[test]
fn a_capture_in_a_pid_namespace_uses_the_numbers_of_that_namespace() {
    if !lab::can_capture("a_capture_in_a_pid_namespace_uses_the_numbers_of_that_namespace") {
        return;
    }
    let dir = lab::new_dir();
    let json = dir.path().join("inside.json");
    let script = format!(
        "{} --json --raw -o {} -f -- sh -c '{odd} plain; {odd} plain'",
        lab::tlssniff().display(),
        json.display(),
        odd = lab::odd().display(),
    );
    let mut command = Command::new("unshare");
    command.args(["-pf", "--mount-proc", "sh", "-c", &script]);
    let inside = run_odd(command.env_remove("SUDO_USER"), dir.path());
    let truths = books(&inside);
    assert!(truths.iter().all(|truth| truth.pid < 100), "{truths:?}");
    oracle::assert_equal(&Capture::read(&json), &truths, Checks::default());
}

/// Two containers of one image map the same file, and stat(2) gives it two numbers.
#[tag(root)]
#[test]
fn a_library_seen_through_two_overlays_is_captured_once() {
    if !lab::can_capture("a_library_seen_through_two_overlays_is_captured_once") {
        return;
    }
    let dir = lab::new_dir();
    let at = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let layer = at("layer");
    fs::copy(lab::system_libssl(), layer.join("libssl.so.3")).unwrap();
    let start = |n: u32| {
        let [upper, work, merged] =
            ["upper", "work", "merged"].map(|name| at(&format!("{name}{n}")));
        let script = format!(
            "mount -t overlay -o lowerdir={},upperdir={},workdir={} overlay {merged} && \
             LD_LIBRARY_PATH={merged} exec {} plain",
            layer.display(),
            upper.display(),
            work.display(),
            lab::odd().display(),
            merged = merged.display(),
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
        let mut odd = Running::start(command.env("ODD_GATE", "start"), dir.path());
        odd.wait_line(LIMIT, |line| line == "ready");
        odd
    };
    let mut both = [start(1), start(2)];
    let sniff = Sniff::start(dir.path(), &["--comm", "odd*"]);
    let mut truths = Vec::new();
    for odd in &mut both {
        odd.go();
        odd.wait_success(LIMIT);
        truths.extend(books(odd));
    }
    oracle::assert_equal(&sniff.stop(), &truths, Checks::default());
}
