//! The envelope exists in Rust so that an event's headers are read, kept and answered without making a
//! Python object for each of them more than once.

use std::fmt::Write;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyType};

use super::records::{Record, digest_of, parts_of_record};
use super::texts::{Name, Texts};
use super::{held, parts_of, too_large};
use crate::headers::{self, Attributes, Encoded};
use crate::{digests, moments, traces};

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
///     ValueError: The deadline has no zone, or the texts have 64 KiB or more together.
#[pyclass(module = "streams.envelope")]
pub(super) struct Envelope {
    texts: Texts,
    /// The deadline, in milliseconds since 1970, if there is one: its text says whether.
    until: i64,
    #[pyo3(get, set)]
    hops: Option<u16>,
    #[pyo3(get, set)]
    budget: Option<Py<PyAny>>,
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
        id: &str,
        source: &str,
        r#type: &str,
        workflow_id: &str,
        workflow: Option<&str>,
        round: Option<&str>,
        status: Option<&str>,
        deadline: Option<Bound<'_, PyAny>>,
        hops: Option<u16>,
        llm: Option<&str>,
        traceparent: Option<&str>,
        tracestate: Option<&str>,
        rounds: Option<&str>,
        budget: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let deadline = deadline.map(|it| moment_of(&it)).transpose()?;
        let (deadline, until) = deadline.as_ref().map(|(text, at)| (text.as_str(), *at)).unzip();
        let until = until.unwrap_or_default();
        let [id, source, kind, workflow_id] = [id, source, r#type, workflow_id].map(Some);
        let texts = [
            id,
            source,
            kind,
            workflow_id,
            workflow,
            round,
            status,
            deadline,
            llm,
            traceparent,
            tracestate,
            rounds,
        ];
        let texts = Texts::here(texts).ok_or_else(texts_too_large)?;
        Ok(Self { texts, until, hops, budget })
    }

    #[getter]
    pub(super) fn id(&self) -> &str {
        self.named(Name::Id)
    }

    #[getter]
    fn source(&self) -> &str {
        self.named(Name::Source)
    }

    #[getter(r#type)]
    fn kind(&self) -> &str {
        self.named(Name::Kind)
    }

    #[getter]
    fn workflow_id(&self) -> &str {
        self.named(Name::WorkflowId)
    }

    #[getter]
    fn workflow(&self) -> Option<&str> {
        self.texts.get(Name::Workflow)
    }

