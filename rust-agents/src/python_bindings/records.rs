//! Records are read and written here in whole batches, so that each costs one object, and its headers none
//! until somebody looks at them.

use std::fmt;
use std::io::Write;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySequence, PyString, PyTuple};

use super::envelope::EncodedHeaders;
use super::{held, parts_of, too_large};
use crate::digests::{self, Hash};
use crate::headers::{Encoded, Header};
use crate::record_batch::{self, Batch, Producer, Records};

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
        let headers = self.headers.iter().collect::<Vec<_>>();
        PyTuple::new(
            py,
            headers.into_iter().map(|(name, value)| {
                (PyString::new(py, name), value.map(|it| PyBytes::new(py, it)))
            }),
        )
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let topic = self.topic.bind(py).repr()?;
        Ok(format!("Record({topic}, partition={}, offset={})", self.partition, self.offset))
    }
}

impl Record {
    pub(super) fn headers(&self) -> &Encoded {
        &self.headers
    }
}

/// The parts of a record that say what it is, wherever it is.
pub(super) struct Parts<'a> {
    pub(super) key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    pub(super) headers: &'a [Header<'a>],
}

impl Parts<'_> {
    /// Hashes all of them.
    pub(super) fn digest(&self) -> PyResult<Hash> {
        digests::record_digest(self.key, self.value, self.headers).ok_or_else(too_large)
    }
}

/// Takes a record apart: one of ours, or anything with `key`, `value` and `headers`.
pub(super) fn parts_of_record<T>(
    record: &Bound<'_, PyAny>,
    of: impl FnOnce(&Parts<'_>) -> PyResult<T>,
) -> PyResult<T> {
    let py = record.py();
    if let Ok(record) = record.cast::<Record>() {
        let Record { key, value, headers, .. } = record.get();
        let headers = headers.iter().collect::<Vec<_>>();
        let (key, value) =
            (key.as_ref().map(|it| it.as_bytes(py)), value.as_ref().map(|it| it.as_bytes(py)));
        return of(&Parts { key, value, headers: &headers });
    }
    let (key, value) = (record.getattr(intern!(py, "key"))?, record.getattr(intern!(py, "value"))?);
    let held = held(&record.getattr(intern!(py, "headers"))?)?;
    of(&Parts { key: key.extract()?, value: value.extract()?, headers: &parts_of(&held)? })
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
        records.push(Record {
            topic: topic.clone().unbind(),
            partition,
            offset: read.offset,
            timestamp: read.timestamp,
            timestamp_type: read.append_time.into(),
            key: bytes(read.key),
            value: bytes(read.value),
            headers: read.headers,
        });
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

/// Encode the records of one batch: `streams.kafka.record_batch` says what for.
///
/// Args:
///     records: In order, as (number, key, value, headers); the number is not looked at.
///     limit: The size in bytes that the batch stays below, the first record aside, which is taken
///         whatever its size.
///
/// Returns:
///     The encoded records, and how many they are.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: There are no records, or they have two gigabytes or more.
#[pyfunction]
pub(super) fn encode_records<'py>(
    records: &Bound<'py, PyAny>,
    limit: usize,
) -> PyResult<(Bound<'py, PyBytes>, i32)> {
    let mut encoded = Records::new(limit);
    for (index, record) in records.try_iter()?.enumerate() {
        if !encode_record(&mut encoded, &record?, &format_args!("records[{index}]"))? {
            break;
        }
    }
    if encoded.count() == 0 {
        return Err(PyValueError::new_err("records is empty: a batch has at least one"));
    }
    Ok((PyBytes::new(records.py(), encoded.bytes()), encoded.count()))
}

/// Make a batch of encoded records, as Kafka takes it.
///
/// Args:
///     records: What `encode_records` gave.
///     count: What it gave beside it.
///     timestamp: Of each of them, in milliseconds.
///     producer_id: Kafka's name for the producer; -1: it has none.
///     producer_epoch: Of the producer; -1 if it has no name.
///     base_sequence: The number the producer gives the first record.
///
/// Raises:
///     ValueError: It has two gigabytes or more.
#[pyfunction]
pub(super) fn seal_records<'py>(
    py: Python<'py>,
    records: &[u8],
    count: i32,
    timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
) -> PyResult<Bound<'py, PyBytes>> {
    let producer = Producer { id: producer_id, epoch: producer_epoch, base_sequence };
    let head =
        record_batch::head(records, count, timestamp, producer).ok_or_else(batch_too_large)?;
    PyBytes::new_with(py, head.len() + records.len(), |mut sealed| {
        sealed.write_all(&head)?;
        Ok(sealed.write_all(records)?)
    })
}

/// Encodes one record, unless there is no room for it.
fn encode_record(
    encoded: &mut Records,
    record: &Bound<'_, PyAny>,
    name: &fmt::Arguments<'_>,
) -> PyResult<bool> {
    let (_, key, value, headers): (Bound<'_, PyAny>, _, _, Bound<'_, PyAny>) = record
        .extract()
        .map_err(|error| wrong(record, name, "(number, key, value, headers)", &error))?;
    if let Ok(headers) = headers.cast::<EncodedHeaders>() {
        return encoded.push(key, value, headers.get().encoded()).ok_or_else(batch_too_large);
    }
    let headers = headers.cast::<PySequence>().map_err(|error| {
        wrong(record, &format_args!("{name}.headers"), "a sequence of (name, value)", &error.into())
    })?;
    let mut parts = Encoded::default();
    for (index, header) in headers.to_tuple()?.iter_borrowed().enumerate() {
        let (part, value): Header<'_> = header.extract().map_err(|error| {
            wrong(record, &format_args!("{name}.headers[{index}]"), "(name, value)", &error)
        })?;
        parts.push(part, value);
    }
    encoded.push(key, value, &parts).ok_or_else(batch_too_large)
}

/// Says where something is of the wrong type. Its value stays unsaid: it may be large, or nobody's
/// business.
fn wrong(
    record: &Bound<'_, PyAny>,
    name: &fmt::Arguments<'_>,
    wanted: &str,
    error: &PyErr,
) -> PyErr {
    PyTypeError::new_err(format!("{name} is not {wanted}: {}", error.value(record.py())))
}

fn batch_too_large() -> PyErr {
    PyValueError::new_err("a batch has two gigabytes or more")
}
