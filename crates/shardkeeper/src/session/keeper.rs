//! The actor that saves sessions and the identify budget in the store.
//!
//! Input: the cells with the shards' sessions, checked several times per second. Output: the changes since
//! the last check, one save at a time. Events do not pass through this actor: it compares two numbers per
//! cell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use shardkeeper_proto::Backoff;
use tokio::time::{Instant, timeout};

use super::SessionCell;
use super::WallClock;
use crate::chain::chain;
use crate::dispatch::Hub;
use crate::dispatch::Lifecycle;
use crate::identify::IdentifyLedger;
use crate::layout::ShardKey;
use crate::store::{self, BudgetRecord, Changes, LayoutRecord, SessionRecord, StoreError, StoreLease};
use crate::task::AbortOnDrop;

/// Interval of the checks; a new session is checked at once. After a kill, the next process repeats the
/// events acknowledged during this interval and the duration of one save.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Duration of a save after which it is reported. A disk takes milliseconds.
const SLOW: Duration = Duration::from_secs(10);
/// Duration of a save after which it is cancelled and counts as failed. A connection that broke unnoticed
/// never answers.
const DEADLINE: Duration = Duration::from_secs(60);
/// Difference of the wall clock that counts as a jump: far less than the 5 s between two Identifies.
const JUMP_MS: u64 = 1000;
/// Waits between failed saves.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// Last saved state of each shard.
type Kept = BTreeMap<ShardKey, SessionStamp>;

#[derive(Clone, Copy, Debug)]
struct SessionStamp {
    /// Value of [`SessionCell::stamp`].
    session: (u64, u64),
    stored_at_ms: u64,
}

/// State to be stored, and state already stored: shared by the manager and the current keeper.
#[derive(Debug)]
pub(crate) struct SessionTable {
    pub(crate) slots: BTreeMap<ShardKey, Arc<SessionCell>>,
    /// Shards that the store may have a record of. The keeper adds what it saves, the manager what it hands
    /// over.
    pub(crate) held: BTreeSet<ShardKey>,
    /// Layout of these shards. Whoever changes it wakes the keeper, and waits for a
    /// [flush](KeeperMessage::Flush) where the change has to be durable.
    pub(crate) layout: LayoutRecord,
    pub(crate) ledger: Arc<IdentifyLedger>,
    /// Whether a failure of the store was reported, and no recovery since.
    pub(crate) degraded: bool,
}

/// The actor that saves a bot's sessions. It runs when the manager has a
/// [store](crate::Builder::session_store).
#[expect(clippy::exhaustive_structs, reason = "names the actor; what it knows is in its state")]
pub struct SessionKeeper;

/// Start arguments of a [`SessionKeeper`]. Only the manager can make them.
pub struct KeeperArguments {
    pub(crate) store: Arc<StoreLease>,
    pub(crate) book: Arc<Mutex<SessionTable>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) random: fastrand::Rng,
    /// Largest age at which a stored session is resumed.
    pub(crate) max_age: Duration,
    pub(crate) wall_clock: WallClock,
}

/// State of a [`SessionKeeper`].
pub struct KeeperState {
    store: Arc<StoreLease>,
    book: Arc<Mutex<SessionTable>>,
    hub: Arc<Hub>,
    random: fastrand::Rng,
    /// Age of a stored time at which it is stored again: the next process judges a session by it.
    fresh_for: Duration,
    wall_clock: WallClock,
    saved: Kept,
    saved_layout: Option<LayoutRecord>,
    saved_budget: Option<BudgetRecord>,
    saving: Option<Saving>,
    /// Whether there may be a new session since the save under way began.
    urgent: bool,
    failures: u32,
    /// Time of the next attempt after a failed save.
    not_before: Instant,
    /// Callers that wait for a save that has not begun.
    flushing: Vec<RpcReplyPort<bool>>,
}

struct Saving {
    since: Instant,
    kept: Kept,
    removed: Vec<ShardKey>,
    layout: Option<LayoutRecord>,
    budget: Option<BudgetRecord>,
    /// Callers that wait for this save.
    flushing: Vec<RpcReplyPort<bool>>,
    _task: AbortOnDrop,
}

