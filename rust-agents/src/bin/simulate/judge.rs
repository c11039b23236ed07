//! The judge exists to compare each answer of the machine with what it was told before, and the log
//! with what it may hold. It never predicts which of several ready runs starts first.

use std::mem::take;

use _rust::{Assigned, Commit, Failure, Input, Reason, Refusal, Turn};

use crate::broker::{Committed, Outcome, Publishing};
use crate::done_set::{decode, encoded_len};
use crate::member::{Run, Stage, mark};
use crate::verdict::{Invariant, Verdict, broken, ensure};
use crate::world::{World, tell};

/// What the machine was told in a turn, as far as its answer depends on it.
#[derive(Default)]
struct Told {
    executed: Vec<u64>,
    failed: Vec<u64>,
    /// With the epoch under which each was read.
    offered: Vec<(u64, u64)>,
    /// Runs to be settled as fenced, because their partition is lost, and runs to be cancelled.
    fenced: usize,
    cancelled: usize,
}

impl World {
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

    /// Compares what became of offers, ends and losses with what must.
    fn judge_reports(&mut self, member: usize, now: i64, turn: &Turn, told: &mut Told) -> Verdict {
        for &(token, epoch) in &told.offered {
            self.judge_offer(member, token, epoch, turn)?;
        }
        for &settled in &turn.settled {
            self.judge_settled(member, now, settled, told)?;
        }
        for &retry in &turn.retries {
            self.judge_retry(member, now, retry)?;
        }
        for &token in &told.failed {
            self.judge_failed(member, token)?;
        }
        for &token in &turn.cancel {
            self.judge_cancel(member, now, token, told)?;
        }
        ensure(told.fenced == 0, Invariant::Fence, || {
            format!("{} runs of lost partitions were not settled as fenced", told.fenced)
        })?;
        ensure(told.cancelled == 0, Invariant::Fence, || {
            format!("{} runs of lost partitions were not cancelled", told.cancelled)
        })?;
        for &token in &told.executed {
            self.judge_ended(member, token)?;
        }
        Ok(())
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

    // Before the turn: what the machine is told --------------------------------------------------

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

    /// An adopted partition had no ears for joins that fired while it was suspended.
    fn offer_joins_again(&mut self, member: usize, partition: usize) {
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
    fn dequeue(&mut self, member: usize, token: u64) {
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

    // After it: what it answered -----------------------------------------------------------------

    /// Compares what became of an offer with what must become of it.
    fn judge_offer(&mut self, member: usize, token: u64, epoch: u64, turn: &Turn) -> Verdict {
        let refused =
            |reason| matches!(reason, Reason::Stale | Reason::Redelivered | Reason::Duplicate);
        let refusal = turn.settled.iter().find(|(it, reason)| *it == token && refused(*reason));
        let actual = refusal.map(|(_, reason)| *reason);
        let run = self.members[member].run(token).clone();
        let expected = self.expect(member, &run, epoch);
        let wrong = match (expected, actual) {
            (None, None) | (Some(_), Some(_)) => None,
            (_, Some(_)) => Some(Invariant::Lost),
            (Some(Reason::Stale), None) if self.is_below_position(member, &run, epoch) => {
                Some(Invariant::Commit)
            }
            (Some(Reason::Stale), None) => Some(Invariant::Fence),
            (Some(_), None) => Some(Invariant::Repeated),
        };
        let wrong = wrong.or((expected != actual).then_some(Invariant::Lost));
        if let Some(invariant) = wrong {
            return broken(invariant, || {
                format!("{token} must come to {expected:?}, and came to {actual:?}: {run:?}")
            });
        }
        let it = &mut self.members[member];
        if expected.is_none() {
            it.run_mut(token).stage = Stage::Queued;
        } else {
            self.dequeue(member, token);
            self.members[member].run_mut(token).stage = Stage::Gone;
        }
        let Some(owned) = &mut self.members[member].owned[run.partition] else { return Ok(()) };
        if expected == Some(Reason::Stale) {
            owned.joins.retain(|it| run.offset.is_some() || *it != run.subject);
            return Ok(());
        }
        let Some(offset) = run.offset else { return Ok(()) };
        mark(&mut owned.sighted, offset);
        owned.received = owned.received.max(offset + 1);
        match expected {
            None => owned.take_in(offset),
            Some(Reason::Duplicate) => {
                owned.finish(offset);
                if let Some(record) = run.record {
                    self.records[record].duplicate = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Why an offer must be refused.
    fn expect(&self, member: usize, run: &Run, epoch: u64) -> Option<Reason> {
        let it = &self.members[member];
        let Some(owned) = it.owned[run.partition].as_ref() else {
            return Some(Reason::Stale);
        };
        if it.suspended || owned.epoch != epoch || run.offset.is_some_and(|at| at < owned.position)
        {
            return Some(Reason::Stale);
        }
        let (Some(offset), Some(record)) = (run.offset, run.record) else {
            return None;
        };
        if owned.is_finished(offset) || owned.unfinished.binary_search(&offset).is_ok() {
            return Some(Reason::Redelivered);
        }
        let limits = &self.plan.limits;
        let appended = self.records[record].appended;
        let repeats = self.partitions[run.partition].records.iter().any(|&other| {
            let other = &self.records[other];
            other.subject == run.subject
                && other.offset < offset
                && limits.dedupe_records > 0
                && offset - other.offset <= limits.dedupe_records
                && appended - other.appended <= limits.dedupe_ms as i64
                && owned.sighted.get(other.offset as usize).copied().unwrap_or(false)
        });
        repeats.then_some(Reason::Duplicate)
    }

    fn is_below_position(&self, member: usize, run: &Run, epoch: u64) -> bool {
        let it = &self.members[member];
        let owned = it.owned[run.partition].as_ref();
        !it.suspended
            && owned.is_some_and(|it| {
                it.epoch == epoch && run.offset.is_some_and(|at| at < it.position)
            })
    }

    fn judge_settled(
        &mut self,
        member: usize,
        now: i64,
        (token, reason): (u64, Reason),
        told: &mut Told,
    ) -> Verdict {
        let it = &self.members[member];
        let Some(run) = it.runs.get(token as usize).cloned() else {
            return broken(Invariant::Misuse, || format!("{token} is settled, but unknown"));
        };
        let says = |what: &str| format!("{token} is settled as {reason:?}, but {what}: {run:?}");
        match reason {
            Reason::Stale | Reason::Redelivered | Reason::Duplicate => {
                return ensure(run.stage == Stage::Gone, Invariant::Lost, || says("was taken in"));
            }
            Reason::Fenced => {
                ensure(run.stage == Stage::MustFence, Invariant::Lost, || says("is not lost"))?;
                told.fenced -= 1;
                self.members[member].run_mut(token).stage = Stage::Gone;
                return Ok(());
            }
            Reason::Exhausted => {
                ensure(run.stage == Stage::Failed, Invariant::Retry, || says("did not fail"))?;
                self.judge_owned(member, token)?;
                let most = self.plan.limits.retries + 1;
                ensure(u64::from(run.attempts) == most, Invariant::Retry, || {
                    says("it has another number of attempts")
                })?;
            }
            Reason::Expired => {
                let waits = matches!(run.stage, Stage::Queued | Stage::Backoff | Stage::Failed);
                ensure(waits, Invariant::Repeated, || says("does not wait"))?;
                ensure(!it.suspended, Invariant::Fence, || says("nothing may be decided now"))?;
                self.judge_owned(member, token)?;
                let hopeless = run.hopeless || run.stage == Stage::Failed;
                let wait = if hopeless { self.longest_delay(&run) } else { 0 };
                let late = run.deadline.is_some_and(|at| at <= now + wait);
                ensure(late, Invariant::Deadline, || says("it is not late"))?;
            }
        }
        match run.stage {
            Stage::Queued => self.dequeue(member, token),
            Stage::Backoff => self.members[member].backing_off -= 1,
            _ => {}
        }
        self.members[member].run_mut(token).stage = Stage::Unacknowledged;
        self.publish(member, token);
        Ok(())
    }

    /// The most a run may have to wait after the attempt that just failed.
    fn longest_delay(&self, run: &Run) -> i64 {
        let limits = &self.plan.limits;
        let factor = 1 << run.attempts.saturating_sub(1).min(20);
        let backoff = (limits.backoff_ms * factor).min(limits.max_backoff_ms) as i64;
        backoff.max(self.subject(run.subject).script.retry_after.unwrap_or(0))
    }

    fn judge_retry(&mut self, member: usize, now: i64, retry: (u64, u32, u64)) -> Verdict {
        let (token, attempt, delay) = (retry.0, retry.1, retry.2 as i64);
        let Some(run) = self.members[member].runs.get(token as usize).cloned() else {
            return broken(Invariant::Misuse, || format!("{token} is retried, but unknown"));
        };
        if run.stage == Stage::Gone || run.stage == Stage::MustFence {
            return Ok(()); // Its partition was lost in the same turn.
        }
        let says = |what: &str| format!("{token} is tried again in {delay}, but {what}: {run:?}");
        ensure(run.stage == Stage::Failed, Invariant::Retry, || says("it did not fail"))?;
        ensure(run.attempts == attempt, Invariant::Retry, || says("its attempts are others"))?;
        ensure(u64::from(attempt) <= self.plan.limits.retries, Invariant::Retry, || {
            says("it has none left")
        })?;
        let least = self.subject(run.subject).script.retry_after.unwrap_or(0);
        ensure(least <= delay, Invariant::Retry, || says("it asked for more"))?;
        ensure(delay <= self.longest_delay(&run), Invariant::Retry, || says("that is too long"))?;
        ensure(run.deadline.is_none_or(|at| now + delay < at), Invariant::Deadline, || {
            says("that is too late")
        })?;
        let it = &mut self.members[member];
        it.backing_off += 1;
        let run = it.run_mut(token);
        run.stage = Stage::Backoff;
        run.not_before = now + delay;
        Ok(())
    }

    /// A failed run must have been told something about.
    fn judge_failed(&mut self, member: usize, token: u64) -> Verdict {
        let it = &mut self.members[member];
        let suspended = it.suspended;
        let run = it.run_mut(token);
        if run.stage != Stage::Failed {
            return Ok(());
        }
        // It will be settled as expired after the suspension.
        ensure(suspended && run.deadline.is_some(), Invariant::Retry, || {
            format!("{token} failed, and nothing follows: {run:?}")
        })?;
        run.hopeless = true;
        run.stage = Stage::Backoff;
        it.backing_off += 1;
        Ok(())
    }

    fn judge_owned(&self, member: usize, token: u64) -> Verdict {
        let it = &self.members[member];
        let run = it.run(token);
        ensure(it.owns(run.partition, run.chain), Invariant::Fence, || {
            format!("{token} goes on, but its partition is lost: {run:?}")
        })
    }

    fn judge_cancel(&mut self, member: usize, now: i64, token: u64, told: &mut Told) -> Verdict {
        let it = &mut self.members[member];
        let Some(run) = it.runs.get_mut(token as usize) else {
            return broken(Invariant::Misuse, || format!("{token} is cancelled, but unknown"));
        };
        let fenced = run.stage == Stage::FencedExecuting;
        let late = run.stage == Stage::Executing && run.end.is_some_and(|end| end <= now);
        ensure((fenced || late) && !run.cancelled, Invariant::Deadline, || {
            format!("{token} is cancelled without a cause at {now}: {run:?}")
        })?;
        told.cancelled -= usize::from(fenced);
        run.cancelled = true;
        it.end_asks(token, false);
        self.cancel(member, token);
        Ok(())
    }

    /// A run that ended, and was not fenced, has something to say.
    fn judge_ended(&mut self, member: usize, token: u64) -> Verdict {
        if self.members[member].run(token).stage != Stage::Ended {
            return Ok(());
        }
        self.judge_owned(member, token)?;
        self.members[member].run_mut(token).stage = Stage::Unacknowledged;
        self.publish(member, token);
        Ok(())
    }

    fn judge_start(&mut self, member: usize, now: i64, token: u64) -> Verdict {
        let timeout = self.plan.limits.timeout_ms.map(|it| it as i64);
        let it = &self.members[member];
        let Some(run) = it.runs.get(token as usize).cloned() else {
            return broken(Invariant::Misuse, || format!("{token} starts, but is unknown"));
        };
        let waits = matches!(run.stage, Stage::Queued | Stage::Backoff);
        ensure(waits, Invariant::Repeated, || format!("{token} starts, but as {run:?}"))?;
        ensure(!it.suspended, Invariant::Fence, || format!("{token} starts while suspended"))?;
        self.judge_owned(member, token)?;
        ensure(run.deadline.is_none_or(|at| now < at), Invariant::Deadline, || {
            format!("{token} starts at {now}, too late: {run:?}")
        })?;
        if let Some(key) = run.key {
            for other in it.executing.iter().map(|it| self.members[member].run(*it)) {
                ensure(other.key != Some(key), Invariant::Order, || {
                    format!("{token} starts beside another one of its key: {other:?}")
                })?;
            }
            if let Some(record) = run.record
                && let Some(lowest) = self.lowest_unsettled(key)
            {
                ensure(record <= lowest, Invariant::Order, || {
                    let lowest = &self.records[lowest];
                    format!("{token} starts before {lowest:?} has an outcome: {run:?}")
                })?;
            }
        }
        self.judge_attempt(member, now, token)?;
        self.judge_care(member, token)?;
        self.judge_done_limit(member, token)?;
        if run.stage == Stage::Backoff {
            self.members[member].backing_off -= 1;
        } else {
            self.dequeue(member, token);
        }
        let it = &mut self.members[member];
        it.executing.push(token);
        if let (Some(owned), Some(offset)) = (&mut it.owned[run.partition], run.offset) {
            owned.reach = owned.reach.max(offset + 1);
        }
        let run = it.run_mut(token);
        run.stage = Stage::Executing;
        run.attempts += 1;
        run.cancelled = false;
        run.end = run.deadline.into_iter().chain(timeout.map(|it| now + it)).min();
        self.execute(member, token);
        Ok(())
    }

    fn judge_spending(&mut self, member: usize, now: i64, turn: &Turn) -> Verdict {
        let it = &mut self.members[member];
        if it.asks.is_empty() {
            let none = turn.granted.is_empty() && turn.refused.is_empty();
            return ensure(none, Invariant::Spend, || "an answer nobody asked for".to_owned());
        }
        let limits = &self.plan.limits;
        it.judge_spending(now, turn, limits.calls_per_minute, limits.tokens_per_minute)?;
        for &ask in &turn.granted {
            self.call(member, ask);
        }
        for &(ask, refusal) in &turn.refused {
            if refusal != Refusal::Ended {
                self.refuse(member, ask);
            }
        }
        Ok(())
    }

    fn judge_attempt(&mut self, member: usize, now: i64, token: u64) -> Verdict {
        let it = &mut self.members[member];
        let run = it.runs[token as usize].clone();
        if run.stage != Stage::Backoff {
            return Ok(());
        }
        ensure(!run.hopeless, Invariant::Deadline, || format!("{token} starts too late: {run:?}"))?;
        ensure(run.not_before <= now, Invariant::Retry, || {
            format!("{token} starts at {now}, before its backoff is over: {run:?}")
        })?;
        let affordable = it.retry_allowance >= 1_000;
        it.retry_allowance = it.retry_allowance.saturating_sub(1_000);
        ensure(affordable, Invariant::Retry, || format!("{token} starts beyond the retry budget"))
    }

    fn judge_care(&self, member: usize, token: u64) -> Verdict {
        let it = &self.members[member];
        let run = it.run(token);
        let Some(owned) = it.owned[run.partition].as_ref() else { return Ok(()) };
        if owned.careful_until == 0 {
            return Ok(());
        }
        let lowest = owned.unfinished.first().copied().unwrap_or(u64::MAX);
        if owned.careful_until <= lowest {
            return Ok(());
        }
        // A run without an offset has no turn, but is alone as well.
        ensure(run.offset.is_none_or(|it| it == lowest), Invariant::Careful, || {
            format!("{token} starts before {lowest} is done: {run:?}")
        })?;
        for other in it.runs.iter().filter(|it| it.chain == run.chain) {
            let active = matches!(other.stage, Stage::Executing | Stage::Unacknowledged);
            ensure(!active, Invariant::Careful, || {
                format!("{token} starts beside {other:?}, and is to be alone: {run:?}")
            })?;
        }
        Ok(())
    }

    /// Nothing starts that would make the set of done offsets too large.
    fn judge_done_limit(&self, member: usize, token: u64) -> Verdict {
        let most = self.plan.limits.max_done_bytes;
        let it = &self.members[member];
        let run = it.run(token);
        let (Some(owned), Some(offset)) = (it.owned[run.partition].as_ref(), run.offset) else {
            return Ok(());
        };
        let floor = owned.floor();
        // A run that is tried again was counted when it started first.
        if most > 100 || owned.unfinished.is_empty() || offset == floor || run.attempts > 0 {
            return Ok(());
        }
        let full = encoded_len(&owned.finished_from(floor), floor) * 4 >= most * 3;
        let beside = |other: &Run| {
            matches!(other.stage, Stage::Executing | Stage::Unacknowledged)
                && other.chain == run.chain
                && other.offset.is_some()
        };
        ensure(!(full && it.runs.iter().any(beside)), Invariant::Bounds, || {
            format!("{token} starts though the set of done offsets is full: {run:?}")
        })
    }

    fn judge_told(&mut self, member: usize, partition: u32, offset: u64) -> Verdict {
        let Some(owned) = &mut self.members[member].owned[partition as usize] else {
            return broken(Invariant::Fence, || format!("a commit of {partition}, which is lost"));
        };
        owned.uncommitted = true;
        let floor = owned.floor();
        ensure(offset <= floor, Invariant::Commit, || {
            format!("{partition} is to be committed at {offset}, but {floor} is not done")
        })?;
        self.commit_soon(member);
        Ok(())
    }

    /// What the committer takes along when it really commits.
    pub(crate) fn judge_commit_of(&self, member: usize, partition: usize) -> Verdict<Committed> {
        let it = &self.members[member];
        let most = self.plan.limits.max_done_bytes;
        let (Some(Commit { offset, reach, done }), Some(owned)) =
            (it.machine.commit_of(partition as u32), it.owned[partition].as_ref())
        else {
            return broken(Invariant::Fence, || format!("no commit for {partition}"));
        };
        let floor = owned.floor();
        ensure(offset <= floor, Invariant::Commit, || {
            format!("{partition} is committed at {offset}, but {floor} is not done")
        })?;
        ensure(reach == owned.reach.max(offset), Invariant::Commit, || {
            format!("the reach of {partition} is {reach}, not {}", owned.reach.max(offset))
        })?;
        ensure(done.len() as u64 <= most, Invariant::Bounds, || {
            format!("the done set of {partition} has {} bytes of {most}", done.len())
        })?;
        let truth = owned.finished_from(offset);
        let Some(finished) = decode(&done, offset) else {
            return broken(Invariant::Commit, || format!("{done:?} is no set"));
        };
        let stranger = finished.iter().find(|it| !truth.contains(it));
        ensure(stranger.is_none(), Invariant::Commit, || {
            format!("{stranger:?} is in the done set of {partition}, but is not done: {truth:?}")
        })?;
        let fits = encoded_len(&truth, offset) <= most;
        ensure(!fits || finished == truth, Invariant::Commit, || {
            format!("the done set of {partition} is {finished:?}, not {truth:?}")
        })?;
        Ok(Committed { offset, reach, done, finished })
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

    fn judge_limits(&self, member: usize, now: i64, turn: &Turn) -> Verdict {
        let limits = &self.plan.limits;
        let it = &self.members[member];
        let executing = it.executing.len() as u64;
        ensure(executing <= limits.slots, Invariant::Bounds, || {
            format!("{executing} runs execute in {} slots", limits.slots)
        })?;
        ensure(it.machine.running() == executing, Invariant::Bounds, || {
            format!("the machine counts {} runs, and {executing} execute", it.machine.running())
        })?;
        // When a backoff is over, and the budget allows, the machine counts the run as queued.
        let queued = it.queued..=it.queued + it.backing_off;
        ensure(queued.contains(&it.machine.queued()), Invariant::Bounds, || {
            format!("the machine counts {} queued, and {queued:?} are", it.machine.queued())
        })?;
        for &token in &it.executing {
            let run = it.run(token);
            let Some(end) = run.end else { continue };
            if run.cancelled || run.stage != Stage::Executing {
                continue;
            }
            ensure(now < end, Invariant::Deadline, || {
                format!("{token} is not cancelled at {now}: {run:?}")
            })?;
            ensure(turn.wake_at.is_some_and(|at| at <= end), Invariant::Deadline, || {
                format!("nobody wakes to cancel {token} at {end}: {:?}", turn.wake_at)
            })?;
        }
        if it.suspended {
            return Ok(());
        }
        let flood = it.owned.iter().flatten().map(|it| it.queued_bytes).sum::<u64>()
            > 4 * limits.max_queued_bytes;
        for (number, owned) in it.owned.iter().enumerate() {
            let Some(owned) = owned else { continue };
            let full = owned.queued_records > limits.max_queued_records
                || owned.queued_bytes > limits.max_queued_bytes
                || (flood && owned.queued_records > 0);
            ensure(owned.paused || !full, Invariant::Bounds, || {
                format!(
                    "{number} is read on with {} records and {} bytes queued",
                    owned.queued_records, owned.queued_bytes
                )
            })?;
        }
        Ok(())
    }

    /// While a slot is free, nothing waits that could run.
    fn judge_idleness(&self, member: usize) -> Verdict {
        let it = &self.members[member];
        let limits = &self.plan.limits;
        let full = it.executing.len() as u64 >= limits.slots;
        if full || it.suspended || it.queued == 0 || limits.max_done_bytes < 100 {
            return Ok(());
        }
        for (token, run) in it.runs.iter().enumerate().filter(|(_, it)| it.stage == Stage::Queued) {
            let owned = it.owned[run.partition].as_ref();
            let careful = owned.is_none_or(|it| it.careful_until > 0);
            let before = |(other, it): (usize, &Run)| {
                it.key == run.key
                    && it.stage != Stage::Gone
                    && (other < token || it.stage != Stage::Queued)
                    && other != token
            };
            let waits = run.key.is_some() && it.runs.iter().enumerate().any(before);
            ensure(careful || waits, Invariant::Idle, || {
                format!("a slot is free, and {token} waits: {run:?}")
            })?;
        }
        Ok(())
    }

    // The log ------------------------------------------------------------------------------------

    /// A result is about to be in the log.
    pub(crate) fn judge_outcome(&self, publishing: usize, token: u64, subject: usize) -> Verdict {
        let Publishing { partition, chain, .. } = self.publishings[publishing];
        if self.progress[subject].first_outcome.is_none() {
            return Ok(());
        }
        // Another ownership may not have known of this one. The same one may answer an event twice
        // if that is in the log twice, further apart than the window: that was judged at the offer.
        let again = |it: &Outcome| it.subject == subject && it.chain == chain && it.token == token;
        let twice = self.partitions[partition].outcomes.iter().any(again);
        ensure(!twice, Invariant::Repeated, || format!("{token} has a second result for {subject}"))
    }

    /// A commit is about to be in force.
    pub(crate) fn judge_commit(
        &mut self,
        partition: usize,
        member: usize,
        committed: &Committed,
    ) -> Verdict {
        let before = self.partitions[partition].committed.offset;
        ensure(before <= committed.offset, Invariant::Commit, || {
            format!("the commit of {partition} goes from {before} back to {}", committed.offset)
        })?;
        ensure(self.partitions[partition].owner == Some(member), Invariant::Fence, || {
            format!("{partition} is committed by member {member}, which does not own it")
        })?;
        loop {
            let it = &self.partitions[partition];
            let Some(&record) = it.records.get(it.below_commit) else { break };
            if self.records[record].offset >= committed.offset {
                break;
            }
            ensure(self.is_settled(record), Invariant::Commit, || {
                format!("{} is committed past {:?}", committed.offset, self.records[record])
            })?;
            self.partitions[partition].below_commit += 1;
        }
        for &record in &self.partitions[partition].records {
            let offset = self.records[record].offset;
            ensure(
                !committed.finished.contains(&offset) || self.is_settled(record),
                Invariant::Commit,
                || format!("{:?} is committed as done", self.records[record]),
            )?;
        }
        Ok(())
    }

    /// Nothing more happens: everything must have.
    pub(crate) fn judge_the_end(&self) -> Verdict {
        for (index, record) in self.records.iter().enumerate() {
            ensure(self.is_settled(index), Invariant::Lost, || {
                format!("nothing came of {record:?}")
            })?;
        }
        for (number, partition) in self.partitions.iter().enumerate() {
            for join in &partition.fired {
                ensure(self.progress[*join].first_outcome.is_some(), Invariant::Lost, || {
                    format!("nothing came of join {join} in {number}")
                })?;
            }
            ensure(partition.committed.offset == partition.end, Invariant::Liveness, || {
                let committed = partition.committed.offset;
                format!("{number} is committed at {committed}, and ends at {}", partition.end)
            })?;
        }
        for (number, it) in self.members.iter().enumerate() {
            let left = (it.machine.running(), it.machine.queued(), it.machine.in_flight());
            ensure(left == (0, 0, 0), Invariant::Liveness, || {
                format!("member {number} still has (running, queued, in flight) {left:?}")
            })?;
            let stats = it.machine.stats();
            ensure((stats.retrying, stats.waiting_asks) == (0, 0), Invariant::Liveness, || {
                format!("member {number} still has runs in backoff or calls: {stats:?}")
            })?;
        }
        Ok(())
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
