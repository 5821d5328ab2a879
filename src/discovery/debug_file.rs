//! Finds the separate file that distributions put a program's symbols into.

use crate::discovery::content::SparseFile;
use crate::discovery::elf::Elf;
use std::fs::File;
use std::path::PathBuf;

/// Where debuggers look for it, by the build id.
const DIR: &str = "/usr/lib/debug/.build-id";

/// The file with the symbols of exactly this build.
pub fn of(elf: &Elf<'_>) -> Option<File> {
    let id = elf.build_id()?;
    let file = File::open(path(id)?).ok()?;
    let sparse = SparseFile::new(&file).ok()?;
    let is_it = Elf::open(&sparse).ok()?.build_id() == Some(id);
    is_it.then_some(file)
}

fn path(id: &[u8]) -> Option<PathBuf> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (first, rest) = id.split_at_checked(1)?;
    let name = format!("{}/{}.debug", hex(first), hex(rest));
    (!rest.is_empty()).then(|| PathBuf::from(DIR).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_made_of_the_build_id() {
        let expected = format!("{DIR}/ab/cd01.debug");
        assert_eq!(path(&[0xab, 0xcd, 0x01]), Some(PathBuf::from(expected)));
        assert_eq!(path(&[0xab]), None);
        assert_eq!(path(&[]), None);
    }
}
