//! No secret passes, wherever reads and writes begin and end, and everything else does as it was.

use super::*;
use crate::event::GapCause;
use crate::proto::http2::frame::*;
use crate::proto::huffman;
use crate::proto::testing::{Feed, conn};

const SECRET: &str = "S3cr3tOpenSesame";

/// A read or write, in one or more pieces.
type Call = (Dir, Vec<Vec<u8>>);

fn call(dir: Dir, bytes: impl AsRef<[u8]>) -> Call {
    (dir, vec![bytes.as_ref().to_vec()])
}

fn names(given: &[&str]) -> Names {
    Names::new(given.iter().copied()).unwrap()
}

/// What comes out, call by call.
fn redacted(names: &Names, calls: &[Call]) -> Vec<(Dir, Vec<u8>)> {
    let mut redactor = Redactor::new(names.clone());
    let conn = conn();
    let mut out = Vec::new();
    for (dir, pieces) in calls {
        let call_len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut call_off = 0;
        let mut whole = Vec::new();
        for piece in pieces {
            let data = Data {
                dir: *dir,
                off: 0,
                len: piece.len() as u64,
                call_len,
                call_off,
                goid: 0,
                bytes: piece,
            };
            redactor.event(&event(&conn, Kind::Data(data)), |event| match event.kind {
                Kind::Data(hidden) => {
                    assert_eq!(
                        Data {
                            bytes: piece,
                            ..hidden
                        },
                        data
                    );
                    assert_eq!(hidden.bytes.len(), piece.len());
                    whole.extend_from_slice(hidden.bytes);
                }
                _ => panic!("{event:?}"),
            });
            call_off += piece.len() as u64;
        }
        out.push((*dir, whole));
    }
    redactor.event(&event(&conn, Kind::Close), |_| ());
    assert!(redactor.conns.is_empty());
    out
}

fn event<'a>(conn: &'a Conn, kind: Kind<'a>) -> Event<'a> {
    Event {
        ts: 1,
        conn,
        tid: 0,
        func: "",
        kind,
    }
}

/// What one half becomes.
fn hidden(given: &[&str], text: impl AsRef<[u8]>) -> String {
    let out = redacted(&names(given), &[call(Dir::Out, text)]);
    String::from_utf8_lossy(&out[0].1).into_owned()
}

