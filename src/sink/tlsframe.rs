//! Wraps plaintext in TLS records of a NULL cipher, and takes it out again.
//!
//! Wireshark then uses SNI, ALPN and its own heuristics on any port, with neither key nor setting.
//! The suite is `TLS_RSA_WITH_NULL_SHA` (RFC 5246, A.5): plaintext followed by a 20-byte MAC, which
//! Wireshark does not check. Finished messages are left out; it does not miss them.

/// Most plaintext in one record (RFC 5246, 6.2.1).
pub const RECORD: usize = 1 << 14;
const HEADER: usize = 5;
const MAC: usize = 20;
/// What a record has besides its plaintext.
const OVERHEAD: usize = HEADER + MAC;

/// `ChangeCipherSpec`: from here on records are application data under the NULL cipher.
pub const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];

/// The random value of both hellos: says in the packet itself, without any comment, what it is.
const RANDOM: &[u8; 32] = b"tlssniff: synthetic, not on wire";

const SUITE: [u8; 2] = [0x00, 0x02];
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// Names longer than this (RFC 6066, RFC 7301: one length byte) stay out of the hellos.
const NAME: usize = 255;

/// Bytes on the synthetic wire for `plain` bytes of plaintext.
pub fn wire_len(plain: u64) -> u64 {
    plain.saturating_add(
        plain
            .div_ceil(RECORD as u64)
            .saturating_mul(OVERHEAD as u64),
    )
}

/// The inverse of [`wire_len`]; of lengths that it cannot return, the next lower one's.
pub fn plain_len(wire: u64) -> u64 {
    let records = wire.div_ceil((RECORD + OVERHEAD) as u64);
    wire.saturating_sub(records.saturating_mul(OVERHEAD as u64))
}

/// Most plaintext whose records together are at most `wire` bytes.
pub const fn fits(wire: usize) -> usize {
    let full = wire / (RECORD + OVERHEAD);
    let rest = wire % (RECORD + OVERHEAD);
    full * RECORD + rest.saturating_sub(OVERHEAD)
}

/// Appends `len` bytes of plaintext, of which only the first `bytes` were kept, as records; what
/// comes after the last kept byte is not written.
pub fn wrap(out: &mut Vec<u8>, bytes: &[u8], len: usize) {
    let mut rest = len;
    for chunk in bytes.chunks(RECORD) {
        let record = rest.min(RECORD);
        out.extend_from_slice(&[23, 3, 3]);
        out.extend_from_slice(&((record + MAC) as u16).to_be_bytes());
        out.extend_from_slice(chunk);
        if chunk.len() < record {
            return;
        }
        out.extend_from_slice(&[0; MAC]);
        rest -= record;
    }
}

/// Appends to `out` the plaintext of what [`wrap`] has written, which may be cut off anywhere.
pub fn unwrap(out: &mut Vec<u8>, mut wire: &[u8]) {
    while let Some((&[23, 3, 3, high, low], rest)) = wire.split_first_chunk::<HEADER>() {
        let record = usize::from(u16::from_be_bytes([high, low]));
        let plain = record.saturating_sub(MAC).min(rest.len());
        out.extend_from_slice(rest.get(..plain).unwrap_or_default());
        wire = rest.get(record..).unwrap_or_default();
    }
}

/// Appends a `ClientHello` record that offers the one suite, with server name and ALPN.
pub fn client_hello(out: &mut Vec<u8>, sni: Option<&str>, alpn: Option<&str>) {
    let mut body = hello_start();
    body.extend_from_slice(&[0, 2]);
    body.extend_from_slice(&SUITE);
    body.extend_from_slice(&[1, 0]);
    let mut extensions = Vec::new();
    if let Some(name) = sni
        .map(str::as_bytes)
        .filter(|n| (1..=NAME).contains(&n.len()))
    {
        let mut list = vec![0];
        prefixed(&mut list, name);
        extension(&mut extensions, SERVER_NAME, &list);
    }
    alpn_extension(&mut extensions, alpn);
    prefixed(&mut body, &extensions);
    // The record version of a first ClientHello is 3.1 for compatibility (RFC 5246, E.1).
    record(out, 1, &handshake(1, &body));
}

