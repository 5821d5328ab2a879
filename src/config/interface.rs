//! The options of the terminal UI (`--tui`).

use super::Surroundings;
use crate::cli::Cli;
use crate::tui;

/// How much it keeps and how it looks.
pub fn options(cli: &Cli, around: &Surroundings) -> tui::Options {
    let text = super::output(cli, around).text;
    let mut bounds = tui::Bounds::default();
    if let Some(history) = cli.history {
        bounds.exchanges = usize::try_from(history.exchanges).unwrap_or(usize::MAX);
        if let Some(bytes) = history.bytes {
            bounds.bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
    }
    tui::Options {
        bounds,
        color: text.color,
        ascii: text.ascii || !has_utf8(around),
    }
}

/// What the environment says of the terminal's characters (locale(7)).
fn has_utf8(around: &Surroundings) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(around.env)
        .find(|value| !value.is_empty());
    let name = set
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    name.contains("utf-8") || name.contains("utf8")
}
