//! `Misuse` exists so that a caller's mistake is an error with a cure, and never a panic or a guess.

use std::error::Error;
use std::fmt;

/// A mistake of the caller. The machine is exactly as it was before the call.
///
/// ```text
/// Misuse
/// +-- Limit             a limit is zero or absurd
/// +-- ClockWentBack     `now` is earlier than in the turn before
/// +-- TokenReused       a token names two records
/// +-- AskReused         an ask names two calls
/// +-- PartitionTwice    an assignment lists a partition twice
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A limit is outside of what makes sense.
    Limit {
        /// Its name.
        name: &'static str,
        /// What was given.
        given: u64,
        /// The smallest value accepted.
        least: u64,
        /// The largest value accepted.
        most: u64,
    },
    /// `now` is earlier than in the turn before.
    ClockWentBack {
        /// What was given, in milliseconds.
        now: i64,
        /// What the turn before was given.
        before: i64,
    },
    /// A token was offered that names another record the machine still knows, or twice.
    TokenReused {
        /// The token.
        token: u64,
    },
    /// A call was asked for under a name that another one has, or twice.
    AskReused {
        /// The name.
        ask: u64,
    },
    /// An assignment lists a partition twice.
    PartitionTwice {
        /// The partition.
        partition: u32,
    },
}

impl fmt::Display for Misuse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { name, given, least, most } => {
                write!(formatter, "{name} is {given}, but must be from {least} to {most}")
            }
            Self::ClockWentBack { now, before } => write!(
                formatter,
                "now is {now}, but the turn before was at {before}: give times of one monotonic clock"
            ),
            Self::TokenReused { token } => write!(
                formatter,
                "token {token} is in use for another record: give every record its own token"
            ),
            Self::AskReused { ask } => {
                write!(formatter, "ask {ask} is in use for another call: give every call its own")
            }
            Self::PartitionTwice { partition } => write!(
                formatter,
                "partition {partition} is assigned twice: list every partition once"
            ),
        }
    }
}

impl Error for Misuse {}
