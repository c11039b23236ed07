//! What starts and what may call: in order, in time, with care, and within what may be spent.

use _rust::{Refusal, Turn};

use crate::done_set::encoded_len;
use crate::member::{Run, Stage};
use crate::verdict::{Invariant, Verdict, broken, ensure};
use crate::world::World;

impl World {
    pub(crate) fn judge_start(&mut self, member: usize, now: i64, token: u64) -> Verdict {
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

    pub(crate) fn judge_spending(&mut self, member: usize, now: i64, turn: &Turn) -> Verdict {
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
}
