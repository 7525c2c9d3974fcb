//! Decisions: choices that may surprise, and their reasons.
//!
//! Each record has the context, the decision, its consequences, and the rejected alternative.
//!
//! # State above the actors
//!
//! **Context.** An actor that crashes loses its state, and losing a shard's session costs an Identify and all
//! events since.
//!
//! **Decision.** Session, sequence, presence, layout and budget belong to the manager. A driver writes into a
//! session cell, under a lease that one driver holds at a time.
//!
//! **Consequences.** A crash costs a resume. The sequence is one atomic store per dispatch. A new driver
//! waits until the one before is completely gone.
//!
//! **Rejected.** Handing the state over in the actor's last message: an actor that panics sends none.
//!
//! # Control and data apart
//!
//! **Context.** Mailboxes of ractor have no bound and allocate a box for each message.
//!
//! **Decision.** Control goes through actors, dispatches through function calls and bounded queues.
//!
//! **Consequences.** A busy shard does not slow its own supervision down. Data is bounded everywhere.
//!
//! **Rejected.** One message per event: simpler to explain, but without a bound and without back-pressure.
//!
//! # A dispatch's data is an `Arc<[u8]>`
//!
//! **Context.** Subscribers share a dispatch.
//!
//! **Decision.** The data is copied once, into an `Arc<[u8]>`.
//!
//! **Consequences.** One allocation per delivered event, and no allocation for an event that no topic wants.
//! A clone increments a counter.
//!
//! **Rejected.** `Bytes`: made from a copy, it allocates a second time at its first clone, and a dispatch for
//! two subscribers is cloned.
//!
//! # Identify has two steps
//!
//! **Context.** A key has one Identify per 5 s, counted from when it was written. A handshake takes a good
//! part of a second.
//!
//! **Decision.** A shard gets a grant to connect, and at Hello a permit to identify. It gets the grant when
//! the shard before it in its key gets its permit.
//!
//! **Consequences.** The shard connects while the window of the one before runs, so the window alone
//! determines the pace of a key. A grant that leads to nothing is withdrawn after a window.
//!
//! **Rejected.** Only a permit: either all shards of a cold start would wait at Hello for minutes, or each
//! would cost its window plus a handshake.
//!
//! # Processes share the pace through a gate behind the identify queue
//!
//! **Context.** `max_concurrency` belongs to the token, so several processes have to agree.
//!
//! **Decision.** An [`IdentifyGate`] answers one question: "may this shard identify now?". Grants,
//! priorities, budget and crashes stay in the identify queue.
//!
//! **Consequences.** A gate is a lock and a time. Without a gate nothing is asked. The gate decides the order
//! between processes.
//!
//! **Rejected.** An exchangeable queue: each implementation would have to get all of this right.
//!
//! # The session keeper polls
//!
//! **Context.** The watermark of a busy shard moves thousands of times a second, and has to reach a disk.
//!
//! **Decision.** An actor compares two numbers per shard with those that it stored last, four times a second,
//! and stores what differs in one transaction. A new session is stored at once. The store on disk is redb:
//! one file, one `fsync` per save.
//!
//! **Consequences.** No work on the path of an event, one save at a time whatever the store does, and after
//! `SIGKILL` at most 250 ms and one save of repeated events. Tests cut the power at any operation of the
//! disk.
//!
//! **Rejected.** A write per event, or a channel of changes: both make events wait for the store. An
//! append-only file of our own: checksums, replacement and recovery are better left to a database.
//!
//! # Connections are paced by reservation
//!
//! **Context.** Three things are paced: connections, Identify, commands.
//!
//! **Decision.** A connection reserves the next place in a bucket that allows a burst and then a rate, and
//! knows its wait at once. Identify and commands use exact limiters of `shardkeeper-proto`.
//!
//! **Consequences.** Shards that disconnect together come back in the order in which they ask, and each
//! reports how long it waits ([`Change::Paced`]). No window of 60 s ever holds more commands than the limit,
//! wherever it begins.
//!
//! **Rejected.** A bucket that only answers no (governor's): a hundred shards that were disconnected together
//! asked it 7,000 times in the first second. The bucket for commands: in the worst minute it admits nearly
//! twice the limit. The bucket for Identify: its window has to count from when the payload was written, and
//! unused permits have to come back.
//!
//! # governor limits only what nobody waits for
//!
//! **Context.** Two things are limited without anybody waiting for them: the warnings of a shard that cannot
//! connect, and the requests of `GET /gateway/bot` that shards in trouble cause.
//!
//! **Decision.** Both are limits of governor on tokio's clock, the first one with a key per shard.
//!
//! **Consequences.** An outage of ten minutes costs a dozen warnings per shard instead of one per attempt.
//! The other warnings are at level debug. Tests pause both limits with the clock.
//!
//! **Rejected.** governor's own clock and its waiting: they ignore a paused clock, and serve waiters in no
//! order.
//!
//! # `log` records of level trace are compiled out
//!
//! **Context.** tungstenite writes each frame to `log` at level trace, including Identify with the token, and
//! the usual subscriber takes records of `log`.
//!
//! **Decision.** The feature `hide-frames`, on by default, sets the static level of the crate `log` to debug.
//!
//! **Consequences.** No crate of the bot writes `log` records at level trace; `tracing` is not affected. A
//! bot that needs such records turns the feature off and filters the target `tungstenite` out of its log.
//!
//! **Rejected.** A filter at run time: another crate makes the record and the bot's subscriber takes it,
//! without passing through shardkeeper. A WebSocket implementation of our own: better left to a WebSocket
//! library.
//!
//! # `GET /gateway/bot` goes over the library's dialer
//!
//! **Context.** The library makes only one REST request.
//!
//! **Decision.** The request goes over hyper on a stream of the [`Dialer`] that the Gateway uses.
//!
//! **Consequences.** One set of TLS roots. A test can run the whole bot on streams in memory, and a proxy
//! sees both.
//!
//! **Rejected.** An HTTP client crate: a second dialer, and a second set of roots.
//!
//! # No deep buffer for slow subscribers
//!
//! **Context.** A lossless subscriber may be slow for minutes.
//!
//! **Decision.** A subscription holds as many events as its capacity, a shard one event more, and then the
//! shard stops reading.
//!
//! **Consequences.** Only capacities determine the memory. A new connection is still read up to READY, and a
//! missing acknowledgement of a heartbeat does not count while nothing is read.
//!
//! **Rejected.** A large spill per shard: with two thousand shards that is much uncounted memory, and it only
//! delays the same problem.
//!
//! # ETF is translated at the edge
//!
//! **Context.** Discord speaks JSON and ETF.
//!
//! **Decision.** Above the connection there is only JSON text. ETF becomes JSON when it is received.
//!
//! **Consequences.** Subscribers and the machine handle one format. The translation costs about a microsecond
//! per event, so JSON is the default.
//!
//! **Rejected.** Two formats of data: every subscriber would need two parsers.
//!
//! # Dispatches stay raw
//!
//! **Context.** Bots use models of their own, or of twilight, or two fields of an event.
//!
//! **Decision.** A dispatch is its name and its JSON; [`Dispatch::parse`] reads it in the subscriber. With
//! the feature `twilight`, `Dispatch::event()` selects twilight's model by a table of names. `subscribe_to`
//! reads one kind of event into one type, which an [`EventModel`] names.
//!
//! **Consequences.** An event that nobody parses costs no parsing. An event that does not fit its model is an
//! error of the subscriber, and affects no shard.
//!
//! **Rejected.** Models of our own: they would be late for each new event. twilight's
//! `GatewayEventDeserializer`: it finds the name by searching the text, where the name can also occur inside
//! the data.
//!
//! # simd-json is optional, and `parse` does not use it
//!
//! **Context.** Large events, such as guilds, take long to parse.
//!
//! **Decision.** With the feature `simd-json` there is a separate method, `Dispatch::parse_whole`, for types
//! that take most of an event. The models of twilight do, so the feature `twilight` includes simd-json, and
//! uses it for them.
//!
//! **Consequences.** From 4 KiB on, such types take 0.44 to 0.9 of the time. The method works on a copy, so
//! nothing can be borrowed. When simd-json rejects a text, serde_json decides.
//!
//! **Rejected.** simd-json in [`Dispatch::parse`]: a type of a few fields takes up to 1.8 times as long,
//! since serde_json skips the rest faster than simd-json indexes it. The size of an event does not show which
//! of the two is faster.
//!
//! # A silent shard is reported, not restarted
//!
//! **Context.** Discord has been seen to leave a connection acknowledged and without events.
//!
//! **Decision.** The manager announces [`Lifecycle::Silent`].
//!
//! **Consequences.** An operator decides.
//!
//! **Rejected.** A restart: nothing in the protocol says that the shard is dead, and a new session would cost
//! an Identify for what may be a quiet hour.
//!
//! # At least half of each wait is kept
//!
//! **Context.** Many clients that disconnect together should not come back together.
//!
//! **Decision.** A wait is random between half of its limit and the limit.
//!
//! **Consequences.** A Gateway that closes each connection at once gets about one connection a second at
//! first.
//!
//! **Rejected.** Full jitter (between zero and the limit): the connections would come in bursts.
//!
//! # Discord's refusals end the manager
//!
//! **Context.** A wrong token or a forbidden intent does not fix itself, and each attempt costs an Identify.
//!
//! **Decision.** A refusal of the bot stops every shard. A refusal of the layout stops them if no shard was
//! ever ready under it.
//!
//! **Consequences.** [`Shardkeeper::exit_reason`] returns with the reason, and a supervisor of processes can
//! act on it.
//!
//! **Rejected.** Slow retries: a few hundred Identifies a day without any use.
//!
//! # Members are collected outside of the driver
//!
//! **Context.** The answer to a request for members arrives as events.
//!
//! **Decision.** [`Shardkeeper::members`] uses what any bot has: a command, and a subscription to its
//! answers.
//!
//! **Consequences.** A bot can have a collector of its own. One thing is special: while this subscription
//! exists, its shard continues to read although others are full, within a bound, since the task that waits
//! may be the one that should read.
//!
//! **Rejected.** A collector in the driver: its memory and its time-outs would be the shard's.
//!
//! # Types of other crates in the public API
//!
//! **Context.** A bot that uses a type of another crate together with shardkeeper needs the same major version of
//! that crate.
//!
//! **Decision.** The public API shows types of these crates only. A new major version of one of them (a new minor
//! version where the version begins with `0.`) is a breaking change of shardkeeper.
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
//! The crate shardkeeper-transport, used without shardkeeper, also shows bytes 1.
//!
//! **Consequences.** Everything else behind the API, such as redb, hyper, tungstenite, governor and simd-json, may
//! change at any time.
//!
//! **Rejected.** Types of our own for all of it: every user would convert them back.
//!
//! # Where Discord's documentation says nothing
//!
//! | topic | what shardkeeper does | to change it |
//! |---|---|---|
//! | Deadlines for Hello, READY and RESUMED | 20 s, 120 s, and 60 s without progress; then another connection, and the session is kept | [`Timings`] |
//! | Heartbeats without an acknowledgement | after one, the connection is closed; not while a subscriber keeps the shard from reading | |
//! | The wait after op 9 | random, 1 to 5 s | [`Timings`] |
//! | Op 9: the same connection, or another one | another one | |
//! | Close codes 1000, 4001, 4002, 4005, 4008 and unknown ones, also in answer to a Resume | Resume, with growing waits | |
//! | Close code 4003 | a new session | |
//! | Resumes that are never answered, or always with a close | after 15 min a new session | [`Timings::keep_session`] |
//! | A resume URL that cannot be reached, or sends no Hello | the bootstrap URL and the resume URL in turn; the session is kept until Discord ends it, or that time is over | |
//! | The size of a payload | 4096 bytes in the larger of its encodings, whichever is used | |
//! | `large_threshold` | 50 | [`Builder::large_threshold`] |
//! | Presences beyond 5 in 20 s | wait; the newest replaces the others | |
//! | Gaps in the sequence | not an error | |
//! | A session of another compression or encoding | is not resumed | |
//! | An ETF dispatch that is not valid JSON (a number beyond 64 bits, text that is not UTF-8) | is dropped, and logged; the sequence continues with the next one | |
//!
//! ---
//!
//! Before: [Defaults](super::_06_defaults). Next: [Coming from elsewhere](super::_08_coming_from).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
