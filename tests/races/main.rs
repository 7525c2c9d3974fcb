//! What crosses actors and threads, in real time on several threads: each module is a behaviour. How a test is run, and how
//! often, is in [`shardkeeper_tests::races`].

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chaos;
mod endings;
mod held_up;
mod identify;
mod kills;
mod order;
mod refusals;
mod removals;
mod store;
