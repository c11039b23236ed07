//! Lanes exist so that events of one key run one at a time, in the order they were offered.
//!
//! They never know whether a token is still alive: fenced ones are left in line, and the composer
//! skips them when their turn comes.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::token_hasher::TokenHasher;

/// The name of a lane.
///
/// It is a fixed-seed hash, so a machine with the same input always makes the same turns. Two keys
/// with the same hash share a lane: that costs them concurrency and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(u64);

impl Lane {
    /// The lane of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        Self(hasher.finish())
    }
}

/// The lanes that have a head, and who waits behind it. The head itself is not stored.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    occupied: HashSet<Lane, BuildHasherDefault<TokenHasher>>,
    /// Of those where somebody does: next to no lane, where there are as many keys as runs.
    behind: HashMap<Lane, VecDeque<u64>, BuildHasherDefault<TokenHasher>>,
}

impl Lanes {
    /// Puts a token at the end of a lane; true when that is also its head.
    pub(crate) fn enter(&mut self, lane: Lane, token: u64) -> bool {
        let free = self.occupied.insert(lane);
        if !free {
            self.behind.entry(lane).or_default().push_back(token);
        }
        free
    }

    /// Takes the head away, and answers who is next. `None` means the lane is free.
    pub(crate) fn leave(&mut self, lane: Lane) -> Option<u64> {
        let Entry::Occupied(mut waiting) = self.behind.entry(lane) else {
            self.occupied.remove(&lane);
            return None;
        };
        let next = waiting.get_mut().pop_front();
        if waiting.get().is_empty() {
            waiting.remove();
        }
        next
    }
}
