//! Records are read and written here in whole batches, so that each costs one object, and its headers none
//! until somebody looks at them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::envelope::EncodedHeaders;
use super::{held, parts_of, too_large};
use crate::Lane;
use crate::digests::{self, Hash};
use crate::headers::{Encoded, RawHeader};
use crate::record_batch::{self, Batch, Body, Producer, Room};

/// What the topic stamped, and not the producer.
const APPEND_TIME: u8 = 1;

/// One record as it was read.
///
/// Args:
///     topic: Where it is.
///     partition: Where it is.
///     offset: Where it is.
///     timestamp: Milliseconds since 1970.
///     timestamp_type: Whose they are: 0, the producer's, or 1, the topic's.
///     key: Or None.
///     value: Or None.
///     headers: Names and values; the same ones are given back, as a tuple made anew each time.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyclass(frozen, module = "streams.kafka.fetched")]
pub(super) struct Record {
    #[pyo3(get)]
    topic: Py<PyString>,
    #[pyo3(get)]
    partition: i32,
    #[pyo3(get)]
    offset: i64,
    #[pyo3(get)]
    timestamp: i64,
    #[pyo3(get)]
    timestamp_type: u8,
    #[pyo3(get)]
    key: Option<Py<PyBytes>>,
    #[pyo3(get)]
    value: Option<Py<PyBytes>>,
    headers: Encoded,
}

#[pymethods]
impl Record {
    #[new]
    #[pyo3(signature = (topic, partition, offset, timestamp, timestamp_type, key, value, headers))]
    #[allow(clippy::too_many_arguments, reason = "they are the parts of a record")]
    fn new(
        topic: Py<PyString>,
        partition: i32,
        offset: i64,
        timestamp: i64,
        timestamp_type: u8,
        key: Option<Py<PyBytes>>,
        value: Option<Py<PyBytes>>,
        headers: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let headers = EncodedHeaders::new(headers)?.into_encoded();
        Ok(Self { topic, partition, offset, timestamp, timestamp_type, key, value, headers })
    }

    #[getter(headers)]
    fn all_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        pairs(py, &self.headers)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let topic = self.topic.bind(py).repr()?;
        Ok(format!("Record({topic}, partition={}, offset={})", self.partition, self.offset))
    }
}

impl Record {
    pub(super) fn key<'py>(&'py self, py: Python<'py>) -> Option<&'py [u8]> {
        self.key.as_ref().map(|it| it.as_bytes(py))
    }

    pub(super) fn headers(&self) -> &Encoded {
        &self.headers
    }
}

/// What the machine wants to know of a record.
pub(super) struct Facts {
    pub(super) offset: u64,
    pub(super) lane: Option<Lane>,
    pub(super) nbytes: usize,
    pub(super) timestamp: i64,
}

/// Takes from a record what the machine wants to know: one of ours, or anything with the same attributes.
pub(super) fn facts_of_record(record: &Bound<'_, PyAny>) -> PyResult<Facts> {
    let py = record.py();
    if let Ok(record) = record.cast::<Record>() {
        let record = record.get();
        return Ok(Facts {
            offset: record.offset.try_into()?,
            lane: record.key(py).map(Lane::of),
            nbytes: record.value.as_ref().map_or(0, |it| it.as_bytes(py).len()),
            timestamp: record.timestamp,
        });
    }
    let value = record.getattr(intern!(py, "value"))?.extract::<Option<Bound<'_, PyBytes>>>()?;
    Ok(Facts {
        offset: record.getattr(intern!(py, "offset"))?.extract()?,
        lane: record.getattr(intern!(py, "key"))?.extract::<Option<&[u8]>>()?.map(Lane::of),
        nbytes: value.map_or(0, |it| it.as_bytes().len()),
        timestamp: record.getattr(intern!(py, "timestamp"))?.extract()?,
    })
}

/// Records that come one after the other in one partition: its topic, its number, since when, and they.
type Stretch<'py> = (Bound<'py, PyString>, i32, i64, Vec<Bound<'py, PyAny>>);

/// Divide records, in their order, into those that come one after the other in one partition.
///
/// Args:
///     records: Each with `topic`, `partition`, `timestamp` and `timestamp_type`.
///
/// Returns:
///     Of each stretch the topic, the partition, the earliest time that the broker stamped, and the
///     records. The time is 0 where a producer stamped one: its clock may be anywhere.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyfunction]
pub(super) fn by_partition<'py>(records: &Bound<'py, PyAny>) -> PyResult<Vec<Stretch<'py>>> {
    let mut stretches: Vec<Stretch<'_>> = Vec::new();
    for record in records.try_iter()? {
        let record = record?;
        let (topic, partition, time) = place_and_time_of(&record)?;
        match stretches.last_mut() {
            Some((before, number, earliest, stretch))
                if *number == partition && before.as_any().eq(&topic)? =>
            {
                *earliest = time.min(*earliest);
                stretch.push(record);
            }
            _ => stretches.push((topic, partition, time, vec![record])),
        }
    }
    Ok(stretches)
}

