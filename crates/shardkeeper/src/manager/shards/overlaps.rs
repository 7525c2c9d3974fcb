//! The part of the table in a reshard's overlaps.

use std::collections::BTreeSet;
use std::sync::Arc;

use shardkeeper_proto::{Intents, Session, ShardId};

use super::Shards;
use crate::dispatch::{Overlap, OverlapLimits, OverlapSide, Side};
use crate::layout::ShardKey;
use crate::message::ShardMessage;

impl Shards {
    /// Puts the shards of a group into an overlap: first the old ones, so that they record what the new ones
    /// may receive as well. New shards hold their sessions back until [`end_overlap`](Self::end_overlap).
    pub(crate) fn begin_overlap(
        &mut self,
        old: &BTreeSet<ShardKey>,
        new: &BTreeSet<ShardKey>,
    ) -> Arc<Overlap> {
        // A shard that Discord has refused publishes nothing, and nobody waits for it.
        let publishing = old.iter().filter(|key| !self.has_ended(**key));
        let old_side = self.side(publishing, self.intents_of(self.layouts.current.generation));
        // After a restart of the process as well: the sessions of the next layout keep theirs.
        let new_side = self.side(new.iter(), self.intents_of(self.layouts.newest().generation));
        let overlap = Overlap::new(old_side, new_side, OverlapLimits::default());
        for entry in old.iter().filter_map(|key| self.entries.get(key)) {
            entry.overlap.attach(&self.hub, &overlap, Side::Old);
        }
        for entry in new.iter().filter_map(|key| self.entries.get(key)) {
            entry.cell.hold();
            entry.overlap.attach(&self.hub, &overlap, Side::New);
        }
        overlap
    }

    fn side<'a>(&self, shards: impl Iterator<Item = &'a ShardKey> + Clone, intents: Intents) -> OverlapSide {
        let first = shards.clone().next().copied();
        let count = first.map_or(self.layouts.current.count, |key| self.count_of(key));
        OverlapSide { shards: shards.map(|key| key.id).collect(), count, intents }
    }

    fn intents_of(&self, generation: u32) -> Intents {
        self.intents.get(&generation).copied().unwrap_or(self.config.settings.intents)
    }

    /// Ends the part of these shards in their overlap.
    pub(crate) fn end_overlap(&mut self, shards: &BTreeSet<ShardKey>) {
        for entry in shards.iter().filter_map(|key| self.entries.get(key)) {
            entry.overlap.detach(&self.hub);
            entry.cell.lift();
        }
    }

    /// Makes a shard send a heartbeat whose acknowledgement is noted under this number.
    pub(crate) fn probe(&self, shards: &BTreeSet<ShardKey>, shard: ShardId, number: u64) {
        let key = shards.iter().find(|key| key.id == shard);
        if let Some(actor) = key.and_then(|key| self.actor(*key)) {
            let _ = actor.cast(ShardMessage::Probe(number));
        }
    }

    pub(crate) fn runs(&self, shard: ShardKey) -> bool {
        self.entries.contains_key(&shard)
    }

    pub(crate) fn ids_of(&self, generation: u32) -> BTreeSet<ShardId> {
        self.entries.keys().filter(|key| key.generation == generation).map(|key| key.id).collect()
    }

    /// How many shards of a group in a generation are here and have a session.
    pub(crate) fn with_session(&self, group: u32, generation: u32) -> usize {
        let keys = self.group(group, generation);
        let entries = keys.iter().filter_map(|key| self.entries.get(key));
        entries.filter(|entry| entry.cell.load().is_some()).count()
    }

    /// Whether a shard is connected, and its session goes on.
    pub(crate) fn is_ready(&self, shard: ShardKey) -> bool {
        self.entries.get(&shard).is_some_and(|entry| entry.board.activity().0)
    }

    /// The sessions of these shards, with what each has delivered.
    pub(crate) fn sessions_of(&self, shards: &BTreeSet<ShardKey>) -> Vec<(ShardKey, Session)> {
        let session = |key: &ShardKey| Some((*key, self.entries.get(key)?.cell.load()?));
        shards.iter().filter_map(session).collect()
    }

    /// Whether a shard's deliveries are acknowledged as far as this state of its session. What a lost session
    /// has delivered cannot be delivered again, and is not waited for.
    pub(crate) fn has_acknowledged(&self, shard: ShardKey, session: &Session) -> bool {
        let acknowledged = self.entries.get(&shard).and_then(|entry| entry.cell.load_acknowledged());
        acknowledged.is_none_or(|now| now.id != session.id || now.sequence >= session.sequence)
    }

    /// Whether everything that a shard has delivered is acknowledged.
    pub(crate) fn is_settled(&self, shard: ShardKey) -> bool {
        let Some(entry) = self.entries.get(&shard) else { return true };
        let sequence = |session: Option<shardkeeper_proto::Session>| session.map(|session| session.sequence);
        sequence(entry.cell.load()) == sequence(entry.cell.load_acknowledged())
    }

    /// Whether Discord has refused a shard because of the shard count of the present layout.
    pub(crate) fn is_refused(&self) -> bool {
        self.table().layout.refused
    }
}
