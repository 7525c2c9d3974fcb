//! Tests of everything that crosses actors and threads, in real time on several threads. Each module covers
//! one behaviour. [`shardkeeper_tests::races`] explains how and how often a test runs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chaos;
mod endings;
mod held_up;
mod identify;
mod kills;
mod order;
mod refusals;
mod removals;
mod reshard;
mod store;
