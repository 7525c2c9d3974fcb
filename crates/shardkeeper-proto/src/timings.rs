//! Every span of time that the protocol side waits, with its reason.

use std::time::Duration;

use crate::Backoff;

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
    /// How long the closing handshake may take before TCP is dropped. 3 s (GW-102).
    pub close: Duration,
    /// The shortest wait after Invalid Session. 1 s (GW-149).
    pub invalid_session_min: Duration,
    /// The longest wait after Invalid Session. 5 s (GW-149).
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
    /// The window of the command limit. 60 s (GW-155).
    pub command_window: Duration,
    /// The window of the presence limit. 20 s (GW-161).
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
