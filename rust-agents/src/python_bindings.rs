//! The bindings exist so that Python sees the machine as one class; this is the only file that knows
//! PyO3, and it decides nothing: it turns tuples into types and misuse into exceptions.
//!
//! Everything is taken out of Python objects before the machine is locked, and the answer is built
//! after it is unlocked, so no Python code ever runs while the lock is held.
#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands over owned arguments")]
#![allow(clippy::doc_markdown, reason = "Python reads these docs, in Google's style")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::{Assigned, Hold, Input, Lane, Limits, Misuse, Offer, Place};

#[pymodule]
mod _rust {
    #[pymodule_export]
    use super::{AgentRuntime, Turn};
}

/// The scheduling machine of one agent: synchronous, no I/O, no clock, no payloads.
///
/// Args:
///     slots: Runs executing at once, 1 to 1,000,000.
///     max_queued_records: Queued records above which a partition is paused.
///     max_queued_bytes: Queued bytes above which a partition is paused; four times this over all
///         partitions together pauses every partition that has queued records.
///     timeout_ms: How long a run may execute, up to a year. None: as long as its deadline allows.
///
/// Raises:
///     ValueError: A limit is zero or absurd.
#[pyclass(frozen, module = "agents._rust")]
struct AgentRuntime {
    machine: Mutex<crate::AgentRuntime>,
}

#[pymethods]
impl AgentRuntime {
    #[new]
    #[pyo3(signature = (*, slots, max_queued_records, max_queued_bytes, timeout_ms = None))]
    fn new(
        slots: Bound<'_, PyAny>,
        max_queued_records: Bound<'_, PyAny>,
        max_queued_bytes: Bound<'_, PyAny>,
        timeout_ms: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let limits = Limits {
            slots: number("slots", &slots)?,
            max_queued_records: number("max_queued_records", &max_queued_records)?,
            max_queued_bytes: number("max_queued_bytes", &max_queued_bytes)?,
            timeout_ms: timeout_ms.map(|it| number("timeout_ms", &it)).transpose()?,
        };
        Ok(Self { machine: Mutex::new(crate::AgentRuntime::new(limits)?) })
    }

    /// Take in everything that happened up to `now`, and answer everything to do.
    ///
    /// All times are milliseconds of one monotonic clock of the caller's choice. The arguments are
    /// handled in this order: executed, acknowledged, revoked, assigned, held, offered.
    ///
    /// Args:
    ///     now: Not earlier than in the turn before.
    ///     assigned: The complete assignment after a rebalance, as (partition, epoch, position,
    ///         adopt); None when nothing changed.
    ///     revoked: A rebalance or the shutdown begins: nothing is accepted or started until assigned.
    ///     offered: Records to run, as (token, partition, epoch, offset, lane, deadline, nbytes,
    ///         covers).
    ///     held: Join parts that wait, as (token, partition, epoch, offset).
    ///     executed: Runs whose execute ended; their slots are free.
    ///     acknowledged: Runs whose result is durable; their lanes move on, their offsets are done.
    ///
    /// Raises:
    ///     ValueError: `now` went back, a token is in use, a partition is listed twice, or a number
    ///         is out of range. The machine is as it was before the call.
    ///     TypeError: An argument has the wrong type. The machine is as it was before the call.
    #[pyo3(signature = (now, *, assigned = None, revoked = false, offered = None, held = None, executed = None, acknowledged = None))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords of one call on purpose")]
    fn turn(
        &self,
        py: Python<'_>,
        now: Bound<'_, PyAny>,
        assigned: Option<Bound<'_, PyList>>,
        revoked: bool,
        offered: Option<Bound<'_, PyList>>,
        held: Option<Bound<'_, PyList>>,
        executed: Option<Bound<'_, PyList>>,
        acknowledged: Option<Bound<'_, PyList>>,
    ) -> PyResult<Turn> {
        let now = number("now", &now)?;
        let input = Input {
            executed: items("executed", executed, |it| it.extract())?,
            acknowledged: items("acknowledged", acknowledged, |it| it.extract())?,
            revoked,
            assigned: match assigned {
                Some(list) => Some(items("assigned", Some(list), assigned_from)?),
                None => None,
            },
            held: items("held", held, hold_from)?,
            offered: items("offered", offered, offer_from)?,
        };
        let turn = self.machine().turn(now, input)?;
        Turn::build(py, turn)
    }

    /// Runs executing, fenced ones included, plus runs whose result is not acknowledged yet.
    fn in_flight(&self) -> u64 {
        self.machine().in_flight()
    }

    /// Records taken in but not started.
    fn queued(&self) -> u64 {
        self.machine().queued()
    }

