//! Queues keep their bounds, and nothing is left when all is over.

use std::time::Duration;

use shardkeeper::Subscription;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::pace::Pace;
use crate::trace::Trace;

/// A subscription never holds more than it may.
pub(crate) fn backlog(subscription: &Subscription, capacity: usize, trace: &Trace) {
    let backlog = subscription.backlog();
    if backlog > capacity {
        trace.complain(format_args!("a subscription of capacity {capacity} holds {backlog}"));
    }
}

/// How many tasks live now.
pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Every task of bot and simulator ends when these have: no more live than before they began.
pub(crate) async fn nothing_is_left(before: usize, pace: &Pace, trace: &Trace) {
    // Connections that the bot has given up, and commands that nobody waits for.
    let deadline = Instant::now() + pace.limit(Duration::from_secs(700));
    while Instant::now() < deadline {
        if tasks() <= before {
            return;
        }
        sleep(pace.look_every()).await;
    }
    trace.complain(format_args!("{} tasks are left behind", tasks() - before));
}
