//! A run: carries out the plan, ends all faults, and lets the checkers judge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use shardkeeper::ShardId;
use shardkeeper::actor::{KeeperMessage, QueueMessage, SentinelMessage, ShardMessage};
use shardkeeper::dispatch::Service;
use shardkeeper::error::ExitReason;
use shardkeeper::status::Phase;
use shardkeeper_sim::{Action, Fault, SessionRecord};
use shardkeeper_tests::races::Round;
use shardkeeper_tests::service;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::asking::ask;
use crate::checkers::answers::{AT_ONCE, COLLECTING, ENDING};
use crate::checkers::{bounds, identify, protocol, recovery};
use crate::network::Weather;
use crate::operator::{self, Order};
use crate::pace::Pace;
use crate::plan::{Class, Crash, Plan, Step};
use crate::world::World;

/// The result of a run.
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) complaints: Vec<String>,
    /// How long the run lasted, by the shards' clock.
    pub(crate) lasted: Duration,
    /// The time from the last fault until everything worked again.
    pub(crate) recovered_in: Duration,
    /// The limit of the recovery time.
    pub(crate) bound: Duration,
    /// How many dispatches came twice where that is allowed.
    pub(crate) doubled: u64,
    /// The largest delay of the machine, in runs where it matters.
    pub(crate) late_by: Duration,
    /// Whether the machine was so late that time limits were not judged.
    pub(crate) undecidable: bool,
}

/// Runs a plan on a virtual clock, in a runtime of its own.
pub(crate) fn run(plan: Plan) -> Outcome {
    // The nonces of requests for members begin at a random number, whose length shows in compressed streams.
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(carry_out(plan, Pace::virtual_time()))
}

/// The time limit of a run in real time, after which it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs a plan in real time, on several threads.
pub(crate) fn run_in_real_time(plan: Plan) -> Outcome {
    let round = Round::new(plan.seed);
    round.run_within(PATIENCE, {
        let round = round.clone();
        async move {
            let pace = Pace::real_time(round);
            carry_out(plan.compressed(&pace), pace).await
        }
    })
}

async fn carry_out(plan: Plan, pace: Pace) -> Outcome {
    let tasks_before = bounds::tasks();
    let world = World::new(plan, pace);
    let begin = Instant::now();
    world.trace.note("plan", format_args!("{:?}", summary(&world.plan)));
    world.simulator.start_traffic();
    let (orders, inbox) = mpsc::channel(world.plan.steps.len() + 2);
    tokio::spawn(operator::work(Arc::clone(&world), inbox));
    for (at, step) in world.plan.steps.clone() {
        sleep_until(begin + at).await;
        take(&world, step, &orders).await;
    }
    let last_fault = calm_down(&world);
    // In real time the operator is busy long after the last fault, because the waits for stores are not
    // compressed.
    let operations = world.plan.steps.iter().filter(|(_, step)| matches!(step, Step::Operate(_))).count();
    let operating = world.pace.late_by() * 2 * u32::try_from(operations).unwrap_or(u32::MAX);
    let bound = recovery::bound(&world.plan, &world.pace) + operating;
    let (done, reported) = oneshot::channel();
    let _ = orders.send(Order::Report(done)).await;
    if timeout(bound, reported).await.is_err() {
        world.trace.complain("the operator does not come to an end");
    }
    wait_until_well(&world, last_fault + bound).await;
    let recovered_in = last_fault.elapsed();
    world.trace.note("checkers", "everything is well again");
    (0..world.plan.shards).for_each(|shard| world.simulator.emit(shard, 2));
    // A connection may have been lost unnoticed before the fresh events, so check again after them.
    wait_until_well(&world, last_fault + bound + recovered_in).await;
    let patience = Instant::now() + world.pace.limit(COLLECTING);
    while !world.answers.are_complete() && Instant::now() < patience {
        sleep(world.pace.look_every()).await;
    }
    wait_until_well(&world, Instant::now() + world.pace.limit(Duration::from_secs(300))).await;
    sleep(world.pace.settling()).await;
    let doubled = judge_delivery(&world).await;
    finish(&world, &orders).await;
    let report = world.simulator.report();
    protocol::judge(&world.plan, &world.pace, &report, &world.trace);
    identify::judge(&world.plan, &world.pace, &report, &world.state().logins.beginnings, &world.trace);
    world.log.judge(&world.pace, &world.trace);
    world.trace.mark();
    world.simulator.shutdown();
    drop(orders);
    bounds::nothing_is_left(tasks_before, &world.pace, &world.trace).await;
    Outcome {
        complaints: world.trace.complaints(),
        lasted: world.trace.elapsed(),
        trace: world.trace.take_lines(),
        recovered_in,
        bound,
        doubled,
        late_by: world.pace.latest(),
        undecidable: world.pace.is_undecidable(),
    }
}

