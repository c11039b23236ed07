//! The runtime exists to compose the parts below into one decision per turn; it never keeps a rule
//! of its own that a part could keep.
//!
//! What concerns several parts at once is beside them, by what it is about: `arrivals`, `line`,
//! `attempts`, `calls` and `losses`.

/// Whether a fault of our own was put in on purpose; `mutants.rs` lists them.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        crate::agent_runtime::mutants::is_active(crate::agent_runtime::mutants::Mutant::$name)
    };
}
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

pub(crate) mod admission;
mod arrivals;
mod asks;
pub(crate) mod assignment;
mod attempts;
mod calls;
mod deadlines;
pub(crate) mod dedupe;
mod done_set;
mod gate;
pub(crate) mod lanes;
pub(crate) mod limits;
mod line;
mod losses;
pub(crate) mod misuse;
#[cfg(feature = "mutants")]
pub(crate) mod mutants;
mod offsets;
mod rate_limit;
mod record;
mod retries;
pub(crate) mod spend;
pub(crate) mod stats;
mod token_hasher;
pub(crate) mod turn;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use admission::Admission;
use asks::Asks;
use assignment::{Assignment, Commit};
use deadlines::Deadlines;
use dedupe::Reach;
use lanes::Lanes;
use limits::Limits;
use misuse::Misuse;
use record::{Record, State};
use retries::Retries;
use token_hasher::TokenHasher;
use turn::{Input, Reason, Turn};

/// The scheduling machine of one agent. The crate's page sorts its methods and gives the call order.
///
/// # Rules
///
/// - **Slots**: at most [`Limits::slots`] runs execute, those being cancelled included.
/// - **Lanes**: per lane one record at a time is executing or unacknowledged, in the order offered.
///   Across lanes, whoever became ready first starts first.
/// - **Offsets**: the commit of a partition is its lowest unfinished received offset, or one after
///   the highest received when all are done. It is told when it advanced, or when more is done above
///   it. While what is done above it is nearly too much to be committed along, the partition is
///   paused and starts only what lets the commit advance.
/// - **Time**: a run is cancelled at its deadline or its timeout, whichever is first. A queued
///   record expires when its deadline passes and it is at the head of its lane. Both hold from the
///   millisecond named on.
/// - **Retries**: a failed run waits, holding its lane and its offset but no slot, and is ready again
///   when its backoff is over and the retry budget, which all lanes share, allows. It expires at
///   once when its deadline is before that. It is settled as exhausted when it failed once more than
///   [`Limits::retries`].
/// - **Duplicates**: a record whose identity was at a lower offset of the same partition, within
///   [`Limits::dedupe_records`] and [`Limits::dedupe_ms`], is done at once.
/// - **Spending**: a call that a run asks for is reserved from its budget, which is for all attempts,
///   or refused; then it waits for the agent's rates, in the order asked. What is not settled when
///   the attempt ends stays booked as reserved.
/// - **Care**: below [`Assigned::careful_until`] a partition runs one record at a time.
/// - **Suspension**: from `revoked` to `assigned` nothing is accepted, started, retried or expired;
///   running work, acknowledgements and commits go on. Both in one turn: it goes on under the new
///   assignment.
/// - **Loss**: when a partition is lost, everything unfinished in it is fenced, and nothing is
///   committed for it again. A run that still executes keeps its slot and its lane until it ends.
#[derive(Debug)]
pub struct AgentRuntime {
    now: i64,
    timeout_ms: Option<i64>,
    /// Boxed: the table has room for up to twice as many.
    records: HashMap<u64, Box<Record>, BuildHasherDefault<TokenHasher>>,
    admission: Admission,
    assignment: Assignment,
    lanes: Lanes,
    /// When ready records expire.
    start_by: Deadlines,
    /// When executing ones are cancelled.
    end_by: Deadlines,
    retries: Retries,
    asks: Asks,
    dedupe: Reach,
    max_done_bytes: u64,
    unacknowledged: usize,
    backing_off: usize,
    duplicates: u64,
}

