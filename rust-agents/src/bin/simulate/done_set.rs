//! The set of done offsets is read and measured here a second time, plainly, so that the machine's
//! own encoding is compared with something.

/// The offsets of an encoded set; `None` if it is none.
pub(crate) fn decode(bytes: &[u8], base: u64) -> Option<Vec<u64>> {
    let Some((tag, rest)) = bytes.split_first() else { return Some(Vec::new()) };
    match tag {
        1 => Some(bitmap(rest, base)),
        2 => varints(rest, base),
        _ => None,
    }
}

/// How long the encoding of offsets is, in order and none below `base`.
pub(crate) fn encoded_len(offsets: &[u64], base: u64) -> u64 {
    let Some(last) = offsets.last() else { return 0 };
    let bitmap = (last + 1 - base).div_ceil(8);
    let mut runs = 0;
    let mut next = base;
    let mut since = base;
    for &offset in offsets {
        if offset != next || offset == offsets[0] {
            runs += varint_len(offset - next);
            since = offset;
        }
        next = offset + 1;
        if !offsets.contains(&next) {
            runs += varint_len(next - since);
        }
    }
    1 + bitmap.min(runs)
}

fn bitmap(bytes: &[u8], base: u64) -> Vec<u64> {
    let bits = (0..bytes.len() * 8).filter(|bit| bytes[bit / 8] & (1 << (bit % 8)) != 0);
    bits.map(|bit| base + bit as u64).collect()
}

fn varints(bytes: &[u8], base: u64) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    let (mut number, mut shift) = (0, 0);
    for byte in bytes {
        number |= u64::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    let mut offsets = Vec::new();
    let mut next = base;
    for pair in numbers.chunks(2) {
        let [gap, len] = pair else { return None };
        offsets.extend(next + gap..next + gap + len);
        next += gap + len;
    }
    (shift == 0).then_some(offsets)
}

fn varint_len(value: u64) -> u64 {
    u64::from((u64::BITS - (value | 1).leading_zeros()).div_ceil(7))
}
