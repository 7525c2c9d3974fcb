//! How late the demo itself was. Its clock runs faster than Discord's, so a machine that is busy for a moment breaks rules of
//! time which no bot at Discord's pace would break; whoever judges the demo has to know.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often the demo looks at the clock.
const TICK: Duration = Duration::from_millis(10);
/// What is shorter than this is no stall: timers are this late on an idle machine.
const NOTED: Duration = Duration::from_millis(20);
/// How many stalls are kept; beyond that the machine has been busy for a long time.
const MAX_STALLS: usize = 10_000;

/// A moment at which the runtime should have run a task, and the one at which it did.
#[derive(Clone, Copy, Debug)]
struct Stall {
    due: Instant,
    ran: Instant,
}

/// The stalls of the runtime so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Lateness(Arc<Mutex<Vec<Stall>>>);

impl Lateness {
    /// Measures from now on, as long as the process lives.
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

    /// The longest stall that touches a span.
    pub(super) fn worst_between(&self, from: Instant, to: Instant) -> Duration {
        let touching = self.stalls().into_iter().filter(|stall| stall.ran >= from && stall.due <= to);
        touching.map(Stall::length).max().unwrap_or_default()
    }

    /// All stalls together: the time that the demo did not have.
    pub(super) fn total(&self) -> Duration {
        self.stalls().into_iter().map(Stall::length).sum()
    }
}

impl Stall {
    fn length(self) -> Duration {
        self.ran.saturating_duration_since(self.due)
    }
}
