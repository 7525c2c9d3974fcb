//! The identify limiter: when each shard may identify, by the keys of `max_concurrency` and the daily budget.
//!
//! Input: shards that join, connect, identify or leave. Output: shards that may connect, and shards that may
//! send Identify. The limiter has no I/O and no clock; the `IdentifyQueue` actor in `shardkeeper` supplies
//! both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::{LONGEST_WAIT, ShardId};

/// The right to send one Identify. A permit cannot be copied, and sending the Identify consumes it.
#[derive(Debug)]
#[must_use = "a permit that is not used has to be given back"]
pub struct IdentifyPermit(());

impl IdentifyPermit {
    /// Issues a permit. Only identify queues may call this: the window of a key and the budget have to
    /// account for each permit.
    pub const fn issue() -> Self {
        Self(())
    }
}

/// The order in which the shards of one key are served: smaller values first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// The shard had a session and lost it, so its guilds receive no events.
    LostSession,
    /// The shard starts for the first time.
    ColdStart,
    /// The shard belongs to a new generation, while one of the old generation still works.
    Reshard,
}

/// The Identifies that are left to the token in the current period. At 0 Discord resets the token (GW-166).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentifyBudget {
    total: u32,
    remaining: u32,
    /// When the period ends; `None` before the first Identify, which begins the period.
    ends_at: Option<Instant>,
    floor: u32,
}

/// The period of the budget: one day.
pub const BUDGET_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// How far apart two reported ends of the same period may be, because of the time for which an answer
/// travels.
const ANSWER_TAKES: Duration = Duration::from_secs(60);

impl IdentifyBudget {
    /// Creates the budget from the answer of `GET /gateway/bot`. The last `floor` Identifies are never used,
    /// because Discord resets the token at zero. `floor` is at most half of `total`, so that a small bot can
    /// start.
    ///
    /// A `reset_after` of zero means that no Identify was sent in the current period: the period begins with
    /// the next one (GW-008).
    pub fn new(now: Instant, total: u32, remaining: u32, reset_after: Duration, floor: u32) -> Self {
        let ends_at = match (reset_after, remaining < total) {
            (Duration::ZERO, false) => None,
            // The answer contradicts itself; a whole period is the safe interpretation.
            (Duration::ZERO, true) => Some(now + BUDGET_PERIOD),
            (reset_after, _) => Some(now + reset_after.min(LONGEST_WAIT)),
        };
        // Without this, a bot whose total is smaller than the floor could never start.
        let floor = floor.min(total / 2);
        Self { total, remaining: remaining.min(total), ends_at, floor }
    }

    fn refresh(&mut self, now: Instant) {
        if self.ends_at.is_some_and(|end| now >= end) {
            (self.remaining, self.ends_at) = (self.total, None);
        }
    }

    /// When the next Identify is allowed; `now` or an earlier time means at once.
    pub fn free_at(&mut self, now: Instant) -> Instant {
        self.refresh(now);
        if self.remaining > self.floor { now } else { self.resets_at(now) }
    }

    /// Whether one more Identify is allowed now. The `out` permits that are issued and not yet spent count as
    /// spent; otherwise several shards could get the last one.
    pub fn affords(&mut self, now: Instant, out: usize) -> bool {
        self.left(now).saturating_sub(self.floor) > u32::try_from(out).unwrap_or(u32::MAX)
    }

    /// The Identifies that are left now, or the full total if the period has ended.
    pub fn left(&mut self, now: Instant) -> u32 {
        self.refresh(now);
        self.remaining
    }

    /// Counts one sent Identify (GW-169), even if the budget is already at zero.
    pub fn spend(&mut self, now: Instant) {
        self.refresh(now);
        self.ends_at.get_or_insert(now + BUDGET_PERIOD);
        self.remaining = self.remaining.saturating_sub(1);
    }

