//! Reshards in real time on several threads, while actors, services and the whole process are killed.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorRef};
use shardkeeper::actor::{KeeperMessage, QueueMessage, SentinelMessage, ShardMessage};
use shardkeeper::config::{Backoff, ReshardRequest, RestartPolicy, ShardCount};
use shardkeeper::store::MemoryStore;
use shardkeeper::{Builder, Lifecycle};
use shardkeeper_sim::{Fault, SessionFilter, Simulator, Traces};
use shardkeeper_tests::races::{Round, repeat_in_lanes};
use shardkeeper_tests::{Moving, calm, service};
use tokio::time::{Instant, sleep, timeout};

/// What takes longer than this hangs, and the state is shown.
const LONGEST: Duration = Duration::from_secs(20);
/// Rounds at the same time: a group takes seconds, in which hardly anything happens.
const LANES: usize = 6;

fn builder(round: &Round, simulator: &Simulator, store: &Arc<MemoryStore>, count: u32) -> Builder {
    let mut undaunted = RestartPolicy::default();
    (undaunted.quarantine_after, undaunted.fleet_limit) = (1_000_000, 1_000_000);
    undaunted.backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2) };
    let store: Arc<MemoryStore> = Arc::clone(store);
    round.bot(simulator).shards(count).restart_policy(undaunted).session_store(store)
}

fn world(round: &Round, old: u32) -> Simulator {
    round.simulator(old, |config| {
        calm(config);
        // What a kill has replayed could not be told from the next event with the same text.
        config.traces = Traces::World { repeating: Vec::new() };
        config.events_per_second = 500.0;
        config.max_concurrency = [1, 2, 16][usize::try_from(round.seed % 3).unwrap()];
    })
}

async fn reshard(moving: &Moving, count: u32) {
    let count = ShardCount::new(count).unwrap();
    moving.keeper.reshard(ReshardRequest::to(count)).await.unwrap();
}

async fn finished(moving: &mut Moving) {
    let finished = moving.until(|lifecycle| matches!(lifecycle, Lifecycle::ReshardFinished { .. }));
    let in_time = timeout(LONGEST, finished).await.is_ok();
    assert!(in_time, "{:#?}", moving.keeper.status().await);
}

/// Kills one child of the manager, or breaks a connection.
fn strike(moving: &Moving, random: &mut fastrand::Rng) {
    let keeper = &moving.keeper;
    let children = keeper.manager().get_cell().get_children();
    let is_shard = |child: &ActorCell| child.is_message_type_of::<ShardMessage>() == Some(true);
    let shards: Vec<ActorCell> = children.into_iter().filter(is_shard).collect();
    let shard = shards.get(random.usize(..shards.len().max(1)));
    let kill = |cell: Option<ActorCell>| cell.iter().for_each(ActorCell::kill);
    match random.u8(0..8) {
        0 | 1 => kill(shard.cloned()),
        2 => {
            if let Some(shard) = shard {
                let _ = ActorRef::<ShardMessage>::from(shard.clone()).cast(ShardMessage::CrashDrill);
            }
        }
        3 => kill(service::<QueueMessage>(keeper)),
        4 => kill(service::<KeeperMessage>(keeper)),
        5 => kill(service::<SentinelMessage>(keeper)),
        _ => {
            let alive = moving.simulator.sessions();
            let alive: Vec<_> = alive.iter().filter(|session| session.connected).collect();
            if let Some(session) = alive.get(random.usize(..alive.len().max(1))) {
                let fault = [Fault::Cut, Fault::Reconnect, Fault::Close { code: 4000 }][random.usize(..3)];
                let _ = moving.simulator.inject_in(SessionFilter::of_session(session.session), fault);
            }
        }
    }
}

async fn judge(moving: Moving, new: u32) {
    let (verdict, tally) = (moving.verdict().await, moving.tally());
    assert!(verdict.is_flawless() && tally.missed == 0, "{tally:?} {verdict:#?}");
    let report = moving.simulator.report();
    assert_eq!(report.violations, []);
    let sessions = moving.simulator.sessions().into_iter();
    let counts: Vec<u32> =
        sessions.filter(|session| session.connected).map(|session| session.shard_count).collect();
    assert_eq!(counts, vec![new; new as usize]);
    moving.keeper.stop().await;
}

async fn stormy(round: Round, old: u32, new: u32) {
    let (simulator, store) = (world(&round, old), Arc::default());
    let mut moving = Moving::start(&simulator, builder(&round, &simulator, &store, old)).await;
    reshard(&moving, new).await;
    let mut random = round.rng();
    for _ in 0..random.u8(1..16) {
        sleep(Duration::from_millis(random.u64(100..500))).await;
        round.stir().await;
        strike(&moving, &mut random);
    }
    finished(&mut moving).await;
    // The last strike may have been just now.
    let is_well = async || {
        let status = moving.keeper.status().await.unwrap();
        status.shards.iter().all(|shard| shard.phase == shardkeeper::status::Phase::Ready)
    };
    while !is_well().await {
        sleep(Duration::from_millis(5)).await;
    }
    judge(moving, new).await;
}

#[test]
fn whatever_dies_during_a_split_costs_no_event() {
    repeat_in_lanes(LANES as u64, LANES, |round| stormy(round, 4, 8));
}

#[test]
fn whatever_dies_during_a_regrouping_costs_no_event() {
    repeat_in_lanes(2 * LANES as u64, LANES, |round| stormy(round, 4, 6));
}

#[test]
fn a_process_that_is_killed_at_any_moment_of_a_reshard_costs_no_event() {
    repeat_in_lanes(2 * LANES as u64, LANES, |round| async move {
        let (old, new) = [(2, 4), (4, 6), (4, 2), (2, 3)][usize::try_from(round.seed % 4).unwrap()];
        let (simulator, store) = (world(&round, old), Arc::default());
        let mut moving = Moving::start(&simulator, builder(&round, &simulator, &store, old)).await;
        // The store is at most this far behind.
        sleep(Duration::from_millis(500)).await;
        reshard(&moving, new).await;
        let mut random = round.rng();
        for _ in 0..random.u8(1..4) {
            sleep(Duration::from_millis(random.u64(0..2500))).await;
            round.stir().await;
            moving.kill().await;
            moving = Moving::begin(&simulator, builder(&round, &simulator, &store, new), 1 << 16).await;
        }
        let is_over = async || {
            let status = moving.keeper.status().await.unwrap();
            status.reshard.is_none()
                && status.shards.len() == new as usize
                && status
                    .shards
                    .iter()
                    .all(|shard| shard.generation > 0 && shard.phase == shardkeeper::status::Phase::Ready)
        };
        let begun = Instant::now();
        while !is_over().await {
            sleep(Duration::from_millis(20)).await;
            let status = async || moving.keeper.status().await.unwrap();
            assert!(begun.elapsed() < LONGEST, "{old} → {new}: {:#?}", status().await);
        }
        judge(moving, new).await;
    });
}
