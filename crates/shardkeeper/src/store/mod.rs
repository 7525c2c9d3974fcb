//! Stores that keep sessions and the identify budget for the next process.
//!
//! Input: records from the session keeper, at most a few times per second. Output: the same records to the
//! next process, which resumes from them. No event waits for a store.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "file-store")]
mod file;
mod lease;
mod memory;
mod record;

use futures_util::future::BoxFuture;

use crate::layout::ShardKey;

#[cfg(feature = "file-store")]
pub use self::file::{FileStore, OpenError};
pub(crate) use self::lease::StoreLease;
pub use self::memory::MemoryStore;
pub use self::record::{BudgetRecord, LayoutRecord, RecordError, ReshardRecord, SessionRecord};
pub(crate) use self::record::{budget_record, since, unix_ms};

/// Error of a session store. It is logged with its sources, and must not contain secrets.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Stores the sessions of one bot, and how much of the identify budget is spent.
///
/// A store is used by one manager at a time. Processes that run at the same time need a store each (in a
/// database: rows of their own), because the budget is one value, and because a shard that moves is removed
/// here after the other process may have saved it.
///
/// The content is as secret as the token: with both, anyone can resume the sessions. Make it readable only to
/// the bot. The store never holds the token itself, nor any part of an event.
///
/// # Errors
///
/// An error of [`save`](Self::save) is reported once as
/// [`Lifecycle::StoreFailed`](crate::Lifecycle::StoreFailed), and the save is retried with growing waits; no
/// shard is stopped. Until it works again, a crash of the process repeats more events, or loses sessions. A
/// save is cancelled after 60 s. A panic counts as an error.
///
/// # Closing
///
/// The manager has dropped the store before [`stop`](crate::Shardkeeper::stop),
/// [`detach`](crate::Shardkeeper::detach), [`exit_reason`](crate::Shardkeeper::exit_reason) or a failed
/// [`start`](crate::Builder::start) returns, so that the store can be opened again at once.
///
/// A call still under way when the shutdown timeout has passed is cancelled. A store that does not react to
/// that within 1 s, or continues in a thread of its own, stays in use until its call ends; the first case is
/// logged as a warning. After a crash of the manager, or a cancelled start, the store is dropped within
/// moments.
pub trait SessionStore: Send + Sync + 'static {
    /// Loads everything that is stored, of every layout.
    ///
    /// Called when a manager starts, and again every 500 ms after an error. If there is no answer within 10
    /// s, the manager starts without stored sessions, which costs each shard an Identify.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it completes must change nothing.
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>>;

    /// Stores the changes: all of them or, with an error, none.
    ///
    /// When the call completes, the changes survive the end of the process and of the machine. The next call
    /// is made after this one has completed or was dropped, even if the session keeper crashed in between.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before it completes, the changes are stored either completely or not at
    /// all, and never after those of a later call.
    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Content of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Sessions, at most one for each shard of a layout.
    pub sessions: Vec<SessionRecord>,
    /// Layout of the process that used the store last; `None` if it was never stored.
    pub layout: Option<LayoutRecord>,
    /// Identify budget; `None` if it was never stored.
    pub budget: Option<BudgetRecord>,
}

impl Stored {
    /// Makes the content that a custom store has loaded.
    pub fn new(
        sessions: Vec<SessionRecord>,
        layout: Option<LayoutRecord>,
        budget: Option<BudgetRecord>,
    ) -> Self {
        Self { sessions, layout, budget }
    }
}

/// Changes to be stored. Everything else in the store stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Sessions that are new or have advanced. Each replaces the record with the same
    /// [slot](SessionRecord::slot).
    pub sessions: Vec<SessionRecord>,
    /// [Slots](SessionRecord::slot) that no longer have a session.
    pub removed: Vec<ShardKey>,
    /// Layout; `None` if it has not changed. It must be stored together with the sessions: a layout without
    /// its sessions, or sessions without their layout, would cost the next process an Identify per shard.
    pub layout: Option<LayoutRecord>,
    /// Identify budget; `None` if it has not changed.
    pub budget: Option<BudgetRecord>,
}

impl Changes {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.removed.is_empty() && self.layout.is_none() && self.budget.is_none()
    }
}
