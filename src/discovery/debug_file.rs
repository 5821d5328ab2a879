//! Finds the separate file that distributions put a program's symbols into.

use crate::discovery::content::SparseFile;
use crate::discovery::elf::Elf;
use std::fs::File;
use std::path::Path;

/// Where debuggers look for it, by the build id.
const DIR: &str = "/usr/lib/debug/.build-id";

/// The file with the symbols of exactly this build.
pub fn of(elf: &Elf<'_>) -> Option<File> {
    below(Path::new(DIR), elf)
}

fn below(dir: &Path, elf: &Elf<'_>) -> Option<File> {
    let id = elf.build_id()?;
    let file = File::open(dir.join(name(id)?)).ok()?;
    let sparse = SparseFile::new(&file).ok()?;
    let is_it = Elf::open(&sparse).ok()?.build_id() == Some(id);
    is_it.then_some(file)
}

fn name(id: &[u8]) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (first, rest) = id.split_at_checked(1)?;
    (!rest.is_empty()).then(|| format!("{}/{}.debug", hex(first), hex(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    #[test]
    fn the_name_is_made_of_the_build_id() {
        assert_eq!(name(&[0xab, 0xcd, 0x01]), Some("ab/cd01.debug".to_owned()));
        assert_eq!(name(&[0xab]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn only_the_file_of_the_same_build_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let build = |id: &str| {
            let (input, output) = (dir.path().join("in.c"), dir.path().join(id));
            fs::write(&input, "int f(void) { return 1; }").unwrap();
            let done = Command::new("cc")
                .args(["-shared", "-nostdlib", "-o"])
                .args([&output, &input])
                .arg(format!("-Wl,--build-id=0x{id}"))
                .status();
            assert!(done.unwrap().success());
            fs::read(&output).unwrap()
        };
        let (one, other) = (build("aabbcc"), build("aabbdd"));
        let elf = Elf::parse(&one).unwrap();
        assert!(below(dir.path(), &elf).is_none());
        fs::create_dir(dir.path().join("aa")).unwrap();
        let place = dir.path().join("aa/bbcc.debug");
        fs::write(&place, &other).unwrap();
        assert!(below(dir.path(), &elf).is_none(), "of another build");
        fs::write(&place, &one).unwrap();
        assert!(below(dir.path(), &elf).is_some());
    }
}
