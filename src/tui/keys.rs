//! What each key does.

use super::export::Form;
use super::order::Order;
use super::prompt::Ask;
use super::state::{Over, State, View};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Keys and what they do, for the help and the manual.
pub const HELP: &[(&str, &str)] = &[
    ("up down, j k", "move; also PgUp PgDn, g G, ctrl-u ctrl-d"),
    ("left right, h l", "with w off: move long lines"),
    ("enter", "open; in other views: show only these exchanges"),
    ("esc", "back: close the details, then take the filter away"),
    ("tab", "next pane, tab or view; shift-tab: the one before"),
    ("1 2 3 4", "exchanges, connections, processes, summary"),
    ("/", "filter, in the language of the command line"),
    ("f -", "filter for, or against, a value of what is chosen"),
    ("ctrl-f, n N", "search; next and previous match"),
    ("F", "follow the newest on or off"),
    ("space", "pause the list; the capture goes on"),
    ("m M", "mark; show only marked ones"),
    ("o O", "order by the next column; turn it round"),
    ("x", "save the exchange: curl command, HAR, body, pcapng"),
    ("w z", "wrap lines; the pane alone on the screen"),
    ("c", "clear the list"),
    ("e", "messages of tlssniff"),
    ("ctrl-l", "draw the screen anew"),
    ("ctrl-z", "suspend; what is captured meanwhile may be lost"),
    ("q, ctrl-c", "quit"),
];

/// What is left to do for whoever owns the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    Quit,
    Suspend,
    Redraw,
}

/// A key was pressed.
pub fn press(state: &mut State, key: KeyEvent) -> Wish {
    if key.kind == KeyEventKind::Release {
        return Wish::Nothing;
    }
    // Two keys in quick succession, which look like one with Alt.
    if key.modifiers.contains(KeyModifiers::ALT) {
        press(state, KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        let modifiers = key.modifiers - KeyModifiers::ALT;
        return press(state, KeyEvent::new(key.code, modifiers));
    }
    state.notice = None;
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if ctrl => return Wish::Quit,
        KeyCode::Char('z') if ctrl => return Wish::Suspend,
        KeyCode::Char('l') if ctrl => return Wish::Redraw,
        _ => {}
    }
    if state.prompt.is_some() {
        in_prompt(state, key.code, ctrl);
        return Wish::Nothing;
    }
    state.message = None;
    if state.over.is_some() {
        in_over(state, key.code);
        return Wish::Nothing;
    }
    anywhere(state, key.code, ctrl)
}

fn in_prompt(state: &mut State, code: KeyCode, ctrl: bool) {
    match code {
        KeyCode::Enter => return state.enter(),
        KeyCode::Up => return state.earlier(true),
        KeyCode::Down => return state.earlier(false),
        KeyCode::Esc => {
            state.prompt = None;
            return;
        }
        _ => {}
    }
    let Some(prompt) = &mut state.prompt else {
        return;
    };
    match code {
        KeyCode::Char('a') if ctrl => prompt.home(),
        KeyCode::Char('e') if ctrl => prompt.end(),
        KeyCode::Char('u') if ctrl => prompt.delete_to_start(),
        KeyCode::Char('w') if ctrl => prompt.delete_word(),
        KeyCode::Char('h') if ctrl => prompt.backspace(),
        KeyCode::Char('d') if ctrl => prompt.delete(),
        KeyCode::Char(_) if ctrl => {}
        KeyCode::Char(ch) => prompt.insert(ch),
        KeyCode::Backspace => prompt.backspace(),
        KeyCode::Delete => prompt.delete(),
        KeyCode::Left => prompt.left(),
        KeyCode::Right => prompt.right(),
        KeyCode::Home => prompt.home(),
        KeyCode::End => prompt.end(),
        KeyCode::Tab => prompt.complete(),
        _ => {}
    }
}

