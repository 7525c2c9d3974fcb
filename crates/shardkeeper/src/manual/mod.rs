//! The manual: how shardkeeper works, what it promises, and how to run a bot on it.
//!
//! This module holds no code. Each chapter stands alone; read them in order the first time.
//!
//! | chapter | answers |
//! |---|---|
//! | [1. Architecture](_01_architecture) | What is there, where does it live, and what happens to one shard from its start to its end? |
//! | [2. Supervision](_02_supervision) | What breaks, who notices, what is done about it, and what survives? |
//! | [3. Delivery](_03_delivery) | How do events reach the bot, in which order, how surely, and what if the bot is slow? |
//! | [4. Commands](_04_commands) | How does the bot say something to Discord, and what can come of it? |
//! | [5. Shards](_05_shards) | Which shards does a process run, how are they moved, watched, ended and handed over? |
//! | [6. Defaults](_06_defaults) | What is every number, why is it that, and where is it changed? |
//! | [7. Decisions](_07_decisions) | Why is it built so, what was rejected, and what was chosen where Discord says nothing? |
//! | [8. Coming from elsewhere](_08_coming_from) | What is the equal of a call in the library that the bot uses now? |
//!
//! Words have one meaning throughout. A **shard** is a slot of the layout, [`ShardId`](crate::ShardId) of
//! [`ShardCount`](crate::config::ShardCount). A **connection** is one WebSocket. A **session** is Discord's side of a shard, which
//! outlives connections and is **resumed** on another one. A **dispatch** is an event that Discord sends, a **command** what
//! the bot sends. A **permit** is the right to send one Identify, and its **key** is `shard_id % max_concurrency`. `GW-nnn`
//! is a rule of the Gateway; in the repository, `docs/gateway-rules.md` says what each rule demands, and `tests/rules.csv`
//! lists its tests.

pub mod _01_architecture;
pub mod _02_supervision;
pub mod _03_delivery;
pub mod _04_commands;
pub mod _05_shards;
pub mod _06_defaults;
pub mod _07_decisions;
pub mod _08_coming_from;
