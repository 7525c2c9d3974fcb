//! The actor that lets shards identify, as fast as Discord allows and no faster.
//!
//! Input: shards that join, reach Hello, identify or leave. Output: turns to connect and permits to identify, to
//! the shards' actors. The rules are in [`IdentifyLimiter`]; here are its clock and its post. What several processes share
//! is asked of an [`IdentifyGate`](crate::identify_gate::IdentifyGate), permit by permit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::{Grant, IdentifyBudget, IdentifyLimiter, IdentifyPermit, Priority, ShardId};
use tokio::task::AbortHandle;

use crate::Lifecycle;
use crate::dispatch::Hub;
use crate::identify_gate::{Asking, IdentifyPass, IdentifyRequest};
use crate::message::{QueueMessage, ShardMessage};
use crate::status::IdentifyStatus;

/// The identify queue of a bot.
pub struct IdentifyQueue;

/// What outlives the queue when it crashes; the manager's.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) status: IdentifyStatus,
    pub(crate) budget: IdentifyBudget,
    /// When the last Identify was sent.
    pub(crate) last_identify: Option<Instant>,
}

/// What an [`IdentifyQueue`] is started with. Only the manager makes one.
pub struct QueueArguments {
    pub(crate) max_concurrency: u32,
    pub(crate) window: Duration,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) hub: Arc<Hub>,
    /// An Identify that an earlier queue may have let through: no key opens within its window.
    pub(crate) last_identify: Option<Instant>,
    /// What there is to do with the gate, if there is one.
    pub(crate) asking: Option<Asking>,
}

/// The state of an [`IdentifyQueue`].
pub struct QueueState {
    limiter: IdentifyLimiter,
    max_concurrency: u32,
    window: Duration,
    ledger: Arc<Mutex<Ledger>>,
    hub: Arc<Hub>,
    shards: HashMap<ShardId, (Priority, ActorRef<ShardMessage>)>,
    asking: Option<Asking>,
    alarm: Option<AbortHandle>,
    frozen: bool,
    scarcity: u8,
    exhausted: bool,
    last_identify: Option<Instant>,
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
        if let Some(at) = arguments.last_identify {
            limiter.hold_all(at);
        }
        let mut state = QueueState {
            limiter,
            max_concurrency: arguments.max_concurrency,
            window: arguments.window,
            ledger: arguments.ledger,
            hub: arguments.hub,
            shards: HashMap::new(),
            asking: arguments.asking,
            alarm: None,
            frozen: false,
            scarcity: 0,
            exhausted: false,
            last_identify: arguments.last_identify,
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
                state.shards.insert(shard, (priority, actor));
                state.limiter.join(shard, priority);
            }
            QueueMessage::Claim { shard, priority, actor } => {
                state.shards.insert(shard, (priority, actor));
                state.limiter.claim(shard, priority);
            }
            QueueMessage::Leave { shard } => state.leave(shard),
            QueueMessage::Sent { shard, at } => {
                state.sent(shard, at);
                sent = 1;
            }
            QueueMessage::Gone { shard } => {
                // Whether a permit that it held was spent nobody knows: it counts.
                if state.holds_permit(shard) {
                    state.sent(shard, now());
                    sent = 1;
                }
                state.leave(shard);
            }
            QueueMessage::Update { max_concurrency, budget } => {
                state.limiter.update(now(), max_concurrency, budget);
                if std::mem::replace(&mut state.max_concurrency, max_concurrency) != max_concurrency {
                    state.ask_anew(&myself);
                }
            }
            QueueMessage::Passed { shard, ask, pass } => state.passed(shard, ask, pass),
            QueueMessage::GateFailed { shard, ask, error, retry_after } => {
                if state.asking.as_mut().is_some_and(|asking| asking.failed(shard, ask)) {
                    state.tell(&Lifecycle::IdentifyGateFailed { error, retry_after });
                }
            }
            QueueMessage::Freeze => {
                state.frozen = true;
                state.asking.as_mut().map(Asking::take_asks);
            }
            QueueMessage::Wake => {}
        }
        state.grant(&myself);
        state.write_ledger(sent);
        state.warn();
        state.set_alarm(&myself);
        Ok(())
    }
}

