//! Internal crashes: drivers, actors and the identify queue restart, and sessions survive.
use ractor::Actor;
use shardkeeper::actor::{QueueMessage, ShardMessage};
use shardkeeper::status::{Change, Phase};
use shardkeeper::{Event, Lifecycle, ShardId, SubscriptionOptions, Topic};
use shardkeeper_sim::Fault;
use shardkeeper_tests::{Running, eventually, in_both_worlds, no_violations_except, service, simulator};

#[test]
fn a_panic_in_a_driver_costs_a_resume_and_nothing_else() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(2, |_| {})).await;
        running.simulator.start_traffic();
        running.simulator.emit(0, 100);
        running.keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
        let crash = running.until(|lifecycle| matches!(lifecycle, Lifecycle::Crashed { .. })).await;
        assert_eq!(crash.to_string(), "shard 0: crashed (driver panicked: crash drill), back at once");
        running.until_resumed(0).await;
        running.check().await;
        let report = running.simulator.report();
        assert_eq!((report.identifies, report.resumes), (2, 1));
        let status = running.keeper.status().await.unwrap();
        assert_eq!((status.shards[0].restarts, status.shards[0].phase), (1, Phase::Ready));
    });
}

#[test]
fn what_waits_for_a_full_subscription_and_is_not_replayed_outlives_a_crash() {
    in_both_worlds(|| async {
        let simulator = simulator(1, |_| {});
        let builder = shardkeeper_tests::bot(&simulator);
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let mut slow = builder.subscribe_with(Topic::all().with_lifecycle(), options);
        let keeper = builder.start().await.unwrap();
        simulator.wait_until(|report| report.ready_sessions == 1).await;
        let ready = async || keeper.status().await.unwrap().shards[0].phase == Phase::Ready;
        while !ready().await {
            tokio::task::yield_now().await;
        }
        keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "RESUMED") {
            match &*slow.next().await.unwrap() {
                Event::Dispatch(dispatch) => heard.push(dispatch.name().to_owned()),
                Event::Lifecycle(Lifecycle::Shard { change: Change::Ready, .. }) => {
                    heard.push("ready".to_owned())
                }
                _ => {}
            }
        }
        assert_eq!(heard[..2], ["ready", "READY"]);
        assert_eq!(heard.iter().filter(|event| *event == "READY").count(), 1);
    });
}

#[test]
fn an_actor_that_is_killed_or_stopped_from_outside_comes_back() {
    in_both_worlds(|| async {
        for kill in [true, false] {
            let mut running = Running::start(simulator(2, |_| {})).await;
            let actor = running.keeper.shard(ShardId(1)).await.unwrap();
            if kill {
                actor.kill();
            } else {
                actor.stop(None);
            }
            running.until_resumed(1).await;
            running.simulator.emit(1, 10);
            running.check().await;
            assert_eq!(running.simulator.report().identifies, 2, "kill: {kill}");
            assert_ne!(running.keeper.shard(ShardId(1)).await.unwrap().get_id(), actor.get_id());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_crashes_over_and_over_is_quarantined_and_the_others_live() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    for crash in 1..=5 {
        running.keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
        let lifecycle = running.until(|lifecycle| matches!(lifecycle, Lifecycle::Crashed { .. })).await;
        let Lifecycle::Crashed { quarantined, .. } = lifecycle else { unreachable!() };
        assert_eq!(quarantined, crash == 5);
        if !quarantined {
            running.until_resumed(0).await;
        }
    }
    let status = running.keeper.status().await.unwrap();
    assert_eq!((status.shards[0].phase, status.shards[1].phase), (Phase::Quarantined, Phase::Ready));
    // The shard retries although its session has become too old.
    running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
}

#[test]
fn a_queue_that_is_killed_is_replaced_and_the_waiting_shards_ask_again() {
    in_both_worlds(|| async {
        let simulator = simulator(8, |config| config.max_concurrency = 1);
        let builder = shardkeeper_tests::bot(&simulator);
        let events = builder.subscribe(shardkeeper::Topic::all().with_lifecycle());
        let keeper = builder.start().await.unwrap();
        let mut running = Running { simulator, keeper, events };
        running.until_shard(2, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
        service::<QueueMessage>(&running.keeper).unwrap().kill();
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::AllReady { .. })).await;
        assert_eq!(running.simulator.report().identifies, 8);
        running.check().await;
    });
}

#[test]
fn crashes_at_every_moment_of_a_start_break_no_rule() {
    in_both_worlds(|| async {
        // Each round crashes a shard at another step on its way to READY.
        for steps in 1..6 {
            let simulator = simulator(4, |config| config.max_concurrency = 1);
            let builder = shardkeeper_tests::bot(&simulator);
            let events = builder.subscribe(shardkeeper::Topic::all().with_lifecycle());
            let keeper = builder.start().await.unwrap();
            let mut running = Running { simulator, keeper, events };
            let mut seen = 0;
            running
                .until_shard(1, |_| {
                    seen += 1;
                    seen == steps
                })
                .await;
            running.keeper.shard(ShardId(1)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
            // GW-173: a crashed shard returns its permit; otherwise the others would wait forever.
            running.until(|lifecycle| matches!(lifecycle, Lifecycle::AllReady { .. })).await;
            // GW-171: shards identify in the order of their ids, except that a crashed shard lets the next
            // one go first.
            no_violations_except(&running.simulator, &["GW-171"]);
            assert!(running.simulator.report().identifies <= 5, "at most the one that was lost");
        }
    });
}

#[test]
fn the_manager_is_an_actor_like_any_other() {
    in_both_worlds(|| async {
        let simulator = simulator(1, |_| {});
        let config = shardkeeper_tests::bot(&simulator).build().unwrap();
        let (manager, task) = Actor::spawn(None, shardkeeper::actor::ShardManager, config).await.unwrap();
        simulator.wait_until(|report| report.ready_sessions == 1).await;
        manager.stop(None);
        task.await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_dies_again_and_again_is_replaced_with_growing_waits() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut waits = Vec::new();
    for _ in 0..6 {
        eventually(async || service::<QueueMessage>(&running.keeper).is_some()).await;
        service::<QueueMessage>(&running.keeper).unwrap().kill();
        let crashed = running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
        if let Lifecycle::ServiceCrashed { restart_after, .. } = crashed {
            waits.push(restart_after);
        }
    }
    assert!(waits[0].is_zero() && waits.is_sorted(), "{waits:?}");
    assert!(waits[5].as_secs() >= 300, "{waits:?}");
    // The shard works again in the end.
    running.simulator.inject(0, Fault::InvalidSession { resumable: false }).unwrap();
    running.until_shard(0, |change| matches!(change, Change::Ready)).await;
    running.check().await;
}
