//! What a shard shows of itself at any time, without being asked.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use shardkeeper_proto::shard::Change;
use shardkeeper_proto::{ShardCount, ShardId};

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
    /// Ended as it was told.
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
    /// When it came there.
    #[serde(skip)]
    pub since: Option<Instant>,
    /// Which session it has, counted from 1; 0 before the first. Discord's own name for it stays secret.
    pub session: u32,
    /// The last sequence number that every lossless subscription has taken.
    pub sequence: u64,
    /// The time a heartbeat took, on this connection.
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Option<Duration>,
    /// Dispatches received.
    pub dispatches: u64,
    /// Sessions begun.
    pub identifies: u32,
    /// Sessions resumed.
    pub resumes: u32,
    /// Why the last connection ended, or the actor crashed.
    pub last_reason: Option<String>,
}

// Serde passes a reference to the field.
#[allow(clippy::ref_option)]
fn milliseconds<S: Serializer>(latency: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match latency {
        Some(latency) => serializer.serialize_some(&(latency.as_secs_f64() * 1000.0)),
        None => serializer.serialize_none(),
    }
}

/// The status of a shard, written by its driver and the manager, read by anyone: no question waits for a shard.
#[derive(Debug)]
pub(crate) struct Board {
    status: Mutex<ShardStatus>,
    dispatches: AtomicU64,
}

impl Board {
    pub(crate) fn new(shard: ShardId, count: ShardCount, generation: u32) -> Self {
        Self {
            status: Mutex::new(ShardStatus {
                shard,
                count,
                generation,
                restarts: 0,
                phase: Phase::Starting,
                since: None,
                session: 0,
                sequence: 0,
                latency: None,
                dispatches: 0,
                identifies: 0,
                resumes: 0,
                last_reason: None,
            }),
            dispatches: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_dispatch(&self) {
        // The driver is the only writer.
        self.dispatches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_latency(&self, latency: Option<Duration>) {
        self.status().latency = latency;
    }

    pub(crate) fn set_reason(&self, reason: String) {
        self.status().last_reason = Some(reason);
    }

    pub(crate) fn changed(&self, now: Instant, change: &Change) {
        let mut status = self.status();
        let phase = match change {
            Change::Queued => Phase::Queued,
            Change::Connecting { .. } => Phase::Connecting,
            Change::Hello { .. } => Phase::AwaitingPermit,
            Change::Identifying => {
                status.identifies += 1;
                Phase::Identifying
            }
            Change::Resuming { .. } => Phase::Resuming,
            Change::Ready => {
                status.session += 1;
                Phase::Ready
            }
            Change::Resumed { .. } => {
                status.resumes += 1;
                // A session that came from another process.
                status.session = status.session.max(1);
                Phase::Ready
            }
            Change::Disconnected { reason, .. } => {
                status.last_reason = Some(reason.to_string());
                status.latency = None;
                Phase::Disconnected
            }
            Change::Stopped => Phase::Stopped,
            Change::Refused(_) => Phase::Refused,
            _ => return,
        };
        status.phase = phase;
        status.since = Some(now);
    }

    pub(crate) fn crashed(&self, now: Instant, error: &str, quarantined: bool) {
        let mut status = self.status();
        status.phase = if quarantined { Phase::Quarantined } else { Phase::Starting };
        status.since = Some(now);
        status.latency = None;
        status.restarts += 1;
        status.last_reason = Some(format!("crashed: {error}"));
    }

    /// The status as of now; `sequence` is kept elsewhere.
    pub(crate) fn read(&self, sequence: u64) -> ShardStatus {
        let dispatches = self.dispatches.load(Ordering::Relaxed);
        ShardStatus { sequence, dispatches, ..self.status().clone() }
    }

    fn status(&self) -> MutexGuard<'_, ShardStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
