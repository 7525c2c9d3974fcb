//! Every wait and time limit of the protocol, with its reason.

use std::time::Duration;

use crate::Backoff;

/// The longest wait that any setting accepts: a year. Longer waits have no use, and very long ones would
/// overflow when added to a time.
pub const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// The shortest wait for settings where zero would make a loop spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A duration outside the bounds of its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value:?}: it has to be between {min:?} and {max:?}")]
#[non_exhaustive]
pub struct DurationError {
    /// The name of the setting.
    pub setting: &'static str,
    /// The given duration.
    pub value: Duration,
    /// The shortest accepted duration.
    pub min: Duration,
    /// The longest accepted duration.
    pub max: Duration,
}

impl DurationError {
    /// Checks the duration of this setting: at least `min`, and at most [`LONGEST_WAIT`].
    ///
    /// # Errors
    ///
    /// When the duration is outside of these bounds; the error names the setting and its bounds.
    pub fn check(setting: &'static str, value: Duration, min: Duration) -> Result<(), Self> {
        if (min..=LONGEST_WAIT).contains(&value) {
            return Ok(());
        }
        Err(Self { setting, value, min, max: LONGEST_WAIT })
    }
}

/// Time limits, waits and windows. The defaults suit the real Discord. Start from `Default`, then set fields.
/// The three windows are Discord's: shorter ones break its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Timings {
    /// The time limit for opening a connection: TCP, TLS and WebSocket together. Default: 10 s.
    pub connect: Duration,
    /// The time limit for Hello. Default: 20 s; Discord documents no limit, and clients use 5 to 60 s
    /// (GW-105).
    pub hello: Duration,
    /// The time limit for READY. Default: 120 s; in an outage Discord answers late, and each Identify counts
    /// against the daily limit (GW-109).
    pub ready: Duration,
    /// How long a resume may make no progress. Default: 60 s.
    pub resumed: Duration,
    /// The time limit for a whole replay, not counting the time in which a subscriber blocks reading.
    /// Default: 10 min; commands are sent only after RESUMED, and the next connection continues where this
    /// one stopped (GW-134).
    pub replay: Duration,
    /// How long a session is kept while no connection makes progress with it. Default: 15 min, several times
    /// the "few minutes" for which Discord keeps an unused session (GW-103). Until then Discord decides
    /// whether the session still exists, since a Resume is free. Afterwards a new session is started, in case
    /// Discord never gives an answer for the old one.
    pub keep_session: Duration,
    /// The time limit for the closing handshake, after which TCP is dropped. Default: 3 s; a dead peer never
    /// answers (GW-102).
    pub close: Duration,
    /// The shortest wait after Invalid Session. Default: 1 s; Discord asks for 1 to 5 s (GW-149).
    pub invalid_session_min: Duration,
    /// The longest wait after Invalid Session. Default: 5 s; Discord asks for 1 to 5 s (GW-149).
    pub invalid_session_max: Duration,
    /// The waits between failed connections. Default: 1 s, doubling to 60 s (GW-153).
    pub reconnect: Backoff,
    /// The waits between failed sessions. Default: 5 s, doubling to 10 min, since each Identify counts
    /// against the daily limit.
    pub identify: Backoff,
    /// How long a shard must be ready before its earlier failures no longer count. Default: 60 s; a peer that
    /// accepts and closes connections at once must not be contacted without waiting (GW-154).
    pub stable: Duration,
    /// How often a shard that waits in the identify queue repeats its request, in case the request was lost.
    /// Default: 30 s.
    pub requeue: Duration,
    /// The window of the command limit. Default: 60 s; Discord allows 120 payloads per window (GW-155).
    pub command_window: Duration,
    /// The window of the presence limit. Default: 20 s; Discord allows 5 presence updates per window
    /// (GW-161).
    pub presence_window: Duration,
    /// A margin added to the command and presence windows for varying network delays: a payload sent just
    /// after a window must not arrive within it. Default: 250 ms (GW-158).
    pub command_margin: Duration,
    /// How long a voice command may wait to be sent. Default: 90 s, longer than a whole window of the limit,
    /// which may be full. Later, no user is still waiting for the bot to speak.
    pub voice_lifetime: Duration,
    /// How long a bulk request or raw payload may wait to be sent. Default: 10 min; a ready shard sends a
    /// full queue within that time.
    pub bulk_lifetime: Duration,
    /// The shortest time between two Identify of one key. Default: 5 s (GW-170).
    pub identify_window: Duration,
    /// A margin added to the identify window for varying network delays. Default: 250 ms (GW-172).
    pub identify_margin: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            hello: seconds(20),
            ready: seconds(120),
            resumed: seconds(60),
            replay: seconds(600),
            keep_session: seconds(900),
            close: seconds(3),
            invalid_session_min: seconds(1),
            invalid_session_max: seconds(5),
            reconnect: Backoff { base: seconds(1), cap: seconds(60) },
            identify: Backoff { base: seconds(5), cap: seconds(600) },
            stable: seconds(60),
            requeue: seconds(30),
            command_window: seconds(60),
            presence_window: seconds(20),
            command_margin: Duration::from_millis(250),
            voice_lifetime: seconds(90),
            bulk_lifetime: seconds(600),
            identify_window: seconds(5),
            identify_margin: Duration::from_millis(250),
        }
    }
}

