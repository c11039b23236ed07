//! The runtime exists to compose the parts below into one decision per turn; it never keeps a rule
//! of its own that a part could keep.

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
mod asks;
pub(crate) mod assignment;
mod deadlines;
pub(crate) mod dedupe;
mod done_set;
mod gate;
pub(crate) mod lanes;
pub(crate) mod limits;
pub(crate) mod misuse;
#[cfg(feature = "mutants")]
pub(crate) mod mutants;
mod offsets;
mod rate_limit;
mod record;
mod retries;
pub(crate) mod spend;
mod token_hasher;
pub(crate) mod turn;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use admission::Admission;
use asks::Asks;
use assignment::{Assigned, Assignment, Commit};
use deadlines::Deadlines;
use dedupe::{Reach, Sighting};
use lanes::{Lane, Lanes};
use limits::Limits;
use misuse::Misuse;
use record::{Record, State};
use retries::Retries;
use spend::{Budget, Purse, Refusal};
use token_hasher::TokenHasher;
use turn::{Ask, Failure, Input, Offer, Reason, Seen, Spent, Turn};

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
///   running work, acknowledgements and commits go on.
/// - **Loss**: when a partition is lost, everything unfinished in it is fenced, and nothing is
///   committed for it again. A run that still executes keeps its slot and its lane until it ends.
#[derive(Debug)]
pub struct AgentRuntime {
    now: i64,
    timeout_ms: Option<i64>,
    records: HashMap<u64, Record, BuildHasherDefault<TokenHasher>>,
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

/// What the machine holds, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The limit given.
    pub slots: u64,
    /// Slots taken, by runs being cancelled and fenced ones too.
    pub running: u64,
    /// Runs that ended and records that expired, whose result is not acknowledged.
    pub unacknowledged: u64,
    /// Records not started.
    pub queued_records: u64,
    /// What these weigh.
    pub queued_bytes: u64,
    /// Failed runs that wait for their next attempt.
    pub retrying: u64,
    /// Retries the budget allows at once.
    pub retry_budget: u64,
    /// Calls that wait for the agent's rates.
    pub waiting_asks: u64,
    /// Records skipped as duplicates, ever.
    pub duplicates: u64,
    /// Partitions that are ours.
    pub partitions: u64,
    /// Partitions that wait for their lowest record, because the done set above it is full.
    pub full_partitions: u64,
    /// Records done but not committed, because a lower one is not done.
    pub done_above_base: u64,
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
        if input.revoked {
            self.assignment.suspend();
        }
        if let Some(assigned) = input.assigned {
            self.handle_assigned(&assigned, &mut turn);
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

    /// What the machine holds. Costs a look at every partition.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let done = self.assignment.partitions().map(|it| it.offsets.done().count());
        let full = self.assignment.partitions().filter(|it| it.full());
        Stats {
            slots: self.admission.slots(),
            running: self.running(),
            unacknowledged: self.unacknowledged as u64,
            queued_records: self.queued(),
            queued_bytes: self.admission.backlog.bytes,
            retrying: self.backing_off as u64,
            retry_budget: self.retries.affordable(),
            waiting_asks: self.asks.waiting() as u64,
            duplicates: self.duplicates,
            partitions: self.assignment.len() as u64,
            full_partitions: full.count() as u64,
            done_above_base: done.fold(0, u64::saturating_add),
        }
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

    fn handle_spent(&mut self, spent: Spent) {
        let Spent { ask, price } = spent;
        let Some(open) = self.asks.settle(ask, price) else {
            return;
        };
        if let Some(purse) = self.records.get_mut(&open.token).and_then(|it| it.purse.as_mut()) {
            if open.granted() {
                purse.settle(ask, open.reserved, price);
            } else {
                purse.release(ask, open.reserved);
            }
        }
    }

    fn handle_asked(&mut self, asked: Ask, turn: &mut Turn) {
        let Ask { ask, token, price } = asked;
        let running = self.records.get_mut(&token);
        let running =
            running.filter(|it| matches!(it.state, State::Executing { cancelled: false, .. }));
        let answer = match running {
            Some(record) => record.purse.get_or_insert_default().reserve(ask, price),
            None => Err(Refusal::Ended),
        };
        match answer {
            Ok(()) => self.asks.line_up(ask, token, price),
            Err(refusal) => turn.refused.push((ask, refusal)),
        }
    }

    /// Refuses what a run still waits for, because it may not go on.
    fn refuse_asks(&mut self, token: u64, turn: &mut Turn) {
        let Some(purse) = self.records.get_mut(&token).and_then(|it| it.purse.as_mut()) else {
            return;
        };
        for ask in purse.asks.clone() {
            if let Some(reserved) = self.asks.withdraw(ask) {
                purse.release(ask, reserved);
                turn.refused.push((ask, Refusal::Ended));
            }
        }
    }

    /// Settles the calls of an attempt that ended. What was granted may have been made, so it stays
    /// booked.
    fn end_asks(&mut self, token: u64, turn: &mut Turn) {
        self.refuse_asks(token, turn);
        if let Some(purse) = self.records.get_mut(&token).and_then(|it| it.purse.as_mut()) {
            for ask in purse.asks.drain(..) {
                self.asks.forget(ask);
            }
        }
    }

    fn handle_executed(&mut self, token: u64, turn: &mut Turn) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        match record.state {
            State::Executing { end, cancelled } => {
                if let Some(end) = end {
                    self.end_by.disarm(end, token);
                }
                if !cancelled {
                    self.retries.deposit();
                }
                record.state = State::Unacknowledged;
                let lane = if mutant!(LaneReleasedEarly) { record.lane.take() } else { None };
                let (partition, offset) = (record.partition, record.offset);
                self.unacknowledged += 1;
                self.admission.free_slot();
                self.end_asks(token, turn);
                self.release(lane);
                if mutant!(CommitEarly)
                    && let (Some(partition), Some(offset)) =
                        (self.assignment.touch(partition), offset)
                {
                    partition.finish(offset);
                }
            }
            State::Fenced if mutant!(FencedRunPublishes) => {
                record.state = State::Unacknowledged;
                self.unacknowledged += 1;
                self.admission.free_slot();
            }
            State::Fenced => self.forget_fenced(token, turn),
            _ => {}
        }
    }

