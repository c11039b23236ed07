//! A turn exists to tell a machine what happened, and to do and have judged what it answers.

use std::mem::take;

use _rust::{Assigned, Failure, Input, Turn};

use crate::event::Arrival;
use crate::member::{Stage, mark};
use crate::verdict::{Invariant, Verdict, broken};
use crate::world::{World, tell};

/// What the machine was told in a turn, as far as its answer depends on it.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) executed: Vec<u64>,
    pub(crate) failed: Vec<u64>,
    /// With the epoch under which each was read.
    pub(crate) offered: Vec<(u64, u64)>,
    /// Runs to be settled as fenced, because their partition is lost, and runs to be cancelled.
    pub(crate) fenced: usize,
    pub(crate) cancelled: usize,
}

impl World {
    pub(crate) fn turn_soon(&mut self, member: usize) {
        if !self.members[member].turn_is_due {
            self.members[member].turn_is_due = true;
            let delay = i64::from(self.dice.one_in(8));
            self.send(member, delay, Arrival::Turn);
        }
    }

    /// Lets a member's machine take a turn, judges it, and does what it says.
    pub(crate) fn turn(
        &mut self,
        member: usize,
        revoked: bool,
        assigned: Option<Vec<Assigned>>,
    ) -> Verdict {
        let it = &mut self.members[member];
        it.turn_is_due = false;
        let now = self.now + it.clock;
        let mut input = Input { revoked, assigned, ..take(&mut it.pending) };
        let mut told = self.book(member, now, &input);
        if self.plan.babbles && self.dice.one_in(4) {
            self.babble(member, &mut input);
        }
        tell!(self, "member {member} at {now}: {}", in_words(&input));
        let assigns = input.assigned.is_some();
        let turn = match self.members[member].machine.turn(now, input) {
            Ok(turn) => turn,
            Err(misuse) => return broken(Invariant::Misuse, || misuse.to_string()),
        };
        if turn != Turn::default() {
            tell!(self, "    -> {turn:?}");
        }
        self.tally.add_turn(&turn);
        self.judge_reports(member, now, &turn, &mut told)?;
        self.judge_spending(member, now, &turn)?;
        for &token in &turn.start {
            self.judge_start(member, now, token)?;
        }
        for &(partition, offset) in &turn.commits {
            self.judge_told(member, partition, offset)?;
        }
        self.obey_pauses(member, &turn);
        self.judge_limits(member, now, &turn)?;
        self.judge_idleness(member)?;
        self.wake(member, turn.wake_at);
        if assigns {
            for partition in 0..self.partitions.len() {
                self.offer_joins_again(member, partition);
                self.read(member, partition);
            }
        }
        self.after_turn(member);
        Ok(())
    }

    /// Takes note of what the machine is about to be told, in the order in which it will handle it.
    fn book(&mut self, member: usize, now: i64, input: &Input) -> Told {
        let mut told = Told {
            executed: input.executed.clone(),
            failed: input.failed.iter().map(|it| it.token).collect(),
            offered: input.offered.iter().map(|it| (it.token, it.place.epoch)).collect(),
            ..Told::default()
        };
        self.book_time(member, now, told.executed.len());
        self.members[member].book_spent(&input.spent);
        for token in &told.executed {
            told.fenced += usize::from(self.book_end(member, *token, Stage::Ended));
        }
        for token in &told.failed {
            told.fenced += usize::from(self.book_end(member, *token, Stage::Failed));
        }
        for token in &input.acknowledged {
            self.book_acknowledgement(member, *token);
        }
        if input.revoked {
            self.members[member].suspended = true;
        }
        if let Some(assigned) = &input.assigned {
            self.members[member].suspended = false;
            self.members[member].draining = false;
            self.take_over(member, assigned);
            self.book_losses(member, &mut told);
        }
        for seen in &input.seen {
            if let Some(owned) = &mut self.members[member].owned[seen.partition as usize] {
                mark(&mut owned.sighted, seen.offset);
            }
        }
        for (token, _) in &told.offered {
            self.book_offer(member, *token);
        }
        let subjects = &self.plan.subjects;
        self.members[member].book_asked(&input.asked, |subject| subjects[subject].budget);
        told
    }

    /// Adds reports that mean nothing, and must be ignored.
    fn babble(&mut self, member: usize, input: &mut Input) {
        let it = &self.members[member];
        let token = self.dice.roll(it.runs.len() as u64 + 2);
        let stage = it.runs.get(token as usize).map_or(Stage::Gone, |it| it.stage);
        if matches!(stage, Stage::Queued | Stage::Backoff | Stage::Gone | Stage::Unacknowledged) {
            input.executed.push(token);
            input.failed.push(Failure { token, retry_after: None });
        }
        if matches!(stage, Stage::Queued | Stage::Backoff | Stage::Gone | Stage::Executing) {
            input.acknowledged.push(token);
        }
    }

