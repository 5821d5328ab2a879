//! HPACK's Huffman code (RFC 7541 section 5.2 and appendix B).

/// Bits of each symbol's code; 256 is the end of the string. The code is canonical: codes are
/// numbered by length, then by symbol, which is all that the table of appendix B says.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const LONGEST: u8 = 30;
const END: u16 = 256;

/// Of the codes of one length: the first, how many there are, and where their symbols begin.
#[derive(Clone, Copy)]
struct Row {
    first: u32,
    count: u32,
    at: usize,
}

/// Rows by length, and the symbols in the order of their codes.
static CODE: ([Row; LONGEST as usize + 1], [u16; 257]) = code();

const fn code() -> ([Row; LONGEST as usize + 1], [u16; 257]) {
    let mut rows = [Row {
        first: 0,
        count: 0,
        at: 0,
    }; LONGEST as usize + 1];
    let mut symbols = [0; 257];
    let (mut next, mut filled, mut length) = (0, 0, 1);
    while length <= LONGEST as usize {
        next <<= 1;
        rows[length].first = next;
        rows[length].at = filled;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[filled] = symbol as u16;
                filled += 1;
                next += 1;
            }
            symbol += 1;
        }
        rows[length].count = next - rows[length].first;
        length += 1;
    }
    (rows, symbols)
}

/// The string that `bytes` stand for; `None` when they are not such a code.
pub fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let (rows, symbols) = &CODE;
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut code, mut length) = (0u32, 0usize);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let row = rows.get(length)?;
            let index = code.wrapping_sub(row.first);
            if index < row.count {
                match symbols.get(row.at + index as usize) {
                    Some(&END) | None => return None,
                    Some(&symbol) => text.push(symbol as u8),
                }
                (code, length) = (0, 0);
            }
        }
    }
    // What is left is the beginning of the end's code, all ones, and less than a byte.
    let is_padding = length < 8 && code == (1 << length) - 1;
    is_padding.then_some(text)
}

/// The code of `text`.
#[cfg(test)]
pub fn encode(text: &[u8]) -> Vec<u8> {
    let (rows, symbols) = &CODE;
    let mut bits = String::new();
    for &byte in text {
        let at = symbols
            .iter()
            .position(|&symbol| symbol == u16::from(byte))
            .unwrap();
        let length = LENGTHS[byte as usize] as usize;
        let code = rows[length].first as usize + at - rows[length].at;
        bits += &format!("{code:0length$b}");
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let byte = |at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
    (0..bits.len()).step_by(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 7541, C.4 and C.6.
    #[test]
    fn examples_of_the_rfc_are_decoded() {
        for (code, text) in [
            ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", "www.example.com"),
            ("a8eb 1064 9cbf", "no-cache"),
            ("25a8 49e9 5ba9 7d7f", "custom-key"),
            (
                "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            ("", ""),
        ] {
            assert_eq!(decode(&hex(code)).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for (code, why) in [
            ("ff ff ff ff", "the end of the string within it"),
            ("ff", "more than seven bits of padding"),
            ("00", "padding that is not ones"),
        ] {
            assert_eq!(decode(&hex(code)), None, "{why}");
        }
    }

    #[test]
    fn every_symbol_has_its_own_code() {
        let (rows, symbols) = &CODE;
        let mut sorted = symbols.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=256).collect::<Vec<u16>>());
        let last = rows[LONGEST as usize];
        assert_eq!(last.first + last.count, 1 << LONGEST, "the code is full");
    }
}
