//! Scenarios of the library with the simulated Discord. Each module covers one behaviour.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod commands;
mod crashes;
mod delivery;
mod endings;
mod faults;
mod first_hour;
mod follow;
mod held_up;
mod identify_gate;
mod members;
mod refusals;
mod reshard;
mod reshard_faults;
mod reshard_load;
mod sentinel;
mod sessions;
mod shards;
mod starting;
mod supervision;
mod typed;
mod visible;
mod wires;
