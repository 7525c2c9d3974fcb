//! How far the lossless subscriptions of a shard are done with its dispatches.
//!
//! Input: which dispatches went to which subscriptions, and each one's acknowledgement. Output: the watermark, the highest
//! sequence up to which nobody owes one any more. A session that leaves the process leaves with the watermark: the
//! successor gets everything again that was not dealt with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use shardkeeper_proto::ShardId;
use tokio::sync::Notify;

use super::label::WatermarkStuck;
use super::label::{SubscriptionLabel, Tag};

/// How long the watermark may stand at one dispatch before this is reported. 60 s: nearly every handler is done by then, and
/// Discord still has what came since.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// From this many on, settled dispatches behind one that is open are merged once they are half of all.
const MERGE_FROM: usize = 32;
/// From this capacity on the queue gives memory back.
const SHRINK_FROM: usize = 1024;

/// The watermark of one shard. Its driver adds, subscribers acknowledge, the manager reads.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    acknowledged: AtomicU64,
    /// Whether something is open: if not, a dispatch that nobody wants takes no lock.
    is_open: AtomicBool,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The dispatches that somebody owes an acknowledgement for, in order, and at most as many that are settled. Each stands
    /// for whatever came up to the next one.
    open: VecDeque<Open>,
    /// How many of them are settled.
    settled: usize,
    /// The number of the next one. Numbers go on over sessions, so that a late acknowledgement hits nothing new.
    next: u64,
    /// The subscriptions that acknowledge: their indices are the bits of [`Open::holders`].
    holders: Vec<(Weak<AckHolder>, Arc<Tag>)>,
    /// Whose dispatch was abandoned first, as long as the watermark cannot pass it.
    abandoned_by: Option<Arc<Tag>>,
    /// Number and [bit](AckHolder::bit) of each token that has a clone, which is on its way into a subscription.
    cloned: Vec<(u64, u64)>,
    watch: Watch,
}

/// A dispatch and what came up to the next one that is open.
#[derive(Debug)]
struct Open {
    number: u64,
    sequence: u64,
    /// The highest sequence up to the next one.
    up_to: u64,
    /// Those of the first 64 holders whose acknowledgement is outstanding.
    holders: u64,
    outstanding: u32,
    /// Somebody gave it up: it has to come again, and the watermark cannot pass it.
    abandoned: bool,
}

/// Remembers what the watermark waited for when it was last looked at.
#[derive(Debug, Default)]
struct Watch {
    first: Option<(u64, Instant)>,
    reported: bool,
}

/// What an end waits for in vain: those who owe it wait for the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeldByAsker {
    /// Since when the last of them does.
    pub(crate) since: Instant,
    /// The subscription that the first of it came from.
    pub(crate) subscription: SubscriptionLabel,
}

/// What a look at the watermark has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has stood at one dispatch for long.
    Stuck(WatermarkStuck),
    /// It moves again, which it did not when it was reported.
    Moves,
}

impl State {
    /// `None` when it belongs to an earlier session.
    fn entry(&mut self, number: u64) -> Option<&mut Open> {
        let offset = usize::try_from(number.checked_sub(self.open.front()?.number)?).ok()?;
        // Nothing in front of it was merged, mostly.
        let place = match self.open.get(offset) {
            Some(entry) if entry.number == number => offset,
            _ => self.open.binary_search_by_key(&number, |entry| entry.number).ok()?,
        };
        self.open.get_mut(place)
    }

    /// One subscription owes nothing any more for this dispatch. `false` when it did not owe anything.
    fn settle(&mut self, number: u64, holder: u64, abandoned: bool) -> bool {
        let cloned = self.cloned.iter().position(|cloned| *cloned == (number, holder));
        if let Some(place) = cloned {
            self.cloned.swap_remove(place);
        }
        let Some(entry) = self.entry(number).filter(|entry| entry.outstanding > 0) else { return false };
        entry.outstanding -= 1;
        if cloned.is_none() {
            entry.holders &= !holder;
        }
        entry.abandoned |= abandoned;
        self.settled += usize::from(entry.outstanding == 0);
        true
    }

