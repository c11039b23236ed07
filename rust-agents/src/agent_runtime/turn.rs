//! These types exist to carry one turn across the boundary; they are plain data and decide nothing.

use super::assignment::Assigned;
use super::dedupe::Identity;
use super::lanes::Lane;
use super::spend::{Amount, Budget, Refusal};

/// Everything that happened since the last turn. `Input::default()` is "only time went by".
///
/// The fields are listed in the order the machine handles them.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Calls that were made, or given up. Those that are not known are ignored.
    pub spent: Vec<Spent>,
    /// Runs whose `execute` ended: normally, by an error, or because they were cancelled. Each frees
    /// its slot. Tokens that do not execute are ignored.
    pub executed: Vec<u64>,
    /// Runs whose `execute` ended by a failure worth a retry. Each frees its slot. Tokens that do not
    /// execute are ignored.
    pub failed: Vec<Failure>,
    /// Runs (and expired records) whose result is durable. Tokens that are not waiting for this,
    /// such as a run that still executes, are ignored.
    pub acknowledged: Vec<u64>,
    /// A rebalance or the shutdown begins: start nothing and accept nothing until `assigned`.
    pub revoked: bool,
    /// The complete assignment after a rebalance; `None` when nothing changed.
    pub assigned: Option<Vec<Assigned>>,
    /// Records below the position, so that their repetitions are known after a restart. Those of
    /// partitions that are not ours are ignored.
    pub seen: Vec<Seen>,
    /// Records to run.
    pub offered: Vec<Offer>,
    /// Calls that runs want to make. Each is granted or refused once, now or later, unless it is
    /// reported spent before.
    pub asked: Vec<Ask>,
}

/// Where a record stands in the log, and under which assignment it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The caller's number for a topic partition.
    pub partition: u32,
    /// The epoch under which the record was read.
    pub epoch: u64,
    /// Its offset; `None` for a run without a record of its own, such as a join that fires.
    pub offset: Option<u64>,
}

/// A run that failed, and may do better later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose run.
    pub token: u64,
    /// The least wait before the next attempt, in milliseconds, if the failure named one.
    pub retry_after: Option<u64>,
}

/// A call that a run wants to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The caller's name for this call, not in use for another one.
    pub ask: u64,
    /// Whose run.
    pub token: u64,
    /// What it may cost at most; so much is reserved.
    pub price: Amount,
}

/// A call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Which call.
    pub ask: u64,
    /// What it really cost; more than was reserved is booked too.
    pub price: Amount,
}

/// A record that was read only for its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The caller's number for a topic partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Which event it is.
    pub identity: Identity,
    /// Its record time, in milliseconds.
    pub timestamp: i64,
}

/// A record to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// The caller's name for this record, never used for another one.
    pub token: u64,
    /// Where it stands.
    pub place: Place,
    /// Its lane; `None` gives it a lane of its own.
    pub lane: Option<Lane>,
    /// When it is too late to start or to go on, in milliseconds.
    pub deadline: Option<i64>,
    /// What it weighs while it is queued. A Kafka record is below 2 GiB, so `u32` holds it, and no
    /// sum of these can overflow.
    pub nbytes: u32,
    /// Which event it is; `None` is never a duplicate.
    pub identity: Option<Identity>,
    /// Its record time, in milliseconds.
    pub timestamp: i64,
    /// What its run may spend.
    pub budget: Budget,
}

/// Why a record was settled without being run by this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its deadline passed before it started, or leaves no time for another attempt. Publish the
    /// failure, then report `acknowledged`: until then it keeps its lane and its offset. It holds no
    /// slot.
    Expired,
    /// It failed for the last time. Publish that, then report `acknowledged`, as for `Expired`.
    Exhausted,
    /// The same event is at a lower offset of the same partition. It is done; forget this copy.
    Duplicate,
    /// Its partition is gone. Forget it.
    Fenced,
    /// It was read under another assignment, or below the position of this one. Forget it.
    Stale,
    /// The machine knows this offset already, or it was done before a restart. Forget this copy.
    Redelivered,
}

impl Reason {
    /// The word for it across the boundary.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Exhausted => "exhausted",
            Self::Duplicate => "duplicate",
            Self::Fenced => "fenced",
            Self::Stale => "stale",
            Self::Redelivered => "redelivered",
        }
    }
}

/// Everything to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Tokens to start, in admission order.
    pub start: Vec<u64>,
    /// Tokens whose task is to be cancelled: past their time, or their partition was lost. Told once
    /// each; the slot is free when `executed` is reported.
    pub cancel: Vec<u64>,
    /// Tokens settled without a run of this turn, in the order it happened.
    pub settled: Vec<(u64, Reason)>,
    /// Failed runs that will be tried again: the token, how many attempts failed, and the wait in
    /// milliseconds, which the retry budget may prolong.
    pub retries: Vec<(u64, u32, u64)>,
    /// Calls that may be made now, in the order they were asked for.
    pub granted: Vec<u64>,
    /// Calls that may not be made.
    pub refused: Vec<(u64, Refusal)>,
    /// Partitions with their next offset to read, by partition: those where it advanced, or where
    /// more is done above it.
    pub commits: Vec<(u32, u64)>,
    /// Partitions to pause, by partition.
    pub pause: Vec<u32>,
    /// Partitions to resume, by partition.
    pub resume: Vec<u32>,
    /// When to call `turn` again even if nothing happens, in milliseconds.
    pub wake_at: Option<i64>,
}
