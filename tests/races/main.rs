//! What crosses actors and threads, in real time on several threads: each module is a behaviour. How a test is run, and how
//! often, is in [`shardkeeper_tests::races`].

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod endings;
mod identify;
mod refusals;
mod store;
