//! A simulated Discord: Gateway and REST, with guilds that live, and faults on demand. It judges its clients.
//!
//! It is a reading of the protocol of its own and shares no code with shardkeeper's client, so that a mistake of the
//! one is not also one of the other. Comments, tests and violations name the rules of the Gateway as `GW-nnn`.
//!
//! Two ways to run it: on a TCP port ([`Simulator::bind`]), and within a process on streams in memory
//! ([`Simulator::in_memory`]), where with tokio's paused clock hours take milliseconds.
//!
//! ```
//! use shardkeeper_sim::{SimConfig, Simulator};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let mut config = SimConfig::default();
//! config.shards = 4;
//! let simulator = Simulator::bind(config, ([127, 0, 0, 1], 0).into()).await?;
//! println!("point a client to {}", simulator.api_url());
//! // … and in the end:
//! assert!(simulator.report().violations.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Traces
//!
//! READY, GUILD_CREATE and each generated event carry `"_trace":["sim:<shard>:<session>:<number>"]` in their data.
//! [`Simulator::observe`] takes what a subscriber of the client received, and [`Simulator::delivery`] says what was
//! lost, doubled or out of order.
//!

#![recursion_limit = "256"] // for the JSON of a whole guild

mod acting;
mod action;
mod commands;
mod config;
mod connection;
mod discord;
mod etf;
mod fault;
mod http;
mod intents;
mod judge;
mod ledger;
mod link;
mod login;
mod report;
mod rest;
mod session;
mod simulator;
mod tls;
mod traffic;
mod wire;
mod world;

pub use action::{Action, Script, ScriptError};
pub use config::{Mix, SimConfig, SimTimings};
pub use fault::{ConnectFault, Fault, InjectError, RestFault};
pub use report::{Delivery, IdentifyRecord, Report, Violation};
pub use simulator::Simulator;
