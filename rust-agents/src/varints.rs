//! Numbers of seven bits a byte, the lowest first, are written and read in one place: lengths in Kafka's
//! records and in its requests are such numbers.

/// Writes a number: every byte but its last has the highest bit set.
pub(crate) fn push(number: usize, to: &mut Vec<u8>) {
    let mut rest = number;
    while rest > 0x7f {
        to.push(lowest_byte(rest) | 0x80);
        rest >>= 7;
    }
    to.push(lowest_byte(rest));
}

/// Reads a number of at most so many bytes, ten or fewer. None: it does not end within them.
pub(crate) fn take(from: &mut &[u8], most_bytes: u32) -> Option<u64> {
    let mut number = 0;
    for shift in (0..most_bytes * 7).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

const fn lowest_byte(number: usize) -> u8 {
    let [lowest, ..] = number.to_le_bytes();
    lowest
}
