//! The judge exists to compare each answer of the machine with what it was told before, and the log
//! with what it may hold. It never predicts which of several ready runs starts first.

mod bounds;
mod commits;
mod log;
mod reports;
mod starts;
