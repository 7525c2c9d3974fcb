//! State of identifying that survives the crash of any actor: the budget, the last Identify, and the permits
//! that are out.
//!
//! Input: the queue grants and revokes permits, drivers take and spend them, the manager reports the
//! gateway's budget. Output: the same state for the current queue, the session keeper and the status. The
//! driver that writes an Identify counts it here, so no message about it can be lost, doubled or late.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ractor::{ActorId, ActorRef};
use shardkeeper_proto::IdentifyBudget;

use crate::gate::IdentifyPass;
use crate::layout::ShardKey;
use crate::message::{Incarnation, QueueMessage};
use crate::status::IdentifyStatus;

/// Ledger of one bot, shared by the manager, the identify queue, the session keeper and every driver.
#[derive(Debug)]
pub(crate) struct IdentifyLedger {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    budget: IdentifyBudget,
    sent: u64,
    last_identify: Option<Instant>,
    /// At most one permit per shard. The queue adds and removes permits; a driver only changes their stage.
    permits: BTreeMap<ShardKey, Permit>,
    /// Number of waiting shards that the queue last reported.
    waiting: usize,
    max_concurrency: u32,
    /// The queue that is woken when a permit is over.
    queue: Option<ActorRef<QueueMessage>>,
}

#[derive(Debug)]
struct Permit {
    incarnation: Incarnation,
    stage: Stage,
    /// Pass of the identify gate; `None` without a gate.
    pass: Option<IdentifyPass>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// On its way to the driver. The queue can still revoke it.
    Granted,
    /// Held by the driver, which is then the only one to decide whether it is used.
    Taken,
    /// Over: the Identify was written no later than this time, or the permit was not used (`None`).
    Over(Option<Instant>),
}

impl State {
    fn is_open(&self, queue: ActorId) -> bool {
        self.queue.as_ref().is_some_and(|open| open.get_id() == queue)
    }

    fn remove_if(&mut self, gone: impl Fn(&Permit) -> bool) -> BTreeMap<ShardKey, Permit> {
        let permits = std::mem::take(&mut self.permits);
        let (gone, kept) = permits.into_iter().partition(|(_, permit)| gone(permit));
        self.permits = kept;
        gone
    }
}

