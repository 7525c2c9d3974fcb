//! One shard's way into the subscriptions.
//!
//! Input from the driver, output to every subscription whose topic matches. It never waits by itself: what a
//! lossless subscription has no room for stays in the spill, and the driver stops reading until it is gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use shardkeeper_proto::{Envelope, EventSet, ShardId};

use super::hub::Subscriber;
use super::topic::Candidate;
use super::{Dispatch, Event, Hub, Parcel, Ticket, Watermark};
use crate::Lifecycle;

/// How many events the spill holds, but for the last dispatch. Reading pauses with the first one, so that beyond it come
/// only the lifecycle changes and READY of a shard that loses its connection over and over while nobody listens.
const SPILL_CAPACITY: usize = 64;

type Spill = VecDeque<(Arc<Subscriber>, Parcel)>;

/// What a driver that crashed has left in its spill. The next publisher of the shard begins with it, so that nothing of it
/// has to come again, which not everything would: lifecycle changes, READY, whatever belongs to an earlier session.
#[derive(Debug, Default)]
pub(crate) struct Leftovers(Mutex<Spill>);

impl Leftovers {
    fn put(&self, spill: Spill) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spill);
    }

    fn take(&self) -> Spill {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Leftovers {
    /// There is no next publisher: what nobody has taken is left to the next process.
    fn drop(&mut self) {
        for (subscriber, parcel) in self.take() {
            match parcel.ticket {
                Some(ticket) if ticket.comes_again() => ticket.give_up(),
                // Lifecycle changes, READY, and whatever belongs to a session that is over.
                _ => subscriber.miss(1),
            }
        }
    }
}

pub(crate) struct Publisher {
    hub: Arc<Hub>,
    shard: ShardId,
    generation: u32,
    version: u64,
    subscribers: Arc<[Arc<Subscriber>]>,
    /// Everything that any subscriber wants of this shard.
    wanted: EventSet,
    spill: Spill,
    leftovers: Arc<Leftovers>,
    watermark: Arc<Watermark>,
    /// The places of those who want the dispatch at hand; kept for its memory.
    chosen: Vec<usize>,
}

impl Publisher {
    pub(crate) fn new(
        hub: Arc<Hub>,
        shard: ShardId,
        generation: u32,
        watermark: Arc<Watermark>,
        leftovers: Arc<Leftovers>,
    ) -> Self {
        let mut publisher = Self {
            hub,
            shard,
            generation,
            version: 0,
            subscribers: Arc::default(),
            wanted: EventSet::EMPTY,
            spill: VecDeque::new(),
            leftovers,
            watermark,
            chosen: Vec::new(),
        };
        publisher.reload();
        publisher
    }

    /// Takes on what an earlier publisher of the shard has left. It must be gone by then.
    pub(crate) fn inherit(&mut self) {
        self.spill = self.leftovers.take();
    }

    /// Publishes a dispatch. If nobody wants the event, nothing is copied, allocated or locked.
    pub(crate) fn publish(&mut self, envelope: &Envelope<'_>, sequence: u64, replayed: bool) {
        if self.version != self.hub.version() {
            self.reload();
        }
        let event = envelope.event_name();
        self.chosen.clear();
        if self.wanted.contains(event) {
            let mut candidate = Candidate::new(envelope);
            for (place, subscriber) in self.subscribers.iter().enumerate() {
                let topic = &subscriber.topic;
                if topic.events_of(self.shard).contains(event) && topic.admits(&mut candidate) {
                    self.chosen.push(place);
                }
            }
        }
        let lossless = |place: &&usize| self.subscribers[**place].is_lossless();
        let owed = self.chosen.iter().filter(lossless).count();
        // Before anybody can acknowledge it.
        let number = match owed {
            0 => {
                self.watermark.pass(sequence);
                None
            }
            owed => Some(self.watermark.owe(sequence, owed)),
        };
        if self.chosen.is_empty() {
            return;
        }
        let dispatch = Dispatch::new((self.shard, self.generation), (sequence, replayed), event, envelope);
        for place in &self.chosen {
            let subscriber = &self.subscribers[*place];
            let ticket = number.filter(|_| subscriber.is_lossless());
            let parcel = Parcel {
                event: Event::Dispatch(dispatch.clone()),
                ticket: ticket.map(|number| Ticket::new(&self.watermark, number)),
            };
            offer(&mut self.spill, subscriber, parcel);
        }
    }

    /// Publishes a lifecycle change of this shard.
    pub(crate) fn announce(&mut self, lifecycle: &Lifecycle) {
        if self.version != self.hub.version() {
            self.reload();
        }
        for subscriber in self.subscribers.iter() {
            if subscriber.topic.wants_lifecycle(Some(self.shard)) {
                offer(&mut self.spill, subscriber, Event::Lifecycle(lifecycle.clone()).into());
            }
        }
    }

    /// Whether a lossless subscription has not taken everything yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.spill.is_empty()
    }

    /// Whether it is to be kept from everything that it would have to keep.
    pub(crate) fn is_full(&self) -> bool {
        self.spill.len() >= SPILL_CAPACITY
    }

    /// Waits until every lossless subscription has taken everything: for ever, once the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not taken stays in the spill, in order.
    pub(crate) async fn catch_up(&mut self) {
        while let Some((subscriber, parcel)) = self.spill.front() {
            if !subscriber.deliver(parcel.clone()).await {
                std::future::pending::<()>().await;
            }
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

impl Drop for Publisher {
    fn drop(&mut self) {
        self.leftovers.put(std::mem::take(&mut self.spill));
    }
}

/// Behind something that the same subscriber has not taken yet, or straight into its queue.
fn offer(spill: &mut Spill, subscriber: &Arc<Subscriber>, parcel: Parcel) {
    let waits = spill.iter().any(|(waiting, _)| Arc::ptr_eq(waiting, subscriber));
    let parcel = if waits {
        parcel
    } else {
        match subscriber.offer(parcel) {
            Ok(()) => return,
            Err(parcel) => parcel,
        }
    };
    if spill.len() < SPILL_CAPACITY || matches!(parcel.event, Event::Dispatch(_)) {
        spill.push_back((Arc::clone(subscriber), parcel));
    } else {
        subscriber.miss(1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{SubscriptionOptions, Topic};

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
        let leftovers = Arc::new(Leftovers::default());
        let (to, shard) = (Arc::clone(&hub), ShardId(0));
        let mut publisher = Publisher::new(to, shard, 1, Arc::clone(&watermark), Arc::clone(&leftovers));
        publish(&mut publisher, 1);
        publish(&mut publisher, 2);
        hub.close();
        assert!(publisher.catch_up().now_or_never().is_none(), "nobody has taken the second");
        publish(&mut publisher, 3);
        drop(subscription);
        drop((publisher, leftovers));
        assert_eq!(watermark.acknowledged(), 1);
    }

    #[tokio::test]
    async fn what_does_not_come_again_is_missed_when_its_shard_is_gone() {
        let (hub, watermark) = (Arc::new(Hub::default()), Arc::new(Watermark::default()));
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let mut subscription = hub.subscribe(Topic::all(), options);
        let leftovers = Arc::new(Leftovers::default());
        let (to, shard) = (Arc::clone(&hub), ShardId(0));
        let mut publisher = Publisher::new(to, shard, 1, Arc::clone(&watermark), Arc::clone(&leftovers));
        publish(&mut publisher, 5);
        // Another session: its READY has the sequence number from which it is resumed.
        publish(&mut publisher, 6);
        watermark.restart(1);
        publish(&mut publisher, 1);
        publish(&mut publisher, 2);
        // The manager has let go of the shard already.
        drop(leftovers);
        drop(publisher);
        let missed = subscription.next().await.unwrap();
        assert!(matches!(*missed, Event::Lagged { missed: 2 }), "the old session's and READY: {missed:?}");
        assert_eq!(watermark.acknowledged(), 1, "a resume brings what is behind READY");
        drop(subscription);
    }
}
