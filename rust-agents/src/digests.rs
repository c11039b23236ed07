//! The digests exist so that naming a run and proving what it answered takes a small part of the time
//! Python needs; `streams/envelope.py` says what they mean, its tests hold the same definitions in Python.
//!
//! Not part of the machine, which sees no payload and depends on `std` alone: only Python has these.

use sha2::{Digest, Sha256};

/// The length no part has: what is absent.
const ABSENT: u32 = u32::MAX;
/// What the headers of an event take, their names included.
const USUAL_BYTES: usize = 768;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// Hashes a record's exact key, value and headers. None: a part is larger than a length can say.
pub(crate) fn record_digest(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
) -> Option<Hash> {
    let names = || headers.iter().map(|(name, _)| *name);
    let values = || headers.iter().map(|(_, value)| *value);
    let mut exact = Vec::with_capacity(USUAL_BYTES);
    exact.extend_from_slice(b"callboard-record-v1");
    for part in [key, value].into_iter().chain(values()) {
        exact.extend_from_slice(&part.map_or(Some(ABSENT), size)?.to_be_bytes());
    }
    for name in names() {
        exact.extend_from_slice(&size(name)?.to_be_bytes());
    }
    exact.extend_from_slice(key.unwrap_or_default());
    let mut hash = Sha256::new_with_prefix(&exact);
    // The value, which may be large, is not copied; the many small parts are, since hashing each takes more.
    hash.update(value.unwrap_or_default());
    exact.clear();
    values().flatten().chain(names()).for_each(|part| exact.extend_from_slice(part));
    hash.update(&exact);
    Some(hash.finalize().into())
}

/// Names a run: what it is of, which the caller has prefixed, and what it answers.
pub(crate) fn run_id(prefix: &[u8], identity: &[&str]) -> Option<String> {
    let mut exact = Vec::with_capacity(prefix.len() + 256);
    exact.extend_from_slice(prefix);
    for part in identity {
        exact.extend_from_slice(&size(part.as_bytes())?.to_be_bytes());
        exact.extend_from_slice(part.as_bytes());
    }
    Some(hexadecimal(&Sha256::digest(&exact).into()))
}

/// Writes a hash as text.
pub(crate) fn hexadecimal(hash: &Hash) -> String {
    let mut text = String::new();
    push_hexadecimal(hash, &mut text);
    text
}

/// Writes a hash at the end of a text.
pub(crate) fn push_hexadecimal(hash: &Hash, text: &mut String) {
    let mut written = [0; 64];
    for (pair, byte) in written.chunks_exact_mut(2).zip(hash) {
        pair.copy_from_slice(&digits(*byte));
    }
    text.push_str(str::from_utf8(&written).unwrap_or_default());
}

/// Makes a `UUIDv8` (RFC 9562) of a name's hash.
pub(crate) fn uuid_of(name: &str) -> String {
    let digest = Sha256::digest(name);
    let mut text = String::with_capacity(36);
    for (index, byte) in digest.iter().take(16).enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let byte = match index {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        push(byte, &mut text);
    }
    text
}

fn size(part: &[u8]) -> Option<u32> {
    u32::try_from(part.len()).ok().filter(|size| *size != ABSENT)
}

fn push(byte: u8, text: &mut String) {
    text.extend(digits(byte).map(char::from));
}

fn digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0x0f].map(|digit| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
}
