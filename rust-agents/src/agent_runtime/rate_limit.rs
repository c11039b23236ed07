//! The rate limit exists to spread out what may be taken per minute; it delays, and never refuses.

/// Units per minute, by the generic cell rate algorithm (ITU-T I.371): one point in time says until
/// when everything taken so far is paid for.
///
/// A tenth of a minute's units may be taken at once, so no minute ever sees more than 1.1 times the
/// limit, but for a single taking that is larger itself: that goes through, and is paid for after.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_minute: i128,
    /// In `1 / per_minute` milliseconds, so that a unit is a whole number of them.
    paid_until: i128,
}

/// What a unit takes of time, in `1 / per_minute` milliseconds.
const UNIT: i128 = 60_000;

impl RateLimit {
    pub(crate) fn new(per_minute: u64) -> Self {
        Self { per_minute: i128::from(per_minute), paid_until: i128::MIN }
    }

    /// From when on the next may be taken.
    pub(crate) fn allowed_at(&self) -> i64 {
        if mutant!(RateIgnored) {
            return i64::MIN;
        }
        let at_once = (self.per_minute / 10).max(1);
        let from = self.paid_until.saturating_sub((at_once - 1) * UNIT);
        let rounded_up =
            from.div_euclid(self.per_minute) + i128::from(from.rem_euclid(self.per_minute) != 0);
        i64::try_from(rounded_up).unwrap_or(if rounded_up < 0 { i64::MIN } else { i64::MAX })
    }

    pub(crate) fn take(&mut self, now: i64, units: u64) {
        let now = i128::from(now) * self.per_minute;
        self.paid_until = self.paid_until.max(now).saturating_add(i128::from(units) * UNIT);
    }

    /// Corrects what was taken once it is known what it really was.
    pub(crate) fn settle(&mut self, taken: u64, really: u64) {
        let more = (i128::from(really) - i128::from(taken)) * UNIT;
        self.paid_until = self.paid_until.saturating_add(more);
    }
}
