//! Queues keep their bounds, and nothing is left when all is over.

use std::time::Duration;

use shardkeeper::Subscription;
use tokio::runtime::Handle;

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
pub(crate) async fn nothing_is_left(before: usize, trace: &Trace) {
    // Connections that the bot has given up, and commands that nobody waits for.
    for _ in 0..700 {
        if tasks() <= before {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    trace.complain(format_args!("{} tasks are left behind", tasks() - before));
}
