//! Record batches exist so that what is published or read together costs one call: Kafka's format 2, the
//! only one since Kafka 4, uncompressed.
//!
//! <https://kafka.apache.org/documentation/#recordbatch>
//!
//! Not part of the machine, which sees no payload and depends on `std` alone: only Python has this.

use std::io::{self, Write};

use crc32c::{crc32c, crc32c_append};

use crate::headers::Encoded;
use crate::wire::{
    Ended, push_number, push_part, size_of_number, size_of_part, take_number, take_part,
};

/// What stands before the records of a batch.
const HEAD: usize = 61;
/// Where the part begins that a batch's length counts, and the one that its checksum is of.
const AFTER_LENGTH: usize = 12;
const AFTER_CHECKSUM: usize = 21;
/// The broker gives offsets.
const FIRST_OFFSET: i64 = 0;
const FORMAT: i8 = 2;
/// Uncompressed, of no transaction, with its producer's times, which the topic may replace.
const ATTRIBUTES: i16 = 0;
const UNKNOWN_LEADER_EPOCH: i32 = -1;
/// Of a record: there are no attributes, and its time is the batch's.
const ATTRIBUTES_AND_TIME: [u8; 2] = [0, 0];
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

/// A record as it stands in a batch, but for what its place there says.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    value_size: Option<usize>,
}

impl Body {
    /// Encodes a record. None: it is larger than a length can say.
    pub(crate) fn new(key: Option<&[u8]>, value: Option<&[u8]>, headers: &Encoded) -> Option<Self> {
        let parts = size_of_part(key) + size_of_part(value);
        let size = parts + size_of_number(headers.count()) + headers.bytes().len();
        i32::try_from(size).ok()?;
        let mut bytes = Vec::with_capacity(size);
        push_part(key, &mut bytes);
        push_part(value, &mut bytes);
        push_number(headers.count(), &mut bytes);
        bytes.extend_from_slice(headers.bytes());
        Some(Self { bytes, value_size: value.map(<[u8]>::len) })
    }

    /// Reads back what it was made of.
    pub(crate) fn parts(&self) -> Result<Parts<'_>, Ended> {
        Parts::take(&mut self.bytes.as_slice())
    }

    /// How many bytes its value has, if there is one.
    pub(crate) const fn value_size(&self) -> Option<usize> {
        self.value_size
    }

    /// How many bytes follow its length, at a place in a batch.
    fn size_at(&self, offset: usize) -> usize {
        ATTRIBUTES_AND_TIME.len() + size_of_number(offset) + self.bytes.len()
    }
}

/// What a record says, wherever it is.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Encoded,
}

impl<'a> Parts<'a> {
    fn take(from: &mut &'a [u8]) -> Result<Self, Ended> {
        let (key, value) = (take_part(from)?, take_part(from)?);
        let count = usize::try_from(take_number(from)?).map_err(|_| Ended)?;
        Ok(Self { key, value, headers: Encoded::take(from, count)? })
    }
}

/// How much of a batch is taken.
#[derive(Debug)]
pub(crate) struct Room {
    size: usize,
    count: usize,
    limit: usize,
}

impl Room {
    /// Has room for a batch that stays below so many bytes.
    pub(crate) const fn below(limit: usize) -> Self {
        Self { size: HEAD, count: 0, limit }
    }

    /// Takes one more record; tells whether there was room, which the first always has. None: the batch is
    /// larger than a length can say.
    pub(crate) fn take(&mut self, record: &Body) -> Option<bool> {
        let body = record.size_at(self.count);
        let size = self.size + size_of_number(body) + body;
        if size >= self.limit && self.count > 0 {
            return Some(false);
        }
        i32::try_from(size).ok()?;
        self.size = size;
        self.count += 1;
        Some(true)
    }

    /// How many bytes the batch has.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }
}

/// Writes a batch where there is exactly as much room as it takes.
pub(crate) fn write<'a>(
    records: impl ExactSizeIterator<Item = &'a Body>,
    timestamp: i64,
    producer: Producer,
    batch: &mut [u8],
) -> io::Result<()> {
    let count = i32::try_from(records.len()).map_err(io::Error::other)?;
    let (mut head, written) = batch.split_at_mut_checked(HEAD).ok_or(io::ErrorKind::WriteZero)?;
    let mut left = &mut *written;
    let mut place = Vec::with_capacity(16);
    for (offset, record) in records.enumerate() {
        place.clear();
        push_number(record.size_at(offset), &mut place);
        place.extend_from_slice(&ATTRIBUTES_AND_TIME);
        push_number(offset, &mut place);
        left.write_all(&place)?;
        left.write_all(&record.bytes)?;
    }
    head.write_all(&head_of(written, count, timestamp, producer)?)
}

/// Makes what stands before the records of a batch.
fn head_of(records: &[u8], count: i32, timestamp: i64, producer: Producer) -> io::Result<Vec<u8>> {
    let length = i32::try_from(HEAD - AFTER_LENGTH + records.len()).map_err(io::Error::other)?;
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
    Ok(head)
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
    last: i64,
    left: i32,
    rest: &'a [u8],
    before: i64,
    is_in_order: bool,
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    /// Whether it is the topic's time, and not the producer's.
    pub(crate) append_time: bool,
    pub(crate) parts: Parts<'a>,
}

impl<'a> Batch<'a> {
    /// Reads what stands before the records. None: it is cut off, compressed, or of another format.
    pub(crate) fn new(batch: &'a [u8]) -> Option<Self> {
        let mut rest = batch;
        let first_offset = i64::from_be_bytes(take(&mut rest)?);
        let [_length @ .., format] = take::<9>(&mut rest)?;
        let _checksum = take::<4>(&mut rest)?;
        let attributes = i16::from_be_bytes(take(&mut rest)?);
        let last = i32::from_be_bytes(take(&mut rest)?).into();
        let first_timestamp = i64::from_be_bytes(take(&mut rest)?);
        let latest_timestamp = i64::from_be_bytes(take(&mut rest)?);
        let _producer = take::<14>(&mut rest)?;
        let left = i32::from_be_bytes(take(&mut rest)?);
        let append_time = (attributes & APPEND_TIME != 0).then_some(latest_timestamp);
        let usual = format.cast_signed() == FORMAT && attributes & COMPRESSION == 0;
        usual.then_some(Self {
            first_offset,
            first_timestamp,
            append_time,
            last,
            left,
            rest,
            before: -1,
            is_in_order: true,
        })
    }

    /// Gives the offset that the batch begins with.
    pub(crate) fn first_offset(&self) -> i64 {
        self.first_offset
    }

    /// Tells whether each record that was read has an offset of the batch, behind the one before.
    ///
    /// A producer says where in its batch a record is, and Kafka takes its word; what it calls the batch's
    /// last offset, Kafka compares with the number of records.
    pub(crate) fn is_in_order(&self) -> bool {
        self.is_in_order
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
        let parts = Parts::take(&mut record)?;
        if !record.is_empty() {
            return Err(Ended);
        }
        self.is_in_order &= self.before < after && after <= self.last;
        self.before = after;
        Ok(Some(Read {
            offset: self.first_offset.wrapping_add(after),
            timestamp: self.append_time.unwrap_or(self.first_timestamp.wrapping_add(later)),
            append_time: self.append_time.is_some(),
            parts,
        }))
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}
