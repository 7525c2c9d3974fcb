//! The planner: from a layout and a target to groups of shards that are replaced one after another.
//!
//! Discord puts a guild on shard `(guild_id >> 22) % count` (GW-227), and sessions with different counts can
//! run side by side (GW-231). With `g` the greatest common divisor of the old and the new count, the old
//! shards that leave the remainder `r` when divided by `g` have exactly the guilds of the new shards that
//! leave the same remainder. Together they are a [`ReshardGroup`]. Doubling a count gives groups of one old
//! and two new shards; counts without a common divisor give one group of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use shardkeeper_proto::{BUDGET_PERIOD, ShardCount, ShardId};

use super::policy::ReshardPolicy;
use crate::error::ReshardRejected;
use crate::layout::gcd;

/// Largest shard count that a reshard may lead to, as for an answer of `GET /gateway/bot`.
const MAX_SHARDS: u32 = 1 << 16;
/// Assumed time from the last Identify of a group until its guilds have arrived. Discord sends the guilds of
/// a shard within seconds; a guild that never comes costs 15 s (GW-254).
const WARMING_TAKES: Duration = Duration::from_secs(10);
/// Assumed time from the take-over until the old shards have closed.
const DRAINING_TAKES: Duration = Duration::from_secs(3);

/// The shard count that a reshard leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReshardTarget {
    /// This count.
    Count(ShardCount),
    /// The count that Discord recommends.
    Recommended,
    /// The present count, with new sessions: to change the intents, for example.
    Same,
}

/// Shards that cover the same guilds in two layouts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReshardGroup {
    /// The remainder that the ids of all these shards leave when divided by the number of groups.
    pub residue: u32,
    /// Shards of the old layout.
    pub old: Vec<ShardId>,
    /// Shards of the new layout.
    pub new: Vec<ShardId>,
}

/// A group that this process cannot reshard, because it runs only some of the group's old shards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SplitGroup {
    /// The remainder that the ids of the group's shards leave when divided by the number of groups.
    pub residue: u32,
    /// Old shards of the group that this process runs.
    pub here: Vec<ShardId>,
    /// Old shards of the group that this process does not run.
    pub missing: Vec<ShardId>,
}

/// A difference between what was asked for and what is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Adjustment {
    /// The count was rounded up to a multiple of [`ReshardPolicy::large_bot_multiple`]: Discord refuses any
    /// other (4010, GW-235).
    RoundedUp {
        /// Count that was asked for.
        from: u32,
        /// Number that the count has to be a multiple of.
        multiple: u32,
    },
    /// A reshard that stands half way continues: these groups are done already.
    Continued {
        /// Number of groups that run in the new layout.
        groups: usize,
    },
}

impl fmt::Display for Adjustment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundedUp { from, multiple } => {
                write!(f, "rounded up from {from} to a multiple of {multiple}, as large bots need (4010)")
            }
            Self::Continued { groups } => write!(f, "continues a reshard of which {groups} groups are done"),
        }
    }
}

/// What a reshard costs, estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReshardForecast {
    /// Identifies that it spends, if no group has to be tried twice.
    pub identifies: u32,
    /// Identifies left now.
    pub left: u32,
    /// Identifies that it leaves for other shards.
    pub reserve: u32,
    /// How long it takes: the pace of Identify (5 s per key of `max_concurrency`), 10 s per group for its
    /// guilds to arrive and 3 s for its old shards to close, waits between groups and for the budget.
    pub takes: Duration,
    /// The part of it that is spent waiting until Discord resets the identify budget.
    pub waits_for_budget: Duration,
    /// The most shards that run at once in addition to the present ones: those of one group.
    pub extra_shards: usize,
}

/// What a reshard will do. `Display` shows it in some lines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReshardPlan {
    /// Generation of the present layout.
    pub generation: u32,
    /// Shard count of the present layout.
    pub count: ShardCount,
    /// Generation of the new layout.
    pub next_generation: u32,
    /// Shard count of the new layout.
    pub next_count: ShardCount,
    /// Groups that are replaced, one after another.
    pub groups: Vec<ReshardGroup>,
    /// Groups that this process cannot reshard. Their shards keep the present layout.
    pub split_groups: Vec<SplitGroup>,
    /// How the plan differs from what was asked for.
    pub adjustments: Vec<Adjustment>,
    /// What it costs.
    pub forecast: ReshardForecast,
}

/// The Identifies that are left, as the identify ledger counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) total: u32,
    pub(crate) left: u32,
    /// Time until the full total is left again.
    pub(crate) resets_after: Duration,
    /// Identifies that are never spent.
    pub(crate) floor: u32,
    /// Number of keys: shards of different keys identify at the same time.
    pub(crate) max_concurrency: u32,
    /// Time between two Identifies of one key.
    pub(crate) window: Duration,
}

