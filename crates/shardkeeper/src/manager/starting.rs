//! From nothing to a fleet: what the session store holds, what the gateway allows, and the children started
//! from both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ractor::{ActorProcessingErr, ActorRef};
use shardkeeper_proto::ShardCount;

use super::config::LayoutChoice;
use super::first_layout::{Share, Slice, first_layout};
use super::gateway::budget;
use super::phase::{Fleet, Phase, StartStep, Starting, StoreContents};
use super::resumable::Resumable;
use super::shards::Shards;
use super::silence::{CHECK_EVERY, SilenceWatch};
use super::{ManagerState, now};
use crate::dispatch::Lifecycle;
use crate::error::{ConfigError, StartError};
use crate::gateway_info::{GatewayInfo, SessionStartLimit};
use crate::identify::IdentifyLedger;
use crate::layout::ShardKey;
use crate::message::ManagerMessage;
use crate::session::SessionTable;
use crate::store::{
    self, BudgetRecord, LayoutRecord, RecordError, SessionRecord, StoreError, StoreLease, Stored,
};
use crate::task::AbortOnDrop;

/// How long a start waits for the session store. A load that fails is repeated within this time.
const LOAD_DEADLINE: Duration = Duration::from_secs(10);
const LOAD_AGAIN_AFTER: Duration = Duration::from_millis(500);

impl ManagerState {
    /// Takes what the session store holds, or goes on without it.
    pub(super) async fn stored(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        stored: Result<Stored, StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        let failed = stored.is_err();
        let stored = stored.unwrap_or_else(|error| {
            let error = crate::chain::chain(error.as_ref());
            self.live.hub.announce(&Lifecycle::StoreFailed { error, retry_after: None });
            Stored::default()
        });
        let Phase::Starting(Starting { step, .. }) = &mut self.phase else { return Ok(()) };
        let StartStep::AwaitStore { gateway, .. } = step else { return Ok(()) };
        let gateway = gateway.take();
        *step = StartStep::AwaitGateway(StoreContents { stored, failed });
        match gateway {
            Some(info) => self.gateway(myself, info).await,
            None => Ok(()),
        }
    }

    /// Starts the shards, now that the store and the gateway have answered.
    pub(super) async fn start(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        info: GatewayInfo,
        contents: StoreContents,
    ) -> Result<(), ActorProcessingErr> {
        let wanted = match self.wanted(&info) {
            Ok(wanted) => wanted,
            Err(error) => {
                self.fail_start(myself, StartError::Layout(error));
                return Ok(());
            }
        };
        let settings = &self.config.settings;
        let wall = (settings.wall_clock)();
        let StoreContents { stored, failed } = contents;
        let mut limit = info.session_start_limit;
        if let Some(spent) = stored.budget.filter(|_| settings.gateway.is_some()) {
            limit.remaining = limit.remaining.min(remaining(&spent, &limit, wall));
        }
        let last_identify = stored.budget.and_then(|budget| budget.last_identify_ms);
        let last_identify = last_identify.and_then(|at| now().checked_sub(store::since(wall, at)));
        let mut budget = budget(&limit, settings.identify_reserve);
        let ledger = Arc::new(IdentifyLedger::new(budget, last_identify));
        let mut sessions = Resumable::new(&self.config, &info.url, &stored, wall);
        let first = first_layout(&sessions.known(&self.config, wanted, &stored));
        tracing::info!(
            shards = first.active.len(),
            count = first.layouts.newest().count.get(),
            generation = first.layouts.newest().generation,
            wanted = wanted.get(),
            max_concurrency = limit.max_concurrency,
            remaining = limit.remaining,
            "starting: {}",
            first.reason
        );
        let table = Arc::new(Mutex::new(SessionTable {
            slots: BTreeMap::new(),
            held: self.to_keep(&stored.sessions, wall),
            layout: LayoutRecord::of(&first.layouts, first.refused),
            ledger: Arc::clone(&ledger),
            degraded: failed,
        }));
        let mut shards = Shards::new(
            (Arc::clone(&self.config), Arc::clone(&self.live.hub)),
            info.url.clone(),
            (first.layouts.clone(), std::mem::take(&mut sessions.intents)),
            Arc::clone(&table),
        );
        shards.add_first(&first, &mut sessions, self.presence.as_ref());
        sessions.report_unused();
        let needed = shards.without_session();
        if settings.require_full_start && needed > 0 && !budget.affords(now(), needed - 1) {
            let resets_after = budget.resets_at(now()).saturating_duration_since(now());
            let (left, reserve) = (limit.remaining, settings.identify_reserve);
            self.fail_start(myself, StartError::Budget { needed, left, reserve, resets_after });
            return Ok(());
        }
        let queue = self.spawn_queue(myself, &info, &ledger).await?;
        let keeper = match self.store.clone() {
            Some(store) => Some(self.spawn_keeper(myself, store, Arc::clone(&table)).await?),
            None => None,
        };
        let silence = SilenceWatch::default();
        let mut fleet = Box::new(Fleet {
            info,
            queue,
            ledger,
            table,
            keeper,
            shards,
            all_ready_announced: 0,
            advised: 0,
            wanted: first.wanted,
            silence,
            reshard: None,
            setback: None,
        });
        for shard in first.active {
            fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?;
        }
        let before = std::mem::replace(&mut self.phase, Phase::Running(fleet));
        myself.send_after(CHECK_EVERY, || ManagerMessage::Look);
        self.announce_wanted();
        self.announce_advice();
        self.continue_reshard(myself);
        if let Phase::Starting(starting) = before {
            starting.callers.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
        }
        Ok(())
    }

