//! Requests and answers are written and read here in one call each, whatever they are made of, because the
//! client does it field by field, and copies what it has so far for each that a field is in.

use std::io::Write;

use pyo3::PyTypeInfo;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

use crate::protocol::{Kind, Length, Misplaced, Reader, Unfit, described, push_length};
use crate::varints;

/// Bytes as long as that are not copied before they are where they belong.
const LONG: usize = 512;

/// What the requests or answers of one kind are made of: `streams.kafka.protocol` says what for.
///
/// Args:
///     description: The types of all fields in order, as words with blanks between: boolean, int8, int16,
///         int32, int64, uint32, float64, string, compact_string, bytes, compact_bytes, tagged_fields; array
///         or compact_array, followed by the type of its items; and a struct, whose fields stand between
///         parentheses.
///
/// Raises:
///     ValueError: It has another word, ends too early, or is deeper than any request.
#[pyclass(frozen, module = "agents._rust")]
pub(super) struct Layout {
    kinds: Vec<Kind>,
}

#[pymethods]
impl Layout {
    #[new]
    fn new(description: &str) -> PyResult<Self> {
        let kinds = described(description).map_err(|Misplaced(word)| {
            let wrong = word
                .map_or("it ends too early".to_owned(), |it| format!("{it:?} means nothing there"));
            PyValueError::new_err(format!("{description:?} describes nothing: {wrong}"))
        })?;
        Ok(Self { kinds })
    }

    /// Write the values of all fields, in order. None: one is not of its type, or out of its range.
    ///
    /// Raises:
    ///     MemoryError: There is none for it.
    fn encode<'py>(&self, values: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut written = Written::default();
        match written.all(&self.kinds, values) {
            Ok(()) => written.joined(values.py()).map(Some),
            Err(Unfit) => Ok(None),
        }
    }

    /// Read the values of all fields, in order; gives them and where they end. None: there are too few
    /// bytes from `offset` on, or wrong ones.
    fn decode<'py>(
        &self,
        data: &Bound<'py, PyBytes>,
        offset: usize,
    ) -> Option<(Bound<'py, PyTuple>, usize)> {
        let bytes = Reader::new(data.as_bytes().get(offset..)?);
        let mut read = Read { py: data.py(), bytes, values: Vec::new() };
        let values = read.all(&self.kinds).ok()?;
        Some((values, data.as_bytes().len() - read.bytes.left()))
    }
}

/// What is written so far. No code of Python's runs meanwhile, since values are of its own types alone.
#[derive(Default)]
struct Written<'py> {
    /// All but long bytes.
    short: Vec<u8>,
    /// Long bytes, and where in it they belong, in order.
    long: Vec<(usize, Bound<'py, PyBytes>)>,
}

impl<'py> Written<'py> {
    fn all(&mut self, kinds: &[Kind], values: &Bound<'py, PyAny>) -> Result<(), Unfit> {
        let mut kinds = kinds.iter();
        each(values, |value| self.one(kinds.next().ok_or(Unfit)?, value))?;
        if kinds.len() == 0 { Ok(()) } else { Err(Unfit) }
    }

    fn one(&mut self, kind: &Kind, value: &Bound<'py, PyAny>) -> Result<(), Unfit> {
        match kind {
            Kind::Boolean => self.number([cast::<PyBool>(value)?.is_true().into()]),
            Kind::Int8 => self.number(integer::<i8>(value)?.to_be_bytes()),
            Kind::Int16 => self.number(integer::<i16>(value)?.to_be_bytes()),
            Kind::Int32 => self.number(integer::<i32>(value)?.to_be_bytes()),
            Kind::Int64 => self.number(integer::<i64>(value)?.to_be_bytes()),
            Kind::UInt32 => self.number(integer::<u32>(value)?.to_be_bytes()),
            Kind::Float64 => self.number(cast::<PyFloat>(value)?.value().to_be_bytes()),
            Kind::String(length) => self.string(*length, value)?,
            Kind::Bytes(length) => self.bytes(*length, value)?,
            Kind::TaggedFields => self.tagged_fields(value)?,
            Kind::Array(length, of) => self.array(*length, of, value)?,
            Kind::Struct(kinds) => self.all(kinds, value)?,
        }
        Ok(())
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.short.extend_from_slice(&bytes);
    }

