//! Status types: the state of shards, of the identify queue and of the manager at one moment.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
pub use shardkeeper_proto::CloseCode;
pub use shardkeeper_proto::shard::{Change, FatalClose, Initiator, Next, Reason};
use shardkeeper_proto::{ShardCount, ShardId};

pub use crate::layout::{Role, ShardKey};

use crate::dispatch::{HeldUp, WatermarkStuck, elapsed_since};
pub use crate::reshard::{GroupPhase, HaltReason};

/// Number of heartbeat latencies that are kept per shard: about eleven minutes of heartbeats.
pub const LATENCIES: usize = 16;

/// Phase in the life of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Not started yet, or between two incarnations of its actor.
    Starting,
    /// Waiting in the identify queue.
    Queued,
    /// Opening a connection.
    Connecting,
    /// Connected, and waiting for the permit to identify.
    AwaitingPermit,
    /// Identify is being sent or was sent; READY has not come yet.
    Identifying,
    /// Resuming the session.
    Resuming,
    /// In service.
    Ready,
    /// Without a connection, and waiting before it connects again.
    Disconnected,
    /// Crashed too often, and restarted only from time to time.
    Quarantined,
    /// Refused by Discord.
    Refused,
    /// Ended on request.
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::AwaitingPermit => "at hello",
            Self::Identifying => "identifying",
            Self::Resuming => "resuming",
            Self::Ready => "ready",
            Self::Disconnected => "disconnected",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        })
    }
}

/// State of one shard at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ShardStatus {
    /// Id of the shard.
    pub shard: ShardId,
    /// Shard count of the layout.
    pub count: ShardCount,
    /// Generation of the layout.
    pub generation: u32,
    /// Part of the shard in a reshard; [`Role::Active`] when there is none.
    pub role: Role,
    /// Number of times the shard's actor was restarted after a crash.
    pub restarts: u32,
    /// Current phase.
    pub phase: Phase,
    /// Time at which the current phase began. In JSON: `in_phase_ms`, the time since then in milliseconds.
    #[serde(rename = "in_phase_ms", serialize_with = "elapsed")]
    pub since: Option<Instant>,
    /// Number of the session, counted from 1; 0 before the first session. Discord's own session id stays
    /// secret.
    pub session: u32,
    /// Sequence number of the last dispatch that was published. A resume in this process continues after it.
    pub sequence: u64,
    /// The watermark: every lossless subscription has acknowledged the dispatches up to this sequence number.
    /// A resume in another process continues after it.
    pub acknowledged: u64,
    /// Details when the watermark has not moved for a minute or more, otherwise `None`.
    pub watermark_stuck: Option<WatermarkStuck>,
    /// The lossless subscription that has no room for the shard's next event; `None` when there is none.
    pub held_up: Option<HeldUp>,
    /// Whether the shard has stopped reading from Discord until that subscription has room.
    pub reading_paused: bool,
    /// Round-trip time of the last heartbeat on this connection, in JSON in milliseconds; `None` before the
    /// first.
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Option<Duration>,
    /// Round-trip times of the last heartbeats over all connections, at most [`LATENCIES`], newest last.
    #[serde(rename = "latencies_ms", serialize_with = "all_milliseconds")]
    pub latencies: Vec<Duration>,
    /// Heartbeats of this connection; `None` before Hello.
    pub heartbeat: Option<HeartbeatStatus>,
    /// Payloads that were sent, and commands that wait to be sent.
    pub sending: SendingStatus,
    /// Scheme, host and port of the connection; `None` before the first connection.
    pub url: Option<String>,
    /// Number of dispatches received.
    pub dispatches: u64,
    /// Number of sessions started by an Identify.
    pub identifies: u32,
    /// Number of sessions resumed.
    pub resumes: u32,
    /// Number of connections that ended or were given up.
    pub disconnects: u32,
    /// Number of those connections that were zombied: Discord no longer acknowledged heartbeats.
    pub zombied: u32,
    /// Details of how the last connection ended; `None` before the first end.
    pub last_disconnect: Option<Disconnect>,
    /// Reason in words why the last connection ended or could not be made, or the actor crashed.
    pub last_reason: Option<String>,
}

/// State of the heartbeats of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeartbeatStatus {
    /// Time between heartbeats, as Discord's Hello asks for.
    #[serde(rename = "interval_ms", serialize_with = "in_milliseconds")]
    pub interval: Duration,
    /// Time of the last acknowledgement. In JSON: `acknowledged_ago_ms`.
    #[serde(rename = "acknowledged_ago_ms", serialize_with = "elapsed")]
    pub acknowledged_at: Option<Instant>,
    /// Time at which the oldest unacknowledged heartbeat was due; `None` when all are acknowledged. In JSON:
    /// `outstanding_for_ms`.
    #[serde(rename = "outstanding_for_ms", serialize_with = "elapsed")]
    pub outstanding_since: Option<Instant>,
}

/// Use of the send limits of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SendingStatus {
    /// Payloads sent within 60 s before the last change: at most 120, heartbeats included (GW-155). The
    /// number is not lowered as time passes without a change.
    pub sent: usize,
    /// Waiting voice commands, at most [`CommandClass::capacity`](crate::command::CommandClass::capacity).
    pub voice_waiting: usize,
    /// Waiting bulk commands, at most [`CommandClass::capacity`](crate::command::CommandClass::capacity).
    pub bulk_waiting: usize,
    /// Whether a presence is waiting.
    pub presence_waiting: bool,
}

