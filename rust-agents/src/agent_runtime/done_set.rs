//! The done set exists so that a restart skips what finished above the commit: it is small enough to
//! travel in the commit's metadata. It never knows why an offset is done, and it is a hint: losing
//! it, or its upper end, costs reading and nothing else.

use std::collections::BTreeMap;

const BITMAP: u8 = 1;
const RUNS: u8 = 2;
/// More than Kafka keeps for a commit is not ours.
const MOST_BYTES: usize = 4_096;

/// Offsets that are done, as runs that neither touch nor overlap, so that its size is the number of
/// holes and not of offsets.
///
/// # Encoding
///
/// Nothing at all for an empty set; else one tag byte and, whichever is shorter,
///
/// - `1`: a bitmap from the base on, lowest bit first, without zero bytes at its end;
/// - `2`: varints (LEB128), in turn how many offsets are not done and how many are, from the base on.
///
/// There is one encoding of each set, and anything else is refused as a whole.
#[derive(Debug, Default)]
pub(crate) struct DoneSet {
    /// First offset to one after the last.
    runs: BTreeMap<u64, u64>,
    count: u64,
    /// Bytes of the varints of all lengths, and of all gaps but the first.
    cost: usize,
}

#[derive(Clone, Copy)]
struct Run {
    start: u64,
    end: u64,
}

impl DoneSet {
    /// The set that was encoded from the same base. What is not an encoding holds nothing.
    pub(crate) fn decode(bytes: &[u8], base: u64) -> Self {
        let decoded = match bytes.split_first() {
            Some((&BITMAP, bitmap)) if bytes.len() <= MOST_BYTES => from_bitmap(bitmap, base),
            Some((&RUNS, varints)) if bytes.len() <= MOST_BYTES => from_varints(varints, base),
            _ => None,
        };
        decoded.filter(|it| it.encode(base, bytes.len()) == bytes).unwrap_or_default()
    }

    /// The encoding from `base` on, which must not be above the lowest offset, in at most `most`
    /// bytes. What does not fit is left out from the upper end.
    pub(crate) fn encode(&self, base: u64, most: usize) -> Vec<u8> {
        let room = most.saturating_sub(1);
        let (in_bitmap, bitmap) = self.to_bitmap(base, room);
        let (in_varints, varints) = self.to_varints(base, room);
        if in_bitmap.max(in_varints) == 0 {
            return Vec::new();
        }
        let bitmap_wins = (in_bitmap, varints.len()) > (in_varints, bitmap.len());
        let (tag, body) = if bitmap_wins { (BITMAP, bitmap) } else { (RUNS, varints) };
        let mut bytes = Vec::with_capacity(body.len() + 1);
        bytes.push(tag);
        bytes.extend(body);
        bytes
    }

    /// How long the encoding from `base` on would be without a limit. Costs nothing.
    pub(crate) fn encoded_len(&self, base: u64) -> u64 {
        let (Some((&start, _)), Some((_, &end))) =
            (self.runs.first_key_value(), self.runs.last_key_value())
        else {
            return 0;
        };
        let varints = varint_len(start.saturating_sub(base)) + self.cost;
        1 + (varints as u64).min(end.saturating_sub(base).div_ceil(8))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many offsets are in it.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.runs.range(..=offset).next_back().is_some_and(|(_, &end)| end > offset)
    }

    pub(crate) fn insert(&mut self, offset: u64) {
        let Some(end) = offset.checked_add(1) else { return };
        let left = self.runs.range(..=offset).next_back().map(Run::of);
        if left.is_some_and(|it| it.end > offset) {
            return;
        }
        let right = self.runs.range(end..).next().map(Run::of);
        let mut run = Run { start: offset, end };
        if let (Some(left), Some(right)) = (left, right) {
            self.cost -= left.gap_to(right);
        }
        match left {
            Some(left) if left.end == offset => {
                self.cost -= left.cost();
                run.start = left.start;
            }
            Some(left) => self.cost += left.gap_to(run),
            None => {}
        }
        match right {
            Some(right) if right.start == end => {
                self.cost -= right.cost();
                run.end = right.end;
                self.runs.remove(&right.start);
            }
            Some(right) => self.cost += run.gap_to(right),
            None => {}
        }
        self.cost += run.cost();
        self.count += 1;
        self.runs.insert(run.start, run.end);
    }

