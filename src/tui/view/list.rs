//! The list of exchanges.

use super::{Pen, below};
use crate::tui::row::{self, Column};
use crate::tui::state::State;
use crate::tui::text::Look;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Modifier, Style};

/// Which columns there are, and how wide; `0` shares what is left.
fn columns(width: u16) -> Vec<(Column, u16)> {
    use Column::{Host, Latency, Method, Process, Size, Status, Time, Type, Url, What};
    match width {
        0..=29 => vec![(Status, 3), (Method, 4), (What, 0)],
        30..=59 => vec![(Method, 6), (Url, 0), (Status, 4), (Latency, 6)],
        60..=99 => vec![
            (Time, 8),
            (Process, 13),
            (Method, 6),
            (Url, 0),
            (Status, 4),
            (Size, 5),
            (Latency, 6),
        ],
        100..=129 => vec![
            (Time, 12),
            (Process, 16),
            (Method, 7),
            (Url, 0),
            (Status, 4),
            (Type, 9),
            (Size, 6),
            (Latency, 6),
        ],
        130..=159 => vec![
            (Time, 12),
            (Process, 16),
            (Method, 7),
            (Host, 0),
            (What, 0),
            (Status, 4),
            (Type, 9),
            (Size, 6),
            (Latency, 6),
        ],
        _ => vec![
            (Time, 15),
            (Process, 22),
            (Method, 8),
            (Host, 0),
            (What, 0),
            (Status, 4),
            (Type, 22),
            (Size, 6),
            (Latency, 7),
        ],
    }
}

/// Where each column begins and ends.
fn places(area: Rect, lock: u16) -> Vec<(Column, u16, u16)> {
    let columns = columns(area.width);
    let fixed: u16 = columns.iter().map(|(_, width)| width + 1).sum();
    let free = area.width.saturating_sub(fixed + lock);
    let shares = columns.iter().filter(|(_, width)| *width == 0).count();
    let mut x = area.x + lock;
    let mut left = free;
    let mut first = true;
    let mut places = Vec::new();
    for (column, width) in columns {
        let width = match (width, first && shares > 1) {
            (0, true) => {
                first = false;
                // Paths are longer than names of hosts.
                free * 2 / 5
            }
            (0, false) => left,
            (width, _) => width,
        };
        if matches!(column, Column::Host | Column::What | Column::Url) {
            left = left.saturating_sub(width);
        }
        places.push((column, x, (x + width).min(area.right())));
        x = (x + width + 1).min(area.right());
    }
    places
}

/// Draws it with its titles.
pub fn draw(pen: &mut Pen<'_>, area: Rect, state: &mut State) {
    // A mark, the lock and a space.
    let lock = match (area.width, pen.ascii) {
        (0..=39, _) => 1,
        (_, false) => 4,
        (_, true) => 5,
    };
    let places = places(area, lock);
    let mut rows = area;
    if area.height >= 3 {
        for &(column, x, end) in &places {
            let title = title(state, column, pen.ascii);
            match column.is_number() {
                true => right(pen, x, area.y, end, &title, pen.style(Look::Bold)),
                false => {
                    pen.text(x, area.y, end, &title, pen.style(Look::Bold));
                }
            }
        }
        pen.bar(area, area.y);
        rows = below(area, 1);
    }
    state.settle(usize::from(rows.height));
    if state.is_empty() {
        empty(pen, rows, state);
    }
    for y in 0..rows.height {
        let row = state.list.top + usize::from(y);
        let Some(number) = state.number_at(row).filter(|_| row < state.len()) else {
            break;
        };
        let Some(exchange) = state.history.get(number) else {
            continue;
        };
        let y = rows.y + y;
        if exchange.is_marked {
            let style = pen.style(Look::Warning).add_modifier(Modifier::BOLD);
            pen.text(area.x, y, area.right(), "*", style);
        }
        if lock > 1 {
            let mark = if pen.ascii { "TLS" } else { "🔓" };
            pen.text(area.x + 1, y, area.right(), mark, pen.style(Look::Dim));
        }
        for &(column, x, end) in &places {
            let (text, look) = row::cell(exchange, column);
            let style = pen.style(look);
            match column {
                _ if column.is_number() => right(pen, x, y, end, &text, style),
                // The first characters say enough.
                Column::Time => {
                    pen.text(x, y, end, &text, style);
                }
                _ => pen.cut(x, y, end, &text, style),
            }
        }
        if row == state.list.at {
            pen.choose(area, y, !state.in_details);
        }
    }
}

fn title(state: &State, column: Column, ascii: bool) -> String {
    let is_by = |other| state.order.column() == other;
    let is_ordered = is_by(column)
        || column == Column::Url && is_by(Column::Host)
        || column == Column::Time && is_by(Column::Time);
    let mark = match (is_ordered, state.order.is_turned(), ascii) {
        (false, ..) => "",
        (true, false, false) => "▾",
        (true, true, false) => "▴",
        (true, false, true) => "v",
        (true, true, true) => "^",
    };
    format!("{}{mark}", column.title())
}

fn right(pen: &mut Pen<'_>, x: u16, y: u16, end: u16, text: &str, style: Style) {
    let width = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    let x = x.max(end.saturating_sub(width));
    pen.text(x, y, end, text, style);
}

/// Why there is nothing.
fn empty(pen: &mut Pen<'_>, area: Rect, state: &State) {
    let text = match (state.history.is_empty(), state.history.is_busy()) {
        (true, _) => match state.source {
            crate::tui::state::Source::Live => "Nothing was captured yet",
            crate::tui::state::Source::Reading => "Reading",
            crate::tui::state::Source::Ended => "Nothing was captured",
        },
        (false, true) => "Looking",
        (false, false) if state.history.only_marked() => "Nothing is marked (M shows all again)",
        (false, false) => "Nothing passes the filter (esc takes it away)",
    };
    let y = area.y + area.height / 2;
    pen.text(area.x + 1, y, area.right(), text, pen.style(Look::Dim));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_in_order_and_within_the_width_at_every_width() {
        for width in 0..=400 {
            let area = Rect::new(3, 0, width, 1);
            for lock in [1, 4, 5] {
                let mut before = area.x;
                for (_, begin, end) in places(area, lock) {
                    assert!(begin >= before || begin == area.right(), "{width}");
                    assert!(end <= area.right(), "{width}");
                    before = end;
                }
            }
        }
    }
}