/// Details of how a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Disconnect {
    /// Cause of the end.
    #[serde(skip)]
    pub reason: Reason,
    /// Side that ended the connection.
    #[serde(serialize_with = "displayed")]
    pub initiator: Initiator,
    /// Close code that Discord sent; `None` if it sent no code.
    pub close_code: Option<u16>,
    /// Details from the gateway or the transport: the reason in the close frame, or the cause of the failure.
    /// Control characters are escaped.
    pub detail: Option<String>,
    /// Time of the end. In JSON: `ago_ms`, the time since then in milliseconds.
    #[serde(rename = "ago_ms", serialize_with = "elapsed_since")]
    pub at: Instant,
}

// Serde passes a reference to the field, so the parameter cannot be `Option<&T>`.
fn milliseconds<S: Serializer>(latency: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match latency {
        Some(latency) => serializer.serialize_some(&(latency.as_secs_f64() * 1000.0)),
        None => serializer.serialize_none(),
    }
}

// Serde passes a reference to the field, so the parameter cannot be `Option<&T>`.
fn elapsed<S: Serializer>(since: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds(&since.map(elapsed_now), serializer)
}

fn elapsed_now(at: Instant) -> Duration {
    tokio::time::Instant::now().into_std().saturating_duration_since(at)
}

fn in_milliseconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds(&Some(*span), serializer)
}

fn all_milliseconds<S: Serializer>(latencies: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(latencies.iter().map(|latency| latency.as_secs_f64() * 1000.0))
}

fn displayed<S: Serializer>(initiator: &Initiator, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(initiator)
}

/// State of the identify queue.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct IdentifyStatus {
    /// Number of shards that wait for a permit.
    pub waiting: usize,
    /// Number of Identifies sent since the manager started.
    pub sent: u64,
    /// Identifies left in the current period.
    pub remaining: u32,
    /// Identifies allowed per period.
    pub total: u32,
    /// Number of shards that may identify at the same time.
    pub max_concurrency: u32,
}

/// State of a reshard.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ReshardStatus {
    /// Shard count that the bot had before.
    pub count: ShardCount,
    /// Shard count that it will have.
    pub next_count: ShardCount,
    /// Generation of the new layout.
    pub next_generation: u32,
    /// Number of groups that this process reshards.
    pub groups: usize,
    /// Number of those groups whose new shards have taken over.
    pub done: usize,
    /// Number of the group under way; `None` between two groups.
    pub group: Option<u32>,
    /// Old shards of the group under way.
    pub old: Vec<ShardId>,
    /// New shards of the group under way.
    pub new: Vec<ShardId>,
    /// Phase of the group under way.
    pub phase: Option<GroupPhase>,
    /// Whether no further group begins, by [`Shardkeeper::pause_reshard`](crate::Shardkeeper::pause_reshard).
    pub paused: bool,
    /// Why no further group begins, after an abort or a failure.
    #[serde(serialize_with = "displayed_if_any")]
    pub halted: Option<HaltReason>,
    /// Whether the next group waits until Discord resets the identify budget.
    pub waits_for_budget: bool,
    /// Time at which the reshard began in this process. In JSON: `running_for_ms`.
    #[serde(rename = "running_for_ms", serialize_with = "elapsed_since")]
    pub since: Instant,
    /// Estimated time until the end, in JSON in milliseconds.
    #[serde(rename = "remaining_ms", serialize_with = "in_milliseconds")]
    pub remaining: Duration,
    /// New shards of the group under way that are ready and have all their guilds.
    pub warm: Vec<ShardId>,
    /// Events of the new shards that are held until the cut-over.
    pub held_events: usize,
    /// Bytes of those events.
    pub held_bytes: usize,
    /// Guilds of the group under way for which it is not known yet how far the new shards are behind the old
    /// ones or ahead of them.
    pub undecided: usize,
    /// Old shards of the group under way that lost their session: only the new shards receive their events.
    pub lost: Vec<ShardId>,
    /// Events of new shards that were dropped, because an old shard has delivered them.
    pub matched: u64,
    /// Events of new shards that were delivered at a cut-over or later, because no old shard had.
    pub released: u64,
    /// Events that were delivered and [marked](crate::Dispatch::may_repeat), because it could not be decided
    /// whether an old shard had delivered them.
    pub guessed: u64,
    /// Events of new shards that were dropped because their session was lost or their group withdrawn.
    pub dropped: u64,
}

// Serde passes a reference to the field, so the parameter cannot be `Option<&T>`.
fn displayed_if_any<S: Serializer>(reason: &Option<HaltReason>, serializer: S) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => serializer.collect_str(reason),
        None => serializer.serialize_none(),
    }
}

/// State of all shards and of the identify queue.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ManagerStatus {
    /// State of each shard, in the order of [`ShardKey`]. Empty until the layout is known.
    pub shards: Vec<ShardStatus>,
    /// State of the identify queue.
    pub identify: IdentifyStatus,
    /// State of a reshard; `None` when there is none.
    pub reshard: Option<ReshardStatus>,
}