    fn handle_failed(&mut self, failure: Failure, turn: &mut Turn) {
        let Failure { token, retry_after } = failure;
        let end = match self.records.get(&token).map(|it| it.state) {
            Some(State::Executing { end, .. }) => end,
            Some(State::Fenced) => return self.forget_fenced(token, turn),
            _ => return,
        };
        self.end_asks(token, turn);
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        if let Some(end) = end {
            self.end_by.disarm(end, token);
        }
        if !mutant!(SlotKeptByBackoff) {
            self.admission.free_slot();
        }
        if mutant!(DeadlineLostByRetry) {
            record.deadline = None;
        }
        if mutant!(BudgetLostByRetry) {
            record.purse = None;
        }
        let passed = if mutant!(ReorderOnRetry) { record.lane.take() } else { None };
        record.failed = record.failed.saturating_add(1);
        let late = record.deadline.is_some_and(|it| it <= self.now);
        if self.retries.exhausted(record.failed) && !late {
            record.state = State::Unacknowledged;
            self.unacknowledged += 1;
            turn.settled.push((token, Reason::Exhausted));
            return;
        }
        let delay = self.retries.delay(record.failed, retry_after);
        let due = self.now.saturating_add(i64::try_from(delay).unwrap_or(i64::MAX));
        self.backing_off += 1;
        let in_time = mutant!(RetryPastDeadline) || record.deadline.is_none_or(|it| due < it);
        let due = if mutant!(RetryWithoutBackoff) { self.now } else { due };
        // Too late already: it expires below, or after the suspension, like any other record.
        let expires = if in_time { record.deadline } else { Some(self.now) };
        if let Some(expires) = expires {
            self.start_by.arm(expires, token);
        }
        record.state = State::Backoff { due: in_time.then_some(due), expires };
        if in_time {
            self.retries.wait(due, token);
            turn.retries.push((token, record.failed, delay));
        }
        self.release(passed);
    }

