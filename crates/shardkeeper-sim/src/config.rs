//! What the simulated Discord is like.

use std::net::SocketAddr;
use std::time::Duration;

use crate::etf::Atoms;

/// The bot's id, a time and a signature, each in base64url, as Discord's tokens are: some clients read the id from it.
const TOKEN: &str = "MTA0Njk0MzE5MzA2MjQ4MTky.Zs4ZQA.not-a-secret-this-token-is-for-testing";

/// The configuration of a simulator. Build it from [`SimConfig::default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SimConfig {
    /// The only token that is accepted. One of Discord's form, which is no secret; the program prints it.
    pub token: String,
    /// Everything random comes from it: the same seed makes the same guilds and events. 1.
    pub seed: u64,
    /// The recommended number of shards. 1.
    pub shards: u32,
    /// How many shards may identify at the same time. 1.
    pub max_concurrency: u32,
    /// Identify allowed per period. 1000.
    pub identify_total: u32,
    /// Identify left when the simulator starts. 1000.
    pub identify_remaining: u32,
    /// How many guilds the bot is in, over all shards. 4.
    pub guilds: u32,
    /// How many members a large guild has: the first one, and then one in ten. The others have up to 24. 120.
    pub large_guild_members: u32,
    /// Dispatches generated per second, over all shards, while traffic is on. 10.
    pub events_per_second: f64,
    /// Which events those are. [`Mix::Busy`].
    pub mix: Mix,
    /// Faults made per minute at random shards, while traffic is on. None.
    pub faults_per_minute: f64,
    /// The intents that are enabled in the developer portal. All of them; an Identify that asks for a privileged one
    /// which is not here ends in 4014.
    pub allowed_intents: u64,
    /// So many guilds one session may have; an Identify that would have more ends in 4011. 2500 (GW-229).
    pub max_guilds_per_shard: u32,
    /// A number of shards has to be a multiple of it, else Identify ends in 4010. 1; large bots have another one
    /// (GW-235).
    pub shard_multiple: u32,
    /// How many dispatches a session keeps for a replay. 20,000; a resume from further back is refused.
    pub replay_limit: usize,
    /// Now and then sends a `zlib-stream` payload as several messages, of which the last one has the whole suffix
    /// (GW-044), and any other message as several WebSocket frames (GW-015). Off.
    pub split_frames: bool,
    /// How many connections there may be at the same time, WebSockets and others; more are closed at once. 16,384.
    pub max_connections: usize,
    /// How many URLs for Resume there are. The sessions take turns, so that a large number gives each one its own. 1.
    pub resume_hosts: u64,
    /// As `split_frames`, and cuts within the suffix of `zlib-stream` too (GW-045): many clients look for it in the last
    /// message only, and wait for ever. Off.
    pub split_suffix: bool,
    /// Writes the atoms of ETF with each of the four tags (GW-037), of which some clients know only the two usual ones.
    /// Off.
    pub mixed_atoms: bool,
    /// The address in the URLs that it tells, when clients shall come by a proxy. None: the one that it listens on.
    pub public_addr: Option<SocketAddr>,
    /// How time passes.
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
            timings: SimTimings::default(),
        }
    }
}

impl SimConfig {
    pub(crate) fn atoms(&self) -> Atoms {
        if self.mixed_atoms { Atoms::Mixed } else { Atoms::Usual }
    }
}

/// Which events the generated traffic consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mix {
    /// What a busy bot hears: messages, presences, typing, reactions; and everything else now and then.
    #[default]
    Busy,
    /// Every event as often as any other.
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
    /// What Hello tells. 41.25 s (GW-107).
    pub heartbeat_interval: Duration,
    /// How much later than that a heartbeat may come, network and scheduling included. 10 s.
    pub heartbeat_tolerance: Duration,
    /// The least time between two Identify of one key. 5 s (GW-170).
    pub identify_window: Duration,
    /// The period of the identify budget. 24 h (GW-166).
    pub budget_period: Duration,
    /// The window of the command limit. 60 s (GW-155).
    pub command_window: Duration,
    /// The window of the presence limit. 20 s (GW-161).
    pub presence_window: Duration,
    /// The window in which all members of a guild may be asked for once. 30 s (GW-162).
    pub members_window: Duration,
    /// How long a client should wait after op 9, at least. 1 s (GW-149).
    pub invalid_session_wait: Duration,
    /// How long a session lives without a connection. 180 s (GW-103: "a few minutes").
    pub session_lifetime: Duration,
    /// How long after op 7 the connection is closed by this side. 5 s (GW-145).
    pub reconnect_grace: Duration,
    /// How long the client may take to answer a close frame. 2 s.
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
    /// Everything `factor` times as fast, for a client whose clock runs as fast. The closing handshake keeps its
    /// time, since the network runs no faster.
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
