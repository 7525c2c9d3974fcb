//! Children that broke down, and when there is another one.

use std::sync::Arc;

use ractor::{ActorCell, ActorProcessingErr, ActorRef};
use shardkeeper_proto::ShardId;

use super::{Fleet, ManagerState, now};
use crate::dispatch::{Lifecycle, Service};
use crate::message::{Incarnation, ManagerMessage, QueueMessage, ShardMessage, ShutdownMode};

impl ManagerState {
    pub(super) async fn child_ended(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        child: &ActorCell,
        error: String,
    ) -> Result<(), ActorProcessingErr> {
        if self.sentinel.as_ref().is_some_and(|sentinel| sentinel.get_id() == child.get_id()) {
            return self.service_crashed(myself, Service::ReshardSentinel, error).await;
        }
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        if child.get_id() == fleet.queue.get_id() {
            return self.service_crashed(myself, Service::IdentifyQueue, error).await;
        }
        if fleet.keeper.as_ref().is_some_and(|keeper| keeper.get_id() == child.get_id()) {
            fleet.keeper = None;
            return self.service_crashed(myself, Service::SessionKeeper, error).await;
        }
        let Some(shard) = fleet.shards.lost(child.get_id()) else { return Ok(()) };
        let Some(incarnation) = fleet.shards.incarnation(shard) else { return Ok(()) };
        let _ = fleet.queue.cast(QueueMessage::Gone { shard, incarnation });
        self.shard_ended(myself, shard);
        let mode = self.stopping.as_ref().map(|stopping| stopping.mode);
        let Some(fleet) = self.fleet.as_mut().filter(|fleet| !fleet.shards.has_ended(shard)) else {
            return Ok(());
        };
        if fleet.shards.is_leaving(shard) || mode.is_some() {
            fleet.shards.set_ended(shard, mode.unwrap_or(ShutdownMode::Detach));
            self.finish_removals();
            self.end_if_all_ended(myself);
            return Ok(());
        }
        let restart = fleet.shards.crashed(now(), shard, &error, self.random.f64());
        self.live.hub.announce(&Lifecycle::Crashed {
            shard,
            error,
            restart_after: restart.after,
            quarantined: restart.quarantined,
        });
        if restart.after.is_zero() {
            return self.restart(myself, shard, incarnation).await;
        }
        myself.send_after(restart.after, move || ManagerMessage::Restart { shard, incarnation });
        Ok(())
    }

    pub(super) async fn restart(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        incarnation: Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        match &mut self.fleet {
            Some(fleet) if self.stopping.is_none() && fleet.shards.awaits_restart(shard, incarnation) => {
                fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await
            }
            _ => Ok(()),
        }
    }

    /// A child that serves all shards broke down: it is replaced at once, unless it does so again and again.
    pub(super) async fn service_crashed(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        service: Service,
        error: String,
    ) -> Result<(), ActorProcessingErr> {
        let restart_after = self.services.crashed(now(), service, self.random.f64()).after;
        self.live.hub.announce(&Lifecycle::ServiceCrashed { service, error, restart_after });
        if restart_after.is_zero() {
            return self.replace(myself, service).await;
        }
        myself.send_after(restart_after, move || ManagerMessage::Replace(service));
        Ok(())
    }

    pub(super) async fn replace(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        service: Service,
    ) -> Result<(), ActorProcessingErr> {
        // At the end the session keeper alone is still needed.
        if self.stopping.is_some() && service != Service::SessionKeeper {
            return Ok(());
        }
        match (service, &self.fleet) {
            (Service::ReshardSentinel, _) => self.sentinel = Some(self.spawn_sentinel(myself).await?),
            (_, None) => {}
            (Service::IdentifyQueue, Some(fleet)) => {
                let queue = self.spawn_queue(myself, &fleet.info, &fleet.ledger).await?;
                let tell = |actor: &ActorRef<_>| drop(actor.cast(ShardMessage::QueueReplaced(queue.clone())));
                fleet.shards.for_each_actor(tell);
                self.fleet.iter_mut().for_each(|fleet| fleet.queue = queue.clone());
            }
            // An end that could not wait has brought it forward, or does not need it any more.
            (Service::SessionKeeper, Some(Fleet { keeper: Some(_), .. })) => {}
            (Service::SessionKeeper, _) if self.store.is_none() => {}
            (Service::SessionKeeper, Some(fleet)) => {
                // Nor is known what the old one has stored.
                let book = Arc::clone(&fleet.book);
                let keeper = self.spawn_keeper(myself, &book).await?;
                self.fleet.iter_mut().for_each(|fleet| fleet.keeper = keeper.clone());
                if self.stopping.as_ref().is_some_and(|stopping| stopping.flushing) {
                    self.flush(myself);
                }
            }
        }
        Ok(())
    }
}
