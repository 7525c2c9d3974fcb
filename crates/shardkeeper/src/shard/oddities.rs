//! Logs each difference from Discord's gateway once, since all of thousands of shards meet the same ones.

use std::sync::{Mutex, PoisonError};

use shardkeeper_proto::shard::Oddity;

use crate::layout::ShardKey;

/// The differences that were logged. All shards of a manager share them.
#[derive(Debug, Default)]
pub(crate) struct Oddities(Mutex<Vec<Oddity>>);

impl Oddities {
    pub(crate) fn log_once(&self, shard: ShardKey, oddity: Oddity) {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.contains(&oddity) {
            return;
        }
        logged.push(oddity);
        drop(logged);
        tracing::warn!(
            shard.id = shard.id.0,
            "the gateway differs from discord's: {oddity} (logged once for all shards)"
        );
    }
}
