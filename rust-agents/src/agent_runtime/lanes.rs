//! Lanes exist so that events of one key run one at a time, in the order they were offered.
//!
//! They never know whether a token is still alive: fenced ones are left in line, and the composer
//! skips them when their turn comes.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
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

/// The lanes that have a head, and who waits behind it.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// The end of each.
    last: HashMap<Lane, u64, BuildHasherDefault<TokenHasher>>,
    /// Who waits, by whom before: next to nobody, where there are as many keys as runs.
    next: HashMap<u64, u64, BuildHasherDefault<TokenHasher>>,
}

impl Lanes {
    /// Puts a token at the end of a lane; true when that is also its head.
    pub(crate) fn enter(&mut self, lane: Lane, token: u64) -> bool {
        let before = self.last.insert(lane, token);
        if let Some(before) = before {
            self.next.insert(before, token);
        }
        before.is_none()
    }

    /// Takes the head away, and answers who is next. `None` means the lane is free.
    pub(crate) fn leave(&mut self, lane: Lane, head: u64) -> Option<u64> {
        let next = self.next.remove(&head);
        if next.is_none() {
            self.last.remove(&lane);
        }
        next
    }
}
