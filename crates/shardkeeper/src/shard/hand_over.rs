//! The end of a driver: subscribers get what was received for them, before the session goes to somebody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::parts::Parts;
use crate::dispatch::{HeldByAsker, Lifecycle, STALLED_AFTER, SubscriptionLabel};

/// For how long whoever awaits an end may have an event in hand before the end goes on without it. 1 s: a task that has other
/// work in hand beside is mostly done with it, and nobody takes the wait for a hang.
const ASKER_HOLDS: Duration = Duration::from_secs(1);
/// How often an end looks who is in its way. 250 ms: short against what it looks for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Parts {
    /// Subscribers get what they have not taken yet, and finish what they have in hand if the session goes to another process.
    /// The manager's deadline ends the wait. Whoever takes long is named.
    pub(super) async fn hand_over(&mut self, detaching: bool) {
        let slot = Arc::clone(&self.slot);
        let mut settles_since = None;
        let mut reported = false;
        loop {
            let taken = async {
                self.publisher.catch_up().await;
                if detaching {
                    settles_since.get_or_insert_with(Instant::now);
                    slot.watermark().settled().await;
                }
            };
            if timeout(LOOK_EVERY, taken).await.is_ok() {
                return;
            }
            if let Some((subscription, since)) = self.held_by_asker(detaching)
                && Instant::now().into_std().saturating_duration_since(since) >= ASKER_HOLDS
            {
                let shard = self.shard.0;
                tracing::warn!(
                    "shard {shard}: whoever awaits its end has an event of {subscription} in hand and does not read on: \
                     the end does not wait for that, and what is not acknowledged comes again. \
                     Drop the delivery before awaiting the end"
                );
                if let Some(stuck) = self.stuck(ASKER_HOLDS) {
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

    /// The subscription whose events stay where they are, because its reader waits for this very end, and since when; `None`
    /// while anybody else is waited for too.
    fn held_by_asker(&self, detaching: bool) -> Option<(SubscriptionLabel, std::time::Instant)> {
        let (watermark, mut held) = (self.slot.watermark(), None);
        if self.publisher.is_behind() {
            held = Some(self.publisher.left_by_asker()?);
        }
        if detaching && !watermark.is_settled() {
            let HeldByAsker { subscription, since } = watermark.held_by_asker(self.shard)?;
            let before = held.map_or(since, |(_, since)| since);
            held = Some((subscription, since.max(before)));
        }
        held
    }

    fn stuck(&self, stuck_for: Duration) -> Option<Lifecycle> {
        let (sequence, subscription) = self.slot.watermark().waits_for()?;
        Some(Lifecycle::WatermarkStuck { shard: self.shard, subscription, sequence, stuck_for })
    }
}
