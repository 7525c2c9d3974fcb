//! Limits how fast connections are opened, over all shards.
//!
//! Discord sets no limit, but thousands of shards that lose their connections together should not all return
//! at once (GW-138). Each shard reserves its time once and knows from the beginning how long it has to wait,
//! so it need not ask again, and the log can show the wait.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Allows a number of connections per second, and as many at once after a pause.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The time between two connections.
    interval: Duration,
    /// How long before its reserved time a connection may be opened.
    burst: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(crate) fn new(connects_per_second: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / connects_per_second.get();
        Self { interval, burst: interval * (connects_per_second.get() - 1), next: Mutex::default() }
    }

    /// Reserves the time of the next connection, and returns how long to wait for it. A reserved time that is
    /// not used is lost.
    pub(crate) fn reserve(&self) -> Duration {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |at| at.max(now));
        *next = Some(at + self.interval);
        at.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gw_138_a_burst_and_then_the_rate() {
        let pacer = Pacer::new(NonZeroU32::new(50).unwrap());
        let waits: Vec<u128> = (0..150).map(|_| pacer.reserve().as_millis()).collect();
        assert!(waits[..50].iter().all(|wait| *wait == 0));
        assert!(waits[50..].iter().copied().eq((1..=100).map(|excess| excess * 20)));
        // After a pause the same.
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((0..50).map(|_| pacer.reserve()).max(), Some(Duration::ZERO));
        assert_eq!(pacer.reserve(), Duration::from_millis(20));
    }
}
