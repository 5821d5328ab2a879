//! DNS over HTTPS (RFC 8484): the question in a request's body or query, the answer in a response.

use super::dns;
use super::message::{Body, Http};

/// A DNS message is no longer.
pub const MAX_MESSAGE: usize = 65535;

/// Whether the content is a DNS message.
pub fn is_message(http: &Http) -> bool {
    http.content_type()
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/dns-message"))
}

/// The question or the answer, in one line.
pub fn describe(http: &Http, body: &Body) -> Option<Vec<u8>> {
    let is_plain = http.header("content-encoding").is_none();
    if body.size > 0 && is_message(http) && is_plain {
        return dns::describe(&body.kept);
    }
    let query = http.query()?;
    let mut parts = query.split(|&byte| byte == b'&');
    let text = parts.find_map(|part| part.strip_prefix(b"dns="))?;
    dns::describe(&base64url(text)?)
}

/// RFC 4648 section 5, with or without padding.
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_MESSAGE {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0u32, 0);
    for &digit in text.iter().filter(|&&digit| digit != b'=') {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Feed;

    /// The example of RFC 8484, section 4.1.1.
    const ASKED: &str = "AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";

    fn answer() -> Vec<u8> {
        let mut bytes = base64url(ASKED.as_bytes()).unwrap();
        bytes[2] = 0x81;
        bytes[3] = 0x80;
        bytes[7] = 1;
        bytes.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
        bytes
    }

    fn told(feed: &Feed) -> Vec<Option<String>> {
        let dns = |http: &Http| http.dns.clone().map(|dns| String::from_utf8(dns).unwrap());
        let https = feed.messages.iter().filter_map(|m| m.subject.http());
        https.map(dns).collect()
    }

    fn reply(body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    /// Also where nobody looks at bodies.
    #[test]
    fn the_question_and_the_answer_are_told() {
        for limits in [crate::proto::Limits::SHOWN, crate::proto::Limits::NO_BODIES] {
            let mut feed = Feed::new();
            feed.conversations = crate::proto::Conversations::new(limits);
            feed.write(format!(
                "GET /dns-query?x=1&dns={ASKED} HTTP/1.1\r\nHost: h\r\n\r\n"
            ));
            feed.read(reply(&answer()));
            let asked = base64url(ASKED.as_bytes()).unwrap();
            feed.write(format!(
                "POST /q HTTP/1.1\r\nHost: h\r\nContent-Type: application/dns-message\r\n\
                 Content-Length: {}\r\n\r\n",
                asked.len()
            ));
            feed.write(&asked).read(reply(b"nonsense"));
            let some = |text: &str| Some(text.to_owned());
            assert_eq!(
                told(&feed),
                [
                    some("A? www.example.com."),
                    some("1/0/0 A 192.0.2.1"),
                    some("A? www.example.com."),
                    None
                ]
            );
        }
    }

    #[test]
    fn a_query_that_is_no_dns_message_is_left_alone() {
        let http = |query: &str| Http {
            target: Some(format!("/?{query}").into_bytes()),
            ..Http::default()
        };
        for query in ["dns=", "dns=8.8.8.8", "dns=AAAA", "dns=%41", "x=1"] {
            assert_eq!(describe(&http(query), &Body::default()), None, "{query}");
        }
        let whole = ASKED.len();
        for end in 0..whole {
            let cut = format!("dns={}", &ASKED[..end]);
            assert_eq!(describe(&http(&cut), &Body::default()), None, "{cut}");
        }
    }
}
