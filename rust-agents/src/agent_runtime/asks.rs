//! Asks exist so that the calls of all runs together stay below the agent's rates, first come first
//! served; they never know the budget of a run.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use super::limits::Limits;
use super::rate_limit::RateLimit;
use super::spend::Amount;
use super::token_hasher::TokenHasher;

/// A call that a run wants to make, or makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Whose run.
    pub(crate) token: u64,
    pub(crate) reserved: Amount,
    /// Its place in the line; `None` once it is granted.
    place: Option<u64>,
}

/// Calls that wait for the rates, and those that are granted and not settled.
#[derive(Debug)]
pub(crate) struct Asks {
    open: HashMap<u64, Open, BuildHasherDefault<TokenHasher>>,
    /// Asks by their place.
    line: BTreeMap<u64, u64>,
    places: u64,
    calls: Option<RateLimit>,
    tokens: Option<RateLimit>,
}

impl Asks {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            open: HashMap::default(),
            line: BTreeMap::new(),
            places: 0,
            calls: limits.calls_per_minute.map(RateLimit::new),
            tokens: limits.tokens_per_minute.map(RateLimit::new),
        }
    }

    pub(crate) fn know(&self, ask: u64) -> bool {
        self.open.contains_key(&ask)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Puts a call at the end of the line.
    pub(crate) fn line_up(&mut self, ask: u64, token: u64, reserved: Amount) {
        self.places += 1;
        self.line.insert(self.places, ask);
        self.open.insert(ask, Open { token, reserved, place: Some(self.places) });
    }

    /// Takes out the first call that may be made now; from then on it is granted.
    pub(crate) fn pop_granted(&mut self, now: i64) -> Option<u64> {
        if self.next_grant()? > now {
            return None;
        }
        let (_, ask) = self.line.pop_first()?;
        let open = self.open.get_mut(&ask)?;
        open.place = None;
        if let Some(calls) = &mut self.calls {
            calls.take(now, 1);
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.take(now, open.reserved.tokens);
        }
        Some(ask)
    }

    /// When the first in the line may go.
    pub(crate) fn next_grant(&self) -> Option<i64> {
        self.line.first_key_value()?;
        let limits = [&self.calls, &self.tokens];
        Some(limits.into_iter().flatten().map(RateLimit::allowed_at).max().unwrap_or(i64::MIN))
    }

    /// Forgets a call; what was granted of it and is not used may be taken by others.
    pub(crate) fn settle(&mut self, ask: u64, really: Amount) -> Option<Open> {
        let open = self.open.remove(&ask)?;
        match open.place {
            Some(place) => {
                self.line.remove(&place);
            }
            None => {
                if let Some(tokens) = &mut self.tokens {
                    tokens.settle(open.reserved.tokens, really.tokens);
                }
            }
        }
        Some(open)
    }

    /// Forgets a call that waits, and answers what was reserved for it; `None` if it is granted.
    pub(crate) fn withdraw(&mut self, ask: u64) -> Option<Amount> {
        let &Open { reserved, place, .. } = self.open.get(&ask)?;
        self.line.remove(&place?);
        self.open.remove(&ask);
        Some(reserved)
    }

    /// Forgets a call for which nobody will say what it cost.
    pub(crate) fn forget(&mut self, ask: u64) {
        self.open.remove(&ask);
    }
}

impl Open {
    pub(crate) fn granted(&self) -> bool {
        self.place.is_none()
    }
}
