//! What the machine calls done, against what is.

use _rust::Commit;

use crate::broker::Committed;
use crate::done_set::{decode, encoded_len};
use crate::verdict::{Invariant, Verdict, broken, ensure};
use crate::world::World;

impl World {
    pub(crate) fn judge_told(&mut self, member: usize, partition: u32, offset: u64) -> Verdict {
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
}