fn told(calls: &[(Dir, Vec<u8>)]) -> (Vec<String>, String) {
    let mut feed = Feed::new();
    for (dir, bytes) in calls {
        feed.call(*dir, bytes);
    }
    feed.close();
    (feed.lines, format!("{:?}", feed.messages))
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Nothing of the secret is in the bytes of either half, nor in what is decoded of them.
fn assert_hidden(out: &[(Dir, Vec<u8>)], how: &str) -> Vec<String> {
    let secrets = [
        SECRET.as_bytes().to_vec(),
        huffman::encode(SECRET.as_bytes()),
    ];
    for dir in [Dir::Out, Dir::In] {
        let half: Vec<u8> = out
            .iter()
            .filter(|call| call.0 == dir)
            .flat_map(|call| call.1.clone())
            .collect();
        for secret in &secrets {
            for part in [&secret[..secret.len() / 2], &secret[secret.len() / 2..]] {
                assert!(
                    !has(&half, part),
                    "{how}: {}",
                    String::from_utf8_lossy(&half)
                );
            }
        }
    }
    let (lines, messages) = told(out);
    let digits = format!("{:?}", SECRET.as_bytes());
    assert!(!messages.contains(digits.trim_matches(['[', ']'])), "{how}");
    // A value in pieces is hidden wholly, so that an URL may be shorter.
    let without_url = |line: &String| {
        let words = line.split(' ').filter(|word| !word.starts_with("https://"));
        words.collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(without_url).collect()
}

/// Each way to have one call more: in two calls, or in two pieces of a call; and byte by byte.
fn assert_hidden_at_every_split(names: &Names, calls: &[Call]) {
    let whole = redacted(names, calls);
    let lines = assert_hidden(&whole, "whole");
    let plain: Vec<_> = calls
        .iter()
        .map(|(dir, pieces)| (*dir, pieces.concat()))
        .collect();
    assert_eq!(told(&plain).0.len(), lines.len(), "{lines:?}");
    for (at, (dir, pieces)) in calls.iter().enumerate() {
        let bytes = pieces.concat();
        for cut in 1..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut two_calls = calls.to_vec();
            two_calls[at] = call(*dir, first);
            two_calls.insert(at + 1, call(*dir, second));
            let out = redacted(names, &two_calls);
            assert_eq!(
                assert_hidden(&out, &format!("call {at} cut at {cut}")),
                lines
            );
            let mut two_pieces = calls.to_vec();
            two_pieces[at].1 = vec![first.to_vec(), second.to_vec()];
            let out = redacted(names, &two_pieces);
            assert_eq!(
                assert_hidden(&out, &format!("call {at} pieced at {cut}")),
                lines
            );
        }
    }
    let bytes: Vec<Call> = plain
        .iter()
        .flat_map(|(dir, bytes)| bytes.iter().map(|&byte| call(*dir, [byte])))
        .collect();
    assert_eq!(
        assert_hidden(&redacted(names, &bytes), "byte by byte"),
        lines
    );
}

fn http1() -> Vec<Call> {
    let body = format!("{{\"user\": \"me\", \"password\" : \"{SECRET}\"}}");
    let answer = format!("{{\"token\":[\"{SECRET}\", {{\"a\":12}}],\"ok\":true}}");
    let (one, two) = answer.split_at(22);
    vec![
        call(
            Dir::Out,
            format!(
                "POST /login?x=1&token={SECRET}&y=2 HTTP/1.1\r\nHost: h\r\nAUTHORIZATION:  Bearer {SECRET}\r\n\
                 Cookie: a={SECRET};\r\n b={SECRET}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        ),
        call(
            Dir::In,
            format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: sid={SECRET}; Path=/\r\nTransfer-Encoding: chunked\r\n\
                 \r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\nX-Api-Key: {SECRET}\r\n\r\n",
                one.len(),
                two.len()
            ),
        ),
        call(
            Dir::Out,
            format!("GET / HTTP/1.1\r\nHost: h\r\nCookie:{SECRET}\r\n\r\n"),
        ),
        call(Dir::In, "HTTP/1.1 204 No Content\r\n\r\n"),
    ]
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn string(text: &str, is_huffman: bool) -> Vec<u8> {
    let (bytes, bit) = if is_huffman {
        (huffman::encode(text.as_bytes()), 0x80)
    } else {
        (text.as_bytes().to_vec(), 0)
    };
    assert!(bytes.len() < 127);
    [&[bytes.len() as u8 | bit], &bytes[..]].concat()
}

/// A literal field with a name of its own.
fn literal(first: u8, name: &str, value: &str, is_huffman: bool) -> Vec<u8> {
    [
        vec![first],
        string(name, is_huffman),
        string(value, is_huffman),
    ]
    .concat()
}

/// A literal field whose name is that of an entry of the table.
fn indexed(index: u8, value: &str, is_huffman: bool) -> Vec<u8> {
    [vec![0x40 | index], string(value, is_huffman)].concat()
}

fn http2() -> Vec<Call> {
    let first = [
        // :method POST, :scheme https, :authority
        vec![0x83, 0x87],
        indexed(1, "h", true),
        literal(0, ":path", &format!("/login?token={SECRET}"), false),
        indexed(23, &format!("Bearer {SECRET}"), true),
        literal(0x10, "cookie", SECRET, true),
        literal(0x40, "x-api-key", SECRET, false),
    ]
    .concat();
    let (head, rest) = first.split_at(first.len() - 30);
    let second = [
        vec![0x82, 0x87, 0xc0],
        literal(0, ":path", &format!("/a?token={SECRET}"), true),
        // The authorization of before, the name of x-api-key, and one that nobody has seen.
        vec![0xbf],
        indexed(62, &format!("more{SECRET}"), true),
        [vec![0x7f, 50], string(SECRET, false)].concat(),
    ]
    .concat();
    let answer = [
        vec![0x88],
        indexed(55, &format!("sid={SECRET}; Path=/"), true),
        literal(0x40, "content-type", "application/json", true),
    ]
    .concat();
    let json = format!("{{\"password\": \"{SECRET}\", \"n\": 1}}");
    let (one, two) = json.split_at(20);
    let padded = [&[3], one.as_bytes(), &[0, 0, 0]].concat();
    let priority = [&[2, 0, 0, 0, 0, 7], head, &[0, 0]].concat();
    vec![
        call(
            Dir::Out,
            [
                PREFACE.to_vec(),
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
                frame(HEADERS, PADDED | PRIORITY, 1, &priority),
                frame(CONTINUATION, END_HEADERS, 1, rest),
                frame(DATA, END_STREAM, 1, json.as_bytes()),
            ]
            .concat(),
        ),
        call(
            Dir::In,
            [
                frame(SETTINGS, 0, 0, &[]),
                frame(HEADERS, END_HEADERS, 1, &answer),
                frame(DATA, PADDED, 1, &padded),
                frame(DATA, END_STREAM, 1, two.as_bytes()),
            ]
            .concat(),
        ),
        call(
            Dir::Out,
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &second),
        ),
        call(
            Dir::In,
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &[0x89, 0xbf]),
        ),
    ]
}

#[test]
fn no_secret_of_http1_passes_at_any_split() {
    assert_hidden_at_every_split(&names(&["password", "token"]), &http1());
}

#[test]
fn no_secret_of_http2_passes_at_any_split() {
    assert_hidden_at_every_split(&names(&["password", "token"]), &http2());
}

#[test]
fn asterisks_are_in_the_place_of_values_and_nothing_else_changes() {
    let out = redacted(&names(&["password", "token"]), &http1());
    let star = |n| "*".repeat(n);
    assert_eq!(
        String::from_utf8(out[0].1.clone()).unwrap(),
        format!(
            "POST /login?x=1&token={}&y=2 HTTP/1.1\r\nHost: h\r\nAUTHORIZATION:  {}\r\n\
             Cookie: {}\r\n {}\r\nContent-Length: 47\r\n\r\n\
             {{\"user\": \"me\", \"password\" : \"{}\"}}",
            star(16),
            star(23),
            star(19),
            star(18),
            star(16)
        )
    );
    let (_, messages) = told(&redacted(&names(&[]), &http2()));
    let stars = format!("{:?}", [b'*'; 12]);
    assert!(
        messages.contains(stars.trim_matches(['[', ']'])),
        "{messages}"
    );
}

#[test]
fn what_has_no_secret_passes_as_it_is() {
    let plain = |calls: &[Call]| -> Vec<Call> {
        let replace = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).to_string();
            let words = [
                "AUTHORIZATION",
                "Set-Cookie",
                "Cookie",
                "X-Api-Key",
                "password",
                "token",
            ];
            words
                .iter()
                .fold(text, |text, word| text.replace(word, "other"))
                .into_bytes()
        };
        let calls = calls.iter();
        calls
            .map(|(dir, pieces)| call(*dir, replace(&pieces.concat())))
            .collect()
    };
    let harmless = [0x82, 0x87, 0x84, 0x41, 1, b'h'];
    let frames = [
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
        frame(HEADERS, END_HEADERS, 1, &harmless),
        frame(DATA, END_STREAM, 1, b"{\"a\": \"token\", \"b\": [1, 2]}"),
    ];
    let binary: Vec<u8> = (0..4000u32)
        .map(|n| ((n * 7919) >> 3) as u8 | 0x80)
        .collect();
    let all = [
        plain(&http1()),
        vec![call(Dir::Out, frames.concat())],
        vec![call(Dir::In, &binary), call(Dir::In, &binary[7..])],
        vec![call(Dir::In, b"* OK IMAP4 ready\r\na1 OK done\r\n")],
    ];
    for calls in all {
        for names in [names(&[]), names(&["password", "token"])] {
            let out = redacted(&names, &calls);
            for ((_, pieces), (_, out)) in calls.iter().zip(out) {
                assert_eq!(
                    String::from_utf8_lossy(&pieces.concat()),
                    String::from_utf8_lossy(&out)
                );
            }
        }
    }
}

