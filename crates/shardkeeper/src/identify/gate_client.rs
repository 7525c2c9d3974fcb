//! The identify queue's client of the gate: requests passes, and repeats failed requests.
//!
//! Input: permits that the limiter granted. Output: the same permits, each with the pass that was obtained
//! for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ractor::ActorRef;
use shardkeeper_proto::{Backoff, IdentifyPermit};

use crate::gate::{IdentifyGate, IdentifyPass, IdentifyRequest};
use crate::layout::ShardKey;
use crate::message::QueueMessage;
use crate::task::{AbortOnDrop, catching};

/// The queue's requests to its gate.
pub(crate) struct GateClient {
    gate: Arc<dyn IdentifyGate>,
    backoff: Backoff,
    random: fastrand::Rng,
    /// Number of the last request, so that the answer to an earlier request is not taken for that to a later
    /// one.
    last_number: u64,
    /// Requests under way, in the order of shards, because they are repeated in this order.
    pending: BTreeMap<ShardKey, PendingPass>,
    /// Whether the gate has failed and has not worked since.
    broken: bool,
}

struct PendingPass {
    number: u64,
    permit: IdentifyPermit,
    failed: bool,
    _task: AbortOnDrop,
}

impl GateClient {
    pub(crate) fn new(gate: Arc<dyn IdentifyGate>, backoff: Backoff, random: fastrand::Rng) -> Self {
        Self { gate, backoff, random, last_number: 0, pending: BTreeMap::new(), broken: false }
    }

    /// Requests a pass, which arrives as [`QueueMessage::Passed`].
    pub(crate) fn ask(
        &mut self,
        queue: &ActorRef<QueueMessage>,
        shard: ShardKey,
        request: IdentifyRequest,
        permit: IdentifyPermit,
    ) {
        self.last_number += 1;
        let number = self.last_number;
        let (gate, queue) = (Arc::clone(&self.gate), queue.clone());
        let task = tokio::spawn(ask(gate, (shard, request), number, queue, self.backoff, self.random.fork()));
        let task = AbortOnDrop(task.abort_handle());
        self.pending.insert(shard, PendingPass { number, permit, failed: false, _task: task });
    }

    /// Cancels all requests and returns their permits, so that they can be requested again.
    pub(crate) fn take_pending(&mut self) -> Vec<(ShardKey, IdentifyPermit)> {
        std::mem::take(&mut self.pending).into_iter().map(|(shard, ask)| (shard, ask.permit)).collect()
    }

    /// Number of permits that wait for a pass.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Returns the permit that this pass is for, together with the pass. A pass that no request waits for is
    /// dropped, and so returns to the gate unspent.
    pub(crate) fn passed(
        &mut self,
        shard: ShardKey,
        number: u64,
        pass: IdentifyPass,
    ) -> Option<(IdentifyPermit, IdentifyPass)> {
        self.pending.get(&shard).filter(|ask| ask.number == number)?;
        let ask = self.pending.remove(&shard)?;
        Some((ask.permit, pass))
    }

    /// Notes that a request failed. `true` when this is the first failure since the gate last worked.
    pub(crate) fn failed(&mut self, shard: ShardKey, number: u64) -> bool {
        match self.pending.get_mut(&shard).filter(|ask| ask.number == number) {
            Some(ask) => {
                ask.failed = true;
                !std::mem::replace(&mut self.broken, true)
            }
            None => false,
        }
    }

    /// Whether the gate works again after a failure: no request that waits has failed.
    pub(crate) fn recovered(&mut self) -> bool {
        self.broken && {
            self.broken = self.pending.values().any(|ask| ask.failed);
            !self.broken
        }
    }

    /// Notes that the shard no longer waits for a pass.
    pub(crate) fn left(&mut self, shard: ShardKey) {
        self.pending.remove(&shard);
    }

    /// Whether the shard waits for a pass.
    pub(crate) fn is_waiting(&self, shard: ShardKey) -> bool {
        self.pending.contains_key(&shard)
    }
}

