//! `Limits` exist so that everything one agent may use is named in one place; they are checked once
//! and never change.

use super::misuse::Misuse;

const YEAR_MS: u64 = 365 * 24 * 3_600_000;

/// What one agent may use. `Limits::default()` is one slot, modest queues and no retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Runs executing at once, 1 to 1 000 000.
    pub slots: u64,
    /// Queued records above which a partition is paused, 1 to 1 000 000 000.
    pub max_queued_records: u64,
    /// Queued bytes above which a partition is paused, 1 to 2^50. Four times this, over all
    /// partitions together, pauses every partition that has queued records.
    pub max_queued_bytes: u64,
    /// How long a run may execute, in milliseconds, up to a year; `None` is for as long as its
    /// deadline allows.
    pub timeout_ms: Option<u64>,
    /// How often a failed run is repeated, up to 1 000.
    pub retries: u64,
    /// The longest wait before the first retry, up to a year; each further one waits up to twice as
    /// long.
    pub backoff_ms: u64,
    /// The longest wait before any retry, unless the failure itself asked for more; up to a year.
    pub max_backoff_ms: u64,
    /// Retries that may be saved up by all lanes together, 1 to 1 000 000.
    pub retry_budget: u64,
    /// How many offsets back an event is recognized as a duplicate, up to 1 000 000; 0 is never.
    pub dedupe_records: u64,
    /// How far back in record time an event is recognized as a duplicate, up to ten years.
    pub dedupe_ms: u64,
    /// Granted calls per minute, 1 to 10^9; `None` is any number.
    pub calls_per_minute: Option<u64>,
    /// Granted tokens per minute, 1 to 10^12; `None` is any number.
    pub tokens_per_minute: Option<u64>,
    /// Bytes an encoded done set may have, 1 to 4 096. At three quarters of it a partition starts
    /// nothing more than what it needs to get on.
    pub max_done_bytes: u64,
    /// Chooses the jitter of retries.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots: 1,
            max_queued_records: 2_000,
            max_queued_bytes: 16 << 20,
            timeout_ms: None,
            retries: 0,
            backoff_ms: 500,
            max_backoff_ms: 60_000,
            retry_budget: 100,
            dedupe_records: 2_000,
            dedupe_ms: 3_600_000,
            calls_per_minute: None,
            tokens_per_minute: None,
            max_done_bytes: 2_600,
            seed: 0,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), Misuse> {
        for (name, given, least, most) in [
            ("slots", self.slots, 1, 1_000_000),
            ("max_queued_records", self.max_queued_records, 1, 1_000_000_000),
            ("max_queued_bytes", self.max_queued_bytes, 1, 1 << 50),
            ("timeout_ms", self.timeout_ms.unwrap_or(1), 1, YEAR_MS),
            ("retries", self.retries, 0, 1_000),
            ("backoff_ms", self.backoff_ms, 0, YEAR_MS),
            ("max_backoff_ms", self.max_backoff_ms, 0, YEAR_MS),
            ("retry_budget", self.retry_budget, 1, 1_000_000),
            ("dedupe_records", self.dedupe_records, 0, 1_000_000),
            ("dedupe_ms", self.dedupe_ms, 0, 10 * YEAR_MS),
            ("calls_per_minute", self.calls_per_minute.unwrap_or(1), 1, 1_000_000_000),
            ("tokens_per_minute", self.tokens_per_minute.unwrap_or(1), 1, 1_000_000_000_000),
            ("max_done_bytes", self.max_done_bytes, 1, 4_096),
        ] {
            if given < least || given > most {
                return Err(Misuse::Limit { name, given, least, most });
            }
        }
        Ok(())
    }
}