    #[setter]
    fn set_workflow(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Workflow, text)
    }

    #[getter]
    fn round(&self) -> Option<&str> {
        self.texts.get(Name::Round)
    }

    #[setter]
    fn set_round(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Round, text)
    }

    #[getter]
    fn status(&self) -> Option<&str> {
        self.texts.get(Name::Status)
    }

    #[setter]
    fn set_status(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Status, text)
    }

    #[getter]
    fn llm(&self) -> Option<&str> {
        self.texts.get(Name::Llm)
    }

    #[setter]
    fn set_llm(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Llm, text)
    }

    #[getter]
    fn traceparent(&self) -> Option<&str> {
        self.texts.get(Name::Traceparent)
    }

    #[setter]
    fn set_traceparent(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Traceparent, text)
    }

    #[getter]
    fn tracestate(&self) -> Option<&str> {
        self.texts.get(Name::Tracestate)
    }

    #[setter]
    fn set_tracestate(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Tracestate, text)
    }

    #[getter]
    fn rounds(&self) -> Option<&str> {
        self.texts.get(Name::Rounds)
    }

    #[setter]
    fn set_rounds(&mut self, text: Option<&str>) -> PyResult<()> {
        self.set(Name::Rounds, text)
    }

    /// `ce_deadline` as a `datetime`, or None.
    #[getter]
    fn deadline<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let text = self.texts.get(Name::Deadline);
        text.map(|it| datetime(py)?.call_method1(intern!(py, "fromisoformat"), (it,))).transpose()
    }

    #[setter]
    fn set_deadline(
        envelope: &Bound<'_, Self>,
        deadline: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // The moment's zone may be Python code, which may want to look at the envelope.
        let deadline = deadline.map(|it| moment_of(&it)).transpose()?;
        let (text, until) = deadline.as_ref().map(|(text, at)| (text.as_str(), *at)).unzip();
        let mut envelope = envelope.try_borrow_mut()?;
        envelope.set(Name::Deadline, text)?;
        envelope.until = until.unwrap_or_default();
        Ok(())
    }

    /// `ce_deadline` in milliseconds since 1970, rounded down, or None.
    #[getter]
    fn deadline_ms(&self) -> Option<i64> {
        self.until()
    }

    /// Give what makes two records the same event: source and id. None: it is only its place.
    fn identity<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let mut identity = String::new();
        self.write_identity(&mut identity).then(|| PyBytes::new(py, identity.as_bytes()))
    }

    /// Name the run that answers this event: `streams.envelope.run_id` says how.
    ///
    /// Args:
    ///     prefix: What the run is of.
    ///
    /// Raises:
    ///     ValueError: A part has four gigabytes or more.
    pub(super) fn run_id(&self, prefix: &[u8]) -> PyResult<String> {
        digests::run_id(prefix, &[self.source(), self.id()]).ok_or_else(too_large)
    }

    fn __copy__(&self, py: Python<'_>) -> Self {
        Self {
            texts: self.texts.clone_ref(py),
            until: self.until,
            hops: self.hops,
            budget: self.budget.as_ref().map(|it| it.clone_ref(py)),
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
    /// Keeps what was read, in the headers of a record of ours if that is what it was read from.
    fn read(it: &Attributes<'_>, from: &Bound<'_, PyAny>) -> PyResult<Self> {
        let texts = [
            Some(it.id),
            Some(it.source),
            Some(it.kind),
            it.workflow_id.or(Some(it.id)),
            it.workflow,
            it.round,
            it.status,
            it.deadline.map(|(text, _)| text),
            it.llm,
            it.traceparent,
            it.tracestate,
            it.rounds,
        ];
        let ours = from.cast::<Record>().ok();
        let kept = ours.and_then(|record| Texts::in_headers(record, texts));
        let texts = kept.or_else(|| Texts::here(texts)).ok_or_else(texts_too_large)?;
        let until = it.deadline.map(|(_, milliseconds)| milliseconds).unwrap_or_default();
        Ok(Self { texts, until, hops: it.hops, budget: None })
    }

    /// Writes what makes two records the same event. False: it is only its place.
    pub(super) fn write_identity(&self, identity: &mut String) -> bool {
        let (source, id) = (self.source(), self.id());
        identity.clear();
        !source.is_empty() && write!(identity, "{}:{source}{id}", source.chars().count()).is_ok()
    }

    /// Gives the deadline, in milliseconds since 1970.
    pub(super) fn until(&self) -> Option<i64> {
        self.texts.bytes(Name::Deadline).map(|_| self.until)
    }

    /// Gives a text that is always there.
    fn named(&self, name: Name) -> &str {
        self.texts.get(name).unwrap_or_default()
    }

    fn set(&mut self, name: Name, text: Option<&str>) -> PyResult<()> {
        self.texts.set(name, text).ok_or_else(texts_too_large)
    }

    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        fields.set_item("id", self.id())?;
        fields.set_item("source", self.source())?;
        fields.set_item("type", self.kind())?;
        fields.set_item("workflow_id", self.workflow_id())?;
        fields.set_item("workflow", self.workflow())?;
        fields.set_item("round", self.round())?;
        fields.set_item("status", self.status())?;
        fields.set_item("deadline", self.deadline(py)?)?;
        fields.set_item("hops", self.hops)?;
        fields.set_item("llm", self.llm())?;
        fields.set_item("traceparent", self.traceparent())?;
        fields.set_item("tracestate", self.tracestate())?;
        fields.set_item("rounds", self.rounds())?;
        fields.set_item("budget", &self.budget)?;
        Ok(fields)
    }
}

fn texts_too_large() -> PyErr {
    PyValueError::new_err("the texts of an event have 64 KiB or more together")
}

