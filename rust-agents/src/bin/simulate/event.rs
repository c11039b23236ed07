//! An event exists to say what happens at one point in time, and which of two comes first.

use std::cmp::Ordering;

use crate::plan::Fault;

/// What happens at a point in time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Published {
        record: usize,
    },
    Fault(Fault),
    Restarted {
        member: usize,
    },
    /// At a member; it is for one of its lives, and waits while the member is frozen.
    At {
        member: usize,
        life: u32,
        what: Arrival,
    },
    Appended {
        publishing: usize,
    },
    CommitArrived {
        committing: usize,
    },
    SessionEnded {
        member: usize,
        life: u32,
    },
    /// Whoever has not joined by now is out.
    JoiningEnded {
        round: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    Turn,
    Alarm { alarm: u32 },
    Records { partition: usize, epoch: u64, from: u64 },
    RunEnded { token: u64, attempt: u32 },
    CallEnded { ask: u64, attempt: u32 },
    ResultsAcknowledged { publishing: usize },
    CommitDue,
    CommitAnswered { committing: usize, done: bool },
    RebalanceBegan { round: u64 },
    DrainEnded { generation: u64 },
    Assigned { generation: u64 },
    Restored { partition: usize, chain: u32 },
    Expelled,
}

pub(crate) struct Scheduled {
    pub(crate) at: i64,
    pub(crate) order: u64,
    pub(crate) event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The heap gives its greatest first, and that is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
