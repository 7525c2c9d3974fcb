//! Logs each difference from Discord's gateway once, since all of thousands of shards meet the same ones.

use std::sync::{Mutex, PoisonError};

use shardkeeper_proto::ShardId;
use shardkeeper_proto::shard::Oddity;

/// The differences that were logged. All shards of a manager share them.
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
            "the gateway differs from discord's: {oddity} (logged once for all shards)"
        );
    }
}
