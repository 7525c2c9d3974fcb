//! Checks that every [`IdentifyGate`] has to pass. Behind the feature `conformance`.
//!
//! The checks run in real time against a real implementation, and under tokio's paused clock against one in
//! memory. With a window of 200 ms they take about three seconds. They cannot test whether a lease ends: kill
//! a process for that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shardkeeper_proto::ShardId;
use tokio::time::{Instant, sleep, timeout};

use super::{GateError, IdentifyGate, IdentifyPass, IdentifyRequest};
use crate::chain::readable;

/// Number of keys, except where it changes. Each check has keys of its own, which are free at first.
const KEYS: u32 = 64;
/// Longest wait, in windows, for a pass that must come eventually.
const PATIENCE: u32 = 20;

/// A rule of [`IdentifyGate`] that the gate breaks.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A pass came before the window of its key was over.
    #[error(
        "the window was not kept: a pass came {after:?} after the last one of its key was spent, \
         the window is {window:?}"
    )]
    Window {
        /// Time from the last spent pass to the next pass.
        after: Duration,
        /// Time that it should have been.
        window: Duration,
    },
    /// Two passes of one key were out at the same time.
    #[error("a key had two passes at once: one was out when another process got one")]
    TwoPasses,
    /// A free key had to wait for another key.
    #[error(
        "keys are not independent: a free key had no pass within {waited:?}, since another one was in use"
    )]
    Keys {
        /// Time that was waited.
        waited: Duration,
    },
    /// An unspent pass did not return.
    #[error("an unspent pass did not return: it was dropped, and its key had no other one within {waited:?}")]
    Unspent {
        /// Time that was waited.
        waited: Duration,
    },
    /// A dropped request kept its place.
    #[error("a dropped future kept its place: its key was free, and no request got a pass within {waited:?}")]
    Place {
        /// Time that was waited.
        waited: Duration,
    },
    /// A request never got a pass.
    #[error("a request got no pass within {waited:?}: every request must get one eventually")]
    Starved {
        /// Time that was waited.
        waited: Duration,
    },
    /// A change of `max_concurrency` was ignored.
    #[error("a change of max_concurrency was ignored: {found}")]
    MaxConcurrency {
        /// What the gate did.
        found: &'static str,
    },
    /// The gate returned an error, so nothing could be checked.
    #[error("the gate failed")]
    Failed(#[source] GateError),
}

/// Checks a gate. Each call of `make` stands for another process of the same bot.
///
/// Passes that have to come at once must come within three quarters of a `window`, so choose a window of a
/// few times the duration of a call. A hundredth of the window is tolerated where clocks are compared. The
/// first pass may take twenty windows, since windows of an earlier run may have to end.
///
/// # Errors
///
/// The first rule that was broken.
///
/// # Cancel safety
///
/// Dropping the future leaves only spent windows behind.
pub async fn check(make: impl Fn() -> Arc<dyn IdentifyGate>, window: Duration) -> Result<(), Broken> {
    let set = Set { here: make(), there: make(), window };
    drop(set.in_the_end(&*set.here, shard(0, KEYS)).await?);
    set.the_window_counts_from_spent().await?;
    set.a_pass_that_is_out_blocks_its_key().await?;
    set.an_unspent_pass_returns().await?;
    set.keys_are_independent().await?;
    set.a_dropped_future_frees_its_place().await?;
    set.everybody_gets_through().await?;
    set.max_concurrency_may_change().await
}

struct Asker {
    shard: ShardId,
    max_concurrency: u32,
}

fn shard(shard: u32, max_concurrency: u32) -> Asker {
    Asker { shard: ShardId(shard), max_concurrency }
}

/// Two processes of one bot.
struct Set {
    here: Arc<dyn IdentifyGate>,
    there: Arc<dyn IdentifyGate>,
    window: Duration,
}

impl Set {
    async fn within(
        &self,
        limit: Duration,
        gate: &dyn IdentifyGate,
        asker: Asker,
    ) -> Result<Option<IdentifyPass>, Broken> {
        let asking = gate.admit(IdentifyRequest::new(asker.shard, asker.max_concurrency, self.window));
        timeout(limit, asking).await.ok().transpose().map_err(Broken::Failed)
    }

    async fn in_the_end(&self, gate: &dyn IdentifyGate, asker: Asker) -> Result<IdentifyPass, Broken> {
        let waited = self.window * PATIENCE;
        self.within(waited, gate, asker).await?.ok_or(Broken::Starved { waited })
    }

    async fn at_once(
        &self,
        gate: &dyn IdentifyGate,
        asker: Asker,
        otherwise: impl FnOnce(Duration) -> Broken,
    ) -> Result<IdentifyPass, Broken> {
        // Shorter than a window, so that a gate that wrongly waits for a window fails the check.
        let waited = self.window * 3 / 4;
        self.within(waited, gate, asker).await?.ok_or_else(|| otherwise(waited))
    }

