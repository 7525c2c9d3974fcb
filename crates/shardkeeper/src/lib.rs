//! shardkeeper keeps the Gateway shards of a Discord bot alive.
//!
//! A bot starts a manager. From then on every shard is connected, identified within Discord's limits, and
//! resumed after any failure. The bot subscribes to the events it wants:
//!
//! ```no_run
//! use shardkeeper::{Intents, Shardkeeper, Topic};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bot = Shardkeeper::builder(std::env::var("DISCORD_TOKEN")?, Intents::GUILDS | Intents::GUILD_MESSAGES);
//! let mut events = bot.subscribe(Topic::all());
//! let bot = bot.start().await?;
//! while let Some(event) = events.next().await {
//!     println!("{event:?}");
//! }
//! // The events end when the bot has ended. An error says why.
//! bot.wait().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Builder::subscribe_to`] turns events into types: those of twilight-model, or the bot's own. Install a
//! subscriber for `tracing`, such as tracing-subscriber: shardkeeper logs warnings and errors there, and
//! nowhere else.
//!
//! The bot reads events at its own speed, from any number of tasks. It does not have to react to lost
//! connections; [`Topic::lifecycle`] reports them.
//!
//! # The manual
//!
//! 1. [Architecture](manual::_01_architecture): the parts, control and data, the modules, the life of one
//!    shard
//! 2. [Supervision](manual::_02_supervision): what breaks, who notices, what survives
//! 3. [Delivery](manual::_03_delivery): topics, subscriptions, order, loss, acknowledgement, back-pressure,
//!    bounds
//! 4. [Commands](manual::_04_commands): voice, presences, members; limits and errors
//! 5. [Shards](manual::_05_shards): which ones to run; moving, status, sessions, ending, several processes
//! 6. [Defaults](manual::_06_defaults): every number with its reason
//! 7. [Decisions](manual::_07_decisions): why it is built this way, and what it does where Discord's
//!    documentation says nothing
//! 8. [Coming from elsewhere](manual::_08_coming_from): twilight, serenity, discord.js, discordeno, discljord
//!    and others, call by call
//!
//! The [glossary](manual#glossary) explains the words that the documentation uses.
//!
//! # Where to start
//!
//! [`Shardkeeper::builder`] makes a [`Builder`], which starts a [`Shardkeeper`]: the handle of a running
//! [`ShardManager`](actor::ShardManager). A [`Topic`] and a [`Subscription`] receive events;
//! [`Shardkeeper::command`] and [`Shardkeeper::update_presence`] send.
//!
//! # Guarantees
//!
//! - **Order.** The events of one shard arrive in Discord's order.
//! - **Loss.** A subscription with [`Overflow::Wait`] gets every event of the session. [`Event::Lagged`]
//!   reports what the other policies drop.
//! - **Duplicates.** A resume causes none. After a crash in the middle of publishing, an event can arrive
//!   twice, and the second one is marked.
//! - **Hand-over.** Dropping a [`Delivery`] acknowledges it. A session goes to the next process as of the
//!   last event up to which everything was acknowledged. Events that were not acknowledged arrive again
//!   there, and are marked ([`Dispatch::is_replayed`]). Hand a session over with [`Shardkeeper::detach`], or
//!   with a [session store](Builder::session_store), which also works after a kill.
//! - **Crashes.** A shard whose code panics resumes from the session that the manager keeps. This costs no
//!   Identify, unless the shard had no session yet, or Discord has forgotten it after a quarantine.
//! - **Heartbeats** never wait for a subscriber, a command or a large payload.
//! - **Identify.** At most one per key and 5 s, and never below the reserve of the day's budget. A resume
//!   needs no permit.
//! - **Bounds.** Every queue and buffer has a bound, and a rule for what happens when it is full. Mailboxes
//!   of actors have no bound of their own: a call of a handle waits for its answer, so the number of callers
//!   is the bound.
//! - **Secrets.** The token and session ids are in no log line, error or `Debug` output, and neither is the
//!   content of events. Records of the crate `log` at level trace, written by other crates, would show them.
//!   The feature `hide-frames` therefore compiles those out of the program.
//!
//! Supervision catches panics: do not build a bot with `panic = "abort"`.
//!
//! # Features
//!
//! Each feature only adds. The first two are on by default, the others are off.
//!
//! | feature | adds | needs |
//! |---|---|---|
//! | `file-store` | `store::FileStore`: sessions on disk | redb |
//! | `hide-frames` | removes `log` records of level trace from the whole program: those of tungstenite hold tokens and content | log |
//! | `zstd` | `Compression::ZstdStream` | a C compiler |
//! | `etf` | `Encoding::Etf` | |
//! | `twilight` | `subscribe_to` and `Dispatch::event()` for the types of twilight-model 0.18; includes `simd-json` | twilight-model |
//! | `simd-json` | `Dispatch::parse_whole()`: large events in less time | simd-json |
//! | `songbird` | songbird's `VoiceUpdate` for [`Shardkeeper`] | songbird |
//! | `conformance` | checks for an [identify gate](gate) or [session store](store) of your own | |

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod bot;
mod chain;
pub mod command;
pub mod dispatch;
pub mod error;
pub mod gate;
mod gateway_info;
mod identify;
mod layout;
mod manager;
pub mod manual;
mod message;
mod reshard;
mod session;
mod shard;
pub mod status;
pub mod store;
mod task;

/// The actor library of shards and manager. A bot needs it to send messages to them.
pub use ractor;
pub use shardkeeper_proto::{Activity, EventName, Intents, OnlineStatus, Presence, Session, ShardId};

#[cfg(feature = "songbird")]
pub use self::bot::songbird;
pub use self::bot::{Builder, Shardkeeper};
#[doc(inline)]
pub use self::dispatch::{
    Delivery, Dispatch, Event, EventModel, Lifecycle, Overflow, Subscription, SubscriptionOptions, Topic,
    TypedSubscription,
};

/// The actors, their messages and their start arguments.
pub mod actor {
    pub use shardkeeper_proto::IdentifyPermit;

    pub use crate::identify::{IdentifyQueue, QueueArguments, QueueState};
    pub use crate::manager::{
        ManagerArguments, ManagerState, ReshardSentinel, SentinelArguments, SentinelState, ShardManager,
    };
    pub use crate::message::{
        GivenUpCommands, Incarnation, ManagerMessage, QueueMessage, SentinelMessage, ShardMessage,
        ShardReport, Shared,
    };
    pub use crate::session::{KeeperArguments, KeeperMessage, KeeperState, SessionKeeper};
    pub use crate::shard::{ShardActor, ShardArguments, ShardState};
}

/// Types for the configuration of a bot, and the answer of `GET /gateway/bot`.
pub mod config {
    pub use shardkeeper_proto::{
        Backoff, Encoding, IdentifyBudget, LONGEST_WAIT, ShardCount, Timings, Token,
    };
    pub use shardkeeper_transport::{BoxedIo, Compression, Dialer, TcpDialer, client_config_trusting};

    pub use crate::bot::DISCORD_API;
    pub use crate::gateway_info::{GatewayInfo, SessionStartLimit, gateway_info};
    pub use crate::manager::RestartPolicy;
    pub use crate::message::{ReshardControl, RestartBy, ShutdownMode};
    pub use crate::reshard::{
        Adjustment, ReshardForecast, ReshardGroup, ReshardPlan, ReshardPolicy, ReshardRequest, ReshardTarget,
        SplitGroup, VoicePolicy,
    };
    pub use crate::shard::{Direction, WirePayload};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
