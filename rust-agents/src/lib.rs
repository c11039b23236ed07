//! This crate exists so that one agent's scheduling policy is one deterministic, testable machine.
//!
//! It never does I/O, never reads a clock, never starts a thread or a task, and never sees a
//! payload: records are tokens the caller chose, and time is an argument. It depends on `std`.
//!
//! # Kinds of methods
//!
//! [`AgentRuntime`] has three kinds:
//!
//! - **Construction**: [`AgentRuntime::new`] checks its [`Limits`].
//! - **The turn**: [`AgentRuntime::turn`] takes everything that happened since the last turn and
//!   answers with everything to do now. It is the only method that changes anything.
//! - **Getters**: [`AgentRuntime::commit_of`], [`in_flight`](AgentRuntime::in_flight),
//!   [`queued`](AgentRuntime::queued), [`running`](AgentRuntime::running),
//!   [`stats`](AgentRuntime::stats).
//!
//! # Call order
//!
//! Call `turn` whenever something happened, and at [`Turn::wake_at`] at the latest. Nothing else is
//! ordered: reports about tokens the machine no longer knows are ignored, because a rebalance may
//! have fenced them while the report was under way.
//!
//! The life of a record:
//!
//! ```text
//! offered --+--> settled: stale | redelivered | duplicate                (forget it)
//!           +--> queued in its lane --> start --> executed --> acknowledged
//!                  ^   |                  |                        ^
//!                  |   |                  +-- cancel (ends by `executed` all the same)
//!                  |   +--> settled: expired (publish a failure) --+
//!                  |                      |                        |
//!                  +-- waits for a retry <-- failed                |
//!                           |             |                        |
//!                           |             +--> settled: exhausted -+
//!                           +--> settled: expired -----------------+
//! ```
//!
//! A slot is free when `executed` or `failed` is reported. A lane moves on, and an offset is done,
//! when `acknowledged` is reported. A run that waits for a retry keeps its lane and its offset.
//!
//! # Restart
//!
//! What [`AgentRuntime::commit_of`] answers goes into the log with every commit, and comes back by
//! [`Assigned`]: the done set, so that what finished above the commit is not run again, and, after
//! unclean ends, `reach`, below which to be careful. The records below the position come back by
//! [`Input::seen`], so that the dedupe window is what it was. All of this is a hint: without it
//! records run again, and nothing is lost.
//!
//! # Calls
//!
//! A run that wants to make a call that costs something asks first:
//!
//! ```text
//! asked --+--> refused: calls | tokens | money | ended
//!         +--> (waits for the rates of the agent) --> granted --> spent
//!                        |                              +--> its attempt ends: booked as asked
//!                        +--> its attempt ends, is cancelled or lost: refused, nothing is booked
//!                        +--> spent: withdrawn, nothing is booked
//! ```
//!
//! # Example
//!
//! ```
//! use _rust::{AgentRuntime, Assigned, Input, Lane, Limits, Offer, Place};
//!
//! # fn main() -> Result<(), _rust::Misuse> {
//! let limits = Limits { slots: 2, retries: 3, ..Limits::default() };
//! let mut runtime = AgentRuntime::new(limits)?;
//! let turn = runtime.turn(0, Input {
//!     assigned: Some(vec![Assigned { partition: 0, epoch: 1, position: 40, ..Assigned::default() }]),
//!     offered: vec![Offer {
//!         token: 7,
//!         place: Place { partition: 0, epoch: 1, offset: Some(40) },
//!         lane: Some(Lane::of(b"customer-12")),
//!         deadline: Some(5_000),
//!         nbytes: 812,
//!         ..Offer::default()
//!     }],
//!     ..Input::default()
//! })?;
//! assert_eq!(turn.start, [7]);
//! assert_eq!(turn.wake_at, Some(5_000));
//!
//! let turn = runtime.turn(120, Input { executed: vec![7], acknowledged: vec![7], ..Input::default() })?;
//! assert_eq!(turn.commits, [(0, 41)]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod agent_runtime;
#[cfg(feature = "python")]
mod digests;
#[cfg(feature = "python")]
mod headers;
#[cfg(any(feature = "python", test))]
mod json;
#[cfg(feature = "python")]
mod moments;
#[cfg(any(feature = "python", test))]
mod protocol;
#[cfg(feature = "python")]
mod python_bindings;
#[cfg(feature = "python")]
mod record_batch;
#[cfg(any(feature = "python", test))]
mod result_reader;
#[cfg(any(feature = "python", test))]
mod results;
#[cfg(feature = "python")]
mod traces;
#[cfg(any(feature = "python", test))]
mod varints;
#[cfg(feature = "python")]
mod wire;

pub use agent_runtime::AgentRuntime;
pub use agent_runtime::assignment::{Assigned, Commit};
pub use agent_runtime::dedupe::Identity;
pub use agent_runtime::lanes::Lane;
pub use agent_runtime::limits::Limits;
pub use agent_runtime::misuse::Misuse;
#[cfg(feature = "mutants")]
pub use agent_runtime::mutants::{Mutant, activate};
pub use agent_runtime::spend::{Amount, Budget, Refusal};
pub use agent_runtime::stats::Stats;
pub use agent_runtime::turn::{Ask, Failure, Input, Offer, Place, Reason, Seen, Spent, Turn};
