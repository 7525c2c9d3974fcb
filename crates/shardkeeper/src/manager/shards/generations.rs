//! Shards of two layouts at a time: those in use, and those that a reshard puts in their place.
//!
//! ```text
//!   begin_next ──▶ add_group ──▶ cut_over ──▶ begin_removal of the old shards ──▶ … ──▶ finish
//!                      └──▶ begin_removal of the new shards ──▶ withdraw
//! ```

use std::collections::BTreeSet;
use std::time::Instant;

use shardkeeper_proto::{Intents, PresenceUpdate, ShardCount, ShardId};

use super::Shards;
use crate::layout::{Layout, ShardKey};

impl Shards {
    /// Begins a reshard to a layout of this many shards, which identify with these intents.
    pub(crate) fn begin_next(&mut self, count: ShardCount, intents: Intents) -> Layout {
        let layout = self.layouts.begin(count);
        self.intents.insert(layout.generation, intents);
        self.record_layouts();
        layout
    }

    /// Adds a group's shards of the next layout, without starting them. Each has the presence of the shard
    /// whose id it has, or whose id it would have by counting on (`id % count`); `presence` if this process does
    /// not run that shard.
    pub(crate) fn add_group(&mut self, group: u32, presence: Option<&PresenceUpdate>) -> Vec<ShardKey> {
        let Some(next) = self.layouts.next.as_ref().map(|next| next.layout) else { return Vec::new() };
        let keys = next.count.ids().filter(|id| self.layouts.group_of(*id) == group).map(|id| next.key(id));
        let added: Vec<ShardKey> = keys.filter(|key| !self.entries.contains_key(key)).collect();
        for &shard in &added {
            let model = self.entries.get(&self.model_of(shard.id));
            let presence = model.map_or(presence, |model| model.presence.as_ref()).cloned();
            self.insert(shard, None, presence.as_ref());
        }
        added
    }

    /// The shard of the layout in use whose presence a shard of the next layout has.
    fn model_of(&self, shard: ShardId) -> ShardKey {
        let current = self.layouts.current;
        current.key(ShardId(shard.0 % current.count.get()))
    }

    /// The shards here that have the presence of the shards with this id: the active one, and those that warm
    /// up after its model.
    pub(super) fn with_presence_of(&self, shard: ShardId) -> Vec<ShardKey> {
        let (active, current) = (self.active(shard), self.layouts.current);
        let next = self.layouts.next.as_ref().filter(|_| active == current.key(shard));
        let warm_up = next.into_iter().flat_map(|next| {
            let ids = (shard.0..next.layout.count.get()).step_by(current.count.get() as usize);
            ids.map(|id| next.layout.key(ShardId(id)))
        });
        warm_up.chain([active]).collect()
    }

    /// The shards of a group in one of the two generations, as far as they run here.
    pub(crate) fn group(&self, group: u32, generation: u32) -> Vec<ShardKey> {
        let is_of = |key: &ShardKey| key.generation == generation && self.layouts.group_of(key.id) == group;
        self.entries.keys().copied().filter(is_of).collect()
    }

    /// Gives the guilds of a group to its shards of the next layout: from now on, calls go to them, and the old
    /// shards give up the commands that they have not sent.
    pub(crate) fn cut_over(&mut self, group: u32) {
        self.layouts.cut_over(group);
        self.record_layouts();
        for (shard, entry) in &self.entries {
            entry.board.set_role(self.layouts.role(*shard));
        }
        self.begin_hand_over(group);
        self.rejoin(group);
    }

    /// Makes the new owners join the voice channels in which the bot is (GW-244). They do that before anything
    /// that old shards give up, which the bot has asked for later.
    fn rejoin(&mut self, group: u32) {
        for command in
            self.guilds_in_voice(group).into_iter().filter_map(|guild_id| self.calls.command(guild_id))
        {
            self.send_unasked(command);
        }
    }

    /// Whether a shard still has requests to send, or awaits their answers, which come on its session alone
    /// (GW-245: they are finished before it closes).
    pub(crate) fn awaits_answers(&self, now: Instant, shard: ShardKey) -> bool {
        self.entries.get(&shard).is_some_and(|entry| entry.board.awaits_answers(now))
    }

    /// The guilds of a group in which the bot is in a voice channel.
    pub(crate) fn guilds_in_voice(&self, group: u32) -> BTreeSet<u64> {
        let is_of =
            |guild_id: &u64| self.layouts.group_of(self.layouts.current.count.owner_of(*guild_id)) == group;
        self.calls.guilds().into_iter().filter(is_of).collect()
    }