    /// Notes a reported end; true when the run must be settled as fenced by it.
    fn book_end(&mut self, member: usize, token: u64, end: Stage) -> bool {
        let it = &mut self.members[member];
        let run = it.run_mut(token);
        run.reported = false;
        let fenced = run.stage == Stage::FencedExecuting;
        run.stage = if fenced { Stage::MustFence } else { end };
        it.executing.retain(|it| *it != token);
        it.end_asks(token, true);
        fenced
    }

    fn book_acknowledgement(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let run = it.run_mut(token);
        if run.stage == Stage::Unacknowledged || (run.stage == Stage::Ended && run.skips) {
            run.stage = Stage::Gone;
            let (partition, offset) = (run.partition, run.offset);
            if let (Some(owned), Some(offset)) = (&mut it.owned[partition], offset) {
                owned.finish(offset);
            }
        }
    }

    /// The retry budget grows by one a second, and by one for five successes.
    fn book_time(&mut self, member: usize, now: i64, executed: usize) {
        let it = &mut self.members[member];
        let passed = now - it.last_turn.replace(now).unwrap_or(now);
        it.retry_allowance += passed as u64 + 200 * executed as u64;
    }

    /// After `take_over`, what belongs to no partition of ours is lost.
    fn book_losses(&mut self, member: usize, told: &mut Told) {
        let it = &mut self.members[member];
        let owned = &it.owned;
        let mut stopped = Vec::new();
        for (token, run) in it.runs.iter_mut().enumerate() {
            let ours = owned[run.partition].as_ref().is_some_and(|it| it.chain == run.chain);
            if ours {
                continue;
            }
            match run.stage {
                Stage::New | Stage::Gone | Stage::MustFence | Stage::FencedExecuting => continue,
                Stage::Executing => {
                    run.stage = Stage::FencedExecuting;
                    told.cancelled += usize::from(!run.cancelled);
                    stopped.push(token as u64);
                    continue;
                }
                Stage::Queued => it.queued -= 1,
                Stage::Backoff => it.backing_off -= 1,
                Stage::Ended | Stage::Failed | Stage::Unacknowledged => {}
            }
            run.stage = Stage::MustFence;
            told.fenced += 1;
        }
        for token in stopped {
            it.end_asks(token, false);
        }
    }

    fn book_offer(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let run = &mut it.runs[token as usize];
        // What was read before the assignment of this turn belongs to none of its ownerships.
        run.stage = Stage::New;
        it.queued += 1;
        if let Some(owned) = &mut it.owned[run.partition] {
            run.chain = owned.chain;
            owned.queued_records += 1;
            owned.queued_bytes += u64::from(run.nbytes);
        }
    }

    /// Takes a run out of what is queued.
    pub(crate) fn dequeue(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let run = &it.runs[token as usize];
        it.queued -= 1;
        if let Some(owned) = &mut it.owned[run.partition]
            && owned.chain == run.chain
        {
            owned.queued_records -= 1;
            owned.queued_bytes -= u64::from(run.nbytes);
        }
    }

    fn obey_pauses(&mut self, member: usize, turn: &Turn) {
        for &partition in &turn.pause {
            if let Some(owned) = &mut self.members[member].owned[partition as usize] {
                owned.paused = true;
            }
        }
        for &partition in &turn.resume {
            if let Some(owned) = &mut self.members[member].owned[partition as usize] {
                owned.paused = false;
            }
            self.read(member, partition as usize);
        }
    }

    fn wake(&mut self, member: usize, wake_at: Option<i64>) {
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

    fn after_turn(&mut self, member: usize) {
        let it = &self.members[member];
        if it.draining && it.machine.in_flight() == 0 {
            let generation = it.generation;
            self.send(member, 0, Arrival::DrainEnded { generation });
        }
    }
}

fn in_words(input: &Input) -> String {
    let mut words = Vec::new();
    let mut say = |what: &str, tokens: Vec<u64>| {
        if !tokens.is_empty() {
            words.push(format!("{what} {tokens:?}"));
        }
    };
    say("offered", input.offered.iter().map(|it| it.token).collect());
    say("executed", input.executed.clone());
    say("failed", input.failed.iter().map(|it| it.token).collect());
    say("acknowledged", input.acknowledged.clone());
    say("asked", input.asked.iter().map(|it| it.ask).collect());
    say("spent", input.spent.iter().map(|it| it.ask).collect());
    say("seen", input.seen.iter().map(|it| it.offset).collect());
    if input.revoked {
        words.push("revoked".to_owned());
    }
    words.join(" ")
}
