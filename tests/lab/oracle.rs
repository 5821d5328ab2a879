//! What a program says it did, and the comparison with what was captured.

use super::{Capture, Conn, capture::crc32};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// One end of one connection, from the program that owned it.
#[derive(Debug, Clone)]
pub struct Truth {
    pub name: String,
    pub pid: u32,
    pub role: String,
    /// `tcp`, `unix`, `pipe`, `tls`; `mem`: the program moved the records itself.
    pub transport: String,
    pub local: String,
    pub remote: String,
    pub version: String,
    pub sni: String,
    pub alpn: String,
    /// Length and CRC-32 of everything passed, by direction.
    pub out: (u64, u32),
    pub input: (u64, u32),
    pub retries: u64,
    /// Of Go: the goroutine that made all calls, where one did.
    pub goid: Option<u64>,
}

/// What a comparison may not ask for.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// Role, version, SNI and ALPN must be told.
    pub facts: bool,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { facts: true }
    }
}

impl Truth {
    /// The lines of a program's output that are books; others are passed over.
    pub fn parse_all(text: &str) -> Vec<Truth> {
        text.lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| {
                let value: Value = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("books: {error}: {line}"));
                Truth::parse(&value)
            })
            .collect()
    }

    fn parse(value: &Value) -> Truth {
        let text = |name: &str| value[name].as_str().expect(name).to_owned();
        let sum = |name: &str| {
            let crc = value[name]["crc"].as_u64().expect("crc");
            (
                value[name]["len"].as_u64().expect("len"),
                u32::try_from(crc).expect("crc"),
            )
        };
        Truth {
            name: text("name"),
            pid: u32::try_from(value["pid"].as_u64().expect("pid")).expect("pid"),
            role: text("role"),
            transport: text("transport"),
            local: text("local"),
            remote: text("remote"),
            version: text("version"),
            sni: text("sni"),
            alpn: text("alpn"),
            out: sum("out"),
            input: sum("in"),
            retries: value["retries"].as_u64().unwrap_or(0),
            goid: value["goid"].as_u64(),
        }
    }

    fn is_equal(&self, conn: &Conn) -> bool {
        self.pid == conn.pid
            && self.out == (conn.out.len(), conn.out.crc())
            && self.input == (conn.input.len(), conn.input.crc())
    }

    /// What the capture says wrongly or not at all about this connection.
    fn wrong_facts(&self, conn: &Conn, checks: Checks) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, told: &Option<String>, truth: &str, required: bool| {
            let told = told.as_deref();
            let expected = (!truth.is_empty()).then_some(truth);
            if told != expected && (required || told.is_some()) {
                wrong.push(format!("{what} is {expected:?}, told {told:?}"));
            }
        };
        let is_tcp = self.transport == "tcp";
        compare("local", &conn.local, &self.local, is_tcp);
        compare("remote", &conn.remote, &self.remote, is_tcp);
        compare("role", &conn.role, &self.role, checks.facts);
        compare("version", &conn.version, &self.version, checks.facts);
        compare("sni", &conn.sni, &self.sni, checks.facts);
        compare("alpn", &conn.alpn, &self.alpn, checks.facts);
        match self.transport.as_str() {
            // shown by its addresses; memory: whatever became known without being wrong
            "tcp" | "mem" => {}
            other => compare("transport", &conn.transport, other, true),
        }
        wrong
    }
}

