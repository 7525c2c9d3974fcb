//! What the simulator has seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::judgement::Grade;

/// Everything that was counted, and every rule that was broken.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// WebSockets that were asked for.
    pub connections: u64,
    /// Connections that were closed at once, since there were [`SimConfig::max_connections`](crate::SimConfig::max_connections)
    /// already.
    pub connections_refused: u64,
    /// Identify received.
    pub identifies: u64,
    /// Of those, refused with op 9.
    pub identifies_refused: u64,
    /// Sessions resumed.
    pub resumes: u64,
    /// Resumes refused.
    pub resumes_refused: u64,
    /// Dispatches sent again in resumes.
    pub replayed: u64,
    /// Dispatches generated in every session, each once. RESUMED does not count.
    pub sent: u64,
    /// Heartbeats received.
    pub heartbeats: u64,
    /// Commands received: everything but heartbeats, Identify and Resume.
    pub commands: u64,
    /// Requests for all members of a guild that came too early (GW-163).
    pub members_limited: u64,
    /// REST requests received.
    pub rest_requests: u64,
    /// Sessions with a connection now.
    pub ready_sessions: u64,
    /// Identify left in the current period.
    pub remaining: u32,
    /// Each Identify in the order in which they came; the first 100,000.
    #[serde(serialize_with = "as_list")]
    pub identify_log: Arc<Vec<IdentifyRecord>>,
    /// The presence of each shard, as the client set it last.
    pub presences: BTreeMap<u32, serde_json::Value>,
    /// What the client did that Discord would close, refuse or drop the session for ([`Grade::Violation`]); the first
    /// 1,000.
    pub violations: Vec<Violation>,
    /// What Discord advises against and takes all the same ([`Grade::Advice`]); the first 1,000.
    pub notices: Vec<Violation>,
}

/// The log is shared with the reports that were taken: one costs as much after 100,000 Identify as after one.
fn as_list<S: Serializer>(log: &Arc<Vec<IdentifyRecord>>, serializer: S) -> Result<S::Ok, S::Error> {
    log.as_slice().serialize(serializer)
}

/// One Identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IdentifyRecord {
    /// The shard.
    pub shard_id: u32,
    /// Of how many.
    pub shard_count: u32,
    /// Its key: the shard modulo `max_concurrency`.
    pub key: u32,
    /// When it was written, or over TCP read, in milliseconds since the simulator started.
    pub at_ms: u64,
    /// Whether a session was started.
    pub accepted: bool,
    /// A session of this shard could have been resumed: it is alive, the client knew of it, and was not told that it is over.
    pub held: bool,
}

/// A rule that the client broke, or an advice that it did not take: a [`Judgement`](crate::Judgement) of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// How grave it is.
    pub grade: Grade,
    /// Why it has this grade: what Discord does about it.
    pub reason: &'static str,
    /// The shard, where it is known.
    pub shard_id: Option<u32>,
    /// When, in milliseconds since the simulator started.
    pub at_ms: u64,
    /// What happened.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms", self.rule, self.at_ms)?;
        if let Some(shard) = self.shard_id {
            write!(f, " by shard {shard}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What was sent in one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionRecord {
    /// Its shard.
    pub shard_id: u32,
    /// Its number, counted over the simulator's life: the second one in the traces of its dispatches.
    pub session: u64,
    /// Its id, as READY had it; empty when Discord has forgotten it.
    pub id: String,
    /// How many dispatches were generated for it; they are numbered from 1. RESUMED does not count.
    pub sent: u64,
    /// The numbers of those that went out behind later ones.
    pub late: Vec<u64>,
    /// It has a connection, or can be resumed.
    pub alive: bool,
    /// It has a connection.
    pub connected: bool,
}

/// What became of the dispatches, as far as a subscriber told with [`Simulator::observe`](crate::Simulator::observe). Of
/// clients in other processes it cannot be known; the report over HTTP leaves it out until something was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Delivery {
    /// Dispatches generated for sessions that were ever heard of. RESUMED does not count.
    pub sent: u64,
    /// Of those, how many were observed.
    pub delivered: u64,
    /// The difference.
    pub lost: u64,
    /// Observed more than once.
    pub duplicated: u64,
    /// Observed for the first time after a later one of the same shard.
    pub out_of_order: u64,
}
