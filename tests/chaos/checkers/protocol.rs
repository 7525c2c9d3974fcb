//! No rule of Discord broken, and no advice ignored without a reason.

use shardkeeper_sim::Report;

use crate::pace::Pace;
use crate::plan::Plan;
use crate::trace::Trace;

/// What Discord advises against, and what leads to it here.
const ADVICE: [&str; 2] = [
    // A shard that crashes, or is restarted, on its way lets the next one of its key go first.
    "GW-171",
    // A resume URL that cannot be reached is tried in turn with the bootstrap URL (GW-139).
    "GW-132",
];

/// Answers that Discord waits for, and that a shard gives late or not at all while a lossless subscriber keeps it from
/// reading. GW-114: an acknowledgement that may lie unread is not missing.
const UNREAD: [&str; 4] = ["GW-114", "GW-115", "GW-118", "GW-144"];

/// A session that is resumed though Discord has said that it is over, or too soon after op 9. The simulator judges by what it
/// has written; what was under way, or lay unread, when the connection or the shard broke down, nobody has heard. And whoever
/// comes back after a crash, or in place of another process, does not know that op 9 was just there.
const UNHEARD: [&str; 7] = ["GW-079", "GW-082", "GW-083", "GW-085", "GW-140", "GW-148", "GW-149"];

/// The interval between two heartbeats, which the simulator measures by when it reads them: in real time a part of a second
/// matters there, since the interval itself is compressed to less than one.
const HEARTBEAT_INTERVAL: &str = "GW-118";

/// Limits in time. A machine that was late may have put two that were far enough apart next to each other.
const TIMED: [&str; 4] = ["GW-155", "GW-161", "GW-162", "GW-170"];

pub(crate) fn judge(plan: &Plan, pace: &Pace, report: &Report, trace: &Trace) {
    let hears = plan.reads_always() && plan.latency.is_zero() && !plan.breaks_down() && !pace.is_real();
    let undecidable =
        |rule| pace.is_undecidable() && TIMED.contains(&rule) || pace.is_real() && rule == HEARTBEAT_INTERVAL;
    for violation in report.violations.iter().filter(|violation| !undecidable(violation.rule)) {
        let unread = UNREAD.contains(&violation.rule) && !plan.reads_always();
        if !unread && (hears || !UNHEARD.contains(&violation.rule)) {
            trace.complain(format_args!("violation {violation}"));
        }
    }
    let counts = |rule| !ADVICE.contains(&rule) && !undecidable(rule);
    for notice in report.notices.iter().filter(|notice| counts(notice.rule)) {
        if UNREAD.contains(&notice.rule) && !plan.reads_always() {
            continue;
        }
        if UNHEARD.contains(&notice.rule) && !hears {
            continue;
        }
        trace.complain(format_args!("notice {notice}"));
    }
}
