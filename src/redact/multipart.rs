//! Values of named parts of a form (`multipart/form-data`, RFC 7578), in any text.
//!
//! What stands behind a line that begins with `--` and looks like headers is a part; it ends at the
//! next line that begins as that one did (RFC 2046, section 5.1.1).

use super::names::{Names, is_in_name};

/// A boundary has 70 characters at most, and two dashes stand before it.
const BOUNDARY: usize = 72;
/// As much of a line is looked at.
const LINE: usize = 512;

/// Where in a form the next byte is.
#[derive(Clone, Debug, Default)]
pub struct Multipart {
    /// The line so far.
    line: Vec<u8>,
    /// The line before the part, without its end.
    boundary: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Text,
    Headers {
        is_secret: bool,
    },
    /// Within a secret part; so many bytes of the line are those of the boundary.
    Secret {
        matched: Option<usize>,
    },
}

impl Multipart {
    /// Bytes are missing.
    pub fn gap(&mut self) {
        self.line.clear();
        self.place = match self.place {
            Place::Secret { .. } => Place::Secret { matched: None },
            _ => Place::Text,
        };
    }

    /// What the byte is to be replaced by; `None`: it is not in a secret part.
    pub fn next(&mut self, byte: u8, names: &Names) -> Option<u8> {
        if let Place::Secret { matched } = &mut self.place {
            if matches!(byte, b'\r' | b'\n') {
                *matched = (byte == b'\n').then_some(0);
                return None;
            }
            let expected = matched.and_then(|at| self.boundary.get(at));
            if expected != Some(&byte) {
                *matched = None;
                return Some(b'*');
            }
            *matched = matched.map(|at| at + 1);
            if *matched == Some(self.boundary.len()) {
                self.line.clone_from(&self.boundary);
                self.place = Place::Text;
            }
            return None;
        }
        if byte != b'\n' {
            if self.line.len() < LINE {
                self.line.push(byte);
            }
            return None;
        }
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        self.end_line(&line, names);
        line.clear();
        self.line = line;
        None
    }

    fn end_line(&mut self, line: &[u8], names: &Names) {
        self.place = match self.place {
            Place::Headers { is_secret: true } if line.is_empty() => {
                Place::Secret { matched: Some(0) }
            }
            Place::Headers { is_secret } if line.contains(&b':') => Place::Headers {
                is_secret: is_secret || is_named(line, names),
            },
            _ if line.starts_with(b"--") && (3..=BOUNDARY).contains(&line.len()) => {
                self.boundary.clear();
                self.boundary.extend_from_slice(line);
                Place::Headers { is_secret: false }
            }
            _ => Place::Text,
        };
    }
}

/// `Content-Disposition: form-data; name="user[password]"`
fn is_named(line: &[u8], names: &Names) -> bool {
    let colon = line.iter().position(|byte| *byte == b':');
    let Some((header, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
        return false;
    };
    header
        .trim_ascii()
        .eq_ignore_ascii_case(b"content-disposition")
        && value.split(|byte| *byte == b';').any(|parameter| {
            let mut words = parameter.split(|byte| !is_in_name(*byte));
            let is_name = |word: &[u8]| word.eq_ignore_ascii_case(b"name");
            words.find(|word| !word.is_empty()).is_some_and(is_name)
                && words.any(|word| names.has_key(word))
        })
}
