//! The actor that lets shards identify, as fast as Discord allows and no faster.
//!
//! Input: shards that join, reach Hello, identify or leave. Output: turns to connect and permits to identify, to
//! the shards' actors. The rules are in [`IdentifyLimiter`]; here are its clock and its post.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::{Grant, IdentifyBudget, IdentifyLimiter, ShardId};
use tokio::task::AbortHandle;

use crate::Lifecycle;
use crate::dispatch::Hub;
use crate::message::{QueueMessage, ShardMessage};
use crate::status::IdentifyStatus;

/// The identify queue of a bot.
pub struct IdentifyQueue;

/// What outlives the queue when it crashes; the manager's.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) status: IdentifyStatus,
    pub(crate) budget: IdentifyBudget,
}

/// What an [`IdentifyQueue`] is started with. Only the manager makes one.
pub struct QueueArguments {
    pub(crate) max_concurrency: u32,
    pub(crate) window: Duration,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) hub: Arc<Hub>,
    /// It stands in for one that crashed: what that one let through last is not known.
    pub(crate) replacement: bool,
}

/// The state of an [`IdentifyQueue`].
pub struct QueueState {
    limiter: IdentifyLimiter,
    max_concurrency: u32,
    ledger: Arc<Mutex<Ledger>>,
    hub: Arc<Hub>,
    actors: HashMap<ShardId, ActorRef<ShardMessage>>,
    alarm: Option<AbortHandle>,
    frozen: bool,
    low: bool,
    exhausted: bool,
}

impl Drop for QueueState {
    fn drop(&mut self) {
        self.cancel_alarm();
    }
}

impl Actor for IdentifyQueue {
    type Msg = QueueMessage;
    type State = QueueState;
    type Arguments = QueueArguments;

    async fn pre_start(
        &self,
        _: ActorRef<QueueMessage>,
        arguments: QueueArguments,
    ) -> Result<QueueState, ActorProcessingErr> {
        let budget = arguments.ledger.lock().unwrap_or_else(PoisonError::into_inner).budget;
        let mut limiter = IdentifyLimiter::new(arguments.max_concurrency, arguments.window, budget);
        if arguments.replacement {
            limiter.hold_all(now());
        }
        let mut state = QueueState {
            limiter,
            max_concurrency: arguments.max_concurrency,
            ledger: arguments.ledger,
            hub: arguments.hub,
            actors: HashMap::new(),
            alarm: None,
            frozen: false,
            low: false,
            exhausted: false,
        };
        state.write_ledger(0);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMessage>,
        message: QueueMessage,
        state: &mut QueueState,
    ) -> Result<(), ActorProcessingErr> {
        let mut sent = 0;
        match message {
            QueueMessage::Join { shard, priority, actor } => {
                state.actors.insert(shard, actor);
                state.limiter.join(shard, priority);
            }
            QueueMessage::Claim { shard, priority, actor } => {
                state.actors.insert(shard, actor);
                state.limiter.claim(shard, priority);
            }
            QueueMessage::Leave { shard } => {
                state.actors.remove(&shard);
                state.limiter.leave(shard);
            }
            QueueMessage::Sent { shard, at } => {
                state.actors.remove(&shard);
                state.limiter.sent(shard, at);
                sent = 1;
            }
            QueueMessage::Gone { shard } => {
                state.actors.remove(&shard);
                // Whether a permit that it held was spent nobody knows: it counts.
                if state.limiter.holds_permit(shard) {
                    state.limiter.sent(shard, now());
                    sent = 1;
                }
                state.limiter.leave(shard);
            }
            QueueMessage::Update { max_concurrency, budget } => {
                state.max_concurrency = max_concurrency;
                state.limiter.update(max_concurrency, budget);
            }
            QueueMessage::Freeze => state.frozen = true,
            QueueMessage::Wake => {}
        }
        state.grant();
        state.write_ledger(sent);
        state.warn();
        state.set_alarm(&myself);
        Ok(())
    }
}

impl QueueState {
    fn grant(&mut self) {
        if self.frozen {
            return;
        }
        while let Some(grant) = self.limiter.poll(now()) {
            let (shard, message) = match grant {
                Grant::Connect(shard) => (shard, ShardMessage::Turn),
                Grant::Identify(shard, permit) => (shard, ShardMessage::Permit(permit)),
            };
            let told = self.actors.get(&shard).is_some_and(|actor| actor.cast(message).is_ok());
            if !told {
                self.actors.remove(&shard);
                self.limiter.leave(shard);
            }
        }
    }

    fn write_ledger(&mut self, sent: u64) {
        let budget = *self.limiter.budget();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.budget = budget;
        ledger.status = IdentifyStatus {
            waiting: self.limiter.waiting(),
            sent: ledger.status.sent + sent,
            remaining: budget.remaining(),
            total: budget.total(),
            max_concurrency: self.max_concurrency,
        };
    }

    /// Tells once when the budget becomes low, and once when it is used up.
    fn warn(&mut self) {
        let now = now();
        let mut budget = *self.limiter.budget();
        let low = budget.is_low();
        let exhausted = self.limiter.waiting() > 0 && budget.free_at(now) > now;
        if low && !self.low {
            let (remaining, total) = (budget.remaining(), budget.total());
            self.tell(&Lifecycle::BudgetLow { remaining, total });
        }
        if exhausted && !self.exhausted {
            let resets_after = budget.resets_at(now).saturating_duration_since(now);
            self.tell(&Lifecycle::BudgetExhausted { resets_after });
        }
        (self.low, self.exhausted) = (low, exhausted);
    }

    fn tell(&self, lifecycle: &Lifecycle) {
        tracing::warn!("{lifecycle}");
        self.hub.announce(lifecycle);
    }

    fn set_alarm(&mut self, myself: &ActorRef<QueueMessage>) {
        self.cancel_alarm();
        let now = now();
        if let Some(at) = self.limiter.wakes_at(now).filter(|_| !self.frozen) {
            let alarm = myself.send_after(at.saturating_duration_since(now), || QueueMessage::Wake);
            self.alarm = Some(alarm.abort_handle());
        }
    }

    fn cancel_alarm(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            alarm.abort();
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
