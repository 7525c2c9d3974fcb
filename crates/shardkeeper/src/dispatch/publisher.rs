//! The path of one shard's events into the subscriptions.
//!
//! Input: events from the driver. Output: the same events to every subscription whose topic matches.
//! Publishing never waits: events that a lossless subscription has no room for stay in the spill, and the
//! driver stops reading until the spill is empty.

use std::sync::Arc;
use std::time::Instant;

use shardkeeper_proto::{Envelope, EventName, EventSet};

use super::hub::Subscriber;
use super::label::SubscriptionLabel;
use super::lifecycle::Lifecycle;
use super::overlap::OverlapSlot;
use super::spill::{InheritedSpill, Spill};
use super::topic::Candidate;
use super::watermark::{AckHolder, AckToken};
use super::{Dispatch, Event, Hub, Part, Queued, Watermark, now};
use crate::layout::ShardKey;

pub(crate) struct Publisher {
    hub: Arc<Hub>,
    pub(super) key: ShardKey,
    version: u64,
    subscribers: Arc<[Arc<Subscriber>]>,
    /// Holder of the acknowledgements of each subscriber, if it is lossless.
    holders: Vec<Option<Arc<AckHolder>>>,
    /// Whether a subscriber waits for an answer from this shard.
    awaited: bool,
    /// All events that any subscriber wants of this shard.
    pub(super) wanted: EventSet,
    pub(super) spill: Spill,
    inherited_spill: Arc<InheritedSpill>,
    pub(super) watermark: Arc<Watermark>,
    overlap: Arc<OverlapSlot>,
    /// The shard's part in a reshard, as of the last reload.
    pub(super) part: Option<Part>,
    /// Sequence number up to which the watermark has passed what a new shard dropped.
    pub(super) passed: u64,
    /// Positions of the subscribers that want the current dispatch. A field only to reuse the memory.
    chosen: Vec<usize>,
}

impl Publisher {
    pub(crate) fn new(
        hub: Arc<Hub>,
        key: ShardKey,
        watermark: Arc<Watermark>,
        inherited_spill: Arc<InheritedSpill>,
        overlap: Arc<OverlapSlot>,
    ) -> Self {
        let mut publisher = Self {
            hub,
            key,
            version: 0,
            subscribers: Arc::default(),
            holders: Vec::new(),
            awaited: false,
            wanted: EventSet::EMPTY,
            spill: Spill::default(),
            inherited_spill,
            watermark,
            overlap,
            part: None,
            passed: 0,
            chosen: Vec::new(),
        };
        publisher.reload();
        publisher
    }

    /// Takes over the spill of the shard's previous publisher, which must have been dropped by then.
    pub(crate) fn inherit(&mut self) {
        self.spill = self.inherited_spill.take();
        self.note_behind();
    }

    /// Publishes a dispatch. If no subscriber wants the event, nothing is copied, allocated or locked.
    pub(crate) fn publish(&mut self, envelope: &Envelope<'_>, sequence: u64, replayed: bool) {
        self.refresh();
        if self.part.is_some() {
            return self.publish_overlapping(envelope, (sequence, replayed));
        }
        let event = envelope.event_name();
        self.choose(event, envelope);
        let key = self.key;
        self.deliver(sequence, || Dispatch::new(key, (sequence, replayed), event, envelope));
    }

    /// Reads the list of subscribers and the part in an overlap again, if they have changed.
    pub(super) fn refresh(&mut self) {
        if self.version != self.hub.version() {
            self.reload();
        }
    }

    /// Chooses the subscribers that want this dispatch.
    pub(super) fn choose(&mut self, event: Option<EventName>, envelope: &Envelope<'_>) {
        self.chosen.clear();
        if self.wanted.contains(event) {
            let mut candidate = Candidate::new(envelope);
            for (index, subscriber) in self.subscribers.iter().enumerate() {
                let topic = &subscriber.topic;
                if topic.events_of(self.key.id).contains(event) && topic.admits(&mut candidate) {
                    self.chosen.push(index);
                }
            }
        }
    }

    /// Delivers a dispatch to the chosen subscribers; those that are lossless owe an acknowledgement.
    pub(super) fn deliver(&mut self, sequence: u64, make: impl FnOnce() -> Dispatch) {
        let holders = self.chosen.iter().filter_map(|index| self.holders[*index].as_ref());
        let (outstanding, bits) =
            holders.fold((0, 0), |(outstanding, bits), holder| (outstanding + 1, bits | holder.bit));
        // Counted before the first subscriber can acknowledge it.
        let number = match outstanding {
            0 => {
                self.watermark.pass(sequence);
                0
            }
            outstanding => self.watermark.expect(sequence, outstanding, bits),
        };
        if self.chosen.is_empty() {
            return;
        }
        let dispatch = make();
        for index in &self.chosen {
            let queued = Queued {
                event: Event::Dispatch(dispatch.clone()),
                token: self.holders[*index].as_ref().map(|holder| AckToken::new(holder, number)),
            };
            self.spill.offer(self.key, &self.subscribers[*index], queued);
        }
    }

