//! Finds the files that hold TLS functions; knows no BPF.
//!
//! [`procfs`] says which files a process has mapped executable and opens them, [`watch`] reports new
//! processes and mappings as they happen, [`elf`] reads what is in such a file ([`content`]),
//! [`golang`] and [`rustls`] find functions in it, [`cgroup`] finds containers, [`stack`] tells what a sleeping
//! thread is in, [`image`] and [`system`] foresee what
//! commands will map, [`dark`] recognises TLS that cannot be captured, and [`listing`] (`-D`) puts it
//! all into one table. A file is known by its [`FileId`], never by its name.

pub mod cgroup;
pub mod content;
pub mod dark;
pub mod debug_file;
pub mod elf;
pub mod golang;
pub mod image;
pub mod listing;
pub mod procfs;
pub mod rustls;
pub mod sockets;
pub mod stack;
pub mod system;
pub mod watch;

pub use procfs::{Mapping, ProcFs, Process, Stamp};

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::ops::Deref;

/// Which file it is, whatever path leads to it: the key under which a target is attached once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// As `st_dev` and `libc::makedev`.
    pub dev: u64,
    pub ino: u64,
}

/// The largest file that is looked at, in bytes. The largest executables with TLS inside that are
/// met in practice (browsers, node with debug information) stay below.
pub const LARGEST_FILE: u64 = 512 << 20;

/// The content of a file.
#[derive(Debug)]
pub struct Bytes(Vec<u8>);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a whole file, from its beginning, whatever the file position is.
///
/// Reads rather than maps: the file belongs to somebody else, who may cut it short at any moment,
/// and a mapping would then end the run with SIGBUS. The copy costs some 60 ms for 100 MB.
///
/// # Errors
/// When the file cannot be read or is larger than [`LARGEST_FILE`].
pub fn load(file: &File) -> Result<Bytes> {
    load_at_most(file, LARGEST_FILE)
}

fn load_at_most(file: &File, limit: u64) -> Result<Bytes> {
    let len = file
        .metadata()
        .context("look up the size of the file")?
        .len();
    if len > limit {
        bail!("the file has {len} bytes, more than the {limit} that are looked at");
    }
    let mut bytes = Vec::new();
    // One byte more than the limit, so that a file that grows meanwhile is noticed; the spare
    // capacity lets the read that finds the end do so without a larger buffer.
    bytes
        .try_reserve_exact(usize::try_from(len)?.saturating_add(32))
        .with_context(|| format!("reserve {len} bytes for the file"))?;
    From0(file, 0)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .context("read the file")?;
    if bytes.len() as u64 > limit {
        bail!("the file grew beyond the {limit} bytes that are looked at");
    }
    Ok(Bytes(bytes))
}

/// Reads from an offset of its own, so that callers may share the descriptor.
struct From0<'a>(&'a File, u64);

impl Read for From0<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.0, buf, self.1)?;
        self.1 = self.1.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn load_gives_the_whole_file_whatever_its_position() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        file.write_all(&content).unwrap();
        assert_eq!(*load(&file).unwrap(), content[..]);
        file.seek(SeekFrom::Start(7)).unwrap();
        assert_eq!(*load(&file).unwrap(), content[..]);
        assert_eq!(file.stream_position().unwrap(), 7);
    }

    #[test]
    fn load_refuses_what_is_too_large() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 11]).unwrap();
        assert_eq!(load_at_most(&file, 11).unwrap().len(), 11);
        let error = load_at_most(&file, 10).unwrap_err().to_string();
        assert!(error.contains("11 bytes"), "{error}");
    }

    #[test]
    fn load_of_a_file_without_a_size_stops_at_the_limit() {
        let zeros = File::open("/dev/zero").unwrap();
        let error = load_at_most(&zeros, 4096).unwrap_err().to_string();
        assert!(error.contains("grew beyond"), "{error}");
    }
}
