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
//! # bot.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! Two planes. Actors carry control: a [`ShardManager`] supervises one [`ShardActor`] per shard and the
//! [`IdentifyQueue`]. Data never passes a mailbox: each shard has a driver task, which reads the connection, runs
//! the protocol's machine (`shardkeeper-proto`) and hands dispatches to the subscriptions.
//!
//! Session, sequence and presence belong to the manager. When a shard's driver or actor breaks down, the manager
//! sees it and starts it anew, and it resumes from there: no Identify is spent, and nothing is lost.
//!
//! # Guarantees
//!
//! - The events of one shard come in Discord's order.
//! - A subscription with [`Overflow::Wait`] gets every event that the session yields. After a crash in the middle
//!   of publishing, an event can come twice; the stored sequence number never runs ahead of what the subscriptions
//!   have taken.
//! - Such a subscription acknowledges a [`Delivery`] by dropping it. A session goes to the next process
//!   ([`Shardkeeper::detach`]) with the watermark, the sequence up to which everything was acknowledged: what was not dealt
//!   with comes again there.
//! - What the other policies drop is announced as [`Event::Lagged`].
//! - Heartbeats never wait for a subscriber, a command or a large payload.
//! - At most one Identify per key and 5 s, never below the reserve of the day's budget; a resume needs none. Over several
//!   processes too, when they share an [`IdentifyGate`](identify_gate::IdentifyGate).
//! - The token and session ids are in no log line, error or `Debug` output; neither is the content of events.
//!
//! # Where Discord's documentation is silent
//!
//! | what | what shardkeeper does | to change it |
//! |---|---|---|
//! | Deadlines for Hello, READY and RESUMED | 20 s, 120 s, and 60 s without progress; then another connection, and the session is kept | [`Timings`] |
//! | Heartbeats without an answer | one, and the connection is given up; not while a subscriber keeps us from reading | |
//! | The wait after op 9 | 1 to 5 s, by chance | [`Timings`] |
//! | Op 9: the same connection, or another | another one | |
//! | Close codes 1000, 4001, 4002, 4005, 4008 and unknown ones | one Resume, then a new session | |
//! | Close code 4003 | a new session | |
//! | Resumes that are never answered | three, then a new session | [`Builder::max_failed_resumes`] |
//! | A resume URL that cannot be reached | the bootstrap URL and the resume URL in turn; the session is kept until Discord refuses it | |
//! | The size of a payload | 4096 bytes in the larger of its encodings, whichever is used | |
//! | `large_threshold` | 50 | [`Builder::large_threshold`] |
//! | Presences beyond 5 in 20 s | wait; the newest wins | |
//! | Gaps in the sequence | are no error | |
//! | A session of another compression or encoding | is not resumed | |
//! | An ETF dispatch that is no valid JSON (a number beyond 64 bits, text that is no UTF-8) | is dropped, and logged; the sequence goes on with the next one | |
//!
//! # Decisions
//!
//! What was decided otherwise than one might expect, and why.
//!
//! - **A dispatch's data is an `Arc<[u8]>`, not a `Bytes`.** Both share on clone; but a `Bytes` made from a copy
//!   allocates a second time when it is cloned first, and a dispatch for two subscribers is.
//! - **Identify has two steps: a turn to connect, then a permit to identify.** A shard gets its turn when the one before
//!   it in its key gets its permit, so that it connects while that one's window runs. With a permit alone either all
//!   shards of a cold start would sit at Hello for minutes, or each would cost its window plus a handshake.
//! - **Processes share the pace through a gate behind the queue, not through a queue of their own.** An
//!   [`IdentifyGate`](identify_gate::IdentifyGate) answers one question, "may this shard identify now?". Turns, priorities,
//!   budget and crashes stay in the queue, so that a gate is a lock and a time; and without one nothing is asked. A key is
//!   asked for by one shard per process at a time, so between processes order is the gate's.
//! - **governor paces connections, and nothing else.** For Identify the window has to count from when the payload was
//!   written, and unspent permits have to come back; for commands its bucket would admit nearly twice the limit in the
//!   worst minute. Both are exact values of `shardkeeper-proto`. For "a burst, then a rate" it is what one wants.
//! - **`GET /gateway/bot` goes over hyper on a stream of our own dialer**, so that it shares TLS roots with the Gateway,
//!   and a test can run the whole bot on streams in memory.
//! - **Events are typed by their name, and only when asked for.** [`Dispatch::event`](Dispatch) picks the model of
//!   twilight-model by our own table. Its `GatewayEventDeserializer` searches the text for `"t":`, which can stand inside
//!   the data, too; of the names that it has models for, three do not get there; and its GUILD_CREATE tries two models over
//!   a buffer of everything: read as a guild at once it takes 0.7 of that time, and 0.45 with simd-json. RATE_LIMITED is
//!   read by a model of our own, since that one wants a tag that Discord does not send. What has no model is `None`, what
//!   does not fit its model an error without a word of the content; both happen in the subscriber, and no shard hears of it.
//! - **simd-json is optional, and never in the way of [`Dispatch::parse`].** It reads everything, and that pays if
//!   everything is wanted: from 4 KiB on, 0.65 to 0.8 of serde_json's time for structs that take most of an event, 0.6 to
//!   0.9 for twilight's models. For a struct of a few fields it takes up to 1.8 times as long, since serde_json skips the
//!   rest faster than simd-json indexes it; a size cannot tell the two apart. It parses in place, on a copy, so that `T`
//!   could not borrow. Hence a method of its own, `parse_whole`; and `event`, which takes everything, uses it. Whatever it
//!   refuses is judged by serde_json. `cargo bench -p shardkeeper --bench parse --features simd-json,twilight` measures
//!   all this anew.
//! - **A slow lossless subscriber stops its shards from reading; there is no deep buffer in between.** A subscription
//!   holds what its capacity says, a shard one event more. A connection that is not greeted yet is read all the same.
//! - **ETF is translated where it comes in, and JSON is the one form above.** Subscribers need not care, and the machine
//!   reads one language. It costs about a microsecond per event, so JSON is the default.
//! - **A silent shard is told, and not restarted.** Nothing in the protocol says that it is dead; a new session would cost
//!   an Identify for what may be a quiet hour.
//! - **The waits between connections have a lower half.** With full jitter a gateway that closes each connection at
//!   once would be asked in bursts.

