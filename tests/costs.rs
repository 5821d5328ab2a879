//! What an event costs, in instructions: of the BPF programs, and of user space under callgrind.
//!
//! Compared with what `bench/budgets` has recorded, since a wall clock would measure the machine.
//! `BLESS=1 cargo test --test costs` records anew. What the verifiers of other kernels look at is in
//! `bench/verifier`, and scripts/kernel-matrix has them compared (`LAB_BUDGETS` names a file there,
//! `LAB_COMPILER` what has compiled the programs).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use test_tag::tag;
use tlssniff::bpf::{Bpf, Options};

/// Compilers and kernels differ by less.
const MARGIN_PERCENT: u64 = 15;

/// By what it is the cost of, in words.
type Costs = BTreeMap<String, u64>;

/// Both tests write the file when they bless.
static BUDGETS: Mutex<()> = Mutex::new(());

fn budgets_path() -> PathBuf {
    match std::env::var_os("LAB_BUDGETS") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/budgets"),
    }
}

fn read_budgets() -> Costs {
    let text = std::fs::read_to_string(budgets_path()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (what, cost) = line.rsplit_once(' ').expect("WHAT COST");
            (what.to_owned(), cost.parse().expect("a number"))
        })
        .collect()
}

fn bless(costs: &Costs, kind: &str) {
    let mut all = read_budgets();
    all.retain(|what, _| !what.starts_with(kind));
    all.extend(costs.clone());
    let by = match std::env::var_os("LAB_BUDGETS") {
        Some(_) => "scripts/kernel-matrix",
        None => "cargo test --test costs",
    };
    let mut text = format!("# Instructions, as recorded by BLESS=1 {by}.\n");
    for (what, cost) in all {
        text.push_str(&format!("{what} {cost}\n"));
    }
    std::fs::write(budgets_path(), text).unwrap();
}

/// Each cost must have its budget, and keep to it.
fn compare(costs: &Costs, kind: &str) {
    let _one_at_a_time = BUDGETS.lock().unwrap();
    if std::env::var_os("BLESS").is_some() {
        return bless(costs, kind);
    }
    let mut budgets = read_budgets();
    budgets.retain(|what, _| what.starts_with(kind));
    let mut wrong = Vec::new();
    for (what, cost) in costs {
        match budgets.remove(what) {
            Some(budget) if *cost * 100 <= budget * (100 + MARGIN_PERCENT) => {}
            Some(budget) => wrong.push(format!("{what}: {cost}, recorded {budget}")),
            None => wrong.push(format!("{what}: {cost}, nothing recorded")),
        }
    }
    wrong.extend(
        budgets
            .into_keys()
            .map(|what| format!("{what}: is no more")),
    );
    assert!(
        wrong.is_empty(),
        "costs have changed (if that is meant, record them with BLESS=1):\n{}",
        wrong.join("\n")
    );
}

#[tag(root)]
#[test]
fn bpf_programs_keep_to_their_budget() {
    let bpf = Bpf::load(&Options {
        ring_bytes: 1 << 20,
        ..Options::default()
    })
    .unwrap();
    let mut costs = Costs::new();
    for program in bpf.program_sizes().unwrap() {
        costs.insert(format!("bpf length {}", program.name), program.length);
        costs.insert(format!("bpf verified {}", program.name), program.verified);
    }
    if !costs.contains_key("bpf length tls_call") {
        eprintln!("SKIPPED: other programs were recorded, of a kernel that has session probes");
        return;
    }
    compare(&costs, "bpf");
}

#[tag(root)]
#[test]
fn verifiers_of_the_matrix_look_at_no_more_than_is_recorded() {
    let Ok(compiler) = std::env::var("LAB_COMPILER") else {
        eprintln!("NOT RUN: verifiers of other kernels (scripts/kernel-matrix has them)");
        return;
    };
    let bpf = Bpf::load(&Options {
        ring_bytes: 1 << 20,
        follow: true,
        ..Options::default()
    })
    .unwrap();
    // Loads those too that only some targets need.
    let programs = bpf.program_sizes().unwrap();
    println!("{compiler}: {} programs load", programs.len());
    let verified: u64 = programs.iter().map(|program| program.verified).sum();
    if verified == 0 {
        println!("{compiler}: before Linux 5.16 no kernel says what its verifier has looked at");
        return;
    }
    println!("{compiler}: {verified} instructions looked at");
    let costs = programs
        .iter()
        .map(|program| (format!("{compiler} {}", program.name), program.verified))
        .collect();
    compare(&costs, &compiler);
}

/// Instructions of `bench/count.rs` in all.
fn callgrind(sink: &str, size: u32, calls: u64) -> u64 {
    let count = Path::new(env!("CARGO_BIN_EXE_tlssniff"))
        .with_file_name("examples")
        .join("count");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(&count)
        .args([sink, &size.to_string(), &calls.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    collected
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("{} (cargo build --example count): {said}", count.display()))
}

#[test]
fn user_space_keeps_to_its_budget_per_event() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("SKIPPED: valgrind is not installed, so no instructions are counted");
        return;
    }
    let (few, many) = (500, 2500);
    let mut costs = Costs::new();
    for sink in ["pcapng", "text", "json", "http1", "http2"] {
        for size in [256, 16 * 1024] {
            // What starting costs is in both.
            let spent = callgrind(sink, size, many) - callgrind(sink, size, few);
            costs.insert(format!("user {sink} {size}"), spent / (many - few));
        }
    }
    compare(&costs, "user");
}
