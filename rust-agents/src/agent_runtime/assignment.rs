//! The assignment exists to say which partitions are ours, and since when; it never knows what is
//! done with their records.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::Backlog;
use super::dedupe::Window;
use super::gate::Gate;
use super::misuse::Misuse;
use super::offsets::Offsets;
use super::record::Record;
use super::turn::Place;

/// One partition of a complete assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// The caller's number for a topic partition.
    pub partition: u32,
    /// The name of this ownership: records read under another one are stale.
    pub epoch: u64,
    /// The offset read next, which is the committed one. Offers below it are stale.
    pub position: u64,
    /// The partition came straight back, and nobody else committed: what is known of it stays
    /// valid under the new epoch. Without effect on a partition that was not known.
    pub adopt: bool,
    /// The done set that was committed together with `position`, as [`Commit::done`] gave it. What
    /// is no encoding of a set holds nothing. Without effect on an adopted partition.
    pub done: Box<[u8]>,
    /// Offsets below it run one at a time, in order, before anything later of this partition, and so
    /// do runs without an offset until these are done. Without effect on an adopted partition.
    pub careful_until: u64,
}

/// What to commit for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The next offset to read.
    pub offset: u64,
    /// One after the highest offset ever started: what may have been in flight in a crash.
    pub reach: u64,
    /// What is done above `offset`, for [`Assigned::done`]; empty when nothing is.
    pub done: Vec<u8>,
}

/// What is known of a partition that is ours.
#[derive(Debug)]
pub(crate) struct Partition {
    epoch: u64,
    position: u64,
    pub(crate) offsets: Offsets,
    pub(crate) backlog: Backlog,
    pub(crate) paused: bool,
    pub(crate) window: Window,
    pub(crate) gate: Gate,
    /// Runs without an offset, by token.
    pub(crate) without_offset: BTreeSet<u64>,
    /// Records that started or expired, and are not done.
    pub(crate) active: u64,
    /// One after the highest offset ever started.
    reach: u64,
    /// The done set is about as large as it may get.
    full: bool,
    /// Entries of the line that may not start while it is full.
    pub(crate) parked: Vec<(u64, u64)>,
    /// The commit last told to the caller, or where the log says it stands. `None` when more is done
    /// above it than was told.
    told: Option<u64>,
    touched: bool,
}

impl Partition {
    fn new(assigned: &Assigned) -> Self {
        let &Assigned { epoch, position, careful_until, .. } = assigned;
        Self {
            epoch,
            position,
            offsets: Offsets::from_position(position, &assigned.done),
            backlog: Backlog::default(),
            paused: false,
            window: Window::default(),
            gate: Gate::until(if mutant!(CareIgnored) { 0 } else { careful_until }),
            without_offset: BTreeSet::new(),
            active: 0,
            reach: position,
            full: false,
            parked: Vec::new(),
            told: Some(position),
            touched: false,
        }
    }

    /// Goes on with what is known. A commit that was told may have failed in the rebalance: `told`
    /// goes back to what the log says, so it is told again.
    fn adopt(self, assigned: &Assigned) -> Self {
        let &Assigned { epoch, position, .. } = assigned;
        let told = self.offsets.done().is_empty().then_some(position);
        let told = if mutant!(CommitNotTold) { self.told } else { told };
        Self { epoch, position, paused: false, told, ..self }
    }

    /// The commit to tell, if there is news.
    pub(crate) fn next_commit(&mut self) -> Option<u64> {
        let base = self.offsets.advance();
        let news = self.told.is_none_or(|told| base > told);
        self.told = Some(base).max(self.told);
        news.then_some(base)
    }

    pub(crate) fn commit(&self, most_done_bytes: usize) -> Commit {
        let offset = self.offsets.floor();
        let base = offset + u64::from(mutant!(DoneSetOffByOne));
        let done = self.offsets.done().encode(base, most_done_bytes);
        Commit { offset, reach: self.reach.max(offset), done }
    }

    /// Takes note that an offset is done.
    pub(crate) fn finish(&mut self, offset: u64) {
        self.offsets.finish(offset);
        self.told = None;
    }

    /// Takes in a record that is done already.
    pub(crate) fn receive_done(&mut self, offset: u64) {
        self.offsets.receive_done(offset);
        self.told = None;
    }

    /// Measures the done set, before starts are decided.
    pub(crate) fn measure(&mut self, most_done_bytes: u64) {
        let base = self.offsets.advance();
        let len = self.offsets.done().encoded_len(base);
        self.full = len * 4 >= most_done_bytes * 3 && len > 0 && self.offsets.blocked();
        self.full &= !mutant!(DoneLimitForgotten);
    }

