//! Commands on their way to the shard that owns their guild.
//!
//! When a group is cut over, its old shards give up the commands that they have not sent, and the new shards
//! take them over with their receipts. Commands that come meanwhile are held here, so that no later command
//! overtakes an earlier one:
//!
//! ```text
//!   cut-over ──▶ old shards give up ──▶ each has answered, or its actor has ended ──▶ all to the new shards
//! ```
//!
//! A command is lost where a crash would have lost it before: with the old shard that crashes before it gives
//! its commands up, or with the new shard.

use std::collections::{BTreeMap, BTreeSet};

use ractor::RpcReplyPort;
use shardkeeper_proto::Command;

use super::Shards;
use super::entry::Stage;
use crate::command::{self, AcceptedCommand, Origin, Parcel, PendingCommand};
use crate::error::CommandError;
use crate::layout::ShardKey;
use crate::message::{GivenUpCommands, ShardMessage};

/// The commands of a group that has just been cut over.
pub(super) struct HandOver {
    group: u32,
    /// Old shards that have not given up their commands yet.
    awaited: BTreeSet<ShardKey>,
    /// What old shards have given up: for each, no more than its queues hold.
    given_up: Vec<PendingCommand>,
    /// What came meanwhile for each new shard: no more than its queues hold.
    held: BTreeMap<ShardKey, Vec<PendingCommand>>,
}

impl Shards {
    /// Passes a command to the driver of the shard that owns its guild. The driver answers.
    pub(crate) fn command(
        &mut self,
        command: Command,
        reply: RpcReplyPort<Result<AcceptedCommand, CommandError>>,
    ) {
        let shard = self.layouts.sender_of(&command);
        let group = self.layouts.group_of(shard.id);
        let pending = PendingCommand { command, origin: Origin::Bot(reply) };
        let Some(hand_over) = self.hand_overs.iter_mut().find(|hand_over| hand_over.group == group) else {
            return self.send(shard, Parcel::One(pending));
        };
        let held = hand_over.held.entry(shard).or_default();
        if held.len() < command::CAPACITY {
            held.push(pending);
        } else {
            let class = pending.command.class();
            pending.refuse(command::full(shard.id, class));
        }
    }

    /// Sends a command that the bot has not asked for, past those that are held.
    pub(super) fn send_unasked(&self, command: Command) {
        let shard = self.layouts.sender_of(&command);
        let (reply, _) = ractor::concurrency::oneshot();
        self.send(shard, Parcel::One(PendingCommand { command, origin: Origin::Bot(reply.into()) }));
    }

    fn send(&self, shard: ShardKey, parcel: Parcel) {
        let entry = self.entries.get(&shard).filter(|_| !self.is_leaving(shard));
        let is_here = match entry.map(|entry| &entry.stage) {
            Some(Stage::Up { commands, .. }) => return commands.send(parcel),
            Some(_) => true,
            None => false,
        };
        for pending in parcel {
            let shard = shard.id;
            let error = match pending.command.guild_id() {
                _ if is_here => CommandError::ShardEnded { shard },
                Some(guild_id) => CommandError::GuildElsewhere { guild_id, shard },
                None => CommandError::NoSuchShard { shard },
            };
            pending.refuse(error);
        }
    }

    /// Makes the old shards of a group that was cut over give up their commands.
    pub(super) fn begin_hand_over(&mut self, group: u32) {
        let old = self.group(group, self.layouts.current.generation);
        let gives_up = |shard: &ShardKey| {
            let stage = self.entries.get(shard).map(|entry| &entry.stage);
            matches!(stage, Some(Stage::Up { actor, .. }) if actor.cast(ShardMessage::GiveUpCommands).is_ok())
        };
        let awaited: BTreeSet<ShardKey> = old.into_iter().filter(gives_up).collect();
        if !awaited.is_empty() {
            self.hand_overs.push(HandOver { group, awaited, given_up: Vec::new(), held: BTreeMap::new() });
        }
    }

    /// Takes the commands that an old shard has given up.
    pub(crate) fn take_over(&mut self, shard: ShardKey, GivenUpCommands(commands): GivenUpCommands) {
        match self.hand_overs.iter_mut().find(|hand_over| hand_over.awaited.contains(&shard)) {
            Some(hand_over) => {
                hand_over.given_up.extend(commands);
                self.gives_up_no_more(shard);
            }
            // The end of its actor was handled first.
            None => self.send_all(commands),
        }
    }

    /// Does not wait for an old shard any more, whose actor has ended.
    pub(super) fn gives_up_no_more(&mut self, shard: ShardKey) {
        for hand_over in &mut self.hand_overs {
            hand_over.awaited.remove(&shard);
        }
        self.finish_hand_overs();
    }

