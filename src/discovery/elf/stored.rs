//! Reads sections that are not loaded, piece by piece, whether or not they are compressed.

use super::{u32_at, u64_at};
use crate::discovery::content::Content;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};
use std::ops::Range;

/// Compressed bytes read at a time.
const INPUT: usize = 64 << 10;
/// `Elf64_Chdr` (gABI): type, reserved, size, alignment.
const COMPRESSION_HEADER: u64 = 24;
const ELFCOMPRESS_ZLIB: u32 = 1;
/// Of `.zdebug_*`: "ZLIB" and the size, big endian.
const Z_MAGIC: &[u8] = b"ZLIB";
const Z_HEADER: u64 = 12;

/// What is left of a section. Keeps nothing of what it gave.
pub(in crate::discovery) struct Stored<'a> {
    content: Content<'a>,
    /// Where in the file the rest of it is.
    rest: Range<u64>,
    /// How many bytes are still given.
    most: u64,
    inflating: Option<Inflating>,
}

struct Inflating {
    state: Box<InflateState>,
    input: Vec<u8>,
    unread: Range<usize>,
}

impl<'a> Stored<'a> {
    /// A section is where it begins in the file, and its size there.
    pub(super) fn plain(content: Content<'a>, section: (u64, u64), most: u64) -> Stored<'a> {
        let (offset, size) = section;
        Stored {
            content,
            rest: offset..offset.saturating_add(size),
            most,
            inflating: None,
        }
    }

    /// Of bytes that are no file.
    pub(in crate::discovery) fn of_bytes(bytes: &'a [u8], most: u64) -> Stored<'a> {
        Stored::plain(Content::Memory(bytes), (0, bytes.len() as u64), most)
    }

    /// With a header that says how it is compressed; `None` where we do not know that way.
    pub(super) fn compressed(
        content: Content<'a>,
        (offset, size): (u64, u64),
        most: u64,
    ) -> Option<Stored<'a>> {
        let header = content.get(offset, COMPRESSION_HEADER)?;
        let is_zlib = u32_at(header, 0)? == ELFCOMPRESS_ZLIB;
        let most = most.min(u64_at(header, 8)?);
        is_zlib.then(|| Stored::zlib(content, (offset, size), COMPRESSION_HEADER, most))
    }

    /// As linkers did it before there was that header.
    pub(super) fn z_compressed(
        content: Content<'a>,
        (offset, size): (u64, u64),
        most: u64,
    ) -> Option<Stored<'a>> {
        let header = content.get(offset, Z_HEADER)?;
        let real = header.strip_prefix(Z_MAGIC)?.first_chunk()?;
        let most = most.min(u64::from_be_bytes(*real));
        Some(Stored::zlib(content, (offset, size), Z_HEADER, most))
    }

    fn zlib(content: Content<'a>, (offset, size): (u64, u64), header: u64, most: u64) -> Self {
        let section = (offset.saturating_add(header), size.saturating_sub(header));
        Stored {
            inflating: Some(Inflating {
                // The reader of the content checks what it makes of it.
                state: InflateState::new_boxed(DataFormat::ZLibIgnoreChecksum),
                input: vec![0; INPUT],
                unread: 0..0,
            }),
            ..Stored::plain(content, section, most)
        }
    }

    /// Fills `buf` with the next bytes; how many there were, fewer than asked for at the end.
    pub(in crate::discovery) fn read(&mut self, buf: &mut [u8]) -> usize {
        let len = buf
            .len()
            .min(usize::try_from(self.most).unwrap_or(usize::MAX));
        let Some(mut left) = buf.get_mut(..len) else {
            return 0;
        };
        let mut done = 0;
        while !left.is_empty() {
            let count = match &mut self.inflating {
                None => from_file(self.content, &mut self.rest, left),
                Some(inflating) => inflating.read(self.content, &mut self.rest, left),
            };
            if count == 0 {
                break;
            }
            done += count;
            left = left.get_mut(count..).unwrap_or_default();
        }
        self.most = self.most.saturating_sub(done as u64);
        done
    }

    /// Passes over the next `count` bytes; whether there were so many.
    pub(in crate::discovery) fn skip(&mut self, count: u64) -> bool {
        let mut left = count;
        let mut buf = vec![0; INPUT];
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let read = self.read(buf.get_mut(..step).unwrap_or_default());
            if read < step {
                return false;
            }
            left -= read as u64;
        }
        true
    }
}

