//! From nothing to a fleet: what the gateway and the store say, and the children that are started from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::{Session, ShardCount, ShardId};

use super::config::Layout;
use super::running::budget;
use super::sentinel::{ReshardSentinel, SentinelArguments};
use super::shards::Shards;
use super::silence::{LOOK_EVERY, SilenceWatch};
use super::{Fleet, GENERATION, ManagerState, now};
use crate::dispatch::Lifecycle;
use crate::error::{ConfigError, StartError};
use crate::gateway_info::{GatewayInfo, GatewayInfoError, SessionStartLimit};
use crate::identify::GateClient;
use crate::identify::IdentifyLedger;
use crate::identify::{IdentifyQueue, QueueArguments};
use crate::message::{ManagerMessage, QueueMessage, SentinelMessage};
use crate::session::{KeeperArguments, KeeperMessage, SessionKeeper, SessionTable};
use crate::store;
use crate::store::{BudgetRecord, RecordError, SessionRecord, StoreError, StoreLease, Stored};
use crate::task::AbortOnDrop;

/// So long the session store may take to say what it holds; it is asked again meanwhile.
const LOAD_DEADLINE: Duration = Duration::from_secs(10);
const LOAD_AGAIN_AFTER: Duration = Duration::from_millis(500);

impl ManagerState {
    pub(super) async fn gateway(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        info: GatewayInfo,
    ) -> Result<(), ActorProcessingErr> {
        if self.stopping.is_some() {
            return Ok(());
        }
        if self.fleet.is_some() {
            self.refreshed(info);
            return Ok(());
        }
        if self.stored.is_none() {
            self.answer = Some(info);
            return Ok(());
        }
        match self.layout(&info) {
            Ok((count, ids)) => {
                self.start_fleet(myself, info, count, ids).await?;
                self.starting.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
            }
            Err(error) => self.refuse_start(myself, StartError::Layout(error)),
        }
        Ok(())
    }

    pub(super) fn no_gateway(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        error: GatewayInfoError,
        retry_after: Option<Duration>,
    ) {
        if self.stopping.is_some() {
            return;
        }
        if self.fleet.is_none() && !error.is_retryable() {
            return self.refuse_start(myself, StartError::Gateway(error));
        }
        let error = crate::chain::chain(&error);
        self.live.hub.announce(&Lifecycle::GatewayUnavailable { error, retry_after });
    }

    /// What the store holds is known, or will not be.
    pub(super) async fn stored(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        stored: Result<Stored, StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        self.storeless = stored.is_err();
        self.stored = Some(stored.unwrap_or_else(|error| {
            let error = crate::chain::chain(error.as_ref());
            self.live.hub.announce(&Lifecycle::StoreFailed { error, retry_after: None });
            Stored::default()
        }));
        match self.answer.take() {
            Some(info) => self.gateway(myself, info).await,
            None => Ok(()),
        }
    }

    pub(super) fn refuse_start(&mut self, myself: &ActorRef<ManagerMessage>, error: StartError) {
        tracing::error!(error = crate::chain::chain(&error), "cannot start");
        let (closed, waiting, myself) =
            (self.close_store(), std::mem::take(&mut self.starting), myself.clone());
        tokio::spawn(async move {
            closed.await;
            // One reason for everybody who waits; more than one hardly ever does.
            let mut waiting = waiting.into_iter();
            if let Some(first) = waiting.next() {
                let _ = first.send(Err(error));
            }
            drop(waiting);
            myself.stop(None);
        });
    }

    pub(super) fn layout(&self, info: &GatewayInfo) -> Result<(ShardCount, Vec<ShardId>), ConfigError> {
        match &self.config.layout {
            Layout::Recommended => {
                let count = ShardCount::new(info.shards).ok_or(ConfigError::NoShards)?;
                Ok((count, count.ids().collect()))
            }
            Layout::All(count) => Ok((*count, count.ids().collect())),
            Layout::Some { ids, count } => Ok((*count, ids.iter().copied().collect())),
        }
    }

