//! Text in another character set than UTF-8, by what the message says of it (WHATWG Encoding).

use super::content::is_text;
use crate::proto::Http;
use encoding_rs::{Encoding, UTF_8};

/// A document names its character set within so many bytes (HTML standard, section 4.2.5.4).
const MAX_AHEAD: usize = 1024;

/// The text that the bytes stand for; `None` for UTF-8, for sets that are not known, and for what
/// is no text.
pub fn decode(http: &Http, bytes: &[u8]) -> Option<String> {
    let kind = String::from_utf8_lossy(http.header("content-type").unwrap_or_default())
        .to_ascii_lowercase();
    let is_textual = kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "javascript"]
            .iter()
            .any(|word| kind.contains(word));
    let (encoding, mark) = match Encoding::for_bom(bytes).filter(|_| is_textual) {
        Some((encoding, len)) => (encoding, len),
        None => (named(&kind).or_else(|| declared(&kind, bytes))?, 0),
    };
    if encoding == UTF_8 {
        return None;
    }
    let bytes = bytes.get(mark..).unwrap_or_default();
    let (text, _) = encoding.decode_without_bom_handling(bytes);
    is_text(text.as_bytes()).then(|| text.into_owned())
}

/// The `charset` of the media type.
fn named(kind: &str) -> Option<&'static Encoding> {
    let mut parameters = kind.split(';').skip(1);
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.trim() == "charset").then(|| value.trim().trim_matches(['"', '\'']))
    })?;
    label(value.as_bytes())
}

/// What an HTML or XML document says of itself at its beginning: `charset=`, `encoding=`.
fn declared(kind: &str, bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..MAX_AHEAD).unwrap_or(bytes).to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let value = if kind.contains("html") {
        let meta = head.split("<meta").skip(1);
        meta.filter_map(|tag| tag.split('>').next()?.split_once("charset"))
            .find_map(|(_, after)| after.trim_start().strip_prefix('='))?
    } else if kind.contains("xml") {
        let declaration = head.strip_prefix("<?xml")?.split("?>").next()?;
        let (_, after) = declaration.split_once("encoding")?;
        after.trim_start().strip_prefix('=')?
    } else {
        return None;
    };
    let value = value.trim_start().trim_start_matches(['"', '\'']);
    let is_end = |ch: char| matches!(ch, '"' | '\'' | ';' | '/') || ch.is_ascii_whitespace();
    let found = label(value.split(is_end).next()?.as_bytes())?;
    // What could be read so far is no UTF-16 (HTML standard, section 13.2.3.2).
    let is_wide = !found.is_ascii_compatible();
    (!is_wide).then_some(found)
}

/// The replacement encoding stands for sets that are not to be decoded.
fn label(name: &[u8]) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::Header;

    fn text(kind: &str, bytes: &[u8]) -> Option<String> {
        let header = |name: &str, value: &str| Header {
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
        };
        let http = Http {
            headers: vec![header("Content-Type", kind)],
            ..Http::default()
        };
        decode(&http, bytes)
    }

    #[test]
    fn the_media_type_names_the_character_set() {
        for (kind, bytes, want) in [
            ("text/plain; charset=ISO-8859-1", &b"gr\xfcn"[..], "grün"),
            (
                "text/plain;charset=\"windows-1251\"",
                b"\xea\xee\xf2",
                "кот",
            ),
            (
                "text/html; a=b; charset=Shift_JIS",
                b"\x8a\xbf\x8e\x9a",
                "漢字",
            ),
            ("text/plain; charset=gbk", b"\xba\xba\xd7\xd6", "汉字"),
            ("text/plain; charset=euc-kr", b"\xb1\xdb", "글"),
            ("text/plain; charset=utf-16le", b"a\0\x04\x04", "aЄ"),
            ("application/json; charset=utf-16be", b"\0{\0}", "{}"),
        ] {
            assert_eq!(text(kind, bytes).as_deref(), Some(want), "{kind}");
        }
    }

    #[test]
    fn a_document_names_its_character_set_itself() {
        for (kind, bytes, want) in [
            (
                "text/html",
                &b"<meta charset=koi8-r>\xcb\xcf\xd4"[..],
                "кот",
            ),
            (
                "text/html",
                b"<META content=\"text/html; charset = big5\">\xba\x7e",
                "漢",
            ),
            ("application/xml", b"<?xml encoding='iso-8859-2'?>\xb1", "ą"),
            ("text/plain", b"\xff\xfea\0", "a"),
            ("", b"\xfe\xff\0a", "a"),
        ] {
            let told = text(kind, bytes).unwrap_or_default();
            assert!(told.ends_with(want), "{kind}: {told:?}");
        }
    }

    #[test]
    fn utf_8_and_what_is_unknown_are_left_as_they_are() {
        for (kind, bytes) in [
            ("text/plain; charset=utf-8", &b"\xfc"[..]),
            ("text/plain", b"\xfc"),
            ("text/plain; charset=no-such", b"\xfc"),
            ("text/plain; charset=", b"\xfc"),
            ("text/plain; charset=iso-2022-kr", b"\x1b$)C"),
            ("text/plain", b"\xef\xbb\xbfa"),
            ("image/x-icon", b"\xff\xfea\0"),
            ("text/html", b"<meta charset=utf-16>a"),
            (
                "image/png; charset=latin1",
                b"\x89PNG\r\n\x1a\n\0\0\0\x01\x02\x03",
            ),
        ] {
            assert_eq!(text(kind, bytes), None, "{kind}");
        }
    }
}
