//! Commits exist to say late, and now and then in vain, how far a member is.

use std::mem::take;

use crate::broker::Committing;
use crate::event::{Arrival, Event};
use crate::verdict::Verdict;
use crate::world::World;

impl World {
    pub(crate) fn commit_soon(&mut self, member: usize) {
        let it = &mut self.members[member];
        if !it.committing && !it.commit_is_due {
            it.commit_is_due = true;
            let delay = self.dice.between(0, 10);
            self.send(member, delay, Arrival::CommitDue);
        }
    }

    pub(crate) fn commit(&mut self, member: usize) -> Verdict {
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

    pub(crate) fn end_commit(&mut self, member: usize, committing: usize, done: bool) {
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
}
