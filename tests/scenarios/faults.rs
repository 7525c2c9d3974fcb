//! Faults of Discord and of the network.

use std::time::Duration;

use shardkeeper::status::{Change, Reason};
use shardkeeper_sim::{ConnectFault, Fault};
use shardkeeper_tests::{Running, in_both_worlds, simulator};
use tokio::time::Instant;

/// Injects a fault into a shard with traffic; the shard must resume without losing an event or sending an
/// Identify.
async fn resumes_after(fault: Fault) -> (Running, Duration) {
    let mut running = Running::start(simulator(2, |_| {})).await;
    running.simulator.start_traffic();
    running.simulator.emit(0, 50);
    running.simulator.inject(0, fault).unwrap();
    let start = Instant::now();
    running.until_resumed(0).await;
    let took = start.elapsed();
    running.simulator.emit(0, 50);
    running.check().await;
    assert_eq!(running.simulator.report().identifies, 2, "no Identify was spent");
    assert_eq!(running.simulator.report().resumes, 1);
    (running, took)
}

#[tokio::test(start_paused = true)]
async fn gw_144_reconnect() {
    let (_, took) = resumes_after(Fault::Reconnect).await;
    // GW-137: after op 7 the shard resumes at once.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn gw_114_a_zombie() {
    let (_, took) = resumes_after(Fault::StopAcking).await;
    assert!(took < Duration::from_secs(90), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn gw_102_a_half_open_connection() {
    let (_, took) = resumes_after(Fault::HalfOpen).await;
    assert!(took < Duration::from_secs(95), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn gw_093_a_cut_connection() {
    // GW-043: the new connection needs a new inflate context; with the old one nothing could be read.
    let (_, took) = resumes_after(Fault::Cut).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn gw_053_a_corrupt_stream() {
    in_both_worlds(|| async {
        resumes_after(Fault::Corrupt).await;
    });
}

#[tokio::test(start_paused = true)]
async fn gw_147_an_invalid_session_that_may_be_resumed() {
    let (_, took) = resumes_after(Fault::InvalidSession { resumable: true }).await;
    // GW-149: 1 to 5 s pass between op 9 and the next login.
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn gw_076_094_close_codes_that_keep_the_session() {
    in_both_worlds(|| async {
        // GW-077, GW-078, GW-081, GW-084: Resume after 4001, 4002, 4005 and 4008. GW-091, GW-092: and after
        // 1000 and 1001 from the server.
        for code in [1000, 1001, 1011, 4000, 4001, 4002, 4005, 4008, 4999] {
            resumes_after(Fault::Close { code }).await;
        }
    });
}

#[test]
fn gw_148_an_invalid_session_starts_a_new_one() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(2, |_| {})).await;
        running.simulator.emit(0, 50);
        running.simulator.inject(0, Fault::InvalidSession { resumable: false }).unwrap();
        running.until_shard(0, |change| matches!(change, Change::Ready)).await;
        running.simulator.emit(0, 50);
        running.check().await;
        assert_eq!((running.simulator.report().identifies, running.simulator.report().resumes), (3, 0));
    });
}

#[test]
fn close_codes_that_end_the_session_identify_without_a_resume() {
    in_both_worlds(|| async {
        // GW-079, GW-083, GW-085: after 4003, 4007 and 4009 the session is dropped.
        for code in [4003, 4007, 4009] {
            let mut running = Running::start(simulator(2, |_| {})).await;
            running.simulator.inject(0, Fault::Close { code }).unwrap();
            running.until_shard(0, |change| matches!(change, Change::Ready)).await;
            let report = running.simulator.report();
            assert_eq!((report.identifies, report.resumes, report.resumes_refused), (3, 0, 0), "{code}");
            running.no_violations();
        }
    });
}

#[test]
fn gw_140_a_refused_resume_identifies() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(2, |_| {})).await;
        running.simulator.arm(ConnectFault::RefuseResume, 1);
        running.simulator.inject(0, Fault::Cut).unwrap();
        running.until_shard(0, |change| matches!(change, Change::Ready)).await;
        assert_eq!(
            (running.simulator.report().identifies, running.simulator.report().resumes_refused),
            (3, 1)
        );
        // GW-135: an Identify after an unanswered Resume would be a violation.
        running.no_violations();
    });
}

#[tokio::test(start_paused = true)]
async fn gw_139_a_gateway_that_is_away_for_a_while_keeps_the_session() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    running.simulator.arm(ConnectFault::Refuse, 4);
    running.simulator.inject(0, Fault::Cut).unwrap();
    running.until_resumed(0).await;
    assert_eq!(running.simulator.report().identifies, 1);
    running.check().await;
}

#[test]
fn gw_104_op_7_instead_of_hello_while_resuming() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |_| {})).await;
        running.simulator.arm(ConnectFault::ReconnectInsteadOfHello, 2);
        running.simulator.inject(0, Fault::Cut).unwrap();
        running.until_resumed(0).await;
        assert_eq!(running.simulator.report().identifies, 1);
        running.check().await;
    });
}

#[tokio::test(start_paused = true)]
async fn gw_115_a_requested_heartbeat_is_sent() {
    let running = Running::start(simulator(1, |_| {})).await;
    let before = running.simulator.report().heartbeats;
    running.simulator.inject(0, Fault::RequestHeartbeat).unwrap();
    let asked = Instant::now();
    running.simulator.wait_until(|report| report.heartbeats > before).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    running.no_violations();
}

#[test]
fn gw_134_connections_cut_again_and_again_under_traffic_lose_nothing() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |config| config.events_per_second = 200.0)).await;
        running.simulator.start_traffic();
        for round in 0..10 {
            running.simulator.emit(0, 200);
            running.simulator.inject(0, Fault::Cut).unwrap();
            running
                .until_shard(0, |change| matches!(change, Change::Disconnected { reason: Reason::Lost, .. }))
                .await;
            running.until_resumed(0).await;
            assert_eq!(running.simulator.report().resumes, round + 1);
        }
        // GW-133: the missed events arrive in order, and everything after RESUMED is new.
        running.check().await;
        assert_eq!(running.simulator.report().identifies, 1);
    });
}

#[tokio::test(start_paused = true)]
async fn gw_175_138_when_all_shards_are_cut_at_once_all_resume_without_the_queue() {
    let mut running = Running::start(simulator(64, |_| {})).await;
    for shard in 0..64 {
        running.simulator.inject(shard, Fault::Cut).unwrap();
    }
    let start = Instant::now();
    for _ in 0..64 {
        running
            .until(|lifecycle| {
                matches!(lifecycle, shardkeeper::Lifecycle::Shard { change: Change::Resumed { .. }, .. })
            })
            .await;
    }
    // GW-136: Resume does not count towards `max_concurrency`.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(running.simulator.report().identifies, 64);
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_day_of_quiet_life_breaks_no_rule() {
    let mut running = Running::start(simulator(2, |config| config.events_per_second = 0.01)).await;
    running.simulator.start_traffic();
    let end = Instant::now() + Duration::from_secs(24 * 3600);
    while Instant::now() < end {
        drop(running.next().await);
    }
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (2, 0));
    assert!(report.heartbeats > 4000, "{}", report.heartbeats);
    // These would be violations: GW-030, sending a receive-only opcode; GW-111, no heartbeat in time.
    running.check().await;
}