fn in_over(state: &mut State, code: KeyCode) {
    match (state.over.take(), code) {
        (_, KeyCode::Esc | KeyCode::Char('q')) => {}
        (Some(Over::Filters(filters, at)), KeyCode::Up | KeyCode::Char('k')) => {
            state.over = Some(Over::Filters(filters, at.saturating_sub(1)));
        }
        (Some(Over::Filters(filters, at)), KeyCode::Down | KeyCode::Char('j')) => {
            let last = filters.len().saturating_sub(1);
            state.over = Some(Over::Filters(filters, (at + 1).min(last)));
        }
        (Some(Over::Filters(filters, at)), KeyCode::Enter | KeyCode::Char('f' | '-')) => {
            if let Some(filter) = filters.get(at) {
                state.narrow(filter, false);
            }
        }
        (Some(over @ Over::Filters(..)), _) => state.over = Some(over),
        (Some(Over::Export(number)), KeyCode::Char(key)) => {
            match Form::ALL.iter().find(|(own, ..)| *own == key) {
                Some((_, form, _)) => state.ask(Ask::Save(*form, number)),
                None => state.over = Some(Over::Export(number)),
            }
        }
        _ => {}
    }
}

fn anywhere(state: &mut State, code: KeyCode, ctrl: bool) -> Wish {
    let page = isize::try_from(state.page).unwrap_or(1);
    match code {
        KeyCode::Char('f') if ctrl => state.ask(Ask::Search),
        KeyCode::Char('d') if ctrl => state.step(page / 2),
        KeyCode::Char('u') if ctrl => state.step(-page / 2),
        KeyCode::Char('n') if ctrl => state.step(1),
        KeyCode::Char('p') if ctrl => state.step(-1),
        KeyCode::Char(_) if ctrl => {}
        KeyCode::Char('q') => return Wish::Quit,
        KeyCode::Down | KeyCode::Char('j') => state.step(1),
        KeyCode::Up | KeyCode::Char('k') => state.step(-1),
        KeyCode::PageDown => state.step(page),
        KeyCode::PageUp => state.step(-page),
        KeyCode::Home | KeyCode::Char('g') => state.step(isize::MIN / 2),
        KeyCode::End | KeyCode::Char('G') => state.step(isize::MAX / 2),
        KeyCode::Left | KeyCode::Char('h') => state.shift = state.shift.saturating_sub(8),
        KeyCode::Right | KeyCode::Char('l') if state.in_details => {
            state.wraps = false;
            state.shift = (state.shift + 8).min(1 << 16);
        }
        KeyCode::Right | KeyCode::Char('l') => state.open(),
        KeyCode::Enter => match state.view {
            View::Exchanges => state.open(),
            _ => state.choose_filter(false),
        },
        KeyCode::Esc => state.back(),
        KeyCode::Tab => state.turn_tab(false),
        KeyCode::BackTab => state.turn_tab(true),
        KeyCode::Char(digit @ '1'..='4') => {
            let at = usize::try_from(u32::from(digit) - u32::from('1')).unwrap_or(0);
            state.view = View::ALL.get(at).copied().unwrap_or(state.view);
        }
        KeyCode::Char('/') => state.ask(Ask::Filter),
        KeyCode::Char('f') => state.choose_filter(false),
        KeyCode::Char('-') => state.choose_filter(true),
        KeyCode::Char('n') => state.find(false),
        KeyCode::Char('N') => state.find(true),
        KeyCode::Char('F') => state.follow(!state.follows),
        KeyCode::Char(' ') => state.pause(),
        KeyCode::Char('m') => state.mark(),
        KeyCode::Char('M') => state.show_only_marked(),
        KeyCode::Char('o') => state.reorder(Order::cycle),
        KeyCode::Char('O') => state.reorder(Order::turn),
        KeyCode::Char('w') => {
            state.wraps = !state.wraps;
            state.shift = 0;
        }
        KeyCode::Char('z') => state.zoomed = !state.zoomed,
        KeyCode::Char('c') => state.clear(),
        KeyCode::Char('e') => state.over = Some(Over::Messages),
        KeyCode::Char('x') => {
            if let Some(number) = state.selected.filter(|_| state.view == View::Exchanges) {
                state.over = Some(Over::Export(number));
            }
        }
        KeyCode::Char('?') => state.over = Some(Over::Help),
        _ => {}
    }
    Wish::Nothing
}
