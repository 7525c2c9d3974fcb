//! How fast time passes in a run: as planned on a virtual clock, or compressed on a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardkeeper::config::{Backoff, Dialer, RestartPolicy, Timings};
use shardkeeper_sim::SimTimings;
use shardkeeper_tests::races::Round;
use tokio::time::{Instant, sleep};

/// The factor by which all times are compressed in real time, except those that depend only on the machine.
pub(crate) const FACTOR: f64 = 60.0;
/// Added to every time limit of a checker in real time: a busy machine is late, and some waits of the library
/// (the retries of a store, the REST deadline) cannot be configured and take their full time.
const SLACK: Duration = Duration::from_secs(20);
/// How long an observer in real time may take to receive what has happened.
const SETTLING: Duration = Duration::from_millis(300);
/// The largest delay between sending and receiving before a limit of Discord's seems to be broken. Above it,
/// the checkers cannot decide whether the sender was early or the receiver late.
const MARGIN: Duration = Duration::from_millis(150);

/// The time of a run. Clones belong to the same run.
#[derive(Clone, Debug)]
pub(crate) struct Pace(Option<Real>);

#[derive(Clone, Debug)]
struct Real {
    round: Round,
    /// The largest observed delay of a timer, in microseconds.
    latest: Arc<AtomicU64>,
}

impl Pace {
    /// Time as planned, on a virtual clock.
    pub(crate) fn virtual_time() -> Self {
        Self(None)
    }

    /// Compressed time, in the runtime of this round. Measures from now on how late the machine is.
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

    /// The duration, in this run, of a wait in the plan.
    pub(crate) fn wait(&self, planned: Duration) -> Duration {
        planned.div_f64(self.factor())
    }

    /// The duration, in this run, of a time limit.
    pub(crate) fn limit(&self, limit: Duration) -> Duration {
        self.wait(limit) + self.slack()
    }

    /// What is added to time limits.
    pub(crate) fn slack(&self) -> Duration {
        if self.is_real() { SLACK } else { Duration::ZERO }
    }

    /// The shortest time between two checks of the state.
    pub(crate) fn look_every(&self) -> Duration {
        if self.is_real() { Duration::from_millis(10) } else { Duration::from_secs(1) }
    }

    /// How long an outside observer waits to have received everything that happened.
    pub(crate) fn settling(&self) -> Duration {
        if self.is_real() { SETTLING } else { Duration::ZERO }
    }

    /// How much longer than in the plan a wait of the library that cannot be compressed may take.
    pub(crate) fn late_by(&self) -> Duration {
        if self.is_real() { Duration::from_secs(2) } else { Duration::ZERO }
    }

    /// Whether the machine was so late that the checkers cannot decide if something came too early.
    pub(crate) fn is_undecidable(&self) -> bool {
        self.latest() >= MARGIN / 2
    }

    /// The largest delay of the machine.
    pub(crate) fn latest(&self) -> Duration {
        self.0
            .as_ref()
            .map_or(Duration::ZERO, |real| Duration::from_micros(real.latest.load(Ordering::Relaxed)))
    }

    /// The time limit for the end of a process or of shards.
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
            // Not compressed, so that a short delay of the machine breaks no rule and ends no session.
            timings.heartbeat_tolerance = patient.heartbeat_tolerance;
            timings.reconnect_grace = patient.reconnect_grace;
            timings.session_lifetime = Duration::from_secs(10);
        }
        timings
    }

    /// Wraps the dialer so that connections yield at random in real time.
    pub(crate) fn dialer(&self, dialer: impl Dialer + 'static) -> Arc<dyn Dialer> {
        match &self.0 {
            Some(real) => real.round.stirred(dialer),
            None => Arc::new(dialer),
        }
    }
}
