//! The configuration of the simulated Discord.

use std::net::SocketAddr;
use std::time::Duration;

use crate::etf::Atoms;

/// A token with the parts of Discord's: the bot's id in base64, a time and a signature. Some clients read the
/// id from it.
const TOKEN: &str = "MTA0Njk0MzE5MzA2MjQ4MTky.Zs4ZQA.not-a-secret-this-token-is-for-testing";

/// The configuration of a simulator. Build it from [`SimConfig::default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SimConfig {
    /// The only token that is accepted. Default: a fixed token in Discord's format, which is not secret.
    pub token: String,
    /// The seed of everything random: the same seed makes the same guilds and events. Default: 1.
    pub seed: u64,
    /// The recommended number of shards. Default: 1.
    pub shards: u32,
    /// How many shards may identify at the same time. Default: 1.
    pub max_concurrency: u32,
    /// How many Identify are allowed per period. Default: 1000.
    pub identify_total: u32,
    /// How many Identify are left when the simulator starts. Default: 1000.
    pub identify_remaining: u32,
    /// How many guilds the bot is in, over all shards. Default: 4.
    pub guilds: u32,
    /// How many members a large guild has. Every tenth guild is large, beginning with the first; the others
    /// have up to 24 members. Default: 120.
    pub large_guild_members: u32,
    /// How many events are generated per second, over all shards, while traffic is on. Default: 10.
    pub events_per_second: f64,
    /// Which events are generated. Default: [`Mix::Busy`].
    pub mix: Mix,
    /// How many faults per minute are made on random sessions while traffic is on. Default: 0.
    pub faults_per_minute: f64,
    /// The intents that are enabled in the developer portal, as a bit set. An Identify with a privileged
    /// intent that is not enabled is closed with 4014. Default: all documented intents.
    pub allowed_intents: u64,
    /// The most guilds of one session. An Identify for a shard with more is closed with 4011. Default: 2500,
    /// Discord's limit (GW-229).
    pub max_guilds_per_shard: u32,
    /// The number of shards has to be a multiple of this, or Identify is closed with 4010. Default: 1;
    /// Discord demands more of very large bots (GW-235).
    pub shard_multiple: u32,
    /// How many dispatches a session keeps for replay. A Resume from further back is refused. Default:
    /// 20,000.
    pub replay_limit: usize,
    /// Sends every third payload in pieces: with `zlib-stream` as several messages, of which the last one has
    /// the whole suffix `00 00 ff ff` (GW-044), otherwise as one message of several WebSocket frames
    /// (GW-015). Default: off.
    pub split_frames: bool,
    /// The most connections at the same time, WebSockets and others. Further ones are closed at once.
    /// Default: 16,384.
    pub max_connections: usize,
    /// How many URLs for Resume there are. Sessions take them in turn, so a large number gives each session
    /// its own. Default: 1.
    pub resume_hosts: u64,
    /// Does the same as `split_frames`, but also cuts within the suffix of `zlib-stream` (GW-045). Many
    /// clients look for the suffix in the last message only, and wait forever. Default: off.
    pub split_suffix: bool,
    /// Writes the atoms of ETF with each of the four tags (GW-037). Some clients know only the two common
    /// ones. Default: off.
    pub mixed_atoms: bool,
    /// The address in the URLs that the simulator gives to clients, for a proxy in between. `None`: the
    /// address that the simulator listens on.
    pub public_addr: Option<SocketAddr>,
    /// How events are recognised when they are observed. Default: [`Traces::Session`].
    pub traces: Traces,
    /// How many events the record of [`Traces::World`] keeps. Beyond that the oldest is forgotten, and not
    /// judged if it was not observed. Default: 200,000.
    pub history_limit: usize,
    /// Intervals, windows and lifetimes.
    pub timings: SimTimings,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            token: TOKEN.to_owned(),
            seed: 1,
            shards: 1,
            max_concurrency: 1,
            identify_total: 1000,
            identify_remaining: 1000,
            guilds: 4,
            large_guild_members: 120,
            events_per_second: 10.0,
            mix: Mix::Busy,
            faults_per_minute: 0.0,
            allowed_intents: crate::intents::DOCUMENTED,
            max_guilds_per_shard: 2500,
            shard_multiple: 1,
            replay_limit: 20_000,
            split_frames: false,
            max_connections: 16_384,
            resume_hosts: 1,
            split_suffix: false,
            mixed_atoms: false,
            public_addr: None,
            traces: Traces::Session,
            history_limit: 200_000,
            timings: SimTimings::default(),
        }
    }
}

