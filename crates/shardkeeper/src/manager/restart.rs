//! When a crashed shard may come back. Pure: the manager brings its clock.
//!
//! For crashes alone, the breaking of an invariant of ours. What the network does is the machine's affair.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use shardkeeper_proto::{Backoff, DurationError};

/// How crashes are answered. Construct it with `Default`, then set fields; a limit of zero is always passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Crashes are forgotten after this time. 10 min.
    pub window: Duration,
    /// Waits between restarts of one shard: none, then 1 s doubling to 60 s.
    pub backoff: Backoff,
    /// So many crashes of one shard within the window, and it is in quarantine. 5.
    pub quarantine_after: usize,
    /// How long a shard in quarantine waits for its next try: the first time 5 min, twice as long each time that it crashes
    /// again within the window after it.
    pub quarantine: Duration,
    /// The longest such wait. 1 h: a try may cost an Identify, and a day has 1000 of them for all shards.
    pub quarantine_cap: Duration,
    /// So many crashes of all shards within [`fleet_window`](Self::fleet_window), and every restart waits for as
    /// long: something is wrong with all of them. 32.
    pub fleet_limit: usize,
    /// The window of [`fleet_limit`](Self::fleet_limit), and half of the longest wait that it brings. 10 s.
    pub fleet_window: Duration,
}

impl RestartPolicy {
    /// Checks that no span is longer than a year, and that a quarantine is one: without a wait, a shard that crashes at each
    /// start would spend an Identify each time.
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

/// Remembers the crashes of children, each of which has a name.
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

    /// Notes a crash and decides; `random` lies in `[0, 1)`.
    pub(crate) fn crashed(&mut self, now: Instant, child: Name, random: f64) -> Restart {
        let policy = self.policy;
        let crashes = self.crashes.entry(child).or_default();
        let earlier = note(crashes, now, policy.window, policy.quarantine_after);
        let fleet = note(&mut self.fleet, now, policy.fleet_window, policy.fleet_limit);
        // Else older crashes would leave the window while it waits, and each quarantine begin with some quick tries.
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
}

/// Adds a crash to those within the window; returns how many were there. Remembers no more than matter.
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
        let mut book = CrashHistory::new(RestartPolicy::default());
        let now = Instant::now();
        let waits: Vec<Restart> = (0..7).map(|at| book.crashed(now + SECOND * at, ShardId(1), 0.0)).collect();
        let seconds: Vec<u64> = waits.iter().map(|restart| restart.after.as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 300, 600, 1200]);
        assert!(waits[4].quarantined && !waits[3].quarantined);
        assert_eq!(book.crashed(now, ShardId(2), 0.0).after, Duration::ZERO, "the others do not pay for it");
    }

    #[test]
    fn crashes_are_forgotten() {
        let mut book = CrashHistory::new(RestartPolicy::default());
        let now = Instant::now();
        for at in 0..5 {
            let _ = book.crashed(now + SECOND * at, ShardId(1), 0.0);
        }
        let policy = RestartPolicy::default();
        let later = now + policy.quarantine + policy.window + SECOND * 5;
        assert_eq!(
            book.crashed(later, ShardId(1), 0.0),
            Restart { after: Duration::ZERO, quarantined: false }
        );
    }

    #[test]
    fn a_day_of_crashes_is_a_few_dozen_tries() {
        let mut book = CrashHistory::new(RestartPolicy::default());
        let start = Instant::now();
        let (mut now, mut tries) = (start, 0);
        while now < start + SECOND * 86_400 {
            now += SECOND + book.crashed(now, ShardId(1), 0.5).after;
            tries += 1;
        }
        assert_eq!(tries, 31);
    }

    #[test]
    fn when_the_whole_fleet_crashes_restarts_wait() {
        let mut book = CrashHistory::new(RestartPolicy::default());
        let now = Instant::now();
        let waits: Vec<Duration> =
            (0..40).map(|shard| book.crashed(now, ShardId(shard), 0.0).after).collect();
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 31);
        assert_eq!(waits[39], RestartPolicy::default().fleet_window);
    }

    #[test]
    fn crashes_of_the_fleet_are_forgotten_after_their_window() {
        let mut book = CrashHistory::new(RestartPolicy::default());
        let mut now = Instant::now();
        for shard in 0..100 {
            assert_eq!(book.crashed(now, ShardId(shard), 0.0).after, Duration::ZERO, "{shard}");
            now += SECOND;
        }
    }
}
