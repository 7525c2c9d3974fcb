//! Where the sessions of a place outlive its processes, as a file would; and what can be the matter with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use shardkeeper::store::{Changes, MemoryStore, SessionStore, StoreError, Stored};
use tokio::time::sleep;

/// What it is like to use the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Each use takes up to so long.
    Slow(Duration),
    Fails,
    /// No answer until the mood is another one.
    Hangs,
    /// The next use panics; then it is well.
    Panics,
}

/// What a panic of it says.
pub(crate) const PANIC: &str = "store drill";

/// The store of a place. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<Mutex<State>>);

struct State {
    held: MemoryStore,
    mood: Mood,
    random: Rng,
    /// The process that has it open. One that had it before can change nothing any more.
    owner: usize,
    /// A save that has begun. Should nobody wait for its end, it may be stored or not.
    under_way: Option<Changes>,
    /// The last use came to nothing.
    failed: bool,
}

impl Shelf {
    pub(crate) fn new(random: Rng) -> Self {
        let held = MemoryStore::default();
        let (mood, owner) = (Mood::Well, 0);
        Self(Arc::new(Mutex::new(State { held, mood, random, owner, under_way: None, failed: false })))
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Changes the mood back, unless it has changed meanwhile.
    pub(crate) fn recover_from(&self, mood: Mood) {
        let mut state = self.state();
        if state.mood == mood {
            state.mood = Mood::Well;
        }
    }

    /// Opens it for a process.
    pub(crate) fn open(&self, process: usize) -> OpenShelf {
        self.state().owner = process;
        OpenShelf { shelf: self.clone(), process }
    }

    /// The process that has it open dies in the middle of whatever it does.
    pub(crate) fn break_off(&self) {
        let mut state = self.state();
        state.settle();
        state.owner = 0;
    }

    pub(crate) fn forget(&self) {
        self.state().held = MemoryStore::default();
    }

    /// Whether the last one who used it knows that what he had is not stored.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// The sessions that it holds, by shard, with their sequence numbers.
    pub(crate) fn sessions(&self) -> Vec<(u32, u64)> {
        let stored = self.state().held.load().now_or_never().and_then(Result::ok).unwrap_or_default();
        stored.sessions.iter().map(|record| (record.session.shard.0, record.session.sequence)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What became of a save that nobody waits for.
    fn settle(&mut self) {
        if let Some(changes) = self.under_way.take()
            && self.random.bool()
        {
            self.store(changes);
        }
    }

    fn store(&self, changes: Changes) {
        let stored = self.held.save(changes).now_or_never();
        debug_assert!(matches!(stored, Some(Ok(()))), "memory answers at once");
    }
}

/// A store as one process has it.
pub(crate) struct OpenShelf {
    shelf: Shelf,
    process: usize,
}

impl OpenShelf {
    /// Waits as the mood has it, and fails as it does.
    async fn bear(&self) -> Result<(), StoreError> {
        let mut slowness = None;
        loop {
            let mood = self.state().await.mood;
            match mood {
                Mood::Well => return Ok(()),
                Mood::Fails => return Err("the disk is gone".into()),
                Mood::Slow(_) if slowness.is_some() => return Ok(()),
                Mood::Slow(most) => {
                    let wait = most.mul_f64(self.state().await.random.f64());
                    slowness = Some(wait);
                    sleep(wait).await;
                }
                Mood::Hangs => sleep(Duration::from_millis(100)).await,
                Mood::Panics => {
                    let mut state = self.state().await;
                    (state.mood, state.failed) = (Mood::Well, true);
                    drop(state);
                    panic!("{PANIC}");
                }
            }
        }
    }

    /// Whoever is dead waits for ever.
    async fn state(&self) -> MutexGuard<'_, State> {
        if self.shelf.state().owner != self.process {
            pending::<()>().await;
        }
        self.shelf.state()
    }
}

impl SessionStore for OpenShelf {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        async {
            self.bear().await?;
            let held = self.state().await.held.clone();
            held.load().await
        }
        .boxed()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            {
                let mut state = self.state().await;
                state.settle();
                state.under_way = Some(changes);
            }
            let borne = self.bear().await;
            let mut state = self.state().await;
            let changes = state.under_way.take();
            state.failed = borne.is_err();
            borne?;
            changes.into_iter().for_each(|changes| state.store(changes));
            Ok(())
        }
        .boxed()
    }
}
