//! In what the gateway differs from Discord's, each told once: of thousands of shards every one meets the same.

use std::sync::{Mutex, PoisonError};

use shardkeeper_proto::ShardId;
use shardkeeper_proto::shard::Oddity;

/// What the log has been told. Shared by all shards of a manager.
#[derive(Debug, Default)]
pub(crate) struct Oddities(Mutex<Vec<Oddity>>);

impl Oddities {
    pub(crate) fn tell(&self, shard: ShardId, oddity: Oddity) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(&oddity) {
            return;
        }
        told.push(oddity);
        drop(told);
        tracing::warn!(
            shard.id = shard.0,
            "the gateway differs from discord's: {oddity}. Said once, for all shards"
        );
    }
}
