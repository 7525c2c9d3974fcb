//! The heartbeat of one connection, from Hello to its end (GW-110 to GW-123).

use std::time::{Duration, Instant};

/// The action that is due when the periodic timer fires.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Send a heartbeat.
    Beat,
    /// The last heartbeat was not acknowledged, so the connection is dead (GW-114).
    Zombied,
}

/// The state of the heartbeats on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeartbeatState {
    /// The time between two heartbeats, from Hello.
    pub interval: Duration,
    /// The time of the last acknowledgement; `None` before the first.
    pub acknowledged_at: Option<Instant>,
    /// When the oldest unacknowledged heartbeat was due; `None` when all are acknowledged.
    pub outstanding_since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    next_at: Instant,
    /// When the last periodic heartbeat was sent; `None` once an acknowledgement was received.
    unacknowledged: Option<Instant>,
    /// When the oldest unacknowledged heartbeat was due; `None` when all are acknowledged.
    owed_since: Option<Instant>,
    /// For how long reading was paused since `owed_since`: an acknowledgement may have come and not been
    /// read.
    unread: Duration,
    paused_since: Option<Instant>,
    latency: Option<Duration>,
    acknowledged_at: Option<Instant>,
    /// Whether a heartbeat was requested, by Discord or by a probe, that the limiter still holds back.
    pub(super) requested: bool,
    /// Heartbeats sent, of either kind.
    sent: u64,
    /// Acknowledgements received, at most as many as `sent`. They come in the order of the heartbeats, so the
    /// n-th one answers the n-th heartbeat or, if Discord left one out, an earlier one.
    answered: u64,
    probe: Option<Probe>,
}

/// A request to report the acknowledgement of a heartbeat.
#[derive(Debug)]
struct Probe {
    number: u64,
    /// Which of the heartbeats it is, counted from 1; `None` until it is sent.
    heartbeat: Option<u64>,
}

impl Heartbeat {
    /// Starts the timer. `random` in `[0, 1)` places the first heartbeat within the interval (GW-110).
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
            sent: 0,
            answered: 0,
            probe: None,
        }
    }

    /// Requests a heartbeat at once, whose acknowledgement [`take_probed`](Self::take_probed) reports.
    pub(super) fn probe(&mut self, number: u64) {
        self.requested = true;
        if self.probe.as_ref().is_none_or(|probe| probe.number != number) {
            self.probe = Some(Probe { number, heartbeat: None });
        }
    }

    /// Counts a heartbeat of either kind that is sent now; a probe that waits for one is tied to it.
    pub(super) fn count_sent(&mut self) {
        self.sent += 1;
        if let Some(Probe { heartbeat: heartbeat @ None, .. }) = &mut self.probe {
            *heartbeat = Some(self.sent);
        }
    }

    /// Returns the number of the probe, once its heartbeat is acknowledged.
    pub(super) fn take_probed(&mut self) -> Option<u64> {
        let answered = self.answered;
        let probe = self.probe.take_if(|probe| probe.heartbeat.is_some_and(|sent| sent <= answered))?;
        Some(probe.number)
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

    /// Handles the periodic timer. Requested heartbeats do not affect it (GW-116: only the periodic timer
    /// checks for a missing acknowledgement).
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        let paused = self.paused_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if let Some(owed_since) = self.owed_since
            && now.saturating_duration_since(owed_since) >= self.interval + self.unread + paused
        {
            return Tick::Zombied;
        }
        // The interval counts from the previous tick (GW-111). After the computer was suspended, it counts
        // from now.
        self.next_at += self.interval;
        if self.next_at <= now {
            self.next_at = now + self.interval;
        }
        Tick::Beat
    }

    /// Records that the periodic heartbeat was sent and awaits an acknowledgement. This heartbeat also
    /// answers a pending request.
    pub(super) fn sent(&mut self, now: Instant) {
        self.requested = false;
        self.unacknowledged = Some(now);
        if self.owed_since.is_none() {
            // Counts from when the heartbeat was due: one that was sent late would otherwise be less than an
            // interval old at the next tick, and its missing acknowledgement overlooked.
            (self.owed_since, self.unread) = (Some(self.next_at - self.interval), Duration::ZERO);
            self.paused_since = self.paused_since.map(|_| now);
        }
    }

    /// Handles an acknowledgement; that of a requested heartbeat counts as well (GW-117). Returns when the
    /// periodic heartbeat was sent, if it was still unacknowledged.
    pub(super) fn acknowledged(&mut self, now: Instant) -> Option<Instant> {
        self.answered = self.sent.min(self.answered + 1);
        self.owed_since = None;
        self.acknowledged_at = Some(now);
        let sent = self.unacknowledged.take()?;
        self.latency = Some(now.saturating_duration_since(sent));
        Some(sent)
    }

    /// Records that reading was paused or continues.
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
