//! Heads of HTTP/1 messages (RFC 9112 sections 2 to 5), with what real programs send.

use crate::event::{Conn, Role};
use crate::proto::message::{Header, Http};

/// A longer head is none.
pub const MAX_HEAD: usize = 256 << 10;
const MAX_HEADERS: usize = 2048;

/// Where a head ends, behind its empty line; `from` is where to begin to look.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        let newline = at + memchr::memchr(b'\n', rest)?;
        let after = bytes.get(newline + 1..)?;
        match after {
            [b'\n', ..] => return Some(newline + 2),
            [b'\r', b'\n', ..] => return Some(newline + 3),
            _ => at = newline + 1,
        }
    }
}

pub fn parse(head: &[u8]) -> Option<Http> {
    let mut few = [httparse::EMPTY_HEADER; 64];
    match parse_with(head, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
            parse_with(head, &mut many).ok().flatten()
        }
        other => other.ok().flatten(),
    }
}

/// `Ok(None)` when the head does not end here after all.
fn parse_with<'a>(
    head: &'a [u8],
    headers: &mut [httparse::Header<'a>],
) -> Result<Option<Http>, httparse::Error> {
    let mut config = httparse::ParserConfig::default();
    config
        .allow_multiple_spaces_in_request_line_delimiters(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_space_before_first_header_name(true)
        .ignore_invalid_headers_in_requests(true)
        .ignore_invalid_headers_in_responses(true);
    let version = |minor: Option<u8>| if minor == Some(0) { "1.0" } else { "1.1" };
    if head.starts_with(b"HTTP/1.") {
        let mut response = httparse::Response::new(headers);
        if config.parse_response(&mut response, head)?.is_partial() {
            return Ok(None);
        }
        return Ok(Some(Http {
            version: version(response.version),
            status: response.code,
            reason: response
                .reason
                .filter(|reason| !reason.is_empty())
                .map(|reason| reason.as_bytes().to_vec()),
            headers: owned(response.headers),
            ..Http::default()
        }));
    }
    let mut request = httparse::Request::new(headers);
    if config.parse_request(&mut request, head)?.is_partial() {
        return Ok(None);
    }
    Ok(Some(Http {
        version: version(request.version),
        method: request.method.map(|method| method.as_bytes().to_vec()),
        target: request.path.map(|path| path.as_bytes().to_vec()),
        headers: owned(request.headers),
        ..Http::default()
    }))
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<Header> {
    headers
        .iter()
        .map(|header| Header {
            name: header.name.as_bytes().to_vec(),
            value: header.value.to_vec(),
        })
        .collect()
}

/// Fields behind a chunked body, with their empty line.
pub fn trailers(lines: &[u8]) -> Vec<Header> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(lines, &mut headers) {
        Ok(httparse::Status::Complete((_, found))) => owned(found),
        Ok(httparse::Status::Partial) | Err(_) => Vec::new(),
    }
}

impl Http {
    /// Makes the target absolute, by the `Host` field, the server name, or the server's address.
    pub fn locate(&mut self, conn: &Conn) {
        let target = self.target.clone().unwrap_or_default();
        let is_origin = matches!(target.first(), Some(b'/' | b'*') | None);
        if self.host.is_none() {
            self.host = self.header("host").map(<[u8]>::to_vec);
        }
        if !is_origin {
            self.url = Some(target);
            return;
        }
        let named = self.host.clone().filter(|host| !host.is_empty());
        let host = named
            .or_else(|| conn.sni.as_ref().map(|sni| sni.as_bytes().to_vec()))
            .or_else(|| {
                let (local, remote) = conn.transport.addrs()?;
                let server = if conn.role == Some(Role::Server) {
                    local
                } else {
                    remote
                };
                Some(server.to_string().into_bytes())
            })
            .unwrap_or_else(|| b"?".to_vec());
        let path: &[u8] = if target == b"*" { b"/*" } else { &target };
        self.url = Some([b"https://", host.as_slice(), path].concat());
    }
}