    fn finish_hand_overs(&mut self) {
        let complete: Vec<_> =
            self.hand_overs.extract_if(.., |hand_over| hand_over.awaited.is_empty()).collect();
        for HandOver { given_up, held, .. } in complete {
            // In this order for each shard, and in one piece, so that nothing overtakes them.
            self.send_all(given_up.into_iter().chain(held.into_values().flatten()));
        }
    }

    fn send_all(&self, commands: impl IntoIterator<Item = PendingCommand>) {
        let mut parcels: BTreeMap<ShardKey, Vec<PendingCommand>> = BTreeMap::new();
        for pending in commands {
            parcels.entry(self.layouts.sender_of(&pending.command)).or_default().push(pending);
        }
        parcels.into_iter().for_each(|(shard, commands)| self.send(shard, Parcel::Several(commands)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
    use shardkeeper_proto::{Intents, RequestMembers, ShardCount, ShardId, Timings, VoiceStateUpdate};
    use tokio::time::Instant;

    use super::super::orders::builder;
    use super::*;
    use crate::bot::Shardkeeper;
    use crate::command::WriteError;
    use crate::manager::config::ManagerArguments;
    use crate::manager::{ManagerState, ShardManager};
    use crate::message::ManagerMessage;

    /// A manager that also does what a test tells it. It takes the place of the reshard.
    struct Hosted;

    /// The number of a removal that there is not: the manager cuts group 1 over instead.
    const CUT_OVER: u64 = u64::MAX;

    impl Actor for Hosted {
        type Msg = ManagerMessage;
        type State = ManagerState;
        type Arguments = ManagerArguments;

        async fn pre_start(
            &self,
            myself: ActorRef<ManagerMessage>,
            arguments: ManagerArguments,
        ) -> Result<ManagerState, ActorProcessingErr> {
            ShardManager.pre_start(myself, arguments).await
        }

        async fn post_start(
            &self,
            myself: ActorRef<ManagerMessage>,
            state: &mut ManagerState,
        ) -> Result<(), ActorProcessingErr> {
            ShardManager.post_start(myself, state).await
        }

        async fn handle(
            &self,
            myself: ActorRef<ManagerMessage>,
            message: ManagerMessage,
            state: &mut ManagerState,
        ) -> Result<(), ActorProcessingErr> {
            if !matches!(message, ManagerMessage::RemovalDeadline(CUT_OVER)) {
                return ShardManager.handle(myself, message, state).await;
            }
            let fleet = state.phase.fleet_mut().unwrap();
            fleet.shards.begin_next(ShardCount::new(4).unwrap(), Intents::GUILDS);
            for shard in fleet.shards.add_group(1, None) {
                let random = fastrand::Rng::with_seed(1);
                fleet.shards.spawn(&myself, shard, &fleet.queue, random).await?;
            }
            fleet.shards.cut_over(1);
            Ok(())
        }

        async fn handle_supervisor_evt(
            &self,
            myself: ActorRef<ManagerMessage>,
            event: SupervisionEvent,
            state: &mut ManagerState,
        ) -> Result<(), ActorProcessingErr> {
            ShardManager.handle_supervisor_evt(myself, event, state).await
        }
    }

    /// A manager whose two shards never connect, so that all commands wait in them.
    async fn hosted() -> (ActorRef<ManagerMessage>, Shardkeeper) {
        let (manager, _) = Actor::spawn(None, Hosted, builder().build().unwrap()).await.unwrap();
        ractor::call!(manager, ManagerMessage::AwaitStart).unwrap().unwrap();
        let keeper = Shardkeeper::of(manager.clone()).await.unwrap();
        (manager, keeper)
    }

    /// A guild of shard 1 of 2, and of shard 3 of 4.
    const GUILD: u64 = 3 << 22;

    fn cut_over(manager: &ActorRef<ManagerMessage>) {
        manager.cast(ManagerMessage::RemovalDeadline(CUT_OVER)).unwrap();
    }

    /// How many voice and bulk commands wait in the shard with this id and generation.
    async fn waiting(keeper: &Shardkeeper, id: u32, generation: u32) -> (usize, usize) {
        let status = keeper.status().await.unwrap();
        let is_it =
            |shard: &&crate::status::ShardStatus| (shard.shard.0, shard.generation) == (id, generation);
        let sending = status.shards.iter().find(is_it).unwrap().sending;
        (sending.voice_waiting, sending.bulk_waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn commands_that_wait_move_to_the_new_owner_with_their_receipts() {
        let (manager, keeper) = hosted().await;
        let begin = Instant::now();
        let first = keeper.command(VoiceStateUpdate::join(GUILD, 7)).await.unwrap();
        let members = keeper.command(Command::members(&RequestMembers::prefix(GUILD, "a", 1)).unwrap());
        let members = members.await.unwrap();
        assert_eq!(waiting(&keeper, 1, 1).await, (1, 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        cut_over(&manager);
        // Sent after the cut-over, so it is held until the old shard has answered.
        let later = keeper.command(VoiceStateUpdate::leave(GUILD)).await.unwrap();
        assert_eq!((waiting(&keeper, 1, 1).await, waiting(&keeper, 3, 2).await), ((0, 0), (2, 1)));
        assert_eq!(waiting(&keeper, 1, 2).await, (0, 0));
        assert_eq!(first.written().await, Err(WriteError::Expired));
        let voice = Timings::default().voice_lifetime;
        assert_eq!(begin.elapsed().as_secs(), voice.as_secs(), "it has not become younger");
        assert_eq!(later.written().await, Err(WriteError::Expired));
        assert_eq!(members.written().await, Err(WriteError::Expired));
        manager.stop(None);
    }

    #[cfg(feature = "songbird")]
    #[tokio::test(start_paused = true)]
    async fn what_songbird_sends_goes_to_the_new_owner() {
        use std::num::NonZeroU64;

        use songbird::id::{ChannelId, GuildId};
        use songbird::shards::VoiceUpdate;

        let (manager, keeper) = hosted().await;
        let guild = GuildId(NonZeroU64::new(GUILD).unwrap());
        let channel = Some(ChannelId(NonZeroU64::new(7).unwrap()));
        keeper.update_voice_state(guild, channel, false, false).await.unwrap();
        assert_eq!(waiting(&keeper, 1, 1).await, (1, 0));
        cut_over(&manager);
        keeper.update_voice_state(guild, channel, true, false).await.unwrap();
        assert_eq!((waiting(&keeper, 1, 1).await, waiting(&keeper, 3, 2).await), ((0, 0), (2, 0)));
        manager.stop(None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_shard_that_crashes_at_the_cut_over_holds_nothing_up() {
        let (manager, keeper) = hosted().await;
        let old = keeper.shard(ShardId(1)).await.unwrap();
        let accepted = keeper.command(VoiceStateUpdate::join(GUILD, 7)).await.unwrap();
        old.kill();
        cut_over(&manager);
        let later = keeper.command(VoiceStateUpdate::leave(GUILD)).await.unwrap();
        assert_eq!(accepted.written().await, Err(WriteError::Lost), "as with every crash");
        assert_eq!(waiting(&keeper, 3, 2).await, (1, 0));
        assert_eq!(later.written().await, Err(WriteError::Expired));
        manager.stop(None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_sent_to_the_old_shard_itself_is_rejected_once_its_group_has_moved() {
        let (manager, keeper) = hosted().await;
        let old = keeper.shard(ShardId(1)).await.unwrap();
        cut_over(&manager);
        waiting(&keeper, 3, 2).await;
        let command = VoiceStateUpdate::join(GUILD, 7).into();
        let answer = ractor::call!(old, |reply| ShardMessage::Command(command, reply)).unwrap();
        assert!(matches!(answer, Err(CommandError::ShardEnded { shard: ShardId(1) })), "{answer:?}");
        manager.stop(None);
    }

    /// In real time and on several threads: every command that was accepted is in one of the two shards, and
    /// none is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_command_is_lost_by_a_cut_over_under_load() {
        for _ in 0..20 {
            let (manager, keeper) = hosted().await;
            let load = (0..4).map(|_| {
                let keeper = keeper.clone();
                tokio::spawn(async move {
                    let mut accepted = Vec::new();
                    for _ in 0..5 {
                        accepted.push(keeper.command(VoiceStateUpdate::join(GUILD, 7)).await.unwrap());
                    }
                    accepted
                })
            });
            let load: Vec<_> = load.collect();
            cut_over(&manager);
            let mut accepted = Vec::new();
            for task in load {
                accepted.extend(task.await.unwrap());
            }
            // A driver accepts a command before its status shows it.
            let all_are_there = async {
                while waiting(&keeper, 3, 2).await.0 < accepted.len() {
                    tokio::task::yield_now().await;
                }
            };
            let in_time = tokio::time::timeout(Duration::from_secs(10), all_are_there).await;
            let lost = (waiting(&keeper, 1, 1).await, waiting(&keeper, 3, 2).await);
            assert!(in_time.is_ok(), "{lost:?} of {}", accepted.len());
            assert_eq!(lost, ((0, 0), (accepted.len(), 0)));
            manager.stop(None);
        }
    }
}
