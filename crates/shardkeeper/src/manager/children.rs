//! Children that have ended or crashed, and when they are started again.

use std::sync::Arc;

use ractor::{ActorCell, ActorId, ActorProcessingErr, ActorRef};

use super::phase::{Fleet, Phase};
use super::{ManagerState, now};
use crate::dispatch::{Lifecycle, Service};
use crate::layout::ShardKey;
use crate::message::{Incarnation, ManagerMessage, QueueMessage, ShardMessage, ShutdownMode};

impl ManagerState {
    pub(super) async fn child_ended(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        child: &ActorCell,
        error: String,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(service) = self.service(child.get_id()) {
            return self.service_crashed(myself, service, error).await;
        }
        let Some(fleet) = self.phase.fleet_mut() else { return Ok(()) };
        let Some(shard) = fleet.shards.actor_gone(child.get_id()) else { return Ok(()) };
        let Some(incarnation) = fleet.shards.incarnation(shard) else { return Ok(()) };
        let _ = fleet.queue.cast(QueueMessage::Gone { shard, incarnation });
        self.shard_ended(myself, shard);
        let mode = self.phase.stopping().map(|stopping| stopping.mode);
        let Some(fleet) = self.phase.fleet_mut().filter(|fleet| !fleet.shards.has_ended(shard)) else {
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
            shard: shard.id,
            generation: shard.generation,
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

    /// Which service this child was. A session keeper is forgotten, since a shutdown asks it only while it
    /// runs.
    fn service(&mut self, child: ActorId) -> Option<Service> {
        if self.sentinel.as_ref().is_some_and(|sentinel| sentinel.get_id() == child) {
            return Some(Service::ReshardSentinel);
        }
        let fleet = self.phase.fleet_mut()?;
        if fleet.queue.get_id() == child {
            return Some(Service::IdentifyQueue);
        }
        fleet.keeper.take_if(|keeper| keeper.get_id() == child)?;
        Some(Service::SessionKeeper)
    }

    /// Starts a shard again that crashed in this incarnation, unless it was restarted, removed or stopped
    /// since.
    pub(super) async fn restart(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardKey,
        incarnation: Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        match &mut self.phase {
            Phase::Running(fleet) if fleet.shards.awaits_restart(shard, incarnation) => {
                fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await
            }
            _ => Ok(()),
        }
    }

    /// Replaces a service that crashed: at once, or after a wait if it crashes again and again.
    async fn service_crashed(
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
        match (service, &self.phase) {
            (Service::SessionKeeper, _) => return self.replace_keeper(myself).await,
            // Only the session keeper is needed during a shutdown.
            (_, Phase::Stopping(_)) => {}
            (Service::ReshardSentinel, _) => self.sentinel = Some(self.spawn_sentinel(myself).await?),
            (Service::IdentifyQueue, Phase::Running(fleet)) => {
                let queue = self.spawn_queue(myself, &fleet.info, &fleet.ledger).await?;
                let Phase::Running(fleet) = &mut self.phase else { return Ok(()) };
                fleet.queue = queue.clone();
                let announce =
                    |actor: &ActorRef<_>| drop(actor.cast(ShardMessage::QueueReplaced(queue.clone())));
                fleet.shards.for_each_actor(announce);
            }
            (Service::IdentifyQueue, Phase::Starting(_)) => {}
        }
        Ok(())
    }

    async fn replace_keeper(&mut self, myself: &ActorRef<ManagerMessage>) -> Result<(), ActorProcessingErr> {
        // A shutdown that could not wait has replaced the keeper already, or has closed the store.
        let (Some(store), Some(Fleet { keeper: None, table, .. })) = (self.store.clone(), self.phase.fleet())
        else {
            return Ok(());
        };
        let keeper = self.spawn_keeper(myself, store, Arc::clone(table)).await?;
        if let Some(fleet) = self.phase.fleet_mut() {
            fleet.keeper = Some(keeper);
        }
        if self.phase.stopping().is_some_and(|stopping| stopping.flushing) {
            self.flush(myself);
        }
        Ok(())
    }
}
