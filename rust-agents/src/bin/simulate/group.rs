//! The group exists to share partitions out among members, all at once and anew with each change.

use crate::event::{Arrival, Event};
use crate::world::{World, tell};

/// The consumer group. A member is in it under one of its lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) generation: u64,
    pub(crate) members: Vec<Option<u32>>,
    pub(crate) joined: Vec<bool>,
    /// Counts rebalances that began, so that a time-out knows whether it is still meant.
    pub(crate) round: u64,
    pub(crate) preparing: bool,
}

impl Group {
    pub(crate) fn has(&self, member: usize, life: u32) -> bool {
        self.members[member] == Some(life)
    }

    fn is_complete(&self) -> bool {
        self.members.iter().zip(&self.joined).all(|(life, joined)| life.is_none() || *joined)
    }
}

impl World {
    pub(crate) fn end_session(&mut self, member: usize, life: u32) {
        let it = &self.members[member];
        let gone = !it.alive || it.life != life || it.frozen_until > self.now;
        if gone && self.group.has(member, life) {
            tell!(self, "session of member {member} ended");
            self.group.members[member] = None;
            self.schedule(self.now, Event::At { member, life, what: Arrival::Expelled });
            self.rebalance();
        }
    }

    /// Begins a rebalance, or lets the one under way go on without whoever is out.
    pub(crate) fn rebalance(&mut self) {
        if !self.group.preparing {
            self.group.preparing = true;
            self.group.round += 1;
            self.group.joined.fill(false);
            let round = self.group.round;
            tell!(self, "rebalance {round} began");
            for member in 0..self.members.len() {
                if let Some(life) = self.group.members[member] {
                    let at = self.now + self.dice.between(0, 8);
                    let what = Arrival::RebalanceBegan { round };
                    self.schedule(at, Event::At { member, life, what });
                }
            }
            let at = self.now + self.plan.rebalance_timeout;
            self.schedule(at, Event::JoiningEnded { round });
        }
        if self.group.is_complete() {
            self.form_group();
        }
    }

    pub(crate) fn join(&mut self, member: usize) {
        let life = self.members[member].life;
        self.group.members[member] = Some(life);
        if !self.group.preparing {
            self.group.members[member] = None;
            self.rebalance_for(member, life);
            return;
        }
        self.group.joined[member] = true;
        tell!(self, "member {member} joins");
        if self.group.is_complete() {
            self.form_group();
        }
    }

    fn rebalance_for(&mut self, member: usize, life: u32) {
        // Without the newcomer first, so that it is not told to leave what it has not got.
        let empty = self.group.members.iter().all(Option::is_none);
        if empty {
            self.group.preparing = true;
            self.group.round += 1;
            self.group.joined.fill(false);
            let round = self.group.round;
            let at = self.now + self.dice.between(0, 5);
            self.schedule(at, Event::JoiningEnded { round });
        } else {
            self.rebalance();
        }
        self.group.members[member] = Some(life);
        self.group.joined[member] = true;
        tell!(self, "member {member} joins");
    }

    pub(crate) fn form_group(&mut self) {
        self.group.preparing = false;
        self.group.generation += 1;
        let generation = self.group.generation;
        let mut present = Vec::with_capacity(self.members.len());
        for member in 0..self.members.len() {
            let Some(life) = self.group.members[member] else { continue };
            if self.group.joined[member] {
                present.push((member, life));
            } else {
                self.group.members[member] = None;
                let at = self.now + self.dice.between(0, 10);
                self.schedule(at, Event::At { member, life, what: Arrival::Expelled });
            }
        }
        self.group.joined.fill(false);
        for partition in 0..self.partitions.len() {
            let before = self.partitions[partition].owner;
            let stays = before.filter(|it| present.iter().any(|(member, _)| member == it));
            let owner = match stays {
                Some(owner) if !self.dice.one_in(3) => Some(owner),
                _ if present.is_empty() => None,
                _ => Some(self.dice.pick(&present).0),
            };
            self.partitions[partition].owner = owner;
        }
        tell!(
            self,
            "generation {generation}: partitions of {:?}",
            self.partitions.iter().map(|it| it.owner).collect::<Vec<_>>()
        );
        for (member, life) in present {
            let at = self.now + self.dice.between(0, 5);
            let what = Arrival::Assigned { generation };
            self.schedule(at, Event::At { member, life, what });
        }
    }
}
