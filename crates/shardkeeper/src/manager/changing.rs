//! Shards that are added, removed and restarted while the manager runs.

use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use shardkeeper_proto::{Session, ShardId};

use super::ManagerState;
use super::phase::Phase;
use crate::error::ShardChangeError;
use crate::message::{ManagerMessage, RestartBy, ShutdownMode};
use crate::session::KeeperMessage;

impl ManagerState {
    pub(super) async fn add_shards(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        ids: &[ShardId],
        sessions: Vec<Session>,
    ) -> Result<Result<(), ShardChangeError>, ActorProcessingErr> {
        if self.is_resharding() {
            return Ok(Err(ShardChangeError::Resharding));
        }
        let added = self.phase.changeable().and_then(|fleet| {
            let added = fleet.shards.add(ids, sessions, self.presence.as_ref())?;
            Ok((fleet, added))
        });
        let (fleet, added) = match added {
            Ok(added) => added,
            Err(error) => return Ok(Err(error)),
        };
        tracing::info!(shards = added.len(), "adding shards");
        for shard in added {
            fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?;
        }
        if let Some(keeper) = &fleet.keeper {
            let _ = keeper.cast(KeeperMessage::LookNow);
        }
        Ok(Ok(()))
    }

    pub(super) fn remove_shards(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        ids: &[ShardId],
        mode: ShutdownMode,
        reply: RpcReplyPort<Result<Vec<Session>, ShardChangeError>>,
    ) {
        if self.is_resharding() {
            let _ = reply.send(Err(ShardChangeError::Resharding));
            return;
        }
        let checked = self.phase.changeable().and_then(|fleet| {
            let ids = fleet.shards.check_removal(ids)?;
            Ok((fleet, ids))
        });
        match checked {
            Ok((fleet, ids)) => {
                tracing::info!(shards = ids.len(), "removing shards");
                let number = fleet.shards.begin_removal(ids, mode, reply);
                myself.send_after(self.config.settings.shutdown_timeout, move || {
                    ManagerMessage::RemovalDeadline(number)
                });
                self.finish_removals();
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Answers removals whose shards are gone.
    pub(super) fn finish_removals(&mut self) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        if fleet.shards.finish_removals() {
            // The others may have waited only for a shard that is gone now.
            self.announce_if_all_ready();
        }
    }

    pub(super) fn removal_deadline(&mut self, number: u64) {
        let Some(fleet) = self.phase.fleet_mut() else { return };
        fleet.shards.kill_overdue(number);
        self.finish_removals();
    }

    pub(super) async fn restart_shard(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        by: RestartBy,
    ) -> Result<Result<(), ShardChangeError>, ActorProcessingErr> {
        let fleet = match self.phase.changeable() {
            Ok(fleet) => fleet,
            Err(error) => return Ok(Err(error)),
        };
        let shard = fleet.shards.active(shard);
        match fleet.shards.restart(shard, by) {
            Ok(true) => fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?,
            Ok(false) => {}
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }
}
