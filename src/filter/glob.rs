//! Matches shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character to mean itself.

/// Whether the whole of `text` matches. Takes time proportional to the product of the lengths at
/// worst: only the last `*` is ever tried again.
pub fn glob_match(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // What follows the last star, and the text that it has not swallowed yet.
    let mut star: Option<(&str, &str)> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix('*') {
            star = Some((rest, text));
            pattern = rest;
            continue;
        }
        let mut after = text.chars();
        let Some(ch) = after.next() else {
            return pattern.is_empty();
        };
        match step(pattern, ch) {
            Some(rest) => (pattern, text) = (rest, after.as_str()),
            None => {
                let Some((rest, tried)) = star else {
                    return false;
                };
                let mut tried = tried.chars();
                tried.next();
                star = Some((rest, tried.as_str()));
                (pattern, text) = (rest, tried.as_str());
            }
        }
    }
}

/// What remains of the pattern if its first element, which is no `*`, matches `ch`.
fn step(pattern: &str, ch: char) -> Option<&str> {
    let mut rest = pattern.chars();
    let matched = match rest.next()? {
        '?' => true,
        '\\' => match rest.next() {
            Some(literal) => literal == ch,
            None => ch == '\\',
        },
        '[' => match set(rest.as_str(), ch) {
            Some((matched, after)) => return matched.then_some(after),
            None => ch == '[',
        },
        literal => literal == ch,
    };
    matched.then_some(rest.as_str())
}

/// Whether the set that begins here (behind its `[`) holds `ch`, and what follows it. `None` when
/// it has no end: then the `[` is an ordinary character, as in fnmatch(3).
fn set(pattern: &str, ch: char) -> Option<(bool, &str)> {
    let inner = pattern.strip_prefix(['!', '^']);
    let is_negated = inner.is_some();
    let mut rest = inner.unwrap_or(pattern).chars();
    let mut holds = false;
    let mut is_first = true;
    loop {
        let first = match rest.next()? {
            ']' if !is_first => return Some((holds != is_negated, rest.as_str())),
            '\\' => rest.next()?,
            other => other,
        };
        is_first = false;
        let mut ahead = rest.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(end)) if end != ']' => {
                let end = if end == '\\' { ahead.next()? } else { end };
                rest = ahead;
                end
            }
            _ => first,
        };
        holds |= (first..=last).contains(&ch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(glob_match(pattern, text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(
                !glob_match(pattern, text),
                "{pattern} should not match {text:?}"
            );
        }
    }

    #[test]
    fn without_wildcards_it_is_equality() {
        check("curl", &["curl"], &["", "cur", "curl2", "Curl"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn star_swallows_any_run() {
        check("*", &["", "a", "a b"], &[]);
        check("py*3", &["py3", "python3", "py33"], &["python", "py3x"]);
        check("*a*b*", &["ab", "xaxbx", "aab"], &["ba", ""]);
        check("a**b", &["ab", "axb"], &["a"]);
        check("*ab", &["aab", "abab"], &["aba"]);
    }

    #[test]
    fn question_mark_is_one_character_of_any_width() {
        check("?", &["a", "漢"], &["", "ab"]);
        check("a?c", &["abc", "aéc"], &["ac", "abbc"]);
    }

    #[test]
    fn sets_hold_ranges_and_can_be_negated() {
        check("[a-c]x", &["ax", "cx"], &["dx", "x", "a"]);
        check("[!a-c]", &["d", "-"], &["a", "b", ""]);
        check("[^a]", &["b"], &["a"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[a-]", &["a", "-"], &["b"]);
        check("*[0-9]", &["eth0"], &["eth"]);
        check(r"[\]]", &["]"], &["\\"]);
    }

    #[test]
    fn an_open_set_is_an_ordinary_bracket() {
        check("[ab", &["[ab"], &["a", "b"]);
        check("[", &["["], &["a"]);
        check("[!", &["[!"], &["x"]);
    }

    #[test]
    fn backslash_takes_the_meaning_away() {
        check(r"a\*b", &["a*b"], &["axb"]);
        check(r"\?\[", &["?["], &["a["]);
        check("a\\", &["a\\"], &["a"]);
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        let pattern = "a*".repeat(2_000) + "b";
        let text = "a".repeat(4_000);
        let start = std::time::Instant::now();
        assert!(!glob_match(&pattern, &text));
        assert!(start.elapsed().as_secs() < 5);
    }
}
