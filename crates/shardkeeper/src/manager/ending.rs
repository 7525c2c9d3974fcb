//! The end of a manager, for good or for a successor, within its deadline.

use ractor::{ActorRef, RpcReplyPort};
use shardkeeper_proto::Session;

use super::ManagerState;
use super::phase::{Before, Phase, StartStep, Starting, Stopping};
use crate::dispatch::{Lifecycle, Service};
use crate::error::ExitReason;
use crate::message::{ManagerMessage, ShutdownMode};
use crate::session::KeeperMessage;

impl ManagerState {
    pub(super) fn begin_shutdown(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        mode: ShutdownMode,
        reason: ExitReason,
        caller: Option<RpcReplyPort<Vec<Session>>>,
    ) {
        let before = match std::mem::replace(&mut self.phase, Phase::Starting(Starting::default())) {
            Phase::Starting(starting) => Before::Starting(starting),
            Phase::Running(mut fleet) => {
                fleet.shards.end_all(mode);
                Before::Running(fleet)
            }
            Phase::Stopping(mut stopping) => {
                // The mode stays: a stop does not take back the sessions of a detach that is under way.
                stopping.callers.extend(caller);
                self.phase = Phase::Stopping(stopping);
                return;
            }
        };
        let callers = caller.into_iter().collect();
        self.phase = Phase::Stopping(Stopping { mode, reason, flushing: false, callers, before });
        if let Some(sentinel) = self.sentinel.take() {
            sentinel.stop(None);
        }
        myself.send_after(self.config.settings.shutdown_timeout, || ManagerMessage::ShutdownDeadline);
        self.end_if_all_ended(myself);
    }

    /// Goes on with a shutdown once every shard has ended: the session keeper stores what is left.
    pub(super) fn end_if_all_ended(&mut self, myself: &ActorRef<ManagerMessage>) {
        let Phase::Stopping(stopping) = &mut self.phase else { return };
        match &stopping.before {
            _ if stopping.flushing => {}
            Before::Running(fleet) if !fleet.shards.all_gone() => {}
            Before::Running(_) if self.store.is_some() => {
                stopping.flushing = true;
                self.flush(myself);
            }
            Before::Starting(_) | Before::Running(_) => self.finish_end(myself),
        }
    }

    /// Makes the session keeper store the last state of each session, until the deadline.
    pub(super) fn flush(&self, myself: &ActorRef<ManagerMessage>) {
        let Some(keeper) = self.phase.fleet().and_then(|fleet| fleet.keeper.as_ref()) else {
            let _ = myself.cast(ManagerMessage::Replace(Service::SessionKeeper));
            return;
        };
        let (reply, flushed) = ractor::concurrency::oneshot();
        let _ = keeper.cast(KeeperMessage::Flush(reply.into()));
        let myself = myself.clone();
        tokio::spawn(async move {
            // A keeper that crashes does not answer, and its replacement is asked.
            if flushed.await.is_ok() {
                let _ = myself.cast(ManagerMessage::Flushed);
            }
        });
    }

    /// Ends all use of the session store by the time that the future completes. A save that is under way is
    /// cancelled.
    pub(super) fn close_store(&mut self) -> impl Future<Output = ()> + Send + 'static {
        // Cancelled last: a load may go on in a thread after that, and usually ends by itself within a
        // moment.
        let load = match self.phase.starting_mut() {
            Some(Starting { step: StartStep::AwaitStore { load, .. }, .. }) => load.take(),
            _ => None,
        };
        if let Some(keeper) = self.phase.fleet_mut().and_then(|fleet| fleet.keeper.take()) {
            keeper.kill();
        }
        let store = self.store.take();
        async move {
            if let Some(store) = store {
                store.close().await;
            }
            drop(load);
        }
    }

    /// Finishes a shutdown: closes the session store if it is open, and otherwise ends the manager.
    pub(super) fn finish_end(&mut self, myself: &ActorRef<ManagerMessage>) {
        if self.phase.stopping().is_some() && self.store.is_some() {
            let (closed, myself) = (self.close_store(), myself.clone());
            tokio::spawn(async move {
                closed.await;
                let _ = myself.cast(ManagerMessage::StoreClosed);
            });
            return;
        }
        let Phase::Stopping(stopping) = &mut self.phase else { return };
        let sessions = match (stopping.mode, &stopping.before) {
            (ShutdownMode::Detach, Before::Running(fleet)) => fleet.shards.sessions(),
            // The sessions that the bot was given were not used yet.
            (ShutdownMode::Detach, Before::Starting(_)) => self.config.settings.sessions.clone(),
            (ShutdownMode::Stop, _) => Vec::new(),
        };
        self.live.hub.announce(&Lifecycle::Ended);
        self.live.ended.send_replace(Some(stopping.reason));
        stopping.callers.drain(..).for_each(|reply| drop(reply.send(sessions.clone())));
        myself.stop(None);
    }
}
