//! Protocol Buffers without their schema: numbers of fields, and what their values may be
//! (<https://protobuf.dev/programming-guides/encoding/>).

use std::fmt::Write;

/// Messages within messages.
const MAX_DEPTH: usize = 16;
/// Fields that are told of one message, those within it included.
const MAX_FIELDS: usize = 1000;

/// The fields, a line each; nothing when the bytes are no such message.
pub fn fields(bytes: &[u8]) -> Option<String> {
    let mut out = String::new();
    let mut left = MAX_FIELDS;
    message(bytes, 0, &mut left, &mut out)?;
    Some(out)
}

fn message(bytes: &[u8], depth: usize, left: &mut usize, out: &mut String) -> Option<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let number = key >> 3;
        if number == 0 || number > (1 << 29) - 1 {
            return None;
        }
        *left = left.checked_sub(1)?;
        let indent = "  ".repeat(depth);
        match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                let _ = writeln!(out, "{indent}{number}: {value}");
            }
            1 => {
                let value = u64::from_le_bytes(take::<8>(&mut rest)?);
                let _ = writeln!(
                    out,
                    "{indent}{number}: {}",
                    real(value, f64::from_bits(value))
                );
            }
            5 => {
                let value = u32::from_le_bytes(take::<4>(&mut rest)?);
                let float = f64::from(f32::from_bits(value));
                let _ = writeln!(out, "{indent}{number}: {}", real(value.into(), float));
            }
            2 => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                let (content, after) = rest.split_at_checked(len)?;
                rest = after;
                value(number, content, depth, left, out);
            }
            // Groups were given up before gRPC began.
            _ => return None,
        }
    }
    Some(())
}

/// Text where it looks like some, a message where it can be one, else bytes.
fn value(number: u64, content: &[u8], depth: usize, left: &mut usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let is_text = |text: &&str| {
        !text
            .chars()
            .any(|ch| ch.is_control() && !"\n\r\t".contains(ch))
    };
    if let Some(text) = std::str::from_utf8(content).ok().filter(is_text) {
        let _ = writeln!(out, "{indent}{number}: {text:?}");
        return;
    }
    let mut inner = String::new();
    let before = *left;
    if depth < MAX_DEPTH && message(content, depth + 1, left, &mut inner).is_some() {
        let _ = writeln!(out, "{indent}{number} {{\n{inner}{indent}}}");
        return;
    }
    *left = before;
    let _ = write!(out, "{indent}{number}: {} bytes", content.len());
    for byte in content.iter().take(16) {
        let _ = write!(out, " {byte:02x}");
    }
    out.push_str(if content.len() > 16 { " …\n" } else { "\n" });
}

/// A fixed-width value, which may be a number of either kind.
fn real(bits: u64, float: f64) -> String {
    let is_likely = float == 0.0 || (1e-9..1e15).contains(&float.abs());
    if is_likely {
        format!("{float} ({bits:#x})")
    } else {
        bits.to_string()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The length-prefixed messages of a gRPC body: whether each is compressed, and its bytes.
pub fn grpc_messages(body: &[u8]) -> Vec<(bool, &[u8])> {
    let mut rest = body;
    let mut messages = Vec::new();
    while let Some([flag, a, b, c, d]) = take::<5>(&mut rest) {
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let (message, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        messages.push((flag & 1 != 0, message));
        rest = after;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding's documentation, and a message within one.
    #[test]
    fn fields_are_told_by_number_and_kind() {
        for (bytes, text) in [
            (&b"\x08\x96\x01"[..], "1: 150\n"),
            (b"\x12\x07testing", "2: \"testing\"\n"),
            (b"\x1a\x03\x08\x96\x01", "3 {\n  1: 150\n}\n"),
            (b"\x0d\x00\x00\x80\x3f", "1: 1 (0x3f800000)\n"),
            (b"\x22\x02\xff\xff", "4: 2 bytes ff ff\n"),
            (b"", ""),
        ] {
            assert_eq!(fields(bytes).as_deref(), Some(text), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_wherever_it_ends() {
        for bytes in [
            &b"\x07"[..],
            b"\x08",
            b"\x12\x08testing",
            b"\x00\x01",
            b"\x0b\x0c",
        ] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
        let nested = [b"\x0a\x7f".as_slice(); 100].concat();
        let _ = fields(&nested);
        let many = b"\x08\x01".repeat(MAX_FIELDS + 1);
        assert_eq!(fields(&many), None);
    }

    #[test]
    fn grpc_messages_are_taken_apart() {
        let body = b"\0\0\0\0\x02hi\x01\0\0\0\x01x\0\0\0\0\x09cut";
        let messages: Vec<_> = grpc_messages(body);
        assert_eq!(
            messages,
            [(false, b"hi".as_slice()), (true, b"x"), (false, b"cut")]
        );
    }
}
