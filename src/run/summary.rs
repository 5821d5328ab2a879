//! What is said on standard error at the start and at the end.

use crate::bpf::Counters;
use crate::config::{Command, Group};
use crate::event::Totals;
use crate::run::people::People;
use crate::sink::escape::shown;
use std::path::Path;

/// Begins with `tlssniff: listening`, so that scripts can wait for it.
pub fn listening(people: &People, command: Option<&Command>) -> String {
    let mut libs: Vec<String> = people
        .registry
        .attached()
        .map(|target| match &target.lib.version {
            Some(version) => format!("{} ({version})", shown(&target.lib.path)),
            None => shown(&target.lib.path),
        })
        .collect();
    libs.dedup();
    let only = people.named.iter().next().copied().unwrap_or_default();
    let on = match (command, people.named.len()) {
        (Some(command), _) => format!("{}[{only}]", shown(&name_of(command))),
        (None, 0) => match people.group() {
            Some(Group::Cgroup(path)) => format!("cgroup {}", shown(&path.to_string_lossy())),
            Some(Group::Container(id)) => format!("container {}", shown(id)),
            None => "all processes".to_owned(),
        },
        (None, 1) => match people.procfs.comm(only) {
            Ok(comm) => format!("{}[{only}]", shown(&comm)),
            Err(_) => format!("process {only}"),
        },
        (None, n) => format!("{n} processes"),
    };
    let libs = match libs.len() {
        0 if command.is_some() => return format!("tlssniff: listening on {on}"),
        0 => "no TLS library found yet".to_owned(),
        1..=4 => libs.join(", "),
        n => format!("{n} TLS libraries"),
    };
    format!("tlssniff: listening on {on}: {libs}")
}

/// The command has not been executed yet, so its process still has our name.
fn name_of(command: &Command) -> String {
    let name = command
        .argv
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Losses that BPF counted are added to what the connections have shown.
pub fn totals(seen: &Totals, counters: &Counters, shown: u64, late: u64) -> Totals {
    Totals {
        captured: seen.captured,
        shown,
        dropped: counters.dropped_calls + counters.missed_calls,
        dropped_bytes: counters.dropped_bytes + counters.unreadable_bytes,
        truncated: seen.truncated,
        late,
    }
}

/// As tcpdump ends; without a line break at the end.
pub fn counts(totals: &Totals, counters: Option<&Counters>) -> String {
    let mut lines = vec![format!(
        "{} captured ({} shown)",
        events(totals.captured),
        totals.shown
    )];
    let bytes = match totals.dropped_bytes {
        0 => String::new(),
        n => format!(", {n} bytes lost"),
    };
    lines.push(format!(
        "{} dropped by kernel (ring buffer full){bytes}",
        events(totals.dropped)
    ));
    if totals.truncated > 0 {
        lines.push(format!("{} truncated (-s)", events(totals.truncated)));
    }
    if totals.late > 0 {
        lines.push(format!(
            "{} program{} ran before {} probes were in place: first bytes may be missing",
            totals.late,
            if totals.late == 1 { "" } else { "s" },
            if totals.late == 1 { "its" } else { "their" },
        ));
    }
    if let Some(counters) = counters {
        if counters.missed_calls > 0 {
            lines.push(format!(
                "{} missed as a whole (too many connections at a time, or too deep in one another)",
                events(counters.missed_calls)
            ));
        }
        if counters.unreadable_bytes > 0 {
            lines.push(format!(
                "{} bytes could not be read",
                counters.unreadable_bytes
            ));
        }
        if counters.dropped_notes > 0 {
            lines.push(format!(
                "{} notes about connections dropped (ring buffer full)",
                counters.dropped_notes
            ));
        }
        if counters.wrong_calls > 0 {
            lines.push(
                "a function found without symbols is not what it was taken for: its file was not \
                 captured any more"
                    .to_owned(),
            );
        }
        if counters.expired_holds > 0 {
            lines.push(format!(
                "{} times a process went on before its new libraries were probed: first bytes may be missing",
                counters.expired_holds
            ));
        }
    }
    lines.join("\n")
}

fn events(n: u64) -> String {
    format!("{n} event{}", if n == 1 { "" } else { "s" })
}
