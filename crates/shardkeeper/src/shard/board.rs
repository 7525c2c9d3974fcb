//! What a shard shows of itself at any time, without being asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shardkeeper_proto::shard::{Change, Reason};
use shardkeeper_proto::{ShardCount, ShardId};

use crate::status::{Disconnect, LATENCIES, Phase, ShardStatus};

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
                latencies: Vec::new(),
                dispatches: 0,
                identifies: 0,
                resumes: 0,
                disconnects: 0,
                zombied: 0,
                last_disconnect: None,
                last_reason: None,
            }),
            dispatches: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_dispatch(&self) {
        // The driver is the only writer.
        self.dispatches.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the shard is ready, and how many dispatches it has got.
    pub(crate) fn activity(&self) -> (bool, u64) {
        (self.status().phase == Phase::Ready, self.dispatches.load(Ordering::Relaxed))
    }

    pub(crate) fn set_latency(&self, latency: Option<Duration>) {
        let mut status = self.status();
        status.latency = latency;
        if let Some(latency) = latency {
            if status.latencies.len() == LATENCIES {
                status.latencies.remove(0);
            }
            status.latencies.push(latency);
        }
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
            Change::Disconnected { reason, detail, .. } => {
                status.disconnects += 1;
                status.zombied += u32::from(*reason == Reason::Zombied);
                let (initiator, close_code) = (reason.initiator(), reason.close_code().map(|code| code.0));
                status.last_reason = Some(match detail {
                    Some(detail) => format!("{reason}: {detail}"),
                    None => reason.to_string(),
                });
                let detail = detail.as_deref().map(str::to_owned);
                status.last_disconnect =
                    Some(Disconnect { reason: *reason, initiator, close_code, detail, at: now });
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
