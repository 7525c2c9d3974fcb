//! How far the lossless subscriptions of a shard are done with its dispatches.
//!
//! Input: which dispatches went to how many subscriptions, and each one's acknowledgement. Output: the watermark, the
//! highest sequence up to which nobody owes one any more. A session that leaves the process leaves with the watermark: the
//! successor gets everything again that was not dealt with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

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
    /// Dispatches that somebody owes an acknowledgement for, and whatever came behind each.
    open: VecDeque<Open>,
    /// The number of the first of them. Numbers go on over sessions, so that a late acknowledgement hits nothing new.
    first: u64,
}

#[derive(Debug)]
struct Open {
    owed: usize,
    sequence: u64,
    /// The highest sequence up to the next one that is open.
    up_to: u64,
}

impl State {
    /// `None` when it belongs to an earlier session.
    fn entry(&mut self, number: u64) -> Option<&mut Open> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.open.get_mut(place)
    }
}

impl Watermark {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another session begins, or the first: nothing of an earlier one counts any more.
    pub(crate) fn restart(&self, sequence: u64) {
        let mut state = self.state();
        state.first += state.open.len() as u64;
        state.open.clear();
        self.is_open.store(false, Ordering::Release);
        self.acknowledged.store(sequence, Ordering::Release);
        drop(state);
        self.settled.notify_waiters();
    }

    /// The session is resumed from here: what came behind it comes again, and is owed anew. A crash in the middle of publishing
    /// drops deliveries that no subscription has, and that is no acknowledgement.
    pub(crate) fn rewind(&self, sequence: u64) {
        let mut state = self.state();
        for entry in &mut state.open {
            if entry.sequence > sequence {
                entry.owed = 0;
            }
            entry.up_to = entry.up_to.min(sequence);
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

    /// A dispatch goes to so many subscriptions, at least one. Each is to get a [`Ticket`] of this number.
    pub(super) fn owe(&self, sequence: u64, owed: usize) -> u64 {
        let mut state = self.state();
        state.open.push_back(Open { owed, sequence, up_to: sequence });
        self.is_open.store(true, Ordering::Release);
        state.first + state.open.len() as u64 - 1
    }

    /// Whether a resume from the watermark brings the dispatch of this number again.
    fn is_replayed(&self, number: u64) -> bool {
        let acknowledged = self.acknowledged();
        self.state().entry(number).is_some_and(|entry| entry.sequence > acknowledged)
    }

    fn owe_again(&self, number: u64) {
        if let Some(entry) = self.state().entry(number) {
            entry.owed += 1;
        }
    }

    fn acknowledge(&self, number: u64) {
        let mut state = self.state();
        let Some(entry) = state.entry(number) else { return };
        entry.owed = entry.owed.saturating_sub(1);
        self.forget_settled(state);
    }

    fn forget_settled(&self, mut state: MutexGuard<'_, State>) {
        while let Some(done) = state.open.front().filter(|entry| entry.owed == 0).map(|entry| entry.up_to) {
            state.open.pop_front();
            state.first += 1;
            self.acknowledged.fetch_max(done, Ordering::AcqRel);
        }
        let settled = state.open.is_empty();
        self.is_open.store(!settled, Ordering::Release);
        drop(state);
        if settled {
            self.settled.notify_waiters();
        }
    }

    /// The highest sequence up to which every lossless subscription is done.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until nobody owes anything.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only waits.
    pub(crate) async fn settled(&self) {
        loop {
            let notified = self.settled.notified();
            if self.state().open.is_empty() {
                return;
            }
            notified.await;
        }
    }
}

/// What a lossless subscription owes for one dispatch. Dropping it acknowledges.
#[derive(Debug)]
pub(super) struct Ticket {
    watermark: Arc<Watermark>,
    number: u64,
}

impl Ticket {
    pub(super) fn new(watermark: &Arc<Watermark>, number: u64) -> Self {
        Self { watermark: Arc::clone(watermark), number }
    }

    /// Whether whoever resumes the session gets the dispatch again. READY comes once, and what belongs to an earlier session
    /// never does.
    pub(super) fn comes_again(&self) -> bool {
        self.watermark.is_replayed(self.number)
    }

    /// Drops it, and acknowledges nothing.
    pub(super) fn give_up(mut self) {
        self.number = u64::MAX;
    }
}

impl Clone for Ticket {
    /// One more acknowledgement is owed.
    fn clone(&self) -> Self {
        self.watermark.owe_again(self.number);
        Self { watermark: Arc::clone(&self.watermark), number: self.number }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.watermark.acknowledge(self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(watermark: &Arc<Watermark>, sequence: u64) -> Ticket {
        Ticket::new(watermark, watermark.owe(sequence, 1))
    }

    #[test]
    fn it_stays_before_the_first_that_is_not_acknowledged() {
        let watermark = Arc::new(Watermark::default());
        watermark.pass(1);
        let (second, third) = (ticket(&watermark, 2), ticket(&watermark, 3));
        watermark.pass(4);
        drop(third);
        assert_eq!(watermark.acknowledged(), 1);
        drop(second);
        assert_eq!(watermark.acknowledged(), 4);
    }

    #[test]
    fn every_subscription_has_to_acknowledge() {
        let watermark = Arc::new(Watermark::default());
        let number = watermark.owe(7, 2);
        let (one, two) = (Ticket::new(&watermark, number), Ticket::new(&watermark, number));
        drop(one);
        assert_eq!(watermark.acknowledged(), 0);
        drop(two);
        assert_eq!(watermark.acknowledged(), 7);
    }

    #[test]
    fn what_belongs_to_an_earlier_session_counts_no_more() {
        let watermark = Arc::new(Watermark::default());
        let old = ticket(&watermark, 900);
        watermark.restart(1);
        let new = ticket(&watermark, 2);
        drop(old);
        assert_eq!(watermark.acknowledged(), 1);
        drop(new);
        assert_eq!(watermark.acknowledged(), 2);
    }

    #[tokio::test]
    async fn settled_means_that_nobody_owes_anything() {
        let watermark = Arc::new(Watermark::default());
        watermark.settled().await;
        let owed = ticket(&watermark, 1);
        let mut settled = std::pin::pin!(watermark.settled());
        assert!(futures_util::poll!(&mut settled).is_pending());
        drop(owed);
        settled.await;
    }

    #[test]
    fn what_a_crash_in_publishing_has_dropped_is_owed_again() {
        let watermark = Arc::new(Watermark::default());
        let (taken, untaken) = (ticket(&watermark, 1), ticket(&watermark, 2));
        drop(untaken);
        watermark.rewind(1);
        let again = ticket(&watermark, 2);
        drop(taken);
        assert_eq!(watermark.acknowledged(), 1);
        drop(again);
        assert_eq!(watermark.acknowledged(), 2);
        // When nothing else is open, it was acknowledged already.
        drop(ticket(&watermark, 3));
        watermark.rewind(2);
        assert_eq!(watermark.acknowledged(), 2);
    }

    proptest! {
        #[test]
        fn in_whatever_order_it_never_runs_ahead(owing in prop::collection::vec(any::<bool>(), 1..60), seed in any::<u64>()) {
            let watermark = Arc::new(Watermark::default());
            let mut open = Vec::new();
            for (sequence, owes) in (1..).zip(&owing) {
                if *owes {
                    open.push((sequence, ticket(&watermark, sequence)));
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
