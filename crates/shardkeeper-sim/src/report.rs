//! The report: everything that the simulator has counted and judged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::judgement::Grade;

/// The counts since the simulator started, and the rules that its clients broke.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// WebSocket handshakes received.
    pub connections: u64,
    /// Connections that were closed at once because
    /// [`SimConfig::max_connections`](crate::SimConfig::max_connections) was reached.
    pub connections_refused: u64,
    /// Identify received.
    pub identifies: u64,
    /// Identify refused with op 9.
    pub identifies_refused: u64,
    /// Sessions resumed.
    pub resumes: u64,
    /// Resumes refused.
    pub resumes_refused: u64,
    /// Dispatches sent again in resumes.
    pub replayed: u64,
    /// Dispatches sent in all sessions, each counted once. RESUMED does not count.
    pub sent: u64,
    /// Heartbeats received.
    pub heartbeats: u64,
    /// Commands received: everything except heartbeats, Identify and Resume.
    pub commands: u64,
    /// Requests for all members of a guild that were answered with RATE_LIMITED (GW-163).
    pub members_limited: u64,
    /// REST requests received.
    pub rest_requests: u64,
    /// Sessions that have a connection now.
    pub ready_sessions: u64,
    /// How many Identify are left in the current period.
    pub remaining: u32,
    /// The first 100,000 Identify, in the order of their arrival.
    #[serde(serialize_with = "as_list")]
    pub identify_log: Arc<Vec<IdentifyRecord>>,
    /// The last presence that the client set, by shard. While a bot has two layouts, shards of both have the
    /// same ids: [`SessionRecord::presence`] tells them apart.
    pub presences: BTreeMap<u32, serde_json::Value>,
    /// The first 1,000 acts for which Discord would close the connection, refuse the client, or drop the
    /// session ([`Grade::Violation`]).
    pub violations: Vec<Violation>,
    /// The first 1,000 acts that Discord advises against but accepts ([`Grade::Advice`]).
    pub notices: Vec<Violation>,
}

/// How many violations, and how many notices, a report keeps.
const MAX_JUDGED: usize = 1_000;
/// How many Identify a report keeps.
const MAX_IDENTIFY_LOG: usize = 100_000;

impl Report {
    /// Adds a violation or a notice, by its grade.
    pub(crate) fn judge(&mut self, entry: Violation) {
        let list = match entry.grade {
            Grade::Violation => &mut self.violations,
            Grade::Advice => &mut self.notices,
        };
        if list.len() < MAX_JUDGED {
            list.push(entry);
        }
    }

    pub(crate) fn log_identify(&mut self, record: IdentifyRecord) {
        if self.identify_log.len() < MAX_IDENTIFY_LOG {
            Arc::make_mut(&mut self.identify_log).push(record);
        }
    }
}

/// Serializes the log as a list. It is behind an `Arc` so that taking a report does not copy up to 100,000
/// records.
fn as_list<S: Serializer>(log: &Arc<Vec<IdentifyRecord>>, serializer: S) -> Result<S::Ok, S::Error> {
    log.as_slice().serialize(serializer)
}

/// One Identify, accepted or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IdentifyRecord {
    /// The shard.
    pub shard_id: u32,
    /// The number of shards.
    pub shard_count: u32,
    /// The key of the rate limit: the shard modulo `max_concurrency`.
    pub key: u32,
    /// When the client wrote it (in memory) or the simulator read it (over TCP), in milliseconds since the
    /// simulator started.
    pub at_ms: u64,
    /// Whether a session was started.
    pub accepted: bool,
    /// Whether the client could have resumed a session of this shard instead: the session was alive, the
    /// client knew it, and nothing had told the client that the session was over.
    pub held: bool,
    /// Whether a session of the same shard and number of shards was connected, so that there are two of them
    /// from now on (GW-231).
    pub beside: bool,
}

/// One case in which a client broke a rule or ignored an advice, with the text of its
/// [`Judgement`](crate::Judgement).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// The number of the rule, `GW-nnn`.
    pub rule: &'static str,
    /// The grade.
    pub grade: Grade,
    /// The reason for the grade: what Discord does about it.
    pub reason: &'static str,
    /// The shard, if it is known.
    pub shard_id: Option<u32>,
    /// The time, in milliseconds since the simulator started.
    pub at_ms: u64,
    /// What the client did.
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

