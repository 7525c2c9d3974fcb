//! What a subscriber wants to hear.

use std::sync::Arc;

use shardkeeper_proto::{EventName, EventSet, ShardId};

/// A set of dispatch events, of all shards or some; and whether lifecycle changes are wanted.
#[derive(Clone, Debug)]
pub struct Topic {
    events: EventSet,
    lifecycle: bool,
    shards: Option<Arc<[ShardId]>>,
}

impl Topic {
    /// Every dispatch, also those whose names nobody knows yet.
    pub fn all() -> Self {
        Self { events: EventSet::ALL, lifecycle: false, shards: None }
    }

    /// These events.
    pub fn events(events: impl IntoIterator<Item = EventName>) -> Self {
        Self { events: EventSet::of(events), lifecycle: false, shards: None }
    }

    /// No dispatches, but everything that happens to the shards and the bot.
    pub fn lifecycle() -> Self {
        Self { events: EventSet::EMPTY, lifecycle: true, shards: None }
    }

    /// Lifecycle changes too, in order with the dispatches of their shard.
    #[must_use]
    pub fn with_lifecycle(mut self) -> Self {
        self.lifecycle = true;
        self
    }

    /// Of these shards only. Lifecycle changes that concern the whole bot come all the same.
    #[must_use]
    pub fn of_shards(mut self, shards: impl IntoIterator<Item = ShardId>) -> Self {
        self.shards = Some(shards.into_iter().collect());
        self
    }

    /// The dispatch events wanted of this shard.
    pub(super) fn events_of(&self, shard: ShardId) -> EventSet {
        if self.covers(Some(shard)) { self.events } else { EventSet::EMPTY }
    }

    /// Whether a lifecycle change of this shard, or of the whole bot, is wanted.
    pub(super) fn wants_lifecycle(&self, shard: Option<ShardId>) -> bool {
        self.lifecycle && self.covers(shard)
    }

    fn covers(&self, shard: Option<ShardId>) -> bool {
        match (&self.shards, shard) {
            (Some(shards), Some(shard)) => shards.contains(&shard),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_narrow_to_shards() {
        let topic = Topic::events([EventName::Ready]).with_lifecycle().of_shards([ShardId(1)]);
        assert!(topic.events_of(ShardId(1)).contains(Some(EventName::Ready)));
        assert!(!topic.events_of(ShardId(1)).contains(Some(EventName::Resumed)));
        assert!(topic.events_of(ShardId(2)).is_empty());
        assert!(topic.wants_lifecycle(None) && topic.wants_lifecycle(Some(ShardId(1))));
        assert!(!topic.wants_lifecycle(Some(ShardId(2))));
        assert!(Topic::all().events_of(ShardId(7)).contains(None));
    }
}
