//! Rate limits of one connection, as exact sliding windows.
//!
//! The start of Discord's own window is unknown, so no window of that length may hold more than the limit,
//! wherever it begins (GW-158). A token bucket cannot guarantee that: it admits nearly twice the limit across
//! the end of a burst.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::{LONGEST_WAIT, Timings};

/// Payloads per connection in 60 s (GW-155); heartbeats, Identify and Resume count too (GW-156).
pub const COMMANDS_PER_WINDOW: usize = 120;
/// Presence updates per connection in 20 s (GW-161).
pub const PRESENCES_PER_WINDOW: usize = 5;
/// Payloads reserved for heartbeats that Discord requests, in addition to the periodic ones (GW-159).
const REQUESTED_RESERVE: usize = 3;
/// Payloads that bulk requests leave free for presences and voice commands, which a user waits for. Otherwise
/// a flood of bulk requests would delay them for a whole window.
const COMMAND_RESERVE: usize = 10;

/// Remembers the times of events within one window.
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    window: Duration,
    times: VecDeque<Instant>,
}

impl SlidingWindow {
    /// Creates an empty window. A length above [`LONGEST_WAIT`] counts as [`LONGEST_WAIT`].
    pub fn new(window: Duration) -> Self {
        Self { window: window.min(LONGEST_WAIT), times: VecDeque::new() }
    }

    /// Records an event at `now`. `now` must not decrease between calls.
    pub fn record(&mut self, now: Instant) {
        self.forget(now);
        self.times.push_back(now);
    }

    /// When the next event is allowed under a limit of `limit` per window; `now` or earlier means
    /// immediately.
    pub fn free_at(&mut self, now: Instant, limit: usize) -> Instant {
        self.forget(now);
        match self.times.len().checked_sub(limit) {
            None => now,
            // The time at which the deciding event leaves the window; a limit of zero waits for the whole
            // window.
            Some(over) => self.times.get(over).map_or(now + self.window, |time| *time + self.window),
        }
    }

    /// The number of events within the window that ends at `now`.
    pub fn count(&mut self, now: Instant) -> usize {
        self.forget(now);
        self.times.len()
    }

    fn forget(&mut self, now: Instant) {
        while self.times.front().is_some_and(|time| now.saturating_duration_since(*time) >= self.window) {
            self.times.pop_front();
        }
    }
}

/// The priority of a payload in the limiter. Each priority leaves room for the ones above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Urgency {
    /// A periodic heartbeat, Identify or Resume: may use the whole limit.
    Vital,
    /// A heartbeat that Discord requested: leaves room for the periodic ones.
    Requested,
    /// A voice command or a presence: leaves room for all heartbeats.
    Command,
    /// A bulk request: leaves room for heartbeats, voice commands and presences.
    Bulk,
}

/// The command limit of one connection. A new connection needs a new limiter (GW-157).
#[derive(Clone, Debug)]
pub struct CommandLimiter {
    sent: SlidingWindow,
    presences: SlidingWindow,
    periodic: usize,
}

impl CommandLimiter {
    /// Creates a limiter for a new connection.
    pub fn new(command_window: Duration, presence_window: Duration) -> Self {
        Self {
            sent: SlidingWindow::new(command_window),
            presences: SlidingWindow::new(presence_window),
            periodic: 0,
        }
    }

    /// Creates a limiter for a new connection, whose windows include the margin.
    pub(crate) fn of(timings: &Timings) -> Self {
        let margin = timings.command_margin;
        Self::new(timings.command_window + margin, timings.presence_window + margin)
    }

    /// Reserves room for the heartbeats of one window (GW-159: heartbeats must always fit into the limit).
    pub fn reserve_heartbeats(&mut self, interval: Duration) {
        let in_window = self.sent.window.as_nanos().div_ceil(interval.as_nanos().max(1));
        // A peer that requires hundreds of heartbeats per window cannot be satisfied; leave room for one
        // command.
        self.periodic = usize::try_from(in_window)
            .unwrap_or(usize::MAX)
            .min(COMMANDS_PER_WINDOW - REQUESTED_RESERVE - COMMAND_RESERVE - 1);
    }

