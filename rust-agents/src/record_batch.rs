//! The encoding of records exists so that publishing many costs one call: they become one record batch
//! of Kafka's format 2, the only one since Kafka 4, uncompressed.
//!
//! <https://kafka.apache.org/documentation/#recordbatch>
//!
//! Not part of the machine, which sees no payload and depends on `std` alone: only Python has this.

use crc32c::{crc32c, crc32c_append};

use crate::headers::Header;

/// What stands before the records of a batch.
pub(crate) const HEAD: usize = 61;
/// Where the part begins that a batch's length counts, and the one that its checksum is of.
const AFTER_LENGTH: usize = 12;
const AFTER_CHECKSUM: usize = 21;
/// The broker gives offsets.
const FIRST_OFFSET: i64 = 0;
const FORMAT: i8 = 2;
/// Uncompressed, of no transaction, with its producer's times, which the topic may replace.
const ATTRIBUTES: i16 = 0;
const UNKNOWN_LEADER_EPOCH: i32 = -1;
/// The length of what is null, as a number of variable length.
const NULL: u8 = 1;

/// The producer of a batch, as Kafka knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) base_sequence: i32,
}

/// Encoded records, as they stand in a batch.
#[derive(Debug)]
pub(crate) struct Records {
    encoded: Vec<u8>,
    count: i32,
    limit: usize,
}

impl Records {
    /// Makes room for records of a batch that stays below so many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { encoded: Vec::new(), count: 0, limit }
    }

    /// Takes one more record, all with the same time; tells whether there was room, which the first
    /// always has. None: the batch is larger than a length can say.
    pub(crate) fn push(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Option<bool> {
        let offset = usize::try_from(self.count).ok()?;
        let of_headers: usize = headers
            .iter()
            .map(|(name, value)| size_of(Some(name.as_bytes())) + size_of(*value))
            .sum();
        // Before the key: attributes and the difference of times, which are none.
        let body = 2
            + size_of_number(offset)
            + size_of(key)
            + size_of(value)
            + size_of_number(headers.len())
            + of_headers;
        let size = HEAD + self.encoded.len() + size_of_number(body) + body;
        if size >= self.limit && self.count > 0 {
            return Some(false);
        }
        i32::try_from(size).ok()?;
        self.encoded.reserve(size_of_number(body) + body);
        self.number(body);
        self.encoded.extend_from_slice(&[0, 0]);
        self.number(offset);
        self.part(key);
        self.part(value);
        self.number(headers.len());
        for (name, value) in headers {
            self.part(Some(name.as_bytes()));
            self.part(*value);
        }
        self.count += 1;
        Some(true)
    }

    /// The records.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// How many they are.
    pub(crate) const fn count(&self) -> i32 {
        self.count
    }

    fn part(&mut self, part: Option<&[u8]>) {
        match part {
            Some(bytes) => {
                self.number(bytes.len());
                self.encoded.extend_from_slice(bytes);
            }
            None => self.encoded.push(NULL),
        }
    }

    /// Writes a number in seven bits a byte, doubled, because odd ones are negative.
    fn number(&mut self, number: usize) {
        let mut rest = number << 1;
        while rest > 0x7f {
            self.encoded.push(lowest_byte(rest) | 0x80);
            rest >>= 7;
        }
        self.encoded.push(lowest_byte(rest));
    }
}

/// Writes what stands before the records of a batch. None: it is larger than a length can say.
pub(crate) fn head(
    records: &[u8],
    count: i32,
    timestamp: i64,
    producer: Producer,
) -> Option<Vec<u8>> {
    let length = i32::try_from(HEAD - AFTER_LENGTH + records.len()).ok()?;
    let mut checked = Vec::with_capacity(HEAD - AFTER_CHECKSUM);
    checked.extend_from_slice(&ATTRIBUTES.to_be_bytes());
    checked.extend_from_slice(&count.saturating_sub(1).to_be_bytes()); // the last one's offset
    checked.extend_from_slice(&timestamp.to_be_bytes()); // the first one's
    checked.extend_from_slice(&timestamp.to_be_bytes()); // the latest
    checked.extend_from_slice(&producer.id.to_be_bytes());
    checked.extend_from_slice(&producer.epoch.to_be_bytes());
    checked.extend_from_slice(&producer.base_sequence.to_be_bytes());
    checked.extend_from_slice(&count.to_be_bytes());
    let checksum = crc32c_append(crc32c(&checked), records);
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(&FIRST_OFFSET.to_be_bytes());
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&UNKNOWN_LEADER_EPOCH.to_be_bytes());
    head.extend_from_slice(&FORMAT.to_be_bytes());
    head.extend_from_slice(&checksum.to_be_bytes());
    head.extend_from_slice(&checked);
    Some(head)
}

fn size_of(part: Option<&[u8]>) -> usize {
    part.map_or(1, |bytes| size_of_number(bytes.len()) + bytes.len())
}

/// How many bytes a number takes: seven bits of it, doubled, go into each.
const fn size_of_number(number: usize) -> usize {
    let bits = usize::BITS - (number << 1 | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

const fn lowest_byte(number: usize) -> u8 {
    let [lowest, ..] = number.to_le_bytes();
    lowest
}
