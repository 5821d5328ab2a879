//! Recognises TLS implementations that cannot be captured, and says why.

use memchr::memmem;
use std::path::Path;

/// TLS inside a file that this version has no way into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dark {
    /// The implementation's name, in the style of [`crate::event::Flavor::name`].
    pub library: &'static str,
    /// As far as the file tells: `go1.22.3`, `0.23.5`. Foreign.
    pub version: Option<String>,
    pub reason: &'static str,
    /// What can be done about it, if anything.
    pub remedy: Option<&'static str>,
}

impl Dark {
    fn new(library: &'static str, reason: &'static str, remedy: Option<&'static str>) -> Dark {
        Dark {
            library,
            version: None,
            reason,
            remedy,
        }
    }
}

const KEYLOG: &str = "let the program write SSLKEYLOGFILE, for Wireshark";

/// What `bytes`, the content of a file mapped at `path`, holds of TLS. For a file of which it is
/// known already that it cannot be attached to: an OpenSSL with symbols is called stripped here.
///
/// `is_program` adds the searches that make sense only in executables, not in shared libraries.
pub fn recognise(bytes: &[u8], path: &Path, is_program: bool) -> Option<Dark> {
    by_name(path).or_else(|| by_strings(bytes)).or_else(|| {
        if is_program {
            by_program_strings(bytes)
        } else {
            None
        }
    })
}

/// Libraries that are nearly always shared, under the names that their build systems give.
fn by_name(path: &Path) -> Option<Dark> {
    let name = path.file_name()?.to_str()?;
    let is = |stem: &str| {
        name.strip_prefix(stem)
            .is_some_and(|rest| rest.starts_with(".so") || rest.starts_with('-'))
    };
    if is("libjvm") {
        Some(Dark::new(
            "jsse",
            "Java: own TLS in bytecode (JSSE)",
            Some("use a provider on top of OpenSSL (netty-tcnative), or a key log agent"),
        ))
    } else if is("libwolfssl") {
        Some(Dark::new(
            "wolfssl",
            "wolfSSL, but its functions are not found by name",
            Some("use a build with symbols"),
        ))
    } else if name == "___Nettle.so" {
        Some(Dark::new("pike", "Pike: own TLS in bytecode", None))
    } else if is("libmbedtls") {
        Some(Dark::new(
            "mbedtls",
            "Mbed TLS, but its functions are not found by name",
            Some("use a build with symbols"),
        ))
    } else {
        None
    }
}

/// Strings that a library itself holds and a program that uses it does not.
fn by_strings(bytes: &[u8]) -> Option<Dark> {
    // The source file names in OpenSSL's errors: `ssl_lib.c`, and `ssl_lib.cc` in BoringSSL.
    if let Some(at) = memmem::find(bytes, b"/ssl_lib.c") {
        let after = at + b"/ssl_lib.c".len();
        if bytes.get(after) == Some(&b'c') {
            return Some(Dark::new(
                "boringssl",
                "stripped: BoringSSL is inside, but its functions were not found",
                Some("use a build with symbols, or install its debug symbols"),
            ));
        }
        return Some(Dark {
            version: openssl_version(bytes),
            ..Dark::new(
                "openssl",
                "stripped: OpenSSL is inside, but its functions were not found",
                Some(
                    "install debug symbols, or use a build that links OpenSSL as a shared library",
                ),
            )
        });
    }
    if let Some(version) = rustls_sources(bytes) {
        return Some(Dark {
            version,
            ..rustls()
        });
    }
    // Environment variables that each reads.
    if memmem::find(bytes, b"GNUTLS_DEBUG_LEVEL").is_some() {
        let reason = "GnuTLS is inside, but no symbols of it";
        return Some(Dark::new("gnutls", reason, Some(KEYLOG)));
    }
    if memmem::find(bytes, b"NSS_SSL_ENABLE_RENEGOTIATION").is_some() {
        return Some(Dark::new(
            "nss",
            "NSS is inside, but its functions that read and write are not found",
            Some(KEYLOG),
        ));
    }
    None
}

fn by_program_strings(bytes: &[u8]) -> Option<Dark> {
    // Go writes its build information at an address divisible by 16 (debug/buildinfo).
    if let Some(at) = memmem::find(bytes, b"\xff Go buildinf:") {
        // The name of a method as Go's table of functions has it, present with crypto/tls only.
        memmem::find(bytes, b"crypto/tls.(*Conn).")?;
        return Some(Dark {
            version: go_version(bytes.get(at..)?),
            ..Dark::new(
                "go",
                "Go: crypto/tls is inside, but its functions are not found by name",
                Some("use a build that is neither obfuscated nor packed"),
            )
        });
    }
    // The paths of its source files, in panic messages; else the names of its log targets.
    if let Some(at) = memmem::find(bytes, b"/rustls-0.") {
        let version = bytes.get(at + b"/rustls-".len()..).and_then(|rest| {
            let end = rest.iter().take(32).position(|&b| b == b'/')?;
            plain_text(rest.get(..end)?)
        });
        return Some(Dark {
            version,
            ..rustls()
        });
    }
    memmem::find(bytes, b"rustls::").map(|_| rustls())
}