impl QueueState {
    fn grant(&mut self, myself: &ActorRef<QueueMessage>) {
        if self.frozen {
            return;
        }
        while let Some(grant) = self.limiter.poll(now()) {
            match grant {
                Grant::Connect(shard) => self.send(shard, ShardMessage::Turn),
                Grant::Identify(shard, permit) => self.permit(myself, shard, permit),
            }
        }
    }

    /// Hands the permit over; with a gate, when there is a pass for it.
    fn permit(&mut self, myself: &ActorRef<QueueMessage>, shard: ShardId, permit: IdentifyPermit) {
        let Some((priority, _)) = self.shards.get(&shard) else { return self.leave(shard) };
        match &mut self.asking {
            None => self.send(shard, ShardMessage::Permit(permit)),
            Some(asking) => {
                let request = IdentifyRequest {
                    shard,
                    max_concurrency: self.max_concurrency,
                    window: self.window,
                    priority: *priority,
                    budget: *self.limiter.budget(),
                };
                asking.ask(myself, request, permit);
            }
        }
    }

    fn passed(&mut self, shard: ShardId, ask: u64, pass: IdentifyPass) {
        let Some(asking) = &mut self.asking else { return };
        let permit = asking.passed(shard, ask, pass);
        if asking.recovered() {
            let lifecycle = Lifecycle::IdentifyGateRecovered;
            tracing::info!("{lifecycle}");
            self.hub.announce(&lifecycle);
        }
        if let Some(permit) = permit {
            self.send(shard, ShardMessage::Permit(permit));
        }
    }

    /// The keys are others: who waits at the gate waits for the wrong one.
    fn ask_anew(&mut self, myself: &ActorRef<QueueMessage>) {
        for (shard, permit) in self.asking.as_mut().map(Asking::take_asks).unwrap_or_default() {
            self.permit(myself, shard, permit);
        }
    }

    /// What cannot be handed over is unspent.
    fn send(&mut self, shard: ShardId, message: ShardMessage) {
        if self.shards.get(&shard).is_none_or(|(_, actor)| actor.cast(message).is_err()) {
            self.leave(shard);
        }
    }

    fn leave(&mut self, shard: ShardId) {
        self.shards.remove(&shard);
        self.limiter.leave(shard);
        if let Some(asking) = &mut self.asking {
            asking.left(shard);
        }
    }

    fn sent(&mut self, shard: ShardId, at: Instant) {
        self.last_identify = self.last_identify.max(Some(at));
        self.shards.remove(&shard);
        self.limiter.sent(shard, at);
        if let Some(asking) = &mut self.asking {
            asking.spent(shard);
        }
    }

    /// Whether the shard was handed a permit, and has not said what became of it.
    fn holds_permit(&self, shard: ShardId) -> bool {
        match &self.asking {
            Some(asking) => asking.is_out(shard),
            None => self.limiter.holds_permit(shard),
        }
    }

    fn write_ledger(&mut self, sent: u64) {
        let budget = *self.limiter.budget();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.budget = budget;
        ledger.last_identify = self.last_identify;
        ledger.status = IdentifyStatus {
            waiting: self.limiter.waiting() + self.asking.as_ref().map_or(0, Asking::waiting),
            sent: ledger.status.sent + sent,
            remaining: budget.remaining(),
            total: budget.total(),
            max_concurrency: self.max_concurrency,
        };
    }

    /// Tells when the budget becomes scarcer, and when it is used up: each once.
    fn warn(&mut self) {
        let now = now();
        let mut budget = *self.limiter.budget();
        let scarcity = budget.scarcity();
        let exhausted = self.limiter.waiting() > 0 && budget.free_at(now) > now;
        if scarcity > self.scarcity {
            let (remaining, total) = (budget.remaining(), budget.total());
            self.tell(&Lifecycle::BudgetLow { remaining, total });
        }
        if exhausted && !self.exhausted {
            let resets_after = budget.resets_at(now).saturating_duration_since(now);
            self.tell(&Lifecycle::BudgetExhausted { resets_after });
        }
        (self.scarcity, self.exhausted) = (scarcity, exhausted);
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
