//! The bindings exist so that Python sees the machine as one class; only this module knows PyO3, and it
//! decides nothing: it turns tuples into types and misuse into exceptions.
//!
//! Everything is taken out of Python objects before the machine is locked, and the answer is built
//! after it is unlocked, so no Python code ever runs while the lock is held.
#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands over owned arguments")]
#![allow(clippy::doc_markdown, reason = "Python reads these docs, in Google's style")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::headers::Header;
use crate::{
    Amount, Ask, Assigned, Budget, Failure, Identity, Input, Lane, Limits, Misuse, Offer, Place,
    Seen, Spent,
};
use crate::{digests, moments};

mod envelope;
mod offers;
mod protocol;
mod records;
mod results;
mod texts;

use offers::Offers;
use records::digest_of;

#[pymodule]
mod _rust {
    #[pymodule_export]
    use super::envelope::{
        EncodedHeaders, Envelope, next_traceparent, read_event, read_usual_tasks, write_event,
    };
    #[pymodule_export]
    use super::offers::Offers;
    #[pymodule_export]
    use super::protocol::Layout;
    #[pymodule_export]
    use super::records::{
        EncodedRecord, Record, RecordBatch, by_partition, has_its_checksum, read_records,
    };
    #[pymodule_export]
    use super::results::{ResultWriter, read_result, says_null};
    #[pymodule_export]
    use super::{AgentRuntime, Turn, moment, record_digest, run_id, uuid_of};
}

/// Hash a record's exact key, value and headers: `streams.envelope.record_digest` says how.
///
/// Args:
///     record: With `key`, `value` and `headers`, as it was read.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: A part has four gigabytes or more.
#[pyfunction]
fn record_digest(record: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(digests::hexadecimal(&digest_of(record)?))
}

/// Name a run: `streams.envelope.run_id` says how.
///
/// Args:
///     prefix: What the run is of: the first parts of what is hashed.
///     identity: What it answers, as texts.
///
/// Raises:
///     ValueError: A part has four gigabytes or more.
#[pyfunction]
#[pyo3(signature = (prefix, *identity))]
fn run_id(prefix: &[u8], identity: &Bound<'_, PyTuple>) -> PyResult<String> {
    let held: Vec<Bound<'_, PyString>> =
        identity.iter().map(|it| Ok(it.cast_into()?)).collect::<PyResult<_>>()?;
    let parts: Vec<&str> = held.iter().map(|it| it.to_str()).collect::<PyResult<_>>()?;
    digests::run_id(prefix, &parts).ok_or_else(too_large)
}

/// Make a UUIDv8 (RFC 9562) of a name's hash: `streams.envelope.result_id` says what for.
#[pyfunction]
fn uuid_of(name: &str) -> String {
    digests::uuid_of(name)
}

/// Write milliseconds since 1970 as RFC 3339 has them, in UTC.
#[pyfunction]
fn moment(milliseconds: i64) -> String {
    moments::text(milliseconds)
}

type Held<'py> = (Bound<'py, PyString>, Option<Bound<'py, PyBytes>>);

fn held<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Vec<Held<'py>>> {
    let mut held = Vec::with_capacity(16);
    for header in headers.try_iter()? {
        let header = header?;
        let header = header.cast::<PyTuple>()?;
        let value = header.get_item(1)?;
        let value = if value.is_none() { None } else { Some(value.cast_into::<PyBytes>()?) };
        held.push((header.get_item(0)?.cast_into::<PyString>()?, value));
    }
    Ok(held)
}

