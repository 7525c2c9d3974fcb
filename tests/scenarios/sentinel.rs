//! Checks of the recommended number of shards at intervals, while the shards run.

use std::time::Duration;

use shardkeeper::actor::{ManagerMessage, SentinelMessage, ShardManager};
use shardkeeper::config::{ReshardPolicy, RestartBy, Token, gateway_info};
use shardkeeper::{Lifecycle, ShardId, Topic};
use shardkeeper_sim::{Action, RestFault, Simulator};
use shardkeeper_tests::{Running, SimDialer, bot, eventually, service, simulator};
use tokio::time::{Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn limit(simulator: &Simulator, shards: Option<u32>, max_concurrency: Option<u32>, remaining: Option<u32>) {
    simulator.act(&Action::Limits { shards, max_concurrency, remaining }).unwrap();
}

fn quiet(shards: u32) -> Simulator {
    simulator(shards, |config| config.events_per_second = 0.0)
}

#[tokio::test(start_paused = true)]
async fn gw_004_169_177_the_gateway_is_asked_every_few_hours_and_believed() {
    let running = Running::start(quiet(2)).await;
    let simulator = running.simulator.clone();
    limit(&simulator, None, Some(4), Some(700));
    sleep(HOUR * 9).await;
    let identify = running.keeper.status().await.unwrap().identify;
    assert_eq!((identify.max_concurrency, identify.remaining), (4, 700));
    sleep(HOUR * 24 * 10 - HOUR * 9).await;
    let requests = simulator.report().rest_requests;
    assert!((31..=61).contains(&requests), "{requests} in ten days");
    assert_eq!(simulator.report().identifies, 2);
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn gw_005_more_shards_than_the_bot_has_are_reported_when_they_are_more_than_ever() {
    let simulator = quiet(2);
    let builder = bot(&simulator).gateway_check_every(HOUR).reshard(ReshardPolicy::off());
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let running = Running::start_with(simulator, builder).await;
    // The sentinel reports a higher recommendation, but not a lower one.
    for advised in [3, 4, 1, 3, 4] {
        limit(&running.simulator, Some(advised), None, None);
        sleep(HOUR * 5).await;
    }
    running.keeper.stop().await;
    let mut reported = Vec::new();
    while let Some(event) = lifecycle.next().await {
        if let Some(advice @ Lifecycle::MoreShardsAdvised { .. }) = event.lifecycle() {
            reported.push(advice.to_string());
        }
    }
    let expected = [3, 4].map(|advised| format!("discord recommends {advised} shards, the bot has 2"));
    assert_eq!(reported, expected);
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_starts_with_fewer_shards_than_discord_advises_hears_of_it() {
    let simulator = quiet(4);
    limit(&simulator, Some(9), None, None);
    let builder = bot(&simulator).shards(4);
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let keeper = builder.start().await.unwrap();
    let heard = async {
        while let Some(event) = lifecycle.next().await {
            if let Some(Lifecycle::MoreShardsAdvised { count, advised }) = event.lifecycle() {
                return Some((count.get(), *advised));
            }
        }
        None
    };
    assert_eq!(timeout(HOUR, heard).await.unwrap(), Some((4, 9)));
    keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_that_fails_for_hours_is_asked_every_other_minute_and_no_shard_notices() {
    let simulator = quiet(2);
    let builder = bot(&simulator).gateway_check_every(HOUR);
    let mut running = Running::start_with(simulator, builder).await;
    let before = running.simulator.report().connections;
    running.simulator.arm_rest(RestFault::Status(503), usize::MAX);
    running.until(|lifecycle| matches!(lifecycle, Lifecycle::GatewayUnavailable { .. })).await;
    let failing = running.simulator.report().rest_requests;
    sleep(HOUR * 5).await;
    let requests = running.simulator.report().rest_requests - failing;
    assert!((5 * 30..=5 * 40).contains(&requests), "{requests} in five hours");
    running.simulator.act(&Action::Disarm).unwrap();
    limit(&running.simulator, None, None, Some(500));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(running.keeper.status().await.unwrap().identify.remaining, 500);
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.connections - before), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn gw_290_293_what_the_api_asks_for_goes_before_the_doubts_of_shards() {
    for (fault, patience) in [
        (RestFault::RateLimited { retry_after_ms: 7_200_000, global: true }, HOUR * 2),
        // The answer does not say when to ask again, so the next check is hours later, as after a normal
        // answer.
        (RestFault::Page(429), HOUR * 4),
    ] {
        let mut running = Running::start(quiet(1)).await;
        running.simulator.arm_rest(fault, 1);
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::GatewayUnavailable { .. })).await;
        let mut restarts = 1;
        let end = Instant::now() + patience - Duration::from_secs(1);
        while Instant::now() < end {
            let sentinel = service::<SentinelMessage>(&running.keeper).unwrap();
            sentinel.send_message(SentinelMessage::Doubt).unwrap();
            sleep(Duration::from_secs(30)).await;
            // A restarted sentinel keeps waiting too.
            if restarts > 0 {
                restarts -= 1;
                sentinel.kill();
                running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
                sleep(Duration::from_secs(1)).await;
            }
        }
        assert_eq!(running.simulator.report().rest_requests, 2, "{fault:?}");
        sleep(HOUR * 4).await;
        assert!(running.simulator.report().rest_requests >= 3, "{fault:?}: it is asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn gw_006_297_a_token_that_is_dead_is_not_used_for_asking_again() {
    let mut running = Running::start(quiet(1)).await;
    running.simulator.arm_rest(RestFault::Status(401), usize::MAX);
    let reported = running.until(|lifecycle| matches!(lifecycle, Lifecycle::GatewayUnavailable { .. })).await;
    assert!(reported.to_string().ends_with("portal), no further try"), "{reported}");
    sleep(HOUR).await;
    service::<SentinelMessage>(&running.keeper).unwrap().send_message(SentinelMessage::Doubt).unwrap();
    sleep(HOUR * 72).await;
    assert_eq!(running.simulator.report().rest_requests, 2);
    service::<SentinelMessage>(&running.keeper).unwrap().kill();
    sleep(HOUR * 72).await;
    assert_eq!(running.simulator.report().rest_requests, 2);
    // A 401 of the API does not stop the shards; only a close code of the Gateway does.
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_sentinel_that_dies_before_its_first_answer_is_replaced_and_the_bot_starts() {
    let simulator = quiet(2);
    simulator.arm_rest(RestFault::Hang, 1);
    let (actor, manager) =
        ractor::Actor::spawn(None, ShardManager, bot(&simulator).build().unwrap()).await.unwrap();
    let keeper = shardkeeper::Shardkeeper::of(actor.clone()).await.unwrap();
    eventually(async || simulator.report().rest_requests > 0).await;
    let killed = Instant::now();
    service::<SentinelMessage>(&keeper).unwrap().kill();
    ractor::call!(actor, ManagerMessage::AwaitStart).unwrap().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    keeper.stop().await;
    manager.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_was_given_the_gateway_info_asks_hours_later() {
    let simulator = quiet(2);
    let token = Token::new("sim-token").unwrap();
    let dialer = SimDialer(simulator.clone());
    let info = gateway_info(&dialer, &simulator.api_url().parse().unwrap(), &token).await.unwrap();
    let running = Running::start_with(simulator.clone(), bot(&simulator).gateway(info)).await;
    service::<SentinelMessage>(&running.keeper).unwrap().kill();
    sleep(HOUR * 4 - Duration::from_secs(1)).await;
    assert_eq!(simulator.report().rest_requests, 1);
    sleep(HOUR * 5).await;
    assert_eq!(simulator.report().rest_requests, 2);
}

#[tokio::test(start_paused = true)]
async fn gw_166_168_169_later_answers_keep_the_reserve_and_the_end_of_the_period() {
    let simulator = quiet(4);
    let builder = bot(&simulator).gateway_check_every(HOUR * 20);
    let running = Running::start_with(simulator, builder).await;
    let start = Instant::now();
    limit(&running.simulator, None, None, Some(12));
    sleep(HOUR * 21).await;
    assert_eq!(running.keeper.status().await.unwrap().identify.remaining, 12);
    for shard in 0..4 {
        running.keeper.restart_shard(ShardId(shard), RestartBy::Identify).await.unwrap();
    }
    tokio::time::sleep_until(start + HOUR * 24 - Duration::from_secs(60)).await;
    assert_eq!(running.simulator.report().identifies, 4 + 2, "ten stay in reserve");
    tokio::time::sleep_until(start + HOUR * 24 + Duration::from_secs(60)).await;
    assert_eq!(
        running.simulator.report().identifies,
        4 + 4,
        "the period has ended, and nobody had to say so"
    );
    running.no_violations();
}
