//! The limits of Identify: the window per key, the order within a key, and the budget per period.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::SimConfig;

/// How many Identify of one key are remembered. They may be read in another order than they were written.
const MAX_REMEMBERED: usize = 1024;

/// The numbers in `GET /gateway/bot`, and the Identify that count towards them.
pub(crate) struct Identifies {
    pub(crate) shards: u32,
    pub(crate) max_concurrency: u32,
    pub(crate) total: u32,
    pub(crate) remaining: u32,
    /// The least number of shards (4011 for fewer).
    pub(crate) least_shards: u32,
    /// The most guilds of one session (4011 for more).
    pub(crate) max_guilds: u32,
    /// What the number of shards has to be a multiple of (4010 for others).
    pub(crate) multiple: u32,
    window: Duration,
    period: Duration,
    /// The end of the current period; `None` until its first Identify.
    period_ends: Option<Instant>,
    /// When the newest Identify of each key were written.
    written: HashMap<u32, BTreeSet<Instant>>,
    /// The highest shard that has identified, by number of shards and key (GW-171).
    highest: BTreeMap<(u32, u32), u32>,
    /// The shards that have identified, each with its number of shards.
    identified: BTreeSet<(u32, u32)>,
}

impl Identifies {
    pub(super) fn new(config: &SimConfig) -> Self {
        let period = config.timings.budget_period;
        Self {
            shards: config.shards,
            max_concurrency: config.max_concurrency.max(1),
            total: config.identify_total,
            remaining: config.identify_remaining.min(config.identify_total),
            least_shards: 1,
            max_guilds: config.max_guilds_per_shard,
            multiple: config.shard_multiple.max(1),
            window: config.timings.identify_window,
            period,
            // If some Identify are used up already, a period has begun.
            period_ends: (config.identify_remaining < config.identify_total).then(|| Instant::now() + period),
            written: HashMap::new(),
            highest: BTreeMap::new(),
            identified: BTreeSet::new(),
        }
    }

    /// Changes the numbers that are given.
    pub(crate) fn change(
        &mut self,
        shards: Option<u32>,
        max_concurrency: Option<u32>,
        remaining: Option<u32>,
    ) {
        self.shards = shards.unwrap_or(self.shards);
        self.max_concurrency = max_concurrency.unwrap_or(self.max_concurrency).max(1);
        self.remaining = remaining.unwrap_or(self.remaining).min(self.total);
    }

    /// Restores the budget if the period is over.
    pub(crate) fn renew(&mut self, now: Instant) {
        if self.period_ends.is_some_and(|end| end <= now) {
            self.period_ends = None;
            self.remaining = self.total;
        }
    }

    /// How long until the budget is restored; zero if no period has begun. Call [`Self::renew`] first.
    pub(crate) fn resets_after(&self, now: Instant) -> Duration {
        self.period_ends.map_or(Duration::ZERO, |end| end - now)
    }

    /// The key of a shard: Identify of different keys may be sent at the same time (GW-170).
    pub(crate) fn key(&self, shard: u32) -> u32 {
        shard % self.max_concurrency
    }

    /// Notes the time of an Identify. If another one of its key is closer than the window, returns how close.
    pub(crate) fn too_close(&mut self, key: u32, at: Instant) -> Option<Duration> {
        let written = self.written.entry(key).or_default();
        let before = written.range(..=at).next_back().map(|before| at.duration_since(*before));
        let after = written.range(at..).next().map(|after| after.duration_since(at));
        let apart = before.into_iter().chain(after).min();
        written.insert(at);
        if written.len() > MAX_REMEMBERED {
            written.pop_first();
        }
        apart.filter(|apart| *apart < self.window)
    }

    /// Takes one Identify from the budget. Returns whether there was one left.
    pub(crate) fn spend(&mut self, at: Instant) -> bool {
        self.period_ends.get_or_insert(at + self.period);
        let is_left = self.remaining > 0;
        self.remaining = self.remaining.saturating_sub(1);
        is_left
    }

    /// Notes that a shard has identified. Returns the highest shard of its key if the order was wrong: within
    /// a key, lower shards come first (GW-171). Only the first Identify of a shard has to be in order.
    pub(crate) fn overtaken_by(&mut self, shard: u32, count: u32, key: u32) -> Option<u32> {
        let is_first = self.identified.insert((count, shard));
        let highest = self.highest.entry((count, key)).or_insert(shard);
        let overtaken_by = (is_first && shard < *highest).then_some(*highest);
        *highest = (*highest).max(shard);
        overtaken_by
    }
}
