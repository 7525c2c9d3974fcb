//! How fast connections may be opened, over all shards.
//!
//! Discord sets no limit, but when thousands of shards lose their connections together they should not come back
//! in one instant (GW-138). Each gets its turn once, and knows from the beginning how long it has to wait: nobody asks
//! again and again, and the log can say what a shard waits for.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets so many connections per second be opened, and as many at once after a pause.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Between two turns.
    interval: Duration,
    /// So far ahead of its time a turn may be taken.
    burst: Duration,
    next_turn: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(crate) fn new(connects_per_second: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / connects_per_second.get();
        Self { interval, burst: interval * (connects_per_second.get() - 1), next_turn: Mutex::default() }
    }

    /// Takes the next turn, and returns how long it is until then. A turn that is not used is lost.
    pub(crate) fn take_turn(&self) -> Duration {
        let now = Instant::now();
        let mut next_turn = self.next_turn.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next_turn.map_or(now, |turn| turn.max(now));
        *next_turn = Some(turn + self.interval);
        turn.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gw_138_a_burst_and_then_the_rate() {
        let pacer = Pacer::new(NonZeroU32::new(50).unwrap());
        let waits: Vec<u128> = (0..150).map(|_| pacer.take_turn().as_millis()).collect();
        assert!(waits[..50].iter().all(|wait| *wait == 0));
        assert!(waits[50..].iter().copied().eq((1..=100).map(|place| place * 20)));
        // After a pause the same.
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((0..50).map(|_| pacer.take_turn()).max(), Some(Duration::ZERO));
        assert_eq!(pacer.take_turn(), Duration::from_millis(20));
    }
}
