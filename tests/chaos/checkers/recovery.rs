//! Every shard is ready again within a time that can be stated.

use std::time::Duration;

use shardkeeper::{RestartPolicy, Timings};

use crate::plan::Plan;

/// How long after the last fault every shard is ready and has delivered everything, at the latest: each wait that there
/// is, at its longest and one after the other.
pub(crate) fn bound(plan: &Plan) -> Duration {
    let (timings, policy) = (Timings::default(), RestartPolicy::default());
    let heartbeats = 2 * Duration::from_millis(41_250);
    // A connection that has just died unnoticed, and one that was being made when the faults ended.
    let notice = heartbeats + timings.close;
    let attempt = timings.connect + timings.hello + timings.ready + timings.close;
    // The longest waits before the next attempt: after failed connections, failed sessions, crashes.
    let waits = timings.reconnect.cap + timings.identify.cap + policy.quarantine + policy.fleet_window * 2;
    // Then everybody may need an Identify, one per key and window; and the first of a key may be gone once it has its turn.
    let window = timings.identify_window + timings.identify_margin + plan.latency * 4;
    let queue = window * plan.shards.div_ceil(plan.max_concurrency) + timings.requeue;
    // Nothing but the day's end helps when the budget is used up.
    let budget = if plan.identify_remaining < 100 { Duration::from_secs(24 * 3600) } else { Duration::ZERO };
    notice + 2 * attempt + waits + queue + budget
}
