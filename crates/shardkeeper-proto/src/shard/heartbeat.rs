//! The heartbeat of one connection, from Hello to its end (GW-110 to GW-123).

use std::time::{Duration, Instant};

/// What the periodic timer finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Send a heartbeat.
    Beat,
    /// The last one was not acknowledged: the connection is dead (GW-114).
    Zombied,
}

/// How the heartbeats of a connection stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeartbeatState {
    /// The time between them, as Hello said.
    pub interval: Duration,
    /// When the last acknowledgement came; `None` before the first.
    pub acknowledged_at: Option<Instant>,
    /// When the first heartbeat was due that is not acknowledged yet; `None` when all are.
    pub outstanding_since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    next_at: Instant,
    /// When the last periodic one was sent, until an acknowledgement comes.
    unacknowledged: Option<Instant>,
    /// When the first one was sent that is not acknowledged yet.
    owed_since: Option<Instant>,
    /// For how long nobody has read since then: an acknowledgement that lies unread is not missing.
    unread: Duration,
    paused_since: Option<Instant>,
    latency: Option<Duration>,
    acknowledged_at: Option<Instant>,
    /// Discord asked for one that the limiter has not let through yet.
    pub(super) requested: bool,
}

impl Heartbeat {
    /// `random` in `[0, 1)` places the first one within the interval (GW-110).
    pub(super) fn new(now: Instant, interval: Duration, random: f64) -> Self {
        Self {
            interval,
            next_at: now + interval.mul_f64(random.clamp(0.0, 1.0)),
            unacknowledged: None,
            owed_since: None,
            unread: Duration::ZERO,
            paused_since: None,
            latency: None,
            acknowledged_at: None,
            requested: false,
        }
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency
    }

    pub(super) fn state(&self) -> HeartbeatState {
        HeartbeatState {
            interval: self.interval,
            acknowledged_at: self.acknowledged_at,
            outstanding_since: self.owed_since,
        }
    }

    /// The periodic timer is due. Requested heartbeats have no say in it (GW-116).
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        let paused = self.paused_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if let Some(owed_since) = self.owed_since
            && now.saturating_duration_since(owed_since) >= self.interval + self.unread + paused
        {
            return Tick::Zombied;
        }
        // The interval counts from the previous tick (GW-111); after a sleep of the whole machine, from now.
        self.next_at += self.interval;
        if self.next_at <= now {
            self.next_at = now + self.interval;
        }
        Tick::Beat
    }

    /// The periodic one was sent, and owes an acknowledgement. It also serves a request that waits.
    pub(super) fn sent(&mut self, now: Instant) {
        self.requested = false;
        self.unacknowledged = Some(now);
        if self.owed_since.is_none() {
            // When it was due: one that went out late is not owed for less than an interval at the next tick.
            (self.owed_since, self.unread) = (Some(self.next_at - self.interval), Duration::ZERO);
            self.paused_since = self.paused_since.map(|_| now);
        }
    }

    /// A heartbeat was acknowledged; the ACK of a requested one counts as well (GW-117). Returns when the periodic
    /// heartbeat was sent, if its ACK was missing.
    pub(super) fn acknowledged(&mut self, now: Instant) -> Option<Instant> {
        self.owed_since = None;
        self.acknowledged_at = Some(now);
        let sent = self.unacknowledged.take()?;
        self.latency = Some(now.saturating_duration_since(sent));
        Some(sent)
    }

    /// Reading stopped or goes on.
    pub(super) fn set_paused(&mut self, now: Instant, paused: bool) {
        match self.paused_since {
            None if paused => self.paused_since = Some(now),
            Some(since) if !paused => {
                self.unread += now.saturating_duration_since(since);
                self.paused_since = None;
            }
            _ => {}
        }
    }
}
