//! The simulator as a client meets it: a plain WebSocket, driven by hand, under a paused clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod basics;
mod cache;
mod commands;
mod faults;
mod guilds;
mod hostile;
mod judgement;
mod rest;
mod support;
mod wire;
mod world;
