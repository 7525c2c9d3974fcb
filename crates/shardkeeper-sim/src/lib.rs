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
//! # What it is like
//!
//! - **Gateway**: every opcode, close code and documented event; `json` and `etf`; `zlib-stream`, `zstd-stream` (cargo
//!   feature `zstd`), payload compression or none; sessions that are replayed, expire, and go to whoever resumes them.
//!   Events go to each session that owns the guild, whatever its number of shards, as far as its intents reach.
//! - **Guilds that hold together**: what an event names was created before and is still there, so a client that caches
//!   never meets a contradiction. GUILD_CREATE, the answers to commands and REST tell the same guilds. Each channel
//!   remembers its 16 newest messages; older ones are neither edited nor deleted. Everything else is bounded too.
//! - **REST**, on the same port: `/gateway`, `/gateway/bot`, what clients ask for at login (`/users/@me`,
//!   `/applications/@me`), application commands, messages and reactions, direct channels, guilds with what they
//!   consist of; with Discord's error codes, the headers of rate limits, and 429. What the bot does comes back as an
//!   event.
//! - **Faults**, by [`Action`]: from Rust with [`Simulator::act`], over HTTP with `POST /sim/act`, by a [`Script`], or by
//!   chance with [`SimConfig::faults_per_minute`]. The same seed makes the same guilds, events and faults.
//! - **A judge**, with two grades: [`Report::violations`] has what Discord would answer by closing the connection,
//!   refusing the client or dropping the session, [`Report::notices`] what it advises against and takes all the same.
//!   [`JUDGEMENTS`] is the table of all of them, each with its rule and the reason for its grade. `GET /sim/report` is
//!   the report over HTTP.
//!   On a stream in memory the judge goes by when the client wrote a payload: a busy machine may run the task that reads it
//!   much later, and after that of another connection. Over TCP it goes by when the payload was read.
//!
//! # Where Discord's documentation is silent
//!
//! | what | what the simulator does | to change it |
//! |---|---|---|
//! | How long a session outlives its connection | 180 s, or until the replay buffer overflows | [`SimTimings::session_lifetime`], [`SimConfig::replay_limit`] |
//! | How late a heartbeat may be | 10 s; then close 1000 | [`SimTimings::heartbeat_tolerance`] |
//! | The connection after op 7 | stays 5 s | [`SimTimings::reconnect_grace`] |
//! | Identify or Resume on the same connection after op 9 | are taken; no event comes before | |
//! | The tags of atoms in ETF | 100 and 115 | [`SimConfig::mixed_atoms`] |
//! | Where a `zlib-stream` payload is cut into messages | nowhere | [`SimConfig::split_frames`], [`SimConfig::split_suffix`] |
//! | An event that nothing in the guilds causes | does not come | [`Simulator::dispatch`] |
//! | A Resume at the bootstrap URL or at that of another session, a token with the prefix of REST | are taken, and advised against | |
//! | URLs for Resume | one for all sessions | [`SimConfig::resume_hosts`] |
//! | All members of a guild | once in 30 s per guild, over all sessions | [`SimTimings::members_window`] |
//! | A sixth presence within 20 s | is ignored, and advised against | [`SimTimings::presence_window`] |
//! | An Identify beyond the day's limit | ends every session and the token with 4004 | |
//! | Echo of a close code 1000 | does not end the session | |
//!
//! # Gateways that differ
//!
//! Users put proxies and gateways of their own in between. [`ConnectFault::Odd`] makes connections that differ from
//! Discord's in one way, listed in [`Odd`]: as an action, `{"do": "connect", "fault": {"odd": "hello-float"}, "times":
//! 1000}`. A client should get ready and lose nothing with each of them, except where nobody can go on:
//!
//! | [`Odd`] | what a client should do |
//! |---|---|
//! | `HelloUseless` | close, and try again; never identify |
//! | `ReadyOtherShard` | give the session up, and not identify over and over (GW-129) |
//! | `ReadyWithoutUrl`, `ReadyEmptyUrl`, `ReadyNoUrl`, `ReadyHttpUrl` | resume at the bootstrap URL |
//! | `SomeUnnumbered` | deliver all; those without a number may come again after a resume |
//! | any other | go on as if nothing were odd |
//!
//! # Traces
//!
//! READY, GUILD_CREATE and each other event carry `"_trace":["sim:<shard>:<session>:<number>"]` in their data.
//! [`Simulator::observe`] takes what a subscriber of the client received, and [`Simulator::delivery`] says what was
//! lost, doubled or out of order.

#![recursion_limit = "256"] // for the JSON of a whole guild

mod acting;
mod action;
mod buckets;
mod commands;
mod config;
mod connection;
mod discord;
mod etf;
mod fault;
mod hosts;
mod http;
mod intents;
mod judge;
mod judgement;
mod ledger;
mod link;
mod login;
mod memory;
mod odd;
mod report;
mod rest;
mod script;
mod session;
mod simulator;
mod tls;
mod traffic;
mod wire;
mod world;

pub use action::Action;
pub use config::{Mix, SimConfig, SimTimings};
pub use fault::{ConnectFault, Fault, InjectError, RestFault};
pub use hosts::Host;
pub use judgement::{Grade, JUDGEMENTS, Judgement};
pub use memory::MemoryStream;
pub use odd::Odd;
pub use report::{Delivery, IdentifyRecord, Report, SessionRecord, Violation};
pub use script::{Mistake, Script, ScriptError};
pub use simulator::Simulator;
