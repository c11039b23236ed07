//! A record exists to remember one token from the moment it is taken in until it is settled; it
//! never outlives its place in a partition, except while a task of a lost one winds down.

use super::lanes::Lane;
use super::spend::Purse;

/// One token that was taken in.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) partition: u32,
    /// `None` for a run without a record.
    pub(crate) offset: Option<u64>,
    pub(crate) lane: Option<Lane>,
    pub(crate) deadline: Option<i64>,
    pub(crate) nbytes: u32,
    /// How many attempts failed.
    pub(crate) failed: u32,
    /// What it spends in all attempts; `None` until it has a budget or asks for something.
    pub(crate) purse: Option<Box<Purse>>,
    pub(crate) state: State,
}

/// Where a record stands.
///
/// ```text
/// Waiting -> Ready -> Executing -> Unacknowledged -> (gone)
///             ^|          |+-> Fenced -> (gone)            partition lost while executing
///             |+----------|--> Unacknowledged              expired
///             +- Backoff <+                                failed
///                  +-> Unacknowledged                      expired
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Queued, behind another record of its lane or at the gate of its partition.
    Waiting,
    /// Queued, at the head of its lane, with its place in the line.
    Ready { place: u64 },
    /// Holds a slot. `end` is what `Deadlines` was armed with; `None` as well once it was cancelled.
    Executing { end: Option<i64>, cancelled: bool },
    /// Its partition is lost, but its task still runs: it holds its slot, and its lane too, because
    /// cancellation is cooperative and two events of one key must not run at once.
    Fenced,
    /// Failed, and holds its lane and its offset, but no slot. It is tried again when `due`, or
    /// expires, whichever it was armed for.
    Backoff { due: Option<i64>, expires: Option<i64> },
    /// Its result is on the way; it holds its lane and its offset.
    Unacknowledged,
}
