//! Shards that are added, removed, restarted and moved between processes.

use std::time::Duration;

use shardkeeper::actor::{ManagerMessage, ShardMessage};
use shardkeeper::command::{ChannelInfoField, Command, VoiceStateUpdate};
use shardkeeper::config::{RestartBy, RestartPolicy};
use shardkeeper::error::{CommandError, ManagerEnded, ShardChangeError};
use shardkeeper::status::{Change, Phase, Reason};
use shardkeeper::{
    Builder, Event, Intents, Lifecycle, OnlineStatus, Presence, Session, ShardId, Shardkeeper, Subscription,
    SubscriptionOptions, Topic,
};
use shardkeeper_sim::{ConnectFault, Fault, RestFault, Simulator};
use shardkeeper_tests::{Running, bot, eventually, in_both_worlds, simulator};

/// Reports all events of this bot to the simulator, until the bot ends.
fn observe(simulator: &Simulator, mut events: Subscription) -> tokio::task::JoinHandle<()> {
    let simulator = simulator.clone();
    tokio::spawn(async move {
        while let Some(delivery) = events.next().await {
            if let Event::Dispatch(dispatch) = &*delivery {
                simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data());
            }
        }
    })
}

/// Starts a process of the bot that runs these shards.
async fn process(simulator: &Simulator, builder: Builder) -> Shardkeeper {
    let options = SubscriptionOptions { capacity: 1 << 12, ..SubscriptionOptions::default() };
    drop(observe(simulator, builder.subscribe_with(Topic::all(), options)));
    builder.start().await.unwrap()
}

