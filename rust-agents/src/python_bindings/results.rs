//! The binding of `results` exists apart so that it shows what a result is put together from.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::envelope::{Answer, Causes, EncodedHeaders, Envelope, formatted};
use super::records::{EncodedRecord, key_of};
use crate::headers::Encoded;
use crate::results::{self, Root, Value};
use crate::{moments, result_reader};

/// Writes the results of one agent, each in one call: `streams.payloads.ResultWriter` says what for. What is
/// given in bytes is JSON already, and copied.
///
/// Args:
///     start: An object with what all values begin with, without its last brace.
///     common: What all headers begin with.
///     max_key_bytes: A longer key is left out.
///     llm: As in `Envelope`; None: as what is answered has it.
#[pyclass(frozen, module = "streams.payloads")]
pub(super) struct ResultWriter {
    start: Vec<u8>,
    common: Encoded,
    max_key_bytes: usize,
    llm: Option<String>,
}

#[pymethods]
impl ResultWriter {
    #[new]
    #[pyo3(signature = (start, common, max_key_bytes, llm))]
    fn new(
        start: Vec<u8>,
        common: &EncodedHeaders,
        max_key_bytes: usize,
        llm: Option<String>,
    ) -> Self {
        Self { start, common: common.encoded().clone(), max_key_bytes, llm }
    }

    /// Write one.
    ///
    /// Args:
    ///     given: What the run answers.
    ///     record: Its record.
    ///     joined: Envelope and record of every event it answers, if these are others.
    ///     run: The run's id, or what that begins with: see `Envelope.run_id`.
    ///     status: How it ended.
    ///     output: What the agent gave.
    ///     verdict: Its word that edges match, or None.
    ///     error: Why it failed, or None.
    ///     artifacts: The list of them.
    ///     usage: What its model calls took.
    ///     budget: What is left, or None.
    ///     attempts: How often it was executed.
    ///     started_at: When, first, in milliseconds since 1970, or None.
    ///     finished_at: When it ended, likewise.
    ///     root_agent: The agent of the task the workflow began with.
    ///     root_id: The id of that task; None: it is what the run answers.
    ///     root_input: Its input, or None.
    ///     root_input_omitted: Whether it had one that is not repeated.
    ///     root_repository: The repository it is about, or None.
    ///     followers: The agents that answer the result.
    ///     back: Where it goes back to, or None.
    ///
    /// Raises:
    ///     TypeError: A part is of another type.
    ///     ValueError: A text has no form in UTF-8, or a part is larger than a length can say.
    #[allow(clippy::too_many_arguments, reason = "they are the fields of a result")]
    fn write<'py>(
        &self,
        given: PyRef<'py, Envelope>,
        record: &Bound<'py, PyAny>,
        joined: Option<Vec<(PyRef<'py, Envelope>, Bound<'py, PyAny>)>>,
        run: &Bound<'py, PyAny>,
        status: &str,
        output: &[u8],
        verdict: Option<&str>,
        error: Option<&[u8]>,
        artifacts: &[u8],
        usage: &[u8],
        budget: Option<&Bound<'py, PyAny>>,
        attempts: u64,
        started_at: Option<i64>,
        finished_at: i64,
        root_agent: &str,
        root_id: Option<&str>,
        root_input: Option<&[u8]>,
        root_input_omitted: bool,
        root_repository: Option<&[u8]>,
        followers: &Bound<'py, PyTuple>,
        back: Option<&[u8]>,
    ) -> PyResult<EncodedRecord> {
        let run = match run.cast::<PyString>() {
            Ok(id) => id.to_str()?,
            Err(_) => &given.run_id(run.extract()?)?,
        };
        let held: Vec<Bound<'_, PyString>> =
            followers.iter().map(|it| Ok(it.cast_into()?)).collect::<PyResult<_>>()?;
        let followers: Vec<&str> = held.iter().map(|it| it.to_str()).collect::<PyResult<_>>()?;
        let (started_at, finished_at) = (started_at.map(moments::text), moments::text(finished_at));
        let value = Value {
            start: &self.start,
            status,
            output,
            verdict,
            error,
            artifacts,
            usage,
            attempts,
            started_at: started_at.as_deref(),
            finished_at: &finished_at,
            run,
            root: Root {
                agent: root_agent,
                id: root_id.unwrap_or_else(|| given.id()),
                input: root_input,
                input_omitted: root_input_omitted,
                repository: root_repository,
            },
            followers: &followers,
            back,
        };
        let mut causes = Causes::default();
        match joined {
            None => causes.push_event(&given, record)?,
            Some(joined) => {
                joined.iter().try_for_each(|(event, record)| causes.push_event(event, record))?;
            }
        }
        let budget = budget.map(formatted).transpose()?;
        let answer = Answer {
            run,
            time: &finished_at,
            causes: &causes,
            status,
            budget: budget.as_deref(),
            llm: self.llm.as_deref(),
        };
        let headers = answer.after(&self.common, &given);
        let key = key_of(record)?;
        let key = key.as_ref().map(PyBytesMethods::as_bytes);
        let key = key.filter(|it| it.len() <= self.max_key_bytes);
        EncodedRecord::of(key, Some(&value.write()), &headers)
    }
}

/// Tell whether the word `null` is anywhere in some JSON; many times as fast as Python does.
#[pyfunction]
pub(super) fn says_null(json: &[u8]) -> bool {
    results::says_null(json)
}

type ReadResult<'py> =
    (Bound<'py, PyBytes>, Bound<'py, PyString>, Bound<'py, PyString>, Bound<'py, PyBytes>, bool);

/// Read a result as a `ResultWriter` wrote it, if nothing has to be looked at but what it hands on: completed,
/// without artifacts, repository or a way back. None for all others.
///
/// Returns:
///     Its output as JSON, agent and id of its root, the root's input as JSON, and whether that was omitted.
#[pyfunction]
pub(super) fn read_result<'py>(py: Python<'py>, value: &[u8]) -> Option<ReadResult<'py>> {
    let read = result_reader::read(value)?;
    Some((
        PyBytes::new(py, read.output.as_bytes()),
        PyString::new(py, read.root_agent),
        PyString::new(py, read.root_id),
        PyBytes::new(py, read.root_input.as_bytes()),
        read.root_input_omitted,
    ))
}