    /// When a payload of this urgency is allowed; `now` or earlier means immediately.
    pub fn free_at(&mut self, now: Instant, urgency: Urgency) -> Instant {
        let reserve = match urgency {
            Urgency::Vital => 0,
            Urgency::Requested => self.periodic,
            Urgency::Command => self.periodic + REQUESTED_RESERVE,
            Urgency::Bulk => self.periodic + REQUESTED_RESERVE + COMMAND_RESERVE,
        };
        self.sent.free_at(now, COMMANDS_PER_WINDOW - reserve)
    }

    /// When a presence update is allowed; `now` or earlier means immediately.
    pub fn presence_free_at(&mut self, now: Instant) -> Instant {
        self.free_at(now, Urgency::Command).max(self.presences.free_at(now, PRESENCES_PER_WINDOW))
    }

    /// The number of payloads sent within the window that ends at `now`.
    pub fn sent(&mut self, now: Instant) -> usize {
        self.sent.count(now)
    }

    /// Records that a payload was sent.
    pub fn record(&mut self, now: Instant) {
        self.sent.record(now);
    }

    /// Records that a presence update was sent.
    pub fn record_presence(&mut self, now: Instant) {
        self.record(now);
        self.presences.record(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn gw_158_what_arrives_late_and_what_arrives_early_are_a_whole_window_apart() {
        let timings = Timings::default();
        let (mut limiter, start) = (CommandLimiter::of(&timings), Instant::now());
        (0..COMMANDS_PER_WINDOW).for_each(|_| limiter.record(start));
        let arrived = start + Duration::from_millis(249);
        assert!(limiter.free_at(start, Urgency::Vital) >= arrived + timings.command_window);
        (0..PRESENCES_PER_WINDOW).for_each(|_| limiter.record_presence(start));
        assert!(limiter.presence_free_at(start) >= arrived + timings.presence_window);
    }

    fn limiter() -> CommandLimiter {
        let mut limiter = CommandLimiter::new(WINDOW, Duration::from_secs(20));
        limiter.reserve_heartbeats(Duration::from_millis(41_250));
        limiter
    }

    #[test]
    fn gw_155_158_159_a_greedy_sender_never_exceeds_any_window_and_heartbeats_fit() {
        let start = Instant::now();
        let mut limiter = limiter();
        let mut sent = Vec::new();
        let mut beat_at = Duration::from_secs(7);
        for tick in 0..30_000_u64 {
            let at = Duration::from_millis(tick * 10);
            let now = start + at;
            if at >= beat_at {
                // GW-120: heartbeats always find room in the limit.
                assert!(limiter.free_at(now, Urgency::Vital) <= now, "a heartbeat always finds room");
                limiter.record(now);
                sent.push(at);
                beat_at += Duration::from_millis(41_250);
            }
            while limiter.free_at(now, Urgency::Command) <= now {
                limiter.record(now);
                sent.push(at);
            }
        }
        assert!(sent.len() > 550, "the limit is used: {}", sent.len());
        for (index, first) in sent.iter().enumerate() {
            let inside = sent[index..].iter().take_while(|at| **at - *first < WINDOW).count();
            assert!(inside <= COMMANDS_PER_WINDOW, "{inside} from {first:?}");
        }
    }

    #[test]
    fn gw_159_commands_leave_room_for_heartbeats_and_bulk_ones_for_the_rest() {
        let now = Instant::now();
        let mut limiter = limiter();
        let mut pass = |urgency| {
            std::iter::from_fn(|| (limiter.free_at(now, urgency) <= now).then(|| limiter.record(now))).count()
        };
        assert_eq!((pass(Urgency::Bulk), pass(Urgency::Command), pass(Urgency::Requested)), (105, 10, 3));
        assert_eq!(limiter.free_at(now, Urgency::Command), now + WINDOW);
    }

    #[test]
    fn gw_161_five_presences_in_twenty_seconds() {
        let start = Instant::now();
        let mut limiter = limiter();
        for at in 0..5 {
            let now = start + Duration::from_secs(at);
            assert!(limiter.presence_free_at(now) <= now);
            limiter.record_presence(now);
        }
        assert_eq!(limiter.presence_free_at(start + Duration::from_secs(5)), start + Duration::from_secs(20));
    }

    #[test]
    fn a_peer_that_wants_a_heartbeat_each_millisecond_leaves_one_command() {
        let now = Instant::now();
        let mut limiter = limiter();
        limiter.reserve_heartbeats(Duration::ZERO);
        assert!(limiter.free_at(now, Urgency::Bulk) <= now);
        limiter.record(now);
        assert!(limiter.free_at(now, Urgency::Bulk) > now);
    }
}