/// A reshard that has moved some groups and not all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfWay<'a> {
    pub(crate) generation: u32,
    pub(crate) count: ShardCount,
    /// Residues of the groups whose new shards have taken over.
    pub(crate) moved: &'a BTreeSet<u32>,
}

/// What the planner has to know about the bot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) generation: u32,
    pub(crate) count: ShardCount,
    pub(crate) half_way: Option<HalfWay<'a>>,
    /// A reshard is running now.
    pub(crate) running: bool,
    /// The shards of the present layout that this process runs.
    pub(crate) owned: &'a BTreeSet<ShardId>,
    /// Discord's recommended count.
    pub(crate) recommended: u32,
    pub(crate) allowance: Allowance,
}

impl Allowance {
    /// Identifies that a reshard under this policy must leave.
    pub(crate) fn reserve(&self, policy: &ReshardPolicy) -> u32 {
        // At most half, like the floor: otherwise a small bot could never reshard.
        policy.reserve.min(self.total / 2).max(self.floor)
    }

    /// How long the Identifies of these shards take, if no other shard identifies: the first of each key goes
    /// at once.
    pub(crate) fn pace(&self, shards: &[ShardId]) -> Duration {
        let mut keys: BTreeMap<u32, u32> = BTreeMap::new();
        for shard in shards {
            *keys.entry(shard.0 % self.max_concurrency.max(1)).or_default() += 1;
        }
        let most = keys.into_values().max().unwrap_or(1);
        self.window.saturating_mul(most - 1)
    }
}

/// The smallest count under which no shard has more than 2500 guilds, by a recommendation of one shard per
/// 1000 guilds (GW-237).
pub(crate) fn least_count(recommended: u32) -> u32 {
    let least = (u64::from(recommended) * 1000).div_ceil(2500);
    u32::try_from(least).unwrap_or(u32::MAX)
}

/// Plans a reshard.
pub(crate) fn plan(
    target: ReshardTarget,
    situation: &Situation<'_>,
    policy: &ReshardPolicy,
) -> Result<ReshardPlan, ReshardRejected> {
    let Situation { generation, count, half_way, recommended, allowance, .. } = *situation;
    if situation.running {
        let next = half_way.map_or(count, |half_way| half_way.count);
        return Err(ReshardRejected::AlreadyRunning { count, next });
    }
    let mut adjustments = Vec::new();
    let wanted = match target {
        ReshardTarget::Count(wanted) => wanted.get(),
        ReshardTarget::Recommended => recommended,
        ReshardTarget::Same => count.get(),
    };
    let next_count = rounded_up(wanted, policy.large_bot_multiple)?;
    if next_count.get() != wanted {
        let multiple = policy.large_bot_multiple;
        adjustments.push(Adjustment::RoundedUp { from: wanted, multiple });
    }
    let none = BTreeSet::new();
    let (next_generation, moved) = match half_way {
        Some(HalfWay { generation, count: half, moved }) if half == next_count => {
            adjustments.push(Adjustment::Continued { groups: moved.len() });
            (generation, moved)
        }
        Some(half_way) => {
            let moved = half_way.moved.len();
            return Err(ReshardRejected::HalfWay { count, next: half_way.count, moved });
        }
        None if next_count == count && target != ReshardTarget::Same => {
            return Err(ReshardRejected::NothingToDo { count });
        }
        None => (generation.saturating_add(1), &none),
    };
    let least = least_count(recommended);
    // One that stands half way has to be finished, whatever is recommended by now.
    if half_way.is_none() && next_count.get() < least {
        return Err(ReshardRejected::TooFewShards { count: next_count, least, recommended });
    }
    let (groups, split_groups) = groups(count, next_count, situation.owned, moved);
    // Without groups that are left, a reshard that stands half way only has to be concluded.
    if groups.is_empty() && (half_way.is_none() || !split_groups.is_empty()) {
        let residues = split_groups.iter().map(|group| group.residue).collect();
        let groups = gcd(count.get(), next_count.get());
        return Err(ReshardRejected::NoWholeGroup { count, next: next_count, groups, residues });
    }
    let forecast = forecast(&groups, &allowance, policy)?;
    Ok(ReshardPlan {
        generation,
        count,
        next_generation,
        next_count,
        groups,
        split_groups,
        adjustments,
        forecast,
    })
}

fn rounded_up(count: u32, multiple: u32) -> Result<ShardCount, ReshardRejected> {
    let rounded = count.max(1).checked_next_multiple_of(multiple.max(1));
    let rounded = rounded.filter(|count| *count <= MAX_SHARDS).and_then(ShardCount::new);
    rounded.ok_or(ReshardRejected::TooManyShards { count, limit: MAX_SHARDS })
}

