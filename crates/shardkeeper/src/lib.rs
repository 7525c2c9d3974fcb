//! shardkeeper keeps the Gateway shards of a Discord bot alive.
//!
//! A bot starts a manager; from then on every shard is connected, identified within Discord's limits, resumed after
//! any failure, and heard through topics:
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
//! // No more events means that the bot has ended. An error says why.
//! bot.wait().await?;
//! # Ok(())
//! # }
//! ```
//!
//! With [`Builder::subscribe_to`] events come as types: those of twilight-model, or the bot's own. Install a subscriber for
//! `tracing`, such as tracing-subscriber: warnings about what does not work go there.
//!
//! The bot reads events when it likes, from as many tasks as it likes. What happens to connections is not its business;
//! [`Topic::lifecycle`] tells it all the same.
//!
//! # The manual
//!
//! 1. [Architecture](manual::_01_architecture): the parts, the two planes, the life of one shard
//! 2. [Supervision](manual::_02_supervision): what breaks, who notices, what survives
//! 3. [Delivery](manual::_03_delivery): topics, subscriptions, order, loss, acknowledgement, back-pressure, bounds
//! 4. [Commands](manual::_04_commands): voice, presences, members; limits and rejections
//! 5. [Shards](manual::_05_shards): which ones to run; moving, status, sessions, endings, several processes
//! 6. [Defaults](manual::_06_defaults): every number with its reason
//! 7. [Decisions](manual::_07_decisions): why it is built so, and what was chosen where Discord says nothing
//! 8. [Coming from elsewhere](manual::_08_coming_from): twilight, serenity, discord.js, discordeno, discljord and others, call
//!    by call
//!
//! # Where to begin
//!
//! [`Shardkeeper::builder`] makes a [`Builder`], which starts a [`Shardkeeper`]: the handle on a running [`ShardManager`](actor::ShardManager).
//! [`Topic`] and [`Subscription`] are for hearing, [`Shardkeeper::command`] and [`Shardkeeper::update_presence`] for saying.
//!
//! # Guarantees
//!
//! - **Order.** The events of one shard come in Discord's order.
//! - **Loss.** A subscription with [`Overflow::Wait`] gets every event that the session yields. What the other policies drop is
//!   announced as [`Event::Lagged`].
//! - **Doubling.** None over a resume. After a crash in the middle of publishing an event can come twice, and says so.
//! - **Hand-over.** A session goes to the next process as far as its events were acknowledged, by dropping each [`Delivery`]:
//!   what was not dealt with comes again there, and says so ([`Dispatch::is_replayed`]). It goes by [`Shardkeeper::detach`], or
//!   by a [session store](Builder::session_store), whatever became of this process.
//! - **Crashes.** A shard whose code breaks down resumes from the session that the manager keeps: no Identify is spent, unless it
//!   had none yet, or Discord has forgotten it after a quarantine.
//! - **Heartbeats** never wait for a subscriber, a command or a large payload.
//! - **Identify.** At most one per key and 5 s, never below the reserve of the day's budget; a resume needs none.
//! - **Bounds.** Every queue and buffer has one, and a rule for being full. Mailboxes of actors have none of their own: a call
//!   of a handle waits for its answer, so its callers are the bound.
//! - **Secrets.** The token and session ids are in no log line, error or `Debug` output; neither is the content of events. Other
//!   crates' records of `log` at level trace would show them, so the feature `hide-frames` compiles those out of the program.
//!
//! Supervision catches panics: a bot must not be built with `panic = "abort"`.
//!
//! # Features
//!
//! Each only adds. The first two are on by default, the others off.
//!
//! | feature | adds | needs |
//! |---|---|---|
//! | `file-store` | `store::FileStore`: sessions on disk | redb |
//! | `hide-frames` | no `log` record of level trace in the whole program: tungstenite's hold tokens and content | log |
//! | `zstd` | `Compression::ZstdStream` | a C compiler |
//! | `etf` | `Encoding::Etf` | |
//! | `twilight` | `subscribe_to` and `Dispatch::event()` for the types of twilight-model 0.18; brings `simd-json` along | twilight-model |
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
mod manager;
pub mod manual;
mod message;
mod session;
mod shard;
pub mod status;
pub mod store;
mod task;

/// The actor library of shards and manager: what it takes to speak to them by messages.
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

/// The actors: their messages, and what they are started with.
pub mod actor {
    pub use shardkeeper_proto::IdentifyPermit;

    pub use crate::identify::{IdentifyQueue, QueueArguments, QueueState};
    pub use crate::manager::{
        ManagerArguments, ManagerState, ReshardSentinel, SentinelArguments, SentinelState, ShardManager,
    };
    pub use crate::message::{
        Incarnation, ManagerMessage, QueueMessage, SentinelMessage, ShardMessage, ShardReport, Shared,
    };
    pub use crate::session::{KeeperArguments, KeeperMessage, KeeperState, SessionKeeper};
    pub use crate::shard::{ShardActor, ShardArguments, ShardState};
}

/// What a bot is configured with, and what Discord says about it.
pub mod config {
    pub use shardkeeper_proto::{
        Backoff, Encoding, IdentifyBudget, LONGEST_WAIT, ShardCount, Timings, Token,
    };
    pub use shardkeeper_transport::{BoxedIo, Compression, Dialer, TcpDialer, client_config_trusting};

    pub use crate::bot::DISCORD_API;
    pub use crate::gateway_info::{GatewayInfo, SessionStartLimit, gateway_info};
    pub use crate::manager::RestartPolicy;
    pub use crate::message::{RestartBy, ShutdownMode};
    pub use crate::shard::{Direction, WirePayload};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
