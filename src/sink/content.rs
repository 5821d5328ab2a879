//! Makes the content of a message readable: decoded, JSON with line breaks, other character sets as
//! text. Not escaped: that is for whoever shows it.

use super::charset;
use crate::proto::body::{self, Decoded};
use crate::proto::protobuf;
use crate::proto::{Http, Message, Protocol};

/// JSON is indented up to here; who sends more wants no reader.
const MAX_JSON: usize = 1 << 20;

/// A part of a content. Foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// JSON with line breaks.
    Json(Vec<u8>),
    /// Lines of text.
    Text(Vec<u8>),
    /// One line on what is not shown.
    Note(Vec<u8>),
}

/// The content of the message, to be read from top to bottom.
pub fn readable(message: &Message) -> Vec<Piece> {
    let decoded = match message.subject.http() {
        Some(http) => body::decode(http, &message.body),
        None => Decoded {
            bytes: message.body.kept.clone(),
            is_cut: !message.body.is_whole(),
            undone: None,
        },
    };
    let mut pieces = Vec::new();
    if message.protocol == Protocol::Grpc {
        grpc_messages(&mut pieces, &decoded.bytes);
    } else if let Some(coding) = &decoded.undone {
        let mut line = format!("({} bytes, not decoded: ", decoded.bytes.len()).into_bytes();
        line.extend_from_slice(coding);
        line.push(b')');
        pieces.push(Piece::Note(line));
    } else if let Some(json) = json(message, &decoded) {
        pieces.push(Piece::Json(json));
    } else if let Some(text) = message
        .subject
        .http()
        .and_then(|http| charset::decode(http, &decoded.bytes))
    {
        pieces.push(Piece::Text(text.into_bytes()));
    } else if is_text(&decoded.bytes) {
        pieces.push(Piece::Text(decoded.bytes));
    } else {
        let line = format!("({} bytes that are no text)", decoded.bytes.len());
        pieces.push(Piece::Note(line.into_bytes()));
    }
    if decoded.is_cut {
        pieces.push(Piece::Note(b"[|body]".to_vec()));
    }
    pieces
}

/// Each message of a gRPC body, by the numbers of its fields.
fn grpc_messages(out: &mut Vec<Piece>, body: &[u8]) {
    for (is_compressed, bytes) in protobuf::grpc_messages(body) {
        let fields = protobuf::fields(bytes).filter(|_| !is_compressed);
        let kind = match (is_compressed, &fields) {
            (true, _) => "compressed message",
            (false, Some(_)) => "message",
            (false, None) => "message that is no Protocol Buffers",
        };
        let note = format!("({kind} of {} bytes)", bytes.len());
        out.push(Piece::Note(note.into_bytes()));
        match fields {
            Some(fields) => out.push(Piece::Text(fields.into_bytes())),
            None if is_text(bytes) => out.push(Piece::Text(bytes.to_vec())),
            None => {}
        }
    }
}

/// The body with line breaks, when it is JSON.
fn json(message: &Message, decoded: &Decoded) -> Option<Vec<u8>> {
    let kind = message.subject.http().and_then(Http::content_type);
    let may_be = match kind {
        Some(kind) => kind.to_ascii_lowercase().ends_with(b"json"),
        None => matches!(decoded.bytes.first(), Some(b'{' | b'[')),
    };
    if !may_be || decoded.is_cut || decoded.bytes.len() > MAX_JSON {
        return None;
    }
    serde_json::from_slice::<serde_json::Value>(&decoded.bytes).ok()?;
    Some(broken(&decoded.bytes))
}

/// JSON with line breaks, and everything else as it was: numbers too long for us, the order of
/// keys, and how a string was escaped.
fn broken(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth.min(64) * 2));
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(end) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

/// UTF-8, or at least nothing that only files have.
pub fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: &&u8| **byte < 0x20 && !matches!(**byte, b'\n' | b'\r' | b'\t' | 0x1b);
    !bytes.contains(&0) && bytes.iter().filter(is_control).count() * 20 <= bytes.len()
}
