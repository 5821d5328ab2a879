//! Screens, compared with those in `golden/`; `BLESS=1 cargo test --lib tui` takes what is drawn.

use super::*;
use crate::tui::keys::{Wish, press};
use crate::tui::testing::filled;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;
use std::path::Path;

/// What a terminal of this size shows.
fn screen(state: &mut State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            if let Some(cursor) = draw(state, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut out = String::new();
    for y in 0..height {
        let mut x = 0;
        let mut row = String::new();
        while x < width {
            let symbol = buffer.cell((x, y)).unwrap().symbol();
            row.push_str(symbol);
            x += u16::try_from(ratatui_core::text::Span::raw(symbol).width().max(1)).unwrap();
        }
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}

fn keys(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            key => KeyCode::Char(key),
        };
        assert_eq!(
            press(state, KeyEvent::new(code, KeyModifiers::NONE)),
            Wish::Nothing
        );
        while state.history.is_busy() {
            state.history.work(std::time::Duration::from_secs(1));
        }
        screen(state, 80, 24);
    }
}

fn assert_golden(name: &str, screen: &str) {
    // Times are those of the place where the test runs.
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tui/view/golden")
        .join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, screen).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(screen, wanted, "{}", file.display());
}

/// Without the time of day, which depends on the time zone.
fn without_times(screen: &str) -> String {
    let time = regex::Regex::new(r"\d\d:\d\d:\d\d(\.\d+)?").unwrap();
    time.replace_all(screen, |found: &regex::Captures<'_>| {
        "T".repeat(found[0].len())
    })
    .into_owned()
}

#[test]
fn screens_are_as_they_were() {
    let cases: &[(&str, &str, u16, u16)] = &[
        ("list-80x24", "", 80, 24),
        ("list-120x12", "", 120, 12),
        ("list-200x12", "", 200, 12),
        ("list-20x5", "", 20, 5),
        ("details-response-80x24", "g\n", 80, 24),
        ("details-request-80x24", "g\n\t\t\t\t", 80, 24),
        ("details-connection-80x24", "g\n\t", 80, 24),
        ("details-bytes-80x24", "G\n\t\tz", 80, 24),
        ("details-beside-200x20", "g\n", 200, 20),
        ("help-80x24", "?", 80, 24),
        ("export-80x24", "gx", 80, 24),
        ("filters-80x24", "gf", 80, 24),
        ("filter-wrong-80x24", "/status >= 40x", 80, 24),
        ("filter-completed-80x24", "/http.re\t", 80, 24),
        ("filter-80x24", "/status >= 500\n", 80, 24),
        ("filter-nothing-80x24", "/status == 101\n", 80, 24),
        ("order-80x24", "oo", 80, 24),
        ("summary-80x24", "4", 80, 24),
    ];
    for (name, typed, width, height) in cases {
        let mut state = filled();
        keys(&mut state, typed);
        assert_golden(name, &without_times(&screen(&mut state, *width, *height)));
    }
    let mut state = filled();
    state.ascii = true;
    keys(&mut state, "gf");
    let ascii = screen(&mut state, 80, 24);
    assert!(ascii.is_ascii(), "{ascii}");
    assert_golden("ascii-80x24", &without_times(&ascii));
}

#[test]
fn no_size_and_no_key_is_too_much() {
    let everything = "jkgG\n\t\t\t\twzlhwlhm\x1b\x1bMMoOoOoOoOoOoOoO1234? e x\x1bf↓↓\nff-/abc \x1b/status\nn1nNF  c";
    for width in (0..40).chain([79, 80, 99, 100, 129, 130, 159, 160, 179, 180, 300, 500]) {
        for height in (0..12).chain([24, 60]) {
            let mut state = filled();
            screen(&mut state, width, height);
            for key in ["?", "gx", "gf", "/a b", "g\n", "2", "3", "4"] {
                let mut state = filled();
                keys(&mut state, key);
                screen(&mut state, width, height);
            }
        }
    }
    let mut state = filled();
    for key in everything.chars() {
        keys(&mut state, &key.to_string());
        for (width, height) in [(80, 24), (20, 5), (7, 3), (1, 1), (300, 80)] {
            screen(&mut state, width, height);
        }
    }
}