    /// Applies a new answer of `GET /gateway/bot`. Within one period the lower count applies: the answer may
    /// not include recent Identifies of this process, and our own count does not include those of others.
    pub fn reconcile(&mut self, now: Instant, answer: Self) {
        self.refresh(now);
        let apart = |one: Instant, other: Instant| one.max(other) - one.min(other);
        let same_period = match (self.ends_at, answer.ends_at) {
            (Some(ours), Some(theirs)) => self.total == answer.total && apart(ours, theirs) < ANSWER_TAKES,
            _ => false,
        };
        let remaining = if same_period { self.remaining.min(answer.remaining) } else { answer.remaining };
        *self = Self { remaining, ..answer };
    }

    /// The Identifies that were left at the last update. Unlike [`left`](Self::left), this does not notice
    /// the end of the period.
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// The Identifies that Discord allows per period.
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// When the period ends. Before the first Identify of a period: when the period would end if it began
    /// now.
    pub fn resets_at(&self, now: Instant) -> Instant {
        self.ends_at.unwrap_or(now + BUDGET_PERIOD)
    }

    /// How scarce Identifies are: 0 while at least half of the budget is left, 1 below half, 2 below a
    /// quarter, 3 below a tenth.
    pub const fn scarcity(&self) -> u8 {
        let left = self.remaining;
        (left < self.total.div_ceil(2)) as u8
            + (left < self.total.div_ceil(4)) as u8
            + (left < self.total.div_ceil(10)) as u8
    }
}

/// A permission that the limiter grants.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "who drives the limiter has to serve every grant")]
pub enum Grant<S = ShardId> {
    /// The shard may open its connection, because its Identify is near.
    Connect(S),
    /// The shard, which has received Hello, may send Identify.
    Identify(S, IdentifyPermit),
}

/// Allows one Identify per key and window (GW-170), in order of [`Priority`] and shard, within the budget.
///
/// `S` names a shard. Where shards of several layouts use one limiter, a [`ShardId`] is not enough: two of them
/// may have the same id.
///
/// The steps of a shard: [`join`](Self::join), [`Grant::Connect`], Hello, [`claim`](Self::claim),
/// [`Grant::Identify`], [`sent`](Self::sent). A shard can [`leave`](Self::leave) at any point, which frees a
/// permit that it has not spent. A shard already connects during the window of the shard before it, so a key
/// serves one shard per window and loses no time to handshakes.
#[derive(Debug)]
pub struct IdentifyLimiter<S = ShardId> {
    window: Duration,
    keys: Vec<Key<S>>,
    waiting: usize,
    budget: IdentifyBudget,
}

#[derive(Debug)]
struct Key<S> {
    /// When the window of the last Identify ends, counted from when the Identify was written (GW-172).
    free_at: Option<Instant>,
    /// The shards that hold an unspent permit: at most one, unless several keys were merged.
    granted: BTreeSet<S>,
    /// All other shards of the key, in the order of service.
    queue: BTreeMap<(Priority, S), Place>,
}

