//! HTTP/2 with many streams at once, odd frames, and a beginning that was not seen.

use super::frame::*;
use super::*;
use crate::proto::testing::Feed;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Literal fields, entered into the table when `indexed`.
fn block(fields: &[(&str, &str)], indexed: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(if indexed { 0x40 } else { 0 });
        for part in [name, value] {
            block.push(part.len() as u8);
            block.extend(part.as_bytes());
        }
    }
    block
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":path", path), (":authority", "h")];
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &block(&fields, false),
    )
}

fn ok(stream: u32, flags: u8) -> Vec<u8> {
    let fields = [(":status", "200"), ("content-type", "text/plain")];
    frame(HEADERS, END_HEADERS | flags, stream, &block(&fields, false))
}

fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])].concat()
}

fn settings() -> Vec<u8> {
    [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat()
}

/// A connection on which both have said hello.
fn begun() -> Feed {
    let mut feed = Feed::new();
    feed.write(hello()).read(settings());
    assert_eq!(feed.told(), "");
    feed
}

#[test]
fn responses_are_paired_by_stream_in_whatever_order() {
    let mut feed = begun();
    for stream in 0..100 {
        feed.write(get(stream * 2 + 1, &format!("/{stream}")));
    }
    assert_eq!(feed.told().matches("> GET https://h/").count(), 100);
    for stream in 0..100 {
        feed.read(ok(stream * 2 + 1, 0));
    }
    for stream in (0..100).rev() {
        feed.read(frame(DATA, 0, stream * 2 + 1, b"abc"));
    }
    assert_eq!(feed.told(), "");
    for stream in (0..100).rev() {
        feed.read(frame(DATA, END_STREAM, stream * 2 + 1, b""));
        assert_eq!(feed.told(), format!("< 200 GET https://h/{stream} 3B"));
    }
    assert_eq!(feed.messages[5].stream, Some(11));
}

#[test]
fn calls_may_end_anywhere() {
    let written = [hello(), get(1, "/a"), get(3, "/b")].concat();
    let read = [
        settings(),
        ok(3, 0),
        frame(DATA, PADDED, 3, b"\x02abc\0\0"),
        ok(1, END_STREAM),
        frame(PING, 0, 0, &[0; 8]),
        frame(DATA, END_STREAM, 3, b"de"),
    ]
    .concat();
    let wanted =
        "> GET https://h/a | > GET https://h/b | < 200 GET https://h/a | < 200 GET https://h/b 5B";
    for at in 1..written.len() {
        let mut feed = Feed::new();
        feed.write(&written[..at]).write(&written[at..]).read(&read);
        assert_eq!(feed.told(), wanted, "written, split at {at}");
    }
    for at in 1..read.len() {
        let mut feed = Feed::new();
        feed.write(&written).read(&read[..at]).read(&read[at..]);
        assert_eq!(feed.told(), wanted, "read, split at {at}");
    }
    for end in 0..read.len() {
        let mut feed = Feed::new();
        feed.write(&written).read(&read[..end]).close();
    }
}

#[test]
fn a_head_may_be_continued_and_padded_and_have_a_priority() {
    let fields = block(
        &[
            (":method", "PUT"),
            (":path", "/"),
            (":authority", "h"),
            ("a", "b"),
        ],
        true,
    );
    let (first, rest) = fields.split_at(10);
    let (second, third) = rest.split_at(3);
    let padded = [&[2u8, 0, 0, 0, 0, 16], first, &[0, 0]].concat();
    let mut feed = begun();
    feed.write(frame(HEADERS, PADDED | PRIORITY, 1, &padded));
    feed.write(frame(CONTINUATION, 0, 1, second));
    feed.write(frame(CONTINUATION, END_HEADERS, 1, third));
    feed.write(frame(DATA, END_STREAM, 1, b"xy"));
    assert_eq!(feed.told(), "> PUT https://h/ 2B");
    assert_eq!(
        feed.messages[0].subject.http().unwrap().header("A"),
        Some(b"b".as_slice())
    );
}

const CALL: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/p.S/M"),
    (":authority", "h"),
    ("content-type", "application/grpc"),
];
const ANSWER: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

fn status(code: &str) -> Vec<u8> {
    let fields = block(&[("grpc-status", code)], true);
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)
}

