//! The world exists to let one plan happen: it keeps the time, and hands what happens to broker,
//! group and driver, and every turn of the machine to the judge.
//!
//! It is a discrete-event simulation: nothing happens between two events, and ties are broken by the
//! order in which the events were scheduled, so a seed always makes the same schedule.

use std::collections::BinaryHeap;

use crate::broker::{Committing, Partition, Publishing, Record};
use crate::dice::Dice;
use crate::event::{Arrival, Event, Scheduled};
use crate::group::Group;
use crate::member::Member;
use crate::plan::{Plan, Subject};
use crate::tally::{Count, Tally};
use crate::verdict::{Invariant, Verdict, broken};

/// More than any schedule needs: a machine that never comes to rest is found by it.
const MOST_EVENTS: u64 = 50_000;

/// What the world knows of a subject beyond the plan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Where its first result is in the log of its partition.
    pub(crate) first_outcome: Option<usize>,
}

/// The records of one key, in order; those before `lowest` have an outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key {
    pub(crate) records: Vec<usize>,
    lowest: usize,
}

/// One schedule.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) plan: Plan,
    pub(crate) now: i64,
    scheduled: BinaryHeap<Scheduled>,
    order: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) keys: Vec<Key>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) group: Group,
    pub(crate) members: Vec<Member>,
    pub(crate) publishings: Vec<Publishing>,
    pub(crate) committings: Vec<Committing>,
    pub(crate) chains: u32,
    pub(crate) lives: u32,
    pub(crate) unsteady_until: i64,
    pub(crate) tally: Tally,
    story: Option<Vec<String>>,
}

/// Adds a line to the story, if one is told.
macro_rules! tell {
    ($world:expr, $($words:tt)*) => {
        if $world.tells() {
            $world.note(&format!($($words)*));
        }
    };
}
pub(crate) use tell;

impl World {
    pub(crate) fn of_seed(seed: u64, tells: bool) -> Self {
        let mut dice = Dice::of_seed(seed);
        let plan = Plan::roll(&mut dice);
        let mut world = Self {
            now: 0,
            scheduled: BinaryHeap::with_capacity(128),
            order: 0,
            records: Vec::with_capacity(plan.inputs.len()),
            progress: vec![Progress::default(); plan.subjects.len()],
            keys: vec![Key::default(); plan.keys],
            partitions: vec![Partition::default(); plan.partitions],
            group: Group {
                members: vec![None; plan.members],
                joined: vec![false; plan.members],
                ..Group::default()
            },
            members: Vec::with_capacity(plan.members),
            publishings: Vec::new(),
            committings: Vec::new(),
            chains: 0,
            lives: 0,
            unsteady_until: 0,
            tally: Tally::default(),
            story: tells.then(Vec::new),
            dice,
            plan,
        };
        for index in 0..world.plan.members {
            let member = world.born();
            world.members.push(member);
            world.schedule(0, Event::Restarted { member: index });
        }
        for record in 0..world.plan.inputs.len() {
            let at = world.plan.inputs[record].at;
            world.schedule(at, Event::Published { record });
        }
        for index in 0..world.plan.faults.len() {
            let (at, fault) = world.plan.faults[index];
            world.schedule(at, Event::Fault(fault));
        }
        world
    }

    /// Lets everything happen, and then looks for what did not.
    pub(crate) fn run(&mut self) -> Verdict {
        while let Some(Scheduled { at, event, .. }) = self.scheduled.pop() {
            self.now = at;
            self.tally.add(Count::Events, 1);
            if self.tally.of(Count::Events) > MOST_EVENTS {
                return broken(Invariant::Liveness, || {
                    format!("no rest after {MOST_EVENTS} events")
                });
            }
            self.happen(event)?;
        }
        self.judge_the_end()
    }

    pub(crate) fn story(&self) -> &[String] {
        self.story.as_deref().unwrap_or_default()
    }

    pub(crate) fn tells(&self) -> bool {
        self.story.is_some()
    }

