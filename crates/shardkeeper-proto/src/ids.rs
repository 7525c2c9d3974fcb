//! Shard ids and counts.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The number of a shard within its layout, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[expect(clippy::exhaustive_structs, reason = "a number, and nothing else")]
pub struct ShardId(pub u32);

impl From<u32> for ShardId {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of shards in a layout: the `num_shards` of Identify. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardCount(NonZeroU32);

impl ShardCount {
    /// Creates a layout of `count` shards; `None` for zero.
    pub const fn new(count: u32) -> Option<Self> {
        match NonZeroU32::new(count) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }

    /// The number of shards.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The shard that owns a guild: `(guild_id >> 22) % count` (GW-227).
    pub const fn owner_of(self, guild_id: u64) -> ShardId {
        // The remainder of a division by a u32 fits into a u32.
        ShardId(((guild_id >> 22) % self.0.get() as u64) as u32)
    }

    /// Whether the layout has this shard (GW-073: ids are less than the count).
    pub const fn contains(self, shard: ShardId) -> bool {
        shard.0 < self.0.get()
    }

    /// Every shard of the layout, in order.
    pub fn ids(self) -> impl Iterator<Item = ShardId> {
        (0..self.get()).map(ShardId)
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_227_known_guilds_have_known_owners() {
        const COUNTS: [u32; 8] = [1, 2, 3, 5, 16, 32, 64, 1000];
        const TABLE: [(u64, [u32; 8]); 6] = [
            (41_771_983_423_143_937, [0, 0, 0, 4, 6, 6, 38, 934]),
            (81_384_788_765_712_384, [0, 0, 1, 3, 2, 2, 2, 698]),
            (197_038_439_483_310_086, [0, 0, 2, 0, 2, 2, 2, 770]),
            (613_425_648_685_547_541, [0, 0, 2, 4, 8, 24, 56, 544]),
            (1_106_714_396_018_884_649, [0, 0, 1, 0, 10, 10, 42, 770]),
            (1_290_000_000_000_000_000, [0, 1, 2, 1, 1, 1, 1, 41]),
        ];
        for (guild, owners) in TABLE {
            for (count, owner) in COUNTS.into_iter().zip(owners) {
                assert_eq!(
                    ShardCount::new(count).unwrap().owner_of(guild),
                    ShardId(owner),
                    "{guild} % {count}"
                );
            }
        }
        assert_eq!(ShardCount::new(0), None);
    }
}
