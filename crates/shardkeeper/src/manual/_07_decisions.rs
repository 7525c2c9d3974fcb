//! Decisions: what was decided otherwise than one might expect, and why.
//!
//! Each record has the context, the decision, what follows from it, and what was rejected.
//!
//! # State above the actors
//!
//! **Context.** An actor that crashes takes its state with it, and a shard's session is worth an Identify and all events
//! since.
//! **Decision.** Session, sequence, presence, layout and budget belong to the manager; a driver writes into a slot, under a
//! lease that one driver holds at a time.
//! **Consequences.** A crash costs a resume. The sequence is one atomic store per dispatch. A new driver waits until the one
//! before is gone for good.
//! **Rejected.** To hand the state over in the actor's last words: a panic has none.
//!
//! # Two planes
//!
//! **Context.** Mailboxes of ractor have no bound and box each message.
//! **Decision.** Control goes by actors, dispatches by function calls and bounded queues.
//! **Consequences.** A busy shard does not slow its own supervision down. Data is bounded everywhere.
//! **Rejected.** One message per event: it is simpler to explain, and has neither a bound nor back-pressure.
//!
//! # A dispatch's data is an `Arc<[u8]>`
//!
//! **Context.** A dispatch is shared by its subscribers.
//! **Decision.** The data is copied once, into an `Arc<[u8]>`.
//! **Consequences.** One allocation per delivered event, none for one that nobody wants. A clone counts.
//! **Rejected.** `Bytes`: made from a copy it allocates a second time when it is first cloned, and a dispatch for two
//! subscribers is.
//!
//! # Identify has two steps
//!
//! **Context.** A key has one Identify per 5 s, counted from when it was written. A handshake takes a good part of a second.
//! **Decision.** A shard gets a turn to connect, and at Hello a permit to identify. Its turn comes when the one before it in
//! its key gets its permit.
//! **Consequences.** It connects while that one's window runs, so that the pace of a key is its window. A turn that leads
//! nowhere is taken back after a window.
//! **Rejected.** A permit alone: either all shards of a cold start would sit at Hello for minutes, or each would cost its
//! window plus a handshake.
//!
//! # Processes share the pace through a gate behind the queue
//!
//! **Context.** `max_concurrency` belongs to the token, so several processes have to agree.
//! **Decision.** An [`IdentifyGate`] answers one question, "may this shard identify now?". Turns, priorities, budget and crashes
//! stay in the queue.
//! **Consequences.** A gate is a lock and a time; without one nothing is asked. Between processes order is the gate's.
//! **Rejected.** An exchangeable queue: each implementation would have to get all of it right.
//!
//! # The session keeper looks, and is not told
//!
//! **Context.** The watermark of a busy shard moves thousands of times a second, and has to reach a disk.
//! **Decision.** An actor compares two numbers per shard with those that it stored last, four times a second, and stores what
//! differs in one transaction; a new session at once. On disk that is redb: one file, one `fsync` per save.
//! **Consequences.** Nothing on the way of an event, one save at a time whatever the store does, and after `SIGKILL` at most
//! 250 ms and one save of repetitions. Tests cut the power at any operation of the disk.
//! **Rejected.** A write per event, or a channel of changes: both put the store's pace before the event's. An append-only file
//! of our own: checksums, replacement and recovery are somebody else's field.
//!
//! # Connections take turns
//!
//! **Context.** Three things are paced: connections, Identify, commands.
//! **Decision.** A connection takes the next turn of a bucket that gives a burst and then a rate, and knows its wait at once.
//! Identify and commands have exact values of `shardkeeper-proto`.
//! **Consequences.** Shards that fall together come back in the order in which they ask, and each says how long it waits
//! ([`Change::Paced`]). No window of 60 s ever holds more commands than the limit, wherever it begins.
//! **Rejected.** A bucket that only says no (governor's): a hundred shards that were cut together asked it 7,000 times in the
//! first second. The bucket for commands: in the worst minute it admits nearly twice the limit. For Identify: its window
//! has to count from when the payload was written, and unspent permits have to come back.
//!
//! # governor says no, and nothing waits for it
//!
//! **Context.** Two things are limited without anybody waiting for a turn: how often a shard that cannot connect warns, and how
//! often the doubts of shards make the sentinel ask `GET /gateway/bot`.
//! **Decision.** Both are limits of governor on tokio's clock, the first one with a key per shard.
//! **Consequences.** An outage of ten minutes costs a dozen warnings per shard instead of one per attempt; what is left out is at
//! level debug. Tests pause both with the clock.
//! **Rejected.** governor's own clock and its waiting: they ignore a paused clock, and serve waiters in no order.
//!
//! # `log` records of level trace are compiled out
//!
//! **Context.** tungstenite writes each frame to `log` at level trace, Identify with the token among them, and the usual
//! subscriber takes records of `log`.
//! **Decision.** The feature `hide-frames`, on by default, sets the static level of the crate `log` to debug.
//! **Consequences.** No record of `log` at level trace from any crate of the bot; `tracing` is not concerned. A bot that needs them
//! turns the feature off and keeps the target `tungstenite` out of its log.
//! **Rejected.** A filter at run time: the record is made by another crate and taken by whatever the bot has installed, and
//! nothing of ours stands between them. Frames of our own: WebSocket is somebody else's field.
//!
//! # `GET /gateway/bot` goes over our own dialer
//!
//! **Context.** One REST request is all that the library makes.
//! **Decision.** It goes over hyper on a stream of the [`Dialer`] that the Gateway uses.
//! **Consequences.** One set of TLS roots; a test can run the whole bot on streams in memory, and a proxy sees both.
//! **Rejected.** An HTTP client crate: a second dialer, and a second set of roots.
//!
//! # No deep buffer for slow subscribers
//!
//! **Context.** A lossless subscriber may be slow for minutes.
//! **Decision.** A subscription holds what its capacity says, a shard one event more, and then the shard stops reading.
//! **Consequences.** Memory is bounded by capacities alone. A connection that is not greeted yet is read all the same, and
//! a heartbeat that cannot be seen acknowledged is excused.
//! **Rejected.** A large spill per shard: with two thousand of them it is memory that nobody counted, and it only moves the
//! moment.
//!
//! # ETF is translated where it comes in
//!
//! **Context.** Discord speaks JSON and ETF.
//! **Decision.** JSON text is the one form above the connection; ETF becomes JSON at the edge.
//! **Consequences.** Subscribers need not care, and the machine reads one language. It costs about a microsecond per event, so
//! JSON is the default.
//! **Rejected.** Two forms of data: every subscriber would parse twice as many.
//!
//! # Dispatches stay raw
//!
//! **Context.** Bots use models of their own, or of twilight, or two fields of an event.
//! **Decision.** A dispatch is its name and its JSON; [`Dispatch::parse`] reads it in the subscriber. With the feature
//! `twilight`, `Dispatch::event()` picks twilight's model by our own table of names. `subscribe_to` reads one kind of event into
//! one type, which an [`EventModel`] names.
//! **Consequences.** What nobody parses costs nothing. An event that does not fit its model is the subscriber's error, and no
//! shard hears of it.
//! **Rejected.** Models of our own: they would be late for each new event. twilight's `GatewayEventDeserializer`: it finds the
//! name by searching the text, where it can stand inside the data too.
//!
//! # simd-json is optional, and never in the way of `parse`
//!
//! **Context.** Large events, such as guilds, take long to parse.
//! **Decision.** With the feature `simd-json` there is a method of its own, `Dispatch::parse_whole`, for types that take most of
//! an event. The models of twilight do, so the feature `twilight` brings simd-json along, and reads them with it.
//! **Consequences.** From 4 KiB on such types take 0.44 to 0.9 of the time. It works on a copy, so nothing can be borrowed.
//! What it refuses, serde_json judges.
//! **Rejected.** simd-json in [`Dispatch::parse`]: for a type of a few fields it takes up to 1.8 times as long, since
//! serde_json skips the rest faster than simd-json indexes it, and a size cannot tell the two apart.
//!
//! # A silent shard is told, and not restarted
//!
//! **Context.** Discord has been seen to leave a connection acknowledged and without events.
//! **Decision.** [`Lifecycle::Silent`] says so.
//! **Consequences.** An operator decides.
//! **Rejected.** A restart: nothing in the protocol says that the shard is dead, and a new session would cost an Identify for
//! what may be a quiet hour.
//!
//! # The waits between connections have a lower half
//!
//! **Context.** Many clients that fell together should not come back together.
//! **Decision.** A wait lies between half of the whole and the whole.
//! **Consequences.** A gateway that closes each connection at once is asked about once a second in the beginning.
//! **Rejected.** Full jitter: it would be asked in bursts.
//!
//! # Discord's refusals end the manager
//!
//! **Context.** A wrong token or a forbidden intent does not mend itself, and each try costs an Identify.
//! **Decision.** A refusal of the bot stops every shard; one of the layout stops them when no shard ever was ready under it.
//! **Consequences.** [`Shardkeeper::exit_reason`] returns with the reason, and a supervisor of processes can act on it.
//! **Rejected.** To try again slowly: a few hundred Identify a day, for nothing.
//!
//! # Members are collected from outside
//!
//! **Context.** The answer to a request for members comes as events.
//! **Decision.** [`Shardkeeper::members`] is built on what any bot has: a command, and a subscription to its answers.
//! **Consequences.** Whoever wants another collector can write one. One thing is special: while this subscription exists, its
//! shard reads on although others are full, within a bound, since the one who waits may be the one who does not read.
//! **Rejected.** A collector in the driver: its memory and its time-outs would be the shard's.
//!
//! # Types of other crates in the public API
//!
//! **Context.** A bot that uses a type of another crate together with shardkeeper needs the same major version of that crate.
//! **Decision.** The public API shows types of these crates only. A new major version of one of them (a new minor version
//! where the version begins with `0.`) is a breaking change of shardkeeper.
//!
//! | crate | version | where |
//! |---|---|---|
//! | ractor | 0.16 | [`Shardkeeper::manager`], [`Shardkeeper::shard`], [`Shardkeeper::subscribe_actor`] and the module [`actor`]; re-exported as [`shardkeeper::ractor`](crate::ractor) |
//! | tokio | 1 | every call runs on its runtime; [`Dialer`]s return streams with its `AsyncRead` and `AsyncWrite` |
//! | futures-core | 0.3 | `Stream` of subscriptions and of [`Shardkeeper::members_chunks`]; `BoxFuture` (of futures-util, an alias for a boxed future) in the traits [`IdentifyGate`], [`SessionStore`](crate::store::SessionStore) and [`Dialer`] |
//! | serde | 1 | `Serialize` and `Deserialize` of sessions, records, status and lifecycle; `DeserializeOwned` in [`Dispatch::parse`] |
//! | serde_json | 1 | `RawValue` in [`Members`]; [`JsonError::into_inner`] |
//! | url | 2 | [`GatewayInfo::url`], [`Dialer::dial`] |
//! | rustls | 0.23 | [`client_config_trusting`], [`TcpDialer`] |
//! | bitflags | 2 | the trait `Flags` of [`Intents`] |
//! | twilight-model | 0.18 | feature `twilight`: `subscribe_to` and `Dispatch::event()` |
//! | songbird | 0.6 | feature `songbird`: its traits for [`Shardkeeper`] |
//!
//! The crate shardkeeper-transport, used without shardkeeper, also shows bytes 1. What stands behind the API, such as redb,
//! hyper, tungstenite, governor and simd-json, may change at any time.
//! **Rejected.** Types of our own for all of it: every user would convert them back.
//!
//! # Where Discord's documentation is silent
//!
//! | what | what shardkeeper does | to change it |
//! |---|---|---|
//! | Deadlines for Hello, READY and RESUMED | 20 s, 120 s, and 60 s without progress; then another connection, and the session is kept | [`Timings`] |
//! | Heartbeats without an answer | one, and the connection is given up; not while a subscriber keeps us from reading | |
//! | The wait after op 9 | 1 to 5 s, by chance | [`Timings`] |
//! | Op 9: the same connection, or another | another one | |
//! | Close codes 1000, 4001, 4002, 4005, 4008 and unknown ones, also in answer to a Resume | Resume, with growing waits | |
//! | Close code 4003 | a new session | |
//! | Resumes that are never answered, or always with a close | 15 min, then a new session | [`Timings::keep_session`] |
//! | A resume URL that cannot be reached, or brings no Hello | the bootstrap URL and the resume URL in turn; the session is kept until Discord refuses it, or that time is over | |
//! | The size of a payload | 4096 bytes in the larger of its encodings, whichever is used | |
//! | `large_threshold` | 50 | [`Builder::large_threshold`] |
//! | Presences beyond 5 in 20 s | wait; the newest wins | |
//! | Gaps in the sequence | are no error | |
//! | A session of another compression or encoding | is not resumed | |
//! | An ETF dispatch that is no valid JSON (a number beyond 64 bits, text that is no UTF-8) | is dropped, and logged; the sequence goes on with the next one | |
//!
//! ---
//!
//! Before: [Defaults](super::_06_defaults). Next: [Coming from elsewhere](super::_08_coming_from).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
