//! Arrivals exist so that a record is either taken in, or settled at once with the reason why not; what
//! is taken in is in the books of its partition before it can start.

use super::AgentRuntime;
use super::dedupe::Sighting;
use super::record::{Record, State};
use super::spend::{Budget, Purse};
use super::turn::{Offer, Reason, Seen, Turn};

impl AgentRuntime {
    pub(super) fn handle_seen(&mut self, seen: Seen) {
        let Seen { partition, offset, identity, timestamp } = seen;
        if mutant!(SeenForgotten) {
            return;
        }
        if let Some(partition) = self.assignment.touch(partition) {
            partition.window.note(Sighting { identity, offset, timestamp }, self.dedupe);
        }
    }

    pub(super) fn handle_offered(&mut self, offer: Offer, turn: &mut Turn) {
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
        self.records.insert(token, Box::new(record));
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
}
