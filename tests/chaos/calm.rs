//! Signals the end of all faults to those who wait for it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Waiters are woken in the order in which they came; a watch channel would wake them in random order.
#[derive(Default)]
pub(crate) struct Calm {
    has_come: AtomicBool,
    changed: Notify,
}

impl Calm {
    pub(crate) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Acquire)
    }

    pub(crate) fn come(&self) {
        self.has_come.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits for the end of all faults.
    pub(crate) async fn wait(&self) {
        let changed = self.changed.notified();
        if !self.has_come() {
            changed.await;
        }
    }
}
