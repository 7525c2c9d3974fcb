//! Delivery: topics, subscriptions, order, loss, acknowledgement and back-pressure.
//!
//! # Topics
//!
//! A [`Topic`] selects the events of a subscription. It starts with a set of events:
//!
//! | topic | selects |
//! |---|---|
//! | [`Topic::all`] | every dispatch, also those with unknown names |
//! | [`Topic::events`]`([EventName::MessageCreate])` | these events |
//! | [`Topic::groups`]`([EventGroup::Members, EventGroup::Roles])` | the events of these parts of the protocol |
//! | [`Topic::intents`]`(Intents::GUILD_MODERATION)` | the events that any of these intents brings; no event that comes without an intent |
//! | [`Topic::lifecycle`] | no dispatch, but every change of shards, identify queue and bot |
//!
//! Methods widen or narrow it:
//!
//! | method | effect | cost per event |
//! |---|---|---|
//! | [`and`](Topic::and)`(Topic::lifecycle())` | adds the events of another topic; the narrowing of the other topic is ignored | nothing |
//! | [`with_lifecycle`](Topic::with_lifecycle)`()` | adds lifecycle changes, at their places among the dispatches of their shard | nothing |
//! | [`with_warming`](Topic::with_warming)`()` | adds READY and guilds of the new shards of a reshard, before these take over | nothing |
//! | [`of_shards`](Topic::of_shards)`([ShardId(0)])` | only these shards; changes that concern the whole bot still arrive | nothing |
//! | [`of_guilds`](Topic::of_guilds)`([guild_id])` | only dispatches of these guilds; those of no guild do not arrive | a pass over the data of each event of the set, about a nanosecond per byte |
//! | [`matching`](Topic::matching)`(predicate)` | only dispatches for which the predicate returns true | the predicate runs in the shard's own task |
//!
//! A predicate receives the [`Envelope`], with name, sequence and the text of the data. It must not wait. A
//! search for a few bytes is cheap there. Parse whole events in the subscriber instead.
//!
//! An event that no topic wants costs one check of its name: no copy, no allocation, no lock.
//!
//! # Subscriptions
//!
//! [`Builder::subscribe`] subscribes before anything starts and misses no event. [`Shardkeeper::subscribe`]
//! starts with the next event. Both return a [`Subscription`]: a `Stream`, with [`Subscription::next`], which
//! is cancel safe. Dropping a subscription unsubscribes, and acknowledges the events that it holds unread. A
//! bot that hands over to a successor therefore calls [`detach`](Shardkeeper::detach) first, and reads on to
//! the end. When the manager has ended, the subscription yields the events that it holds, and then `None`. It
//! also ends when the builder is dropped, or the start fails.
//!
//! [`Subscription::named`] gives it a name. Reports about the subscription contain the name, and the place in
//! the code that subscribed.
//!
//! A bot may have many subscriptions: each has its own queue, and they share the data of an event. To spread
//! the same work over several tasks, share one subscription among them.
//!
//! [`Builder::subscribe_to`] and [`Shardkeeper::subscribe_to`] subscribe to one kind of event, and read each
//! into a type: a model of twilight-model (feature `twilight`), or any [`EventModel`] of the bot's own. An
//! event that does not fit its type, and a gap, are items too: [`TypedError`]. [`Subscription::typed`] does
//! the same for a topic that is narrowed, or has other options.
//!
//! A topic that names an event which the bot's intents do not bring would wait forever. Subscribing to it
//! logs a warning with the event and the intent to add. So does a topic that no event can match.
//!
//! [`Shardkeeper::subscribe_actor`] casts each delivery to an actor of the bot instead. A mailbox has no
//! bound, so the actor works on credit: at most `capacity` deliveries are in its mailbox or held by it, and
//! the next one is sent when one is dropped.
//!
//! A [`Delivery`] holds an [`Event`]: a [`Dispatch`], a [`Lifecycle`] change, or [`Event::Lagged`].
//!
//! # What happens when a subscription is full
//!
//! [`SubscriptionOptions`] has a capacity (1024 events) and an [`Overflow`]:
//!
//! | policy | when full | lost | acknowledges |
//! |---|---|---|---|
//! | [`Overflow::Wait`], the default | its shards stop reading from Discord until there is room | nothing | yes |
//! | [`Overflow::DropOldest`] | the oldest event makes room | reported by [`Event::Lagged`], at the place of the gap | no |
//! | [`Overflow::DropNewest`] | the new event is dropped | reported by [`Event::Lagged`], before the next event that is read; the gap is somewhere after it | no |
//!
//! A subscription that no dispatch can reach, such as one to [`Topic::lifecycle`], never stops a shard.
//! Instead of `Wait` it has `DropOldest`, so it keeps the newest changes, and [`Lifecycle::Ended`] among
//! them.
//!
//! Use `Wait` for events that change something: commands, moderation, a cache. Use `DropOldest` to show the
//! current state: a dashboard, typing indicators. Use `DropNewest` for samples.
//!
//! # Back-pressure
//!
//! When a lossless subscription has no room, the driver keeps the event, and reads nothing more from its
//! connection. TCP does the rest: Discord's data waits in the buffers of both machines. Meanwhile
//!
//! - heartbeats are sent, and a missing acknowledgement does not count, since the driver does not read it;
//! - commands are sent;
//! - a new connection is still read up to READY, or it would not survive; the exception is a shard that gets
//!   session after session while nobody reads: its READY waits once the spill holds 64 events;
//! - other shards continue, unless they have to wait for the same subscription.
//!
//! When a subscription has taken nothing from a waiting shard for 5 s, it is reported by a warning and by
//! [`Lifecycle::SubscriptionStalled`], once for all its shards, with name, place and time.
//! [`Lifecycle::SubscriptionResumed`] ends the report. [`ShardStatus::held_up`] shows it for each shard, and
//! [`ShardStatus::reading_paused`] shows whether the shard reads.
//!
//! A loop that reads events may wait for an answer that arrives over the same shard. While somebody awaits
//! [`Shardkeeper::members`] or [`AcceptedCommand::written`], the shard continues to read although a
//! subscription is full. It keeps the events that the subscription has no room for, up to 4096 events or 32
//! MiB. Beyond that the request fails, and the error names the subscription ([`MembersError::HeldUp`],
//! [`WriteError::HeldUp`]).
//!
//! A subscriber that sleeps for minutes may cost a shard its connection. The shard resumes, and no event is
//! lost as long as Discord still has the missed ones. Dropping a subscription wakes all shards that waited
//! for it.
//!
//! # Acknowledgement and the watermark
//!
//! Dropping a [`Delivery`] acknowledges it: the event has been dealt with. Hold the delivery while the work
//! is under way. [`Delivery::into_event`] keeps the event and acknowledges at once. [`Delivery::abandon`]
//! drops it without acknowledging. A panic also acknowledges nothing: neither the deliveries that the
//! panicking task holds nor the unread ones in its subscriptions.
//!
//! Each shard has a *watermark*: the highest sequence up to which every lossless subscription has
//! acknowledged everything. [`Shardkeeper::detach`], [`Shardkeeper::remove_shards`] and
//! [`Shardkeeper::sessions`] return sessions as of the watermark, so events that were not dealt with arrive
//! again in the process that resumes. Events that no lossless subscription wanted do not hold the watermark
//! back.
//!
//! One delivery that is never dropped, or was abandoned, stops the watermark. Sessions that are stored or
//! handed over from then on go back to that event. After a minute [`Lifecycle::WatermarkStuck`] and a warning
//! name the subscription, once until [`Lifecycle::WatermarkMoves`]. [`ShardStatus::watermark_stuck`] shows
//! it. Later acknowledgements take no memory.
//!
//! `detach` and `remove_shards` begin when they are called, and the future that they return only waits. So a
//! loop that reads events can continue to read until its subscription ends, and then take the sessions. The
//! example `hand_over` does so. The end waits for deliveries that are held, up to
//! [`Builder::shutdown_timeout`]. After 5 s the subscription is reported as stuck. The end does not wait for
//! abandoned deliveries.
//!
//! A task that awaits the end while it holds a delivery waits for itself. Which task holds a delivery cannot
//! be known, since a delivery may be passed on. But a task that has read an event, now awaits an end, and has
//! not asked the subscription for the next event in between, is still in the body of its loop. When only
//! deliveries that such tasks hold, or have not read yet, are missing for 1 s, the end continues without
//! them: a warning and [`Lifecycle::WatermarkStuck`] name the subscription, and the events that were not
//! acknowledged arrive again in the next process, marked as replayed. No event is lost, and the end takes one
//! second instead of the whole deadline. A handler in any other task keeps the deadline, however slow it is,
//! since ending early would do its work twice. Two cases are misjudged. A handler has only that second if it
//! runs in the same task beside the call, as in `join!(bot.detach(), handle(delivery))`, or if it got its
//! delivery from the body of the loop just before the body awaits the end. And an actor that awaits the end
//! in its `handle` waits for the whole deadline.
//!
//! So drop the delivery, or call [`Delivery::into_event`], before awaiting the end that the event asked for.
//! Otherwise the next process gets the same `!restart` again, and restarts too.
//!
//! Within the process a shard resumes from the last *published* event, which may be later than the watermark:
//! the events in a subscription outlive the shard.
//!
//! # Order
//!
//! - The events of one shard arrive in Discord's order, in every subscription.
//! - Lifecycle changes of a shard ([`Lifecycle::Shard`]) stand at their places among its dispatches:
//!   [`Change::Ready`] before READY, [`Change::Resuming`] before the replayed events, [`Change::Resumed`]
//!   before RESUMED.
//! - Announcements of the manager and the identify queue ([`Lifecycle::AllReady`], [`Lifecycle::Crashed`],
//!   [`Lifecycle::Silent`] and others) have no fixed place among them.
//! - There is no order between shards. A guild is on one shard, so the events of a guild are in order.
//!
//! # Duplicates and loss
//!
//! | when | arrives twice | never arrives |
//! |---|---|---|
//! | in service, over a resume | no event | no event |
//! | after a crash in the middle of publishing | perhaps one | no event |
//! | after a hand-over to another process | events that were not acknowledged | no event |
//! | when Discord ends a session (op 9, close 4007 or 4009, hours without a connection) | no event | events up to the next READY |
//! | after `SIGKILL`, with a [session store](Builder::session_store) | events that were not acknowledged, or only within the last 250 ms and one save | events that Discord no longer has |
//!
//! Sequence numbers rise within a session, but not by one each time: a gap is not an error.
//! [`Dispatch::shard`] and [`Dispatch::sequence`] together identify an event as long as the session is the
//! same. An event that arrives a second time is marked: [`Dispatch::is_replayed`]. The mark is not enough
//! reason to drop an event: every resume sets it, also on events that arrive for the first time.
//!
//! READY is the only event that is never replayed. If a process is killed after its session was stored and
//! before a subscriber has acknowledged READY, that one event is lost. The session itself continues.
//!
//! # Bounds
//!
//! | queue or buffer | holds | when full |
//! |---|---|---|
//! | subscription | [`SubscriptionOptions::capacity`]: 1024 events | its policy |
//! | deliveries held by a subscribed actor | as many again, on credit | the subscription fills up |
//! | a shard's spill, in front of full lossless subscriptions | one dispatch per subscription, up to 64 lifecycle changes, and READY as long as it has less than 64 entries | reading has stopped with the first one; more lifecycle changes count as missed, and READY is left unread too |
//! | the same while an answer from the shard is awaited | 4096 events or 32 MiB | reading stops; the request fails after 5 s without an event, and names the subscription |
//! | missing acknowledgements | one entry of 40 bytes for each open dispatch, and as many again | acknowledged ones between two open ones are merged |
//! | events that the new shards of a reshard group hold until the cut-over | 65,536 events or 64 MiB per group | the new shards stop reading until the old ones have caught up |
//! | fingerprints of what the old shards of a reshard group delivered | 2,097,152 per group, 16,384 per guild, of 16 bytes | the oldest of the guild is forgotten; what cannot be decided is delivered and marked |
//! | guilds that the READY of a new shard lists | 16,384 are awaited | the others count as joins |
//! | announcements of manager and identify queue for a full lossless subscription | 64 each | counted as missed |
//! | chunks of [`Shardkeeper::members_chunks`] | 64 | the shard stops reading |
//! | commands on their way to a driver | 640 (all of the next two rows) | [`CommandQueueError::QueueFull`] |
//! | voice commands of a shard | [`CommandClass::capacity`]: 128 | [`CommandQueueError::QueueFull`] |
//! | bulk commands of a shard | [`CommandClass::capacity`]: 512 | [`CommandQueueError::QueueFull`] |
//! | presences of a shard | 1 | the newest replaces it |
//! | controls on their way to a driver (connect grant, permit, stop, restart) | 64 | a permit goes back unused; a restart is lost; a shard that should end is dropped without a close frame |
//! | one incoming message, compressed or not | [`Builder::max_message_bytes`]: 64 MiB | the connection is closed, and resumed |
//! | bytes waiting to be written | 512 KiB | the connection is closed, and resumed |
//! | one outgoing payload | [`MAX_PAYLOAD_BYTES`](shardkeeper_proto::MAX_PAYLOAD_BYTES): 4096 bytes | rejected before it is accepted |
//! | answer of `GET /gateway/bot` | 64 KiB | an error |
//! | heartbeat latencies remembered | [`LATENCIES`]: 16 | the oldest is dropped |
//! | connections that open at once | [`Builder::connects_per_second`]: 50 | the others wait |
//! | mailboxes of actors | no bound of their own | each call of a handle puts one message there and waits for its answer, so the number of callers is the bound |
//! | deliveries that the bot has read and still holds | decided by the bot | their data stays in memory, and the watermark stops |
//!
//! # Parsing
//!
//! [`Dispatch::parse`] reads the data into any type that serde can deserialize. Fields that the type does not
//! name are skipped. It runs in the subscriber that calls it, and an error there does not affect any shard.
//! [`Dispatch::data`] is the JSON text itself. With the cargo feature `twilight`, `Dispatch::event()` returns
//! the event of twilight-model, for twilight's cache and standby. A [`JsonError`] names the event, the type
//! and the place, and never shows the content.
//!
//! ```no_run
//! use serde::Deserialize;
//! use shardkeeper::{Event, EventName, Overflow, Shardkeeper, SubscriptionOptions, Topic};
//!
//! #[derive(Deserialize)]
//! struct Message<'a> {
//!     channel_id: &'a str,
//!     guild_id: Option<&'a str>,
//! }
//!
//! async fn listen(bot: &Shardkeeper, guild_id: u64) {
//!     let topic = Topic::events([EventName::MessageCreate]).of_guilds([guild_id]);
//!     let options = SubscriptionOptions { capacity: 100, overflow: Overflow::DropOldest };
//!     let mut messages = bot.subscribe_with(topic, options);
//!     while let Some(delivery) = messages.next().await {
//!         match &*delivery {
//!             Event::Dispatch(dispatch) => match dispatch.parse::<Message<'_>>() {
//!                 Ok(message) => println!("{} in {:?}", message.channel_id, message.guild_id),
//!                 Err(_) => eprintln!("{dispatch:?} is not as expected"),
//!             },
//!             Event::Lagged { missed } => eprintln!("too slow for {missed} messages"),
//!             _ => {}
//!         }
//!         // The delivery is dropped here. In a lossless subscription that acknowledges it.
//!     }
//! }
//! ```
//!
//! ---
//!
//! Before: [Supervision](super::_02_supervision). Next: [Commands](super::_04_commands).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
