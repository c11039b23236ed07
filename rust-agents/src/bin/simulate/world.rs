//! The world exists to let one plan happen: it keeps the time, plays broker, network and driver, and
//! hands every turn of the machine to the judge.
//!
//! It is a discrete-event simulation: nothing happens between two events, and ties are broken by the
//! order in which the events were scheduled, so a seed always makes the same schedule.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::mem::take;

use _rust::{
    AgentRuntime, Ask, Assigned, Failure, Identity, Input, Lane, Offer, Place, Seen, Spent,
};

use crate::broker::{Committing, Group, Outcome, Partition, Publishing, Record};
use crate::dice::Dice;
use crate::member::{Member, Owned, Run, Stage, mark};
use crate::plan::{Fault, Plan, Subject};
use crate::spending::{Asked, Call, Taken, Used};
use crate::tally::{Count, Tally};
use crate::verdict::{Invariant, Verdict, broken};

/// More than any schedule needs: a machine that never comes to rest is found by it.
const MOST_EVENTS: u64 = 50_000;

/// What happens at a point in time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Published {
        record: usize,
    },
    Fault(Fault),
    Restarted {
        member: usize,
    },
    /// At a member; it is for one of its lives, and waits while the member is frozen.
    At {
        member: usize,
        life: u32,
        what: Arrival,
    },
    Appended {
        publishing: usize,
    },
    CommitArrived {
        committing: usize,
    },
    SessionEnded {
        member: usize,
        life: u32,
    },
    /// Whoever has not joined by now is out.
    JoiningEnded {
        round: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Arrival {
    Turn,
    Alarm { alarm: u32 },
    Records { partition: usize, epoch: u64, from: u64 },
    RunEnded { token: u64, attempt: u32 },
    CallEnded { ask: u64, attempt: u32 },
    ResultsAcknowledged { publishing: usize },
    CommitDue,
    CommitAnswered { committing: usize, done: bool },
    RebalanceBegan { round: u64 },
    DrainEnded { generation: u64 },
    Assigned { generation: u64 },
    Restored { partition: usize, chain: u32 },
    Expelled,
}

struct Scheduled {
    at: i64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The heap gives its greatest first, and that is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// What the world knows of a subject beyond the plan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Where its first result is in the log of its partition.
    pub(crate) first_outcome: Option<usize>,
}

/// The records of one key, in order; those before `lowest` have an outcome.
#[derive(Clone, Debug, Default)]
struct Key {
    records: Vec<usize>,
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
    keys: Vec<Key>,
    pub(crate) partitions: Vec<Partition>,
    group: Group,
    pub(crate) members: Vec<Member>,
    pub(crate) publishings: Vec<Publishing>,
    committings: Vec<Committing>,
    chains: u32,
    lives: u32,
    unsteady_until: i64,
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

    // The time -----------------------------------------------------------------------------------

    fn schedule(&mut self, at: i64, event: Event) {
        self.order += 1;
        self.scheduled.push(Scheduled { at, order: self.order, event });
    }

    fn send(&mut self, member: usize, delay: i64, what: Arrival) {
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
    fn way(&mut self) -> i64 {
        let undisturbed = self.dice.between(1, self.plan.latency);
        if self.now < self.unsteady_until && self.dice.one_in(2) {
            undisturbed + self.dice.between(10, 60)
        } else {
            undisturbed
        }
    }

    // The broker ---------------------------------------------------------------------------------

    fn append_record(&mut self, input: usize) {
        let (partition, key, subject, nbytes, gap) = {
            let it = &self.plan.inputs[input];
            (it.partition, it.key, it.subject, it.nbytes, it.gap)
        };
        let offset = self.partitions[partition].end + gap;
        let index = self.records.len();
        self.records.push(Record {
            partition,
            offset,
            subject,
            nbytes,
            appended: self.now,
            duplicate: false,
        });
        self.partitions[partition].records.push(index);
        self.partitions[partition].end = offset + 1;
        if let Some(key) = key {
            self.keys[key].records.push(index);
        }
        tell!(self, "record {partition}/{offset} key {key:?} subject {subject}");
        for member in 0..self.members.len() {
            self.read(member, partition);
        }
    }

    fn append_results(&mut self, publishing: usize) -> Verdict {
        let Publishing { partition, chain, .. } = self.publishings[publishing];
        for index in 0..self.publishings[publishing].results.len() {
            let (token, subject) = self.publishings[publishing].results[index];
            tell!(
                self,
                "result of {subject} appended to {partition} by chain {chain}, token {token}"
            );
            self.judge_outcome(publishing, token, subject)?;
            let outcomes = &mut self.partitions[partition].outcomes;
            let place = outcomes.len();
            outcomes.push(Outcome { subject, chain, token, appended: self.now });
            if self.progress[subject].first_outcome.is_none() {
                self.progress[subject].first_outcome = Some(place);
                if let Some(join) = self.subject(subject).fires {
                    self.partitions[partition].fired.push(join);
                }
            } else {
                self.tally.add(Count::Copies, 1);
            }
        }
        Ok(())
    }

    fn take_commit(&mut self, committing: usize) -> Verdict {
        let Committing { member, life, generation, .. } = self.committings[committing];
        let accepted = self.group.has(member, life) && self.group.generation == generation;
        if accepted {
            for place in 0..self.committings[committing].partitions.len() {
                let (partition, committed) = self.committings[committing].partitions[place].clone();
                tell!(self, "commit of {partition} at {} by member {member}", committed.offset);
                self.judge_commit(partition, member, &committed)?;
                self.partitions[partition].committed = committed;
            }
        }
        let lost = self.now < self.unsteady_until && self.dice.one_in(2);
        let back = self.way();
        let answer = Arrival::CommitAnswered { committing, done: accepted && !lost };
        self.schedule(self.now + back, Event::At { member, life, what: answer });
        Ok(())
    }

    // The group ----------------------------------------------------------------------------------

    fn end_session(&mut self, member: usize, life: u32) {
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
    fn rebalance(&mut self) {
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

    fn join(&mut self, member: usize) {
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

    fn form_group(&mut self) {
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

    // Faults -------------------------------------------------------------------------------------

    fn disturb(&mut self, fault: Fault) {
        tell!(self, "fault {fault:?}");
        match fault {
            Fault::Crash { member, back_after } => self.crash(member, back_after),
            Fault::Freeze { member, lasts } => {
                let until = self.now + lasts;
                let it = &mut self.members[member];
                it.frozen_until = it.frozen_until.max(until);
                let life = it.life;
                let at = self.now + self.plan.session;
                self.schedule(at, Event::SessionEnded { member, life });
            }
            Fault::Jump { member, by } => {
                self.members[member].clock += by;
                self.turn_soon(member);
            }
            Fault::Rebalance => {
                if self.group.members.iter().any(Option::is_some) {
                    self.rebalance();
                }
            }
            Fault::Leave { member, back_after } => {
                // It drains first, and goes when it would join again.
                let it = &mut self.members[member];
                if it.alive && !it.draining {
                    it.leaves = Some(back_after);
                    let round = self.group.round;
                    self.send(member, 0, Arrival::RebalanceBegan { round });
                }
            }
            Fault::Unsteady { lasts } => {
                self.unsteady_until = self.unsteady_until.max(self.now + lasts);
            }
            Fault::Rewind { member } => {
                let back = self.dice.roll(6);
                let it = &mut self.members[member];
                for owned in it.owned.iter_mut().flatten() {
                    owned.next = owned.next.saturating_sub(back);
                }
                for partition in 0..self.partitions.len() {
                    self.read(member, partition);
                }
            }
            Fault::Amnesia => {
                for partition in &mut self.partitions {
                    partition.committed.done.clear();
                    partition.committed.finished.clear();
                    partition.committed.reach = 0;
                }
            }
        }
    }

    fn crash(&mut self, member: usize, back_after: i64) {
        let it = &mut self.members[member];
        if !it.alive {
            return;
        }
        it.alive = false;
        self.tally.add(Count::Crashes, 1);
        self.tally.add(Count::Killed, it.executing.len());
        let life = it.life;
        let session_ends = self.now + self.plan.session;
        self.schedule(session_ends, Event::SessionEnded { member, life });
        self.schedule(self.now + back_after, Event::Restarted { member });
    }

    fn restart(&mut self, member: usize) {
        if self.members[member].alive {
            return;
        }
        self.members[member] = Member { alive: true, ..self.born() };
        tell!(self, "member {member} starts as life {}", self.members[member].life);
        self.join(member);
    }

    /// A process that knows nothing.
    fn born(&mut self) -> Member {
        self.lives += 1;
        Member {
            life: self.lives,
            alive: false,
            machine: AgentRuntime::new(self.plan.limits).expect("the limits of a plan are sane"),
            frozen_until: 0,
            clock: self.dice.between(-5_000, 5_000),
            generation: 0,
            suspended: false,
            draining: false,
            leaves: None,
            owned: vec![None; self.partitions.len()],
            runs: Vec::with_capacity(64),
            executing: Vec::with_capacity(8),
            queued: 0,
            backing_off: 0,
            pending: Input::default(),
            turn_is_due: false,
            alarm: 0,
            wake_at: None,
            retry_allowance: self.plan.limits.retry_budget * 1_000,
            asks: Vec::new(),
            calls_taken: Taken::default(),
            tokens_taken: Taken::default(),
            last_turn: None,
            committing: false,
            commit_is_due: false,
        }
    }

    // The driver: rebalances ---------------------------------------------------------------------

    fn revoke(&mut self, member: usize, round: u64) -> Verdict {
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

    fn begin_drain(&mut self, member: usize) -> Verdict {
        self.members[member].draining = true;
        let generation = self.members[member].generation;
        let drain = self.plan.drain;
        self.send(member, drain, Arrival::DrainEnded { generation });
        self.turn(member, true, None)
    }

    fn end_drain(&mut self, member: usize) -> Verdict {
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

    fn assign(&mut self, member: usize, generation: u64) -> Verdict {
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

    fn restore(&mut self, member: usize, partition: usize, chain: u32) {
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

    pub(crate) fn offer_join(&mut self, member: usize, partition: usize, join: usize) {
        let Some(owned) = &mut self.members[member].owned[partition] else { return };
        if owned.joins.contains(&join) {
            return;
        }
        owned.joins.push(join);
        let epoch = owned.epoch;
        self.offer(member, None, join, false, epoch);
    }

    // The driver: records and results ------------------------------------------------------------

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

    fn offer_records(&mut self, member: usize, partition: usize, epoch: u64, from: u64) {
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

    /// Lets a run the machine started take its time.
    pub(crate) fn execute(&mut self, member: usize, token: u64) {
        self.tally.add(Count::Starts, 1);
        let run = self.members[member].run(token);
        let attempt = run.attempts;
        let script = self.subject(run.subject).script;
        if run.skips {
            self.send(member, 0, Arrival::RunEnded { token, attempt });
        } else if script.calls > 0 {
            let run = self.members[member].run_mut(token);
            run.calls_left = script.calls;
            run.calls_open = 0;
            if script.impatient {
                self.send(member, script.lasts, Arrival::RunEnded { token, attempt });
            }
            let at_once = if script.gathers { script.calls } else { 1 };
            for _ in 0..at_once {
                self.ask(member, token);
            }
        } else if !(script.hangs && run.end.is_some()) {
            self.send(member, script.lasts, Arrival::RunEnded { token, attempt });
        }
    }

    fn ask(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let run = it.run_mut(token);
        run.calls_left -= 1;
        run.calls_open += 1;
        let attempt = run.attempts;
        let script = self.plan.subjects[run.subject].script;
        let price = script.estimate;
        let ask = it.asks.len() as u64;
        it.asks.push(Asked { token, price, call: Call::New, ended: false });
        it.pending.asked.push(Ask { ask, token, price });
        if let Some(patience) = script.gives_up {
            self.send(member, patience, Arrival::CallEnded { ask, attempt });
        }
        self.turn_soon(member);
    }

    /// A call may be made.
    pub(crate) fn call(&mut self, member: usize, ask: u64) {
        let run = self.members[member].run(self.members[member].asks[ask as usize].token);
        let attempt = run.attempts;
        let takes = self.subject(run.subject).script.lasts;
        self.send(member, takes, Arrival::CallEnded { ask, attempt });
    }

    /// A call may not be made: for want of budget, the run ends by that.
    pub(crate) fn refuse(&mut self, member: usize, ask: u64) {
        let token = self.members[member].asks[ask as usize].token;
        let attempt = self.members[member].run(token).attempts;
        self.send(member, 1, Arrival::RunEnded { token, attempt });
    }

    fn end_call(&mut self, member: usize, ask: u64, attempt: u32) {
        let it = &mut self.members[member];
        let asked = &mut it.asks[ask as usize];
        if std::mem::replace(&mut asked.ended, true) {
            return;
        }
        let token = asked.token;
        let run = it.run_mut(token);
        let script = self.plan.subjects[run.subject].script;
        let goes_on = run.stage == Stage::Executing && run.attempts == attempt && !run.reported;
        it.pending.spent.push(Spent { ask, price: script.really });
        self.turn_soon(member);
        if !goes_on {
            return;
        }
        let run = self.members[member].run_mut(token);
        run.calls_open -= 1;
        if run.calls_left > 0 {
            self.ask(member, token);
        } else if run.calls_open == 0 {
            self.send(member, 0, Arrival::RunEnded { token, attempt });
        }
    }

    pub(crate) fn cancel(&mut self, member: usize, token: u64) {
        let run = self.members[member].run(token);
        let attempt = run.attempts;
        let takes = self.subject(run.subject).script.winds_down;
        self.send(member, takes, Arrival::RunEnded { token, attempt });
    }

    fn end_run(&mut self, member: usize, token: u64, attempt: u32) {
        let it = &mut self.members[member];
        let run = it.run_mut(token);
        if run.attempts != attempt
            || run.reported
            || !matches!(run.stage, Stage::Executing | Stage::FencedExecuting)
        {
            return;
        }
        run.reported = true;
        let (skips, cancelled, subject) = (run.skips, run.cancelled, run.subject);
        let script = self.plan.subjects[subject].script;
        if !skips && !cancelled && attempt <= script.failures {
            let retry_after = script.retry_after.map(|it| it as u64);
            it.pending.failed.push(Failure { token, retry_after });
        } else {
            it.pending.executed.push(token);
        }
        if skips {
            // There is nothing to publish.
            it.pending.acknowledged.push(token);
        }
        self.turn_soon(member);
    }

    /// Puts a result on its way.
    pub(crate) fn publish(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let Run { partition, subject, .. } = *it.run(token);
        if let Some(owned) = &mut it.owned[partition] {
            owned.outbox.push_back((token, subject));
        }
        self.empty_outbox(member, partition);
    }

    fn empty_outbox(&mut self, member: usize, partition: usize) {
        let it = &mut self.members[member];
        let Some(owned) = &mut it.owned[partition] else { return };
        if owned.publishing || owned.outbox.is_empty() {
            return;
        }
        owned.publishing = true;
        let results: Vec<_> = owned.outbox.drain(..).collect();
        let chain = owned.chain;
        let publishing = self.publishings.len();
        self.publishings.push(Publishing { partition, chain, results });
        // A request that was lost is sent again, and so is one whose answer was lost; the broker
        // knows the second copy by its sequence number and answers it without appending it.
        let there = self.way();
        let back = self.way();
        self.schedule(self.now + there, Event::Appended { publishing });
        self.send(member, there + back, Arrival::ResultsAcknowledged { publishing });
    }

    fn acknowledge(&mut self, member: usize, publishing: usize) {
        let Publishing { partition, chain, .. } = self.publishings[publishing];
        for index in 0..self.publishings[publishing].results.len() {
            let (token, subject) = self.publishings[publishing].results[index];
            self.members[member].pending.acknowledged.push(token);
            if self.members[member].owns(partition, chain)
                && let Some(join) = self.subject(subject).fires
                && self.progress[join].first_outcome.is_none()
            {
                self.offer_join(member, partition, join);
            }
        }
        self.turn_soon(member);
        if let Some(owned) = &mut self.members[member].owned[partition]
            && owned.chain == chain
        {
            owned.publishing = false;
            self.empty_outbox(member, partition);
        }
    }

    // The driver: commits ------------------------------------------------------------------------

    pub(crate) fn commit_soon(&mut self, member: usize) {
        let it = &mut self.members[member];
        if !it.committing && !it.commit_is_due {
            it.commit_is_due = true;
            let delay = self.dice.between(0, 10);
            self.send(member, delay, Arrival::CommitDue);
        }
    }

    fn commit(&mut self, member: usize) -> Verdict {
        let it = &mut self.members[member];
        it.commit_is_due = false;
        if it.committing {
            return Ok(());
        }
        let mut partitions = Vec::new();
        for partition in 0..it.owned.len() {
            if let Some(owned) = &mut self.members[member].owned[partition]
                && take(&mut owned.uncommitted)
            {
                partitions.push((partition, self.judge_commit_of(member, partition)?));
            }
        }
        if partitions.is_empty() {
            return Ok(());
        }
        let it = &mut self.members[member];
        it.committing = true;
        let (life, generation) = (it.life, it.generation);
        let committing = self.committings.len();
        self.committings.push(Committing { member, life, generation, partitions });
        let takes = self.way();
        self.schedule(self.now + takes, Event::CommitArrived { committing });
        Ok(())
    }

    fn end_commit(&mut self, member: usize, committing: usize, done: bool) {
        let it = &mut self.members[member];
        it.committing = false;
        let mut again = it.owned.iter().flatten().any(|it| it.uncommitted);
        if !done && self.committings[committing].generation == it.generation {
            for (partition, _) in &self.committings[committing].partitions {
                if let Some(owned) = &mut it.owned[*partition] {
                    owned.uncommitted = true;
                    again = true;
                }
            }
        }
        // A member that was expelled has nobody to commit to until it is back.
        let life = it.life;
        if again && self.group.has(member, life) {
            self.commit_soon(member);
        }
    }

    // The driver: turns --------------------------------------------------------------------------

    pub(crate) fn turn_soon(&mut self, member: usize) {
        if !self.members[member].turn_is_due {
            self.members[member].turn_is_due = true;
            let delay = i64::from(self.dice.one_in(8));
            self.send(member, delay, Arrival::Turn);
        }
    }

    pub(crate) fn wake(&mut self, member: usize, wake_at: Option<i64>) {
        let it = &mut self.members[member];
        if it.wake_at == wake_at {
            return;
        }
        it.wake_at = wake_at;
        it.alarm += 1;
        let alarm = it.alarm;
        if let Some(at) = wake_at {
            let delay = (at - self.members[member].clock - self.now).max(0);
            self.send(member, delay, Arrival::Alarm { alarm });
        }
    }

    pub(crate) fn after_turn(&mut self, member: usize) {
        let it = &self.members[member];
        if it.draining && it.machine.in_flight() == 0 {
            let generation = it.generation;
            self.send(member, 0, Arrival::DrainEnded { generation });
        }
    }
}

fn lane_of(key: usize) -> Lane {
    Lane::of(&[key as u8])
}

fn identity_of(subject: &Subject) -> Identity {
    Identity::of(&subject.identity.to_le_bytes())
}
