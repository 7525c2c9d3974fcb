//! The identify gate: how several processes of one bot share Discord's identify limits.
//!
//! The keys of `max_concurrency` and the daily budget belong to the token (GW-174), but a manager's
//! [`IdentifyQueue`](crate::actor::IdentifyQueue) knows only its own shards. With a gate, the queue asks it
//! before each permit that it grants; the gate knows what the other processes do. Between several managers in
//! one process use a [`LocalGate`]. Between processes use anything that they share: a directory (the example
//! `identify_gate`), a database, a service of your own. The checks in `conformance` (a cargo feature of that
//! name) test an implementation.
//!
//! Input: requests of identify queues. Output: passes. The queue takes care of turns, order and backoff; a
//! gate needs none of these.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod local;

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use shardkeeper_proto::{IdentifyBudget, Priority, ShardId};

pub use self::local::LocalGate;

/// Error of a gate that cannot decide. It is logged with its sources, and must not contain secrets.
pub type GateError = Box<dyn std::error::Error + Send + Sync>;

/// Lets the shards of all processes of one bot identify, each key at its own pace.
///
/// A gate serves exactly one bot. Pass it to each manager with
/// [`Builder::identify_gate`](crate::Builder::identify_gate).
///
/// # Rules for an implementation
///
/// - **One pass per key.** While a pass of a [key](IdentifyRequest::key) is out, the key has no other pass
///   (GW-170: a key allows one Identify per 5 s).
/// - **The window.** A key's next pass comes one [`window`](IdentifyRequest::window) after the last pass was
///   [spent](IdentifyPass::spent), not after it was given (GW-172).
/// - **Keys are independent.** Passes of different keys do not wait for each other.
/// - **Unspent passes return.** A pass that is dropped unspent has no effect, and the next one comes at once
///   (GW-173).
/// - **No starvation.** Every request gets a pass eventually. The gate chooses the order: it sees one shard
///   per process and key, so the order of ids (GW-171) holds only within a process.
/// - **`max_concurrency` may change** (GW-177). Then keys mean something else: a pass under one number waits
///   until the windows and passes under every other number are over. Processes may disagree for a while.
/// - **A process that dies with a pass has spent it.** It may have written Identify in its last moment. So a
///   pass needs a lease (a lock that ends with the process, a key that expires), and when the lease ends
///   without a return, the window counts from then. A pass can be out for any time: usually milliseconds, at
///   worst [`Timings::ready`](crate::config::Timings::ready), 120 s. So renew the lease as long as the pass
///   exists, or make it longer than that.
///
/// # Errors
///
/// An error is retried, with the waits of [`Timings::reconnect`](crate::config::Timings::reconnect), and
/// reported once as [`Lifecycle::IdentifyGateFailed`](crate::Lifecycle::IdentifyGateFailed); no shard
/// identifies meanwhile. A panic counts as an error. Waiting for a turn is not an error. Failing to reach the
/// backend is, so put a timeout on external calls. A gate that counts the [budget](IdentifyRequest::budget)
/// returns an error while the budget is used up.
pub trait IdentifyGate: Send + Sync + 'static {
    /// Completes when the shard may send Identify now.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place: it then blocks no other request and takes no pass. The future
    /// is dropped when the shard goes away, when `max_concurrency` changes, and when the manager ends.
    fn admit(&self, request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>>;
}

/// A request for a pass, with what its process knows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdentifyRequest {
    /// Id of the shard that wants to identify.
    pub shard: ShardId,
    /// Number of keys, as the process knows it.
    pub max_concurrency: u32,
    /// Minimum time between two Identifies of one key, margin included.
    pub window: Duration,
    /// Urgency of the request. A gate may ignore it.
    pub priority: Priority,
    /// Daily budget as the process knows it: Discord's last answer, less what this process has spent since.
    /// Other processes spend from it, too (GW-166), so a gate may count over all of them.
    pub budget: IdentifyBudget,
}

impl IdentifyRequest {
    /// Makes the request of a cold start with an untouched budget, for tests; queues make their own.
    pub fn new(shard: ShardId, max_concurrency: u32, window: Duration) -> Self {
        let budget = IdentifyBudget::new(Instant::now(), 1000, 1000, Duration::ZERO, 0);
        Self { shard, max_concurrency, window, priority: Priority::ColdStart, budget }
    }

    /// The shard's key: `shard_id % max_concurrency` (GW-170).
    pub fn key(&self) -> u32 {
        self.shard.0 % self.max_concurrency.max(1)
    }
}

/// The right of one shard to send Identify, given by an [`IdentifyGate`]. Dropping it returns it unspent.
#[must_use = "dropping a pass returns it unspent"]
pub struct IdentifyPass {
    on_spent: Box<dyn FnOnce() + Send>,
}

impl IdentifyPass {
    /// Makes a pass.
    ///
    /// `on_spent` is called when Identify was written, or may have been: the window counts from then. An
    /// unspent pass drops the function without calling it. Put the code that frees the key into the `Drop` of
    /// a value that the function captures, so that it runs in both cases.
    ///
    /// Both run on the runtime, in the library's tasks: they must neither block nor panic. Spawn a task for
    /// slow work; the key has to stay closed until that task is done.
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
    /// // A method call: a closure that only sets a field might capture only that field.
    /// let pass = IdentifyPass::new(move || lease.spent());
    /// # drop(pass);
    /// ```
    pub fn new(on_spent: impl FnOnce() + Send + 'static) -> Self {
        Self { on_spent: Box::new(on_spent) }
    }

    /// Reports that Identify was written, or may have been.
    pub fn spent(self) {
        (self.on_spent)();
    }
}

impl fmt::Debug for IdentifyPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifyPass").finish_non_exhaustive()
    }
}
