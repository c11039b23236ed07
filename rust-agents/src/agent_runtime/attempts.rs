//! An attempt exists from its start to the report of how it ended; it takes a slot for exactly that long,
//! and how it ended decides whether its record waits for an acknowledgement or for another attempt.

use super::AgentRuntime;
use super::record::State;
use super::turn::{Failure, Reason, Turn};

impl AgentRuntime {
    pub(super) fn poll_starts(&mut self, turn: &mut Turn) {
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

    pub(super) fn handle_executed(&mut self, token: u64, turn: &mut Turn) {
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
                self.release(lane, token);
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

    pub(super) fn handle_failed(&mut self, failure: Failure, turn: &mut Turn) {
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
        self.release(passed, token);
    }

    /// A fenced run has ended: its slot and its lane are free.
    fn forget_fenced(&mut self, token: u64, turn: &mut Turn) {
        self.end_asks(token, turn);
        if let Some(record) = self.records.remove(&token) {
            if !mutant!(SlotLeaked) {
                self.admission.free_slot();
            }
            turn.settled.push((token, Reason::Fenced));
            self.release(record.lane, token);
        }
    }

    /// A failed run is queued again.
    pub(super) fn handle_backoff_over(&mut self, token: u64) {
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
}
