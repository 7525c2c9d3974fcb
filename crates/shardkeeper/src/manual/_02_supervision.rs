//! Supervision: what breaks, who notices, what is done, and what survives.
//!
//! # Two kinds of failure
//!
//! **What Discord and the network do** is no crash. A lost connection, an invalid session, an outage of hours, a Gateway that
//! accepts and closes at once: each is a state of the machine, with its own deadline and wait. No actor dies of it, and it
//! never counts towards quarantine.
//!
//! **A crash** is a panic or an error in our own code, or an actor that somebody ended from outside. It should not happen. If
//! it does, the supervisor starts the part anew, from state that it did not hold itself.
//!
//! Supervision works by catching panics: a program with `panic = "abort"` has none.
//!
//! # Who supervises whom
//!
//! The manager supervises the sentinel, the queue, the session keeper and the shard actors. Each shard actor watches over its
//! driver task. Nobody supervises the manager, unless the bot spawns it linked to a supervisor of its own ([`Builder::build`], `Actor::spawn_linked`).
//!
//! |  | panics | fails with an error | is killed | is stopped |
//! |---|---|---|---|---|
//! | **driver** | Its actor fails with the panic's message, and the manager restarts the shard, which resumes. | It has none to end with: what can fail is a state. | Only the end of its actor does that. The connection is dropped without a close frame, so the session stays. | By [`ShardMessage::Stop`] or [`ShardMessage::Detach`]. It closes, lets subscribers take what is under way, and ends. |
//! | **shard actor** | The manager restarts the shard, which resumes. | The same. | The same. | The same: a stop that did not come from the manager is a crash to it. |
//! | **queue** | Replaced. Every key stays closed for one window from the last Identify, and who waited asks again. | The same. | The same. | The same. |
//! | **session keeper** | Replaced. The new one stores everything again, since nobody knows what the old one did. | The same. | The same. | The same. |
//! | **sentinel** | Replaced. The new one asks at once if the manager waits for its first answer, else hours later. | The same. | The same. | The same. |
//! | **manager** | Everything below is killed, sessions in memory are gone, subscriptions end, and [`Shardkeeper::exit_reason`] says [`ExitReason::Crashed`]. | The same. | The same. | By its address: the same. By [`Shardkeeper::stop`] or [`Shardkeeper::detach`]: in order. |
//!
//! Queue, keeper and sentinel ([`Service`]) are replaced with the waits of [`RestartPolicy`], at once the first time: their state is
//! a few numbers, and the ledger of the budget is the manager's. A permit that was out when its shard died returns, unless its
//! driver had taken it: an Identify counts when the driver writes it, and its key's window begins when that driver can write no more.
//! The keeper is there with a [session store](Builder::session_store) only.
//!
//! Each life of a shard's actor is an [`Incarnation`]: what an earlier one says late changes nothing. A killed actor tells its
//! supervisor before its driver has ended, so what it said may come behind the first words of its successor. The newest
//! incarnation that is heard of counts alone; nothing relies on the order of the two.
//!
//! # Which orders are relied upon
//!
//! Two messages from different actors, or to different ports of one actor, can arrive in either order. ractor serves the news
//! that an actor has ended before the messages that the actor sent before its end. An actor that is killed still runs its
//! driver for a moment: aborting a task only asks it to stop. So this is what the code relies upon, and nothing else:
//!
//! | between | order | why |
//! |---|---|---|
//! | what a driver tells its actor, and what that reports to the manager | as it was sent | Each sends one after the other into one mailbox, and a mailbox is first in, first out. |
//! | a shard's report ([`ShardReport`]) and the end of its actor | none | Each incarnation has a record that outlives it: whether it was ready, refused, or ended as it was told. The driver writes the record before it reports. The manager reads it at the report or at the end, whichever comes first, and ignores the other. |
//! | a driver and the next driver of the shard | the next one begins when the earlier one is gone | The lease of the session slot: a driver holds it from its first line until everything of it is dropped. |
//! | the manager and a driver that was aborted | none | Whoever writes names its incarnation. The status board and the session slot ignore earlier ones than the present one; the board only goes on counting what an earlier one did. |
//! | a shard's own change, and what the manager makes of it ([`Lifecycle::AllReady`], [`Lifecycle::LayoutRefused`], [`Lifecycle::Refused`]) | the change comes first | The driver announces before it reports. A subscription that is full has to make room for each, and gets them in any order. |
//! | the sentinel's report and its end | none | When the gateway may be asked again is written down before it is reported. An answer that comes twice is taken twice. |
//! | the keeper's word that everything is stored, and its end | none | When the end is known first, the next keeper is asked to store everything too. |
//! | the timer of a restart, and whatever happened to the shard meanwhile | none | The timer names the incarnation that crashed, and counts only as long as that shard has no actor, has not ended and is not being removed. |
//! | a call of [`Shardkeeper`] and the end of the manager | none | A message that is sent while a mailbox closes is neither served nor dropped. So each call waits for the answer and for the end. |
//! | a command and the end of its shard | none | A command goes into the driver's own channel, which is dropped with the shard's actor, and the command with it. |
//! | a delivery that is cast to a subscribed actor, and that actor's end | none | The task that casts also waits for the end. Then it unsubscribes, and acknowledges whatever the actor has not. |
//!
//! [`ShardMessage::CrashDrill`] makes a driver panic, so that an operator can see all this work.
//!
//! # The code of the bot
//!
//! A task that reads a [`Subscription`] is the bot's. If it panics, the subscription is dropped with it: that unsubscribes, and
//! acknowledges what it had not read. No shard notices. A panic of a session store, an identify gate or, before the first answer of the API, a dialer is an error
//! of theirs: it is told, and they are asked again. Three pieces of the bot's code run in the library's own tasks, and must not wait there:
//!
//! - the predicate of [`Topic::matching`]: after a panic it is not asked again, and everything comes;
//! - the function of [`Builder::presence_fn`]. When it panics, or makes a presence that cannot be shown, a warning says so,
//!   and the shard identifies with the presence that it has, or with none;
//! - the clock of [`Builder::wall_clock`], which must not panic either.
//!
//! # When a shard comes back
//!
//! [`RestartPolicy`] decides, per shard, by the crashes of the last [`window`](RestartPolicy::window) (10 min).
//!
//! | crash within the window | comes back |
//! |---|---|
//! | 1st | at once |
//! | 2nd | after 1 to 2 s |
//! | 3rd | after 2 to 4 s |
//! | 4th | after 4 to 8 s |
//! | 5th and further ([`quarantine_after`](RestartPolicy::quarantine_after)) | after 5 min ([`quarantine`](RestartPolicy::quarantine)), at [`Phase::Quarantined`] |
//! | another one within the window after a quarantine | after twice as long as the last time, up to 1 h ([`quarantine_cap`](RestartPolicy::quarantine_cap)) |
//!
//! The waits are those of [`RestartPolicy::backoff`]; its cap of 60 s plays a part only when more crashes are allowed before
//! quarantine. Each restart tries to resume. After a quarantine Discord has mostly forgotten the session: it answers with
//! Invalid Session, and the shard identifies.
//!
//! So a shard that crashes at each start, even right after its Identify, spends about 31 of the day's 1000 Identify, and the
//! reserve is not touched. The others resume, which costs none.
//!
//! **Quarantine ends by itself.** A try that works makes an ordinary shard of it again once the window has passed without a
//! crash.
//! [`Shardkeeper::restart_shard`] tries at once.
//!
//! **The breaker.** From the 32nd crash of all shards together within 10 s on ([`fleet_limit`](RestartPolicy::fleet_limit),
//! [`fleet_window`](RestartPolicy::fleet_window)) every restart waits 10 to 20 s at least. Something is wrong with all of
//! them then, and two thousand shards that come back at once would make it worse.
//!
//! Each crash is a [`Lifecycle::Crashed`] with its wait, and an error in the log.
//!
//! # When a connection ends
//!
//! This is the machine's part. [`Change::Disconnected`] carries the [`Reason`] and what comes [`Next`].
//!
//! | what happened | what follows |
//! |---|---|
//! | op 7, a zombied connection, no close frame, a deadline passed, any close code that is not named below | resume, if there is a session |
//! | op 9 with `true` | wait 1 to 5 s, resume |
//! | op 9 with `false` | wait 1 to 5 s, a new session |
//! | close 4003, 4006, 4007, 4009 | a new session |
//! | for 15 minutes no connection brought RESUMED or an event ([`Timings::keep_session`]) | a new session |
//! | five unreadable payloads in a row, or a stream that cannot be inflated | resume |
//! | READY of another shard | a new session; the second time in a row the layout is refused as after close 4010 |
//! | close 4010, 4011 | the layout is refused, see below |
//! | close 4004, 4012, 4013, 4014 | the bot is refused, see below |
//!
//! So a session ends by Discord's word, or after a time in which nothing worked. How often a Resume was answered with a close
//! does not matter: a node of Discord's that restarts does that for a while, a vain Resume costs nothing, and a new session
//! costs an Identify and the events in between.
//!
//! **Waits.** The first try waits not at all, then 1 to 2 s, 2 to 4 s, and so on up to 30 to 60 s ([`Timings::reconnect`]). A
//! new session waits by a second row as well, since each Identify costs: not at all, 5 to 10 s, 10 to 20 s, up to 5 to 10 min
//! ([`Timings::identify`]). Both rows begin anew once a shard was ready for [`Timings::stable`] (60 s). A host that refuses the
//! WebSocket with `Retry-After` is left alone for as long as it asks, up to five minutes. The wait
//! after op 9 is its own: 1 to 5 s, whatever failed before, and longer only when op 9 comes again and again.
//!
//! **Causes.** [`Change::Disconnected`] and [`Disconnect::detail`] have what Discord or the transport said beyond the code:
//! the reason in the close frame (up to 123 bytes, with control characters escaped), or what could not be read. Zombied
//! and unreadable connections, and those that the gateway closed, are warnings in the log; of one shard three at once, and
//! then one per minute, the others as information.
//!
//! **Turns.** Many shards that lose their connections together connect in turn: 50 at once, and then 50 per second
//! ([`Builder::connects_per_second`]), without regard to how long each takes. Who has to wait says for how long: [`Change::Paced`].
//! So the time until a shard is back is the wait that its [`Change::Disconnected`] names, that of [`Change::Paced`], and what the
//! network takes; after an outage it is a minute at most, or two where Discord has forgotten the session.
//!
//! **URLs.** A resume goes to the session's own URL, or to the bootstrap URL when READY had none that can be used: missing, not
//! a URL, not `ws` or `wss`, or `ws` where the bootstrap URL is `wss`. A session from outside ([`Builder::sessions`], a store,
//! [`add_shards`](Shardkeeper::add_shards)) whose URL would send the token in the clear, while the gateway's is encrypted, is
//! refused. When the session's URL cannot be reached, or opens a WebSocket and brings no Hello, the
//! bootstrap URL and the resume URL take turns, until a Resume works. When the bootstrap URL brings no Hello either, `GET
//! /gateway/bot` is asked again, at most once a minute. A host that says Hello is left for the other one when it does not
//! answer a Resume in time, or has ended five of them in a row.
//!
//! # How long a shard is away
//!
//! Counted from the moment from which Discord and the network work again. The parts add up.
//!
//! | what happened | the shard is back after |
//! |---|---|
//! | it waits before its next attempt | 60 s at most ([`Timings::reconnect`]) |
//! | it is in the middle of an attempt that was lost | 10 s more for a connection that does not open, 23 s for a Hello, 63 s for a Resume, 123 s for an Identify without an answer |
//! | its connection has died and nobody said so | 86 s more: two heartbeats, and the closing handshake |
//! | Discord has forgotten its session | up to 60 s more for Discord to say so, then its turn in the identify queue: 5.25 s for each shard of its key before it |
//! | Discord refused its Identify several times in a row | up to 10 min more ([`Timings::identify`]); what it waits for is in [`Change::Disconnected`] |
//! | many shards connect at once | its turn: [`Builder::connects_per_second`] |
//! | the shard crashed five times in ten minutes | 5 min more, or what [`Lifecycle::Crashed`] names |
//! | the day's Identify are used up | until the period ends ([`Lifecycle::BudgetExhausted`]); shards with a session are not concerned |
//!
//! So after a disturbance in which no session died, every shard is back within two and a half minutes, and within 75 s when
//! every connection said that it had ended. No number of failed attempts makes that longer.
//!
//! # What is asked now and then
//!
//! A sentinel asks `GET /gateway/bot` every few hours ([`Builder::gateway_check_every`]). What the API counts as left of the
//! identify budget replaces our own count, unless that is lower within the same period, and how many may identify at once takes effect on those that wait. When Discord
//! advises more shards than the bot has, [`Lifecycle::MoreShardsAdvised`] says so. An API that fails is asked again after one
//! to two minutes, or as late as it wants; one that shuts the bot out (403, 404, a ban of the address) hours later; one that
//! rejects the token never. At the start the last two end the manager. Running shards notice none of it.
//!
//! # Gateways that differ from Discord's
//!
//! Proxies and gateways of other makers are not quite as Discord's. What can be put up with is, and the log has one warning
//! per kind for all shards:
//!
//! | what differs | what is done |
//! |---|---|
//! | dispatches, READY or RESUMED without a sequence number that can be read | they are delivered in their order, with the number of the one before; after a resume they may come twice, since nothing tells them apart |
//! | numbers written as text or floats: `s`, the heartbeat interval, those of `GET /gateway/bot` | read |
//! | text frames, or binary ones that never were compressed, on a connection that asks for compression | taken as they are |
//! | JSON on a connection that asks for ETF | taken |
//! | zstd frames that end with each message | taken |
//! | several payloads in one message | taken one by one, up to 64; with more the connection is given up and resumed |
//! | keys in any order, white space, unknown keys and opcodes | ignored |
//! | no usable `resume_gateway_url` | resumed at the bootstrap URL |
//! | a `shard` in READY that cannot be read | taken for the one that was asked for |
//! | `Connection: keep-alive, Upgrade` in the answer to the WebSocket request | taken; the request has the `User-Agent` of REST |
//! | numbers missing in `GET /gateway/bot`, or odd | 1 shard, 1000 Identify in 24 h, one at a time; a warning each time that it is asked |
//! | more than 65,536 shards advised | refused: [`GatewayInfoError::Malformed`] |
//! | a Hello without an interval between 1 ms and a day | the connection is given up; nothing is identified |
//!
//! Each of them is a mode of the simulator (`Odd` of `shardkeeper-sim`), tested with every compression and encoding.
//!
//! # When Discord refuses
//!
//! A refusal of the **bot** (wrong token, version, intents) stops every shard at once: [`Lifecycle::Refused`],
//! [`ExitReason::Refused`]. Nothing identifies any more. The other shards close so that their sessions stay good for some minutes:
//! a [session store](Builder::session_store) keeps them, and the next process goes on from there once the cause is mended.
//!
//! The text of [`FatalClose`] names the intents for 4013, and the privileged ones among them for 4014.
//!
//! A refusal of the **layout** (4010, 4011) ends that shard: [`Lifecycle::LayoutRefused`]. If no shard of the layout ever was ready, or none is left, the
//! count itself is wrong, and the manager ends before it burns more Identifies.
//!
//! Either way the refused shard first hands over what its subscribers have not taken yet, for [`Builder::shutdown_timeout`] at most.
//!
//! # When a shard falls silent
//!
//! A connection can be acknowledged and yet bring no dispatches, for hours. The manager looks every 15 s and compares each
//! shard with its siblings: when 30 dispatches should have come, none has, and a minute has passed, it announces
//! [`Lifecycle::Silent`], once per silence. It does nothing about it; [`RestartBy::Resume`] is the mildest answer of an
//! operator.
//!
//! # What survives what
//!
//! | thing | a lost connection | a crash of driver or actor | a crash of the queue | the end of the process |
//! |---|---|---|---|---|
//! | session and sequence | yes | yes | yes | with a [`Builder::session_store`], else by [`detach`](Shardkeeper::detach) alone |
//! | events in a subscription | yes | yes | yes | those not acknowledged come again to the next process |
//! | events that a full lossless subscription has not taken | yes | yes | yes | the same |
//! | commands that wait | yes, up to their lifetime | no: [`WriteError::Lost`] | yes | no |
//! | a command that was just being written | [`WriteError::Lost`]; Discord may have it | the same | yes | no |
//! | presence by [`update_presence`](Shardkeeper::update_presence) and [`update_presence_on`](Shardkeeper::update_presence_on) | yes | yes | yes | no |
//! | presence by [`ShardMessage::UpdatePresence`] | yes | no: back to the manager's | yes | no |
//! | identify budget | yes | yes | yes | asked of Discord again; a store remembers when the last Identify was sent, and with [`Builder::gateway`] what is left counts too |
//! | place in the identify queue | yes | asked for again | asked for again | no |
//! | counters of [`ShardStatus`] | yes | yes | yes | no |
//!
//! # Watching it
//!
//! ```no_run
//! use shardkeeper::{Event, Lifecycle, Shardkeeper, Topic};
//!
//! async fn watch(bot: Shardkeeper) {
//!     let mut changes = bot.subscribe(Topic::lifecycle());
//!     while let Some(change) = changes.next().await {
//!         match &*change {
//!             Event::Lifecycle(crash @ Lifecycle::Crashed { quarantined: true, .. }) => eprintln!("look at {crash}"),
//!             Event::Lifecycle(Lifecycle::Refused(refusal)) => eprintln!("mend this: {refusal}"),
//!             Event::Lifecycle(change) => println!("{change}"),
//!             _ => {}
//!         }
//!     }
//!     println!("ended: {:?}", bot.exit_reason().await);
//! }
//! ```
//!
//! ---
//!
//! Before: [Architecture](super::_01_architecture). Next: [Delivery](super::_03_delivery).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