impl<S> Key<S> {
    const fn new(free_at: Option<Instant>) -> Self {
        Self { free_at, granted: BTreeSet::new(), queue: BTreeMap::new() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Connecting { since: Instant },
    AtHello,
}

impl<S: Copy + Ord + Into<ShardId>> IdentifyLimiter<S> {
    /// Creates a limiter for `max_concurrency` keys, with at least `window` between two Identifies of one
    /// key.
    pub fn new(max_concurrency: u32, window: Duration, budget: IdentifyBudget) -> Self {
        let keys = (0..max_concurrency.max(1)).map(|_| Key::new(None)).collect();
        Self { window: window.min(LONGEST_WAIT), keys, waiting: 0, budget }
    }

    /// The key of a shard. The number of shards does not matter, because all generations share the keys
    /// (GW-174).
    pub fn key_of(&self, shard: S) -> u32 {
        // The remainder of a division of two `u32` fits into a `u32`.
        shard.into().0 % self.keys.len() as u32
    }

    fn key(&mut self, shard: S) -> &mut Key<S> {
        let key = self.key_of(shard) as usize;
        &mut self.keys[key]
    }

    /// Adds the shard to the queue. A shard that asks again keeps its place. While it holds a permit it gets
    /// no second one.
    pub fn join(&mut self, shard: S, priority: Priority) {
        let key = self.key(shard);
        if key.queue.keys().any(|(_, queued)| *queued == shard) {
            return;
        }
        key.queue.insert((priority, shard), Place::Waiting);
        self.waiting += 1;
    }

    /// Records that the shard received Hello and waits for the permit. Joins the queue if the shard has not.
    pub fn claim(&mut self, shard: S, priority: Priority) {
        self.join(shard, priority);
        let place = self.key(shard).queue.iter_mut().find(|((_, queued), _)| *queued == shard);
        if let Some((_, place)) = place {
            *place = Place::AtHello;
        }
    }

    /// Records that the connection of the shard begins only at `at`, for example because connections are
    /// paced. The limiter then waits for the shard one window longer than that (GW-171: shards start in the
    /// order of their ids).
    pub fn connects_at(&mut self, shard: S, at: Instant) {
        let mut places = self.key(shard).queue.iter_mut();
        if let Some((_, Place::Connecting { since })) = places.find(|((_, queued), _)| *queued == shard) {
            *since = at.max(*since);
        }
    }

    /// Removes the shard. A permit that it held and did not spend is free again (GW-173).
    pub fn leave(&mut self, shard: S) {
        self.withdraw(shard);
        self.give_back(shard);
    }

    /// Takes back the permit that the shard held and did not spend; the permit is free again (GW-173).
    pub fn give_back(&mut self, shard: S) {
        self.key(shard).granted.remove(&shard);
    }

    /// Removes the shard from the queue. A permit that it holds stays issued.
    pub fn withdraw(&mut self, shard: S) {
        let key = self.key(shard);
        let before = key.queue.len();
        key.queue.retain(|(_, queued), _| *queued != shard);
        let left = before - key.queue.len();
        self.waiting -= left;
    }

    /// Counts a permit that an earlier limiter issued to this shard and that may still be spent.
    pub fn hold(&mut self, shard: S) {
        self.key(shard).granted.insert(shard);
    }

    /// Whether the shard holds a permit that is neither spent nor given back.
    pub fn holds_permit(&self, shard: S) -> bool {
        self.keys[self.key_of(shard) as usize].granted.contains(&shard)
    }

    /// Records that the shard wrote its Identify at `at`. Call this also when the shard may have written it.
    /// If the shard already waits for another Identify, it keeps its place.
    pub fn sent(&mut self, shard: S, at: Instant) {
        self.give_back(shard);
        let window = self.window;
        let key = self.key(shard);
        let free_at = at + window;
        key.free_at = Some(key.free_at.map_or(free_at, |before| before.max(free_at)));
        self.budget.spend(at);
    }

    /// Returns the next grant that is allowed now. Call this method until it returns `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Grant<S>> {
        if self.waiting == 0 || self.budget.free_at(now) > now {
            return None;
        }
        let affordable = self.budget.affords(now, self.out());
        let plenty = self.has_plenty(now);
        for key in &mut self.keys {
            if affordable && let Some(shard) = key.grant(now, plenty) {
                self.waiting -= 1;
                return Some(Grant::Identify(shard, IdentifyPermit::issue()));
            }
            if let Some(shard) = key.call_up(now, self.window, plenty) {
                return Some(Grant::Connect(shard));
            }
        }
        None
    }

    /// The number of permits that are issued and not yet spent.
    fn out(&self) -> usize {
        self.keys.iter().map(|key| key.granted.len()).sum()
    }

    /// Whether the budget suffices for more than the shards that have yet to start. A shard that repeatedly
    /// loses its session must not use what they need.
    fn has_plenty(&mut self, now: Instant) -> bool {
        let starting = self.keys.iter().flat_map(|key| key.queue.keys());
        let starting = starting.filter(|(priority, _)| *priority == Priority::ColdStart).count();
        self.budget.affords(now, self.out() + starting)
    }

    /// When to call [`poll`](Self::poll) again if nothing happens before; `None` if there is nothing to wait
    /// for. `now` must be the time of the last `poll`: with a later time, anything that became free in
    /// between would be missed.
    pub fn wakes_at(&mut self, now: Instant) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let budget = self.budget.free_at(now);
        if budget > now {
            return Some(budget);
        }
        // Shards that leave the rest of the budget to others are served after its reset.
        let reset = (!self.has_plenty(now)).then(|| self.budget.resets_at(now));
        let keys = self.keys.iter().flat_map(|key| key.wake_times(self.window));
        keys.chain(reset).filter(|at| *at > now).min()
    }

