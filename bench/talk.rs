//! Requests and responses for the feed, as a busy server moves them.

use tlssniff::event::{Event, Kind};
use tlssniff::proto::{Conversations, Item, Limits};
use tlssniff::sink::Sink;

/// Decodes what is fed before it reaches the sink.
pub struct Talk {
    conversations: Conversations,
    /// A request and its response, and where the stream's number stands in each.
    pub calls: [(Vec<u8>, Vec<usize>); 2],
}

impl Talk {
    /// In HTTP/1 or 2, with so many bytes of content in each response; nobody looks at them.
    pub fn new(is_http2: bool, size: usize) -> Talk {
        let content = vec![b'~'; size];
        let calls = if is_http2 {
            let request = frame(1, 5, &block(&REQUEST, &[0x82, 0x87]));
            let mut response = frame(1, 4, &block(&RESPONSE, &[0x88]));
            let second = response.len();
            response.extend(frame(0, 1, &content));
            [(request, vec![5]), (response, vec![5, second + 5])]
        } else {
            let head = |first: &str, fields: &[(&str, &str)]| {
                let fields = fields.iter();
                let lines = fields.map(|(name, value)| format!("{name}: {value}\r\n"));
                format!("{first}\r\n{}", lines.collect::<String>())
            };
            let request = head("GET /a/path?with=query HTTP/1.1", &REQUEST[1..]) + "\r\n";
            let response = head("HTTP/1.1 200 OK", &RESPONSE);
            let response = format!("{response}content-length: {size}\r\n\r\n");
            let response = [response.into_bytes(), content].concat();
            [(request.into_bytes(), vec![]), (response, vec![])]
        };
        Talk {
            conversations: Conversations::new(Limits::NO_BODIES),
            calls,
        }
    }

    pub fn event(&mut self, event: &Event<'_>, sink: &mut dyn Sink) -> anyhow::Result<()> {
        self.conversations.event(event, &mut |item| match item {
            // Else the cost of something else would be counted.
            Item::Event(event) if matches!(event.kind, Kind::Data(_)) => {
                anyhow::bail!("bytes were fed that are no message")
            }
            Item::Event(event) => sink.event(event),
            Item::Message(conn, message) => sink.message(conn, message),
        })
    }
}

const REQUEST: [(&str, &str); 6] = [
    (":path", "/a/path?with=query"),
    ("host", "www.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ("accept", "text/html,application/xhtml+xml"),
    ("accept-encoding", "gzip, deflate, br"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
];

const RESPONSE: [(&str, &str); 4] = [
    ("date", "Tue, 01 Dec 2026 00:00:00 GMT"),
    ("server", "nginx"),
    ("content-type", "text/plain"),
    ("cache-control", "no-cache, no-store"),
];

/// Fields of the static table, then literal ones that enter no table.
fn block(fields: &[(&str, &str)], indexed: &[u8]) -> Vec<u8> {
    let mut block = indexed.to_vec();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.bytes());
        }
    }
    block
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame");
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}