    fn string(&mut self, length: Length, value: &Bound<'py, PyAny>) -> Result<(), Unfit> {
        if value.is_none() {
            return push_length(None, length, &mut self.short);
        }
        let text = cast::<PyString>(value)?.to_str().map_err(|_| Unfit)?;
        push_length(Some(text.len()), length, &mut self.short)?;
        self.short.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn bytes(&mut self, length: Length, value: &Bound<'py, PyAny>) -> Result<(), Unfit> {
        if value.is_none() {
            return push_length(None, length, &mut self.short);
        }
        if let Ok(growing) = cast::<PyByteArray>(value) {
            let bytes = growing.to_vec(); // what the client makes batches in
            push_length(Some(bytes.len()), length, &mut self.short)?;
            self.short.extend_from_slice(&bytes);
            return Ok(());
        }
        let bytes = cast::<PyBytes>(value)?;
        push_length(Some(bytes.as_bytes().len()), length, &mut self.short)?;
        if bytes.as_bytes().len() < LONG {
            self.short.extend_from_slice(bytes.as_bytes());
        } else {
            self.long.push((self.short.len(), bytes.clone()));
        }
        Ok(())
    }

    /// The client writes any in a way of its own; it has none.
    fn tagged_fields(&mut self, value: &Bound<'py, PyAny>) -> Result<(), Unfit> {
        if !cast::<PyDict>(value)?.is_empty() {
            return Err(Unfit);
        }
        varints::push(0, &mut self.short);
        Ok(())
    }

    fn array(&mut self, length: Length, of: &Kind, value: &Bound<'py, PyAny>) -> Result<(), Unfit> {
        if value.is_none() {
            return push_length(None, length, &mut self.short);
        }
        let count = match cast::<PyTuple>(value) {
            Ok(items) => items.len(),
            Err(Unfit) => cast::<PyList>(value)?.len(),
        };
        push_length(Some(count), length, &mut self.short)?;
        each(value, |item| self.one(of, item))
    }

    /// Gives all of it in one piece.
    fn joined(self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let Self { short, long } = self;
        if long.is_empty() {
            return Ok(PyBytes::new(py, &short));
        }
        let sizes = long.iter().map(|(_, bytes)| bytes.as_bytes().len());
        PyBytes::new_with(py, short.len() + sizes.sum::<usize>(), |mut all| {
            let mut from = 0;
            for (to, bytes) in &long {
                all.write_all(short.get(from..*to).unwrap_or_default())?;
                all.write_all(bytes.as_bytes())?;
                from = *to;
            }
            Ok(all.write_all(short.get(from..).unwrap_or_default())?)
        })
    }
}

/// Passes each item of a list or tuple on, in order.
fn each<'py>(
    items: &Bound<'py, PyAny>,
    mut to: impl FnMut(&Bound<'py, PyAny>) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    match cast::<PyTuple>(items) {
        Ok(items) => items.iter_borrowed().try_for_each(|it| to(&it)),
        Err(Unfit) => cast::<PyList>(items)?.iter().try_for_each(|it| to(&it)),
    }
}

/// Takes a value for what it is; a type derived from it may be something else to the client.
fn cast<'a, 'py, T: PyTypeInfo>(value: &'a Bound<'py, PyAny>) -> Result<&'a Bound<'py, T>, Unfit> {
    value.cast_exact().map_err(|_| Unfit)
}

/// Takes any integer, as the client does: a type derived from it changes nothing.
fn integer<T: TryFrom<i64>>(value: &Bound<'_, PyAny>) -> Result<T, Unfit> {
    let number = value.cast::<PyInt>().map_err(|_| Unfit)?.extract::<i64>().map_err(|_| Unfit)?;
    T::try_from(number).map_err(|_| Unfit)
}

/// What is read so far.
struct Read<'a, 'py> {
    py: Python<'py>,
    bytes: Reader<'a>,
    /// Those of what is not complete yet: what is inside of something lies above it.
    values: Vec<Bound<'py, PyAny>>,
}

impl<'py> Read<'_, 'py> {
    fn all(&mut self, kinds: &[Kind]) -> Result<Bound<'py, PyTuple>, Unfit> {
        let begin = self.values.len();
        for kind in kinds {
            let value = self.one(kind)?;
            self.values.push(value);
        }
        PyTuple::new(self.py, self.values.drain(begin..)).map_err(|_| Unfit)
    }

    fn one(&mut self, kind: &Kind) -> Result<Bound<'py, PyAny>, Unfit> {
        let py = self.py;
        let value = match kind {
            Kind::Boolean => {
                Some(PyBool::new(py, self.bytes.number()? != [0]).to_owned().into_any())
            }
            Kind::Int8 => Some(self.integer(i8::from_be_bytes)?),
            Kind::Int16 => Some(self.integer(i16::from_be_bytes)?),
            Kind::Int32 => Some(self.integer(i32::from_be_bytes)?),
            Kind::Int64 => Some(self.integer(i64::from_be_bytes)?),
            Kind::UInt32 => Some(self.integer(u32::from_be_bytes)?),
            Kind::Float64 => {
                Some(PyFloat::new(py, f64::from_be_bytes(self.bytes.number()?)).into_any())
            }
            Kind::String(length) => {
                self.bytes.string(*length)?.map(|it| PyString::new(py, it).into_any())
            }
            Kind::Bytes(length) => {
                self.bytes.bytes(*length)?.map(|it| PyBytes::new(py, it).into_any())
            }
            Kind::TaggedFields => Some(self.tagged_fields()?.into_any()),
            Kind::Array(length, of) => match self.bytes.count(*length, of)? {
                Some(count) => Some(self.array(count, of)?.into_any()),
                None => None,
            },
            Kind::Struct(kinds) => Some(self.all(kinds)?.into_any()),
        };
        Ok(value.unwrap_or_else(|| py.None().into_bound(py)))
    }

    fn integer<const N: usize, T: Into<i64>>(
        &mut self,
        from: impl Fn([u8; N]) -> T,
    ) -> Result<Bound<'py, PyAny>, Unfit> {
        let Ok(number) = from(self.bytes.number()?).into().into_pyobject(self.py);
        Ok(number.into_any())
    }

    fn array(&mut self, count: usize, of: &Kind) -> Result<Bound<'py, PyList>, Unfit> {
        let begin = self.values.len();
        for _ in 0..count {
            let value = self.one(of)?;
            self.values.push(value);
        }
        PyList::new(self.py, self.values.drain(begin..)).map_err(|_| Unfit)
    }

    fn tagged_fields(&mut self) -> Result<Bound<'py, PyDict>, Unfit> {
        let fields = PyDict::new(self.py);
        let mut before = None;
        for _ in 0..self.bytes.unsigned()? {
            let tag = self.bytes.unsigned()?;
            if before.is_some_and(|it| it >= tag) {
                return Err(Unfit);
            }
            before = Some(tag);
            let size = usize::try_from(self.bytes.unsigned()?).map_err(|_| Unfit)?;
            let value = PyBytes::new(self.py, self.bytes.take(size)?);
            fields.set_item(tag, value).map_err(|_| Unfit)?;
        }
        Ok(fields)
    }
}