#[test]
fn trailers_and_grpc_messages_belong_to_their_message() {
    let mut feed = begun();
    feed.write(frame(HEADERS, END_HEADERS, 1, &block(CALL, true)));
    feed.write(frame(DATA, END_STREAM, 1, b"\0\0\0\0\x02hi"));
    feed.read(frame(HEADERS, END_HEADERS, 1, &block(ANSWER, true)));
    feed.read(frame(DATA, 0, 1, b"\0\0\0\0\x02b"));
    feed.read(frame(DATA, 0, 1, b"c"));
    feed.read(status("0"));
    assert_eq!(
        feed.told(),
        "> POST https://h/p.S/M 7B | < 200 POST https://h/p.S/M 7B"
    );
    let response = feed.messages[1].subject.http().unwrap();
    assert_eq!(response.trailer("grpc-status"), Some(b"0".as_slice()));
    assert_eq!(response.grpc_messages, 1);
    assert_eq!(feed.messages[1].protocol, Protocol::Grpc);
}

/// However the frames are cut, each message of a stream is told when it has come, its own bytes
/// with it, and the status at the end.
#[test]
fn messages_of_a_grpc_stream_are_told_as_they_come() {
    let messages: &[u8] = b"\0\0\0\0\x01a\0\0\0\0\0\0\0\0\0\x02bc";
    for at in 1..messages.len() {
        let mut feed = begun();
        feed.write(frame(HEADERS, END_HEADERS, 1, &block(CALL, true)));
        feed.write(frame(DATA, END_STREAM, 1, b"\0\0\0\0\x02hi"));
        feed.read(frame(HEADERS, END_HEADERS, 1, &block(ANSWER, true)));
        feed.told();
        let (first, second) = messages.split_at(at);
        feed.read(frame(DATA, 0, 1, first));
        feed.read(frame(DATA, 0, 1, second));
        assert_eq!(
            feed.told(),
            "in message of /p.S/M 6B | in message of /p.S/M 5B | in message of /p.S/M 7B",
            "cut at {at}"
        );
        feed.read(status("0"));
        assert_eq!(feed.told(), "< 200 POST https://h/p.S/M", "cut at {at}");
        let kept: Vec<&[u8]> = feed.messages.iter().map(|m| &m.body.kept[..]).collect();
        assert_eq!(kept[1..4].concat(), messages);
        let response = feed.messages[4].subject.http().unwrap();
        assert_eq!(response.grpc_messages, 3);
        assert_eq!(feed.messages[1].stream, Some(1));
    }
}

#[test]
fn a_grpc_dialogue_is_told_while_it_goes_on() {
    let mut feed = begun();
    feed.write(frame(HEADERS, END_HEADERS, 1, &block(CALL, true)));
    feed.write(frame(DATA, 0, 1, b"\0\0\0\0\x02hi"));
    feed.read(frame(HEADERS, END_HEADERS, 1, &block(ANSWER, true)));
    assert_eq!(feed.told(), "");
    feed.read(frame(DATA, 0, 1, b"\0\0\0\0\x01a"));
    assert_eq!(
        feed.told(),
        "> POST https://h/p.S/M | out message of /p.S/M 7B | in message of /p.S/M 6B"
    );
    feed.write(frame(DATA, 0, 1, b"\0\0\0\0\x03you"));
    feed.read(frame(DATA, 0, 1, b"\0\0\0\0\x01b"));
    assert_eq!(
        feed.told(),
        "out message of /p.S/M 8B | in message of /p.S/M 6B"
    );
    feed.write(frame(DATA, END_STREAM, 1, b""));
    feed.read(status("7"));
    assert_eq!(feed.told(), "< 200 POST https://h/p.S/M");
}

/// After a loss in a stream the rest is one cut message; nothing of it vanishes.
#[test]
fn a_grpc_stream_that_loses_bytes_is_told_to_its_end() {
    let mut feed = begun();
    feed.write(frame(HEADERS, END_HEADERS, 1, &block(CALL, true)));
    feed.write(frame(DATA, END_STREAM, 1, b"\0\0\0\0\x02hi"));
    feed.read(frame(HEADERS, END_HEADERS, 1, &block(ANSWER, true)));
    feed.read(frame(DATA, 0, 1, b"\0\0\0\0\x01a\0\0\0\0\x01b"));
    feed.told();
    let rest = frame(DATA, 0, 1, b"\0\0\0\0\x01c\0\0\0\0\x01d");
    feed.read(&rest[..9]).gap(Dir::In, 8).read(&rest[17..]);
    feed.read(status("0"));
    assert_eq!(
        feed.told(),
        "gap in 8 | in message of /p.S/M 4B [|] | < 200 POST https://h/p.S/M"
    );
    let mut feed = begun();
    feed.write(frame(HEADERS, END_HEADERS, 1, &block(CALL, true)));
    feed.read(frame(HEADERS, END_HEADERS, 1, &block(ANSWER, true)));
    feed.read(frame(DATA, 0, 1, b"\0\0\0\0\x01a\0\0\0\0\x09b"));
    feed.close();
    assert_eq!(
        feed.told(),
        "> POST https://h/p.S/M | in message of /p.S/M 6B | in message of /p.S/M 6B [|] | \
         < 200 POST https://h/p.S/M [|]"
    );
}

