//! Writes exchanges as HAR 1.2, which browsers and Postman import
//! (<http://www.softwareishard.com/blog/har-12-spec/>).
//!
//! The file is a whole document after each exchange: what closes it is written again behind the
//! next one.

use super::Sink;
use super::json::Object;
use crate::event::{Conn, Event, Totals};
use crate::proto::body::{self, Decoded};
use crate::proto::message::{Header, Subject};
use crate::proto::{Body, Http, Message, Part};
use crate::time::rfc3339;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

const END: &[u8] = b"\n]}}\n";

/// Writes a HAR file.
#[derive(Debug)]
pub struct HarSink {
    file: File,
    /// Where the next entry goes; `None` when the file is a pipe, which is closed once, at the end.
    at: Option<u64>,
    entries: u64,
    buf: Vec<u8>,
}

impl HarSink {
    /// `file` is new, or a pipe.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(file: File) -> Result<HarSink> {
        let mut sink = HarSink {
            file,
            at: None,
            entries: 0,
            buf: Vec::new(),
        };
        let mut object = Object::begin(&mut sink.buf);
        let mut log = object.object("log");
        log.text("version", "1.2");
        let mut creator = log.object("creator");
        creator.text("name", "tlssniff");
        creator.text("version", env!("CARGO_PKG_VERSION"));
        creator.end();
        log.key("entries").push(b'[');
        sink.file.write_all(&sink.buf).context(WRITE)?;
        sink.at = sink.file.stream_position().ok();
        if sink.at.is_some() {
            sink.file.write_all(END).context(WRITE)?;
        }
        Ok(sink)
    }

    fn entry(&mut self, conn: &Conn, message: &Message, http: &Http) -> Result<()> {
        let Some(asked) = &message.asked else {
            return Ok(());
        };
        let Some(request) = asked.subject.http() else {
            return Ok(());
        };
        self.buf.clear();
        self.buf
            .extend_from_slice(if self.entries > 0 { b",\n" } else { b"\n" });
        self.entries += 1;
        let mut entry = Object::begin(&mut self.buf);
        let out = entry.key("startedDateTime");
        out.push(b'"');
        rfc3339(out, asked.ts);
        out.push(b'"');
        let millis = |nanos: u64| format!("{}.{:03}", nanos / 1_000_000, nanos / 1000 % 1000);
        let (elapsed, waited) = (
            message.elapsed().unwrap_or(0),
            message.waited().unwrap_or(0),
        );
        entry.bare("time", millis(elapsed));
        write_request(&mut entry, request, asked.body());
        write_response(&mut entry, http, message);
        entry.object("cache").end();
        let mut timings = entry.object("timings");
        timings.bare("send", 0);
        timings.bare("wait", millis(waited));
        timings.bare("receive", millis(elapsed.saturating_sub(waited)));
        timings.end();
        if let Some((_, remote)) = conn.transport.addrs() {
            entry.plain("serverIPAddress", remote.ip());
        }
        entry.plain("connection", conn.id);
        entry.text("_process", &conn.proc.comm);
        entry.number("_pid", conn.proc.pid.into());
        entry.end();
        if let Some(at) = &mut self.at {
            self.file.seek(SeekFrom::Start(*at)).context(WRITE)?;
            *at += self.buf.len() as u64;
            self.buf.extend_from_slice(END);
        }
        self.file.write_all(&self.buf).context(WRITE)
    }
}

/// Stands beside a body that is incomplete.
const CUT: &str = "not all of it was kept";
const WRITE: &str = "write the HAR file (--har)";

impl Sink for HarSink {
    fn event(&mut self, _event: &Event<'_>) -> Result<()> {
        Ok(())
    }

    fn message(&mut self, conn: &Conn, message: &Message) -> Result<()> {
        let Subject::Http(http) = &*message.subject else {
            return Ok(());
        };
        let is_interim = http
            .status
            .is_some_and(|status| status < 200 && status != 101);
        match message.part {
            Part::Response if !is_interim => self.entry(conn, message, http),
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, _totals: &Totals) -> Result<()> {
        if self.at.is_none() {
            self.file.write_all(END).context(WRITE)?;
        }
        self.file.flush().context(WRITE)
    }
}

fn write_request(entry: &mut Object<'_>, http: &Http, body: Option<&Body>) {
    let mut request = entry.object("request");
    request.optional_lossy("method", http.method.as_deref());
    request.optional_lossy("url", http.url.as_deref());
    request.text("httpVersion", &format!("HTTP/{}", http.version));
    request.key("cookies").extend_from_slice(b"[]");
    fields(&mut request, "headers", &http.headers);
    query(&mut request, http.query().unwrap_or_default());
    request.bare("headersSize", -1);
    request.number("bodySize", body.map_or(0, |body| body.size));
    if let Some(body) = body.filter(|body| body.size > 0) {
        let decoded = body::decode(http, body);
        let mut data = request.object("postData");
        data.lossy("mimeType", http.header("content-type").unwrap_or_default());
        data.lossy("text", &decoded.bytes);
        if decoded.is_cut {
            data.text("comment", CUT);
        }
        data.end();
    }
    request.end();
}

fn write_response(entry: &mut Object<'_>, http: &Http, message: &Message) {
    let mut response = entry.object("response");
    response.number("status", http.status.unwrap_or(0).into());
    response.lossy("statusText", http.reason.as_deref().unwrap_or_default());
    response.text("httpVersion", &format!("HTTP/{}", http.version));
    response.key("cookies").extend_from_slice(b"[]");
    fields(&mut response, "headers", &http.headers);
    let Decoded { bytes, is_cut, .. } = body::decode(http, &message.body);
    let mut content = response.object("content");
    content.number("size", bytes.len() as u64);
    content.lossy("mimeType", http.header("content-type").unwrap_or_default());
    match std::str::from_utf8(&bytes) {
        Ok(text) => content.text("text", text),
        Err(_) => {
            content.base64("text", &bytes);
            content.text("encoding", "base64");
        }
    }
    if is_cut {
        content.text("comment", CUT);
    }
    content.end();
    response.lossy("redirectURL", http.header("location").unwrap_or_default());
    response.bare("headersSize", -1);
    response.number("bodySize", message.body.size);
    response.end();
}

fn pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut object = Object::begin(out);
    object.lossy("name", name);
    object.lossy("value", value);
    object.end();
}

fn fields(object: &mut Object<'_>, name: &str, headers: &[Header]) {
    let out = object.key(name);
    out.push(b'[');
    for (at, header) in headers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        pair(out, &header.name, &header.value);
    }
    out.push(b']');
}

/// As it stands in the URL: HAR leaves open whether the escapes are undone.
fn query(object: &mut Object<'_>, query: &[u8]) {
    let out = object.key("queryString");
    out.push(b'[');
    let parts = query
        .split(|&byte| byte == b'&')
        .filter(|part| !part.is_empty());
    for (at, part) in parts.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let equals = part.iter().position(|&byte| byte == b'=');
        let (name, value) = part.split_at(equals.unwrap_or(part.len()));
        pair(out, name, value.get(1..).unwrap_or_default());
    }
    out.push(b']');
}
