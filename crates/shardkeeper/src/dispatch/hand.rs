//! What the task that reads a subscription has in its hands, and whether it awaits an end meanwhile.
//!
//! An end waits for deliveries, so a task that awaits it with a delivery in its hands waits for itself. Who holds a delivery
//! cannot be known. But a task that read an event, has not asked the subscription for the next one, and awaits an end since then
//! is inside the body of its loop: it reads nothing before the end has come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use futures_util::future::poll_fn;
use shardkeeper_proto::ShardId;

use super::Hub;

/// Who polls: a task, or the thread that runs a future outside of any.
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

/// What was read last from a subscription, until its reader asks for more.
#[derive(Debug)]
struct Held {
    reader: Reader,
    /// The shard and the number of the acknowledgement that is outstanding, if one is.
    unacknowledged: Option<(ShardId, u64)>,
    /// Since when its reader awaits an end.
    awaits_end: Option<Instant>,
}

/// The hand of a subscription's reader.
#[derive(Debug, Default)]
pub(super) struct Hand(Mutex<Option<Held>>);

impl Hand {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader gets an event.
    pub(super) fn take(&self, unacknowledged: Option<(ShardId, u64)>) {
        *self.held() = Some(Held { reader: Reader::current(), unacknowledged, awaits_end: None });
    }

    /// The reader asks for the next event, and there is none yet.
    pub(super) fn put_down(&self) {
        *self.held() = None;
    }

    /// Since when the reader awaits an end instead of reading on.
    pub(super) fn awaits_end_since(&self) -> Option<Instant> {
        self.held().as_ref()?.awaits_end
    }

    /// Whether this is what was read last.
    pub(super) fn holds(&self, shard: ShardId, number: u64) -> bool {
        self.held().as_ref().is_some_and(|held| held.unacknowledged == Some((shard, number)))
    }

    fn mark(&self, reader: Reader, awaits: bool) {
        if let Some(held) = self.held().as_mut().filter(|held| held.reader == reader) {
            held.awaits_end = awaits.then(|| held.awaits_end.unwrap_or_else(super::now));
        }
    }
}

/// Awaits an end, and lets those who bring it about know whose hands are full meanwhile.
///
/// # Cancel safety
///
/// As safe as `end`.
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
    /// Who polled last.
    reader: Option<Reader>,
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        if let Some(reader) = self.reader {
            self.hub.tags().iter().for_each(|tag| tag.hand.mark(reader, false));
        }
    }
}
