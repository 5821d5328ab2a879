//! Server-sent events (HTML standard, section 9.2): the events of a `text/event-stream` body.

use super::At;
use super::body::Context;
use super::message::{Asked, Http, Message, Part, Protocol, Subject};
use crate::event::Dir;
use std::rc::Rc;

/// A longer line is cut.
const MAX_LINE: usize = 1 << 20;

/// Whether the response is such a stream, and one that can be read as it comes.
pub fn is_stream(http: &Http) -> bool {
    let is_type = http
        .content_type()
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
    is_type && http.status == Some(200) && http.header("content-encoding").is_none()
}

/// One stream of events.
#[derive(Debug)]
pub struct Events {
    asked: Option<Rc<Asked>>,
    line: Vec<u8>,
    is_cut: bool,
    /// The event that is being read, and the type that it names.
    event: Option<Message>,
    kind: Vec<u8>,
}

impl Events {
    /// Those of the response to `asked`.
    pub fn new(asked: Option<Rc<Asked>>) -> Events {
        Events {
            asked,
            line: Vec::new(),
            is_cut: false,
            event: None,
            kind: Vec::new(),
        }
    }

    /// The next bytes of the body.
    pub fn data(
        &mut self,
        stream: Option<u32>,
        dir: Dir,
        at: At,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        for row in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.is_cut |= row.len() > room;
            self.line.extend_from_slice(row.get(..room).unwrap_or(row));
            if row.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.row(stream, dir, at, line.trim_ascii_end(), context);
            }
        }
    }

    fn row(
        &mut self,
        stream: Option<u32>,
        dir: Dir,
        at: At,
        line: &[u8],
        context: &mut Context<'_>,
    ) {
        if line.is_empty() {
            return self.dispatch(at, context);
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let name = line.get(..colon.unwrap_or(line.len())).unwrap_or(line);
        let value = colon.and_then(|colon| line.get(colon + 1..));
        let value = value.unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.kind = value.to_vec(),
            b"data" => {
                let asked = &self.asked;
                let event = self.event.get_or_insert_with(|| {
                    let nothing = Rc::new(Subject::Line(Vec::new()));
                    let mut event =
                        Message::begin(Protocol::Events, Part::Single, dir, at, nothing);
                    event.asked.clone_from(asked);
                    event.stream = stream;
                    event
                });
                if event.body.size > 0 {
                    context.keep(&mut event.body, b"\n");
                }
                context.keep(&mut event.body, value);
            }
            _ => {}
        }
    }

    /// The stream has ended: an event without its empty line is incomplete.
    pub fn end(&mut self, at: At, context: &mut Context<'_>) {
        self.is_cut = true;
        self.dispatch(at, context);
    }

    fn dispatch(&mut self, at: At, context: &mut Context<'_>) {
        let kind = std::mem::take(&mut self.kind);
        if let Some(mut event) = self.event.take() {
            let kind = if kind.is_empty() {
                b"message".to_vec()
            } else {
                kind
            };
            event.subject = Rc::new(Subject::Line(kind));
            event.is_cut |= std::mem::take(&mut self.is_cut);
            context.finish(event, at);
        }
    }

    /// Bytes of the body were not seen: they may have been of this event, or the end of it.
    pub fn gap(&mut self) {
        self.is_cut = true;
        self.line.clear();
    }
}
