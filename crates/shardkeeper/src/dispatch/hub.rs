//! The list of all subscriptions of a manager.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Sender, TrySendError};
use shardkeeper_proto::Intents;
use tokio::sync::Semaphore;

use super::label::HeldUp;
use super::label::Tag;
use super::lifecycle::Lifecycle;
use super::subscription::MAX_CAPACITY;
use super::{Event, Overflow, Queued, Subscription, SubscriptionOptions, Topic};
use crate::layout::ShardKey;

/// Announcements that may wait for a full lossless subscription. Announcements are rare; a subscriber that
/// reads at all never reaches this bound.
const LATE_ANNOUNCEMENTS: usize = 64;

/// List of subscribers, shared by the manager, its handles and the publishers.
///
/// Publishers keep a copy of the list and compare a version number per event, so that nothing is locked on
/// the path of an event.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// The bot's intents, if known.
    intents: Option<Intents>,
    version: AtomicU64,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    subscribers: Arc<[Arc<Subscriber>]>,
    last_id: u64,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    id: u64,
    pub(super) topic: Topic,
    pub(super) tag: Arc<Tag>,
    overflow: Overflow,
    /// Whether the subscription is for an answer that a caller awaits.
    awaited: bool,
    sender: Sender<Queued>,
    /// Whether the end of the manager closed the subscription, rather than its owner.
    cut_off: AtomicBool,
    missed: Arc<AtomicU64>,
    /// Limits the announcements that wait for room.
    late: Arc<Semaphore>,
}

/// Owner of the hub of a manager, or of a builder that is not started yet. Dropping it ends the
/// subscriptions.
#[derive(Debug, Default)]
pub(crate) struct OwnHub(Arc<Hub>);

impl Deref for OwnHub {
    type Target = Arc<Hub>;

    fn deref(&self) -> &Arc<Hub> {
        &self.0
    }
}

impl OwnHub {
    pub(crate) fn of(intents: Intents) -> Self {
        Self(Arc::new(Hub::of(intents)))
    }
}

impl Drop for OwnHub {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Hub {
    /// Makes the hub of a bot with these intents. A subscription that waits for an event of another intent is
    /// logged as a warning.
    pub(crate) fn of(intents: Intents) -> Self {
        Self { intents: Some(intents), ..Self::default() }
    }

    /// Tracks the caller, because reports name a subscription by the place that made it.
    #[track_caller]
    pub(crate) fn subscribe(self: &Arc<Self>, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.subscribe_as(topic, options, Location::caller(), false)
    }

    /// Subscribes to an answer that a caller awaits: shards continue to read for it although other
    /// subscriptions are behind.
    #[track_caller]
    pub(crate) fn subscribe_to_answer(
        self: &Arc<Self>,
        topic: Topic,
        options: SubscriptionOptions,
    ) -> Subscription {
        self.subscribe_as(topic, options, Location::caller(), true)
    }

    fn subscribe_as(
        self: &Arc<Self>,
        topic: Topic,
        options: SubscriptionOptions,
        place: &'static Location<'static>,
        awaited: bool,
    ) -> Subscription {
        for event in self.intents.map_or_else(Vec::new, |intents| topic.awaited_in_vain(intents)) {
            let needed = event.intents().to_string().replace(" | ", " or ");
            tracing::warn!(
                "a subscription waits for {event}, which never comes without the intent {needed}: add it"
            );
        }
        let (sender, receiver) = async_channel::bounded(options.capacity.clamp(1, MAX_CAPACITY));
        let missed = Arc::new(AtomicU64::new(0));
        let tag = Arc::new(Tag::new(place));
        // Lifecycle changes alone must not hold up a shard, since no work depends on them.
        let overflow = match options.overflow {
            Overflow::Wait if !topic.brings_dispatches() => Overflow::DropOldest,
            overflow => overflow,
        };
        let mut list = self.list();
        list.last_id += 1;
        let id = list.last_id;
        if list.closed {
            sender.close();
        } else {
            let late = Arc::new(Semaphore::new(LATE_ANNOUNCEMENTS));
            let (cut_off, missed, tag) = (AtomicBool::new(false), Arc::clone(&missed), Arc::clone(&tag));
            let subscriber = Subscriber { id, topic, tag, overflow, awaited, sender, cut_off, missed, late };
            list.subscribers = list.subscribers.iter().cloned().chain([Arc::new(subscriber)]).collect();
        }
        self.changed(list);
        Subscription::new(receiver, missed, tag, Arc::clone(self), id)
    }

    pub(super) fn unsubscribe(&self, id: u64) {
        let mut list = self.list();
        let gone: Vec<_> =
            list.subscribers.iter().filter(|subscriber| subscriber.id == id).cloned().collect();
        list.subscribers =
            list.subscribers.iter().filter(|subscriber| subscriber.id != id).cloned().collect();
        self.changed(list);
        // Wakes every publisher that waits for room.
        for subscriber in gone {
            subscriber.sender.close();
        }
    }

