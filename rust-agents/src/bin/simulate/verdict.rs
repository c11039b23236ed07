//! A verdict exists to name which promise was broken, and by what.

use std::fmt;

/// The promises, by their numbers in the project's list of invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// I1: every record gets an outcome.
    Lost,
    /// I2: it gets one.
    Repeated,
    /// I4: per key, in offset order and one at a time.
    Order,
    /// I6: a commit never passes an unfinished record.
    Commit,
    /// I7: slots, queued records and bytes are bounded.
    Bounds,
    /// I9: nothing runs past its deadline, and whoever does is told.
    Deadline,
    /// I10: a record that always fails is given up after its attempts.
    Retry,
    /// I11: a fenced epoch says nothing.
    Fence,
    /// Below the careful mark of a partition, one at a time.
    Careful,
    /// I8: no slot is idle while something may run.
    Idle,
    /// Calls per minute.
    Rate,
    /// What a run may spend.
    Spend,
    /// A schedule comes to rest, and nothing is left behind.
    Liveness,
    /// The machine refused what it must take, or panicked.
    Misuse,
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lost => "I1 lost",
            Self::Repeated => "I2 repeated",
            Self::Order => "I4 order",
            Self::Commit => "I6 commit",
            Self::Bounds => "I7 bounds",
            Self::Idle => "I8 idle",
            Self::Deadline => "I9 deadline",
            Self::Retry => "I10 retry",
            Self::Fence => "I11 fence",
            Self::Careful => "careful",
            Self::Rate => "rate",
            Self::Spend => "spend",
            Self::Liveness => "liveness",
            Self::Misuse => "misuse",
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

/// What a check comes to. Boxed, because nearly all of them are fine.
pub(crate) type Verdict<T = ()> = Result<T, Box<Violation>>;

pub(crate) fn broken<T>(invariant: Invariant, what: impl FnOnce() -> String) -> Verdict<T> {
    Err(Box::new(Violation { invariant, what: what() }))
}

/// The words are only made when they are needed.
pub(crate) fn ensure(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { broken(invariant, what) }
}
