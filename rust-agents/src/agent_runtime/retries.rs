//! Retries exist to say when a failed run is tried again; they never decide whether a failure is
//! worth it, and they delay but never refuse.

use super::deadlines::Deadlines;
use super::limits::Limits;

/// What one retry costs. One thousandth comes back every millisecond.
const RETRY: u64 = 1_000;
/// What every success adds: one retry for five successes.
const DEPOSIT: u64 = RETRY / 5;

/// Failed runs that wait, and the budget they share: while everything fails, one retry per second
/// goes out, however many wait.
#[derive(Debug)]
pub(crate) struct Retries {
    most: u64,
    backoff_ms: u64,
    max_backoff_ms: u64,
    waiting: Deadlines,
    /// In thousandths of a retry.
    budget: u64,
    most_budget: u64,
    /// Until when the budget was filled over time.
    filled: i64,
    dice: u64,
}

impl Retries {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            most: limits.retries,
            backoff_ms: limits.backoff_ms,
            max_backoff_ms: limits.max_backoff_ms,
            waiting: Deadlines::default(),
            budget: limits.retry_budget * RETRY,
            most_budget: limits.retry_budget * RETRY,
            filled: i64::MIN,
            dice: limits.seed,
        }
    }

    /// Whether a run that failed this many times is to be given up.
    pub(crate) fn exhausted(&self, attempt: u32) -> bool {
        let most = self.most + u64::from(mutant!(OneAttemptTooMany));
        u64::from(attempt) > most.saturating_sub(u64::from(mutant!(OneAttemptTooFew)))
    }

    /// How long to wait after the given failed attempt, the first one being 1: exponential, with full
    /// jitter (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
    pub(crate) fn delay(&mut self, attempt: u32, retry_after: Option<u64>) -> u64 {
        let factor = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        let most = self.backoff_ms.saturating_mul(factor).min(self.max_backoff_ms);
        let retry_after = if mutant!(RetryAfterIgnored) { None } else { retry_after };
        let most = if mutant!(BackoffWithoutEnd) { most.saturating_mul(3) } else { most };
        self.roll(most).max(retry_after.unwrap_or(0))
    }

    /// Lets a failed run wait.
    pub(crate) fn wait(&mut self, due: i64, token: u64) {
        self.waiting.arm(due, token);
    }

    /// Takes out a run that waited with the same arguments.
    pub(crate) fn forget(&mut self, due: i64, token: u64) {
        self.waiting.disarm(due, token);
    }

    /// A run succeeded.
    pub(crate) fn deposit(&mut self) {
        self.budget = (self.budget + DEPOSIT).min(self.most_budget);
    }

    /// Takes out the next run to try again, if its time has come and the budget allows.
    pub(crate) fn pop_due(&mut self, now: i64) -> Option<u64> {
        self.fill(now);
        if mutant!(RetryBudgetIgnored) {
            return self.waiting.pop_due(now);
        }
        if self.budget < RETRY {
            return None;
        }
        let token = self.waiting.pop_due(now)?;
        self.budget -= RETRY;
        Some(token)
    }

    /// When to ask again. Valid after `pop_due` answered `None` in the same turn.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let missing = i64::try_from(RETRY.saturating_sub(self.budget)).unwrap_or(i64::MAX);
        self.waiting.earliest().map(|it| it.max(self.filled.saturating_add(missing)))
    }

    /// Retries the budget allows at once.
    pub(crate) fn affordable(&self) -> u64 {
        self.budget / RETRY
    }

    fn fill(&mut self, now: i64) {
        let passed = u64::try_from(now.saturating_sub(self.filled)).unwrap_or(0);
        self.budget = self.budget.saturating_add(passed).min(self.most_budget);
        self.filled = now;
    }

    /// From 0 to `most`, by `SplitMix64` (Steele, Lea, Flood 2014).
    fn roll(&mut self, most: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let scaled = (u128::from(mixed) * (u128::from(most) + 1)) >> 64;
        u64::try_from(scaled).unwrap_or(most)
    }
}