impl SimConfig {
    pub(crate) fn atoms(&self) -> Atoms {
        if self.mixed_atoms { Atoms::Mixed } else { Atoms::Usual }
    }
}

/// How the simulator recognises an event that [`Simulator::observe`](crate::Simulator::observe) or
/// [`Simulator::observe_event`](crate::Simulator::observe_event) reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traces {
    /// By the session and the number of the dispatch in it, so the data of an event differs between two
    /// sessions. [`Simulator::delivery`](crate::Simulator::delivery) judges each session by itself.
    #[default]
    Session,
    /// By the event: its data is the same in each session that receives it, as at Discord.
    /// [`Simulator::world_delivery`](crate::Simulator::world_delivery) judges what was delivered over all
    /// sessions. READY, the GUILD_CREATEs after it and answers to commands belong to one session and keep the
    /// trace of the session.
    World {
        /// The names of events that have no trace at all, so that two of them may be the same byte for byte:
        /// they are counted by their content. The generated traffic sends half of them twice in a row.
        repeating: Vec<String>,
    },
}

/// The mix of events in the generated traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mix {
    /// The events of a busy bot: mostly messages, presences, typing and reactions, and now and then every
    /// other event.
    #[default]
    Busy,
    /// Every event equally often.
    Everything,
}

impl Mix {
    pub(crate) fn weight(self, busy: u32) -> u32 {
        match self {
            Self::Busy => busy,
            Self::Everything => 1,
        }
    }
}

/// Intervals, windows and lifetimes. The defaults are Discord's, as far as they are known.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SimTimings {
    /// The heartbeat interval in Hello. Default: 41.25 s, Discord's (GW-107).
    pub heartbeat_interval: Duration,
    /// How late a heartbeat may be, including delays of the network and of scheduling. Default: 10 s.
    pub heartbeat_tolerance: Duration,
    /// The least time between two Identify of one key. Default: 5 s, Discord's (GW-170).
    pub identify_window: Duration,
    /// The period of the Identify limit. Default: 24 h, Discord's (GW-166).
    pub budget_period: Duration,
    /// The window of the limit of 120 payloads. Default: 60 s, Discord's (GW-155).
    pub command_window: Duration,
    /// The window of the limit of 5 presences. Default: 20 s (GW-161).
    pub presence_window: Duration,
    /// The window in which all members of a guild may be requested once. Default: 30 s, Discord's (GW-162).
    pub members_window: Duration,
    /// The least time that a client should wait after op 9. Default: 1 s, as Discord asks (GW-149).
    pub invalid_session_wait: Duration,
    /// How long a session lives without a connection. Default: 180 s; Discord says "a few minutes" (GW-103).
    pub session_lifetime: Duration,
    /// How long after op 7 the simulator closes the connection. Default: 5 s; GW-145 says only that Discord
    /// closes it.
    pub reconnect_grace: Duration,
    /// How long the client may take to answer a close frame. Default: 2 s.
    pub close_grace: Duration,
}

impl Default for SimTimings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            heartbeat_interval: Duration::from_millis(41_250),
            heartbeat_tolerance: seconds(10),
            identify_window: seconds(5),
            budget_period: seconds(24 * 60 * 60),
            command_window: seconds(60),
            presence_window: seconds(20),
            members_window: seconds(30),
            invalid_session_wait: seconds(1),
            session_lifetime: seconds(180),
            reconnect_grace: seconds(5),
            close_grace: seconds(2),
        }
    }
}

impl SimTimings {
    /// Divides all times by `factor`, for a client whose times are divided in the same way. `close_grace`
    /// stays as it is, since the network does not get faster.
    #[must_use]
    pub fn compressed(self, factor: f64) -> Self {
        let faster = |duration: Duration| duration.div_f64(factor);
        Self {
            heartbeat_interval: faster(self.heartbeat_interval),
            heartbeat_tolerance: faster(self.heartbeat_tolerance),
            identify_window: faster(self.identify_window),
            budget_period: faster(self.budget_period),
            command_window: faster(self.command_window),
            presence_window: faster(self.presence_window),
            members_window: faster(self.members_window),
            invalid_session_wait: faster(self.invalid_session_wait),
            session_lifetime: faster(self.session_lifetime),
            reconnect_grace: faster(self.reconnect_grace),
            close_grace: self.close_grace,
        }
    }
}
