//! A simulated Discord for tests of bots and libraries: Gateway and REST, with living guilds, faults on
//! demand, and a judge of the client's behaviour.
//!
//! The simulator was written from the protocol's rules and shares no code with shardkeeper's client, so that
//! both do not make the same mistake. Comments, tests and violations name the rules of the Gateway as
//! `GW-nnn`.
//!
//! The simulator runs either on a TCP port ([`Simulator::bind`]), or within a process on streams in memory
//! ([`Simulator::in_memory`]). In memory with tokio's paused clock, hours take milliseconds.
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
//! // … and at the end:
//! assert!(simulator.report().violations.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What it simulates
//!
//! - **Gateway**: every opcode, close code and documented event; `json` and `etf`; `zlib-stream`,
//!   `zstd-stream` (cargo feature `zstd`), payload compression or none. Sessions are replayed and expire. An
//!   event goes to every session that owns its guild and has the intents, so sessions with different numbers
//!   of shards can coexist.
//! - **Consistent guilds**: whatever an event names was created before and still exists, so that a client
//!   with a cache never finds a contradiction. GUILD_CREATE, the answers to commands, and REST describe the
//!   same guilds. Each channel remembers its 16 newest messages; older ones are neither edited nor deleted.
//!   Everything else is bounded too.
//! - **REST**, on the same port: `/gateway`, `/gateway/bot`, the requests at login (`/users/@me`,
//!   `/applications/@me`), application commands, messages and reactions, direct channels, and guilds with
//!   their parts. It has Discord's error codes, the headers of rate limits, and 429. What the bot does comes
//!   back as an event.
//! - **Faults**, as an [`Action`]: from Rust with [`Simulator::act`], over HTTP with `POST /sim/act`, in a
//!   [`Script`], or at random with [`SimConfig::faults_per_minute`]. The same seed makes the same guilds,
//!   events and faults.
//! - **A judge** with two grades. [`Report::violations`] has everything for which Discord would close the
//!   connection, refuse the client or drop the session; [`Report::notices`] has what Discord advises against
//!   but accepts. [`JUDGEMENTS`] lists all of them, each with its rule and the reason for its grade. `GET
//!   /sim/report` gives the report over HTTP. On streams in memory, the judge goes by the time at which the
//!   client wrote a payload, since a busy machine may run the task that reads it later; over TCP, by the time
//!   of reading.
//!
//! # Where Discord's documentation is silent
//!
//! | what | what the simulator does | how to change it |
//! |---|---|---|
//! | How long a session lives without a connection | 180 s, or until the replay buffer overflows | [`SimTimings::session_lifetime`], [`SimConfig::replay_limit`] |
//! | How late a heartbeat may be | 10 s, then close 1000 | [`SimTimings::heartbeat_tolerance`] |
//! | How long the connection stays after op 7 | 5 s | [`SimTimings::reconnect_grace`] |
//! | Identify or Resume on the same connection after op 9 | accepts it, and sends no event before it | |
//! | The tags of atoms in ETF | 100 and 115 | [`SimConfig::mixed_atoms`] |
//! | Where a `zlib-stream` payload is cut into messages | nowhere | [`SimConfig::split_frames`], [`SimConfig::split_suffix`] |
//! | An event that has no cause in the guilds | does not send it | [`Simulator::dispatch`] |
//! | A Resume at the bootstrap URL or at the URL of another session | accepts it, with a notice | |
//! | A token with the prefix of REST | accepts it, with a notice | |
//! | URLs for Resume | one for all sessions | [`SimConfig::resume_hosts`] |
//! | Requests for all members of a guild | one in 30 s per guild, over all sessions | [`SimTimings::members_window`] |
//! | A sixth presence within 20 s | ignores it, with a notice | [`SimTimings::presence_window`] |
//! | An Identify beyond the limit of the day | ends every session and the token with 4004 | |
//! | The echo of a close code 1000 | does not end the session | |
//!
//! # Two layouts at once
//!
//! For the time of a reshard a bot has two layouts: sessions with two numbers of shards, or two sessions of each
//! shard. An event of a guild goes to every session that owns the guild and has the intents, connected or
//! resumable; events outside of guilds go to each session of a shard 0.
//!
//! - With [`Traces::World`] an event has the same data in all of them. Give
//!   [`Simulator::observe_event`] what a subscriber received, and [`Simulator::world_delivery`] tells which
//!   events were lost, doubled or out of order over all sessions. Events can be chosen to have repeating
//!   content, as presences and reactions often do.
//! - [`SessionSettings`] make a session lag behind, write its objects in another order, and get its guilds late,
//!   unavailable or never. [`Simulator::treat`] applies them by number of shards, shard or session.
//! - [`Action::SessionFault`] and [`Action::Dispatch`] name the layout or the session. What takes a shard id alone
//!   concerns the session of that id that was identified or resumed last.
//! - [`Action::Limits`] changes the recommended number of shards, and [`Action::Sharding`] which numbers Identify
//!   accepts (4010 and 4011). A refusal concerns one layout only.
//! - The bot's voice in a guild belongs to the session that joined last, and ends with that session (GW-207).
//!
//! # Gateways that differ from Discord's
//!
//! Users put proxies and gateways of their own between Discord and their bots. [`ConnectFault::Odd`] makes
//! connections that differ from Discord's in one way, which [`Odd`] lists. As an action:
//! `{"do": "connect", "fault": {"odd": "hello-float"}, "times": 1000}`. A client should become ready and lose
//! no event with each of them, with these exceptions:
//!
//! | [`Odd`] | what a client should do |
//! |---|---|
//! | `HelloUseless` | close and try again; never identify |
//! | `ReadyOtherShard` | give up the session, and not identify over and over (GW-129) |
//! | `ReadyWithoutUrl`, `ReadyEmptyUrl`, `ReadyNoUrl`, `ReadyHttpUrl` | resume at the bootstrap URL |
//! | `SomeUnnumbered` | deliver all events; those without a number may come again after a Resume |
//! | all others | behave as usual |
//!
//! # Traces
//!
//! READY, GUILD_CREATE and each other event have `"_trace":["sim:<shard>:<session>:<number>"]` in their data.
//! With [`Traces::World`] this holds for events that belong to one session; all others have
//! `"_trace":["world:<serial>"]`, or no trace if their content repeats. Give [`Simulator::observe`] what a subscriber of the client received, and [`Simulator::delivery`] counts
//! which events were lost, repeated or out of order.

// Enum variants and public fields can be added later, except where an item gives a reason against it.
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]
// The JSON of a whole guild is one macro call.
#![recursion_limit = "256"]

mod acting;
mod action;
mod buckets;
mod commands;
mod config;
mod connection;
mod discord;
mod emission;
mod etf;
mod fault;
mod host;
mod http;
mod intents;
mod judge;
mod judgement;
mod link;
mod login;
mod memory;
mod odd;
mod report;
mod rest;
mod script;
mod settings;
mod simulator;
mod tls;
mod traffic;
mod wire;
mod world;

pub use action::Action;
pub use config::{Mix, SimConfig, SimTimings, Traces};
pub use fault::{ConnectFault, Fault, InjectError, RestFault};
pub use host::Host;
pub use judgement::{Grade, JUDGEMENTS, Judgement};
pub use memory::MemoryStream;
pub use odd::Odd;
pub use report::{
    Delivery, GuildDelivery, IdentifyRecord, LostEvent, Report, SessionRecord, Violation, WorldDelivery,
};
pub use script::{Mistake, Script, ScriptError};
pub use settings::{SessionFilter, SessionSettings};
pub use simulator::Simulator;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
