//! Which names have secret values.

use anyhow::{Result, ensure};

/// Headers that carry what lets somebody in.
pub const DEFAULT: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "x-access-token",
    "x-csrf-token",
    "x-xsrf-token",
    "x-amz-security-token",
    "x-vault-token",
    "private-token",
];

/// No name is longer.
pub const MOST: usize = 64;

/// The names of `--redact`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Those that were given: of headers, JSON keys and parameters.
    given: Vec<String>,
}

impl Names {
    /// The default list of headers, and the given names.
    ///
    /// # Errors
    /// One of them cannot be the name of a header, key or parameter.
    pub fn new<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<Names> {
        let given = given
            .into_iter()
            .map(|name| {
                let is_name = !name.is_empty() && name.bytes().all(is_in_name);
                ensure!(
                    is_name && name.len() <= MOST,
                    "'{}' is not the name of a header or key: up to {MOST} letters, digits, \
                     '-', '_', '.' and the like",
                    name.escape_debug()
                );
                Ok(name.to_owned())
            })
            .collect::<Result<Vec<String>>>()?;
        Ok(Names { given })
    }

    /// Whether a header of this name is secret.
    pub fn has_header(&self, name: &[u8]) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        DEFAULT.iter().any(|known| is(known)) || self.has_key(name)
    }

    /// Whether a JSON key or a parameter of this name is secret.
    pub fn has_key(&self, name: &[u8]) -> bool {
        let is = |known: &String| name.eq_ignore_ascii_case(known.as_bytes());
        self.given.iter().any(is)
    }

    /// Whether bodies are looked into.
    pub fn has_keys(&self) -> bool {
        !self.given.is_empty()
    }
}

/// Whether the byte can stand in a name.
pub fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'$' | b'@' | b'!')
}

/// The bytes since a place, as long as they can be a name.
#[derive(Clone, Debug)]
pub struct Word {
    bytes: [u8; MOST],
    /// More than [`MOST`]: too long for a name.
    len: usize,
}

impl Default for Word {
    fn default() -> Word {
        Word {
            bytes: [0; MOST],
            len: 0,
        }
    }
}

impl Word {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len = (self.len + 1).min(MOST + 1);
    }

    pub fn is_too_long(&self) -> bool {
        self.len > MOST
    }

    /// Empty when it is too long.
    pub fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