async fn until_ready(keeper: &Shardkeeper, shards: &[u32]) {
    let mut lifecycle = keeper.subscribe(Topic::lifecycle());
    loop {
        let status = keeper.status().await.unwrap();
        let is_ready = |id: &u32| {
            status.shards.iter().any(|shard| shard.shard == ShardId(*id) && shard.phase == Phase::Ready)
        };
        if shards.iter().all(is_ready) {
            return;
        }
        drop(lifecycle.next().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn shards_move_to_another_process_under_traffic_without_identify_or_loss() {
    let simulator = simulator(4, |_| {});
    let first = process(&simulator, bot(&simulator).shard_ids([0, 1, 2], 4)).await;
    let second = process(&simulator, bot(&simulator).shard_ids([3], 4)).await;
    until_ready(&first, &[0, 1, 2]).await;
    until_ready(&second, &[3]).await;
    simulator.start_traffic();
    simulator.wait_until(|report| report.identifies == 4).await;
    for shards in [vec![2], vec![0, 1]] {
        let ids = || shards.iter().copied().map(ShardId);
        let sessions = first.remove_shards(ids()).await.unwrap();
        assert!(sessions.iter().map(|session| session.shard).eq(ids()));
        // Serialized, as when they are sent to another process.
        let text = serde_json::to_string(&sessions).unwrap();
        let sessions: Vec<Session> = serde_json::from_str(&text).unwrap();
        simulator.emit(shards[0], 100);
        second.add_shards(ids(), sessions).await.unwrap();
        until_ready(&second, &shards).await;
    }
    assert_eq!(first.status().await.unwrap().shards.len(), 0);
    assert_eq!(second.status().await.unwrap().shards.len(), 4);
    simulator.stop_traffic();
    simulator.emit(0, 10);
    eventually(async || simulator.delivery().delivered == simulator.delivery().sent).await;
    let delivery = simulator.delivery();
    assert_eq!((delivery.lost, delivery.duplicated, delivery.out_of_order), (0, 0, 0), "{delivery:?}");
    let report = simulator.report();
    assert_eq!((report.identifies, report.resumes), (4, 3));
    assert!(report.violations.is_empty() && report.notices.is_empty(), "{report:?}");
    // A guild of a removed shard does not belong to this manager any more.
    let error = first.command(VoiceStateUpdate::leave(1 << 22)).await.unwrap_err();
    assert_eq!(error.to_string(), "guild 4194304 is on shard 1, which is not run by this manager");
    first.stop().await;
    second.stop().await;
}

#[test]
fn what_cannot_be_added_or_removed_is_refused_as_a_whole() {
    in_both_worlds(|| async {
        let simulator = simulator(4, |_| {});
        let running = Running::start_with(simulator.clone(), bot(&simulator).shard_ids([0, 1], 4)).await;
        let keeper = &running.keeper;
        let add = |ids: Vec<u32>, sessions: Vec<Session>| async move {
            keeper.add_shards(ids.into_iter().map(ShardId), sessions).await.unwrap_err()
        };
        assert_eq!(add(vec![2, 0], vec![]).await, ShardChangeError::AlreadyHere { shard: ShardId(0) });
        assert_eq!(
            add(vec![2, 4], vec![]).await.to_string(),
            "shard 4 does not exist among 4 shards: ids go from 0 to 3"
        );
        let mut session = keeper.sessions().await.unwrap().remove(0);
        assert_eq!(
            add(vec![2], vec![session.clone()]).await.to_string(),
            "a session of shard 0 was given, which is not among the shards to add"
        );
        (session.shard, session.intents) = (ShardId(2), Intents::GUILDS);
        let error = add(vec![2], vec![session]).await;
        assert_eq!(error.to_string(), "the session of shard 2 cannot be resumed here");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.starts_with("the session was started with the intents GUILDS, not with GUILDS | "),
            "{source}"
        );
        let error = keeper.remove_shards([ShardId(1), ShardId(2)]).await.unwrap_err();
        assert_eq!(error, ShardChangeError::NoSuchShard { shard: ShardId(2) });
        assert_eq!(keeper.status().await.unwrap().shards.len(), 2, "nothing has happened");
        keeper.stop().await;
        assert_eq!(add(vec![2], vec![]).await, ManagerEnded.into());
        running.no_violations();
    });
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_close_is_gone_by_the_deadline() {
    let simulator = simulator(2, |_| {});
    let mut running = Running::start(simulator.clone()).await;
    let keeper = running.keeper.clone();
    // The event is read but never acknowledged, so the session cannot be resumed after it.
    simulator.emit(1, 1);
    let kept = running.next().await;
    let before = tokio::time::Instant::now();
    // The task that awaits the removal is not the one that holds the delivery.
    let removal = tokio::spawn(keeper.remove_shards([ShardId(1)]));
    let sessions = removal.await.unwrap().unwrap();
    assert_eq!(before.elapsed().as_secs(), 10);
    let Event::Dispatch(dispatch) = &*kept else { panic!("a dispatch") };
    assert!(sessions[0].sequence < dispatch.sequence());
    assert_eq!(keeper.status().await.unwrap().shards.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_detach_in_the_middle_of_a_removal_returns_every_session() {
    let simulator = simulator(3, |_| {});
    let store = shardkeeper::store::MemoryStore::default();
    let builder = bot(&simulator).session_store(std::sync::Arc::new(store.clone()));
    let mut running = Running::start_with(simulator.clone(), builder).await;
    let keeper = running.keeper.clone();
    simulator.emit(2, 1);
    let kept = running.next().await;
    let removal = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.remove_shards([ShardId(1), ShardId(2)]).await }
    });
    // Both have closed, and shard 2 waits for the acknowledgement.
    let mut closed = 0;
    running
        .until(|lifecycle| {
            closed += u32::from(matches!(lifecycle, Lifecycle::Shard { change: Change::Stopped, .. }));
            closed == 2
        })
        .await;
    let detach = tokio::spawn(async move { keeper.detach().await.unwrap() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!detach.is_finished() && !removal.is_finished(), "the event is not acknowledged");
    drop(kept);
    let sessions = detach.await.unwrap();
    let shards: Vec<u32> = sessions.iter().map(|session| session.shard.0).collect();
    assert_eq!(shards, [0, 1, 2]);
    assert_eq!(removal.await.unwrap(), Err(ManagerEnded.into()));
    let stored = shardkeeper::store::SessionStore::load(&store).await.unwrap().sessions;
    assert_eq!(stored.into_iter().map(|record| record.session).collect::<Vec<_>>(), sessions);
}

#[test]
fn a_shard_starts_again_by_resume_or_by_identify() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(2, |_| {})).await;
        let keeper = running.keeper.clone();
        keeper.restart_shard(ShardId(1), RestartBy::Resume).await.unwrap();
        let reported =
            |change: &Change| matches!(change, Change::Disconnected { reason: Reason::Requested, .. });
        running.until_shard(1, reported).await;
        running.until_resumed(1).await;
        keeper.restart_shard(ShardId(1), RestartBy::Identify).await.unwrap();
        running.until_shard(1, |change| matches!(change, Change::Ready)).await;
        let status = keeper.shard_status(ShardId(1)).await.unwrap();
        assert_eq!((status.identifies, status.resumes, status.disconnects, status.session), (2, 1, 2, 2));
        assert_eq!(
            keeper.restart_shard(ShardId(5), RestartBy::Resume).await,
            Err(ShardChangeError::NoSuchShard { shard: ShardId(5) })
        );
        running.check().await;
    });
}

