//! No rule of Discord broken, and no advice ignored without a reason.

use shardkeeper_sim::Report;

use crate::plan::Plan;
use crate::trace::Trace;

/// What Discord advises against, and what leads to it here.
const ADVICE: [&str; 2] = [
    // A shard that crashes, or is restarted, on its way lets the next one of its key go first.
    "GW-171",
    // A resume URL that cannot be reached is tried in turn with the bootstrap URL (GW-139).
    "GW-132",
];

/// Answers that Discord waits for, and that a shard does not give while a lossless subscriber keeps it from reading.
const UNREAD: [&str; 2] = ["GW-115", "GW-144"];

pub(crate) fn judge(plan: &Plan, report: &Report, trace: &Trace) {
    for violation in &report.violations {
        if plan.reads_always() || !UNREAD.contains(&violation.rule) {
            trace.complain(format_args!("violation {violation}"));
        }
    }
    for notice in report.notices.iter().filter(|notice| !ADVICE.contains(&notice.rule)) {
        trace.complain(format_args!("notice {notice}"));
    }
}
