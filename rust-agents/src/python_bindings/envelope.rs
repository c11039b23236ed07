//! The envelope exists in Rust so that an event's headers are read, kept and answered without making a
//! Python object for each of them more than once.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyString, PyType};

use super::records::parts_of_record;
use super::{held, parts_of, record_digest, too_large};
use crate::digests::Hash;
use crate::headers::{self, Attributes, Encoded};
use crate::{digests, traces};

type Text = Py<PyString>;

/// The headers of one event, decoded.
///
/// Attributes:
///     id: `ce_id`, or the record's place if it has no CloudEvents headers at all.
///     source: `ce_source`, or empty.
///     type: `ce_type`.
///     workflow_id: `ce_correlationid`.
///     workflow: `ce_workflow`, the declared workflow's name, or none.
///     round: `ce_pass`: the root event, or the last back edge's, so that joins never mix rounds.
///     status: `ce_status` on results.
///     deadline: `ce_deadline`, with its zone.
///     hops: `ce_hops`: how many more agents may be gone through, or none for no limit.
///     llm: `ce_llm`: "off" once any agent upstream ran in evidence mode.
///     traceparent: W3C trace context.
///     tracestate: W3C trace state.
///     rounds: `ce_rounds`: which ways back were taken, and how often; `streams.rounds` reads it.
///     budget: `ce_budget`: what may still be spent on models, or none for no limit.
///
/// Raises:
///     TypeError: One is of another type.
///     ValueError: The deadline has no zone.
#[pyclass(module = "streams.envelope")]
pub(super) struct Envelope {
    #[pyo3(get, set)]
    id: Text,
    #[pyo3(get, set)]
    source: Text,
    #[pyo3(get, set, name = "type")]
    kind: Text,
    #[pyo3(get, set)]
    workflow_id: Text,
    #[pyo3(get, set)]
    workflow: Option<Text>,
    #[pyo3(get, set)]
    round: Option<Text>,
    #[pyo3(get, set)]
    status: Option<Text>,
    until: Option<Moment>,
    #[pyo3(get, set)]
    hops: Option<u16>,
    #[pyo3(get, set)]
    llm: Option<Text>,
    #[pyo3(get, set)]
    traceparent: Option<Text>,
    #[pyo3(get, set)]
    tracestate: Option<Text>,
    #[pyo3(get, set)]
    rounds: Option<Text>,
    #[pyo3(get, set)]
    budget: Option<Py<PyAny>>,
    digest: Option<Hash>,
}

/// A moment as it is written, and in milliseconds since 1970.
struct Moment {
    text: Text,
    milliseconds: i64,
}

#[pymethods]
impl Envelope {
    #[new]
    #[pyo3(signature = (
        id, source, r#type, workflow_id, workflow = None, round = None, status = None, deadline = None,
        hops = None, llm = None, traceparent = None, tracestate = None, rounds = None, budget = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are the headers of an event")]
    fn new(
        id: Text,
        source: Text,
        r#type: Text,
        workflow_id: Text,
        workflow: Option<Text>,
        round: Option<Text>,
        status: Option<Text>,
        deadline: Option<Bound<'_, PyAny>>,
        hops: Option<u16>,
        llm: Option<Text>,
        traceparent: Option<Text>,
        tracestate: Option<Text>,
        rounds: Option<Text>,
        budget: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            id,
            source,
            kind: r#type,
            workflow_id,
            workflow,
            round,
            status,
            until: deadline.map(|it| Moment::of(&it)).transpose()?,
            hops,
            llm,
            traceparent,
            tracestate,
            rounds,
            budget,
            digest: None,
        })
    }

    /// `ce_deadline` as a `datetime`, or None.
    #[getter]
    fn deadline<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.until.as_ref().map(|it| it.datetime(py)).transpose()
    }

    #[setter]
    fn set_deadline(
        envelope: &Bound<'_, Self>,
        deadline: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // The moment's zone may be Python code, which may want to look at the envelope.
        let until = deadline.map(|it| Moment::of(&it)).transpose()?;
        envelope.try_borrow_mut()?.until = until;
        Ok(())
    }

    /// `ce_deadline` in milliseconds since 1970, rounded down, or None.
    #[getter]
    fn deadline_ms(&self) -> Option<i64> {
        self.until.as_ref().map(|it| it.milliseconds)
    }

    /// Give what makes two records the same event: source and id. None: it is only its place.
    fn identity<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (source, id) = (self.source.to_str(py)?, self.id.to_str(py)?);
        let identity = || format!("{}:{source}{id}", source.chars().count());
        Ok((!source.is_empty()).then(|| PyBytes::new(py, identity().as_bytes())))
    }

    fn __copy__(&self, py: Python<'_>) -> Self {
        let text = |it: &Option<Text>| it.as_ref().map(|text| text.clone_ref(py));
        Self {
            id: self.id.clone_ref(py),
            source: self.source.clone_ref(py),
            kind: self.kind.clone_ref(py),
            workflow_id: self.workflow_id.clone_ref(py),
            workflow: text(&self.workflow),
            round: text(&self.round),
            status: text(&self.status),
            until: self.until.as_ref().map(|it| Moment { text: it.text.clone_ref(py), ..*it }),
            hops: self.hops,
            llm: text(&self.llm),
            traceparent: text(&self.traceparent),
            tracestate: text(&self.tracestate),
            rounds: text(&self.rounds),
            budget: self.budget.as_ref().map(|it| it.clone_ref(py)),
            digest: self.digest,
        }
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        self.fields(py)?.eq(other.fields(py)?)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Envelope({})", self.fields(py)?.repr()?))
    }
}

