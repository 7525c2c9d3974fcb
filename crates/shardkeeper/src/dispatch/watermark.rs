//! Tracks how far the lossless subscriptions of a shard have acknowledged its dispatches.
//!
//! Input: which dispatches went to which subscriptions, and their acknowledgements. Output: the watermark,
//! the highest sequence number up to which every acknowledgement has been given. A session that leaves the
//! process is handed over with the watermark as its sequence number, so the next process receives every
//! unacknowledged event again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::label::WatermarkStuck;
use super::label::{SubscriptionLabel, Tag};
use crate::layout::ShardKey;

/// Time without progress after which a watermark is reported as stuck. 60 s: nearly every handler is done by
/// then, and Discord can still replay the events since then.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Number of entries from which settled dispatches behind an open one are merged, once they are half of all.
const MERGE_FROM: usize = 32;
/// Capacity from which the queue gives memory back.
const SHRINK_FROM: usize = 1024;

/// The watermark of one shard. Its driver adds dispatches, subscribers acknowledge, the manager reads.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    acknowledged: AtomicU64,
    /// Whether any acknowledgement is open. If not, a dispatch that nobody wants takes no lock.
    is_open: AtomicBool,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Dispatches with open acknowledgements, in order, and at most as many settled ones. Each entry also
    /// covers the dispatches up to the next entry.
    open: VecDeque<Open>,
    /// Number of settled entries.
    settled: usize,
    /// Number of the next entry. Numbers continue over sessions, so a late acknowledgement never matches a
    /// new dispatch.
    next: u64,
    /// Subscriptions that can owe acknowledgements. Their positions are the bits of [`Open::holders`].
    holders: Vec<(Weak<AckHolder>, Arc<Tag>)>,
    /// Subscription that abandoned a dispatch first, as long as the watermark is held back by it.
    abandoned_by: Option<Arc<Tag>>,
    /// Number and [bit](AckHolder::bit) of each token that has a clone, which is on its way into a subscription.
    cloned: Vec<(u64, u64)>,
    watch: Watch,
}

/// A dispatch, together with the dispatches up to the next open one.
#[derive(Debug)]
struct Open {
    number: u64,
    sequence: u64,
    /// Highest sequence number before the next entry.
    up_to: u64,
    /// Bits of those of the first 64 holders that still owe the acknowledgement.
    holders: u64,
    outstanding: u32,
    /// Whether a subscription abandoned the dispatch. It has to be delivered again, so the watermark cannot
    /// pass it.
    abandoned: bool,
}

/// The dispatch that the watermark waited for at the last check.
#[derive(Debug, Default)]
struct Watch {
    first: Option<(u64, Instant)>,
    reported: bool,
}

/// A shutdown waits for acknowledgements that cannot come, because the tasks that owe them await the
/// shutdown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeldByWaiter {
    /// When the last of these tasks began to await the shutdown.
    pub(crate) since: Instant,
    /// Subscription that owes the first of these acknowledgements.
    pub(crate) subscription: SubscriptionLabel,
}

/// Result of a check of the watermark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The watermark has waited for one dispatch for too long.
    Stuck(WatermarkStuck),
    /// The watermark moves again, after it was reported as stuck.
    Moves,
}

impl State {
    /// Returns the entry of this number; `None` when the number belongs to an earlier session.
    fn entry(&mut self, number: u64) -> Option<&mut Open> {
        let offset = usize::try_from(number.checked_sub(self.open.front()?.number)?).ok()?;
        // Usually no entry in front of it was merged, so its offset is its position.
        let place = match self.open.get(offset) {
            Some(entry) if entry.number == number => offset,
            _ => self.open.binary_search_by_key(&number, |entry| entry.number).ok()?,
        };
        self.open.get_mut(place)
    }

    /// Notes that one subscription no longer owes an acknowledgement for this dispatch. `false` when it did
    /// not owe one.
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

    /// Removes the settled entries in front of the first open one. Returns the sequence number up to which
    /// entries were removed, if there were any.
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

