//! Finds shards whose heartbeats are acknowledged but that get no dispatches, while their siblings have
//! traffic.
//!
//! Such a connection is alive by every rule of the protocol, so it is only reported. Discord is known to have
//! left shards in this state for hours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::layout::ShardKey;

/// How often the manager checks. Often enough for a report within a few minutes, rarely enough to cost
/// nothing.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(15);
/// How many dispatches a silent shard must have missed, judged by what its siblings got. If dispatches were
/// independent, the chance of getting none where 30 are expected would be 1 in 10^13. Traffic comes in
/// bursts, so the result is less certain than that, but certain enough for a report.
const EXPECTED: f64 = 30.0;
/// A shorter pause is not reported, however busy the siblings are.
const LEAST: Duration = Duration::from_secs(60);
/// The share of the history that remains after each check: half of it after about ten minutes.
const KEPT: f64 = 0.983;
/// A burst of the siblings counts at most as much as they get in this many checks: after an outage they load
/// their guilds.
const BURST: f64 = 3.0;

/// What a check knows of one shard.
pub(crate) struct Reading {
    pub(crate) shard: ShardKey,
    pub(crate) ready: bool,
    /// How many dispatches the shard has got since it was added.
    pub(crate) dispatches: u64,
}

#[derive(Default)]
pub(crate) struct SilenceWatch {
    shards: BTreeMap<ShardKey, History>,
}

struct History {
    dispatches: u64,
    /// The shard's dispatches and those of its siblings, over the checks at which the shard had some, and the
    /// number of those checks. Older checks count less.
    own: f64,
    siblings: f64,
    checks: f64,
    quiet_since: Instant,
    /// What the siblings have got since then, with bursts limited.
    siblings_since: f64,
    reported: bool,
}

impl SilenceWatch {
    /// Compares all shards, in the order of their keys, and returns those found to be silent since the last check, with how long each has
    /// been silent.
    pub(crate) fn check(&mut self, now: Instant, readings: &[Reading]) -> Vec<(ShardKey, Duration)> {
        // Shards that were removed, or retired by a reshard.
        self.shards.retain(|shard, _| readings.binary_search_by_key(shard, |reading| reading.shard).is_ok());
        let fresh = |reading: &Reading| {
            let before = self.shards.get(&reading.shard).map_or(reading.dispatches, |known| known.dispatches);
            reading.dispatches.saturating_sub(before)
        };
        let new: Vec<u64> = readings.iter().map(fresh).collect();
        let total: u64 = new.iter().sum();
        let mut silent = Vec::new();
        for (reading, new) in readings.iter().zip(new) {
            let history = self.shards.entry(reading.shard).or_insert_with(|| History::new(now, reading));
            history.dispatches = reading.dispatches;
            // An f64 is exact up to 2^53 dispatches in one check.
            if let Some(quiet) = history.note(now, reading.ready, new as f64, (total - new) as f64) {
                silent.push((reading.shard, quiet));
            }
        }
        silent
    }
}

impl History {
    fn new(now: Instant, reading: &Reading) -> Self {
        Self {
            dispatches: reading.dispatches,
            own: 0.0,
            siblings: 0.0,
            checks: 0.0,
            quiet_since: now,
            siblings_since: 0.0,
            reported: false,
        }
    }

    fn note(&mut self, now: Instant, ready: bool, own: f64, siblings: f64) -> Option<Duration> {
        if own > 0.0 || !ready {
            (self.quiet_since, self.siblings_since, self.reported) = (now, 0.0, false);
        }
        if own > 0.0 {
            self.own = self.own * KEPT + own;
            self.siblings = self.siblings * KEPT + siblings;
            self.checks = self.checks * KEPT + 1.0;
        }
        if own > 0.0 || !ready || self.reported || self.own < EXPECTED || self.siblings == 0.0 {
            return None;
        }
        self.siblings_since += siblings.min(BURST * self.siblings / self.checks);
        let expected = self.own / self.siblings * self.siblings_since;
        let quiet = now.saturating_duration_since(self.quiet_since);
        self.reported = expected >= EXPECTED && quiet >= LEAST;
        self.reported.then_some(quiet)
    }
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::ShardId;

