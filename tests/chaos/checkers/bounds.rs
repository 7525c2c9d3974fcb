//! Checks that queues keep their bounds, and that nothing is left at the end.

use std::time::Duration;

use shardkeeper::Subscription;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::pace::Pace;
use crate::trace::Trace;

/// Checks that a subscription does not hold more than its capacity.
pub(crate) fn backlog(subscription: &Subscription, capacity: usize, trace: &Trace) {
    let backlog = subscription.backlog();
    if backlog > capacity {
        trace.complain(format_args!("a subscription of capacity {capacity} holds {backlog}"));
    }
}

/// The number of tasks alive now.
pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Checks that every task of the bot and of the simulator ends: no more are alive than before the run.
pub(crate) async fn nothing_is_left(before: usize, pace: &Pace, trace: &Trace) {
    // Long enough for abandoned connections, and for commands without a caller.
    let deadline = Instant::now() + pace.limit(Duration::from_secs(700));
    while Instant::now() < deadline {
        if tasks() <= before {
            return;
        }
        sleep(pace.look_every()).await;
    }
    trace.complain(format_args!("{} tasks are left behind", tasks() - before));
}
