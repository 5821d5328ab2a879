//! Tells why nothing of a process that was asked for will be seen, where the reason is known.

use crate::discovery::ProcFs;
use crate::discovery::listing::{self, Row, Scope, Status};
use crate::run::list::classifier;
use crate::sink::escape::shown;
use std::collections::BTreeSet;

/// Looks at these processes, in which nothing was attached, on a thread of its own: reading their
/// files may take a second, and others are captured meanwhile.
pub fn explain(procfs: ProcFs, pids: BTreeSet<u32>) {
    if pids.is_empty() {
        return;
    }
    let look = move || {
        let scope = Scope {
            wanted: &|process| pids.contains(&process.pid),
            with_empty: false,
            user_name: &|_| None,
        };
        match listing::scan(&procfs, &scope, &mut classifier()) {
            Ok(rows) => reasons(&rows).iter().for_each(|text| log::warn!("{text}")),
            Err(error) => log::debug!("{error:#}"),
        }
    };
    // Without it the capture is as good.
    let _ = std::thread::Builder::new().spawn(look);
}

/// A sentence for each process of which no file can be captured.
fn reasons(rows: &[Row]) -> Vec<String> {
    let seen: BTreeSet<u32> = rows
        .iter()
        .filter(|row| row.status != Status::Dark)
        .map(|row| row.pid)
        .collect();
    rows.iter()
        .filter(|row| !seen.contains(&row.pid))
        .filter_map(|row| {
            let (path, reason) = (row.path.as_deref()?, row.reason.as_deref()?);
            let mut text = format!(
                "{}[{}] is not captured: {}: {}",
                shown(&row.command),
                row.pid,
                shown(path),
                shown(reason)
            );
            if let Some(remedy) = &row.remedy {
                text.push_str("; ");
                text.push_str(&shown(remedy));
            }
            Some(text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: u32, path: &str, status: Status) -> Row {
        Row {
            pid,
            command: "ja\x1bva".to_owned(),
            uid: 0,
            user: "root".to_owned(),
            path: Some(path.to_owned()),
            library: None,
            version: None,
            status,
            reason: Some("own TLS".to_owned()),
            remedy: Some("use another".to_owned()),
        }
    }

    #[test]
    fn only_processes_without_any_file_that_can_be_captured_are_explained() {
        let rows = [
            row(1, "/a", Status::Dark),
            row(2, "/b", Status::Partly),
            row(2, "/c", Status::Dark),
        ];
        let told = reasons(&rows);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with("[1] is not captured: /a: own TLS; use another"));
        assert!(!told[0].contains('\x1b'), "{told:?}");
    }
}
