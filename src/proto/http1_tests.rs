//! HTTP/1 as real programs speak it, whole and with losses.

use super::*;
use crate::proto::testing::{Feed, ms};
use crate::proto::{Conversations, Limits};

const GET: &str = "GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn told(steps: impl FnOnce(&mut Feed)) -> String {
    let mut feed = Feed::new();
    steps(&mut feed);
    feed.told()
}

#[test]
fn a_response_repeats_what_it_answers_and_says_how_long_it_took() {
    let mut feed = Feed::new();
    feed.write(GET).wait(20).read(OK);
    assert_eq!(
        feed.told(),
        "> GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
    let response = &feed.messages[1];
    assert_eq!(response.elapsed().map(ms), Some(21));
    assert_eq!(response.body.kept, b"hello");
    let request = feed.messages[0].subject.http().unwrap();
    assert_eq!(request.path(), Some(b"/a".as_slice()));
    assert_eq!(request.query(), Some(b"x=1".as_slice()));
}

/// Every way to split an exchange into calls gives the same messages.
#[test]
fn calls_may_end_anywhere() {
    let request = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n";
    let response = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
    let whole = told(|feed| {
        feed.write(request).read(response);
    });
    assert_eq!(whole, "> POST https://h/p 5B | < 201 POST https://h/p 2B");
    for at in 1..request.len() {
        let (first, second) = request.split_at(at);
        let split = told(|feed| {
            feed.write(first).write(second).read(response);
        });
        assert_eq!(split, whole, "request split at {at}");
    }
    for at in 1..response.len() {
        let (first, second) = response.split_at(at);
        let split = told(|feed| {
            feed.write(request).read(first).read(second);
        });
        assert_eq!(split, whole, "response split at {at}");
    }
    let single = told(|feed| {
        for byte in request.bytes() {
            feed.write([byte]);
        }
        for byte in response.bytes() {
            feed.read([byte]);
        }
    });
    assert_eq!(single, whole, "byte by byte");
}

/// A prefix may tell less, but nothing else.
#[test]
fn a_truncated_exchange_is_told_up_to_there() {
    let all = [GET, OK, GET, OK].concat();
    for end in 0..all.len() {
        let mut feed = Feed::new();
        let (mut left, mut out) = (&all[..end], true);
        for part in [GET, OK, GET, OK] {
            let (now, rest) = left.split_at(part.len().min(left.len()));
            feed.call(if out { Dir::Out } else { Dir::In }, now.as_bytes());
            (left, out) = (rest, !out);
        }
        feed.close();
        let whole = feed
            .messages
            .iter()
            .filter(|m| !m.is_cut && m.part != Part::Unanswered);
        assert!(whole.count() <= 4);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut feed = Feed::new();
    feed.write("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    feed.read(OK.repeat(2));
    assert_eq!(
        feed.told(),
        "> GET https://h/1 | > GET https://h/2 | < 200 GET https://h/1 5B | < 200 GET https://h/2 5B"
    );
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    let told = told(|feed| {
        feed.write("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").read(head);
        feed.write(GET)
            .read("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n");
        feed.write(GET).read("HTTP/1.1 204 No Content\r\n\r\n");
        feed.write(GET).read(OK);
    });
    assert_eq!(
        told,
        "> HEAD https://h/ | < 200 HEAD https://h/ | > GET https://h/a?x=1 | < 304 GET https://h/a?x=1 \
         | > GET https://h/a?x=1 | < 204 GET https://h/a?x=1 | > GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
}

#[test]
fn an_interim_response_leaves_its_request_open() {
    let told = told(|feed| {
        feed.write(
            "PUT /f HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        );
        feed.read("HTTP/1.1 100 Continue\r\n\r\n").write("abc");
        feed.read("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    });
    assert_eq!(
        told,
        "< 100 PUT https://h/f | > PUT https://h/f 3B | < 201 PUT https://h/f"
    );
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    let mut feed = Feed::new();
    feed.write("GET / HTTP/1.0\r\n\r\n")
        .read("HTTP/1.0 200 OK\r\n\r\nabc")
        .read("def");
    assert_eq!(feed.told(), "> GET https://10.0.0.3:443/");
    feed.close();
    assert_eq!(feed.told(), "< 200 GET https://10.0.0.3:443/ 6B");
}

#[test]
fn a_tunnel_is_looked_at_anew() {
    let told = told(|feed| {
        feed.write("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
        feed.read("HTTP/1.1 200 Connection established\r\n\r\n");
        feed.write("\x16\x03\x01binary").write(GET).read(OK);
    });
    assert_eq!(
        told,
        "> CONNECT other:443 | < 200 CONNECT other:443 | out 9 \
         | > GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
}

#[test]
fn a_capture_that_begins_in_a_body_finds_the_next_message() {
    let told = told(|feed| {
        feed.read("the rest of a body").write(GET).read(OK);
    });
    assert_eq!(
        told,
        "in 18 | > GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
}

#[test]
fn bytes_lost_from_a_body_are_counted_and_nothing_else_is_lost() {
    let mut feed = Feed::new();
    feed.write(GET)
        .read("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
    feed.gap(Dir::In, 5).read("xyz").write(GET).read(OK);
    assert_eq!(
        feed.told(),
        "> GET https://h/a?x=1 | gap in 5 | < 200 GET https://h/a?x=1 10B [|] \
         | > GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
    let body = &feed.messages[1].body;
    assert_eq!((body.kept.as_slice(), body.lost), (b"ab".as_slice(), 5));
}

#[test]
fn after_a_lost_response_the_next_one_is_not_mistaken_for_it() {
    let two = GET.replace("/a?x=1", "/2");
    let told = told(|feed| {
        feed.write(GET).gap(Dir::In, 400).read("tail of a body");
        feed.write(&two).read(OK);
    });
    assert_eq!(
        told,
        "> GET https://h/a?x=1 | gap in 400 | in 14 | ! GET https://h/a?x=1 | > GET https://h/2 \
         | < 200 GET https://h/2 5B"
    );
}

#[test]
fn after_a_lost_request_its_response_stands_alone() {
    let told = told(|feed| {
        feed.write(GET)
            .read(OK)
            .gap(Dir::Out, 80)
            .read(OK)
            .write(GET)
            .read(OK);
    });
    assert_eq!(
        told,
        "> GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B | gap out 80 | < 200 5B \
         | > GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
}

#[test]
fn after_losses_among_pipelined_requests_nothing_is_paired() {
    let told = told(|feed| {
        feed.write(GET.repeat(3))
            .gap(Dir::In, 100)
            .write(GET)
            .read(OK)
            .close();
    });
    assert_eq!(
        told,
        "> GET https://h/a?x=1 | > GET https://h/a?x=1 | > GET https://h/a?x=1 | gap in 100 \
         | > GET https://h/a?x=1 | < 200 5B"
    );
}

#[test]
fn a_request_told_after_its_response_takes_no_other() {
    let mut feed = Feed::new();
    feed.write(GET)
        .read(OK)
        .wait(10)
        .read(OK.replace("200", "299"));
    // Another thread's read had returned before this write did.
    feed.back(5).write(GET.replace("/a", "/late"));
    feed.wait(10).write(GET).read(OK);
    assert_eq!(
        feed.told(),
        "> GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B | < 299 5B \
         | > GET https://h/late?x=1 | > GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
}

#[test]
fn a_request_without_response_is_told_at_the_end() {
    let told = told(|feed| {
        feed.write(GET).close();
    });
    assert_eq!(told, "> GET https://h/a?x=1 | ! GET https://h/a?x=1");
}

/// As llhttp's and http-parser's tests have them, or servers send them.
#[test]
fn odd_heads_are_understood() {
    for (head, line) in [
        (
            "\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
            "> GET https://h/x",
        ),
        (
            "GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n",
            "> GET http://other/x",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            "> OPTIONS https://h/*",
        ),
        ("GET /x HTTP/1.1\nHost: h\n\n", "> GET https://h/x"),
        (
            "M-SEARCH /x HTTP/1.1\r\nHOST: h\r\n\r\n",
            "> M-SEARCH https://h/x",
        ),
        (
            "GET /\u{fc}?q=\u{20ac} HTTP/1.1\r\nHost: h\r\n\r\n",
            "> GET https://h/\u{fc}?q=\u{20ac}",
        ),
        (
            "GET /x HTTP/1.1\r\nHost : h\r\nBad Name: 1\r\nA: b\r\n\r\n",
            "> GET https://10.0.0.3:443/x",
        ),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "< 200"),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
            "< 200",
        ),
        ("HTTP/1.1 200 \u{fc}\r\nContent-Length: 0\r\n\r\n", "< 200"),
        (
            "GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
            "> GET https://h/x 3B",
        ),
    ] {
        let told = told(|feed| {
            feed.write(head);
        });
        assert_eq!(told, line, "{head:?}");
    }
}

#[test]
fn what_is_no_http_is_left_alone() {
    for bytes in [
        "HALLO example.com\r\n",
        "SELECT 1\r\n",
        "GET",
        "HTTP/2 200\r\n\r\n",
        "get / HTTP/1.1\r\n\r\n",
        "GET / FTP/1.1\r\n\r\n",
        "\x00\x01\x02",
    ] {
        let mut feed = Feed::new();
        feed.write(bytes).close();
        assert_eq!(feed.told(), format!("out {}", bytes.len()), "{bytes:?}");
    }
}

#[test]
fn contradicting_lengths_are_shown_as_bytes() {
    let head = "GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n";
    let told = told(|feed| {
        feed.write(head).write("abcd").write(GET);
    });
    assert_eq!(
        told,
        format!("out {} | out 4 | > GET https://h/a?x=1", head.len())
    );
}

#[test]
fn events_of_a_stream_are_told_one_by_one() {
    let mut feed = Feed::new();
    feed.write(GET);
    feed.read(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(
        feed.told(),
        "> GET https://h/a?x=1 | < 200 GET https://h/a?x=1"
    );
    feed.read("9\r\ndata: 12\n\r\n").read("1\r\n\n\r\n");
    assert_eq!(feed.told(), "in message 2B");
    feed.read("1d\r\nevent: x\ndata: a\ndata:b\nid: 1\r\n3\r\n\r\n\n\r\n0\r\n\r\n");
    assert_eq!(feed.told(), "in x 3B");
    feed.write(GET).read(OK);
    assert_eq!(
        feed.told(),
        "> GET https://h/a?x=1 | < 200 GET https://h/a?x=1 5B"
    );
}

fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![
        first,
        payload.len() as u8 | if mask.is_some() { 0x80 } else { 0 },
    ];
    frame.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n";

#[test]
fn websocket_messages_are_unmasked_and_joined() {
    let mut feed = Feed::new();
    feed.write(UPGRADE).read(format!("{SWITCH}\r\n"));
    assert_eq!(feed.told(), "> GET https://h/ws | < 101 GET https://h/ws");
    feed.write(frame(0x81, b"hello", Some([1, 2, 3, 4])));
    feed.read(frame(0x01, b"ab", None))
        .read(frame(0x89, b"p", None))
        .read(frame(0x80, b"cd", None));
    feed.read(frame(0x88, b"\x03\xe8bye", None));
    assert_eq!(
        feed.told(),
        "out text 5B | in ping 1B | in text 4B | in close 1000 bye 5B"
    );
    assert_eq!(feed.messages[2].body.kept, b"hello");
    assert_eq!(feed.messages[4].body.kept, b"abcd");
}

#[test]
fn compressed_websocket_messages_share_their_context() {
    let mut deflate = flate2::Compress::new(flate2::Compression::default(), false);
    let mut compressed = |text: &[u8]| {
        let mut out = Vec::with_capacity(200);
        deflate
            .compress_vec(text, &mut out, flate2::FlushCompress::Sync)
            .unwrap();
        out.truncate(out.len() - 4);
        out
    };
    let mut feed = Feed::new();
    feed.write(UPGRADE);
    feed.read(format!(
        "{SWITCH}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    ));
    feed.told();
    let text = b"the same text again and again";
    let (first, second) = (compressed(text), compressed(text));
    assert!(second.len() < first.len(), "refers to the first");
    feed.read(frame(0xc1, &first, None))
        .read(frame(0xc1, &second, None));
    assert_eq!(feed.told(), "in text 29B | in text 29B");
    assert_eq!(feed.messages[3].body.kept, text);
    feed.gap(Dir::In, 10)
        .read(frame(0xc1, &compressed(text), None));
    let told = feed.told();
    assert!(
        told.starts_with("gap in 10 | in text") && told.ends_with("[|]"),
        "{told}"
    );
}

#[test]
fn bodies_are_decoded_whatever_their_coding() {
    use std::io::Write;
    let text = b"some text, some text, some text".repeat(20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&text).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&text).unwrap();
    let zlib = zlib.finish().unwrap();
    for (coding, bytes) in [("gzip", &gzip), ("deflate", &zlib), ("identity", &text)] {
        let mut feed = Feed::new();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        feed.write(GET).read(head).read(bytes);
        let message = &feed.messages[1];
        let decoded = crate::proto::body::decode(message.subject.http().unwrap(), &message.body);
        assert_eq!(decoded.bytes, text, "{coding}");
        assert!(!decoded.is_cut && decoded.undone.is_none());
    }
}

/// `hello`, as brotli(1) compresses it, and in a frame of Zstandard whose one block is not compressed
/// (RFC 8878 section 3.1).
#[test]
fn bodies_in_newer_codings_are_decoded() {
    let brotli = b"\x0b\x02\x80hello\x03";
    let zstd = b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello";
    for (coding, bytes) in [("br", brotli.as_slice()), ("zstd", zstd)] {
        let mut feed = Feed::new();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        feed.write(GET).read(head).read(bytes);
        let message = &feed.messages[1];
        let decoded = crate::proto::body::decode(message.subject.http().unwrap(), &message.body);
        assert_eq!(decoded.bytes, b"hello", "{coding}");
        assert!(!decoded.is_cut && decoded.undone.is_none(), "{coding}");
    }
}

#[test]
fn a_body_is_kept_up_to_its_limit() {
    let mut feed = Feed::new();
    let long = vec![b'x'; 3 << 20];
    feed.write(GET).read(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        long.len()
    ));
    feed.read(&long);
    let body = &feed.messages[1].body;
    assert_eq!((body.size, body.kept.len()), (3 << 20, 1 << 20));
    assert!(!body.is_whole());
}

/// Nothing that was taken may vanish: it is shown as bytes when it turns out to be no head.
#[test]
fn a_head_that_is_none_after_all_is_shown_as_bytes() {
    let mut feed = Feed::new();
    feed.write("GET /a HTTP/1.1\r\nContent-Length: 1\r\n")
        .write("Content-Length: 2\r\n\r\n.");
    assert_eq!(feed.told(), "out 36 | out 22");
    feed.write("GET / HTTP/1.1\r\nHo").gap(Dir::Out, 5);
    assert_eq!(feed.told(), "out 18 | gap out 5");
    feed.write("GET / HTTP/1.1\r\nHo").close();
    assert_eq!(feed.told(), "out 18");
    assert_eq!(feed.places, [(0, 36), (36, 22), (58, 18), (81, 18)]);
}

#[test]
fn what_a_client_sends_before_its_tunnel_stands_is_not_lost() {
    assert_eq!(
        told(|feed| {
            feed.write("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n")
                .write("PRI * H")
                .read("HTTP/1.1 200 OK\r\n\r\n");
        }),
        "> CONNECT h:1 | out 7 | < 200 CONNECT h:1"
    );
}

#[test]
fn an_event_that_a_loss_cuts_is_told_as_far_as_it_came() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        told(|feed| {
            feed.write(GET).read(head).read("9\r\ndata: ab\n\r\n");
            feed.read("non").read("sense\r\n");
        }),
        "> GET https://h/a?x=1 | < 200 GET https://h/a?x=1 | in 3 | in message 2B [|] | in 7"
    );
}

#[test]
fn what_is_no_frame_of_a_websocket_is_shown_as_bytes() {
    let mut feed = Feed::new();
    feed.write("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n");
    feed.read("HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n");
    feed.told();
    // A piece of a header, then nonsense in it.
    feed.read([&frame(0x81, b"a", None)[..], &[0x8f]].concat())
        .read([0x7f, 1, 2, 3, 4]);
    assert_eq!(feed.told(), "in text 1B | in 1 | in 5");
    // After a loss: bytes that begin with no frame, then the rest of a message, then a whole one.
    feed.write(frame(0x81, b"b", Some([1, 2, 3, 4])))
        .gap(Dir::Out, 9)
        .write([0x7f, 1, 2])
        .write(frame(0x80, b"cd", Some([1, 2, 3, 4])))
        .write(frame(0x81, b"e", Some([1, 2, 3, 4])));
    assert_eq!(
        feed.told(),
        "out text 1B | gap out 9 | out 3 | out continuation 2B [|] | out text 1B"
    );
}

/// Bodies of requests are kept for their responses, all together within one limit, and no longer.
#[test]
fn bodies_that_wait_for_responses_are_bounded() {
    let mut feed = Feed::new();
    feed.conversations = Conversations::new(Limits {
        body: 8,
        bodies: 12,
    });
    for _ in 0..3 {
        feed.write("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n1234567");
    }
    let kept = |feed: &Feed| -> Vec<usize> {
        let bodies = feed.messages.iter().filter_map(Message::request_body);
        bodies.map(|body| body.kept.len()).collect()
    };
    assert_eq!(kept(&feed), [7, 7, 7]);
    feed.messages.clear();
    for _ in 0..3 {
        feed.read("HTTP/1.1 204 N\r\n\r\n");
    }
    assert_eq!(kept(&feed), [7, 5, 0]);
    assert!(
        feed.messages
            .iter()
            .all(|response| { response.request_body().is_some_and(|body| body.size == 7) })
    );
    feed.messages.clear();
    feed.write("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n1234567");
    feed.read("HTTP/1.1 204 N\r\n\r\n");
    assert_eq!(kept(&feed), [7, 7]);
}