    /// Ends all subscriptions: they yield the events they hold, and then `None`.
    pub(crate) fn close(&self) {
        let mut list = self.list();
        list.closed = true;
        let subscribers = std::mem::take(&mut list.subscribers);
        self.changed(list);
        for subscriber in subscribers.iter() {
            subscriber.cut_off.store(true, Ordering::Release);
            subscriber.sender.close();
        }
    }

    /// Logs and publishes a change that has no position among a shard's dispatches. The call never waits; a
    /// change that a lossless subscription has no room for is delivered by a separate task.
    pub(crate) fn announce(&self, lifecycle: &Lifecycle) {
        lifecycle.log();
        let subscribers = Arc::clone(&self.list().subscribers);
        for subscriber in
            subscribers.iter().filter(|subscriber| subscriber.topic.wants_lifecycle(lifecycle.shard()))
        {
            let queued = Queued::from(Event::Lifecycle(lifecycle.clone()));
            if let Err(queued) = subscriber.offer(queued) {
                Subscriber::deliver_later(subscriber, queued);
            }
        }
    }

    /// Returns the shards that wait for room in a lossless subscription, each with the subscription that it
    /// has waited for longest.
    pub(crate) fn held_up(&self) -> BTreeMap<ShardKey, HeldUp> {
        let mut held_up: BTreeMap<ShardKey, HeldUp> = BTreeMap::new();
        let subscribers = Arc::clone(&self.list().subscribers);
        for subscriber in subscribers.iter() {
            for (shard, since) in subscriber.tag.waiting() {
                if held_up.get(&shard).is_none_or(|known| since < known.since) {
                    held_up.insert(shard, HeldUp { subscription: subscriber.tag.label(), since });
                }
            }
        }
        held_up
    }

    /// Returns the tag of each subscription.
    pub(super) fn tags(&self) -> Vec<Arc<Tag>> {
        self.list().subscribers.iter().map(|subscriber| Arc::clone(&subscriber.tag)).collect()
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn subscribers(&self) -> (u64, Arc<[Arc<Subscriber>]>) {
        let list = self.list();
        (self.version(), Arc::clone(&list.subscribers))
    }

    /// Makes every publisher read its list and its part in an overlap again.
    pub(super) fn touch(&self) {
        self.changed(self.list());
    }

    fn changed(&self, list: MutexGuard<'_, List>) {
        self.version.fetch_add(1, Ordering::Release);
        drop(list);
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // No code that holds the lock can panic halfway, so a poisoned lock is consistent.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Whether the subscription takes every event and acknowledges it.
    pub(super) fn is_lossless(&self) -> bool {
        self.overflow == Overflow::Wait
    }

    /// Whether a caller awaits what is delivered here.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Delivers an event, or returns it when it has to wait for room.
    pub(super) fn offer(&self, queued: Queued) -> Result<(), Queued> {
        match self.overflow {
            Overflow::Wait => match self.sender.try_send(queued) {
                Err(TrySendError::Full(queued)) => return Err(queued),
                Err(TrySendError::Closed(queued)) if self.is_cut_off() => return Err(queued),
                Ok(()) | Err(TrySendError::Closed(_)) => {}
            },
            Overflow::DropOldest => {
                if let Ok(Some(_)) = self.sender.force_send(queued) {
                    self.miss(1);
                }
            }
            Overflow::DropNewest => {
                if let Err(TrySendError::Full(_)) = self.sender.try_send(queued) {
                    self.miss(1);
                }
            }
        }
        Ok(())
    }

    fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Waits for room, and delivers an event. `false` when the manager has left the subscription: the event
    /// is not delivered and not acknowledged. A subscription that its owner dropped counts as having room.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call has not delivered the event.
    pub(super) async fn deliver(&self, queued: Queued) -> bool {
        self.sender.send(queued).await.is_ok() || !self.is_cut_off()
    }

    /// Delivers an announcement as soon as there is room; beyond a bound the announcement counts as missed.
    fn deliver_later(subscriber: &Arc<Self>, queued: Queued) {
        let Ok(place) = Arc::clone(&subscriber.late).try_acquire_owned() else {
            subscriber.miss(1);
            return;
        };
        let subscriber = Arc::clone(subscriber);
        tokio::spawn(async move {
            subscriber.deliver(queued).await;
            drop(place);
        });
    }

    pub(super) fn miss(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn announcements_that_wait_for_a_full_subscription_have_a_bound() {
        let hub = Arc::new(Hub::default());
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let mut subscription = hub.subscribe(Topic::all().with_lifecycle(), options);
        for _ in 0..200 {
            hub.announce(&Lifecycle::IdentifyGateRecovered);
            tokio::task::yield_now().await;
        }
        let (mut heard, mut missed) = (0, 0);
        while heard + missed < 200 {
            match subscription.next().await.unwrap().into_event() {
                Event::Lagged { missed: count } => missed += count,
                _ => heard += 1,
            }
        }
        assert_eq!(heard, 1 + LATE_ANNOUNCEMENTS as u64);
    }
}