/// Asks the gate until there is a pass.
async fn ask(
    gate: Arc<dyn IdentifyGate>,
    (shard, request): (ShardKey, IdentifyRequest),
    number: u64,
    queue: ActorRef<QueueMessage>,
    backoff: Backoff,
    mut random: fastrand::Rng,
) {
    let mut failed: u32 = 0;
    loop {
        let error = match catching(async { gate.admit(request.clone()).await }).await {
            Ok(pass) => {
                let _ = queue.cast(QueueMessage::Passed { shard, ask: number, pass });
                return;
            }
            Err(error) => crate::chain::chain(error.as_ref()),
        };
        failed = failed.saturating_add(1);
        let retry_after = backoff.delay(failed, random.f64());
        let _ = queue.cast(QueueMessage::GateFailed { shard, ask: number, error, retry_after });
        tokio::time::sleep(retry_after).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::future::BoxFuture;
    use ractor::{Actor, ActorProcessingErr, ActorStatus};
    use shardkeeper_proto::{IdentifyBudget, Priority};

    use super::*;
    use crate::gate::{GateError, LocalGate};
    use crate::identify::{IdentifyLedger, IdentifyQueue, QueueArguments};
    use crate::message::ShardMessage;
    use shardkeeper_proto::ShardId;

    /// A local gate that records which shards asked, and what became of the requests.
    #[derive(Clone, Default)]
    struct Witness {
        gate: LocalGate,
        asked: Arc<Mutex<Vec<u32>>>,
        seen: Arc<Mutex<Vec<String>>>,
    }

    /// Records a line when it is dropped.
    struct Note(Witness, String);

    impl Note {
        fn change(&mut self, text: String) {
            self.1 = text;
        }
    }

    impl Drop for Note {
        fn drop(&mut self) {
            self.0.seen.lock().unwrap().push(std::mem::take(&mut self.1));
        }
    }

    impl Witness {
        async fn until_asked_by(&self, shard: u32) {
            while !self.asked.lock().unwrap().contains(&shard) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }

        async fn until(&self, seen: &[&str]) {
            while *self.seen.lock().unwrap() != seen {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    impl IdentifyGate for Witness {
        fn admit(&self, request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>> {
            Box::pin(async move {
                let (shard, keys) = (request.shard, request.max_concurrency);
                self.asked.lock().unwrap().push(shard.0);
                let mut note = Note(self.clone(), format!("shard {shard} of {keys} left"));
                let pass = self.gate.admit(request).await?;
                note.change(format!("shard {shard} returned it"));
                Ok(IdentifyPass::new(move || {
                    note.change(format!("shard {shard} spent it"));
                    pass.spent();
                }))
            })
        }
    }

    fn key(shard: u32) -> ShardKey {
        ShardKey { id: ShardId(shard), generation: 1 }
    }

    /// A shard that does nothing.
    struct Silent;

    impl Actor for Silent {
        type Msg = ShardMessage;
        type State = Arc<Mutex<u32>>;
        type Arguments = Arc<Mutex<u32>>;

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
                *permits.lock().unwrap() += 1;
            }
            Ok(())
        }
    }

    struct Bench {
        queue: ActorRef<QueueMessage>,
        ledger: Arc<IdentifyLedger>,
        actor: ActorRef<ShardMessage>,
        permits: Arc<Mutex<u32>>,
    }

    fn budget() -> IdentifyBudget {
        IdentifyBudget::new(std::time::Instant::now(), 1000, 1000, Duration::ZERO, 0)
    }

    impl Bench {
        async fn start(gate: &Witness) -> Self {
            let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
            let ledger = Arc::new(IdentifyLedger::new(budget(), None));
            let arguments = QueueArguments {
                max_concurrency: 1,
                window: Duration::from_secs(5),
                ledger: Arc::clone(&ledger),
                hub: Arc::default(),
                gate: Some(GateClient::new(Arc::new(gate.clone()), backoff, fastrand::Rng::with_seed(7))),
            };
            let (queue, _) = Actor::spawn(None, IdentifyQueue, arguments).await.unwrap();
            let permits = Arc::default();
            let (actor, _) = Actor::spawn(None, Silent, Arc::clone(&permits)).await.unwrap();
            Self { queue, ledger, actor, permits }
        }

        fn claim(&self, shard: u32) {
            let (shard, priority, actor) = (key(shard), Priority::ColdStart, self.actor.clone());
            self.send(QueueMessage::Claim { shard, incarnation: 1, priority, actor });
        }

        fn send(&self, message: QueueMessage) {
            self.queue.cast(message).unwrap();
        }

        async fn permits(&self, permits: u32) {
            while *self.permits.lock().unwrap() != permits {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// A queue whose shard 0 has a pass of the gate.
    async fn one_admitted() -> (Witness, Bench) {
        let gate = Witness::default();
        let bench = Bench::start(&gate).await;
        bench.claim(0);
        bench.permits(1).await;
        (gate, bench)
    }

    /// Two queues of one gate: shard 0 of the first has a pass, shard 1 of the second waits for one.
    async fn one_at_the_gate() -> (Witness, Bench, Bench) {
        let (gate, here) = one_admitted().await;
        let there = Bench::start(&gate).await;
        there.claim(1);
        gate.until_asked_by(1).await;
        (gate, here, there)
    }

    #[tokio::test(start_paused = true)]
    async fn gw_173_a_pass_that_is_not_needed_returns() {
        let (gate, bench) = one_admitted().await;
        bench.send(QueueMessage::Leave { shard: key(0), incarnation: 1 });
        gate.until(&["shard 0 returned it"]).await;
        bench.claim(1);
        bench.permits(2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_dies_after_its_identify_has_spent_its_pass_and_one_that_waits_has_not() {
        let (gate, here, there) = one_at_the_gate().await;
        there.send(QueueMessage::Gone { shard: key(1), incarnation: 1 });
        gate.until(&["shard 1 of 1 left"]).await;
        let mut permit = here.ledger.take(key(0), 1).unwrap();
        permit.spend();
        here.send(QueueMessage::Gone { shard: key(0), incarnation: 1 });
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.until(&["shard 1 of 1 left"]).await;
        drop(permit);
        gate.until(&["shard 1 of 1 left", "shard 0 spent it"]).await;
        // No Identify was sent, so the only window is that of the gate.
        let start = tokio::time::Instant::now();
        there.send(QueueMessage::Claim {
            shard: key(1),
            incarnation: 2,
            priority: Priority::ColdStart,
            actor: there.actor.clone(),
        });
        there.permits(1).await;
        assert!(start.elapsed() >= Duration::from_millis(4900), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_dies_returns_what_no_driver_has_and_leaves_the_gate() {
        let (gate, here, there) = one_at_the_gate().await;
        there.queue.kill();
        gate.until(&["shard 1 of 1 left"]).await;
        here.queue.kill();
        gate.until(&["shard 1 of 1 left", "shard 0 returned it"]).await;
        assert!(here.ledger.take(key(0), 1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_outlives_its_queue_and_spends_its_pass_all_the_same() {
        let (gate, here) = one_admitted().await;
        let mut permit = here.ledger.take(key(0), 1).unwrap();
        here.queue.kill();
        while here.queue.get_status() != ActorStatus::Stopped {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        permit.spend();
        gate.until(&[]).await;
        drop(permit);
        gate.until(&["shard 0 spent it"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn gw_177_shards_at_the_gate_ask_again_when_the_keys_change() {
        let (gate, here, there) = one_at_the_gate().await;
        there.send(QueueMessage::Update { max_concurrency: 1, budget: budget() });
        there.send(QueueMessage::Update { max_concurrency: 2, budget: budget() });
        gate.until(&["shard 1 of 1 left"]).await;
        here.send(QueueMessage::Leave { shard: key(0), incarnation: 1 });
        there.permits(1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_queue_leaves_the_gate() {
        let (gate, _here, there) = one_at_the_gate().await;
        there.send(QueueMessage::Freeze);
        gate.until(&["shard 1 of 1 left"]).await;
    }
}
