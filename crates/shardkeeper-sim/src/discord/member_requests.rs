//! The limit of requests for all members of a guild (GW-162: one per guild and 30 s).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// When all members of each guild may be requested again.
#[derive(Default)]
pub(crate) struct MemberRequests {
    free_at: HashMap<u64, Instant>,
}

impl MemberRequests {
    /// Begins the window of a guild and returns `None`; or returns how long the current window still lasts.
    pub(crate) fn admit(&mut self, guild: u64, at: Instant, window: Duration) -> Option<Duration> {
        let free_at = self.free_at.entry(guild).or_insert(at);
        if *free_at > at {
            return Some(*free_at - at);
        }
        *free_at = at + window;
        None
    }
}
