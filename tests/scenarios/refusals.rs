//! Permanent refusals by Discord, and failures that only cause delays.

use std::sync::Arc;
use std::time::Duration;

use shardkeeper::actor::ShardMessage;
use shardkeeper::error::{ConfigError, ExitReason, GatewayInfoError, StartError};
use shardkeeper::status::{Change, Phase, Reason};
use shardkeeper::{Intents, Lifecycle, ShardId, Shardkeeper, Topic};
use shardkeeper_sim::{ConnectFault, Fault, RestFault};
use shardkeeper_tests::{Network, Running, SimDialer, bot, bot_with, eventually, in_both_worlds, simulator};

#[test]
fn gw_006_a_wrong_token_ends_the_start() {
    in_both_worlds(|| async {
        let simulator = simulator(2, |_| {});
        let error = Shardkeeper::builder("wrong", Intents::GUILDS)
            .api_url(simulator.api_url())
            .dialer(Arc::new(SimDialer(simulator.clone())))
            .start()
            .await
            .unwrap_err();
        assert!(matches!(error, StartError::Gateway(GatewayInfoError::Unauthorized)), "{error:?}");
        // GW-297: after a 401 the token is not used again, which the simulator would report.
        assert_eq!(simulator.report().violations, []);
    });
}

#[tokio::test(start_paused = true)]
async fn gw_080_096_4004_on_one_shard_stops_all() {
    let mut running = Running::start(simulator(4, |_| {})).await;
    running.simulator.inject(2, Fault::Close { code: 4004 }).unwrap();
    let ExitReason::Refused(refusal) = running.keeper.exit_reason().await else { panic!("it is refused") };
    assert!(
        refusal.to_string().starts_with("discord refuses the connection: 4004 (authentication failed"),
        "{refusal}"
    );
    while running.events.next().await.is_some() {}
    tokio::time::sleep(Duration::from_secs(3600)).await;
    // GW-095: after a fatal close code no shard reconnects.
    assert_eq!(running.simulator.report().identifies, 4);
    running.no_violations();
}

#[test]
fn gw_090_forbidden_intents_end_the_bot_with_one_identify_per_key() {
    in_both_worlds(|| async {
        let simulator = simulator(8, |config| {
            config.allowed_intents = Intents::UNPRIVILEGED.bits();
            config.max_concurrency = 1;
        });
        let keeper = bot(&simulator).start().await.unwrap();
        let ExitReason::Refused(refusal) = keeper.exit_reason().await else { panic!("it is refused") };
        assert_eq!(refusal.code.0, 4014);
        // GW-096: close code 4014 affects the whole token, so every shard stops.
        assert_eq!(simulator.report().identifies, 1, "the others did not even try");
    });
}

