//! What is held at once, and what idles though it could run.

use _rust::Turn;

use crate::member::{Run, Stage};
use crate::verdict::{Invariant, Verdict, ensure};
use crate::world::World;

impl World {
    pub(crate) fn judge_limits(&self, member: usize, now: i64, turn: &Turn) -> Verdict {
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
    pub(crate) fn judge_idleness(&self, member: usize) -> Verdict {
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
}