impl AgentRuntime {
    /// A machine without any partition.
    ///
    /// # Errors
    ///
    /// [`Misuse::Limit`] if a limit is zero or absurd.
    pub fn new(limits: Limits) -> Result<Self, Misuse> {
        limits.check()?;
        Ok(Self {
            now: i64::MIN,
            timeout_ms: limits.timeout_ms.map(|it| i64::try_from(it).unwrap_or(i64::MAX)),
            records: HashMap::default(),
            admission: Admission::new(limits),
            assignment: Assignment::default(),
            lanes: Lanes::default(),
            start_by: Deadlines::default(),
            end_by: Deadlines::default(),
            retries: Retries::new(&limits),
            asks: Asks::new(&limits),
            dedupe: Reach {
                records: limits.dedupe_records,
                ms: i64::try_from(limits.dedupe_ms).unwrap_or(i64::MAX),
            },
            max_done_bytes: limits.max_done_bytes,
            unacknowledged: 0,
            backing_off: 0,
            duplicates: 0,
        })
    }

    /// Takes in everything that happened up to `now`, and answers everything to do.
    ///
    /// `now` and all deadlines are milliseconds of one monotonic clock of the caller's choice.
    ///
    /// # Errors
    ///
    /// A [`Misuse`] other than [`Misuse::Limit`]; the machine is then as it was before.
    pub fn turn(&mut self, now: i64, input: Input) -> Result<Turn, Misuse> {
        self.check(now, &input)?;
        self.now = now;
        let mut turn = Turn::default();
        for spent in input.spent {
            self.handle_spent(spent);
        }
        for token in input.executed {
            self.handle_executed(token, &mut turn);
        }
        for failure in input.failed {
            self.handle_failed(failure, &mut turn);
        }
        for token in input.acknowledged {
            self.handle_acknowledged(token);
        }
        if let Some(assigned) = input.assigned {
            self.handle_assigned(&assigned, &mut turn);
        }
        if input.revoked {
            self.assignment.suspend();
        }
        for seen in input.seen {
            self.handle_seen(seen);
        }
        for offer in input.offered {
            self.handle_offered(offer, &mut turn);
        }
        for ask in input.asked {
            self.handle_asked(ask, &mut turn);
        }
        self.handle_timeouts(&mut turn);
        self.poll_starts(&mut turn);
        while let Some(ask) = self.asks.pop_granted(self.now) {
            turn.granted.push(ask);
        }
        self.poll_partitions(&mut turn);
        turn.wake_at = self.next_timeout();
        Ok(turn)
    }

    /// What to commit for a partition now; `None` if it is not ours. Costs as much as its done set is
    /// long, so ask when you really commit.
    #[must_use]
    pub fn commit_of(&self, partition: u32) -> Option<Commit> {
        let most = usize::try_from(self.max_done_bytes).unwrap_or(usize::MAX);
        self.assignment.get(partition).map(|it| it.commit(most))
    }

