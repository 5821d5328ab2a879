//! Decides on colour and holds the few styles.

use std::ffi::OsString;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    Auto,
    Always,
    Never,
}

impl When {
    /// The value of `--color` by its name; `None` for any other word.
    pub fn from_name(name: &str) -> Option<When> {
        match name {
            "auto" => Some(When::Auto),
            "always" => Some(When::Always),
            "never" => Some(When::Never),
            _ => None,
        }
    }
}

/// Whether to colour. `env` looks up an environment variable. `auto` follows
/// <https://no-color.org> first, then <https://bixense.com/clicolors>, then the terminal.
pub fn enabled(when: When, is_tty: bool, env: impl Fn(&str) -> Option<OsString>) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let no_color = env("NO_COLOR").is_some_and(|value| !value.is_empty());
            let force =
                env("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
            let dumb = env("TERM").is_some_and(|value| value == "dumb");
            !no_color && (force || is_tty && !dumb)
        }
    }
}

/// What is coloured: only the eight basic colours and dim, which every theme keeps readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Time,
    Out,
    In,
    Trouble,
    Connection,
}

/// Ends every style.
pub const RESET: &str = "\x1b[0m";

impl Style {
    /// The escape sequence that begins it (ECMA-48 SGR).
    pub fn begin(self) -> &'static str {
        match self {
            Style::Time => "\x1b[2m",
            Style::Out => "\x1b[32m",
            Style::In => "\x1b[36m",
            Style::Trouble => "\x1b[31m",
            Style::Connection => "\x1b[33m",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(is_tty: bool, vars: &[(&str, &str)]) -> bool {
        enabled(When::Auto, is_tty, |name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn auto_colours_a_terminal_only() {
        assert!(auto(true, &[]));
        assert!(!auto(false, &[]));
        assert!(!auto(true, &[("TERM", "dumb")]));
    }

    #[test]
    fn no_color_wins_unless_empty() {
        assert!(!auto(true, &[("NO_COLOR", "1")]));
        assert!(!auto(true, &[("NO_COLOR", "0"), ("CLICOLOR_FORCE", "1")]));
        assert!(auto(true, &[("NO_COLOR", "")]));
    }

    #[test]
    fn clicolor_force_colours_a_pipe() {
        assert!(auto(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!auto(false, &[("CLICOLOR_FORCE", "0")]));
    }

    #[test]
    fn always_and_never_beat_the_environment() {
        let env = |name: &str| (name == "NO_COLOR").then(|| OsString::from("1"));
        assert!(enabled(When::Always, false, env));
        assert!(!enabled(When::Never, true, |_| Some(OsString::from("1"))));
        assert_eq!(When::from_name("always"), Some(When::Always));
        assert_eq!(When::from_name("Always"), None);
    }
}
