//! The runtime exists to compose the parts below into one decision per turn; it never keeps a rule
//! of its own that a part could keep.

pub(crate) mod admission;
pub(crate) mod assignment;
mod deadlines;
pub(crate) mod lanes;
pub(crate) mod misuse;
mod offsets;
mod record;
mod token_hasher;
pub(crate) mod turn;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use admission::{Admission, Limits};
use assignment::{Assigned, Assignment};
use deadlines::Deadlines;
use lanes::{Lane, Lanes};
use misuse::Misuse;
use record::{Record, State};
use token_hasher::TokenHasher;
use turn::{Hold, Input, Offer, Reason, Turn};

/// The scheduling machine of one agent. The crate's page sorts its methods and gives the call order.
///
/// # Rules
///
/// - **Slots**: at most [`Limits::slots`] runs execute, those being cancelled included.
/// - **Lanes**: per lane one record at a time is executing or unacknowledged, in the order offered.
///   Across lanes, whoever became ready first starts first.
/// - **Offsets**: the commit of a partition is its lowest unfinished received offset, or one after
///   the highest received when all are done. It is told when it advanced.
/// - **Time**: a run is cancelled at its deadline or its timeout, whichever is first. A queued
///   record expires when its deadline passes and it is at the head of its lane. Both hold from the
///   millisecond named on.
/// - **Suspension**: from `revoked` to `assigned` nothing is accepted, started or expired; running
///   work, acknowledgements and commits go on.
/// - **Loss**: when a partition is lost, everything unfinished in it is fenced, and nothing is
///   committed for it again. A run that still executes keeps its slot and its lane until it ends.
/// - **Joins**: a record that covers others is taken in only if all of them are held and not covered
///   by another one; otherwise it is fenced, and its offset stays unfinished until someone brings it
///   again. When a covering run is fenced, the parts it covered wait for another one.
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
    unacknowledged: usize,
    held: usize,
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
    /// Join parts that wait, for others or for the run that covers them.
    pub held: u64,
    /// Partitions that are ours.
    pub partitions: u64,
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
            unacknowledged: 0,
            held: 0,
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
        for token in input.executed {
            self.handle_executed(token, &mut turn);
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
        for hold in input.held {
            self.handle_held(hold, &mut turn);
        }
        for offer in input.offered {
            self.handle_offered(offer, &mut turn);
        }
        self.handle_timeouts(&mut turn);
        self.poll_starts(&mut turn);
        self.poll_partitions(&mut turn);
        turn.wake_at = self.next_timeout();
        Ok(turn)
    }

    /// Runs that still need something from the caller before it may go: executing ones, fenced ones
    /// that still execute, and those whose result is not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.admission.executing() + self.unacknowledged as u64
    }

    /// Records taken in but not started.
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
        let done: usize = self.assignment.partitions().map(|it| it.offsets.done_above_base()).sum();
        Stats {
            slots: self.admission.slots(),
            running: self.running(),
            unacknowledged: self.unacknowledged as u64,
            queued_records: self.queued(),
            queued_bytes: self.admission.backlog.bytes,
            held: self.held as u64,
            partitions: self.assignment.len() as u64,
            done_above_base: done as u64,
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
        let mut tokens: Vec<u64> = input.held.iter().map(|it| it.token).collect();
        tokens.extend(input.offered.iter().map(|it| it.token));
        if let Some(&token) = tokens.iter().find(|it| self.records.contains_key(it)) {
            return Err(Misuse::TokenReused { token });
        }
        // Counted up, as most callers do, they are sorted already, and this costs one pass.
        tokens.sort_unstable();
        for pair in tokens.windows(2) {
            if let &[token, next] = pair
                && token == next
            {
                return Err(Misuse::TokenReused { token });
            }
        }
        Ok(())
    }

    fn handle_executed(&mut self, token: u64, turn: &mut Turn) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        match record.state {
            State::Executing { end, .. } => {
                if let Some(end) = end {
                    self.end_by.disarm(end, token);
                }
                record.state = State::Unacknowledged;
                self.unacknowledged += 1;
                self.admission.free_slot();
            }
            State::Fenced => {
                let lane = record.lane;
                self.records.remove(&token);
                self.admission.free_slot();
                turn.settled.push((token, Reason::Fenced));
                self.release(lane);
            }
            State::Waiting | State::Ready | State::Unacknowledged | State::Held { .. } => {}
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
        self.finish(&record);
        for part in &record.covers {
            let covered = State::Held { covered_by: Some(token) };
            if self.records.get(part).is_some_and(|it| it.state == covered)
                && let Some(part) = self.records.remove(part)
            {
                self.held -= 1;
                self.finish(&part);
            }
        }
        self.release(record.lane);
    }

    fn handle_assigned(&mut self, assigned: &[Assigned], turn: &mut Turn) {
        for lost in self.assignment.replace(assigned) {
            for token in lost.offsets.unfinished() {
                self.fence(token, turn);
            }
        }
    }

    fn handle_held(&mut self, hold: Hold, turn: &mut Turn) {
        let Hold { token, place } = hold;
        let Some(partition) = self.assignment.accept(place) else {
            turn.settled.push((token, Reason::Stale));
            return;
        };
        if partition.offsets.know(place.offset) {
            turn.settled.push((token, Reason::Redelivered));
            return;
        }
        partition.offsets.receive(place.offset, token);
        self.held += 1;
        let record = Record {
            partition: place.partition,
            offset: place.offset,
            lane: None,
            deadline: None,
            nbytes: 0,
            covers: Box::default(),
            state: State::Held { covered_by: None },
        };
        self.records.insert(token, record);
    }

    fn handle_offered(&mut self, offer: Offer, turn: &mut Turn) {
        let Offer { token, place, lane, deadline, nbytes, covers } = offer;
        let Some(partition) = self.assignment.accept(place) else {
            turn.settled.push((token, Reason::Stale));
            return;
        };
        if partition.offsets.know(place.offset) {
            turn.settled.push((token, Reason::Redelivered));
            return;
        }
        let free = State::Held { covered_by: None };
        if !covers.iter().all(|part| self.records.get(part).is_some_and(|it| it.state == free)) {
            partition.offsets.refuse(place.offset);
            turn.settled.push((token, Reason::Fenced));
            return;
        }
        partition.offsets.receive(place.offset, token);
        partition.backlog.add(nbytes);
        self.admission.backlog.add(nbytes);
        for part in &covers {
            if let Some(part) = self.records.get_mut(part) {
                part.state = State::Held { covered_by: Some(token) };
            }
        }
        let record = Record {
            partition: place.partition,
            offset: place.offset,
            lane,
            deadline,
            nbytes,
            covers,
            state: State::Waiting,
        };
        self.records.insert(token, record);
        if lane.is_none_or(|lane| self.lanes.enter(lane, token)) {
            self.make_ready(token);
        }
    }

    fn handle_timeouts(&mut self, turn: &mut Turn) {
        while let Some(token) = self.end_by.pop_due(self.now) {
            if let Some(record) = self.records.get_mut(&token) {
                record.state = State::Executing { end: None, cancelled: true };
                turn.cancel.push(token);
            }
        }
        // An expiry is an outcome, and a suspended partition may be someone else's in a moment: it
        // is for the next owner to decide.
        if self.assignment.suspended() {
            return;
        }
        while let Some(token) = self.start_by.pop_due(self.now) {
            if let Some(record) = self.records.get_mut(&token) {
                record.state = State::Unacknowledged;
                self.unacknowledged += 1;
                let (partition, nbytes) = (record.partition, record.nbytes);
                self.dequeue(partition, nbytes);
                turn.settled.push((token, Reason::Expired));
            }
        }
    }

    fn poll_starts(&mut self, turn: &mut Turn) {
        if self.assignment.suspended() {
            return;
        }
        while self.admission.has_free_slot()
            && let Some(token) = self.admission.ready.pop_front()
        {
            let Some(record) = self.records.get_mut(&token) else {
                continue;
            };
            if record.state != State::Ready {
                continue;
            }
            if let Some(deadline) = record.deadline {
                self.start_by.disarm(deadline, token);
            }
            let timeout = self.timeout_ms.map(|it| self.now.saturating_add(it));
            let end = record.deadline.into_iter().chain(timeout).min();
            if let Some(end) = end {
                self.end_by.arm(end, token);
            }
            record.state = State::Executing { end, cancelled: false };
            let (partition, nbytes) = (record.partition, record.nbytes);
            self.dequeue(partition, nbytes);
            self.admission.take_slot();
            turn.start.push(token);
        }
        // Settled tokens leave the line when they are popped. When nothing is popped for long
        // because all slots are busy, they leave it here.
        if self.admission.ready.len() as u64 > 2 * self.queued() + 64 {
            let records = &self.records;
            self.admission
                .ready
                .retain(|token| records.get(token).is_some_and(|it| it.state == State::Ready));
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
            let pauses = admission.pauses(partition.paused, partition.backlog);
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
        let start_by = if self.assignment.suspended() { None } else { self.start_by.earliest() };
        start_by.into_iter().chain(self.end_by.earliest()).min()
    }

    /// Ends the part of a record that its lost partition took with it.
    fn fence(&mut self, token: u64, turn: &mut Turn) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        for part in std::mem::take(&mut record.covers) {
            if let Some(part) = self.records.get_mut(&part)
                && part.state == (State::Held { covered_by: Some(token) })
            {
                part.state = State::Held { covered_by: None };
            }
        }
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        match record.state {
            State::Executing { end, cancelled } => {
                record.state = State::Fenced;
                if let Some(end) = end {
                    self.end_by.disarm(end, token);
                }
                if !cancelled {
                    turn.cancel.push(token);
                }
                return;
            }
            State::Fenced => return,
            State::Waiting => self.admission.backlog.subtract(record.nbytes),
            State::Ready => {
                self.admission.backlog.subtract(record.nbytes);
                if let Some(deadline) = record.deadline {
                    self.start_by.disarm(deadline, token);
                }
            }
            State::Unacknowledged => self.unacknowledged -= 1,
            State::Held { .. } => self.held -= 1,
        }
        // A waiting record is not the head of its lane, so it leaves nothing to the next one.
        let lane = if record.state == State::Waiting { None } else { record.lane };
        self.records.remove(&token);
        turn.settled.push((token, Reason::Fenced));
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

    fn make_ready(&mut self, token: u64) {
        let Some(record) = self.records.get_mut(&token) else {
            return;
        };
        record.state = State::Ready;
        if let Some(deadline) = record.deadline {
            self.start_by.arm(deadline, token);
        }
        self.admission.ready.push_back(token);
    }

    /// Takes a record out of what is queued.
    fn dequeue(&mut self, partition: u32, nbytes: u32) {
        self.admission.backlog.subtract(nbytes);
        if let Some(partition) = self.assignment.touch(partition) {
            partition.backlog.subtract(nbytes);
        }
    }

    /// Marks the offset of a record done.
    fn finish(&mut self, record: &Record) {
        if let Some(partition) = self.assignment.touch(record.partition) {
            partition.offsets.finish(record.offset);
        }
    }
}