fn place_and_time_of<'py>(
    record: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyString>, i32, i64)> {
    let py = record.py();
    let (topic, partition, timestamp, kind) = if let Ok(record) = record.cast::<Record>() {
        let Record { topic, partition, timestamp, timestamp_type, .. } = record.get();
        (topic.bind(py).clone(), *partition, *timestamp, *timestamp_type)
    } else {
        (
            record.getattr(intern!(py, "topic"))?.cast_into()?,
            record.getattr(intern!(py, "partition"))?.extract()?,
            record.getattr(intern!(py, "timestamp"))?.extract()?,
            record.getattr(intern!(py, "timestamp_type"))?.extract()?,
        )
    };
    Ok((topic, partition, if kind == APPEND_TIME { timestamp } else { 0 }))
}

/// The parts of a record that say what it is, wherever it is.
pub(super) struct Parts<'a> {
    pub(super) key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    pub(super) headers: &'a [RawHeader<'a>],
}

/// Takes a record that is none of ours apart: anything with `key`, `value` and `headers`.
pub(super) fn parts_of_record<T>(
    record: &Bound<'_, PyAny>,
    of: impl FnOnce(&Parts<'_>) -> PyResult<T>,
) -> PyResult<T> {
    let py = record.py();
    let (key, value) = (record.getattr(intern!(py, "key"))?, record.getattr(intern!(py, "value"))?);
    let held = held(&record.getattr(intern!(py, "headers"))?)?;
    let headers = parts_of(&held)?.into_iter().map(|(name, value)| (name.as_bytes(), value));
    let headers = headers.collect::<Vec<_>>();
    of(&Parts { key: key.extract()?, value: value.extract()?, headers: &headers })
}

/// Gives a record's key.
pub(super) fn key_of<'py>(record: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = record.py();
    match record.cast::<Record>() {
        Ok(record) => Ok(record.get().key.as_ref().map(|it| it.bind(py).clone())),
        Err(_) => Ok(record.getattr(intern!(py, "key"))?.extract()?),
    }
}

/// Hashes all parts of a record.
pub(super) fn digest_of(record: &Bound<'_, PyAny>) -> PyResult<Hash> {
    let py = record.py();
    let hash = match record.cast::<Record>() {
        Ok(record) => {
            let Record { value, headers, .. } = record.get();
            let (key, value) = (record.get().key(py), value.as_ref().map(|it| it.as_bytes(py)));
            let mut parts = Vec::with_capacity(headers.count());
            parts.extend(headers.raw());
            digests::record_digest(key, value, &parts)
        }
        Err(_) => {
            parts_of_record(record, |it| Ok(digests::record_digest(it.key, it.value, it.headers)))?
        }
    };
    hash.ok_or_else(too_large)
}

/// Read the records of one batch: `streams.kafka.fetched` says what for.
///
/// Args:
///     data: Batches as Kafka sends them.
///     begin: Where the batch begins; it is uncompressed.
///     end: Where it ends.
///     topic: Where it was read.
///     partition: Where it was read.
///
/// Raises:
///     ValueError: It is no such batch, or not what its own lengths say.
#[pyfunction]
pub(super) fn read_records(
    data: &Bound<'_, PyBytes>,
    begin: usize,
    end: usize,
    topic: &Bound<'_, PyString>,
    partition: i32,
) -> PyResult<Vec<Record>> {
    let py = data.py();
    let bytes = |part: Option<&[u8]>| part.map(|it| PyBytes::new(py, it).unbind());
    let broken = || PyValueError::new_err("no batch of uncompressed records, or a broken one");
    let mut batch = data.as_bytes().get(begin..end).and_then(Batch::new).ok_or_else(broken)?;
    let mut records = Vec::new();
    while let Some(read) = batch.next().map_err(|_| broken())? {
        let parts = read.parts;
        records.push(Record {
            topic: topic.clone().unbind(),
            partition,
            offset: read.offset,
            timestamp: read.timestamp,
            timestamp_type: read.append_time.into(),
            key: bytes(parts.key),
            value: bytes(parts.value),
            headers: parts.headers,
        });
    }
    if !batch.is_in_order() {
        // Believed, they would pass for records that are not there, and those that are for done.
        for (record, offset) in records.iter_mut().zip(batch.first_offset()..) {
            record.offset = offset;
        }
    }
    Ok(records)
}

/// Tell whether a batch is what its checksum says.
///
/// Args:
///     data: Batches as Kafka sends them.
///     begin: Where the batch begins.
///     end: Where it ends.
#[pyfunction]
pub(super) fn has_its_checksum(data: &Bound<'_, PyBytes>, begin: usize, end: usize) -> bool {
    data.as_bytes().get(begin..end).is_some_and(record_batch::has_its_checksum)
}

