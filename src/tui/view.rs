//! Draws what the state holds into cells. Pure: no terminal is touched here.

mod details;
mod list;
mod over;
mod status;
mod tables;

use super::state::{State, View};
use super::text::{Line, Look};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::{Position, Rect};
use ratatui_core::style::{Color, Modifier, Style};

/// From this width on the details stand beside the list.
const WIDE: u16 = 180;
/// With fewer rows than this only one of the panes is shown.
const LOW: u16 = 9;

/// Writes into the cells, never beyond them.
pub struct Pen<'a> {
    buf: &'a mut Buffer,
    color: bool,
    ascii: bool,
}

impl Pen<'_> {
    /// Writes harmless text from `x` on, up to `end`; where it ended.
    fn text(&mut self, x: u16, y: u16, end: u16, text: &str, style: Style) -> u16 {
        let area = *self.buf.area();
        let end = end.min(area.right());
        if x < area.left() || x >= end || y < area.top() || y >= area.bottom() {
            return x;
        }
        let spelled;
        let text = if self.ascii && !text.is_ascii() {
            spelled = in_ascii(text);
            &spelled
        } else {
            text
        };
        let room = usize::from(end - x);
        self.buf.set_stringn(x, y, text, room, style).0
    }

    /// Likewise, with what does not fit marked as such.
    fn cut(&mut self, x: u16, y: u16, end: u16, text: &str, style: Style) {
        let behind = self.text(x, y, end, text, style);
        let width = ratatui_core::text::Span::raw(text).width();
        if end > x && width > usize::from(end - x) && behind > x {
            let mark = if self.ascii { "~" } else { "…" };
            self.text(end - 1, y, end, mark, self.style(Look::Dim));
        }
    }

    /// A line in its looks.
    fn line(&mut self, x: u16, y: u16, end: u16, line: &Line) -> u16 {
        line.spans.iter().fold(x, |x, (text, look)| {
            self.text(x, y, end, text, self.style(*look))
        })
    }

    fn style(&self, look: Look) -> Style {
        let plain = Style::new();
        let colored = |color| if self.color { plain.fg(color) } else { plain };
        match look {
            Look::Plain => plain,
            Look::Dim => plain.add_modifier(Modifier::DIM),
            Look::Bold => plain.add_modifier(Modifier::BOLD),
            Look::Name => colored(Color::Blue).add_modifier(Modifier::BOLD),
            Look::Text => colored(Color::Green),
            Look::Number | Look::Moved => colored(Color::Cyan),
            Look::Good => colored(Color::Green),
            Look::Warning => colored(Color::Yellow),
            Look::Bad => colored(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// The row as the chosen one; dimmed where the keys go elsewhere.
    fn choose(&mut self, area: Rect, y: u16, has_keys: bool) {
        let row = Rect::new(area.x, y, area.width, 1);
        let style = match has_keys {
            // Turned round, colours would be a motley ground.
            true => Style::new()
                .fg(Color::Reset)
                .add_modifier(Modifier::REVERSED),
            false => Style::new().add_modifier(Modifier::UNDERLINED),
        };
        self.buf
            .set_style(row.intersection(*self.buf.area()), style);
    }

    /// A bar of a title.
    fn bar(&mut self, area: Rect, y: u16) {
        let row = Rect::new(area.x, y, area.width, 1);
        let style = Style::new().add_modifier(Modifier::REVERSED | Modifier::DIM);
        self.buf
            .set_style(row.intersection(*self.buf.area()), style);
    }
}

/// What a terminal without UTF-8 may see.
fn in_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        match ch {
            ' '..='~' => out.push(ch),
            _ => out.push_str(&format!("\\u{{{:x}}}", u32::from(ch))),
        }
    }
    out
}

/// Draws everything; where the cursor is to be shown, if it is.
pub fn draw(state: &mut State, buf: &mut Buffer) -> Option<Position> {
    let area = *buf.area();
    if area.width == 0 || area.height == 0 {
        return None;
    }
    let (color, ascii) = (state.color, state.ascii);
    let mut pen = Pen { buf, color, ascii };
    let pen = &mut pen;
    let mut rest = area;
    if rest.height >= 5 {
        status::views(pen, row_of(rest, 0), state);
        rest = below(rest, 1);
    }
    let mut cursor = None;
    if rest.height >= 2 {
        let bottom = row_of(rest, rest.height - 1);
        rest.height -= 1;
        cursor = status::bottom(pen, bottom, state);
    }
    if state.prompt.is_some() && rest.height >= 2 {
        let hint = row_of(rest, rest.height - 1);
        rest.height -= 1;
        status::hint(pen, hint, state);
    }
    match state.view {
        View::Exchanges => exchanges(pen, rest, state),
        View::Connections => tables::connections(pen, rest, state),
        View::Processes => tables::processes(pen, rest, state),
        View::Summary => tables::summary(pen, rest, state),
    }
    over::draw(pen, rest, state);
    cursor
}

fn exchanges(pen: &mut Pen<'_>, area: Rect, state: &mut State) {
    if !state.has_details {
        list::draw(pen, area, state);
        return;
    }
    if state.zoomed || area.height < LOW {
        match state.in_details {
            true => details::draw(pen, area, state),
            false => list::draw(pen, area, state),
        }
        return;
    }
    let mut list_area = area;
    let mut details_area = area;
    if area.width >= WIDE {
        list_area.width = area.width / 2;
        details_area.x += list_area.width + 1;
        details_area.width -= list_area.width + 1;
    } else {
        list_area.height = area.height * 2 / 5;
        details_area = below(area, list_area.height);
    }
    list::draw(pen, list_area, state);
    details::draw(pen, details_area, state);
}

fn row_of(area: Rect, row: u16) -> Rect {
    Rect::new(area.x, area.y + row, area.width, 1)
}

fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect::new(area.x, area.y + rows, area.width, area.height - rows)
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
