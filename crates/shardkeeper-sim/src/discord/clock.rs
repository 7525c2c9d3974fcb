//! The simulator's clock.

use std::time::Duration;

use tokio::time::Instant;

/// Tokio's clock plus all jumps of [`Action::ClockJump`](crate::Action::ClockJump).
#[derive(Default)]
pub(crate) struct Clock {
    skew: Duration,
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        self.at(Instant::now())
    }

    /// Converts a time of tokio's clock.
    pub(crate) fn at(&self, instant: Instant) -> Instant {
        instant + self.skew
    }

    /// The time of tokio's clock at which this clock shows `instant`.
    pub(crate) fn real(&self, instant: Instant) -> Instant {
        instant.checked_sub(self.skew).unwrap_or_else(Instant::now)
    }

    pub(crate) fn jump(&mut self, ahead: Duration) {
        self.skew += ahead;
    }
}