    /// Runs that still need something from the caller before it may go: executing ones, fenced ones
    /// that still execute, and those whose result is not acknowledged. Those waiting for a retry are
    /// not among them: whoever owns their partition next will run them.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.admission.executing() + self.unacknowledged as u64
    }

    /// Records taken in but not started, or to be started once more.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.admission.backlog.records
    }

    /// Slots taken.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.admission.executing()
    }

    /// Everything that can be wrong with a turn, before anything is changed by it.
    fn check(&self, now: i64, input: &Input) -> Result<(), Misuse> {
        if now < self.now {
            return Err(Misuse::ClockWentBack { now, before: self.now });
        }
        if let Some(assigned) = &input.assigned {
            Assignment::check(assigned)?;
        }
        let tokens = input.offered.iter().map(|it| it.token).collect();
        if let Some(token) = reused(tokens, |it| self.records.contains_key(&it)) {
            return Err(Misuse::TokenReused { token });
        }
        let asks = input.asked.iter().map(|it| it.ask).collect();
        match reused(asks, |it| self.asks.know(it)) {
            Some(ask) => Err(Misuse::AskReused { ask }),
            None => Ok(()),
        }
    }

    fn handle_acknowledged(&mut self, token: u64) {
        if self.records.get(&token).is_none_or(|it| it.state != State::Unacknowledged) {
            return;
        }
        let Some(record) = self.records.remove(&token) else {
            return;
        };
        self.unacknowledged -= 1;
        self.finish(token, &record);
        self.release(record.lane, token);
        if self.assignment.touch(record.partition).is_some_and(|it| it.gate.finish(token)) {
            self.open_gate(record.partition);
        }
    }

    fn handle_timeouts(&mut self, turn: &mut Turn) {
        while let Some(token) = self.end_by.pop_due(self.now) {
            if let Some(record) = self.records.get_mut(&token) {
                record.state = State::Executing { end: None, cancelled: true };
                turn.cancel.push(token);
                if !mutant!(AskForgottenByCancel) {
                    self.refuse_asks(token, turn);
                }
            }
        }
        // An expiry is an outcome, and a suspended partition may be someone else's in a moment: it
        // is for the next owner to decide.
        if self.assignment.suspended() && !mutant!(ExpireWhileSuspended) {
            return;
        }
        while let Some(token) = self.start_by.pop_due(self.now) {
            self.expire(token, turn);
        }
        while let Some(token) = self.retries.pop_due(self.now) {
            self.handle_backoff_over(token);
        }
    }

    fn expire(&mut self, token: u64, turn: &mut Turn) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        let queued = match record.state {
            State::Backoff { due, .. } => {
                self.backing_off -= 1;
                if let Some(due) = due {
                    self.retries.forget(due, token);
                }
                false
            }
            _ => true,
        };
        record.state = State::Unacknowledged;
        self.unacknowledged += 1;
        turn.settled.push((token, Reason::Expired));
        if queued {
            self.admission.backlog.subtract(record.nbytes);
            if let Some(partition) = self.assignment.touch(record.partition) {
                partition.backlog.subtract(record.nbytes);
                partition.activate(record);
            }
        }
    }

    fn poll_partitions(&mut self, turn: &mut Turn) {
        if self.admission.flood_turned() {
            self.assignment.touch_all();
        }
        let suspended = self.assignment.suspended();
        let admission = &self.admission;
        self.assignment.visit_touched(|id, partition| {
            if let Some(offset) = partition.next_commit() {
                turn.commits.push((id, offset));
            }
            let pauses = admission.pauses(partition.paused, partition.backlog) || partition.full();
            if pauses != partition.paused && !suspended {
                partition.paused = pauses;
                if pauses {
                    turn.pause.push(id);
                } else {
                    turn.resume.push(id);
                }
            }
        });
    }

    fn next_timeout(&self) -> Option<i64> {
        let waiting = [self.start_by.earliest(), self.retries.next_due()];
        let waiting = waiting.into_iter().flatten().filter(|_| !self.assignment.suspended());
        let end_by = if mutant!(WakeForgotten) { None } else { self.end_by.earliest() };
        waiting.chain(end_by).chain(self.asks.next_grant()).min()
    }

    /// Marks the offset of a record done.
    fn finish(&mut self, token: u64, record: &Record) {
        let Some(partition) = self.assignment.touch(record.partition) else {
            return;
        };
        match record.offset {
            Some(offset) => {
                partition.finish(offset);
                partition.active -= 1;
            }
            None => {
                partition.without_offset.remove(&token);
            }
        }
    }
}

/// A number that stands twice in the list, or is known already.
fn reused(mut numbers: Vec<u64>, know: impl Fn(u64) -> bool) -> Option<u64> {
    if let Some(known) = numbers.iter().find(|it| know(**it)) {
        return Some(*known);
    }
    // Counted up, as most callers do, they are sorted already, and this costs one pass.
    numbers.sort_unstable();
    numbers.windows(2).find_map(|pair| match pair {
        &[one, next] if one == next => Some(one),
        _ => None,
    })
}
