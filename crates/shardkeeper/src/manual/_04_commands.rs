//! Commands: what a bot says to Discord over a shard, and what can come of it.
//!
//! # Which there are
//!
//! | to … | say | on | class | needs |
//! |---|---|---|---|---|
//! | join, move in or leave a voice channel | [`Command::voice`] | the guild's shard | voice |  |
//! | show a presence everywhere | [`Shardkeeper::update_presence`] | every shard | presence |  |
//! | … on some shards | [`Shardkeeper::update_presence_on`] | these | presence |  |
//! | collect members of a guild | [`Shardkeeper::members`] | the guild's shard | bulk | `GUILD_MEMBERS` for all, `GUILD_PRESENCES` for presences |
//! | … one chunk after the other | [`Shardkeeper::members_chunks`] | the guild's shard | bulk | the same |
//! | ask for members, and hear the events | [`Command::members`] | the guild's shard | bulk | the same |
//! | ask for soundboard sounds of any guilds | [`Shardkeeper::request_soundboard_sounds`] | each guild's shard | bulk |  |
//! | … of guilds of one shard | [`Command::sounds`] | the first guild's shard | bulk |  |
//! | ask for the status and start time of voice channels | [`Command::channel_info`] | the guild's shard | bulk |  |
//! | say anything else that Discord takes | [`Command::raw`] | a shard of your choice | bulk |  |
//!
//! All but presences and the collecting ones go through [`Shardkeeper::command`]. With the cargo feature `songbird` a
//! [`Shardkeeper`] is songbird's `VoiceUpdate`, so that a call of songbird sends its voice states here.
//!
//! An actor of the bot's own may speak to the manager or to a shard's actor by messages, with [`ractor`] as
//! re-exported here. [`ManagerMessage::command`] and [`ShardMessage::command`] make a message without an answer, for `cast`; what
//! keeps such a command from being sent is a warning in the log.
//!
//! [`Command::raw`] takes opcodes that bots may send, and those that nobody knows yet. Heartbeat, Identify, Resume and
//! presence are not for it: the shard keeps them itself.
//!
//! # The way of a command
//!
//! 1. **Checked** where it is made: size (4096 bytes in the larger of its encodings), number of ids, length of the nonce.
//!    What Discord would silently ignore is an error here.
//! 2. **Routed** by the manager: the guild's owner is `(guild_id >> 22) % count`, see [`Shardkeeper::owner_of`].
//! 3. **AcceptedCommand** by the shard: it is the right one, the intents are there, its class has room. The answer is an
//!    [`AcceptedCommand`], or the reason why not.
//! 4. **Sent** when the shard is ready and the limits allow. A resume does not lose it. Neither does a new session.
//! 5. **Written**: [`AcceptedCommand::written`] says so when the operating system has it. Discord does not confirm commands; an
//!    answer, if there is one, comes as an event.
//!
//! [`WriteError::Expired`] means that it has waited for its lifetime; [`WriteError::HeldUp`] that it has because the shard
//! could not become ready, since a subscription is full; [`WriteError::Lost`] that its shard crashed or ended, or that the
//! connection went while it was being written. In the last case Discord may have it.
//!
//! Dropping an [`AcceptedCommand`] changes nothing.
//!
//! # Classes, limits and lifetimes
//!
//! | class | goes | may use of 120 payloads in 60 s | waits at most | may wait |
//! |---|---|---|---|---|
//! | heartbeat, Identify, Resume | first | all |  |  |
//! | voice | before presences | 115 | [`Timings::voice_lifetime`]: 90 s | 128 |
//! | presence | before bulk | 115, and 5 in 20 s | for ever | the newest |
//! | bulk | last | 105 | [`Timings::bulk_lifetime`]: 10 min | 512 |
//!
//! No window of 60 s ever holds more than 120 payloads, wherever it begins, and a new connection begins a new count. Room is
//! kept for the periodic heartbeats of a window (two of them at the usual interval of 41.25 s) and for three that Discord may
//! ask for; bulk leaves room for ten more, so that a flood of requests does not hold a voice state up for a minute.
//!
//! # Why a command is rejected
//!
//! | [`CommandError`] | because | then |
//! |---|---|---|
//! | [`Invalid`](CommandError::Invalid) ([`CommandContentError`]) | no such command: ids, limit, nonce, opcode or size | mend the call |
//! | [`Presence`](CommandError::Presence) ([`PresenceError`]) | Discord would not show it: an empty or long text, a stream elsewhere, more than 3072 bytes | mend the call |
//! | [`Queue`](CommandError::Queue), [`QueueFull`](CommandQueueError::QueueFull) | as many of its class wait already | wait, or ask for less |
//! | [`Queue`](CommandError::Queue), [`MissingIntents`](CommandQueueError::MissingIntents) | Discord would not answer | start with these intents |
//! | [`Queue`](CommandError::Queue), [`OtherShard`](CommandQueueError::OtherShard) | it was sent to a shard's actor by hand, and to the wrong one | use [`Shardkeeper::command`] |
//! | [`NoSuchShard`](CommandError::NoSuchShard) | the shard runs elsewhere, has ended, or is being removed | ask the process that runs it |
//! | [`GuildElsewhere`](CommandError::GuildElsewhere) | the same, for the owner of a guild | ask the process that runs it |
//! | [`ShardEnded`](CommandError::ShardEnded) | the shard crashed and is not back yet | try again |
//! | [`Starting`](CommandError::Starting) | the layout is not known yet | wait for the start |
//! | [`ManagerEnded`](CommandError::ManagerEnded) | it has | start another |
//!
//! # Members
//!
//! [`Shardkeeper::members`] sends the request and collects the chunks. It
//!
//! - gives each request a nonce of its own, and takes the chunks of that nonce alone, in whatever order, however often each;
//! - shares one request among equal ones that are asked at the same time;
//! - asks for **all** members of a guild once in 30 s, and lets a further request wait for its turn (GW-162); when somebody
//!   else has asked, it waits as long as Discord says, and asks again (GW-164);
//! - goes on over a resume, and fails when the session is lost, since the answer is lost with it;
//! - lets the shard read on although subscriptions are full, up to 4096 events or 32 MiB: so it can be awaited in the loop that
//!   reads the events of the same shard.
//!
//! | [`MembersError`] | because |
//! |---|---|
//! | [`Rejected`](MembersError::Rejected) | the request was not accepted |
//! | [`Expired`](MembersError::Expired) | it could not be sent within [`Timings::bulk_lifetime`] |
//! | [`SessionLost`](MembersError::SessionLost) | a new session began before the answer was complete: ask again |
//! | [`TimedOut`](MembersError::TimedOut) | no chunk for 30 s, counted from when the request was written |
//! | [`HeldUp`](MembersError::HeldUp) | the shard stopped reading all the same: the error names the subscription that is full |
//! | [`Malformed`](MembersError::Malformed) | a chunk is not what it should be |
//! | [`ManagerEnded`](MembersError::ManagerEnded) | it has |
//!
//! A guild of a million members is thousand chunks: [`Shardkeeper::members_chunks`] yields them one by one, and the shard
//! reads no faster than they are taken. [`Members`] holds raw JSON; [`Members::members`] parses it.
//!
//! # Presences
//!
//! A presence is remembered by the manager, not only sent. It goes into each later Identify and to each shard that comes back.
//!
//! | set by | holds for | until |
//! |---|---|---|
//! | [`Builder::presence`] | every shard, from its first Identify on | another one is set |
//! | [`Builder::presence_fn`] | each shard, computed for each of its Identify | [`update_presence`](Shardkeeper::update_presence) or [`update_presence_on`](Shardkeeper::update_presence_on) sets one there |
//! | [`Shardkeeper::update_presence`] | every shard, also those added later | another one is set |
//! | [`Shardkeeper::update_presence_on`] | these shards, all or none | another one is set there, or everywhere |
//! | [`ShardMessage::UpdatePresence`] to one shard's actor | this life of the actor | it crashes, or another one is set |
//!
//! Presences beyond five in 20 s wait, and the newest wins: whoever sets a hundred in a second shows the last one.
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
