//! twilight-gateway and twilight-http with the simulator.

use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::Value;
use shardkeeper_clients::{Ears, no_violations, simulator, simulator_of, through_every_fault, until};
use shardkeeper_sim::{Fault, Mix, Simulator};
use tokio::task::JoinSet;
use tokio::time::Duration;
use twilight_gateway::error::ReceiveMessageErrorType;
use twilight_gateway::queue::InMemoryQueue;
use twilight_gateway::{ConfigBuilder, EventTypeFlags, Intents, Message, Shard, ShardId, parse};

/// Events of Discord that this version has no model for: they are newer, or documented nowhere (GW-273).
const WITHOUT_MODEL: &[&str] = &[
    "CHANNEL_INFO",
    "EMBEDDED_ACTIVITY_UPDATE_V2",
    "ENTITLEMENT_DELETE",
    "ENTITLEMENT_UPDATE",
    "GUILD_APPLICATION_COMMAND_INDEX_UPDATE",
    "GUILD_JOIN_REQUEST_CREATE",
    "GUILD_JOIN_REQUEST_DELETE",
    "GUILD_JOIN_REQUEST_UPDATE",
    "GUILD_SCHEDULED_EVENT_EXCEPTIONS_DELETE",
    "GUILD_SCHEDULED_EVENT_EXCEPTION_CREATE",
    "GUILD_SCHEDULED_EVENT_EXCEPTION_DELETE",
    "GUILD_SCHEDULED_EVENT_EXCEPTION_UPDATE",
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE",
    "GUILD_SOUNDBOARD_SOUND_CREATE",
    "GUILD_SOUNDBOARD_SOUND_DELETE",
    "GUILD_SOUNDBOARD_SOUND_UPDATE",
    "GUILD_STICKERS_UPDATE",
    "MESSAGE_REACTION_ADD_MANY",
    "SOUNDBOARD_SOUNDS",
    "VOICE_CHANNEL_EFFECT_SEND",
    "VOICE_CHANNEL_START_TIME_UPDATE",
    "VOICE_CHANNEL_STATUS_UPDATE",
];

/// The compression that a shard requests in its first URL.
#[derive(Clone, Copy, Debug)]
enum Compression {
    None,
    /// zstd, which twilight always requests when compiled with it.
    Zstd,
}

/// A bot with all the shards that the simulator recommends.
struct Bot {
    simulator: Simulator,
    ears: Arc<Ears>,
    /// Ends the shards when the bot is dropped.
    _shards: JoinSet<()>,
}

impl Bot {
    async fn start(simulator: Simulator, compression: Compression) -> Self {
        let addr = simulator.addr().expect("it listens");
        let http = twilight_http::Client::builder()
            .token("sim-token".to_owned())
            .proxy(addr.to_string(), true)
            .ratelimiter(None)
            .build();
        let info = http.gateway().authed().await.expect("an answer").model().await.expect("its model");
        let limit = info.session_start_limit;
        let queue = InMemoryQueue::new(
            limit.max_concurrency,
            limit.remaining,
            Duration::from_millis(limit.reset_after),
            limit.total,
        );
        let url = match compression {
            Compression::Zstd => info.url,
            // twilight appends its query to the URL; after a `#` it is not sent.
            Compression::None => format!("{}/?v=10&encoding=json#", info.url),
        };
        let config =
            ConfigBuilder::new("sim-token".to_owned(), Intents::all()).proxy_url(url).queue(queue).build();
        let ears = Arc::new(Ears::default());
        let mut shards = JoinSet::new();
        for id in 0..info.shards {
            let shard = Shard::with_config(ShardId::new(id, info.shards), config.clone());
            shards.spawn(listen(shard, simulator.clone(), Arc::clone(&ears)));
        }
        let bot = Self { simulator, ears, _shards: shards };
        let guilds = u64::from(info.shards) * 2;
        bot.ears.until("its guilds", |heard| heard.count("GUILD_CREATE") == guilds).await;
        bot
    }

    async fn check(&self) {
        no_violations(&self.simulator);
        let delivery = self.simulator.delivery();
        assert_eq!((delivery.lost, delivery.duplicated, delivery.out_of_order), (0, 0, 0), "{delivery:?}");
    }
}

