//! What Identify and Resume have in common.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::fault::ConnectFault;
use crate::judge::Finding;
use crate::judgement;
use crate::link::Link;
use crate::wire::Mode;

/// An attempt to log in, apart from its payload.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) mode: Mode,
    pub(crate) link: &'a Arc<Link>,
    pub(crate) fault: Option<ConnectFault>,
    /// When the client wrote the payload (in memory), or when it was read (over TCP), by tokio's clock.
    pub(crate) at: Instant,
}

/// The result of an Identify or Resume.
pub(crate) enum Login {
    Accepted {
        session: String,
    },
    /// No answer, because of a fault.
    Ignored,
    /// Op 9.
    Refused,
    /// A close frame.
    Closed {
        code: u16,
        reason: &'static str,
    },
}

/// Judges the wait between op 9 and the next login (GW-149: at least 1 s). A login that was written before op
/// 9 is not judged.
pub(super) fn judge_pause(
    state: &State,
    shard: (u32, u32),
    at: Instant,
    wait: Duration,
    findings: &mut Vec<Finding>,
) {
    if let Some(since) = state.refusals.since_invalidated(shard, at).filter(|since| *since < wait) {
        findings.push((
            judgement::LOGIN_TOO_SOON,
            format!("a login {since:?} after op 9; the wait is at least {wait:?}"),
        ));
    }
}

/// Adds findings to the report.
pub(super) fn report(discord: &Discord, shard: Option<u32>, findings: Vec<Finding>) {
    for (judgement, detail) in findings {
        discord.judge(judgement, shard, detail);
    }
}