#[test]
fn nothing_of_the_wire_drives_the_terminal() {
    for typed in [
        "",
        "g\n",
        "j\n\t\t\t",
        "jj\n",
        "jj\n\t",
        "G\n\t\t",
        "jjf",
        "jjxc",
        "4",
        "2",
        "3",
    ] {
        let mut state = filled();
        keys(&mut state, typed);
        let shown = screen(&mut state, 180, 60);
        let is_harmful = |ch: char| ch.is_control() && ch != '\n' || ch == '\u{202e}';
        assert!(!shown.contains(is_harmful), "{typed:?}: {shown:?}");
    }
}

#[test]
fn a_value_of_the_details_becomes_a_filter() {
    let mut state = filled();
    // The status line of the response.
    keys(&mut state, "g\nf");
    assert_eq!(state.filter, "status == 200");
    keys(&mut state, "\n↓f");
    assert_eq!(
        state.filter,
        "status == 200 and http.resp.header[\"content-type\"] == application/json"
    );
    assert_eq!(state.len(), 1);
    keys(&mut state, "\x1b\x1b");
    assert_eq!(state.filter, "");
    // The host, of those that the row offers.
    keys(&mut state, "gf\n");
    assert_eq!(state.filter, "host == api.example.com");
}

#[test]
fn every_filter_that_is_offered_is_one_and_finds_where_it_was_offered() {
    use crate::tui::details::{Tab, of};
    use crate::tui::row::filters;
    let state = filled();
    let mut count = 0;
    for number in 1..state.history.next() {
        let exchange = state.history.get(number).unwrap();
        let of_lines = Tab::ALL
            .into_iter()
            .flat_map(|tab| of(exchange, tab))
            .filter_map(|line| line.filter);
        for words in of_lines.chain(filters(exchange)) {
            let filter = crate::filter::Filter::parse(&words)
                .unwrap_or_else(|error| panic!("{words}: {error}"));
            assert!(exchange.passes(&filter), "{number}: {words}");
            count += 1;
        }
    }
    assert!(count > 300, "{count}");
}

#[test]
fn the_chosen_one_stays_while_others_come_and_go() {
    use crate::tui::testing::{SECOND, conn, request};
    let mut state = filled();
    keys(&mut state, "jjjjj");
    let chosen = state.selected;
    let row = |state: &mut State| {
        let shown = screen(state, 80, 24);
        shown
            .lines()
            .position(|line| line.contains("/page/2 "))
            .unwrap()
    };
    let before = row(&mut state);
    let conn = std::rc::Rc::new(conn(3));
    for number in 0..100 {
        state
            .history
            .message(&conn, &request(9 * SECOND + number, "GET", "/new", b""));
    }
    assert_eq!((state.selected, row(&mut state)), (chosen, before));
    // Paused, nothing new is in the list; followed, the newest is chosen.
    keys(&mut state, " ");
    let len = state.len();
    state
        .history
        .message(&conn, &request(10 * SECOND, "GET", "/newest", b""));
    assert_eq!(state.len(), len);
    keys(&mut state, "F");
    assert_eq!(state.selected, Some(state.history.next() - 1));
}

#[test]
fn a_search_goes_round_in_both_directions() {
    let mut state = filled();
    state.needle = "PAGE/2".to_owned();
    keys(&mut state, "n");
    let first = state.selected;
    keys(&mut state, "n");
    assert_ne!(state.selected, first);
    keys(&mut state, "N");
    assert_eq!(state.selected, first);
    keys(&mut state, "NN");
    assert!(state.selected > first);
    state.needle = "nowhere".to_owned();
    keys(&mut state, "n");
    assert!(state.notice.is_some());
}
