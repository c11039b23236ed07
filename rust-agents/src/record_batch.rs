//! Record batches exist so that what is published or read together costs one call: Kafka's format 2, the
//! only one since Kafka 4, uncompressed.
//!
//! <https://kafka.apache.org/documentation/#recordbatch>
//!
//! Not part of the machine, which sees no payload and depends on `std` alone: only Python has this.

use crc32c::{crc32c, crc32c_append};

use crate::headers::Encoded;
use crate::wire::{
    Ended, push_number, push_part, size_of_number, size_of_part, take_number, take_part,
};

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
/// In the attributes: how it is compressed, and that the topic replaced its producer's times.
const COMPRESSION: i16 = 0b0111;
const APPEND_TIME: i16 = 0b1000;

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
        headers: &Encoded,
    ) -> Option<bool> {
        let offset = usize::try_from(self.count).ok()?;
        // Before the key: attributes and the difference of times, which are none.
        let body = 2
            + size_of_number(offset)
            + size_of_part(key)
            + size_of_part(value)
            + size_of_number(headers.count())
            + headers.bytes().len();
        let size = HEAD + self.encoded.len() + size_of_number(body) + body;
        if size >= self.limit && self.count > 0 {
            return Some(false);
        }
        i32::try_from(size).ok()?;
        self.encoded.reserve(size_of_number(body) + body);
        push_number(body, &mut self.encoded);
        self.encoded.extend_from_slice(&[0, 0]);
        push_number(offset, &mut self.encoded);
        push_part(key, &mut self.encoded);
        push_part(value, &mut self.encoded);
        push_number(headers.count(), &mut self.encoded);
        self.encoded.extend_from_slice(headers.bytes());
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

/// Tells whether a batch is what its checksum says.
pub(crate) fn has_its_checksum(batch: &[u8]) -> bool {
    let said = batch.get(AFTER_CHECKSUM - size_of::<u32>()..).and_then(<[u8]>::first_chunk);
    let checked = batch.get(AFTER_CHECKSUM..);
    said.zip(checked).is_some_and(|(said, checked)| u32::from_be_bytes(*said) == crc32c(checked))
}

/// A batch that was read, and those of its records that were not.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    first_offset: i64,
    first_timestamp: i64,
    append_time: Option<i64>,
    left: i32,
    rest: &'a [u8],
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    /// Whether it is the topic's time, and not the producer's.
    pub(crate) append_time: bool,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Encoded,
}

impl<'a> Batch<'a> {
    /// Reads what stands before the records. None: it is cut off, compressed, or of another format.
    pub(crate) fn new(batch: &'a [u8]) -> Option<Self> {
        let mut rest = batch;
        let first_offset = i64::from_be_bytes(take(&mut rest)?);
        let [_length @ .., format] = take::<9>(&mut rest)?;
        let _checksum = take::<4>(&mut rest)?;
        let attributes = i16::from_be_bytes(take(&mut rest)?);
        let _last = take::<4>(&mut rest)?;
        let first_timestamp = i64::from_be_bytes(take(&mut rest)?);
        let latest_timestamp = i64::from_be_bytes(take(&mut rest)?);
        let _producer = take::<14>(&mut rest)?;
        let left = i32::from_be_bytes(take(&mut rest)?);
        let append_time = (attributes & APPEND_TIME != 0).then_some(latest_timestamp);
        let usual = format.cast_signed() == FORMAT && attributes & COMPRESSION == 0;
        usual.then_some(Self { first_offset, first_timestamp, append_time, left, rest })
    }

    /// Reads the next record. None: there is no other, and nothing else.
    pub(crate) fn next(&mut self) -> Result<Option<Read<'a>>, Ended> {
        if self.left <= 0 {
            return if self.rest.is_empty() { Ok(None) } else { Err(Ended) };
        }
        self.left -= 1;
        let mut record = take_part(&mut self.rest)?.ok_or(Ended)?;
        let _attributes = take_number(&mut record)?; // a byte; there are none so far
        let later = take_number(&mut record)?;
        let after = take_number(&mut record)?;
        let (key, value) = (take_part(&mut record)?, take_part(&mut record)?);
        let count = usize::try_from(take_number(&mut record)?).map_err(|_| Ended)?;
        let headers = Encoded::take(&mut record, count)?;
        if !record.is_empty() {
            return Err(Ended);
        }
        Ok(Some(Read {
            offset: self.first_offset.wrapping_add(after),
            timestamp: self.append_time.unwrap_or(self.first_timestamp.wrapping_add(later)),
            append_time: self.append_time.is_some(),
            key,
            value,
            headers,
        }))
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}
