//! What every [`IdentifyGate`] has to keep, as a set of checks. Behind the feature `conformance`.
//!
//! It runs in real time against a real implementation, and under tokio's paused clock against one that lives in memory. For
//! a window of 200 ms it takes about three seconds. What it cannot see is whether a lease ends: kill a process for that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shardkeeper_proto::ShardId;
use tokio::time::{Instant, sleep, timeout};

use super::{GateError, IdentifyGate, IdentifyPass, IdentifyRequest};
use crate::chain::readable;

/// So many keys, except where their number changes. Each check has keys of its own, and starts with free ones.
const KEYS: u32 = 64;
/// So many windows anybody may have to wait, at most, for what must come some day.
const PATIENCE: u32 = 20;

/// The rule that a gate broke.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The window was not kept.
    #[error(
        "the window was not kept: a pass came {after:?} after the last one of its key was spent, the window is {window:?}"
    )]
    Window {
        /// How much later it came.
        after: Duration,
        /// How much later it should have come.
        window: Duration,
    },
    /// Two passes of one key were out together.
    #[error("a key had two passes: one was out, and another process was given one")]
    TwoPasses,
    /// Keys depend on each other.
    #[error(
        "keys are not independent: a free key had no pass within {waited:?}, since another one was in use"
    )]
    Keys {
        /// For how long it was waited for.
        waited: Duration,
    },
    /// An unspent pass did not return.
    #[error("an unspent pass did not return: it was dropped, and its key had no other one within {waited:?}")]
    Unspent {
        /// For how long it was waited for.
        waited: Duration,
    },
    /// Who went away kept the place.
    #[error("a dropped future kept its place: its key was free, and nobody had a pass within {waited:?}")]
    Place {
        /// For how long it was waited for.
        waited: Duration,
    },
    /// Somebody did not get through.
    #[error("somebody who asked got no pass within {waited:?}: everybody has to get through")]
    Starved {
        /// For how long it was waited for.
        waited: Duration,
    },
    /// Another `max_concurrency` was not heeded.
    #[error("a change of max_concurrency was not heeded: {found}")]
    MaxConcurrency {
        /// How it showed.
        found: &'static str,
    },
    /// It failed, so that nothing could be checked.
    #[error("the gate failed")]
    Failed(#[source] GateError),
}

/// Checks a gate. Each call of `make` stands for another process of the same bot.
///
/// What has to come at once has three quarters of a `window`, so choose a few times what a call takes. A hundredth of the
/// window is forgiven where clocks are compared. The very first pass may take twenty windows: those of an earlier run may
/// have to end.
///
/// # Errors
///
/// The first rule that was broken.
///
/// # Cancel safety
///
/// Dropped, it leaves nothing behind but spent windows.
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
        // A gate that waits for a window in vain must be told from one that does not.
        let waited = self.window * 3 / 4;
        self.within(waited, gate, asker).await?.ok_or_else(|| otherwise(waited))
    }

    /// `spent` is when the last pass was spent; it was measured just before.
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
            // A window that counted from when the pass was given would be over too early.
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
            // Some time on the way, as in life.
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
