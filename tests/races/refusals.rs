//! A permanent refusal by Discord is never treated as a crash.

use shardkeeper::error::ExitReason;
use shardkeeper::{Intents, Lifecycle, ShardId, Shardkeeper, Subscription, Topic};
use shardkeeper_sim::{ConnectFault, Fault, Simulator};
use shardkeeper_tests::races::{Round, repeat};

/// A bot whose shards are all ready, and its lifecycle events.
async fn started(round: &Round, simulator: &Simulator) -> (Shardkeeper, Subscription) {
    let builder = round.bot(simulator);
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let keeper = builder.start().await.unwrap();
    loop {
        let event = lifecycle.next().await.unwrap();
        if let Some(Lifecycle::AllReady { .. }) = event.lifecycle() {
            return (keeper, lifecycle);
        }
    }
}

/// Returns everything until the end; none of it may be a crash.
async fn rest(mut lifecycle: Subscription) -> Vec<Lifecycle> {
    let mut heard = Vec::new();
    while let Some(event) = lifecycle.next().await {
        let lifecycle = event.lifecycle().unwrap().clone();
        assert!(!matches!(lifecycle, Lifecycle::Crashed { .. }), "{lifecycle}");
        heard.push(lifecycle);
    }
    heard
}

async fn refused_with(keeper: &Shardkeeper, code: u16) {
    let ended = keeper.exit_reason().await;
    assert!(matches!(ended, ExitReason::Refused(refusal) if refusal.code.0 == code), "{ended:?}");
}

#[test]
fn gw_090_096_forbidden_intents_of_four_shards_at_once_cost_four_identifies_at_most() {
    repeat(150, |round| async move {
        let simulator = round.simulator(4, |config| config.allowed_intents = Intents::GUILDS.bits());
        let builder = round.bot_with(&simulator, Intents::GUILDS | Intents::MESSAGE_CONTENT);
        let lifecycle = builder.subscribe(Topic::lifecycle());
        let keeper = builder.start().await.unwrap();
        refused_with(&keeper, 4014).await;
        let heard = rest(lifecycle).await;
        assert_eq!(heard.iter().filter(|change| matches!(change, Lifecycle::Refused(_))).count(), 1);
        let identifies = simulator.report().identifies;
        assert!(identifies <= 4, "{identifies} identifies: {heard:?}");
        assert_eq!(simulator.report().violations, []);
    });
}

#[test]
fn gw_080_089_090_096_a_running_shard_that_is_refused_ends_the_bot() {
    for code in [4004, 4013, 4014] {
        repeat(50, move |round| async move {
            let simulator = round.simulator(4, |_| {});
            let (keeper, lifecycle) = started(&round, &simulator).await;
            round.stir().await;
            simulator.inject(2, Fault::Close { code }).unwrap();
            refused_with(&keeper, code).await;
            rest(lifecycle).await;
            assert_eq!(simulator.report().identifies, 4, "{code}");
            assert_eq!(simulator.report().violations, []);
        });
    }
}

#[test]
fn gw_086_087_a_refused_layout_is_reported_for_each_shard_and_ends_with_the_last() {
    for code in [4010, 4011] {
        repeat(50, move |round| async move {
            let simulator = round.simulator(2, |_| {});
            let (keeper, mut lifecycle) = started(&round, &simulator).await;
            simulator.inject(1, Fault::Close { code }).unwrap();
            loop {
                let event = lifecycle.next().await.unwrap();
                match event.lifecycle().unwrap() {
                    Lifecycle::LayoutRefused { shard: ShardId(1), .. } => break,
                    crash @ Lifecycle::Crashed { .. } => panic!("{crash}"),
                    _ => {}
                }
            }
            simulator.inject(0, Fault::Close { code }).unwrap();
            refused_with(&keeper, code).await;
            let heard = rest(lifecycle).await;
            let reported =
                |change: &&Lifecycle| matches!(change, Lifecycle::LayoutRefused { shard: ShardId(0), .. });
            assert_eq!(heard.iter().filter(reported).count(), 1, "{heard:?}");
            assert_eq!(simulator.report().identifies, 2);
        });
    }
}

#[test]
fn gw_086_087_a_layout_that_is_refused_at_the_start_costs_one_identify_of_each_shard_at_most() {
    for code in [4010, 4011] {
        repeat(50, move |round| async move {
            let simulator = round.simulator(4, |_| {});
            simulator.arm(ConnectFault::Close { code }, 100);
            let builder = round.bot(&simulator);
            let lifecycle = builder.subscribe(Topic::lifecycle());
            let keeper = builder.start().await.unwrap();
            refused_with(&keeper, code).await;
            rest(lifecycle).await;
            assert!(simulator.report().identifies <= 4, "{}", simulator.report().identifies);
        });
    }
}
