//! Cold starts.

use std::time::Duration;

use shardkeeper::{Compression, Phase};
use shardkeeper_sim::{ConnectFault, IdentifyRecord};
use shardkeeper_tests::{Running, bot, simulator};

#[tokio::test(start_paused = true)]
async fn all_shards_become_ready_and_every_guild_arrives() {
    let mut running = Running::start(simulator(4, |_| {})).await;
    running.simulator.start_traffic();
    running.simulator.wait_until(|report| report.sent > 500).await;
    running.check().await;
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (4, 0));
    let status = running.keeper.status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.phase == Phase::Ready && shard.session == 1));
    assert_eq!(status.identify.remaining, 996);
}

#[tokio::test(start_paused = true)]
async fn without_compression_too() {
    let simulator = simulator(2, |_| {});
    let builder = bot(&simulator).compression(Compression::None);
    let mut running = Running::start_with(simulator, builder).await;
    running.simulator.emit(0, 100);
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_044_compressed_messages_in_pieces() {
    let mut running = Running::start(simulator(2, |config| config.split_frames = true)).await;
    running.simulator.emit(0, 300);
    running.check().await;
}

/// Per key at least the window, over all keys at most `max_concurrency` in any window, in order of ids.
fn cadence(log: &[IdentifyRecord], max_concurrency: u32) {
    for key in 0..max_concurrency {
        let of_key: Vec<&IdentifyRecord> = log.iter().filter(|record| record.key == key).collect();
        for pair in of_key.windows(2) {
            assert!(pair[1].at_ms - pair[0].at_ms >= 5000, "{pair:?}");
            assert!(pair[1].at_ms - pair[0].at_ms < 5500, "the cadence is the window, not more: {pair:?}");
            assert!(pair[0].shard_id < pair[1].shard_id, "{pair:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gw_170_171_sixty_four_shards_identify_sixteen_at_a_time() {
    let mut running = Running::start(simulator(64, |config| config.max_concurrency = 16)).await;
    let log = running.simulator.report().identify_log;
    assert_eq!(log.len(), 64);
    cadence(&log, 16);
    for (place, record) in log.iter().enumerate() {
        assert_eq!(record.shard_id / 16, place as u32 / 16, "window by window: {record:?}");
    }
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
    // Ten are the reserve: two may go at once, two wait for the next day.
    assert!(start.elapsed() > Duration::from_secs(3600));
    assert_eq!(running.simulator.report().identifies, 4);
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
        reason.starts_with("no connection to gateway.sim.invalid:80 within 9s, given up while"),
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
async fn b3_a_gateway_that_closes_at_once_is_not_stormed() {
    let simulator = simulator(1, |_| {});
    simulator.arm(ConnectFault::Refuse, usize::MAX);
    let builder = bot(&simulator);
    let _keeper = builder.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let connections = simulator.report().connections;
    assert!((60..120).contains(&connections), "{connections} in an hour");
}
