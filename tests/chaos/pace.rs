//! How fast time passes in a run: as in the plan on a virtual clock, or compressed where the clock is a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardkeeper::config::{Backoff, Dialer, RestartPolicy, Timings};
use shardkeeper_sim::SimTimings;
use shardkeeper_tests::races::Round;
use tokio::time::{Instant, sleep};

/// How many times as fast everything passes in real time, except what only the machine decides.
pub(crate) const FACTOR: f64 = 60.0;
/// Added to every limit of a checker in real time: a busy machine is late, and some waits of the library (the retries of a
/// store, the REST deadline) cannot be configured and take as long as ever.
const SLACK: Duration = Duration::from_secs(20);
/// How long an observer in real time may take to hear of what has happened.
const SETTLING: Duration = Duration::from_millis(300);
/// What the machine may put between sending and receiving before a limit of Discord's seems to be broken. Above that, the
/// checkers cannot decide who was early and who was late.
const MARGIN: Duration = Duration::from_millis(150);

/// The time of a run. Clones are of the same run.
#[derive(Clone, Debug)]
pub(crate) struct Pace(Option<Real>);

#[derive(Clone, Debug)]
struct Real {
    round: Round,
    /// In microseconds: how late a timer has fired, at most.
    latest: Arc<AtomicU64>,
}

impl Pace {
    /// As in the plan, on a virtual clock.
    pub(crate) fn virtual_time() -> Self {
        Self(None)
    }

    /// Compressed, in the runtime of this round. Measures from now on how late the machine is.
    pub(crate) fn real_time(round: Round) -> Self {
        let latest = Arc::<AtomicU64>::default();
        let measured = Arc::clone(&latest);
        tokio::spawn(async move {
            const TICK: Duration = Duration::from_millis(2);
            loop {
                let due = Instant::now() + TICK;
                sleep(TICK).await;
                let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                measured.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self(Some(Real { round, latest }))
    }

    pub(crate) fn is_real(&self) -> bool {
        self.0.is_some()
    }

    fn factor(&self) -> f64 {
        if self.is_real() { FACTOR } else { 1.0 }
    }

    /// How long a wait of the plan takes here.
    pub(crate) fn wait(&self, planned: Duration) -> Duration {
        planned.div_f64(self.factor())
    }

    /// How long something that is bounded may take here.
    pub(crate) fn limit(&self, limit: Duration) -> Duration {
        self.wait(limit) + self.slack()
    }

    /// What is added to limits.
    pub(crate) fn slack(&self) -> Duration {
        if self.is_real() { SLACK } else { Duration::ZERO }
    }

    /// The least time between two looks of a checker.
    pub(crate) fn look_every(&self) -> Duration {
        if self.is_real() { Duration::from_millis(10) } else { Duration::from_secs(1) }
    }

    /// How long whoever observes from outside waits until they know of everything that has happened.
    pub(crate) fn settling(&self) -> Duration {
        if self.is_real() { SETTLING } else { Duration::ZERO }
    }

    /// The most that a wait of the library which cannot be compressed may last longer here.
    pub(crate) fn late_by(&self) -> Duration {
        if self.is_real() { Duration::from_secs(2) } else { Duration::ZERO }
    }

    /// Whether the machine was so late that it cannot be known whether something came too early.
    pub(crate) fn is_undecidable(&self) -> bool {
        self.latest() >= MARGIN / 2
    }

    /// How late the machine was, at most.
    pub(crate) fn latest(&self) -> Duration {
        self.0
            .as_ref()
            .map_or(Duration::ZERO, |real| Duration::from_micros(real.latest.load(Ordering::Relaxed)))
    }

    /// The deadline for the end of a process or of shards.
    pub(crate) fn shutdown_timeout(&self) -> Duration {
        if self.is_real() { Duration::from_secs(2) } else { Duration::from_secs(10) }
    }

    pub(crate) fn timings(&self) -> Timings {
        let mut timings = Timings::default().compressed(self.factor());
        if self.is_real() {
            timings.connect = Duration::from_secs(1);
            timings.close = Duration::from_millis(500);
            timings.identify_margin = MARGIN;
            timings.command_margin = MARGIN;
        }
        timings
    }

    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        let mut policy = RestartPolicy::default();
        let Backoff { base, cap } = policy.backoff;
        policy.backoff = Backoff { base: self.wait(base), cap: self.wait(cap) };
        for wait in
            [&mut policy.window, &mut policy.quarantine, &mut policy.quarantine_cap, &mut policy.fleet_window]
        {
            *wait = self.wait(*wait);
        }
        policy
    }

    pub(crate) fn sim_timings(&self) -> SimTimings {
        let patient = SimTimings::default();
        let mut timings = patient.compressed(self.factor());
        if self.is_real() {
            // A machine that is late for a moment breaks no rule and costs no session.
            timings.heartbeat_tolerance = patient.heartbeat_tolerance;
            timings.reconnect_grace = patient.reconnect_grace;
            timings.session_lifetime = Duration::from_secs(10);
        }
        timings
    }

    /// In real time connections yield at random.
    pub(crate) fn dialer(&self, dialer: impl Dialer + 'static) -> Arc<dyn Dialer> {
        match &self.0 {
            Some(real) => real.round.stirred(dialer),
            None => Arc::new(dialer),
        }
    }
}
