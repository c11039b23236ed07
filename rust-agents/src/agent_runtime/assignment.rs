//! The assignment exists to say which partitions are ours, and since when; it never knows what is
//! done with their records.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::Backlog;
use super::misuse::Misuse;
use super::offsets::Offsets;
use super::turn::Place;

/// One partition of a complete assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// What is known of a partition that is ours.
#[derive(Debug)]
pub(crate) struct Partition {
    epoch: u64,
    position: u64,
    pub(crate) offsets: Offsets,
    pub(crate) backlog: Backlog,
    pub(crate) paused: bool,
    /// The commit last told to the caller, or where the log says it stands.
    told: u64,
    touched: bool,
}

impl Partition {
    /// The commit to tell, if it advanced.
    pub(crate) fn next_commit(&mut self) -> Option<u64> {
        let base = self.offsets.advance();
        (base > self.told).then(|| {
            self.told = base;
            base
        })
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
        for &Assigned { partition, epoch, position, adopt } in assigned {
            // The rest of `before` is lost, so what is not adopted stays in it.
            let adopted = if adopt { before.remove(&partition) } else { None };
            let current = match adopted {
                // A commit that was told may have failed in the rebalance: `told` goes back to what
                // the log says, so it is told again.
                Some(known) => {
                    Partition { epoch, position, paused: false, told: position, ..known }
                }
                None => Partition {
                    epoch,
                    position,
                    offsets: Offsets::from_position(position),
                    backlog: Backlog::default(),
                    paused: false,
                    told: position,
                    touched: false,
                },
            };
            self.partitions.insert(partition, current);
        }
        self.touch_all();
        before.into_values().collect()
    }

    /// The partition a record read at `place` belongs to; `None` if it is stale.
    pub(crate) fn accept(&mut self, place: Place) -> Option<&mut Partition> {
        if self.suspended {
            return None;
        }
        self.touch(place.partition)
            .filter(|it| it.epoch == place.epoch && it.position <= place.offset)
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

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values()
    }
}
