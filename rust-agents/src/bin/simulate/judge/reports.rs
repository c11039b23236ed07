//! What became of offers, ends and losses, against what must become of them.

use _rust::{Reason, Turn};

use crate::member::{Run, Stage, mark};
use crate::turn::Told;
use crate::verdict::{Invariant, Verdict, broken, ensure};
use crate::world::World;

impl World {
    /// Compares what became of offers, ends and losses with what must.
    pub(crate) fn judge_reports(
        &mut self,
        member: usize,
        now: i64,
        turn: &Turn,
        told: &mut Told,
    ) -> Verdict {
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
    pub(crate) fn expect(&self, member: usize, run: &Run, epoch: u64) -> Option<Reason> {
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

    pub(crate) fn judge_owned(&self, member: usize, token: u64) -> Verdict {
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
}
