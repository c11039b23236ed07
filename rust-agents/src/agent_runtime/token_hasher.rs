//! `TokenHasher` exists because the keys here are small integers or hashes already, and the default
//! hasher costs more than the look-up; it is never used on bytes from outside.

use std::hash::Hasher;

/// Integers that follow each other come and go together, and most of what a table costs is memory that is not
/// in the cache: so sixteen of them lie beside each other. Not more, since those that stay for long would fill
/// one stretch of the table, past which all others would have to be looked for. All else is mixed (Fibonacci
/// hashing); what is a hash already takes no harm from it.
#[derive(Debug, Default)]
pub(crate) struct TokenHasher(u64);

const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
/// The bits that choose among neighbors.
const NEAR: u64 = 0xF;
/// The bits that choose no bucket, but tell the entries of one apart.
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
        // The best mixed bits come out at the top, and the lowest choose the bucket.
        let far = (value >> 4).wrapping_mul(MIX).rotate_left(26);
        self.0 = ((far & !NEAR) | (value & NEAR)) ^ (value.wrapping_mul(MIX) & UPPER);
    }
}
