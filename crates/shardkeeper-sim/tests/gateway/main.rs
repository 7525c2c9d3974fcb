//! The simulator from a client's point of view: a plain WebSocket whose payloads the tests write, with a
//! paused clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod basics;
mod cache;
mod commands;
mod faults;
mod guilds;
mod hostile;
mod judgement;
mod layouts;
mod rest;
mod support;
mod wire;
mod world;
