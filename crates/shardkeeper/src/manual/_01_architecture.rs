//! Architecture: the parts, the two planes, and the life of one shard.
//!
//! # Bird's eye
//!
//! A bot starts one [`ShardManager`]. The manager has Discord asked for the Gateway's address and limits, starts one
//! [`IdentifyQueue`] and one [`ShardActor`] per shard, and from then on keeps each of them alive. Behind each shard actor
//! runs a *driver*: the task that reads the connection and does the work.
//!
//! ```text
//! ShardManager                layout, sessions, presences, budget, restarts
//! ├─ ReshardSentinel          asks the gateway how things stand
//! ├─ IdentifyQueue            lets shards identify, at Discord's pace
//! ├─ SessionKeeper            brings sessions into a store, if there is one
//! ├─ ShardActor 0             an address: takes messages, hands them on
//! │    └─ driver task         connection + protocol machine + publisher
//! ├─ ShardActor 1
//! │    └─ driver task
//! └─ …
//! ```
//!
//! # Two planes
//!
//! **Control** is carried by actors (of the crate `ractor`): start, stop, commands, status, reports, restarts. It is rare, so
//! a mailbox is good enough, and supervision comes with it.
//!
//! **Data** never passes a mailbox of ours. A dispatch goes through plain function calls in the driver's task, and through one
//! bounded queue per subscription:
//!
//! ```text
//! socket ─▶ message ─▶ inflate ─▶ envelope ─▶ machine ─▶ publisher ─▶ subscription ─▶ the bot
//! └──── shardkeeper-transport ──┘ └─ shardkeeper-proto ─┘ └────── shardkeeper ─────┘
//!
//! socket ◀── limits ◀── machine ◀── bounded queue ◀── ShardActor ◀── manager ◀── a command of the bot
//! ```
//!
//! The envelope is the outer form of a payload: opcode, sequence, event name, and where the data begins and ends. The data
//! itself is not parsed on the way, and if no topic wants the event it is not even copied.
//!
//! The only exception is of the bot's own making: [`Shardkeeper::subscribe_actor`] casts deliveries to an actor of the bot,
//! and bounds by credit how many are there.
//!
//! # Entry points
//!
//! | to … | begin at |
//! |---|---|
//! | start a bot | [`Shardkeeper::builder`], [`Builder`], [`Builder::start`] |
//! | start the manager as an actor in a tree of one's own | [`Builder::build`], then `Actor::spawn(None, ShardManager, config)`; [`Shardkeeper::of`] makes a handle on it |
//! | hear events | [`Builder::subscribe`] before the start, [`Shardkeeper::subscribe`] after it; [`Topic`] says what |
//! | send | [`Shardkeeper::command`], [`Shardkeeper::update_presence`], [`Shardkeeper::members`] |
//! | talk to one shard's actor | [`Shardkeeper::shard`], [`ShardMessage`] |
//! | see how things stand | [`Shardkeeper::status`], [`Topic::lifecycle`] |
//! | end | [`Shardkeeper::stop`], [`Shardkeeper::detach`]; [`Shardkeeper::exit_reason`] waits for it |
//! | use the protocol without I/O | [`shardkeeper_proto::Shard`] |
//! | use the connection without the protocol | [`shardkeeper_transport::Connector`] |
//!
//! # Where things live
//!
//! State lives above whatever may crash.
//!
//! | thing | held by | its driver sees |
//! |---|---|---|
//! | layout (which shards, of how many) | manager | its own slot |
//! | [`Session`] and sequence | manager's book, in a slot that the driver writes to | the slot, by a lease: one driver at a time |
//! | presence | manager | a copy of the newest |
//! | identify budget, permits that are out | the identify ledger, which the manager keeps | its own permit, and counts its own Identify |
//! | places and windows in the identify queue | queue | its turn, its permit |
//! | commands that wait | the machine, in the driver | all of it |
//! | subscriptions | a hub, shared by manager and handles | a list, compared by version number per event |
//! | [`ShardStatus`] | a board per shard | writes it; everybody reads it without asking the shard |
//!
//! # Code map
//!
//! Paths are below `crates/`.
//!
//! | path | what is there |
//! |---|---|
//! | `shardkeeper/src/builder.rs`, `config.rs` | every default with its reason; the checked configuration |
//! | `shardkeeper/src/handle.rs` | [`Shardkeeper`] |
//! | `shardkeeper/src/manager/` | the manager: `starting.rs`, `running.rs`, `children.rs`, `changing.rs`, `ending.rs`; `shards.rs` is its book of shards |
//! | `shardkeeper/src/restart.rs`, `silence.rs`, `pacer.rs` | when a crashed shard comes back; who has fallen silent; how fast connections open |
//! | `shardkeeper/src/identify_queue.rs`, `identify_ledger.rs`, `identify_gate/` | clock and post of the identify queue; what outlives it; how processes share its pace |
//! | `shardkeeper/src/reshard_sentinel.rs` | asks the gateway, at the start and every few hours |
//! | `shardkeeper/src/session_keeper.rs`, `store/` | what brings sessions into a store; what a store is, on disk and in memory |
//! | `shardkeeper/src/shard/` | the shard's actor; `driver.rs` is the loop of one shard, `core.rs` its work on the machine, `link.rs` its connection, `hand_over.rs` its end, `board.rs` its status, `life.rs` what an incarnation leaves behind |
//! | `shardkeeper/src/dispatch/` | topics, subscriptions, the publisher of a shard and its spill, the watermark |
//! | `shardkeeper/src/tap.rs` | what shards send and receive, for debugging |
//! | `shardkeeper/src/members.rs`, `accepted.rs` | members collected; what becomes of a command |
//! | `shardkeeper/src/songbird.rs` | voice states of songbird |
//! | `shardkeeper/src/message.rs` | what the actors tell each other |
//! | `shardkeeper-proto/src/shard/` | the machine of one shard: states, deadlines, what follows what |
//! | `shardkeeper-proto/src/identify.rs`, `limit.rs` | the identify limiter and budget; the command limits |
//! | `shardkeeper-proto/src/close.rs`, `event.rs`, `intents.rs` | tables: close codes, events, intents |
//! | `shardkeeper-proto/src/envelope.rs`, `etf/` | how payloads are split and translated |
//! | `shardkeeper-transport/src/` | dialing, TLS, WebSocket, `inflate/` |
//! | `shardkeeper-sim/` | a simulated Discord, which shares no code with the rest |
//!
//! # Invariants
//!
//! 1. The protocol crate does no I/O, reads no clock, draws no random number and spawns nothing. Time is an argument.
//! 2. A dispatch never passes a mailbox of ours.
//! 3. Each queue, buffer and retry has a bound, and a rule for being full. A loss is told.
//! 4. What the network and Discord do are states of the machine. A crash is a mistake of ours, and only a crash is restarted.
//! 5. An Identify is sent with a permit only. A permit is spent at most once, and an unspent one goes back. A resume needs
//!    none.
//! 6. What a lossless subscription has not taken outlives the driver that published it; the watermark is never ahead of what they
//!    have acknowledged.
//! 7. A heartbeat waits for no subscriber, no command and no large payload.
//! 8. Transport and protocol do not know each other; they meet in the driver alone.
//! 9. Token, session ids and the content of events are in no log line, no error text and no `Debug` output.
//! 10. What has to survive a crash is held above what can crash.
//! 11. No order between mailboxes is relied upon. What must be known at an end is written where the end finds it, and not sent
//!     beside it ([the table](super::_02_supervision#which-orders-are-relied-upon)).
//!
//! # One shard, from start to end
//!
//! 1. **Asked for.** [`Builder::start`] lets the manager ask `GET /gateway/bot`, within 15 s. What may pass is tried again,
//!    with the waits of [`Timings::reconnect`] and a [`Lifecycle::GatewayUnavailable`] each time. With [`Builder::gateway`]
//!    the answer is there, and the next one is asked for hours later.
//! 2. **Spawned.** The manager knows the layout, starts the queue, and then the shard's actor with its slot, board and
//!    presence. The shard stands at [`Phase::Starting`]; its driver waits for the slot's lease.
//! 3. **Queued.** Without a session the machine joins the identify queue ([`Change::Queued`]). With one it goes straight to
//!    the next step: a resume needs nobody's leave.
//! 4. **Connecting.** The queue gives it its turn, the pacer lets it through ([`Builder::connects_per_second`]), and TCP, TLS
//!    and WebSocket open within [`Timings::connect`].
//! 5. **Hello.** It comes within [`Timings::hello`], and the heartbeat begins, at a random place in its interval. The shard
//!    claims its permit ([`Phase::AwaitingPermit`]).
//! 6. **Identify.** The permit comes, Identify is sent, and when it has been written the window of its key begins:
//!    [`Timings::identify_window`] and [`Timings::identify_margin`]. The next shard of the key has got its turn meanwhile, so
//!    it sits at Hello when the window ends.
//! 7. **Ready.** READY comes within [`Timings::ready`]. The manager's slot holds the session from now on, subscribers hear
//!    [`Change::Ready`] and then READY itself. When every shard has come so far once, [`Lifecycle::AllReady`] is announced.
//! 8. **In service.** Each dispatch is offered to the topics that want it; then the stored sequence advances.
//! 9. **Disconnected.** Discord asks for another connection, or a heartbeat is not acknowledged, or the network goes. The
//!    machine closes with a code that keeps the session, waits at most [`Timings::close`] for the handshake, and connects to
//!    the session's resume URL, the first time without a wait. It resumes, what was missed is replayed, and
//!    [`Change::Resumed`] says how much.
//! 10. **Crashed.** Should our own code panic, the manager hears of it, starts another actor, and that one resumes from the
//!     slot. [Supervision](super::_02_supervision) has the details.
//! 11. **ExitReason.** [`Shardkeeper::detach`] closes with 4905, which keeps the session for some minutes, and
//!     [`Shardkeeper::stop`] with 1000, which gives it up. The driver lets its subscribers take what is under way, the actor
//!     reports and stops, and the manager answers when the last one has, or when [`Builder::shutdown_timeout`] has passed.
//!
//! ---
//!
//! Next: [Supervision](super::_02_supervision).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
