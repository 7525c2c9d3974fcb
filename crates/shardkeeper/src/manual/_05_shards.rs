//! Shards: which ones a process runs; how they are moved, watched, ended and handed over.
//!
//! # Which shards to run
//!
//! | a bot that … | says | gets |
//! |---|---|---|
//! | has one process | nothing | as many as Discord recommends |
//! | wants a number of its own | [`Builder::shards`]`(n)` | `n` shards: 0 to n - 1 |
//! | is spread over processes | [`Builder::shard_ids`]`(ids, n)` | these of `n` |
//! | knows the answer of `GET /gateway/bot` already | [`Builder::gateway`]`(info)` besides | a start without that request |
//!
//! [`gateway_info()`](crate::config::gateway_info) makes the request by itself: for a coordinator that asks once and tells its
//! processes, or to look at [`SessionStartLimit::remaining`] before a start. An old answer does harm, since what is left of
//! the budget is believed.
//!
//! The count is what Discord's routing goes by, so every process of a bot has to use the same one. A shard holds at most 2500
//! guilds (GW-229).
//!
//! A layout does not change while it runs. **Resharding while running is not there yet**: a new count means a new start. When
//! Discord refuses the count (4010, 4011), the manager ends and says so. [`Dispatch::generation`] and
//! [`Lifecycle::AllReady`] carry a generation already; it is 1.
//!
//! # Starting
//!
//! Shards start in parallel over the keys of `max_concurrency`, in the order of their ids within a key, one Identify per key
//! and 5.25 s. Two shards of one key are about that far apart, since the next one opens its connection while the window of the
//! one before still runs. With sessions that fit they resume instead, all at once but for the pace of
//! [`Builder::connects_per_second`].
//!
//! Of the day's Identify the last ones are kept ([`Builder::identify_reserve`], 10): at zero Discord would reset the token.
//! [`Lifecycle::BudgetLow`] warns when less than a tenth is left, [`Lifecycle::BudgetExhausted`] says that shards without a
//! session wait until the day is over. Resumes go on.
//!
//! [`Builder::start`] returns when the layout is known. For "everything is up", wait for [`Lifecycle::AllReady`]: it comes
//! once, when each shard has been ready at least once.
//!
//! # Adding, removing, moving, restarting
//!
//! | to … | call | returns | costs |
//! |---|---|---|---|
//! | run more shards of the layout | [`Shardkeeper::add_shards`] | when they are started | an Identify each, or nothing with a session |
//! | run some no longer | [`Shardkeeper::remove_shards`] | their sessions, when they have closed | nothing |
//! | move them to another process | [`remove_shards`](Shardkeeper::remove_shards) there, [`add_shards`](Shardkeeper::add_shards) here |  | no Identify, no event lost |
//! | give one another connection | [`Shardkeeper::restart_shard`] with [`RestartBy::Resume`] | when it was told | a moment |
//! | give one another session | [`RestartBy::Identify`] | when it was told | an Identify, and the events in between |
//!
//! Each takes all of the shards or none: [`ShardChangeError`] names the one that stands against it. `restart_shard` also brings
//! back a shard in quarantine, and one that Discord refused.
//!
//! Removed shards close with 4905, and Discord keeps their sessions for some minutes.
//! [`Shardkeeper::remove_shards_with`]`(ids, ShutdownMode::Stop)` closes with 1000 instead, which ends the sessions at once.
//! At the answer their connections are gone, also those of a shard that crashed or was killed meanwhile; only at the deadline
//! of an end does the removal answer without waiting for code of the bot that holds up a shard's task.
//!
//! # Status
//!
//! [`Shardkeeper::status`] is answered by the manager without asking any shard, so a shard that hangs does not delay it.
//! [`Shardkeeper::shard_status`] is the same for one.
//!
//! | of [`ShardStatus`] | tells |
//! |---|---|
//! | [`phase`](ShardStatus::phase), [`since`](ShardStatus::since) | where it stands, and since when |
//! | [`latency`](ShardStatus::latency), [`latencies`](ShardStatus::latencies) | what heartbeats took |
//! | [`heartbeat`](ShardStatus::heartbeat) | their interval, the last acknowledgement, and since when one is missing |
//! | [`sending`](ShardStatus::sending) | how full the window of 120 payloads is, and how many commands wait |
//! | [`url`](ShardStatus::url) | where the connection goes to, without path and query |
//! | [`session`](ShardStatus::session), [`sequence`](ShardStatus::sequence) | which session by number, and how far it was published |
//! | [`acknowledged`](ShardStatus::acknowledged), [`watermark_stuck`](ShardStatus::watermark_stuck) | how far subscribers are done, and which one keeps that from moving |
//! | [`held_up`](ShardStatus::held_up), [`reading_paused`](ShardStatus::reading_paused) | which subscription is full, and whether the shard has stopped reading for it |
//! | [`dispatches`](ShardStatus::dispatches), [`identifies`](ShardStatus::identifies), [`resumes`](ShardStatus::resumes), [`disconnects`](ShardStatus::disconnects), [`zombied`](ShardStatus::zombied), [`restarts`](ShardStatus::restarts) | counters, over the life of the manager |
//! | [`last_disconnect`](ShardStatus::last_disconnect), [`last_reason`](ShardStatus::last_reason) | why the last connection ended: reason, who, close code and what was said, when; and in words |
//!
//! [`IdentifyStatus`] tells who waits and what is left of the budget. All of it serializes; times become milliseconds.
//!
//! A shard is healthy when it is at [`Phase::Ready`] and its [`since`](ShardStatus::since) is not a few seconds old each time
//! one looks.
//!
//! # The wire
//!
//! [`Builder::wire_tap`] calls a function for each payload that a shard sends or receives, heartbeats included, with opcode,
//! size and direction. [`Builder::wire_tap_with_content`] shows the content too, except that of Identify and Resume.
//!
//! # Connections that end
//!
//! A shard makes another connection by itself. With [`Builder::reconnect`]`(false)` it reports the end and stays down, at
//! [`Phase::Stopped`], until [`Shardkeeper::restart_shard`] brings it back.
//!
//! # Logs
//!
//! The library writes `tracing` events and installs nothing. `error` is for what a person has to look at: a refusal, a crash,
//! a start that cannot be. `warn` heals by itself: a zombied connection, an API that does not answer, a low budget. `info` is
//! a line for each change in the life of a shard. No level shows content, token or session ids.
//!
//! # Sessions
//!
//! A [`Session`] is what makes a resume possible. It is a secret like the token. It fits a shard of the same id, count and
//! intents on a connection of the same encoding and compression, and Discord keeps it for some minutes after its connection.
//! So a process that starts with another count or other intents resumes nothing: each shard costs an Identify, and the events
//! in between are lost. Without [`Builder::shards`] that happens by itself, at the first start after Discord has changed its
//! recommendation: whoever keeps sessions sets the count.
//!
//! - [`Shardkeeper::detach`] ends the manager and returns them all; [`Builder::sessions`] takes them in the next process. One
//!   that does not fit is left out there, and a warning says why.
//! - A [`Builder::session_store`] keeps them while everything goes on, together with what was spent of the day's Identify:
//!   [`FileStore`](crate::store::FileStore) on disk, or a [`SessionStore`](crate::store::SessionStore) of your own. The next
//!   process starts from there, whether this one was detached or killed. A new session is stored at once, how far it got four
//!   times a second; no event waits for it, and a store that fails is told and stops nobody. Times in it are of the wall clock.
//!   When that is set while the process runs, no harm is done.
//!   When it is set between two processes: back, it costs a window of Identify at most, and with [`Builder::gateway`] a
//!   budget that is too small until Discord is asked; ahead, a window that ran is cut short; ahead beyond
//!   [`Builder::max_session_age`], an Identify for each shard; and ahead beyond the end of the budget's period, with
//!   [`Builder::gateway`], our own count is forgotten, and the answer given there is believed as it is.
//!   A store does not remember the layout: the next process runs the shards that its builder names, whatever was moved by
//!   [`Shardkeeper::add_shards`] and [`Shardkeeper::remove_shards`]. What was removed leaves the store with its next save,
//!   some 250 ms after `remove_shards` has returned.
//! - [`Shardkeeper::sessions`] returns them as they are now.
//!
//! Each process has a session store of its own. A [`FileStore`](crate::store::FileStore) is open in one process at a time: the
//! successor opens it after the old process has ended, or gets `OpenError::InUse` and tries again.
//!
//! # Ending
//!
//! | call | closes with | sessions | Discord shows |
//! |---|---|---|---|
//! | [`Shardkeeper::stop`] | 1000 | given up | offline at once |
//! | [`Shardkeeper::detach`] | 4905 | kept for some minutes | online for as long |
//! | killing the process | nothing | kept for some minutes, for who has a [session store](Builder::session_store) | online for as long |
//!
//! Discord ends a session when the connection that belongs to it is closed with 1000. So a shard that is just between two
//! connections when it is told to stop resumes once more, closes with 1000, and spends three seconds on it at most
//! ([`Timings::close`]). If Discord cannot be reached by then, it shows the bot as online for some minutes more.
//!
//! Both calls begin at once, and what they return is ready within [`Builder::shutdown_timeout`] (10 s), from any state, also in
//! the middle of connecting. Subscribers may read on until then; a `detach` waits for their acknowledgements, and what is
//! still open at the deadline comes again to the successor. Awaited inside the loop that reads, it goes on after 1 s without
//! what that loop holds: see [delivery](super::_03_delivery). Dropping handles ends nothing.
//! [`Shardkeeper::exit_reason`] waits for the end, however it comes;
//! [`Shardkeeper::wait`] gives the same as a `Result`: an error says why a bot ended that nobody told to end.
//!
//! After the end every call that needs the manager returns the error [`ManagerEnded`], alone or as the variant `ManagerEnded`
//! of its own error. Only `stop`, `wait` and `exit_reason` succeed, since they wait for the end; a subscription yields `None`.
//!
//! # Several processes
//!
//! Each process runs a slice: the same count, different ids. Routing by guild works in each of them; a guild of another
//! slice is [`CommandError::GuildElsewhere`], with the shard that owns it.
//!
//! The pace of Identify belongs to the token, not to the process. Three ways to keep it:
//!
//! - give each process keys of its own: with a `max_concurrency` of 16 and two processes, one takes the ids with
//!   `id % 16 < 8`, the other one the rest;
//! - start one after the other;
//! - share an [`IdentifyGate`], set by [`Builder::identify_gate`]: it is asked before each
//!   Identify, and knows what the others do.
//!
//! The day's budget is shared as well. Each process believes what Discord said last and counts its own, so keep a larger
//! [`Builder::identify_reserve`] when there are many.
//!
//! # A hand-over
//!
//! ```no_run
//! use shardkeeper::{Intents, Session, ShardId, Shardkeeper};
//!
//! /// The old process gives shard 3 away. What it returns goes to the new one over a channel as private as the token.
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
