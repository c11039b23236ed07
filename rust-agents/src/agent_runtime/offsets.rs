//! Offsets exist to answer how far a partition may be committed; they never look past what was
//! received, so gaps left by compaction and transactions are harmless.

use std::collections::BTreeMap;

use super::done_set::DoneSet;

/// What was received of one partition and is not below the floor.
#[derive(Debug)]
pub(crate) struct Offsets {
    /// Tokens of the unfinished records: queued, executing, waiting for a retry or an acknowledgement.
    open: BTreeMap<u64, u64>,
    /// Above the floor: received and done, or done before a restart and not received yet.
    done: DoneSet,
    /// Everything received below it is done and forgotten.
    floor: u64,
    /// One after the highest received.
    next: u64,
}

impl Offsets {
    /// A partition read from `position` on, of which nothing was received yet, and of which `done`,
    /// encoded from there on, is done all the same.
    pub(crate) fn from_position(position: u64, done: &[u8]) -> Self {
        Self {
            open: BTreeMap::new(),
            done: DoneSet::decode(done, position + u64::from(mutant!(DoneSetWrongBase))),
            floor: position,
            next: position,
        }
    }

    /// Whether a copy of this offset is here, or was here and is done.
    pub(crate) fn know(&self, offset: u64) -> bool {
        if mutant!(IgnoreRedelivery) {
            return false;
        }
        offset < self.floor || self.open.contains_key(&offset) || self.done.contains(offset)
    }

    /// Takes a record in as unfinished.
    pub(crate) fn receive(&mut self, offset: u64, token: u64) {
        self.open.insert(offset, token);
        self.pass(offset);
    }

    /// Takes a record in as done.
    pub(crate) fn receive_done(&mut self, offset: u64) {
        self.done.insert(offset);
        self.pass(offset);
    }

    /// Notes that a known record was received once more: the first time, after a restart.
    pub(crate) fn pass(&mut self, offset: u64) {
        self.next = self.next.max(offset.saturating_add(1));
    }

    /// Marks a record done.
    pub(crate) fn finish(&mut self, offset: u64) {
        if self.open.remove(&offset).is_some() {
            self.done.insert(offset);
        }
    }

    /// Forgets the finished prefix, and answers the next offset to read after a restart: the lowest
    /// unfinished one, or one after the highest when everything received is done.
    pub(crate) fn advance(&mut self) -> u64 {
        self.floor = self.open.first_key_value().map_or(self.next, |(&offset, _)| offset);
        if mutant!(CommitPastLowest) {
            self.floor = self.next;
        }
        self.done.forget_below(self.floor);
        self.floor
    }

    /// What `advance` answered last.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether something unfinished is at the floor, so that the done set can only grow.
    pub(crate) fn blocked(&self) -> bool {
        !self.open.is_empty()
    }

    /// The tokens of all unfinished records, by offset.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = u64> {
        self.open.values().copied()
    }

    /// What is done above the floor.
    pub(crate) fn done(&self) -> &DoneSet {
        &self.done
    }
}