    /// Forgets the settled dispatches up to the first one that is open. Returns how far that is, if anything was forgotten.
    fn pass_settled(&mut self) -> Option<u64> {
        let mut passed = None;
        while let Some(first) = self.open.front().filter(|entry| entry.outstanding == 0 && !entry.abandoned) {
            passed = Some(first.up_to);
            self.open.pop_front();
            self.settled -= 1;
        }
        if self.settled >= MERGE_FROM && self.settled * 2 > self.open.len() {
            self.merge();
        }
        if self.open.capacity() > SHRINK_FROM && self.open.len() < self.open.capacity() / 8 {
            self.open.shrink_to(self.open.len() * 2);
        }
        passed
    }

    /// Adds what is settled to what is open in front of it, which holds it back. The memory is that of the open ones; the cost
    /// is that of as many acknowledgements as there were since the last time.
    fn merge(&mut self) {
        let (mut kept, mut blocked) = (0, false);
        for place in 0..self.open.len() {
            let Open { outstanding, abandoned, up_to, .. } = self.open[place];
            // Beyond the first that was abandoned the others say nothing.
            if kept > 0 && outstanding == 0 && (blocked || !abandoned) {
                let before = &mut self.open[kept - 1];
                before.up_to = before.up_to.max(up_to);
                self.settled -= 1;
            } else {
                blocked |= abandoned;
                self.open.swap(kept, place);
                kept += 1;
            }
        }
        self.open.truncate(kept);
    }

    fn all_settled(&self) -> bool {
        self.settled == self.open.len()
    }

    /// The dispatch that the watermark waits for, and whose acknowledgement is missing.
    fn first(&self) -> Option<(&Open, Option<&Arc<Tag>>)> {
        let first = self.open.front()?;
        let holder = self.holders.get(first.holders.trailing_zeros() as usize).map(|(_, tag)| tag);
        Some((first, holder.or(self.abandoned_by.as_ref())))
    }

    fn stuck(&self) -> Option<WatermarkStuck> {
        let (first, tag) = self.first()?;
        let (number, since) = self.watch.first?;
        let subscription = tag.map(|tag| tag.label());
        (number == first.number).then_some(WatermarkStuck { sequence: first.sequence, since, subscription })
    }
}

impl Watermark {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscription that will owe acknowledgements.
    pub(super) fn enroll(self: &Arc<Self>, tag: &Arc<Tag>) -> Arc<AckHolder> {
        let mut state = self.state();
        let free = state.holders.iter().position(|(holder, _)| holder.strong_count() == 0);
        let place = free.unwrap_or(state.holders.len());
        let bit = u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or_default();
        let holder = Arc::new(AckHolder {
            watermark: Arc::clone(self),
            tag: Arc::clone(tag),
            bit,
            read: AtomicU64::new(0),
        });
        let entry = (Arc::downgrade(&holder), Arc::clone(tag));
        match state.holders.get_mut(place) {
            Some(free) => *free = entry,
            None if bit != 0 => state.holders.push(entry),
            None => {}
        }
        holder
    }

    /// Another session begins, or the first: nothing of an earlier one counts any more.
    pub(crate) fn restart(&self, sequence: u64) {
        let mut state = self.state();
        state.open.clear();
        state.settled = 0;
        state.abandoned_by = None;
        self.is_open.store(false, Ordering::Release);
        self.acknowledged.store(sequence, Ordering::Release);
        drop(state);
        self.settled.notify_waiters();
    }

    /// The session is resumed from here: what came behind it comes again, and is owed anew. A crash in the middle of publishing
    /// drops deliveries that no subscription has, and that is no acknowledgement.
    pub(crate) fn rewind(&self, sequence: u64) {
        let mut state = self.state();
        let mut newly_settled = 0;
        for entry in &mut state.open {
            if entry.sequence > sequence {
                newly_settled += usize::from(entry.outstanding > 0);
                (entry.outstanding, entry.holders, entry.abandoned) = (0, 0, false);
            }
            entry.up_to = entry.up_to.min(sequence);
        }
        state.settled += newly_settled;
        if !state.open.iter().any(|entry| entry.abandoned) {
            state.abandoned_by = None;
        }
        self.acknowledged.fetch_min(sequence, Ordering::AcqRel);
        self.forget_settled(state);
    }

