//! What is written about the program is what the program is: man page, completions, README.
//!
//! `BLESS=1 cargo test --test docs` rewrites the generated files.

use clap::{CommandFactory, Parser};
use std::path::Path;
use std::process::Command;
use tlssniff::cli::Cli;
use tlssniff::filter::Filter;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn printed(what: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tlssniff"))
        .args(["--generate", what])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_generated(what: &str, path: &str) {
    let printed = printed(what);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &printed).unwrap();
    }
    // Not assert_eq: two whole man pages on the screen help nobody.
    assert!(
        read(path) == printed,
        "{path} is not what `tlssniff --generate {what}` prints; \
         run `BLESS=1 cargo test --test docs`"
    );
}

#[test]
fn man_page_is_what_the_binary_prints() {
    assert_generated("man", "man/tlssniff.8");
}

#[test]
fn completions_are_what_the_binary_prints() {
    assert_generated("bash", "completions/tlssniff.bash");
    assert_generated("zsh", "completions/_tlssniff");
    assert_generated("fish", "completions/tlssniff.fish");
}

#[test]
fn man_page_has_every_option_and_no_hidden_one() {
    // The page writes `-` as `\-`, so that it can be copied.
    let man = printed("man").replace("\\-", "-");
    let command = Cli::command();
    for argument in command.get_arguments() {
        let long = argument.get_long().map(|name| format!("--{name}"));
        let short = argument.get_short().map(|letter| format!("-{letter}"));
        let Some(option) = long.or(short) else {
            continue;
        };
        let shown = man.contains(&format!("\\fB{option}\\fR"));
        assert_eq!(shown, !argument.is_hide_set(), "{option}");
    }
}

/// The lines of the README's code blocks.
fn readme_commands() -> Vec<String> {
    let readme = read("README.md");
    let blocks = readme.split("```").skip(1).step_by(2);
    blocks
        .filter(|block| block.starts_with("sh\n"))
        .flat_map(str::lines)
        .skip(1)
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// Splits as a shell does, as far as the README needs it: quotes, and the end at `|`, `>` or `#`.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#' | '|' | '>') if word.is_none() => return words,
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "unbalanced quotes in {line:?}");
    words.extend(word);
    words
}

#[test]
fn readme_examples_are_command_lines_that_tlssniff_takes() {
    let mut seen = 0;
    for line in readme_commands() {
        // What $(pgrep …) would print.
        let line = line.replace("$(pgrep -d, nginx)", "1,2");
        let mut words = words(&line);
        if words.first().is_some_and(|word| word == "sudo") {
            words.remove(0);
        }
        if words.first().is_none_or(|word| word != "tlssniff") {
            continue;
        }
        seen += 1;
        let cli = Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}\n{error}"));
        let filter = cli.filter.join(" ");
        if let Err(error) = Filter::parse(&filter) {
            panic!("{line}\n{error}\n{}", error.marked(&filter));
        }
    }
    assert!(seen >= 5, "only {seen} examples found");
}

#[test]
fn readme_make_commands_exist() {
    let makefile = read("Makefile");
    let readme = read("README.md");
    let mut seen = 0;
    for (at, _) in readme.match_indices("make ") {
        let before = readme[..at].chars().next_back();
        if !matches!(before, Some('`' | '\n' | ' ')) {
            continue;
        }
        let target: String = readme[at + "make ".len()..]
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        let in_code = before != Some(' ');
        if in_code && !target.is_empty() {
            seen += 1;
            let rule = format!("\n{target}:");
            assert!(
                makefile.contains(&rule),
                "make {target} is not in the Makefile"
            );
        }
    }
    assert!(seen >= 2, "the README has no make commands");
}

#[test]
fn readme_names_only_options_that_exist() {
    let command = Cli::command();
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
        .collect();
    let readme = read("README.md");
    // Inline code that begins with an option: `--framing raw`.
    for code in readme.split('`').skip(1).step_by(2) {
        if let Some(option) = code
            .split([' ', '='])
            .next()
            .filter(|o| o.starts_with("--"))
        {
            assert!(
                option == "--" || known.iter().any(|name| name == option),
                "{option} is in the README and nowhere else"
            );
        }
    }
}
