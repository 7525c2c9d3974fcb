//! The actor that lets shards identify as fast as Discord allows.
//!
//! Input: shards that join, reach Hello, identify or leave. Output: grants to connect and permits to
//! identify, for the shards' actors. [`IdentifyLimiter`] holds the rules; this actor supplies time and
//! message delivery. For limits that several processes share, it asks an
//! [`IdentifyGate`](crate::gate::IdentifyGate) for each permit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use shardkeeper_proto::{Grant, IdentifyLimiter, IdentifyPermit, Priority};
use tokio::task::AbortHandle;

use super::GateClient;
use super::IdentifyLedger;
use crate::dispatch::Hub;
use crate::dispatch::Lifecycle;
use crate::gate::{IdentifyPass, IdentifyRequest};
use crate::layout::ShardKey;
use crate::message::{Incarnation, QueueMessage, ShardMessage};

/// The identify queue of a bot.
#[expect(clippy::exhaustive_structs, reason = "names the actor; what it knows is in its state")]
pub struct IdentifyQueue;

/// Start arguments of an [`IdentifyQueue`]. Only the manager can make them.
pub struct QueueArguments {
    pub(crate) max_concurrency: u32,
    pub(crate) window: Duration,
    pub(crate) ledger: Arc<IdentifyLedger>,
    pub(crate) hub: Arc<Hub>,
    /// Client of the identify gate; `None` without a gate.
    pub(crate) gate: Option<GateClient>,
}

/// State of an [`IdentifyQueue`].
pub struct QueueState {
    id: ActorId,
    limiter: IdentifyLimiter<ShardKey>,
    max_concurrency: u32,
    window: Duration,
    ledger: Arc<IdentifyLedger>,
    hub: Arc<Hub>,
    shards: HashMap<ShardKey, Known>,
    gate: Option<GateClient>,
    alarm: Option<AbortHandle>,
    frozen: bool,
    scarcity: u8,
    exhausted: bool,
}

/// The queue's knowledge of a shard. The entry stays when the shard leaves, so that late messages can be
/// recognised.
#[derive(Default)]
struct Known {
    /// Newest known incarnation. Messages of earlier ones are ignored: their drivers have ended, or are about
    /// to end.
    incarnation: Incarnation,
    /// Urgency and actor of a waiting shard, from its request until it has left or identified.
    asker: Option<(Priority, ActorRef<ShardMessage>)>,
}

impl Drop for QueueState {
    fn drop(&mut self) {
        self.cancel_alarm();
        self.ledger.close(self.id);
    }
}

