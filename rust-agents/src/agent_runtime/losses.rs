//! Losses exist because another member may own a partition a moment later: whatever is unfinished in a
//! lost one is fenced, wherever it stands, and nothing of it is told as an outcome any more.

use super::AgentRuntime;
use super::assignment::Assigned;
use super::record::State;
use super::turn::{Reason, Turn};

impl AgentRuntime {
    pub(super) fn handle_assigned(&mut self, assigned: &[Assigned], turn: &mut Turn) {
        for lost in self.assignment.replace(assigned) {
            for token in lost.offsets.unfinished().chain(lost.without_offset.iter().copied()) {
                self.fence(token, turn);
            }
        }
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
                self.release(lane, token);
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
        self.release(lane, token);
    }
}