    pub(crate) fn full(&self) -> bool {
        self.full
    }

    /// Whether a record may start. While the done set is full, only what helps: the record everything
    /// above waits for, a run that has no offset or is tried again, or, because the former may itself
    /// wait behind another one in its lane, a single one of any kind.
    pub(crate) fn may_start(&self, record: &Record) -> bool {
        !self.full
            || self.active == 0
            || record.failed > 0
            || record.offset.is_none_or(|it| it == self.offsets.floor())
    }

    /// Takes note that a record will be done without another start, or has started once.
    pub(crate) fn activate(&mut self, record: &Record) {
        if record.offset.is_some() && record.failed == 0 {
            self.active += 1;
        }
    }

    /// Takes note of a start.
    pub(crate) fn start(&mut self, record: &Record) {
        self.activate(record);
        if let Some(offset) = record.offset {
            let next = offset.saturating_add(u64::from(!mutant!(ReachOffByOne)));
            self.reach = self.reach.max(next);
        }
    }
}

/// All partitions that are ours.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    /// In order, so that what happens to all of them happens in the same order every time.
    partitions: BTreeMap<u32, Partition>,
    /// Partitions that changed in this turn, each once.
    touched: Vec<u32>,
    suspended: bool,
}

impl Assignment {
    pub(crate) fn check(assigned: &[Assigned]) -> Result<(), Misuse> {
        let mut seen = BTreeSet::new();
        match assigned.iter().find(|it| !seen.insert(it.partition)) {
            Some(twice) => Err(Misuse::PartitionTwice { partition: twice.partition }),
            None => Ok(()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Between the begin and the end of a rebalance, nothing is accepted and nothing starts.
    pub(crate) fn suspended(&self) -> bool {
        self.suspended
    }

    pub(crate) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Takes over a complete assignment, and answers the partitions whose past is over, in order.
    /// Pauses are forgotten, as the client forgets them.
    pub(crate) fn replace(&mut self, assigned: &[Assigned]) -> Vec<Partition> {
        self.suspended = false;
        let mut before = std::mem::take(&mut self.partitions);
        for it in assigned {
            // The rest of `before` is lost, so what is not adopted stays in it.
            let adopt = it.adopt || mutant!(AdoptEverything);
            let adopted =
                if adopt && !mutant!(AdoptNothing) { before.remove(&it.partition) } else { None };
            let current = match adopted {
                Some(known) => known.adopt(it),
                None => Partition::new(it),
            };
            self.partitions.insert(it.partition, current);
        }
        self.touch_all();
        before.into_values().collect()
    }

    /// The partition a record read at `place` belongs to; `None` if it is stale.
    pub(crate) fn accept(&mut self, place: Place) -> Option<&mut Partition> {
        if self.suspended && !mutant!(AcceptWhileSuspended) {
            return None;
        }
        self.touch(place.partition).filter(|it| {
            let current = mutant!(IgnoreEpoch) || it.epoch == place.epoch;
            let above = |offset| mutant!(IgnorePosition) || it.position <= offset;
            current && place.offset.is_none_or(above)
        })
    }

    /// A partition about to be changed.
    pub(crate) fn touch(&mut self, partition: u32) -> Option<&mut Partition> {
        let known = self.partitions.get_mut(&partition)?;
        if !std::mem::replace(&mut known.touched, true) {
            self.touched.push(partition);
        }
        Some(known)
    }

    pub(crate) fn touch_all(&mut self) {
        self.touched.clear();
        for (&partition, known) in &mut self.partitions {
            known.touched = true;
            self.touched.push(partition);
        }
    }

    /// Looks at the partitions touched since the last visit, in no order.
    pub(crate) fn look_at_touched(&mut self, mut look: impl FnMut(&mut Partition)) {
        for partition in &self.touched {
            if let Some(known) = self.partitions.get_mut(partition) {
                look(known);
            }
        }
    }

    /// Visits the partitions touched since the last visit, in order.
    pub(crate) fn visit_touched(&mut self, mut visit: impl FnMut(u32, &mut Partition)) {
        self.touched.sort_unstable();
        for partition in self.touched.drain(..) {
            if let Some(known) = self.partitions.get_mut(&partition) {
                known.touched = false;
                visit(partition, known);
            }
        }
    }

    pub(crate) fn get(&self, partition: u32) -> Option<&Partition> {
        self.partitions.get(&partition)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values()
    }
}
