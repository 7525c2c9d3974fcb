//! Shards: which ones a process runs; how they are moved, watched, ended and handed over.
//!
//! # Which shards to run
//!
//! | a bot that … | calls | runs |
//! |---|---|---|
//! | has one process | nothing | as many as Discord recommends, or as many as it has sessions of ([Sessions](#sessions)) |
//! | wants a number of its own | [`Builder::shards`]`(n)` | `n` shards: 0 to n - 1; or as many as it has sessions of |
//! | is spread over processes | [`Builder::shard_ids`]`(ids, n)` | these of `n` |
//! | knows the answer of `GET /gateway/bot` already | also [`Builder::gateway`]`(info)` | the same, and starts without that request |
//!
//! [`gateway_info()`](crate::config::gateway_info) makes only the request: for a coordinator that asks once
//! and passes the answer to its processes, or to check [`SessionStartLimit::remaining`] before a start. Do
//! not use an old answer: the manager believes its number of remaining Identifies.
//!
//! Discord routes guilds by the shard count, so every process of a bot has to use the same one. A shard holds
//! at most 2500 guilds (GW-229).
//!
//! A running bot gets another count by [resharding](super::_09_resharding); each layout has a generation,
//! counted from 1 ([`Dispatch::generation`]). When Discord refuses the count (4010, 4011) of a bot that does
//! not reshard by itself, the manager ends with that reason.
//!
//! # Starting
//!
//! Shards start in parallel over the keys of `max_concurrency`, in the order of their ids within a key, with
//! one Identify per key and 5.25 s. Two shards of one key are about that far apart, since the next one opens
//! its connection while the window of the one before still runs. With sessions that fit they resume instead,
//! all at once, limited only by [`Builder::connects_per_second`].
//!
//! The last Identifies of the day are kept in reserve ([`Builder::identify_reserve`], 10): at zero Discord
//! would reset the token. [`Lifecycle::BudgetLow`] warns when less than a tenth is left. After
//! [`Lifecycle::BudgetExhausted`] shards without a session wait until the period ends. Resumes continue.
//!
//! [`Builder::start`] returns when the layout is known. To wait until every shard is up, wait for
//! [`Lifecycle::AllReady`]: it arrives once, when each shard has been ready at least once.
//!
//! # Adding, removing, moving, restarting
//!
//! | to … | call | returns | costs |
//! |---|---|---|---|
//! | run more shards of the layout | [`Shardkeeper::add_shards`] | when they are started | an Identify each, or nothing with a session |
//! | stop running some | [`Shardkeeper::remove_shards`] | their sessions, when they have closed | nothing |
//! | move them to another process | [`remove_shards`](Shardkeeper::remove_shards) there, [`add_shards`](Shardkeeper::add_shards) here |  | no Identify, no event lost |
//! | replace a connection | [`Shardkeeper::restart_shard`] with [`RestartBy::Resume`] | when the shard was notified | a moment |
//! | replace a session | [`RestartBy::Identify`] | when the shard was notified | an Identify, and the events in between |
//!
//! Each call changes all of the shards or none: [`ShardChangeError`] names the shard that prevents it.
//! `restart_shard` also brings back a shard in quarantine, and one that Discord refused.
//!
//! Removed shards close with 4905, and Discord keeps their sessions for some minutes.
//! [`Shardkeeper::remove_shards_with`]`(ids, ShutdownMode::Stop)` closes with 1000 instead, which ends the
//! sessions at once. When the call returns, their connections are closed, also those of a shard that crashed
//! or was killed meanwhile. There is one exception: at the deadline of an end, the call no longer waits for
//! code of the bot that blocks a shard's task.
//!
//! # Status
//!
//! The manager answers [`Shardkeeper::status`] without asking any shard, so a shard that hangs does not delay
//! it. [`Shardkeeper::shard_status`] is the same for one shard.
//!
//! | field of [`ShardStatus`] | shows |
//! |---|---|
//! | [`phase`](ShardStatus::phase), [`since`](ShardStatus::since) | its phase, and since when |
//! | [`latency`](ShardStatus::latency), [`latencies`](ShardStatus::latencies) | the times between heartbeats and their acknowledgements |
//! | [`heartbeat`](ShardStatus::heartbeat) | the heartbeat interval, the last acknowledgement, and since when one is missing |
//! | [`sending`](ShardStatus::sending) | how full the window of 120 payloads is, and how many commands wait |
//! | [`url`](ShardStatus::url) | the address of the connection, without path and query |
//! | [`session`](ShardStatus::session), [`sequence`](ShardStatus::sequence) | the session by number, and the last published sequence |
//! | [`acknowledged`](ShardStatus::acknowledged), [`watermark_stuck`](ShardStatus::watermark_stuck) | the watermark, and the subscription that stops it |
//! | [`held_up`](ShardStatus::held_up), [`reading_paused`](ShardStatus::reading_paused) | the subscription that is full, and whether the shard has stopped reading for it |
//! | [`dispatches`](ShardStatus::dispatches), [`identifies`](ShardStatus::identifies), [`resumes`](ShardStatus::resumes), [`disconnects`](ShardStatus::disconnects), [`zombied`](ShardStatus::zombied), [`restarts`](ShardStatus::restarts) | counters since the manager started |
//! | [`last_disconnect`](ShardStatus::last_disconnect), [`last_reason`](ShardStatus::last_reason) | why the last connection ended: reason, initiator, close code, detail and time; and the same as text |
//!
//! [`IdentifyStatus`] shows how many shards wait and what is left of the budget. All of it serializes; times
//! become milliseconds.
//!
//! A shard is healthy when it is at [`Phase::Ready`] and its [`since`](ShardStatus::since) is not a few
//! seconds ago at every check.
//!
//! # Payloads for debugging
//!
//! [`Builder::wire_tap`] calls a function for each payload that a shard sends or receives, heartbeats
//! included, with opcode, size and direction. [`Builder::wire_tap_with_content`] shows the content too,
//! except that of Identify and Resume.
//!
//! # Connections that end
//!
//! A shard makes another connection by itself. With [`Builder::reconnect`]`(false)` it reports the end and
//! stays at [`Phase::Stopped`], until [`Shardkeeper::restart_shard`] brings it back.
//!
//! # Logs
//!
//! The library writes `tracing` events and installs no subscriber. `error` needs a person: a refusal, a
//! crash, a start that cannot work. `warn` heals by itself: a zombied connection, an API that does not
//! answer, a low budget. `info` is one line for each change in the life of a shard. No level shows content,
//! token or session ids.
//!
//! # Sessions
//!
//! A [`Session`] makes a resume possible. It is a secret like the token. It fits a shard of the same id,
//! count and intents on a connection of the same encoding and compression, and Discord keeps it for some
//! minutes after its connection ended. A process that starts with other intents, encoding or compression
//! resumes nothing: each shard costs an Identify, and the events in between are lost.
//!
//! **The shard count follows the sessions.** A start that can resume at least half of the shards of the last
//! layout begins with that layout, whatever count is configured or recommended, and reports the difference as
//! [`Lifecycle::LayoutFollowed`]. So a new recommendation, or another number in [`Builder::shards`], costs
//! neither an Identify nor an event. The log line of the start has the reason for its count:
//!
//! | at a start there are … | first layout |
//! |---|---|
//! | no usable sessions: too old, of other intents, given up by [`stop`](Shardkeeper::stop) | the wanted count |
//! | sessions of at least half of the shards of the last layout | the last layout |
//! | sessions of fewer than half of them | the wanted count, since it needs fewer Identifies than both; the sessions are dropped unless the count is the same |
//! | sessions of a layout that Discord has refused since (4010, 4011) | the wanted count; if it is the refused one, with these sessions |
//! | sessions of both layouts of a reshard that was interrupted | both: the new shards of each group that was cut over, the old shards of the others |
//! | for [`Builder::shard_ids`], sessions of a layout of which this process would run a part of some shard | the configured ids |
//!
//! The wanted count is that of [`Builder::shards`], or else Discord's recommendation. Sessions of
//! [`Builder::sessions`] come before those of a store. They do not say which groups of an interrupted reshard
//! were cut over, so [`detach`](Shardkeeper::detach) returns only those of the shards that own their guilds.
//!
//! - [`Shardkeeper::detach`] ends the manager and returns all sessions; [`Builder::sessions`] takes them in
//!   the next process. A session that does not fit is left out there, and a warning has the reason.
//! - A [`Builder::session_store`] keeps sessions while the bot runs, together with the used part of the day's
//!   budget: [`FileStore`](crate::store::FileStore) on disk, or a
//!   [`SessionStore`](crate::store::SessionStore) of your own. The next process continues from there, whether
//!   this one was detached or killed. A new session is stored at once, its progress four times a second. No
//!   event waits for the store. A failing store is logged and stops no shard.
//! - [`Shardkeeper::sessions`] returns the sessions as they are now.
//!
//! Times in a store are of the wall clock. Setting the clock while the process runs does no harm. Setting it
//! between two processes has these costs:
//!
//! | the clock is set … | cost |
//! |---|---|
//! | back | one window of Identify at most, and with [`Builder::gateway`] a budget that is too small until Discord is asked |
//! | ahead | a running window is cut short |
//! | ahead by more than [`Builder::max_session_age`] | also an Identify for each shard |
//! | ahead beyond the end of the budget's period, with [`Builder::gateway`] | also the stored count of Identifies is ignored, and the answer given there is believed as it is |
//!
//! A store does not remember the layout. The next process runs the shards that its builder names, whatever
//! [`Shardkeeper::add_shards`] and [`Shardkeeper::remove_shards`] changed. A removed shard leaves the store
//! with its next save, some 250 ms after `remove_shards` has returned.
//!
//! Each process has its own session store. A [`FileStore`](crate::store::FileStore) is open in one process at
//! a time: the successor opens it after the old process has ended, or gets `OpenError::InUse` and tries
//! again.
//!
//! # Ending
//!
//! | call | closes with | sessions | Discord shows the bot as |
//! |---|---|---|---|
//! | [`Shardkeeper::stop`] | 1000 | ended | offline at once |
//! | [`Shardkeeper::detach`] | 4905 | kept for some minutes | online for as long |
//! | killing the process | nothing | kept for some minutes, usable with a [session store](Builder::session_store) | online for as long |
//!
//! Discord ends a session when the connection of that session is closed with 1000. So a shard that is between
//! two connections when it is stopped resumes once more, closes with 1000, and spends three seconds on it at
//! most ([`Timings::close`]). If Discord cannot be reached within that time, it shows the bot as online for
//! some minutes more.
//!
//! Both calls begin at once, and the future that they return is ready within [`Builder::shutdown_timeout`]
//! (10 s), from any state, also while connecting. Subscribers may read on until then. A `detach` waits for
//! their acknowledgements, and events that are still open at the deadline arrive again at the successor.
//! Awaited inside the loop that reads, it continues after 1 s without the events that this loop holds: see
//! [delivery](super::_03_delivery). Dropping handles ends nothing. [`Shardkeeper::exit_reason`] waits for the
//! end, however it happens. [`Shardkeeper::wait`] returns the same as a `Result`: an error if the bot ended
//! although nobody asked for it.
//!
//! After the end every call that needs the manager returns the error [`ManagerEnded`], alone or as the variant `ManagerEnded`
//! of its own error. Only `stop`, `wait` and `exit_reason` succeed, since they wait for the end; a subscription yields `None`.
//!
//! # Several processes
//!
//! Each process runs a part of the layout: the same count, different ids. Routing by guild works in each of
//! them. A guild of another process is [`CommandError::GuildElsewhere`], with the shard that owns it.
//!
//! The pace of Identify belongs to the token, not to the process. There are three ways to keep it:
//!
//! - give each process its own keys: with a `max_concurrency` of 16 and two processes, one takes the ids with
//!   `id % 16 < 8`, the other one the rest;
//! - start one process after the other;
//! - share an [`IdentifyGate`], set by [`Builder::identify_gate`]: it is asked before each Identify, and
//!   knows what the other processes do.
//!
//! The day's budget is shared as well. Each process believes Discord's last answer and counts its own
//! Identifies, so set a larger [`Builder::identify_reserve`] when there are many processes.
//!
//! # A hand-over
//!
//! ```no_run
//! use shardkeeper::{Intents, Session, ShardId, Shardkeeper};
//!
//! /// The old process gives shard 3 away. Send the sessions to the new one over a channel as private as the token.
//! async fn give(old: &Shardkeeper) -> Result<Vec<Session>, Box<dyn std::error::Error>> {
//!     Ok(old.remove_shards([ShardId(3)]).await?)
//! }
//!
//! async fn take(new: &Shardkeeper, sessions: Vec<Session>) -> Result<(), Box<dyn std::error::Error>> {
//!     Ok(new.add_shards([ShardId(3)], sessions).await?)
//! }
//!
//! /// The same for a whole process: the next one resumes everything.
//! async fn replace(old: &Shardkeeper, token: String) -> Result<Shardkeeper, Box<dyn std::error::Error>> {
//!     let sessions = old.detach().await?;
//!     Ok(Shardkeeper::builder(token, Intents::GUILDS).sessions(sessions).start().await?)
//! }
//! ```
//!
//! ---
//!
//! Before: [Commands](super::_04_commands). Next: [Defaults](super::_06_defaults).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
