//! Checks that every [`SessionStore`] has to pass.

use std::time::SystemTime;

use futures_util::FutureExt;
use shardkeeper_proto::{Session, ShardCount, ShardId};

use super::record::FORMAT;
use super::{BudgetRecord, Changes, LayoutRecord, SessionRecord, SessionStore, ShardKey, StoreError, Stored};
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

    bench.save(vec![record(0, 1, 1), record(3, 1, 1), record(0, 2, 1)], vec![], None, None).await?;
    bench.holds("each shard of each layout has a record of its own, also with the same id").await?;
    bench.reopen(&open, "records outlive the process").await?;

    bench.save(vec![record(3, 1, 2)], vec![], None, Some(budget(990))).await?;
    bench.holds("a record replaces that of its slot, and no other").await?;
    bench.reopen(&open, "the budget outlives the process").await?;

    bench.save(vec![record(1, 1, 9)], vec![(0, 1), (2, 1)], None, None).await?;
    bench.holds("a slot is emptied, also one that is empty, and the budget stays").await?;
    bench.save(vec![], vec![], None, Some(budget(989))).await?;
    bench.reopen(&open, "the budget is replaced").await?;

    let resharding = LayoutRecord::new(1, count(4)).with_reshard(2, count(6), vec![1]);
    bench.save(vec![record(1, 2, 1)], vec![(1, 1)], Some(resharding), None).await?;
    bench.reopen(&open, "the layout outlives the process, with the sessions that it came with").await?;
    bench.save(vec![record(1, 2, 2)], vec![], None, None).await?;
    bench.holds("the layout stays when it has not changed").await?;
    bench.save(vec![], vec![(3, 1)], Some(LayoutRecord::new(2, count(6))), None).await?;
    bench.reopen(&open, "the layout is replaced").await?;

    let many: Vec<SessionRecord> = (0..2000).map(|shard| record(shard, 9, u64::from(shard))).collect();
    bench.save(many, vec![], None, None).await?;
    bench.reopen(&open, "thousands of shards are stored at once").await?;
    bench.save(vec![], (0..2000).map(|shard| (shard, 9)).collect(), None, None).await?;
    bench.reopen(&open, "thousands of slots are emptied at once").await?;

    let mut odd = record(7, 1, u64::MAX).session;
    (odd.id, odd.resume_url) = ("\u{0}\"\\ü🦆".into(), None);
    bench.save(vec![SessionRecord::new(odd, u32::MAX, SystemTime::now())], vec![], None, None).await?;
    bench.reopen(&open, "any text and number comes back as it was").await?;

    for sequence in (10..100).step_by(2) {
        if let Some(store) = &bench.store {
            let layout = Some(LayoutRecord::new(sequence, count(4)));
            let sessions = vec![record(1, 1, u64::from(sequence))];
            // Polled once and dropped: the save has begun, and is then cancelled.
            let _ = store.save(Changes { sessions, layout, ..Changes::default() }).now_or_never();
        }
        if sequence > 10 {
            bench.is_whole("a cancelled save stores sessions and layout, or neither").await?;
        }
        let layout = Some(LayoutRecord::new(sequence + 1, count(4)));
        bench.save(vec![record(1, 1, u64::from(sequence) + 1)], vec![], layout, None).await?;
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
        layout: Option<LayoutRecord>,
        budget: Option<BudgetRecord>,
    ) -> Result<(), Broken> {
        let key = |(shard, generation)| ShardKey { id: ShardId(shard), generation };
        let removed: Vec<_> = removed.into_iter().map(key).collect();
        let replaced = |old: &SessionRecord| {
            removed.contains(&old.slot()) || sessions.iter().any(|new| new.slot() == old.slot())
        };
        self.expected.sessions.retain(|old| !replaced(old));
        self.expected.sessions.extend(sessions.iter().cloned());
        self.expected.layout = layout.clone().or(self.expected.layout.take());
        self.expected.budget = budget.or(self.expected.budget);
        let changes = Changes { sessions, removed, layout, budget };
        let Some(store) = &self.store else { return Ok(()) };
        store.save(changes).await.map_err(|source| Broken::Failed { doing: "saving", source })
    }

    async fn reopen(&mut self, open: &impl AsyncFn() -> S, rule: &'static str) -> Result<(), Broken> {
        self.store = None;
        self.store = Some(open().await);
        self.holds(rule).await
    }

    async fn load(&self) -> Result<Stored, Broken> {
        let Some(store) = &self.store else { return Ok(Stored::default()) };
        store.load().await.map_err(|source| Broken::Failed { doing: "loading", source })
    }

    /// Checks that the session of shard 1 and the layout were saved by the same call.
    async fn is_whole(&self, rule: &'static str) -> Result<(), Broken> {
        let found = self.load().await?;
        let session =
            found.sessions.iter().find(|record| record.slot() == ShardKey { id: ShardId(1), generation: 1 });
        let session = session.map(|record| record.session.sequence);
        let layout = found.layout.map(|layout| u64::from(layout.generation));
        if session == layout {
            return Ok(());
        }
        let (found, expected) = (format!("the session of save {session:?}"), format!("that of {layout:?}"));
        Err(Broken::Wrong { rule, found, expected })
    }

    async fn holds(&mut self, rule: &'static str) -> Result<(), Broken> {
        let mut found = self.load().await?;
        found.sessions.sort_by_key(SessionRecord::slot);
        self.expected.sessions.sort_by_key(SessionRecord::slot);
        if found != self.expected {
            let (found, expected) = (format!("{found:?}"), format!("{:?}", self.expected));
            return Err(Broken::Wrong { rule, found, expected });
        }
        Ok(())
    }
}

fn count(count: u32) -> ShardCount {
    ShardCount::new(count).expect("no count is zero")
}

fn record(shard: u32, generation: u32, sequence: u64) -> SessionRecord {
    let mut session = Session::sample(ShardId(shard), count(2000));
    session.sequence = sequence;
    SessionRecord::new(session, generation, SystemTime::now())
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

    /// A store that saves the layout after the sessions.
    #[derive(Clone)]
    struct Halves(MemoryStore);

    impl SessionStore for Halves {
        fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
            self.0.load()
        }

        fn save(&self, mut changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
            async move {
                let layout = changes.layout.take();
                self.0.save(changes).await?;
                tokio::task::yield_now().await;
                self.0.save(Changes { layout, ..Changes::default() }).await
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn a_store_that_gets_it_wrong_is_reported_with_what_it_broke() {
        type Spoil = fn(&mut Changes);
        let spoils: [(Spoil, &str); 6] = [
            (|changes| changes.sessions.truncate(2), "each shard of each layout"),
            (
                |changes| changes.sessions.iter_mut().for_each(|record| record.generation = 1),
                "each shard of each layout",
            ),
            (|changes| changes.layout = None, "the layout outlives"),
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
        let halves = Halves(MemoryStore::default());
        let broken = check(async || halves.clone()).await.unwrap_err();
        assert!(broken.to_string().starts_with("a cancelled save stores sessions and layout"), "{broken}");
        let forgetful = async || MemoryStore::default();
        let broken = check(forgetful).await.unwrap_err();
        assert!(broken.to_string().starts_with("records outlive the process"), "{broken}");
    }
}
