//! How things stand: what is shown of shards, queue and manager.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
pub use shardkeeper_proto::CloseCode;
pub use shardkeeper_proto::shard::{Change, FatalClose, Initiator, Next, Reason};
use shardkeeper_proto::{ShardCount, ShardId};

use crate::dispatch::{HeldUp, WatermarkStuck, elapsed_since};

/// So many heartbeats are remembered: about eleven minutes of them.
pub const LATENCIES: usize = 16;

/// Where a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Not begun, or between two incarnations of its actor.
    Starting,
    /// Waits in the identify queue.
    Queued,
    /// Opens a connection.
    Connecting,
    /// Connected; waits for the permit to identify.
    AwaitingPermit,
    /// Identify is on its way.
    Identifying,
    /// The session is being resumed.
    Resuming,
    /// In service.
    Ready,
    /// Waits before it connects again.
    Disconnected,
    /// Crashed so often that it is tried only now and then.
    Quarantined,
    /// Discord refuses it.
    Refused,
    /// ExitReason as it was told.
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

/// The state of one shard at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ShardStatus {
    /// Which shard.
    pub shard: ShardId,
    /// Of how many.
    pub count: ShardCount,
    /// Of which generation of the layout.
    pub generation: u32,
    /// How many times its actor was started again after a crash.
    pub restarts: u32,
    /// Where it stands.
    pub phase: Phase,
    /// When it came there. As JSON: `in_phase_ms`, for how long it has been there.
    #[serde(rename = "in_phase_ms", serialize_with = "elapsed")]
    pub since: Option<Instant>,
    /// Which session it has, counted from 1; 0 before the first. Discord's own name for it stays secret.
    pub session: u32,
    /// The sequence number of the last dispatch that was published: a resume goes on from there.
    pub sequence: u64,
    /// The watermark: up to here every lossless subscription has acknowledged what it was given. Another process resumes from
    /// here.
    pub acknowledged: u64,
    /// The watermark has not moved for a minute and more.
    pub watermark_stuck: Option<WatermarkStuck>,
    /// A lossless subscription has no room for what the shard has for it.
    pub held_up: Option<HeldUp>,
    /// The shard reads nothing from Discord, until that subscription has room.
    pub reading_paused: bool,
    /// The time a heartbeat took, on this connection.
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Option<Duration>,
    /// What the last heartbeats took, the newest last: at most [`LATENCIES`] of them, over all connections.
    #[serde(rename = "latencies_ms", serialize_with = "all_milliseconds")]
    pub latencies: Vec<Duration>,
    /// The heartbeats of this connection; `None` before Hello.
    pub heartbeat: Option<HeartbeatStatus>,
    /// What was sent, and what waits to be sent.
    pub sending: SendingStatus,
    /// Where the connection goes to: scheme, host and port. `None` before the first.
    pub url: Option<String>,
    /// Dispatches received.
    pub dispatches: u64,
    /// Sessions begun.
    pub identifies: u32,
    /// Sessions resumed.
    pub resumes: u32,
    /// Connections that ended, or were given up.
    pub disconnects: u32,
    /// How many of those had zombied.
    pub zombied: u32,
    /// How the last connection ended.
    pub last_disconnect: Option<Disconnect>,
    /// Why the last connection ended or could not be made, or the actor crashed, in words.
    pub last_reason: Option<String>,
}

/// The heartbeats of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeartbeatStatus {
    /// The time between them, as Discord wants it.
    #[serde(rename = "interval_ms", serialize_with = "in_milliseconds")]
    pub interval: Duration,
    /// When the last acknowledgement came. As JSON: `acknowledged_ago_ms`.
    #[serde(rename = "acknowledged_ago_ms", serialize_with = "elapsed")]
    pub acknowledged_at: Option<Instant>,
    /// When the first heartbeat was due that is not acknowledged yet; `None` when all are. As JSON: `outstanding_for_ms`.
    #[serde(rename = "outstanding_for_ms", serialize_with = "elapsed")]
    pub outstanding_since: Option<Instant>,
}

/// What a shard sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SendingStatus {
    /// Payloads of the window of 60 s that ended with the last change: at most 120, heartbeats included (GW-155). Later it may
    /// be fewer.
    pub sent: usize,
    /// Voice commands that wait, of at most [`CommandClass::capacity`](crate::command::CommandClass::capacity).
    pub voice_waiting: usize,
    /// Bulk commands that wait, of at most [`CommandClass::capacity`](crate::command::CommandClass::capacity).
    pub bulk_waiting: usize,
    /// Whether a presence waits.
    pub presence_waiting: bool,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Disconnect {
    /// Why.
    #[serde(skip)]
    pub reason: Reason,
    /// Who ended it.
    #[serde(serialize_with = "displayed")]
    pub initiator: Initiator,
    /// The close code that Discord sent, if it did.
    pub close_code: Option<u16>,
    /// What the gateway or the transport said about it: the reason in the close frame, or the cause. Control characters
    /// are escaped.
    pub detail: Option<String>,
    /// When. As JSON: `ago_ms`.
    #[serde(rename = "ago_ms", serialize_with = "elapsed_since")]
    pub at: Instant,
}

// Serde passes a reference to the field.
fn milliseconds<S: Serializer>(latency: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match latency {
        Some(latency) => serializer.serialize_some(&(latency.as_secs_f64() * 1000.0)),
        None => serializer.serialize_none(),
    }
}

// As above.
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

/// How the identify queue stands.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct IdentifyStatus {
    /// How many shards wait for a permit.
    pub waiting: usize,
    /// Identify sent since the manager began.
    pub sent: u64,
    /// Identify left in the current period.
    pub remaining: u32,
    /// Identify allowed in a period.
    pub total: u32,
    /// How many shards may identify at once.
    pub max_concurrency: u32,
}

/// How everything stands.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ManagerStatus {
    /// Each shard, in the order of ids. Empty until the layout is known.
    pub shards: Vec<ShardStatus>,
    /// The identify queue.
    pub identify: IdentifyStatus,
}