    /// A dispatch has come that nobody owes anything for.
    pub(super) fn pass(&self, sequence: u64) {
        // Only the driver opens something, and it is here.
        if self.is_open.load(Ordering::Acquire)
            && let Some(last) = self.state().open.back_mut()
        {
            last.up_to = last.up_to.max(sequence);
            return;
        }
        self.acknowledged.fetch_max(sequence, Ordering::AcqRel);
    }

    /// A dispatch goes to this many subscriptions, at least one, whose [bits](AckHolder::bit) these are. Each is to get an [`AckToken`]
    /// of the number that is returned.
    pub(super) fn expect(&self, sequence: u64, outstanding: u32, holders: u64) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.open.push_back(Open {
            number,
            sequence,
            up_to: sequence,
            holders,
            outstanding,
            abandoned: false,
        });
        self.is_open.store(true, Ordering::Release);
        number
    }

    /// Whether a resume from the watermark brings the dispatch of this number again.
    fn is_replayed(&self, number: u64) -> bool {
        let acknowledged = self.acknowledged();
        self.state().entry(number).is_some_and(|entry| entry.sequence > acknowledged)
    }

    fn expect_another(&self, number: u64, holder: u64) {
        let mut state = self.state();
        state.cloned.push((number, holder));
        if let Some(entry) = state.entry(number) {
            let was_settled = entry.outstanding == 0;
            entry.outstanding += 1;
            entry.holders |= holder;
            state.settled -= usize::from(was_settled);
        }
    }

    fn acknowledge(&self, number: u64, holder: u64) {
        let mut state = self.state();
        state.settle(number, holder, false);
        self.forget_settled(state);
    }

    fn abandon(&self, number: u64, holder: &AckHolder) {
        let mut state = self.state();
        if state.settle(number, holder.bit, true) && state.abandoned_by.is_none() {
            state.abandoned_by = Some(Arc::clone(&holder.tag));
        }
        self.forget_settled(state);
    }

    fn forget_settled(&self, mut state: MutexGuard<'_, State>) {
        if let Some(passed) = state.pass_settled() {
            self.acknowledged.fetch_max(passed, Ordering::AcqRel);
        }
        self.is_open.store(!state.open.is_empty(), Ordering::Release);
        let settled = state.all_settled();
        drop(state);
        if settled {
            self.settled.notify_waiters();
        }
    }

    /// The highest sequence up to which every lossless subscription is done.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until nobody owes anything. What was abandoned is not waited for.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only waits.
    pub(crate) async fn settled(&self) {
        loop {
            let notified = self.settled.notified();
            if self.is_settled() {
                return;
            }
            notified.await;
        }
    }

    /// Whether nobody owes anything.
    pub(crate) fn is_settled(&self) -> bool {
        self.state().all_settled()
    }

    /// When every acknowledgement is outstanding from tasks that await an end, and so cannot acknowledge it: whom this end waits for.
    /// Each of them holds the delivery, or does not come to read it. `None` when somebody else owes something, or nobody does.
    pub(crate) fn held_by_asker(&self, shard: ShardId) -> Option<HeldByAsker> {
        let state = self.state();
        // Beyond this they are not told apart.
        if state.holders.len() >= u64::BITS as usize {
            return None;
        }
        let mut held: Option<HeldByAsker> = None;
        for entry in state.open.iter().filter(|entry| entry.outstanding > 0) {
            let mut holders = entry.holders;
            if holders == 0 {
                return None;
            }
            while holders != 0 {
                let (holder, tag) = state.holders.get(holders.trailing_zeros() as usize)?;
                let unread = entry.number >= holder.upgrade()?.read.load(Ordering::Acquire);
                let since = tag.hand.awaits_end_since()?;
                if !unread && !tag.hand.holds(shard, entry.number) {
                    return None;
                }
                let held = held.get_or_insert_with(|| HeldByAsker { since, subscription: tag.label() });
                held.since = held.since.max(since);
                holders &= holders - 1;
            }
        }
        held
    }

    /// Looks whether the watermark has moved since the last look. What it finds is returned once.
    pub(crate) fn look(&self, now: Instant) -> Option<Found> {
        let mut state = self.state();
        let first = state.open.front().map(|first| first.number);
        if state.watch.first.map(|(number, _)| number) != first {
            let reported = std::mem::take(&mut state.watch.reported);
            state.watch.first = first.map(|number| (number, now));
            return reported.then_some(Found::Moves);
        }
        let stuck = state.stuck()?;
        if state.watch.reported || now.saturating_duration_since(stuck.since) < STUCK_AFTER {
            return None;
        }
        state.watch.reported = true;
        Some(Found::Stuck(stuck))
    }

    /// The dispatch that the watermark waits for, if that was reported as stuck and still is.
    pub(crate) fn stuck(&self) -> Option<WatermarkStuck> {
        let state = self.state();
        state.stuck().filter(|_| state.watch.reported)
    }

    /// Whose acknowledgement the watermark waits for now, and of which dispatch.
    pub(crate) fn waits_for(&self) -> Option<(u64, Option<SubscriptionLabel>)> {
        let state = self.state();
        state.first().map(|(first, tag)| (first.sequence, tag.map(|tag| tag.label())))
    }
}

