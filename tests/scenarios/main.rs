//! The library against the simulated Discord: each module is a behaviour.

mod commands;
mod crashes;
mod delivery;
mod endings;
mod faults;
mod refusals;
mod secrets;
mod starting;
