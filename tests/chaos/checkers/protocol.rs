//! Checks that no rule of Discord was broken, and no advice ignored without a reason.

use shardkeeper_sim::Report;

use crate::pace::Pace;
use crate::plan::Plan;
use crate::resharding;
use crate::trace::Trace;

/// The advice of Discord that may be ignored here, with the reasons.
const ADVICE: [&str; 2] = [
    // GW-171 (order of Identify): a shard that crashes or restarts before its Identify lets the next one of
    // its key go first.
    "GW-171",
    // GW-132 (resume at the session's URL): an unreachable resume URL is tried alternately with the bootstrap
    // URL (GW-139).
    "GW-132",
];

/// Rules about answers that a shard sends late or never while a lossless subscriber blocks its reading.
/// GW-114: an acknowledgement that may lie unread does not count as missing.
const UNREAD: [&str; 4] = ["GW-114", "GW-115", "GW-118", "GW-144"];

/// Rules about resuming a session that Discord has ended, or resuming too soon after op 9. The simulator
/// judges by what it has written, but nobody read what was in transit or unread when the connection or the
/// shard failed. A shard that restarts after a crash, or in another process, does not know of an op 9 just
/// before.
const UNHEARD: [&str; 7] = ["GW-079", "GW-082", "GW-083", "GW-085", "GW-140", "GW-148", "GW-149"];

/// The interval between two heartbeats, which the simulator measures when it reads them. In real time a
/// fraction of a second matters, since the interval itself is compressed to less than a second.
const HEARTBEAT_INTERVAL: &str = "GW-118";

/// Rules with time limits. On a machine that is late, two events that were far enough apart may be read close
/// together.
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

/// Judges a run in which shards are replaced. The old ones show with a heartbeat before its time (GW-118) that
/// they have read everything, and a lossless subscriber may block their reading.
pub(crate) fn judge_reshard(plan: &resharding::Plan, pace: &Pace, report: &Report, trace: &Trace) {
    let hears = plan.gentle && plan.latency.is_zero() && plan.capacity > 1000 && plan.steps.is_empty();
    let counts = |rule: &str| {
        !ADVICE.contains(&rule)
            && !UNREAD.contains(&rule)
            && !(pace.is_undecidable() && TIMED.contains(&rule))
            && (hears || !UNHEARD.contains(&rule))
    };
    for violation in report.violations.iter().filter(|violation| counts(violation.rule)) {
        trace.complain(format_args!("violation {violation}"));
    }
    // GW-243 (close old sessions with 1000): a process that is killed, or a connection that is lost, closes none.
    let closes = |rule: &str| plan.gentle || rule != "GW-243";
    let counts = |rule: &str| counts(rule) && closes(rule);
    for notice in report.notices.iter().filter(|notice| counts(notice.rule)) {
        trace.complain(format_args!("notice {notice}"));
    }
}