/// Appends a record with `ServerHello`, which chooses suite and protocol, and `ServerHelloDone`.
pub fn server_hello(out: &mut Vec<u8>, alpn: Option<&str>) {
    let mut body = hello_start();
    body.extend_from_slice(&SUITE);
    body.push(0);
    let mut extensions = Vec::new();
    alpn_extension(&mut extensions, alpn);
    prefixed(&mut body, &extensions);
    let mut messages = handshake(2, &body);
    messages.extend_from_slice(&handshake(14, &[]));
    record(out, 3, &messages);
}

fn hello_start() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(RANDOM);
    body.push(0);
    body
}

fn alpn_extension(extensions: &mut Vec<u8>, alpn: Option<&str>) {
    if let Some(name) = alpn
        .map(str::as_bytes)
        .filter(|n| (1..=NAME).contains(&n.len()))
    {
        let mut list = vec![name.len() as u8];
        list.extend_from_slice(name);
        extension(extensions, ALPN, &list);
    }
}

/// One extension that holds one list, as both of ours do.
fn extension(out: &mut Vec<u8>, kind: u16, list: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    let mut body = Vec::new();
    prefixed(&mut body, list);
    prefixed(out, &body);
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
    let mut message = vec![kind, high, middle, low];
    message.extend_from_slice(body);
    message
}

fn record(out: &mut Vec<u8>, minor: u8, body: &[u8]) {
    out.extend_from_slice(&[22, 3, minor]);
    prefixed(out, body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_of_any_length_comes_back() {
        for len in [
            0,
            1,
            100,
            RECORD - 1,
            RECORD,
            RECORD + 1,
            3 * RECORD,
            65_395,
        ] {
            let plain: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let (mut wire, mut back) = (Vec::new(), Vec::new());
            wrap(&mut wire, &plain, len);
            assert_eq!(wire.len() as u64, wire_len(len as u64));
            assert_eq!(plain_len(wire.len() as u64), len as u64);
            unwrap(&mut back, &wire);
            assert_eq!(back, plain);
        }
    }

    #[test]
    fn truncated_plaintext_ends_with_its_last_kept_byte() {
        let plain = vec![b'x'; RECORD + 1];
        for kept in [0, 1, RECORD - 1, RECORD, RECORD + 1] {
            let (mut wire, mut back) = (Vec::new(), Vec::new());
            wrap(&mut wire, &plain[..kept], 50_000);
            assert!(kept == 0 || wire.len() < wire_len(50_000) as usize);
            unwrap(&mut back, &wire);
            assert_eq!(back, plain[..kept]);
        }
    }

    #[test]
    fn unwrapping_ends_wherever_the_records_are_cut_off() {
        let plain = vec![7; 100];
        let mut wire = Vec::new();
        wrap(&mut wire, &plain, 100);
        wrap(&mut wire, &plain, 100);
        for cut in 0..wire.len() {
            let mut back = Vec::new();
            unwrap(&mut back, &wire[..cut]);
            assert!(back.iter().all(|byte| *byte == 7) && back.len() <= 200);
        }
    }

    #[test]
    fn what_fits_is_the_most_that_fits() {
        for wire in [26, 1000, RECORD, RECORD + OVERHEAD, 65_495] {
            let plain = fits(wire) as u64;
            assert!(wire_len(plain) <= wire as u64);
            assert!(wire_len(plain + 1) > wire as u64);
        }
    }

    fn contains(wire: &[u8], part: &[u8]) -> bool {
        wire.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn hellos_carry_the_names_and_right_lengths() {
        let (mut client, mut server) = (Vec::new(), Vec::new());
        client_hello(&mut client, Some("a.example"), Some("h2"));
        server_hello(&mut server, Some("h2"));
        assert!(contains(&client, b"\x00\x00\x09a.example"));
        assert!(contains(&client, b"\x00\x03\x02h2"));
        assert!(contains(&server, b"\x00\x03\x02h2"));
        for wire in [client, server] {
            let len = u16::from_be_bytes([wire[3], wire[4]]);
            assert_eq!(usize::from(len) + HEADER, wire.len());
        }
    }

    #[test]
    fn names_too_long_for_a_hello_stay_out_of_it() {
        let long = "x".repeat(300);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        client_hello(&mut with, Some(&long), Some(&long));
        client_hello(&mut without, None, None);
        assert_eq!(with, without);
    }
}
