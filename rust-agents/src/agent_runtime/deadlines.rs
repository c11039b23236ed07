//! Deadlines exist so that one timer of the caller serves every record; they never read a clock and
//! never decide what a passed deadline means.

use std::collections::BTreeSet;

/// Points in time by token, earliest first; on the same millisecond the smaller token first.
///
/// Kept exact (a disarmed entry is gone), so its size is bounded by the records it is armed for and
/// not by how far away their deadlines are.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    armed: BTreeSet<(i64, u64)>,
}

impl Deadlines {
    /// Watches a token.
    pub(crate) fn arm(&mut self, at: i64, token: u64) {
        self.armed.insert((at, token));
    }

    /// Stops watching what was armed with the same arguments.
    pub(crate) fn disarm(&mut self, at: i64, token: u64) {
        self.armed.remove(&(at, token));
    }

    /// Takes out the earliest token whose time has come.
    pub(crate) fn pop_due(&mut self, now: i64) -> Option<u64> {
        if self.earliest()? > now {
            return None;
        }
        self.armed.pop_first().map(|(_, token)| token)
    }

    /// The next point in time of interest.
    pub(crate) fn earliest(&self) -> Option<i64> {
        self.armed.first().map(|&(at, _)| at)
    }
}