#[test]
fn a_pushed_response_repeats_the_request_that_was_promised() {
    let mut feed = begun();
    feed.write(get(1, "/"));
    let promise = [
        &2u32.to_be_bytes()[..],
        &block(
            &[(":method", "GET"), (":path", "/p"), (":authority", "h")],
            false,
        ),
    ]
    .concat();
    feed.read(frame(PUSH_PROMISE, END_HEADERS, 1, &promise));
    feed.read(ok(2, 0))
        .read(frame(DATA, END_STREAM, 2, b"pushed"));
    feed.read(ok(1, END_STREAM)).close();
    assert_eq!(
        feed.told(),
        "> GET https://h/ | > GET https://h/p | < 200 GET https://h/p 6B | < 200 GET https://h/"
    );
}

#[test]
fn a_stream_that_is_reset_has_no_response() {
    let mut feed = begun();
    feed.write(get(1, "/a")).write(get(3, "/b"));
    feed.read(ok(3, 0)).read(frame(DATA, 0, 3, b"ab"));
    feed.write(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    feed.read(frame(RST_STREAM, 0, 3, &[0, 0, 0, 2]));
    assert_eq!(
        feed.told(),
        "> GET https://h/a | > GET https://h/b | ! GET https://h/a | < 200 GET https://h/b 2B [|]"
    );
}

#[test]
fn going_away_with_an_error_says_which() {
    let mut feed = begun();
    let calm = [&[0, 0, 0, 1, 0, 0, 0, 11][..], b"too much"].concat();
    feed.read(frame(GOAWAY, 0, 0, &calm))
        .read(frame(GOAWAY, 0, 0, &[0; 8]));
    assert_eq!(feed.told(), "in goaway ENHANCE_YOUR_CALM too much");
}

#[test]
fn a_connection_joined_in_its_middle_is_understood_from_the_next_frame_on() {
    let mut feed = Feed::new();
    feed.write("the rest of some frame");
    // An indexed field of before (62), then literals.
    let fields = [
        &[0xbe][..],
        &block(&[(":method", "GET"), (":path", "/x")], true),
    ]
    .concat();
    feed.write(frame(HEADERS, END_HEADERS | END_STREAM, 7, &fields));
    feed.read(ok(7, END_STREAM));
    assert_eq!(
        feed.told(),
        "out 22 | > GET https://10.0.0.3:443/x | < 200 GET https://10.0.0.3:443/x"
    );
    assert_eq!(feed.messages[0].subject.http().unwrap().unknown_fields, 1);
}

#[test]
fn content_whose_head_was_not_seen_is_told_as_such() {
    let mut feed = Feed::new();
    feed.read(frame(DATA, 0, 5, b"abc"))
        .read(frame(DATA, END_STREAM, 5, b"de"));
    assert_eq!(feed.told(), "< ? 5B [|]");
}

#[test]
fn bytes_lost_from_content_are_counted_and_the_next_frame_is_found() {
    let mut feed = begun();
    feed.write(get(1, "/a"));
    let content = frame(DATA, 0, 1, &[b'x'; 100]);
    feed.read(ok(1, 0))
        .read(&content[..20])
        .gap(Dir::In, 50)
        .read(&content[70..]);
    feed.read(frame(DATA, END_STREAM, 1, b"end"));
    assert_eq!(
        feed.told(),
        "> GET https://h/a | gap in 50 | < 200 GET https://h/a 103B [|]"
    );
    // More than the frame: its end is unknown, and so is what the table holds.
    let other = frame(DATA, 0, 3, &[b'x'; 100]);
    feed.write(get(3, "/b"))
        .read(ok(3, 0))
        .read(&other[..20])
        .gap(Dir::In, 500);
    feed.read("rest of something")
        .read(frame(DATA, END_STREAM, 3, b"end"));
    feed.write(get(5, "/c")).read(ok(5, END_STREAM));
    assert_eq!(
        feed.told(),
        "> GET https://h/b | gap in 500 | in 17 | < 200 GET https://h/b 14B [|] \
         | > GET https://h/c | < 200 GET https://h/c"
    );
}

#[test]
fn events_of_a_stream_are_told_one_by_one() {
    let mut feed = begun();
    feed.write(get(1, "/e"));
    let fields = [(":status", "200"), ("content-type", "text/event-stream")];
    feed.read(frame(HEADERS, END_HEADERS, 1, &block(&fields, false)));
    feed.read(frame(DATA, 0, 1, b"data: hi\n\ndata: "));
    feed.read(frame(DATA, END_STREAM, 1, b"there\n\n"));
    assert_eq!(
        feed.told(),
        "> GET https://h/e | < 200 GET https://h/e | in message 2B | in message 5B"
    );
}

/// Kinds of misbehaviour that h2spec tries on servers.
#[test]
fn odd_frames_never_derail_what_comes_later() {
    let odd: [(&str, Vec<u8>); 8] = [
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        (
            "a window update of the wrong length",
            frame(8, 0, 1, b"abc"),
        ),
        ("SETTINGS of an odd length", frame(SETTINGS, 0, 0, b"abcd")),
        (
            "CONTINUATION without HEADERS",
            frame(CONTINUATION, 4, 1, b""),
        ),
        (
            "padding longer than the payload",
            frame(DATA, PADDED, 1, &[200, 1, 2]),
        ),
        (
            "HEADERS that are no HPACK",
            frame(HEADERS, 4, 9, &[0x80, 0xff]),
        ),
        (
            "a frame of an unknown kind",
            frame(0xf0, 0xff, 3, b"grease"),
        ),
        (
            "HEADERS cut off by another frame",
            [frame(HEADERS, 0, 9, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
    ];
    for (what, bytes) in odd {
        let mut feed = begun();
        feed.write(bytes);
        feed.told();
        feed.write(get(11, "/later")).read(ok(11, END_STREAM));
        assert_eq!(
            feed.told(),
            "> GET https://h/later | < 200 GET https://h/later",
            "after {what}"
        );
    }
}

#[test]
fn other_binary_protocols_are_no_frames() {
    for bytes in [
        &b"\0\0\0\x0cRead\0\0"[..],
        b"Q\0\0\0\x0dSELECT 1\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
        b"AMQP\0\0\x09\x01",
        b"\x10\x1c\0\x04MQTT\x04\x02",
        b"",
        b"\0\0",
    ] {
        assert!(!are_frames(bytes), "{bytes:?}");
    }
}

#[test]
fn streams_that_never_end_are_forgotten_in_time() {
    let mut feed = begun();
    let fields = block(
        &[(":method", "GET"), (":path", "/"), (":authority", "h")],
        false,
    );
    for stream in 0..(MAX_STREAMS as u32 + 10) {
        feed.write(frame(HEADERS, END_HEADERS, stream * 2 + 1, &fields));
    }
    assert_eq!(
        feed.messages.len(),
        20,
        "ten cut requests, ten without response"
    );
}

/// Nothing that was taken may vanish.
#[test]
fn a_frame_that_is_none_after_all_is_shown_as_bytes() {
    let mut feed = begun();
    let bad = frame(SETTINGS, 0, 7, b"");
    feed.write(&bad[..5]).write([&bad[5..], b"xy"].concat());
    assert_eq!(feed.told(), "out 5 | out 6");
    feed.write(settings()).told();
    let head = get(1, "/a");
    feed.write(&head[..head.len() - 1]).gap(Dir::Out, 1);
    assert_eq!(feed.told(), format!("out {} | gap out 1", head.len() - 1));
}

#[test]
fn a_head_that_is_never_continued_is_told_as_far_as_it_came() {
    let mut feed = begun();
    let fields = block(
        &[(":method", "GET"), (":path", "/a"), (":authority", "h")],
        false,
    );
    feed.write(frame(HEADERS, 1, 1, &fields));
    assert_eq!(feed.told(), "");
    feed.write(settings());
    assert_eq!(feed.told(), "> GET https://h/a [|] | out 18");
}
