//! Who subscribed to what.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Sender, TrySendError};
use shardkeeper_proto::{Intents, ShardId};
use tokio::sync::Semaphore;

use super::label::HeldUp;
use super::label::Tag;
use super::lifecycle::Lifecycle;
use super::subscription::MAX_CAPACITY;
use super::{Event, Overflow, Queued, Subscription, SubscriptionOptions, Topic};

/// How many announcements wait for a lossless subscription that is full. They are rare; nobody who reads at all
/// ever comes near.
const LATE_ANNOUNCEMENTS: usize = 64;

/// The list of subscribers, shared by the manager, its handles and the publishers.
///
/// Publishers keep a copy of the list and compare a version number per event, so that nothing is locked on the
/// path of an event.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// What the bot asks to receive, if it is known.
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
    /// Somebody awaits what comes here: an answer to a request.
    awaited: bool,
    sender: Sender<Queued>,
    /// It was closed by the end of the manager, and not by its owner.
    cut_off: AtomicBool,
    missed: Arc<AtomicU64>,
    /// Room for announcements that wait for room.
    late: Arc<Semaphore>,
}

/// The hub of a manager, or of one that is not started yet. With it the subscriptions end.
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
    /// The hub of a bot that asks for these intents: a subscription that waits for something else is warned of.
    pub(crate) fn of(intents: Intents) -> Self {
        Self { intents: Some(intents), ..Self::default() }
    }

    /// The place of the caller is what the subscription is known by.
    #[track_caller]
    pub(crate) fn subscribe(self: &Arc<Self>, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.subscribe_as(topic, options, Location::caller(), false)
    }

    /// A subscription to an answer that somebody awaits: shards read on for it although others are behind.
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
        // Nobody's work depends on a lifecycle change, so it is not worth stopping a shard.
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

    /// The end: subscriptions yield what they hold, and then `None`.
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

    /// Logs and publishes a change that has no place among a shard's dispatches. It never waits; what a lossless
    /// subscription has no room for is delivered beside this call.
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

    /// The shards that wait for room in a lossless subscription, each with the one that it has waited for longest.
    pub(crate) fn held_up(&self) -> BTreeMap<ShardId, HeldUp> {
        let mut held_up: BTreeMap<ShardId, HeldUp> = BTreeMap::new();
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

    /// What is known of each subscription.
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

    fn changed(&self, list: MutexGuard<'_, List>) {
        self.version.fetch_add(1, Ordering::Release);
        drop(list);
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Nothing that holds it can panic half-way.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Whether it takes everything, and says when it is done with it.
    pub(super) fn is_lossless(&self) -> bool {
        self.overflow == Overflow::Wait
    }

    /// Whether somebody awaits what comes here.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Hands over an event, or gives it back when it has to wait for room.
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

    /// Waits for room. A subscription that went away has room for everything; one that the manager has left has none
    /// (`false`): whoever reads it does not get the event, and has not acknowledged it.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call has not delivered the event.
    pub(super) async fn deliver(&self, queued: Queued) -> bool {
        self.sender.send(queued).await.is_ok() || !self.is_cut_off()
    }

    /// Delivers an announcement as soon as there is room; beyond a bound it counts as missed.
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
