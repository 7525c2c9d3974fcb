//! Delivery: topics, subscriptions, order, loss, acknowledgement and back-pressure.
//!
//! # Topics
//!
//! A [`Topic`] says what a subscriber wants to hear. It begins with a set of events:
//!
//! | topic | brings |
//! |---|---|
//! | [`Topic::all`] | every dispatch, also of names that nobody knows yet |
//! | [`Topic::events`]`([EventName::MessageCreate])` | these events |
//! | [`Topic::groups`]`([EventGroup::Members, EventGroup::Roles])` | the events of these parts of the protocol |
//! | [`Topic::intents`]`(Intents::GUILD_MODERATION)` | what any of these intents brings; nothing that comes without an intent |
//! | [`Topic::lifecycle`] | no dispatch, but what happens to shards, queue and bot |
//!
//! and is widened or narrowed:
//!
//! | method | does | costs per event |
//! |---|---|---|
//! | [`and`](Topic::and)`(Topic::lifecycle())` | adds the events of another topic; the other's narrowing is left behind | nothing |
//! | [`with_lifecycle`](Topic::with_lifecycle)`()` | adds lifecycle changes, at their places among the dispatches of their shard | nothing |
//! | [`of_shards`](Topic::of_shards)`([ShardId(0)])` | these shards alone; what concerns the whole bot comes all the same | nothing |
//! | [`of_guilds`](Topic::of_guilds)`([guild_id])` | dispatches of these guilds alone; those of no guild do not come | a pass over the data of each event of the set, about a nanosecond per byte |
//! | [`matching`](Topic::matching)`(predicate)` | the dispatches for which the predicate holds | what the predicate does, in the shard's own task |
//!
//! A predicate gets the [`Envelope`], with name, sequence and the text of the data. It must not wait. A search for a few bytes
//! is cheap there; a full parse belongs to the subscriber.
//!
//! An event that no topic wants costs a look at its name: nothing is copied, allocated or locked.
//!
//! # Subscriptions
//!
//! [`Builder::subscribe`] subscribes before anything starts and misses nothing. [`Shardkeeper::subscribe`] begins with the
//! next event. Either gives a [`Subscription`]: a `Stream`, and [`Subscription::next`], which is cancel safe. Dropping it
//! unsubscribes, and acknowledges what it holds unread: a bot that ends for a successor calls [`detach`](Shardkeeper::detach)
//! first, and reads on to the end. When the manager has ended it yields what it holds, and then `None`; so it does when the
//! builder is dropped, or the start fails.
//!
//! [`Subscription::named`] gives it a name. Reports about it have the name, and the place in the code that subscribed.
//!
//! There may be many: each has its own queue, and they share the data of an event. Those who want the same work done by
//! several tasks share one subscription among them.
//!
//! [`Builder::subscribe_to`] and [`Shardkeeper::subscribe_to`] subscribe to one kind of event, and read each into a type: a model
//! of twilight-model (feature `twilight`), or any [`EventModel`] of the bot's own. An event that does not fit its type, or a
//! gap, is an item too: [`TypedError`]. [`Subscription::typed`] does the same for a topic that is narrowed, or has other options.
//!
//! A topic that names an event which the bot's intents do not bring would wait for ever. Subscribing to it is a warning in the
//! log, with the event and the intent to add; so is a topic of which nothing comes.
//!
//! [`Shardkeeper::subscribe_actor`] casts each delivery to an actor of the bot instead. A mailbox has no bound, so the
//! actor works on credit: at most `capacity` deliveries are in its mailbox or hands, and the next goes out when one is dropped.
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
//! | [`Overflow::DropOldest`] | the oldest event makes room | told by [`Event::Lagged`], at the place of the gap | no |
//! | [`Overflow::DropNewest`] | the new event does not come in | told by [`Event::Lagged`], before the next event that is read; the gap is somewhere behind | no |
//!
//! A subscription that no dispatch can come to, such as one to [`Topic::lifecycle`], never stops a shard: instead of `Wait` it
//! has `DropOldest`, so the newest changes are there, and [`Lifecycle::Ended`] among them.
//!
//! Take `Wait` for what changes something: commands, moderation, a cache. Take `DropOldest` for what only shows the present:
//! a dashboard, typing indicators. Take `DropNewest` for samples.
//!
//! # Back-pressure
//!
//! When a lossless subscription has no room, the driver keeps the event, and reads no more from its connection. TCP does the
//! rest: Discord's data waits in the buffers of both machines. Meanwhile
//!
//! - heartbeats are sent, and a missing acknowledgement is excused, since nobody looks for it;
//! - commands are sent;
//! - a connection that is new is read up to READY all the same, or it would never live; but for a shard that gets session
//!   after session while nobody reads, whose READY waits once 64 events do;
//! - other shards go on, unless the same subscription is in their way too.
//!
//! After 5 s without taking anything from a shard that waits, the subscription is reported: by a warning and
//! [`Lifecycle::SubscriptionStalled`], once for all its shards, with name, place and time, until
//! [`Lifecycle::SubscriptionResumed`]. [`ShardStatus::held_up`] shows it for each shard, and [`ShardStatus::reading_paused`]
//! whether the shard reads.
//!
//! A loop that reads events may wait for an answer that comes over the same shard: while somebody awaits
//! [`Shardkeeper::members`] or [`AcceptedCommand::written`], the shard reads on although a subscription is
//! full, and keeps what that one has no room for, up to 4096 events or 32 MiB. Beyond that the request fails, and the error
//! names the subscription ([`MembersError::HeldUp`], [`WriteError::HeldUp`]).
//!
//! A subscriber that sleeps for minutes may cost a shard its connection. The shard resumes, and nothing is lost as long as
//! Discord still has what it missed. A subscription that is dropped wakes everybody who waited for it.
//!
//! # Acknowledgement and the watermark
//!
//! Dropping a [`Delivery`] says that it was dealt with. Hold it while the work is under way; [`Delivery::into_event`] keeps
//! the event and acknowledges at once. [`Delivery::abandon`] drops it without acknowledging, and so does a panic: of what the
//! panicking task holds, in its hands and unread in its subscriptions, nothing counts as dealt with.
//!
//! Each shard has a *watermark*: the highest sequence up to which every lossless subscription has acknowledged everything.
//! [`Shardkeeper::detach`], [`Shardkeeper::remove_shards`] and [`Shardkeeper::sessions`] hand sessions out as of the
//! watermark, so whatever was not dealt with comes again to whoever resumes them. Events that no lossless subscription wanted
//! do not hold it back.
//!
//! One delivery that is never dropped, or was abandoned, stops the watermark: what is stored from then on, or handed over, goes
//! back to that event. After a minute [`Lifecycle::WatermarkStuck`] and a warning name the subscription, once until
//! [`Lifecycle::WatermarkMoves`]; [`ShardStatus::watermark_stuck`] shows it. Whatever is acknowledged behind it takes no memory.
//!
//! `detach` and `remove_shards` begin when they are called, and what they return only waits: a loop that reads events keeps
//! reading until its subscription ends, and then takes the sessions. The example `hand_over` does so. The end waits for
//! deliveries in hand, up to [`Builder::shutdown_timeout`]; after 5 s the subscription is reported as stuck. It does not wait for
//! what was abandoned.
//!
//! A task that awaits the end with a delivery in its hand waits for itself. Which task holds a delivery cannot be known, since
//! a delivery may be passed on. But a task that read an event, awaits an end now, and has not asked the subscription for the
//! next event in between, is still in the body of its loop. When nothing but what such tasks hold, or have not read yet, is
//! missing for 1 s, the end goes on without it: a warning and [`Lifecycle::WatermarkStuck`] name the subscription, and
//! what was not acknowledged comes again to the next process, marked as replayed. Nothing is lost, and the end takes a
//! second instead of the whole deadline. A handler of any other task keeps the deadline, however slow it is, since ending early
//! would do its work twice. Two cases are mistaken: a handler in the same task beside the call, as in
//! `join!(bot.detach(), handle(delivery))`, or one that got its delivery from the loop's body just before the body awaits
//! the end, has that second; and an actor that awaits the end in its `handle` waits for the whole deadline.
//!
//! So drop the delivery, or call [`Delivery::into_event`], before awaiting an end that it asked for: otherwise the next process
//! gets the same `!restart` again, and restarts too.
//!
//! Within the process a shard resumes from what was *published*, which may be more: what lies in a subscription
//! outlives the shard.
//!
//! # Order
//!
//! - The events of one shard come in Discord's order, in every subscription.
//! - Lifecycle changes of a shard ([`Lifecycle::Shard`]) stand at their places among its dispatches: [`Change::Ready`] before
//!   READY, [`Change::Resuming`] before what is replayed, [`Change::Resumed`] before RESUMED.
//! - What the manager and the queue announce ([`Lifecycle::AllReady`], [`Lifecycle::Crashed`], [`Lifecycle::Silent`] and the
//!   like) has no fixed place among them.
//! - Between shards there is no order. A guild is on one shard, so the events of a guild are in order.
//!
//! # Duplicates and loss
//!
//! | when | twice | never |
//! |---|---|---|
//! | in service, over a resume | no | no |
//! | after a crash in the middle of publishing | perhaps | no |
//! | after a hand-over to another process | what was not acknowledged | no |
//! | when Discord gives a session up (op 9, close 4007 or 4009, hours without a connection) | no | what happened until the next READY |
//! | after `SIGKILL`, with a [session store](Builder::session_store) | what was not acknowledged, or within the last 250 ms and one save | what Discord no longer has |
//!
//! Sequence numbers rise within a session, but not by one each time: a gap is no error. [`Dispatch::shard`] and
//! [`Dispatch::sequence`] together recognise what came before, as long as the session is the same. What comes a second time
//! is marked: [`Dispatch::is_replayed`]. The mark alone is no reason to drop an event: every resume sets it, also on what comes
//! for the first time.
//!
//! READY alone is never replayed. A process that is killed after its session was stored, and before a subscriber has
//! acknowledged READY, takes that one event with it; the session itself goes on.
//!
//! # Bounds
//!
//! | queue or buffer | holds | when full |
//! |---|---|---|
//! | subscription | [`SubscriptionOptions::capacity`]: 1024 events | its policy |
//! | deliveries with an actor that subscribed | as many again, on credit | the subscription fills up |
//! | a shard's spill, in front of full lossless subscriptions | one dispatch per subscription, up to 64 lifecycle changes, and READY as long as it has less than 64 entries | reading has stopped with the first; more lifecycle changes count as missed, and READY is left unread too |
//! | the same while an answer from the shard is awaited | 4096 events or 32 MiB | reading stops; the request fails after 5 s without an event, and names the subscription |
//! | acknowledgements that are missing | one entry of 40 bytes for each dispatch that is open, and as many again | what lies between two of them is merged |
//! | announcements of manager and queue for a full lossless subscription | 64 each | counted as missed |
//! | chunks of [`Shardkeeper::members_chunks`] | 64 | the shard stops reading |
//! | commands on their way to a driver | 640 (all of the next two rows) | [`CommandQueueError::QueueFull`] |
//! | voice commands of a shard | [`CommandClass::capacity`]: 128 | [`CommandQueueError::QueueFull`] |
//! | bulk commands of a shard | [`CommandClass::capacity`]: 512 | [`CommandQueueError::QueueFull`] |
//! | presences of a shard | 1 | the newest wins |
//! | controls on their way to a driver (turn, permit, stop, restart) | 64 | a permit goes back unspent; a restart is lost; a shard to be ended is dropped without a close frame |
//! | one incoming message, compressed or not | [`Builder::max_message_bytes`]: 64 MiB | the connection is given up, and resumed |
//! | bytes that wait to be written | 512 KiB | the connection is given up, and resumed |
//! | one outgoing payload | [`MAX_PAYLOAD_BYTES`](shardkeeper_proto::MAX_PAYLOAD_BYTES): 4096 bytes | refused before it is accepted |
//! | answer of `GET /gateway/bot` | 64 KiB | an error |
//! | heartbeats remembered | [`LATENCIES`]: 16 | the oldest goes |
//! | connections that open at once | [`Builder::connects_per_second`]: 50 | the others wait |
//! | mailboxes of actors | no bound of their own | each call of a handle puts one message there and waits for its answer, so the callers are the bound |
//! | deliveries that the bot has read and still holds | the bot's own | their data stays, and the watermark with it |
//!
//! # Parsing
//!
//! [`Dispatch::parse`] reads the data into any type that serde can make; fields that the type does not name are skipped. It
//! runs where it is called, in the subscriber, and an error there concerns no shard. [`Dispatch::data`] is the JSON text
//! itself. With the cargo feature `twilight`, `Dispatch::event()` gives the event of twilight-model, which twilight's cache
//! and standby take as it is. A [`JsonError`] names the event, the type and the place, and nothing of the content.
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
//!         // Here the delivery is dropped. In a lossless subscription that acknowledges it.
//!     }
//! }
//! ```
//!
//! ---
//!
//! Before: [Supervision](super::_02_supervision). Next: [Commands](super::_04_commands).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
