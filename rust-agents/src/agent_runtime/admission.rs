//! Admission exists to bound what runs at once and what waits in memory; it never refuses a record,
//! because an offered record is in memory already. It pauses partitions instead.

use std::collections::VecDeque;

use super::limits::Limits;

/// A flood is this many times the queued bytes of one partition, summed over all of them.
const FLOOD_FACTOR: u64 = 4;

/// What waits to be started: of one partition, or of all together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Backlog {
    pub(crate) fn add(&mut self, nbytes: u32) {
        self.records += 1;
        self.bytes += u64::from(nbytes);
    }

    pub(crate) fn subtract(&mut self, nbytes: u32) {
        self.records -= 1;
        self.bytes -= u64::from(nbytes);
    }
}

/// The slots, the runs ready for one, and the rule for pausing.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    /// Heads of lanes as (place in the line, token), first come first served, so no lane starves. An
    /// entry stays here when its record is settled meanwhile; the composer skips it.
    pub(crate) ready: VecDeque<(u64, u64)>,
    /// Places given away so far.
    places: u64,
    executing: u64,
    /// What waits in all partitions together.
    pub(crate) backlog: Backlog,
    flooded: bool,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ready: VecDeque::new(),
            places: 0,
            executing: 0,
            backlog: Backlog::default(),
            flooded: false,
        }
    }

    pub(crate) fn slots(&self) -> u64 {
        self.limits.slots
    }

    pub(crate) fn executing(&self) -> u64 {
        self.executing
    }

    pub(crate) fn has_free_slot(&self) -> bool {
        self.executing < self.limits.slots + u64::from(mutant!(OneSlotTooMany))
    }

    pub(crate) fn take_slot(&mut self) {
        self.executing += 1;
    }

    pub(crate) fn free_slot(&mut self) {
        self.executing -= 1;
    }

    /// Puts a token at the end of the line, and answers its place.
    pub(crate) fn line_up(&mut self, token: u64) -> u64 {
        self.places += 1;
        self.ready.push_back((self.places, token));
        self.places
    }

    /// Puts entries back to where they stood.
    pub(crate) fn line_up_again(&mut self, entries: &mut Vec<(u64, u64)>) {
        self.ready.extend(entries.drain(..));
        self.ready.make_contiguous().sort_unstable();
    }

    /// Measures the sum of all partitions; true when the flood came or went, and so every partition
    /// is to be judged again. It comes above four times the bytes of one partition, and goes at half
    /// of that.
    pub(crate) fn flood_turned(&mut self) -> bool {
        let high = self.limits.max_queued_bytes * FLOOD_FACTOR;
        let mark = if self.flooded { high / 2 } else { high };
        let flooded = self.backlog.bytes > mark && !mutant!(FloodForgotten);
        std::mem::replace(&mut self.flooded, flooded) != flooded
    }

    /// Whether a partition is to be paused from now on. It pauses above either limit, or while
    /// flooded when it has anything queued; it resumes when there is no flood and both of its
    /// measures are at or below half.
    pub(crate) fn pauses(&self, paused: bool, partition: Backlog) -> bool {
        let Limits { max_queued_records, max_queued_bytes, .. } = self.limits;
        if paused {
            mutant!(ResumeForgotten)
                || self.flooded
                || partition.records > max_queued_records / 2
                || partition.bytes > max_queued_bytes / 2
        } else {
            (self.flooded && partition.records > 0)
                || (partition.records > max_queued_records && !mutant!(RecordLimitForgotten))
                || (partition.bytes > max_queued_bytes && !mutant!(ByteLimitForgotten))
        }
    }
}
