//! Where sessions and the identify budget outlive the process.
//!
//! Input: records from the session keeper, some times a second at most. Output: the same records to the next process, which
//! resumes from them. Nothing of it is on the way of an event.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "file-store")]
mod file;
mod lease;
mod memory;
mod record;

use futures_util::future::BoxFuture;
use shardkeeper_proto::{ShardCount, ShardId};

#[cfg(feature = "file-store")]
pub use self::file::{FileStore, OpenError};
pub(crate) use self::lease::StoreLease;
pub use self::memory::MemoryStore;
pub use self::record::{BudgetRecord, RecordError, SessionRecord};
pub(crate) use self::record::{budget_record, since, unix_ms};

/// Why a store could not do its work. It is shown with its sources, and must not contain secrets.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the sessions of one bot, and what it has spent of the day's Identify. One manager uses it at a time: processes that
/// run at the same time need a store each (in a database: rows of their own), for the budget is one value, and a shard that
/// moves is removed here after the other process may have saved it.
///
/// What it holds is as secret as the token: whoever has both can resume the sessions. Make it readable to the bot alone.
/// It never holds the token itself, nor anything of an event.
///
/// # Errors
///
/// An error of [`save`](Self::save) is told once as [`Lifecycle::StoreFailed`](crate::Lifecycle::StoreFailed), and tried again
/// with growing waits; no shard is stopped by it. Until it works again, a crash of the process repeats more events, or costs
/// sessions. A save is given up after 60 s. A panic counts as an error.
///
/// # Closing
///
/// The manager has dropped the store before [`stop`](crate::Shardkeeper::stop), [`detach`](crate::Shardkeeper::detach),
/// [`ended`](crate::Shardkeeper::exit_reason) or a failed [`start`](crate::Builder::start) answers, so that it can be opened again at
/// once. A call that is under way when the end's deadline has passed is cancelled; a store that does not react to that for
/// 1 s, or goes on in a thread of its own, stays in use until its call ends, and a warning says so where it can be seen. After
/// a crash of the manager, or a start that was cancelled, the store is dropped within moments.
pub trait SessionStore: Send + Sync + 'static {
    /// Everything that is stored, of every layout. Asked when a manager starts, and again every 500 ms after an error. What
    /// has not come within 10 s is done without, which costs each shard an Identify.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it completes, it has changed nothing.
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>>;

    /// Stores the changes: all of them or, with an error, none. When it completes, they survive the end of the process and of
    /// the machine. The next call comes after this one has completed or was dropped, also when the session keeper crashed in
    /// between.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it completes, the changes are stored or not, but not some of them; and never after those of a later
    /// call.
    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The sessions, at most one of each slot of a layout.
    pub sessions: Vec<SessionRecord>,
    /// The budget, if it was ever stored.
    pub budget: Option<BudgetRecord>,
}

impl Stored {
    /// What a store of one's own has found.
    pub fn new(sessions: Vec<SessionRecord>, budget: Option<BudgetRecord>) -> Self {
        Self { sessions, budget }
    }
}

/// What is to be stored. Nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Sessions that are new, or have got on. Each replaces the one of its [slot](SessionRecord::slot).
    pub sessions: Vec<SessionRecord>,
    /// Slots that have no session any more.
    pub removed: Vec<(ShardCount, ShardId)>,
    /// The budget, if it has changed.
    pub budget: Option<BudgetRecord>,
}

impl Changes {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.removed.is_empty() && self.budget.is_none()
    }
}
