//! The actor that brings sessions and the identify budget into the store.
//!
//! Input: the slots in which the shards' sessions are, looked at some times a second. Output: what has changed since the last
//! look, to the store, one save at a time. Events pass by untouched: a slot is two numbers to this actor until they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use shardkeeper_proto::{Backoff, ShardCount, ShardId};
use tokio::time::Instant;

use crate::Lifecycle;
use crate::dispatch::Hub;
use crate::error::chain;
use crate::identify_queue::Ledger;
use crate::shard::slot::SessionSlot;
use crate::store::{self, BudgetRecord, Changes, SessionRecord, SessionStore, StoreError};
use crate::task::{AbortOnDrop, catching};

/// So often the slots are looked at, and at once when there is a new session. What a killed process repeats is what its
/// subscribers acknowledged in so long, and the time of one save.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A save that takes longer is told. A disk takes milliseconds.
const SLOW: Duration = Duration::from_secs(10);
/// Waits between saves that fail.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// A shard of a layout.
pub(crate) type Slot = (ShardCount, ShardId);
/// What the store holds of each slot, by [`SessionSlot::stamp`]; `None` when it is not known to be current.
type Stamps = BTreeMap<Slot, Option<(u64, u64)>>;

/// What is to be kept, and what is: shared by the manager and whichever incarnation of the keeper there is.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) slots: BTreeMap<Slot, Arc<SessionSlot>>,
    /// The slots that the store may hold something of; the keeper writes them down.
    pub(crate) held: BTreeSet<Slot>,
    pub(crate) generation: u32,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

/// The keeper of a bot's sessions. It starts when the manager has a [store](crate::Builder::session_store).
pub struct SessionKeeper;

/// What a [`SessionKeeper`] is started with. Only the manager makes one.
pub struct KeeperArguments {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) random: fastrand::Rng,
}

/// The state of a [`SessionKeeper`].
pub struct KeeperState {
    store: Arc<dyn SessionStore>,
    book: Arc<Mutex<Book>>,
    hub: Arc<Hub>,
    random: fastrand::Rng,
    saved: Stamps,
    saved_budget: Option<BudgetRecord>,
    saving: Option<Saving>,
    failures: u32,
    /// It was told that the store does not work.
    degraded: bool,
    flushing: Vec<RpcReplyPort<()>>,
}

struct Saving {
    since: Instant,
    stamps: Stamps,
    budget: Option<BudgetRecord>,
    _task: AbortOnDrop,
}

/// What a [`SessionKeeper`] is told. When it is gone, a send fails; the manager replaces it.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeeperMessage {
    /// From its own timer: look for what has changed.
    Look,
    /// From the manager: there is a new session, which should not be lost for want of a look.
    LookNow,
    /// From its own save.
    Saved(Result<(), StoreError>),
    /// From the manager: answer when everything is stored as it is now, or could not be.
    Flush(RpcReplyPort<()>),
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
        let book = arguments.book.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = book.held.iter().map(|slot| (*slot, None)).collect();
        drop(book);
        Ok(KeeperState {
            store: arguments.store,
            book: arguments.book,
            hub: arguments.hub,
            random: arguments.random,
            saved,
            saved_budget: None,
            saving: None,
            failures: 0,
            degraded: false,
            flushing: Vec::new(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<KeeperMessage>,
        _: &mut KeeperState,
    ) -> Result<(), ActorProcessingErr> {
        myself.send_after(LOOK_EVERY, || KeeperMessage::Look);
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
                state.look(&myself);
                let wait = match state.failures {
                    0 => LOOK_EVERY,
                    failures => RETRY.delay(failures, state.random.f64()),
                };
                myself.send_after(wait, || KeeperMessage::Look);
            }
            // A store that fails is left to its waits.
            KeeperMessage::LookNow if state.failures > 0 => {}
            KeeperMessage::LookNow => state.look(&myself),
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
    /// Saves what has changed, unless a save is under way.
    fn look(&mut self, myself: &ActorRef<KeeperMessage>) {
        if let Some(saving) = &self.saving {
            let slow = saving.since.elapsed();
            if slow > SLOW && !self.degraded {
                self.degrade(format!("no answer for {} s", slow.as_secs()), Duration::ZERO);
            }
            return;
        }
        let (changes, stamps) = self.changes();
        let budget = changes.budget;
        if changes.is_empty() {
            self.flushed();
            return;
        }
        self.book().held.extend(stamps.keys());
        let (store, myself) = (Arc::clone(&self.store), myself.clone());
        let save = tokio::spawn(async move {
            let saved = catching(async { store.save(changes).await }).await;
            let _ = myself.cast(KeeperMessage::Saved(saved));
        });
        let _task = AbortOnDrop(save.abort_handle());
        self.saving = Some(Saving { since: Instant::now(), stamps, budget, _task });
    }

    fn saved(&mut self, myself: &ActorRef<KeeperMessage>, result: Result<(), StoreError>) {
        let Some(saving) = self.saving.take() else { return };
        match result {
            Ok(()) => {
                self.saved = saving.stamps;
                self.book().held = self.saved.keys().copied().collect();
                self.saved_budget = saving.budget.or(self.saved_budget);
                self.failures = 0;
                if std::mem::take(&mut self.degraded) {
                    self.tell(&Lifecycle::StoreRecovered);
                }
                if !self.flushing.is_empty() {
                    // What has changed meanwhile is to be stored too.
                    self.look(myself);
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if !self.degraded {
                    let retry_after = RETRY.delay(self.failures, 0.5);
                    self.degrade(chain(error.as_ref()), retry_after);
                }
                self.flushed();
            }
        }
    }

    fn changes(&self) -> (Changes, Stamps) {
        let book = self.book();
        let mut changes = Changes::default();
        let mut stamps = Stamps::new();
        for (slot, session) in &book.slots {
            let stamp = session.stamp();
            let known = self.saved.get(slot);
            if known == Some(&Some(stamp)) {
                stamps.insert(*slot, Some(stamp));
                continue;
            }
            match session.load_acknowledged() {
                Some(session) => {
                    changes.sessions.push(SessionRecord::new(session, book.generation));
                    stamps.insert(*slot, Some(stamp));
                }
                None if known.is_some() => changes.removed.push(*slot),
                None => {}
            }
        }
        // Of a slot that this bot does not run any more somebody else has the session.
        changes.removed.extend(self.saved.keys().filter(|slot| !book.slots.contains_key(slot)));
        let ledger = book.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().into_std();
        let budget = store::budget_record(now, &ledger.budget, ledger.last_identify);
        // Its times are recomputed from another clock each time: they alone are no change.
        let spent = |record: &BudgetRecord| (record.total, record.remaining);
        changes.budget = Some(budget).filter(|budget| {
            ledger.last_identify.is_some() && self.saved_budget.as_ref().map(spent) != Some(spent(budget))
        });
        (changes, stamps)
    }

    /// Nothing more can be done for those who wait.
    fn flushed(&mut self) {
        self.flushing.drain(..).for_each(|reply| drop(reply.send(())));
    }

    fn degrade(&mut self, error: String, retry_after: Duration) {
        self.degraded = true;
        self.tell(&Lifecycle::StoreFailed { error, retry_after });
    }

    fn tell(&self, lifecycle: &Lifecycle) {
        tracing::warn!("{lifecycle}");
        self.hub.announce(lifecycle);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
