//! How shards go from one [stage](super::entry::Stage) of their lives to the next.

use std::time::Instant;

use ractor::ActorId;

use super::super::restart::Restart;
use super::entry::{Entry, Stage};
use super::{Shards, end_message};
use crate::error::ShardChangeError;
use crate::layout::ShardKey;
use crate::message::{Incarnation, RestartBy, ShardMessage, ShutdownMode};
use crate::shard::life::End;

impl Shards {
    pub(crate) fn is_current(&self, shard: ShardKey, incarnation: Incarnation) -> bool {
        self.incarnation(shard) == Some(incarnation)
    }

    pub(crate) fn incarnation(&self, shard: ShardKey) -> Option<Incarnation> {
        self.entries.get(&shard).map(|entry| entry.life.incarnation())
    }

    /// Whether a shard that crashed in this incarnation still waits for its restart.
    pub(crate) fn awaits_restart(&self, shard: ShardKey, incarnation: Incarnation) -> bool {
        let is_down = |entry: &Entry| matches!(entry.stage, Stage::Down);
        self.is_current(shard, incarnation)
            && self.entries.get(&shard).is_some_and(is_down)
            && !self.is_leaving(shard)
    }

    /// Makes a shard open another connection. Returns `true` if the shard has no actor in service, so that
    /// the caller has to spawn one.
    pub(crate) fn restart(&mut self, shard: ShardKey, by: RestartBy) -> Result<bool, ShardChangeError> {
        if self.is_leaving(shard) {
            return Err(ShardChangeError::Leaving { shard: shard.id });
        }
        let entry = self.entries.get_mut(&shard).ok_or(ShardChangeError::NoSuchShard { shard: shard.id })?;
        if let Stage::Up { actor, .. } = &entry.stage {
            let _ = actor.cast(ShardMessage::Restart(by));
            return Ok(false);
        }
        // Discord refused the shard, or it waits for its restart after a crash.
        if by == RestartBy::Identify {
            self.last_incarnation += 1;
            entry.cell.empty(self.last_incarnation);
        }
        Ok(true)
    }

    /// Returns whose actor this was, now that it has ended or crashed.
    pub(crate) fn actor_gone(&mut self, actor: ActorId) -> Option<ShardKey> {
        let is_it = |entry: &Entry| entry.stage.actor().is_some_and(|known| known.get_id() == actor);
        let (shard, entry) = self.entries.iter_mut().find(|(_, entry)| is_it(entry))?;
        entry.stage.drop_actor();
        let shard = *shard;
        self.gives_up_no_more(shard);
        Some(shard)
    }

    /// How a shard has ended or is about to end, and takes it out of service. `None` if the shard goes on or
    /// has crashed, and if this was returned before.
    pub(crate) fn take_end(&mut self, shard: ShardKey) -> Option<End> {
        let entry = self.entries.get_mut(&shard).filter(|entry| !entry.stage.has_ended())?;
        let end = entry.life.end()?;
        entry.stage.end();
        Some(end)
    }

    /// Takes a shard out of service that was ordered to end, even if it crashed instead. After a stop its
    /// session is given up.
    pub(crate) fn set_ended(&mut self, shard: ShardKey, mode: ShutdownMode) {
        if let Some(entry) = self.entries.get_mut(&shard) {
            entry.stage.end();
            if mode == ShutdownMode::Stop {
                self.last_incarnation += 1;
                entry.cell.empty(self.last_incarnation);
            }
        }
    }

    pub(crate) fn crashed(&mut self, now: Instant, shard: ShardKey, error: &str, random: f64) -> Restart {
        let restart = self.restarts.crashed(now, shard, random);
        if let Some(entry) = self.entries.get(&shard) {
            entry.board.crashed(now, error, restart.quarantined);
        }
        restart
    }

    /// Orders every shard to end. A shard without an actor has ended at once.
    pub(crate) fn end_all(&mut self, mode: ShutdownMode) {
        self.last_incarnation += 1;
        for entry in self.entries.values_mut() {
            if entry.stage.actor().is_some_and(|actor| actor.cast(end_message(mode)).is_ok()) {
                continue;
            }
            entry.stage.end();
            if mode == ShutdownMode::Stop {
                entry.cell.empty(self.last_incarnation);
            }
        }
    }

    pub(crate) fn kill_all(&self) {
        self.for_each_actor(|actor| actor.kill());
    }

    pub(crate) fn has_ended(&self, shard: ShardKey) -> bool {
        self.entries.get(&shard).is_none_or(|entry| entry.stage.has_ended())
    }

    /// Whether all shards have ended, and none has anything left to do.
    pub(crate) fn all_gone(&self) -> bool {
        self.entries.values().all(|entry| entry.stage.has_ended() && entry.is_gone())
    }

    pub(crate) fn all_were_ready(&self, generation: u32) -> bool {
        self.of_generation(generation).all(Entry::was_ready)
    }

    /// Whether the layout in use is wrong as a whole: Discord has refused a shard of it, and no shard was ever
    /// ready or none is left.
    pub(crate) fn is_wrong_as_a_whole(&self, generation: u32) -> bool {
        let has_ended = |entry: &Entry| entry.stage.has_ended();
        generation == self.layouts.current.generation
            && (!self.of_generation(generation).any(Entry::was_ready)
                || self.of_generation(generation).all(has_ended))
    }
}