    /// Ends a reshard before its first cut-over, once its shards are removed. Returns whether there was such a
    /// reshard.
    pub(crate) fn withdraw(&mut self) -> bool {
        let next = self.layouts.newest();
        let withdrawn = self.layouts.withdraw();
        if withdrawn {
            // Those that an earlier process has left, and that were not started here.
            let left: Vec<_> = self.entries.keys().copied().collect();
            left.into_iter()
                .filter(|key| key.generation == next.generation)
                .for_each(|key| drop(self.forget(key)));
        }
        self.forget_retired();
        withdrawn
    }

    /// Ends a reshard whose groups have all moved, once the old shards are removed.
    pub(crate) fn finish(&mut self) {
        self.layouts.finish();
        self.forget_retired();
    }

    /// Forgets what is kept of shards that were removed, and that cannot be added again.
    fn forget_retired(&mut self) {
        self.record_layouts();
        let layouts = &self.layouts;
        self.writers.retain(|shard, _| layouts.layout_with(*shard).is_some());
        self.restarts.retain(|shard| layouts.layout_with(*shard).is_some());
        self.intents.retain(|generation, _| layouts.generations().any(|known| known == *generation));
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr, ActorRef};
    use shardkeeper_proto::{Command, OnlineStatus, Presence, Priority, VoiceStateUpdate};
    use tokio::sync::mpsc;

    use super::super::orders::Bench;
    use super::*;
    use crate::error::CommandError;
    use crate::layout::Role;
    use crate::message::{GivenUpCommands, QueueMessage, ShutdownMode};

    fn key(id: u32, generation: u32) -> ShardKey {
        ShardKey { id: ShardId(id), generation }
    }

    fn presence(status: OnlineStatus) -> PresenceUpdate {
        PresenceUpdate::new(Presence::new(status)).unwrap()
    }

    /// A bench of two shards that are to become four, with those of group 1 in the table.
    async fn resharding() -> Bench {
        let mut bench = Bench::new().await;
        let shards = bench.shards();
        shards.begin_next(ShardCount::new(4).unwrap(), Intents::GUILDS);
        assert_eq!(shards.add_group(1, None), [key(1, 2), key(3, 2)]);
        assert_eq!(shards.add_group(1, None), [], "once");
        bench
    }

