//! The record of one incarnation of a shard's actor, for the manager.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ractor::ActorRef;
use shardkeeper_proto::shard::FatalClose;

use crate::layout::ShardKey;
use crate::message::{Incarnation, ManagerMessage, ShardReport};

/// How an incarnation ended, other than by a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The shard ended on request.
    Requested,
    /// Discord refuses the shard.
    Refused(FatalClose),
}

/// One incarnation of a shard's actor. What the manager must know when the actor ends is written here before
/// it is reported: ractor delivers the end of an actor before the actor's last messages, so a report would
/// come too late.
#[derive(Debug, Default)]
pub(crate) struct Life {
    incarnation: Incarnation,
    was_ready: AtomicBool,
    refusal: OnceLock<FatalClose>,
    is_over: AtomicBool,
}

/// The number of running drivers of a shard. A driver that was aborted runs on until its next wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drivers(Arc<AtomicUsize>);

impl Drivers {
    pub(crate) fn begin(
        &self,
        shard: ShardKey,
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

/// Held by a driver until the driver and its connection are gone.
#[derive(Debug)]
pub(crate) struct Running {
    drivers: Drivers,
    shard: ShardKey,
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

    /// The number of the incarnation; 0 before the first.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Records that the shard was ready.
    pub(crate) fn set_ready(&self) {
        self.was_ready.store(true, Ordering::Release);
    }

    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Acquire)
    }

    /// Records that Discord refuses the shard.
    pub(crate) fn refuse(&self, refusal: FatalClose) {
        // Only the first refusal counts: the machine ends with it.
        let _ = self.refusal.set(refusal);
    }

    /// Records that the driver has ended and nothing remains to be done.
    pub(crate) fn set_over(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// How the incarnation ended or is about to end; `None` while it runs, and after a crash.
    pub(crate) fn end(&self) -> Option<End> {
        match self.refusal.get() {
            Some(refusal) => Some(End::Refused(*refusal)),
            None => self.is_over().then_some(End::Requested),
        }
    }
}