fn summary(plan: &Plan) -> Plan {
    Plan { steps: Vec::new(), ..plan.clone() }
}

/// Carries out one step of the plan.
async fn take(world: &Arc<World>, step: Step, orders: &mpsc::Sender<Order>) {
    world.trace.mark();
    world.trace.note("step", format_args!("{step:?}"));
    match step {
        Step::Discord(action) => {
            if let Err(error) = world.simulator.act(&action) {
                world.trace.note("discord", error);
            }
        }
        Step::Outage { weather, lasts, cut } => {
            world.network.set(weather);
            if cut {
                let _ = world.simulator.act(&Action::Fault { shard: None, fault: Fault::Cut });
            }
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(lasts).await;
                world.network.set(Weather::Fine);
                world.trace.note("network", "the outage is over");
            });
        }
        Step::Store { place, mood, lasts } => {
            let store = world.stores[place].clone();
            let number = store.set(mood);
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(lasts).await;
                store.calm_down(number);
                world.trace.note("store", format_args!("the store of place {place} had been {mood:?}"));
            });
        }
        Step::Jump { place, ms } => world.clocks[place].jump(ms),
        Step::Crash(crash) => drill(world, crash).await,
        Step::Operate(operation) => drop(orders.send(Order::Do(operation)).await),
        Step::Ask(what) => drop(tokio::spawn(ask(Arc::clone(world), what))),
    }
}

async fn drill(world: &Arc<World>, crash: Crash) {
    match crash {
        Crash::Driver(shard) => {
            let Some(keeper) = world.keeper_of(shard) else { return };
            if let Ok(actor) = keeper.shard(ShardId(shard)).await {
                world.crashed(shard);
                let _ = actor.cast(ShardMessage::CrashDrill);
            }
        }
        Crash::Actor { shard, kill } => {
            let Some(keeper) = world.keeper_of(shard) else { return };
            if let Ok(actor) = keeper.shard(ShardId(shard)).await {
                world.crashed(shard);
                if kill { actor.kill() } else { actor.stop(None) }
            }
        }
        Crash::Service { process, service: which } => {
            let Some(keeper) = world.keeper(process) else { return };
            let child = match which {
                Service::IdentifyQueue => service::<QueueMessage>(&keeper),
                Service::SessionKeeper => service::<KeeperMessage>(&keeper),
                Service::ReshardSentinel => service::<SentinelMessage>(&keeper),
                other => unreachable!("{other} is in no plan"),
            };
            // The service may be missing, between its end and its replacement.
            child.iter().for_each(ActorCell::kill);
        }
    }
}

/// Ends all faults, and returns when that was.
fn calm_down(world: &World) -> Instant {
    world.trace.mark();
    world.trace.note("plan", "no faults from now on");
    world.simulator.stop_traffic();
    world.network.set(Weather::Fine);
    // A failing store must not affect the recovery, so any mood may remain.
    world.stores.iter().for_each(|store| {
        store.set(world.plan.store.in_the_end);
    });
    let disarmed = world.simulator.act(&Action::Disarm);
    debug_assert!(disarmed.is_ok(), "it concerns no shard");
    if world.plan.class != Class::Gentle {
        // Cut all connections, because those slowed by a fault would stay slow.
        let _ = world.simulator.act(&Action::Fault { shard: None, fault: Fault::Cut });
    }
    world.calm.come();
    Instant::now()
}

async fn wait_until_well(world: &World, deadline: Instant) {
    let begun = Instant::now();
    loop {
        let wrong = what_is_wrong(world).await;
        let Some(wrong) = wrong else { return };
        if Instant::now() >= deadline {
            world.trace.complain(format_args!("not well again in time: {wrong}"));
            return;
        }
        // Check rarely, because a check costs as much as simulating minutes of a shard's life.
        sleep((begun.elapsed() / 20).max(world.pace.look_every())).await;
    }
}