    /// Slots taken, by runs being cancelled and fenced ones too.
    fn running(&self) -> u64 {
        self.machine().running()
    }

    /// What the machine holds, for metrics: slots, running, unacknowledged, queued_records,
    /// queued_bytes, held, partitions, done_above_base.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.machine().stats();
        let dict = PyDict::new(py);
        dict.set_item(intern!(py, "slots"), stats.slots)?;
        dict.set_item(intern!(py, "running"), stats.running)?;
        dict.set_item(intern!(py, "unacknowledged"), stats.unacknowledged)?;
        dict.set_item(intern!(py, "queued_records"), stats.queued_records)?;
        dict.set_item(intern!(py, "queued_bytes"), stats.queued_bytes)?;
        dict.set_item(intern!(py, "held"), stats.held)?;
        dict.set_item(intern!(py, "partitions"), stats.partitions)?;
        dict.set_item(intern!(py, "done_above_base"), stats.done_above_base)?;
        Ok(dict)
    }
}

impl AgentRuntime {
    fn machine(&self) -> MutexGuard<'_, crate::AgentRuntime> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything to do now, as `AgentRuntime.turn` answered it.
#[pyclass(frozen, get_all, module = "agents._rust")]
struct Turn {
    /// Tokens to start, in admission order.
    start: Py<PyList>,
    /// Tokens whose task is to be cancelled, once each; the slot is free when executed is reported.
    cancel: Py<PyList>,
    /// (token, "expired" | "fenced" | "stale" | "redelivered"), in the order it happened.
    settled: Py<PyList>,
    /// (partition, next offset to read), by partition.
    commits: Py<PyList>,
    /// Partitions to pause, by number.
    pause: Py<PyList>,
    /// Partitions to resume, by number.
    resume: Py<PyList>,
    /// When to call turn again even if nothing happens; None: not before something does.
    wake_at: Option<i64>,
}

impl Turn {
    fn build(py: Python<'_>, turn: crate::Turn) -> PyResult<Self> {
        let settled = turn
            .settled
            .into_iter()
            .map(|(token, reason)| (token, PyString::intern(py, reason.as_str())));
        Ok(Self {
            start: PyList::new(py, turn.start)?.unbind(),
            cancel: PyList::new(py, turn.cancel)?.unbind(),
            settled: PyList::new(py, settled)?.unbind(),
            commits: PyList::new(py, turn.commits)?.unbind(),
            pause: PyList::new(py, turn.pause)?.unbind(),
            resume: PyList::new(py, turn.resume)?.unbind(),
            wake_at: turn.wake_at,
        })
    }
}

impl From<Misuse> for PyErr {
    fn from(misuse: Misuse) -> Self {
        PyValueError::new_err(misuse.to_string())
    }
}

fn assigned_from(item: &Bound<'_, PyAny>) -> PyResult<Assigned> {
    let (partition, epoch, position, adopt) = item.extract()?;
    Ok(Assigned { partition, epoch, position, adopt })
}

fn hold_from(item: &Bound<'_, PyAny>) -> PyResult<Hold> {
    let (token, partition, epoch, offset) = item.extract()?;
    Ok(Hold { token, place: Place { partition, epoch, offset } })
}

fn offer_from(item: &Bound<'_, PyAny>) -> PyResult<Offer> {
    let (token, partition, epoch, offset, lane, deadline, nbytes, covers) = item.extract()?;
    let lane: Option<&[u8]> = lane;
    let covers: Vec<u64> = covers;
    Ok(Offer {
        token,
        place: Place { partition, epoch, offset },
        lane: lane.map(Lane::of),
        deadline,
        nbytes,
        covers: covers.into_boxed_slice(),
    })
}

/// Takes a list argument apart; an error names the item it is about.
fn items<T>(
    name: &str,
    list: Option<Bound<'_, PyList>>,
    from: impl Fn(&Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let mut taken = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        taken.push(from(&item).map_err(|error| named(&format!("{name}[{index}]"), &item, error))?);
    }
    Ok(taken)
}

/// Takes a number argument; an error names it.
fn number<'py, T>(name: &str, given: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    given.extract().map_err(|error| named(name, given, error))
}

/// Says which argument an error is about. A number out of range is a `ValueError` here, where Python
/// has `OverflowError`.
fn named(name: &str, given: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = given.py();
    let message = format!("{name} is {given:?}: {}", error.value(py));
    if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(message)
    } else if error.is_instance_of::<PyOverflowError>(py)
        || error.is_instance_of::<PyValueError>(py)
    {
        PyValueError::new_err(message)
    } else {
        error
    }
}
