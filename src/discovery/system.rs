//! Foresees the TLS libraries that programs of this machine will map: those of the dynamic linker's
//! own directories.
//!
//! A library that is attached before anybody maps it misses nothing; one that is found only once it
//! is mapped may miss a process's first bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where ld.so looks without being told (ld.so(8)), on the distributions in use.
const DIRS: [&str; 6] = [
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/lib64",
];
/// `ld.so.conf` includes these files on all of them.
const CONF_DIR: &str = "/etc/ld.so.conf.d";
/// More than any machine has; a directory of garbage must not hold up the start.
const MOST: usize = 16;

/// Each TLS library of the system: every libssl with the libcrypto it goes with when there is one
/// beside it, every libgnutls, and NSS's libssl3. A file with several names comes once.
pub fn libraries() -> Vec<Vec<PathBuf>> {
    let conf = fs::read_dir(CONF_DIR).into_iter().flatten().flatten();
    let configured = conf
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .flat_map(|text| directories(&text));
    let all: Vec<PathBuf> = DIRS.iter().map(PathBuf::from).chain(configured).collect();
    pairs(&all)
}

/// The absolute directories that a file of `ld.so.conf`'s form names.
fn directories(text: &str) -> Vec<PathBuf> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| line.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn pairs(dirs: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for entry in dirs.iter().flat_map(fs::read_dir).flatten().flatten() {
        if !is_tls(&entry.path()) {
            continue;
        }
        let Ok(real) = entry.path().canonicalize() else {
            continue;
        };
        if found.len() == MOST || !seen.insert(real.clone()) {
            continue;
        }
        // `libssl.so` is a name for linking, which `libcrypto.so` has only beside headers.
        let crypto = suffix(&real).map(|end| real.with_file_name(format!("libcrypto.so{end}")));
        found.push(
            [Some(real), crypto.filter(|path| is_file(path))]
                .into_iter()
                .flatten()
                .collect(),
        );
    }
    found
}

/// By its name, one of the libraries that come alone or with a libcrypto.
fn is_tls(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let alone = |name: &str| name == "libssl3.so" || name.starts_with("libgnutls.so");
    suffix(path).is_some() || name.is_some_and(alone)
}

/// What follows `libssl.so` in the file's name.
fn suffix(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix("libssl.so")
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_ld_so_conf_are_read() {
        let text = "# comment\n/usr/local/lib  # mine\n\ninclude x/*.conf\nrelative\n /opt/tls\n";
        assert_eq!(
            directories(text),
            [Path::new("/usr/local/lib"), Path::new("/opt/tls")]
        );
    }

    #[test]
    fn a_library_with_two_names_comes_once_and_with_its_libcrypto() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in [
            "libssl.so.3",
            "libcrypto.so.3",
            "libssl.so.1.1",
            "libsslfoo.so",
            "libgnutls.so.30.34.3",
            "libgnutlsxx.so.30",
            "libssl3.so",
        ] {
            fs::write(at(name), name).expect("write");
        }
        std::os::unix::fs::symlink(at("libssl.so.3"), at("libssl.so")).expect("link");
        std::os::unix::fs::symlink(at("libgnutls.so.30.34.3"), at("libgnutls.so.30"))
            .expect("link");
        std::os::unix::fs::symlink(at("gone"), at("libssl.so.0")).expect("link");
        let twice = [
            dir.path().to_path_buf(),
            dir.path().to_path_buf(),
            at("none"),
        ];
        let mut found = pairs(&twice);
        found.sort();
        assert_eq!(found.len(), 4, "{found:?}");
        for name in ["libgnutls.so.30.34.3", "libssl3.so"] {
            assert!(found.contains(&vec![at(name)]), "{found:?}");
        }
        assert!(
            found
                .iter()
                .any(|files| files[0].ends_with("libssl.so.1.1") && files.len() == 1)
        );
        assert!(found.iter().any(|files| files[0].ends_with("libssl.so.3")));
    }
}
