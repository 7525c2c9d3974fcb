//! Checks that every [`SessionStore`] has to pass.

use std::time::SystemTime;

use futures_util::FutureExt;
use shardkeeper_proto::{Session, ShardCount, ShardId};

use super::record::FORMAT;
use super::{BudgetRecord, Changes, SessionRecord, SessionStore, StoreError, Stored};
use crate::chain::readable;

/// A rule of [`SessionStore`] that the store breaks.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The store returned an error.
    #[error("the store failed while {doing}")]
    Failed {
        /// Operation that failed.
        doing: &'static str,
        /// Error of the store.
        source: StoreError,
    },
    /// The store holds something other than it should.
    #[error("{rule}: the store holds {found} instead of {expected}")]
    Wrong {
        /// Rule that was broken.
        rule: &'static str,
        /// Content of the store.
        found: String,
        /// Expected content.
        expected: String,
    },
}

/// Checks a store. Each call of `open()` stands for another process: its result replaces the store before,
/// which is dropped first. The store must be empty at the beginning.
///
/// # Errors
///
/// The first rule that the store breaks.
pub async fn check<S: SessionStore>(open: impl AsyncFn() -> S) -> Result<(), Broken> {
    let mut bench = Bench { store: Some(open().await), expected: Stored::default() };
    bench.holds("it is empty at first").await?;

    bench.save(vec![record(0, 4, 1), record(3, 4, 1), record(0, 8, 1)], vec![], None).await?;
    bench.holds("each slot of each layout has a record of its own").await?;
    bench.reopen(&open, "records outlive the process").await?;

    bench.save(vec![record(3, 4, 2)], vec![], Some(budget(990))).await?;
    bench.holds("a record replaces that of its slot, and no other").await?;
    bench.reopen(&open, "the budget outlives the process").await?;

    bench.save(vec![record(1, 4, 9)], vec![(0, 4), (2, 4)], None).await?;
    bench.holds("a slot is emptied, also one that is empty, and the budget stays").await?;
    bench.save(vec![], vec![], Some(budget(989))).await?;
    bench.reopen(&open, "the budget is replaced").await?;

    let many: Vec<SessionRecord> = (0..2000).map(|shard| record(shard, 2000, u64::from(shard))).collect();
    bench.save(many, vec![], None).await?;
    bench.reopen(&open, "thousands of shards are stored at once").await?;
    bench.save(vec![], (0..2000).map(|shard| (shard, 2000)).collect(), None).await?;
    bench.reopen(&open, "thousands of slots are emptied at once").await?;

    let mut odd = record(7, 8, u64::MAX).session;
    (odd.id, odd.resume_url) = ("\u{0}\"\\ü🦆".into(), None);
    bench.save(vec![SessionRecord::new(odd, u32::MAX, SystemTime::now())], vec![], None).await?;
    bench.reopen(&open, "any text and number comes back as it was").await?;

    for sequence in (10..100).step_by(2) {
        if let Some(store) = &bench.store {
            let late = Changes { sessions: vec![record(1, 4, sequence)], ..Changes::default() };
            // Polled once and dropped: the save has begun, and is then cancelled.
            let _ = store.save(late).now_or_never();
        }
        bench.save(vec![record(1, 4, sequence + 1)], vec![], None).await?;
    }
    bench.reopen(&open, "a save that nobody waits for comes before a later one, or not at all").await
}

struct Bench<S> {
    store: Option<S>,
    expected: Stored,
}

impl<S: SessionStore> Bench<S> {
    async fn save(
        &mut self,
        sessions: Vec<SessionRecord>,
        removed: Vec<(u32, u32)>,
        budget: Option<BudgetRecord>,
    ) -> Result<(), Broken> {
        let count = |count| ShardCount::new(count).expect("no count is zero");
        let removed: Vec<_> = removed.into_iter().map(|(shard, of)| (count(of), ShardId(shard))).collect();
        let replaced = |old: &SessionRecord| {
            removed.contains(&old.slot()) || sessions.iter().any(|new| new.slot() == old.slot())
        };
        self.expected.sessions.retain(|old| !replaced(old));
        self.expected.sessions.extend(sessions.iter().cloned());
        self.expected.budget = budget.or(self.expected.budget);
        let changes = Changes { sessions, removed, budget };
        let Some(store) = &self.store else { return Ok(()) };
        store.save(changes).await.map_err(|source| Broken::Failed { doing: "saving", source })
    }

    async fn reopen(&mut self, open: &impl AsyncFn() -> S, rule: &'static str) -> Result<(), Broken> {
        self.store = None;
        self.store = Some(open().await);
        self.holds(rule).await
    }

    async fn holds(&mut self, rule: &'static str) -> Result<(), Broken> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut found = store.load().await.map_err(|source| Broken::Failed { doing: "loading", source })?;
        found.sessions.sort_by_key(SessionRecord::slot);
        self.expected.sessions.sort_by_key(SessionRecord::slot);
        if found != self.expected {
            let (found, expected) = (format!("{found:?}"), format!("{:?}", self.expected));
            return Err(Broken::Wrong { rule, found, expected });
        }
        Ok(())
    }
}

fn record(shard: u32, count: u32, sequence: u64) -> SessionRecord {
    let count = ShardCount::new(count).expect("no count is zero");
    let mut session = Session::sample(ShardId(shard), count);
    session.sequence = sequence;
    SessionRecord::new(session, 1, SystemTime::now())
}

fn budget(remaining: u32) -> BudgetRecord {
    BudgetRecord { format: FORMAT, total: 1000, remaining, resets_at_ms: 7, last_identify_ms: Some(5) }
}

readable!(Broken);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::super::MemoryStore;
    use super::*;

    #[tokio::test]
    async fn the_store_in_memory_conforms() {
        let store = MemoryStore::default();
        check(async || store.clone()).await.unwrap();
    }

    /// Stores that are each wrong in one way.
    #[derive(Clone)]
    struct Wrong {
        store: MemoryStore,
        spoil: fn(&mut Changes),
    }

    impl SessionStore for Wrong {
        fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
            self.store.load()
        }

        fn save(&self, mut changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
            (self.spoil)(&mut changes);
            self.store.save(changes).boxed()
        }
    }

    #[tokio::test]
    async fn a_store_that_gets_it_wrong_is_reported_with_what_it_broke() {
        type Spoil = fn(&mut Changes);
        let spoils: [(Spoil, &str); 4] = [
            (|changes| changes.sessions.truncate(2), "each slot of each layout"),
            (|changes| changes.removed.clear(), "a slot is emptied"),
            (|changes| changes.budget = None, "a record replaces"),
            (
                |changes| changes.sessions.iter_mut().for_each(|record| record.session.sequence %= 2),
                "a record replaces",
            ),
        ];
        for (spoil, rule) in spoils {
            let store = Wrong { store: MemoryStore::default(), spoil };
            let broken = check(async || store.clone()).await.unwrap_err();
            assert!(broken.to_string().starts_with(rule), "{rule}: {broken}");
        }
        let forgetful = async || MemoryStore::default();
        let broken = check(forgetful).await.unwrap_err();
        assert!(broken.to_string().starts_with("records outlive the process"), "{broken}");
    }
}
