//! Which shards Discord has sent away, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A shard and the number of shards: a refusal of one layout does not concern another.
pub(crate) type Place = (u32, u32);

/// Close codes and op 9 after which a shard must not log in again, or only after a wait.
#[derive(Default)]
pub(crate) struct Refusals {
    /// The shards whose last connection was closed with a final code (GW-095: they must not come back).
    shards: BTreeMap<Place, u16>,
    /// The first code that concerns the whole bot, and its time (GW-096: all shards should stop).
    bot: Option<(u16, Instant)>,
    /// When op 9 was last sent to each shard (GW-149: it has to wait before the next login).
    invalidated: BTreeMap<Place, Instant>,
}

impl Refusals {
    /// Notes that a connection of this shard is closed with this code.
    pub(crate) fn close(&mut self, shard: Place, code: u16, now: Instant) {
        if matches!(code, 4004 | 4010..=4014) {
            self.shards.insert(shard, code);
        }
        if matches!(code, 4004 | 4012..=4014) {
            self.bot.get_or_insert((code, now));
        }
    }

    /// The final close code of a shard, if it got one.
    pub(crate) fn of_shard(&self, shard: Place) -> Option<u16> {
        self.shards.get(&shard).copied()
    }

    /// The first close code that concerns the whole bot, and its time.
    pub(crate) fn of_bot(&self) -> Option<(u16, Instant)> {
        self.bot
    }

    /// Notes that op 9 is sent to this shard.
    pub(crate) fn invalidate(&mut self, shard: Place, now: Instant) {
        self.invalidated.insert(shard, now);
    }

    /// How long before `at` op 9 was sent to this shard; `None` if it was sent later or never.
    pub(crate) fn since_invalidated(&self, shard: Place, at: Instant) -> Option<Duration> {
        self.invalidated.get(&shard).and_then(|since| at.checked_duration_since(*since))
    }

    /// Forgets the op 9 of this shard, whose Resume was accepted.
    pub(crate) fn resumed(&mut self, shard: Place) {
        self.invalidated.remove(&shard);
    }
}
