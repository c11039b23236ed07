//! These types exist to carry one turn across the boundary; they are plain data and decide nothing.

use super::assignment::Assigned;
use super::lanes::Lane;

/// Everything that happened since the last turn. `Input::default()` is "only time went by".
///
/// The fields are listed in the order the machine handles them.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Runs whose `execute` ended: normally, by an error, or because they were cancelled. Each frees
    /// its slot. Tokens that do not execute are ignored.
    pub executed: Vec<u64>,
    /// Runs (and expired records) whose result is durable. Tokens that are not waiting for this,
    /// such as a run that still executes, are ignored.
    pub acknowledged: Vec<u64>,
    /// A rebalance or the shutdown begins: start nothing and accept nothing until `assigned`.
    pub revoked: bool,
    /// The complete assignment after a rebalance; `None` when nothing changed.
    pub assigned: Option<Vec<Assigned>>,
    /// Join parts that wait for a later record.
    pub held: Vec<Hold>,
    /// Records to run.
    pub offered: Vec<Offer>,
}

/// Where a record stands in the log, and under which assignment it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The caller's number for a topic partition.
    pub partition: u32,
    /// The epoch under which the record was read.
    pub epoch: u64,
    /// Its offset.
    pub offset: u64,
}

/// A record to run.
#[derive(Clone, Debug)]
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
    /// Held records that are done when this one is acknowledged: the parts of a join that fires.
    pub covers: Box<[u64]>,
}

/// A join part that waits: unfinished in its partition, but without slot, lane or queued bytes.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// The caller's name for this record, never used for another one.
    pub token: u64,
    /// Where it stands.
    pub place: Place,
}

/// Why a record was settled without being run by this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its deadline passed before it started. Publish the failure, then report `acknowledged`: until
    /// then it keeps its lane and its offset. It holds no slot.
    Expired,
    /// Its partition is gone, or a part it covers is. Forget it.
    Fenced,
    /// It was read under another assignment, or below the position of this one. Forget it.
    Stale,
    /// The machine knows this offset already. Forget this copy.
    Redelivered,
}

impl Reason {
    /// The word for it across the boundary.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
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
    /// Partitions with their next offset to read, by partition.
    pub commits: Vec<(u32, u64)>,
    /// Partitions to pause, by partition.
    pub pause: Vec<u32>,
    /// Partitions to resume, by partition.
    pub resume: Vec<u32>,
    /// When to call `turn` again even if nothing happens, in milliseconds.
    pub wake_at: Option<i64>,
}
