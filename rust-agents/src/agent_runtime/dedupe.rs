//! The dedupe window exists so that an event that was published twice runs once. It never looks
//! across partitions, and never past its bounds: how far back it sees is stated, not best effort.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::token_hasher::TokenHasher;

/// Who an event is, wherever it stands in the log: 128 bits of fixed-seed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u128);

impl Identity {
    /// The identity that these bytes spell out.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let high = hasher.finish();
        // The state is wider than what it gives at once: one pass over the bytes is enough.
        hasher.write_u8(0xFF);
        Self(u128::from(high) << 64 | u128::from(hasher.finish()))
    }
}

/// How far back the window sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// In offsets; 0 is not at all.
    pub(crate) records: u64,
    /// In milliseconds of record time.
    pub(crate) ms: i64,
}

/// Where an event was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    pub(crate) identity: Identity,
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
}

/// What was seen lately of one partition.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// By offset, none twice.
    sightings: VecDeque<Sighting>,
    /// The highest sighting of each.
    latest: HashMap<Identity, (u64, i64), BuildHasherDefault<TokenHasher>>,
}

impl Window {
    /// Whether the same event is at a lower offset, within reach.
    pub(crate) fn repeats(&self, sighting: Sighting, reach: Reach) -> bool {
        let Some(&(offset, timestamp)) = self.latest.get(&sighting.identity) else {
            return false;
        };
        if offset < sighting.offset && within(reach, sighting, offset, timestamp) {
            return true;
        }
        // Somebody brings an older record once more, or record times are not in order.
        self.sightings
            .iter()
            .filter(|it| it.identity == sighting.identity && it.offset < sighting.offset)
            .any(|it| within(reach, sighting, it.offset, it.timestamp))
    }

    /// Remembers an event, and forgets those that are out of reach by now.
    pub(crate) fn note(&mut self, sighting: Sighting, reach: Reach) {
        if reach.records == 0 || !self.insert(sighting) {
            return;
        }
        let Sighting { identity, offset, timestamp } = sighting;
        let latest = self.latest.entry(identity).or_insert((offset, timestamp));
        if latest.0 < offset {
            *latest = (offset, timestamp);
        }
        let lowest = self.sightings.back().map_or(0, |it| it.offset.saturating_sub(reach.records));
        let lowest = lowest + 2 * u64::from(mutant!(DedupeTooNarrow));
        while let Some(first) = self.sightings.front()
            && first.offset < lowest
        {
            if self.latest.get(&first.identity).is_some_and(|(offset, _)| *offset == first.offset) {
                self.latest.remove(&first.identity);
            }
            self.sightings.pop_front();
        }
    }

    /// Puts a sighting in its place; false when its offset is there already.
    fn insert(&mut self, sighting: Sighting) -> bool {
        if self.sightings.back().is_none_or(|it| it.offset < sighting.offset) {
            self.sightings.push_back(sighting);
            return true;
        }
        match self.sightings.binary_search_by_key(&sighting.offset, |it| it.offset) {
            Ok(_) => false,
            Err(place) => {
                self.sightings.insert(place, sighting);
                true
            }
        }
    }
}

fn within(reach: Reach, sighting: Sighting, offset: u64, timestamp: i64) -> bool {
    let fresh = sighting.timestamp.saturating_sub(timestamp) <= reach.ms;
    sighting.offset - offset <= reach.records && (fresh || mutant!(DedupeForAges))
}
