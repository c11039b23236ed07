//! The gate exists so that a partition whose process died again and again is taken up one record at
//! a time, and the one that kills is alone when it does; it never looks at what a record is.

use std::collections::BTreeSet;

/// Holds back records of one partition. A gate whose `until` lies behind is open, and costs nothing.
///
/// A record enters its lane when it leaves the gate, so whoever waits in a lane waits only for
/// records that are past their gates, and no two can wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Offsets below it pass alone. So do runs without an offset, until everything below is done.
    until: u64,
    /// By offset, those without one first; then by token.
    waiting: BTreeSet<(u64, u64)>,
    /// Who passed alone and is not done.
    alone: Option<u64>,
}

impl Gate {
    pub(crate) fn until(offset: u64) -> Self {
        Self { until: offset, ..Self::default() }
    }

    /// Whether a record has to stop here, when the partition is done below `floor`.
    pub(crate) fn holds(&self, offset: Option<u64>, floor: u64) -> bool {
        let careful = match offset {
            Some(offset) => offset < self.until,
            None => floor < self.until,
        };
        careful || self.alone.is_some() || !self.waiting.is_empty()
    }

    pub(crate) fn stop(&mut self, offset: Option<u64>, token: u64) {
        self.waiting.insert((offset.unwrap_or(0), token));
    }

    /// Takes note that a record is done; true when others may pass now.
    pub(crate) fn finish(&mut self, token: u64) -> bool {
        let ends = self.alone == Some(token);
        if ends {
            self.alone = None;
        }
        ends
    }

    /// Those that pass now, in order.
    pub(crate) fn pass(&mut self) -> Vec<u64> {
        let mut passing = Vec::new();
        while self.alone.is_none()
            && let Some((offset, token)) = self.waiting.pop_first()
        {
            if offset < self.until && !mutant!(CareInCrowds) {
                self.alone = Some(token);
            }
            passing.push(token);
        }
        passing
    }
}
