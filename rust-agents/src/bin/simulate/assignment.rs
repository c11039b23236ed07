//! An assignment exists to hand partitions over: given up and drained, taken over and restored.

use std::collections::VecDeque;
use std::mem::take;

use _rust::{Assigned, Seen};

use crate::event::{Arrival, Event};
use crate::member::{Owned, mark};
use crate::offers::identity_of;
use crate::tally::Count;
use crate::verdict::Verdict;
use crate::world::{World, tell};

impl World {
    pub(crate) fn revoke(&mut self, member: usize, round: u64) -> Verdict {
        let it = &self.members[member];
        if it.draining || (it.leaves.is_none() && !self.group.preparing) {
            return Ok(());
        }
        if it.leaves.is_none() && (self.group.round != round || self.group.joined[member]) {
            return Ok(());
        }
        if self.group.has(member, it.life) && it.generation != self.group.generation {
            // Its assignment is still on the way.
            self.send(member, 1, Arrival::RebalanceBegan { round });
            return Ok(());
        }
        self.begin_drain(member)
    }

    pub(crate) fn begin_drain(&mut self, member: usize) -> Verdict {
        self.members[member].draining = true;
        let generation = self.members[member].generation;
        let drain = self.plan.drain;
        self.send(member, drain, Arrival::DrainEnded { generation });
        self.turn(member, true, None)
    }

    pub(crate) fn end_drain(&mut self, member: usize) -> Verdict {
        if !self.members[member].draining {
            return Ok(());
        }
        self.members[member].draining = false;
        self.commit(member)?;
        let Some(back_after) = self.members[member].leaves else {
            self.join(member);
            return Ok(());
        };
        let it = &mut self.members[member];
        it.alive = false;
        let life = it.life;
        self.schedule(self.now + back_after, Event::Restarted { member });
        if self.group.has(member, life) {
            self.group.members[member] = None;
            self.rebalance();
        }
        Ok(())
    }

    pub(crate) fn assign(&mut self, member: usize, generation: u64) -> Verdict {
        let it = &self.members[member];
        if generation != self.group.generation || !self.group.has(member, it.life) {
            return Ok(());
        }
        let straight = it.generation + 1 == generation;
        let mut assigned = Vec::with_capacity(self.partitions.len());
        for number in 0..self.partitions.len() {
            if self.partitions[number].owner != Some(member) {
                continue;
            }
            let adopt = straight && self.members[member].owned[number].is_some();
            let committed = &self.partitions[number].committed;
            let careful = self.dice.one_in(3);
            assigned.push(Assigned {
                partition: number as u32,
                epoch: generation,
                position: committed.offset,
                adopt,
                done: committed.done.clone().into_boxed_slice(),
                careful_until: if careful { committed.reach } else { 0 },
            });
        }
        tell!(self, "member {member} is assigned {assigned:?}");
        self.members[member].generation = generation;
        self.turn(member, false, Some(assigned))
    }

    /// The driver's side of a new assignment, before the machine hears of it.
    pub(crate) fn take_over(&mut self, member: usize, assigned: &[Assigned]) {
        let mut before = take(&mut self.members[member].owned);
        self.members[member].owned = vec![None; self.partitions.len()];
        for it in assigned {
            let number = it.partition as usize;
            let position = it.position;
            let known = if it.adopt { before[number].take() } else { None };
            let fresh = known.is_none();
            self.tally.add(if fresh { Count::Taken } else { Count::Adopted }, 1);
            let known = known.unwrap_or_else(|| {
                self.chains += 1;
                let committed = &self.partitions[number].committed;
                let mut finished = Vec::new();
                for offset in &committed.finished {
                    mark(&mut finished, *offset);
                }
                Owned {
                    careful_until: it.careful_until,
                    finished,
                    sighted: Vec::new(),
                    unfinished: Vec::new(),
                    received: position,
                    joins: Vec::new(),
                    chain: self.chains,
                    epoch: it.epoch,
                    position,
                    next: position,
                    restored: None,
                    reading: false,
                    paused: false,
                    outbox: VecDeque::new(),
                    publishing: false,
                    queued_records: 0,
                    queued_bytes: 0,
                    uncommitted: false,
                    reach: position,
                }
            });
            let chain = known.chain;
            self.members[member].owned[number] = Some(Owned {
                epoch: it.epoch,
                position,
                next: position,
                reading: false,
                paused: false,
                ..known
            });
            if fresh {
                let takes = self.dice.between(1, 12);
                self.send(member, takes, Arrival::Restored { partition: number, chain });
            }
        }
    }

    pub(crate) fn restore(&mut self, member: usize, partition: usize, chain: u32) {
        if !self.members[member].owns(partition, chain) {
            return;
        }
        let position = self.members[member].owned[partition].as_ref().map_or(0, |it| it.position);
        let log = &self.partitions[partition].records;
        let below = log.partition_point(|it| self.records[*it].offset < position);
        // No result is older than its record.
        let since = log.get(below).map_or(i64::MAX, |it| self.records[*it].appended);
        let outcomes = &self.partitions[partition].outcomes;
        let restored = (outcomes.partition_point(|it| it.appended < since), outcomes.len());
        tell!(self, "member {member} restored {partition} from results {restored:?}");
        let window = position.saturating_sub(self.plan.limits.dedupe_records);
        for place in 0..below {
            let record = &self.records[self.partitions[partition].records[place]];
            if record.offset < window {
                continue;
            }
            let seen = Seen {
                partition: partition as u32,
                offset: record.offset,
                identity: identity_of(self.subject(record.subject)),
                timestamp: record.appended,
            };
            self.members[member].pending.seen.push(seen);
        }
        if let Some(owned) = &mut self.members[member].owned[partition] {
            owned.restored = Some(restored);
        }
        for place in 0..self.partitions[partition].fired.len() {
            let join = self.partitions[partition].fired[place];
            if self.progress[join].first_outcome.is_none() {
                self.offer_join(member, partition, join);
            }
        }
        self.turn_soon(member);
        self.read(member, partition);
    }
}
