//! Chaos in real time: disturbances that keep the session hit every shard repeatedly, while all internal
//! actors are killed.
//!
//! `tests/chaos` does far more, on one thread with a virtual clock. The checks here need no clock: no event
//! is lost, repeated events are marked as such, no session is given up, no rule is broken, and the bot's
//! counters equal Discord's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shardkeeper::actor::{KeeperMessage, QueueMessage, SentinelMessage, ShardMessage};
use shardkeeper::config::{Backoff, RestartBy, RestartPolicy};
use shardkeeper::status::Phase;
use shardkeeper::store::MemoryStore;
use shardkeeper::{Event, EventName, ShardId, Shardkeeper, Subscription, Topic};
use shardkeeper_sim::{Fault, Simulator};
use shardkeeper_tests::races::{Round, repeat};
use shardkeeper_tests::service;
use tokio::time::sleep;

const SHARDS: u32 = 4;
const WAVES: u32 = 6;

/// Reads everything, and reports each event to the simulator when it arrives for the first time.
async fn read(simulator: Simulator, mut events: Subscription) {
    let mut seen = BTreeSet::new();
    while let Some(delivery) = events.next().await {
        let Event::Dispatch(dispatch) = &*delivery else { continue };
        if dispatch.event_name() == Some(EventName::Resumed) {
            continue;
        }
        // Every event has a unique trace in its data.
        if seen.insert((dispatch.shard().0, dispatch.data().to_vec())) {
            simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data());
        } else {
            assert!(dispatch.is_replayed(), "{dispatch:?} came again without being marked as replayed");
        }
    }
}

/// Applies a disturbance that the session survives.
async fn strike(simulator: &Simulator, keeper: &Shardkeeper, shard: u32, random: &mut fastrand::Rng) {
    let (id, inject) = (ShardId(shard), |fault| drop(simulator.inject(shard, fault)));
    match random.u8(0..9) {
        0 => inject(Fault::Cut),
        1 => inject(Fault::Reconnect),
        2 => inject(Fault::Close { code: 4000 }),
        3 => drop(keeper.restart_shard(id, RestartBy::Resume).await),
        4 => {
            let sessions = keeper.remove_shards([id]).await.unwrap();
            assert_eq!(sessions.len(), 1, "the session moves with the shard");
            keeper.add_shards([id], sessions).await.unwrap();
        }
        kind => {
            let Ok(actor) = keeper.shard(id).await else { return };
            match kind {
                5 | 6 => actor.kill(),
                7 => actor.stop(None),
                _ => drop(actor.cast(ShardMessage::CrashDrill)),
            }
        }
    }
}

fn kill_a_servant(keeper: &Shardkeeper, random: &mut fastrand::Rng) {
    let victim = match random.u8(0..4) {
        0 => service::<QueueMessage>(keeper),
        1 => service::<KeeperMessage>(keeper),
        2 => service::<SentinelMessage>(keeper),
        _ => None,
    };
    victim.into_iter().for_each(|victim| victim.kill());
}

async fn well(simulator: &Simulator, keeper: &Shardkeeper) {
    loop {
        let status = keeper.status().await.unwrap();
        let ready = status.shards.iter().filter(|shard| shard.phase == Phase::Ready).count();
        if ready == SHARDS as usize && simulator.report().ready_sessions == u64::from(SHARDS) {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn storm(round: Round) {
    let simulator = round.simulator(SHARDS, |config| config.identify_total = 1000);
    let mut undaunted = RestartPolicy::default();
    (undaunted.quarantine_after, undaunted.fleet_limit) = (1_000_000, 1_000_000);
    undaunted.backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2) };
    let builder = round.bot(&simulator).restart_policy(undaunted);
    let builder = builder.session_store(Arc::new(MemoryStore::default()));
    let events = builder.subscribe(Topic::all());
    let keeper = builder.start().await.unwrap();
    let reading = tokio::spawn(read(simulator.clone(), events));
    let mut random = round.rng();
    for _ in 0..WAVES {
        // A session whose connection is lost three times before it has resumed is given up, so wait first.
        well(&simulator, &keeper).await;
        let mut shards: Vec<u32> = (0..SHARDS).collect();
        random.shuffle(&mut shards);
        for shard in shards {
            simulator.emit(shard, random.usize(0..20));
            round.stir().await;
            strike(&simulator, &keeper, shard, &mut random).await;
            kill_a_servant(&keeper, &mut random);
        }
    }
    well(&simulator, &keeper).await;
    (0..SHARDS).for_each(|shard| simulator.emit(shard, 2));
    while simulator.delivery().delivered < simulator.delivery().sent {
        sleep(Duration::from_millis(1)).await;
    }
    let (report, delivery) = (simulator.report(), simulator.delivery());
    assert_eq!((delivery.lost, delivery.duplicated, delivery.out_of_order), (0, 0, 0), "{delivery:?}");
    assert_eq!(report.violations, []);
    let counted = keeper.status().await.unwrap().identify;
    assert_eq!((report.identifies, counted.sent), (u64::from(SHARDS), u64::from(SHARDS)));
    assert_eq!(keeper.detach().await.unwrap().len(), SHARDS as usize);
    reading.await.unwrap();
}

#[test]
fn whatever_keeps_a_session_costs_no_event_and_no_identify() {
    repeat(25, storm);
}