impl Actor for IdentifyQueue {
    type Msg = QueueMessage;
    type State = QueueState;
    type Arguments = QueueArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<QueueMessage>,
        arguments: QueueArguments,
    ) -> Result<QueueState, ActorProcessingErr> {
        let QueueArguments { max_concurrency, window, ledger, hub, gate } = arguments;
        let mut limiter = IdentifyLimiter::new(max_concurrency, window, ledger.budget());
        let id = myself.get_id();
        ledger.open(myself).into_iter().for_each(|shard| limiter.hold(shard));
        // The number of keys at that time is not known, so the window applies to every key.
        if let Some(at) = ledger.last_identify() {
            limiter.hold_all(at);
        }
        ledger.report(0, max_concurrency);
        Ok(QueueState {
            id,
            limiter,
            max_concurrency,
            window,
            ledger,
            hub,
            shards: HashMap::new(),
            gate,
            alarm: None,
            frozen: false,
            scarcity: 0,
            exhausted: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMessage>,
        message: QueueMessage,
        state: &mut QueueState,
    ) -> Result<(), ActorProcessingErr> {
        state.settle();
        // All decisions of this call use the same time: a key that became free between grants and alarm
        // would otherwise wait forever.
        let at = now();
        match message {
            QueueMessage::Join { shard, incarnation, priority, actor } => {
                if state.admits(shard, incarnation, priority, actor) {
                    state.limiter.join(shard, priority);
                }
            }
            QueueMessage::Claim { shard, incarnation, priority, actor } => {
                if state.admits(shard, incarnation, priority, actor) {
                    state.limiter.claim(shard, priority);
                }
            }
            QueueMessage::ConnectDelayed { shard, incarnation, wait } => {
                if state.hears(shard, incarnation) {
                    state.limiter.connects_at(shard, at + wait);
                }
            }
            QueueMessage::Leave { shard, incarnation } => {
                if state.hears(shard, incarnation) {
                    state.leave(shard);
                }
            }
            QueueMessage::Gone { shard, incarnation } => {
                state.hears(shard, incarnation.saturating_add(1));
            }
            QueueMessage::Update { max_concurrency, budget } => {
                state.ledger.reconcile(now(), budget);
                state.limiter.update(now(), max_concurrency, budget);
                state.limiter.set_budget(state.ledger.budget());
                if std::mem::replace(&mut state.max_concurrency, max_concurrency) != max_concurrency {
                    state.ask_again(&myself);
                }
            }
            QueueMessage::Passed { shard, ask, pass } => state.passed(shard, ask, pass),
            QueueMessage::GateFailed { shard, ask, error, retry_after } => {
                if state.gate.as_mut().is_some_and(|gate| gate.failed(shard, ask)) {
                    state.hub.announce(&Lifecycle::IdentifyGateFailed { error, retry_after });
                }
            }
            QueueMessage::Freeze => {
                state.frozen = true;
                state.gate.as_mut().map(GateClient::take_pending);
                state.ledger.revoke_all();
            }
            QueueMessage::Wake => {}
        }
        state.grant(&myself, at);
        let waiting = state.limiter.waiting() + state.gate.as_ref().map_or(0, GateClient::waiting);
        state.ledger.report(waiting, state.max_concurrency);
        state.warn();
        state.set_alarm(&myself, at);
        Ok(())
    }
}

impl QueueState {
    /// Takes over from the ledger which permits were used, and how much of the budget is left.
    fn settle(&mut self) {
        for (shard, incarnation, written) in self.ledger.settle(self.id) {
            match written {
                Some(at) => {
                    self.limiter.sent(shard, at);
                    let known = self.shards.entry(shard).or_default();
                    // The place belongs to a later incarnation when a killed driver has written.
                    if known.incarnation == incarnation {
                        known.asker = None;
                        self.limiter.withdraw(shard);
                    }
                }
                // The shard may be waiting again by now.
                None => self.limiter.give_back(shard),
            }
        }
        self.limiter.set_budget(self.ledger.budget());
    }

    fn grant(&mut self, myself: &ActorRef<QueueMessage>, at: Instant) {
        if self.frozen {
            return;
        }
        while let Some(grant) = self.limiter.poll(at) {
            match grant {
                Grant::Connect(shard) => self.send(shard, ShardMessage::ConnectGrant),
                Grant::Identify(shard, permit) => self.permit(myself, shard, permit),
            }
        }
    }

    /// Sends the permit to the shard; with a gate, once there is a pass for it.
    fn permit(&mut self, myself: &ActorRef<QueueMessage>, shard: ShardKey, permit: IdentifyPermit) {
        let Some(&(priority, _)) = self.asker(shard) else { return self.leave(shard) };
        match &mut self.gate {
            None => self.hand_over(shard, permit, None),
            Some(gate) => {
                let request = IdentifyRequest {
                    shard: shard.id,
                    max_concurrency: self.max_concurrency,
                    window: self.window,
                    priority,
                    budget: *self.limiter.budget(),
                };
                gate.ask(myself, shard, request, permit);
            }
        }
    }

    fn hand_over(&mut self, shard: ShardKey, permit: IdentifyPermit, pass: Option<IdentifyPass>) {
        let incarnation = self.shards.get(&shard).map_or(0, |known| known.incarnation);
        self.ledger.grant(shard, incarnation, pass);
        self.send(shard, ShardMessage::Permit(permit));
    }

    fn passed(&mut self, shard: ShardKey, ask: u64, pass: IdentifyPass) {
        let Some(gate) = &mut self.gate else { return };
        let passed = gate.passed(shard, ask, pass);
        if gate.recovered() {
            self.hub.announce(&Lifecycle::IdentifyGateRecovered);
        }
        if let Some((permit, pass)) = passed {
            self.hand_over(shard, permit, Some(pass));
        }
    }

    /// Repeats all requests to the gate after a change of the number of keys, since shards then wait for the
    /// wrong key.
    fn ask_again(&mut self, myself: &ActorRef<QueueMessage>) {
        for (shard, permit) in self.gate.as_mut().map(GateClient::take_pending).unwrap_or_default() {
            self.permit(myself, shard, permit);
        }
    }

    fn asker(&self, shard: ShardKey) -> Option<&(Priority, ActorRef<ShardMessage>)> {
        self.shards.get(&shard)?.asker.as_ref()
    }

    /// Sends a message to the shard's actor. A permit that cannot be delivered counts as unspent.
    fn send(&mut self, shard: ShardKey, message: ShardMessage) {
        if self.asker(shard).is_none_or(|(_, actor)| actor.cast(message).is_err()) {
            self.leave(shard);
        }
    }

    /// Whether messages of this incarnation still count. Only the newest incarnation counts, even if its
    /// messages arrive first: an earlier one has ended by then.
    fn hears(&mut self, shard: ShardKey, incarnation: Incarnation) -> bool {
        if !self.shards.contains_key(&shard) {
            // There are at most two generations at a time, so nothing more comes from an earlier one.
            self.shards.retain(|known, _| known.generation.saturating_add(2) > shard.generation);
        }
        let known = self.shards.entry(shard).or_default();
        if incarnation > known.incarnation {
            known.incarnation = incarnation;
            self.leave(shard);
            return true;
        }
        incarnation == known.incarnation
    }

    /// Whether the shard gets a place in the queue. Answers go to the actor that asked last.
    fn admits(
        &mut self,
        shard: ShardKey,
        incarnation: Incarnation,
        priority: Priority,
        actor: ActorRef<ShardMessage>,
    ) -> bool {
        if !self.hears(shard, incarnation) {
            return false;
        }
        self.shards.entry(shard).or_default().asker = Some((priority, actor));
        if self.gate.as_ref().is_some_and(|gate| gate.is_waiting(shard)) {
            // The shard already waits for a pass of the gate, and keeps that place.
            return false;
        }
        // The permit did not arrive, or arrived after the shard had left.
        if self.ledger.revoke(shard) {
            self.limiter.give_back(shard);
        }
        true
    }

    fn leave(&mut self, shard: ShardKey) {
        if let Some(known) = self.shards.get_mut(&shard) {
            known.asker = None;
        }
        if let Some(gate) = &mut self.gate {
            gate.left(shard);
        }
        self.limiter.withdraw(shard);
        if self.ledger.revoke(shard) {
            self.limiter.give_back(shard);
        }
    }

    /// Logs and publishes when the budget becomes scarce, and when it is used up, once each.
    fn warn(&mut self) {
        let now = now();
        let mut budget = *self.limiter.budget();
        let scarcity = budget.scarcity();
        let exhausted = self.limiter.waiting() > 0 && budget.free_at(now) > now;
        if scarcity > self.scarcity {
            let (remaining, total) = (budget.remaining(), budget.total());
            self.hub.announce(&Lifecycle::BudgetLow { remaining, total });
        }
        if exhausted && !self.exhausted {
            let resets_after = budget.resets_at(now).saturating_duration_since(now);
            self.hub.announce(&Lifecycle::BudgetExhausted { resets_after });
        }
        (self.scarcity, self.exhausted) = (scarcity, exhausted);
    }

    /// Sets the timer for the next key that becomes free after `granted_at`.
    fn set_alarm(&mut self, myself: &ActorRef<QueueMessage>, granted_at: Instant) {
        self.cancel_alarm();
        if let Some(at) = self.limiter.wakes_at(granted_at).filter(|_| !self.frozen) {
            let alarm = myself.send_after(at.saturating_duration_since(now()), || QueueMessage::Wake);
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use shardkeeper_proto::{BUDGET_PERIOD, IdentifyBudget, ShardId};
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Level, Metadata};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);
    const SHARD: ShardKey = ShardKey { id: ShardId(0), generation: 1 };
    const OTHER: ShardKey = ShardKey { id: ShardId(1), generation: 1 };

    /// A shard's actor that passes its permits on to the test, which plays the driver.
    struct Shard;

    impl Actor for Shard {
        type Msg = ShardMessage;
        type State = mpsc::Sender<Incarnation>;
        type Arguments = Self::State;

        async fn pre_start(
            &self,
            _: ActorRef<ShardMessage>,
            permits: Self::State,
        ) -> Result<Self::State, ActorProcessingErr> {
            Ok(permits)
        }

        async fn handle(
            &self,
            _: ActorRef<ShardMessage>,
            message: ShardMessage,
            permits: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            if let ShardMessage::Permit(_) = message {
                let _ = permits.try_send(1);
            }
            Ok(())
        }
    }

    /// A shard in one of its incarnations.
    struct Life {
        shard: ShardKey,
        incarnation: Incarnation,
        actor: ActorRef<ShardMessage>,
        permits: mpsc::Receiver<Incarnation>,
    }

    impl Life {
        async fn new(shard: ShardKey, incarnation: Incarnation) -> Self {
            let (sender, permits) = mpsc::channel(16);
            let (actor, _) = Actor::spawn(None, Shard, sender).await.unwrap();
            Self { shard, incarnation, actor, permits }
        }

        fn join(&self) -> QueueMessage {
            let (shard, incarnation, actor) = (self.shard, self.incarnation, self.actor.clone());
            QueueMessage::Join { shard, incarnation, priority: Priority::ColdStart, actor }
        }

        fn claim(&self) -> QueueMessage {
            let (shard, incarnation, actor) = (self.shard, self.incarnation, self.actor.clone());
            QueueMessage::Claim { shard, incarnation, priority: Priority::ColdStart, actor }
        }

        fn leave(&self) -> QueueMessage {
            QueueMessage::Leave { shard: self.shard, incarnation: self.incarnation }
        }

        fn gone(&self) -> QueueMessage {
            QueueMessage::Gone { shard: self.shard, incarnation: self.incarnation }
        }

        /// Whether a permit comes within a minute.
        async fn permitted(&mut self) -> bool {
            timeout(Duration::from_secs(60), self.permits.recv()).await.is_ok()
        }
    }

    struct Bench {
        ledger: Arc<IdentifyLedger>,
        queue: ActorRef<QueueMessage>,
    }

    impl Bench {
        async fn new() -> Self {
            Self::with(IdentifyBudget::new(now(), 1000, 1000, Duration::ZERO, 0)).await
        }

        async fn with(budget: IdentifyBudget) -> Self {
            let ledger = Arc::new(IdentifyLedger::new(budget, None));
            Self { queue: Self::queue(&ledger).await, ledger }
        }

        /// Starts a queue with one key.
        async fn queue(ledger: &Arc<IdentifyLedger>) -> ActorRef<QueueMessage> {
            let (ledger, hub) = (Arc::clone(ledger), Arc::default());
            let arguments = QueueArguments { max_concurrency: 1, window: WINDOW, ledger, hub, gate: None };
            Actor::spawn(None, IdentifyQueue, arguments).await.unwrap().0
        }

        fn send(&self, message: QueueMessage) {
            self.queue.cast(message).unwrap();
        }

        /// Waits until the queue has handled all messages sent to it.
        async fn settled(&self) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        fn identify(&self, life: &Life) {
            self.ledger.take(life.shard, life.incarnation).unwrap().spend();
        }
    }

    /// Every order of `of` things.
    fn orders(of: usize) -> Vec<Vec<usize>> {
        if of == 0 {
            return vec![Vec::new()];
        }
        let shorter = orders(of - 1);
        let with_last = |order: &Vec<usize>, at| {
            let mut order = order.clone();
            order.insert(at, of - 1);
            order
        };
        shorter.iter().flat_map(|order| (0..of).map(move |at| with_last(order, at))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn once_frozen_it_grants_nothing() {
        let bench = Bench::new().await;
        let (mut first, mut second) = (Life::new(SHARD, 1).await, Life::new(OTHER, 2).await);
        bench.send(first.claim());
        assert!(first.permitted().await);
        bench.send(second.claim());
        bench.send(QueueMessage::Freeze);
        bench.settled().await;
        assert!(bench.ledger.take(SHARD, 1).is_none(), "a permit that was not taken is revoked");
        bench.send(first.claim());
        assert!(!first.permitted().await && !second.permitted().await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_killed_shard_said_may_come_in_any_order_and_closes_no_key() {
        for order in orders(5) {
            let bench = Bench::new().await;
            let (old, mut new) = (Life::new(SHARD, 1).await, Life::new(SHARD, 2).await);
            let mut other = Life::new(OTHER, 3).await;
            for message in &order {
                bench.send(match message {
                    0 => old.join(),
                    1 => old.claim(),
                    2 => old.leave(),
                    3 => old.gone(),
                    _ => new.join(),
                });
            }
            bench.settled().await;
            assert!(bench.ledger.take(SHARD, 1).is_none(), "{order:?}: it is gone");
            // The new incarnation is in the queue, and on its way to Hello.
            bench.send(other.claim());
            assert!(other.permitted().await, "{order:?}: the key is closed");
            bench.identify(&other);
            bench.send(new.claim());
            assert!(new.permitted().await, "{order:?}: the new one waits for ever");
            bench.identify(&new);
            assert_eq!(bench.ledger.status().sent, 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gw_173_a_shard_that_asks_again_gives_its_permit_back() {
        let bench = Bench::new().await;
        let (mut shard, mut other) = (Life::new(SHARD, 1).await, Life::new(OTHER, 2).await);
        bench.send(shard.claim());
        assert!(shard.permitted().await);
        bench.send(shard.join());
        bench.send(other.claim());
        assert!(other.permitted().await);
        assert!(bench.ledger.take(SHARD, 1).is_none());
        bench.identify(&other);
        bench.send(shard.claim());
        assert!(shard.permitted().await);
        bench.identify(&shard);
    }

    #[tokio::test(start_paused = true)]
    async fn gw_172_a_key_stays_closed_as_long_as_any_driver_may_write() {
        let bench = Bench::new().await;
        let (mut old, mut other) = (Life::new(SHARD, 1).await, Life::new(OTHER, 2).await);
        bench.send(old.claim());
        assert!(old.permitted().await);
        let mut permit = bench.ledger.take(SHARD, 1).unwrap();
        let new = Life::new(SHARD, 3).await;
        [old.leave(), old.gone(), new.claim(), new.leave()]
            .into_iter()
            .for_each(|message| bench.send(message));
        bench.send(other.claim());
        assert!(!other.permitted().await, "the driver still has it");
        permit.spend();
        assert!(!other.permitted().await, "the driver may still be writing");
        drop(permit);
        let written = now();
        assert!(other.permitted().await);
        assert!(now() - written >= WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn gw_173_a_permit_that_a_dying_driver_did_not_use_is_free_at_once() {
        let bench = Bench::new().await;
        let (mut old, mut other) = (Life::new(SHARD, 1).await, Life::new(OTHER, 2).await);
        bench.send(old.claim());
        assert!(old.permitted().await);
        let permit = bench.ledger.take(SHARD, 1).unwrap();
        bench.send(old.gone());
        bench.send(other.claim());
        bench.settled().await;
        drop(permit);
        let begun = now();
        assert!(other.permitted().await);
        assert!(now() - begun < WINDOW);
        assert_eq!((bench.ledger.status().sent, bench.ledger.budget().remaining()), (0, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn gw_172_an_identify_of_a_driver_that_was_killed_does_not_cost_the_next_one_its_place() {
        for at_hello in [true, false] {
            let bench = Bench::new().await;
            let (mut old, mut new) = (Life::new(SHARD, 1).await, Life::new(SHARD, 3).await);
            bench.send(old.claim());
            assert!(old.permitted().await);
            let mut permit = bench.ledger.take(SHARD, 1).unwrap();
            bench.send(old.gone());
            bench.send(if at_hello { new.claim() } else { new.join() });
            bench.settled().await;
            permit.spend();
            drop(permit);
            let written = now();
            bench.settled().await;
            assert_eq!(bench.ledger.status().waiting, 1, "at Hello: {at_hello}");
            bench.send(new.claim());
            assert!(new.permitted().await, "at Hello: {at_hello}");
            assert!(now() - written >= WINDOW, "at Hello: {at_hello}");
        }
    }

    /// A log that is slow to write, so that a window passes meanwhile.
    struct SlowLog;

    impl tracing::Subscriber for SlowLog {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }

        fn event(&self, _: &tracing::Event<'_>) {
            let _ = tokio::time::advance(WINDOW).now_or_never();
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_ends_while_the_queue_works_is_not_slept_through() {
        let _log = tracing::subscriber::set_default(SlowLog);
        // The first Identify leaves less than half of the budget, which is logged.
        let bench = Bench::with(IdentifyBudget::new(now(), 4, 2, BUDGET_PERIOD, 0)).await;
        let (mut shard, mut other) = (Life::new(SHARD, 1).await, Life::new(OTHER, 2).await);
        bench.send(shard.claim());
        assert!(shard.permitted().await);
        bench.send(other.claim());
        bench.settled().await;
        let written = now();
        bench.identify(&shard);
        bench.settled().await;
        assert!(now() - written >= WINDOW, "it was logged");
        assert!(other.permitted().await, "the queue was not woken");
    }

    #[tokio::test(start_paused = true)]
    async fn gw_169_172_an_identify_counts_once_and_closes_its_key_whatever_becomes_of_the_queue() {
        // The queue dies before the permit is taken, before it is spent, before its end is known, or after
        // that.
        for dies_at in 0..4 {
            let mut bench = Bench::new().await;
            let (mut shard, mut other) = (Life::new(SHARD, 1).await, Life::new(OTHER, 2).await);
            bench.send(shard.claim());
            assert!(shard.permitted().await);
            let before = bench.queue.clone();
            let mut permit = None;
            for step in 0..4 {
                if step == dies_at {
                    // As can happen with threads: the old queue's state ends when the new queue already
                    // works.
                    bench.queue = Bench::queue(&bench.ledger).await;
                    bench.send(other.claim());
                    bench.settled().await;
                    before.kill();
                    bench.settled().await;
                }
                match step {
                    0 => permit = bench.ledger.take(SHARD, 1),
                    1 => permit.iter_mut().for_each(|permit| permit.spend()),
                    2 => permit = None,
                    _ => {}
                }
            }
            let written = now();
            assert!(other.permitted().await, "{dies_at}");
            if dies_at == 0 {
                // The permit was revoked, so no Identify was sent.
                assert_eq!(bench.ledger.status().sent, 0);
            } else {
                assert_eq!((bench.ledger.status().sent, bench.ledger.budget().remaining()), (1, 999));
                assert!(now() - written >= WINDOW - Duration::from_millis(5), "{dies_at}: too early");
            }
            bench.identify(&other);
        }
    }
}
