//! The tools of a driver, and the actors it talks to.

use std::sync::Arc;

use ractor::ActorRef;
use shardkeeper_transport::Connector;
use tokio::sync::watch;

use super::PresenceFn;
use super::board::StatusBoard;
use super::life::Life;
use super::oddities::Oddities;
use super::pacer::Pacer;
use super::rate::Warnings;
use super::tap::Tap;
use crate::command::Calls;
use crate::dispatch::Publisher;
use crate::identify::IdentifyLedger;
use crate::layout::ShardKey;
use crate::message::{Incarnation, ManagerMessage, QueueMessage, ShardMessage};
use crate::session::SessionCell;

/// The tools that a driver works with.
pub(crate) struct Parts {
    pub(crate) shard: ShardKey,
    pub(crate) life: Arc<Life>,
    pub(crate) connector: Connector,
    pub(crate) pacer: Arc<Pacer>,
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) publisher: Publisher,
    pub(crate) cell: Arc<SessionCell>,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) oddities: Arc<Oddities>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) presence_fn: Option<PresenceFn>,
    pub(crate) ledger: Arc<IdentifyLedger>,
    pub(crate) random: fastrand::Rng,
    pub(crate) tap: Option<Arc<Tap>>,
    /// Whether to connect again when a connection ends.
    pub(crate) reconnect: bool,
}

impl Parts {
    pub(super) fn incarnation(&self) -> Incarnation {
        self.life.incarnation()
    }
}

/// The actors that a driver talks to.
pub(super) struct Peers {
    pub(super) actor: ActorRef<ShardMessage>,
    pub(super) manager: ActorRef<ManagerMessage>,
    pub(super) queue: watch::Receiver<ActorRef<QueueMessage>>,
}

impl Peers {
    /// Sends a message to the identify queue. The message is lost if the queue is gone; the manager then
    /// starts a new queue, and the driver asks that one.
    pub(super) fn ask(&self, message: QueueMessage) {
        let _ = self.queue.borrow().cast(message);
    }

    /// Sends a message to the shard's actor. The message is lost if the actor is gone, and then this driver
    /// is about to end.
    pub(super) fn report(&self, message: ShardMessage) {
        let _ = self.actor.cast(message);
    }
}