    /// Delivers a dispatch of a new shard before the cut-over to those of the chosen subscribers that `wants`
    /// accepts. Nobody owes an acknowledgement for it.
    pub(super) fn deliver_aside(&mut self, dispatch: &Dispatch, wants: impl Fn(&Subscriber) -> bool) {
        for index in &self.chosen {
            let subscriber = &self.subscribers[*index];
            if wants(subscriber) {
                self.spill.offer(self.key, subscriber, Event::Dispatch(dispatch.clone()).into());
            }
        }
    }

    /// Publishes a lifecycle change of this shard.
    pub(crate) fn announce(&mut self, lifecycle: &Lifecycle) {
        self.refresh();
        for subscriber in self.subscribers.iter() {
            if subscriber.topic.wants_lifecycle(Some(self.key.id)) {
                self.spill.offer(self.key, subscriber, Event::Lifecycle(lifecycle.clone()).into());
            }
        }
        self.note_behind();
    }

    /// Publishes a change that has no position among the dispatches.
    pub(crate) fn announce_aside(&self, lifecycle: &Lifecycle) {
        self.hub.announce(lifecycle);
    }

    /// Whether a lossless subscription has not taken every event yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.spill.is_empty() || self.part.as_ref().is_some_and(|part| part.has_out(self.key.id))
    }

    /// Whether the spill is full, so that not even READY may be read.
    pub(crate) fn is_full(&self) -> bool {
        self.spill.is_full()
    }

    /// Whether to read on although a subscription is behind, because a caller awaits an answer: that caller
    /// may be the one that does not read.
    pub(crate) fn reads_on(&mut self, awaited: bool) -> bool {
        self.refresh();
        (awaited || self.awaited) && self.spill.has_room_for_answers()
    }

    /// Returns one of the subscriptions that are behind, and when the last of their readers began to await a
    /// shutdown. `None` unless every one of these subscriptions has a reader that awaits a shutdown instead
    /// of reading on.
    pub(crate) fn left_by_waiter(&self) -> Option<(SubscriptionLabel, Instant)> {
        let mut left = None;
        for subscriber in self.spill.subscribers() {
            let since = subscriber.tag.hand.awaits_end_since()?;
            let (_, last) = left.get_or_insert_with(|| (subscriber.tag.label(), since));
            *last = since.max(*last);
        }
        left
    }

    /// Waits until every lossless subscription has taken every event; forever, once the manager has ended.
    /// Reports the subscriptions that take nothing for long.
    ///
    /// # Cancel safety
    ///
    /// Safe: events that were not taken stay in the spill, in order.
    pub(crate) async fn catch_up(&mut self) {
        while self.is_behind() {
            if self.spill.is_empty() {
                self.release();
                // The subscribers and the driver's other work get their turn between two batches.
                tokio::task::yield_now().await;
                continue;
            }
            let tags = self.spill.subscribers().map(|subscriber| &subscriber.tag);
            let report_at = tags.filter_map(|tag| tag.report_at(self.key)).min();
            let reports = async {
                match report_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                goes_on = self.spill.deliver_one() => {
                    self.note_behind();
                    if let Some((subscription, stalled_for)) = goes_on {
                        let lifecycle = Lifecycle::SubscriptionResumed { subscription, stalled_for };
                        self.announce_aside(&lifecycle);
                    }
                }
                () = reports => self.report_stalls(),
            }
        }
    }

    fn report_stalls(&self) {
        for subscriber in self.spill.subscribers() {
            if let Some(stalled_for) = subscriber.tag.take_report(now(), self.key) {
                let subscription = subscriber.tag.label();
                let shard = self.key.id;
                let lifecycle = Lifecycle::SubscriptionStalled { subscription, shard, stalled_for };
                self.announce_aside(&lifecycle);
            }
        }
    }

    fn reload(&mut self) {
        let (version, subscribers) = self.hub.subscribers();
        let holders = subscribers.iter().map(|subscriber| {
            if !subscriber.is_lossless() {
                return None;
            }
            let known = self.subscribers.iter().position(|known| Arc::ptr_eq(known, subscriber));
            known
                .and_then(|index| self.holders[index].clone())
                .or_else(|| Some(self.watermark.enroll(&subscriber.tag)))
        });
        self.holders = holders.collect();
        (self.version, self.subscribers) = (version, subscribers);
        self.part = self.overlap.part();
        let events = |subscriber: &Arc<Subscriber>| subscriber.topic.events_of(self.key.id);
        self.wanted = self.subscribers.iter().map(events).fold(EventSet::EMPTY, EventSet::union);
        self.awaited = self
            .subscribers
            .iter()
            .any(|subscriber| subscriber.is_awaited() && !subscriber.topic.events_of(self.key.id).is_empty());
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.inherited_spill.put(std::mem::take(&mut self.spill));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use shardkeeper_proto::ShardId;

    use super::*;
    use crate::dispatch::{SubscriptionOptions, Topic};

    const KEY: ShardKey = ShardKey { id: ShardId(0), generation: 1 };

    fn publish(publisher: &mut Publisher, sequence: u64) {
        let payload = format!(r#"{{"t":"X","s":{sequence},"op":0,"d":{{}}}}"#);
        let envelope = Envelope::split(payload.as_bytes()).unwrap();
        publisher.publish(&envelope, sequence, false);
    }

    #[tokio::test]
    async fn what_the_end_of_the_manager_leaves_over_is_not_taken_for_acknowledged() {
        let (hub, watermark) = (Arc::new(Hub::default()), Arc::new(Watermark::default()));
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let subscription = hub.subscribe(Topic::all(), options);
        let inherited_spill = Arc::new(InheritedSpill::default());
        let to = Arc::clone(&hub);
        let mut publisher =
            Publisher::new(to, KEY, Arc::clone(&watermark), Arc::clone(&inherited_spill), Arc::default());
        publish(&mut publisher, 1);
        publish(&mut publisher, 2);
        hub.close();
        assert!(publisher.catch_up().now_or_never().is_none(), "nobody has taken the second");
        publish(&mut publisher, 3);
        drop(subscription);
        drop((publisher, inherited_spill));
        assert_eq!(watermark.acknowledged(), 1);
    }

    #[tokio::test]
    async fn a_subscription_that_was_dropped_is_offered_nothing_any_more() {
        let (hub, watermark) = (Arc::new(Hub::default()), Arc::new(Watermark::default()));
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let topic = Topic::all().matching(move |_| count.fetch_add(1, Ordering::Relaxed) < u32::MAX);
        let subscription = hub.subscribe(topic, SubscriptionOptions::default());
        let inherited_spill = Arc::new(InheritedSpill::default());
        let mut publisher =
            Publisher::new(Arc::clone(&hub), KEY, Arc::clone(&watermark), inherited_spill, Arc::default());
        publish(&mut publisher, 1);
        drop(subscription);
        publish(&mut publisher, 2);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_publisher_that_never_began_does_not_cover_what_the_one_before_has_left() {
        let (hub, watermark) = (Arc::new(Hub::default()), Arc::new(Watermark::default()));
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let _subscription = hub.subscribe(Topic::all(), options);
        let inherited_spill = Arc::new(InheritedSpill::default());
        let publisher = || {
            Publisher::new(
                Arc::clone(&hub),
                KEY,
                Arc::clone(&watermark),
                Arc::clone(&inherited_spill),
                Arc::default(),
            )
        };
        let mut first = publisher();
        publish(&mut first, 1);
        publish(&mut first, 2);
        drop(first);
        drop(publisher());
        let mut third = publisher();
        third.inherit();
        assert!(third.is_behind(), "the second waits for room still");
    }

    #[tokio::test]
    async fn what_does_not_come_again_is_missed_when_its_shard_is_gone() {
        let (hub, watermark) = (Arc::new(Hub::default()), Arc::new(Watermark::default()));
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let mut subscription = hub.subscribe(Topic::all(), options);
        let inherited_spill = Arc::new(InheritedSpill::default());
        let to = Arc::clone(&hub);
        let mut publisher =
            Publisher::new(to, KEY, Arc::clone(&watermark), Arc::clone(&inherited_spill), Arc::default());
        publish(&mut publisher, 5);
        // A new session begins: a resume would start from the sequence number of its READY.
        publish(&mut publisher, 6);
        watermark.restart(1);
        publish(&mut publisher, 1);
        publish(&mut publisher, 2);
        // The manager has already dropped the shard.
        drop(inherited_spill);
        drop(publisher);
        let missed = subscription.next().await.unwrap();
        assert!(matches!(*missed, Event::Lagged { missed: 2 }), "the old session's and READY: {missed:?}");
        assert_eq!(watermark.acknowledged(), 1, "a resume brings what is behind READY");
        drop(subscription);
    }
}
