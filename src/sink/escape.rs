//! Makes foreign bytes safe for a terminal.
//!
//! Every byte that comes from a captured program, its peer or a capture file reaches a terminal
//! through one of the functions here. Valid UTF-8 is kept; what could move the cursor, set the
//! clipboard or a title, hide or reorder text is spelled out: `\xNN` for an ASCII control or a
//! byte that is not UTF-8, `\u{…}` for a character.

/// Appends `bytes` as one word: like [`line`], and white space and `\` are escaped too, so that a
/// column stays a column and the original can be told from its looks.
pub fn token(out: &mut Vec<u8>, bytes: &[u8]) {
    let plain = |byte| matches!(byte, 0x21..=0x7e) && byte != b'\\';
    escape(out, bytes, plain, |ch| {
        is_harmless(ch) && !ch.is_whitespace()
    });
}

/// Appends `bytes` so that they stay on one line; spaces and `\` are kept.
pub fn line(out: &mut Vec<u8>, bytes: &[u8]) {
    escape(out, bytes, |byte| matches!(byte, 0x20..=0x7e), is_harmless);
}

/// Appends `bytes` with their own line ends (`\n`, `\r\n`) and tabs honoured. Each line begins
/// with `indent` and ends with `\n`, also the last; nothing is written for no bytes. The indent
/// is what keeps a payload from posing as a line of ours.
pub fn lines(out: &mut Vec<u8>, bytes: &[u8], indent: &str) {
    for row in bytes.split_inclusive(|&byte| byte == b'\n') {
        let row = row
            .strip_suffix(b"\n")
            .map_or(row, |ended| ended.strip_suffix(b"\r").unwrap_or(ended));
        out.extend_from_slice(indent.as_bytes());
        let plain = |byte| matches!(byte, 0x20..=0x7e | b'\t');
        escape(out, row, plain, is_harmless);
        out.push(b'\n');
    }
}