/// One lossless subscription of one shard.
#[derive(Debug)]
pub(super) struct AckHolder {
    watermark: Arc<Watermark>,
    tag: Arc<Tag>,
    /// Zero when there are too many.
    pub(super) bit: u64,
    /// What is owed for dispatches of lower numbers was read.
    read: AtomicU64,
}

/// What a lossless subscription owes for one dispatch. Dropping it acknowledges.
#[derive(Debug)]
pub(super) struct AckToken {
    holder: Arc<AckHolder>,
    number: u64,
}

/// The number of a token that was given up.
const GIVEN_UP: u64 = u64::MAX;

impl AckToken {
    pub(super) fn new(holder: &Arc<AckHolder>, number: u64) -> Self {
        Self { holder: Arc::clone(holder), number }
    }

    /// A reader has it from now on. Returns its number.
    pub(super) fn mark_read(&self) -> u64 {
        self.holder.read.fetch_max(self.number + 1, Ordering::AcqRel);
        self.number
    }

    /// Whether whoever resumes the session gets the dispatch again. READY comes once, and what belongs to an earlier session
    /// never does.
    pub(super) fn comes_again(&self) -> bool {
        self.holder.watermark.is_replayed(self.number)
    }

    /// Drops it, and acknowledges nothing: the dispatch comes again to whoever resumes the session.
    pub(super) fn give_up(mut self) {
        self.holder.watermark.abandon(self.number, &self.holder);
        self.number = GIVEN_UP;
    }
}

