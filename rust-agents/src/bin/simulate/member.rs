//! A member exists to play the part of the Python driver: it remembers what it told the machine and
//! what the machine told it, so that the world can compare.

use std::collections::VecDeque;

use _rust::{AgentRuntime, Input};

use crate::spending::{Asked, Taken, Used};

/// Where a run stands, as far as the machine has been told and has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Offered in the turn that is being judged.
    New,
    Queued,
    Executing,
    /// Its partition is lost and it executes still.
    FencedExecuting,
    /// Failed, and waits for its next attempt.
    Backoff,
    /// Its end was reported in the turn that is being judged.
    Ended,
    /// Its failure was reported in the turn that is being judged.
    Failed,
    /// It must be settled as fenced in the turn that is being judged.
    MustFence,
    Unacknowledged,
    Gone,
}

/// What was offered under one token.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// `None` for a join that fired.
    pub(crate) record: Option<usize>,
    pub(crate) subject: usize,
    pub(crate) partition: usize,
    pub(crate) offset: Option<u64>,
    pub(crate) key: Option<usize>,
    pub(crate) chain: u32,
    pub(crate) stage: Stage,
    /// Its result was in the log already when the partition was restored.
    pub(crate) skips: bool,
    pub(crate) nbytes: u32,
    /// All times of a run are of the member's own clock.
    pub(crate) deadline: Option<i64>,
    /// When the attempt that executes is to be cancelled.
    pub(crate) end: Option<i64>,
    pub(crate) cancelled: bool,
    /// The end of its attempt is on the way to the machine.
    pub(crate) reported: bool,
    pub(crate) attempts: u32,
    pub(crate) not_before: i64,
    /// It failed, and its deadline leaves no time for another attempt.
    pub(crate) hopeless: bool,
    /// Calls this attempt has not asked for, and those it asked for and did not make.
    pub(crate) calls_left: u32,
    pub(crate) calls_open: u32,
    pub(crate) used: Used,
}

/// A partition that is this member's, as it believes.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    /// Names the ownership; an adopted partition keeps it.
    pub(crate) chain: u32,
    pub(crate) epoch: u64,
    /// Where the assignment began to read.
    pub(crate) position: u64,
    /// What is read next.
    pub(crate) next: u64,
    /// Which results of the log were read when it was restored: from the first that may be of an
    /// unfinished record, to the last there was.
    pub(crate) restored: Option<(usize, usize)>,
    pub(crate) reading: bool,
    pub(crate) paused: bool,
    pub(crate) outbox: VecDeque<(u64, usize)>,
    pub(crate) publishing: bool,
    pub(crate) queued_records: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) uncommitted: bool,
    /// One after the highest offset started.
    pub(crate) reach: u64,
    /// Offsets below it run one at a time.
    pub(crate) careful_until: u64,
    /// By offset: done in this ownership, or before it.
    pub(crate) finished: Vec<bool>,
    /// By offset: the machine has seen whose event is there.
    pub(crate) sighted: Vec<bool>,
    /// Offsets taken in and not done, in order.
    pub(crate) unfinished: Vec<u64>,
    /// One after the highest offset received.
    pub(crate) received: u64,
    /// Joins that are in the machine's hands.
    pub(crate) joins: Vec<usize>,
}

/// One worker process, in one of its lives.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) life: u32,
    pub(crate) alive: bool,
    pub(crate) machine: AgentRuntime,
    pub(crate) frozen_until: i64,
    /// What its clock shows more than the world's.
    pub(crate) clock: i64,
    pub(crate) generation: u64,
    pub(crate) suspended: bool,
    pub(crate) draining: bool,
    /// It goes for good when it has drained, and another one comes after this time.
    pub(crate) leaves: Option<i64>,
    pub(crate) owned: Vec<Option<Owned>>,
    pub(crate) runs: Vec<Run>,
    /// Tokens that hold a slot.
    pub(crate) executing: Vec<u64>,
    pub(crate) queued: u64,
    /// Failed runs that wait for their next attempt.
    pub(crate) backing_off: u64,
    pub(crate) pending: Input,
    pub(crate) turn_is_due: bool,
    /// The wake-up that counts.
    pub(crate) alarm: u32,
    pub(crate) wake_at: Option<i64>,
    /// Retries it may have started by now, in thousandths.
    pub(crate) retry_allowance: u64,
    pub(crate) asks: Vec<Asked>,
    pub(crate) calls_taken: Taken,
    pub(crate) tokens_taken: Taken,
    pub(crate) last_turn: Option<i64>,
    pub(crate) committing: bool,
    pub(crate) commit_is_due: bool,
}

impl Owned {
    pub(crate) fn is_finished(&self, offset: u64) -> bool {
        self.finished.get(offset as usize).copied().unwrap_or(false)
    }

    pub(crate) fn finish(&mut self, offset: u64) {
        mark(&mut self.finished, offset);
        self.unfinished.retain(|it| *it != offset);
    }

    pub(crate) fn take_in(&mut self, offset: u64) {
        if let Err(place) = self.unfinished.binary_search(&offset) {
            self.unfinished.insert(place, offset);
        }
    }

    /// What may be committed: the lowest unfinished offset, or one after the highest received.
    pub(crate) fn floor(&self) -> u64 {
        self.unfinished.first().copied().unwrap_or(self.received)
    }

    /// What is done above an offset.
    pub(crate) fn finished_from(&self, offset: u64) -> Vec<u64> {
        let finished = self.finished.iter().enumerate().skip(offset as usize);
        finished.filter(|(_, done)| **done).map(|(offset, _)| offset as u64).collect()
    }
}

pub(crate) fn mark(flags: &mut Vec<bool>, offset: u64) {
    let place = offset as usize;
    if flags.len() <= place {
        flags.resize(place + 1, false);
    }
    flags[place] = true;
}

impl Member {
    pub(crate) fn run(&self, token: u64) -> &Run {
        &self.runs[token as usize]
    }

    pub(crate) fn run_mut(&mut self, token: u64) -> &mut Run {
        &mut self.runs[token as usize]
    }

    pub(crate) fn owns(&self, partition: usize, chain: u32) -> bool {
        self.owned[partition].as_ref().is_some_and(|it| it.chain == chain)
    }
}