impl Envelope {
    fn read(py: Python<'_>, it: &Attributes<'_>) -> Self {
        let id = PyString::new(py, it.id).unbind();
        // A root event's id, workflow and round are one text, and one object.
        let text = |text: &str| {
            if text == it.id { id.clone_ref(py) } else { PyString::new(py, text).unbind() }
        };
        Self {
            source: PyString::new(py, it.source).unbind(),
            kind: if headers::is_usual_type(it.kind) {
                PyString::intern(py, it.kind).unbind()
            } else {
                text(it.kind) // anybody's: some versions of Python keep interned texts for ever
            },
            workflow_id: text(it.workflow_id.unwrap_or(it.id)),
            workflow: it.workflow.map(text),
            round: it.round.map(text),
            status: it.status.map(text),
            until: it
                .deadline
                .map(|(moment, milliseconds)| Moment { text: text(moment), milliseconds }),
            hops: it.hops,
            llm: it.llm.map(text),
            traceparent: it.traceparent.map(text),
            tracestate: it.tracestate.map(text),
            rounds: it.rounds.map(text),
            budget: None,
            digest: None,
            id,
        }
    }

    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        fields.set_item("id", &self.id)?;
        fields.set_item("source", &self.source)?;
        fields.set_item("type", &self.kind)?;
        fields.set_item("workflow_id", &self.workflow_id)?;
        fields.set_item("workflow", &self.workflow)?;
        fields.set_item("round", &self.round)?;
        fields.set_item("status", &self.status)?;
        fields.set_item("deadline", self.deadline(py)?)?;
        fields.set_item("hops", self.hops)?;
        fields.set_item("llm", &self.llm)?;
        fields.set_item("traceparent", &self.traceparent)?;
        fields.set_item("tracestate", &self.tracestate)?;
        fields.set_item("rounds", &self.rounds)?;
        fields.set_item("budget", &self.budget)?;
        Ok(fields)
    }

    fn deadline_text<'a>(&'a self, py: Python<'a>) -> PyResult<Option<&'a str>> {
        self.until.as_ref().map(|it| it.text.to_str(py)).transpose()
    }
}

impl Moment {
    fn of(moment: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = moment.py();
        if !moment.is_instance(Self::kind(py)?)? {
            let message = format!("deadline is {moment:?}, which is no datetime");
            return Err(PyTypeError::new_err(message));
        }
        if moment.call_method0(intern!(py, "utcoffset"))?.is_none() {
            let message = format!("deadline is {moment:?}: give it a zone, such as timezone.utc");
            return Err(PyValueError::new_err(message));
        }
        let seconds: f64 = moment.call_method0(intern!(py, "timestamp"))?.extract()?;
        let text = moment.call_method0(intern!(py, "isoformat"))?.cast_into::<PyString>()?.unbind();
        // A number of seconds with a fraction is not exact; without it, it is.
        let rest: i32 = moment.getattr(intern!(py, "microsecond"))?.extract()?;
        #[allow(clippy::cast_possible_truncation, reason = "a datetime's years have four digits")]
        let whole = (seconds - f64::from(rest) / 1_000_000.0).round() as i64;
        Ok(Self { text, milliseconds: whole * 1000 + i64::from(rest) / 1000 })
    }

