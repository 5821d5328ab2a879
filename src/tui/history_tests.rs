//! Tests of `history`.

use super::*;
use crate::event::{Dir, Kind};
use crate::tui::testing::{SECOND, conn, data, piece, request, response};

fn history(exchanges: usize, bytes: usize) -> History {
    History::new(Bounds { exchanges, bytes }, None)
}

fn parsed(words: &str) -> Option<Filter> {
    Some(Filter::parse(words).unwrap())
}

fn shown(history: &History) -> Vec<u64> {
    history.shown().iter().copied().collect()
}

/// Requests that were answered.
fn fill(history: &mut History, count: u64, body: &[u8]) {
    let conn = Rc::new(conn(1));
    for number in 0..count {
        let get = request(SECOND + number, "GET", "/", b"");
        history.message(&conn, &get);
        history.message(&conn, &response(&get, 1000, 200, "text/plain", body));
    }
}

#[test]
fn a_request_and_its_response_are_one_row_whatever_comes_between() {
    let mut history = history(10, 1 << 20);
    let conn = Rc::new(conn(1));
    let (one, two) = (request(1, "GET", "/1", b""), request(2, "GET", "/2", b""));
    assert_eq!(history.message(&conn, &one), Change::New(1));
    assert_eq!(history.message(&conn, &two), Change::New(2));
    let answer = response(&two, 5, 200, "text/plain", b"two");
    assert_eq!(history.message(&conn, &answer), Change::Ended(2));
    let continued = response(&one, 1, 100, "text/plain", b"");
    assert_eq!(history.message(&conn, &continued), Change::Ended(1));
    assert_eq!(history.get(1).unwrap().stage, Stage::Open);
    let answer = response(&one, 9, 500, "text/plain", b"one");
    assert_eq!(history.message(&conn, &answer), Change::Ended(1));
    assert_eq!(history.get(1).unwrap().status(), Some(500));
    assert_eq!(history.get(2).unwrap().status(), Some(200));
    assert_eq!(history.len(), 2);
}

#[test]
fn streams_are_paired_though_their_subject_has_been_copied() {
    let mut history = history(10, 1 << 20);
    let conn = Rc::new(conn(1));
    let mut get = request(1, "GET", "/", b"");
    get.stream = Some(5);
    history.message(&conn, &get);
    let copy = Message {
        subject: Rc::new((*get.subject).clone()),
        ..get
    };
    let mut answer = response(&copy, 5, 200, "text/plain", b"");
    answer.stream = Some(5);
    assert_eq!(history.message(&conn, &answer), Change::Ended(1));
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let mut history = history(100, 1 << 30);
    fill(&mut history, 250, b"x");
    assert_eq!((history.len(), history.left_out), (100, 150));
    assert_eq!(shown(&history), (151..=250).collect::<Vec<_>>());
    assert!(history.get(150).is_none());
}

#[test]
fn bodies_are_bounded_and_the_count_of_their_bytes_comes_back_to_nothing() {
    let mut history = history(1_000_000, 1 << 20);
    fill(&mut history, 100, &[b'x'; 100_000]);
    assert!(history.bytes() <= 1 << 20, "{}", history.bytes());
    assert!((5..=10).contains(&history.len()), "{}", history.len());
    // A single one may be larger than all that is wanted.
    fill(&mut history, 1, &vec![b'x'; 2 << 20]);
    assert_eq!(history.len(), 1);
    while !history.is_empty() {
        history.drop_first();
    }
    assert_eq!(history.bytes(), 0);
    assert!(history.open.is_empty() && history.raw.is_empty() && history.shown.is_empty());
}

