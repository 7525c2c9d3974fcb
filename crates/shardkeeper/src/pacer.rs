//! How fast connections may be opened, over all shards.
//!
//! Discord sets no limit, but when thousands of shards lose their connections together they should not come back
//! in one instant (GW-138). Bursts are welcome here, so this is governor's place: its bucket admits one burst and
//! then a steady rate. (For commands it would be wrong: it admits nearly twice its limit in the worst window.)

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Lets so many connections per second be opened, and as many at once after a pause.
#[derive(Debug)]
pub(crate) struct Pacer(RateLimiter<NotKeyed, InMemoryState, TokioClock>);

impl Pacer {
    pub(crate) fn new(connects_per_second: NonZeroU32) -> Self {
        Self(RateLimiter::direct_with_clock(Quota::per_second(connects_per_second), TokioClock))
    }

    /// Admits one connection, or says when to ask again. `random` in `[0, 1)` keeps those who wait apart.
    pub(crate) fn admit(&self, random: f64) -> Result<(), Duration> {
        self.0.check().map_err(|refused| {
            let wait = refused.wait_time_from(TokioClock.now());
            wait.mul_f64(1.0 + random) + Duration::from_millis(1)
        })
    }
}

/// tokio's clock, which tests can pause; governor's own could not be.
#[derive(Clone, Debug)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gw_138_a_burst_and_then_the_rate() {
        let pacer = Pacer::new(NonZeroU32::new(50).unwrap());
        let start = Instant::now();
        let mut admitted = Vec::new();
        while admitted.len() < 150 {
            match pacer.admit(0.0) {
                Ok(()) => admitted.push(start.elapsed()),
                Err(wait) => tokio::time::advance(wait).await,
            }
        }
        assert_eq!(admitted[49], Duration::ZERO);
        let last = admitted[149];
        assert!((Duration::from_millis(1900)..Duration::from_millis(2300)).contains(&last), "{last:?}");
    }
}
