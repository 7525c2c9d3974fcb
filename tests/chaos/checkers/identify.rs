//! The pace and the budget of Identify, from the simulator's log: beside its judge, who knows more and may err.

use std::collections::BTreeMap;

use shardkeeper_sim::Report;

use crate::plan::{Class, Plan};
use crate::trace::Trace;

const WINDOW_MS: u64 = 5000;
/// What the library never spends.
const RESERVE: u32 = 10;

/// So many shards had to begin anew, since their process came without what it takes to resume them.
pub(crate) fn judge(plan: &Plan, report: &Report, anew: u32, trace: &Trace) {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for record in report.identify_log.iter() {
        if let Some(before) = last.insert(record.shard_id % plan.max_concurrency, record.at_ms)
            && record.at_ms < before + WINDOW_MS
        {
            trace.complain(format_args!(
                "{record:?} only {} ms after the last of its key",
                record.at_ms - before
            ));
        }
    }
    // Other processes may spend some that one does not know of.
    if plan.elsewhere == 0 && report.remaining < RESERVE {
        trace.complain(format_args!("only {} Identify are left of the day's", report.remaining));
    }
    // One that has just begun does not survive what an older one does.
    if plan.class == Class::Gentle && anew == 0 && report.identifies != u64::from(plan.shards) {
        trace.complain(format_args!(
            "{} Identify for {} shards, and no session died",
            report.identifies, plan.shards
        ));
    }
}