    /// A fenced run has ended: its slot and its lane are free.
    fn forget_fenced(&mut self, token: u64, turn: &mut Turn) {
        self.end_asks(token, turn);
        if let Some(record) = self.records.remove(&token) {
            if !mutant!(SlotLeaked) {
                self.admission.free_slot();
            }
            turn.settled.push((token, Reason::Fenced));
            self.release(record.lane);
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
        self.release(record.lane);
        if self.assignment.touch(record.partition).is_some_and(|it| it.gate.finish(token)) {
            self.open_gate(record.partition);
        }
    }

    fn handle_assigned(&mut self, assigned: &[Assigned], turn: &mut Turn) {
        for lost in self.assignment.replace(assigned) {
            for token in lost.offsets.unfinished().chain(lost.without_offset.iter().copied()) {
                self.fence(token, turn);
            }
        }
    }

    fn handle_seen(&mut self, seen: Seen) {
        let Seen { partition, offset, identity, timestamp } = seen;
        if mutant!(SeenForgotten) {
            return;
        }
        if let Some(partition) = self.assignment.touch(partition) {
            partition.window.note(Sighting { identity, offset, timestamp }, self.dedupe);
        }
    }

    fn handle_offered(&mut self, offer: Offer, turn: &mut Turn) {
        if let Some(reason) = self.refuse(&offer) {
            turn.settled.push((offer.token, reason));
            return;
        }
        let Offer { token, place, lane, deadline, nbytes, budget, .. } = offer;
        let Some(partition) = self.assignment.touch(place.partition) else {
            return;
        };
        match place.offset {
            Some(offset) => partition.offsets.receive(offset, token),
            None => {
                partition.without_offset.insert(token);
            }
        }
        partition.backlog.add(nbytes);
        self.admission.backlog.add(nbytes);
        let record = Record {
            partition: place.partition,
            offset: place.offset,
            lane,
            deadline,
            nbytes,
            failed: 0,
            purse: (budget != Budget::default()).then(|| Box::new(Purse::new(budget))),
            state: State::Waiting,
        };
        self.records.insert(token, record);
        let lane = if mutant!(LaneIgnored) { None } else { lane };
        if partition.gate.holds(place.offset, partition.offsets.floor()) {
            partition.gate.stop(place.offset, token);
            self.open_gate(place.partition);
        } else {
            self.enter_lane(lane, token);
        }
    }

    /// Why an offered record is not taken in; its offset is then in the books already.
    fn refuse(&mut self, offer: &Offer) -> Option<Reason> {
        let elsewhere = mutant!(DedupeAcrossPartitions)
            && self.assignment.partitions().any(|it| {
                let Offer { identity, timestamp, place, .. } = *offer;
                let sighting = identity.zip(place.offset);
                let sighting =
                    sighting.map(|(identity, offset)| Sighting { identity, offset, timestamp });
                sighting.is_some_and(|sighting| it.window.repeats(sighting, self.dedupe))
            });
        let Some(partition) = self.assignment.accept(offer.place) else {
            return Some(Reason::Stale);
        };
        if let Some(offset) = offer.place.offset {
            let timestamp = offer.timestamp;
            let sighting = offer.identity.map(|identity| Sighting { identity, offset, timestamp });
            let known = partition.offsets.know(offset);
            let repeats = sighting.is_some_and(|it| partition.window.repeats(it, self.dedupe));
            let repeats = !mutant!(SkipDedupe) && (repeats || elsewhere);
            // A known offset is noted too: after a restart the window has not seen it.
            if let Some(sighting) = sighting {
                partition.window.note(sighting, self.dedupe);
            }
            if known {
                partition.offsets.pass(offset);
                return Some(Reason::Redelivered);
            }
            if repeats {
                if !mutant!(DuplicateNotDone) {
                    partition.receive_done(offset);
                }
                self.duplicates += 1;
                return Some(Reason::Duplicate);
            }
        }
        None
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

    /// A failed run is queued again.
    fn handle_backoff_over(&mut self, token: u64) {
        let Some(record) = self.records.get(&token) else {
            return;
        };
        self.backing_off -= 1;
        self.admission.backlog.add(record.nbytes);
        if let Some(partition) = self.assignment.touch(record.partition) {
            partition.backlog.add(record.nbytes);
        }
        self.make_ready(token);
    }

    fn poll_starts(&mut self, turn: &mut Turn) {
        if self.assignment.suspended() && !mutant!(StartWhileSuspended) {
            return;
        }
        let (admission, most) = (&mut self.admission, self.max_done_bytes);
        self.assignment.look_at_touched(|partition| {
            partition.measure(most);
            if !partition.parked.is_empty() {
                admission.line_up_again(&mut partition.parked);
            }
        });
        while self.admission.has_free_slot()
            && let Some((place, token)) = self.admission.ready.pop_front()
        {
            let Some(record) = self.records.get_mut(&token) else {
                continue;
            };
            if record.state != (State::Ready { place }) {
                continue;
            }
            if let Some(partition) = self.assignment.touch(record.partition) {
                if !partition.may_start(record) {
                    partition.parked.push((place, token));
                    continue;
                }
                partition.backlog.subtract(record.nbytes);
                partition.start(record);
            }
            self.admission.backlog.subtract(record.nbytes);
            if let Some(deadline) = record.deadline {
                self.start_by.disarm(deadline, token);
            }
            let timeout = self.timeout_ms.map(|it| self.now.saturating_add(it));
            let timeout = if mutant!(TimeoutDropped) { None } else { timeout };
            let deadline = if mutant!(DeadlineDropped) { None } else { record.deadline };
            let end = deadline.into_iter().chain(timeout).min();
            if let Some(end) = end {
                self.end_by.arm(end, token);
            }
            record.state = State::Executing { end, cancelled: false };
            self.admission.take_slot();
            turn.start.push(token);
        }
        // Settled tokens leave the line when they are popped. When nothing is popped for long
        // because all slots are busy, they leave it here.
        if self.admission.ready.len() as u64 > 2 * self.queued() + 64 {
            let records = &self.records;
            self.admission.ready.retain(|&(place, token)| {
                records.get(&token).is_some_and(|it| it.state == State::Ready { place })
            });
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

    /// Ends the part of a record that its lost partition took with it.
    fn fence(&mut self, token: u64, turn: &mut Turn) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        match record.state {
            State::Executing { end, cancelled } => {
                record.state = State::Fenced;
                if let Some(end) = end {
                    self.end_by.disarm(end, token);
                }
                let lane = if mutant!(FencedLaneReleased) { record.lane.take() } else { None };
                if !cancelled && !mutant!(FencedRunGoesOn) {
                    turn.cancel.push(token);
                }
                self.refuse_asks(token, turn);
                self.release(lane);
                return;
            }
            State::Fenced => return,
            State::Waiting => self.admission.backlog.subtract(record.nbytes),
            State::Ready { .. } => {
                self.admission.backlog.subtract(record.nbytes);
                if let Some(deadline) = record.deadline {
                    self.start_by.disarm(deadline, token);
                }
            }
            State::Backoff { due, expires } => {
                self.backing_off -= 1;
                if let Some(due) = due {
                    self.retries.forget(due, token);
                }
                if let Some(expires) = expires {
                    self.start_by.disarm(expires, token);
                }
                // Its failure may be of this very turn: then nobody was told yet.
                turn.retries.retain(|&(retried, ..)| retried != token);
            }
            State::Unacknowledged => {
                self.unacknowledged -= 1;
                // Its last failure may be of this very turn: then nobody was told yet.
                if self.retries.exhausted(record.failed) {
                    turn.settled.retain(|&(settled, _)| settled != token);
                }
            }
        }
        // A waiting record is not the head of its lane, so it leaves nothing to the next one.
        let lane = if record.state == State::Waiting { None } else { record.lane };
        self.records.remove(&token);
        if !mutant!(FencedInSilence) {
            turn.settled.push((token, Reason::Fenced));
        }
        self.release(lane);
    }

    /// Lets the next living record of a lane be its head.
    fn release(&mut self, lane: Option<Lane>) {
        let Some(lane) = lane else { return };
        while let Some(next) = self.lanes.leave(lane) {
            if self.records.contains_key(&next) {
                self.make_ready(next);
                return;
            }
        }
    }

    /// Lets records through the gate of a partition, as far as it is open now.
    fn open_gate(&mut self, partition: u32) {
        let passing = self.assignment.touch(partition).map(|it| it.gate.pass());
        for token in passing.unwrap_or_default() {
            if let Some(lane) = self.records.get(&token).map(|it| it.lane) {
                self.enter_lane(lane, token);
            }
        }
    }

    fn enter_lane(&mut self, lane: Option<Lane>, token: u64) {
        if lane.is_none_or(|lane| self.lanes.enter(lane, token)) {
            self.make_ready(token);
        }
    }

    fn make_ready(&mut self, token: u64) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        record.state = State::Ready { place: self.admission.line_up(token) };
        if let Some(deadline) = record.deadline
            && !mutant!(ExpiryForgotten)
        {
            self.start_by.arm(deadline, token);
        }
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