    #[tokio::test(start_paused = true)]
    async fn calls_mean_the_active_shard_of_an_id() {
        let mut bench = resharding().await;
        let guild = |shard: u64| shard << 22;
        let shards = bench.shards();
        let roles = |shards: &Shards| {
            let status = shards.status();
            status.iter().map(|one| (one.shard.0, one.generation, one.role)).collect::<Vec<_>>()
        };
        let [active, warming, draining] = [Role::Active, Role::Warming, Role::Draining];
        assert_eq!(roles(shards), [(0, 1, active), (1, 1, active), (1, 2, warming), (3, 2, warming)]);
        assert_eq!(shards.layouts().owner_of(guild(3)), key(1, 1));
        assert!(shards.actor(shards.active(ShardId(1))).is_some(), "the new shard has no actor yet");
        shards.cut_over(1);
        assert_eq!(roles(shards), [(0, 1, active), (1, 1, draining), (1, 2, active), (3, 2, active)]);
        assert_eq!(shards.layouts().owner_of(guild(3)), key(3, 2));
        assert_eq!(shards.layouts().owner_of(guild(2)), key(0, 1));
        assert!(shards.actor(shards.active(ShardId(1))).is_none());
        let (reply, answer) = ractor::concurrency::oneshot();
        let command = Command::voice(VoiceStateUpdate::leave(guild(3)));
        shards.command(command, reply.into());
        shards.take_over(key(1, 1), GivenUpCommands(Vec::new()));
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(CommandError::ShardEnded { shard: ShardId(3) })), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn old_shards_leave_without_the_new_ones_of_the_same_id() {
        let mut bench = resharding().await;
        bench.shards().cut_over(1);
        let (reply, answer) = ractor::concurrency::oneshot();
        let old = bench.shards().group(1, 1).into_iter().collect();
        bench.shards().begin_removal(old, ShutdownMode::Stop, reply.into());
        bench.end_orderly().await;
        assert!(answer.await.unwrap().unwrap().is_empty());
        let shards = bench.shards();
        assert_eq!(shards.group(1, 1), []);
        assert_eq!(shards.group(1, 2), [key(1, 2), key(3, 2)]);
        shards.cut_over(0);
        shards.finish();
        assert_eq!(shards.writers.keys().copied().collect::<Vec<_>>(), [key(1, 2), key(3, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn gw_244_calls_are_known_by_group_whatever_has_moved() {
        let mut bench = resharding().await;
        let shards = bench.shards();
        let guild = |shard: u64| shard << 22;
        for shard in 0..4 {
            let d = format!(r#"{{"guild_id":"{}","channel_id":"7"}}"#, guild(shard));
            shards.calls.sent(key(1, 1), &format!(r#"{{"op":4,"d":{d}}}"#));
        }
        for moved in [false, true] {
            assert_eq!(shards.guilds_in_voice(1), [guild(1), guild(3)].into(), "moved: {moved}");
            shards.cut_over(1);
        }
        let again = shards.calls.command(guild(3)).unwrap();
        assert_eq!(shards.layouts().sender_of(&again), key(3, 2));
        assert!(shards.calls.command(guild(9)).is_none());
        assert!(!shards.awaits_answers(Instant::now(), key(1, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reshard_that_is_withdrawn_leaves_nothing_behind() {
        let mut bench = resharding().await;
        let (reply, answer) = ractor::concurrency::oneshot();
        let shards = bench.shards();
        let new = shards.group(1, 2).into_iter().collect();
        shards.begin_removal(new, ShutdownMode::Stop, reply.into());
        shards.finish_removals();
        assert!(answer.await.unwrap().unwrap().is_empty());
        assert!(shards.withdraw());
        assert_eq!(shards.entries.len(), 2);
        assert!(shards.intents.is_empty() && shards.writers.keys().all(|key| key.generation == 1));
        assert_eq!(shards.active(ShardId(1)), key(1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_shard_shows_what_the_shard_of_its_id_shows() {
        let mut bench = Bench::new().await;
        let shards = bench.shards();
        shards.update_presence(&[ShardId(1)], &presence(OnlineStatus::Idle)).unwrap();
        shards.begin_next(ShardCount::new(4).unwrap(), Intents::GUILDS);
        shards.add_group(0, None);
        shards.add_group(1, None);
        let shown = |shards: &Shards, key| shards.entries[&key].presence.clone();
        for id in [1, 3] {
            assert_eq!(shown(shards, key(id, 2)), Some(presence(OnlineStatus::Idle)), "{id}");
        }
        assert_eq!(shown(shards, key(2, 2)), None);
        // What is set while it warms up reaches it, too.
        shards.update_presence(&[ShardId(1)], &presence(OnlineStatus::Dnd)).unwrap();
        assert_eq!(shown(shards, key(3, 2)), Some(presence(OnlineStatus::Dnd)));
        shards.cut_over(1);
        shards.update_presence(&[ShardId(1)], &presence(OnlineStatus::Online)).unwrap();
        assert_eq!(shown(shards, key(1, 2)), Some(presence(OnlineStatus::Online)));
        assert_eq!(shown(shards, key(3, 2)), Some(presence(OnlineStatus::Dnd)), "a shard of its own");
    }

    /// Passes on the urgency with which shards join.
    struct Queue;

    impl Actor for Queue {
        type Msg = QueueMessage;
        type State = mpsc::Sender<(ShardKey, Priority)>;
        type Arguments = Self::State;

        async fn pre_start(
            &self,
            _: ActorRef<QueueMessage>,
            joined: Self::State,
        ) -> Result<Self::State, ActorProcessingErr> {
            Ok(joined)
        }

        async fn handle(
            &self,
            _: ActorRef<QueueMessage>,
            message: QueueMessage,
            joined: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            if let QueueMessage::Join { shard, priority, .. } = message {
                joined.send((shard, priority)).await?;
            }
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_warms_up_lets_those_identify_first_that_serve_guilds() {
        let mut bench = resharding().await;
        let (sender, mut joined) = mpsc::channel(16);
        let (queue, _) = Actor::spawn(None, Queue, sender).await.unwrap();
        let manager = bench.myself.clone();
        let spawn = async |shards: &mut Shards, key| {
            shards.spawn(&manager, key, &queue, fastrand::Rng::with_seed(1)).await.unwrap();
        };
        spawn(bench.shards(), key(3, 2)).await;
        assert_eq!(joined.recv().await, Some((key(3, 2), Priority::Reshard)));
        bench.shards().cut_over(1);
        spawn(bench.shards(), key(1, 2)).await;
        // The other one may ask again before.
        let priority = loop {
            let (shard, priority) = joined.recv().await.unwrap();
            if shard == key(1, 2) {
                break priority;
            }
        };
        assert_eq!(priority, Priority::ColdStart);
    }
}
