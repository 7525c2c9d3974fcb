//! The store of a place: outlives the processes there as a file would, is open in one of them at a time, and
//! can fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shardkeeper::store::{Changes, MemoryStore, SessionRecord, SessionStore, StoreError, Stored};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::checkers::storing::{Entry, Log};
use crate::clock::WallClock;
use crate::pace::Pace;
use crate::trace::Trace;

/// How a store works at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// Every operation takes seconds.
    Slow,
    Fails,
    /// Some operations fail.
    Flaky,
    /// Nothing is answered until the mood changes.
    Hangs,
    Panics,
}

/// A store. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Store {
    /// The longest delay of a working store.
    latency: Duration,
    pace: Pace,
    clock: WallClock,
    trace: Trace,
    log: Log,
    changed: Arc<Notify>,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    disk: MemoryStore,
    mood: Mood,
    moods: u64,
    random: Rng,
    /// The process that has opened the store.
    holder: Option<usize>,
    /// The changes that are being saved, and are not stored yet.
    under_way: Option<Changes>,
    /// Since when the store works and its writer knows that.
    well_since: Option<Instant>,
    loaded: Option<Loaded>,
}

/// The sessions that the present process was given by the store.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) stored: Stored,
    pub(crate) at_ms: u64,
    /// How often the clock had jumped by then.
    pub(crate) jumps: u32,
}

impl Shared {
    fn stored(&self) -> Stored {
        self.disk.load().now_or_never().and_then(Result::ok).unwrap_or_default()
    }

    fn commit(&mut self, changes: Changes) {
        let saved = self.disk.save(changes).now_or_never();
        debug_assert!(matches!(saved, Some(Ok(()))), "memory never fails");
    }
}

impl Store {
    pub(crate) fn new(
        (latency, pace): (Duration, Pace),
        clock: WallClock,
        trace: Trace,
        log: Log,
        seed: u64,
    ) -> Self {
        let shared = Shared {
            disk: MemoryStore::default(),
            mood: Mood::Fine,
            moods: 0,
            random: Rng::with_seed(seed),
            holder: None,
            under_way: None,
            well_since: Some(Instant::now()),
            loaded: None,
        };
        let shared = Arc::new(Mutex::new(shared));
        Self { latency, pace, clock, trace, log, changed: Arc::default(), shared }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the mood. Returns the number of this mood.
    pub(crate) fn set(&self, mood: Mood) -> u64 {
        let mut shared = self.shared();
        shared.mood = mood;
        shared.moods += 1;
        if mood != Mood::Fine {
            shared.well_since = None;
        }
        let number = shared.moods;
        drop(shared);
        self.changed.notify_waiters();
        number
    }

    /// Makes the store work again, if the mood of this number is still the present one.
    pub(crate) fn calm_down(&self, number: u64) {
        if self.shared().moods == number {
            self.set(Mood::Fine);
        }
    }

    /// Opens the store for a process.
    pub(crate) fn open(&self, process: usize) -> Arc<dyn SessionStore> {
        let mut shared = self.shared();
        shared.holder = Some(process);
        shared.loaded = None;
        drop(shared);
        Arc::new(Open { store: self.clone(), process })
    }

    /// Disconnects a dead process: what it was saving has arrived or not, and nothing more will arrive.
    pub(crate) fn sever(&self) {
        let mut shared = self.shared();
        shared.holder = None;
        if let Some(changes) = shared.under_way.take()
            && shared.random.bool()
        {
            shared.commit(changes);
        }
    }

    /// Removes all content, as if the file were deleted.
    pub(crate) fn wipe(&self) {
        self.shared().disk = MemoryStore::default();
    }

    pub(crate) fn sessions(&self) -> Vec<SessionRecord> {
        self.shared().stored().sessions
    }

    /// What the present process has loaded; `None` before.
    pub(crate) fn loaded(&self) -> Option<Loaded> {
        self.shared().loaded.clone()
    }

    /// Whether the store has worked since then, as far as its writer knows.
    pub(crate) fn was_well_since(&self, moment: Instant) -> bool {
        self.shared().well_since.is_some_and(|since| since <= moment)
    }

    /// Delays or fails an operation, according to the mood.
    async fn work(&self) -> Result<(), StoreError> {
        let (mood, random) = {
            let mut shared = self.shared();
            (shared.mood, shared.random.f64())
        };
        let quick = Duration::from_millis(1) + self.latency.mul_f64(random);
        match mood {
            Mood::Fine | Mood::Flaky | Mood::Fails | Mood::Panics => sleep(quick).await,
            Mood::Slow => {
                let slow = Duration::from_secs(1) + Duration::from_secs(20).mul_f64(random);
                sleep(self.pace.wait(slow)).await;
            }
            Mood::Hangs => {
                let mut changed = Box::pin(self.changed.notified());
                while self.shared().mood == Mood::Hangs {
                    changed.await;
                    changed = Box::pin(self.changed.notified());
                }
                if random < 0.5 {
                    return Err("the server went away".into());
                }
            }
        }
        match mood {
            Mood::Panics => panic!("crash drill"),
            Mood::Fails => Err("no space left on device".into()),
            Mood::Flaky if random < 0.5 => Err("try again".into()),
            _ => Ok(()),
        }
    }
}

/// A store as opened by one process.
struct Open {
    store: Store,
    process: usize,
}

impl Open {
    /// Waits forever in a process that is dead.
    async fn alive(&self) -> MutexGuard<'_, Shared> {
        if self.store.shared().holder != Some(self.process) {
            std::future::pending::<()>().await;
        }
        self.store.shared()
    }

