//! The bytes of an ELF file: in memory, or a file of which only what is asked for is read.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Reads are widened to this, so that neighbours of what was asked for cost nothing.
const WINDOW: u64 = 64 << 10;
/// Most bytes kept of one file: a browser with debug information has symbol tables of 100 MB. A
/// hostile file that asks for more than this looks as if it ended there.
const MAX_KEPT: u64 = 256 << 20;

/// Where the bytes of an ELF file are.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Memory(&'a [u8]),
    File(&'a SparseFile<'a>),
}

impl<'a> Content<'a> {
    /// In bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(file) => file.len,
        }
    }

    /// `None` where the range is not wholly inside, or cannot be read.
    pub fn get(&self, offset: u64, len: u64) -> Option<&'a [u8]> {
        match self {
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).ok()?;
                bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
            }
            Content::File(file) => file.get(offset, len),
        }
    }

    /// Fills `buf` with what begins at `offset`, and keeps no copy; the number of bytes there.
    pub fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        match self {
            Content::Memory(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
                let pairs = buf.iter_mut().zip(from.unwrap_or_default());
                pairs.map(|(to, from)| *to = *from).count()
            }
            Content::File(file) => read_at(file.file, offset, buf).unwrap_or_default(),
        }
    }
}

/// A file that is read piece by piece, each piece once.
///
/// Reads rather than maps: the file belongs to somebody else, who may cut it short at any moment,
/// and a mapping would then end the run with SIGBUS.
#[derive(Debug)]
pub struct SparseFile<'f> {
    file: &'f File,
    len: u64,
    kept: Cell<u64>,
    pieces: OnceCell<Box<Piece>>,
}

/// A list to which pieces are only added, so that what was lent stays where it is.
#[derive(Debug)]
struct Piece {
    offset: u64,
    bytes: Vec<u8>,
    next: OnceCell<Box<Piece>>,
}

impl Piece {
    fn get(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes
            .get(start..start.checked_add(usize::try_from(len).ok()?)?)
    }
}

impl SparseFile<'_> {
    /// # Errors
    /// The file cannot be looked at.
    pub fn new(file: &File) -> io::Result<SparseFile<'_>> {
        Ok(SparseFile {
            file,
            len: file.metadata()?.len(),
            kept: Cell::new(0),
            pieces: OnceCell::new(),
        })
    }

    fn get(&self, offset: u64, len: u64) -> Option<&[u8]> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        let mut next = &self.pieces;
        while let Some(piece) = next.get() {
            if let Some(bytes) = piece.get(offset, len) {
                return Some(bytes);
            }
            next = &piece.next;
        }
        let piece = self.read(offset, offset + len)?;
        next.get_or_init(|| Box::new(piece)).get(offset, len)
    }

    fn read(&self, start: u64, end: u64) -> Option<Piece> {
        let start = start - start % WINDOW;
        let end = end.checked_next_multiple_of(WINDOW)?.min(self.len);
        let len = end.checked_sub(start)?;
        let kept = self.kept.get().checked_add(len)?;
        if kept > MAX_KEPT {
            return None;
        }
        let mut bytes = Vec::new();
        let size = usize::try_from(len).ok()?;
        bytes.try_reserve_exact(size).ok()?;
        bytes.resize(size, 0);
        let read = read_at(self.file, start, &mut bytes).ok()?;
        bytes.truncate(read);
        self.kept.set(kept);
        Some(Piece {
            offset: start,
            bytes,
            next: OnceCell::new(),
        })
    }
}

/// Reads until the buffer is full or the file ends, whatever the file position is.
fn read_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn any_range_of_a_file_is_what_it_is_in_memory() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let file = file_of(&bytes);
        let sparse = SparseFile::new(&file).unwrap();
        let (of_file, in_memory) = (Content::File(&sparse), Content::Memory(&bytes));
        assert_eq!(of_file.size(), in_memory.size());
        let ranges = [
            (0, 64),
            (65_530, 20),
            (0, 300_000),
            (299_999, 1),
            (300_000, 0),
            (299_999, 2),
            (300_001, 0),
            (u64::MAX, 2),
        ];
        for (offset, len) in ranges {
            let expected = in_memory.get(offset, len);
            assert_eq!(of_file.get(offset, len), expected, "{offset} {len}");
            assert_eq!(of_file.get(offset, len), expected, "the second time");
            let (mut one, mut other) = ([0; 1000], [0; 1000]);
            let counts = (
                of_file.copy(offset, &mut one),
                in_memory.copy(offset, &mut other),
            );
            assert_eq!(counts.0, counts.1);
            assert_eq!(one, other);
        }
    }

    #[test]
    fn a_file_that_is_cut_short_meanwhile_ends_early() {
        let file = file_of(&[7; 200_000]);
        let sparse = SparseFile::new(&file).unwrap();
        let content = Content::File(&sparse);
        assert_eq!(content.get(0, 10), Some(&[7; 10][..]));
        file.set_len(100_000).unwrap();
        assert_eq!(content.get(90_000, 20_000), None);
        assert_eq!(content.get(0, 10), Some(&[7; 10][..]));
    }

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let sparse = SparseFile::new(&file).unwrap();
        let content = Content::File(&sparse);
        assert_eq!(content.get(0, MAX_KEPT + 1), None);
        assert_eq!(content.get(1 << 39, 4).map(<[u8]>::len), Some(4));
    }
}