    /// `spent` is the time when the last pass was spent, measured just before.
    fn is_over(&self, spent: Instant, next: Instant) -> Result<(), Broken> {
        let after = next.saturating_duration_since(spent);
        if after + self.window / 100 < self.window {
            return Err(Broken::Window { after, window: self.window });
        }
        Ok(())
    }

    async fn the_window_counts_from_spent(&self) -> Result<(), Broken> {
        let mut pass = self.in_the_end(&*self.here, shard(1, KEYS)).await?;
        for (gate, turn) in [(&self.there, 1), (&self.here, 2)] {
            // A window that counted from when the pass was given would end too early.
            sleep(self.window / 2).await;
            let spent = Instant::now();
            pass.spent();
            pass = self.in_the_end(&**gate, shard(1 + turn * KEYS, KEYS)).await?;
            self.is_over(spent, Instant::now())?;
        }
        Ok(())
    }

    async fn a_pass_that_is_out_blocks_its_key(&self) -> Result<(), Broken> {
        let _out = self.in_the_end(&*self.here, shard(2, KEYS)).await?;
        for (gate, halves) in [(&self.there, 3), (&self.here, 1)] {
            if self.within(self.window * halves / 2, &**gate, shard(2 + KEYS, KEYS)).await?.is_some() {
                return Err(Broken::TwoPasses);
            }
        }
        Ok(())
    }

    async fn an_unspent_pass_returns(&self) -> Result<(), Broken> {
        drop(self.in_the_end(&*self.here, shard(3, KEYS)).await?);
        for gate in [&self.there, &self.there, &self.here] {
            drop(self.at_once(&**gate, shard(3 + KEYS, KEYS), |waited| Broken::Unspent { waited }).await?);
        }
        Ok(())
    }

    async fn keys_are_independent(&self) -> Result<(), Broken> {
        let keys = |waited| Broken::Keys { waited };
        let out = self.in_the_end(&*self.here, shard(4, KEYS)).await?;
        let _out = self.at_once(&*self.here, shard(5, KEYS), keys).await?;
        let _out = self.at_once(&*self.there, shard(6, KEYS), keys).await?;
        out.spent();
        let _out = self.at_once(&*self.there, shard(7, KEYS), keys).await?;
        Ok(())
    }

    async fn a_dropped_future_frees_its_place(&self) -> Result<(), Broken> {
        let out = self.in_the_end(&*self.here, shard(8, KEYS)).await?;
        for gate in [&self.here, &self.there] {
            if self.within(self.window / 2, &**gate, shard(8 + KEYS, KEYS)).await?.is_some() {
                return Err(Broken::TwoPasses);
            }
        }
        drop(out);
        for gate in [&self.here, &self.there] {
            drop(self.at_once(&**gate, shard(8 + 2 * KEYS, KEYS), |waited| Broken::Place { waited }).await?);
        }
        Ok(())
    }

    async fn everybody_gets_through(&self) -> Result<(), Broken> {
        let asking = (0..10).map(|asker| async move {
            let gate = if asker / 2 % 2 == 0 { &self.here } else { &self.there };
            let key = 9 + asker % 2;
            let pass = self.in_the_end(&**gate, shard(key + asker / 2 * KEYS, KEYS)).await?;
            let came = Instant::now();
            // Stands for the time between a pass and its Identify.
            sleep(self.window / 10).await;
            let spent = Instant::now();
            pass.spent();
            Ok((key, came, spent))
        });
        let mut passes = join_all(asking).await.into_iter().collect::<Result<Vec<_>, Broken>>()?;
        passes.sort();
        for pair in passes.windows(2) {
            let ((key, _, spent), (next_key, came, _)) = (pair[0], pair[1]);
            if key == next_key {
                self.is_over(spent, came)?;
            }
        }
        Ok(())
    }

    async fn max_concurrency_may_change(&self) -> Result<(), Broken> {
        let broken = |found| Broken::MaxConcurrency { found };
        let early = "a pass came before the window under the old number was over";

        let pass = self.in_the_end(&*self.here, shard(0, 1)).await?;
        let spent = Instant::now();
        pass.spent();
        let first = self.in_the_end(&*self.there, shard(1, 2)).await?;
        self.is_over(spent, Instant::now()).map_err(|_| broken(early))?;
        let apart = |_| broken("shards 0 and 1 still have one key, under two");
        drop(self.at_once(&*self.here, shard(0, 2), apart).await?);

        let spent = Instant::now();
        first.spent();
        let _out = self.in_the_end(&*self.here, shard(0, 1)).await?;
        self.is_over(spent, Instant::now()).map_err(|_| broken(early))?;
        if self.within(self.window, &*self.there, shard(1, 1)).await?.is_some() {
            return Err(broken("shards 0 and 1 still have two keys, under one"));
        }
        Ok(())
    }
}

readable!(Broken);

#[cfg(test)]
mod tests;