/// A record that is written, as it stands in a batch of whatever place and time.
///
/// Args:
///     key: Or None.
///     value: Or None.
///     headers: Names and values; the same ones are given back, as a tuple made anew each time.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: It has two gigabytes or more.
#[pyclass(frozen, module = "streams.kafka.record_batch")]
pub(super) struct EncodedRecord(Body);

#[pymethods]
impl EncodedRecord {
    #[new]
    #[pyo3(signature = (key, value, headers))]
    fn new(key: Option<&[u8]>, value: Option<&[u8]>, headers: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(headers) = headers.cast::<EncodedHeaders>() {
            return Self::of(key, value, headers.get().encoded());
        }
        Self::of(key, value, &EncodedHeaders::new(headers)?.into_encoded())
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.parts()?.key.map(|it| PyBytes::new(py, it)))
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.parts()?.value.map(|it| PyBytes::new(py, it)))
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        pairs(py, &self.parts()?.headers)
    }

    /// How many bytes the value has; 0 if there is none.
    #[getter]
    fn value_size(&self) -> usize {
        self.0.value_size().unwrap_or_default()
    }
}

impl EncodedRecord {
    pub(super) fn of(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Encoded,
    ) -> PyResult<Self> {
        Body::new(key, value, headers).map(Self).ok_or_else(|| two_gigabytes("a record"))
    }

    fn parts(&self) -> PyResult<record_batch::Parts<'_>> {
        self.0.parts().map_err(|_| unreadable())
    }
}

/// Records that Kafka takes together, written in one call: format 2, uncompressed, of no transaction.
///
/// Args:
///     records: In order, as (number, record); the number is the caller's own. Those that fit are taken, and
///         the first one always: the broker has the last word on that.
///     limit: The size in bytes that the batch stays below.
///     timestamp: Of each record, in milliseconds.
///
/// Attributes:
///     count: How many were taken.
///
/// Raises:
///     TypeError: One is something else.
///     ValueError: There are no records, or they have two gigabytes or more.
#[pyclass(frozen, module = "streams.kafka.record_batch")]
pub(super) struct RecordBatch {
    records: Vec<Py<EncodedRecord>>,
    size: usize,
    timestamp: i64,
}

#[pymethods]
impl RecordBatch {
    #[new]
    #[pyo3(signature = (records, limit, timestamp))]
    fn new(records: &Bound<'_, PyAny>, limit: usize, timestamp: i64) -> PyResult<Self> {
        let mut room = Room::below(limit);
        let mut taken = Vec::new();
        for (index, record) in records.try_iter()?.enumerate() {
            let record = record?;
            let (_, encoded): (Bound<'_, PyAny>, Bound<'_, EncodedRecord>) =
                record.extract().map_err(|error| wrong(&record, index, &error))?;
            if !room.take(&encoded.get().0).ok_or_else(|| two_gigabytes("a batch"))? {
                break;
            }
            taken.push(encoded.unbind());
        }
        if taken.is_empty() {
            return Err(PyValueError::new_err("records is empty: a batch has at least one"));
        }
        Ok(Self { records: taken, size: room.size(), timestamp })
    }

    #[getter]
    fn count(&self) -> usize {
        self.records.len()
    }

    /// Give the whole batch as its producer sends it; by these numbers Kafka knows a repetition.
    ///
    /// Args:
    ///     producer_id: -1: it has none.
    ///     producer_epoch: -1 if it has no id.
    ///     base_sequence: Of the first record.
    fn sealed<'py>(
        &self,
        py: Python<'py>,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let producer = Producer { id: producer_id, epoch: producer_epoch, base_sequence };
        let records = self.records.iter().map(|it| &it.get().0);
        PyBytes::new_with(py, self.size, |batch| {
            Ok(record_batch::write(records, self.timestamp, producer, batch)?)
        })
    }
}

/// Makes names and values of headers.
fn pairs<'py>(py: Python<'py>, headers: &Encoded) -> PyResult<Bound<'py, PyTuple>> {
    let headers = headers.iter().collect::<Vec<_>>();
    PyTuple::new(
        py,
        headers
            .into_iter()
            .map(|(name, value)| (PyString::new(py, name), value.map(|it| PyBytes::new(py, it)))),
    )
}

/// Says where something is of the wrong type. Its value stays unsaid: it may be large, or nobody's
/// business.
fn wrong(record: &Bound<'_, PyAny>, index: usize, error: &PyErr) -> PyErr {
    let why = error.value(record.py());
    PyTypeError::new_err(format!("records[{index}] is not (number, EncodedRecord): {why}"))
}

fn two_gigabytes(what: &str) -> PyErr {
    PyValueError::new_err(format!("{what} has two gigabytes or more"))
}

fn unreadable() -> PyErr {
    PyValueError::new_err("a record was not written as it is read")
}
