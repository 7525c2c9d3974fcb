//! Every span of time that the protocol side waits, with its reason.

use std::time::Duration;

use crate::Backoff;

/// The longest wait that the protocol side takes: a year, far beyond anything of use, and far from where adding it to a time
/// overflows.
pub const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// The shortest wait where zero would make a loop spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A span of time that cannot work, by the name of its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value:?}: it has to be between {min:?} and {max:?}")]
#[non_exhaustive]
pub struct DurationError {
    /// The setting.
    pub setting: &'static str,
    /// What was given.
    pub value: Duration,
    /// The shortest that works.
    pub min: Duration,
    /// The longest that works.
    pub max: Duration,
}

impl DurationError {
    /// Checks a span of time for the setting of this name: at least `min`, and at most [`LONGEST_WAIT`].
    ///
    /// # Errors
    ///
    /// The setting with its bounds, when the span lies outside of them.
    pub fn check(setting: &'static str, value: Duration, min: Duration) -> Result<(), Self> {
        if (min..=LONGEST_WAIT).contains(&value) {
            return Ok(());
        }
        Err(Self { setting, value, min, max: LONGEST_WAIT })
    }
}

/// Deadlines, waits and windows. The defaults are for the real Discord. Construct it with `Default`, then set fields; the
/// three windows are Discord's, and shorter ones break its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Timings {
    /// How long a connection may take to open: TCP, TLS and WebSocket together. 10 s.
    pub connect: Duration,
    /// How long Hello may take. 20 s: no limit is documented, clients use 5 to 60 s (GW-105).
    pub hello: Duration,
    /// How long READY may take. 120 s: in an outage Discord answers late, and each Identify costs (GW-109).
    pub ready: Duration,
    /// How long a resume may go without a sign of progress. 60 s.
    pub resumed: Duration,
    /// How long a whole replay may take, not counting the time in which a subscriber keeps the shard from reading.
    /// 10 min: without RESUMED no command is sent, and the next connection goes on where this one stood (GW-134).
    pub replay: Duration,
    /// How long a session is kept while no connection does anything for it. 15 min, several times the "few minutes" that
    /// Discord keeps one that nobody resumes (GW-103): until then Discord's own word decides, since a Resume costs
    /// nothing. Afterwards a new session is started, in case Discord never gives an answer for the old one.
    pub keep_session: Duration,
    /// How long the closing handshake may take before TCP is dropped. 3 s: a dead peer never answers (GW-102).
    pub close: Duration,
    /// The shortest wait after Invalid Session. 1 s: Discord asks for 1 to 5 s (GW-149).
    pub invalid_session_min: Duration,
    /// The longest wait after Invalid Session. 5 s: Discord asks for 1 to 5 s (GW-149).
    pub invalid_session_max: Duration,
    /// Waits between failed connections: 1 s doubling to 60 s (GW-153).
    pub reconnect: Backoff,
    /// Waits between failed sessions: 5 s doubling to 10 min, since each Identify counts against a day's allowance.
    pub identify: Backoff,
    /// How long a shard must have been ready for its failures to be forgotten. 60 s: a peer that accepts and
    /// closes at once must not be met without waiting (GW-154).
    pub stable: Duration,
    /// How often a shard that waits in the identify queue says so again, in case its request was lost. 30 s.
    pub requeue: Duration,
    /// The window of the command limit. 60 s: Discord allows 120 payloads in it (GW-155).
    pub command_window: Duration,
    /// The window of the presence limit. 20 s: Discord allows 5 presence updates in it (GW-161).
    pub presence_window: Duration,
    /// Added to both for delays on the way to Discord, which vary: what is sent just after a window must not arrive within
    /// it. 250 ms (GW-158).
    pub command_margin: Duration,
    /// How long a voice command may wait to be sent. 90 s: beyond a whole window of the limit, which may be full; later
    /// nobody waits for the bot to speak any more.
    pub voice_lifetime: Duration,
    /// How long a bulk request or raw payload may wait to be sent. 10 min: in a shard that is ready they all pass by then.
    pub bulk_lifetime: Duration,
    /// The least time between two Identify of one key. 5 s (GW-170).
    pub identify_window: Duration,
    /// Added to it for delays on the way to Discord. 250 ms (GW-172).
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
    /// Checks that each span can work: none is longer than [`LONGEST_WAIT`], and those that would make a loop spin are at
    /// least 1 ms. [`Shard::new`](crate::Shard::new) takes the nearest span that works instead.
    ///
    /// # Errors
    ///
    /// The first field that cannot work.
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

    /// The nearest timings that [work](Self::check): what adds them to a time cannot overflow.
    pub(crate) fn bounded(mut self) -> Self {
        for (_, wait, min) in self.waits() {
            *wait = (*wait).clamp(min, LONGEST_WAIT);
        }
        self.invalid_session_max = self.invalid_session_max.max(self.invalid_session_min);
        self
    }

    /// Every span with the name of its setting and the shortest that works.
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

    /// Everything `factor` times as fast, for a simulated Discord whose clock runs as fast. Two things stay, since
    /// the machine and the network run no faster: the deadlines of connect and close, and the margins.
    ///
    /// # Panics
    ///
    /// When the factor is not above zero.
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
