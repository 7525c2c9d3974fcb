//! How a manager is configured. Every default stands here, with its reason.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shardkeeper_proto::{
    DurationError, Encoding, Intents, Presence, PresenceUpdate, Session, ShardCount, ShardId, Timings, Token,
};
use shardkeeper_transport::{Compression, Dialer, TcpDialer, TransportConfig};
use url::Url;

use crate::dispatch::{EventModel, Subscription, SubscriptionOptions, Topic, TypedSubscription};
use crate::error::ConfigError;
use crate::gate::IdentifyGate;
use crate::gateway_info::GatewayInfo;
use crate::manager::config::{Config, Layout, Live, ManagerArguments, Settings};
use crate::manager::restart::RestartPolicy;
use crate::shard::{Tap, WirePayload};
use crate::store::SessionStore;

/// Discord's API, version 10.
pub const DISCORD_API: &str = "https://discord.com/api/v10";

/// The longest name of a library, in bytes.
const MAX_LIBRARY_BYTES: usize = 100;
/// The largest shard count: at 1,000 guilds each, more guilds than Discord has for any bot. Each shard of this process takes
/// memory from the start on, so a mistyped count must not be tried.
const MAX_SHARDS: u32 = 65_536;
/// The smallest bound of a message: Hello and a READY without guilds fit into it.
const MIN_MESSAGE_BYTES: usize = 4096;
/// The largest bound of a message: what a length in a WebSocket frame of a 32-bit process can be.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