    fn datetime<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Self::kind(py)?.call_method1(intern!(py, "fromisoformat"), (&self.text,))
    }

    fn kind(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
        static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        DATETIME.import(py, "datetime", "datetime")
    }
}

/// The headers of an event that is written, as Kafka takes them: a small part of what they take as tuples.
///
/// Args:
///     headers: Names and values.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyclass(frozen, module = "streams.envelope")]
pub(super) struct EncodedHeaders(Encoded);

#[pymethods]
impl EncodedHeaders {
    #[new]
    pub(super) fn new(headers: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut encoded = Encoded::default();
        for (name, value) in parts_of(&held(headers)?)? {
            encoded.push(name, value);
        }
        Ok(Self(encoded))
    }

    fn __len__(&self) -> usize {
        self.0.count()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let pairs = PyList::empty(py);
        for (name, value) in self.0.iter() {
            pairs.append((name, value.map(|it| PyBytes::new(py, it))))?;
        }
        pairs.try_iter()
    }
}

impl EncodedHeaders {
    pub(super) fn into_encoded(self) -> Encoded {
        self.0
    }

    pub(super) fn encoded(&self) -> &Encoded {
        &self.0
    }
}

/// Read the headers of a whole event in which nothing is odd; None for all others, and where there is a
/// budget.
///
/// Args:
///     headers: Names and values.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyfunction]
pub(super) fn read_event(headers: &Bound<'_, PyAny>) -> PyResult<Option<Envelope>> {
    let held = held(headers)?;
    Ok(headers::read(&parts_of(&held)?).map(|it| Envelope::read(headers.py(), &it)))
}

/// Read a record that stays until it is answered: as `read_event` does, with its digest.
///
/// Args:
///     record: With `key`, `value` and `headers`.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: A part has four gigabytes or more.
#[pyfunction]
pub(super) fn take_event(record: &Bound<'_, PyAny>) -> PyResult<Option<Envelope>> {
    parts_of_record(record, |it| {
        let Some(read) = headers::read(it.headers) else {
            return Ok(None);
        };
        let digest = digests::record_digest(it.key, it.value, it.headers).ok_or_else(too_large)?;
        Ok(Some(Envelope { digest: Some(digest), ..Envelope::read(record.py(), &read) }))
    })
}

/// Write the headers of an event: `streams.envelope.encode` says which.
///
/// Args:
///     common: The headers before them, which all events of one type and source have.
///     envelope: What the event is.
///     time: `ce_time`.
///     causes: Identity and record digest of every event this one answers.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyfunction]
pub(super) fn write_event(
    py: Python<'_>,
    common: &EncodedHeaders,
    envelope: PyRef<'_, Envelope>,
    time: &str,
    causes: Vec<(String, String)>,
) -> PyResult<EncodedHeaders> {
    let mut all = Causes::default();
    for (id, digest) in &causes {
        all.push(id).push_str(digest);
    }
    let hops = envelope.hops.map(|it| it.to_string());
    let budget = envelope.budget.as_ref().map(|it| formatted(it.bind(py))).transpose()?;
    let written = Written {
        id: envelope.id.to_str(py)?,
        time,
        causes: &all,
        status: text(py, envelope.status.as_ref())?,
        hops: hops.as_deref(),
        budget: budget.as_deref(),
        llm: text(py, envelope.llm.as_ref())?,
        traceparent: text(py, envelope.traceparent.as_ref())?,
    };
    written.after(py, common, &envelope)
}

