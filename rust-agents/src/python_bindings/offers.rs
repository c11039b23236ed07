//! Offers exist so that records are offered to the machine many at once, with what it wants to know of each
//! taken from where it lies: no Python object is made for it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::envelope::Envelope;
use super::records::{Facts, facts_of_record};
use super::{BudgetOf, budget_of};
use crate::{Identity, Offer, Place};

/// Records of one partition to run, as `AgentRuntime.turn` takes them.
///
/// Args:
///     first_token: Of the first record; those of the others follow it.
///     partition: Number of the partition.
///     epoch: The assignment they were read in.
///     records: Each with `offset`, `key`, `value` and `timestamp`.
///     envelopes: What each of them says.
///     nbytes: What a record takes beside its value.
///     ahead_ms: By how much the machine's clock is ahead of the time of day, by which deadlines are
///         written. None: they do not count.
///     in_lanes: Those of one key run one after the other.
///     deduped: One that was there before is a duplicate.
///     budgets: For each what `budget` is in `AgentRuntime.turn`, or None.
///
/// Raises:
///     TypeError: A part is of another type.
///     ValueError: There are more of one than of the other, or an offset is negative.
///     OverflowError: Another number is out of range.
#[pyclass(frozen, module = "agents._rust")]
pub(super) struct Offers(Vec<Offer>);

#[pymethods]
impl Offers {
    #[new]
    #[pyo3(signature = (
        first_token, partition, epoch, records, envelopes, nbytes, ahead_ms, in_lanes, deduped, budgets
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are what an offer says, for many")]
    fn new(
        first_token: u64,
        partition: u32,
        epoch: u64,
        records: Bound<'_, PyList>,
        envelopes: Bound<'_, PyList>,
        nbytes: u32,
        ahead_ms: Option<i64>,
        in_lanes: bool,
        deduped: bool,
        budgets: Option<Vec<Option<BudgetOf>>>,
    ) -> PyResult<Self> {
        let count = records.len();
        if envelopes.len() != count || budgets.as_ref().is_some_and(|it| it.len() != count) {
            return Err(PyValueError::new_err(
                "give an envelope, and a budget or none, for each record",
            ));
        }
        let mut budgets = budgets.unwrap_or_default().into_iter();
        let mut text = String::new();
        let mut offers = Vec::with_capacity(count);
        let mut token = first_token;
        for (record, envelope) in records.iter().zip(envelopes.iter()) {
            let envelope = envelope.extract::<PyRef<'_, Envelope>>()?;
            let Facts { offset, lane, nbytes: more, timestamp } = facts_of_record(&record)?;
            let is_known = deduped && envelope.write_identity(&mut text);
            offers.push(Offer {
                token,
                place: Place { partition, epoch, offset: Some(offset) },
                lane: lane.filter(|_| in_lanes),
                deadline: envelope
                    .until()
                    .zip(ahead_ms)
                    .map(|(at, ahead)| at.saturating_add(ahead)),
                nbytes: nbytes.saturating_add(more.try_into()?),
                identity: is_known.then(|| Identity::of(text.as_bytes())),
                timestamp,
                budget: budget_of(budgets.next().flatten()),
            });
            token = token.saturating_add(1); // one that comes twice is refused
        }
        Ok(Self(offers))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

impl Offers {
    pub(super) fn all(&self) -> &[Offer] {
        &self.0
    }
}
