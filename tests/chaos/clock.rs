//! The wall clock of a machine: advances with the run, and jumps when it is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Far enough from the epoch to be set back by months.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// A wall clock. Clones show the same time.
#[derive(Clone)]
pub(crate) struct WallClock {
    origin: Instant,
    ahead_ms: Arc<AtomicI64>,
    jumps: Arc<AtomicU32>,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), ahead_ms: Arc::default(), jumps: Arc::default() }
    }

    pub(crate) fn now(&self) -> SystemTime {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        let (ahead, behind) = (ahead.max(0).unsigned_abs(), ahead.min(0).unsigned_abs());
        UNIX_EPOCH + BEGIN + self.origin.elapsed() + Duration::from_millis(ahead)
            - Duration::from_millis(behind)
    }

    /// The time in milliseconds of Unix time.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// Sets the clock ahead, or back if `ms` is negative.
    pub(crate) fn jump(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the clock has jumped.
    pub(crate) fn jumps(&self) -> u32 {
        self.jumps.load(Ordering::Relaxed)
    }
}