    pub(super) async fn start_fleet(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        info: GatewayInfo,
        count: ShardCount,
        ids: Vec<ShardId>,
    ) -> Result<(), ActorProcessingErr> {
        let stored = self.stored.take().unwrap_or_default();
        let wall = (self.config.settings.wall_clock)();
        let mut limit = info.session_start_limit;
        if let Some(spent) = stored.budget.filter(|_| self.config.settings.gateway.is_some()) {
            limit.remaining = limit.remaining.min(remaining(&spent, &limit, wall));
        }
        let last_identify = stored.budget.and_then(|budget| budget.last_identify_ms);
        let last_identify = last_identify.and_then(|at| now().checked_sub(store::since(wall, at)));
        let mut budget = budget(&limit, self.config.settings.identify_reserve);
        let ledger = Arc::new(IdentifyLedger::new(budget, last_identify));
        tracing::info!(
            shards = ids.len(),
            count = count.get(),
            max_concurrency = limit.max_concurrency,
            remaining = limit.remaining,
            "starting"
        );
        let sessions = self.usable(&stored.sessions, wall);
        // What belongs to shards of other processes is theirs.
        let ours = |record: &&SessionRecord| {
            let (of, shard) = record.slot();
            let too_old = || {
                matches!(
                    record.check(wall, self.config.settings.max_session_age),
                    Err(RecordError::TooOld { .. })
                )
            };
            (of == count && ids.contains(&shard)) || too_old()
        };
        let held = stored.sessions.iter().filter(ours).map(SessionRecord::slot).collect();
        let book = Arc::new(Mutex::new(SessionTable {
            slots: BTreeMap::new(),
            held,
            generation: GENERATION,
            ledger: Arc::clone(&ledger),
            degraded: self.storeless,
        }));
        let config = Arc::clone(&self.config);
        let mut shards = Shards::new(
            (config, Arc::clone(&self.live.hub)),
            info.url.clone(),
            (GENERATION, count),
            Arc::clone(&book),
        );
        shards.add_first(&ids, &sessions, self.presence.as_ref());
        let needed = shards.without_session();
        if self.config.settings.require_full_start && needed > 0 && !budget.affords(now(), needed - 1) {
            let resets_after = budget.resets_at(now()).saturating_duration_since(now());
            let left = limit.remaining;
            let reserve = self.config.settings.identify_reserve;
            self.refuse_start(myself, StartError::Budget { needed, left, reserve, resets_after });
            return Ok(());
        }
        let queue = self.spawn_queue(myself, &info, &ledger).await?;
        let keeper = self.spawn_keeper(myself, &book).await?;
        let silence = SilenceWatch::default();
        let fleet = self.fleet.insert(Fleet {
            info,
            queue,
            ledger,
            book,
            keeper,
            shards,
            all_ready_announced: false,
            advised: 0,
            silence,
            removals: Vec::new(),
            last_removal: 0,
        });
        for shard in ids {
            fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?;
        }
        myself.send_after(LOOK_EVERY, || ManagerMessage::Look);
        self.announce_advice();
        Ok(())
    }

    pub(super) async fn spawn_sentinel(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
    ) -> Result<ActorRef<SentinelMessage>, ActorProcessingErr> {
        let arguments = SentinelArguments {
            config: Arc::clone(&self.config),
            manager: myself.clone(),
            random: self.random.fork(),
            awaited: self.fleet.is_none() && self.answer.is_none() && self.config.settings.gateway.is_none(),
            limits: Arc::clone(&self.ask_limits),
        };
        let (sentinel, _) = Actor::spawn_linked(None, ReshardSentinel, arguments, myself.get_cell()).await?;
        Ok(sentinel)
    }

    pub(super) async fn spawn_queue(
        &self,
        myself: &ActorRef<ManagerMessage>,
        info: &GatewayInfo,
        ledger: &Arc<IdentifyLedger>,
    ) -> Result<ActorRef<QueueMessage>, ActorProcessingErr> {
        let timings = &self.config.settings.timings;
        let gate = self.config.settings.identify_gate.as_ref().map(|gate| {
            let random = self.config.settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
            GateClient::new(Arc::clone(gate), timings.reconnect, random)
        });
        let arguments = QueueArguments {
            max_concurrency: info.session_start_limit.max_concurrency,
            window: timings.identify_window + timings.identify_margin,
            ledger: Arc::clone(ledger),
            hub: Arc::clone(&self.live.hub),
            gate,
        };
        let (queue, _) = Actor::spawn_linked(None, IdentifyQueue, arguments, myself.get_cell()).await?;
        Ok(queue)
    }