/// Messages that a [`SessionKeeper`] accepts. Once the keeper has ended, a send fails, and the manager
/// replaces it.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeeperMessage {
    /// From its own timer: check for changes.
    Look,
    /// From the manager: check now, because there is a new session that a crash should not lose.
    LookNow,
    /// From its own save: the result.
    Saved(Result<(), StoreError>),
    /// From the manager: store the current state, and answer when the save has ended. `true`: what the
    /// table of sessions held when this message was handled is durable; `false`: the save failed.
    Flush(RpcReplyPort<bool>),
}

impl Actor for SessionKeeper {
    type Msg = KeeperMessage;
    type State = KeeperState;
    type Arguments = KeeperArguments;

    async fn pre_start(
        &self,
        _: ActorRef<KeeperMessage>,
        arguments: KeeperArguments,
    ) -> Result<KeeperState, ActorProcessingErr> {
        Ok(KeeperState::new(arguments))
    }

    async fn post_start(
        &self,
        myself: ActorRef<KeeperMessage>,
        _: &mut KeeperState,
    ) -> Result<(), ActorProcessingErr> {
        // Sessions given to the builder are in no store yet.
        let _ = myself.cast(KeeperMessage::Look);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<KeeperMessage>,
        message: KeeperMessage,
        state: &mut KeeperState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            KeeperMessage::Look => {
                state.look_if_due(&myself);
                myself.send_after(LOOK_EVERY, || KeeperMessage::Look);
            }
            KeeperMessage::LookNow => {
                state.urgent = true;
                state.look_if_due(&myself);
            }
            KeeperMessage::Saved(result) => state.saved(&myself, result),
            KeeperMessage::Flush(reply) => {
                state.flushing.push(reply);
                state.look(&myself);
            }
        }
        Ok(())
    }
}

impl KeeperState {
    fn new(arguments: KeeperArguments) -> Self {
        Self {
            store: arguments.store,
            book: arguments.book,
            hub: arguments.hub,
            random: arguments.random,
            saved: Kept::new(),
            // A quarter: most of the allowed age is left for the time between two processes.
            fresh_for: (arguments.max_age / 4).max(LOOK_EVERY),
            wall_clock: arguments.wall_clock,
            saved_layout: None,
            saved_budget: None,
            saving: None,
            urgent: false,
            failures: 0,
            not_before: Instant::now(),
            flushing: Vec::new(),
        }
    }

    fn look_if_due(&mut self, myself: &ActorRef<KeeperMessage>) {
        if Instant::now() >= self.not_before {
            self.look(myself);
        }
    }

    /// Saves the changes, unless a save is under way.
    fn look(&mut self, myself: &ActorRef<KeeperMessage>) {
        if let Some(saving) = &self.saving {
            let slow = saving.since.elapsed();
            if slow > SLOW {
                let left = DEADLINE.saturating_sub(slow);
                self.degrade(format!("no answer for {} s", slow.as_secs()), left);
            }
            return;
        }
        self.urgent = false;
        let (changes, kept) = self.changes((self.wall_clock)());
        let flushing = std::mem::take(&mut self.flushing);
        if changes.is_empty() {
            answer(flushing, true);
            return;
        }
        let (removed, layout, budget) = (changes.removed.clone(), changes.layout.clone(), changes.budget);
        self.book().held.extend(kept.keys());
        let (store, myself) = (Arc::clone(&self.store), myself.clone());
        let save = tokio::spawn(async move {
            // A save of an earlier keeper may hold the store for the same time.
            let saved = timeout(DEADLINE, store.save(changes)).await;
            let saved = saved.unwrap_or_else(|elapsed| Err(elapsed.into()));
            let _ = myself.cast(KeeperMessage::Saved(saved));
        });
        let _task = AbortOnDrop(save.abort_handle());
        self.saving = Some(Saving { since: Instant::now(), kept, removed, layout, budget, flushing, _task });
    }

