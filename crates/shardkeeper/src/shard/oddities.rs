//! In what the gateway differs from Discord's, each logged once: of thousands of shards every one meets the same.

use std::sync::{Mutex, PoisonError};

use shardkeeper_proto::ShardId;
use shardkeeper_proto::shard::Oddity;

/// What was logged. Shared by all shards of a manager.
#[derive(Debug, Default)]
pub(crate) struct Oddities(Mutex<Vec<Oddity>>);

impl Oddities {
    pub(crate) fn log_once(&self, shard: ShardId, oddity: Oddity) {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.contains(&oddity) {
            return;
        }
        logged.push(oddity);
        drop(logged);
        tracing::warn!(
            shard.id = shard.0,
            "the gateway differs from discord's: {oddity}. Said once, for all shards"
        );
    }
}
