//! Guesses what somebody meant who typed a name that there is not.

use super::fields::{FIELDS, WORDS};
use crate::proto::Protocol;

/// What other tools call a field or word.
const ELSEWHERE: &[(&str, &str)] = &[
    ("dst.host", "ip.dst"),
    ("elapsed_time", "time"),
    ("frame.len", "len"),
    ("grpc.status_code", "grpc.status"),
    ("grpc_status", "grpc.status"),
    ("h2", "http2"),
    ("headers", "header"),
    ("http.content_type", "type"),
    ("http.file_data", "body"),
    ("http.host_header", "host"),
    ("http.request", "request"),
    ("http.request.full_uri", "url"),
    ("http.request.header", "http.req.header"),
    ("http.request.method", "method"),
    ("http.request.uri", "path"),
    ("http.request.uri.path", "path"),
    ("http.response", "response"),
    ("http.response.code", "status"),
    ("http.response.header", "http.resp.header"),
    ("http2.headers.method", "method"),
    ("http2.headers.path", "path"),
    ("http2.headers.status", "status"),
    ("http2.streamid", "stream"),
    ("ip.addr", "ip"),
    ("ipv6.addr", "ip"),
    ("latency", "time"),
    ("request.headers", "http.req.header"),
    ("request_body_size", "http.req.size"),
    ("response.headers", "http.resp.header"),
    ("response_body_size", "http.resp.size"),
    ("src.host", "ip.src"),
    ("status_code", "status"),
    ("tcp.dstport", "dst.port"),
    ("tcp.len", "len"),
    ("tcp.payload", "payload"),
    ("tcp.port", "port"),
    ("tcp.srcport", "src.port"),
    ("tls.handshake.extensions_server_name", "tls.sni"),
    ("uri", "url"),
    ("websocket", "ws"),
];

/// What somebody who typed `typed` may have meant.
pub fn nearest(typed: &str) -> Option<&'static str> {
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == typed) {
        return Some(ours);
    }
    let words = WORDS.iter().map(|entry| entry.name);
    let fields = FIELDS
        .iter()
        .flat_map(|row| std::iter::once(row.name).chain(row.also.iter().copied()));
    let protocols = Protocol::ALL.iter().map(|protocol| protocol.name());
    closest(
        typed,
        words
            .chain(["and", "or", "not", "contains", "matches"])
            .chain(fields)
            .chain(protocols),
    )
}

/// The name that is at most two edits away and not half the word.
pub fn closest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (distance(typed, name), name))
        .filter(|&(edits, name)| edits <= 2 && edits * 2 < name.len())
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap neighbours) between two words; 3 stands for more than two
/// for words of very different length, so that a long one costs nothing.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return 3;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at =
                |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, j) + usize::from(x != y))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            let is_swap = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if is_swap {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fields::{self, field, lookup, protocol};

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        for (typed, meant) in [
            ("prot", Some("port")),
            ("hosts", Some("host")),
            ("cmm", Some("comm")),
            ("portrnge", Some("portrange")),
            ("adn", Some("and")),
            ("contain", Some("contains")),
            ("match", Some("matches")),
            ("http.stat", Some("http.status")),
            ("http.satus", Some("http.status")),
            ("htp2", Some("http2")),
            ("tsl.sni", Some("tls.sni")),
            ("command_name", None),
            ("zzzzzzzzzzzzzzzzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }

    #[test]
    fn names_of_other_tools_lead_to_ours() {
        assert_eq!(nearest("status_code"), Some("status"));
        assert_eq!(nearest("http.request.method"), Some("method"));
        for (theirs, ours) in ELSEWHERE {
            let is_ours = |name: &str| {
                field(name).is_some() || lookup(name).is_some() || protocol(name).is_some()
            };
            assert!(is_ours(ours), "{ours}");
            assert!(!is_ours(theirs), "{theirs}");
            assert!(fields::operator(theirs).is_none());
        }
    }
}
