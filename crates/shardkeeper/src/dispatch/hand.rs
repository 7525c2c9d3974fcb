//! Tracks which event the reader of a subscription holds, and whether that reader awaits a shutdown
//! meanwhile.
//!
//! A shutdown waits for deliveries, so a task that awaits it while holding a delivery waits for itself. The
//! holder of a delivery is not known. But a task that read an event, has not asked the subscription for the
//! next one, and now awaits a shutdown must be inside the body of its read loop: it reads nothing more before
//! the shutdown completes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use super::Hub;
use crate::layout::ShardKey;
use futures_util::future::poll_fn;

/// Identity of the code that polls: a task, or the thread that runs a future outside of any task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Task(tokio::task::Id),
    Thread(ThreadId),
}

impl Reader {
    fn current() -> Self {
        tokio::task::try_id().map_or_else(|| Self::Thread(std::thread::current().id()), Self::Task)
    }
}

/// The event that was read last from a subscription, until its reader asks for more.
#[derive(Debug)]
struct Held {
    reader: Reader,
    /// Shard and number of the acknowledgement owed for the event, if any is owed.
    unacknowledged: Option<(ShardKey, u64)>,
    /// When the reader began to await a shutdown; `None` when it does not await one.
    awaits_end: Option<Instant>,
}

/// State of a subscription's reader.
#[derive(Debug, Default)]
pub(super) struct Hand(Mutex<Option<Held>>);

impl Hand {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the reader receives an event.
    pub(super) fn take(&self, unacknowledged: Option<(ShardKey, u64)>) {
        *self.held() = Some(Held { reader: Reader::current(), unacknowledged, awaits_end: None });
    }

    /// Notes that the reader asks for the next event while there is no event to read.
    pub(super) fn put_down(&self) {
        *self.held() = None;
    }

    /// Returns when the reader began to await a shutdown instead of reading on; `None` when it does not.
    pub(super) fn awaits_end_since(&self) -> Option<Instant> {
        self.held().as_ref()?.awaits_end
    }

    /// Whether the event that was read last is the one with this number.
    pub(super) fn holds(&self, shard: ShardKey, number: u64) -> bool {
        self.held().as_ref().is_some_and(|held| held.unacknowledged == Some((shard, number)))
    }

    fn mark(&self, reader: Reader, awaits: bool) {
        if let Some(held) = self.held().as_mut().filter(|held| held.reader == reader) {
            held.awaits_end = awaits.then(|| held.awaits_end.unwrap_or_else(super::now));
        }
    }
}

/// Awaits a shutdown, and marks subscriptions whose deliveries are held by the awaiting task, so that the
/// shutdown need not wait for these.
///
/// # Cancel safety
///
/// The same as of `end`.
pub(crate) async fn await_end<T>(hub: Arc<Hub>, end: impl Future<Output = T>) -> T {
    let mut end = std::pin::pin!(end);
    let mut awaiting = Awaiting { hub, reader: None };
    poll_fn(|context| {
        let reader = Reader::current();
        awaiting.reader = Some(reader);
        awaiting.hub.tags().iter().for_each(|tag| tag.hand.mark(reader, true));
        end.as_mut().poll(context)
    })
    .await
}

struct Awaiting {
    hub: Arc<Hub>,
    /// The task or thread that polled last.
    reader: Option<Reader>,
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        if let Some(reader) = self.reader {
            self.hub.tags().iter().for_each(|tag| tag.hand.mark(reader, false));
        }
    }
}