    /// Merges settled entries into the open entry in front of them, which holds them back. Memory is then
    /// bounded by the open entries; the cost is proportional to the acknowledgements since the last merge.
    fn merge(&mut self) {
        let (mut kept, mut blocked) = (0, false);
        for place in 0..self.open.len() {
            let Open { outstanding, abandoned, up_to, .. } = self.open[place];
            // After the first abandoned entry further abandoned entries make no difference.
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

    /// Returns the entry that the watermark waits for, and the subscription whose acknowledgement is missing.
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

    /// Registers a subscription that will owe acknowledgements.
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

    /// Starts again with another session; open acknowledgements of earlier sessions no longer count.
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

    /// Goes back to the sequence number from which the session is resumed: later dispatches are replayed, and
    /// have to be acknowledged again. A crash in the middle of publishing drops deliveries that no
    /// subscription has received, which is not an acknowledgement.
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

    /// Notes a dispatch that no subscription has to acknowledge.
    pub(super) fn pass(&self, sequence: u64) {
        // Only the driver opens entries, and this call is the driver's, so the flag cannot become true
        // meanwhile.
        if self.is_open.load(Ordering::Acquire)
            && let Some(last) = self.state().open.back_mut()
        {
            last.up_to = last.up_to.max(sequence);
            return;
        }
        self.acknowledged.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Notes a dispatch that `outstanding` subscriptions (at least one) with these [bits](AckHolder::bit) have to
    /// acknowledge. Each must receive an [`AckToken`] with the returned number.
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

    /// Whether a resume from the watermark replays the dispatch of this number.
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

    /// Returns the highest sequence number that every lossless subscription has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until no acknowledgement is open. Abandoned dispatches are not waited for.
    ///
    /// # Cancel safety
    ///
    /// Safe: waiting changes nothing.
    pub(crate) async fn settled(&self) {
        loop {
            let notified = self.settled.notified();
            if self.is_settled() {
                return;
            }
            notified.await;
        }
    }

    /// Whether no acknowledgement is open.
    pub(crate) fn is_settled(&self) -> bool {
        self.state().all_settled()
    }

    /// Detects a shutdown that would wait forever: every open acknowledgement is owed by a task that awaits
    /// the shutdown, and so cannot give it. Each of these tasks holds the delivery or will not read it.
    /// `None` when another task owes an acknowledgement, or none is open.
    pub(crate) fn held_by_waiter(&self, shard: ShardKey) -> Option<HeldByWaiter> {
        let state = self.state();
        // With 64 holders or more, they cannot be told apart.
        if state.holders.len() >= u64::BITS as usize {
            return None;
        }
        let mut held: Option<HeldByWaiter> = None;
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
                let held = held.get_or_insert_with(|| HeldByWaiter { since, subscription: tag.label() });
                held.since = held.since.max(since);
                holders &= holders - 1;
            }
        }
        held
    }

    /// Checks whether the watermark has moved since the last check. Each finding is returned once.
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

    /// Returns the dispatch that the watermark waits for, if it was reported as stuck and still is.
    pub(crate) fn stuck(&self) -> Option<WatermarkStuck> {
        let state = self.state();
        state.stuck().filter(|_| state.watch.reported)
    }

    /// Returns the dispatch that the watermark waits for now, and the subscription that owes the
    /// acknowledgement.
    pub(crate) fn waits_for(&self) -> Option<(u64, Option<SubscriptionLabel>)> {
        let state = self.state();
        state.first().map(|(first, tag)| (first.sequence, tag.map(|tag| tag.label())))
    }
}

/// A lossless subscription, as seen by the watermark of one shard.
#[derive(Debug)]
pub(super) struct AckHolder {
    watermark: Arc<Watermark>,
    tag: Arc<Tag>,
    /// Bit of this subscription in [`Open::holders`]; zero when all bits are in use.
    pub(super) bit: u64,
    /// All dispatches with a lower number have been read by the subscriber.
    read: AtomicU64,
}

/// The acknowledgement that a lossless subscription owes for one dispatch. Dropping the token acknowledges.
#[derive(Debug)]
pub(super) struct AckToken {
    holder: Arc<AckHolder>,
    number: u64,
}

/// Number of a token that was given up.
const GIVEN_UP: u64 = u64::MAX;

impl AckToken {
    pub(super) fn new(holder: &Arc<AckHolder>, number: u64) -> Self {
        Self { holder: Arc::clone(holder), number }
    }

    /// Marks the dispatch as read by the subscriber. Returns its number.
    pub(super) fn mark_read(&self) -> u64 {
        self.holder.read.fetch_max(self.number + 1, Ordering::AcqRel);
        self.number
    }

    /// Whether a resume of the session replays the dispatch. READY is sent only once, and dispatches of an
    /// earlier session are never replayed.
    pub(super) fn comes_again(&self) -> bool {
        self.holder.watermark.is_replayed(self.number)
    }

    /// Drops the token without acknowledging: a resume of the session in another process replays the
    /// dispatch.
    pub(super) fn give_up(mut self) {
        self.holder.watermark.abandon(self.number, &self.holder);
        self.number = GIVEN_UP;
    }
}

impl Clone for AckToken {
    /// A clone counts as one more acknowledgement that is owed.
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

    /// Number of entries, and number of entries for which memory is allocated.
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
    fn a_dispatch_that_had_to_wait_for_room_still_names_its_holder() {
        let watermark = Arc::new(Watermark::default());
        let holder = holder(&watermark);
        let token = tokens(&watermark, 1, &[&holder]).remove(0);
        // Each attempt to deliver an event clones its token, and the last clone replaces the original.
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
        // When nothing else is open, the dispatch was acknowledged already.
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
        // Each hundredth token stays open.
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
        // After a resume from an earlier sequence number the abandoned dispatch is replayed in this process,
        // too.
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
        // A subscription that abandons is named as well, even after it was dropped.
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
    fn more_subscriptions_than_can_be_distinguished_still_have_to_acknowledge() {
        let watermark = Arc::new(Watermark::default());
        let holders: Vec<_> = (0..100).map(|_| holder(&watermark)).collect();
        let mut tokens = tokens(&watermark, 1, &holders.iter().collect::<Vec<_>>());
        let last = tokens.pop();
        drop(tokens);
        assert_eq!(watermark.acknowledged(), 0);
        assert_eq!(watermark.waits_for(), Some((1, None)));
        drop(last);
        assert_eq!(watermark.acknowledged(), 1);
        // The bits of dropped subscriptions are used again.
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
