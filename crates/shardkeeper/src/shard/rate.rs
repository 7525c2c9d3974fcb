//! Rate limits that drop the excess, with the `governor` crate: nothing waits for them.
//!
//! Rate limits that make callers wait are elsewhere: commands and Identify have exact windows, and
//! connections have their [`Pacer`](crate::shard::pacer::Pacer).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::layout::ShardKey;

/// The number of warnings that a shard may log in a burst; any excess is logged at level debug.
const WARNINGS: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
/// After a burst, the interval at which a shard may log one more warning. An outage lasts minutes, and its
/// warnings are all the same.
const WARNING_EVERY: Duration = Duration::from_secs(60);

/// The clock of tokio, which tests can pause, unlike the clocks of governor.
#[derive(Clone, Debug)]
pub(crate) struct TokioClock;

impl Clock for TokioClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// Admits one event per interval.
#[derive(Debug)]
pub(crate) struct OncePer(RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Instant>>);

impl OncePer {
    /// Creates the limit.
    ///
    /// # Panics
    ///
    /// When the interval is zero.
    pub(crate) fn new(interval: Duration) -> Self {
        let quota = Quota::with_period(interval).expect("the interval is not zero");
        Self(RateLimiter::new(quota, InMemoryState::default(), TokioClock))
    }

    /// Whether the event is admitted now; if so, a new interval begins.
    pub(crate) fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// Limits how often a shard logs a warning about repeated trouble.
#[derive(Debug)]
pub(crate) struct Warnings(
    RateLimiter<ShardKey, HashMapStateStore<ShardKey>, TokioClock, NoOpMiddleware<Instant>>,
);

impl Warnings {
    pub(crate) fn new() -> Self {
        let quota = Quota::with_period(WARNING_EVERY).expect("a minute is not zero").allow_burst(WARNINGS);
        Self(RateLimiter::new(quota, HashMapStateStore::default(), TokioClock))
    }

    /// Whether this shard may log one more warning.
    pub(crate) fn admit(&self, shard: ShardKey) -> bool {
        self.0.check_key(&shard).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_warns_three_times_and_then_once_a_minute() {
        let warnings = Warnings::new();
        let admitted = |shard| {
            (0..50)
                .filter(|_| warnings.admit(ShardKey { id: shardkeeper_proto::ShardId(shard), generation: 1 }))
                .count()
        };
        assert_eq!((admitted(0), admitted(1)), (3, 3), "each shard by itself");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(admitted(0), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_in_an_interval_is_admitted() {
        let rate = OncePer::new(Duration::from_secs(60));
        let mut admitted = 0;
        for _ in 0..600 {
            admitted += u32::from(rate.admits());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(admitted, 10);
    }
}
