//! Bodies that are compressed, whatever their headers say.

/// Whether a body that begins so is one of gzip, zstd or zlib, whose first bytes are fixed.
pub fn is_compressed(body: &[u8]) -> bool {
    let begins =
        |with: &[u8]| !body.is_empty() && (body.starts_with(with) || with.starts_with(body));
    begins(&[0x1f, 0x8b])
        || begins(&[0x28, 0xb5, 0x2f, 0xfd])
        || [0x01, 0x5e, 0x9c, 0xda]
            .iter()
            .any(|&level| body.starts_with(&[0x78, level]))
}