fn from_file(content: Content<'_>, rest: &mut Range<u64>, buf: &mut [u8]) -> usize {
    let left = usize::try_from(rest.end.saturating_sub(rest.start)).unwrap_or(usize::MAX);
    let len = buf.len().min(left);
    let read = content.copy(rest.start, buf.get_mut(..len).unwrap_or_default());
    rest.start = rest.start.saturating_add(read as u64);
    read
}

impl Inflating {
    /// Some of the next bytes; 0 at the end, or where it is damaged.
    fn read(&mut self, content: Content<'_>, rest: &mut Range<u64>, buf: &mut [u8]) -> usize {
        loop {
            if self.unread.is_empty() {
                let read = from_file(content, rest, &mut self.input);
                self.unread = 0..read;
            }
            let input = self.input.get(self.unread.clone()).unwrap_or_default();
            let result = inflate(&mut self.state, input, buf, MZFlush::None);
            self.unread.start += result.bytes_consumed;
            let goes_on = result.status == Ok(MZStatus::Ok) && result.bytes_consumed > 0;
            if result.bytes_written > 0 || !goes_on {
                return result.bytes_written;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::deflate::compress_to_vec_zlib;

    fn text() -> Vec<u8> {
        (0..100_000u32).map(|n| (n / 3 + n % 7) as u8).collect()
    }

    /// Reads in pieces of this size.
    fn all(mut stored: Stored<'_>, piece: usize) -> Vec<u8> {
        let (mut bytes, mut buf) = (Vec::new(), vec![0; piece]);
        loop {
            let read = stored.read(&mut buf);
            bytes.extend(&buf[..read]);
            if read < piece {
                return bytes;
            }
        }
    }

    fn header(kind: u32, size: u64) -> Vec<u8> {
        let words = [size.to_le_bytes(), 1u64.to_le_bytes()].concat();
        [&kind.to_le_bytes(), &[0; 4][..], &words].concat()
    }

    fn compressed(section: &[u8], most: u64) -> Option<Stored<'_>> {
        Stored::compressed(Content::Memory(section), (0, section.len() as u64), most)
    }

    #[test]
    fn a_section_is_the_same_however_it_is_stored_and_read() {
        let text = text();
        let packed = compress_to_vec_zlib(&text, 6);
        let size = text.len() as u64;
        let with_header = [header(ELFCOMPRESS_ZLIB, size), packed.clone()].concat();
        let z = [Z_MAGIC, &size.to_be_bytes(), &packed].concat();
        for piece in [1000, 65_536, 99_999, 200_000] {
            assert_eq!(all(Stored::of_bytes(&text, u64::MAX), piece), text);
            assert_eq!(
                all(compressed(&with_header, u64::MAX).unwrap(), piece),
                text
            );
            let z = Stored::z_compressed(Content::Memory(&z), (0, z.len() as u64), u64::MAX);
            assert_eq!(all(z.unwrap(), piece), text);
            // No more than is allowed, or than the header says.
            assert_eq!(
                all(compressed(&with_header, 777).unwrap(), piece),
                text[..777]
            );
            let short = [header(ELFCOMPRESS_ZLIB, 777), packed.clone()].concat();
            assert_eq!(
                all(compressed(&short, u64::MAX).unwrap(), piece),
                text[..777]
            );
        }
        let mut skipped = compressed(&with_header, u64::MAX).unwrap();
        assert!(skipped.skip(70_000));
        assert_eq!(all(skipped, 1000), text[70_000..]);
        assert!(!compressed(&with_header, u64::MAX).unwrap().skip(size + 1));
    }

    #[test]
    fn an_unknown_way_to_compress_is_not_tried() {
        let zstd = [header(2, 10), vec![0; 10]].concat();
        assert!(compressed(&zstd, u64::MAX).is_none());
        let bytes = b"ZLIC\0\0\0\0\0\0\0\x01x";
        assert!(Stored::z_compressed(Content::Memory(bytes), (0, 13), u64::MAX).is_none());
    }

    #[test]
    fn a_compressed_section_cut_anywhere_gives_a_part() {
        let text = &text()[..5000];
        let section = [
            header(ELFCOMPRESS_ZLIB, 5000),
            compress_to_vec_zlib(text, 6),
        ]
        .concat();
        for len in 0..section.len() {
            if let Some(stored) = compressed(&section[..len], u64::MAX) {
                let given = all(stored, 700);
                assert_eq!(given, text[..given.len()], "{len}");
            }
        }
        for at in 24..section.len() {
            let mut damaged = section.clone();
            damaged[at] ^= 0x55;
            assert!(all(compressed(&damaged, u64::MAX).unwrap(), 700).len() <= 5000);
        }
    }
}
