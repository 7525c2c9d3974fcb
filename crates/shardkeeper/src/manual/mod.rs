//! The manual: how shardkeeper works, what it promises, and how to run a bot with it.
//!
//! This module holds no code. Each chapter can be read without the others. Read them in order the first time.
//!
//! | chapter | answers |
//! |---|---|
//! | [1. Architecture](_01_architecture) | Which parts are there, where is their code, and what happens to one shard from its start to its end? |
//! | [2. Supervision](_02_supervision) | What breaks, who notices, what is done about it, and what survives? |
//! | [3. Delivery](_03_delivery) | How do events reach the bot, in which order, how reliably, and what if the bot is slow? |
//! | [4. Commands](_04_commands) | How does the bot send something to Discord, and what can happen to it? |
//! | [5. Shards](_05_shards) | Which shards does a process run, and how are they moved, watched, ended and handed over? |
//! | [6. Defaults](_06_defaults) | What is every number, what is its reason, and where is it changed? |
//! | [7. Decisions](_07_decisions) | Why is it built this way, what was rejected, and what happens where Discord's documentation says nothing? |
//! | [8. Coming from elsewhere](_08_coming_from) | Which call replaces a call of the library that the bot uses now? |
//! | [9. Resharding](_09_resharding) | How does a running bot get another number of shards, and what is promised? |
//!
//! # Glossary
//!
//! Each of these words has one meaning throughout.
//!
//! | word | meaning |
//! |---|---|
//! | **acknowledge** | To report that a delivery has been dealt with, by dropping it. |
//! | **budget** | The number of Identifies that Discord still allows the bot in the current period of 24 h. |
//! | **command** | A payload that the bot asks a shard to send: voice state, request for members, and so on. |
//! | **connection** | One WebSocket to the Gateway. |
//! | **delivery** | One event in the hands of a subscriber: [`Delivery`](crate::Delivery). |
//! | **detach** | To end a manager or a shard so that its sessions can be resumed elsewhere. |
//! | **dispatch** | An event that Discord sends (opcode 0). |
//! | **driver** | The task that runs one shard: it joins the connection, the machine and the subscriptions. |
//! | **event** | What a subscription yields: a dispatch, a lifecycle change, or the report of a loss. |
//! | **gate** | What processes of one bot share so that they keep Discord's pace together: [`IdentifyGate`](crate::gate::IdentifyGate). |
//! | **incarnation** | One life of a shard's actor, from a start to its end or crash. |
//! | **key** | `shard_id % max_concurrency`. Discord allows one Identify per key and 5 s. |
//! | **layout** | The shards of a process, and the number of shards of the whole bot. |
//! | **lossless** | Said of a subscription that loses no event: its policy is [`Overflow::Wait`](crate::Overflow::Wait). |
//! | **machine** | The protocol of one shard as a value, without I/O: [`shardkeeper_proto::Shard`]. |
//! | **manager** | The actor that starts and supervises all shards of a process. |
//! | **permit** | The right to send one Identify. |
//! | **quarantine** | The long wait of a shard that has crashed several times in a row. |
//! | **session** | Discord's side of a shard. It outlives connections and is *resumed* on another one. |
//! | **shard** | One part of the bot's guilds: a [`ShardId`](crate::ShardId) of a [`ShardCount`](crate::config::ShardCount). |
//! | **spill** | A shard's buffer for events that full lossless subscriptions have not taken yet. |
//! | **store** | What keeps sessions for the next process: [`SessionStore`](crate::store::SessionStore). |
//! | **subscription** | A queue of events that the bot reads: [`Subscription`](crate::Subscription). |
//! | **topic** | The selection of events for a subscription: [`Topic`](crate::Topic). |
//! | **watermark** | The sequence number up to which all lossless subscriptions have acknowledged everything. |
//!
//! `GW-nnn` is a rule of the Gateway. In the repository, `docs/gateway-rules.md` says what each rule demands,
//! and `tests/rules.csv` lists its tests.

pub mod _01_architecture;
pub mod _02_supervision;
pub mod _03_delivery;
pub mod _04_commands;
pub mod _05_shards;
pub mod _06_defaults;
pub mod _07_decisions;
pub mod _08_coming_from;
pub mod _09_resharding;