#[test]
fn json_stays_json_and_any_value_of_a_named_key_is_hidden() {
    for (text, wanted) in [
        (r#"{"Pin": 1234, "a": 1}"#, r#"{"Pin": 1111, "a": 1}"#),
        (r#"{"pin":-1.5e3}"#, r#"{"pin":111111}"#),
        (r#"{"pin":false,"b":"c"}"#, r#"{"pin":11111,"b":"c"}"#),
        (r#"{"pin":"a\"b\\","b":"c"}"#, r#"{"pin":"******","b":"c"}"#),
        (
            r#"{"pin":{"a":["x]",12,null]},"b":2}"#,
            r#"{"pin":{"*":["**",11,1111]},"b":2}"#,
        ),
        (r#"{"a":"pin","b":"pin2"}"#, r#"{"a":"pin","b":"pin2"}"#),
        // From the middle of a document, where quotes would be counted wrongly.
        (r#"x","pin":"y","z":"pin"}"#, r#"x","pin":"*","z":"pin"}"#),
        // JSON in a string of JSON.
        (r#""{\"pin\":\"xy\",\"b\":\"c\"}""#, r#""{\"pin\":\"***"#),
        ("a=1&pin=xy%20z&b=2", "a=1&pin=******&b=2"),
        ("user[pin]=xy&b=2", "user[pin]=**&b=2"),
        ("pin=", "pin="),
        // The same name in another spelling.
        (r#"{"\u0070in":"xy","b":1}"#, r#"{"\u0070in":"**","b":1}"#),
        (r#"{"p\u0049N":"xy","b":1}"#, r#"{"p\u0049N":"**","b":1}"#),
        (r#"{"p\u00e9in":"xy"}"#, r#"{"p\u00e9in":"xy"}"#),
        ("a=1&p%49n=xy&b=2", "a=1&p%49n=**&b=2"),
        ("a%26pin=xy&b=100%pin", "a%26pin=**&b=100%pin"),
        ("%6in=xy&pi%=y", "%6in=xy&pi%=y"),
        (r#"{"\upin":"xy"}"#, r#"{"\upin":"xy"}"#),
    ] {
        let out = hidden(&["pin"], text);
        assert!(out.starts_with(wanted), "{text}: {out}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_err()
                || text.starts_with('"')
                || serde_json::from_str::<serde_json::Value>(&out).is_ok(),
            "{out}"
        );
    }
}

const FORM: &str = "--bOund\r\n\
    Content-Disposition: form-data; name=\"user\"\r\n\r\nme\r\n--bOund\r\n\
    Content-Disposition: form-data; filename=\"name\"; name=\"login[Pin]\"\r\n\
    Content-Type: text/plain\r\n\r\n-----BEGIN\r\n--bOunt\r\n--bOuxy\r\n--bOund\r\n\
    Content-Disposition: form-data; name=\"pinned\"\r\n\r\nyes\r\n--bOund--\r\n";

#[test]
fn a_named_part_of_a_form_is_hidden_up_to_its_boundary() {
    let out = hidden(&["pin"], FORM);
    let wanted = FORM
        .replace("-----BEGIN", "--********")
        .replace("--bOunt", "--bOun*")
        .replace("--bOuxy", "--bOu**");
    assert_eq!(out, wanted);
    // Byte by byte it is the same.
    let pieces = FORM.bytes().map(|byte| vec![byte]).collect();
    let out = redacted(&names(&["pin"]), &[(Dir::Out, pieces)]);
    assert_eq!(String::from_utf8_lossy(&out[0].1), wanted);
    assert_eq!(hidden(&["other"], FORM), FORM);
    let head = format!(
        "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=bOund\r\n\
         Content-Length: {}\r\n\r\n",
        FORM.len()
    );
    assert_eq!(hidden(&["pin"], format!("{head}{FORM}")), head + &wanted);
}

#[test]
fn a_compressed_body_is_hidden_wholly_when_keys_are_named() {
    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 6\r\n\r\n";
    let text = format!("{head}abcdefHTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(hidden(&["pin"], &text), text.replace("abcdef", "******"));
    assert_eq!(hidden(&[], &text), text);
}

#[test]
fn a_head_that_promises_a_body_does_not_hide_the_next_secret() {
    let head = "HTTP/1.1 304 Not Modified\r\nContent-Length: 600\r\nContent-Encoding: gzip\r\n\r\n";
    let text = format!("{head}HTTP/1.1 200 OK\r\nSet-Cookie: ab\r\n\r\n");
    for given in [&[][..], &["pin"]] {
        assert_eq!(hidden(given, &text), text.replace("ab", "**"));
    }
}

#[test]
fn after_a_gap_all_is_hidden_up_to_a_line_end() {
    let conn = conn();
    for (given, before) in [
        (&[][..], "GET / HTTP/1.1\r\nCookie: a"),
        (&[], "GET / HTTP/1.1\r\nCoo"),
        (&["pin"], "{\"pin\": \"a"),
        (&["pin"], "{\"pi"),
    ] {
        let mut redactor = Redactor::new(names(given));
        let mut out = String::new();
        let mut send = |kind: Kind<'_>| {
            redactor.event(&event(&conn, kind), |event| {
                if let Kind::Data(data) = event.kind {
                    out += &String::from_utf8_lossy(data.bytes);
                }
            });
        };
        let data = |text: &'static str, cut: u64| {
            Kind::Data(Data {
                dir: Dir::Out,
                off: 0,
                len: text.len() as u64 + cut,
                call_len: text.len() as u64 + cut,
                call_off: 0,
                goid: 0,
                bytes: text.as_bytes(),
            })
        };
        send(data(before, 5));
        send(data(SECRET, 0));
        send(Kind::Gap {
            dir: Dir::Out,
            off: 0,
            len: 3,
            cause: GapCause::Dropped,
        });
        send(data(SECRET, 0));
        send(data("\r\nHost: h\r\n\r\n", 0));
        send(data("GET /next HTTP/1.1\r\n\r\n", 0));
        assert!(!out.contains(SECRET), "{out}");
        assert!(out.ends_with("GET /next HTTP/1.1\r\n\r\n"), "{out}");
    }
}

#[test]
fn frames_after_a_gap_are_hidden_until_they_are_found() {
    let conn = conn();
    let calls = http2();
    // Without the body.
    let mut bytes = calls[0].1.concat();
    bytes.truncate(bytes.len() - 49);
    for lost in 1..bytes.len() {
        let mut redactor = Redactor::new(names(&["token"]));
        let mut out = Vec::new();
        let mut send = |bytes: &[u8], len: usize| {
            let len = len as u64;
            let data = Data {
                dir: Dir::Out,
                off: 0,
                len,
                call_len: len,
                call_off: 0,
                goid: 0,
                bytes,
            };
            redactor.event(&event(&conn, Kind::Data(data)), |event| {
                if let Kind::Data(data) = event.kind {
                    out.push((Dir::Out, data.bytes.to_vec()));
                }
            });
        };
        // One byte is cut off, then what follows comes.
        send(&bytes[..PREFACE.len() + 15], PREFACE.len() + 15);
        let rest = &bytes[PREFACE.len() + 15..];
        let at = lost.min(rest.len());
        send(&rest[..at - 1], at);
        send(&rest[at..], rest.len() - at);
        send(&calls[2].1.concat(), calls[2].1.concat().len());
        let all: Vec<u8> = out.iter().flat_map(|call| call.1.clone()).collect();
        for secret in [
            SECRET.as_bytes().to_vec(),
            huffman::encode(SECRET.as_bytes()),
        ] {
            assert!(!has(&all, &secret), "{lost}: {}", all.escape_ascii());
        }
    }
}

#[test]
fn text_of_a_websocket_is_looked_into_also_under_its_mask() {
    let text = format!("{{\"pin\":\"{SECRET}\"}}");
    let key = [1u8, 2, 3, 4];
    let masked: Vec<u8> = text
        .bytes()
        .zip(key.iter().cycle())
        .map(|(b, k)| b ^ k)
        .collect();
    let len = text.len() as u8;
    let calls = [
        call(
            Dir::Out,
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        ),
        call(
            Dir::In,
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
        ),
        call(Dir::Out, [&[0x81, 0x80 | len], &key[..], &masked].concat()),
        call(Dir::In, [&[0x81, len], text.as_bytes()].concat()),
        call(Dir::In, [&[0xc1, 3, 7, 7, 7, 0x89, 1], &b"a"[..]].concat()),
    ];
    let names = names(&["pin"]);
    assert_hidden_at_every_split(&names, &calls);
    let out = redacted(&names, &calls);
    let unmasked: Vec<u8> = out[2].1[6..]
        .iter()
        .zip(key.iter().cycle())
        .map(|(b, k)| b ^ k)
        .collect();
    assert_eq!(
        String::from_utf8(unmasked).unwrap(),
        text.replace(SECRET, &"*".repeat(16))
    );
    assert_eq!(out[4].1, [0xc1, 3, b'*', b'*', b'*', 0x89, 1, b'a']);
}

#[test]
fn what_cannot_be_a_name_is_refused() {
    for name in ["", "a b", "a:b", "\"a\"", &"x".repeat(65)] {
        assert!(Names::new([name]).is_err(), "{name}");
    }
    assert!(names(&["Client_Secret"]).has_key(b"client_secret"));
    assert!(!names(&[]).has_keys());
}
