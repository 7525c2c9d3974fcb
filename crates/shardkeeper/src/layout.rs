//! Which shards there are: those of the layout in use and, during a reshard, those of the next one.
//!
//! A guild belongs to shard `(guild_id >> 22) % count` (GW-227). With `n` shards now, `m` shards next and
//! `g = gcd(n, m)`, the shards `≡ r (mod g)` of either layout have exactly the same guilds: group `r`. A
//! reshard moves one group after another, so each guild has one owner at any time.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use shardkeeper_proto::{Command, ShardCount, ShardId};

/// The generation of a bot's first layout.
pub(crate) const FIRST_GENERATION: u32 = 1;

/// Identity of a shard: its id, and the generation of its layout. During a reshard two shards may have the same
/// id, and even the same shard count.
///
/// The order is that of ids; of two shards with the same id, the one of the earlier generation comes first.
/// `Display` shows the id, and the generation unless it is the first: `3`, or `3 of generation 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a name of two parts, and nothing else")]
pub struct ShardKey {
    /// Id of the shard within its layout.
    pub id: ShardId,
    /// Number of the layout: 1 for a bot's first, and one more with each reshard.
    pub generation: u32,
}

impl From<ShardKey> for ShardId {
    fn from(key: ShardKey) -> Self {
        key.id
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, generation } = self;
        match *generation {
            FIRST_GENERATION => write!(f, "{id}"),
            _ => write!(f, "{id} of generation {generation}"),
        }
    }
}

/// A layout: into how many shards the guilds are divided, over all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) generation: u32,
    pub(crate) count: ShardCount,
}

impl Layout {
    pub(crate) const fn key(self, id: ShardId) -> ShardKey {
        ShardKey { id, generation: self.generation }
    }
}

/// The part of a shard in a reshard. Outside of reshards every shard is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// The shard owns its guilds: its events are published, and commands for its guilds are sent by it.
    Active,
    /// The shard belongs to the next layout, and takes over its guilds once all shards of its group are ready.
    Warming,
    /// The shard's guilds belong to shards of the next layout. It finishes what it has begun, and then ends.
    Draining,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Warming => "warming",
            Self::Draining => "draining",
        })
    }
}

/// The layout in use and, during a reshard, the next one. The single place that knows which shard owns a guild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layouts {
    pub(crate) current: Layout,
    pub(crate) next: Option<Next>,
}

/// The layout that a reshard leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) layout: Layout,
    /// The groups whose guilds belong to shards of this layout.
    pub(crate) moved: BTreeSet<u32>,
}

impl Layouts {
    pub(crate) const fn new(current: Layout) -> Self {
        Self { current, next: None }
    }

    /// The layout in use once the reshard that goes on, if any, is complete.
    pub(crate) fn newest(&self) -> Layout {
        self.next.as_ref().map_or(self.current, |next| next.layout)
    }

    /// The number of groups. Without a reshard each shard is a group of its own.
    pub(crate) fn groups(&self) -> u32 {
        let count = self.current.count.get();
        self.next.as_ref().map_or(count, |next| gcd(count, next.layout.count.get()))
    }

    pub(crate) fn group_of(&self, shard: ShardId) -> u32 {
        shard.0 % self.groups()
    }

    /// The layout that owns the guilds of a shard with this id.
    fn layout_of(&self, shard: ShardId) -> Layout {
        let group = self.group_of(shard);
        match &self.next {
            Some(next) if next.moved.contains(&group) => next.layout,
            _ => self.current,
        }
    }

    /// The shard that owns a guild.
    pub(crate) fn owner_of(&self, guild_id: u64) -> ShardKey {
        // Both layouts agree on the group of a guild.
        let layout = self.layout_of(self.current.count.owner_of(guild_id));
        layout.key(layout.count.owner_of(guild_id))
    }

    /// The shard that owns a guild and, before its group is cut over, the one that will.
    pub(crate) fn owners_of(&self, guild_id: u64) -> Vec<ShardKey> {
        let owner = self.owner_of(guild_id);
        let next = self.next.as_ref().map(|next| next.layout.key(next.layout.count.owner_of(guild_id)));
        [owner].into_iter().chain(next.filter(|next| *next != owner)).collect()
    }

    /// The shard that callers mean by this id: the one whose group is active. There is no such shard if the id
    /// exists in the other layout only.
    pub(crate) fn active(&self, shard: ShardId) -> ShardKey {
        self.layout_of(shard).key(shard)
    }

    /// The shard that has to send a command.
    pub(crate) fn sender_of(&self, command: &Command) -> ShardKey {
        match (command.guild_id(), command.raw_shard()) {
            (None, Some(shard)) => self.active(shard),
            (guild_id, _) => self.owner_of(guild_id.unwrap_or_default()),
        }
    }

    pub(crate) fn generations(&self) -> impl Iterator<Item = u32> {
        [Some(self.current.generation), self.next.as_ref().map(|next| next.layout.generation)]
            .into_iter()
            .flatten()
    }

    /// The layout of a shard; `None` if no layout has this shard.
    pub(crate) fn layout_with(&self, key: ShardKey) -> Option<Layout> {
        let layouts = [Some(self.current), self.next.as_ref().map(|next| next.layout)];
        let has_it = |layout: &Layout| layout.generation == key.generation && layout.count.contains(key.id);
        layouts.into_iter().flatten().find(has_it)
    }

