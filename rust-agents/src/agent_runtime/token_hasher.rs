//! `TokenHasher` exists because the keys here are small integers or hashes already, and the default
//! hasher costs more than the look-up; it is never used on bytes from outside.

use std::hash::Hasher;

/// What is a hash already is left as it is. Small integers are too, so that those which follow each other
/// lie beside each other: they come and go together, and most of what a table costs is memory that is not
/// in the cache. Only the upper bits, which tell the entries of a bucket apart, are mixed (Fibonacci hashing).
#[derive(Debug, Default)]
pub(crate) struct TokenHasher(u64);

/// The bits that do not choose a bucket.
const UPPER: u64 = 0xFF << 56;

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u128(&mut self, value: u128) {
        // Each half is a hash already.
        self.write_u64(u64::try_from(value >> 64).unwrap_or_default());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value ^ (value.wrapping_mul(0x9E37_79B9_7F4A_7C15) & UPPER);
    }
}
