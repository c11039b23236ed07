//! `TokenHasher` exists because the keys here are small integers or hashes already, and the default
//! hasher costs more than the look-up; it is never used on bytes from outside.

use std::hash::Hasher;

/// One multiplication and one rotation per integer (Fibonacci hashing). The rotation brings the
/// well-mixed upper bits down to where the table takes its bucket from.
#[derive(Debug, Default)]
pub(crate) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
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
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