    fn saved(&mut self, myself: &ActorRef<KeeperMessage>, result: Result<(), StoreError>) {
        let Some(saving) = self.saving.take() else { return };
        match result {
            Ok(()) => {
                self.saved = saving.kept;
                let mut book = self.book();
                for slot in &saving.removed {
                    book.held.remove(slot);
                }
                drop(book);
                self.saved_layout = saving.layout.or(self.saved_layout.take());
                self.saved_budget = saving.budget.or(self.saved_budget);
                self.failures = 0;
                let degraded = std::mem::take(&mut self.book().degraded);
                if degraded {
                    self.hub.announce(&Lifecycle::StoreRecovered);
                }
                answer(saving.flushing, true);
                if self.urgent || !self.flushing.is_empty() {
                    // Changes during the save have to be stored, too.
                    self.look(myself);
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let retry_after = RETRY.delay(self.failures, self.random.f64());
                self.not_before = Instant::now() + retry_after;
                self.degrade(chain(error.as_ref()), retry_after);
                answer(saving.flushing, false);
                answer(std::mem::take(&mut self.flushing), false);
            }
        }
    }

    fn changes(&self, wall: SystemTime) -> (Changes, Kept) {
        let book = self.book();
        let wall_ms = store::unix_ms(wall);
        let mut changes = Changes::default();
        let mut kept = Kept::new();
        // Whether the stored time is recent. If it is not, the session has not changed for long, or the clock
        // jumped.
        let lately = |stamp: &SessionStamp| {
            u128::from(stamp.stored_at_ms.abs_diff(wall_ms)) <= self.fresh_for.as_millis()
        };
        for (slot, session) in &book.slots {
            let stamp = SessionStamp { session: session.stamp(), stored_at_ms: wall_ms };
            let known = self.saved.get(slot);
            if let Some(known) = known.filter(|known| known.session == stamp.session && lately(known)) {
                kept.insert(*slot, *known);
                continue;
            }
            match session.load_acknowledged() {
                Some(session) => {
                    changes.sessions.push(SessionRecord::new(session, slot.generation, wall));
                    kept.insert(*slot, stamp);
                }
                None if book.held.contains(slot) => changes.removed.push(*slot),
                None => {}
            }
        }
        // A shard that this bot no longer runs: another process has its session.
        changes.removed.extend(book.held.iter().filter(|slot| !book.slots.contains_key(slot)));
        changes.layout =
            Some(&book.layout).filter(|layout| self.saved_layout.as_ref() != Some(*layout)).cloned();
        let now = Instant::now().into_std();
        let last_identify = book.ledger.last_identify();
        let budget = store::budget_record((now, wall), &book.ledger.budget(), last_identify);
        changes.budget = Some(budget).filter(|budget| {
            last_identify.is_some() && self.saved_budget.is_none_or(|saved| differ(budget, &saved))
        });
        (changes, kept)
    }

    /// Reports the failure once, until the store works again.
    fn degrade(&self, error: String, retry_after: Duration) {
        let degraded = std::mem::replace(&mut self.book().degraded, true);
        if !degraded {
            self.hub.announce(&Lifecycle::StoreFailed { error, retry_after: Some(retry_after) });
        }
    }

    fn book(&self) -> MutexGuard<'_, SessionTable> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(callers: Vec<RpcReplyPort<bool>>, is_stored: bool) {
    callers.into_iter().for_each(|reply| drop(reply.send(is_stored)));
}

/// Whether two records differ. Their times are converted from another clock on each save, so a small
/// difference is not a change; a large one means that the clock jumped. The end of a period that has not
/// begun moves with the clock, so only the time of the last Identify is compared.
fn differ(budget: &BudgetRecord, saved: &BudgetRecord) -> bool {
    let last = |record: &BudgetRecord| record.last_identify_ms.unwrap_or_default();
    (budget.total, budget.remaining) != (saved.total, saved.remaining)
        || last(budget).abs_diff(last(saved)) > JUMP_MS
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::UNIX_EPOCH;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use shardkeeper_proto::{IdentifyBudget, Session, ShardCount, ShardId};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::{MemoryStore, SessionStore, Stored};

    const WALL_MS: u64 = 1_700_000_000_000;
    const MINUTE_MS: u64 = 60_000;

    fn lease(store: impl SessionStore) -> Arc<StoreLease> {
        Arc::new(StoreLease::new(Arc::new(store)))
    }

    /// Makes a keeper of one shard whose session may be an hour old.
    fn keeper() -> KeeperState {
        KeeperState::new(arguments())
    }

    fn arguments() -> KeeperArguments {
        let count = ShardCount::new(1).unwrap();
        let slot = Arc::new(SessionCell::new(Some(Session::sample(ShardId(0), count)), Arc::default()));
        let now = Instant::now().into_std();
        let budget = IdentifyBudget::new(now, 1000, 990, Duration::from_secs(3600), 10);
        let ledger = Arc::new(IdentifyLedger::new(budget, Some(now)));
        let slots = BTreeMap::from([(ShardKey { id: ShardId(0), generation: 1 }, slot)]);
        KeeperArguments {
            store: lease(MemoryStore::default()),
            book: Arc::new(Mutex::new(SessionTable {
                slots,
                held: BTreeSet::new(),
                layout: LayoutRecord::new(1, count),
                ledger,
                degraded: false,
            })),
            hub: Arc::default(),
            random: fastrand::Rng::with_seed(0),
            max_age: Duration::from_secs(3600),
            wall_clock: Arc::new(SystemTime::now),
        }
    }

    /// Checks and saves; returns the stored times of the session and of the last Identify, if they were
    /// saved.
    fn look(keeper: &mut KeeperState, wall_ms: u64) -> (Option<u64>, Option<u64>) {
        let (changes, kept) = keeper.changes(UNIX_EPOCH + Duration::from_millis(wall_ms));
        keeper.saved = kept;
        keeper.saved_layout = changes.layout.clone().or(keeper.saved_layout.take());
        keeper.saved_budget = changes.budget.or(keeper.saved_budget);
        let session = changes.sessions.first().map(|record| record.stored_at_ms);
        (session, changes.budget.and_then(|budget| budget.last_identify_ms))
    }

    #[tokio::test]
    async fn each_session_is_stored_whole_and_under_its_own_shard() {
        let keeper = keeper();
        let count = ShardCount::new(4).unwrap();
        let mut sessions = Vec::new();
        for shard in (0..4).map(ShardId) {
            let mut session = Session::sample(shard, count);
            session.resume_url = Some(format!("wss://resume-{shard}.example"));
            let slot = Arc::new(SessionCell::new(Some(session.clone()), Arc::default()));
            keeper.book().slots.insert(ShardKey { id: shard, generation: 2 }, slot);
            sessions.push(session);
        }
        let (changes, _) = keeper.changes(UNIX_EPOCH);
        let stored = changes.sessions.into_iter().filter(|record| record.generation == 2);
        assert_eq!(stored.map(|record| record.session).collect::<Vec<_>>(), sessions);
        assert_eq!(changes.layout, Some(keeper.book().layout.clone()));
    }

    #[tokio::test]
    async fn a_layout_is_stored_when_it_changes_together_with_the_sessions() {
        let mut keeper = keeper();
        let wall = UNIX_EPOCH + Duration::from_millis(WALL_MS);
        assert!(keeper.changes(wall).0.layout.is_some());
        look(&mut keeper, WALL_MS);
        assert_eq!(keeper.changes(wall).0, Changes::default());
        let resharding = keeper.book().layout.clone().with_reshard(2, ShardCount::new(2).unwrap(), vec![0]);
        keeper.book().layout = resharding.clone();
        let session = Some(Session::sample(ShardId(1), ShardCount::new(2).unwrap()));
        let cell = Arc::new(SessionCell::new(session, Arc::default()));
        keeper.book().slots.insert(ShardKey { id: ShardId(1), generation: 2 }, cell);
        let (changes, _) = keeper.changes(wall);
        assert_eq!((changes.layout, changes.sessions.len()), (Some(resharding), 1));
        look(&mut keeper, WALL_MS);
        assert_eq!(keeper.changes(wall).0, Changes::default());
    }

    /// A store whose saves each wait until the test lets them end.
    #[derive(Clone)]
    struct Held {
        begun: Arc<Semaphore>,
        /// Whether each save works.
        results: Arc<Mutex<VecDeque<bool>>>,
        ends: Arc<Semaphore>,
    }

    impl SessionStore for Held {
        fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
            std::future::ready(Ok(Stored::default())).boxed()
        }

        fn save(&self, _: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
            async {
                self.begun.add_permits(1);
                self.ends.acquire().await.unwrap().forget();
                let works = self.results.lock().unwrap().pop_front();
                if works == Some(true) { Ok(()) } else { Err("the disk is gone".into()) }
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_waits_for_a_save_that_began_after_it_and_says_whether_it_worked() {
        let saves = || Arc::new(Semaphore::new(0));
        let results = Arc::new(Mutex::new(VecDeque::from([true, true, true, false])));
        let store = Held { begun: saves(), results, ends: saves() };
        let arguments = KeeperArguments { store: lease(store.clone()), ..arguments() };
        let cell =
            Arc::clone(&arguments.book.lock().unwrap().slots[&ShardKey { id: ShardId(0), generation: 1 }]);
        let (keeper, _) = Actor::spawn(None, SessionKeeper, arguments).await.unwrap();
        let flush = || {
            // There is something new to save at every moment, as in a bot that receives events.
            cell.store(1, cell.load());
            let (reply, answer) = ractor::concurrency::oneshot();
            keeper.cast(KeeperMessage::Flush(reply.into())).unwrap();
            answer
        };
        let begun = async || store.begun.acquire().await.unwrap().forget();
        begun().await;
        let mut first = flush();
        store.ends.add_permits(1);
        begun().await;
        assert!(first.try_recv().is_err(), "the first save began before the flush");
        let mut second = flush();
        store.ends.add_permits(1);
        assert!(first.await.unwrap());
        begun().await;
        assert!(second.try_recv().is_err());
        let third = flush();
        store.ends.add_permits(1);
        assert!(second.await.unwrap());
        begun().await;
        store.ends.add_permits(1);
        assert!(!third.await.unwrap());
        keeper.kill();
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_does_not_get_on_is_stored_again_before_it_looks_old() {
        let mut keeper = keeper();
        assert_eq!(look(&mut keeper, WALL_MS).0, Some(WALL_MS));
        let mut stored = vec![WALL_MS];
        for minute in 1..=120 {
            tokio::time::advance(Duration::from_secs(60)).await;
            stored.extend(look(&mut keeper, WALL_MS + minute * MINUTE_MS).0);
        }
        assert!(stored.windows(2).all(|two| two[1] - two[0] == 16 * MINUTE_MS), "{stored:?}");
        assert_eq!(stored.len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_gives_what_is_stored_its_time() {
        let mut keeper = keeper();
        assert_eq!(look(&mut keeper, WALL_MS), (Some(WALL_MS), Some(WALL_MS)));
        for wall_ms in [WALL_MS + 7_200_000, WALL_MS - 7_200_000, WALL_MS] {
            assert_eq!(look(&mut keeper, wall_ms), (Some(wall_ms), Some(wall_ms)));
            assert_eq!(look(&mut keeper, wall_ms), (None, None));
        }
        // Too small for a session, but the next process counts 5 s from the last Identify.
        assert_eq!(look(&mut keeper, WALL_MS + 3000), (None, Some(WALL_MS + 3000)));
        // Two clocks are never read at exactly the same moment.
        assert_eq!(look(&mut keeper, WALL_MS + 3005), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_period_that_has_not_begun_is_no_change() {
        let mut keeper = keeper();
        let budget = IdentifyBudget::new(Instant::now().into_std(), 1000, 1000, Duration::ZERO, 10);
        keeper.book().ledger = Arc::new(IdentifyLedger::new(budget, Some(Instant::now().into_std())));
        assert_eq!(look(&mut keeper, WALL_MS).1, Some(WALL_MS));
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(look(&mut keeper, WALL_MS + 600_000), (None, None));
    }
}
