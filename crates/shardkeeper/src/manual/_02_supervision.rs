//! Supervision: what breaks, who notices, what is done about it, and what survives.
//!
//! # Two kinds of failure
//!
//! **What Discord and the network do** is not a crash. A lost connection, an invalid session, an outage of
//! hours, a Gateway that accepts and closes at once: each of these is a state of the machine, with its own
//! deadline and wait. No actor ends because of it, and it never counts towards quarantine.
//!
//! **A crash** is a panic or an error in the library's own code, or an actor that somebody ended from
//! outside. It should not happen. If it does, the supervisor starts the part again, from state that the part
//! did not hold itself.
//!
//! Supervision works by catching panics: a program with `panic = "abort"` has no supervision.
//!
//! # Who supervises whom
//!
//! The manager supervises the sentinel, the identify queue, the session keeper and the shard actors. Each
//! shard actor watches its driver task. Nobody supervises the manager, unless the bot spawns it linked to a
//! supervisor of its own ([`Builder::build`], `Actor::spawn_linked`).
//!
//! |  | panics | fails with an error | is killed | is stopped |
//! |---|---|---|---|---|
//! | **driver** | Its actor fails with the panic's message. The manager restarts the shard, which resumes. | Does not happen: expected failures are states. | Happens only when its actor ends. The connection is dropped without a close frame, so the session stays. | By [`ShardMessage::Stop`] or [`ShardMessage::Detach`]. The driver closes, lets subscribers take the events that are under way, and ends. |
//! | **shard actor** | The manager restarts the shard, which resumes. | The same. | The same. | The same: the manager treats a stop that it did not order as a crash. |
//! | **identify queue** | Replaced. Every key stays closed for one window from the last Identify, and waiting shards ask again. | The same. | The same. | The same. |
//! | **session keeper** | Replaced. The new one stores everything again, since nobody knows what the old one stored. | The same. | The same. | The same. |
//! | **sentinel** | Replaced. The new one asks at once if the manager waits for its first answer, otherwise hours later. | The same. | The same. | The same. |
//! | **manager** | Every actor below it is killed, sessions in memory are lost, subscriptions end, and [`Shardkeeper::exit_reason`] returns [`ExitReason::Crashed`]. | The same. | The same. | Through its actor reference: the same. Through [`Shardkeeper::stop`] or [`Shardkeeper::detach`]: an orderly end. |
//!
//! Identify queue, keeper and sentinel ([`Service`]) are replaced with the waits of [`RestartPolicy`], the
//! first time at once: their state is a few numbers, and the manager keeps the ledger of the budget. When a
//! shard dies with a permit, the permit goes back, unless its driver had taken it. An Identify counts when
//! the driver writes it, and the window of its key begins when that driver can write nothing more. The keeper
//! exists only with a [session store](Builder::session_store).
//!
//! Each life of a shard's actor is an [`Incarnation`]. Late messages of an earlier incarnation change
//! nothing. The supervisor of a killed actor is notified before the driver has ended, so the driver's last
//! messages may arrive after the first messages of its successor. Only the newest known incarnation counts;
//! nothing relies on the order of the two.
//!
//! # Which orders the code relies on
//!
//! Two messages from different actors, or to different ports of one actor, can arrive in either order. ractor
//! delivers the end of an actor before messages that the actor sent before its end. The driver of a killed
//! actor still runs for a moment: aborting a task only asks it to stop. The code relies on the following
//! orders, and on no others:
//!
//! | between | order | why |
//! |---|---|---|
//! | messages of a driver to its actor, and the actor's reports to the manager | as they were sent | Each sender writes one message after the other into one mailbox, and a mailbox is first in, first out. |
//! | a shard's report ([`ShardReport`]) and the end of its actor | none | Each incarnation has a record that outlives it: whether it was ready, was refused, or ended as ordered. The driver writes the record before it reports. The manager reads it at the report or at the end, whichever arrives first, and ignores the other. |
//! | a driver and the next driver of the shard | the next one begins when the earlier one is gone | The lease of the session cell: a driver holds it from its first line until everything of it is dropped. |
//! | the end of a removed shard's actor, and the end of its drivers | none | A count of a shard's drivers outlives all incarnations. Each driver lowers it as the last thing it does and reports that ([`ShardReport::DriverGone`]). A removal is answered when the actor has ended and the count is zero. |
//! | the manager and a driver that was aborted | none | Every writer names its incarnation. The status board and the session cell ignore incarnations before the current one; the board still adds what an earlier one counted. |
//! | a shard's own change, and what the manager announces because of it ([`Lifecycle::AllReady`], [`Lifecycle::LayoutRefused`], [`Lifecycle::Refused`]) | the change comes first | The driver announces before it reports. A full subscription has to make room for each of them, and receives them in any order. |
//! | the sentinel's report and its end | none | The time of the next request is written down before the report is sent. An answer that arrives twice is used twice. |
//! | the keeper's report that everything is stored, and its end | none | If the end is known first, the next keeper is asked to store everything too. |
//! | the timer of a restart, and anything that happened to the shard meanwhile | none | The timer names the incarnation that crashed. It counts only if that shard still has no actor, has not ended and is not being removed. |
//! | a call of [`Shardkeeper`] and the end of the manager | none | A message sent while a mailbox closes is neither served nor dropped. So each call waits for the answer and for the end. |
//! | a command and the end of its shard | none | A command goes into the driver's own channel. The channel is dropped with the shard's actor, and the command with it. |
//! | a delivery that is cast to a subscribed actor, and that actor's end | none | The task that casts also waits for the end. Then it unsubscribes, and acknowledges what the actor has not acknowledged. |
//!
//! [`ShardMessage::CrashDrill`] makes a driver panic, so that an operator can see all of this work.
//!
//! # The code of the bot
//!
//! A task that reads a [`Subscription`] belongs to the bot. If the task panics, the subscription is dropped
//! with it. That unsubscribes; the events that the task held are not acknowledged, and arrive again in the
//! next process. No shard notices. A panic in a session store, in an identify gate or, before the first
//! answer of the API, in a dialer counts as an error of that part: it is logged, and the part is called
//! again. Three pieces of the bot's code run in the library's own tasks, and must not wait there:
//!
//! - the predicate of [`Topic::matching`]: after a panic it is not called again, and every event passes;
//! - the function of [`Builder::presence_fn`]: when it panics, or returns a presence that is not valid, a
//!   warning says so, and the shard identifies with its current presence, or without one;
//! - the clock of [`Builder::wall_clock`], which must not panic either.
//!
//! # When a shard comes back
//!
//! [`RestartPolicy`] decides for each shard, by the crashes of the last [`window`](RestartPolicy::window) (10
//! min).
//!
//! | crash within the window | the shard comes back |
//! |---|---|
//! | 1st | at once |
//! | 2nd | after 1 to 2 s |
//! | 3rd | after 2 to 4 s |
//! | 4th | after 4 to 8 s |
//! | 5th and later ([`quarantine_after`](RestartPolicy::quarantine_after)) | after 5 min ([`quarantine`](RestartPolicy::quarantine)), at [`Phase::Quarantined`] |
//! | another one within the window after a quarantine | after twice as long as the last time, up to 1 h ([`quarantine_cap`](RestartPolicy::quarantine_cap)) |
//!
//! The waits are those of [`RestartPolicy::backoff`]. Its cap of 60 s matters only when more crashes are
//! allowed before quarantine. Each restart tries to resume. After a quarantine Discord has usually forgotten
//! the session: it answers with Invalid Session, and the shard identifies.
//!
//! So a shard that crashes at each start, even right after its Identify, uses about 31 of the day's 1000
//! Identifies, and does not touch the reserve. The other shards resume, which costs no Identify.
//!
//! **Quarantine ends by itself.** When a shard comes back and the window passes without another crash, the
//! shard counts as an ordinary one again. [`Shardkeeper::restart_shard`] restarts it at once.
//!
//! **The breaker.** From the 32nd crash of all shards together within 10 s
//! ([`fleet_limit`](RestartPolicy::fleet_limit), [`fleet_window`](RestartPolicy::fleet_window)), every
//! restart waits at least 10 to 20 s. So many crashes have one common cause, and two thousand shards that
//! come back at once would make it worse.
//!
//! Each crash is a [`Lifecycle::Crashed`] with its wait, and an error in the log.
//!
//! # When a connection ends
//!
//! The machine decides what follows. [`Change::Disconnected`] carries the [`Reason`] and the [`Next`] step.
//!
//! | what happened | what follows |
//! |---|---|
//! | op 7, a zombied connection, no close frame, a deadline passed, any close code that is not named below | resume, if there is a session |
//! | op 9 with `true` | wait 1 to 5 s, resume |
//! | op 9 with `false` | wait 1 to 5 s, a new session |
//! | close 4003, 4006, 4007, 4009 | a new session |
//! | no connection brought RESUMED or an event for 15 minutes ([`Timings::keep_session`]) | a new session |
//! | five unreadable payloads in a row, or a stream that cannot be inflated | resume |
//! | READY of another shard | a new session; the second time in a row the layout counts as refused, as after close 4010 |
//! | close 4010, 4011 | the layout is refused, see below |
//! | close 4004, 4012, 4013, 4014 | the bot is refused, see below |
//!
//! So a session ends only when Discord ends it, or after a time in which nothing worked. The number of
//! Resumes that Discord answered with a close does not matter: a restarting node of Discord's does that for a
//! while, a failed Resume costs nothing, and a new session costs an Identify and the events in between.
//!
//! **Waits.** The first attempt does not wait. The next ones wait 1 to 2 s, 2 to 4 s, and so on up to 30 to
//! 60 s ([`Timings::reconnect`]). A new session has a second row of waits, since each Identify counts against
//! the budget: no wait, 5 to 10 s, 10 to 20 s, up to 5 to 10 min ([`Timings::identify`]). Both rows start
//! again once a shard was ready for [`Timings::stable`] (60 s). When a host refuses the WebSocket with
//! `Retry-After`, the shard waits as long as the host asks, up to five minutes. The wait after op 9 is
//! separate: 1 to 5 s, whatever failed before, and longer only when op 9 comes again and again.
//!
//! **Causes.** [`Change::Disconnected`] and [`Disconnect::detail`] hold what Discord or the transport said in
//! addition to the code: the reason in the close frame (up to 123 bytes, with control characters escaped), or
//! what could not be read. Zombied and unreadable connections, and those that the Gateway closed, are
//! warnings in the log. Each shard logs up to three of them at once and then one per minute; the others are
//! logged at level info.
//!
//! **Pace.** When many shards lose their connections together, 50 connect at once, and then 50 per second
//! ([`Builder::connects_per_second`]), no matter how long each takes. A shard that has to wait reports for
//! how long: [`Change::Paced`]. So the time until a shard is back is the wait in its
//! [`Change::Disconnected`], the wait in [`Change::Paced`], and the time of the network. After an outage that
//! is one minute at most, or two if Discord has forgotten the session.
//!
//! **URLs.** A resume goes to the session's own URL. It goes to the bootstrap URL when READY had no usable
//! one: missing, not a URL, not `ws` or `wss`, or `ws` while the bootstrap URL is `wss`. A session from
//! outside ([`Builder::sessions`], a store, [`add_shards`](Shardkeeper::add_shards)) is rejected when its URL
//! would send the token unencrypted while the Gateway's is encrypted. When the session's URL cannot be
//! reached, or opens a WebSocket and sends no Hello, the bootstrap URL and the resume URL are tried in turn,
//! until a Resume works. When the bootstrap URL sends no Hello either, the sentinel asks `GET /gateway/bot`
//! again, at most once a minute. A host that sends Hello is left for the other one when it does not answer a
//! Resume in time, or has ended five of them in a row.
//!
//! # How long a shard is away
//!
//! Counted from the moment when Discord and the network work again. The parts add up.
//!
//! | what happened | the shard is back after |
//! |---|---|
//! | it waits before its next attempt | 60 s at most ([`Timings::reconnect`]) |
//! | it is in the middle of an attempt that was lost | 10 s more for a connection that does not open, 23 s for a missing Hello, 63 s for a Resume, 123 s for an Identify without an answer |
//! | its connection has died without notice | 86 s more: two heartbeats, and the closing handshake |
//! | Discord has forgotten its session | up to 60 s more until Discord says so, then its place in the identify queue: 5.25 s for each shard of its key before it |
//! | Discord refused its Identify several times in a row | up to 10 min more ([`Timings::identify`]); [`Change::Disconnected`] has the reason |
//! | many shards connect at once | its place in the row: [`Builder::connects_per_second`] |
//! | the shard crashed five times in ten minutes | 5 min more, or the wait in [`Lifecycle::Crashed`] |
//! | the day's Identifies are used up | until the period ends ([`Lifecycle::BudgetExhausted`]); shards with a session are not affected |
//!
//! So after a disturbance in which no session ended, every shard is back within two and a half minutes, and
//! within 75 s when every connection reported its end. No number of failed attempts makes that longer.
//!
//! # What the sentinel asks
//!
//! The sentinel asks `GET /gateway/bot` every few hours ([`Builder::gateway_check_every`]). The API's number
//! of remaining Identifies replaces the manager's own count, unless the own count is lower within the same
//! period. A new `max_concurrency` also applies to waiting shards. When Discord advises more shards than the
//! bot has, the manager announces [`Lifecycle::MoreShardsAdvised`]. After a failure the sentinel asks again
//! after one to two minutes, or as late as the API wants. After an answer that shuts the bot out (403, 404, a
//! ban of the address) it asks again hours later, and after a rejected token never. At the start, these two
//! end the manager. Running shards are not affected by any of this.
//!
//! # Gateways that differ from Discord's
//!
//! Proxies and gateways of other makers are not quite like Discord's. shardkeeper accepts differences where
//! it can, and logs one warning per kind for all shards:
//!
//! | what differs | what is done |
//! |---|---|
//! | dispatches, READY or RESUMED without a readable sequence number | delivered in their order, with the number of the one before; after a resume they may arrive twice, since nothing tells them apart |
//! | numbers written as text or floats: `s`, the heartbeat interval, those of `GET /gateway/bot` | read |
//! | text frames, or binary ones that were never compressed, on a connection that asks for compression | accepted as they are |
//! | JSON on a connection that asks for ETF | accepted |
//! | zstd frames that end with each message | accepted |
//! | several payloads in one message | processed one by one, up to 64; with more, the connection is closed and resumed |
//! | keys in any order, white space, unknown keys and opcodes | ignored |
//! | no usable `resume_gateway_url` | resumed at the bootstrap URL |
//! | an unreadable `shard` in READY | treated as the shard that was asked for |
//! | `Connection: keep-alive, Upgrade` in the answer to the WebSocket request | accepted; the request has the `User-Agent` of REST |
//! | missing or implausible numbers in `GET /gateway/bot` | 1 shard, 1000 Identifies in 24 h, one at a time; a warning at each request |
//! | more than 65,536 shards advised | an error: [`GatewayInfoError::Malformed`] |
//! | a Hello without an interval between 1 ms and a day | the connection is closed; no Identify is sent |
//!
//! Each of them is a mode of the simulator (`Odd` of `shardkeeper-sim`), tested with every compression and
//! encoding.
//!
//! # When Discord refuses
//!
//! When Discord refuses the **bot** (wrong token, version, intents), every shard stops at once:
//! [`Lifecycle::Refused`], [`ExitReason::Refused`]. No shard identifies any more. The other shards close so
//! that their sessions stay valid for some minutes: a [session store](Builder::session_store) keeps them, and
//! the next process resumes them once the cause is fixed.
//!
//! The text of [`FatalClose`] names the intents for 4013, and the privileged ones among them for 4014.
//!
//! When Discord refuses the **layout** (4010, 4011), that shard ends: [`Lifecycle::LayoutRefused`]. If no
//! shard of the layout was ever ready, or no shard is left, the shard count itself is wrong, and the manager
//! ends before it wastes more Identifies.
//!
//! In both cases the refused shard first waits until its subscribers have taken its events, for
//! [`Builder::shutdown_timeout`] at most.
//!
//! # When a shard falls silent
//!
//! A connection can be acknowledged and still bring no dispatches for hours. The manager compares each shard
//! with the other shards every 15 s. When 30 dispatches were due, none has arrived, and a minute has passed,
//! the manager announces [`Lifecycle::Silent`], once per silence. The manager does nothing else.
//! [`RestartBy::Resume`] is the mildest action that an operator can take.
//!
//! # What survives what
//!
//! | state | a lost connection | a crash of driver or actor | a crash of the identify queue | the end of the process |
//! |---|---|---|---|---|
//! | session and sequence | yes | yes | yes | with a [`Builder::session_store`]; without one only after [`detach`](Shardkeeper::detach) |
//! | events in a subscription | yes | yes | yes | those not acknowledged arrive again in the next process |
//! | events that a full lossless subscription has not taken | yes | yes | yes | the same |
//! | waiting commands | yes, up to their lifetime | no: [`WriteError::Lost`] | yes | no |
//! | a command that was just being written | [`WriteError::Lost`]; Discord may have it | the same | yes | no |
//! | presence set by [`update_presence`](Shardkeeper::update_presence) and [`update_presence_on`](Shardkeeper::update_presence_on) | yes | yes | yes | no |
//! | presence set by [`ShardMessage::UpdatePresence`] | yes | no: back to the manager's | yes | no |
//! | identify budget | yes | yes | yes | Discord is asked again; a store remembers when the last Identify was sent, and with [`Builder::gateway`] also how many are left |
//! | place in the identify queue | yes | requested again | requested again | no |
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
//!             Event::Lifecycle(crash @ Lifecycle::Crashed { quarantined: true, .. }) => eprintln!("check {crash}"),
//!             Event::Lifecycle(Lifecycle::Refused(refusal)) => eprintln!("fix this: {refusal}"),
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