/// Gives a moment as it is written, and in milliseconds since 1970.
fn moment_of(moment: &Bound<'_, PyAny>) -> PyResult<(String, i64)> {
    let py = moment.py();
    if !moment.is_instance(datetime(py)?)? {
        let message = format!("deadline is {moment:?}, which is no datetime");
        return Err(PyTypeError::new_err(message));
    }
    if moment.call_method0(intern!(py, "utcoffset"))?.is_none() {
        let message = format!("deadline is {moment:?}: give it a zone, such as timezone.utc");
        return Err(PyValueError::new_err(message));
    }
    let seconds: f64 = moment.call_method0(intern!(py, "timestamp"))?.extract()?;
    let text = moment.call_method0(intern!(py, "isoformat"))?.extract()?;
    // A number of seconds with a fraction is not exact; without it, it is.
    let rest: i32 = moment.getattr(intern!(py, "microsecond"))?.extract()?;
    #[allow(clippy::cast_possible_truncation, reason = "a datetime's years have four digits")]
    let whole = (seconds - f64::from(rest) / 1_000_000.0).round() as i64;
    Ok((text, whole * 1000 + i64::from(rest) / 1000))
}

fn datetime(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    DATETIME.import(py, "datetime", "datetime")
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
///     record: With `key`, `value` and `headers`. One of ours stays for as long as what was read.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyfunction]
pub(super) fn read_event(record: &Bound<'_, PyAny>) -> PyResult<Option<Envelope>> {
    attributes_of(record, |_, read| read.map(|it| Envelope::read(&it, record)).transpose())
}

/// Its envelope and its workflow.
type UsualTask<'py> = (Envelope, Bound<'py, PyAny>);

/// Read events as `read_event` does, as far as they are tasks that leave nothing out and have been nowhere
/// before.
///
/// Args:
///     records: Each as for `read_event`.
///     kind: The type of tasks.
///     max_key_bytes: Of a record's key.
///     workflows: By name; each task is of one of them.
///
/// Returns:
///     For each its envelope and its workflow, or None.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyfunction]
pub(super) fn read_usual_tasks<'py>(
    records: &Bound<'py, PyAny>,
    kind: &str,
    max_key_bytes: usize,
    workflows: &Bound<'py, PyDict>,
) -> PyResult<Vec<Option<UsualTask<'py>>>> {
    let mut tasks = Vec::new();
    for record in records.try_iter()? {
        let record = record?;
        tasks.push(attributes_of(&record, |key, read| {
            let usual = |it: &Attributes<'_>| {
                it.kind == kind
                    && it.round.is_some()
                    && it.rounds.is_none()
                    && it.hops != Some(0)
                    && key.is_none_or(|key| key.len() <= max_key_bytes)
            };
            let Some(read) = read.filter(usual) else { return Ok(None) };
            let workflow = read.workflow.map(|name| workflows.get_item(name)).transpose()?;
            workflow.flatten().map(|it| Ok((Envelope::read(&read, &record)?, it))).transpose()
        })?);
    }
    Ok(tasks)
}