/// Write the headers of a run's result: those of what it answers, but for what is told here.
///
/// Args:
///     common: The headers before them, which all results of one source have.
///     given: What the run answers.
///     record: Its record.
///     run: Its id.
///     time: `ce_time`.
///     joined: Envelope and record of every event it answers, if these are others.
///     status: How it ended.
///     budget: What is left, or None.
///     llm: As in `Envelope`.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: A part of a record has four gigabytes or more.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "they are what an answer says in other words")]
pub(super) fn write_answer<'py>(
    py: Python<'py>,
    common: &EncodedHeaders,
    given: PyRef<'_, Envelope>,
    record: Bound<'py, PyAny>,
    run: &str,
    time: &str,
    joined: Option<Vec<(PyRef<'py, Envelope>, Bound<'py, PyAny>)>>,
    status: &str,
    budget: Option<Bound<'py, PyAny>>,
    llm: Option<&str>,
) -> PyResult<EncodedHeaders> {
    let mut causes = Causes::default();
    match &joined {
        None => causes.push_event(&given, &record)?,
        Some(joined) => {
            joined.iter().try_for_each(|(event, record)| causes.push_event(event, record))?;
        }
    }
    let hops = given.hops.map(|it| it.saturating_sub(1).to_string());
    let budget = budget.map(|it| formatted(&it)).transpose()?;
    let traceparent = traces::next(text(py, given.traceparent.as_ref())?, run);
    let written = Written {
        id: &digests::uuid_of(&[run, "/1"].concat()),
        time,
        causes: &causes,
        status: Some(status),
        hops: hops.as_deref(),
        budget: budget.as_deref(),
        llm,
        traceparent: Some(&traceparent),
    };
    written.after(py, common, &given)
}

/// Continue a W3C trace, valid as an envelope has it, with a run as its span, or begin one.
#[pyfunction]
#[pyo3(signature = (current, run))]
pub(super) fn next_traceparent(current: Option<&str>, run: &str) -> String {
    traces::next(current, run)
}

/// What an event that is written says itself; the rest is its envelope's.
struct Written<'a> {
    id: &'a str,
    time: &'a str,
    causes: &'a Causes,
    status: Option<&'a str>,
    hops: Option<&'a str>,
    budget: Option<&'a str>,
    llm: Option<&'a str>,
    traceparent: Option<&'a str>,
}

impl<'a> Written<'a> {
    fn after(
        &self,
        py: Python<'_>,
        common: &EncodedHeaders,
        envelope: &Envelope,
    ) -> PyResult<EncodedHeaders> {
        let some = |joined: &'a String| (self.causes.count > 0).then_some(joined.as_str());
        let texts = [
            Some(self.id),
            Some(self.time),
            Some(envelope.workflow_id.to_str(py)?),
            text(py, envelope.workflow.as_ref())?,
            text(py, envelope.round.as_ref())?,
            text(py, envelope.rounds.as_ref())?,
            some(&self.causes.ids),
            some(&self.causes.digests),
            self.status,
            envelope.deadline_text(py)?,
            self.hops,
            self.budget,
            self.llm,
            self.traceparent,
            text(py, envelope.tracestate.as_ref())?,
        ];
        let lengths = headers::WRITTEN.iter().chain(texts.iter().flatten()).map(|it| it.len() + 3);
        let mut written = common.0.begin(lengths.sum());
        for (name, text) in headers::WRITTEN.into_iter().zip(texts) {
            if let Some(text) = text {
                written.push(name, Some(text.as_bytes()));
            }
        }
        Ok(EncodedHeaders(written))
    }
}

/// The events that another answers, as its headers name them: by identity and record digest.
#[derive(Default)]
struct Causes {
    ids: String,
    digests: String,
    count: usize,
}

impl Causes {
    fn push_event(&mut self, event: &Envelope, record: &Bound<'_, PyAny>) -> PyResult<()> {
        let digests = self.push(event.id.to_str(record.py())?);
        match &event.digest {
            Some(known) => digests::push_hexadecimal(known, digests),
            None => digests.push_str(&record_digest(record)?),
        }
        Ok(())
    }

    /// Takes one more, and gives what its digest is to be written to.
    fn push(&mut self, id: &str) -> &mut String {
        if self.count > 0 {
            self.ids.push(',');
            self.digests.push(',');
        }
        self.count += 1;
        self.ids.push_str(id);
        &mut self.digests
    }
}

fn text<'a>(py: Python<'a>, text: Option<&'a Text>) -> PyResult<Option<&'a str>> {
    text.map(|it| it.to_str(py)).transpose()
}

fn formatted(budget: &Bound<'_, PyAny>) -> PyResult<String> {
    budget.call_method0(intern!(budget.py(), "format"))?.extract()
}
