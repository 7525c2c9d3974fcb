//! The status of a shard, readable at any time without a message to the shard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shardkeeper_proto::ShardCount;
use shardkeeper_proto::shard::{Change, HeartbeatState, Reason, Sending};
use url::Url;

use crate::layout::{Role, ShardKey};
use crate::message::Incarnation;
use crate::status::{Disconnect, HeartbeatStatus, LATENCIES, Phase, SendingStatus, ShardStatus};

/// How long the answer to a request for members, sounds or channels may take. Discord sends it at once; the chunks
/// of a guild of a million members take some seconds.
const ANSWERS_TAKE: Duration = Duration::from_secs(10);

/// The status of a shard, written by its driver and the manager, and read by anyone without waiting for the
/// shard.
///
/// A driver that was aborted may run on for a moment, so each driver writes as its [`Incarnation`]. What an
/// earlier incarnation reports still adds to the counters, but no longer changes the rest of the status.
#[derive(Debug)]
pub(crate) struct StatusBoard {
    state: Mutex<State>,
    dispatches: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The incarnation that may write; 0 for none.
    writer: Incarnation,
    /// When a request was sent last whose answer comes as events.
    asked: Option<Instant>,
    status: ShardStatus,
}

impl StatusBoard {
    pub(crate) fn new(key: ShardKey, count: ShardCount, role: Role) -> Self {
        Self {
            state: Mutex::new(State {
                writer: 0,
                asked: None,
                status: ShardStatus {
                    shard: key.id,
                    count,
                    generation: key.generation,
                    role,
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
                },
            }),
            dispatches: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_dispatch(&self) {
        // An earlier incarnation counts as well, because the dispatch was published.
        self.dispatches.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the shard is ready, and the number of dispatches that it has received.
    pub(crate) fn activity(&self) -> (bool, u64) {
        (self.state().status.phase == Phase::Ready, self.dispatches.load(Ordering::Relaxed))
    }

    /// The shard's part in a reshard, which the manager sets.
    pub(crate) fn role(&self) -> Role {
        self.state().status.role
    }

    pub(crate) fn set_role(&self, role: Role) {
        self.state().status.role = role;
    }

    pub(crate) fn asked(&self, now: Instant) {
        self.state().asked = Some(now);
    }

    /// Whether requests wait to be sent, or one was sent so recently that its answer may still come.
    pub(crate) fn awaits_answers(&self, now: Instant) -> bool {
        let state = self.state();
        let is_recent = |asked: Instant| now.saturating_duration_since(asked) < ANSWERS_TAKE;
        state.status.sending.bulk_waiting > 0 || state.asked.is_some_and(is_recent)
    }

    /// Makes this incarnation the one that may write.
    pub(crate) fn begin(&self, incarnation: Incarnation) {
        let mut state = self.state();
        state.writer = incarnation;
        state.status.reading_paused = false;
    }

    pub(crate) fn set_latency(&self, by: Incarnation, latency: Option<Duration>) {
        let mut state = self.state();
        let Some(status) = state.of(by) else { return };
        status.latency = latency;
        if let Some(latency) = latency {
            if status.latencies.len() == LATENCIES {
                status.latencies.remove(0);
            }
            status.latencies.push(latency);
        }
    }

    /// Sets the state of heartbeats and of waiting commands.
    pub(crate) fn set_traffic(&self, by: Incarnation, heartbeat: Option<HeartbeatState>, sending: Sending) {
        let mut state = self.state();
        let Some(status) = state.of(by) else { return };
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

    /// Sets the server that the shard connects to. Path and query are left out, since they are not needed in
    /// a status.
    pub(crate) fn set_url(&self, by: Incarnation, url: &Url) {
        if let Some(status) = self.state().of(by) {
            status.url = Some(url.origin().ascii_serialization());
        }
    }

    pub(crate) fn set_reading_paused(&self, by: Incarnation, paused: bool) {
        if let Some(status) = self.state().of(by) {
            status.reading_paused = paused;
        }
    }

    pub(crate) fn set_reason(&self, by: Incarnation, reason: String) {
        if let Some(status) = self.state().of(by) {
            status.last_reason = Some(reason);
        }
    }

    pub(crate) fn changed(&self, by: Incarnation, now: Instant, change: &Change) {
        let mut state = self.state();
        let is_current = state.writer == by;
        let status = &mut state.status;
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
                // The session may have been started by another process.
                status.session = status.session.max(1);
                Phase::Ready
            }
            Change::Disconnected { reason, detail, .. } => {
                status.disconnects += 1;
                status.zombied += u32::from(*reason == Reason::Zombied);
                let (initiator, close_code) = (reason.initiator(), reason.close_code().map(|code| code.0));
                let words = match detail {
                    Some(detail) => format!("{reason}: {detail}"),
                    None => reason.to_string(),
                };
                let detail = detail.as_deref().map(str::to_owned);
                status.last_disconnect =
                    Some(Disconnect { reason: *reason, initiator, close_code, detail, at: now });
                if is_current {
                    status.last_reason = Some(words);
                    status.latency = None;
                }
                Phase::Disconnected
            }
            Change::Stopped => Phase::Stopped,
            Change::Refused(_) => Phase::Refused,
            _ => return,
        };
        if is_current {
            status.phase = phase;
            status.since = Some(now);
        }
    }

    /// Records that the current incarnation crashed and may no longer write.
    pub(crate) fn crashed(&self, now: Instant, error: &str, quarantined: bool) {
        let mut state = self.state();
        state.writer = 0;
        let status = &mut state.status;
        status.phase = if quarantined { Phase::Quarantined } else { Phase::Starting };
        status.since = Some(now);
        (status.latency, status.heartbeat, status.reading_paused) = (None, None, false);
        status.restarts += 1;
        status.last_reason = Some(format!("crashed: {error}"));
    }

    /// The current status, except for the fields that the subscriptions supply.
    pub(crate) fn read(&self) -> ShardStatus {
        let dispatches = self.dispatches.load(Ordering::Relaxed);
        ShardStatus { dispatches, ..self.state().status.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The status, if this incarnation may write it.
    fn of(&mut self, by: Incarnation) -> Option<&mut ShardStatus> {
        (self.writer == by).then_some(&mut self.status)
    }
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::ShardId;

    use super::*;

    const KEY: ShardKey = ShardKey { id: ShardId(0), generation: 1 };

    #[test]
    fn gw_245_answers_are_awaited_for_a_while_after_the_last_request() {
        let board = StatusBoard::new(KEY, ShardCount::new(1).unwrap(), Role::Draining);
        let now = Instant::now();
        assert!(!board.awaits_answers(now));
        board.begin(1);
        let mut sending = Sending::default();
        sending.bulk_waiting = 1;
        board.set_traffic(1, None, sending);
        assert!(board.awaits_answers(now), "not even sent");
        board.set_traffic(1, None, Sending::default());
        board.asked(now);
        assert!(board.awaits_answers(now + ANSWERS_TAKE - Duration::from_millis(1)));
        assert!(!board.awaits_answers(now + ANSWERS_TAKE));
    }

    #[test]
    fn a_driver_that_outlives_its_actor_shows_nothing_any_more() {
        let board = StatusBoard::new(KEY, ShardCount::new(1).unwrap(), Role::Active);
        let now = Instant::now();
        board.begin(1);
        board.changed(1, now, &Change::Identifying);
        assert_eq!(board.read().phase, Phase::Identifying);
        board.crashed(now, "killed", true);
        board.changed(1, now, &Change::Ready);
        board.set_latency(1, Some(Duration::from_millis(1)));
        board.set_reason(1, "late".to_owned());
        let status = board.read();
        assert_eq!((status.phase, status.latency), (Phase::Quarantined, None));
        assert_eq!(status.last_reason.as_deref(), Some("crashed: killed"));
        // The session counts all the same.
        assert_eq!((status.session, board.activity().0), (1, false));
        board.begin(2);
        board.changed(1, now, &Change::Ready);
        assert_eq!(board.read().phase, Phase::Quarantined);
        board.changed(2, now, &Change::Connecting { resuming: true });
        assert_eq!(board.read().phase, Phase::Connecting);
    }
}
