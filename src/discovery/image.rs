//! Foresees which files exec will map for a command, so that probes are in place before it starts.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What execvp(3) searches when PATH is not set (confstr `_CS_PATH`).
pub const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The paths that execvp tries for a command, in its order.
pub fn candidates(command: &OsStr, path_env: Option<&OsStr>) -> Vec<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(command)];
    }
    if command.is_empty() {
        return Vec::new();
    }
    let path = path_env.unwrap_or(OsStr::new(DEFAULT_PATH));
    let dirs = path.as_bytes().split(|&b| b == b':').map(|dir| match dir {
        // An empty element is the current directory.
        b"" => Path::new("."),
        dir => Path::new(OsStr::from_bytes(dir)),
    });
    dirs.map(|dir| dir.join(command)).collect()
}

/// The file that execvp would run for a command, as far as permissions of the file tell.
pub fn resolve(command: &OsStr, path_env: Option<&OsStr>) -> Option<PathBuf> {
    candidates(command, path_env).into_iter().find(|path| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    })
}

/// The ELF files that exec of `path` maps by itself: the program, or for a script its interpreter
/// (and what `env` in a `#!` line will exec in turn), each followed by the dynamic loader that it
/// names. Shared libraries are the loader's work and are not among them.
pub fn image_files(path: &Path, path_env: Option<&OsStr>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    add_images(path, path_env, 0, &mut files);
    files
}

/// As deep as the kernel follows `#!` lines (fs/exec.c), plus one for `env`.
const DEEPEST: u32 = 6;

fn add_images(path: &Path, path_env: Option<&OsStr>, depth: u32, files: &mut Vec<PathBuf>) {
    if depth > DEEPEST || files.iter().any(|known| known == path) {
        return;
    }
    // What is not a regular file is not executed, and a FIFO would block.
    if !fs::metadata(path).is_ok_and(|m| m.is_file()) {
        return;
    }
    let Ok(file) = File::open(path) else { return };
    let mut head = Vec::new();
    // BINPRM_BUF_SIZE: the kernel looks no further for the end of a `#!` line.
    if (&file).take(256).read_to_end(&mut head).is_err() {
        return;
    }
    if head.starts_with(b"\x7fELF") {
        files.push(path.to_path_buf());
        if let Some(loader) = elf_interpreter(&file) {
            add_images(&loader, path_env, DEEPEST, files);
        }
    } else if let Some(line) = head.strip_prefix(b"#!") {
        let Some((interpreter, argument)) = parse_shebang(line) else {
            return;
        };
        add_images(&interpreter, path_env, depth + 1, files);
        if interpreter.file_name() == Some(OsStr::new("env"))
            && let Some(found) = env_command(&argument).and_then(|name| resolve(&name, path_env))
        {
            add_images(&found, path_env, depth + 1, files);
        }
    } else {
        // A script without a first line: execvp hands it to the shell.
        add_images(Path::new("/bin/sh"), path_env, depth + 1, files);
    }
}

/// Interpreter and the one argument (possibly empty) of what follows `#!`.
fn parse_shebang(line: &[u8]) -> Option<(PathBuf, OsString)> {
    let line = line.split(|&b| b == b'\n').next()?.trim_ascii();
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (interpreter, argument) = line.split_at_checked(end)?;
    if interpreter.is_empty() {
        return None;
    }
    let argument = OsStr::from_bytes(argument.trim_ascii()).to_os_string();
    Some((PathBuf::from(OsStr::from_bytes(interpreter)), argument))
}

/// The command among the arguments of `env`: after options and assignments.
fn env_command(argument: &OsStr) -> Option<OsString> {
    argument
        .as_bytes()
        .split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'='))
        .map(|word| OsStr::from_bytes(word).to_os_string())
}

