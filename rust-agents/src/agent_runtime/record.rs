//! A record exists to remember one token from the moment it is taken in until it is settled; it
//! never outlives its place in a partition, except while a task of a lost one winds down.

use super::lanes::Lane;

/// One token that was taken in.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) lane: Option<Lane>,
    pub(crate) deadline: Option<i64>,
    pub(crate) nbytes: u32,
    /// Held records that are done with this one.
    pub(crate) covers: Box<[u64]>,
    pub(crate) state: State,
}

/// Where a record stands.
///
/// ```text
/// Waiting -> Ready -> Executing -> Unacknowledged -> (gone)
///              |          +-> Fenced -> (gone)             partition lost while executing
///              +-> Unacknowledged                          expired
/// Held -> (gone)                                           with the run that covers it
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Queued, behind another record of its lane.
    Waiting,
    /// Queued, at the head of its lane.
    Ready,
    /// Holds a slot. `end` is what `Deadlines` was armed with; `None` as well once it was cancelled.
    Executing { end: Option<i64>, cancelled: bool },
    /// Its partition is lost, but its task still runs: it holds its slot, and its lane too, because
    /// cancellation is cooperative and two events of one key must not run at once.
    Fenced,
    /// Its result is on the way; it holds its lane and its offset.
    Unacknowledged,
    /// A join part that waits for the run that covers it.
    Held { covered_by: Option<u64> },
}