    pub(crate) fn role(&self, key: ShardKey) -> Role {
        if self.active(key.id) == key {
            Role::Active
        } else if key.generation == self.current.generation {
            Role::Draining
        } else {
            Role::Warming
        }
    }

    /// Begins a reshard: no group has moved yet.
    pub(crate) fn begin(&mut self, count: ShardCount) -> Layout {
        let layout = Layout { generation: self.current.generation.saturating_add(1), count };
        self.next = Some(Next { layout, moved: BTreeSet::new() });
        layout
    }

    /// Gives the guilds of a group to the shards of the next layout.
    pub(crate) fn cut_over(&mut self, group: u32) {
        let groups = self.groups();
        if let Some(next) = self.next.as_mut().filter(|_| group < groups) {
            next.moved.insert(group);
        }
    }

    /// Ends a reshard before its first cut-over. Returns whether that was possible: afterwards there is no way
    /// back but another reshard.
    pub(crate) fn withdraw(&mut self) -> bool {
        let next = self.next.take_if(|next| next.moved.is_empty());
        next.is_some()
    }

    /// Ends a reshard: the next layout is the one in use.
    pub(crate) fn finish(&mut self) {
        if let Some(next) = self.next.take() {
            self.current = next.layout;
        }
    }
}

pub(crate) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layouts(count: u32) -> Layouts {
        let count = ShardCount::new(count).unwrap();
        Layouts::new(Layout { generation: FIRST_GENERATION, count })
    }

    fn key(id: u32, generation: u32) -> ShardKey {
        ShardKey { id: ShardId(id), generation }
    }

    #[test]
    fn a_key_shows_its_generation_after_the_first() {
        assert_eq!(key(3, 1).to_string(), "3");
        assert_eq!(key(3, 2).to_string(), "3 of generation 2");
        assert!(key(3, 1) < key(3, 2) && key(3, 2) < key(4, 1), "ids first");
    }

    #[test]
    fn doubling_moves_each_shard_to_two() {
        let mut layouts = layouts(2);
        layouts.begin(ShardCount::new(4).unwrap());
        assert_eq!(layouts.groups(), 2);
        layouts.cut_over(1);
        let owners: Vec<_> = (0..4).map(|shard| layouts.owner_of(shard << 22)).collect();
        assert_eq!(owners, [key(0, 1), key(1, 2), key(0, 1), key(3, 2)]);
        // Shard 2 is of the group that has not moved, and the layout in use has no such shard.
        assert_eq!(layouts.layout_with(layouts.active(ShardId(2))), None);
        assert_eq!(layouts.role(key(1, 1)), Role::Draining);
        assert_eq!((layouts.role(key(0, 2)), layouts.role(key(2, 2))), (Role::Warming, Role::Warming));
        assert!(!layouts.withdraw(), "a group has moved");
        layouts.cut_over(0);
        layouts.finish();
        assert_eq!((layouts.current.count.get(), layouts.current.generation), (4, 2));
    }

    #[test]
    fn a_reshard_to_the_same_count_is_one_group_for_each_shard() {
        let mut layouts = layouts(6);
        layouts.begin(ShardCount::new(6).unwrap());
        assert_eq!(layouts.groups(), 6);
        layouts.cut_over(4);
        let active: Vec<u32> = (0..6).map(|id| layouts.active(ShardId(id)).generation).collect();
        assert_eq!(active, [1, 1, 1, 1, 2, 1]);
    }

    #[test]
    fn a_reshard_that_is_withdrawn_leaves_no_trace() {
        let (mut now, before) = (layouts(3), layouts(3));
        now.begin(ShardCount::new(5).unwrap());
        assert!(now.withdraw() && !now.withdraw());
        assert_eq!(now, before);
    }

    proptest! {
        /// Whichever groups have moved, a guild has one owner, which exists, is active, and is of the guild's
        /// group in either layout; of the two shards with one id exactly one is active.
        #[test]
        fn every_guild_has_one_owner_at_any_time(
            now in 1_u32..200,
            next in 1_u32..200,
            moved in prop::collection::btree_set(0_u32..200, 0..20),
            guild_id in any::<u64>(),
            id in 0_u32..200,
        ) {
            let mut layouts = layouts(now);
            let next = layouts.begin(ShardCount::new(next).unwrap());
            let groups = layouts.groups();
            prop_assert_eq!((now % groups, next.count.get() % groups), (0, 0));
            moved.iter().for_each(|group| layouts.cut_over(*group));
            let owner = layouts.owner_of(guild_id);
            prop_assert!(layouts.layout_with(owner).is_some());
            prop_assert_eq!(layouts.active(owner.id), owner);
            prop_assert_eq!(layouts.role(owner), Role::Active);
            let owners = layouts.owners_of(guild_id);
            prop_assert_eq!(owners[0], owner);
            prop_assert_eq!(owners.get(1).map(|next| next.generation), (owner.generation != next.generation).then_some(next.generation));
            for count in [layouts.current.count, next.count] {
                let group = layouts.group_of(count.owner_of(guild_id));
                prop_assert_eq!(group, layouts.group_of(owner.id));
                prop_assert_eq!(moved.contains(&group), owner.generation == next.generation);
            }
            let roles = [FIRST_GENERATION, next.generation].map(|generation| layouts.role(key(id, generation)));
            prop_assert_eq!(roles.iter().filter(|role| **role == Role::Active).count(), 1);
        }
    }
}
