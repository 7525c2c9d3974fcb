//! Events that lossless subscriptions have no room for yet.
//!
//! Input: the events of one shard's publisher that found a subscription full. Output: the same events as soon
//! as there is room, in order for each subscription. No subscription waits for another one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;

use super::hub::Subscriber;
use super::label::SubscriptionLabel;
use super::{Event, Queued, now};
use crate::layout::ShardKey;

/// Lifecycle changes that the spill holds, and the number of events from which READY is not read. Reading
/// pauses with the first dispatch, so more come only from a shard that loses its connection again and again
/// while nobody reads.
const CAPACITY: usize = 64;
/// Events that are buffered while a caller awaits an answer from this shard, who may be the one that does not
/// read. 4096 events: minutes of a busy shard, and more chunks than a guild of a million members has.
const AWAITED_EVENTS: usize = 4096;
/// The same limit in bytes: 32 MiB, the chunks of a guild of 100,000 members.
const AWAITED_BYTES: usize = 32 << 20;

#[derive(Debug, Default)]
pub(super) struct Spill {
    queues: Vec<Queue>,
    events: usize,
    lifecycle: usize,
    bytes: usize,
}

/// Events that one subscription has no room for.
#[derive(Debug)]
struct Queue {
    subscriber: Arc<Subscriber>,
    shard: ShardKey,
    queued: VecDeque<Queued>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.subscriber.tag.end_wait(now(), self.shard);
    }
}

impl Spill {
    /// Delivers an event, or keeps it behind those that the subscription has not taken yet.
    pub(super) fn offer(&mut self, shard: ShardKey, subscriber: &Arc<Subscriber>, queued: Queued) {
        let known = self.queues.iter().position(|queue| Arc::ptr_eq(&queue.subscriber, subscriber));
        let queued = match known {
            Some(_) => queued,
            None => match subscriber.offer(queued) {
                Ok(()) => return,
                Err(queued) => queued,
            },
        };
        let is_dispatch = matches!(queued.event, Event::Dispatch(_));
        if !is_dispatch && self.lifecycle >= CAPACITY {
            subscriber.miss(1);
            return;
        }
        self.events += 1;
        self.lifecycle += usize::from(!is_dispatch);
        self.bytes += bytes(&queued);
        let place = known.unwrap_or_else(|| {
            subscriber.tag.begin_wait(now(), shard);
            self.queues.push(Queue { subscriber: Arc::clone(subscriber), shard, queued: VecDeque::new() });
            self.queues.len() - 1
        });
        self.queues[place].queued.push_back(queued);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether the spill is full, so that nothing more may be read.
    pub(super) fn is_full(&self) -> bool {
        self.events >= CAPACITY
    }

    /// Whether there is room for the events that come before an awaited answer.
    pub(super) fn has_room_for_answers(&self) -> bool {
        self.events < AWAITED_EVENTS
            && self.bytes < AWAITED_BYTES
            && !self.queues.iter().any(|queue| queue.subscriber.is_awaited())
    }

    /// The subscriptions that are behind.
    pub(super) fn subscribers(&self) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.queues.iter().map(|queue| &queue.subscriber)
    }

    /// Waits until a subscription takes an event; forever, once the manager has ended or when the spill is
    /// empty. Returns the subscription that has caught up, and how long it was stalled, if that was reported.
    ///
    /// # Cancel safety
    ///
    /// Safe: events that were not taken stay, in order.
    pub(super) async fn deliver_one(&mut self) -> Option<(SubscriptionLabel, Duration)> {
        let firsts = self.queues.iter().filter_map(|queue| {
            let first = queue.queued.front()?.clone();
            Some(Box::pin(queue.subscriber.deliver(first)))
        });
        let firsts: Vec<_> = firsts.collect();
        if firsts.is_empty() {
            return std::future::pending().await;
        }
        let (delivered, place, _) = select_all(firsts).await;
        if !delivered {
            return std::future::pending().await;
        }
        let queue = &mut self.queues[place];
        if let Some(queued) = queue.queued.pop_front() {
            self.events -= 1;
            self.lifecycle -= usize::from(!matches!(queued.event, Event::Dispatch(_)));
            self.bytes -= bytes(&queued);
        }
        if !queue.queued.is_empty() {
            return None;
        }
        let Queue { subscriber, shard, .. } = &self.queues.remove(place);
        let stalled_for = subscriber.tag.end_wait(now(), *shard)?;
        Some((subscriber.tag.label(), stalled_for))
    }
}

fn bytes(queued: &Queued) -> usize {
    queued.event.dispatch().map_or(0, |dispatch| dispatch.data().len())
}

/// The spill of a driver that crashed. The shard's next publisher starts with it, because a resume would not
/// repeat all of it: lifecycle changes, READY and events of an earlier session are sent only once.
#[derive(Debug, Default)]
pub(crate) struct InheritedSpill(Mutex<Spill>);

impl InheritedSpill {
    pub(super) fn put(&self, spill: Spill) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A publisher that never began has an empty spill, which must not replace that of the publisher
        // before it.
        if !spill.is_empty() {
            *left = spill;
        }
    }

    pub(super) fn take(&self) -> Spill {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for InheritedSpill {
    /// Without a next publisher, events that nobody has taken are left to the next process.
    fn drop(&mut self) {
        for queue in &mut self.take().queues {
            for queued in queue.queued.drain(..) {
                match queued.token {
                    Some(token) if token.comes_again() => token.give_up(),
                    // Lifecycle changes, READY, and events of an earlier session: no resume repeats them, so
                    // they count as missed.
                    _ => queue.subscriber.miss(1),
                }
            }
        }
    }
}
