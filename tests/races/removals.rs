//! Shards that are removed and added again, while others are restarted or killed.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use futures_util::FutureExt;
use shardkeeper::error::CommandError;
use shardkeeper::status::Phase;
use shardkeeper::{Lifecycle, OnlineStatus, Presence, ShardId, Topic};
use shardkeeper_tests::races::repeat;

#[test]
fn a_shard_that_is_removed_in_whatever_state_comes_back_by_being_added() {
    repeat(100, |round| async move {
        let simulator = round.simulator(2, |_| {});
        let keeper = round.bot(&simulator).start().await.unwrap();
        let shard = ShardId(1);
        for step in 0..4 {
            round.stir().await;
            if (round.seed + step) % 3 == 0
                && let Ok(actor) = keeper.shard(shard).await
            {
                actor.kill();
            }
            let sessions = keeper.remove_shards([shard]).await.unwrap();
            assert_eq!(keeper.shard_status(shard).await.unwrap_err(), CommandError::NoSuchShard { shard });
            keeper.add_shards([shard], sessions).await.unwrap();
        }
        while keeper.shard_status(shard).await.unwrap().phase != Phase::Ready {
            tokio::task::yield_now().await;
        }
        keeper.stop().await;
        assert_eq!(simulator.report().violations, []);
    });
}

#[test]
fn a_shard_that_leaves_does_not_come_back_by_its_restart() {
    repeat(60, |round| async move {
        let simulator = round.simulator(2, |_| {});
        let builder = round.bot(&simulator);
        let mut lifecycle = builder.subscribe(Topic::lifecycle());
        let keeper = builder.start().await.unwrap();
        // Kill the shard until it has to wait for its restart.
        loop {
            if let Ok(actor) = keeper.shard(ShardId(0)).await {
                actor.kill();
            }
            if let Some(Lifecycle::Crashed { restart_after, .. }) =
                lifecycle.next().await.unwrap().lifecycle()
                && !restart_after.is_zero()
            {
                break;
            }
        }
        keeper.remove_shards([ShardId(0), ShardId(1)]).await.unwrap();
        assert!(keeper.status().await.unwrap().shards.is_empty());
        keeper.stop().await;
    });
}

#[test]
fn a_removal_waits_for_a_driver_that_was_killed_and_still_runs() {
    repeat(20, |round| async move {
        let begun = Instant::now();
        let simulator = round.simulator(1, |_| {});
        // Blocks the driver after it got its permit and before it writes the Identify.
        let ((entered, in_there), (release, held)) = (mpsc::channel(), mpsc::channel::<()>());
        let (entered, held) = (std::sync::Mutex::new(entered), std::sync::Mutex::new(held));
        let left = Arc::new(AtomicBool::new(false));
        let has_left = Arc::clone(&left);
        let builder = round.bot(&simulator).presence_fn(move |_| {
            let _ = entered.lock().unwrap().send(());
            // The other tasks continue meanwhile, even if the runtime has one worker.
            let _ = tokio::task::block_in_place(|| held.lock().unwrap().recv());
            has_left.store(true, Ordering::Release);
            Presence::new(OnlineStatus::Online)
        });
        let keeper = builder.start().await.unwrap();
        let in_there = tokio::task::spawn_blocking(move || in_there.recv());
        in_there.await.unwrap().unwrap();
        let actor = keeper.shard(ShardId(0)).await.unwrap();
        actor.kill();
        let mut removal = pin!(keeper.remove_shards([ShardId(0)]));
        actor.wait(None).await.unwrap();
        // The manager learns of the actor's end before it answers this.
        keeper.status().await.unwrap();
        assert!(
            removal.as_mut().now_or_never().is_none(),
            "remove_shards returned while the driver still runs"
        );
        drop(release);
        removal.await.unwrap();
        let answered_at = begun.elapsed().as_millis();
        assert!(left.load(Ordering::Acquire), "the driver has not ended");
        keeper.stop().await;
        // The simulator may read later what was written before the answer; the log has the time of writing.
        let log = simulator.report().identify_log;
        assert!(
            log.iter().all(|identify| u128::from(identify.at_ms) <= answered_at),
            "the removed driver wrote an Identify after {answered_at} ms: {log:?}"
        );
    });
}
