//! Offsets exist to answer how far a partition may be committed; they never look past what was
//! received, so gaps left by compaction and transactions are harmless.

use std::collections::BTreeMap;

/// What was received of one partition and is not below the floor.
#[derive(Debug)]
pub(crate) struct Offsets {
    received: BTreeMap<u64, Progress>,
    /// Everything received below it is done and forgotten.
    floor: u64,
    /// One after the highest received.
    next: u64,
    done: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Queued, executing, waiting for acknowledgement, or held, under this token.
    Unfinished(u64),
    /// Received and refused. It is not done, so nothing is committed past it, and whoever brings it
    /// again is welcome.
    Refused,
    /// Acknowledged.
    Done,
}

impl Offsets {
    /// A partition read from `position` on, of which nothing was received yet.
    pub(crate) fn from_position(position: u64) -> Self {
        Self { received: BTreeMap::new(), floor: position, next: position, done: 0 }
    }

    /// Whether a copy of this offset is here, or was here and is done.
    pub(crate) fn know(&self, offset: u64) -> bool {
        offset < self.floor
            || matches!(self.received.get(&offset), Some(Progress::Unfinished(_) | Progress::Done))
    }

    /// Takes a record in as unfinished.
    pub(crate) fn receive(&mut self, offset: u64, token: u64) {
        self.insert(offset, Progress::Unfinished(token));
    }

    /// Notes a record that was received but not taken in.
    pub(crate) fn refuse(&mut self, offset: u64) {
        self.insert(offset, Progress::Refused);
    }

    /// Marks a record done.
    pub(crate) fn finish(&mut self, offset: u64) {
        if let Some(progress @ Progress::Unfinished(_)) = self.received.get_mut(&offset) {
            *progress = Progress::Done;
            self.done += 1;
        }
    }

    /// Forgets the finished prefix, and answers the next offset to read after a restart: the lowest
    /// unfinished one, or one after the highest when everything received is done.
    pub(crate) fn advance(&mut self) -> u64 {
        while let Some(lowest) = self.received.first_entry() {
            if *lowest.get() != Progress::Done {
                break;
            }
            lowest.remove();
            self.done -= 1;
        }
        self.floor = self.received.first_key_value().map_or(self.next, |(&offset, _)| offset);
        self.floor
    }

    /// The tokens of all unfinished records, by offset.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = u64> {
        self.received.values().filter_map(|progress| match progress {
            Progress::Unfinished(token) => Some(*token),
            Progress::Refused | Progress::Done => None,
        })
    }

    /// How many are done but wait for a lower one.
    pub(crate) fn done_above_base(&self) -> usize {
        self.done
    }

    fn insert(&mut self, offset: u64, progress: Progress) {
        self.received.insert(offset, progress);
        self.next = self.next.max(offset.saturating_add(1));
    }
}