/// The same as `Shard::next_event`, which silently skips events without a model; here they are recorded.
async fn listen(mut shard: Shard, simulator: Simulator, ears: Arc<Ears>) {
    let id = shard.id().number();
    while let Some(item) = shard.next().await {
        match item {
            Ok(Message::Text(text)) => {
                let payload: Value = serde_json::from_str(&text).unwrap_or_default();
                let event = payload["t"].as_str();
                match parse(text.clone(), EventTypeFlags::all()) {
                    Ok(Some(_)) => {}
                    Ok(None) if event.is_some_and(|event| WITHOUT_MODEL.contains(&event)) => {}
                    Ok(None) => ears.refused(&"an event without a model", &text),
                    Err(error) => ears.refused(&error.into_source(), &text),
                }
                if let Some(event) = event {
                    simulator.observe(id, event, payload["d"].to_string().as_bytes());
                    ears.took(event);
                }
            }
            Ok(Message::Close(_)) => {}
            // twilight reconnects after a connection failed.
            Err(error) if matches!(error.kind(), ReceiveMessageErrorType::Reconnect) => {}
            Err(error) => ears.refused(&error, ""),
        }
    }
    ears.over();
    ears.refused(&"a shard gave up", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_makes_it_do_what_discord_would_punish() {
    through_every_fault(&[], async |simulator| {
        let bot = Bot::start(simulator, Compression::Zstd).await;
        (Arc::clone(&bot.ears), bot)
    })
    .await;
}

async fn its_models_take_everything(compression: Compression) {
    let bot = Bot::start(simulator(4).await, compression).await;
    let heard = bot.ears.until_traffic(&bot.simulator, 3_000).await;
    assert_eq!((heard.count("READY"), heard.count("GUILD_CREATE")), (4, 8));
    assert!(heard.events.len() >= 11, "{:?}", heard.events);
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.ready_sessions), (4, 4, 4));
    bot.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_models_take_everything_uncompressed() {
    its_models_take_everything(Compression::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_models_take_everything_of_zstd_stream() {
    its_models_take_everything(Compression::Zstd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_models_take_every_event_that_they_know() {
    let bot = Bot::start(simulator_of(1, Mix::Everything).await, Compression::Zstd).await;
    let heard = bot.ears.until_traffic(&bot.simulator, 3_000).await;
    assert!(heard.events.len() >= 70, "{:?}", heard.events);
    bot.check().await;
}

/// Injects the fault into shard 1 of 2 while events arrive; none may be lost or come twice.
async fn resumes_after(fault: Fault) {
    let bot = Bot::start(simulator(2).await, Compression::Zstd).await;
    bot.ears.until_traffic(&bot.simulator, 100).await;
    bot.simulator.start_traffic();
    bot.simulator.inject(1, fault).expect("the shard is there");
    until(&bot.simulator, "a resume", |report| report.resumes == 1 && report.ready_sessions == 2).await;
    bot.ears.until("the end of the replay", |heard| heard.resumed == 1).await;
    let heard = bot.ears.until_traffic(&bot.simulator, 300).await;
    assert_eq!(heard.count("READY"), 2);
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.resumes_refused), (3, 2, 0));
    bot.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_after_a_cut() {
    resumes_after(Fault::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_when_asked_to_reconnect() {
    resumes_after(Fault::Reconnect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_when_the_session_is_invalid_and_resumable() {
    resumes_after(Fault::InvalidSession { resumable: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_after_a_close() {
    resumes_after(Fault::Close { code: 4000 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_when_nothing_comes_any_more() {
    resumes_after(Fault::HalfOpen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_a_new_session_when_its_own_is_invalid() {
    let bot = Bot::start(simulator(2).await, Compression::Zstd).await;
    bot.ears.until_traffic(&bot.simulator, 100).await;
    bot.simulator.start_traffic();
    bot.simulator.inject(1, Fault::InvalidSession { resumable: false }).expect("the shard is there");
    bot.ears.until("its guilds again", |heard| heard.count("GUILD_CREATE") == 6).await;
    let heard = bot.ears.until_traffic(&bot.simulator, 300).await;
    assert_eq!((heard.count("READY"), heard.resumed), (3, 0));
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.resumes), (3, 3, 0));
    assert_eq!((report.identifies_refused, report.ready_sessions), (0, 2));
    bot.check().await;
}
