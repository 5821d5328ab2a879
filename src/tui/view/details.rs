//! The details of the chosen exchange, under their tabs.

use super::{Pen, below};
use crate::tui::details::Tab;
use crate::tui::state::{Shown, State};
use crate::tui::text::{Line, Look};
use ratatui_core::layout::Rect;
use ratatui_core::style::Modifier;

/// Draws the tabs and as many lines as there is room for.
pub fn draw(pen: &mut Pen<'_>, area: Rect, state: &mut State) {
    state.refresh_details();
    tabs(pen, area, state);
    let rows = below(area, 1);
    state.page = usize::from(rows.height).max(1);
    let Some(shown) = &state.shown else {
        let text = "It is not kept any more (--history)";
        pen.text(area.x + 1, rows.y, area.right(), text, pen.style(Look::Dim));
        return;
    };
    let height = usize::from(rows.height);
    let width = usize::from(rows.width.saturating_sub(1)).max(1);
    // A line that is wrapped takes more rows than one, so it may need more of them above.
    let mut cursor = state.detail;
    cursor.fit(shown.lines.len(), height);
    if state.wraps {
        cursor.top = first_shown(shown, cursor.top, cursor.at, width, height);
    }
    let mut y = rows.y;
    for (at, line) in shown.lines.iter().enumerate().skip(cursor.top) {
        if y >= rows.bottom() {
            break;
        }
        let first = y;
        if state.wraps {
            for part in wrapped(line, width) {
                if y >= rows.bottom() {
                    break;
                }
                pen.line(rows.x + 1, y, rows.right(), &part);
                y += 1;
            }
        } else {
            let moved = shifted(line, state.shift);
            pen.line(rows.x + 1, y, rows.right(), &moved);
            y += 1;
        }
        if at == cursor.at {
            for y in first..y {
                pen.choose(Rect { width: 1, ..rows }, y, state.in_details);
            }
            if state.in_details && line.filter.is_some() {
                let style = pen.style(Look::Plain).add_modifier(Modifier::UNDERLINED);
                let row = Rect::new(rows.x + 1, first, rows.width.saturating_sub(1), y - first);
                pen.buf.set_style(row.intersection(*pen.buf.area()), style);
            }
        }
    }
    state.detail = cursor;
}

/// The line from `top` on that is the first, so that the one `at` still has room.
fn first_shown(shown: &Shown, top: usize, at: usize, width: usize, height: usize) -> usize {
    let mut first = at;
    let mut used = 0;
    for row in (top..=at).rev() {
        used += shown
            .lines
            .get(row)
            .map_or(1, |line| wrapped(line, width).len());
        if used > height {
            break;
        }
        first = row;
    }
    first
}

fn tabs(pen: &mut Pen<'_>, area: Rect, state: &State) {
    let mut x = area.x + 1;
    for tab in Tab::ALL {
        let title = format!(" {} ", tab.title());
        let style = match tab == state.tab {
            true => pen.style(Look::Bold),
            false => pen.style(Look::Dim),
        };
        let begin = x;
        x = pen.text(x, area.y, area.right(), &title, style);
        if tab != state.tab {
            pen.bar(Rect::new(begin, area.y, x.saturating_sub(begin), 1), area.y);
        }
    }
    let begin = x;
    if let (Some((number, _)), Some(shown)) = (state.selected(), &state.shown) {
        let place = format!(
            "exchange {number}, line {}/{} ",
            state.detail.at + 1,
            shown.lines.len()
        );
        let width = u16::try_from(place.len()).unwrap_or(u16::MAX);
        let right = area.right().saturating_sub(width);
        if right > x {
            pen.text(right, area.y, area.right(), &place, pen.style(Look::Dim));
        }
    }
    let rest = area.right().saturating_sub(begin);
    pen.bar(Rect::new(begin, area.y, rest, 1), area.y);
}

/// The line without its first columns.
fn shifted(line: &Line, shift: usize) -> Line {
    let mut left = shift;
    let mut out = Line::default();
    for (text, look) in &line.spans {
        let skipped = text.chars().take(left).count();
        left -= skipped;
        let rest: String = text.chars().skip(skipped).collect();
        out.spans.push((rest, *look));
    }
    out
}

/// The line in rows of so many columns; at least one.
fn wrapped(line: &Line, width: usize) -> Vec<Line> {
    let width = width.max(2);
    let mut rows = vec![Line::default()];
    let mut used = 0;
    for (text, look) in &line.spans {
        let mut part = String::new();
        for ch in text.chars() {
            let columns = match ch {
                ' '..='~' => 1,
                _ => ratatui_core::text::Span::raw(ch.encode_utf8(&mut [0; 4]) as &str).width(),
            };
            if used + columns > width {
                if let Some(row) = rows.last_mut() {
                    row.spans.push((std::mem::take(&mut part), *look));
                }
                rows.push(Line::default());
                used = 0;
            }
            used += columns;
            part.push(ch);
        }
        if let Some(row) = rows.last_mut() {
            row.spans.push((part, *look));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_keeps_every_character_and_no_row_is_too_wide() {
        let line = Line::new("漢字 and some more", Look::Plain).and(" of it", Look::Bold);
        for width in 2..30 {
            let rows = wrapped(&line, width);
            let all: String = rows.iter().map(Line::plain).collect();
            assert_eq!(all, line.plain());
            for row in rows {
                let width_of = ratatui_core::text::Span::raw(row.plain()).width();
                assert!(width_of <= width, "{width}: {row:?}");
            }
        }
        assert_eq!(wrapped(&Line::default(), 5).len(), 1);
    }

    #[test]
    fn a_line_is_moved_to_the_left_across_its_pieces() {
        let line = Line::new("abc", Look::Plain).and("def", Look::Bold);
        assert_eq!(shifted(&line, 4).plain(), "ef");
        assert_eq!(shifted(&line, 9).plain(), "");
    }
}