    use super::*;

    /// Checks shards that get these numbers of dispatches between two checks. Returns which shard was
    /// reported at which check.
    fn watch(
        checks: impl IntoIterator<Item = Vec<u64>>,
        ready: impl Fn(usize, u32) -> bool,
    ) -> Vec<(usize, u32)> {
        let (mut watch, mut now) = (SilenceWatch::default(), Instant::now());
        let mut counts = Vec::new();
        let mut reported = Vec::new();
        for (check, new) in checks.into_iter().enumerate() {
            counts.resize(new.len(), 0);
            counts.iter_mut().zip(&new).for_each(|(count, new)| *count += new);
            let readings: Vec<Reading> = (0..)
                .zip(&counts)
                .map(|(id, count)| Reading {
                    shard: ShardKey { id: ShardId(id), generation: 1 },
                    ready: ready(check, id),
                    dispatches: *count,
                })
                .collect();
            reported.extend(watch.check(now, &readings).into_iter().map(|(shard, _)| (check, shard.id.0)));
            now += CHECK_EVERY;
        }
        reported
    }

    fn busy(checks: usize) -> Vec<Vec<u64>> {
        vec![vec![100, 80, 120]; checks]
    }

    #[test]
    fn a_shard_that_falls_silent_among_busy_ones_is_reported_once() {
        let checks = busy(10).into_iter().chain(vec![vec![100, 0, 120]; 100]);
        assert_eq!(watch(checks, |_, _| true), [(13, 1)], "a minute after its last dispatch");
    }

    #[test]
    fn a_shard_is_reported_again_after_it_had_traffic_in_between() {
        let quiet = || vec![vec![0, 80, 120]; 10];
        let checks = busy(10).into_iter().chain(quiet()).chain(busy(1)).chain(quiet());
        assert_eq!(watch(checks, |_, _| true), [(13, 0), (24, 0)]);
    }

    #[test]
    fn nothing_is_reported_when_all_shards_fall_silent() {
        let checks = busy(10).into_iter().chain(vec![vec![0, 0, 0]; 1000]);
        assert_eq!(watch(checks, |_, _| true), []);
        let few = busy(10).into_iter().chain(vec![vec![0, 0, 1]; 20]);
        assert_eq!(watch(few, |_, _| true), [], "a few dispatches of the siblings prove nothing");
    }

    #[test]
    fn a_shard_with_little_traffic_is_not_reported() {
        assert_eq!(watch(vec![vec![500, 0]; 1000], |_, _| true), []);
        let rare = (0..1000).map(|check| vec![500, u64::from(check % 40 == 0)]);
        assert_eq!(watch(rare, |_, _| true), []);
    }

    #[test]
    fn a_shard_that_is_not_ready_is_not_reported() {
        let checks = busy(10).into_iter().chain(vec![vec![100, 0, 120]; 100]);
        assert_eq!(watch(checks, |check, shard| shard != 1 || check < 10), []);
    }

    #[test]
    fn a_burst_of_the_siblings_is_not_taken_for_long_traffic() {
        let mut checks = busy(10);
        checks.extend(vec![vec![0, 0, 0]; 3]);
        checks.push(vec![100_000, 0, 100_000]);
        checks.extend(vec![vec![0, 0, 0]; 3]);
        // The burst counts as three ordinary checks of the siblings, so 240 dispatches of the shard were due.
        assert_eq!(watch(checks, |_, _| true), [(13, 1)]);
        let rare = |siblings: u64| {
            let mut checks: Vec<Vec<u64>> = vec![vec![100, 4]; 20];
            checks.extend(vec![vec![0, 0]; 4]);
            checks.push(vec![siblings, 0]);
            watch(checks, |_, _| true)
        };
        assert_eq!(rare(1_000_000), [], "for a shard with less traffic, three checks are not enough");
    }

    #[test]
    fn a_single_shard_is_never_reported() {
        let checks = vec![vec![100]; 10].into_iter().chain(vec![vec![0]; 100]);
        assert_eq!(watch(checks, |_, _| true), []);
    }
}
