//! Commands: what a bot can send to Discord over a shard, and what can happen to it.
//!
//! # The commands
//!
//! | to … | call | shard | class | needs |
//! |---|---|---|---|---|
//! | join, move in or leave a voice channel | [`Command::voice`] | the guild's shard | voice |  |
//! | show a presence everywhere | [`Shardkeeper::update_presence`] | every shard | presence |  |
//! | … on some shards | [`Shardkeeper::update_presence_on`] | these | presence |  |
//! | collect members of a guild | [`Shardkeeper::members`] | the guild's shard | bulk | `GUILD_MEMBERS` for all, `GUILD_PRESENCES` for presences |
//! | … one chunk after the other | [`Shardkeeper::members_chunks`] | the guild's shard | bulk | the same |
//! | request members, and receive the events | [`Command::members`] | the guild's shard | bulk | the same |
//! | request soundboard sounds of any guilds | [`Shardkeeper::request_soundboard_sounds`] | each guild's shard | bulk |  |
//! | … of guilds of one shard | [`Command::sounds`] | the first guild's shard | bulk |  |
//! | request the status and start time of voice channels | [`Command::channel_info`] | the guild's shard | bulk |  |
//! | send any other payload that Discord accepts | [`Command::raw`] | a shard of your choice | bulk |  |
//!
//! All commands except presences and the collecting ones go through [`Shardkeeper::command`]. With the cargo
//! feature `songbird` a [`Shardkeeper`] is songbird's `VoiceUpdate`, so that a call of songbird sends its
//! voice states over the shard.
//!
//! An actor of the bot can send messages to the manager or to a shard's actor, with [`ractor`] as re-exported
//! here. [`ManagerMessage::command`] and [`ShardMessage::command`] make a message without an answer, for
//! `cast`. If such a command cannot be sent, a warning in the log has the cause.
//!
//! [`Command::raw`] accepts the opcodes that bots may send, and unknown ones. Heartbeat, Identify, Resume and
//! presence are excluded: the shard sends them itself.
//!
//! # The way of a command
//!
//! 1. **Checked** where it is made: size (4096 bytes in the larger of its encodings), number of ids, length
//!    of the nonce. Content that Discord would silently ignore is an error here.
//! 2. **Routed** by the manager: the guild's shard is `(guild_id >> 22) % count`, see
//!    [`Shardkeeper::owner_of`].
//! 3. **Accepted** by the shard: it is the right shard, the bot has the intents, the class has room. The
//!    answer is an [`AcceptedCommand`], or the error.
//! 4. **Sent** when the shard is ready and the limits allow. A waiting command survives a resume and a new
//!    session.
//! 5. **Written**: [`AcceptedCommand::written`] returns when the operating system has taken it. Discord does
//!    not confirm commands; an answer, if there is one, arrives as an event.
//!
//! [`WriteError::Expired`] means that the command waited for its whole lifetime. [`WriteError::HeldUp`] means
//! the same because the shard could not become ready, since a subscription is full. [`WriteError::Lost`]
//! means that the shard crashed or ended, or that the connection was lost while the command was being
//! written. In the last case Discord may have it.
//!
//! Dropping an [`AcceptedCommand`] changes nothing.
//!
//! # Classes, limits and lifetimes
//!
//! | class | sent | may use of 120 payloads in 60 s | waits at most | may wait |
//! |---|---|---|---|---|
//! | heartbeat, Identify, Resume | first | all |  |  |
//! | voice | before presences | 115 | [`Timings::voice_lifetime`]: 90 s | 128 |
//! | presence | before bulk | 115, and 5 in 20 s | forever | the newest |
//! | bulk | last | 105 | [`Timings::bulk_lifetime`]: 10 min | 512 |
//!
//! No window of 60 s ever holds more than 120 payloads, wherever it begins, and a new connection begins a new
//! count. Room is kept for the periodic heartbeats of a window (two of them at the usual interval of 41.25 s)
//! and for three that Discord may ask for. Bulk leaves room for ten more, so that a flood of requests does
//! not delay a voice state for a minute.
//!
//! # Why a command is rejected
//!
//! | [`CommandError`] | cause | what to do |
//! |---|---|---|
//! | [`Invalid`](CommandError::Invalid) ([`CommandContentError`]) | ids, limit, nonce, opcode or size are not valid | fix the call |
//! | [`Presence`](CommandError::Presence) ([`PresenceError`]) | Discord would not show it: an empty or long text, a stream elsewhere, more than 3072 bytes | fix the call |
//! | [`Queue`](CommandError::Queue), [`QueueFull`](CommandQueueError::QueueFull) | the queue of its class is full | wait, or send less |
//! | [`Queue`](CommandError::Queue), [`MissingIntents`](CommandQueueError::MissingIntents) | Discord would not answer | start with these intents |
//! | [`Queue`](CommandError::Queue), [`OtherShard`](CommandQueueError::OtherShard) | it was sent directly to a shard's actor, and to the wrong one | use [`Shardkeeper::command`] |
//! | [`NoSuchShard`](CommandError::NoSuchShard) | the shard runs elsewhere, has ended, or is being removed | ask the process that runs it |
//! | [`GuildElsewhere`](CommandError::GuildElsewhere) | the same, for the shard of a guild | ask the process that runs it |
//! | [`ShardEnded`](CommandError::ShardEnded) | the shard crashed and is not back yet | try again |
//! | [`Starting`](CommandError::Starting) | the layout is not known yet | wait for the start |
//! | [`ManagerEnded`](CommandError::ManagerEnded) | the manager has ended | start another one |
//!
//! # Members
//!
//! [`Shardkeeper::members`] sends the request and collects the chunks. It
//!
//! - gives each request its own nonce, and takes only the chunks of that nonce, in any order, and ignores
//!   repeated ones;
//! - shares one request among equal ones that are made at the same time;
//! - requests **all** members of a guild once in 30 s, and lets a further request wait for its turn (GW-162:
//!   one such request per guild in 30 s); when somebody else has made the request, it waits as long as
//!   Discord says, and asks again (GW-164);
//! - continues over a resume, and fails when the session is lost, since the answer is lost with it;
//! - lets the shard continue to read although subscriptions are full, up to 4096 events or 32 MiB: so it can
//!   be awaited in the loop that reads the events of the same shard.
//!
//! | [`MembersError`] | cause |
//! |---|---|
//! | [`Rejected`](MembersError::Rejected) | the request was not accepted |
//! | [`Expired`](MembersError::Expired) | the request could not be sent within [`Timings::bulk_lifetime`] |
//! | [`SessionLost`](MembersError::SessionLost) | a new session began before the answer was complete: ask again |
//! | [`TimedOut`](MembersError::TimedOut) | no chunk arrived for 30 s, counted from when the request was written |
//! | [`HeldUp`](MembersError::HeldUp) | the shard stopped reading nevertheless: the error names the subscription that is full |
//! | [`Malformed`](MembersError::Malformed) | a chunk could not be read |
//! | [`ManagerEnded`](MembersError::ManagerEnded) | the manager has ended |
//!
//! A guild of a million members is a thousand chunks. [`Shardkeeper::members_chunks`] yields them one by one,
//! and the shard reads no faster than they are taken. [`Members`] holds raw JSON; [`Members::members`] parses
//! it.
//!
//! # Presences
//!
//! The manager remembers a presence; it does not only send it. The presence goes into each later Identify and
//! to each shard that comes back.
//!
//! | set by | applies to | until |
//! |---|---|---|
//! | [`Builder::presence`] | every shard, from its first Identify on | another one is set |
//! | [`Builder::presence_fn`] | each shard, computed for each of its Identifies | [`update_presence`](Shardkeeper::update_presence) or [`update_presence_on`](Shardkeeper::update_presence_on) sets one there |
//! | [`Shardkeeper::update_presence`] | every shard, also those added later | another one is set |
//! | [`Shardkeeper::update_presence_on`] | these shards, all or none | another one is set there, or everywhere |
//! | [`ShardMessage::UpdatePresence`] to one shard's actor | this incarnation | it crashes, or another one is set |
//!
//! Presences beyond five in 20 s wait, and the newest one replaces the others: a bot that sets a hundred in a
//! second shows the last one.
//!
//! # An example
//!
//! ```no_run
//! use shardkeeper::command::{Command, RequestMembers, VoiceStateUpdate};
//! use shardkeeper::Shardkeeper;
//!
//! async fn greet(bot: &Shardkeeper, guild_id: u64, channel_id: u64) -> Result<(), Box<dyn std::error::Error>> {
//!     let joined = bot.command(Command::voice(VoiceStateUpdate::join(guild_id, channel_id).deafened())).await?;
//!     joined.written().await?;
//!
//!     let found = bot.members(RequestMembers::prefix(guild_id, "duck", 10)).await?;
//!     println!("{} members are called duck", found.raw_members.len());
//!
//!     bot.command(Command::voice(VoiceStateUpdate::leave(guild_id))).await?;
//!     Ok(())
//! }
//! ```
//!
//! ---
//!
//! Before: [Delivery](super::_03_delivery). Next: [Shards](super::_05_shards).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