    /// Ends the manager, which has started nothing yet, and reports the error to whoever waits for the start.
    pub(super) fn fail_start(&mut self, myself: &ActorRef<ManagerMessage>, error: StartError) {
        tracing::error!(error = crate::chain::chain(&error), "cannot start");
        let (closed, myself) = (self.close_store(), myself.clone());
        let Phase::Starting(starting) = &mut self.phase else { return };
        starting.step = StartStep::Failed;
        let mut callers = std::mem::take(&mut starting.callers).into_iter();
        tokio::spawn(async move {
            closed.await;
            // The error cannot be cloned. More than one caller is rare; the others learn that the manager has
            // ended.
            if let Some(first) = callers.next() {
                let _ = first.send(Err(error));
            }
            drop(callers);
            myself.stop(None);
        });
    }

    fn wanted(&self, info: &GatewayInfo) -> Result<ShardCount, ConfigError> {
        match &self.config.layout {
            LayoutChoice::Recommended => ShardCount::new(info.shards).ok_or(ConfigError::NoShards),
            LayoutChoice::All(count) | LayoutChoice::Some { count, .. } => Ok(*count),
        }
    }

    /// Announces that the shard count is not the wanted one, because sessions were resumed.
    fn announce_wanted(&self) {
        let Phase::Running(fleet) = &self.phase else { return };
        if let Some(wanted) = fleet.wanted {
            let count = fleet.shards.layouts().newest().count;
            self.live.hub.announce(&Lifecycle::LayoutFollowed { count, wanted });
        }
    }

    /// Which stored sessions this process has to keep up to date or delete: those of its own guilds, and those
    /// that are too old for any process. The others belong to the shards of other processes.
    fn to_keep(&self, stored: &[SessionRecord], wall: SystemTime) -> BTreeSet<ShardKey> {
        let mut slices = BTreeMap::new();
        let is_ours = |record: &&SessionRecord| {
            let count = record.session.count;
            let slice = slices.entry(count).or_insert_with(|| Slice::new(&self.config.layout, count));
            let checked = record.check(wall, self.config.settings.max_session_age);
            slice.share(record.session.shard) == Share::Whole
                || matches!(checked, Err(RecordError::TooOld { .. }))
        };
        stored.iter().filter(is_ours).map(SessionRecord::slot).collect()
    }
}

/// What is left of a budget by our own count: everything, once its period is over. A wall clock that was set
/// back makes the period end late, which is safe. One that was set ahead makes it end early, and only
/// Discord's number counts.
fn remaining(spent: &BudgetRecord, limit: &SessionStartLimit, now: SystemTime) -> u32 {
    let counts = spent.total == limit.total && spent.resets_at_ms > store::unix_ms(now);
    if counts { spent.remaining } else { limit.remaining }
}

/// Loads what the store holds, and tries again after an error: a start without its sessions costs an Identify
/// for each.
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
    fn a_stored_budget_does_not_count_once_its_period_is_over() {
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
    fn a_stored_budget_with_another_total_does_not_count() {
        let limit =
            SessionStartLimit { total: 1000, remaining: 700, reset_after_ms: 60_000, max_concurrency: 1 };
        let (now, wall) = (Instant::now(), SystemTime::now());
        let budget = IdentifyBudget::new(now, 2000, 5, Duration::from_secs(60), 10);
        assert_eq!(remaining(&store::budget_record((now, wall), &budget, None), &limit, wall), 700);
    }
}