fn parts_of<'a>(held: &'a [Held<'_>]) -> PyResult<Vec<Header<'a>>> {
    held.iter()
        .map(|(name, value)| Ok((name.to_str()?, value.as_ref().map(PyBytesMethods::as_bytes))))
        .collect()
}

fn too_large() -> PyErr {
    PyValueError::new_err("a part has four gigabytes or more")
}

/// The scheduling machine of one agent: synchronous, no I/O, no clock, no payloads.
///
/// Args:
///     slots: Runs executing at once, 1 to 1,000,000.
///     max_queued_records: Queued records above which a partition is paused.
///     max_queued_bytes: Queued bytes above which a partition is paused; four times this over all
///         partitions together pauses every partition that has queued records.
///     timeout_ms: How long a run may execute, up to a year. None: as long as its deadline allows.
///     retries: How often a failed run is repeated, up to 1,000.
///     backoff_ms: The longest wait before the first retry; each further one waits up to twice as
///         long. The wait is drawn evenly from 0 on.
///     max_backoff_ms: The longest wait before any retry, unless the failure itself asked for more.
///     retry_budget: Retries that may be saved up, by all lanes together. A retry costs one; five
///         successes, or a second, bring one back. A retry without budget waits.
///     dedupe_records: Offsets within which a repeated identity is a duplicate; 0 is never.
///     dedupe_ms: Record time within which a repeated identity is a duplicate.
///     calls_per_minute: Calls granted per minute, by all runs together. None: any number.
///     tokens_per_minute: Tokens granted per minute, by all runs together. None: any number.
///     max_done_bytes: Most bytes of a done set, up to 4,096. At three quarters of it a partition
///         pauses, and starts only what lets its commit advance.
///     seed: Chooses the jitter of retries.
///
/// Raises:
///     ValueError: A limit is absurd.
#[pyclass(frozen, module = "agents._rust")]
struct AgentRuntime {
    machine: Mutex<crate::AgentRuntime>,
}

#[pymethods]
impl AgentRuntime {
    #[new]
    #[pyo3(signature = (
        *, slots, max_queued_records, max_queued_bytes, timeout_ms = None, retries = None,
        backoff_ms = None, max_backoff_ms = None, retry_budget = None, dedupe_records = None,
        dedupe_ms = None, calls_per_minute = None, tokens_per_minute = None, max_done_bytes = None,
        seed = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords of one call on purpose")]
    fn new(
        slots: Bound<'_, PyAny>,
        max_queued_records: Bound<'_, PyAny>,
        max_queued_bytes: Bound<'_, PyAny>,
        timeout_ms: Option<Bound<'_, PyAny>>,
        retries: Option<Bound<'_, PyAny>>,
        backoff_ms: Option<Bound<'_, PyAny>>,
        max_backoff_ms: Option<Bound<'_, PyAny>>,
        retry_budget: Option<Bound<'_, PyAny>>,
        dedupe_records: Option<Bound<'_, PyAny>>,
        dedupe_ms: Option<Bound<'_, PyAny>>,
        calls_per_minute: Option<Bound<'_, PyAny>>,
        tokens_per_minute: Option<Bound<'_, PyAny>>,
        max_done_bytes: Option<Bound<'_, PyAny>>,
        seed: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let usual = Limits::default();
        let limits = Limits {
            slots: number("slots", &slots)?,
            max_queued_records: number("max_queued_records", &max_queued_records)?,
            max_queued_bytes: number("max_queued_bytes", &max_queued_bytes)?,
            timeout_ms: timeout_ms.map(|it| number("timeout_ms", &it)).transpose()?,
            retries: number_or("retries", retries, usual.retries)?,
            backoff_ms: number_or("backoff_ms", backoff_ms, usual.backoff_ms)?,
            max_backoff_ms: number_or("max_backoff_ms", max_backoff_ms, usual.max_backoff_ms)?,
            retry_budget: number_or("retry_budget", retry_budget, usual.retry_budget)?,
            dedupe_records: number_or("dedupe_records", dedupe_records, usual.dedupe_records)?,
            dedupe_ms: number_or("dedupe_ms", dedupe_ms, usual.dedupe_ms)?,
            max_done_bytes: number_or("max_done_bytes", max_done_bytes, usual.max_done_bytes)?,
            seed: number_or("seed", seed, usual.seed)?,
            calls_per_minute: calls_per_minute
                .map(|it| number("calls_per_minute", &it))
                .transpose()?,
            tokens_per_minute: tokens_per_minute
                .map(|it| number("tokens_per_minute", &it))
                .transpose()?,
        };
        Ok(Self { machine: Mutex::new(crate::AgentRuntime::new(limits)?) })
    }

    /// Take in everything that happened up to `now`, and answer everything to do.
    ///
    /// All times are milliseconds of one monotonic clock of the caller's choice. The arguments are
    /// handled in this order: spent, executed, failed, acknowledged, assigned, revoked,
    /// seen, offered, asked.
    ///
    /// Args:
    ///     now: Not earlier than in the turn before.
    ///     assigned: The complete assignment after a rebalance, as (partition, epoch, position, adopt,
    ///         done, careful_until); None when nothing changed. `done` is what `commit_of` gave for
    ///         this position, or None. Offsets below `careful_until` run one at a time, in order.
    ///         The last two are without effect on an adopted partition.
    ///     revoked: A rebalance or the shutdown begins: nothing is accepted or started until assigned.
    ///     seen: Records below the position, as (partition, offset, identity, timestamp), so that their
    ///         repetitions are duplicates.
    ///     offered: Records to run, as (token, partition, epoch, offset, lane, deadline, nbytes,
    ///         identity, timestamp, budget), or many together as `Offers`. Without an offset it is a run
    ///         without a record. `budget` is (calls, tokens, micro_usd) for all its attempts, each None
    ///         for any.
    ///     executed: Runs whose execute ended with an outcome; their slots are free.
    ///     failed: Runs whose execute ended with a failure worth a retry, as (token, retry_after_ms);
    ///         their slots are free.
    ///     asked: Calls that runs want to make, as (ask, token, tokens, micro_usd), with what they may
    ///         cost at most. Each is granted or refused once, unless it is reported spent before.
    ///     spent: Calls that were made, as (ask, tokens, micro_usd), with what they cost. One that
    ///         still waits is withdrawn by this.
    ///     acknowledged: Runs whose result is durable; their lanes move on, their offsets are done.
    ///
    /// Raises:
    ///     ValueError: `now` went back, a token or an ask is in use, a partition is listed twice, or a number
    ///         is out of range. The machine is as it was before the call.
    ///     TypeError: An argument has the wrong type. The machine is as it was before the call.
    #[pyo3(signature = (
        now, *, assigned = None, revoked = false, seen = None, offered = None,
        executed = None, failed = None, acknowledged = None, asked = None, spent = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords of one call on purpose")]
    fn turn(
        &self,
        py: Python<'_>,
        now: Bound<'_, PyAny>,
        assigned: Option<Bound<'_, PyList>>,
        revoked: bool,
        seen: Option<Bound<'_, PyList>>,
        offered: Option<Bound<'_, PyList>>,
        executed: Option<Bound<'_, PyList>>,
        failed: Option<Bound<'_, PyList>>,
        acknowledged: Option<Bound<'_, PyList>>,
        asked: Option<Bound<'_, PyList>>,
        spent: Option<Bound<'_, PyList>>,
    ) -> PyResult<Turn> {
        let now = number("now", &now)?;
        let input = Input {
            spent: items("spent", spent, spent_from)?,
            executed: items("executed", executed, |it| it.extract())?,
            failed: items("failed", failed, failure_from)?,
            acknowledged: items("acknowledged", acknowledged, |it| it.extract())?,
            revoked,
            assigned: match assigned {
                Some(list) => Some(items("assigned", Some(list), assigned_from)?),
                None => None,
            },
            seen: items("seen", seen, seen_from)?,
            offered: offered_from(offered)?,
            asked: items("asked", asked, ask_from)?,
        };
        let turn = self.machine().turn(now, input)?;
        Turn::build(py, turn)
    }

    /// What to commit for a partition now, as (offset, reach, done).
    ///
    /// `reach` is one after the highest offset ever started. `done` is what is finished above
    /// `offset`, for `assigned`; empty when nothing is. Ask when you really commit: it costs as much
    /// as `done` is long.
    ///
    /// Raises:
    ///     ValueError: The partition is not assigned.
    fn commit_of<'py>(
        &self,
        py: Python<'py>,
        partition: Bound<'py, PyAny>,
    ) -> PyResult<(u64, u64, Bound<'py, PyBytes>)> {
        let partition = number("partition", &partition)?;
        let Some(commit) = self.machine().commit_of(partition) else {
            let message = format!("partition {partition} is not assigned: ask for those that are");
            return Err(PyValueError::new_err(message));
        };
        Ok((commit.offset, commit.reach, PyBytes::new(py, &commit.done)))
    }

    /// Runs executing, fenced ones included, plus runs whose result is not acknowledged yet.
    /// Runs that wait for a retry are not among them.
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
    /// queued_bytes, retrying, retry_budget, waiting_asks, duplicates, partitions,
    /// full_partitions, done_above_base.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.machine().stats();
        let dict = PyDict::new(py);
        dict.set_item(intern!(py, "slots"), stats.slots)?;
        dict.set_item(intern!(py, "running"), stats.running)?;
        dict.set_item(intern!(py, "unacknowledged"), stats.unacknowledged)?;
        dict.set_item(intern!(py, "queued_records"), stats.queued_records)?;
        dict.set_item(intern!(py, "queued_bytes"), stats.queued_bytes)?;
        dict.set_item(intern!(py, "retrying"), stats.retrying)?;
        dict.set_item(intern!(py, "retry_budget"), stats.retry_budget)?;
        dict.set_item(intern!(py, "waiting_asks"), stats.waiting_asks)?;
        dict.set_item(intern!(py, "duplicates"), stats.duplicates)?;
        dict.set_item(intern!(py, "partitions"), stats.partitions)?;
        dict.set_item(intern!(py, "full_partitions"), stats.full_partitions)?;
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
    /// (token, "expired" | "exhausted" | "fenced" | "stale" | "redelivered" | "duplicate"), in the
    /// order it happened. The first two are to be published and acknowledged, the others forgotten.
    settled: Py<PyList>,
    /// (token, attempts that failed, wait in milliseconds), for logs; the run will start again.
    retries: Py<PyList>,
    /// Calls that may be made now, in the order they were asked for.
    granted: Py<PyList>,
    /// (ask, "calls" | "tokens" | "money" | "ended"): there is not enough left of it, or the run is
    /// canceled, lost or over.
    refused: Py<PyList>,
    /// (partition, next offset to read), by partition, where it or what is done above it changed.
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
        let refused = turn
            .refused
            .into_iter()
            .map(|(ask, refusal)| (ask, PyString::intern(py, refusal.as_str())));
        Ok(Self {
            start: PyList::new(py, turn.start)?.unbind(),
            cancel: PyList::new(py, turn.cancel)?.unbind(),
            settled: PyList::new(py, settled)?.unbind(),
            retries: PyList::new(py, turn.retries)?.unbind(),
            granted: PyList::new(py, turn.granted)?.unbind(),
            refused: PyList::new(py, refused)?.unbind(),
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
    let (partition, epoch, position, adopt, done, careful_until) = item.extract()?;
    let done: Option<&[u8]> = done;
    let done = done.unwrap_or_default().into();
    Ok(Assigned { partition, epoch, position, adopt, done, careful_until })
}

fn failure_from(item: &Bound<'_, PyAny>) -> PyResult<Failure> {
    let (token, retry_after) = item.extract()?;
    Ok(Failure { token, retry_after })
}

fn ask_from(item: &Bound<'_, PyAny>) -> PyResult<Ask> {
    let (ask, token, tokens, micro_usd) = item.extract()?;
    Ok(Ask { ask, token, price: Amount { tokens, micro_usd } })
}

fn spent_from(item: &Bound<'_, PyAny>) -> PyResult<Spent> {
    let (ask, tokens, micro_usd) = item.extract()?;
    Ok(Spent { ask, price: Amount { tokens, micro_usd } })
}

fn seen_from(item: &Bound<'_, PyAny>) -> PyResult<Seen> {
    let (partition, offset, identity, timestamp) = item.extract()?;
    Ok(Seen { partition, offset, identity: Identity::of(identity), timestamp })
}

fn offered_from(list: Option<Bound<'_, PyList>>) -> PyResult<Vec<Offer>> {
    let mut taken = Vec::new();
    items("offered", list, |item| {
        match item.cast::<Offers>() {
            Ok(offers) => taken.extend_from_slice(offers.get().all()),
            Err(_) => taken.push(offer_from(item)?),
        }
        Ok(())
    })?;
    Ok(taken)
}

fn offer_from(item: &Bound<'_, PyAny>) -> PyResult<Offer> {
    let (token, partition, epoch, offset, lane, deadline, nbytes, identity, timestamp, budget) =
        item.extract()?;
    let (lane, identity): (Option<&[u8]>, Option<&[u8]>) = (lane, identity);
    Ok(Offer {
        token,
        place: Place { partition, epoch, offset },
        lane: lane.map(Lane::of),
        deadline,
        nbytes,
        identity: identity.map(Identity::of),
        timestamp,
        budget: budget_of(budget),
    })
}

/// Calls, tokens and micro-dollars.
type BudgetOf = (Option<u64>, Option<u64>, Option<u64>);

fn budget_of(given: Option<BudgetOf>) -> Budget {
    let (calls, tokens, micro_usd) = given.unwrap_or_default();
    Budget { calls, tokens, micro_usd }
}

/// Takes a list argument apart; an error names the item it is about.
fn items<T>(
    name: &str,
    list: Option<Bound<'_, PyList>>,
    mut from: impl FnMut(&Bound<'_, PyAny>) -> PyResult<T>,
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

fn number_or(name: &str, given: Option<Bound<'_, PyAny>>, usual: u64) -> PyResult<u64> {
    given.map_or(Ok(usual), |it| number(name, &it))
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