/// One session, and what was sent in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The shard of the session.
    pub shard_id: u32,
    /// The number of shards that the session identified with.
    pub shard_count: u32,
    /// The number of the session, counted over the simulator's life. It is the second number in the traces of
    /// its dispatches.
    pub session: u64,
    /// The session id in READY; empty once the session is forgotten.
    pub id: String,
    /// How many dispatches were sent in the session; they are numbered from 1. RESUMED does not count.
    pub sent: u64,
    /// The numbers of the dispatches that [`Fault::Reorder`](crate::Fault::Reorder) delayed.
    pub late: Vec<u64>,
    /// Whether the session has a connection or can be resumed.
    pub alive: bool,
    /// Whether the session has a connection.
    pub connected: bool,
    /// The last presence that the client set in the session; `None` once the session is forgotten.
    pub presence: Option<serde_json::Value>,
}

/// What the client's subscribers received of the events in all guilds, over all sessions of all layouts,
/// according to [`Simulator::observe_event`](crate::Simulator::observe_event).
///
/// An event counts if at least one session that receives it was connected or resumable when it happened. Events
/// that belong to one session (READY, the GUILD_CREATEs after it, answers to commands) do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorldDelivery {
    /// Events that count.
    pub happened: u64,
    /// Events that were observed at least once.
    pub observed: u64,
    /// Events that were not observed (yet), though a session that received them could deliver them.
    pub lost: u64,
    /// Events that were not observed because Discord dropped every session that had received them, or the
    /// client had closed the session before.
    pub excused: u64,
    /// Repeated observations of the same event, beyond what a fault sent twice.
    pub doubled: u64,
    /// Those of `doubled` that the client marked as possible repetitions.
    pub doubled_marked: u64,
    /// Events observed for the first time after a later one of the same guild. An event with repeating content
    /// counts only if it comes after a later event with unique content.
    pub out_of_order: u64,
    /// Events that were forgotten before they were observed, because there were more than
    /// [`SimConfig::history_limit`](crate::SimConfig::history_limit).
    pub unjudged: u64,
    /// The guilds in which something is wrong.
    pub guilds: Vec<GuildDelivery>,
    /// The first 100 lost events.
    pub lost_events: Vec<LostEvent>,
}

impl WorldDelivery {
    /// Whether each event was observed exactly once, apart from marked repetitions, and in order.
    pub fn is_flawless(&self) -> bool {
        (self.lost, self.doubled, self.out_of_order, self.unjudged) == (0, self.doubled_marked, 0, 0)
    }

    pub(crate) fn add(&mut self, guild: GuildDelivery) {
        self.happened += guild.happened;
        self.observed += guild.observed;
        self.lost += guild.lost;
        self.doubled += guild.doubled;
        self.doubled_marked += guild.doubled_marked;
        self.out_of_order += guild.out_of_order;
        self.unjudged += guild.unjudged;
        if (guild.lost, guild.doubled, guild.out_of_order, guild.unjudged) != (0, 0, 0, 0) {
            self.guilds.push(guild);
        }
    }
}

/// The part of a [`WorldDelivery`] that concerns one guild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GuildDelivery {
    /// The guild; `None` for events outside of guilds.
    pub guild_id: Option<u64>,
    /// Events that count.
    pub happened: u64,
    /// Events that were observed at least once.
    pub observed: u64,
    /// Events that were not observed (yet).
    pub lost: u64,
    /// Repeated observations.
    pub doubled: u64,
    /// Repeated observations that were marked.
    pub doubled_marked: u64,
    /// Events observed after a later one.
    pub out_of_order: u64,
    /// Events that were forgotten before they were observed.
    pub unjudged: u64,
}

/// An event that no subscriber observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostEvent {
    /// The serial number of the event.
    pub serial: u64,
    /// The guild; `None` for an event outside of guilds.
    pub guild_id: Option<u64>,
    /// The name of the event.
    pub event: String,
    /// The numbers of the sessions that received it.
    pub sessions: Vec<u64>,
}

/// How many dispatches reached the client, according to [`Simulator::observe`](crate::Simulator::observe).
///
/// Clients in other processes do not call it, so the report over HTTP has no delivery until the first call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Delivery {
    /// Dispatches sent in sessions that the client knew of. RESUMED does not count.
    pub sent: u64,
    /// Dispatches observed.
    pub delivered: u64,
    /// Dispatches not observed (yet): `sent` minus `delivered`.
    pub lost: u64,
    /// Repeated observations of the same dispatch.
    pub duplicated: u64,
    /// Dispatches observed for the first time after a later one of the same shard.
    pub out_of_order: u64,
}
