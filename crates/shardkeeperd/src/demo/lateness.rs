//! Measures how late the demo itself was. Its clock runs faster than Discord's, so a machine that is busy for
//! a moment breaks timing rules that no bot at Discord's pace would break. The verdict has to take this into
//! account.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often the demo reads the clock.
const TICK: Duration = Duration::from_millis(10);
/// The shortest stall that is recorded: timers are this late even on an idle machine.
const NOTED: Duration = Duration::from_millis(20);
/// How many stalls are kept; with more, the machine has been busy for a long time anyway.
const MAX_STALLS: usize = 10_000;

/// The time at which the runtime should have run a task, and the time at which it did.
#[derive(Clone, Copy, Debug)]
struct Stall {
    due: Instant,
    ran: Instant,
}

/// The stalls of the runtime so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Lateness(Arc<Mutex<Vec<Stall>>>);

impl Lateness {
    /// Starts measuring, which continues until the process ends.
    pub(super) fn measure() -> Self {
        let lateness = Self::default();
        let measured = lateness.clone();
        tokio::spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                sleep_until(due).await;
                measured.note(due, Instant::now());
            }
        });
        lateness
    }

    pub(super) fn note(&self, due: Instant, ran: Instant) {
        let mut stalls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ran.saturating_duration_since(due) >= NOTED && stalls.len() < MAX_STALLS {
            stalls.push(Stall { due, ran });
        }
    }

    fn stalls(&self) -> Vec<Stall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The longest stall.
    pub(super) fn worst(&self) -> Duration {
        self.stalls().into_iter().map(Stall::length).max().unwrap_or_default()
    }

    /// The longest stall that overlaps this span.
    pub(super) fn worst_between(&self, from: Instant, to: Instant) -> Duration {
        let touching = self.stalls().into_iter().filter(|stall| stall.ran >= from && stall.due <= to);
        touching.map(Stall::length).max().unwrap_or_default()
    }

    /// The sum of all stalls: the time that the demo could not use.
    pub(super) fn total(&self) -> Duration {
        self.stalls().into_iter().map(Stall::length).sum()
    }
}

impl Stall {
    fn length(self) -> Duration {
        self.ran.saturating_duration_since(self.due)
    }
}
