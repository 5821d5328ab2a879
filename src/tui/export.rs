//! Saves an exchange: as a curl command, HAR, a body, or a capture file.

use super::exchange::Exchange;
use super::text::harmless;
use crate::event::{Conn, Dir, Event, Kind, Totals};
use crate::proto::{Message, Part, body};
use crate::sink::Sink;
use crate::sink::har::HarSink;
use crate::sink::pcapng::{Options, PcapSink};
use crate::sink::rotate::Output;
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// As what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Curl,
    Har,
    RequestBody,
    ResponseBody,
    Pcapng,
}

impl Form {
    /// The key that chooses it, and what it is.
    pub const ALL: [(char, Form, &'static str); 5] = [
        ('c', Form::Curl, "curl command"),
        ('h', Form::Har, "HAR"),
        ('r', Form::RequestBody, "request's body, decoded"),
        ('b', Form::ResponseBody, "response's body, decoded"),
        ('p', Form::Pcapng, "pcapng, for Wireshark"),
    ];

    pub fn default_name(self, number: u64) -> String {
        let end = match self {
            Form::Curl => ".sh",
            Form::Har => ".har",
            Form::RequestBody => "-request.body",
            Form::ResponseBody => "-response.body",
            Form::Pcapng => ".pcapng",
        };
        format!("tlssniff-{number}{end}")
    }
}

/// Writes a new file; how many bytes it has.
///
/// # Errors
/// There is such a file, it cannot be written, or the exchange has nothing of the kind.
pub fn save(exchange: &Exchange, form: Form, path: &Path) -> Result<u64> {
    let content = match form {
        Form::Curl => curl(exchange)?,
        Form::RequestBody => content(&exchange.request).context("the request has no body")?,
        Form::ResponseBody => content(&exchange.response).context("the response has no body")?,
        Form::Har => {
            let Some(response) = exchange.response.as_ref().filter(|_| is_http(exchange)) else {
                bail!("HAR holds HTTP requests with their responses");
            };
            let mut sink = HarSink::new(create(path)?)?;
            if let Some(request) = &exchange.request {
                sink.message(&exchange.conn, request)?;
            }
            sink.message(&exchange.conn, response)?;
            sink.finish(&Totals::default())?;
            return written(path);
        }
        Form::Pcapng => {
            if exchange.pieces.is_empty() {
                bail!("what the connection moved then is not kept any more");
            }
            pcapng(exchange, create(path)?)?;
            return written(path);
        }
    };
    create(path)?
        .write_all(&content)
        .with_context(|| format!("write {}", path.display()))?;
    written(path)
}

/// Plaintext is nobody else's business, and what is there already is not touched.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("create {}", path.display()))
}

fn written(path: &Path) -> Result<u64> {
    Ok(path.metadata().map(|meta| meta.len())?)
}

fn is_http(exchange: &Exchange) -> bool {
    exchange.asked().is_some() && exchange.status().is_some()
}

fn content(message: &Option<Message>) -> Option<Vec<u8>> {
    let message = message.as_ref().filter(|message| message.body.size > 0)?;
    Some(match message.subject.http() {
        Some(http) => body::decode(http, &message.body).bytes,
        None => message.body.kept.clone(),
    })
}

/// Fields that curl makes itself.
const OWN: [&[u8]; 4] = [
    b"host",
    b"content-length",
    b"connection",
    b"transfer-encoding",
];