impl Timings {
    /// Checks that each duration is within its bounds: at most [`LONGEST_WAIT`], and at least 1 ms where zero
    /// would make a loop spin. [`Shard::new`](crate::Shard::new) does not fail but uses the nearest valid
    /// durations.
    ///
    /// # Errors
    ///
    /// The first field that is out of bounds.
    pub fn check(mut self) -> Result<(), DurationError> {
        for (setting, wait, min) in self.waits() {
            DurationError::check(setting, *wait, min)?;
        }
        let (least, most) = (self.invalid_session_min, self.invalid_session_max);
        if least > most {
            let setting = "timings.invalid_session_min";
            return Err(DurationError { setting, value: least, min: Duration::ZERO, max: most });
        }
        Ok(())
    }

    /// The nearest timings that pass [`check`](Self::check), so that adding them to a time cannot overflow.
    pub(crate) fn bounded(mut self) -> Self {
        for (_, wait, min) in self.waits() {
            *wait = (*wait).clamp(min, LONGEST_WAIT);
        }
        self.invalid_session_max = self.invalid_session_max.max(self.invalid_session_min);
        self
    }

    /// Every duration with the name of its setting and its lower bound.
    fn waits(&mut self) -> [(&'static str, &mut Duration, Duration); 22] {
        let (any, some) = (Duration::ZERO, SHORTEST_WAIT);
        [
            ("timings.connect", &mut self.connect, some),
            ("timings.hello", &mut self.hello, some),
            ("timings.ready", &mut self.ready, some),
            ("timings.resumed", &mut self.resumed, some),
            ("timings.replay", &mut self.replay, some),
            ("timings.keep_session", &mut self.keep_session, any),
            ("timings.close", &mut self.close, some),
            ("timings.invalid_session_min", &mut self.invalid_session_min, any),
            ("timings.invalid_session_max", &mut self.invalid_session_max, any),
            ("timings.reconnect.base", &mut self.reconnect.base, some),
            ("timings.reconnect.cap", &mut self.reconnect.cap, some),
            ("timings.identify.base", &mut self.identify.base, some),
            ("timings.identify.cap", &mut self.identify.cap, some),
            ("timings.stable", &mut self.stable, some),
            ("timings.requeue", &mut self.requeue, some),
            ("timings.command_window", &mut self.command_window, some),
            ("timings.presence_window", &mut self.presence_window, some),
            ("timings.command_margin", &mut self.command_margin, any),
            ("timings.voice_lifetime", &mut self.voice_lifetime, any),
            ("timings.bulk_lifetime", &mut self.bulk_lifetime, any),
            ("timings.identify_window", &mut self.identify_window, some),
            ("timings.identify_margin", &mut self.identify_margin, any),
        ]
    }

    /// Divides all durations by `factor`, for a simulated Discord whose clock runs faster. Two kinds do not
    /// change, because the machine and the network run no faster: the time limits of connect and close, and
    /// the margins.
    ///
    /// # Panics
    ///
    /// When `factor` is not above zero.
    #[must_use]
    pub fn compressed(self, factor: f64) -> Self {
        let faster = |duration: Duration| duration.div_f64(factor);
        let backoff = |backoff: Backoff| Backoff { base: faster(backoff.base), cap: faster(backoff.cap) };
        Self {
            connect: self.connect,
            close: self.close,
            identify_margin: self.identify_margin,
            command_margin: self.command_margin,
            hello: faster(self.hello),
            ready: faster(self.ready),
            resumed: faster(self.resumed),
            replay: faster(self.replay),
            keep_session: faster(self.keep_session),
            invalid_session_min: faster(self.invalid_session_min),
            invalid_session_max: faster(self.invalid_session_max),
            reconnect: backoff(self.reconnect),
            identify: backoff(self.identify),
            stable: faster(self.stable),
            requeue: faster(self.requeue),
            command_window: faster(self.command_window),
            presence_window: faster(self.presence_window),
            voice_lifetime: faster(self.voice_lifetime),
            bulk_lifetime: faster(self.bulk_lifetime),
            identify_window: faster(self.identify_window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_checked_by_the_name_of_its_field() {
        assert_eq!(Timings::default().check(), Ok(()));
        let named: Vec<_> = Timings::default().waits().map(|(setting, ..)| setting).to_vec();
        let fields = format!("{:?}", Timings::default());
        let fields = fields.matches(": ").count() - fields.matches("Backoff").count();
        assert_eq!(named.len(), fields, "{named:?}");
        for (at, setting) in named.into_iter().enumerate() {
            let mut timings = Timings::default();
            *timings.waits()[at].1 = Duration::MAX;
            assert_eq!(timings.check().unwrap_err().setting, setting);
            assert_eq!(timings.bounded().check(), Ok(()));
        }
    }

    #[test]
    fn what_would_spin_is_refused() {
        let timings = Timings { requeue: Duration::ZERO, ..Timings::default() };
        let error = timings.check().unwrap_err().to_string();
        assert_eq!(error, "timings.requeue is 0ns: it has to be between 1ms and 31536000s");
        assert_eq!(timings.bounded().requeue, SHORTEST_WAIT);
    }

    #[test]
    fn the_least_wait_after_an_invalid_session_is_not_above_the_longest() {
        let timings = Timings { invalid_session_min: Duration::from_secs(9), ..Timings::default() };
        assert_eq!(timings.check().unwrap_err().setting, "timings.invalid_session_min");
        assert_eq!(timings.bounded().check(), Ok(()));
    }
}