#[test]
fn gw_086_087_a_layout_that_is_refused_at_the_start_burns_no_identifies() {
    in_both_worlds(|| async {
        for code in [4010, 4011] {
            let simulator = simulator(8, |config| config.max_concurrency = 1);
            simulator.arm(ConnectFault::Close { code }, 100);
            let keeper = bot(&simulator).start().await.unwrap();
            let ExitReason::Refused(refusal) = keeper.exit_reason().await else { panic!("it is refused") };
            assert_eq!(refusal.code.0, code);
            assert_eq!(simulator.report().identifies, 1);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn gw_087_a_shard_that_grew_too_large_ends_alone() {
    let running = Running::start(simulator(2, |_| {})).await;
    running.simulator.inject(0, Fault::Close { code: 4011 }).unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let status = running.keeper.status().await.unwrap();
    assert_eq!(status.shards[0].phase, shardkeeper::status::Phase::Refused);
    assert_eq!(status.shards[1].phase, shardkeeper::status::Phase::Ready);
    assert_eq!(running.simulator.report().identifies, 2);
}

#[tokio::test(start_paused = true)]
async fn gw_080_096_after_4004_no_shard_in_whatever_state_identifies_or_resumes() {
    let simulator = simulator(8, |config| config.max_concurrency = 2);
    let network = Network::new(&simulator);
    let mut running =
        Running::start_with(simulator.clone(), bot(&simulator).dialer(Arc::new(network.clone()))).await;
    let cut = |shard: u32, fault: ConnectFault| {
        simulator.arm(fault, 1);
        simulator.inject(shard, Fault::Cut).unwrap();
    };
    // One shard crashed so often that it waits; one waits for RESUMED, one for its connection, one for its
    // next attempt.
    for _ in 0..2 {
        running.keeper.shard(ShardId(1)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::Crashed { .. })).await;
    }
    cut(2, ConnectFault::NoReady);
    running.until_shard(2, |change| matches!(change, Change::Resuming { .. })).await;
    cut(3, ConnectFault::Hang);
    running.until_shard(3, |change| matches!(change, Change::Connecting { .. })).await;
    cut(4, ConnectFault::Refuse);
    let failed =
        |change: &Change| matches!(change, Change::Disconnected { reason: Reason::ConnectFailed, .. });
    running.until_shard(4, failed).await;
    // Three more have no session: connecting, at Hello, and in the identify queue.
    simulator.arm(ConnectFault::NoHello, 1);
    for (shard, phase) in [(5, Phase::Connecting), (6, Phase::AwaitingPermit), (7, Phase::Queued)] {
        simulator.inject(shard, Fault::Close { code: 4009 }).unwrap();
        eventually(async || running.keeper.shard_status(ShardId(shard)).await.unwrap().phase == phase).await;
    }
    let phases: Vec<_> =
        running.keeper.status().await.unwrap().shards.iter().map(|shard| shard.phase).collect();
    assert_eq!(
        phases[..5],
        [Phase::Ready, Phase::Starting, Phase::Resuming, Phase::Connecting, Phase::Disconnected]
    );
    let before = simulator.report();
    simulator.inject(0, Fault::Close { code: 4004 }).unwrap();
    assert!(
        matches!(running.keeper.exit_reason().await, ExitReason::Refused(refusal) if refusal.code.0 == 4004)
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let after = simulator.report();
    assert_eq!(
        (after.identifies, after.resumes, after.resumes_refused),
        (before.identifies, before.resumes, 0)
    );
    assert_eq!((after.connections, network.open()), (before.connections, 0));
    running.no_violations();
}

#[test]
fn gw_089_090_refused_intents_are_named() {
    in_both_worlds(|| async {
        let intents = Intents::GUILDS | Intents::GUILD_MEMBERS | Intents::MESSAGE_CONTENT;
        for (code, named) in [
            (4013, "an unknown bit is set); asked for: GUILDS | GUILD_MEMBERS | MESSAGE_CONTENT"),
            (
                4014,
                "or do not ask for it); privileged among those asked for: GUILD_MEMBERS | MESSAGE_CONTENT",
            ),
        ] {
            let simulator = simulator(1, |_| {});
            simulator.arm(ConnectFault::Close { code }, 1);
            let builder = bot_with(&simulator, intents);
            let mut lifecycle = builder.subscribe(Topic::lifecycle());
            let keeper = builder.start().await.unwrap();
            let ExitReason::Refused(refusal) = keeper.exit_reason().await else { panic!("it is refused") };
            assert!(refusal.to_string().ends_with(named), "{refusal}");
            let mut reported = Vec::new();
            while let Some(event) = lifecycle.next().await {
                reported.push(event.lifecycle().unwrap().to_string());
            }
            assert_eq!(
                reported.iter().filter(|line| line.ends_with(named)).count(),
                2,
                "of the shard, and of all: {reported:?}"
            );
        }
    });
}

#[test]
fn gw_086_087_a_refused_layout_is_reported_as_such() {
    in_both_worlds(|| async {
        for code in [4010, 4011] {
            let mut running = Running::start(simulator(2, |_| {})).await;
            for shard in [1, 0] {
                running.simulator.inject(shard, Fault::Close { code }).unwrap();
                let reported =
                    running.until(|lifecycle| matches!(lifecycle, Lifecycle::LayoutRefused { .. })).await;
                assert_eq!(reported.shard(), Some(ShardId(shard)));
                let line = format!("shard {shard}: the layout of 2 shards is refused: {code} (");
                assert!(reported.to_string().starts_with(&line), "{reported}");
            }
            // All actors of the bot have ended.
            assert!(
                matches!(running.keeper.exit_reason().await, ExitReason::Refused(refusal) if refusal.code.0 == code)
            );
            assert_eq!(running.simulator.report().identifies, 2);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn an_api_in_trouble_is_asked_again() {
    // GW-300: after a 502 the request is repeated.
    for fault in [RestFault::Status(502), RestFault::Status(429), RestFault::Hang, RestFault::Garbage] {
        let simulator = simulator(1, |_| {});
        simulator.arm_rest(fault, 2);
        let running = Running::start(simulator).await;
        running.no_violations();
    }
}

#[test]
fn an_api_that_is_none_is_not_asked_again() {
    in_both_worlds(|| async {
        let simulator = simulator(1, |_| {});
        simulator.arm_rest(RestFault::Status(404), 1);
        let error = bot(&simulator).start().await.unwrap_err();
        let StartError::Gateway(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().ends_with("answered with status 404: check the API URL"), "{error}");
    });
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused_by_name() {
    let builder = || Shardkeeper::builder("token", Intents::GUILDS);
    assert!(matches!(Shardkeeper::builder("", Intents::GUILDS).build(), Err(ConfigError::Token(_))));
    assert!(matches!(builder().api_url("discord.com").build(), Err(ConfigError::ApiUrl { .. })));
    assert!(matches!(builder().shards(0).build(), Err(ConfigError::NoShards)));
    assert!(matches!(builder().shard_ids([0; 0], 4).build(), Err(ConfigError::NoShards)));
    // GW-072: `large_threshold` is from 50 to 250.
    assert!(matches!(builder().large_threshold(10).build(), Err(ConfigError::LargeThreshold { value: 10 })));
    // GW-073: a shard id is below the number of shards.
    let error = builder().shard_ids([0, 4], 4).build().unwrap_err();
    assert_eq!(error.to_string(), "shard 4 does not exist among 4 shards: ids go from 0 to 3");
    assert!(builder().shard_ids([1, 3], 4).build().is_ok());
}