/// Panics name the source file, wherever the sources were: from the registry in a directory with the
/// version, else in one without. `Some(None)`: rustls, but of no version that is told.
fn rustls_sources(bytes: &[u8]) -> Option<Option<String>> {
    const FILE: &[u8] = b"/src/common_state.rs";
    const LONGEST: usize = 64;
    memmem::find_iter(bytes, FILE).find_map(|at| {
        let before = bytes.get(at.saturating_sub(LONGEST)..at)?;
        let slash = before.iter().rposition(|byte| *byte == b'/')?;
        match before.get(slash + 1..)?.strip_prefix(b"rustls")? {
            [] => Some(None),
            [b'-', version @ ..] => Some(plain_text(version)),
            _ => None,
        }
    })
}

fn rustls() -> Dark {
    let remedy = "use a build with symbols, or with native-tls (OpenSSL) if the program offers one";
    Dark::new(
        "rustls",
        "rustls is inside, but its functions were not found",
        Some(remedy),
    )
}

/// From Go 1.18 on: flags with bit 1 at 15, the version with its length before it at 32.
fn go_version(info: &[u8]) -> Option<String> {
    if info.get(15)? & 2 == 0 {
        return None;
    }
    // A version has fewer than 128 bytes, so its length is one byte of a varint.
    let len = usize::from(*info.get(32)?);
    plain_text(info.get(33..)?.get(..len)?)
}

/// `OpenSSL 3.0.17 1 Jul 2025`
fn openssl_version(bytes: &[u8]) -> Option<String> {
    memmem::find_iter(bytes, b"OpenSSL ")
        .take(64)
        .find_map(|at| {
            let rest = bytes.get(at..)?;
            if !rest.get(8)?.is_ascii_digit() {
                return None;
            }
            plain_text(rest.get(..rest.iter().take(64).position(|&b| b == 0)?)?)
        })
}

/// Text of printable ASCII; anything else was no version.
fn plain_text(bytes: &[u8]) -> Option<String> {
    let is_plain = |b: &u8| b.is_ascii_graphic() || *b == b' ';
    (!bytes.is_empty() && bytes.iter().all(is_plain))
        .then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content: &[u8], is_program: bool) -> Option<(&'static str, Option<String>)> {
        let content = [b"\x7fELF...\0", content, b"\0..."].concat();
        let dark = recognise(&content, Path::new("/usr/bin/x"), is_program)?;
        Some((dark.library, dark.version))
    }

    fn go_info() -> Vec<u8> {
        let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
        info.resize(32, 0);
        info.extend_from_slice(b"\x08go1.22.3");
        info
    }

    #[test]
    fn implementations_are_recognised_by_what_only_they_hold() {
        let version = |text: &str| Some(text.to_string());
        let openssl = b"../ssl/ssl_lib.c\0OpenSSL is\0OpenSSL 3.0.17 1 Jul 2025";
        assert_eq!(
            found(openssl, false),
            Some(("openssl", version("OpenSSL 3.0.17 1 Jul 2025")))
        );
        assert_eq!(
            found(b"src/ssl/ssl_lib.cc", false),
            Some(("boringssl", None))
        );
        assert_eq!(found(b"GNUTLS_DEBUG_LEVEL", false), Some(("gnutls", None)));
        assert_eq!(
            found(b"NSS_SSL_ENABLE_RENEGOTIATION", false),
            Some(("nss", None))
        );
        let go = [&go_info()[..], b"\0crypto/tls.(*Conn).Read"].concat();
        assert_eq!(found(&go, true), Some(("go", version("go1.22.3"))));
        assert_eq!(found(&go, false), None);
        assert_eq!(
            found(&go_info(), true),
            None,
            "Go without crypto/tls has no TLS"
        );
        let rustls = b"/registry/rustls-0.23.5/src/conn.rs";
        assert_eq!(found(rustls, true), Some(("rustls", version("0.23.5"))));
        assert_eq!(found(b"rustls::client::hs", true), Some(("rustls", None)));
        let library = b"/registry/rustls-0.23.5/src/common_state.rs";
        assert_eq!(found(library, false), Some(("rustls", version("0.23.5"))));
        let checkout = b"/git/checkouts/rustls-1a2b/5ce0/rustls/src/common_state.rs";
        assert_eq!(found(checkout, false), Some(("rustls", None)));
        assert_eq!(found(b"/other-0.1/src/common_state.rs", false), None);
        assert_eq!(found(b"SSL_write\0gnutls_record_send", true), None);
    }

    #[test]
    fn libraries_are_recognised_by_name_only_where_that_is_what_they_are() {
        let name = |path: &str| recognise(b"", Path::new(path), false).map(|dark| dark.library);
        assert_eq!(name("/opt/jdk/lib/server/libjvm.so"), Some("jsse"));
        assert_eq!(name("/usr/lib/pike8.0/modules/___Nettle.so"), Some("pike"));
        assert_eq!(name("/usr/lib/libmbedtls.so.14"), Some("mbedtls"));
        assert_eq!(name("/x/libwolfssl-1a2b.so.3"), Some("wolfssl"));
        assert_eq!(name("/usr/lib/libjvmti_agent.so"), None);
        assert_eq!(name("/"), None);
    }

    #[test]
    fn content_cut_anywhere_is_read_without_harm() {
        let go = [&go_info()[..], b"\0crypto/tls.(*Conn).Read"].concat();
        for whole in [&go[..], b"/ssl_lib.c\0OpenSSL 3.0.17\0", b"/rustls-0.23.5/"] {
            for len in 0..=whole.len() {
                recognise(&whole[..len], Path::new("x"), true);
                go_version(&whole[..len]);
            }
        }
        assert_eq!(go_version(&go[..40]), None);
        assert_eq!(openssl_version(b"OpenSSL 3.0\x1b[31m\0"), None);
    }
}
