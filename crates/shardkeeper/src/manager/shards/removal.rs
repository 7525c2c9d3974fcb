//! Shards that are being removed, from the call to the answer.
//!
//! ```text
//!   begin_removal ──▶ open ─────────────────────────────┬──▶ every shard is gone: answered, and shards forgotten
//!                       └──▶ overdue: shards are killed ┘
//! ```

use std::collections::BTreeSet;

use ractor::RpcReplyPort;
use shardkeeper_proto::{Session, ShardId};

use super::entry::{Entry, Stage};
use super::{Shards, end_message};
use crate::error::ShardChangeError;
use crate::layout::ShardKey;
use crate::message::ShutdownMode;

/// Shards that leave together. Until all of them are gone, each of them belongs to the bot, and a shutdown
/// ends it.
pub(super) struct Removal {
    number: u64,
    shards: BTreeSet<ShardKey>,
    mode: ShutdownMode,
    /// The deadline has passed.
    overdue: bool,
    reply: RpcReplyPort<Result<Vec<Session>, ShardChangeError>>,
}

impl Shards {
    pub(crate) fn is_leaving(&self, shard: ShardKey) -> bool {
        self.removals.iter().any(|removal| removal.shards.contains(&shard))
    }

    /// Checks that all of these shards can be removed, and returns each of them once.
    pub(crate) fn check_removal(&self, ids: &[ShardId]) -> Result<BTreeSet<ShardKey>, ShardChangeError> {
        for &shard in ids {
            let key = self.active(shard);
            if !self.entries.contains_key(&key) {
                return Err(ShardChangeError::NoSuchShard { shard });
            }
            if self.is_leaving(key) {
                return Err(ShardChangeError::Leaving { shard });
            }
        }
        Ok(ids.iter().map(|shard| self.active(*shard)).collect())
    }

    /// Ends shards that [can be removed](Self::check_removal). Returns the number of the removal.
    pub(crate) fn begin_removal(
        &mut self,
        shards: BTreeSet<ShardKey>,
        mode: ShutdownMode,
        reply: RpcReplyPort<Result<Vec<Session>, ShardChangeError>>,
    ) -> u64 {
        for entry in shards.iter().filter_map(|shard| self.entries.get(shard)) {
            if let Stage::Up { actor, .. } = &entry.stage {
                let _ = actor.cast(end_message(mode));
            }
        }
        self.last_removal += 1;
        let number = self.last_removal;
        self.removals.push(Removal { number, shards, mode, overdue: false, reply });
        number
    }

    /// Kills what is left of the shards of a removal whose deadline has passed.
    pub(crate) fn kill_overdue(&mut self, number: u64) {
        let Some(removal) = self.removals.iter_mut().find(|removal| removal.number == number) else { return };
        removal.overdue = true;
        let entries = removal.shards.iter().filter_map(|shard| self.entries.get(shard));
        entries.filter_map(|entry| entry.stage.actor()).for_each(|actor| actor.kill());
    }

    /// Forgets the shards of complete removals, and answers with their sessions. Returns whether any removal
    /// was open.
    pub(crate) fn finish_removals(&mut self) -> bool {
        let were_open = !self.removals.is_empty();
        // A driver that does not come to its end is not waited for beyond the deadline.
        let has_left = |entry: &Entry, overdue| entry.is_gone() || overdue && entry.stage.actor().is_none();
        let is_complete = |removal: &Removal| {
            let mut entries = removal.shards.iter().filter_map(|shard| self.entries.get(shard));
            entries.all(|entry| has_left(entry, removal.overdue))
        };
        let complete: Vec<_> = self.removals.extract_if(.., |removal| is_complete(removal)).collect();
        for Removal { shards, mode, reply, .. } in complete {
            let mut sessions: Vec<_> = shards.into_iter().filter_map(|shard| self.forget(shard)).collect();
            if mode == ShutdownMode::Stop {
                // A shard that was killed at the deadline still has its session, which nobody may resume
                // after a stop.
                sessions.clear();
            }
            let _ = reply.send(Ok(sessions));
        }
        were_open
    }

    /// Forgets a shard, and returns its session as another process can resume it.
    pub(super) fn forget(&mut self, shard: ShardKey) -> Option<Session> {
        let mut table = self.table();
        table.slots.remove(&shard);
        // So the keeper deletes it from the store. A store that could not be read may hold a session of this
        // shard too.
        table.held.insert(shard);
        drop(table);
        self.entries.remove(&shard)?.cell.load_acknowledged()
    }
}
