//! What one incarnation of a shard's actor leaves behind for the manager.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ractor::ActorRef;
use shardkeeper_proto::ShardId;
use shardkeeper_proto::shard::FatalClose;

use crate::message::{Incarnation, ManagerMessage, ShardReport};

/// How an incarnation ended, other than by a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it was told.
    Told,
    /// Discord refuses the shard.
    Refused(FatalClose),
}

/// One incarnation of a shard's actor. Whatever the manager must know at its end is written here before it is reported:
/// ractor serves the news of an actor's end before the actor's last messages, so a report alone would come too late.
#[derive(Debug, Default)]
pub(crate) struct Life {
    incarnation: Incarnation,
    was_ready: AtomicBool,
    refusal: OnceLock<FatalClose>,
    is_over: AtomicBool,
}

/// How many drivers of a shard there are: one that was killed runs on to its next wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drivers(Arc<AtomicUsize>);

impl Drivers {
    pub(crate) fn begin(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        manager: ActorRef<ManagerMessage>,
    ) -> Running {
        self.0.fetch_add(1, Ordering::AcqRel);
        Running { drivers: self.clone(), shard, incarnation, manager }
    }

    pub(crate) fn are_gone(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// Held by a driver until it is gone, and its connection with it.
#[derive(Debug)]
pub(crate) struct Running {
    drivers: Drivers,
    shard: ShardId,
    incarnation: Incarnation,
    manager: ActorRef<ManagerMessage>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drivers.0.fetch_sub(1, Ordering::AcqRel);
        let (shard, incarnation, report) = (self.shard, self.incarnation, ShardReport::DriverGone);
        let _ = self.manager.cast(ManagerMessage::Report { shard, incarnation, report });
    }
}

impl Life {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// Which incarnation it is; 0 before the first.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The shard was in service.
    pub(crate) fn set_ready(&self) {
        self.was_ready.store(true, Ordering::Release);
    }

    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Acquire)
    }

    /// Discord refuses the shard.
    pub(crate) fn refuse(&self, refusal: FatalClose) {
        // Only the first one counts: the machine ends with it.
        let _ = self.refusal.set(refusal);
    }

    /// The driver is gone, and nothing else is left to do.
    pub(crate) fn set_over(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// How it ended, or is about to end; `None` as long as it goes on, and for a crash.
    pub(crate) fn end(&self) -> Option<End> {
        match self.refusal.get() {
            Some(refusal) => Some(End::Refused(*refusal)),
            None => self.is_over().then_some(End::Told),
        }
    }
}
