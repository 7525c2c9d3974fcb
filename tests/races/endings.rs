//! Stop and detach, while other tasks call the bot.

use shardkeeper::command::Command;
use shardkeeper::error::ExitReason;
use shardkeeper::status::Phase;
use shardkeeper::{OnlineStatus, Presence, ShardId, Shardkeeper};
use shardkeeper_sim::Simulator;
use shardkeeper_tests::races::{Round, repeat};

/// A bot whose shards are all ready.
async fn started(round: &Round, simulator: &Simulator) -> Shardkeeper {
    let keeper = round.bot(simulator).start().await.unwrap();
    all_ready(&keeper).await;
    keeper
}

async fn all_ready(keeper: &Shardkeeper) {
    while !keeper.status().await.unwrap().shards.iter().all(|shard| shard.phase == Phase::Ready) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_stop_at_any_moment_of_a_start_is_answered() {
    repeat(100, |round| async move {
        let simulator = round.simulator(4, |_| {});
        let keeper = round.bot(&simulator).start().await.unwrap();
        round.stir().await;
        keeper.stop().await;
        assert_eq!(keeper.exit_reason().await, ExitReason::Stopped);
        assert_eq!(simulator.report().violations, []);
    });
}

/// Repeats each kind of call in a loop of its own, until the call returns that the manager has ended.
fn callers(keeper: &Shardkeeper) -> Vec<tokio::task::JoinHandle<()>> {
    let one = keeper.clone();
    let status = tokio::spawn(async move { while one.status().await.is_ok() {} });
    let one = keeper.clone();
    let status_of_shard = tokio::spawn(async move { while one.shard_status(ShardId(0)).await.is_ok() {} });
    let one = keeper.clone();
    let owner = tokio::spawn(async move { while one.owner_of(0).await.is_ok() {} });
    let one = keeper.clone();
    let presence = tokio::spawn(async move {
        while one.update_presence(Presence::new(OnlineStatus::Online)).await.is_ok() {}
    });
    let one = keeper.clone();
    let command = tokio::spawn(async move {
        // Calls may also fail for other reasons, and the shard may end before the manager does.
        while one.owner_of(0).await.is_ok() {
            drop(one.command(Command::channel_info(0, &[])).await);
        }
    });
    vec![status, status_of_shard, owner, presence, command]
}

#[test]
fn calls_that_cross_the_end_of_the_manager_are_answered() {
    repeat(400, |round| async move {
        let simulator = round.simulator(1, |_| {});
        let keeper = started(&round, &simulator).await;
        let callers = callers(&keeper);
        round.stir().await;
        match round.seed % 3 {
            0 => keeper.stop().await,
            1 => drop(keeper.detach().await),
            _ => keeper.manager().kill(),
        }
        for caller in callers {
            caller.await.unwrap();
        }
        keeper.exit_reason().await;
    });
}

#[test]
fn every_stop_and_detach_of_several_is_answered() {
    repeat(100, |round| async move {
        let simulator = round.simulator(2, |_| {});
        let keeper = started(&round, &simulator).await;
        let mut ends = Vec::new();
        for number in 0..4 {
            let (keeper, round) = (keeper.clone(), round.clone());
            ends.push(tokio::spawn(async move {
                round.stir().await;
                if number % 2 == 0 { keeper.stop().await } else { drop(keeper.detach().await) }
            }));
        }
        for end in ends {
            end.await.unwrap();
        }
        assert!(matches!(keeper.exit_reason().await, ExitReason::Stopped | ExitReason::Detached));
        assert_eq!(simulator.report().violations, []);
    });
}

#[test]
fn a_detach_under_traffic_hands_every_session_over_and_a_successor_resumes_them() {
    repeat(60, |round| async move {
        let simulator = round.simulator(4, |_| {});
        let builder = round.bot(&simulator);
        let mut events = builder.subscribe(shardkeeper::Topic::all());
        let keeper = builder.start().await.unwrap();
        let read = {
            let simulator = simulator.clone();
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    if let Some(dispatch) = event.dispatch() {
                        simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data());
                    }
                }
            })
        };
        all_ready(&keeper).await;
        (0..4).for_each(|shard| simulator.emit(shard, 50));
        round.stir().await;
        let sessions = keeper.detach().await.unwrap();
        read.await.unwrap();
        assert_eq!(sessions.len(), 4);
        let successor = round.bot(&simulator).sessions(sessions).start().await.unwrap();
        simulator.wait_until(|report| report.resumes == 4).await;
        assert_eq!(simulator.report().identifies, 4);
        successor.stop().await;
        assert_eq!(simulator.report().violations, []);
    });
}