/// Reads a record's headers: what they say, if nothing in them is odd, beside its key.
fn attributes_of<T>(
    record: &Bound<'_, PyAny>,
    of: impl FnOnce(Option<&[u8]>, Option<Attributes<'_>>) -> PyResult<T>,
) -> PyResult<T> {
    match record.cast::<Record>() {
        Ok(ours) => {
            let ours = ours.get();
            of(ours.key(record.py()), headers::read(&ours.headers().raw()))
        }
        Err(_) => {
            parts_of_record(record, |it| of(it.key, headers::read(&it.headers.iter().copied())))
        }
    }
}

/// Write the headers of an event: `streams.envelope.encode` says which.
///
/// Args:
///     common: The headers before them, which all events of one type and source have.
///     envelope: What the event is.
///     time: `ce_time`, in milliseconds since 1970.
///     causes: Identity and record digest of every event this one answers.
///
/// Raises:
///     TypeError: A part is of another type.
#[pyfunction]
pub(super) fn write_event(
    py: Python<'_>,
    common: &EncodedHeaders,
    envelope: PyRef<'_, Envelope>,
    time: i64,
    causes: Vec<(String, String)>,
) -> PyResult<EncodedHeaders> {
    let mut all = Causes::default();
    for (id, digest) in &causes {
        all.push(id).push_str(digest);
    }
    let hops = envelope.hops.map(|it| it.to_string());
    let budget = envelope.budget.as_ref().map(|it| formatted(it.bind(py))).transpose()?;
    let written = Written {
        id: envelope.id(),
        time: &moments::text(time),
        causes: &all,
        status: envelope.status(),
        hops: hops.as_deref(),
        budget: budget.as_deref(),
        llm: envelope.llm(),
        traceparent: envelope.traceparent(),
    };
    Ok(EncodedHeaders(written.after(&common.0, &envelope)))
}

/// Continue a W3C trace, valid as an envelope has it, with a run as its span, or begin one.
#[pyfunction]
#[pyo3(signature = (current, run))]
pub(super) fn next_traceparent(current: Option<&str>, run: &str) -> String {
    traces::next(current, run)
}

/// What a run's result says in other words than what it answers, whose headers it has else.
pub(super) struct Answer<'a> {
    pub(super) run: &'a str,
    pub(super) time: &'a str,
    pub(super) causes: &'a Causes,
    pub(super) status: &'a str,
    pub(super) budget: Option<&'a str>,
    /// As in `Envelope`; None: what that says.
    pub(super) llm: Option<&'a str>,
}

impl Answer<'_> {
    /// Writes all of them, after those that all results of one source have.
    pub(super) fn after(&self, common: &Encoded, given: &Envelope) -> Encoded {
        let hops = given.hops.map(|it| it.saturating_sub(1).to_string());
        let written = Written {
            id: &digests::uuid_of(&[self.run, "/1"].concat()),
            time: self.time,
            causes: self.causes,
            status: Some(self.status),
            hops: hops.as_deref(),
            budget: self.budget,
            llm: self.llm.or(given.llm()),
            traceparent: Some(&traces::next(given.traceparent(), self.run)),
        };
        written.after(common, given)
    }
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
    fn after(&self, common: &Encoded, envelope: &Envelope) -> Encoded {
        let some = |joined: &'a String| (self.causes.count > 0).then_some(joined.as_bytes());
        let kept = |name| envelope.texts.bytes(name);
        let texts = [
            Some(self.id.as_bytes()),
            Some(self.time.as_bytes()),
            kept(Name::WorkflowId),
            kept(Name::Workflow),
            kept(Name::Round),
            kept(Name::Rounds),
            some(&self.causes.ids),
            some(&self.causes.digests),
            self.status.map(str::as_bytes),
            kept(Name::Deadline),
            self.hops.map(str::as_bytes),
            self.budget.map(str::as_bytes),
            self.llm.map(str::as_bytes),
            self.traceparent.map(str::as_bytes),
            kept(Name::Tracestate),
        ];
        let names = headers::WRITTEN.iter().map(|it| it.len());
        let lengths = names.chain(texts.iter().flatten().map(|it| it.len())).map(|it| it + 3);
        let mut written = common.begin(lengths.sum());
        for (name, text) in headers::WRITTEN.into_iter().zip(texts) {
            if text.is_some() {
                written.push(name, text);
            }
        }
        written
    }
}

/// The events that another answers, as its headers name them: by identity and record digest.
#[derive(Default)]
pub(super) struct Causes {
    ids: String,
    digests: String,
    count: usize,
}

impl Causes {
    /// Takes one more.
    pub(super) fn push_event(
        &mut self,
        event: &Envelope,
        record: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        digests::push_hexadecimal(&digest_of(record)?, self.push(event.id()));
        Ok(())
    }

    /// Takes its id, and gives what its digest is to be written to.
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

pub(super) fn formatted(budget: &Bound<'_, PyAny>) -> PyResult<String> {
    budget.call_method0(intern!(budget.py(), "format"))?.extract()
}
