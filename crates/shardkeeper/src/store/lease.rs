//! The manager's access to the session store: one call at a time, and no calls after it is closed.
//!
//! Input: loads of the manager and saves of its keepers. Output: the same calls to the store, which outlives
//! its callers. A killed keeper may still be in a call when the next one begins.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Changes, SessionStore, StoreError, Stored};
use crate::task::catching;

/// Time that the end of a manager waits for a cancelled call. Only a store that blocks its thread takes
/// longer than a moment.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// A store that can be closed. The lock is held during a call.
pub(crate) struct StoreLease(Mutex<Option<Arc<dyn SessionStore>>>);

/// Error of a call after the manager has ended.
#[derive(Debug, thiserror::Error)]
#[error("the session store is closed because its manager has ended")]
struct Closed;

impl fmt::Debug for StoreLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLease").finish_non_exhaustive()
    }
}

impl StoreLease {
    pub(crate) fn new(store: Arc<dyn SessionStore>) -> Self {
        Self(Mutex::new(Some(store)))
    }

    /// Calls [`SessionStore::load`]; a panic is an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: loading changes nothing.
    pub(crate) async fn load(&self) -> Result<Stored, StoreError> {
        let store = self.0.lock().await;
        let store = store.as_ref().ok_or(Closed)?;
        catching(async { store.load().await }).await
    }

    /// Calls [`SessionStore::save`] as soon as no other call is under way; a panic is an error.
    ///
    /// # Cancel safety
    ///
    /// The same as of the store.
    pub(crate) async fn save(&self, changes: Changes) -> Result<(), StoreError> {
        let store = self.0.lock().await;
        let store = store.as_ref().ok_or(Closed)?;
        catching(async { store.save(changes).await }).await
    }

    /// Drops the store as soon as no call is under way, so that its owner can open it again.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before it completes, the store stays open.
    pub(crate) async fn close(&self) {
        match timeout(CLOSES_WITHIN, self.0.lock()).await {
            Ok(mut store) => drop(store.take()),
            Err(_) => tracing::warn!(
                "the session store hangs and stays open: opening it again fails until its last call has ended"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use futures_util::poll;
    use tokio::sync::Semaphore;

    use super::*;

    /// A store whose calls wait until the test releases them.
    struct Slow {
        let_go: Arc<Semaphore>,
        under_way: AtomicU32,
    }

    impl Slow {
        fn new() -> Self {
            Self { let_go: Arc::new(Semaphore::new(0)), under_way: AtomicU32::new(0) }
        }

        async fn work(&self) {
            struct Done<'a>(&'a AtomicU32);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::Relaxed);
                }
            }
            assert_eq!(self.under_way.fetch_add(1, Ordering::Relaxed), 0, "two calls overlap");
            let _done = Done(&self.under_way);
            self.let_go.acquire().await.unwrap().forget();
        }
    }

    impl SessionStore for Slow {
        fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
            async {
                self.work().await;
                Ok(Stored::default())
            }
            .boxed()
        }

        fn save(&self, _: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
            async {
                self.work().await;
                Ok(())
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_do_not_overlap_whoever_makes_them() {
        let slow = Slow::new();
        let let_go = Arc::clone(&slow.let_go);
        let lease = StoreLease::new(Arc::new(slow));
        let mut first = Box::pin(lease.save(Changes::default()));
        let mut second = std::pin::pin!(lease.save(Changes::default()));
        let mut load = std::pin::pin!(lease.load());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending() && poll!(&mut load).is_pending());
        // The cancelled call releases the lock.
        drop(first);
        assert!(poll!(&mut second).is_pending());
        let_go.add_permits(2);
        second.await.unwrap();
        load.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_closed_when_no_call_is_under_way() {
        let slow = Slow::new();
        let let_go = Arc::clone(&slow.let_go);
        let lease = StoreLease::new(Arc::new(slow));
        let mut save = std::pin::pin!(lease.save(Changes::default()));
        assert!(poll!(&mut save).is_pending());
        let mut closing = std::pin::pin!(lease.close());
        assert!(poll!(&mut closing).is_pending());
        assert_eq!(Arc::strong_count(&let_go), 2);
        let_go.add_permits(1);
        save.await.unwrap();
        closing.await;
        assert_eq!(Arc::strong_count(&let_go), 1, "the store is dropped");
        let closed = lease.save(Changes::default()).await.unwrap_err();
        assert_eq!(closed.to_string(), "the session store is closed because its manager has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_ends_does_not_keep_the_end_waiting() {
        let lease = StoreLease::new(Arc::new(Slow::new()));
        let mut save = std::pin::pin!(lease.save(Changes::default()));
        assert!(poll!(&mut save).is_pending());
        let begun = tokio::time::Instant::now();
        lease.close().await;
        assert_eq!(begun.elapsed(), CLOSES_WITHIN);
    }
}
