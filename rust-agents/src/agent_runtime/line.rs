//! The line exists to say who is next: past the gate of its partition and at the head of its lane, a
//! record is ready, and from then on it can start or expire.

use super::AgentRuntime;
use super::lanes::Lane;
use super::record::State;

impl AgentRuntime {
    /// Lets the next living record of a lane be its head.
    pub(super) fn release(&mut self, lane: Option<Lane>, mut head: u64) {
        let Some(lane) = lane else { return };
        while let Some(next) = self.lanes.leave(lane, head) {
            if self.records.contains_key(&next) {
                self.make_ready(next);
                return;
            }
            head = next;
        }
    }

    /// Lets records through the gate of a partition, as far as it is open now.
    pub(super) fn open_gate(&mut self, partition: u32) {
        let passing = self.assignment.touch(partition).map(|it| it.gate.pass());
        for token in passing.unwrap_or_default() {
            if let Some(lane) = self.records.get(&token).map(|it| it.lane) {
                self.enter_lane(lane, token);
            }
        }
    }

    pub(super) fn enter_lane(&mut self, lane: Option<Lane>, token: u64) {
        if lane.is_none_or(|lane| self.lanes.enter(lane, token)) {
            self.make_ready(token);
        }
    }

    pub(super) fn make_ready(&mut self, token: u64) {
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
}
