//! One shard's way into the subscriptions.
//!
//! Input from the driver, output to every subscription whose topic matches. It never waits by itself: what a
//! lossless subscription has no room for stays in the spill, and the driver stops reading until it is gone.

use std::collections::VecDeque;
use std::sync::Arc;

use shardkeeper_proto::{Envelope, EventSet, ShardId};

use super::hub::Subscriber;
use super::topic::Candidate;
use super::{Dispatch, Event, Hub};
use crate::Lifecycle;

/// How many events the spill holds. Reading pauses with the first one, so that beyond it come only the lifecycle
/// changes of a shard that loses its connection over and over while nobody listens.
const SPILL_CAPACITY: usize = 64;

pub(crate) struct Publisher {
    hub: Arc<Hub>,
    shard: ShardId,
    generation: u32,
    version: u64,
    subscribers: Arc<[Arc<Subscriber>]>,
    /// Everything that any subscriber wants of this shard.
    wanted: EventSet,
    spill: VecDeque<(Arc<Subscriber>, Event)>,
}

impl Publisher {
    pub(crate) fn new(hub: Arc<Hub>, shard: ShardId, generation: u32) -> Self {
        let mut publisher = Self {
            hub,
            shard,
            generation,
            version: 0,
            subscribers: Arc::default(),
            wanted: EventSet::EMPTY,
            spill: VecDeque::new(),
        };
        publisher.reload();
        publisher
    }

    /// Publishes a dispatch. If nobody wants the event, nothing is copied, allocated or locked.
    pub(crate) fn publish(&mut self, envelope: &Envelope<'_>, sequence: u64) {
        if self.version != self.hub.version() {
            self.reload();
        }
        let event = envelope.event_name();
        if !self.wanted.contains(event) {
            return;
        }
        let mut candidate = Candidate::new(envelope);
        let mut dispatch = None;
        for subscriber in self.subscribers.iter() {
            let topic = &subscriber.topic;
            if topic.events_of(self.shard).contains(event) && topic.admits(&mut candidate) {
                let made = || Dispatch::new(self.shard, self.generation, sequence, event, envelope);
                let dispatch = dispatch.get_or_insert_with(made).clone();
                offer(&mut self.spill, subscriber, Event::Dispatch(dispatch));
            }
        }
    }

    /// Publishes a lifecycle change of this shard.
    pub(crate) fn announce(&mut self, lifecycle: &Lifecycle) {
        if self.version != self.hub.version() {
            self.reload();
        }
        for subscriber in self.subscribers.iter() {
            if subscriber.topic.wants_lifecycle(Some(self.shard)) {
                offer(&mut self.spill, subscriber, Event::Lifecycle(lifecycle.clone()));
            }
        }
    }

    /// Whether a lossless subscription has not taken everything yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.spill.is_empty()
    }

    /// Waits until every lossless subscription has taken everything.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not taken stays in the spill, in order.
    pub(crate) async fn catch_up(&mut self) {
        while let Some((subscriber, event)) = self.spill.front() {
            subscriber.deliver(event.clone()).await;
            self.spill.pop_front();
        }
    }

    fn reload(&mut self) {
        (self.version, self.subscribers) = self.hub.subscribers();
        self.wanted = self
            .subscribers
            .iter()
            .fold(EventSet::EMPTY, |wanted, subscriber| wanted.union(subscriber.topic.events_of(self.shard)));
    }
}

/// Behind something that the same subscriber has not taken yet, or straight into its queue.
fn offer(spill: &mut VecDeque<(Arc<Subscriber>, Event)>, subscriber: &Arc<Subscriber>, event: Event) {
    let waits = spill.iter().any(|(waiting, _)| Arc::ptr_eq(waiting, subscriber));
    let event = if waits {
        event
    } else {
        match subscriber.offer(event) {
            Ok(()) => return,
            Err(event) => event,
        }
    };
    if spill.len() < SPILL_CAPACITY || matches!(event, Event::Dispatch(_)) {
        spill.push_back((Arc::clone(subscriber), event));
    } else {
        subscriber.miss(1);
    }
}
