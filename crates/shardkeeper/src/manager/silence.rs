//! Finds shards that are acknowledged and yet get no dispatches, while their siblings have traffic.
//!
//! Such a connection is alive by every rule of the protocol, so nothing is done to it: it is told. Discord has been
//! seen to leave shards like this for hours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shardkeeper_proto::ShardId;

/// How often the manager looks. Often enough for a report within a few minutes, rarely enough to cost nothing.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(15);
/// So many dispatches should have come, going by what the siblings got. If they came by chance alone, none in thirty
/// would be one in 10^13; traffic comes in bursts, so it is less certain, but still certain enough to be told.
const EXPECTED: f64 = 30.0;
/// A shorter pause is not told, however busy the siblings are.
const LEAST: Duration = Duration::from_secs(60);
/// How much of the history is forgotten with each look: half of it in about ten minutes.
const KEPT: f64 = 0.983;
/// A burst of the siblings counts as no more than this many looks of theirs: after an outage they load their guilds.
const BURST: f64 = 3.0;

/// What is known of a shard at a look.
pub(crate) struct Reading {
    pub(crate) shard: ShardId,
    pub(crate) ready: bool,
    /// Dispatches that it has got in its life.
    pub(crate) dispatches: u64,
}

#[derive(Default)]
pub(crate) struct SilenceWatch {
    shards: BTreeMap<ShardId, History>,
}

struct History {
    dispatches: u64,
    /// Its own dispatches and those of its siblings, in the looks at which it had some; the older, the less.
    own: f64,
    siblings: f64,
    looks: f64,
    quiet_since: Instant,
    /// What the siblings got since then.
    siblings_since: f64,
    told: bool,
}

impl SilenceWatch {
    /// Takes a look, and returns the shards that have fallen silent since the last one, with for how long they have
    /// been.
    pub(crate) fn look(&mut self, now: Instant, readings: &[Reading]) -> Vec<(ShardId, Duration)> {
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
            // Precise far beyond what a look brings.
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
            looks: 0.0,
            quiet_since: now,
            siblings_since: 0.0,
            told: false,
        }
    }

    fn note(&mut self, now: Instant, ready: bool, own: f64, siblings: f64) -> Option<Duration> {
        if own > 0.0 || !ready {
            (self.quiet_since, self.siblings_since, self.told) = (now, 0.0, false);
        }
        if own > 0.0 {
            self.own = self.own * KEPT + own;
            self.siblings = self.siblings * KEPT + siblings;
            self.looks = self.looks * KEPT + 1.0;
        }
        if own > 0.0 || !ready || self.told || self.own < EXPECTED || self.siblings == 0.0 {
            return None;
        }
        self.siblings_since += siblings.min(BURST * self.siblings / self.looks);
        let expected = self.own / self.siblings * self.siblings_since;
        let quiet = now.saturating_duration_since(self.quiet_since);
        self.told = expected >= EXPECTED && quiet >= LEAST;
        self.told.then_some(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at shards that get so many dispatches between two looks; returns who was told at which look.
    fn watch(
        looks: impl IntoIterator<Item = Vec<u64>>,
        ready: impl Fn(usize, u32) -> bool,
    ) -> Vec<(usize, u32)> {
        let (mut watch, mut now) = (SilenceWatch::default(), Instant::now());
        let mut counts = Vec::new();
        let mut told = Vec::new();
        for (look, new) in looks.into_iter().enumerate() {
            counts.resize(new.len(), 0);
            counts.iter_mut().zip(&new).for_each(|(count, new)| *count += new);
            let readings: Vec<Reading> = (0..)
                .zip(&counts)
                .map(|(id, count)| Reading { shard: ShardId(id), ready: ready(look, id), dispatches: *count })
                .collect();
            told.extend(watch.look(now, &readings).into_iter().map(|(shard, _)| (look, shard.0)));
            now += LOOK_EVERY;
        }
        told
    }

    fn busy(looks: usize) -> Vec<Vec<u64>> {
        vec![vec![100, 80, 120]; looks]
    }

    #[test]
    fn a_shard_that_falls_silent_among_busy_ones_is_told_once() {
        let looks = busy(10).into_iter().chain(vec![vec![100, 0, 120]; 100]);
        assert_eq!(watch(looks, |_, _| true), [(13, 1)], "a minute after its last one");
    }

    #[test]
    fn it_is_told_again_when_it_had_spoken_in_between() {
        let quiet = || vec![vec![0, 80, 120]; 10];
        let looks = busy(10).into_iter().chain(quiet()).chain(busy(1)).chain(quiet());
        assert_eq!(watch(looks, |_, _| true), [(13, 0), (24, 0)]);
    }

    #[test]
    fn when_all_fall_silent_it_is_night() {
        let looks = busy(10).into_iter().chain(vec![vec![0, 0, 0]; 1000]);
        assert_eq!(watch(looks, |_, _| true), []);
        let few = busy(10).into_iter().chain(vec![vec![0, 0, 1]; 20]);
        assert_eq!(watch(few, |_, _| true), [], "some more of the siblings prove nothing yet");
    }

    #[test]
    fn a_shard_that_never_had_much_is_not_missed() {
        assert_eq!(watch(vec![vec![500, 0]; 1000], |_, _| true), []);
        let rare = (0..1000).map(|look| vec![500, u64::from(look % 40 == 0)]);
        assert_eq!(watch(rare, |_, _| true), []);
    }

    #[test]
    fn one_that_is_not_connected_is_not_silent() {
        let looks = busy(10).into_iter().chain(vec![vec![100, 0, 120]; 100]);
        assert_eq!(watch(looks, |look, shard| shard != 1 || look < 10), []);
    }

    #[test]
    fn a_burst_of_the_siblings_is_not_taken_for_long_traffic() {
        let mut looks = busy(10);
        looks.extend(vec![vec![0, 0, 0]; 3]);
        looks.push(vec![100_000, 0, 100_000]);
        looks.extend(vec![vec![0, 0, 0]; 3]);
        // What would be told: three ordinary looks of the siblings have come, and so 240 of our own were due.
        assert_eq!(watch(looks, |_, _| true), [(13, 1)]);
        let rare = |siblings: u64| {
            let mut looks: Vec<Vec<u64>> = vec![vec![100, 4]; 20];
            looks.extend(vec![vec![0, 0]; 4]);
            looks.push(vec![siblings, 0]);
            watch(looks, |_, _| true)
        };
        assert_eq!(rare(1_000_000), [], "for a quieter one they are not enough");
    }

    #[test]
    fn one_alone_has_nobody_to_compare_with() {
        let looks = vec![vec![100]; 10].into_iter().chain(vec![vec![0]; 100]);
        assert_eq!(watch(looks, |_, _| true), []);
    }
}
