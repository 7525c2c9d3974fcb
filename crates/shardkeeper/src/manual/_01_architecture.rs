//! Architecture: the parts, control and data, the modules, the invariants, and the life of one shard.
//!
//! # Overview
//!
//! A bot starts one [`ShardManager`]. The manager asks Discord for the Gateway's address and limits, starts
//! one [`IdentifyQueue`] and one [`ShardActor`] per shard, and keeps each of them alive from then on. Each
//! shard actor owns a *driver*: the task that reads the connection and does the work.
//!
//! ```text
//! ShardManager                layout, sessions, presences, budget, restarts
//! ├─ ReshardSentinel          asks GET /gateway/bot at the start and every few hours
//! ├─ IdentifyQueue            lets shards identify at Discord's pace
//! ├─ SessionKeeper            writes sessions to the session store, if there is one
//! ├─ ShardActor 0             receives messages and passes them to its driver
//! │    └─ driver task         connection + protocol machine + publisher
//! ├─ ShardActor 1
//! │    └─ driver task
//! └─ …
//! ```
//!
//! # Control and data
//!
//! **Control** goes through actors (of the crate `ractor`): start, stop, commands, status, reports, restarts.
//! Control messages are rare, so a mailbox is fast enough, and actors bring supervision with them.
//!
//! **Data** never passes an actor's mailbox. A dispatch goes through plain function calls in the driver's
//! task, and then through one bounded queue per subscription:
//!
//! ```text
//! socket ─▶ message ─▶ inflate ─▶ envelope ─▶ machine ─▶ publisher ─▶ subscription ─▶ the bot
//! └──── shardkeeper-transport ──┘ └─ shardkeeper-proto ─┘ └────── shardkeeper ─────┘
//!
//! socket ◀── limits ◀── machine ◀── bounded queue ◀── ShardActor ◀── manager ◀── a command of the bot
//! ```
//!
//! The envelope is the outer form of a payload: opcode, sequence, event name, and the place where the data
//! begins and ends. The data itself is not parsed on the way. An event that no topic wants is not even
//! copied.
//!
//! The only exception is an actor of the bot: [`Shardkeeper::subscribe_actor`] casts deliveries to its
//! mailbox, and limits how many are there at once.
//!
//! # Modules
//!
//! The folders and files of `crates/shardkeeper/src` form a list. A module imports only modules below it; a
//! test compares the `use` lines with this picture. Control enters at the top and goes down to `shard`.
//! Events enter at `shard`, go down to `dispatch`, and leave from there to the bot.
//!
//! ```text
//!  calls of the bot                                                               events
//!    │                                                                              ▲
//!    ▼                                                                              │
//!   bot            Builder, Shardkeeper, members, songbird                          │
//!    │                                                                              │
//!    ▼                                                                              │
//!   manager        starts, supervises, restarts, adds, removes and stops shards     │
//!    │                                                                              │
//!    ▼                                                                              │
//!   shard          actor and driver: control and data meet here ◀──▶ socket         │
//!    │ │                                                                            │
//!    │ └───────────────────────────────────────────────────────────────────┐        │
//!    ├▶ session      the session of a shard; the session keeper            │        │
//!    ├▶ identify     the identify queue and its ledger                     │        │
//!    ├▶ message      the messages between actors                           │        │
//!    ├▶ store        the session store: on disk, in memory                 │ events │
//!    ├▶ gate         the identify gate, shared by processes                │        │
//!    ├▶ command      commands on their way to a driver                     │        │
//!    ├▶ status       what a bot can see of shards, queue and manager       ▼        │
//!    ├▶ dispatch     publisher, topics, subscriptions, watermark ───────────────────┘
//!    ├▶ reshard      plan and phases of a reshard, without I/O
//!    ├▶ error        the errors of calls and of the start
//!    ├▶ gateway_info GET /gateway/bot
//!    ├▶ layout       which shards there are, and which owns a guild
//!    ├▶ task         what a task leaves behind when it ends
//!    └▶ chain        an error and its sources in one line
//! ```
//!
//! # Entry points
//!
//! | to … | start at |
//! |---|---|
//! | start a bot | [`Shardkeeper::builder`], [`Builder`], [`Builder::start`] |
//! | start the manager as an actor in a tree of your own | [`Builder::build`], then `Actor::spawn(None, ShardManager, config)`; [`Shardkeeper::of`] makes a handle |
//! | receive events | [`Builder::subscribe`] before the start, [`Shardkeeper::subscribe`] after it; a [`Topic`] selects events |
//! | send | [`Shardkeeper::command`], [`Shardkeeper::update_presence`], [`Shardkeeper::members`] |
//! | send a message to one shard's actor | [`Shardkeeper::shard`], [`ShardMessage`] |
//! | see the state of everything | [`Shardkeeper::status`], [`Topic::lifecycle`] |
//! | end | [`Shardkeeper::stop`], [`Shardkeeper::detach`]; [`Shardkeeper::exit_reason`] waits for the end |
//! | use the protocol without I/O | [`shardkeeper_proto::Shard`] |
//! | use the connection without the protocol | [`shardkeeper_transport::Connector`] |
//!
//! # Who holds which state
//!
//! State is held above the parts that may crash.
//!
//! | state | held by | what the driver sees |
//! |---|---|---|
//! | layout (which shards, of how many) | manager | its own shard |
//! | [`Session`] and sequence | manager, in one cell per shard, which the driver writes to | the cell, under a lease: one driver at a time |
//! | presence | manager | a copy of the newest |
//! | identify budget, permits in use | the identify ledger, which the manager keeps | its own permit; it counts its own Identify |
//! | places and windows in the identify queue | identify queue | its connect grant, its permit |
//! | waiting commands | the machine, in the driver | all of them |
//! | subscriptions | a hub, shared by manager and handles | a list, compared by version number for each event |
//! | [`ShardStatus`] | a status board per shard | the driver writes it; everybody reads it without asking the shard |
//!
//! # Where the code is
//!
//! | path | contents |
//! |---|---|
//! | `crates/shardkeeper/src/bot/` | `builder.rs`: every default with its reason; `handle.rs`: [`Shardkeeper`]; `members.rs`: members collected; `songbird.rs`: voice states of songbird |
//! | `crates/shardkeeper/src/manager/` | the manager: `phase.rs`: its phases; `starting.rs`, `gateway.rs`, `reports.rs`, `watch.rs`, `children.rs`, `changing.rs`, `ending.rs`: what happens in them; `shards/`: its table of shards; `config.rs`: the checked configuration; `restart.rs`: when a crashed shard comes back; `silence.rs`: which shard has fallen silent; `sentinel.rs`: asks the API; `resharding/`: carries out a reshard |
//! | `crates/shardkeeper/src/identify/` | `queue.rs`: the actor of the identify queue; `ledger.rs`: what outlives it; `gate_client.rs`: asks the gate |
//! | `crates/shardkeeper/src/gate/` | how processes share the pace of Identify; `local.rs`: a gate within one process |
//! | `crates/shardkeeper/src/session/` | `cell.rs`: the session of a shard; `keeper.rs`: writes sessions to the store |
//! | `crates/shardkeeper/src/store/` | what a session store is; `file.rs`: on disk; `memory.rs`: in memory |
//! | `crates/shardkeeper/src/shard/` | `actor.rs`: the shard's actor; `driver.rs`: the loop of one shard; `core.rs`: its work on the machine; `link.rs`, `carry_out.rs`: its connection; `hand_over.rs`: its end; `board.rs`: its status; `life.rs`: what an incarnation leaves behind; `pacer.rs`: how fast connections open; `tap.rs`: payloads shown for debugging |
//! | `crates/shardkeeper/src/dispatch/` | `topic.rs`, `subscription.rs`, `publisher.rs`, `spill.rs`, `watermark.rs`, `overlap/` (two generations deliver each event once) |
//! | `crates/shardkeeper/src/command/` | `channel.rs`: the way to a driver; `accepted.rs`: what becomes of a command |
//! | `crates/shardkeeper/src/reshard/` | `plan.rs`: which groups a reshard replaces, and what it costs; `policy.rs`: when it is worth that; `phases.rs`: the phases of each group, and `model.rs`: all of their interleavings |
//! | `crates/shardkeeper/src/message.rs` | the messages between actors |
//! | `crates/shardkeeper-proto/src/` | `shard/`: the machine of one shard; `identify.rs`, `limit.rs`: the identify limiter and budget, the command limits; `close.rs`, `event.rs`, `intents.rs`: tables; `envelope.rs`, `etf/`: how payloads are split and translated |
//! | `crates/shardkeeper-transport/src/` | `dial.rs`, `tls.rs`, `connection.rs`: TCP, TLS, WebSocket; `inflate/`: the compressions |
//! | `crates/shardkeeper-sim/` | a simulated Discord, which shares no code with the other crates |
//!
//! # Invariants
//!
//! Each invariant is followed by the most direct of its tests. `tests/chaos` checks 3 to 7 and 10 again,
//! under random faults.
//!
//! 1. The protocol crate does no I/O, reads no clock, draws no random number and spawns nothing. Time is an
//!    argument. Tests: `the_protocol_does_no_io_and_reads_no_clock`,
//!    `any_order_of_inputs_keeps_the_invariants`.
//! 2. A dispatch never passes a mailbox between actors of the library. Tests:
//!    `no_message_between_actors_carries_a_dispatch`.
//! 3. Each queue, buffer and retry has a bound, and a rule for what happens when it is full. A loss is always
//!    reported. Tests: `under_any_policy_a_stalled_subscriber_costs_bounded_memory_and_no_session`,
//!    `announcements_that_wait_for_a_full_subscription_have_a_bound`,
//!    `subscribers_that_may_lose_learn_what_they_lost_and_stop_nobody`,
//!    `a_queue_has_a_bound_and_a_lifetime_per_class`.
//! 4. What the network and Discord do are states of the machine. A crash is a bug, and only a crash is
//!    restarted. Tests: `any_order_of_inputs_keeps_the_invariants`,
//!    `a_gateway_that_closes_at_once_is_not_stormed`, `a_panic_in_a_driver_costs_a_resume_and_nothing_else`.
//! 5. An Identify is sent only with a permit. A permit is used at most once, and an unused one goes back. A
//!    resume needs no permit. Tests: `a_permit_belongs_to_one_incarnation_alone`,
//!    `a_permit_is_handed_back_by_a_shard_that_cannot_use_it`,
//!    `a_storm_that_kills_the_queue_too_miscounts_no_identify`.
//! 6. Events that a lossless subscription has not taken outlive the driver that published them. The watermark
//!    is never ahead of what lossless subscriptions have acknowledged. Tests:
//!    `a_crash_while_a_subscriber_is_behind_delivers_everything`, `in_whatever_order_it_never_runs_ahead`,
//!    `every_subscription_has_to_acknowledge`.
//! 7. A heartbeat never waits for a subscriber, a command or a large payload. Tests:
//!    `a_shard_that_does_not_read_is_not_zombied`, `gw_120_a_heartbeat_is_not_late_behind_commands`,
//!    `paused_reading_writes_and_does_not_read`.
//! 8. Transport and protocol do not know each other. They meet only in the driver. Tests:
//!    `crates_depend_on_each_other_as_the_architecture_says`, `no_room_imports_from_above`.
//! 9. The token, session ids and the content of events are in no log line, no error text and no `Debug`
//!    output. Tests: `nothing_secret_is_logged_or_printed`,
//!    `nothing_printed_holds_the_token_or_the_session_id`.
//! 10. State that must survive a crash is held above the part that can crash. Tests:
//!     `every_end_of_every_part_at_every_moment_costs_what_the_manual_says`,
//!     `a_queue_that_dies_returns_what_no_driver_has_and_leaves_the_gate`.
//! 11. The code does not rely on any order between mailboxes. What must be known at an end is written where
//!     the end finds it, and not sent beside it ([the table of
//!     orders](super::_02_supervision#which-orders-the-code-relies-on)). Tests:
//!     `what_a_killed_shard_said_may_come_in_any_order_and_closes_no_key`,
//!     `what_an_earlier_incarnation_says_late_changes_nothing`,
//!     `a_shard_that_ended_as_ordered_has_not_crashed`.
//!
//! # One shard, from start to end
//!
//! 1. **Asking the API.** [`Builder::start`] lets the manager ask `GET /gateway/bot`, with a deadline of 15 s
//!    per request. Failures that may pass are retried, with the waits of [`Timings::reconnect`] and a
//!    [`Lifecycle::GatewayUnavailable`] each time. With [`Builder::gateway`] the answer is known already, and
//!    the API is first asked hours later.
//! 2. **Spawned.** The manager knows the layout, starts the identify queue, and then the shard's actor with
//!    its session cell, status board and presence. The shard is at [`Phase::Starting`]. Its driver waits for
//!    the lease of the session cell.
//! 3. **Queued.** Without a session the machine joins the identify queue ([`Change::Queued`]). With a session
//!    it goes straight to the next step: a resume needs no permit.
//! 4. **Connecting.** The identify queue gives the shard its connect grant, the pacer lets it through
//!    ([`Builder::connects_per_second`]), and TCP, TLS and WebSocket open within [`Timings::connect`].
//! 5. **Hello.** Hello arrives within [`Timings::hello`], and the heartbeat starts at a random place in its
//!    interval. The shard asks for its permit ([`Phase::AwaitingPermit`]).
//! 6. **Identify.** The permit arrives and Identify is sent. When Identify has been written, the window of
//!    its key begins: [`Timings::identify_window`] plus [`Timings::identify_margin`]. The next shard of the
//!    key gets its connect grant meanwhile, so it has its Hello when the window ends.
//! 7. **Ready.** READY arrives within [`Timings::ready`]. From now on the manager's session cell holds the
//!    session. Subscribers receive [`Change::Ready`] and then READY itself. When every shard has come this
//!    far once, the manager announces [`Lifecycle::AllReady`].
//! 8. **In service.** The driver offers each dispatch to the topics that want it, and then advances the
//!    stored sequence.
//! 9. **Disconnected.** Discord asks for another connection, or a heartbeat is not acknowledged, or the
//!    network fails. The machine closes with a code that keeps the session, waits at most [`Timings::close`]
//!    for the closing handshake, and connects to the session's resume URL, the first time without a wait. The
//!    shard resumes, Discord replays what was missed, and [`Change::Resumed`] has the number of replayed
//!    events.
//! 10. **Crashed.** If the library's own code panics, the manager is notified, starts another actor, and that
//!     one resumes from the session cell. [Supervision](super::_02_supervision) has the details.
//! 11. **Ended.** [`Shardkeeper::detach`] closes with 4905, which keeps the session for some minutes.
//!     [`Shardkeeper::stop`] closes with 1000, which ends it. The driver lets its subscribers take the events
//!     that are under way, the actor reports and stops, and the manager answers when the last shard has
//!     stopped or [`Builder::shutdown_timeout`] has passed.
//!
//! ---
//!
//! Next: [Supervision](super::_02_supervision).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