mod accepted;
mod builder;
mod config;
mod dispatch;
mod error;
mod gateway_info;
mod handle;
pub mod identify_gate;
mod identify_queue;
mod lifecycle;
mod manager;
mod members;
mod message;
mod pacer;
mod restart;
mod session_keeper;
mod shard;
mod silence;
#[cfg(feature = "songbird")]
pub mod songbird;
mod status;
pub mod store;
mod task;

pub use shardkeeper_proto::shard::{Change, Initiator, Next, Reason, Refusal};
pub use shardkeeper_proto::{
    Activity, Backoff, ChannelInfoField, CloseCode, Command, CommandClass, CommandRefused, Encoding,
    Envelope, EventGroup, EventName, EventSet, IdentifyBudget, IdentifyPermit, Intents, InvalidCommand,
    InvalidPresence, PayloadTooLarge, Presence, PresenceUpdate, Priority, RequestMembers, Session,
    ShardCount, ShardId, Status, Timings, Token, TokenError, VoiceStateUpdate, request_channel_info,
    request_soundboard_sounds,
};
pub use shardkeeper_transport::{
    BoxedIo, CertificateError, Compression, ConnectError, Dialer, TcpDialer, client_config_trusting,
};

pub use self::accepted::{Accepted, NotWritten};
pub use self::builder::{Builder, DISCORD_API};
pub use self::config::ManagerConfig;
#[cfg(feature = "twilight")]
pub use self::dispatch::MalformedEvent;
pub use self::dispatch::{
    Delivery, Dispatch, Event, JsonError, Overflow, Subscription, SubscriptionOptions, Topic,
};
pub use self::error::{CommandRejected, ConfigError, Ended, ShardsRejected, StartError};
pub use self::gateway_info::{GatewayInfo, GatewayInfoError, SessionStartLimit, gateway_info};
pub use self::handle::Shardkeeper;
pub use self::identify_queue::{IdentifyQueue, QueueArguments, QueueState};
pub use self::lifecycle::Lifecycle;
pub use self::manager::{ManagerState, ShardManager};
pub use self::members::{Members, MembersChunk, MembersError};
pub use self::message::{
    Farewell, Incarnation, ManagerMessage, QueueMessage, RestartBy, ShardMessage, ShardReport,
};
pub use self::restart::RestartPolicy;
pub use self::session_keeper::{KeeperArguments, KeeperMessage, KeeperState, SessionKeeper};
pub use self::shard::{ShardActor, ShardArguments, ShardState};
pub use self::status::{Disconnect, IdentifyStatus, LATENCIES, ManagerStatus, Phase, ShardStatus};
