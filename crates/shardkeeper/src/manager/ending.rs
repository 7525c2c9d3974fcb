//! The end, for good or for a successor, within its deadline.

use ractor::{ActorRef, RpcReplyPort};
use shardkeeper_proto::Session;

use super::{ManagerState, Stopping};
use crate::dispatch::{Lifecycle, Service};
use crate::error::ExitReason;
use crate::message::{ManagerMessage, ShutdownMode};
use crate::session::KeeperMessage;

impl ManagerState {
    pub(super) fn begin_shutdown(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        mode: ShutdownMode,
        outcome: ExitReason,
        reply: Option<RpcReplyPort<Vec<Session>>>,
    ) {
        if let Some(stopping) = &mut self.stopping {
            // It is under way; a stop on top of a detach does not take the sessions back.
            stopping.replies.extend(reply);
            return;
        }
        self.stopping =
            Some(Stopping { mode, outcome, flushing: false, replies: reply.into_iter().collect() });
        if let Some(sentinel) = self.sentinel.take() {
            sentinel.stop(None);
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.shards.end_all(mode);
        }
        myself.send_after(self.config.settings.shutdown_timeout, || ManagerMessage::ShutdownDeadline);
        self.end_if_all_ended(myself);
    }

    pub(super) fn end_if_all_ended(&mut self, myself: &ActorRef<ManagerMessage>) {
        let ended = self.fleet.as_ref().is_none_or(|fleet| fleet.shards.all_gone());
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| ended && !stopping.flushing) else {
            return;
        };
        if self.fleet.is_none() || self.store.is_none() {
            self.finish_end(myself);
            return;
        }
        stopping.flushing = true;
        self.flush(myself);
    }

    /// The last word on each session goes into the store; until the deadline.
    pub(super) fn flush(&self, myself: &ActorRef<ManagerMessage>) {
        let Some(keeper) = self.fleet.as_ref().and_then(|fleet| fleet.keeper.as_ref()) else {
            let _ = myself.cast(ManagerMessage::Replace(Service::SessionKeeper));
            return;
        };
        let (reply, flushed) = ractor::concurrency::oneshot();
        let _ = keeper.cast(KeeperMessage::Flush(reply.into()));
        let myself = myself.clone();
        tokio::spawn(async move {
            // From one that breaks down there is no answer, and the next one is asked.
            if flushed.await.is_ok() {
                let _ = myself.cast(ManagerMessage::Flushed);
            }
        });
    }

    /// Ends all use of the store, at the latest when the future completes. A save that is under way is cancelled.
    pub(super) fn close_store(&mut self) -> impl Future<Output = ()> + Send + 'static {
        // A load that is cancelled might go on in a thread, and it is over soon.
        let loading = self.loading.take();
        if let Some(keeper) = self.fleet.as_mut().and_then(|fleet| fleet.keeper.take()) {
            keeper.kill();
        }
        let store = self.store.take();
        async move {
            if let Some(store) = store {
                store.close().await;
            }
            drop(loading);
        }
    }

    pub(super) fn finish_end(&mut self, myself: &ActorRef<ManagerMessage>) {
        if self.stopping.is_some() && self.store.is_some() {
            let (closed, myself) = (self.close_store(), myself.clone());
            tokio::spawn(async move {
                closed.await;
                let _ = myself.cast(ManagerMessage::StoreClosed);
            });
            return;
        }
        let Some(stopping) = &mut self.stopping else { return };
        let sessions = match (stopping.mode, &self.fleet) {
            (ShutdownMode::Detach, Some(fleet)) => fleet.shards.sessions(),
            // Stopped before it had begun: what it was given is as good as before.
            (ShutdownMode::Detach, None) => self.config.settings.sessions.clone(),
            (ShutdownMode::Stop, _) => Vec::new(),
        };
        self.live.hub.announce(&Lifecycle::Ended);
        self.live.ended.send_replace(Some(stopping.outcome));
        stopping.replies.drain(..).for_each(|reply| drop(reply.send(sessions.clone())));
        myself.stop(None);
    }
}