impl Clone for AckToken {
    /// One more acknowledgement is owed.
    fn clone(&self) -> Self {
        self.holder.watermark.expect_another(self.number, self.holder.bit);
        Self { holder: Arc::clone(&self.holder), number: self.number }
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if self.number != GIVEN_UP {
            self.holder.watermark.acknowledge(self.number, self.holder.bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holder(watermark: &Arc<Watermark>) -> Arc<AckHolder> {
        watermark.enroll(&Arc::new(Tag::new(std::panic::Location::caller())))
    }

    fn tokens(watermark: &Watermark, sequence: u64, holders: &[&Arc<AckHolder>]) -> Vec<AckToken> {
        let bits = holders.iter().fold(0, |bits, holder| bits | holder.bit);
        let number = watermark.expect(sequence, u32::try_from(holders.len()).unwrap(), bits);
        holders.iter().map(|holder| AckToken::new(holder, number)).collect()
    }

    fn token(watermark: &Arc<Watermark>, sequence: u64) -> AckToken {
        tokens(watermark, sequence, &[&holder(watermark)]).remove(0)
    }

    /// How many entries there are, and for how many there is memory.
    fn size(watermark: &Watermark) -> (usize, usize) {
        let state = watermark.state();
        (state.open.len(), state.open.capacity())
    }

    #[test]
    fn it_stays_before_the_first_that_is_not_acknowledged() {
        let watermark = Arc::new(Watermark::default());
        watermark.pass(1);
        let (second, third) = (token(&watermark, 2), token(&watermark, 3));
        watermark.pass(4);
        drop(third);
        assert_eq!(watermark.acknowledged(), 1);
        drop(second);
        assert_eq!(watermark.acknowledged(), 4);
    }

    #[test]
    fn what_is_abandoned_outlives_the_merging_of_what_is_settled() {
        let watermark = Arc::new(Watermark::default());
        let first = token(&watermark, 1);
        token(&watermark, 2).give_up();
        for sequence in 3..200 {
            drop(token(&watermark, sequence));
        }
        assert!(size(&watermark).0 < 2 + MERGE_FROM, "what is settled was merged");
        drop(first);
        assert_eq!(watermark.acknowledged(), 1);
    }

    #[test]
    fn every_subscription_has_to_acknowledge() {
        let watermark = Arc::new(Watermark::default());
        let mut both = tokens(&watermark, 7, &[&holder(&watermark), &holder(&watermark)]);
        drop(both.pop());
        assert_eq!(watermark.acknowledged(), 0);
        drop(both.pop());
        assert_eq!(watermark.acknowledged(), 7);
    }

    #[test]
    fn what_belongs_to_an_earlier_session_counts_no_more() {
        let watermark = Arc::new(Watermark::default());
        let old = token(&watermark, 900);
        watermark.restart(1);
        let new = token(&watermark, 2);
        drop(old);
        assert_eq!(watermark.acknowledged(), 1);
        drop(new);
        assert_eq!(watermark.acknowledged(), 2);
    }

    #[test]
    fn a_dispatch_that_had_to_wait_for_room_still_names_its_debtor() {
        let watermark = Arc::new(Watermark::default());
        let holder = holder(&watermark);
        let token = tokens(&watermark, 1, &[&holder]).remove(0);
        // Each attempt to deliver it makes a clone, and the last one replaces the original.
        drop(token.clone());
        let delivered = token.clone();
        drop(token);
        assert_eq!(watermark.waits_for(), Some((1, Some(holder.tag.label()))));
        drop(delivered);
        assert_eq!((watermark.waits_for(), watermark.acknowledged()), (None, 1));
    }

    #[tokio::test]
    async fn settled_means_that_nobody_owes_anything() {
        let watermark = Arc::new(Watermark::default());
        watermark.settled().await;
        let outstanding = token(&watermark, 1);
        let mut settled = std::pin::pin!(watermark.settled());
        assert!(futures_util::poll!(&mut settled).is_pending());
        drop(outstanding);
        settled.await;
    }

    #[test]
    fn what_a_crash_in_publishing_has_dropped_is_owed_again() {
        let watermark = Arc::new(Watermark::default());
        let (taken, untaken) = (token(&watermark, 1), token(&watermark, 2));
        drop(untaken);
        watermark.rewind(1);
        let again = token(&watermark, 2);
        drop(taken);
        assert_eq!(watermark.acknowledged(), 1);
        drop(again);
        assert_eq!(watermark.acknowledged(), 2);
        // When nothing else is open, it was acknowledged already.
        drop(token(&watermark, 3));
        watermark.rewind(2);
        assert_eq!(watermark.acknowledged(), 2);
    }

    #[test]
    fn a_million_events_behind_one_that_is_held_cost_no_memory() {
        let watermark = Arc::new(Watermark::default());
        let holder = holder(&watermark);
        let held = tokens(&watermark, 1, &[&holder]);
        for sequence in 2..=1_000_000 {
            match sequence % 3 {
                0 => watermark.pass(sequence),
                _ => drop(tokens(&watermark, sequence, &[&holder])),
            }
            let (entries, capacity) = size(&watermark);
            assert!(entries <= 2 * MERGE_FROM && capacity <= 4 * MERGE_FROM, "{entries} of {capacity}");
        }
        assert_eq!(watermark.acknowledged(), 0);
        drop(held);
        assert_eq!((watermark.acknowledged(), size(&watermark).0), (1_000_000, 0));
    }

    #[test]
    fn memory_follows_what_is_open() {
        let watermark = Arc::new(Watermark::default());
        let holder = holder(&watermark);
        let mut open: Vec<_> =
            (1..=100_000).map(|sequence| tokens(&watermark, sequence, &[&holder])).collect();
        assert!(size(&watermark).1 >= 100_000);
        // Each hundredth one stays.
        let mut number = 0;
        open.retain(|_| {
            number += 1;
            number % 100 == 1
        });
        let (entries, capacity) = size(&watermark);
        assert!(entries <= 2001 && capacity <= 16_384, "{entries} of {capacity}");
        drop(open);
        assert_eq!(watermark.acknowledged(), 100_000);
        assert!(size(&watermark).1 <= SHRINK_FROM, "{:?}", size(&watermark));
    }

    #[tokio::test]
    async fn what_is_abandoned_holds_the_watermark_and_nobody_waits_for_it() {
        let watermark = Arc::new(Watermark::default());
        let mut tokens: Vec<_> = (1..=4).map(|sequence| token(&watermark, sequence)).collect();
        tokens.remove(1).give_up();
        tokens.remove(1).give_up();
        drop(tokens);
        assert_eq!(watermark.acknowledged(), 1);
        watermark.settled().await;
        for sequence in 5..10_000 {
            token(&watermark, sequence).give_up();
            drop(token(&watermark, 10_000 + sequence));
        }
        assert!(size(&watermark).0 <= 2 * MERGE_FROM, "{:?}", size(&watermark));
        assert_eq!(watermark.acknowledged(), 1);
        // It comes again to whoever resumes before it, here too.
        watermark.rewind(1);
        drop(token(&watermark, 2));
        assert_eq!(watermark.acknowledged(), 2);
    }

    #[test]
    fn a_watermark_that_stands_still_is_reported_once_with_the_one_who_holds_it() {
        let watermark = Arc::new(Watermark::default());
        let (good, bad) = (holder(&watermark), holder(&watermark));
        bad.tag.set_name("bad".into());
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut held = tokens(&watermark, 7, &[&good, &bad]);
        assert_eq!(watermark.look(now), None);
        assert_eq!(watermark.look(after(59)), None);
        drop(held.remove(0));
        drop(tokens(&watermark, 8, &[&good, &bad]));
        assert_eq!(watermark.stuck(), None);
        let stuck = WatermarkStuck { sequence: 7, since: now, subscription: Some(bad.tag.label()) };
        assert_eq!(watermark.look(after(61)), Some(Found::Stuck(stuck.clone())));
        assert_eq!(watermark.look(after(600)), None);
        assert_eq!(watermark.stuck(), Some(stuck));
        drop(held);
        assert_eq!(watermark.stuck(), None);
        assert_eq!(watermark.look(after(601)), Some(Found::Moves));
        assert_eq!(watermark.look(after(700)), None);
        // One that abandons is named as well, also when it is gone.
        let label = bad.tag.label();
        tokens(&watermark, 9, &[&bad]).remove(0).give_up();
        drop((good, bad));
        assert_eq!(watermark.look(after(800)), None);
        let found = watermark.look(after(900));
        assert!(
            matches!(found, Some(Found::Stuck(WatermarkStuck { subscription: Some(named), .. })) if named == label)
        );
    }

    #[test]
    fn more_subscriptions_than_can_be_told_apart_still_have_to_acknowledge() {
        let watermark = Arc::new(Watermark::default());
        let holders: Vec<_> = (0..100).map(|_| holder(&watermark)).collect();
        let mut tokens = tokens(&watermark, 1, &holders.iter().collect::<Vec<_>>());
        let last = tokens.pop();
        drop(tokens);
        assert_eq!(watermark.acknowledged(), 0);
        assert_eq!(watermark.waits_for(), Some((1, None)));
        drop(last);
        assert_eq!(watermark.acknowledged(), 1);
        // The places of those who are gone are used again.
        drop(holders);
        assert_ne!(holder(&watermark).bit, 0);
    }

    proptest! {
        #[test]
        fn in_whatever_order_it_never_runs_ahead(owing in prop::collection::vec(any::<bool>(), 1..60), seed in any::<u64>()) {
            let watermark = Arc::new(Watermark::default());
            let mut open = Vec::new();
            for (sequence, owes) in (1..).zip(&owing) {
                if *owes {
                    open.push((sequence, token(&watermark, sequence)));
                } else {
                    watermark.pass(sequence);
                }
            }
            let mut random = fastrand::Rng::with_seed(seed);
            while !open.is_empty() {
                let first = open.iter().map(|(sequence, _)| *sequence).min().unwrap_or_default();
                prop_assert_eq!(watermark.acknowledged(), first - 1);
                drop(open.swap_remove(random.usize(..open.len())));
            }
            prop_assert_eq!(watermark.acknowledged(), owing.len() as u64);
        }
    }
}