    /// Applies a new answer of `GET /gateway/bot`: the budget, and the number of keys (GW-177). When that
    /// number changes, every waiting shard moves to its new key, and each new key stays closed as long as any
    /// old key would have been.
    pub fn update(&mut self, now: Instant, max_concurrency: u32, budget: IdentifyBudget) {
        self.budget.reconcile(now, budget);
        let count = max_concurrency.max(1) as usize;
        if count == self.keys.len() {
            return;
        }
        let free_at = self.keys.iter().filter_map(|key| key.free_at).max();
        let old = std::mem::replace(&mut self.keys, (0..count).map(|_| Key::new(free_at)).collect());
        for key in old {
            for shard in key.granted {
                self.key(shard).granted.insert(shard);
            }
            for (place, state) in key.queue {
                self.key(place.1).queue.insert(place, state);
            }
        }
    }

    /// Closes every key for one window starting at `at`. Used by a new limiter when an earlier one may have
    /// sent an Identify on an unknown key.
    pub fn hold_all(&mut self, at: Instant) {
        for key in &mut self.keys {
            key.free_at = Some(at + self.window);
        }
    }

    /// The number of shards that wait for a permit.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Replaces the budget. Used when another process counts the Identifies.
    pub const fn set_budget(&mut self, budget: IdentifyBudget) {
        self.budget = budget;
    }

    /// The current budget.
    pub const fn budget(&self) -> &IdentifyBudget {
        &self.budget
    }
}

impl<S: Copy + Ord> Key<S> {
    fn grant(&mut self, now: Instant, plenty: bool) -> Option<S> {
        if !self.granted.is_empty() || self.free_at.is_some_and(|at| at > now) {
            return None;
        }
        let (place, _) = self.served(plenty).find(|(_, state)| *state == Place::AtHello)?;
        self.queue.remove(&place);
        self.granted.insert(place.1);
        Some(place.1)
    }

    /// The shards to serve, in order. Without `plenty`, shards that lost their session are left out, because
    /// the rest of the budget belongs to shards that have yet to start.
    fn served(&self, plenty: bool) -> impl Iterator<Item = ((Priority, S), Place)> {
        let may = move |priority| plenty || priority != Priority::LostSession;
        let queue = self.queue.iter().map(|(place, state)| (*place, *state));
        queue.filter(move |((priority, _), _)| may(*priority))
    }

    /// Lets the first waiting shard connect, unless a shard of the same or a better priority is already
    /// connecting or at Hello. The limiter stops waiting for a shard that has been connecting for a whole
    /// window, counted from when its connection begins.
    fn call_up(&mut self, now: Instant, window: Duration, plenty: bool) -> Option<S> {
        let (first, _) = self.served(plenty).find(|(_, state)| *state == Place::Waiting)?;
        let ahead = self.served(plenty).any(|((priority, _), state)| {
            priority <= first.0
                && match state {
                    Place::Waiting => false,
                    Place::AtHello => true,
                    Place::Connecting { since } => now.saturating_duration_since(since) < window,
                }
        });
        if ahead {
            return None;
        }
        self.queue.insert(first, Place::Connecting { since: now });
        Some(first.1)
    }