#[test]
fn a_filter_finds_among_those_that_are_there_and_those_that_come() {
    let mut history = history(10_000, 1 << 30);
    fill(&mut history, 100, b"x");
    history.set_filter(parsed("status >= 500"));
    assert!(history.is_busy());
    while history.is_busy() {
        history.work(Duration::from_millis(1));
    }
    assert!(shown(&history).is_empty());
    let conn = Rc::new(conn(1));
    let get = request(2 * SECOND, "GET", "/late", b"");
    history.message(&conn, &get);
    // Not before it is known.
    assert!(shown(&history).is_empty());
    history.message(&conn, &response(&get, 5, 500, "text/plain", b""));
    assert_eq!(shown(&history), [101]);
    history.set_filter(None);
    while history.is_busy() {
        history.work(Duration::from_millis(1));
    }
    assert_eq!(shown(&history).len(), 101);
    assert!(history.shown().iter().is_sorted());
}

#[test]
fn a_filter_is_asked_of_request_and_response_together() {
    let mut history = history(10, 1 << 20);
    let conn = Rc::new(conn(1));
    let post = request(1, "POST", "/", b"secret");
    history.message(&conn, &post);
    history.message(&conn, &response(&post, 5, 200, "text/plain", b"fine"));
    for (words, passes) in [
        ("http.req.body contains secret and status == 200", true),
        ("not status == 200", false),
        ("not body contains fine", false),
        ("request and response", true),
        ("method == POST and type == text/plain", true),
        ("status == 200 and status == 500", false),
    ] {
        let filter = parsed(words).unwrap();
        assert_eq!(history.get(1).unwrap().passes(&filter), passes, "{words}");
    }
}

#[test]
fn what_does_not_pass_the_command_line_takes_no_room() {
    let mut history = History::new(
        Bounds {
            exchanges: 10,
            bytes: 1 << 20,
        },
        parsed("status >= 500"),
    );
    fill(&mut history, 100, b"x");
    let conn = Rc::new(conn(1));
    let post = request(2 * SECOND, "POST", "/", b"the body");
    history.message(&conn, &post);
    assert!(history.is_empty());
    history.message(&conn, &response(&post, 5, 502, "text/plain", b""));
    fill(&mut history, 100, b"x");
    assert_eq!((history.len(), history.left_out), (1, 0));
    // The request has come with it.
    let kept = history.get(1).unwrap().request.as_ref().unwrap();
    assert_eq!(kept.body.kept, b"the body");
    assert!(history.pending.is_empty());
}

#[test]
fn a_request_without_a_response_is_said_to_have_none() {
    let mut history = history(10, 1 << 20);
    let conn = Rc::new(conn(1));
    let get = request(1, "GET", "/", b"");
    history.message(&conn, &get);
    let none = Message {
        part: Part::Unanswered,
        ..get.clone()
    };
    assert_eq!(history.message(&conn, &none), Change::Ended(1));
    assert_eq!(history.get(1).unwrap().stage, Stage::Unanswered);
    assert_eq!(history.get(1).unwrap().status(), None);
    assert!(
        history
            .get(1)
            .unwrap()
            .passes(&parsed("unanswered").unwrap())
    );
}

#[test]
fn bytes_of_no_protocol_are_questions_with_their_answers() {
    let mut history = history(10, 1 << 20);
    let conn = Rc::new(conn(1));
    for dir in [Dir::Out, Dir::Out, Dir::In, Dir::Out, Dir::In, Dir::In] {
        let event = data(&conn, 1, piece(dir, b"12345"));
        let Kind::Data(data) = event.kind else {
            panic!()
        };
        history.bytes_of(&conn, &event, &data);
    }
    let sizes: Vec<u64> = (1..history.next())
        .map(|number| history.get(number).unwrap().size())
        .collect();
    assert_eq!(sizes, [15, 15]);
    assert!(
        history
            .get(1)
            .unwrap()
            .passes(&parsed("payload contains 234").unwrap())
    );
}

#[test]
fn marks_stay_and_can_be_shown_alone() {
    let mut history = history(10, 1 << 20);
    fill(&mut history, 5, b"");
    history.change(3, |row| row.is_marked = true);
    history.set_only_marked(true);
    while history.is_busy() {
        history.work(Duration::from_millis(1));
    }
    assert_eq!(shown(&history), [3]);
    history.clear();
    assert!(history.is_empty() && history.next() == 6);
}
