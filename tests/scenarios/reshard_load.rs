//! A reshard under load loses no event, delivers none twice, and keeps the order within each guild.

use std::collections::BTreeSet;
use std::time::Duration;

use shardkeeper::Lifecycle;
use shardkeeper::config::{ReshardRequest, ShardCount};
use shardkeeper::status::Phase;
use shardkeeper_tests::{Moving, bot, busy, simulator};
use tokio::time::{Instant, sleep};

fn to(count: u32) -> ReshardRequest {
    ReshardRequest::to(ShardCount::new(count).unwrap())
}

#[expect(clippy::print_stdout, reason = "with --nocapture it gives the figures")]
async fn moves_under_load(old: u32, new: u32) {
    let simulator = simulator(old, busy);
    let mut moving = Moving::start(&simulator, bot(&simulator).shards(old)).await;
    sleep(Duration::from_secs(1)).await;
    let generation = moving.keeper.status().await.unwrap().shards[0].generation;
    let (began, before) = (Instant::now(), moving.tally());
    let request = if old == new { ReshardRequest::same() } else { to(new) };
    let plan = moving.keeper.reshard(request).await.unwrap();
    assert_eq!(plan.forecast.identifies, new);
    moving.until(|lifecycle| matches!(lifecycle, Lifecycle::ReshardFinished { .. })).await;
    let (took, during) = (began.elapsed(), moving.tally().dispatches - before.dispatches);
    sleep(Duration::from_secs(1)).await;
    // GW-118: the old shards show with a heartbeat before its time that they have read everything.
    let tally = moving.check_except(&["GW-118"]).await;
    let report = simulator.report();
    println!(
        "{old} → {new}: {took:.1?}, {during} events meanwhile, {} guessed, {} Identifies",
        tally.guessed,
        report.identifies - u64::from(old)
    );
    assert_eq!(report.identifies, u64::from(old + new));
    assert_eq!((tally.replayed, tally.warming), (0, 0), "{tally:?}");
    assert_eq!(tally.creates, before.creates, "no guild is taken for a new one");
    let status = moving.keeper.status().await.unwrap();
    assert!(status.reshard.is_none());
    let shards: BTreeSet<_> = status.shards.iter().map(|shard| shard.shard.0).collect();
    assert_eq!(shards, (0..new).collect());
    assert!(status.shards.iter().all(|shard| shard.phase == Phase::Ready && shard.generation > generation));
    let alive: Vec<_> = simulator.sessions().into_iter().filter(|session| session.alive).collect();
    assert!(alive.len() == new as usize && alive.iter().all(|session| session.shard_count == new));
    let verdict = simulator.world_delivery();
    assert_eq!((verdict.doubled, verdict.excused), (0, 0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn four_to_eight() {
    moves_under_load(4, 8).await;
}

#[tokio::test(start_paused = true)]
async fn eight_to_four() {
    moves_under_load(8, 4).await;
}

#[tokio::test(start_paused = true)]
async fn four_to_six() {
    moves_under_load(4, 6).await;
}

#[tokio::test(start_paused = true)]
async fn six_to_six() {
    moves_under_load(6, 6).await;
}

#[tokio::test(start_paused = true)]
async fn five_to_seven() {
    moves_under_load(5, 7).await;
}