    /// Forgets everything below `base`.
    pub(crate) fn forget_below(&mut self, base: u64) {
        while let Some(first) = self.runs.first_key_value().map(Run::of)
            && first.start < base
        {
            self.runs.remove(&first.start);
            self.cost -= first.cost();
            self.count -= first.end.min(base) - first.start;
            if first.end > base {
                let rest = Run { start: base, end: first.end };
                self.cost += rest.cost();
                self.runs.insert(rest.start, rest.end);
            } else if let Some(second) = self.runs.first_key_value().map(Run::of) {
                self.cost -= first.gap_to(second);
            }
        }
    }

    /// Adds a run above all others.
    fn push(&mut self, run: Run) {
        if let Some(last) = self.runs.last_key_value().map(Run::of) {
            self.cost += last.gap_to(run);
        }
        self.cost += run.cost();
        self.count += run.end - run.start;
        self.runs.insert(run.start, run.end);
    }

    /// How many offsets fit into `room` bytes of bitmap, and the bitmap.
    fn to_bitmap(&self, base: u64, room: usize) -> (u64, Vec<u8>) {
        let end = base.saturating_add(room as u64 * 8);
        let mut bitmap = Vec::new();
        let mut held = 0;
        for offset in self.runs.iter().map(Run::of).flat_map(|it| it.start..it.end.min(end)) {
            let index = offset.saturating_sub(base);
            let byte = usize::try_from(index / 8).unwrap_or(usize::MAX);
            if byte >= bitmap.len() && byte < room {
                bitmap.resize(byte + 1, 0);
            }
            if let Some(byte) = bitmap.get_mut(byte) {
                *byte |= 1 << (index % 8);
                held += 1;
            }
        }
        (held, bitmap)
    }

    /// How many offsets fit into `room` bytes of varints, and the varints.
    fn to_varints(&self, base: u64, room: usize) -> (u64, Vec<u8>) {
        let mut varints = Vec::new();
        let mut held = 0;
        let mut before = base;
        for run in self.runs.iter().map(Run::of) {
            let gap = run.start.saturating_sub(before);
            if varints.len() + varint_len(gap) + run.cost() > room {
                break;
            }
            push_varint(&mut varints, gap);
            push_varint(&mut varints, run.end - run.start);
            held += run.end - run.start;
            before = run.end;
        }
        (held, varints)
    }
}

impl Run {
    fn of((&start, &end): (&u64, &u64)) -> Self {
        Self { start, end }
    }

    fn cost(self) -> usize {
        varint_len(self.end - self.start)
    }

    fn gap_to(self, next: Self) -> usize {
        varint_len(next.start - self.end)
    }
}

fn from_bitmap(bitmap: &[u8], base: u64) -> Option<DoneSet> {
    let mut set = DoneSet::default();
    for (index, byte) in (0_u64..).zip(bitmap) {
        for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
            let offset = base.checked_add(index * 8 + bit).filter(|it| *it < u64::MAX)?;
            set.insert(offset);
        }
    }
    Some(set)
}

fn from_varints(mut varints: &[u8], base: u64) -> Option<DoneSet> {
    let mut set = DoneSet::default();
    let mut before = base;
    while !varints.is_empty() {
        let gap = pop_varint(&mut varints)?;
        let len = pop_varint(&mut varints)?;
        let start = before.checked_add(gap)?;
        let end = start.checked_add(len)?;
        // Runs that touch or are empty are no runs.
        if len == 0 || (gap == 0 && !set.is_empty()) {
            return None;
        }
        set.push(Run { start, end });
        before = end;
    }
    Some(set)
}

fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(low_seven(value) | 0x80);
        value >>= 7;
    }
    bytes.push(low_seven(value));
}

fn pop_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7F);
        if low << shift >> shift != low {
            return None;
        }
        value |= low << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn low_seven(value: u64) -> u8 {
    u8::try_from(value & 0x7F).unwrap_or_default()
}