fn curl(exchange: &Exchange) -> Result<Vec<u8>> {
    let Some(http) = exchange.asked() else {
        bail!("only HTTP requests can be made with curl");
    };
    let method = http.method.as_deref().unwrap_or(b"GET");
    let url = http.url.as_deref().context("the URL is not known")?;
    let body = exchange.request.as_ref().map(|message| &message.body);
    let body = body.filter(|body| body.size > 0);
    let mut out = Vec::new();
    if exchange.request.is_none() {
        out.extend_from_slice(b"# The request was not kept, only its head.\n");
    }
    if let Some(body) = body {
        if !body.is_whole() {
            out.extend_from_slice(b"# The body is not complete.\n");
        }
        if !is_plain(&body.kept) {
            // An argument cannot hold all bytes, printf(1) can.
            out.extend_from_slice(b"printf '");
            for byte in &body.kept {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            out.extend_from_slice(b"' |\n");
        }
    }
    out.extend_from_slice(b"curl ");
    if method == b"HEAD" {
        out.extend_from_slice(b"--head ");
    } else if method
        != if body.is_some() {
            b"POST".as_slice()
        } else {
            b"GET"
        }
    {
        out.extend_from_slice(b"-X ");
        quote(&mut out, method);
        out.push(b' ');
    }
    if url.first() == Some(&b'-') {
        out.extend_from_slice(b"--url ");
    }
    quote(&mut out, url);
    for header in &http.headers {
        let is_own = OWN.iter().any(|own| header.name.eq_ignore_ascii_case(own));
        // curl would read a file of that name.
        if is_own || header.name.first() == Some(&b'@') {
            continue;
        }
        out.extend_from_slice(b" \\\n  -H ");
        let separator: &[u8] = if header.value.is_empty() { b";" } else { b": " };
        quote(&mut out, &[&header.name, separator, &header.value].concat());
    }
    match body {
        Some(body) if is_plain(&body.kept) => {
            out.extend_from_slice(b" \\\n  --data-binary ");
            quote(&mut out, &body.kept);
        }
        Some(_) => out.extend_from_slice(b" \\\n  --data-binary @-"),
        None => {}
    }
    out.push(b'\n');
    Ok(out)
}

/// Whether it is text that neither a terminal nor curl takes for anything else.
fn is_plain(bytes: &[u8]) -> bool {
    let is_text = std::str::from_utf8(bytes).is_ok_and(|text| {
        text.split('\n')
            .all(|line| harmless(line.as_bytes()) == line)
    });
    is_text && bytes.first() != Some(&b'@')
}

/// One word of a POSIX shell. What could drive a terminal that shows the file is spelled out.
fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    let text = match is_plain(bytes) || bytes.first() == Some(&b'@') {
        true => bytes.to_vec(),
        false => harmless(bytes).into_bytes(),
    };
    out.push(b'\'');
    for byte in text {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(byte),
        }
    }
    out.push(b'\'');
}

/// The connection as if it had been opened for this exchange alone.
fn pcapng(exchange: &Exchange, file: File) -> Result<()> {
    let conn: &Conn = &exchange.conn;
    let options = Options {
        comment: format!(
            "one exchange, saved by tlssniff {}",
            env!("CARGO_PKG_VERSION")
        ),
        ..Options::default()
    };
    let mut sink = PcapSink::new(Output::stream(Box::new(file), "the export"), options)?;
    let mut event = Event {
        ts: exchange.start(),
        conn,
        tid: 0,
        func: "",
        kind: Kind::Open,
    };
    sink.event(&event)?;
    let base = |dir: Dir| {
        let mut pieces = exchange.pieces.iter().filter(|piece| piece.dir == dir);
        pieces.next().map_or(0, |piece| piece.off)
    };
    let bases = (base(Dir::Out), base(Dir::In));
    for piece in &exchange.pieces {
        let mut data = piece.data();
        let base = match piece.dir {
            Dir::Out => bases.0,
            Dir::In => bases.1,
        };
        data.off = data.off.saturating_sub(base);
        event.ts = piece.ts;
        event.kind = Kind::Data(data);
        sink.event(&event)?;
    }
    event.kind = Kind::Close;
    sink.event(&event)?;
    let captured = exchange.pieces.len() as u64;
    sink.finish(&Totals {
        captured,
        shown: captured,
        ..Totals::default()
    })
}

/// Whether there is something to save in this form.
pub fn offers(exchange: &Exchange, form: Form) -> bool {
    let has_body = |message: &Option<Message>| {
        message
            .as_ref()
            .is_some_and(|message| message.body.size > 0 && message.part != Part::Unanswered)
    };
    match form {
        Form::Curl => exchange.asked().is_some(),
        Form::Har => is_http(exchange),
        Form::RequestBody => has_body(&exchange.request),
        Form::ResponseBody => has_body(&exchange.response),
        Form::Pcapng => !exchange.pieces.is_empty(),
    }
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
