//! Cold starts.

use std::collections::BTreeSet;
use std::time::Duration;

use shardkeeper::config::Compression;
use shardkeeper::error::ExitReason;
use shardkeeper::status::{Change, Phase};
use shardkeeper::{Event, Intents, Lifecycle, ShardId, Shardkeeper, SubscriptionOptions, Topic};
use shardkeeper_sim::{Action, ConnectFault, Fault, IdentifyRecord, RestFault};
use shardkeeper_tests::{Running, bot, in_both_worlds, no_violations_except, simulator};

#[tokio::test(start_paused = true)]
async fn all_shards_become_ready_and_every_guild_arrives() {
    // GW-005: `shards` of /gateway/bot is the shard count. GW-024, GW-127: the simulator's Hello and READY
    // have undocumented fields, which are ignored.
    let mut running = Running::start(simulator(4, |_| {})).await;
    running.simulator.start_traffic();
    running.simulator.wait_until(|report| report.sent > 500).await;
    // GW-281: the simulator reports a request without a bot's User-Agent.
    running.check().await;
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (4, 0));
    let status = running.keeper.status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.phase == Phase::Ready && shard.session == 1));
    // GW-169: each Identify sent takes one off `remaining`.
    assert_eq!(status.identify.remaining, 996);
}

#[tokio::test(start_paused = true)]
async fn without_compression_too() {
    let simulator = simulator(2, |_| {});
    let builder = bot(&simulator).compression(Compression::None);
    let mut running = Running::start_with(simulator, builder).await;
    running.simulator.emit(0, 100);
    // GW-031: each message is one payload of JSON.
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_044_compressed_messages_in_pieces() {
    let mut running = Running::start(simulator(2, |config| config.split_frames = true)).await;
    running.simulator.emit(0, 300);
    running.check().await;
}

/// A connection that waits for the pacer longer than a window is not one that hangs.
#[tokio::test(start_paused = true)]
async fn gw_171_a_shard_whose_connection_is_paced_is_not_passed() {
    let simulator = simulator(32, |config| config.max_concurrency = 16);
    let builder = bot(&simulator).connects_per_second(1);
    let options = SubscriptionOptions { capacity: 1 << 16, ..SubscriptionOptions::default() };
    let mut events = builder.subscribe_with(Topic::all().with_lifecycle(), options);
    let keeper = builder.start().await.unwrap();
    let (mut hellos, mut waits) = (BTreeSet::new(), Vec::new());
    while let Some(event) = events.next().await {
        match &*event {
            Event::Lifecycle(Lifecycle::Shard { shard: ShardId(shard), change, .. }) => match change {
                Change::Connecting { .. } => {
                    assert!(*shard < 16 || hellos.contains(&(shard - 16)), "shard {shard} does not wait");
                }
                Change::Paced { wait } => waits.push(*wait),
                Change::Hello { .. } => drop(hellos.insert(*shard)),
                _ => {}
            },
            Event::Lifecycle(Lifecycle::AllReady { .. }) => break,
            _ => {}
        }
    }
    assert!(waits.iter().filter(|wait| **wait > Duration::from_secs(5)).count() > 8, "{waits:?}");
    no_violations_except(&simulator, &[]);
    keeper.stop().await;
}

/// Checks that Identify of one key are at least a window apart, at most `max_concurrency` fall into any
/// window, and all are in order of ids.
fn cadence(log: &[IdentifyRecord], max_concurrency: u32) {
    for key in 0..max_concurrency {
        let of_key: Vec<&IdentifyRecord> = log.iter().filter(|record| record.key == key).collect();
        for pair in of_key.windows(2) {
            // GW-172: the window and a margin, counted from when the Identify was written.
            assert!(pair[1].at_ms - pair[0].at_ms >= 5250, "{pair:?}");
            assert!(pair[1].at_ms - pair[0].at_ms < 5500, "the cadence is the window, not more: {pair:?}");
            assert!(pair[0].shard_id < pair[1].shard_id, "{pair:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gw_170_171_172_sixty_four_shards_identify_sixteen_at_a_time() {
    let mut running = Running::start(simulator(64, |config| config.max_concurrency = 16)).await;
    let log = running.simulator.report().identify_log;
    // GW-005: the shard count is that of /gateway/bot. GW-007: and so is `max_concurrency`.
    assert_eq!(log.len(), 64);
    cadence(&log, 16);
    for (place, record) in log.iter().enumerate() {
        assert_eq!(record.shard_id / 16, place as u32 / 16, "window by window: {record:?}");
    }
    // GW-110: the first heartbeats are spread by jitter; otherwise the simulator would report it.
    running.simulator.wait_until(|report| report.heartbeats >= 64).await;
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_170_one_key() {
    let running = Running::start(simulator(5, |config| config.max_concurrency = 1)).await;
    cadence(&running.simulator.report().identify_log, 1);
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn gw_168_a_used_up_budget_parks_the_shards_until_it_is_full_again() {
    let start = tokio::time::Instant::now();
    let running = Running::start(simulator(4, |config| config.identify_remaining = 12)).await;
    // Ten are reserved, so two go at once and two wait for the next day. GW-007: `reset_after` is in
    // milliseconds, here 24 hours.
    assert_eq!(start.elapsed().as_secs() / 3600, 24);
    assert_eq!(running.simulator.report().identifies, 4);
    // GW-166: an Identify beyond the limit would be a violation.
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn gw_105_a_gateway_without_hello_is_left_after_a_while() {
    let simulator = simulator(1, |_| {});
    simulator.arm(ConnectFault::NoHello, 2);
    let start = tokio::time::Instant::now();
    let running = Running::start(simulator).await;
    assert!(start.elapsed() >= Duration::from_secs(40) && start.elapsed() < Duration::from_secs(90));
    assert_eq!(running.simulator.report().identifies, 1);
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_or_hangs_is_tried_again() {
    for fault in [ConnectFault::Refuse, ConnectFault::Hang, ConnectFault::ReconnectInsteadOfHello] {
        let simulator = simulator(1, |_| {});
        simulator.arm(fault, 3);
        let running = Running::start(simulator).await;
        assert_eq!(running.simulator.report().identifies, 1, "{fault:?}");
        running.no_violations();
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_named_in_the_status() {
    let simulator = simulator(1, |_| {});
    simulator.arm(ConnectFault::Hang, usize::MAX);
    let keeper = bot(&simulator).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let reason = keeper.status().await.unwrap().shards[0].last_reason.clone().unwrap();
    assert!(
        reason.starts_with("no connection to gateway.sim.invalid:80 within 9s, timed out while"),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn gw_109_149_identifies_that_fail_are_repeated_within_the_limits() {
    for fault in [ConnectFault::NoReady, ConnectFault::InvalidIdentify] {
        let simulator = simulator(1, |_| {});
        simulator.arm(fault, 2);
        let running = Running::start(simulator).await;
        assert_eq!(running.simulator.report().identifies, 3, "{fault:?}");
        running.no_violations();
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_closes_at_once_is_not_stormed() {
    let simulator = simulator(1, |_| {});
    simulator.arm(ConnectFault::Refuse, usize::MAX);
    let builder = bot(&simulator);
    let _keeper = builder.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let connections = simulator.report().connections;
    assert!((60..120).contains(&connections), "{connections} in an hour");
}

#[tokio::test(start_paused = true)]
async fn gw_002_004_177_what_the_api_says_is_asked_for_again_when_it_seems_out_of_date() {
    let simulator = simulator(4, |config| config.max_concurrency = 1);
    let mut running = Running::start(simulator).await;
    let simulator = running.simulator.clone();
    assert_eq!(simulator.report().rest_requests, 1);
    simulator.act(&Action::Limits { shards: None, max_concurrency: Some(4), remaining: None }).unwrap();
    // The API is asked again a minute after the last request at the earliest.
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The session is lost, and its bootstrap URL does not answer.
    simulator.arm(ConnectFault::Refuse, 1);
    simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
    running.until_shard(0, |change| matches!(change, Change::Ready)).await;
    assert_eq!(simulator.report().rest_requests, 2);
    assert_eq!(running.keeper.status().await.unwrap().identify.max_concurrency, 4);
    // The new limit applies: this many shards identify at once, where one key would allow one per 5 s.
    let before = simulator.report().identify_log.len();
    for shard in 0..4 {
        simulator.inject(shard, Fault::Close { code: 4009 }).unwrap();
    }
    for _ in 0..4 {
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::Shard { change: Change::Ready, .. })).await;
    }
    let log = &simulator.report().identify_log[before..];
    assert!(log[2].at_ms - log[0].at_ms < 1000, "three keys were free: {log:?}");
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_253_a_bot_without_the_intent_for_guilds_becomes_ready_all_the_same() {
    let simulator = simulator(2, |_| {});
    let builder = Shardkeeper::builder("sim-token", Intents::GUILD_MESSAGES)
        .api_url(simulator.api_url())
        .dialer(std::sync::Arc::new(shardkeeper_tests::SimDialer(simulator.clone())));
    let mut running = Running::start_with(simulator, builder).await;
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_128_a_shard_of_2500_guilds() {
    let simulator = simulator(1, |config| {
        config.guilds = 2500;
        config.large_guild_members = 30;
    });
    let mut running = Running::start(simulator).await;
    running.check().await;
    assert_eq!(running.simulator.delivery().sent, 2501);
}

#[tokio::test(start_paused = true)]
async fn gw_167_the_budget_of_a_large_bot_is_what_discord_says() {
    let simulator = simulator(1, |config| {
        config.identify_total = 5000;
        config.identify_remaining = 5000;
    });
    let running = Running::start(simulator).await;
    let identify = running.keeper.status().await.unwrap().identify;
    assert_eq!((identify.total, identify.remaining), (5000, 4999));
}

#[tokio::test(start_paused = true)]
async fn gw_290_293_a_429_is_waited_out_and_one_without_an_end_is_final() {
    let simulator = simulator(1, |_| {});
    simulator.arm_rest(RestFault::RateLimited { retry_after_ms: 90_000, global: true }, 1);
    let start = tokio::time::Instant::now();
    let running = Running::start(simulator).await;
    assert!(start.elapsed() >= Duration::from_secs(90), "{:?}", start.elapsed());
    assert_eq!(running.simulator.report().rest_requests, 2);
    running.no_violations();

    let simulator = shardkeeper_tests::simulator(1, |_| {});
    simulator.arm_rest(RestFault::Page(429), usize::MAX);
    let error = bot(&simulator).start().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("blocks this IP address"), "{source}");
    assert_eq!(simulator.report().rest_requests, 1);
}

#[test]
fn gw_079_189_an_intent_that_is_withdrawn_ends_the_bot_by_name() {
    in_both_worlds(|| async {
        let running = Running::start(simulator(2, |_| {})).await;
        running.simulator.act(&Action::AllowIntents { intents: 53_608_447 & !(1 << 15) }).unwrap();
        let ended = running.keeper.exit_reason().await;
        assert!(matches!(ended, ExitReason::Refused(refusal) if refusal.code.0 == 4014), "{ended:?}");
        assert!(running.simulator.report().identifies <= 4);
    });
}

#[tokio::test(start_paused = true)]
async fn a_start_that_the_budget_does_not_suffice_for_can_be_refused_as_a_whole() {
    let simulator = simulator(4, |config| config.identify_remaining = 13);
    let error = bot(&simulator).require_full_start(true).start().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("4 shards have to identify, 13 identifies are left, 10 of them are reserved; wait "),
        "{error}"
    );
    assert_eq!(simulator.report().identifies, 0);
    let builder = bot(&simulator).require_full_start(true).identify_reserve(9);
    Running::start_with(simulator, builder).await.no_violations();
}

#[tokio::test(start_paused = true)]
async fn gw_166_a_scarce_budget_is_reported_by_level() {
    let simulator = simulator(16, |config| {
        (config.identify_total, config.identify_remaining) = (40, 25);
        config.max_concurrency = 1;
    });
    let builder = bot(&simulator).identify_reserve(1);
    let mut lifecycle = builder.subscribe(shardkeeper::Topic::lifecycle());
    let mut running = Running::start_with(simulator, builder).await;
    for _ in 0..6 {
        running.simulator.inject(0, shardkeeper_sim::Fault::InvalidSession { resumable: false }).unwrap();
        running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
    }
    running.keeper.stop().await;
    let mut levels = Vec::new();
    while let Some(event) = lifecycle.next().await {
        if let Some(shardkeeper::Lifecycle::BudgetLow { remaining, .. }) = event.lifecycle() {
            levels.push(*remaining);
        }
    }
    assert_eq!(levels, [19, 9, 3]);
    assert_eq!(running.simulator.report().remaining, 3);
}

/// GW-005: gateways other than Discord's may recommend zero shards, and may have no limits.
#[tokio::test(start_paused = true)]
async fn gw_005_an_advice_of_no_shards_is_one_of_one() {
    let simulator = simulator(1, |_| {});
    let limits = Action::Limits { shards: Some(0), max_concurrency: None, remaining: None };
    simulator.act(&limits).unwrap();
    let mut running = Running::start(simulator).await;
    running.simulator.emit(0, 20);
    running.check().await;
    assert_eq!(running.simulator.report().identifies, 1);
}

/// Records HTTP requests and never answers them.
struct Listening(tokio::sync::mpsc::Sender<tokio::io::DuplexStream>);

impl shardkeeper::config::Dialer for Listening {
    fn dial<'a>(
        &'a self,
        _: &'a url::Url,
    ) -> futures_util::future::BoxFuture<
        'a,
        Result<shardkeeper::config::BoxedIo, shardkeeper::error::ConnectError>,
    > {
        Box::pin(async {
            let (client, server) = tokio::io::duplex(4096);
            self.0.try_send(server).unwrap();
            Ok(Box::new(client) as shardkeeper::config::BoxedIo)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn gw_281_the_gateway_is_asked_under_the_same_name_as_the_api() {
    let (sender, mut dials) = tokio::sync::mpsc::channel(16);
    let info = serde_json::json!({"url": "wss://g.example", "shards": 1, "session_start_limit":
        {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}});
    let dialer = std::sync::Arc::new(Listening(sender));
    let mut agents = Vec::new();
    for asks_gateway in [false, true] {
        let mut builder = Shardkeeper::builder("token", Intents::GUILDS).dialer(dialer.clone());
        if asks_gateway {
            builder = builder.gateway(serde_json::from_value(info.clone()).unwrap());
        }
        let starting = tokio::spawn(builder.start());
        let mut stream = dials.recv().await.unwrap();
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            request.push(char::from(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap()));
        }
        let request = request.to_lowercase();
        assert_eq!(request.contains("sec-websocket-key"), asks_gateway);
        let agent = request.lines().find_map(|line| line.strip_prefix("user-agent: ")).map(str::to_owned);
        agents.push(agent.unwrap_or_else(|| panic!("no agent in {request}")));
        starting.abort();
        while dials.try_recv().is_ok() {}
    }
    assert_eq!(agents[0], agents[1]);
    assert!(agents[0].starts_with("discordbot (https://"), "{agents:?}");
}
