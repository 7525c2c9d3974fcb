//! The builder of a manager. It has every default with its reason.

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
use crate::manager::config::{Config, LayoutChoice, Live, ManagerArguments, Settings};
use crate::manager::restart::RestartPolicy;
use crate::reshard::ReshardPolicy;
use crate::shard::{Tap, WirePayload};
use crate::store::SessionStore;

/// URL of Discord's API, version 10.
pub const DISCORD_API: &str = "https://discord.com/api/v10";

/// Longest name of a library, in bytes.
const MAX_LIBRARY_BYTES: usize = 100;
/// Largest shard count. At 1,000 guilds per shard it covers more guilds than Discord has for any bot. The
/// bound rejects a mistyped count early, because each shard of this process takes memory from the start.
const MAX_SHARDS: u32 = 65_536;
/// Smallest bound of a message, in bytes. Hello and a READY without guilds fit into it.
const MIN_MESSAGE_BYTES: usize = 4096;
/// Largest bound of a message, in bytes: the largest frame length that a 32-bit process can hold.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

/// Configures a [`Shardkeeper`](crate::Shardkeeper).
///
/// Everything except the token and the intents has a default. Nothing is checked before
/// [`build`](Self::build). The manual lists [all defaults](crate::manual::_06_defaults).
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    token: String,
    api_url: String,
    shards: Option<u32>,
    ids: Option<BTreeSet<ShardId>>,
    reshard: Option<ReshardPolicy>,
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
            reshard: None,
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
                reshard: ReshardPolicy::on(),
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

    /// Sets the URL of the API, with its version. Default: [`DISCORD_API`]. Set another URL for a proxy or a
    /// simulator. Requests to it contain the token.
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = url.into();
        self
    }

    /// Sets the number of shards. Default: the number that Discord recommends.
    ///
    /// A start that can resume the sessions of another number of shards begins with that number, and reports
    /// it as [`LayoutFollowed`](crate::Lifecycle::LayoutFollowed): see [sessions in the
    /// manual](crate::manual::_05_shards#sessions).
    ///
    /// A fixed number is for bots whose shards are spread over several processes, which must agree on it. If
    /// Discord rejects the number, the manager ends with
    /// [`ExitReason::Refused`](crate::error::ExitReason::Refused). [`build`](Self::build) rejects zero and
    /// more than 65,536.
    pub fn shards(mut self, count: u32) -> Self {
        self.shards = Some(count);
        self
    }

    /// Runs only these shards of `count`; another process runs the others.
    ///
    /// Each process limits its own Identifies, and knows nothing of the others. Share the limit with an
    /// [`identify_gate`](Self::identify_gate), or give each process the shards of different rate-limit keys
    /// (`shard_id % max_concurrency`, GW-174), or start the processes one after the other.
    pub fn shard_ids(mut self, ids: impl IntoIterator<Item = impl Into<ShardId>>, count: u32) -> Self {
        self.ids = Some(ids.into_iter().map(Into::into).collect());
        self.shards = Some(count);
        self
    }

    /// Sets the presence that the bot shows from its first Identify. Default: online, without activity.
    /// [`build`](Self::build) checks it.
    pub fn presence(mut self, presence: Presence) -> Self {
        self.presence = Some(presence);
        self
    }

    /// Sets a function that computes the presence for each Identify of a shard, until
    /// [`update_presence`](crate::Shardkeeper::update_presence) sets another one there. Default: none. It
    /// takes precedence over [`presence`](Self::presence).
    ///
    /// The function runs on the shard's own task, so it must return at once. If it panics or returns an
    /// invalid presence, a warning is logged and the shard identifies without a presence.
    pub fn presence_fn(mut self, presence: impl Fn(ShardId) -> Presence + Send + Sync + 'static) -> Self {
        self.settings.presence_fn = Some(Arc::new(presence));
        self
    }

    /// Sets the gateway information that [`gateway_info`](crate::config::gateway_info) or another process has
    /// fetched. Default: the manager sends `GET /gateway/bot` when it starts.
    ///
    /// With it the manager starts without a request, and sends one only [hours
    /// later](Self::gateway_check_every) or when a shard cannot connect. Do not pass old information: its
    /// remaining budget is taken as current. A `max_concurrency` of 0 or above 4096 counts as 1.
    pub fn gateway(mut self, info: GatewayInfo) -> Self {
        self.settings.gateway = Some(info.bounded());
        self
    }

    /// Sets how often `GET /gateway/bot` is sent while all is well, for the remaining identify budget,
    /// `max_concurrency` and the recommended number of shards. Default: 8 h, three times per period of the
    /// budget.
    ///
    /// Each wait is a random time between half of the interval and the whole, so that many processes do not
    /// ask at once. Less than 60 s counts as 60 s, more than a year as a year.
    ///
    /// A failed request is reported as [`GatewayUnavailable`](crate::Lifecycle::GatewayUnavailable). It is
    /// repeated after one to two minutes, after a refusal hours later, and after a rejected token never.
    pub fn gateway_check_every(mut self, interval: Duration) -> Self {
        self.settings.gateway_check_every = interval;
        self
    }

    /// Adds sessions that an earlier process detached from. Default: none.
    ///
    /// They are resumed without an Identify, if they are only minutes old. They also decide how many shards
    /// the bot starts with: see [sessions in the manual](crate::manual::_05_shards#sessions). A session that
    /// does not fit is not used, and a warning is logged. Each call adds to the sessions of earlier calls.
    pub fn sessions(mut self, sessions: impl IntoIterator<Item = Session>) -> Self {
        self.settings.sessions.extend(sessions);
        self
    }

    /// Sets where sessions and the identify budget are stored for the next process. Default: no store;
    /// sessions end with the process, except those that [`detach`](crate::Shardkeeper::detach) returns.
    ///
    /// The next process resumes from the store, whether this one ends by `detach` or by `kill -9`. Changes
    /// are written a few times per second, and no event waits for a write. See [`store`](crate::store), and
    /// [`FileStore`](crate::store::FileStore) for a store on disk.
    pub fn session_store(mut self, store: Arc<dyn SessionStore>) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// Sets how old a stored session may be when it is resumed, counted from its last write: the longest time
    /// that the process may be down. Default: 1 h.
    ///
    /// Discord forgets sessions after some undocumented number of minutes, and a failed Resume costs only a
    /// few seconds. [`build`](Self::build) rejects more than a year.
    pub fn max_session_age(mut self, age: Duration) -> Self {
        self.settings.max_session_age = age;
        self
    }

    /// Sets the wall clock, by which a process knows how long ago another process stored something. Default:
    /// the system clock.
    ///
    /// Another clock is for tests with paused time, in which days may pass between two processes. The clock
    /// may jump; the manual's chapter on [shards](crate::manual::_05_shards) describes the effect. Everything
    /// else uses tokio's clock. The function must return at once.
    ///
    /// # Panics
    ///
    /// Never here. If the clock panics, the actor that called it crashes: the manager or the session keeper.
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.settings.wall_clock = Arc::new(now);
        self
    }

    /// Sets how Discord compresses what it sends. Default: `zlib-stream`, which cuts traffic to a fifth for
    /// about 48 KiB per shard and some microseconds per payload.
    ///
    /// [`Compression`] lists the cost of each method. Sessions of another compression cannot be resumed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Sets the encoding of payloads. Default: JSON.
    ///
    /// Events reach the bot as JSON text either way: ETF is translated on arrival, which costs more than it
    /// saves. Sessions of another encoding cannot be resumed.
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.settings.encoding = encoding;
        self
    }

    /// Sets the number of members from which a guild comes without its offline members: 50 to 250. Default:
    /// 50, which is Discord's default.
    ///
    /// A higher value costs traffic and memory at each new session. [`build`](Self::build) rejects other
    /// values, as Discord does.
    pub fn large_threshold(mut self, members: u8) -> Self {
        self.settings.large_threshold = members;
        self
    }

    /// Sets the timeouts, waits and windows of the protocol. [`Timings`] gives each default with its reason.
    ///
    /// Windows shorter than Discord's break its rate limits. [`build`](Self::build) rejects values that
    /// [cannot work](Timings::check).
    pub fn timings(mut self, timings: Timings) -> Self {
        self.settings.timings = timings;
        self
    }

    /// Sets the response to crashes. [`RestartPolicy`] gives each default with its reason.
    ///
    /// [`build`](Self::build) rejects durations of more than a year, and a quarantine of less than 1 ms.
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.settings.restart_policy = policy;
        self
    }

    /// Sets when the bot reshards by itself, and how long each step of a reshard may take. [`ReshardPolicy`]
    /// gives each default with its reason.
    ///
    /// Default: [`off`](ReshardPolicy::off). With [`on`](ReshardPolicy::on) a bot follows Discord's
    /// recommendation while it runs. [`build`](Self::build) rejects durations of more than a year.
    pub fn reshard(mut self, policy: ReshardPolicy) -> Self {
        self.reshard = Some(policy);
        self
    }

    /// Sets how many Identifies of the daily budget are never spent. Default: 10, at most half of the daily
    /// total.
    ///
    /// Discord resets the token when the budget reaches zero, and other processes of the bot may spend
    /// Identifies that this process does not know of.
    pub fn identify_reserve(mut self, identifies: u32) -> Self {
        self.settings.identify_reserve = identifies;
        self
    }

    /// Sets a gate that is asked, in addition to the manager's own queue, before a shard identifies. Default:
    /// none.
    ///
    /// Several processes of one bot use it to share Discord's limit (GW-174); a single process needs no gate.
    /// See [`IdentifyGate`].
    pub fn identify_gate(mut self, gate: Arc<dyn IdentifyGate>) -> Self {
        self.settings.identify_gate = Some(gate);
        self
    }

    /// Makes the start fail with [`StartError::Budget`](crate::error::StartError::Budget) when the identify
    /// budget is too small for all shards that have no session to resume. Default: off.
    ///
    /// When it is off, as many shards start as the budget allows, and the others wait for the next period,
    /// reported as [`Lifecycle::BudgetExhausted`](crate::Lifecycle::BudgetExhausted).
    pub fn require_full_start(mut self, whole: bool) -> Self {
        self.settings.require_full_start = whole;
        self
    }

    /// Sets the library name in Identify, sent as browser and device (GW-071). Default: `shardkeeper`. At
    /// most 100 bytes, so that a large presence fits into the same payload.
    pub fn library(mut self, name: impl Into<String>) -> Self {
        self.settings.library = name.into();
        self
    }

    /// Sets how many connections are opened per second over all shards, and how many may open at the same
    /// moment. Default: 50.
    ///
    /// With it, 2,000 shards that lost their connections together are back within 40 s, without flooding a
    /// server. Zero counts as one.
    pub fn connects_per_second(mut self, connects: u32) -> Self {
        self.settings.connects_per_second = connects.max(1);
        self
    }

    /// Sets the largest message that is accepted, in bytes after decompression. Default: 64 MiB, because
    /// READY and guilds of several MiB exist (GW-014).
    ///
    /// The bound limits the memory that a broken peer can use: up to twice as much per shard. A larger
    /// message ends the connection, so a bound that is too small keeps a shard from ever getting ready.
    /// [`build`](Self::build) rejects less than 4 KiB, and 2 GiB or more.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_message_bytes = bytes;
        self
    }

    /// Sets how long [`start`](Self::start) waits for the first answer of `GET /gateway/bot` before it fails
    /// with [`StartError::Unreachable`](crate::error::StartError::Unreachable). Default: no timeout.
    ///
    /// Without a timeout, a bot that is started during an outage comes up after it: each failed attempt is
    /// logged as a warning and repeated.
    ///
    /// [`build`](Self::build) rejects more than a year.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = Some(timeout);
        self
    }

    /// Sets how long [`stop`](crate::Shardkeeper::stop) and [`detach`](crate::Shardkeeper::detach) may take.
    /// Default: 10 s.
    ///
    /// A closing handshake takes at most 3 s; the rest is for subscribers to finish the events they have.
    /// Shards still running after the timeout are killed without a close frame. [`build`](Self::build)
    /// rejects more than a year.
    pub fn shutdown_timeout(mut self, deadline: Duration) -> Self {
        self.settings.shutdown_timeout = deadline;
        self
    }

    /// Sets how connections to the API and the Gateway are opened. Default: TCP with TLS. Tests use in-memory
    /// streams here, others a proxy.
    pub fn dialer(mut self, dialer: Arc<dyn Dialer>) -> Self {
        self.settings.dialer = dialer;
        self
    }

    /// Sets whether a shard whose connection ends, or cannot be opened, connects again. Default: `true`.
    ///
    /// With `false` the shard reports [`Change::Disconnected`](crate::status::Change::Disconnected) and
    /// [`Change::Stopped`](crate::status::Change::Stopped), keeps its session, and stays down until
    /// [`restart_shard`](crate::Shardkeeper::restart_shard): for an external supervisor that decides what
    /// happens next.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.settings.reconnect = reconnect;
        self
    }

    /// Sets a function that is called for each payload that a shard sends or receives, heartbeats included,
    /// with opcode, size and direction: for debugging. Default: none, which costs nothing.
    ///
    /// The function runs on the shard's own task, so it must return at once. If it panics, the panic is
    /// logged and the function is not called again. There is one tap: a later call replaces an earlier one.
    pub fn wire_tap(mut self, tap: impl Fn(&WirePayload<'_>) + Send + Sync + 'static) -> Self {
        self.settings.tap = Some(Arc::new(Tap::new(tap, false)));
        self
    }

    /// Sets a tap as [`wire_tap`](Self::wire_tap) does, which also gets the [content](WirePayload::data) of
    /// payloads.
    ///
    /// The content has messages of users, and in READY the session id: keep it out of logs that others can
    /// read. The token is never included.
    pub fn wire_tap_with_content(mut self, tap: impl Fn(&WirePayload<'_>) + Send + Sync + 'static) -> Self {
        self.settings.tap = Some(Arc::new(Tap::new(tap, true)));
        self
    }

    /// Makes jitter and waits repeatable, for tests. Default: random. Processes with the same seed would act
    /// in step.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Subscribes to a topic before anything starts, so that no event is missed.
    ///
    /// The subscription holds 1024 events and loses none: read it from the start, or its shards stop reading.
    /// It ends with the manager, and also when the builder is dropped or the start fails.
    #[track_caller]
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        self.subscribe_with(topic, SubscriptionOptions::default())
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does, with the given capacity and overflow policy.
    #[track_caller]
    pub fn subscribe_with(&self, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.live.hub.subscribe(topic, options)
    }

    /// Subscribes to the events of one kind before anything starts, each parsed into `T`: a model of
    /// twilight-model (feature `twilight`), or a type of the bot's own that names its event ([`EventModel`]).
    #[track_caller]
    pub fn subscribe_to<T: EventModel>(&self) -> TypedSubscription<T> {
        self.subscribe(Topic::events([T::EVENT])).typed()
    }

    /// Checks everything that can be checked without asking Discord.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work. The error names it.
    pub fn build(mut self) -> Result<ManagerArguments, ConfigError> {
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
        self.settings.reshard = self.reshard.unwrap_or_default();
        self.settings.reshard.check()?;
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
            (None, _) => LayoutChoice::Recommended,
            (Some(count), None) => LayoutChoice::All(count),
            (Some(count), Some(ids)) => {
                if ids.is_empty() {
                    return Err(ConfigError::NoShards);
                }
                match ids.last() {
                    Some(&shard) if !count.contains(shard) => {
                        return Err(ConfigError::NoSuchShard { shard, count });
                    }
                    _ => LayoutChoice::Some { ids, count },
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
        assert_eq!(refused(builder), "the intents contain unknown bits: 0x20000");
        // GW-069: zero intents are valid.
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
            "the shard count is 4294967295: at most 65536 are allowed"
        );
    }

    #[test]
    fn a_capacity_beyond_all_bounds_counts_as_the_largest() {
        let builder = Builder::new("T".into(), Intents::GUILDS);
        let options = SubscriptionOptions { capacity: usize::MAX, ..SubscriptionOptions::default() };
        drop(builder.subscribe_with(Topic::all(), options));
    }

    /// Collects the log lines of a test.
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
        assert!(refused(builder).starts_with("payload compression works only with the json encoding"));
    }
}
