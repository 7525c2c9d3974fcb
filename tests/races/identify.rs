//! The identify queue, while shards and the queue itself are killed.

use std::time::Duration;

use shardkeeper::actor::QueueMessage;
use shardkeeper::config::{Backoff, RestartPolicy};
use shardkeeper::status::Phase;
use shardkeeper::{ShardId, Shardkeeper};
use shardkeeper_sim::{Fault, Simulator};
use shardkeeper_tests::races::{Round, repeat};
use shardkeeper_tests::service;
use tokio::time::sleep;

const SHARDS: u32 = 4;
/// The time between two Identify, in milliseconds: the window and the margin of [`Round::bot`].
const APART_MS: u64 = 50;
/// A bot whose shards share one key, and its simulator.
struct Storm {
    simulator: Simulator,
    keeper: Shardkeeper,
}

impl Storm {
    async fn begin(round: &Round) -> Self {
        let simulator = round.simulator(SHARDS, |config| {
            config.max_concurrency = 1;
        });
        // A policy that restarts at once, however often something crashes.
        let mut undaunted = RestartPolicy::default();
        (undaunted.quarantine_after, undaunted.fleet_limit) = (1_000_000, 1_000_000);
        undaunted.backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2) };
        let keeper = round.bot(&simulator).restart_policy(undaunted).start().await.unwrap();
        Self { simulator, keeper }
    }

    async fn kill_shard(&self, shard: u32) {
        if let Ok(actor) = self.keeper.shard(ShardId(shard)).await {
            actor.kill();
        }
    }

    fn kill_queue(&self) {
        service::<QueueMessage>(&self.keeper).into_iter().for_each(|queue| queue.kill());
    }

    /// Waits until every shard is ready, and checks that every Identify was counted once and had its window.
    async fn end(self) {
        loop {
            let status = self.keeper.status().await.unwrap();
            let ready = status.shards.iter().all(|shard| shard.phase == Phase::Ready);
            if ready && self.simulator.report().ready_sessions == u64::from(SHARDS) {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let (report, counted) = (self.simulator.report(), self.keeper.status().await.unwrap().identify);
        assert_eq!(counted.sent, report.identifies, "{counted:?}");
        assert_eq!(u64::from(counted.total - counted.remaining), counted.sent, "{counted:?}");
        let mut written: Vec<u64> = report.identify_log.iter().map(|record| record.at_ms).collect();
        written.sort_unstable();
        let apart: Vec<u64> = written.windows(2).map(|two| two[1] - two[0]).collect();
        // The log's times are truncated to whole milliseconds.
        assert!(apart.iter().all(|apart| apart + 1 >= APART_MS), "{apart:?}");
        // GW-085, GW-140: a session that has ended is not resumed. A shard that is killed before it reads the
        // end of its session, a close code or op 9, cannot know.
        let unheard = ["GW-085", "GW-140"];
        let broken: Vec<_> =
            report.violations.iter().filter(|violation| !unheard.contains(&violation.rule)).collect();
        assert!(broken.is_empty(), "{broken:?}");
        self.keeper.stop().await;
    }
}

#[test]
fn a_storm_that_kills_shards_closes_no_key_and_miscounts_no_identify() {
    repeat(20, |round| async move {
        let storm = Storm::begin(&round).await;
        let mut random = round.rng();
        for _ in 0..15 {
            let shard = random.u32(0..SHARDS);
            // The session ends, so that the shard has to identify.
            let _ = storm.simulator.inject(shard, Fault::Close { code: 4009 });
            sleep(Duration::from_micros(random.u64(0..10_000))).await;
            storm.kill_shard(shard).await;
            round.stir().await;
            if random.bool() {
                storm.kill_shard(shard).await;
            }
        }
        storm.end().await;
    });
}

#[test]
fn a_storm_that_kills_the_queue_too_miscounts_no_identify() {
    repeat(20, |round| async move {
        let storm = Storm::begin(&round).await;
        let mut random = round.rng();
        for _ in 0..15 {
            let shard = random.u32(0..SHARDS);
            let _ = storm.simulator.inject(shard, Fault::Close { code: 4009 });
            sleep(Duration::from_micros(random.u64(0..10_000))).await;
            match random.u8(0..3) {
                0 => storm.kill_shard(shard).await,
                _ => storm.kill_queue(),
            }
        }
        storm.end().await;
    });
}
