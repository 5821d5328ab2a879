//! Tests of `export`.

use super::*;
use crate::tui::history::Bounds;
use crate::tui::testing::{SECOND, conn, filled, header, piece, request, response, state};
use std::process::Command;
use std::rc::Rc;

fn exchange(request: &Message, response: &Message) -> Exchange {
    let mut state = state(Bounds::default(), None);
    let conn = Rc::new(conn(1));
    state.history.message(&conn, request);
    state.history.message(&conn, response);
    state.history.get(1).unwrap().clone()
}

/// The words that a shell makes of a command.
fn words(command: &[u8]) -> Vec<String> {
    let script = [b"curl() { printf '%s\\0' \"$@\"; }\n".as_slice(), command].concat();
    let output = Command::new("sh")
        .arg("-c")
        .arg(String::from_utf8(script).unwrap())
        .output();
    let out = String::from_utf8(output.unwrap().stdout).unwrap();
    out.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn a_curl_command_asks_for_the_same_whatever_is_in_it() {
    let mut post = request(
        SECOND,
        "POST",
        "/it's?$(reboot)&`x`",
        b"it's \"a\" body\nof two lines",
    );
    let mut http = post.subject.http().unwrap().clone();
    http.headers.push(header("X-Odd", "a'b $(x) \\"));
    http.headers.push(header("X-Empty", ""));
    http.headers.push(header("@/etc/passwd", "x"));
    post.subject = Rc::new(crate::proto::message::Subject::Http(http));
    let answer = response(&post, 5, 200, "text/plain", b"");
    let command = curl(&exchange(&post, &answer)).unwrap();
    assert_eq!(
        words(&command),
        [
            "https://api.example.com/it's?$(reboot)&`x`",
            "-H",
            "Accept: */*",
            "-H",
            "X-Odd: a'b $(x) \\",
            "-H",
            "X-Empty;",
            "--data-binary",
            "it's \"a\" body\nof two lines"
        ]
    );
}

#[test]
fn a_body_that_is_no_text_goes_through_printf() {
    let body: Vec<u8> = (0..=255).collect();
    let put = request(SECOND, "PUT", "/", &body);
    let answer = response(&put, 5, 200, "text/plain", b"");
    let command = curl(&exchange(&put, &answer)).unwrap();
    assert!(command.is_ascii() && !command.contains(&0x1b));
    let script = [b"curl() { cat; }\n".as_slice(), &command].concat();
    let output = Command::new("sh")
        .arg("-c")
        .arg(String::from_utf8(script).unwrap())
        .output();
    assert_eq!(output.unwrap().stdout, body);
}

#[test]
fn a_file_that_is_there_is_not_touched_and_a_new_one_is_for_its_owner() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let state = filled();
    let first = state.history.get(1).unwrap();
    for (_, form, name) in Form::ALL {
        let path = dir.path().join(form.default_name(1));
        let is_there = offers(first, form);
        assert_eq!(save(first, form, &path).is_ok(), is_there, "{name}");
        assert_eq!(path.exists(), is_there, "{name}");
        if is_there {
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
            let error = save(first, form, &path).unwrap_err();
            assert!(format!("{error:#}").contains("exists"), "{error:#}");
        }
    }
    let har = std::fs::read(dir.path().join("tlssniff-1.har")).unwrap();
    let har: serde_json::Value = serde_json::from_slice(&har).unwrap();
    assert_eq!(har["log"]["entries"][0]["response"]["status"], 200);
}

#[test]
fn a_capture_file_reads_back_as_the_bytes_of_the_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.pcapng");
    let state = filled();
    let last = state.history.next() - 1;
    let mut exchange = state.history.get(last).unwrap().clone();
    // In the middle of the connection.
    for piece in &mut exchange.pieces {
        piece.off += 1000;
    }
    save(&exchange, Form::Pcapng, &path).unwrap();
    let mut read = Vec::new();
    crate::readback::read(File::open(&path).unwrap(), &mut |event| {
        if let Kind::Data(data) = event.kind {
            read.push((data.dir, data.off, data.bytes.to_vec()));
        }
        Ok(())
    })
    .unwrap();
    let (out, input) = (piece(Dir::Out, b"hello\x1b[2J"), piece(Dir::In, b"world"));
    assert_eq!(
        read,
        [
            (Dir::Out, 0, out.bytes.to_vec()),
            (Dir::In, 0, input.bytes.to_vec())
        ]
    );
}