/// Configures a [`Shardkeeper`](crate::Shardkeeper). Everything but token and intents has a default; nothing is checked before
/// [`build`](Self::build). The manual lists [all defaults](crate::manual::_06_defaults).
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    token: String,
    api_url: String,
    shards: Option<u32>,
    ids: Option<BTreeSet<ShardId>>,
    presence: Option<Presence>,
    settings: Settings,
    live: Live,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("intents", &self.settings.intents).finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(token: String, intents: Intents) -> Self {
        Self {
            token,
            api_url: DISCORD_API.to_owned(),
            shards: None,
            ids: None,
            presence: None,
            live: Live::new(intents),
            settings: Settings {
                intents,
                gateway: None,
                gateway_check_every: Duration::from_secs(8 * 3600),
                presence_fn: None,
                large_threshold: 50,
                library: "shardkeeper".to_owned(),
                compression: Compression::ZlibStream,
                encoding: Encoding::Json,
                timings: Timings::default(),
                max_message_bytes: TransportConfig::default().max_message_bytes,
                connects_per_second: 50,
                identify_reserve: 10,
                require_full_start: false,
                identify_gate: None,
                restart_policy: RestartPolicy::default(),
                start_timeout: None,
                shutdown_timeout: Duration::from_secs(10),
                sessions: Vec::new(),
                store: None,
                max_session_age: Duration::from_secs(3600),
                wall_clock: Arc::new(SystemTime::now),
                dialer: Arc::new(TcpDialer::new()),
                seed: None,
                reconnect: true,
                tap: None,
            },
        }
    }

    /// The API's URL with its version. [`DISCORD_API`]; another one for a proxy or a simulator. It gets the token.
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = url.into();
        self
    }

    /// The number of shards. What Discord recommends; a fixed number is for bots whose shards are spread over
    /// processes, which must agree on it. One that Discord does not take ends the manager
    /// ([`ExitReason::Refused`](crate::error::ExitReason::Refused)); zero and more than 65,536 are refused by [`build`](Self::build).
    pub fn shards(mut self, count: u32) -> Self {
        self.shards = Some(count);
        self
    }

    /// Runs only these shards of `count`; another process runs the others.
    ///
    /// Each process keeps the pace of Identify by itself, and knows nothing of the others'. Let them share it with an
    /// [`identify_gate`](Self::identify_gate); or give each one shards of keys of its own (`shard_id % max_concurrency`,
    /// GW-174), or start them one after the other.
    pub fn shard_ids(mut self, ids: impl IntoIterator<Item = impl Into<ShardId>>, count: u32) -> Self {
        self.ids = Some(ids.into_iter().map(Into::into).collect());
        self.shards = Some(count);
        self
    }

    /// What the bot shows from its first Identify on. Online, without activity. [`build`](Self::build) checks it.
    pub fn presence(mut self, presence: Presence) -> Self {
        self.presence = Some(presence);
        self
    }

    /// Computes what the bot shows, for each Identify of a shard, until
    /// [`update_presence`](crate::Shardkeeper::update_presence) sets something else there. It goes before
    /// [`presence`](Self::presence). It is called on the shard's own task, so it must return at once; when it panics, or
    /// makes a presence that cannot be shown, a warning says so and the shard goes without.
    pub fn presence_fn(mut self, presence: impl Fn(ShardId) -> Presence + Send + Sync + 'static) -> Self {
        self.settings.presence_fn = Some(Arc::new(presence));
        self
    }

    /// What [`gateway_info`](crate::config::gateway_info) has said, or another process that asked: the manager starts from it, and
    /// asks itself only [hours later](Self::gateway_check_every), or when a shard cannot get anywhere. By default it asks when
    /// it starts. Do not give an old one: what is left of the budget is believed.
    ///
    /// A `max_concurrency` of 0 or above 4096 counts as 1.
    pub fn gateway(mut self, info: GatewayInfo) -> Self {
        self.settings.gateway = Some(info.bounded());
        self
    }

    /// How often the gateway is asked how things stand, while everything goes well: what is left of the identify budget, how
    /// many may identify at once, how many shards Discord advises. 8 h: so three times in a period of the budget. Each time it
    /// is between a half of it and the whole, at random, so that many processes do not ask at once. Less than 60 s counts as 60 s,
    /// more than a year as a year. A request that fails is a [`GatewayUnavailable`](crate::Lifecycle::GatewayUnavailable), and is
    /// made again after one to two minutes; after a refusal hours later, after a rejected token never.
    pub fn gateway_check_every(mut self, interval: Duration) -> Self {
        self.settings.gateway_check_every = interval;
        self
    }

    /// Sessions that an earlier process detached from: they are resumed, without an Identify, if that was only
    /// minutes ago. None. One that does not fit is not used, and a warning says why. Each call adds to those before.
    pub fn sessions(mut self, sessions: impl IntoIterator<Item = Session>) -> Self {
        self.settings.sessions.extend(sessions);
        self
    }

    /// Where sessions and the identify budget are kept for the next process: it resumes from there, whether this one ends by
    /// [`detach`](crate::Shardkeeper::detach) or by `kill -9`. None: they go with the process, but for what `detach` returns.
    ///
    /// Some times a second what has changed is stored; no event waits for it. See [`store`](crate::store), and
    /// [`FileStore`](crate::store::FileStore) for one on disk.
    pub fn session_store(mut self, store: Arc<dyn SessionStore>) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// How old a stored session may be to be resumed, since it was stored last: so how long the process may be away. 1 h:
    /// Discord forgets sessions after minutes, nobody knows exactly how many, and a vain Resume costs some seconds alone.
    /// [`build`](Self::build) refuses more than a year.
    pub fn max_session_age(mut self, age: Duration) -> Self {
        self.settings.max_session_age = age;
        self
    }

    /// The clock by which one process knows how long ago another one stored something. The system's; another one is for
    /// tests under a paused clock, where days may pass in the meantime. It may jump: what that costs is in the manual's chapter
    /// on [shards](crate::manual::_05_shards). Everything else goes by tokio's clock. It must return at once.
    ///
    /// # Panics
    ///
    /// Never here. When the clock panics, the manager or the session keeper does, which asks it.
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.settings.wall_clock = Arc::new(now);
        self
    }

    /// How Discord compresses what it sends. `zlib-stream`: a fifth of the traffic, for about 48 KiB and some
    /// microseconds. See [`Compression`] for what each one costs. Sessions of another compression cannot be resumed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// The form of payloads. JSON. Events arrive as JSON text either way: ETF is translated when it comes in, which costs
    /// more than it saves. Sessions of another encoding cannot be resumed.
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.settings.encoding = encoding;
        self
    }

    /// From how many members on a guild comes without those offline: 50 to 250. 50, Discord's own default. More costs
    /// traffic and memory at each start of a session; [`build`](Self::build) refuses what Discord does.
    pub fn large_threshold(mut self, members: u8) -> Self {
        self.settings.large_threshold = members;
        self
    }

    /// Deadlines, waits and windows of the protocol. See [`Timings`] for each with its reason. Windows that are shorter than
    /// Discord's break its limits. [`build`](Self::build) refuses what [cannot work](Timings::check).
    pub fn timings(mut self, timings: Timings) -> Self {
        self.settings.timings = timings;
        self
    }

    /// How crashes are answered. See [`RestartPolicy`] for each of its numbers. [`build`](Self::build) refuses spans of more
    /// than a year, and a quarantine of less than 1 ms.
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.settings.restart_policy = policy;
        self
    }

    /// How many of the day's Identify are never spent. 10: reaching zero resets the token, and other processes of
    /// the bot may spend some that this one does not know of. At most half of the day's total is kept.
    pub fn identify_reserve(mut self, identifies: u32) -> Self {
        self.settings.identify_reserve = identifies;
        self
    }

    /// Where this manager asks, beside its own queue, before a shard identifies: what several processes of one bot share
    /// (GW-174). None; one process needs none. See [`IdentifyGate`].
    pub fn identify_gate(mut self, gate: Arc<dyn IdentifyGate>) -> Self {
        self.settings.identify_gate = Some(gate);
        self
    }

    /// Whether to refuse to start ([`StartError::Budget`](crate::error::StartError::Budget)) when the day's Identify do not suffice
    /// for every shard that has no session to resume. Off: as many start as can, and the others wait for the next period,
    /// with a [`Lifecycle::BudgetExhausted`](crate::Lifecycle::BudgetExhausted).
    pub fn require_full_start(mut self, whole: bool) -> Self {
        self.settings.require_full_start = whole;
        self
    }

    /// The name by which the bot's library calls itself in Identify, as browser and device (GW-071). `shardkeeper`; at most
    /// 100 bytes, so that a large presence fits in beside it.
    pub fn library(mut self, name: impl Into<String>) -> Self {
        self.settings.library = name.into();
        self
    }

    /// How many connections per second are opened, over all shards; as many may open at once. 50: so 2,000 shards
    /// that lost their connections together are back within 40 s, and nobody is stormed. Zero counts as one.
    pub fn connects_per_second(mut self, connects: u32) -> Self {
        self.settings.connects_per_second = connects.max(1);
        self
    }

    /// The largest message that is accepted, after decompression, in bytes. 64 MiB; READY and guilds of several
    /// MiB are real (GW-014). It bounds what a broken peer can cost, per shard up to twice as much. A message beyond it ends
    /// the connection: with too small a bound a shard is never ready. [`build`](Self::build) refuses less than 4 KiB and 2 GiB
    /// or more.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_message_bytes = bytes;
        self
    }

    /// How long [`start`](Self::start) may wait for the first answer of `GET /gateway/bot` before it fails with
    /// [`StartError::Unreachable`](crate::error::StartError::Unreachable). None: it tries until the gateway answers, and each failure
    /// is a warning in the log, so that a bot that is started during an outage comes up after it.
    ///
    /// [`build`](Self::build) refuses more than a year.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = Some(timeout);
        self
    }

    /// How long [`stop`](crate::Shardkeeper::stop) and [`detach`](crate::Shardkeeper::detach) may take. 10 s; a closing
    /// handshake takes 3 at most, the rest is for subscribers to take what is under way. What has not ended by then is
    /// killed, without a close frame. [`build`](Self::build) refuses more than a year.
    pub fn shutdown_timeout(mut self, deadline: Duration) -> Self {
        self.settings.shutdown_timeout = deadline;
        self
    }

    /// How byte streams are opened, to the API and the Gateway. TCP and TLS; tests put streams in memory here, others a proxy.
    pub fn dialer(mut self, dialer: Arc<dyn Dialer>) -> Self {
        self.settings.dialer = dialer;
        self
    }

    /// Whether a shard whose connection ends, or cannot be made, makes another one. `true`. With `false` it reports
    /// [`Change::Disconnected`](crate::status::Change::Disconnected) and [`Change::Stopped`](crate::status::Change::Stopped), keeps its session,
    /// and stays down until [`restart_shard`](crate::Shardkeeper::restart_shard): for a supervisor outside that decides what
    /// happens next.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.settings.reconnect = reconnect;
        self
    }

    /// Calls a function for each payload that a shard sends or receives, heartbeats included, with opcode, size and direction:
    /// for debugging. None; without it nothing is spent on it. The function runs on the shard's own task, so it must return at
    /// once; when it panics, the log says so and it is not called again. There is one tap: the last one counts.
    pub fn wire_tap(mut self, tap: impl Fn(&WirePayload<'_>) + Send + Sync + 'static) -> Self {
        self.settings.tap = Some(Arc::new(Tap::new(tap, false)));
        self
    }

    /// As [`wire_tap`](Self::wire_tap), with the [content](WirePayload::data): messages of users, and the session's id in READY,
    /// which must not get into a log that others read. Never the token.
    pub fn wire_tap_with_content(mut self, tap: impl Fn(&WirePayload<'_>) + Send + Sync + 'static) -> Self {
        self.settings.tap = Some(Arc::new(Tap::new(tap, true)));
        self
    }

    /// Makes jitter and waits repeatable, for tests. They are random; processes of the same seed would move in step.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Subscribes before anything starts, so that nothing is missed. It holds 1024 events and loses none; read it from the
    /// start on, or its shards wait. It ends with the manager, and when the builder is dropped or the start fails.
    #[track_caller]
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        self.subscribe_with(topic, SubscriptionOptions::default())
    }

    /// As [`subscribe`](Self::subscribe), with a capacity and a policy of the caller's.
    #[track_caller]
    pub fn subscribe_with(&self, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.live.hub.subscribe(topic, options)
    }

    /// Subscribes to the events of one kind before anything starts, each read into `T`: a model of twilight-model (feature
    /// `twilight`), or a type of the bot's own with the name of its event ([`EventModel`]).
    #[track_caller]
    pub fn subscribe_to<T: EventModel>(&self) -> TypedSubscription<T> {
        self.subscribe(Topic::events([T::EVENT])).typed()
    }

    /// Checks everything that can be checked without asking Discord.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work, by name.
    pub fn build(self) -> Result<ManagerArguments, ConfigError> {
        let token = Token::new(&self.token)?;
        let url = Url::parse(&self.api_url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let api_url = url.ok_or(ConfigError::ApiUrl { url: self.api_url })?;
        let intents = self.settings.intents;
        if Intents::from_bits(intents.bits()).is_none() {
            let bits = intents.bits() & !Intents::all().bits();
            return Err(ConfigError::Intents { bits });
        }
        if !(50..=250).contains(&self.settings.large_threshold) {
            return Err(ConfigError::LargeThreshold { value: self.settings.large_threshold });
        }
        let bytes = self.settings.library.len();
        if bytes > MAX_LIBRARY_BYTES {
            return Err(ConfigError::LibraryName { bytes, limit: MAX_LIBRARY_BYTES });
        }
        if self.settings.compression == Compression::Payload && self.settings.encoding != Encoding::Json {
            return Err(ConfigError::PayloadCompression);
        }
        self.settings.timings.check()?;
        self.settings.restart_policy.check()?;
        DurationError::check(
            "start_timeout",
            self.settings.start_timeout.unwrap_or_default(),
            Duration::ZERO,
        )?;
        DurationError::check("shutdown_timeout", self.settings.shutdown_timeout, Duration::ZERO)?;
        DurationError::check("max_session_age", self.settings.max_session_age, Duration::ZERO)?;
        let (value, min, max) = (self.settings.max_message_bytes, MIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
        if !(min..=max).contains(&value) {
            return Err(ConfigError::MaxMessageBytes { value, min, max });
        }
        let presence = self.presence.filter(|_| self.settings.presence_fn.is_none());
        let presence = presence.map(PresenceUpdate::new).transpose()?;
        if let Some(count) = self.shards.filter(|count| *count > MAX_SHARDS) {
            return Err(ConfigError::TooManyShards { count, limit: MAX_SHARDS });
        }
        let count =
            self.shards.map(|count| ShardCount::new(count).ok_or(ConfigError::NoShards)).transpose()?;
        let layout = match (count, self.ids) {
            (None, _) => Layout::Recommended,
            (Some(count), None) => Layout::All(count),
            (Some(count), Some(ids)) => {
                if ids.is_empty() {
                    return Err(ConfigError::NoShards);
                }
                match ids.last() {
                    Some(&shard) if !count.contains(shard) => {
                        return Err(ConfigError::NoSuchShard { shard, count });
                    }
                    _ => Layout::Some { ids, count },
                }
            }
        };
        let Self { settings, live, .. } = self;
        Ok(ManagerArguments { config: Config { token, api_url, layout, presence, settings }, live })
    }
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::EventName;

    use super::*;

    fn refused(builder: Builder) -> String {
        builder.build().expect_err("it cannot work").to_string()
    }

    #[test]
    fn gw_282_the_default_url_names_the_version() {
        let config = Builder::new("T".into(), Intents::GUILDS).build().expect("the defaults work");
        assert_eq!(config.config.api_url.path(), "/api/v10");
    }

    #[test]
    fn gw_187_intents_that_no_bot_has_are_refused() {
        let builder = Builder::new("T".into(), Intents::from_bits_retain(1 << 17 | 1));
        assert_eq!(refused(builder), "the intents have bits that no intent of a bot has: 0x20000");
        // GW-069: none at all is fine.
        assert!(Builder::new("T".into(), Intents::empty()).build().is_ok());
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let bot = || Builder::new("T".into(), Intents::GUILDS);
        let year = "has to be between 0ns and 31536000s";
        let mut timings = Timings::default();
        timings.hello = Duration::MAX;
        let hello = refused(bot().timings(timings));
        assert!(
            hello.starts_with("timings.hello is ") && hello.ends_with("between 1ms and 31536000s"),
            "{hello}"
        );
        let policy = RestartPolicy { window: Duration::MAX, ..RestartPolicy::default() };
        let window = refused(bot().restart_policy(policy));
        assert!(window.starts_with("restart_policy.window is ") && window.ends_with(year), "{window}");
        let policy = RestartPolicy { quarantine: Duration::ZERO, ..RestartPolicy::default() };
        assert!(refused(bot().restart_policy(policy)).starts_with("restart_policy.quarantine is 0ns"));
        assert!(refused(bot().start_timeout(Duration::MAX)).starts_with("start_timeout is "));
        assert!(refused(bot().shutdown_timeout(Duration::MAX)).starts_with("shutdown_timeout is "));
        assert!(refused(bot().max_session_age(Duration::MAX)).starts_with("max_session_age is "));
        assert!(refused(bot().max_message_bytes(0)).starts_with("max_message_bytes is 0: "));
        assert!(refused(bot().max_message_bytes(usize::MAX)).starts_with("max_message_bytes is "));
        assert_eq!(
            refused(bot().shards(u32::MAX)),
            "the shard count is 4294967295: at most 65536 are possible"
        );
    }

    #[test]
    fn a_capacity_beyond_all_bounds_counts_as_the_largest() {
        let builder = Builder::new("T".into(), Intents::GUILDS);
        let options = SubscriptionOptions { capacity: usize::MAX, ..SubscriptionOptions::default() };
        drop(builder.subscribe_with(Topic::all(), options));
    }

    /// Keeps the log lines of a test.
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<String>>>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut |_: &tracing::field::Field, value: &dyn fmt::Debug| {
                self.0.lock().expect("no test panics with it").push(format!("{value:?}"));
            });
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_topic_that_the_intents_cannot_bring_is_warned_of() {
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            let builder = Builder::new("T".into(), Intents::GUILDS);
            let _here = builder.subscribe(Topic::events([EventName::Ready, EventName::GuildCreate]));
            let _in_vain = builder.subscribe(Topic::events([EventName::GuildMemberAdd]));
            let _either = builder.subscribe_to::<Message>();
        });
        let said = |event: &str, intent: &str| {
            format!("a subscription waits for {event}, which never comes without the intent {intent}: add it")
        };
        assert_eq!(
            *log.0.lock().expect("no test panics with it"),
            [
                said("GUILD_MEMBER_ADD", "GUILD_MEMBERS"),
                said("MESSAGE_CREATE", "GUILD_MESSAGES or DIRECT_MESSAGES")
            ]
        );
    }

    #[derive(serde::Deserialize)]
    struct Message {}

    impl EventModel for Message {
        const EVENT: EventName = EventName::MessageCreate;
    }

    #[cfg(feature = "etf")]
    #[test]
    fn gw_034_payload_compression_is_for_json() {
        let builder = Builder::new("T".into(), Intents::GUILDS);
        let builder = builder.compression(Compression::Payload).encoding(Encoding::Etf);
        assert!(refused(builder).starts_with("payload compression goes with the encoding json only"));
    }
}
