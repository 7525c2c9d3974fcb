//! Every call to the handle is answered in time.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::pace::Pace;
use crate::trace::Trace;

/// What asks a mailbox alone. Time passes there only while handlers wait, and none may.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);
/// What ends with shards: the deadline of an end, which is 10 s.
pub(crate) const ENDING: Duration = Duration::from_secs(11);
/// What a shard has to send: the longest life of a command, which is 10 min, and a moment.
pub(crate) const SENDING: Duration = Duration::from_secs(610);
/// Members: that, twice, since a request that is lost with its connection is sent again; the windows of the requests
/// before it; and 30 s without a chunk.
pub(crate) const COLLECTING: Duration = Duration::from_secs(3600);

/// The calls that are not answered yet. Clones count the same ones.
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

    /// Waits for the answer, for so long.
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
