//! Coming from elsewhere: which call replaces which, and what differs.
//!
//! The first part is for moving a bot, one section per library. The second part lists, call by call, what the
//! shard managers offer that this library can replace. "None" means that there is no equivalent; the remark
//! gives the reason, or what to do instead.
//!
//! These points differ from all of them:
//!
//! - The bot does not run the loop of a shard. The manager does, from [`Builder::start`] on, whether the bot
//!   reads or not.
//! - There are no callbacks. The bot reads events from a [`Subscription`], with any number of tasks or
//!   actors.
//! - A failure of the network is never returned. The library handles it and reports it as a [`Lifecycle`]
//!   event. Only a mistake in the configuration and a refusal by Discord are returned.
//! - There is no REST client, no cache and no models. Use those that the bot has.
//!
//! # twilight
//!
//! | twilight-gateway | here | what differs |
//! |---|---|---|
//! | `ConfigBuilder`, `Config` | [`Builder`] | one configuration for all shards |
//! | `create_recommended`, `create_iterator`, `create_bucket` | [`Builder::shards`], [`Builder::shard_ids`] | the recommended number is the default |
//! | `Shard::next_event` in a loop per shard | [`Subscription::next`] in a loop per task | events of all shards, of some, or of one |
//! | `EventTypeFlags` | [`Topic`] | can also select by shard, guild and predicate |
//! | `Event` of twilight-model | `Dispatch::event()`, with the feature `twilight` | the same type, for `InMemoryCache` and `Standby` |
//! | `Event::MessageCreate` in a `match` | [`Shardkeeper::subscribe_to`]`::<MessageCreate>()` | one subscription for one kind of event |
//! | `ReceiveMessageError` | [`Lifecycle::Shard`] | nothing to handle |
//! | `Shard::command`, `MessageSender::command` | [`Shardkeeper::command`] | routed by guild; rejected with a reason; [`AcceptedCommand::written`] |
//! | `MessageSender::close`, `Shard::close` | [`Shardkeeper::stop`], [`Shardkeeper::detach`] | the call decides the close code |
//! | `Queue`, `InMemoryQueue` | [`IdentifyQueue`], and [`Builder::identify_gate`] between processes | supervised, with the day's budget and a reserve |
//! | `Session`, `ConfigBuilder::session` | [`Session`], [`Builder::sessions`] | handed over as of the watermark |
//! | `Shard::latency` | [`ShardStatus::latency`], [`ShardStatus::latencies`] | read without asking the shard |
//! | `Shard::state` | [`ShardStatus::phase`] | |
//!
//! ```no_run
//! use shardkeeper::{Event, EventName, Intents, Shardkeeper, Topic};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let bot = Shardkeeper::builder(std::env::var("DISCORD_TOKEN")?, Intents::GUILDS | Intents::GUILD_MESSAGES);
//!     let mut events = bot.subscribe(Topic::events([EventName::MessageCreate]));
//!     let bot = bot.start().await?;
//!     while let Some(event) = events.next().await {
//!         let Event::Dispatch(message) = &*event else { continue };
//!         println!("shard {}: {}", message.shard(), message.name());
//!     }
//!     Ok(bot.wait().await?)
//! }
//! ```
//!
//! # serenity
//!
//! | serenity | here | what differs |
//! |---|---|---|
//! | `Client::builder(token, intents)` | [`Shardkeeper::builder`] | |
//! | `EventHandler` | a task that reads a [`Subscription`] | no task is spawned per event; the bot decides what runs in parallel |
//! | `RawEventHandler` | [`Topic::all`] | |
//! | `Client::start_autosharded` | [`Builder::start`] | returns when the shards are starting; [`Shardkeeper::exit_reason`] waits for the end |
//! | `Client::start_shards`, `start_shard_range`, `start_shard` | [`Builder::shards`], [`Builder::shard_ids`] | |
//! | `ShardManager::shutdown_all` | [`Shardkeeper::stop`], [`Shardkeeper::detach`] | within a deadline |
//! | `ShardManager::shutdown` | [`Shardkeeper::remove_shards`] | returns the session |
//! | `ShardManager::restart` | [`Shardkeeper::restart_shard`] | by resume, or by Identify |
//! | `ShardManager::runners`, `shards_instantiated` | [`Shardkeeper::status`] | |
//! | `ShardMessenger::set_presence`, `set_activity`, `set_status` | [`Shardkeeper::update_presence_on`] | remembered across restarts |
//! | `ShardMessenger::chunk_guild` | [`Shardkeeper::members`] | collected, with time-outs |
//! | `ShardMessenger::request_soundboard_sounds` | [`Shardkeeper::request_soundboard_sounds`] | for any guilds, each over its shard |
//! | `ClientBuilder::voice_manager` | the feature `songbird` | |
//!
//! A handler with a method per event becomes a `match` on the name:
//!
//! ```no_run
//! use shardkeeper::{Dispatch, Event, Shardkeeper, Topic};
//!
//! struct Handler;
//!
//! impl Handler {
//!     async fn message(&self, message: &Dispatch) { println!("{} bytes", message.data().len()) }
//!     async fn guild_create(&self, guild: &Dispatch) { println!("a guild on shard {}", guild.shard()) }
//! }
//!
//! async fn run(bot: Shardkeeper, handler: Handler) {
//!     let mut events = bot.subscribe(Topic::all());
//!     while let Some(event) = events.next().await {
//!         let Event::Dispatch(dispatch) = &*event else { continue };
//!         match dispatch.name() {
//!             "MESSAGE_CREATE" => handler.message(dispatch).await,
//!             "GUILD_CREATE" => handler.guild_create(dispatch).await,
//!             _ => {}
//!         }
//!     }
//! }
//! ```
//!
//! # discord.js
//!
//! | discord.js | here | what differs |
//! |---|---|---|
//! | `new Client({ intents })`, `client.login(token)` | [`Shardkeeper::builder`], [`Builder::start`] | |
//! | `client.on('messageCreate', …)` | [`Topic::events`] and a loop | |
//! | `clientReady` | [`Lifecycle::AllReady`] | once, even if early shards disconnect meanwhile |
//! | `shardReady`, `shardResume`, `shardDisconnect`, `shardReconnecting` | [`Change::Ready`], [`Change::Resumed`], [`Change::Disconnected`] | a disconnect has its initiator, its reason and the next step |
//! | `client.ws.ping` | [`ShardStatus::latency`] | per shard |
//! | `client.user.setPresence` | [`Shardkeeper::update_presence`] | |
//! | `guild.members.fetch` | [`Shardkeeper::members`] | |
//! | `client.destroy` | [`Shardkeeper::stop`] | |
//! | `ShardingManager` | one process is enough; several run a part of the shards each | threads are tokio's; a crash is caught per shard, not per process |
//! | `broadcastEval` | none | messages between processes are left to the bot |
//! | `ShardClientUtil.shardIdForGuildId` | [`ShardCount::owner_of`](shardkeeper_proto::ShardCount::owner_of) | |
//! | `retrieveSessionInfo`, `updateSessionInfo` | [`Builder::sessions`], [`Shardkeeper::sessions`] | no callback per event |
//! | `compression`, `largeThreshold`, `initialPresence` | [`Builder::compression`], [`Builder::large_threshold`], [`Builder::presence`] | |
//! | `helloTimeout`, `readyTimeout`, `handshakeTimeout` | [`Timings::hello`], [`Timings::ready`], [`Timings::connect`] | |
//!
//! # discordeno
//!
//! The gateway manager becomes [`Shardkeeper`], and it needs no separate process: a driver is a task, and the
//! bot's code cannot block it. To send events to other processes, use a subscriber that holds the
//! [`Delivery`] until the other process has confirmed it. For resharding there is [a chapter](super::_09_resharding). The table
//! is [below](#discordeno-call-by-call).
//!
//! # discljord
//!
//! The output channel becomes a [`Subscription`], the communication channel a [`Shardkeeper`], whose calls
//! return whether they were accepted. Live migration has the same three steps, with typed sessions:
//!
//! ```no_run
//! use shardkeeper::{Session, ShardId, Shardkeeper};
//!
//! async fn migrate(from: &Shardkeeper, to: &Shardkeeper) -> Result<(), Box<dyn std::error::Error>> {
//!     let shards = [ShardId(0), ShardId(1)];
//!     let sessions: Vec<Session> = from.remove_shards(shards).await?;
//!     to.add_shards(shards, sessions).await?;
//!     Ok(())
//! }
//! ```
//!
//! The table is [below](#discljord-call-by-call).
//!
//! # discljord, call by call
//!
//! | theirs | ours | remark |
//! |---|---|---|
//! | `connect-bot!` | [`Shardkeeper::builder`], [`Builder::start`] | an API that cannot be reached is tried again; a missing or wrong intent is a [`ConfigError`] |
//! | … its output channel | [`Builder::subscribe`] | bounded, with a policy; a slow reader does no harm |
//! | … its communication channel | [`Shardkeeper`], [`Shardkeeper::manager`] | each call returns an answer |
//! | … `:intents` | [`Intents`] | all of them, including message content |
//! | … `:disable-compression` | [`Builder::compression`]`(`[`Compression::None`]`)` | |
//! | … exception when fewer Identify are left than shards | [`gateway_info()`](crate::config::gateway_info), [`SessionStartLimit::remaining`] | a start waits instead, announces [`Lifecycle::BudgetExhausted`], and keeps a reserve; [`Builder::require_full_start`] fails instead |
//! | `connect-shards!` | [`Builder::shard_ids`], [`Builder::gateway`] | ids beyond the count are a [`ConfigError`] |
//! | … `:identify-when` | [`Builder::identify_gate`] | knows when Identify was written; keys are independent |
//! | `get-websocket-gateway` | [`gateway_info()`](crate::config::gateway_info) | errors name the cause |
//! | `get-shard-state!` | [`Shardkeeper::sessions`], [`Shardkeeper::shard_status`] | filter the answer; the status contains no secret |
//! | `remove-shards!` | [`Shardkeeper::remove_shards`] | returns the sessions as of the watermark |
//! | `add-shards!` | [`Shardkeeper::add_shards`] | resumes at once; a session that does not fit is rejected with the reason |
//! | `disconnect-bot!` | [`Shardkeeper::stop`] | [`Shardkeeper::detach`] keeps the sessions |
//! | `guild-request-members!` | [`Shardkeeper::members`], [`RequestMembers`] | also ids, presences and nonce; a guild of another process is [`CommandError::GuildElsewhere`] |
//! | `status-update!` | [`Shardkeeper::update_presence`] | remembered for later Identifies |
//! | … `:idle-since`, `:activity`, `:status`, `:afk` | [`Presence::idle_since_ms`], [`Presence::activity`], [`Presence::new`], [`Presence::afk`] | several activities are possible |
//! | … `:shards` | [`Shardkeeper::update_presence_on`] | all of them or none |
//! | `voice-state-update!` | [`VoiceStateUpdate`] | [`muted`](VoiceStateUpdate::muted), [`deafened`](VoiceStateUpdate::deafened) |
//! | `create-activity` | [`Activity`] | checked: length, and the address of a stream |
//! | … a raw number as type | none | each documented type has a constructor |
//! | `gateway-intents` | [`Intents`] | |
//! | the guard against large payloads | [`PayloadSizeError`] | an error for the caller, in bytes |
//! | `[:connected-all-shards]` | [`Lifecycle::AllReady`] | depends on READY, not on a timer |
//! | `[:disconnect]` | [`Lifecycle::Ended`], [`Shardkeeper::exit_reason`] | has the reason |
//! | `[:re-shard]` | [`ExitReason::Refused`] with close code 4011 | with [`ReshardPolicy::on`] the bot reshards instead |
//! | self-resharding on 4011 | [`Builder::reshard`] | group by group, while the bot runs |
//!
//! # discordeno, call by call
//!
//! | option | ours | remark |
//! |---|---|---|
//! | `token` | [`Shardkeeper::builder`] | checked, and never printed |
//! | `connection` | [`Builder::gateway`] | |
//! | `url` | [`GatewayInfo::url`] by [`Builder::gateway`]; [`Builder::api_url`] | a resume goes to the session's own URL |
//! | `version` | none | always 10; another version would have other rules |
//! | `totalShards` | [`Builder::shards`] | |
//! | `firstShardId`, `lastShardId` | [`Builder::shard_ids`] | any set, not only a range |
//! | `spawnShardDelay` | [`Timings::identify_window`], [`Timings::identify_margin`] | counted from when Identify was written |
//! | `totalWorkers`, `shardsPerWorker`, `spreadShardsInRoundRobin` | none | shards are tasks on the threads of tokio |
//! | `compress` | [`Compression::Payload`] | |
//! | `transportCompression` | [`Builder::compression`] | zlib is the default |
//! | `intents` | [`Shardkeeper::builder`] | |
//! | `properties` | [`Builder::library`] | browser and device; `os` is the system's |
//! | `makePresence` | [`Builder::presence_fn`] | per shard, not async |
//! | `events` | [`Builder::subscribe`] | see the events of a shard below |
//! | `cache.requestMembers.enabled` | always available: [`Shardkeeper::members`] | costs nothing until it is called |
//! | `resharding`: `enabled`, percentage, interval | [`Builder::reshard`], [`Builder::gateway_check_every`] | also merges |
//! | … `getSessionInfo` | [`gateway_info()`](crate::config::gateway_info) | |
//! | … `updateGuildsShardId` | [`Topic::with_warming`] | READY and guilds of the new shards |
//! | `logger` | `tracing` | install any subscriber |
//!
//! | function | ours | remark |
//! |---|---|---|
//! | `calculateTotalShards` | none | counts are used as they are: by default Discord's; a bot with large bot sharding that sets its own count must use a multiple |
//! | `calculateWorkerId` | none | there are no workers |
//! | `prepareBuckets` | [`IdentifyQueue`] | made from `max_concurrency` |
//! | `spawnShards` | [`Builder::start`] | a shard that fails to start delays no other |
//! | `tellWorkerToIdentify` | [`Shardkeeper::add_shards`] in another process | |
//! | `identify(shard)` | [`Shardkeeper::restart_shard`] with [`RestartBy::Identify`] | for a shard that does not run yet: [`Shardkeeper::add_shards`] |
//! | `requestIdentify` | [`Builder::identify_gate`] | |
//! | `kill(shard)` | [`Shardkeeper::remove_shards_with`]`(ids, ShutdownMode::Stop)` | closes with 1000; with `remove_shards` the session stays resumable for minutes |
//! | `shutdown(code, reason)` | [`Shardkeeper::stop`], [`Shardkeeper::detach`] | cancels connection attempts; the call decides the close code |
//! | `sendPayload` | [`Command::raw`], [`Shardkeeper::command`] | checked; waits until the shard is ready; bounded |
//! | `calculateShardId` | [`Shardkeeper::owner_of`], [`ShardCount::owner_of`](shardkeeper_proto::ShardCount::owner_of) | |
//! | `joinVoiceChannel`, `leaveVoiceChannel` | [`VoiceStateUpdate::join`], [`VoiceStateUpdate::leave`] | not deaf by default |
//! | `editBotStatus` | [`Shardkeeper::update_presence`] | |
//! | `editShardStatus` | [`Shardkeeper::update_presence_on`] | |
//! | `requestMembers` | [`Shardkeeper::members`] | has a time-out, continues over a resume, fails with its session; the library sets the nonce |
//! | `requestSoundboardSounds` | [`Shardkeeper::request_soundboard_sounds`] | |
//! | `tellWorkerToPrepare`, `onReshardingSwitch` | none | the manager does both |
//! | `shard.identify`, `shard.resume` | [`Shardkeeper::restart_shard`] | |
//! | `shard.send` | [`Shardkeeper::command`] | priority depends on the class: voice is sent first |
//! | `shard.shutdown` | [`Shardkeeper::remove_shards`] | |
//! | a shard's round-trip time | [`ShardStatus::latency`], [`ShardStatus::latencies`] | |
//!
//! | event or state of a shard | ours | remark |
//! |---|---|---|
//! | `connecting`, state Connecting | [`Change::Connecting`], [`Phase::Connecting`] | shows whether it will resume |
//! | `connected`, `hello`, state Unidentified | [`Change::Hello`], [`Phase::AwaitingPermit`] | there is no event for an open connection without Hello |
//! | `identifying`, state Identifying | [`Change::Identifying`], [`Phase::Identifying`] | |
//! | `ready`, state Connected | [`Change::Ready`], [`Phase::Ready`] | |
//! | `resuming`, state Resuming | [`Change::Resuming`], [`Phase::Resuming`] | announced when Resume is sent |
//! | `resumed` | [`Change::Resumed`] | with the number of replayed events |
//! | `heartbeat`, `heartbeatAck` | [`Builder::wire_tap`], [`ShardStatus::latencies`] | each payload; the latencies; a missed one is [`Reason::Zombied`] |
//! | `invalidSession` | [`Reason::InvalidSession`] | |
//! | `requestedReconnect` | [`Reason::ReconnectRequested`] | |
//! | `disconnected`, state Disconnected | [`Change::Disconnected`], [`Phase::Disconnected`] | with initiator, reason and next step |
//! | state Offline | [`Phase::Stopped`], [`Phase::Refused`] | |
//! | `message`, every packet | [`Topic::all`] | only dispatches; the machine handles all other payloads |
//!
//! # DiscordLuau, call by call
//!
//! | theirs | ours | remark |
//! |---|---|---|
//! | token, intents, shard id, shard count | [`Shardkeeper::builder`], [`Builder::shard_ids`] | |
//! | `shouldReconnect` | [`Shardkeeper::remove_shards`] | for a shard that must not come back |
//! | `largeThreshold` | [`Builder::large_threshold`] | 50, not 250 |
//! | emitter `connected` | [`Change::Hello`] | |
//! | emitter `reconnected` | [`Change::Resumed`], [`Change::Ready`] | shows which of the two it was |
//! | emitter `disconnected(code, closedBySelf)` | [`Change::Disconnected`], [`Reason::close_code`], [`Reason::initiator`] | |
//! | emitter `heartbeat(ping)` | [`ShardStatus::latency`] | and [`ShardStatus::latencies`] |
//! | emitter `dispatch` | [`Topic::all`] | |
//! | emitter `rawMessage` | [`Dispatch::data`] | the raw text of a dispatch's data |
//! | emitter `ready` | [`Change::Ready`] | |
//! | emitter `rateLimited` | [`Topic::events`]`([EventName::RateLimited])` | |
//! | heartbeat fields | [`ShardStatus::heartbeat`], [`ShardStatus::latency`] | interval, last acknowledgement, a missing one |
//! | `lastSequence` | [`ShardStatus::sequence`] | |
//! | `sessionId`, `sessionGateway` | [`Shardkeeper::sessions`] | a secret |
//! | socket flags | [`ShardStatus::phase`] | one state, not four flags |
//! | `gatewaySendTimestamps`, the send limiter | [`CommandLimiter`](shardkeeper_proto::CommandLimiter) | exact in any window, new for each connection |
//! | `rateLimitedGuilds` | [`Shardkeeper::members`] | respects it by itself |
//! | `connectAsync` | [`Builder::start`], [`Shardkeeper::add_shards`] | |
//! | the receive thread | the driver | |
//! | `heartbeatAsync`, `heartbeatIn` | none | only the machine sends heartbeats |
//! | `identifyAsync`, `reinstantiateAsync` | [`Shardkeeper::restart_shard`] with [`RestartBy::Identify`] | through the identify queue |
//! | `resumeAsync`, `reconnectAsync` | [`Shardkeeper::restart_shard`] with [`RestartBy::Resume`] | |
//! | `disconnectAsync` | [`Shardkeeper::remove_shards`], [`Shardkeeper::stop`] | the close code cannot be chosen |
//! | `forceClose`, from a signal handler | `kill` on [`Shardkeeper::manager`] | not async; drops every connection without a close frame, so the sessions can still be resumed |
//! | `sendAsync` | [`Command::raw`], [`Shardkeeper::command`] | |
//! | … `ignoreRateLimit` | none | Discord closes the connection after one payload too many |
//!
//! # The Go state-pattern library, call by call
//!
//! | theirs | ours | remark |
//! |---|---|---|
//! | `WithBotToken` | [`Shardkeeper::builder`] | |
//! | `WithGuildEvents`, `WithDirectMessageEvents` | [`Intents::of_events`], [`Topic::events`] | two steps: what Discord sends, and what a subscriber receives |
//! | `WithIntents` | [`Shardkeeper::builder`] | |
//! | `WithShardInfo` | [`Builder::shard_ids`] | an id equal to the count is an error |
//! | `WithExistingSession` | [`Builder::sessions`], [`Shardkeeper::add_shards`] | |
//! | `WithIdentifyConnectionProperties` | [`Builder::library`] | the same as discordeno's `properties` |
//! | `WithCommandRateLimiter` | none | Discord sets the limit; [`Timings::command_window`] is for a simulator |
//! | `WithIdentifyRateLimiter` | [`Builder::identify_gate`] | waits, while theirs fails |
//! | `WithHeartbeatHandler` | [`Builder::wire_tap`] | to see them; the machine sends them |
//! | `WithEventHandler` | [`Builder::subscribe`] | a slow reader delays no acknowledgement |
//! | `WithLogger` | `tracing` | |
//! | states Hello, Ready, Connected, Resume, Closed, ResumableClosed | [`ShardStatus::phase`]; as a value, [`Shard`](shardkeeper_proto::Shard) | the machine is a separate crate, without I/O |
//! | `gatewayutil.Shard`: `Dial`, `EventLoop` | [`Builder::start`] | [`Connector`](shardkeeper_transport::Connector) is only the connection |
//! | `gatewayutil.Shard`: `Write` | [`Shardkeeper::command`] | |
//! | `DeriveShardID` | [`ShardCount::owner_of`](shardkeeper_proto::ShardCount::owner_of) | |
//! | `ValidateDialURL` | [`gateway_url`](shardkeeper_proto::gateway_url) | sets version, encoding and compression instead of checking them |
//! | `DiscordError.CanReconnect` | [`CloseCode::recovery`] | distinguishes resume, new session and refusal |
//! | `ErrOutOfSync` | none | a gap in the sequence is not an error |
//! | `ErrNotConnectedYet` | none | a command waits until the shard is ready |
//! | `ErrRateLimited` | [`CommandQueueError::QueueFull`] | a command waits first |
//! | `ErrIdentifyRateLimited` | none | a shard waits for its permit |
//! | the encoding as a package | [`Builder::encoding`] | JSON, and ETF with the feature `etf` |
//!
//! ---
//!
//! Before: [Decisions](super::_07_decisions). Next: [Resharding](super::_09_resharding).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};
