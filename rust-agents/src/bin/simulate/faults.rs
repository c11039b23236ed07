//! Faults exist to be survived: members that die, freeze or lag, and a network that loses answers.

use _rust::{AgentRuntime, Input};

use crate::event::{Arrival, Event};
use crate::member::Member;
use crate::plan::Fault;
use crate::spending::Taken;
use crate::tally::Count;
use crate::world::{World, tell};

impl World {
    pub(crate) fn disturb(&mut self, fault: Fault) {
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

    pub(crate) fn restart(&mut self, member: usize) {
        if self.members[member].alive {
            return;
        }
        self.members[member] = Member { alive: true, ..self.born() };
        tell!(self, "member {member} starts as life {}", self.members[member].life);
        self.join(member);
    }

    /// A process that knows nothing.
    pub(crate) fn born(&mut self) -> Member {
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
}
