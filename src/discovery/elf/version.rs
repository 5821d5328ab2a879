//! What the TLS library in a file calls itself.

use super::Elf;
use goblin::elf::program_header::{PF_W, PF_X};
use memchr::memmem;

/// Most bytes searched for a string: a browser's read-only data is 100 MB.
const MAX_SEARCH: u64 = 256 << 20;
/// Bytes searched at a time, which stay in the processor's cache.
pub(super) const SEARCH_STEP: usize = 256 << 10;
/// Longest string that a search looks at.
pub(super) const MAX_FOUND: usize = 128;
/// How the two implementations that name themselves do so.
const VERSION_PREFIXES: [&str; 2] = ["OpenSSL ", "LibreSSL "];

impl Elf<'_> {
    /// What OpenSSL or LibreSSL in the file calls itself, up to the NUL: `OpenSSL 3.0.17 1 Jul 2025`,
    /// and not `OpenSSL 3.0 legacy provider`. At most 80 printable ASCII characters. Foreign.
    pub fn version_string(&self) -> Option<&str> {
        self.version
            .get_or_init(|| {
                VERSION_PREFIXES
                    .iter()
                    .find_map(|prefix| self.search_version(prefix))
            })
            .as_deref()
    }

    /// Text in read-only data that begins with `prefix` and a number of three parts.
    fn search_version(&self, prefix: &str) -> Option<String> {
        self.search(prefix.as_bytes(), |found| {
            let text = found.get(..found.len().min(81))?;
            let end = text.iter().position(|b| *b == 0)?;
            let text = text.get(..end)?;
            let mut parts = text.get(prefix.len()..)?.split(|b| *b == b'.');
            let numbered = [parts.next()?, parts.next()?, parts.next()?]
                .iter()
                .all(|part| part.first().is_some_and(u8::is_ascii_digit));
            let printable = text.iter().all(|b| matches!(b, b' '..=b'~'));
            (numbered && printable).then(|| String::from_utf8_lossy(text).into_owned())
        })
    }

    /// Calls `accept` with the bytes from each occurrence of `wanted` on, until it returns some.
    fn search<T>(&self, wanted: &[u8], accept: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let finder = memmem::Finder::new(wanted);
        let mut budget = MAX_SEARCH;
        let mut buf = vec![0; SEARCH_STEP + MAX_FOUND];
        // Data first: in files linked with separate code, strings are in a segment without code.
        for with_code in [false, true] {
            for segment in self.loads() {
                if segment.p_flags & PF_W != 0 || (segment.p_flags & PF_X != 0) != with_code {
                    continue;
                }
                let len = segment.p_filesz.min(budget);
                budget -= len;
                for step in (0..len).step_by(SEARCH_STEP) {
                    // What begins in this step may end in the next one.
                    let most = usize::try_from(len - step).unwrap_or(usize::MAX);
                    let buf = buf.get_mut(..most.min(SEARCH_STEP + MAX_FOUND))?;
                    let read = self.content.copy(segment.p_offset.checked_add(step)?, buf);
                    let bytes = buf.get(..read)?;
                    let found = finder.find_iter(bytes).filter_map(|at| bytes.get(at..));
                    if let Some(accepted) = found.filter_map(&accept).next() {
                        return Some(accepted);
                    }
                    if read < buf.len() {
                        break;
                    }
                }
            }
        }
        None
    }
}