    pub(crate) fn note(&mut self, words: &str) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{now:>7} {words}"));
        }
    }

    pub(crate) fn subject(&self, subject: usize) -> &Subject {
        &self.plan.subjects[subject]
    }

    /// Whether a record came to its end, as far as the log knows.
    pub(crate) fn is_settled(&self, record: usize) -> bool {
        let record = &self.records[record];
        record.duplicate || self.progress[record.subject].first_outcome.is_some()
    }

    /// The lowest record of a key that has no outcome.
    pub(crate) fn lowest_unsettled(&mut self, key: usize) -> Option<usize> {
        loop {
            let Key { records, lowest } = &self.keys[key];
            let record = *records.get(*lowest)?;
            if !self.is_settled(record) {
                return Some(record);
            }
            self.keys[key].lowest += 1;
        }
    }

    pub(crate) fn schedule(&mut self, at: i64, event: Event) {
        self.order += 1;
        self.scheduled.push(Scheduled { at, order: self.order, event });
    }

    pub(crate) fn send(&mut self, member: usize, delay: i64, what: Arrival) {
        let life = self.members[member].life;
        self.schedule(self.now + delay, Event::At { member, life, what });
    }

    fn happen(&mut self, event: Event) -> Verdict {
        match event {
            Event::Published { record } => self.append_record(record),
            Event::Fault(fault) => self.disturb(fault),
            Event::Restarted { member } => self.restart(member),
            Event::At { member, life, what } => {
                let it = &self.members[member];
                if !it.alive || it.life != life {
                    return Ok(());
                }
                if it.frozen_until > self.now {
                    let until = it.frozen_until;
                    self.schedule(until, event);
                    return Ok(());
                }
                return self.arrive(member, what);
            }
            Event::Appended { publishing } => return self.append_results(publishing),
            Event::CommitArrived { committing } => return self.take_commit(committing),
            Event::SessionEnded { member, life } => self.end_session(member, life),
            Event::JoiningEnded { round } => {
                if self.group.preparing && self.group.round == round {
                    self.form_group();
                }
            }
        }
        Ok(())
    }

    fn arrive(&mut self, member: usize, what: Arrival) -> Verdict {
        match what {
            Arrival::Turn => {
                if self.members[member].turn_is_due {
                    return self.turn(member, false, None);
                }
            }
            Arrival::Alarm { alarm } => {
                if self.members[member].alarm == alarm {
                    self.members[member].wake_at = None;
                    return self.turn(member, false, None);
                }
            }
            Arrival::Records { partition, epoch, from } => {
                self.offer_records(member, partition, epoch, from);
            }
            Arrival::RunEnded { token, attempt } => self.end_run(member, token, attempt),
            Arrival::CallEnded { ask, attempt } => self.end_call(member, ask, attempt),
            Arrival::ResultsAcknowledged { publishing } => self.acknowledge(member, publishing),
            Arrival::CommitDue => return self.commit(member),
            Arrival::CommitAnswered { committing, done } => {
                self.end_commit(member, committing, done);
            }
            Arrival::RebalanceBegan { round } => return self.revoke(member, round),
            Arrival::DrainEnded { generation } => {
                if self.members[member].generation == generation {
                    return self.end_drain(member);
                }
            }
            Arrival::Assigned { generation } => return self.assign(member, generation),
            Arrival::Restored { partition, chain } => self.restore(member, partition, chain),
            Arrival::Expelled => {
                let life = self.members[member].life;
                if !self.group.has(member, life) && !self.members[member].draining {
                    return self.begin_drain(member);
                }
            }
        }
        Ok(())
    }

    /// What one way to the broker takes now.
    pub(crate) fn way(&mut self) -> i64 {
        let undisturbed = self.dice.between(1, self.plan.latency);
        if self.now < self.unsteady_until && self.dice.one_in(2) {
            undisturbed + self.dice.between(10, 60)
        } else {
            undisturbed
        }
    }
}