    fn wake_times(&self, window: Duration) -> impl Iterator<Item = Instant> {
        let overdue = self.queue.values().filter_map(move |state| match state {
            Place::Connecting { since } => Some(*since + window),
            Place::Waiting | Place::AtHello => None,
        });
        overdue.chain(self.free_at.filter(|_| !self.queue.is_empty()))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    fn budget(now: Instant, remaining: u32) -> IdentifyBudget {
        IdentifyBudget::new(now, 1000, remaining, Duration::from_secs(3600), 0)
    }

    /// Runs a complete start of shards that connect within 100 ms. Returns the time in ms and the shard of
    /// each Identify.
    fn start(shards: u32, max_concurrency: u32) -> Vec<(u64, u32)> {
        let begin = Instant::now();
        let mut now = begin;
        let mut limiter = IdentifyLimiter::new(max_concurrency, WINDOW, budget(now, 1000));
        // The shards join in the worst order.
        for shard in (0..shards).rev() {
            limiter.join(ShardId(shard), Priority::ColdStart);
        }
        let mut connecting: Vec<(Instant, ShardId)> = Vec::new();
        let mut plan = Vec::new();
        while plan.len() < shards as usize {
            while let Some(grant) = limiter.poll(now) {
                match grant {
                    Grant::Connect(shard) => connecting.push((now + Duration::from_millis(100), shard)),
                    Grant::Identify(shard, _permit) => {
                        limiter.sent(shard, now);
                        plan.push(((now - begin).as_millis() as u64, shard.0));
                    }
                }
            }
            let hello = connecting.iter().map(|(at, _)| *at).min();
            let Some(next) = hello.into_iter().chain(limiter.wakes_at(now)).min() else { break };
            now = next;
            connecting.retain(|(at, shard)| {
                if *at <= now {
                    limiter.claim(*shard, Priority::ColdStart);
                }
                *at > now
            });
        }
        plan
    }

    #[test]
    fn gw_170_171_shards_start_by_key_and_in_order() {
        for (shards, max_concurrency, last_window) in
            [(1, 1, 0), (5, 2, 10), (16, 16, 0), (17, 16, 5), (32, 16, 5), (64, 1, 315)]
        {
            let plan = start(shards, max_concurrency);
            assert_eq!(plan.len(), shards as usize);
            let mut by_id = plan.clone();
            by_id.sort_by_key(|(_, shard)| *shard);
            for (at, shard) in by_id {
                // GW-176: a key is free again after 5 s; nobody waits for READY.
                let expected = u64::from(shard / max_concurrency) * 5000 + 100;
                assert_eq!(at, expected, "shard {shard} of {shards} with {max_concurrency}");
            }
            assert_eq!(plan.last().unwrap().0, last_window * 1000 + 100);
        }
    }

    #[test]
    fn gw_173_an_unspent_permit_is_free_at_once() {
        let now = Instant::now();
        let mut limiter = IdentifyLimiter::new(1, WINDOW, budget(now, 1000));
        limiter.claim(ShardId(0), Priority::ColdStart);
        limiter.claim(ShardId(1), Priority::ColdStart);
        assert!(matches!(limiter.poll(now), Some(Grant::Identify(ShardId(0), _))));
        assert!(limiter.poll(now).is_none(), "one permit per key");
        limiter.leave(ShardId(0));
        assert!(matches!(limiter.poll(now), Some(Grant::Identify(ShardId(1), _))));
        limiter.sent(ShardId(1), now);
        // GW-169: each Identify sent takes one off `remaining`.
        assert_eq!(limiter.budget().remaining(), 999);
    }

    #[test]
    fn a_shard_that_lost_its_session_goes_before_cold_starts() {
        let now = Instant::now();
        let mut limiter = IdentifyLimiter::new(1, WINDOW, budget(now, 1000));
        for shard in 0..3 {
            limiter.join(ShardId(shard), Priority::ColdStart);
        }
        assert!(matches!(limiter.poll(now), Some(Grant::Connect(ShardId(0)))));
        limiter.claim(ShardId(0), Priority::ColdStart);
        limiter.join(ShardId(9), Priority::LostSession);
        // The shard at Hello is served at once, since no better one has its Hello yet; the lost shard is
        // called up meanwhile.
        assert!(matches!(limiter.poll(now), Some(Grant::Identify(ShardId(0), _))));
        limiter.sent(ShardId(0), now);
        assert!(matches!(limiter.poll(now), Some(Grant::Connect(ShardId(9)))));
        assert!(limiter.poll(now).is_none());
        limiter.claim(ShardId(1), Priority::ColdStart);
        limiter.claim(ShardId(9), Priority::LostSession);
        assert_eq!(limiter.wakes_at(now), Some(now + WINDOW));
        assert!(matches!(limiter.poll(now + WINDOW), Some(Grant::Identify(ShardId(9), _))));
    }

    #[test]
    fn a_shard_that_hangs_on_the_way_is_passed_after_one_window() {
        let now = Instant::now();
        let mut limiter = IdentifyLimiter::new(1, WINDOW, budget(now, 1000));
        limiter.join(ShardId(0), Priority::ColdStart);
        limiter.join(ShardId(1), Priority::ColdStart);
        assert!(matches!(limiter.poll(now), Some(Grant::Connect(ShardId(0)))));
        assert!(limiter.poll(now).is_none());
        assert_eq!(limiter.wakes_at(now), Some(now + WINDOW));
        assert!(matches!(limiter.poll(now + WINDOW), Some(Grant::Connect(ShardId(1)))));
    }

    #[test]
    fn gw_171_a_shard_whose_connection_is_delayed_is_passed_one_window_after_it_begins() {
        let now = Instant::now();
        let begins = now + WINDOW * 3;
        let mut limiter = IdentifyLimiter::new(1, WINDOW, budget(now, 1000));
        limiter.join(ShardId(0), Priority::ColdStart);
        limiter.join(ShardId(1), Priority::ColdStart);
        assert!(matches!(limiter.poll(now), Some(Grant::Connect(ShardId(0)))));
        limiter.connects_at(ShardId(0), begins);
        assert_eq!(limiter.wakes_at(now), Some(begins + WINDOW));
        assert!(limiter.poll(begins + WINDOW / 2).is_none(), "it may still come");
        assert!(matches!(limiter.poll(begins + WINDOW), Some(Grant::Connect(ShardId(1)))));
        // No effect on a shard that does not connect.
        limiter.claim(ShardId(0), Priority::ColdStart);
        limiter.connects_at(ShardId(0), begins + WINDOW * 9);
        assert!(matches!(limiter.poll(begins + WINDOW), Some(Grant::Identify(ShardId(0), _))));
    }

    #[test]
    fn gw_169_an_answer_does_not_give_back_what_was_spent_while_it_was_under_way() {
        let now = Instant::now();
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let answer =
            |at, total, remaining, reset_after| IdentifyBudget::new(at, total, remaining, reset_after, 10);
        let ours = || {
            let mut budget = answer(now, 1000, 20, hour);
            (0..10).for_each(|_| budget.spend(now));
            budget
        };
        let after = |answer| {
            let mut budget = ours();
            budget.reconcile(now, answer);
            budget.remaining()
        };
        assert_eq!(after(answer(now + minute / 4, 1000, 20, hour)), 10, "computed before");
        assert_eq!(after(answer(now, 1000, 5, hour)), 5, "somebody else spends too");
        assert_eq!(after(answer(now, 2000, 1500, hour)), 1500, "the bot has grown");
        assert_eq!(after(answer(now, 1000, 990, hour * 23)), 990, "another period");
        assert_eq!(after(answer(now, 1000, 1000, Duration::ZERO)), 1000, "none has begun");
        let mut budget = ours();
        budget.reconcile(now + hour, answer(now + hour, 1000, 700, hour));
        assert_eq!(budget.remaining(), 700, "ours is over");
    }

    #[test]
    fn gw_168_nothing_is_granted_below_the_floor_until_the_reset() {
        let now = Instant::now();
        let reset = Duration::from_secs(100);
        let budget = IdentifyBudget::new(now, 1000, 12, reset, 10);
        let mut limiter = IdentifyLimiter::new(16, WINDOW, budget);
        for shard in 0..4 {
            limiter.claim(ShardId(shard), Priority::ColdStart);
        }
        let mut granted = Vec::new();
        while let Some(grant) = limiter.poll(now) {
            if let Grant::Identify(shard, _) = grant {
                granted.push(shard);
            }
        }
        assert_eq!(granted, [ShardId(0), ShardId(1)], "permits that are out count as spent");
        for shard in granted {
            limiter.sent(shard, now);
        }
        assert_eq!(limiter.budget().remaining(), 10);
        // GW-166: no Identify beyond the daily limit, which is full again at the reset.
        assert!(limiter.poll(now).is_none());
        assert_eq!(limiter.wakes_at(now), Some(now + reset));
        assert!(matches!(limiter.poll(now + reset), Some(Grant::Identify(ShardId(2), _))));
        assert_eq!(limiter.budget().remaining(), 1000);
    }

    #[test]
    fn gw_008_166_a_period_begins_with_its_first_identify() {
        let begin = Instant::now();
        let hours = |hours: u64| begin + Duration::from_secs(hours * 3600);
        let mut budget = IdentifyBudget::new(begin, 1000, 1000, Duration::ZERO, 10);
        for _ in 0..990 {
            budget.spend(hours(20));
        }
        assert_eq!(budget.free_at(hours(24)), hours(44), "not a day after the start");
        assert_eq!(budget.free_at(hours(44)), hours(44));
        assert_eq!(budget.remaining(), 1000);
        // So does each later period.
        for _ in 0..990 {
            budget.spend(hours(60));
        }
        assert_eq!(budget.free_at(hours(70)), hours(84));
    }

    #[test]
    fn gw_177_waiting_shards_move_to_their_new_keys() {
        let now = Instant::now();
        let mut limiter = IdentifyLimiter::new(1, WINDOW, budget(now, 1000));
        for shard in 0..3 {
            limiter.claim(ShardId(shard), Priority::ColdStart);
        }
        assert!(matches!(limiter.poll(now), Some(Grant::Identify(ShardId(0), _))));
        limiter.sent(ShardId(0), now);
        limiter.update(now, 16, budget(now, 1000));
        assert!(limiter.poll(now).is_none(), "the window that runs is kept");
        let later = now + WINDOW;
        assert!(matches!(limiter.poll(later), Some(Grant::Identify(ShardId(1), _))));
        assert!(matches!(limiter.poll(later), Some(Grant::Identify(ShardId(2), _))));
    }

    #[test]
    fn gw_166_what_the_others_need_to_start_is_not_spent_by_a_shard_that_starts_again() {
        let now = Instant::now();
        let budget = IdentifyBudget::new(now, 1000, 13, Duration::from_secs(3600), 10);
        let mut limiter = IdentifyLimiter::new(16, Duration::from_secs(5), budget);
        limiter.claim(ShardId(0), Priority::LostSession);
        for shard in 1..4 {
            limiter.claim(ShardId(shard), Priority::ColdStart);
        }
        let mut granted = Vec::new();
        while let Some(Grant::Identify(shard, _permit)) = limiter.poll(now) {
            limiter.sent(shard, now);
            granted.push(shard.0);
        }
        assert_eq!(granted, [1, 2, 3]);
    }

    #[test]
    fn a_shard_that_must_leave_the_budget_to_the_others_does_not_stand_in_their_way() {
        let now = Instant::now();
        let budget = IdentifyBudget::new(now, 1000, 11, Duration::from_secs(3600), 10);
        for at_hello in [true, false] {
            let mut limiter = IdentifyLimiter::new(1, WINDOW, budget);
            limiter.join(ShardId(0), Priority::LostSession);
            if at_hello {
                limiter.claim(ShardId(0), Priority::LostSession);
            }
            limiter.join(ShardId(1), Priority::ColdStart);
            assert!(matches!(limiter.poll(now), Some(Grant::Connect(ShardId(1)))), "at Hello: {at_hello}");
            limiter.claim(ShardId(1), Priority::ColdStart);
            assert!(matches!(limiter.poll(now), Some(Grant::Identify(ShardId(1), _))));
        }
    }

    #[test]
    fn gw_174_two_generations_share_the_keys() {
        /// A shard of one of two layouts: first its id, then the generation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        struct Of(u32, u32);

        impl From<Of> for ShardId {
            fn from(Of(id, _): Of) -> Self {
                Self(id)
            }
        }

        let mut now = Instant::now();
        let mut limiter = IdentifyLimiter::new(2, WINDOW, budget(now, 1000));
        for shard in [Of(3, 2), Of(1, 2), Of(1, 1)] {
            limiter.claim(shard, Priority::Reshard);
        }
        // Of the same urgency: by id, then by generation. All three have key 1.
        for shard in [Of(1, 1), Of(1, 2), Of(3, 2)] {
            assert!(matches!(limiter.poll(now), Some(Grant::Identify(granted, _)) if granted == shard));
            limiter.sent(shard, now);
            assert!(limiter.poll(now).is_none());
            now += WINDOW;
        }
    }

    #[test]
    fn gw_166_a_shard_that_leaves_the_budget_to_one_that_hangs_is_woken_at_the_reset() {
        let now = Instant::now();
        let reset = Duration::from_secs(3600);
        let mut limiter = IdentifyLimiter::new(1, WINDOW, IdentifyBudget::new(now, 1000, 11, reset, 10));
        limiter.join(ShardId(1), Priority::ColdStart);
        assert!(matches!(limiter.poll(now), Some(Grant::Connect(ShardId(1)))));
        limiter.claim(ShardId(0), Priority::LostSession);
        // The shard that starts never receives Hello.
        let later = now + WINDOW;
        assert!(limiter.poll(later).is_none());
        assert_eq!(limiter.wakes_at(later), Some(now + reset));
        assert!(matches!(limiter.poll(now + reset), Some(Grant::Identify(ShardId(0), _))));
    }

    #[test]
    fn gw_177_a_permit_that_is_out_shuts_its_new_key_too() {
        let now = Instant::now();
        let mut limiter = IdentifyLimiter::new(2, WINDOW, budget(now, 1000));
        (0..3).for_each(|shard| limiter.claim(ShardId(shard), Priority::ColdStart));
        for _ in 0..2 {
            assert!(matches!(limiter.poll(now), Some(Grant::Identify(ShardId(0 | 1), _))));
        }
        limiter.update(now, 1, budget(now, 1000));
        assert!(limiter.holds_permit(ShardId(0)) && limiter.holds_permit(ShardId(1)));
        limiter.sent(ShardId(0), now);
        let later = now + WINDOW;
        assert!(limiter.poll(later).is_none(), "the other one may still be spent");
        limiter.leave(ShardId(1));
        assert!(matches!(limiter.poll(later), Some(Grant::Identify(ShardId(2), _))));
    }
}
