//! The house rules that a machine can check: one direction of data, sizes, where `unsafe` may be.

use std::path::Path;

/// The stages from left to right. A module may use those of its own rank and of lower ones.
/// `event` is what flows, so everybody knows it, and the small modules beside it know nobody.
const STAGES: &[(&str, u32)] = &[
    ("event", 0),
    ("time", 0),
    ("privilege", 0),
    ("discovery", 1),
    // Starts the command, whose file discovery finds.
    ("child", 2),
    ("plan", 2),
    ("attach", 3),
    ("bpf", 3),
    ("ring", 3),
    ("flow", 4),
    ("proto", 5),
    // Stands before proto, but uses its parsers.
    ("redact", 6),
    ("filter", 6),
    ("sink", 7),
    // Reads what sink::pcapng wrote, so it shares the facts of that format.
    ("readback", 8),
    // Is a sink that answers: to it, those that write files are tools.
    ("tui", 8),
    // The command line names options of every stage; `run` joins the stages.
    ("cli", 9),
    ("config", 9),
    ("extcap", 9),
    ("generate", 9),
    ("run", 10),
    ("main", 10),
    ("lib", 10),
];

const MAY_BE_UNSAFE: &[&str] = &[
    "bpf.rs",
    "bpf/syscall.rs",
    "child.rs",
    "discovery/mod.rs",
    "discovery/watch.rs",
    "privilege.rs",
    "ring.rs",
    "time.rs",
];

const MAX_LINES: usize = 600;
const MAX_LINES_OF_MAIN: usize = 60;

/// Every source file: its path below src/ and its text.
fn sources() -> Vec<(String, String)> {
    fn collect(dir: &Path, below: &str, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{below}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                collect(&path, &format!("{name}/"), found);
            } else if name.ends_with(".rs") {
                found.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    collect(&src, "", &mut found);
    assert!(found.len() > 20, "only {} source files found", found.len());
    found
}

/// The part that ships: tests may know everybody and be long.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test(path: &str) -> bool {
    path.ends_with("_test.rs") || path.ends_with("tests.rs")
}

fn rank(module: &str) -> u32 {
    let stage = STAGES.iter().find(|(name, _)| *name == module);
    stage
        .unwrap_or_else(|| panic!("{module} is a new module: give it a place in STAGES"))
        .1
}

/// The top-level modules named after `crate::`, alone or in braces.
fn used_modules(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut modules = Vec::new();
    for part in code.split("crate::").skip(1) {
        let Some(list) = part.strip_prefix('{') else {
            modules.push(first_word(part));
            continue;
        };
        let mut depth = 1;
        let mut name_is_next = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => name_is_next = depth == 1,
                c if name_is_next && c.is_ascii_alphabetic() => {
                    modules.push(first_word(&list[at..]));
                    name_is_next = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn data_flows_from_discovery_to_the_sinks_and_never_back() {
    for (path, text) in sources() {
        let module = path.split(['/', '.']).next().unwrap();
        if is_test(&path) {
            continue;
        }
        for used in used_modules(without_tests(&text)) {
            assert!(
                rank(&used) <= rank(module),
                "src/{path} uses crate::{used}, which is to its right"
            );
        }
    }
}

#[test]
fn stages_are_found_in_every_spelling_of_use() {
    let found = |code: &str| used_modules(code);
    assert_eq!(found("use crate::sink::text;"), ["sink"]);
    assert_eq!(
        found("use crate::{\n  event::{Dir, Event}, sink::text, run};"),
        ["event", "sink", "run"]
    );
    assert_eq!(found("let x = crate::flow::new();"), ["flow"]);
    assert_eq!(found("/// See [`crate::run`].").len(), 0);
}

#[test]
fn main_decides_nothing() {
    let (_, text) = sources()
        .into_iter()
        .find(|(path, _)| path == "main.rs")
        .unwrap();
    let lines = text.lines().count();
    assert!(lines <= MAX_LINES_OF_MAIN, "main.rs has {lines} lines");
}

#[test]
fn every_file_says_its_job_first_and_is_short() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//! "),
            "src/{path} does not begin with //!"
        );
        let lines = without_tests(&text).lines().count();
        assert!(
            lines <= MAX_LINES || is_test(&path),
            "src/{path} has {lines} lines without its tests"
        );
    }
}

#[test]
fn unsafe_stays_where_it_is_allowed_and_gives_its_reason() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form));
            if !is_unsafe {
                continue;
            }
            assert!(
                MAY_BE_UNSAFE.contains(&path.as_str()),
                "src/{path}:{}: unsafe is not allowed here",
                at + 1
            );
            let near = &lines[at.saturating_sub(6)..=at];
            assert!(
                near.iter()
                    .any(|l| l.contains("SAFETY:") || l.contains("# Safety")),
                "src/{path}:{}: unsafe without // SAFETY:",
                at + 1
            );
        }
    }
}
