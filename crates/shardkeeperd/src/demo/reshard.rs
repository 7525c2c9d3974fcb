//! The demo's reshard: Discord recommends another number of shards, and the bot follows.

use std::time::Duration;

use serde::Serialize;
use shardkeeper::config::{ReshardRequest, ShardCount};
use shardkeeper::{Lifecycle, Shardkeeper};
use shardkeeper_sim::{Action, Simulator};
use tokio::time::Instant;

/// A reshard that is due, under way or over.
pub(super) struct Reshard {
    due: Option<Instant>,
    /// The time that the plan estimates, once it was asked for.
    takes: Option<Duration>,
    /// Whether it was refused, or given up.
    failed: bool,
    outcome: Outcome,
}

/// What became of the reshard.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) from: u32,
    pub(super) to: u32,
    /// How many groups of shards there are.
    pub(super) groups: usize,
    /// How many groups have moved.
    pub(super) done: usize,
    /// How long it took; `None` if it did not finish.
    pub(super) took_ms: Option<u64>,
}

impl Reshard {
    pub(super) fn new(from: u32, to: u32) -> Self {
        let outcome = Outcome { from, to, groups: 0, done: 0, took_ms: None };
        Self { due: None, takes: None, failed: false, outcome }
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        self.failed || self.outcome.took_ms.is_some()
    }

    /// The time that it needs, as far as that is known.
    pub(super) fn takes(&self) -> Duration {
        self.takes.unwrap_or_default()
    }

    /// Begins after a quarter of the time, between the faults. Called while every shard is ready.
    pub(super) async fn begin_if_due(
        &mut self,
        now: Instant,
        end: Instant,
        keeper: &Shardkeeper,
        simulator: &Simulator,
    ) -> Option<String> {
        let due = *self.due.get_or_insert_with(|| now + end.saturating_duration_since(now) / 4);
        if self.takes.is_some() || self.failed || now < due {
            return None;
        }
        let Outcome { from, to, .. } = self.outcome;
        let advice = Action::Limits { shards: Some(to), max_concurrency: None, remaining: None };
        // Concerns no shard, so it cannot fail.
        let _ = simulator.act(&advice);
        let request = match ShardCount::new(to) {
            Some(count) if to != from => ReshardRequest::to(count),
            _ => ReshardRequest::same(),
        };
        Some(match keeper.reshard(request).await {
            Ok(plan) => {
                self.outcome.groups = plan.groups.len();
                self.takes = Some(plan.forecast.takes);
                format!("── reshard: {from} → {to} shards, in {} groups", plan.groups.len())
            }
            Err(error) => {
                self.failed = true;
                format!("── reshard: {error}")
            }
        })
    }

    /// Records how it goes on.
    pub(super) fn watch(&mut self, lifecycle: &Lifecycle) {
        match lifecycle {
            Lifecycle::ReshardGroup { done, .. } => self.outcome.done = *done,
            Lifecycle::ReshardFinished { took, .. } => {
                self.outcome.took_ms = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
            Lifecycle::ReshardHalted { .. } | Lifecycle::ReshardWithdrawn { .. } => self.failed = true,
            _ => {}
        }
    }
}
