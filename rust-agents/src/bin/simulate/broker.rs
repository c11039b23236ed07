//! The model broker exists to be the truth: what was published, which results are in the log, who
//! owns what, and what is committed. It judges nothing; the world does, when it changes.

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

/// The consumer group. A member is in it under one of its lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) generation: u64,
    pub(crate) members: Vec<Option<u32>>,
    pub(crate) joined: Vec<bool>,
    /// Counts rebalances that began, so that a time-out knows whether it is still meant.
    pub(crate) round: u64,
    pub(crate) preparing: bool,
}

impl Group {
    pub(crate) fn has(&self, member: usize, life: u32) -> bool {
        self.members[member] == Some(life)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.members.iter().zip(&self.joined).all(|(life, joined)| life.is_none() || *joined)
    }
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
