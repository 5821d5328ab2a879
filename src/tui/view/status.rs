//! The line of views at the top, and the line at the bottom: state of the capture, or the prompt.

use super::Pen;
use crate::tui::prompt::{Ask, Prompt};
use crate::tui::state::{Source, State, View};
use crate::tui::text::{Look, harmless, size};
use ratatui_core::layout::{Position, Rect};
use ratatui_core::style::Modifier;

/// The views, and the keys that a new user needs.
pub fn views(pen: &mut Pen<'_>, area: Rect, state: &State) {
    let mut x = area.x;
    for (at, view) in View::ALL.into_iter().enumerate() {
        let title = match area.width {
            0..=59 => format!(" {} ", at + 1),
            _ => format!(" {} {} ", at + 1, view.title()),
        };
        let look = if view == state.view {
            Look::Bold
        } else {
            Look::Dim
        };
        let style = pen.style(look);
        let style = match view == state.view {
            true => style.add_modifier(Modifier::REVERSED),
            false => style,
        };
        x = pen.text(x, area.y, area.right(), &title, style);
    }
    let keys = match area.width {
        0..=35 => "",
        36..=99 => " / filter  ? help  q quit ",
        _ => " enter open  / filter  f filter by value  x export  ? help  q quit ",
    };
    let begin = area
        .right()
        .saturating_sub(u16::try_from(keys.len()).unwrap_or(0));
    if begin > x {
        pen.text(begin, area.y, area.right(), keys, pen.style(Look::Dim));
    }
}

/// The last line; where the cursor is, if something is typed there.
pub fn bottom(pen: &mut Pen<'_>, area: Rect, state: &State) -> Option<Position> {
    if let Some(prompt) = &state.prompt {
        return line(pen, area, prompt);
    }
    if let Some((notice, look)) = &state.notice {
        pen.cut(
            area.x,
            area.y,
            area.right(),
            &harmless(notice.as_bytes()),
            pen.style(*look),
        );
        return None;
    }
    let mut x = area.x;
    let (word, look) = match (state.paused_at, state.source) {
        (Some(_), _) => ("PAUSED", Look::Warning),
        (None, Source::Live) if state.follows => ("FOLLOW", Look::Good),
        (None, Source::Live) => ("LIVE", Look::Good),
        (None, Source::Reading) => ("READING", Look::Moved),
        (None, Source::Ended) => ("ENDED", Look::Moved),
    };
    let style = pen.style(look).add_modifier(Modifier::REVERSED);
    x = pen.text(x, area.y, area.right(), &format!(" {word} "), style) + 1;
    let (shown, kept) = (state.len(), state.history.len());
    let mut facts = vec![(
        match shown == kept {
            true => format!("{kept}"),
            false => format!("{shown}/{kept}"),
        },
        Look::Bold,
    )];
    if state.history.left_out > 0 {
        facts.push((
            format!("{} older gone", state.history.left_out),
            Look::Warning,
        ));
    }
    if state.source == Source::Live {
        let rate = state.summary.per_second(state.now_second());
        facts.push((format!("{rate}/s"), Look::Plain));
    }
    if state.totals.dropped > 0 || state.totals.dropped_bytes > 0 {
        let lost = format!(
            "{} lost ({}B)",
            state.totals.dropped,
            size(state.totals.dropped_bytes)
        );
        facts.push((lost, Look::Bad));
    } else if area.width >= 50 {
        facts.push(("0 lost".to_owned(), Look::Dim));
    }
    if state.history.only_marked() {
        facts.push(("only marked".to_owned(), Look::Warning));
    }
    if state.history.is_busy() {
        facts.push(("filtering".to_owned(), Look::Moved));
    }
    if let Some(kept) = &state.kept {
        facts.push((format!("only: {}", harmless(kept.as_bytes())), Look::Moved));
    }
    if !state.filter.is_empty() {
        let filter = harmless(state.filter.as_bytes());
        facts.push((format!("filter: {filter}"), Look::Moved));
    }
    for (text, look) in facts {
        x = pen.text(x, area.y, area.right(), &text, pen.style(look));
        x = pen.text(x, area.y, area.right(), "  ", pen.style(Look::Plain));
    }
    if let Some(message) = &state.message {
        let text = harmless(message.as_bytes());
        pen.cut(x, area.y, area.right(), &text, pen.style(Look::Warning));
    }
    None
}

/// What is typed; of what is too long the end up to the cursor.
fn line(pen: &mut Pen<'_>, area: Rect, prompt: &Prompt) -> Option<Position> {
    let fault = prompt.fault();
    let x = pen.text(
        area.x,
        area.y,
        area.right(),
        prompt.ask.title(),
        pen.style(Look::Bold),
    );
    let room = usize::from(area.right().saturating_sub(x)).max(2) - 1;
    let shown: Vec<String> = prompt
        .text
        .iter()
        .map(|ch| harmless(ch.encode_utf8(&mut [0; 4]).as_bytes()))
        .collect();
    let width = |text: &String| match pen.ascii && !text.is_ascii() {
        true => super::in_ascii(text).len(),
        false => ratatui_core::text::Span::raw(text.as_str()).width(),
    };
    let widths: Vec<usize> = shown.iter().map(width).collect();
    let mut first = 0;
    let before = |first: usize| -> usize {
        let until = prompt.cursor.saturating_sub(first);
        widths.iter().skip(first).take(until).sum()
    };
    while before(first) > room && first < prompt.cursor {
        first += 1;
    }
    let cursor = x + u16::try_from(before(first)).unwrap_or(0);
    let mut at = x;
    let wrong_from = fault.map_or(usize::MAX, |fault| fault.column.saturating_sub(1));
    for (place, text) in shown.iter().enumerate().skip(first) {
        let style = match (wrong_from, place >= wrong_from) {
            (usize::MAX, _) => pen.style(Look::Plain),
            (_, true) => pen.style(Look::Bad).add_modifier(Modifier::UNDERLINED),
            (_, false) => pen.style(Look::Bad),
        };
        at = pen.text(at, area.y, area.right(), text, style);
    }
    let last = area.right().saturating_sub(1);
    Some(Position::new(cursor.min(last), area.y))
}

/// Above what is typed: what is wrong with it, what it may become, or what the keys do.
pub fn hint(pen: &mut Pen<'_>, area: Rect, state: &State) {
    let Some(prompt) = &state.prompt else { return };
    pen.buf.set_style(area, ratatui_core::style::Style::reset());
    let blank = " ".repeat(usize::from(area.width));
    pen.text(area.x, area.y, area.right(), &blank, pen.style(Look::Plain));
    if !prompt.offers.is_empty() {
        let offers = prompt.offers.join("  ");
        pen.cut(
            area.x,
            area.y,
            area.right(),
            &offers,
            pen.style(Look::Moved),
        );
    } else if let Some(fault) = prompt.fault().filter(|_| !prompt.text.is_empty()) {
        let text = harmless(format!("column {}: {}", fault.column, fault.message).as_bytes());
        pen.cut(area.x, area.y, area.right(), &text, pen.style(Look::Bad));
    } else {
        let keys = match prompt.ask {
            Ask::Filter => {
                "enter: use it  esc: leave  tab: complete  up/down: earlier ones  \
                 e.g. status >= 500, host == x, time > 1s, body contains \"y\""
            }
            Ask::Search => "enter: find it (n next, N previous)  esc: leave",
            Ask::Save(..) => "enter: save in a new file  esc: leave",
        };
        pen.cut(area.x, area.y, area.right(), keys, pen.style(Look::Dim));
    }
}
