//! What Discord refuses for good, and what only takes longer.

use std::time::Duration;

use shardkeeper::{ConfigError, Ended, GatewayInfoError, Intents, Shardkeeper, StartError};
use shardkeeper_sim::{ConnectFault, Fault, RestFault};
use shardkeeper_tests::{Running, SimDialer, bot, simulator};

#[tokio::test(start_paused = true)]
async fn gw_006_a_wrong_token_ends_the_start() {
    let simulator = simulator(2, |_| {});
    let error = Shardkeeper::builder("wrong", Intents::GUILDS)
        .api_url(simulator.api_url())
        .dialer(std::sync::Arc::new(SimDialer(simulator.clone())))
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Gateway(GatewayInfoError::Unauthorized)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn gw_080_096_4004_on_one_shard_stops_all() {
    let mut running = Running::start(simulator(4, |_| {})).await;
    running.simulator.inject(2, Fault::Close { code: 4004 }).unwrap();
    let Ended::Refused(refusal) = running.keeper.ended().await else { panic!("it is refused") };
    assert!(
        refusal.to_string().starts_with("discord refuses the connection: 4004 (authentication failed"),
        "{refusal}"
    );
    while running.events.next().await.is_some() {}
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.simulator.report().identifies, 4);
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn gw_090_forbidden_intents_end_the_bot_with_one_identify_per_key() {
    let simulator = simulator(8, |config| {
        config.allowed_intents = Intents::UNPRIVILEGED.bits();
        config.max_concurrency = 1;
    });
    let keeper = bot(&simulator).start().await.unwrap();
    let Ended::Refused(refusal) = keeper.ended().await else { panic!("it is refused") };
    assert_eq!(refusal.code.0, 4014);
    assert_eq!(simulator.report().identifies, 1, "the others did not even try");
}

#[tokio::test(start_paused = true)]
async fn gw_086_087_a_layout_that_is_refused_at_the_start_burns_no_identifies() {
    for code in [4010, 4011] {
        let simulator = simulator(8, |config| config.max_concurrency = 1);
        simulator.arm(ConnectFault::Close { code }, 100);
        let keeper = bot(&simulator).start().await.unwrap();
        let Ended::Refused(refusal) = keeper.ended().await else { panic!("it is refused") };
        assert_eq!(refusal.code.0, code);
        assert_eq!(simulator.report().identifies, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn gw_087_a_shard_that_grew_too_large_ends_alone() {
    let running = Running::start(simulator(2, |_| {})).await;
    running.simulator.inject(0, Fault::Close { code: 4011 }).unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let status = running.keeper.status().await.unwrap();
    assert_eq!(status.shards[0].phase, shardkeeper::Phase::Refused);
    assert_eq!(status.shards[1].phase, shardkeeper::Phase::Ready);
    assert_eq!(running.simulator.report().identifies, 2);
}

#[tokio::test(start_paused = true)]
async fn an_api_in_trouble_is_asked_again() {
    for fault in [RestFault::Status(502), RestFault::Status(429), RestFault::Hang, RestFault::Garbage] {
        let simulator = simulator(1, |_| {});
        simulator.arm_rest(fault, 2);
        let running = Running::start(simulator).await;
        running.no_violations();
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_none_is_not_asked_again() {
    let simulator = simulator(1, |_| {});
    simulator.arm_rest(RestFault::Status(404), 1);
    let error = bot(&simulator).start().await.unwrap_err();
    let StartError::Gateway(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().ends_with("answered with status 404: check the API URL"), "{error}");
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused_by_name() {
    let builder = || Shardkeeper::builder("token", Intents::GUILDS);
    assert!(matches!(Shardkeeper::builder("", Intents::GUILDS).build(), Err(ConfigError::Token(_))));
    assert!(matches!(builder().api_url("discord.com").build(), Err(ConfigError::ApiUrl { .. })));
    assert!(matches!(builder().shards(0).build(), Err(ConfigError::NoShards)));
    assert!(matches!(builder().shard_ids([], 4).build(), Err(ConfigError::NoShards)));
    assert!(matches!(builder().large_threshold(10).build(), Err(ConfigError::LargeThreshold { value: 10 })));
    let error = builder().shard_ids([0, 4], 4).build().unwrap_err();
    assert_eq!(error.to_string(), "shard 4 does not exist among 4 shards: ids go from 0 to 3");
    assert!(builder().shard_ids([1, 3], 4).build().is_ok());
}
