//! The receiving end of a topic.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_channel::Receiver;
use futures_util::{Stream, StreamExt};

use super::label::{SubscriptionLabel, Tag};
use super::{Delivery, Event, Hub, Queued};

/// What happens when a subscription is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Nothing is lost, and each delivery is acknowledged by being dropped: the shards that have something for it stop reading
    /// from Discord until there is room. Their heartbeats go on. Whoever stops reading for minutes may cost a shard its
    /// connection, but it resumes; after 5 s [`Lifecycle::SubscriptionStalled`](crate::Lifecycle::SubscriptionStalled)
    /// and a warning name the subscription. One without any dispatch, to [`Topic::lifecycle`](crate::Topic::lifecycle),
    /// holds nobody up: it is [`DropOldest`](Self::DropOldest).
    #[default]
    Wait,
    /// The oldest event in it is dropped.
    DropOldest,
    /// The new event is dropped.
    DropNewest,
}

/// The largest capacity of a subscription.
pub(super) const MAX_CAPACITY: usize = 1 << 20;

/// How a subscription holds what was not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "users construct it, with `..Default::default()`")]
pub struct SubscriptionOptions {
    /// How many events it holds; zero counts as one, more than 1,048,576 as that: the places are made at once, at about 100
    /// bytes each. 1024: some seconds of a busy shard. Each event that waits costs its JSON text, once for all subscriptions.
    pub capacity: usize,
    /// What happens when they are exceeded. [`Overflow::Wait`].
    pub overflow: Overflow,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self { capacity: 1024, overflow: Overflow::Wait }
    }
}

/// A stream of the events of a topic.
///
/// Dropping it unsubscribes, and acknowledges what it holds unread, as if it had been dealt with. To leave that to the next
/// process, call [`detach`](crate::Shardkeeper::detach) first, and read on to the end. When a panic drops it, what it holds
/// is [abandoned](Delivery::abandon) instead.
///
/// # Ordering
///
/// The events of one shard come in the order in which Discord sent them, with the shard's lifecycle changes at
/// their places. Between shards there is no order.
///
/// # Bounds
///
/// It holds [`SubscriptionOptions::capacity`] events. What was dropped because it was full is announced as
/// [`Event::Lagged`], before the next event that is read: for [`Overflow::DropOldest`] that is the place where the
/// events are missing, for [`Overflow::DropNewest`] they are missing somewhere behind.
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

    /// Gives the subscription a name, by which reports call it beside the place in the code that made it: when it
    /// [holds a shard up](crate::Lifecycle::SubscriptionStalled), say. Only the first name counts.
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

    /// What reports call it.
    pub fn label(&self) -> SubscriptionLabel {
        self.tag.label()
    }

    /// The next event; `None` once the manager has ended and everything before was read.
    ///
    /// # Cancel safety
    ///
    /// Safe: an event is either returned or still to come.
    pub async fn next(&mut self) -> Option<Delivery> {
        StreamExt::next(self).await
    }

    /// How many events wait to be read.
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
        // What was not read is acknowledged now, and not when the last publisher has noticed.
        while let Ok(queued) = self.receiver.try_recv() {
            drop(Delivery::new(queued));
        }
    }
}
