//! The receiving end of a topic.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_channel::Receiver;
use futures_util::{Stream, StreamExt};

use super::label::{SubscriptionLabel, Tag};
use super::{Delivery, Event, Hub, Queued};

/// Policy of a full subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// No event is lost, and each delivery is acknowledged by dropping it.
    ///
    /// When the subscription is full, the shards that have an event for it stop reading from Discord until
    /// there is room; their heartbeats go on. A pause of minutes may cost a shard its connection, but the
    /// shard resumes. After 5 s [`Lifecycle::SubscriptionStalled`](crate::Lifecycle::SubscriptionStalled) and
    /// a warning name the subscription. A subscription to [`Topic::lifecycle`](crate::Topic::lifecycle) only
    /// never holds up a shard: it uses [`DropOldest`](Self::DropOldest).
    #[default]
    Wait,
    /// The oldest event in the subscription is dropped.
    DropOldest,
    /// The new event is dropped.
    DropNewest,
}

/// Largest capacity of a subscription, in events.
pub(super) const MAX_CAPACITY: usize = 1 << 20;

/// Capacity and overflow policy of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "users construct it, with `..Default::default()`")]
pub struct SubscriptionOptions {
    /// Number of events that may wait to be read. Default: 1024, some seconds of a busy shard.
    ///
    /// Zero counts as 1, and more than 1,048,576 as that. The slots are allocated at once, at about 100 bytes
    /// each. Each waiting event also costs its JSON text, once for all subscriptions.
    pub capacity: usize,
    /// What happens when the capacity is exceeded. Default: [`Overflow::Wait`].
    pub overflow: Overflow,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self { capacity: 1024, overflow: Overflow::Wait }
    }
}

/// A stream of the events of a topic.
///
/// Dropping it unsubscribes, and acknowledges the unread events as if they had been handled. To leave these
/// to the next process, call [`detach`](crate::Shardkeeper::detach) first, and read on to the end. When a
/// panic drops it, the unread events are [abandoned](Delivery::abandon) instead.
///
/// # Ordering
///
/// The events of one shard come in the order in which Discord sent them, with the shard's lifecycle changes
/// at their positions. Between shards there is no order.
///
/// # Bounds
///
/// The subscription holds [`SubscriptionOptions::capacity`] events. Events that were dropped because it was
/// full are reported as [`Event::Lagged`] before the next event that is read. With [`Overflow::DropOldest`]
/// the events are missing exactly there, with [`Overflow::DropNewest`] somewhere later.
#[derive(Debug)]
#[must_use = "a subscription that is not read fills up"]
pub struct Subscription {
    receiver: Pin<Box<Receiver<Queued>>>,
    missed: Arc<AtomicU64>,
    tag: Arc<Tag>,
    hub: Arc<Hub>,
    id: u64,
}

impl Subscription {
    pub(super) fn new(
        receiver: Receiver<Queued>,
        missed: Arc<AtomicU64>,
        tag: Arc<Tag>,
        hub: Arc<Hub>,
        id: u64,
    ) -> Self {
        Self { receiver: Box::pin(receiver), missed, tag, hub, id }
    }

    /// Gives the subscription a name. Reports show it in addition to the place in the code that subscribed,
    /// for example when it [holds up a shard](crate::Lifecycle::SubscriptionStalled). Only the first name
    /// counts.
    ///
    /// ```no_run
    /// # use shardkeeper::{Shardkeeper, Topic};
    /// # fn listen(bot: &Shardkeeper) {
    /// let mut events = bot.subscribe(Topic::all()).named("commands");
    /// # }
    /// ```
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        self.tag.set_name(name.into());
        self
    }

    /// Returns the name and place by which reports identify the subscription.
    pub fn label(&self) -> SubscriptionLabel {
        self.tag.label()
    }

    /// Waits for the next event; `None` once the manager has ended and all earlier events were read.
    ///
    /// # Cancel safety
    ///
    /// Safe: no event is lost; the next call returns it.
    pub async fn next(&mut self) -> Option<Delivery> {
        StreamExt::next(self).await
    }

    /// Returns the number of events that wait to be read.
    pub fn backlog(&self) -> usize {
        self.receiver.len()
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            self.tag.hand.take(None);
            return Poll::Ready(Some(Delivery::new(Event::Lagged { missed }.into())));
        }
        let polled = self.receiver.as_mut().poll_next(cx);
        match &polled {
            Poll::Ready(Some(queued)) => self.tag.hand.take(queued.mark_read()),
            Poll::Ready(None) | Poll::Pending => self.tag.hand.put_down(),
        }
        polled.map(|queued| queued.map(Delivery::new))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.unsubscribe(self.id);
        // Unread events are acknowledged here, rather than when the last publisher has noticed the drop.
        while let Ok(queued) = self.receiver.try_recv() {
            drop(Delivery::new(queued));
        }
    }
}