/// Returns what is still missing: every shard has to be ready in its process, and every lossless subscriber
/// has to have all events.
async fn what_is_wrong(world: &World) -> Option<String> {
    for place in world.places() {
        let Some(keeper) = world.keeper(place) else { return Some(format!("no process in place {place}")) };
        let Ok(status) = keeper.status().await else { return Some("a manager has ended".to_owned()) };
        let shards: Vec<u32> = status.shards.iter().map(|shard| shard.shard.0).collect();
        if shards != world.shards_of(place) {
            return Some(format!("{shards:?} in place {place}"));
        }
        if let Some(shard) = status.shards.iter().find(|shard| shard.phase != Phase::Ready) {
            return Some(format!("shard {} is {}", shard.shard, shard.phase));
        }
    }
    let sessions = present_sessions(world).await;
    for shard in 0..world.plan.shards {
        let present = sessions.iter().find(|session| session.shard_id == shard);
        if !present.is_some_and(|present| present.connected && present.alive) {
            return Some(format!("the session of shard {shard} is not connected: {present:?}"));
        }
    }
    let state = world.state();
    let behind = state.ledgers.iter().position(|ledger| !ledger.is_up_to_date(&sessions, &state.excuses));
    behind.map(|number| format!("subscriber {number} has not got everything"))
}

/// The session of each shard at Discord: the newest, unless the shard was torn away in that one. Its store
/// may hold only an earlier one, which is accepted too.
async fn present_sessions(world: &World) -> Vec<SessionRecord> {
    let sessions = world.simulator.sessions();
    let mut held = BTreeSet::new();
    for place in world.places() {
        let Some(keeper) = world.keeper(place) else { continue };
        let known = world.answers.within(AT_ONCE, "sessions", keeper.sessions()).await;
        let known = known.and_then(Result::ok).unwrap_or_default();
        held.extend(known.into_iter().map(|session| session.id));
    }
    let state = world.state();
    let present = |shard: u32| {
        let mut of_shard = sessions.iter().filter(|session| session.shard_id == shard).rev();
        let newest = of_shard.clone().next()?;
        let may_be_forgotten = world.plan.store.is_used && state.excuses.may_be_forgotten(newest);
        of_shard.find(|session| !may_be_forgotten || held.contains(&session.id)).or(Some(newest)).cloned()
    };
    (0..world.plan.shards).filter_map(present).collect()
}

async fn judge_delivery(world: &World) -> u64 {
    let mut sessions = world.simulator.sessions();
    // Discord may not know yet that a shard has given up a session.
    let present: Vec<u64> = present_sessions(world).await.iter().map(|session| session.session).collect();
    for session in &mut sessions {
        session.connected &= present.contains(&session.session);
    }
    let state = world.state();
    state.ledgers.iter().map(|ledger| ledger.judge(&sessions, &state.excuses, &world.trace)).sum()
}

/// Ends the run: by the operator, or by a refusal of Discord.
async fn finish(world: &Arc<World>, orders: &mpsc::Sender<Order>) {
    if let (Class::Fatal(code), Some(keeper)) = (world.plan.class, world.keeper(0)) {
        let last = world.plan.shards - 1;
        let _ = world.simulator.act(&Action::Fault { shard: Some(last), fault: Fault::Close { code } });
        // The number of shards does not affect the whole bot, as long as other shards work.
        if !matches!(code, 4010 | 4011) || world.plan.shards == 1 {
            let ended = world.answers.within(ENDING, "ended", keeper.exit_reason()).await;
            if !matches!(ended, Some(ExitReason::Refused(_))) && world.plan.elsewhere == 0 {
                world.trace.complain(format_args!("{ended:?} after close {code}"));
            }
            return;
        }
        // The shard has no session any more, and is not restarted.
        sleep(world.pace.wait(Duration::from_secs(60)) + world.pace.settling()).await;
        world.state().owners.remove(&last);
    }
    let (done, reported) = oneshot::channel();
    let _ = orders.send(Order::End(done)).await;
    let _ = reported.await;
}
