//! Checks that every shard is ready again within the time that the manual promises (`How long a shard is
//! away`).

use std::time::Duration;

use crate::pace::Pace;
use crate::plan::Plan;

/// The longest time from the last fault until every shard is ready and has delivered everything. Includes
/// only those parts of the manual's table that this plan can cause.
pub(crate) fn bound(plan: &Plan, pace: &Pace) -> Duration {
    let (timings, policy) = (pace.timings(), pace.restart_policy());
    // A connection that was lost unnoticed, or an attempt that failed, whichever takes longer.
    let lost = (2 * pace.sim_timings().heartbeat_interval).max(timings.ready) + timings.close;
    let wait = timings.reconnect.cap;
    // Discord may have forgotten all sessions, so that every shard needs an Identify, one per key and window;
    // the connection of the first one of a key may be gone when it gets its permit.
    let window = timings.identify_window + timings.identify_margin + plan.latency * 4;
    let queue = window * plan.shards.div_ceil(plan.max_concurrency) + timings.requeue;
    let forgotten = timings.reconnect.cap + queue;
    let refused = timings.identify.delay(plan.refused_identifies(), 1.0);
    let crashes = plan.most_crashes();
    let crashed = match crashes.checked_sub(policy.quarantine_after as u32) {
        Some(over) => policy.quarantine.saturating_mul(2_u32.saturating_pow(over)).min(policy.quarantine_cap),
        None => policy.backoff.delay(crashes, 1.0),
    };
    // When the budget is used up, shards wait for the end of the day.
    let budget = if plan.identify_remaining < 100 { Duration::from_secs(24 * 3600) } else { Duration::ZERO };
    lost + wait + forgotten + refused + crashed + budget + pace.slack()
}
