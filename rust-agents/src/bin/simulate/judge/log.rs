//! What the log holds, with each result and when nothing more happens.

use crate::broker::{Outcome, Publishing};
use crate::verdict::{Invariant, Verdict, ensure};
use crate::world::World;

impl World {
    /// A result is about to be in the log.
    pub(crate) fn judge_outcome(&self, publishing: usize, token: u64, subject: usize) -> Verdict {
        let Publishing { partition, chain, .. } = self.publishings[publishing];
        if self.progress[subject].first_outcome.is_none() {
            return Ok(());
        }
        // Another ownership may not have known of this one. The same one may answer an event twice
        // if that is in the log twice, further apart than the window: that was judged at the offer.
        let again = |it: &Outcome| it.subject == subject && it.chain == chain && it.token == token;
        let twice = self.partitions[partition].outcomes.iter().any(again);
        ensure(!twice, Invariant::Repeated, || format!("{token} has a second result for {subject}"))
    }

    /// Nothing more happens: everything must have.
    pub(crate) fn judge_the_end(&self) -> Verdict {
        for (index, record) in self.records.iter().enumerate() {
            ensure(self.is_settled(index), Invariant::Lost, || {
                format!("nothing came of {record:?}")
            })?;
        }
        for (number, partition) in self.partitions.iter().enumerate() {
            for join in &partition.fired {
                ensure(self.progress[*join].first_outcome.is_some(), Invariant::Lost, || {
                    format!("nothing came of join {join} in {number}")
                })?;
            }
            ensure(partition.committed.offset == partition.end, Invariant::Liveness, || {
                let committed = partition.committed.offset;
                format!("{number} is committed at {committed}, and ends at {}", partition.end)
            })?;
        }
        for (number, it) in self.members.iter().enumerate() {
            let left = (it.machine.running(), it.machine.queued(), it.machine.in_flight());
            ensure(left == (0, 0, 0), Invariant::Liveness, || {
                format!("member {number} still has (running, queued, in flight) {left:?}")
            })?;
            let stats = it.machine.stats();
            ensure((stats.retrying, stats.waiting_asks) == (0, 0), Invariant::Liveness, || {
                format!("member {number} still has runs in backoff or calls: {stats:?}")
            })?;
        }
        Ok(())
    }
}