/// The groups that this process can reshard, and those of which it runs only a part. Groups that have moved
/// already and groups of other processes are neither.
fn groups(
    count: ShardCount,
    next: ShardCount,
    owned: &BTreeSet<ShardId>,
    moved: &BTreeSet<u32>,
) -> (Vec<ReshardGroup>, Vec<SplitGroup>) {
    let (mut whole, mut split) = (Vec::new(), Vec::new());
    let number = gcd(count.get(), next.get());
    for residue in (0..number).filter(|residue| !moved.contains(residue)) {
        let of = |count: ShardCount| (residue..count.get()).step_by(number as usize).map(ShardId);
        let (here, missing): (Vec<_>, Vec<_>) = of(count).partition(|shard| owned.contains(shard));
        match (here.is_empty(), missing.is_empty()) {
            (_, true) => whole.push(ReshardGroup { residue, old: here, new: of(next).collect() }),
            (false, false) => split.push(SplitGroup { residue, here, missing }),
            (true, false) => {}
        }
    }
    (whole, split)
}

/// Goes through the groups as they would run, and rejects a plan that the budget does not allow.
pub(crate) fn forecast(
    groups: &[ReshardGroup],
    allowance: &Allowance,
    policy: &ReshardPolicy,
) -> Result<ReshardForecast, ReshardRejected> {
    let reserve = allowance.reserve(policy);
    let size = |group: &ReshardGroup| u32::try_from(group.new.len()).unwrap_or(u32::MAX);
    let identifies = groups.iter().map(size).fold(0, u32::saturating_add);
    let extra_shards = groups.iter().map(|group| group.new.len()).max().unwrap_or(0);
    let rejected = |needed| ReshardRejected::Budget {
        needed,
        left: allowance.left,
        total: allowance.total,
        reserve,
        resets_after: allowance.resets_after,
    };
    let (mut left, mut resets_at) = (allowance.left, allowance.resets_after);
    let (mut takes, mut waits) = (Duration::ZERO, Duration::ZERO);
    for (index, group) in groups.iter().enumerate() {
        let needed = size(group).saturating_add(reserve);
        if needed > allowance.total {
            return Err(rejected(size(group)));
        }
        if takes >= resets_at {
            (left, resets_at) = (allowance.total, takes.saturating_add(BUDGET_PERIOD));
        }
        if left < needed {
            if !policy.spread {
                return Err(rejected(identifies));
            }
            waits += resets_at - takes;
            takes = resets_at;
            (left, resets_at) = (allowance.total, takes.saturating_add(BUDGET_PERIOD));
        }
        left -= size(group);
        let pause = if index == 0 { Duration::ZERO } else { policy.pause };
        takes += pause + allowance.pace(&group.new) + WARMING_TAKES + DRAINING_TAKES;
    }
    let left = allowance.left;
    Ok(ReshardForecast { identifies, left, reserve, takes, waits_for_budget: waits, extra_shards })
}

impl fmt::Display for ReshardPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, count, next_generation, next_count, forecast, .. } = self;
        write!(f, "reshard {count} → {next_count} shards (generation {generation} → {next_generation})")?;
        for adjustment in &self.adjustments {
            write!(f, "\n  {adjustment}")?;
        }
        let groups = self.groups.len();
        match self.groups.first() {
            Some(group) => {
                let (old, new) = (group.old.len(), group.new.len());
                write!(f, "\n  {groups} groups of {old} → {new} shards, one after another")?;
            }
            None => f.write_str("\n  every group is done already")?,
        }
        let ReshardForecast { identifies, left, reserve, extra_shards, .. } = forecast;
        write!(f, "\n  {identifies} identifies of {left}, {reserve} stay in reserve")?;
        write!(f, "\n  about {}", Span(forecast.takes))?;
        if !forecast.waits_for_budget.is_zero() {
            write!(f, ", {} of it waiting for the identify budget", Span(forecast.waits_for_budget))?;
        }
        write!(f, "\n  at most {extra_shards} shards more than now at any time")?;
        for SplitGroup { residue, here, missing } in &self.split_groups {
            write!(
                f,
                "\n  left out: group {residue}, since this process runs shards {} of it and not {}",
                Ids(here),
                Ids(missing)
            )?;
        }
        Ok(())
    }
}

/// A span as people say it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds.div_ceil(60)),
            _ => write!(f, "{:.1} h", self.0.as_secs_f64() / 3600.0),
        }
    }
}

/// Ids in a line: at most eight.
struct Ids<'a>(&'a [ShardId]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (index, shard) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{shard}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
