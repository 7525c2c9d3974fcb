//! When a crashed child may be started again. Pure: the manager supplies time and randomness.
//!
//! Only crashes count here, which are bugs in this library. The protocol machine handles network failures.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use shardkeeper_proto::{Backoff, DurationError};

/// When crashed children are started again. Construct it with `Default`, then set fields. A limit of 0 acts
/// like 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// A crash is forgotten after this time. Default: 10 min.
    pub window: Duration,
    /// The wait before a restart of one shard. Default: none after the first crash, then 1 s, doubling up to
    /// 60 s.
    pub backoff: Backoff,
    /// A shard that crashes this many times within [`window`](Self::window) is quarantined. Default: 5.
    pub quarantine_after: usize,
    /// How long a quarantined shard waits for its next start. The wait doubles each time that the shard
    /// crashes again within [`window`](Self::window) after its quarantine. Default: 5 min.
    pub quarantine: Duration,
    /// The longest quarantine. Default: 1 h, because each start may cost one of the 1000 Identifies that all
    /// shards share each day.
    pub quarantine_cap: Duration,
    /// If all shards together crash this many times within [`fleet_window`](Self::fleet_window), every
    /// restart waits at least that long, because the cause concerns all of them. Default: 32.
    pub fleet_limit: usize,
    /// The window of [`fleet_limit`](Self::fleet_limit). The wait that the limit causes is one to two
    /// windows. Default: 10 s.
    pub fleet_window: Duration,
}

impl RestartPolicy {
    /// Checks that no span is longer than a year, and that a quarantine has a wait: without one, a shard that
    /// crashes at each start would spend an Identify each time.
    pub(crate) fn check(&self) -> Result<(), DurationError> {
        let any = Duration::ZERO;
        let some = Duration::from_millis(1);
        for (setting, wait, min) in [
            ("restart_policy.window", self.window, any),
            ("restart_policy.backoff.base", self.backoff.base, any),
            ("restart_policy.backoff.cap", self.backoff.cap, any),
            ("restart_policy.quarantine", self.quarantine, some),
            ("restart_policy.quarantine_cap", self.quarantine_cap, any),
            ("restart_policy.fleet_window", self.fleet_window, any),
        ] {
            DurationError::check(setting, wait, min)?;
        }
        Ok(())
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(600),
            backoff: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) },
            quarantine_after: 5,
            quarantine: Duration::from_secs(300),
            quarantine_cap: Duration::from_secs(3600),
            fleet_limit: 32,
            fleet_window: Duration::from_secs(10),
        }
    }
}

/// What to do with a child that crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restart {
    pub(crate) after: Duration,
    pub(crate) quarantined: bool,
}

/// The recent crashes of children, by the children's names.
#[derive(Debug)]
pub(crate) struct CrashHistory<Name> {
    policy: RestartPolicy,
    crashes: BTreeMap<Name, VecDeque<Instant>>,
    quarantines: BTreeMap<Name, Quarantine>,
    fleet: VecDeque<Instant>,
}

/// The last quarantine of a child.
#[derive(Debug)]
struct Quarantine {
    wait: Duration,
    over_at: Instant,
}

impl<Name: Ord + Copy> CrashHistory<Name> {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self { policy, crashes: BTreeMap::new(), quarantines: BTreeMap::new(), fleet: VecDeque::new() }
    }

    /// Records a crash and decides on the restart. `random` lies in `[0, 1)`.
    pub(crate) fn crashed(&mut self, now: Instant, child: Name, random: f64) -> Restart {
        let policy = self.policy;
        let crashes = self.crashes.entry(child).or_default();
        let earlier = note(crashes, now, policy.window, policy.quarantine_after);
        let fleet = note(&mut self.fleet, now, policy.fleet_window, policy.fleet_limit);
        // Older crashes leave the window during a quarantine. Without this, each quarantine would be followed
        // by several quick restarts.
        let relapse = self.quarantines.get(&child).filter(|last| now < last.over_at + policy.window);
        let quarantined = earlier + 1 >= policy.quarantine_after || relapse.is_some();
        let mut after = if quarantined {
            let wait = relapse.map_or(policy.quarantine, |last| last.wait.saturating_mul(2));
            let wait = wait.min(policy.quarantine_cap.max(policy.quarantine));
            self.quarantines.insert(child, Quarantine { wait, over_at: now + wait });
            wait
        } else {
            policy.backoff.delay(u32::try_from(earlier).unwrap_or(u32::MAX), random)
        };
        if fleet + 1 >= policy.fleet_limit {
            after = after.max(policy.fleet_window.mul_f64(1.0 + random));
        }
        Restart { after, quarantined }
    }

    /// Forgets the crashes of all other children.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        self.crashes.retain(|child, _| keep(child));
        self.quarantines.retain(|child, _| keep(child));
    }
}

/// Adds a crash to those within the window, of which up to `matter` are kept. Returns how many there were
/// before.
fn note(crashes: &mut VecDeque<Instant>, now: Instant, window: Duration, matter: usize) -> usize {
    crashes.retain(|at| now.saturating_duration_since(*at) < window);
    let earlier = crashes.len();
    crashes.push_back(now);
    if crashes.len() > matter {
        crashes.pop_front();
    }
    earlier
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::ShardId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_crash_costs_nothing_and_a_loop_ends_in_quarantine() {
        let mut history = CrashHistory::new(RestartPolicy::default());
        let now = Instant::now();
        let waits: Vec<Restart> =
            (0..7).map(|at| history.crashed(now + SECOND * at, ShardId(1), 0.0)).collect();
        let seconds: Vec<u64> = waits.iter().map(|restart| restart.after.as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 300, 600, 1200]);
        assert!(waits[4].quarantined && !waits[3].quarantined);
        assert_eq!(
            history.crashed(now, ShardId(2), 0.0).after,
            Duration::ZERO,
            "a crash of one shard does not delay another"
        );
    }

    #[test]
    fn crashes_are_forgotten() {
        let mut history = CrashHistory::new(RestartPolicy::default());
        let now = Instant::now();
        for at in 0..5 {
            let _ = history.crashed(now + SECOND * at, ShardId(1), 0.0);
        }
        let policy = RestartPolicy::default();
        let later = now + policy.quarantine + policy.window + SECOND * 5;
        assert_eq!(
            history.crashed(later, ShardId(1), 0.0),
            Restart { after: Duration::ZERO, quarantined: false }
        );
    }

    #[test]
    fn a_day_of_crashes_is_a_few_dozen_tries() {
        let mut history = CrashHistory::new(RestartPolicy::default());
        let start = Instant::now();
        let (mut now, mut tries) = (start, 0);
        while now < start + SECOND * 86_400 {
            now += SECOND + history.crashed(now, ShardId(1), 0.5).after;
            tries += 1;
        }
        assert_eq!(tries, 31);
    }

    #[test]
    fn when_the_whole_fleet_crashes_restarts_wait() {
        let mut history = CrashHistory::new(RestartPolicy::default());
        let now = Instant::now();
        let waits: Vec<Duration> =
            (0..40).map(|shard| history.crashed(now, ShardId(shard), 0.0).after).collect();
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 31);
        assert_eq!(waits[39], RestartPolicy::default().fleet_window);
    }

    #[test]
    fn crashes_of_the_fleet_are_forgotten_after_their_window() {
        let mut history = CrashHistory::new(RestartPolicy::default());
        let mut now = Instant::now();
        for shard in 0..100 {
            assert_eq!(history.crashed(now, ShardId(shard), 0.0).after, Duration::ZERO, "{shard}");
            now += SECOND;
        }
    }
}
