//! What a shard shows of itself at any time, without being asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shardkeeper_proto::shard::{Change, HeartbeatState, Reason, Sending};
use shardkeeper_proto::{ShardCount, ShardId};
use url::Url;

use crate::status::{Disconnect, HeartbeatStatus, LATENCIES, Phase, SendingStatus, ShardStatus};

/// The status of a shard, written by its driver and the manager, read by anyone: no question waits for a shard.
#[derive(Debug)]
pub(crate) struct Board {
    status: Mutex<ShardStatus>,
    dispatches: AtomicU64,
    reading_paused: AtomicBool,
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
                acknowledged: 0,
                watermark_stuck: None,
                held_up: None,
                reading_paused: false,
                latency: None,
                latencies: Vec::new(),
                heartbeat: None,
                sending: SendingStatus::default(),
                url: None,
                dispatches: 0,
                identifies: 0,
                resumes: 0,
                disconnects: 0,
                zombied: 0,
                last_disconnect: None,
                last_reason: None,
            }),
            dispatches: AtomicU64::new(0),
            reading_paused: AtomicBool::new(false),
        }
    }

    pub(crate) fn count_dispatch(&self) {
        // The driver is the only writer.
        self.dispatches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_reading_paused(&self, paused: bool) {
        self.reading_paused.store(paused, Ordering::Relaxed);
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

    /// How heartbeats and commands stand.
    pub(crate) fn set_traffic(&self, heartbeat: Option<HeartbeatState>, sending: Sending) {
        let mut status = self.status();
        status.heartbeat = heartbeat.map(|heartbeat| HeartbeatStatus {
            interval: heartbeat.interval,
            acknowledged_at: heartbeat.acknowledged_at,
            outstanding_since: heartbeat.outstanding_since,
        });
        status.sending = SendingStatus {
            sent: sending.sent,
            voice_waiting: sending.voice_waiting,
            bulk_waiting: sending.bulk_waiting,
            presence_waiting: sending.presence_waiting,
        };
    }

    /// A connection goes there. What follows the port is nobody's business.
    pub(crate) fn set_url(&self, url: &Url) {
        self.status().url = Some(url.origin().ascii_serialization());
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
                status.disconnects += 1;
                status.zombied += u32::from(*reason == Reason::Zombied);
                let (initiator, close_code) = (reason.initiator(), reason.close_code().map(|code| code.0));
                status.last_disconnect = Some(Disconnect { reason: *reason, initiator, close_code, at: now });
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

    /// The status as of now, except for what subscriptions have to do with.
    pub(crate) fn read(&self) -> ShardStatus {
        let dispatches = self.dispatches.load(Ordering::Relaxed);
        let reading_paused = self.reading_paused.load(Ordering::Relaxed);
        ShardStatus { dispatches, reading_paused, ..self.status().clone() }
    }

    fn status(&self) -> MutexGuard<'_, ShardStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