impl IdentifyLedger {
    pub(crate) fn new(budget: IdentifyBudget, last_identify: Option<Instant>) -> Self {
        let state = State {
            budget,
            sent: 0,
            last_identify,
            permits: BTreeMap::new(),
            waiting: 0,
            max_concurrency: 0,
            queue: None,
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn budget(&self) -> IdentifyBudget {
        self.state().budget
    }

    /// Time of the last known Identify.
    pub(crate) fn last_identify(&self) -> Option<Instant> {
        self.state().last_identify
    }

    /// Takes over the budget in an answer of `GET /gateway/bot`.
    pub(crate) fn reconcile(&self, now: Instant, reported: IdentifyBudget) {
        self.state().budget.reconcile(now, reported);
    }

    pub(crate) fn status(&self) -> IdentifyStatus {
        let state = self.state();
        IdentifyStatus {
            waiting: state.waiting,
            sent: state.sent,
            remaining: state.budget.remaining(),
            total: state.budget.total(),
            max_concurrency: state.max_concurrency,
        }
    }

    /// Stores the queue's part of the status.
    pub(crate) fn report(&self, waiting: usize, max_concurrency: u32) {
        let mut state = self.state();
        (state.waiting, state.max_concurrency) = (waiting, max_concurrency);
    }

    /// Registers the queue that is to be woken, and returns the shards whose drivers still hold a permit of
    /// the previous queue.
    pub(crate) fn open(&self, queue: ActorRef<QueueMessage>) -> Vec<ShardKey> {
        self.revoke_all();
        let mut state = self.state();
        state.queue = Some(queue);
        state.permits.keys().copied().collect()
    }

    /// Unregisters a queue that ends. Its permits that no driver has taken are revoked, unless a later queue
    /// is registered already.
    pub(crate) fn close(&self, queue: ActorId) {
        let mut state = self.state();
        if state.is_open(queue) {
            state.queue = None;
            drop(state);
            self.revoke_all();
        }
    }

    /// Records a permit that is about to be sent to this incarnation of the shard.
    pub(crate) fn grant(&self, shard: ShardKey, incarnation: Incarnation, pass: Option<IdentifyPass>) {
        let before = self.state().permits.insert(shard, Permit { incarnation, stage: Stage::Granted, pass });
        // Dropped after the lock was released, because dropping a pass runs code of the bot.
        drop(before);
    }

    /// Revokes a permit; its pass returns unspent. `false` when it is too late: the driver holds the permit,
    /// or its outcome has not been [settled](Self::settle) yet.
    pub(crate) fn revoke(&self, shard: ShardKey) -> bool {
        let mut state = self.state();
        let revoked = match state.permits.get(&shard).map(|permit| permit.stage) {
            None => None,
            Some(Stage::Granted) => state.permits.remove(&shard),
            Some(Stage::Taken | Stage::Over(_)) => return false,
        };
        drop(state);
        drop(revoked);
        true
    }

    /// Revokes every permit that no driver has taken.
    pub(crate) fn revoke_all(&self) {
        let revoked = self.state().remove_if(|permit| permit.stage == Stage::Granted);
        drop(revoked);
    }

    /// Removes the permits that are over, and returns each shard with the time of its Identify, or `None` for
    /// an unused permit. Returns nothing to a queue that has been replaced.
    pub(crate) fn settle(&self, queue: ActorId) -> Vec<(ShardKey, Incarnation, Option<Instant>)> {
        let mut state = self.state();
        if !state.is_open(queue) {
            return Vec::new();
        }
        let over = state.remove_if(|permit| matches!(permit.stage, Stage::Over(_)));
        let outcome = |(shard, permit): (ShardKey, Permit)| match permit.stage {
            Stage::Over(written) => Some((shard, permit.incarnation, written)),
            Stage::Granted | Stage::Taken => None,
        };
        over.into_iter().filter_map(outcome).collect()
    }

    /// Takes the permit of this incarnation for its driver. `None` when the permit was revoked.
    pub(crate) fn take(self: &Arc<Self>, shard: ShardKey, incarnation: Incarnation) -> Option<TakenPermit> {
        let mut state = self.state();
        let permit = state.permits.get_mut(&shard)?;
        if permit.stage != Stage::Granted || permit.incarnation != incarnation {
            return None;
        }
        permit.stage = Stage::Taken;
        Some(TakenPermit { ledger: Arc::clone(self), shard, incarnation, spent: false })
    }
}

/// A permit held by a driver. Until it is dropped its key stays closed: as long as a driver exists, even a
/// killed one, it may still be writing.
#[derive(Debug)]
pub(crate) struct TakenPermit {
    ledger: Arc<IdentifyLedger>,
    shard: ShardKey,
    incarnation: Incarnation,
    spent: bool,
}

impl TakenPermit {
    /// Counts the Identify that is about to be handed to the connection.
    pub(crate) fn spend(&mut self) {
        if !std::mem::replace(&mut self.spent, true) {
            let now = now();
            let mut state = self.ledger.state();
            state.budget.spend(now);
            state.sent += 1;
            state.last_identify = state.last_identify.max(Some(now));
        }
    }

    pub(crate) const fn is_spent(&self) -> bool {
        self.spent
    }
}

/// The Identify was written or will never be. In the first case the window of the key begins (GW-172: it
/// counts from the Identify), in the second the key is free at once (GW-173).
impl Drop for TakenPermit {
    fn drop(&mut self) {
        let written = self.spent.then(now);
        let mut state = self.ledger.state();
        state.last_identify = state.last_identify.max(written);
        let permit = state.permits.get_mut(&self.shard);
        let pass = permit.filter(|permit| permit.incarnation == self.incarnation).and_then(|permit| {
            permit.stage = Stage::Over(written);
            permit.pass.take()
        });
        let queue = state.queue.clone();
        drop(state);
        // The driver may already be unwinding, and a second panic would abort the process.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| match pass {
            Some(pass) if self.spent => pass.spent(),
            unspent => drop(unspent),
        }));
        // If the queue is gone, the next one checks the ledger when it starts.
        let _ = queue.map(|queue| queue.cast(QueueMessage::Wake));
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHARD: ShardKey = ShardKey { id: shardkeeper_proto::ShardId(0), generation: 1 };

    #[test]
    fn a_permit_belongs_to_one_incarnation_alone() {
        let budget = IdentifyBudget::new(now(), 1000, 1000, Duration::ZERO, 0);
        let ledger = Arc::new(IdentifyLedger::new(budget, None));
        ledger.grant(SHARD, 1, None);
        assert!(ledger.take(SHARD, 2).is_none());
        let old = ledger.take(SHARD, 1).unwrap();
        // The queue has given up that permit, and lets the next incarnation identify.
        ledger.grant(SHARD, 2, None);
        drop(old);
        assert!(ledger.take(SHARD, 2).is_some(), "the end of the old driver is not that of the new permit");
    }
}
