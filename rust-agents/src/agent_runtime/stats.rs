//! `Stats` exist so that an operator sees what the machine holds; nothing is decided by them.

use super::AgentRuntime;

/// What the machine holds, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The limit given.
    pub slots: u64,
    /// Slots taken, by runs being cancelled and fenced ones too.
    pub running: u64,
    /// Runs that ended and records that expired, whose result is not acknowledged.
    pub unacknowledged: u64,
    /// Records not started.
    pub queued_records: u64,
    /// What these weigh.
    pub queued_bytes: u64,
    /// Failed runs that wait for their next attempt.
    pub retrying: u64,
    /// Retries the budget allows at once.
    pub retry_budget: u64,
    /// Calls that wait for the agent's rates.
    pub waiting_asks: u64,
    /// Records skipped as duplicates, ever.
    pub duplicates: u64,
    /// Partitions that are ours.
    pub partitions: u64,
    /// Partitions that wait for their lowest record, because the done set above it is full.
    pub full_partitions: u64,
    /// Records done but not committed, because a lower one is not done.
    pub done_above_base: u64,
}

impl AgentRuntime {
    /// What the machine holds. Costs a look at every partition.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let done = self.assignment.partitions().map(|it| it.offsets.done().count());
        let full = self.assignment.partitions().filter(|it| it.full());
        Stats {
            slots: self.admission.slots(),
            running: self.running(),
            unacknowledged: self.unacknowledged as u64,
            queued_records: self.queued(),
            queued_bytes: self.admission.backlog.bytes,
            retrying: self.backing_off as u64,
            retry_budget: self.retries.affordable(),
            waiting_asks: self.asks.waiting() as u64,
            duplicates: self.duplicates,
            partitions: self.assignment.len() as u64,
            full_partitions: full.count() as u64,
            done_above_base: done.fold(0, u64::saturating_add),
        }
    }
}
