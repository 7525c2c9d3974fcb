//! Shards that are added, removed and restarted.

use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use shardkeeper_proto::{Session, ShardId};

use super::{ManagerState, Removal};
use crate::error::{ManagerEnded, ShardChangeError};
use crate::message::{ManagerMessage, RestartBy, ShutdownMode};
use crate::session::KeeperMessage;

impl ManagerState {
    pub(super) async fn add_shards(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        ids: &[ShardId],
        sessions: Vec<Session>,
    ) -> Result<Result<(), ShardChangeError>, ActorProcessingErr> {
        let fleet = match &mut self.fleet {
            _ if self.stopping.is_some() => return Ok(Err(ManagerEnded.into())),
            None => return Ok(Err(ShardChangeError::Starting)),
            Some(fleet) => fleet,
        };
        let added = match fleet.shards.add(ids, sessions, self.presence.as_ref()) {
            Ok(added) => added,
            Err(rejected) => return Ok(Err(rejected)),
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
        let begun = match &mut self.fleet {
            _ if self.stopping.is_some() => Err(ManagerEnded.into()),
            None => Err(ShardChangeError::Starting),
            Some(fleet) => fleet.shards.begin_removal(ids, mode).map(|shards| (fleet, shards)),
        };
        match begun {
            Ok((fleet, shards)) => {
                tracing::info!(shards = shards.len(), "removing shards");
                fleet.last_removal += 1;
                let number = fleet.last_removal;
                fleet.removals.push(Removal { number, shards, mode, overdue: false, reply });
                myself.send_after(self.config.settings.shutdown_timeout, move || {
                    ManagerMessage::RemovalDeadline(number)
                });
                self.finish_removals();
            }
            Err(rejected) => drop(reply.send(Err(rejected))),
        }
    }

    /// Lets go of the shards that have closed, and answers for removals that are complete.
    pub(super) fn finish_removals(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        if fleet.removals.is_empty() || self.stopping.is_some() {
            return;
        }
        let shards = &mut fleet.shards;
        let is_complete =
            |removal: &Removal| removal.shards.iter().all(|shard| shards.has_left(*shard, removal.overdue));
        let complete: Vec<_> = fleet.removals.extract_if(.., |removal| is_complete(removal)).collect();
        for Removal { shards: left, mode, reply, .. } in complete {
            let mut sessions: Vec<_> = left.into_iter().filter_map(|shard| shards.remove(shard)).collect();
            if mode == ShutdownMode::Stop {
                // One that was killed at the deadline has given up nothing; nobody is to resume it all the same.
                sessions.clear();
            }
            let _ = reply.send(Ok(sessions));
        }
        // The last one that the others waited for may be gone.
        self.announce_if_all_ready();
    }

    pub(super) fn removal_deadline(&mut self, number: u64) {
        let Some(fleet) = &mut self.fleet else { return };
        for removal in fleet.removals.iter_mut().filter(|removal| removal.number == number) {
            removal.overdue = true;
            removal.shards.iter().for_each(|shard| fleet.shards.kill(*shard));
        }
        self.finish_removals();
    }

    pub(super) async fn restart_shard(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        by: RestartBy,
    ) -> Result<Result<(), ShardChangeError>, ActorProcessingErr> {
        let fleet = match &mut self.fleet {
            _ if self.stopping.is_some() => return Ok(Err(ManagerEnded.into())),
            None => return Ok(Err(ShardChangeError::Starting)),
            Some(fleet) => fleet,
        };
        match fleet.shards.restart(shard, by) {
            Ok(true) => fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?,
            Ok(false) => {}
            Err(rejected) => return Ok(Err(rejected)),
        }
        Ok(Ok(()))
    }
}