#[test]
fn a_shard_that_discord_refused_can_be_started_again() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(2, |_| {})).await;
        running.simulator.inject(1, Fault::Close { code: 4011 }).unwrap();
        running.until_shard(1, |change| matches!(change, Change::Refused(_))).await;
        while running.keeper.shard(ShardId(1)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        // The shard still belongs to this manager.
        let error = running.keeper.command(ask_shard_1()).await.unwrap_err();
        assert_eq!(error.to_string(), "shard 1 accepts no commands now: it has ended or is restarting");
        let shown = Presence::new(OnlineStatus::Idle);
        running.keeper.update_presence_on([ShardId(1)], shown).await.unwrap();
        running.keeper.restart_shard(ShardId(1), RestartBy::Identify).await.unwrap();
        running.until_shard(1, |change| matches!(change, Change::Ready)).await;
        assert_eq!(running.keeper.shard_status(ShardId(1)).await.unwrap().phase, Phase::Ready);
        assert_eq!(running.simulator.report().presences[&1]["status"], "idle");
    });
}

#[tokio::test(start_paused = true)]
async fn removing_the_last_shard_that_is_not_ready_makes_all_ready() {
    let simulator = simulator(2, |config| config.max_concurrency = 1);
    simulator.arm(ConnectFault::NoReady, 1);
    let builder = bot(&simulator);
    let options = SubscriptionOptions { capacity: 1 << 12, ..SubscriptionOptions::default() };
    let events = builder.subscribe_with(Topic::all().with_lifecycle(), options);
    let keeper = builder.start().await.unwrap();
    let mut running = Running { simulator, keeper, events };
    running.until_shard(1, |change| matches!(change, Change::Ready)).await;
    running.keeper.remove_shards([ShardId(0)]).await.unwrap();
    running.until(|lifecycle| matches!(lifecycle, Lifecycle::AllReady { shards: 1, .. })).await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_starts_from_an_answer_that_somebody_else_has_got() {
    let simulator = simulator(2, |_| {});
    let token = shardkeeper::config::Token::new("sim-token").unwrap();
    let dialer = shardkeeper_tests::SimDialer(simulator.clone());
    let url = simulator.api_url().parse().unwrap();
    let info = shardkeeper::config::gateway_info(&dialer, &url, &token).await.unwrap();
    simulator.arm_rest(RestFault::Status(500), 100);
    let running = Running::start_with(simulator.clone(), bot(&simulator).gateway(info)).await;
    assert_eq!(running.keeper.status().await.unwrap().identify.remaining, 998);
    running.no_violations();
}

#[test]
fn a_manager_spawned_as_an_actor_gives_its_handle() {
    in_both_worlds(|| async {
        let simulator = simulator(1, |_| {});
        let config = bot(&simulator).build().unwrap();
        let (manager, _) =
            ractor::Actor::spawn(None, shardkeeper::actor::ShardManager, config).await.unwrap();
        let keeper = shardkeeper::Shardkeeper::of(manager.clone()).await.unwrap();
        ractor::call!(manager, ManagerMessage::AwaitStart).unwrap().unwrap();
        until_ready(&keeper, &[0]).await;
        let one = ractor::call!(manager, |reply| ManagerMessage::ShardStatus(ShardId(0), reply)).unwrap();
        assert_eq!(one.unwrap().phase, Phase::Ready);
        let sessions = ractor::call!(manager, |reply| ManagerMessage::RemoveShards(
            vec![ShardId(0)],
            shardkeeper::config::ShutdownMode::Detach,
            reply
        ))
        .unwrap()
        .unwrap();
        ractor::call!(manager, |reply| ManagerMessage::AddShards(vec![ShardId(0)], sessions, reply))
            .unwrap()
            .unwrap();
        until_ready(&keeper, &[0]).await;
        assert_eq!(simulator.report().identifies, 1);
        keeper.stop().await;
        assert_eq!(keeper.exit_reason().await, shardkeeper::error::ExitReason::Stopped);
    });
}

#[tokio::test(start_paused = true)]
async fn a_status_tells_what_has_happened() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let reading = async {
        tokio::time::sleep(Duration::from_secs(41 * 20)).await;
    };
    tokio::pin!(reading);
    loop {
        tokio::select! {
            () = &mut reading => break,
            _ = running.next() => {}
        }
    }
    running.simulator.inject(0, Fault::Close { code: 4000 }).unwrap();
    running.until_resumed(0).await;
    let status = running.keeper.shard_status(ShardId(0)).await.unwrap();
    let last = status.last_disconnect.clone().unwrap();
    assert_eq!(
        (last.close_code, last.reason.to_string()),
        (Some(4000), "closed by discord with 4000 (unknown error)".to_owned())
    );
    assert_eq!((status.disconnects, status.zombied), (1, 0));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["last_disconnect"]["initiator"], "gateway");
    assert!(json["in_phase_ms"].as_f64().is_some() && json["latencies_ms"].is_array(), "{json}");
    let elsewhere = running.keeper.shard_status(ShardId(1)).await.unwrap_err();
    assert_eq!(elsewhere, CommandError::NoSuchShard { shard: ShardId(1) });
}

