//! The operator of the bot: moves shards, restarts them and deploys, one action after the other.

use std::sync::Arc;

use shardkeeper::config::RestartBy;
use shardkeeper::{Session, ShardId};
use tokio::sync::{mpsc, oneshot};

use crate::checkers::answers::{AT_ONCE, ENDING};
use crate::plan::Operation;
use crate::process;
use crate::world::World;

pub(crate) enum Order {
    Do(Operation),
    /// Reports when all earlier orders are done.
    Report(oneshot::Sender<()>),
    /// Ends every process.
    End(oneshot::Sender<()>),
}

/// Starts the processes, and then executes the orders.
pub(crate) async fn work(world: Arc<World>, mut orders: mpsc::Receiver<Order>) {
    for place in world.places() {
        process::start(&world, place, Vec::new()).await;
    }
    while let Some(order) = orders.recv().await {
        match order {
            Order::Do(operation) => act(&world, operation).await,
            Order::Report(done) => drop(done.send(())),
            Order::End(done) => {
                end(&world).await;
                let _ = done.send(());
                return;
            }
        }
    }
}

async fn act(world: &Arc<World>, operation: Operation) {
    match operation {
        Operation::Move { shards } => {
            for from in world.places() {
                let mine = world.shards_of(from).into_iter().filter(|shard| shards.contains(shard)).collect();
                move_shards(world, from, mine).await;
            }
        }
        Operation::Restart { shard, by } => {
            let Some(keeper) = world.keeper_of(shard) else { return };
            if by == RestartBy::Identify {
                world.state().logins.begins_again(shard);
            }
            let restarted = world
                .answers
                .within(AT_ONCE, "restart_shard", keeper.restart_shard(ShardId(shard), by))
                .await;
            world.trace.note(format_args!("shard {shard}"), format_args!("restart by {by:?}: {restarted:?}"));
        }
        Operation::Deploy { process } => replace(world, process, Departure::Detach).await,
        Operation::Kill { process, forgets, watched } => {
            replace(world, process, Departure::Kill { forgets, watched }).await;
        }
    }
}

/// Moves shards to the other process. A shard that is in two orders moves there and back.
async fn move_shards(world: &Arc<World>, from: usize, shards: Vec<u32>) {
    let (Some(old), Some(new)) = (world.keeper(from), world.keeper(1 - from)) else { return };
    if shards.is_empty() {
        return;
    }
    let ids = || shards.iter().copied().map(ShardId);
    let begun = tokio::time::Instant::now();
    let removed = world.answers.within(ENDING, "remove_shards", old.remove_shards(ids())).await;
    if begun.elapsed() >= world.pace.shutdown_timeout() {
        world.torn(&shards);
    }
    world.trace.note("operator", format_args!("{shards:?} are removed: {removed:?}"));
    let Some(Ok(sessions)) = removed else { return };
    // Wait until the tasks that record the old process's reports about these shards have finished.
    tokio::time::sleep(world.pace.settling()).await;
    let number_in =
        |place: usize| world.state().processes[place].as_ref().map_or(0, |process| process.number);
    let (old_number, number) = (number_in(from), number_in(1 - from));
    for shard in &shards {
        let mut state = world.state();
        state.given_away.insert((old_number, *shard), tokio::time::Instant::now());
        state.given_away.remove(&(number, *shard));
        state.logins.begin(number, *shard);
        state.excuses.begun(number, *shard);
        let resumes = sessions.iter().any(|session| session.shard.0 == *shard);
        state.logins.expect(number, *shard, resumes);
        if !resumes {
            state.logins.begins_again(*shard);
        }
    }
    let added = world.answers.within(AT_ONCE, "add_shards", new.add_shards(ids(), sessions)).await;
    world.trace.note("operator", format_args!("{shards:?} are added: {added:?}"));
    match added {
        Some(Ok(())) => {
            let mut state = world.state();
            state.owners.extend(shards.iter().map(|shard| (*shard, 1 - from)));
        }
        refused => world.trace.complain(format_args!("{shards:?} were not added: {refused:?}")),
    }
}

/// How a process ends before its successor starts.
enum Departure {
    Detach,
    Kill { forgets: bool, watched: bool },
}

async fn replace(world: &Arc<World>, place: usize, departure: Departure) {
    let shards = world.shards_of(place);
    if shards.is_empty() {
        // A running manager may have no shards, but cannot be started without any.
        return;
    }
    let process = world.state().processes[place].take();
    let Some(process) = process else { return };
    let sessions: Vec<Session> = match departure {
        Departure::Detach => process.detach(world, &shards).await,
        Departure::Kill { forgets, watched } => {
            let mut sessions = process.kill(world, &shards, watched).await;
            if forgets {
                sessions.clear();
                world.stores[place].wipe();
            }
            sessions
        }
    };
    process::start(world, place, sessions).await;
}

async fn end(world: &Arc<World>) {
    for place in world.places() {
        let shards = world.shards_of(place);
        let process = world.state().processes[place].take();
        match process {
            Some(process) if world.plan.detach => {
                let sessions = process.detach(world, &shards).await;
                if sessions.len() != shards.len() {
                    world.trace.complain(format_args!(
                        "{} sessions for {} shards",
                        sessions.len(),
                        shards.len()
                    ));
                }
            }
            Some(process) => process.stop(world, &shards).await,
            None => {}
        }
    }
}
