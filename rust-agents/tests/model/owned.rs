//! A partition that is ours, as the ledger knows it: nothing of it is ever forgotten.

use std::collections::{BTreeMap, BTreeSet};

use _rust::{Assigned, Identity, Limits};

#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) epoch: u64,
    pub(crate) position: u64,
    pub(crate) told: u64,
    pub(crate) base: u64,
    /// One after the highest offset ever started.
    pub(crate) reach: u64,
    /// More is done above the base than was told.
    pub(crate) untold: bool,
    pub(crate) paused: bool,
    /// Every offset that was ever received, and whether it is done.
    pub(crate) received: BTreeMap<u64, bool>,
    /// Offsets that were done before a restart.
    pub(crate) restored: BTreeSet<u64>,
    /// Identity and time, by offset.
    sightings: BTreeMap<u64, (Identity, i64)>,
    pub(crate) careful_until: u64,
    /// Who waits at the gate: offset, or 0 without one, and token.
    gated: BTreeSet<(u64, u64)>,
    /// Who passed the gate alone, and is not done.
    alone: Option<u64>,
}

impl Owned {
    pub(crate) fn new(assigned: &Assigned, restored: BTreeSet<u64>) -> Self {
        let &Assigned { epoch, position, careful_until, .. } = assigned;
        Self {
            epoch,
            position,
            told: position,
            base: position,
            reach: position,
            untold: false,
            paused: false,
            received: BTreeMap::new(),
            restored,
            sightings: BTreeMap::new(),
            careful_until,
            gated: BTreeSet::new(),
            alone: None,
        }
    }

    /// It came straight back.
    pub(crate) fn adopt(self, assigned: &Assigned) -> Self {
        let &Assigned { epoch, position, .. } = assigned;
        let untold = !self.done_above_base().is_empty();
        Self { epoch, position, told: position, untold, paused: false, ..self }
    }

    pub(crate) fn knows(&self, offset: u64) -> bool {
        offset < self.base || self.received.contains_key(&offset) || self.restored.contains(&offset)
    }

    /// One after the highest received.
    pub(crate) fn next(&self) -> u64 {
        let received = self.received.last_key_value().map(|(offset, _)| offset + 1);
        received.unwrap_or(0).max(self.base)
    }

    pub(crate) fn advance(&mut self) {
        let unfinished = self.received.iter().find(|(_, done)| !**done).map(|(it, _)| *it);
        self.base = unfinished.unwrap_or(self.next());
    }

    pub(crate) fn done_above_base(&self) -> BTreeSet<u64> {
        let finished = self.received.iter().filter(|(_, done)| **done).map(|(it, _)| *it);
        finished.chain(self.restored.iter().copied()).filter(|it| *it >= self.base).collect()
    }

    /// Whether the same event is at a lower offset, within the limits.
    pub(crate) fn repeats(
        &self,
        offset: u64,
        identity: Identity,
        time: i64,
        limits: &Limits,
    ) -> bool {
        let ms = i64::try_from(limits.dedupe_ms).expect("small");
        self.sightings.range(..offset).any(|(lower, &(known, then))| {
            known == identity && offset - lower <= limits.dedupe_records && time - then <= ms
        })
    }

    pub(crate) fn note(&mut self, offset: u64, identity: Identity, time: i64, limits: &Limits) {
        if limits.dedupe_records > 0 {
            self.sightings.entry(offset).or_insert((identity, time));
            let highest = self.sightings.last_key_value().map_or(0, |(it, _)| *it);
            let lowest = highest.saturating_sub(limits.dedupe_records);
            self.sightings.retain(|it, _| *it >= lowest);
        }
    }

    /// Whether a record has to stop at the gate; then it is there.
    pub(crate) fn stops(&mut self, offset: Option<u64>, token: u64) -> bool {
        let careful = offset.unwrap_or(self.base) < self.careful_until;
        let stops = careful || self.alone.is_some() || !self.gated.is_empty();
        if stops {
            self.gated.insert((offset.unwrap_or(0), token));
        }
        stops
    }

    /// The next one through the gate.
    pub(crate) fn pass(&mut self) -> Option<u64> {
        if self.alone.is_some() {
            return None;
        }
        let (offset, token) = self.gated.pop_first()?;
        self.alone = (offset < self.careful_until).then_some(token);
        Some(token)
    }

    pub(crate) fn finish(&mut self, offset: Option<u64>, token: u64) {
        if let Some(offset) = offset {
            assert_eq!(self.received.insert(offset, true), Some(false));
            self.untold = true;
        }
        self.alone = self.alone.filter(|it| *it != token);
    }
}
