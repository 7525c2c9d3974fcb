//! Resharding: how a running bot gets another number of shards, what it promises, and where its limits are.
//!
//! # Asking for it
//!
//! | a bot that … | calls | does |
//! |---|---|---|
//! | wants to follow Discord's recommendation | [`Builder::reshard`]`(ReshardPolicy::on())` | reshards by itself, by the rule of [`ReshardPolicy`] |
//! | wants other limits, deadlines or a pause between groups | [`Builder::reshard`]`(policy)` | the same with these |
//! | wants another number now | [`Shardkeeper::reshard`]`(ReshardRequest::to(n))` | reshards to `n` shards, more or fewer |
//! | changes its intents | [`Shardkeeper::reshard`]`(ReshardRequest::same().intents(..))` | new sessions with the same number |
//! | wants to know what it would cost | [`ReshardRequest::dry_run`] | returns the [`ReshardPlan`], and does nothing |
//!
//! Without a call a bot keeps its number of shards as long as it runs. One reshard runs at a time.
//!
//! # What happens
//!
//! A guild sits on shard `(guild_id >> 22) % count`, so another count moves most guilds to another shard.
//! Discord lets sessions of two counts run side by side (GW-231). shardkeeper uses this to replace the shards
//! in **groups**: from n to m shards, with g = gcd(n, m), the old and the new shards whose ids leave the
//! remainder r when divided by g hold exactly the same guilds. The groups are replaced one after another, so
//! 128 → 256 never runs more than two shards beside the 128.
//!
//! | change | groups | each of |
//! |---|---|---|
//! | 4 → 8 | 4 | one old shard and two new ones |
//! | 8 → 4 | 4 | two old shards and one new one |
//! | 4 → 6 | 2 | two old shards and three new ones |
//! | 6 → 6 | 6 | one old shard and its replacement |
//! | 5 → 7 | 1 | all of them |
//!
//! Each group goes through these phases, which [`Lifecycle::ReshardGroup`] and [`Shardkeeper::status`] report:
//!
//! | phase | what happens | can be undone |
//! |---|---|---|
//! | warming | the new shards identify, after every shard that needs an Identify to be in service, and load their guilds | yes |
//! | warm | each new shard has READY and its guilds, and every shard of the group has read what was under way when a heartbeat was sent | yes |
//! | cut-over | at one instant the old shards stop delivering and the new ones begin | no |
//! | draining | requests under way are answered on the old shards, deliveries are acknowledged, and the session store has the new layout | no |
//! | retired | the old shards have closed with 1000 | no |
//!
//! A guild that never arrives holds its group up for 15 s at most. A group that takes longer than
//! [`ReshardPolicy::group_deadline`] is withdrawn: its new shards close, and the old ones notice nothing.
//!
//! # What is promised
//!
//! - **Nothing is lost, nothing comes twice.** While a group warms up, both sides receive each event. The new
//!   side holds what it receives until the old side has delivered it too. At the cut-over it delivers the
//!   rest. What the old side was ahead with is dropped when the new side receives it.
//! - **The order within a guild is kept**, across the cut-over too.
//! - **What cannot be decided is delivered and marked**: see [the limits](#limits).
//! - **A full subscription breaks nothing.** The cut-over waits until the old shards have nothing left for it.
//! - **No Identify of the reserve is spent.** A reshard that the budget does not cover waits for the next day
//!   between two groups ([`ReshardPolicy::spread`]), or is refused.
//! - **A crash of any actor, and a kill of the process, leave each group either old or new.** With a session
//!   store the next process resumes the sessions of both sides and continues. Events may come again there,
//!   and are marked ([`Dispatch::is_replayed`]), as after any kill.
//!
//! # What moves, and what does not
//!
//! | | at the cut-over of its group |
//! |---|---|
//! | routing by guild, [`Shardkeeper::shard`] and every other call with a [`ShardId`] | mean the new shard |
//! | topics by guild | go on unchanged |
//! | topics by shard id | mean the shard that has this id then |
//! | commands that are not sent yet | move to the new shard, in their order |
//! | requests for members, sounds and channel info | are answered on the old shard, up to [`ReshardPolicy::drain_deadline`]; new ones go to the new shard |
//! | the presence | is shown by the new shards from their Identify on |
//! | direct messages, and other events without a guild | come from the new shard 0, without gap or repetition |
//! | interactions | are delivered once, whichever side received them first |
//! | threads that the bot has joined | stay joined: they belong to the bot, not to the session |
//! | the bot in a voice channel | belongs to the session and ends with it (GW-244): see [`VoicePolicy`] |
//!
//! READY and the GUILD_CREATEs of the new shards tell a bot nothing new, so a topic brings them only
//! [on request](Topic::with_warming): a cache that is kept per shard wants them. They are marked
//! ([`Dispatch::is_warming`]), and no GUILD_CREATE of them is a guild that the bot has joined.
//!
//! # Limits
//!
//! Two sessions number the same event differently, so the two sides are compared by content. Events with an
//! id of their own, such as messages and interactions, cannot occur twice, and one of them is enough to align
//! the two sides of its guild. A guild in which only events without one came, for example the same presence
//! twice, may leave a choice. Then the events in question are delivered and marked
//! ([`Dispatch::may_repeat`]): a repetition is possible, a loss is not. The same happens if Discord should
//! write the same event differently for two sessions. The comparison ends 60 s after the cut-over, and holds
//! 65,536 events or 64 MiB per group; beyond that the new shards stop reading, as for a full subscription.
//!
//! A process that runs only some of a bot's shards can replace the groups that it runs as a whole. The plan
//! names the others.
//!
//! These cases are known, and not yet as good as the promise above:
//!
//! - Sessions that lag behind Discord by seconds, together with faults in the middle of the reshard: in about
//!   one of 25 such runs an event came twice without a mark, or late within its guild.
//! - An old session that is lost before the new shard is ready: the events of the gap come late, with a mark.
//! - A new session that is lost while its group drains: its events until the next READY are lost, as those of
//!   any lost session are.
//! - A large answer, such as all members of a guild, that takes more than 10 s after the last request may be
//!   cut off by the end of its old shard.
//! - A process that is killed within milliseconds after an Identify may identify again before 5 s are over.
//!
//! # How others do it
//!
//! With twilight-gateway a bot that wants another number of shards makes a second set of shards itself, waits
//! until they are ready, and swaps the two. Between the last event that it takes from the old set and the
//! first one from the new set there is a gap or an overlap, which it has to handle itself, and the second set
//! costs the memory and the Identifies of the whole bot at once. Here the sets are replaced group by group,
//! the two sides are compared event by event, and a kill in the middle loses nothing.
//!
//! ---
//!
//! Before: [Coming from elsewhere](super::_08_coming_from). [The manual](super).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, status::*, *};