/// `PT_INTERP`, without reading more of the file than needed: it may have hundreds of megabytes.
fn elf_interpreter(file: &File) -> Option<PathBuf> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let ident = header.first_chunk::<16>()?;
    let (is_64, is_little) = (ident.get(4) == Some(&2), ident.get(5) == Some(&1));
    if !is_64 || !is_little {
        return None;
    }
    let table = u64_at(&header, 32)?;
    let (size, count) = (u16_at(&header, 54)?, u16_at(&header, 56)?);
    const PT_INTERP: u32 = 3;
    // The kernel accepts no longer table and no longer path either.
    const LONGEST_PATH: u64 = 4096;
    for n in 0..u64::from(count) {
        let mut entry = [0; 56];
        let at = n.checked_mul(u64::from(size))?.checked_add(table)?;
        file.read_exact_at(&mut entry, at).ok()?;
        if u32::from_le_bytes(*entry.first_chunk()?) != PT_INTERP {
            continue;
        }
        let (offset, len) = (u64_at(&entry, 8)?, u64_at(&entry, 32)?);
        let mut path = vec![0; usize::try_from(len.min(LONGEST_PATH)).ok()?];
        file.read_exact_at(&mut path, offset).ok()?;
        let path = path
            .split(|&b| b == 0)
            .next()
            .filter(|path| !path.is_empty())?;
        return Some(PathBuf::from(OsStr::from_bytes(path)));
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A 64-bit ELF file with nothing but a `PT_INTERP`.
    fn elf(interpreter: &str) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = 3;
        bytes[72] = 120;
        bytes[96] = interpreter.len() as u8 + 1;
        bytes.extend_from_slice(interpreter.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_command_is_searched_as_execvp_does() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(a.join("dir")).unwrap();
        fs::create_dir(&b).unwrap();
        program(&a, "plain", b"", 0o644);
        let found = program(&b, "plain", b"", 0o755);
        program(&b, "dir", b"", 0o755);
        let path = std::env::join_paths([&a, &b]).unwrap();
        assert_eq!(
            resolve(OsStr::new("plain"), Some(&path)),
            Some(found.clone())
        );
        assert_eq!(resolve(OsStr::new("dir"), Some(&path)), Some(b.join("dir")));
        assert_eq!(resolve(OsStr::new("nothing"), Some(&path)), None);
        assert_eq!(resolve(OsStr::new(""), Some(&path)), None);
        assert_eq!(resolve(found.as_os_str(), None), Some(found));
        assert_eq!(resolve(a.join("plain").as_os_str(), Some(&path)), None);
        assert!(resolve(OsStr::new("sh"), None).is_some());
        assert_eq!(
            candidates(OsStr::new("x"), Some(OsStr::new("/a::/b"))),
            [Path::new("/a/x"), Path::new("./x"), Path::new("/b/x")]
        );
    }

    #[test]
    fn scripts_lead_to_their_interpreters() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let path = Some(d.as_os_str());
        let loader = program(d, "loader", &elf(""), 0o755);
        let python = program(d, "python3", &elf(loader.to_str().unwrap()), 0o755);
        let env = program(d, "env", &elf(loader.to_str().unwrap()), 0o755);
        let line = format!("#! {} -u\nprint()", python.display());
        let script = program(d, "script", line.as_bytes(), 0o755);
        assert_eq!(image_files(&python, path), [python.clone(), loader.clone()]);
        assert_eq!(image_files(&script, path), [python.clone(), loader.clone()]);
        let line = format!("#!{} -S A=1 python3 -u\n", env.display());
        let by_env = program(d, "by-env", line.as_bytes(), 0o755);
        assert_eq!(image_files(&by_env, path), [env, loader, python]);
        let line = format!("#!{}", by_env.display());
        let twice = program(d, "twice", line.as_bytes(), 0o755);
        assert_eq!(image_files(&twice, path).len(), 3);
    }

    #[test]
    fn a_script_that_interprets_itself_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loop");
        fs::write(&path, format!("#!{}\n", path.display())).unwrap();
        assert!(image_files(&path, None).is_empty());
        assert!(image_files(&dir.path().join("missing"), None).is_empty());
        assert!(image_files(dir.path(), None).is_empty());
    }

    #[test]
    fn an_elf_file_cut_anywhere_has_no_half_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("elf");
        let whole = elf("/no/such/ld.so");
        for len in 0..=whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let found = elf_interpreter(&File::open(&path).unwrap());
            let expected = (len == whole.len()).then(|| PathBuf::from("/no/such/ld.so"));
            assert_eq!(found, expected, "at {len}");
        }
    }

    #[test]
    fn shebang_lines_of_any_shape_are_read() {
        let parse = |line: &str| parse_shebang(line.as_bytes());
        assert_eq!(
            parse(" /bin/sh -e x \nrest"),
            Some(("/bin/sh".into(), "-e x".into()))
        );
        assert_eq!(parse("/bin/sh"), Some(("/bin/sh".into(), "".into())));
        assert_eq!(parse(" \t\n/bin/sh"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_shell_of_this_machine_is_an_elf_file_with_a_loader() {
        let files = image_files(Path::new("/bin/sh"), None);
        assert_eq!(
            files.first().map(PathBuf::as_path),
            Some(Path::new("/bin/sh"))
        );
        assert!(
            files.get(1).is_some_and(|loader| loader.exists()),
            "{files:?}"
        );
    }
}
