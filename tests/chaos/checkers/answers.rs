//! Checks that every call to the handle is answered in time.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::pace::Pace;
use crate::trace::Trace;

/// The limit for calls that only ask a mailbox. Time passes there only while handlers wait, and none may.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);
/// The limit for calls that end shards: the shutdown timeout of 10 s, and a margin.
pub(crate) const ENDING: Duration = Duration::from_secs(11);
/// The limit for calls that send a payload: the longest lifetime of a command, which is 10 min, and a margin.
pub(crate) const SENDING: Duration = Duration::from_secs(610);
/// The limit for requests of members: the lifetime of a command, twice, since a request that is lost with its
/// connection is sent again; the windows of the requests before it; and 30 s without a chunk.
pub(crate) const COLLECTING: Duration = Duration::from_secs(3600);

/// Counts the calls that are not answered yet. Clones share the count.
#[derive(Clone)]
pub(crate) struct Answers {
    trace: Trace,
    pace: Pace,
    open: Arc<AtomicUsize>,
}

impl Answers {
    pub(crate) fn new(trace: Trace, pace: Pace) -> Self {
        Self { trace, pace, open: Arc::default() }
    }

    /// Waits for the answer, up to the limit.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        what: impl Display,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let limit = self.pace.limit(limit);
        self.open.fetch_add(1, Ordering::Relaxed);
        let answer = timeout(limit, call).await.ok();
        self.open.fetch_sub(1, Ordering::Relaxed);
        if answer.is_none() {
            self.trace.complain(format_args!("{what}: no answer within {limit:?}"));
        }
        answer
    }

    pub(crate) fn are_complete(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}
