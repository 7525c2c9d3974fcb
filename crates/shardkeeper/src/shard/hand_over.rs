//! The end of a driver: subscribers receive all events of the shard before its session is handed over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::parts::Parts;
use crate::dispatch::{HeldByWaiter, Lifecycle, STALLED_AFTER, SubscriptionLabel};
use crate::layout::ShardKey;

/// How long a reader that awaits a shutdown may hold an event before the shutdown continues without it. 1 s:
/// a task that also does other work has mostly finished it by then, and 1 s does not look like a hang.
const WAITER_HOLDS: Duration = Duration::from_secs(1);
/// How often a shutdown checks for such a reader. 250 ms is short compared with `WAITER_HOLDS`.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Parts {
    /// Waits until subscribers have taken all events and, if the session goes to another process, until they
    /// have acknowledged them. The manager's deadline ends the wait. A subscription that takes long is
    /// reported.
    pub(super) async fn hand_over(&mut self, detaching: bool) {
        let cell = Arc::clone(&self.cell);
        let mut settles_since = None;
        let mut reported = false;
        loop {
            let taken = async {
                self.publisher.catch_up().await;
                if detaching {
                    settles_since.get_or_insert_with(Instant::now);
                    cell.watermark().settled().await;
                }
            };
            if timeout(LOOK_EVERY, taken).await.is_ok() {
                return;
            }
            if let Some((subscription, since)) = self.held_by_waiter(detaching)
                && Instant::now().into_std().saturating_duration_since(since) >= WAITER_HOLDS
            {
                let shard = self.shard;
                tracing::warn!(
                    "shard {shard}: the reader of {subscription} awaits the shutdown while it holds a \
                     delivery: the shutdown does not wait for it, and events that are not acknowledged \
                     are delivered again. Drop the delivery before awaiting the shutdown"
                );
                if let Some(stuck) = self.stuck(WAITER_HOLDS) {
                    self.publisher.announce_aside(&stuck);
                }
                return;
            }
            if !reported && settles_since.is_some_and(|since| since.elapsed() >= STALLED_AFTER) {
                reported = true;
                if let Some(stuck) = self.stuck(STALLED_AFTER) {
                    self.publisher.announce_aside(&stuck);
                }
            }
        }
    }

    /// The subscription whose reader holds events while it awaits this shutdown, and since when; `None` while
    /// the shutdown also waits for anyone else.
    fn held_by_waiter(&self, detaching: bool) -> Option<(SubscriptionLabel, std::time::Instant)> {
        let (watermark, mut held) = (self.cell.watermark(), None);
        if self.publisher.is_behind() {
            held = Some(self.publisher.left_by_waiter()?);
        }
        if detaching && !watermark.is_settled() {
            let HeldByWaiter { subscription, since } = watermark.held_by_waiter(self.shard)?;
            let before = held.map_or(since, |(_, since)| since);
            held = Some((subscription, since.max(before)));
        }
        held
    }

    fn stuck(&self, stuck_for: Duration) -> Option<Lifecycle> {
        let (sequence, subscription) = self.cell.watermark().waits_for()?;
        let ShardKey { id: shard, generation } = self.shard;
        Some(Lifecycle::WatermarkStuck { shard, generation, subscription, sequence, stuck_for })
    }
}
