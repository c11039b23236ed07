//! Results exist to be published in order, with one request of a partition at a time.

use crate::broker::Publishing;
use crate::event::{Arrival, Event};
use crate::member::Run;
use crate::world::World;

impl World {
    /// Puts a result on its way.
    pub(crate) fn publish(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let Run { partition, subject, .. } = *it.run(token);
        if let Some(owned) = &mut it.owned[partition] {
            owned.outbox.push_back((token, subject));
        }
        self.empty_outbox(member, partition);
    }

    fn empty_outbox(&mut self, member: usize, partition: usize) {
        let it = &mut self.members[member];
        let Some(owned) = &mut it.owned[partition] else { return };
        if owned.publishing || owned.outbox.is_empty() {
            return;
        }
        owned.publishing = true;
        let results: Vec<_> = owned.outbox.drain(..).collect();
        let chain = owned.chain;
        let publishing = self.publishings.len();
        self.publishings.push(Publishing { partition, chain, results });
        // A request that was lost is sent again, and so is one whose answer was lost; the broker
        // knows the second copy by its sequence number and answers it without appending it.
        let there = self.way();
        let back = self.way();
        self.schedule(self.now + there, Event::Appended { publishing });
        self.send(member, there + back, Arrival::ResultsAcknowledged { publishing });
    }

    pub(crate) fn acknowledge(&mut self, member: usize, publishing: usize) {
        let Publishing { partition, chain, .. } = self.publishings[publishing];
        for index in 0..self.publishings[publishing].results.len() {
            let (token, subject) = self.publishings[publishing].results[index];
            self.members[member].pending.acknowledged.push(token);
            if self.members[member].owns(partition, chain)
                && let Some(join) = self.subject(subject).fires
                && self.progress[join].first_outcome.is_none()
            {
                self.offer_join(member, partition, join);
            }
        }
        self.turn_soon(member);
        if let Some(owned) = &mut self.members[member].owned[partition]
            && owned.chain == chain
        {
            owned.publishing = false;
            self.empty_outbox(member, partition);
        }
    }
}
