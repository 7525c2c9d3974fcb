//! Checks the pace and the budget of Identify in the simulator's log, independently of the simulator's own
//! checks.

use std::collections::BTreeMap;

use shardkeeper_sim::{IdentifyRecord, Report};

use crate::pace::Pace;
use crate::plan::{Class, Plan};
use crate::trace::Trace;

/// How many Identify the library keeps in reserve.
const RESERVE: u32 = 10;

/// Judges the log. `beginnings` counts how often each shard had to begin without a session: at its first start,
/// when its process started without a session to resume, and when the operator requested a new one.
pub(crate) fn judge(
    plan: &Plan,
    pace: &Pace,
    report: &Report,
    beginnings: &BTreeMap<u32, u32>,
    trace: &Trace,
) {
    let window_ms = u64::try_from(pace.sim_timings().identify_window.as_millis()).unwrap_or(u64::MAX);
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let mut in_order: Vec<_> = report.identify_log.iter().collect();
    // The log is in the order of reading; the times in it may differ slightly.
    in_order.sort_by_key(|record| record.at_ms);
    for record in in_order {
        if let Some(before) = last.insert(record.shard_id % plan.max_concurrency, record.at_ms)
            && record.at_ms < before + window_ms
            && !pace.is_undecidable()
        {
            trace.complain(format_args!(
                "{record:?} only {} ms after the last of its key",
                record.at_ms - before
            ));
        }
    }
    // Other processes may use some that this process does not know of.
    if plan.elsewhere == 0 && report.remaining < RESERVE {
        trace.complain(format_args!("only {} Identify are left of the day's", report.remaining));
    }
    // A session that has just begun does not survive what an established one does.
    let again = |shard: u32| beginnings.get(&shard).map_or(0, |begins| begins.saturating_sub(1)) as usize;
    if plan.class == Class::Gentle
        && (0..plan.shards).all(|shard| again(shard) == 0)
        && report.identifies != u64::from(plan.shards)
    {
        trace.complain(format_args!(
            "{} Identify for {} shards, and no session died",
            report.identifies, plan.shards
        ));
    }
    // Only the operator gives up a session that could be resumed. A shard without a session may need several
    // attempts to get one.
    for shard in 0..plan.shards {
        let is_needless =
            |record: &&IdentifyRecord| record.shard_id == shard && record.held && record.accepted;
        let needless: Vec<_> = report.identify_log.iter().filter(is_needless).collect();
        if needless.len() > again(shard) {
            trace.complain(format_args!(
                "Identify of shard {shard}, whose session was there to be resumed: {needless:?}, where {} had their reason",
                again(shard)
            ));
        }
    }
}
