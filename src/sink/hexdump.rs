//! Formats payload as `-x` and `-X` show it.

use super::escape;
use std::io::Write;

const ROW: usize = 16;
/// Eight groups of two bytes with the spaces between them.
const HEX_WIDTH: usize = ROW / 2 * 5 - 1;

/// Appends a dump in tcpdump's form, 16 bytes a row, each row indented by a tab. `first` is the
/// offset shown for the first byte; with `ascii` the bytes follow as text.
pub fn hexdump(out: &mut Vec<u8>, bytes: &[u8], first: u64, ascii: bool) {
    let mut offset = first;
    for row in bytes.chunks(ROW) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "\t0x{offset:04x}: ");
        let start = out.len();
        for pair in row.chunks(2) {
            out.push(b' ');
            for byte in pair {
                let _ = write!(out, "{byte:02x}");
            }
        }
        if ascii {
            out.resize(start + 1 + HEX_WIDTH, b' ');
            out.extend_from_slice(b"  ");
            out.extend(row.iter().map(|&byte| escape::dot(byte)));
        }
        out.push(b'\n');
        offset = offset.saturating_add(ROW as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(bytes: &[u8], first: u64, ascii: bool) -> String {
        let mut out = Vec::new();
        hexdump(&mut out, bytes, first, ascii);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hex_has_tcpdumps_form() {
        assert_eq!(
            dump(b"GET / HTTP/1.1\r\nHost", 0, false),
            "\t0x0000:  4745 5420 2f20 4854 5450 2f31 2e31 0d0a\n\t0x0010:  486f 7374\n"
        );
    }

    #[test]
    fn text_column_is_aligned_and_holds_no_control() {
        assert_eq!(
            dump(b"GET / HTTP/1.1\r\n\x1b[2", 0, true),
            "\t0x0000:  4745 5420 2f20 4854 5450 2f31 2e31 0d0a  GET / HTTP/1.1..\n\
             \t0x0010:  1b5b 32                                  .[2\n"
        );
    }

    #[test]
    fn offset_goes_on_from_the_piece_before_and_past_four_digits() {
        assert_eq!(dump(b"a", 0x40000, false), "\t0x40000:  61\n");
        assert_eq!(dump(b"", 7, true), "");
    }

    #[test]
    fn every_length_shows_every_byte_once() {
        let bytes: Vec<u8> = (0..100).collect();
        for len in 0..bytes.len() {
            let text = dump(&bytes[..len], 0, false);
            let digits: String = text
                .lines()
                .flat_map(|row| row.split_once(':').unwrap().1.chars())
                .filter(|c| !c.is_whitespace())
                .collect();
            let want: String = bytes[..len].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(digits, want);
        }
    }
}