    fn note(&self, entry: Entry) {
        self.store.log.note(self.process, entry);
    }
}

impl SessionStore for Open {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        async {
            let worked = self.store.work().await;
            let mut shared = self.alive().await;
            if worked.is_ok() {
                let stored = shared.stored();
                let (at_ms, jumps) = (self.store.clock.now_ms(), self.store.clock.jumps());
                shared.loaded = Some(Loaded { stored, at_ms, jumps });
                self.note(Entry::Loaded);
            }
            worked.map(|()| shared.stored())
        }
        .boxed()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let under_way = UnderWay::begin(self, changes).await;
            let worked = self.store.work().await;
            let mut shared = self.alive().await;
            under_way.end(&mut shared, worked)
        }
        .boxed()
    }
}

/// A save that may be dropped before it is finished.
struct UnderWay<'a> {
    open: &'a Open,
    done: bool,
}

impl<'a> UnderWay<'a> {
    async fn begin(open: &'a Open, changes: Changes) -> Self {
        let mut shared = open.alive().await;
        let trace = &open.store.trace;
        if shared.under_way.is_some() {
            trace.complain(format_args!("process {} saves while it saves", open.process));
        }
        let now_ms = open.store.clock.now_ms();
        let tolerance = u64::try_from(open.store.pace.late_by().as_millis()).unwrap_or_default();
        for record in &changes.sessions {
            if record.stored_at_ms.abs_diff(now_ms) > tolerance {
                trace.complain(format_args!("{} is not the time of {record:?}", now_ms));
            }
            let shard = u64::from(record.session.shard.0);
            trace.observed([u64::MAX, open.process as u64, shard, record.session.sequence]);
        }
        shared.under_way = Some(changes);
        drop(shared);
        open.note(Entry::SaveBegan);
        Self { open, done: false }
    }

    fn end(mut self, shared: &mut Shared, worked: Result<(), StoreError>) -> Result<(), StoreError> {
        self.done = true;
        let changes = shared.under_way.take();
        self.open.note(if worked.is_ok() { Entry::Saved } else { Entry::SaveFailed });
        if let Some(changes) = changes.filter(|_| worked.is_ok()) {
            shared.commit(changes);
            if shared.mood == Mood::Fine && shared.well_since.is_none() {
                shared.well_since = Some(Instant::now());
            }
        }
        worked
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let panics = std::thread::panicking();
        let mut shared = self.open.store.shared();
        if shared.holder != Some(self.open.process) {
            return;
        }
        let changes = shared.under_way.take();
        if panics {
            drop(shared);
            self.open.note(Entry::SaveFailed);
        } else if let Some(changes) = changes
            && shared.random.bool()
        {
            shared.commit(changes);
        }
    }
}
