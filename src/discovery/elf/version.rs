//! What the TLS library in a file calls itself.

use super::Elf;
use super::search::Loads;

/// Most bytes searched for a string: a browser's read-only data is 100 MB.
const MAX_SEARCH: u64 = 256 << 20;
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
        let accept = |_, found: &[u8]| {
            let text = found.get(..found.len().min(81))?;
            let end = text.iter().position(|b| *b == 0)?;
            let text = text.get(..end)?;
            let mut parts = text.get(prefix.len()..)?.split(|b| *b == b'.');
            let numbered = [parts.next()?, parts.next()?, parts.next()?]
                .iter()
                .all(|part| part.first().is_some_and(u8::is_ascii_digit));
            let printable = text.iter().all(|b| matches!(b, b' '..=b'~'));
            (numbered && printable).then(|| String::from_utf8_lossy(text).into_owned())
        };
        let mut budget = MAX_SEARCH;
        // Data first: in files linked with separate code, strings are in a segment without code.
        [Loads::Constants, Loads::Code]
            .into_iter()
            .find_map(|loads| self.search(prefix.as_bytes(), loads, u64::MAX, &mut budget, accept))
    }
}
