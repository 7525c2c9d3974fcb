//! Stop and detach, from every state, within the shutdown timeout.

use std::time::Duration;

use shardkeeper::command::{MembersError, RequestMembers};
use shardkeeper::config::RestartBy;
use shardkeeper::error::{CommandError, ExitReason, ManagerEnded, ShardChangeError};
use shardkeeper::status::{Change, Phase};
use shardkeeper::{OnlineStatus, Presence, ShardId, Shardkeeper};
use shardkeeper_sim::{Action, ConnectFault, Fault, Host, RestFault};
use shardkeeper_tests::{Running, bot, eventually, in_both_worlds, simulator};
use tokio::time::Instant;

#[test]
fn gw_098_stop_gives_the_sessions_up() {
    in_both_worlds(|| async {
        let running = Running::start(simulator(4, |_| {})).await;
        running.keeper.stop().await;
        assert_eq!(running.keeper.exit_reason().await, ExitReason::Stopped);
        assert_eq!(running.simulator.report().ready_sessions, 0);
        running.no_violations();
    });
}

#[tokio::test(start_paused = true)]
async fn gw_142_a_successor_resumes_what_was_detached_and_nothing_is_lost() {
    let mut running = Running::start(simulator(4, |_| {})).await;
    running.simulator.start_traffic();
    running.simulator.wait_until(|report| report.sent > 300).await;
    let keeper = running.keeper.clone();
    // GW-099: a detach closes with a code that keeps the sessions (any except 1000 and 1001).
    let detaching = tokio::spawn(async move { keeper.detach().await.unwrap() });
    // The loop reads the remaining events, because the detach waits for them.
    while let Some(event) = running.events.next().await {
        if let Some(dispatch) = event.dispatch() {
            running.simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data());
        }
    }
    let sessions = detaching.await.unwrap();
    assert_eq!(sessions.len(), 4);
    assert_eq!(running.keeper.exit_reason().await, ExitReason::Detached);
    // Serialized and parsed again, as with a file.
    let sessions: Vec<shardkeeper::Session> =
        serde_json::from_str(&serde_json::to_string(&sessions).unwrap()).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let builder = bot(&running.simulator).sessions(sessions);
    let mut successor = Running::start_with(running.simulator.clone(), builder).await;
    successor.check().await;
    let report = successor.simulator.report();
    // GW-136: Resume does not count towards the 1000 identifies.
    assert_eq!((report.identifies, report.resumes, report.remaining), (4, 4, 996));
    let status = successor.keeper.status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.phase == Phase::Ready));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_dealt_with_before_a_hand_over_comes_again_after_it() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    for shard in 0..2 {
        running.simulator.emit(shard, 200);
    }
    for _ in 0..100 {
        drop(running.next().await);
    }
    // One event is held elsewhere and never finished; the others are not even read.
    let Running { simulator, keeper, mut events, .. } = running;
    let working = tokio::spawn(async move { (events.next().await.unwrap(), events) });
    let in_work = working.await.unwrap();
    let start = Instant::now();
    let sessions = keeper.detach().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(10), "the deadline, and no longer");
    drop(in_work);
    let builder = bot(&simulator).sessions(sessions);
    let mut successor = Running::start_with(simulator, builder).await;
    // No event is lost, and no finished event comes again.
    successor.check().await;
    assert_eq!(successor.simulator.report().identifies, 2);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_answer_the_close_cannot_delay_the_end_for_long() {
    let running = Running::start(simulator(2, |_| {})).await;
    running.simulator.inject(0, Fault::HalfOpen).unwrap();
    running.simulator.inject(1, Fault::HalfOpen).unwrap();
    let start = Instant::now();
    assert_eq!(running.keeper.detach().await.unwrap().len(), 2);
    // GW-102: the wait for the closing handshake is limited to a few seconds.
    assert!(start.elapsed() <= Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_reads_nothing_cannot_delay_the_end_beyond_its_deadline() {
    let running = Running::start(simulator(1, |_| {})).await;
    let slow = running.keeper.subscribe_with(
        shardkeeper::Topic::all(),
        shardkeeper::SubscriptionOptions { capacity: 1, overflow: shardkeeper::Overflow::Wait },
    );
    running.simulator.emit(0, 50);
    eventually(async || slow.backlog() == 1).await;
    let start = Instant::now();
    let sessions = running.keeper.detach().await.unwrap();
    assert_eq!(sessions.len(), 1, "what it did not take is replayed to the successor");
    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_middle_of_connecting_cancels_it() {
    for (fault, phase) in [
        (ConnectFault::Hang, Phase::Connecting),
        (ConnectFault::NoHello, Phase::Connecting),
        (ConnectFault::NoReady, Phase::Identifying),
        (ConnectFault::Refuse, Phase::Disconnected),
    ] {
        let simulator = simulator(3, |config| config.max_concurrency = 1);
        simulator.arm(fault, 100);
        let keeper = bot(&simulator).start().await.unwrap();
        eventually(async || keeper.shard_status(ShardId(0)).await.unwrap().phase == phase).await;
        let start = Instant::now();
        keeper.stop().await;
        assert!(start.elapsed() <= Duration::from_secs(3), "{fault:?}: {:?}", start.elapsed());
        let connections = simulator.report().connections;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(simulator.report().connections, connections, "{fault:?}: nothing comes back");
        assert!(keeper.status().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_after_the_end_reports_the_end_in_the_same_way() {
    let keeper = bot(&simulator(1, |_| {})).start().await.unwrap();
    keeper.stop().await;
    assert_eq!(keeper.status().await.unwrap_err(), ManagerEnded);
    assert_eq!(keeper.sessions().await.unwrap_err(), ManagerEnded);
    assert_eq!(keeper.detach().await.unwrap_err(), ManagerEnded);
    assert_eq!(Shardkeeper::of(keeper.manager().clone()).await.unwrap_err(), ManagerEnded);
    let ended = CommandError::from(ManagerEnded);
    let presence = || Presence::new(OnlineStatus::Idle);
    assert_eq!(keeper.shard_status(0).await.unwrap_err(), ended);
    assert_eq!(keeper.shard(0).await.unwrap_err(), ended);
    assert_eq!(keeper.owner_of(1).await.unwrap_err(), ended);
    assert_eq!(keeper.update_presence(presence()).await.unwrap_err(), ended);
    assert_eq!(keeper.update_presence_on([0], presence()).await.unwrap_err(), ended);
    assert_eq!(keeper.request_soundboard_sounds(&[1]).await.unwrap_err(), ended);
    assert!(matches!(
        keeper.members(RequestMembers::users(1, [2])).await,
        Err(MembersError::Rejected(CommandError::ManagerEnded(ManagerEnded)))
    ));
    let ended = ShardChangeError::from(ManagerEnded);
    assert_eq!(keeper.add_shards([0], []).await.unwrap_err(), ended);
    assert_eq!(keeper.remove_shards([ShardId(0)]).await.unwrap_err(), ended);
    assert_eq!(keeper.restart_shard(0, RestartBy::Resume).await.unwrap_err(), ended);
    // Nothing is left to do, so these are no errors.
    keeper.stop().await;
    keeper.wait().await.unwrap();
    assert_eq!(
        ended.to_string(),
        "the manager has ended: Shardkeeper::wait() returns the cause; start a new one"
    );
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_start_ends_the_manager() {
    let simulator = simulator(1, |_| {});
    simulator.arm_rest(RestFault::Status(500), 3);
    let builder = bot(&simulator);
    let mut lifecycle = builder.subscribe(shardkeeper::Topic::lifecycle());
    drop(tokio::time::timeout(Duration::from_millis(500), builder.start()).await);
    while lifecycle.next().await.is_some() {}
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(simulator.report().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn gw_098_stop_ends_the_sessions_of_shards_that_are_between_connections() {
    let gone = |change: &Change| matches!(change, Change::Disconnected { .. });
    for (fault, wait_ms) in [
        // The shard ends while it closes, while it waits for its next attempt, and while it connects.
        (Fault::Reconnect, 0),
        (Fault::InvalidSession { resumable: true }, 0),
        (Fault::InvalidSession { resumable: true }, 500),
        (Fault::Cut, 0),
        (Fault::StopAcking, 0),
    ] {
        let mut running = Running::start(simulator(2, |_| {})).await;
        running.simulator.inject(1, fault).unwrap();
        running.until_shard(1, gone).await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let start = Instant::now();
        running.keeper.stop().await;
        assert!(start.elapsed() <= Duration::from_secs(4), "{fault:?}: {:?}", start.elapsed());
        let alive: Vec<_> =
            running.simulator.sessions().into_iter().filter(|session| session.alive).collect();
        assert_eq!(alive, [], "{fault:?}");
        assert_eq!(running.simulator.report().identifies, 2, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stop_waits_three_seconds_at_most_for_a_gateway_that_is_away() {
    for fault in [ConnectFault::Refuse, ConnectFault::Hang, ConnectFault::NoHello, ConnectFault::NoReady] {
        let mut running = Running::start(simulator(2, |_| {})).await;
        running.simulator.act(&Action::Host { host: Host::Any, fault, lasts_ms: 3_600_000 }).unwrap();
        running.simulator.inject(0, Fault::Cut).unwrap();
        running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
        let start = Instant::now();
        running.keeper.stop().await;
        assert!(start.elapsed() <= Duration::from_millis(3100), "{fault:?}: {:?}", start.elapsed());
        assert_eq!(running.keeper.exit_reason().await, ExitReason::Stopped);
    }
}