/// A command that goes to shard 1 of two, for a guild that does not exist.
fn ask_shard_1() -> Command {
    Command::channel_info(1 << 22, &[ChannelInfoField::Status])
}

async fn is_served(keeper: &Shardkeeper) {
    let written = async { keeper.command(ask_shard_1()).await.unwrap().written().await };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("in time").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_was_due_before_a_shard_left_does_not_start_it_twice_when_it_is_back() {
    let simulator = simulator(2, |_| {});
    let mut policy = RestartPolicy::default();
    policy.quarantine_after = 1;
    let mut running = Running::start_with(simulator.clone(), bot(&simulator).restart_policy(policy)).await;
    let keeper = running.keeper.clone();
    keeper.shard(ShardId(1)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
    running.until(|lifecycle| matches!(lifecycle, Lifecycle::Crashed { quarantined: true, .. })).await;
    let sessions = keeper.remove_shards([ShardId(1)]).await.unwrap();
    keeper.add_shards([ShardId(1)], sessions).await.unwrap();
    running.until_resumed(1).await;
    tokio::time::sleep(policy.quarantine * 2).await;
    is_served(&keeper).await;
}

#[test]
fn a_shard_that_is_added_twice_at_once_starts_once() {
    in_both_worlds(|| async {
        let simulator = simulator(2, |_| {});
        let running = Running::start_with(simulator.clone(), bot(&simulator).shard_ids([0], 2)).await;
        running.keeper.add_shards([ShardId(1), ShardId(1)], []).await.unwrap();
        until_ready(&running.keeper, &[0, 1]).await;
        is_served(&running.keeper).await;
    });
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_that_has_left_does_not_end_it_when_it_is_back() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    let keeper = running.keeper.clone();
    let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
    let full = keeper.subscribe_with(Topic::lifecycle().of_shards([ShardId(1)]), options);
    // The driver stays alive because the full subscription, which is not read, has no room for the event
    // about its end.
    running.simulator.inject(1, Fault::Close { code: 4011 }).unwrap();
    running.until_shard(1, |change| matches!(change, Change::Refused(_))).await;
    eventually(async || keeper.shard_status(ShardId(1)).await.unwrap().phase == Phase::Refused).await;
    keeper.remove_shards([ShardId(1)]).await.unwrap();
    keeper.add_shards([ShardId(1)], []).await.unwrap();
    drop(full);
    until_ready(&keeper, &[1]).await;
    is_served(&keeper).await;
}