/// `text` as [`line`] writes it, for messages.
pub fn shown(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    line(&mut out, text.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte as the text column of a hex dump shows it: `.` unless it is printable ASCII.
pub fn dot(byte: u8) -> u8 {
    match byte {
        0x20..=0x7e => byte,
        _ => b'.',
    }
}

/// Appends `text` as a JSON string (RFC 8259 section 7) with its quotes. What a terminal must not
/// see is written as `\uXXXX`, which a JSON reader turns back into the very same text.
pub fn json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let special = |byte: u8| !matches!(byte, 0x20..=0x7e) || byte == b'"' || byte == b'\\';
        let run = rest
            .iter()
            .position(|&byte| special(byte))
            .unwrap_or(rest.len());
        let (plain, tail) = rest.split_at(run);
        out.extend_from_slice(plain);
        rest = tail;
        let First::Char(ch) = first(rest) else { break };
        rest = rest.get(ch.len_utf8()..).unwrap_or_default();
        match ch {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ if is_harmless(ch) => push_char(out, ch),
            _ => {
                for unit in ch.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out.push(b'"');
}

/// What a byte string begins with.
enum First<'a> {
    Char(char),
    Invalid(&'a [u8]),
    Nothing,
}

fn first(bytes: &[u8]) -> First<'_> {
    // A character has at most four bytes, so the window cannot cut the first one.
    let window = bytes.get(..4).unwrap_or(bytes);
    let Some(chunk) = window.utf8_chunks().next() else {
        return First::Nothing;
    };
    match chunk.valid().chars().next() {
        Some(ch) => First::Char(ch),
        None => First::Invalid(chunk.invalid()),
    }
}

/// Runs of bytes that `plain` accepts (ASCII only) are copied as they are: the fast path.
fn escape(
    out: &mut Vec<u8>,
    mut rest: &[u8],
    plain: impl Fn(u8) -> bool,
    harmless: impl Fn(char) -> bool,
) {
    loop {
        let run = rest
            .iter()
            .position(|&byte| !plain(byte))
            .unwrap_or(rest.len());
        let (kept, tail) = rest.split_at(run);
        out.extend_from_slice(kept);
        let used = match first(tail) {
            First::Nothing => return,
            First::Invalid(bytes) => {
                bytes.iter().for_each(|&byte| push_hex(out, byte));
                bytes.len()
            }
            First::Char(ch) => {
                match ch {
                    '\\' => out.extend_from_slice(b"\\\\"),
                    '\0'..='\x7f' => push_hex(out, ch as u8),
                    _ if harmless(ch) => push_char(out, ch),
                    _ => out.extend_from_slice(format!("\\u{{{:x}}}", u32::from(ch)).as_bytes()),
                }
                ch.len_utf8()
            }
        };
        rest = tail.get(used..).unwrap_or_default();
    }
}

fn push_char(out: &mut Vec<u8>, ch: char) {
    out.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes());
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
}

/// Whether the character shows as itself and does nothing else. Not so are controls, format
/// characters, what renderers leave out (UAX #44: Cc, Cf, default-ignorable), and the line and
/// paragraph separators.
fn is_harmless(ch: char) -> bool {
    !matches!(ch,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_line(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        line(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    fn as_token(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        token(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    fn as_lines(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        lines(&mut out, bytes, "\t");
        String::from_utf8(out).unwrap()
    }

    /// Every way out of here, for attacks that must work on none of them.
    fn everywhere(bytes: &[u8]) -> [String; 4] {
        let mut json = Vec::new();
        json_string(&mut json, &String::from_utf8_lossy(bytes));
        [
            as_line(bytes),
            as_token(bytes),
            as_lines(bytes).replace(['\t', '\n'], ""),
            String::from_utf8(json).unwrap(),
        ]
    }

    #[test]
    fn osc_52_cannot_set_the_clipboard() {
        assert_eq!(as_line(b"\x1b]52;c;aGk=\x07"), r"\x1b]52;c;aGk=\x07");
        for shown in everywhere(b"\x1b]52;c;aGk=\x07") {
            assert!(!shown.contains(['\x1b', '\x07']), "{shown}");
        }
    }

    #[test]
    fn osc_0_cannot_change_the_title() {
        for shown in everywhere(b"\x1b]0;root@host\x1b\\") {
            assert!(!shown.contains('\x1b'), "{shown}");
        }
    }

    #[test]
    fn csi_cannot_move_the_cursor_or_colour_the_text() {
        assert_eq!(as_line(b"\x1b[2J\x1b[31m"), r"\x1b[2J\x1b[31m");
    }

    #[test]
    fn eight_bit_csi_is_caught_as_character_and_as_byte() {
        assert_eq!(as_line("\u{9b}2J".as_bytes()), r"\u{9b}2J");
        assert_eq!(as_line(b"\x9b2J"), r"\x9b2J");
    }

    #[test]
    fn carriage_return_cannot_overwrite_the_line() {
        assert_eq!(as_line(b"real\rfake"), r"real\x0dfake");
        assert_eq!(as_lines(b"real\rfake\n"), "\treal\\x0dfake\n");
    }

    #[test]
    fn backspace_and_delete_cannot_erase() {
        assert_eq!(as_line(b"rm\x08\x08ls\x7f"), r"rm\x08\x08ls\x7f");
    }

    #[test]
    fn newline_cannot_forge_a_line() {
        assert_eq!(as_line(b"a\n12:00:00 root"), r"a\x0a12:00:00 root");
        for row in as_lines(b"a\n12:00:00 root[1]\r\n\nb").lines() {
            assert!(row.starts_with('\t'), "{row:?}");
        }
    }

    #[test]
    fn unicode_line_separators_cannot_forge_a_line() {
        let separators = "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f";
        let want = r"a\u{2028}b\u{2029}c\u{85}d\x0be\x0cf";
        assert_eq!(as_line(separators.as_bytes()), want);
    }

    #[test]
    fn bidi_override_cannot_reorder_the_line() {
        for ch in "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}".chars() {
            for shown in everywhere(ch.to_string().as_bytes()) {
                assert!(!shown.contains(ch), "{:x}", u32::from(ch));
            }
        }
        assert_eq!(as_line("a\u{202e}b".as_bytes()), r"a\u{202e}b");
    }

    #[test]
    fn zero_width_characters_cannot_hide_text() {
        for ch in "\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}\u{e0041}\u{fe0f}\u{180e}".chars()
        {
            for shown in everywhere(ch.to_string().as_bytes()) {
                assert!(!shown.contains(ch), "{:x}", u32::from(ch));
            }
        }
    }

    #[test]
    fn no_byte_and_no_character_yields_a_control() {
        for byte in 0..=255 {
            for shown in everywhere(&[b'a', byte, b'b']) {
                assert!(!shown.contains(char::is_control), "{byte:#x}: {shown:?}");
            }
        }
        for ch in '\0'..=char::MAX {
            let mut out = Vec::new();
            line(&mut out, ch.to_string().as_bytes());
            assert!(!String::from_utf8(out).unwrap().contains(char::is_control));
        }
    }

    #[test]
    fn a_space_cannot_shift_the_columns() {
        assert_eq!(as_token(b"my prog"), r"my\x20prog");
        assert_eq!(
            as_token("a\u{a0}b\u{3000}c".as_bytes()),
            r"a\u{a0}b\u{3000}c"
        );
    }

    #[test]
    fn a_backslash_cannot_pose_as_an_escape_in_a_word() {
        assert_eq!(as_token(br"a\x20b"), r"a\\x20b");
        assert_eq!(as_line(br#"{"a":"\u0041"}"#), r#"{"a":"\u0041"}"#);
    }

    #[test]
    fn text_in_any_script_is_kept() {
        let text = "grün 漢字 кот 🔓 נון";
        assert_eq!(as_line(text.as_bytes()), text);
    }

    #[test]
    fn invalid_utf8_is_shown_byte_by_byte_at_every_truncation() {
        let whole = "é漢🔓".as_bytes();
        for end in 0..=whole.len() {
            let shown = as_line(&whole[..end]);
            let cut = String::from_utf8_lossy(&whole[..end]).contains('\u{fffd}');
            assert_eq!(shown.contains(r"\x"), cut, "{end}: {shown}");
        }
        assert_eq!(as_line(b"\xc3\x28\xf0\x9f\x94"), r"\xc3(\xf0\x9f\x94");
        assert_eq!(
            as_line(b"\xed\xa0\x80"),
            r"\xed\xa0\x80",
            "a surrogate is not UTF-8"
        );
    }

    #[test]
    fn ascii_payload_keeps_its_lines_and_tabs() {
        let bytes = b"GET / HTTP/1.1\r\nA:\tb\n\r\nbody";
        assert_eq!(as_lines(bytes), "\tGET / HTTP/1.1\n\tA:\tb\n\t\n\tbody\n");
        assert_eq!(as_lines(b"x\n"), "\tx\n");
        assert_eq!(as_lines(b""), "");
        assert_eq!(as_lines(b"\r"), "\t\\x0d\n");
    }

    #[test]
    fn json_string_reads_back_as_the_same_text() {
        let nasty = "q\"b\\n\nr\rt\te\x1bd\x7fc\u{9b}\u{202e}\u{e0041}é🔓\0";
        let mut out = Vec::new();
        json_string(&mut out, nasty);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), nasty);
    }
}