    /// The sessions to start from, those that the bot was given before those that were stored.
    pub(super) fn usable(&self, stored: &[SessionRecord], wall: SystemTime) -> Vec<Session> {
        let mut sessions = self.config.settings.sessions.clone();
        let mut refused = Vec::new();
        for record in stored {
            match record.check(wall, self.config.settings.max_session_age) {
                Ok(()) => sessions.push(record.session.clone()),
                Err(reason) => refused.push(reason),
            }
        }
        if let Some(reason) = refused.first() {
            tracing::warn!(
                sessions = refused.len(),
                "stored sessions are not used, the first since {reason}"
            );
        }
        sessions
    }

    pub(super) async fn spawn_keeper(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        book: &Arc<Mutex<SessionTable>>,
    ) -> Result<Option<ActorRef<KeeperMessage>>, ActorProcessingErr> {
        let Some(store) = self.store.clone() else { return Ok(None) };
        let (book, hub) = (Arc::clone(book), Arc::clone(&self.live.hub));
        let arguments = KeeperArguments {
            store,
            book,
            hub,
            random: self.random.fork(),
            max_age: self.config.settings.max_session_age,
            wall_clock: Arc::clone(&self.config.settings.wall_clock),
        };
        let (keeper, _) = Actor::spawn_linked(None, SessionKeeper, arguments, myself.get_cell()).await?;
        Ok(Some(keeper))
    }
}

/// What is left of a budget by our own count: everything, when its period is over. By a clock that was set back it ends
/// late, which is safe; by one that was set ahead early, and what Discord said stands alone.
fn remaining(spent: &BudgetRecord, limit: &SessionStartLimit, now: SystemTime) -> u32 {
    let counts = spent.total == limit.total && spent.resets_at_ms > store::unix_ms(now);
    if counts { spent.remaining } else { limit.remaining }
}

/// Asks the store what it holds, several times if need be: to start without its sessions costs an Identify for each.
pub(super) fn load_store(store: Arc<StoreLease>, manager: ActorRef<ManagerMessage>) -> AbortOnDrop {
    let loading = tokio::spawn(async move {
        let deadline = tokio::time::Instant::now() + LOAD_DEADLINE;
        let stored = loop {
            match tokio::time::timeout_at(deadline, store.load()).await {
                Ok(Err(_)) if tokio::time::Instant::now() + LOAD_AGAIN_AFTER < deadline => {
                    tokio::time::sleep(LOAD_AGAIN_AFTER).await;
                }
                Ok(stored) => break stored,
                Err(elapsed) => break Err(elapsed.into()),
            }
        };
        let _ = manager.cast(ManagerMessage::Stored(stored));
    });
    AbortOnDrop(loading.abort_handle())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shardkeeper_proto::IdentifyBudget;

    use super::*;

    #[test]
    fn a_budget_of_a_period_that_is_over_does_not_count() {
        let limit =
            SessionStartLimit { total: 1000, remaining: 700, reset_after_ms: 60_000, max_concurrency: 1 };
        let (now, wall) = (Instant::now(), SystemTime::now());
        let spent = |remaining, resets_at_ms| {
            let budget = IdentifyBudget::new(now, 1000, remaining, Duration::from_secs(60), 10);
            BudgetRecord { resets_at_ms, ..store::budget_record((now, wall), &budget, None) }
        };
        let (minute, year) = (60_000, 365 * 24 * 3_600_000);
        let wall_ms = store::unix_ms(wall);
        assert_eq!(remaining(&spent(5, wall_ms + minute), &limit, wall), 5);
        assert_eq!(remaining(&spent(5, wall_ms - minute), &limit, wall), 700);
        assert_eq!(remaining(&spent(5, wall_ms + year), &limit, wall), 5);
        assert_eq!(remaining(&spent(5, 0), &limit, wall), 700);
    }

    #[test]
    fn a_budget_of_another_allowance_does_not_count() {
        let limit =
            SessionStartLimit { total: 1000, remaining: 700, reset_after_ms: 60_000, max_concurrency: 1 };
        let (now, wall) = (Instant::now(), SystemTime::now());
        let budget = IdentifyBudget::new(now, 2000, 5, Duration::from_secs(60), 10);
        assert_eq!(remaining(&store::budget_record((now, wall), &budget, None), &limit, wall), 700);
    }
}