/// Fails unless the capture holds each of these connections byte for byte, with the right facts,
/// and no others of the same processes.
pub fn assert_equal(capture: &Capture, truths: &[Truth], checks: Checks) {
    assert!(!truths.is_empty(), "the program kept no books");
    let mut report = String::new();
    let mut used = BTreeSet::new();
    let mut by_sum: BTreeMap<_, Vec<&Conn>> = BTreeMap::new();
    for conn in capture.conns.values() {
        by_sum
            .entry((conn.pid, conn.out.len(), conn.input.len()))
            .or_default()
            .push(conn);
    }
    for truth in truths
        .iter()
        .filter(|truth| truth.out.0 + truth.input.0 > 0)
    {
        let candidates: Vec<&Conn> = by_sum
            .get(&(truth.pid, truth.out.0, truth.input.0))
            .into_iter()
            .flatten()
            .filter(|conn| !used.contains(&conn.id) && truth.is_equal(conn))
            .copied()
            .collect();
        let best = candidates
            .iter()
            .min_by_key(|conn| truth.wrong_facts(conn, checks).len());
        match best {
            Some(conn) => {
                used.insert(conn.id);
                for wrong in truth.wrong_facts(conn, checks) {
                    let _ = writeln!(
                        report,
                        "  {} {} = #{}: {wrong}",
                        truth.name, truth.role, conn.id
                    );
                }
                if conn.out.lost() + conn.input.lost() > 0 {
                    let _ = writeln!(report, "  #{} tells gaps that hold zeros", conn.id);
                }
            }
            None => report += &missing(capture, truth),
        }
    }
    let pids: BTreeSet<u32> = truths.iter().map(|truth| truth.pid).collect();
    for conn in capture
        .conns
        .values()
        .filter(|conn| pids.contains(&conn.pid))
    {
        if !used.contains(&conn.id) && conn.out.len() + conn.input.len() > 0 {
            let _ = writeln!(report, "  not in the books: {}", describe(conn));
        }
    }
    if !report.is_empty() {
        let shown: Vec<&str> = report.lines().take(30).collect();
        panic!(
            "the capture differs from the books ({} lines):\n{}\n  {:?}",
            report.lines().count(),
            shown.join("\n"),
            capture.stats
        );
    }
}

fn missing(capture: &Capture, truth: &Truth) -> String {
    let mut text = format!(
        "  nothing equals {} {}[{}] {}>{}: out {:?}, in {:?}; nearest:\n",
        truth.name, truth.role, truth.pid, truth.local, truth.remote, truth.out, truth.input
    );
    let mut near: Vec<&Conn> = capture.of(truth.pid);
    near.sort_by_key(|conn| {
        let same_address = conn.local.as_deref() == Some(truth.local.as_str())
            && conn.remote.as_deref() == Some(truth.remote.as_str());
        let distance =
            conn.out.len().abs_diff(truth.out.0) + conn.input.len().abs_diff(truth.input.0);
        (!same_address, distance)
    });
    for conn in near.iter().take(2) {
        let _ = writeln!(text, "    {}", describe(conn));
        if conn.out.len() == truth.out.0 && conn.out.crc() != truth.out.1 {
            let _ = writeln!(
                text,
                "    out has the length but not the bytes: {}",
                first_break(&conn.out.bytes)
            );
        }
        if conn.input.len() == truth.input.0 && conn.input.crc() != truth.input.1 {
            let _ = writeln!(
                text,
                "    in has the length but not the bytes: {}",
                first_break(&conn.input.bytes)
            );
        }
    }
    text
}

fn describe(conn: &Conn) -> String {
    format!(
        "#{} {}[{}] {} {} out {} ({} lines, gaps {:?}) in {} ({} lines, gaps {:?})",
        conn.id,
        conn.comm,
        conn.pid,
        conn.role.as_deref().unwrap_or("?"),
        conn.addresses(),
        conn.out.len(),
        conn.out.events,
        conn.out.gaps,
        conn.input.len(),
        conn.input.events,
        conn.input.gaps
    )
}

/// Where a stream of `odd` stops saying its own offset: records of 32 bytes, the offset in hex at
/// byte 15 of each.
fn first_break(bytes: &[u8]) -> String {
    for (at, record) in (0..).step_by(32).zip(bytes.chunks_exact(32)) {
        let says = format!("{at:015x}");
        if &record[15..30] != says.as_bytes() {
            return format!("at {at} it reads {:?}", String::from_utf8_lossy(record));
        }
    }
    format!("the pattern is right throughout, crc {:#x}", crc32(bytes))
}
