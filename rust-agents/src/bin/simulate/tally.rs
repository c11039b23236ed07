//! The tally exists to show that schedules are worth their time: how often what happened in them.

use _rust::{Reason, Turn};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Events,
    Turns,
    Starts,
    /// Results in the log that were there already, where that is allowed.
    Copies,
    Crashes,
    /// Runs that executed when their process died.
    Killed,
    /// Partitions that came straight back.
    Adopted,
    /// Partitions that came from nobody or from elsewhere.
    Taken,
    Canceled,
    Retried,
    Granted,
    Refused,
    Paused,
    Expired,
    Exhausted,
    Duplicate,
    Fenced,
    Stale,
    Redelivered,
}

/// In the order of `Count`.
const NAMES: &[&str] = &[
    "events",
    "turns",
    "starts",
    "permitted copies",
    "crashes",
    "runs killed by them",
    "partitions adopted",
    "partitions taken",
    "cancels",
    "retries",
    "calls granted",
    "calls refused",
    "pauses",
    "expired",
    "exhausted",
    "duplicates",
    "fenced",
    "stale",
    "redelivered",
];

/// Counts of one schedule, or of many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally([u64; NAMES.len()]);

impl Tally {
    pub(crate) fn of(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    pub(crate) fn add(&mut self, count: Count, number: usize) {
        self.0[count as usize] += number as u64;
    }

    pub(crate) fn add_turn(&mut self, turn: &Turn) {
        self.add(Count::Turns, 1);
        self.add(Count::Canceled, turn.cancel.len());
        self.add(Count::Retried, turn.retries.len());
        self.add(Count::Granted, turn.granted.len());
        self.add(Count::Refused, turn.refused.len());
        self.add(Count::Paused, turn.pause.len());
        for (_, reason) in &turn.settled {
            let count = match reason {
                Reason::Expired => Count::Expired,
                Reason::Exhausted => Count::Exhausted,
                Reason::Duplicate => Count::Duplicate,
                Reason::Fenced => Count::Fenced,
                Reason::Stale => Count::Stale,
                Reason::Redelivered => Count::Redelivered,
            };
            self.add(count, 1);
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (index, number) in other.0.iter().enumerate() {
            self.0[index] += number;
        }
    }

    /// The means, in words.
    pub(crate) fn per(&self, schedules: u64) -> String {
        let mut words = Vec::new();
        for (index, name) in NAMES.iter().enumerate() {
            words.push(format!("{name} {:.2}", self.0[index] as f64 / schedules.max(1) as f64));
        }
        words.join(", ")
    }
}
