//! serenity against the simulator.
//!
//! Its own limits shape the tests: it starts one shard in 5 s whatever `max_concurrency` allows, resumes at the first
//! URL, and knows no transport compression; it asks for payload compression in each Identify.

use std::sync::Arc;

use futures_util::StreamExt;
use serenity::all::{
    ClientBuilder, Context, Event, GatewayEvent, GatewayIntents, HttpBuilder, RawEventHandler, async_trait,
};
use shardkeeper_clients::{BROKEN_BY_ALL, Ears, Heard, only_known_violations, simulator, until};
use shardkeeper_sim::{Fault, Simulator};
use tokio::task::JoinSet;
use twilight_gateway::{ConfigBuilder, Intents, Message, Shard, ShardId};

struct Handler(Arc<Ears>);

#[async_trait]
impl RawEventHandler for Handler {
    async fn raw_event(&self, _: Context, event: Event) {
        match (&event, event.name()) {
            (Event::Unknown(_), _) | (_, None) => self.0.refused(&event, ""),
            (_, Some(name)) => self.0.took(&name),
        }
    }
}

/// A bot with all the shards that the simulator recommends.
struct Bot {
    simulator: Simulator,
    ears: Arc<Ears>,
    /// Ends the client with the bot.
    _client: JoinSet<()>,
}

impl Bot {
    async fn start(shards: u32) -> Self {
        let simulator = simulator(shards).await;
        let addr = simulator.addr().expect("it listens");
        let http =
            HttpBuilder::new("sim-token").proxy(format!("http://{addr}")).ratelimiter_disabled(true).build();
        let ears = Arc::new(Ears::default());
        let mut client = ClientBuilder::new_with_http(http, GatewayIntents::all())
            .raw_event_handler(Handler(Arc::clone(&ears)))
            .await
            .expect("a client");
        let mut running = JoinSet::new();
        let noted = Arc::clone(&ears);
        running.spawn(async move {
            let end = client.start_autosharded().await;
            noted.refused(&end, "nothing: the client ended");
        });
        let bot = Self { simulator, ears, _client: running };
        let guilds = u64::from(shards) * 2;
        bot.ears.until("its guilds", |heard| heard.count("GUILD_CREATE") == guilds).await;
        bot
    }

    async fn traffic(&self, count: u64) -> Heard {
        // The simulator counts what was sent in sessions that were heard of. Its models drop the traces, so they are
        // made up here: READY is the first dispatch of a session, and sessions are numbered as they are accepted.
        let log = self.simulator.report().identify_log;
        for (record, session) in log.iter().filter(|record| record.accepted).zip(1..) {
            let trace = format!(r#"{{"_trace":["sim:{}:{session}:1"]}}"#, record.shard_id);
            self.simulator.observe(record.shard_id, "READY", trace.as_bytes());
        }
        self.ears.until_traffic(&self.simulator, count).await
    }
}

/// What its models refuse it logs and drops; so each dispatch that was sent has to come out.
#[tokio::test(flavor = "multi_thread")]
async fn its_models_take_everything() {
    let bot = Bot::start(4).await;
    let heard = bot.traffic(3_000).await;
    assert_eq!((heard.count("READY"), heard.count("GUILD_CREATE")), (4, 8));
    assert!(heard.events.len() >= 11, "{:?}", heard.events);
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.ready_sessions), (4, 4, 4));
    only_known_violations(&bot.simulator, BROKEN_BY_ALL);
}

/// The same without the client, to hear why a payload is refused. twilight fetches them.
#[tokio::test(flavor = "multi_thread")]
async fn its_models_say_nothing_against_any_payload() {
    let simulator = simulator(1).await;
    let addr = simulator.addr().expect("it listens");
    let config =
        ConfigBuilder::new("sim-token".to_owned(), Intents::all()).proxy_url(format!("ws://{addr}")).build();
    let mut shard = Shard::with_config(ShardId::ONE, config);
    let ears = Arc::new(Ears::default());
    let mut fetching = JoinSet::new();
    let (noted, observer) = (Arc::clone(&ears), simulator.clone());
    fetching.spawn(async move {
        while let Some(item) = shard.next().await {
            let Ok(Message::Text(text)) = item else { return noted.refused(&item, "") };
            observer.observe(0, "", text.as_bytes());
            match serde_json::from_str::<GatewayEvent>(&text) {
                Ok(GatewayEvent::Dispatch(_, Event::Unknown(_))) => noted.refused(&"an unknown event", &text),
                Ok(GatewayEvent::Dispatch(_, event)) => noted.took(&event.name().unwrap_or_default()),
                Ok(_) => {}
                Err(error) => noted.refused(&error, &text),
            }
        }
    });
    let heard = ears.until_traffic(&simulator, 3_000).await;
    assert!(heard.events.len() >= 11, "{:?}", heard.events);
}

/// Makes the fault at the one shard in the middle of traffic; nothing may be lost or come twice.
async fn resumes_after(fault: Fault) {
    let bot = Bot::start(1).await;
    bot.traffic(100).await;
    bot.simulator.start_traffic();
    bot.simulator.inject(0, fault).expect("the shard is there");
    until(&bot.simulator, "a resume", |report| report.resumes == 1 && report.ready_sessions == 1).await;
    bot.ears.until("the end of the replay", |heard| heard.resumed == 1).await;
    let heard = bot.traffic(300).await;
    assert_eq!(heard.count("READY"), 1);
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.resumes_refused), (2, 1, 0));
    only_known_violations(&bot.simulator, BROKEN_BY_ALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_after_a_cut() {
    resumes_after(Fault::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_when_told_to_reconnect() {
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

/// A new session, whether its own was declared invalid or, as serenity has it, the connection fell silent.
async fn starts_anew_after(fault: Fault) {
    let bot = Bot::start(1).await;
    bot.traffic(100).await;
    bot.simulator.inject(0, fault).expect("the shard is there");
    bot.ears.until("its guilds again", |heard| heard.count("GUILD_CREATE") == 4).await;
    let heard = bot.traffic(300).await;
    assert_eq!((heard.count("READY"), heard.resumed), (2, 0));
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.resumes), (2, 2, 0));
    assert_eq!(report.identifies_refused, 0);
    only_known_violations(&bot.simulator, BROKEN_BY_ALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_a_new_session_when_its_own_is_invalid() {
    starts_anew_after(Fault::InvalidSession { resumable: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_a_new_session_when_nothing_comes_any_more() {
    starts_anew_after(Fault::HalfOpen).await;
}
