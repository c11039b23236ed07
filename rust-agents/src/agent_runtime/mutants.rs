//! Mutants exist to test the tests: each is one fault that somebody could have made in this runtime,
//! put in on purpose, and the simulation must notice every one.
//!
//! Without the feature `mutants` nothing of this is compiled, and `mutant!` is the constant `false`.

use std::cell::Cell;

/// Lists every mutant once: its name, and what is wrong with it.
macro_rules! mutants {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// A fault of ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $what])+ $name,)+
        }

        impl Mutant {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What is wrong with it.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($what,)+),)+
                }
            }
        }
    };
}

mutants! {
    /// an offset is done when its run ends, not when its result is acknowledged
    CommitEarly,
    /// the commit is one after the highest offset received, finished or not
    CommitPastLowest,
    /// what was told before a partition was adopted is not told again
    CommitNotTold,
    /// what is done above a commit is encoded from one offset too high
    DoneSetOffByOne,
    /// what is done above a commit is decoded from one offset too high
    DoneSetWrongBase,
    /// starts go on however large the set of done offsets gets
    DoneLimitForgotten,
    /// the highest offset started is not within the reach
    ReachOffByOne,
    /// the epoch of an offer is not looked at
    IgnoreEpoch,
    /// the position of an assignment is not looked at
    IgnorePosition,
    /// an offset that is known is taken in again
    IgnoreRedelivery,
    /// records are taken in between the begin and the end of a rebalance
    AcceptWhileSuspended,
    /// runs start between the begin and the end of a rebalance
    StartWhileSuspended,
    /// records expire between the begin and the end of a rebalance
    ExpireWhileSuspended,
    /// what is adopted is fenced all the same
    AdoptNothing,
    /// what is not adopted is kept all the same
    AdoptEverything,
    /// a run that ends after its partition was lost is not fenced
    FencedRunPublishes,
    /// a run whose partition was lost is not cancelled
    FencedRunGoesOn,
    /// the lane of a fenced run is free before it ends
    FencedLaneReleased,
    /// queued records of a lost partition are not settled
    FencedInSilence,
    /// a lane moves on when a run ends, not when its result is acknowledged
    LaneReleasedEarly,
    /// every record has a lane of its own
    LaneIgnored,
    /// a failed run lets the next one of its lane pass
    ReorderOnRetry,
    /// a retry starts at once, whatever backoff was told
    RetryWithoutBackoff,
    /// the backoff is up to three times as long as it may be
    BackoffWithoutEnd,
    /// the wait that a failure asks for is ignored
    RetryAfterIgnored,
    /// a retry is planned for a time after the deadline
    RetryPastDeadline,
    /// one attempt more than there may be
    OneAttemptTooMany,
    /// one attempt less than there may be
    OneAttemptTooFew,
    /// retries cost nothing
    RetryBudgetIgnored,
    /// a failed run keeps its slot while it waits
    SlotKeptByBackoff,
    /// a fenced run never gives its slot back
    SlotLeaked,
    /// one run more than there are slots
    OneSlotTooMany,
    /// queued records pause nothing
    RecordLimitForgotten,
    /// queued bytes pause nothing
    ByteLimitForgotten,
    /// queued bytes of all partitions together pause nothing
    FloodForgotten,
    /// a paused partition is never resumed
    ResumeForgotten,
    /// a run is not cancelled at its deadline
    DeadlineDropped,
    /// a run that is tried again has no deadline any more
    DeadlineLostByRetry,
    /// a run is not cancelled when it takes too long
    TimeoutDropped,
    /// a queued record never expires
    ExpiryForgotten,
    /// nobody is told when to wake for a cancellation
    WakeForgotten,
    /// a repeated event runs again
    SkipDedupe,
    /// an event of another partition counts as a repetition
    DedupeAcrossPartitions,
    /// a repetition is recognized however long ago the first one was
    DedupeForAges,
    /// the window forgets two offsets too early
    DedupeTooNarrow,
    /// what was seen before a restart is not noted
    SeenForgotten,
    /// a repetition is skipped, but its offset is not done
    DuplicateNotDone,
    /// what may have killed the process runs like everything else
    CareIgnored,
    /// what runs first after a crash runs in order, but not alone
    CareInCrowds,
    /// a run spends what it has not got
    BudgetIgnored,
    /// a run that is tried again has no budget any more
    BudgetLostByRetry,
    /// what a call really cost is not booked, and what was reserved is not given back
    SpendNotSettled,
    /// a call that is not made is not given back
    CallNotGivenBack,
    /// a call that waits is not refused when its run is cancelled
    AskForgottenByCancel,
    /// calls are granted as fast as they come
    RateIgnored,
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Puts a fault into every machine of this thread, or takes it out.
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

pub(crate) fn is_active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}
