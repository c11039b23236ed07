//! The model broker exists to be the truth: what was published, which results are in the log, who
//! owns what, and what is committed. It judges nothing; the world does, when it changes.

use crate::event::{Arrival, Event};
use crate::tally::Count;
use crate::verdict::Verdict;
use crate::world::{World, tell};

/// A record of the input topic.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) partition: usize,
    pub(crate) offset: u64,
    pub(crate) subject: usize,
    pub(crate) nbytes: u32,
    /// When it was appended, which is also its timestamp.
    pub(crate) appended: i64,
    /// Whether someone rightly called it a duplicate.
    pub(crate) duplicate: bool,
}

/// A result in the log: of which subject, and by which ownership.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) subject: usize,
    pub(crate) chain: u32,
    pub(crate) token: u64,
    pub(crate) appended: i64,
}

/// What the group keeps of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Committed {
    pub(crate) offset: u64,
    /// One after the highest offset started, as the committer said.
    pub(crate) reach: u64,
    /// What is done above the offset, as the machine encoded it.
    pub(crate) done: Vec<u8>,
    /// The same, as the model knows it.
    pub(crate) finished: Vec<u64>,
}

/// One partition of the input topic, with what has the same number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition {
    /// Indexes of its records, by offset.
    pub(crate) records: Vec<usize>,
    /// One after the last offset.
    pub(crate) end: u64,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) committed: Committed,
    /// So many of its records are below the commit.
    pub(crate) below_commit: usize,
    /// Joins that fired.
    pub(crate) fired: Vec<usize>,
    pub(crate) owner: Option<usize>,
}

/// A request to publish results.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) partition: usize,
    pub(crate) chain: u32,
    /// Token and subject.
    pub(crate) results: Vec<(u64, usize)>,
}

/// A request to commit.
#[derive(Clone, Debug)]
pub(crate) struct Committing {
    pub(crate) member: usize,
    pub(crate) life: u32,
    pub(crate) generation: u64,
    pub(crate) partitions: Vec<(usize, Committed)>,
}

impl World {
    pub(crate) fn append_record(&mut self, input: usize) {
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

    pub(crate) fn append_results(&mut self, publishing: usize) -> Verdict {
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

    pub(crate) fn take_commit(&mut self, committing: usize) -> Verdict {
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
}
