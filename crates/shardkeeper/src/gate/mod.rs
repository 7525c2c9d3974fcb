//! The identify gate: how several processes of one bot share the pace of Identify.
//!
//! The keys of `max_concurrency` and the day's budget belong to the token (GW-174), but a manager's
//! [`IdentifyQueue`](crate::actor::IdentifyQueue) knows its own shards alone. With a gate, the queue asks it once more for each
//! permit that it is about to grant; the gate knows what the other processes do. Between several managers in one process
//! that is a [`LocalGate`]; between processes it is whatever they have in common: a directory (the example
//! `identify_gate`), a database, a service of your own. The set of checks in `conformance` (a cargo feature of that name)
//! tells whether an implementation is right.
//!
//! Input: requests of identify queues. Output: passes. Turns, order and backoff are the queue's; a gate needs none.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod local;

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use shardkeeper_proto::{IdentifyBudget, Priority, ShardId};

pub use self::local::LocalGate;

/// Why a gate cannot tell. It is shown with its sources, and must not contain secrets.
pub type GateError = Box<dyn std::error::Error + Send + Sync>;

/// Lets the shards of all processes of one bot identify, each key at its pace.
///
/// One gate is for one bot. Hand it to each manager with [`Builder::identify_gate`](crate::Builder::identify_gate).
///
/// # What an implementation keeps
///
/// - **One pass per key.** As long as a pass of a [key](IdentifyRequest::key) is out, the key has no other (GW-170).
/// - **The window.** A key's next pass comes [`window`](IdentifyRequest::window) after the last one was
///   [spent](IdentifyPass::spent), not after it was given (GW-172).
/// - **Keys are independent.** Passes of different keys do not wait for each other.
/// - **Unspent passes return.** A pass that is dropped leaves no trace, and the next one comes at once (GW-173).
/// - **Everybody gets through.** Who asks gets a pass some day, whatever the others do. Order is the gate's: it sees one
///   shard per process and key, so the order of ids (GW-171) holds within a process only.
/// - **`max_concurrency` may change** (GW-177). Then keys mean something else: a pass under one number waits until the
///   windows and passes under any other are over. Processes may disagree for a while.
/// - **A process that dies with a pass spent it.** It may have written Identify in its last moment. So a pass needs a lease
///   (a lock that ends with the process, a key that expires), and when that ends unreturned, the window counts from then.
///   Nobody knows how long a pass is out: mostly milliseconds, at worst [`Timings::ready`](crate::config::Timings::ready), 120 s.
///   So renew the lease as long as the pass lives, or make it longer than that.
///
/// # Errors
///
/// An error is retried, with the waits of [`Timings::reconnect`](crate::config::Timings::reconnect), and told once as
/// [`Lifecycle::IdentifyGateFailed`](crate::Lifecycle::IdentifyGateFailed); no shard identifies meanwhile. A panic is
/// taken for an error. Waiting for others is none; being unable to ask is, so give calls to the outside a deadline. A
/// gate that counts the [budget](IdentifyRequest::budget) answers with an error as long as it is used up.
pub trait IdentifyGate: Send + Sync + 'static {
    /// Completes when the shard may send Identify now.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place up: it holds up nobody, and takes no pass. It is dropped when the shard goes
    /// away, when `max_concurrency` changes, and when the manager ends.
    fn admit(&self, request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>>;
}

/// Who asks for a pass, and what its process knows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdentifyRequest {
    /// Which shard.
    pub shard: ShardId,
    /// How many keys there are, as its process knows.
    pub max_concurrency: u32,
    /// The least time between two Identify of one key, margin included.
    pub window: Duration,
    /// How urgent it is. A gate need not heed it.
    pub priority: Priority,
    /// The day's budget as its process knows it: what Discord said last, less what this process has spent since. Other
    /// processes spend of it too (GW-166): a gate may count over all of them.
    pub budget: IdentifyBudget,
}

impl IdentifyRequest {
    /// A request of a cold start with an untouched budget; queues make their own.
    pub fn new(shard: ShardId, max_concurrency: u32, window: Duration) -> Self {
        let budget = IdentifyBudget::new(Instant::now(), 1000, 1000, Duration::ZERO, 0);
        Self { shard, max_concurrency, window, priority: Priority::ColdStart, budget }
    }

    /// The shard's key (GW-170).
    pub fn key(&self) -> u32 {
        self.shard.0 % self.max_concurrency.max(1)
    }
}

/// The right of one shard to send Identify, given by an [`IdentifyGate`]. Dropped, it returns unspent.
#[must_use = "a pass that is dropped returns unspent"]
pub struct IdentifyPass {
    on_spent: Box<dyn FnOnce() + Send>,
}

impl IdentifyPass {
    /// A pass. `on_spent` is called when Identify was written, or may have been: the window counts from then. An unspent
    /// pass drops it uncalled. So what frees the key belongs into the `Drop` of something that it captures, and happens
    /// either way.
    ///
    /// Both run on the runtime, in the tasks of the library: they must neither block nor panic. What takes time is handed to
    /// a task; until that has done it the key has to stay shut.
    ///
    /// ```
    /// # use shardkeeper::gate::IdentifyPass;
    /// struct Lease;
    /// impl Lease {
    ///     fn spent(self) { /* begin the window */ }
    /// }
    /// impl Drop for Lease {
    ///     fn drop(&mut self) { /* free the key */ }
    /// }
    /// let lease = Lease;
    /// // A method: a closure that only sets a field might capture no more than that.
    /// let pass = IdentifyPass::new(move || lease.spent());
    /// # drop(pass);
    /// ```
    pub fn new(on_spent: impl FnOnce() + Send + 'static) -> Self {
        Self { on_spent: Box::new(on_spent) }
    }

    /// Identify was written, or may have been.
    pub fn spent(self) {
        (self.on_spent)();
    }
}

impl fmt::Debug for IdentifyPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifyPass").finish_non_exhaustive()
    }
}
