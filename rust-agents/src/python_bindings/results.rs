//! The binding of `results` exists apart so that it shows what a result's JSON is put together from.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::results::{self, Root, Value};
use crate::{moments, result_reader};

/// Write the JSON of a result: `streams.payloads.ResultWriter` says what for. What is given in bytes is JSON
/// already, and copied.
///
/// Args:
///     start: An object with what all results of an agent begin with, without its last brace.
///     status: How the run ended.
///     output: What the agent gave.
///     verdict: Its word that edges match, or None.
///     error: Why it failed, or None.
///     artifacts: The list of them.
///     usage: What its model calls took.
///     attempts: How often it was executed.
///     started_at: When, first, in milliseconds since 1970, or None.
///     finished_at: When it ended, likewise.
///     run: Its id.
///     root_agent: The agent of the task the workflow began with.
///     root_id: The id of that task.
///     root_input: Its input, or None.
///     root_input_omitted: Whether it had one that is not repeated.
///     root_repository: The repository it is about, or None.
///     followers: The agents that answer the result.
///     back: Where it goes back to, or None.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: A text has no form in UTF-8.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "they are the fields of a result")]
pub(super) fn write_result<'py>(
    py: Python<'py>,
    start: &[u8],
    status: &str,
    output: &[u8],
    verdict: Option<&str>,
    error: Option<&[u8]>,
    artifacts: &[u8],
    usage: &[u8],
    attempts: u64,
    started_at: Option<i64>,
    finished_at: i64,
    run: &str,
    root_agent: &str,
    root_id: &str,
    root_input: Option<&[u8]>,
    root_input_omitted: bool,
    root_repository: Option<&[u8]>,
    followers: &Bound<'py, PyTuple>,
    back: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let held: Vec<Bound<'_, PyString>> =
        followers.iter().map(|it| Ok(it.cast_into()?)).collect::<PyResult<_>>()?;
    let followers: Vec<&str> = held.iter().map(|it| it.to_str()).collect::<PyResult<_>>()?;
    let root = Root {
        agent: root_agent,
        id: root_id,
        input: root_input,
        input_omitted: root_input_omitted,
        repository: root_repository,
    };
    let started_at = started_at.map(moments::text);
    let value = Value {
        start,
        status,
        output,
        verdict,
        error,
        artifacts,
        usage,
        attempts,
        started_at: started_at.as_deref(),
        finished_at: &moments::text(finished_at),
        run,
        root,
        followers: &followers,
        back,
    };
    Ok(PyBytes::new(py, &value.write()))
}

/// Tell whether the word `null` is anywhere in some JSON; many times as fast as Python does.
#[pyfunction]
pub(super) fn says_null(json: &[u8]) -> bool {
    results::says_null(json)
}

type ReadResult<'py> =
    (Bound<'py, PyBytes>, Bound<'py, PyString>, Bound<'py, PyString>, Bound<'py, PyBytes>, bool);

/// Read a result as `write_result` wrote it, if nothing has to be looked at but what it hands on: completed,
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
