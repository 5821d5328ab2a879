//! The views of connections, processes and the summary.

use super::{Pen, below};
use crate::discovery::listing::{Row, Status};
use crate::tui::row::time_of_day;
use crate::tui::state::{State, View};
use crate::tui::summary::SECONDS;
use crate::tui::text::{Look, duration, harmless, size};
use ratatui_core::layout::Rect;

/// A column: its title, its width (0: what is left, for the last one), and whether numbers stand in it.
type Column = (&'static str, u16, bool);

/// What stands in the columns of a row.
type Cells = Vec<(String, Look)>;

/// Draws titles and rows.
fn table(
    pen: &mut Pen<'_>,
    area: Rect,
    columns: &[Column],
    state: &mut State,
    row: &dyn Fn(&State, usize) -> Cells,
) {
    let view = state.view;
    let rows = below(area, 1);
    let len = state.rows_of(view);
    let height = usize::from(rows.height);
    state.page = height.max(1);
    let Some(cursor) = state.other_mut(view) else {
        return;
    };
    cursor.fit(len, height);
    let cursor = *cursor;
    if area.height > 0 {
        let titles: Cells = columns
            .iter()
            .map(|(title, ..)| ((*title).to_owned(), Look::Bold))
            .collect();
        cells(pen, area, area.y, columns, &titles);
        pen.bar(area, area.y);
    }
    for y in 0..rows.height {
        let at = cursor.top + usize::from(y);
        if at >= len {
            break;
        }
        cells(pen, rows, rows.y + y, columns, &row(state, at));
        if at == cursor.at {
            pen.choose(rows, rows.y + y, true);
        }
    }
}

fn cells(pen: &mut Pen<'_>, area: Rect, y: u16, columns: &[Column], texts: &[(String, Look)]) {
    let mut x = area.x;
    for ((_, width, is_number), (text, look)) in columns.iter().zip(texts) {
        let end = match width {
            0 => area.right(),
            width => (x + width).min(area.right()),
        };
        let style = pen.style(*look);
        if *is_number {
            let width = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
            let begin = x.max(end.saturating_sub(width));
            pen.text(begin, y, end, text, style);
        } else {
            pen.cut(x, y, end, text, style);
        }
        x = (end + 1).min(area.right());
    }
}

/// The connections, the newest first.
pub fn connections(pen: &mut Pen<'_>, area: Rect, state: &mut State) {
    let wide: &[Column] = &[
        ("CONN", 7, false),
        ("SINCE", 12, false),
        ("PROCESS", 20, false),
        ("PROTOCOL", 9, false),
        ("TLS", 8, false),
        ("LIBRARY", 10, false),
        ("EXCH", 6, true),
        ("OUT", 6, true),
        ("IN", 6, true),
        ("LOST", 5, true),
        ("PEER", 0, false),
    ];
    let narrow: &[Column] = &[
        ("CONN", 6, false),
        ("PROCESS", 14, false),
        ("PROTOCOL", 9, false),
        ("EXCH", 5, true),
        ("OUT", 5, true),
        ("IN", 5, true),
        ("PEER", 0, false),
    ];
    let is_wide = area.width >= 120;
    let columns = if is_wide { wide } else { narrow };
    table(pen, area, columns, state, &|state, at| {
        let Some(seen) = state.conns.all().rev().nth(at) else {
            return Vec::new();
        };
        let conn = &seen.conn;
        let [out, input] = seen.bytes;
        let peer = match (&conn.sni, conn.transport.addrs()) {
            (Some(sni), Some((_, remote))) => format!("{sni} {remote}"),
            (Some(sni), None) => sni.clone(),
            (None, Some((_, remote))) => remote.to_string(),
            (None, None) => "?".to_owned(),
        };
        let look = match seen.is_closed {
            true => Look::Dim,
            false => Look::Plain,
        };
        let lost = match seen.lost {
            0 => (String::new(), Look::Dim),
            lost => (size(lost), Look::Bad),
        };
        let plain = |text: String| (text, look);
        let id = (format!("#{}", conn.id), Look::Bold);
        let comm = harmless(conn.proc.comm.as_bytes());
        let process = plain(format!("{comm}[{}]", conn.proc.pid));
        let protocol = plain(seen.protocol.to_owned());
        let exchanges = plain(seen.exchanges.to_string());
        let (out, input) = (plain(size(out)), plain(size(input)));
        let peer = plain(harmless(peer.as_bytes()));
        if !is_wide {
            return vec![id, process, protocol, exchanges, out, input, peer];
        }
        let since = plain(time_of_day(seen.first));
        let version = plain(conn.version_name().unwrap_or("?").to_owned());
        let lib = plain(conn.lib.flavor.name().to_owned());
        vec![
            id, since, process, protocol, version, lib, exchanges, out, input, lost, peer,
        ]
    });
}

/// What is captured of whom, and why not.
pub fn processes(pen: &mut Pen<'_>, area: Rect, state: &mut State) {
    let columns: &[Column] = &[
        ("PID", 7, true),
        ("COMMAND", 16, false),
        ("EXCH", 6, true),
        ("BYTES", 6, true),
        ("LIBRARY", 10, false),
        ("STATUS", 10, false),
        ("VERSION, OR WHY NOT", 0, false),
    ];
    let rows: Vec<Cells> = {
        let listed = state.listed();
        let cells = listed.iter().map(|(pid, row)| process(state, *pid, *row));
        cells.collect()
    };
    table(pen, area, columns, state, &|_, at| {
        rows.get(at).cloned().unwrap_or_default()
    });
    let notice = match (&state.processes.error, state.processes.is_first()) {
        (Some(error), _) => harmless(error.as_bytes()),
        (None, true) => "Looking at all processes".to_owned(),
        (None, false) => return,
    };
    let y = area.y + area.height / 2;
    pen.text(area.x + 1, y, area.right(), &notice, pen.style(Look::Dim));
}

fn process(state: &State, pid: u32, row: Option<&Row>) -> Cells {
    let seen = state.conns.procs().get(&pid);
    let comm = match (row, seen) {
        (Some(row), _) => row.command.as_str(),
        (None, Some(seen)) => seen.comm.as_str(),
        (None, None) => "",
    };
    let number = |number: Option<u64>| match number {
        Some(number) if number > 0 => (size(number), Look::Plain),
        _ => (String::new(), Look::Plain),
    };
    let mut cells = vec![
        (pid.to_string(), Look::Bold),
        (harmless(comm.as_bytes()), Look::Plain),
        number(seen.map(|seen| seen.exchanges)),
        number(seen.map(|seen| seen.bytes)),
    ];
    let Some(row) = row else { return cells };
    let look = match row.status {
        Status::Attachable => Look::Good,
        Status::Partly => Look::Warning,
        Status::Dark => Look::Bad,
    };
    let words = [&row.version, &row.reason, &row.remedy, &row.path];
    let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
    let library = row.library.as_deref().unwrap_or("-");
    cells.push((harmless(library.as_bytes()), Look::Plain));
    cells.push((row.status.name().to_owned(), look));
    cells.push((harmless(words.join("; ").as_bytes()), Look::Plain));
    cells
}

/// Counts and times since the start.
pub fn summary(pen: &mut Pen<'_>, area: Rect, state: &mut State) {
    debug_assert_eq!(state.view, View::Summary);
    let now = state.now_second();
    let mut rest = area;
    if area.height >= 4 {
        let counts = state.summary.all.until(now);
        let label = format!(
            " {} exchanges, in each of the last {SECONDS} seconds: ",
            state.summary.count
        );
        let x = pen.text(area.x, area.y, area.right(), &label, pen.style(Look::Bold));
        let room = usize::from(area.right().saturating_sub(x + 1)).min(SECONDS);
        let line = sparkline(&counts, room, pen.ascii);
        pen.text(x, area.y, area.right(), &line, pen.style(Look::Number));
        rest = below(area, 1);
    }
    let columns: &[Column] = &[
        ("COUNT", 8, true),
        ("ST", 5, false),
        ("p50", 6, true),
        ("p95", 6, true),
        ("p99", 6, true),
        ("LAST 20s", 20, false),
        ("HOST", 0, false),
    ];
    let columns = match area.width {
        0..=59 => {
            let mut few = columns.to_vec();
            few.retain(|(title, ..)| !matches!(*title, "LAST 20s" | "p99"));
            few
        }
        _ => columns.to_vec(),
    };
    let ascii = pen.ascii;
    let is_wide = columns.len() == 7;
    // Sorting them for each row would be too much.
    let rows: Vec<Cells> = {
        let rows = state.summary.rows();
        rows.iter()
            .map(|(host, status, row)| {
                let time = |percent| {
                    row.times
                        .quantile(percent)
                        .map(duration)
                        .unwrap_or_default()
                };
                let look = status.parse().map_or(Look::Dim, crate::tui::row::look_of);
                let mut cells = vec![
                    (row.count.to_string(), Look::Bold),
                    ((*status).to_owned(), look),
                    (time(50), Look::Plain),
                    (time(95), Look::Plain),
                ];
                if is_wide {
                    cells.push((time(99), Look::Plain));
                    cells.push((sparkline(&row.rate.until(now), 20, ascii), Look::Number));
                }
                cells.push((harmless(host.as_bytes()), Look::Plain));
                cells
            })
            .collect()
    };
    table(pen, rest, &columns, state, &|_, at| {
        rows.get(at).cloned().unwrap_or_default()
    });
}

/// The last `width` counts, as heights.
fn sparkline(counts: &[u64], width: usize, ascii: bool) -> String {
    let heights: &[char] = match ascii {
        true => &['_', '.', ':', '-', '=', '+', '*', '#'],
        false => &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    };
    let skipped = counts.len().saturating_sub(width);
    let counts = counts.get(skipped..).unwrap_or_default();
    let most = counts.iter().copied().max().unwrap_or(0);
    let shown = counts.iter().map(|&count| match count {
        0 => ' ',
        // Whatever happened at all is seen.
        count => {
            let last = heights.len() as u64 - 1;
            let height = (count * last).div_ceil(most.max(1));
            heights
                .get(usize::try_from(height).unwrap_or(0))
                .copied()
                .unwrap_or(' ')
        }
    });
    let padding = std::iter::repeat_n(' ', width.saturating_sub(counts.len()));
    padding.chain(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_of_a_sparkline_follow_the_counts() {
        assert_eq!(sparkline(&[0, 1, 4, 8], 6, false), "   ▂▅█");
        assert_eq!(sparkline(&[9, 9, 9], 2, true), "##");
        assert_eq!(sparkline(&[], 3, false), "   ");
        assert_eq!(sparkline(&[u64::MAX / 8], 1, false), "█");
    }
}
