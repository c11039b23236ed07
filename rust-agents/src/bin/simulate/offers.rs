//! Offers exist to bring the machine what is to be run: records that were read, and joins that fired.

use _rust::{Identity, Lane, Offer, Place};

use crate::broker::Record;
use crate::event::Arrival;
use crate::member::{Run, Stage};
use crate::plan::Subject;
use crate::spending::Used;
use crate::world::World;

impl World {
    /// Asks for records, if that makes sense now.
    pub(crate) fn read(&mut self, member: usize, partition: usize) {
        let it = &mut self.members[member];
        if !it.alive || it.suspended {
            return;
        }
        let Some(owned) = &mut it.owned[partition] else { return };
        if owned.restored.is_none()
            || owned.reading
            || owned.paused
            || owned.next >= self.partitions[partition].end
        {
            return;
        }
        owned.reading = true;
        let (epoch, from) = (owned.epoch, owned.next);
        let takes = self.way();
        self.send(member, takes, Arrival::Records { partition, epoch, from });
    }

    pub(crate) fn offer_records(&mut self, member: usize, partition: usize, epoch: u64, from: u64) {
        let log = &self.partitions[partition].records;
        let first = log.partition_point(|it| self.records[*it].offset < from);
        let last = log.len().min(first + self.plan.batch);
        for place in first..last {
            self.offer_record(member, self.partitions[partition].records[place], epoch);
        }
        let after = self.partitions[partition].records[..last].last().copied();
        let after = after.map_or(from, |it| self.records[it].offset + 1);
        let it = &mut self.members[member];
        if let Some(owned) = &mut it.owned[partition]
            && owned.epoch == epoch
            && owned.reading
            && !it.suspended
        {
            owned.reading = false;
            // Unless it was moved meanwhile.
            if owned.next == from {
                owned.next = after;
            }
        }
        self.read(member, partition);
        self.turn_soon(member);
    }

    fn offer_record(&mut self, member: usize, index: usize, epoch: u64) {
        let Record { partition, subject, .. } = self.records[index];
        let owned = self.members[member].owned[partition].as_ref();
        let (from, to) = owned.and_then(|it| it.restored).unwrap_or_default();
        let restored = &self.partitions[partition].outcomes[from..to];
        let skips = restored.iter().any(|it| it.subject == subject);
        self.offer(member, Some(index), subject, skips, epoch);
    }

    pub(crate) fn offer_join(&mut self, member: usize, partition: usize, join: usize) {
        let Some(owned) = &mut self.members[member].owned[partition] else { return };
        if owned.joins.contains(&join) {
            return;
        }
        owned.joins.push(join);
        let epoch = owned.epoch;
        self.offer(member, None, join, false, epoch);
    }

    /// An adopted partition had no ears for joins that fired while it was suspended.
    pub(crate) fn offer_joins_again(&mut self, member: usize, partition: usize) {
        if self.members[member].owned[partition].as_ref().is_none_or(|it| it.restored.is_none()) {
            return;
        }
        for place in 0..self.partitions[partition].fired.len() {
            let join = self.partitions[partition].fired[place];
            if self.progress[join].first_outcome.is_none() {
                self.offer_join(member, partition, join);
            }
        }
        self.turn_soon(member);
    }

    fn offer(
        &mut self,
        member: usize,
        record: Option<usize>,
        subject: usize,
        skips: bool,
        epoch: u64,
    ) {
        let it = &self.members[member];
        let asked = self.subject(subject);
        let partition = asked.partition;
        let owned = it.owned[partition].as_ref();
        let (offset, nbytes, timestamp) = match record.map(|it| &self.records[it]) {
            Some(record) => (Some(record.offset), record.nbytes, record.appended),
            None => (None, 0, self.now),
        };
        let run = Run {
            record,
            subject,
            partition,
            offset,
            key: asked.key.filter(|_| !skips),
            chain: owned.map_or(0, |it| it.chain),
            stage: Stage::New,
            skips,
            nbytes,
            deadline: self.subject(subject).deadline.filter(|_| !skips).map(|at| at + it.clock),
            end: None,
            cancelled: false,
            reported: false,
            attempts: 0,
            not_before: 0,
            hopeless: false,
            calls_left: 0,
            calls_open: 0,
            used: Used::default(),
        };
        let token = it.runs.len() as u64;
        let offer = Offer {
            token,
            place: Place { partition: partition as u32, epoch, offset },
            lane: run.key.map(lane_of),
            deadline: run.deadline,
            nbytes,
            identity: record.map(|_| identity_of(asked)),
            timestamp,
            budget: asked.budget,
        };
        self.members[member].runs.push(run);
        self.members[member].pending.offered.push(offer);
    }
}

fn lane_of(key: usize) -> Lane {
    Lane::of(&[key as u8])
}

pub(crate) fn identity_of(subject: &Subject) -> Identity {
    Identity::of(&subject.identity.to_le_bytes())
}
