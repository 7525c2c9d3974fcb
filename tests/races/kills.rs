//! Actors that are killed at any moment: their unfinished work does no harm.

use std::time::Duration;

use futures_util::FutureExt;
use shardkeeper::config::{RestartBy, RestartPolicy};
use shardkeeper::status::Phase;
use shardkeeper::{
    Event, EventName, Lifecycle, ShardId, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_sim::Fault;
use shardkeeper_tests::races::{Round, repeat};
use tokio::time::sleep;

/// Restarts at once five times, and then after a minute, which is longer than a round lasts.
fn quarantined_early() -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    policy.quarantine_after = 2;
    policy.quarantine = Duration::from_secs(60);
    policy.backoff.base = Duration::from_millis(1);
    policy
}

/// Kills shard 0 twice, at any moment on the way to READY or soon after, and waits until the manager reports
/// each crash.
async fn crash_twice(round: &Round, keeper: &Shardkeeper, lifecycle: &mut Subscription) {
    let mut crashes = 0;
    while crashes < 2 {
        round.stir().await;
        let Ok(actor) = keeper.shard(ShardId(0)).await else { continue };
        actor.kill();
        while !matches!(lifecycle.next().await.unwrap().lifecycle(), Some(Lifecycle::Crashed { .. })) {}
        crashes += 1;
    }
}

#[test]
fn a_shard_in_quarantine_never_shows_as_ready() {
    repeat(150, |round| async move {
        let simulator = round.simulator(2, |_| {});
        let builder = round.bot(&simulator).restart_policy(quarantined_early());
        let mut lifecycle = builder.subscribe(Topic::lifecycle());
        let keeper = builder.start().await.unwrap();
        crash_twice(&round, &keeper, &mut lifecycle).await;
        for _ in 0..20 {
            let status = keeper.shard_status(ShardId(0)).await.unwrap();
            assert_eq!(status.phase, Phase::Quarantined, "{status:?}");
            round.stir().await;
        }
        keeper.stop().await;
        assert_eq!(simulator.report().violations, []);
    });
}

#[test]
fn after_a_storm_of_kills_every_shard_comes_back() {
    repeat(100, |round| async move {
        let simulator = round.simulator(4, |_| {});
        let mut policy = RestartPolicy::default();
        (policy.quarantine_after, policy.fleet_limit) = (100, 1000);
        policy.backoff.base = Duration::from_millis(1);
        policy.backoff.cap = Duration::from_millis(5);
        let keeper = round.bot(&simulator).restart_policy(policy).start().await.unwrap();
        let mut random = round.rng();
        for _ in 0..12 {
            round.stir().await;
            if let Ok(actor) = keeper.shard(ShardId(random.u32(0..4))).await {
                actor.kill();
            }
        }
        loop {
            let status = keeper.status().await.unwrap();
            if status.shards.iter().all(|shard| shard.phase == Phase::Ready) {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        simulator.wait_until(|report| report.ready_sessions == 4).await;
        keeper.stop().await;
    });
}

#[test]
fn ready_in_the_spill_of_a_shard_that_is_killed_and_removed_is_reported_as_missed() {
    repeat(100, |round| async move {
        let simulator = round.simulator(1, |_| {});
        let builder = round.bot(&simulator).shutdown_timeout(Duration::from_millis(50));
        let options = SubscriptionOptions { capacity: 1, ..SubscriptionOptions::default() };
        let mut slow = builder.subscribe_with(Topic::events([EventName::Ready]), options);
        let keeper = builder.start().await.unwrap();
        // READY of the first session fills the subscription; READY of the second waits in the spill.
        for session in 1..=2 {
            while keeper.shard_status(ShardId(0)).await.unwrap().session < session {
                tokio::task::yield_now().await;
            }
            if session == 1 {
                simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
            }
        }
        if let Ok(actor) = keeper.shard(ShardId(0)).await {
            actor.kill();
        }
        keeper.remove_shards([ShardId(0)]).await.unwrap();
        let first = slow.next().await.unwrap();
        if matches!(*first, Event::Lagged { missed: 1 }) {
            return;
        }
        drop(first);
        // `Lagged` comes before the next event, and wakes no task.
        let second = loop {
            match slow.next().now_or_never() {
                Some(second) => break second.unwrap(),
                None => round.stir().await,
            }
        };
        assert!(matches!(*second, Event::Dispatch(_) | Event::Lagged { missed: 1 }), "{second:?}");
        keeper.stop().await;
    });
}

#[test]
fn an_identify_that_was_asked_for_is_not_undone_by_a_driver_that_was_killed() {
    repeat(100, |round| async move {
        let simulator = round.simulator(1, |_| {});
        let builder = round.bot(&simulator).restart_policy(quarantined_early());
        let mut lifecycle = builder.subscribe(Topic::lifecycle());
        let keeper = builder.start().await.unwrap();
        crash_twice(&round, &keeper, &mut lifecycle).await;
        // The simulator may count events of the killed driver, and count them late.
        let before = session_ids(&keeper).await;
        keeper.restart_shard(ShardId(0), RestartBy::Identify).await.unwrap();
        while keeper.shard_status(ShardId(0)).await.unwrap().phase != Phase::Ready {
            sleep(Duration::from_millis(1)).await;
        }
        let after = session_ids(&keeper).await;
        assert!(after.len() == 1 && !before.contains(&after[0]), "the shard has a new session");
        keeper.stop().await;
    });
}

async fn session_ids(keeper: &Shardkeeper) -> Vec<String> {
    keeper.sessions().await.unwrap().into_iter().map(|session| session.id).collect()
}
