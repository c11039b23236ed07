//! Calls exist to bring together what a run may spend, which its purse knows, and how fast all of them
//! may, which the asks know; what is reserved for one is booked, given back or paid, and never lost.

use super::AgentRuntime;
use super::record::State;
use super::spend::Refusal;
use super::turn::{Ask, Spent, Turn};

impl AgentRuntime {
    pub(super) fn handle_spent(&mut self, spent: Spent) {
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

    pub(super) fn handle_asked(&mut self, asked: Ask, turn: &mut Turn) {
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
    pub(super) fn refuse_asks(&mut self, token: u64, turn: &mut Turn) {
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
    pub(super) fn end_asks(&mut self, token: u64, turn: &mut Turn) {
        self.refuse_asks(token, turn);
        if let Some(purse) = self.records.get_mut(&token).and_then(|it| it.purse.as_mut()) {
            for ask in purse.asks.drain(..) {
                self.asks.forget(ask);
            }
        }
    }
}
