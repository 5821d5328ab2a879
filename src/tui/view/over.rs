//! What lies over the panes: help, choices, messages of the program.

use super::Pen;
use crate::tui::export::{self, Form};
use crate::tui::journal;
use crate::tui::keys::HELP;
use crate::tui::state::{Over, State};
use crate::tui::text::{Line, Look};
use ratatui_core::layout::{Position, Rect};
use ratatui_core::style::Style;

/// Draws it, if there is something.
pub fn draw(pen: &mut Pen<'_>, area: Rect, state: &State) {
    let Some(over) = &state.over else { return };
    let (title, lines, chosen) = match over {
        Over::Help => ("Keys", help(area.width), None),
        Over::Messages => ("Messages of tlssniff", messages(), None),
        Over::Filters(filters, at) => {
            let lines = filters
                .iter()
                .map(|filter| Line::new(filter, Look::Plain))
                .collect();
            ("Add to the filter (enter)", lines, Some(*at))
        }
        Over::Export(number) => {
            let exchange = state.history.get(*number);
            let line = |(key, form, name): &(char, Form, &str)| {
                let is_there = exchange.is_some_and(|exchange| export::offers(exchange, *form));
                let look = if is_there { Look::Plain } else { Look::Dim };
                Line::new(&format!("{key}  "), Look::Bold).and(name, look)
            };
            (
                "Save the exchange as",
                Form::ALL.iter().map(line).collect(),
                None,
            )
        }
    };
    boxed(pen, area, title, &lines, chosen);
}

fn help(width: u16) -> Vec<Line> {
    let rows = HELP.iter().map(|(keys, what)| {
        let width = if width < 50 { 10 } else { 16 };
        Line::new(&format!("{keys:<width$}"), Look::Bold).and(what, Look::Plain)
    });
    rows.collect()
}

fn messages() -> Vec<Line> {
    let lines = journal::newest(100);
    if lines.is_empty() {
        return vec![Line::new("None so far", Look::Dim)];
    }
    lines
        .iter()
        .map(|line| Line::new(line, Look::Plain))
        .collect()
}

/// A box in the middle, as large as its lines and the area allow.
fn boxed(pen: &mut Pen<'_>, area: Rect, title: &str, lines: &[Line], chosen: Option<usize>) {
    let widest = lines
        .iter()
        .map(|line| ratatui_core::text::Span::raw(line.plain()).width())
        .chain([title.len()])
        .max()
        .unwrap_or(0);
    let width = u16::try_from(widest + 4)
        .unwrap_or(u16::MAX)
        .min(area.width);
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let frame = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    if width < 4 || height < 3 {
        return;
    }
    let blank = " ".repeat(usize::from(width));
    for y in frame.top()..frame.bottom() {
        pen.buf
            .set_style(Rect::new(frame.x, y, width, 1), Style::reset());
        pen.text(frame.x, y, frame.right(), &blank, Style::new());
        // Half of a wide character cannot be shown.
        let before = frame.x.checked_sub(1).map(|x| Position::new(x, y));
        if let Some(cell) = before.and_then(|at| pen.buf.cell_mut(at))
            && ratatui_core::text::Span::raw(cell.symbol()).width() > 1
        {
            cell.set_symbol(" ");
        }
    }
    border(pen, frame, title);
    let rows = usize::from(height - 2);
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(rows));
    for (at, line) in lines.iter().enumerate().skip(first).take(rows) {
        let y = frame.y + 1 + u16::try_from(at - first).unwrap_or(0);
        let inner = Rect::new(frame.x + 1, y, width - 2, 1);
        pen.line(frame.x + 2, y, frame.right() - 1, line);
        if chosen == Some(at) {
            pen.choose(inner, y, true);
        }
    }
}

fn border(pen: &mut Pen<'_>, frame: Rect, title: &str) {
    let [across, down, corners] = match pen.ascii {
        true => ["-", "|", "++++"],
        false => ["─", "│", "┌┐└┘"],
    };
    let dim = pen.style(Look::Dim);
    let line = across.repeat(usize::from(frame.width));
    let bottom = frame.bottom() - 1;
    let last = frame.right() - 1;
    for y in [frame.y, bottom] {
        pen.text(frame.x, y, frame.right(), &line, dim);
    }
    for y in frame.y + 1..bottom {
        pen.text(frame.x, y, frame.right(), down, dim);
        pen.text(last, y, frame.right(), down, dim);
    }
    let places = [
        (frame.x, frame.y),
        (last, frame.y),
        (frame.x, bottom),
        (last, bottom),
    ];
    for ((x, y), corner) in places.into_iter().zip(corners.chars()) {
        pen.text(x, y, frame.right(), corner.encode_utf8(&mut [0; 4]), dim);
    }
    let title = format!(" {title} ");
    pen.text(frame.x + 1, frame.y, last, &title, pen.style(Look::Bold));
}
