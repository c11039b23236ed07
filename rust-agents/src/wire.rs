//! Numbers and parts of variable length exist once: headers and records are made of them.
//!
//! <https://kafka.apache.org/documentation/#record>

use crate::varints;

/// In bytes: all 64 bits are there.
const LONGEST_NUMBER: u32 = 10;
/// The length of what is null, as a number of variable length.
const NULL: u8 = 1;

/// Writes bytes after their length; None is null.
pub(crate) fn push_part(part: Option<&[u8]>, to: &mut Vec<u8>) {
    match part {
        Some(bytes) => {
            push_number(bytes.len(), to);
            to.extend_from_slice(bytes);
        }
        None => to.push(NULL),
    }
}

/// Writes a number, doubled, because odd ones are negative.
pub(crate) fn push_number(number: usize, to: &mut Vec<u8>) {
    varints::push(number << 1, to);
}

/// How many bytes a part takes.
pub(crate) fn size_of_part(part: Option<&[u8]>) -> usize {
    part.map_or(1, |bytes| size_of_number(bytes.len()) + bytes.len())
}

/// How many bytes a number takes: seven bits of it, doubled, go into each.
pub(crate) const fn size_of_number(number: usize) -> usize {
    let bits = usize::BITS - (number << 1 | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// There is no whole part any more.
#[derive(Debug)]
pub(crate) struct Ended;

/// Reads back what `push_part` wrote; None is null.
pub(crate) fn take_part<'a>(from: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Ended> {
    let Ok(length) = usize::try_from(take_number(from)?) else {
        return Ok(None);
    };
    let (part, rest) = from.split_at_checked(length).ok_or(Ended)?;
    *from = rest;
    Ok(Some(part))
}

/// Reads a number of variable length, which may be negative.
pub(crate) fn take_number(from: &mut &[u8]) -> Result<i64, Ended> {
    let doubled = varints::take(from, LONGEST_NUMBER).ok_or(Ended)?;
    Ok((doubled >> 1).cast_signed() ^ -(doubled & 1).cast_signed())
}
