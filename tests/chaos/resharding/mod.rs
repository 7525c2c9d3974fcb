//! Chaos while the bot's layout changes: both layouts have sessions, and each event is judged over all of
//! them.

mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join;
use ractor::{ActorCell, ActorRef};
use shardkeeper::actor::{KeeperMessage, QueueMessage, SentinelMessage, ShardMessage};
use shardkeeper::command::{RequestMembers, VoiceStateUpdate};
use shardkeeper::config::{ReshardPolicy, ReshardRequest, ShardCount, VoicePolicy};
use shardkeeper::dispatch::Service;
use shardkeeper::status::{ManagerStatus, Phase};
use shardkeeper::{
    Event, Intents, Lifecycle, OnlineStatus, Presence, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_sim::{Action, Fault, SimConfig, Simulator};
use shardkeeper_tests::races::Round;
use shardkeeper_tests::{Moving, service};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::plan::Plan;
use self::plan::Step;
use crate::asking::guild_id;
use crate::checkers::answers::{AT_ONCE, Answers, COLLECTING, ENDING, SENDING};
use crate::checkers::storing::Log;
use crate::checkers::{bounds, protocol};
use crate::clock::WallClock;
use crate::network::{Network, Weather};
use crate::pace::Pace;
use crate::run::Outcome;
use crate::store::{Mood, Store};
use crate::trace::Trace;

/// The time limit of a run in real time, after which it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(240);
/// The time from the last fault until the reshard is complete, if the operator insists: every wait of the
/// library is shorter, except that for the identify budget, which suffices here.
const RECOVERY: Duration = Duration::from_secs(3600);

struct World {
    plan: Plan,
    pace: Pace,
    simulator: Simulator,
    network: Network,
    clock: WallClock,
    store: Store,
    trace: Trace,
    answers: Answers,
    /// How many processes were started.
    started: usize,
    /// Sessions that nobody knows any more, since the process was killed before they were stored.
    forgotten: BTreeSet<u64>,
}

pub(crate) fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(carry_out(plan, Pace::virtual_time()))
}

pub(crate) fn run_in_real_time(plan: Plan) -> Outcome {
    let round = Round::new(plan.seed);
    round.run_within(PATIENCE, {
        let round = round.clone();
        async move { carry_out(plan.in_real_time(), Pace::real_time(round)).await }
    })
}

async fn carry_out(plan: Plan, pace: Pace) -> Outcome {
    let tasks_before = bounds::tasks();
    let mut world = World::new(plan, pace);
    let begin = Instant::now();
    world.trace.note("plan", format_args!("{:?}", world.plan));
    let mut process = world.start(world.plan.old).await;
    let mut calls = JoinSet::new();
    let mut has_begun = false;
    world.simulator.start_traffic();
    for (at, step) in world.plan.steps.clone() {
        if !has_begun && at >= world.plan.begins {
            sleep_until(begin + world.plan.begins).await;
            has_begun = true;
            world.insist(&process).await;
        }
        sleep_until(begin + at).await;
        process = world.take(process, step, &mut calls).await;
    }
    if !has_begun {
        sleep_until(begin + world.plan.begins).await;
        world.insist(&process).await;
    }
    let last_fault = world.calm_down(&process);
    world.wait_until_over(&process, last_fault).await;
    let recovered_in = last_fault.elapsed();
    world.trace.note("checkers", "the reshard is over, and everything is well");
    // Some traffic in the new layout.
    world.simulator.start_traffic();
    sleep(world.pace.wait(Duration::from_secs(5))).await;
    world.judge_delivery(&process).await;
    while calls.join_next().await.is_some() {}
    // The simulator has seen the end of the old sessions by then.
    let (doubled, keeper) = (world.simulator.world_delivery().doubled, process.keeper.clone());
    if world.plan.detach {
        let _ = world.answers.within(ENDING, "detach", keeper.detach()).await;
    } else {
        let _ = world.answers.within(ENDING, "stop", keeper.stop()).await;
    }
    drop((process, keeper));
    protocol::judge_reshard(&world.plan, &world.pace, &world.simulator.report(), &world.trace);
    world.simulator.shutdown();
    world.store.sever();
    bounds::nothing_is_left(tasks_before, &world.pace, &world.trace).await;
    Outcome {
        complaints: world.trace.complaints(),
        lasted: world.trace.elapsed(),
        trace: world.trace.take_lines(),
        recovered_in,
        bound: RECOVERY,
        doubled,
        late_by: world.pace.latest(),
        undecidable: world.pace.is_undecidable(),
    }
}

impl World {
    fn new(plan: Plan, pace: Pace) -> Self {
        let mut config = SimConfig::default();
        shardkeeper_tests::calm(&mut config);
        if !plan.repeating {
            config.traces = shardkeeper_sim::Traces::World { repeating: Vec::new() };
        }
        config.token = "sim-token".to_owned();
        config.seed = plan.seed;
        config.shards = plan.old;
        config.max_concurrency = plan.max_concurrency;
        config.guilds = plan.guilds;
        config.events_per_second = plan.events_per_second;
        config.split_frames = plan.split_frames;
        config.split_suffix = plan.split_frames;
        config.mixed_atoms = true;
        config.timings = pace.sim_timings();
        let simulator = Simulator::in_memory(config);
        if let Some((of, settings)) = plan.treated.clone() {
            simulator.treat(of, settings);
        }
        let (trace, clock) = (Trace::new(), WallClock::new());
        let store = Store::new(
            (plan.store_latency, pace.clone()),
            clock.clone(),
            trace.clone(),
            Log::default(),
            plan.seed,
        );
        Self {
            network: Network::new(simulator.clone(), plan.latency, plan.seed),
            answers: Answers::new(trace.clone(), pace.clone()),
            started: 0,
            forgotten: BTreeSet::new(),
            plan,
            pace,
            simulator,
            clock,
            store,
            trace,
        }
    }

    /// Starts a process that is configured to have this many shards.
    async fn start(&mut self, count: u32) -> Moving {
        self.started += 1;
        let (compression, encoding) = self.plan.wire;
        let mut policy = ReshardPolicy::off();
        (policy.group_deadline, policy.pause) = (self.plan.group_deadline, self.plan.pause);
        policy.voice = VoicePolicy::MoveAfter(Duration::ZERO);
        let clock = self.clock.clone();
        let builder = Shardkeeper::builder("sim-token", Intents::all())
            .api_url(self.simulator.api_url())
            .dialer(self.pace.dialer(self.network.clone()))
            .timings(self.pace.timings())
            .restart_policy(self.pace.restart_policy())
            .shutdown_timeout(self.pace.shutdown_timeout())
            .seed(self.plan.seed.wrapping_add(self.started as u64))
            .compression(compression)
            .encoding(encoding)
            .wall_clock(move || clock.now())
            .session_store(self.store.open(self.started))
            .shards(count)
            .reshard(policy);
        let options = SubscriptionOptions { capacity: 4096, ..SubscriptionOptions::default() };
        let lifecycle = builder.subscribe_with(Topic::lifecycle(), options);
        tokio::spawn(report(self.trace.clone(), self.started, lifecycle));
        self.trace.note(format_args!("process {}", self.started), format_args!("starts for {count} shards"));
        Moving::begin(&self.simulator, builder, self.plan.capacity).await
    }

    /// Asks for the reshard, or lets it go on.
    async fn insist(&self, process: &Moving) {
        let Some(status) = self.status(process).await else { return };
        let keeper = &process.keeper;
        let asked = match &status.reshard {
            Some(reshard) if reshard.paused || reshard.halted.is_some() => {
                format!("{:?}", keeper.resume_reshard().await)
            }
            Some(_) => return,
            None if self.is_over(&status) => return,
            None => {
                let request = if self.plan.old == self.plan.new {
                    ReshardRequest::same()
                } else {
                    let Some(count) = ShardCount::new(self.plan.new) else { return };
                    ReshardRequest::to(count)
                };
                let limit = Duration::from_secs(60);
                match self.answers.within(limit, "reshard", keeper.reshard(request)).await {
                    Some(Ok(plan)) => format!("{} groups", plan.groups.len()),
                    other => format!("{other:?}"),
                }
            }
        };
        self.trace.note("operator", format_args!("insists on the reshard: {asked}"));
    }

    async fn status(&self, process: &Moving) -> Option<ManagerStatus> {
        self.answers.within(AT_ONCE, "status", process.keeper.status()).await.and_then(Result::ok)
    }

    /// Whether the bot has the new layout, and nothing else.
    fn is_over(&self, status: &ManagerStatus) -> bool {
        status.reshard.is_none()
            && status.shards.len() == self.plan.new as usize
            && status.shards.iter().all(|shard| shard.count.get() == self.plan.new && shard.generation > 1)
    }

    async fn take(&mut self, process: Moving, step: Step, calls: &mut JoinSet<()>) -> Moving {
        self.trace.note("step", format_args!("{step:?}"));
        let keeper = &process.keeper;
        match step {
            Step::Discord(action) => {
                if let Err(error) = self.simulator.act(&action) {
                    self.trace.note("discord", error);
                }
            }
            Step::Outage { weather, lasts, cut } => {
                self.network.set(weather);
                if cut {
                    let _ = self.simulator.act(&Action::Fault { shard: None, fault: Fault::Cut });
                }
                let (network, lasts) = (self.network.clone(), self.pace.wait(lasts));
                tokio::spawn(async move {
                    sleep(lasts).await;
                    network.set(Weather::Fine);
                });
            }
            Step::Store { mood, lasts } => {
                let (store, lasts) = (self.store.clone(), self.pace.wait(lasts));
                let number = store.set(mood);
                tokio::spawn(async move {
                    sleep(lasts).await;
                    store.calm_down(number);
                });
            }
            Step::Shard { number, drill } => {
                let is_shard = |child: &ActorCell| child.is_message_type_of::<ShardMessage>() == Some(true);
                let children = keeper.manager().get_cell().get_children().into_iter();
                let mut shards: Vec<_> = children.filter(is_shard).collect();
                // In the order of their birth, so that a seed always means the same one.
                shards.sort_by_key(|shard| shard.get_id().pid());
                if !shards.is_empty() {
                    let shard = shards.swap_remove(number % shards.len());
                    if drill {
                        let _ = ActorRef::<ShardMessage>::from(shard).cast(ShardMessage::CrashDrill);
                    } else {
                        shard.kill();
                    }
                }
            }
            Step::Service(which) => {
                let child = match which {
                    Service::IdentifyQueue => service::<QueueMessage>(keeper),
                    Service::SessionKeeper => service::<KeeperMessage>(keeper),
                    _ => service::<SentinelMessage>(keeper),
                };
                child.iter().for_each(ActorCell::kill);
            }
            Step::Stall(lasts) => {
                process.stall(true);
                sleep(self.pace.wait(lasts)).await;
                process.stall(false);
            }
            // There may be nothing to control.
            Step::Pause => drop(keeper.pause_reshard().await),
            Step::Resume => drop(keeper.resume_reshard().await),
            Step::Abort => drop(keeper.abort_reshard().await),
            Step::Deploy => {
                let _ = self.answers.within(ENDING, "detach", keeper.detach()).await;
                self.store.sever();
                self.remember();
                return self.start(self.plan.new).await;
            }
            Step::Kill => {
                process.kill().await;
                self.store.sever();
                self.remember();
                return self.start(self.plan.new).await;
            }
            Step::Ask(guild) => {
                let (keeper, answers) = (keeper.clone(), self.answers.clone());
                calls.spawn(async move { ask(&keeper, &answers, guild).await });
            }
        }
        process
    }

    /// Notes which sessions the store does not know after the end of a process, and lets the next one find a
    /// working store.
    fn remember(&mut self) {
        self.store.set(Mood::Fine);
        let stored: BTreeSet<_> = self.store.sessions().into_iter().map(|record| record.session.id).collect();
        let known = self.simulator.sessions().into_iter();
        let unknown = known.filter(|session| session.alive && !stored.contains(&session.id));
        self.forgotten.extend(unknown.map(|session| session.session));
        self.trace.note("checkers", format_args!("nobody knows sessions {:?}", self.forgotten));
    }

    /// Ends all faults, and returns when that was.
    fn calm_down(&self, process: &Moving) -> Instant {
        self.trace.note("plan", "no faults from now on");
        self.network.set(Weather::Fine);
        self.store.set(Mood::Fine);
        process.stall(false);
        let _ = self.simulator.act(&Action::Disarm);
        if !self.plan.gentle {
            // Cut all connections, because those slowed by a fault would stay slow.
            let _ = self.simulator.act(&Action::Fault { shard: None, fault: Fault::Cut });
        }
        Instant::now()
    }

    async fn wait_until_over(&self, process: &Moving, since: Instant) {
        let deadline = since + self.pace.limit(RECOVERY);
        loop {
            let wrong = match self.status(process).await {
                None => "no status".to_owned(),
                Some(status) if !self.is_over(&status) => {
                    self.insist(process).await;
                    format!("the reshard is not over: {:?}", status.reshard)
                }
                Some(status) => match status.shards.iter().find(|shard| shard.phase != Phase::Ready) {
                    Some(shard) => format!("shard {} is {}", shard.shard, shard.phase),
                    None if self.is_connected() => return,
                    None => "a session is not connected".to_owned(),
                },
            };
            if Instant::now() >= deadline {
                return self.trace.complain(format_args!("not over in time: {wrong}"));
            }
            sleep(self.pace.look_every()).await;
        }
    }

    /// Whether Discord has a connection of each shard of the new layout.
    fn is_connected(&self) -> bool {
        let sessions = self.simulator.sessions().into_iter();
        let new = sessions.filter(|session| session.connected && session.shard_count == self.plan.new);
        new.map(|session| session.shard_id).collect::<BTreeSet<_>>().len() == self.plan.new as usize
    }

    async fn judge_delivery(&self, process: &Moving) {
        let (verdict, tally) = (process.verdict().await, process.tally());
        self.trace.note("checkers", format_args!("{tally:?}"));
        let unmarked = verdict.doubled - verdict.doubled_marked;
        // Of events with the same text, the judge cannot tell a marked repetition from the next one.
        if unmarked > 0 && (!self.plan.repeating || !tally.surprises.is_empty()) {
            self.trace.complain(format_args!(
                "{unmarked} events came twice, and are not marked: {:#?}",
                tally.surprises
            ));
        }
        // What cannot be compared, because a fault changed the order of one session, is marked.
        let guessed = tally.guessed > 0 || self.started > 1;
        if verdict.out_of_order > 0 && !guessed {
            self.trace.complain(format_args!("{} events came after later ones", verdict.out_of_order));
        }
        let sessions = self.simulator.sessions();
        let lives = |number: &u64| {
            sessions.iter().any(|session| {
                session.session == *number && session.alive && session.shard_count == self.plan.new
            })
        };
        // Events of sessions that Discord has ended, or that nobody knows any more, may be lost.
        let is_excused = |numbers: &[u64]| {
            !self.plan.gentle && !numbers.iter().any(lives)
                || numbers.iter().all(|number| self.forgotten.contains(number))
        };
        for lost in verdict.lost_events.iter().filter(|lost| !is_excused(&lost.sessions)) {
            self.trace.complain(format_args!("lost {lost:?}"));
        }
        let unmissed = tally.missed > 0 && self.started == 1;
        if unmissed {
            self.trace.complain(format_args!("a lossless subscriber missed {}", tally.missed));
        }
        let left: Vec<_> = sessions.iter().filter(|session| session.alive && session.connected).collect();
        if left.len() != self.plan.new as usize {
            self.trace.complain(format_args!("{} sessions are connected: {left:?}", left.len()));
        }
    }
}

/// Makes each call once. All have to be answered in time.
async fn ask(keeper: &Shardkeeper, answers: &Answers, guild: u32) {
    let guild = guild_id(guild);
    let presence = keeper.update_presence(Presence::new(OnlineStatus::Idle));
    let _ = answers.within(AT_ONCE, "update_presence", presence).await;
    let command = answers.within(AT_ONCE, "command", keeper.command(VoiceStateUpdate::leave(guild))).await;
    let written = async {
        if let Some(Ok(accepted)) = command {
            let _ = answers.within(SENDING, "written", accepted.written()).await;
        }
    };
    let members =
        answers.within(COLLECTING, "members", keeper.members(RequestMembers::prefix(guild, "a", 5)));
    join(written, members).await;
}

/// Records the lifecycle of a process.
async fn report(trace: Trace, number: usize, mut lifecycle: Subscription) {
    while let Some(delivery) = lifecycle.next().await {
        let Event::Lifecycle(lifecycle) = &*delivery else { continue };
        trace.note(format_args!("process {number}"), lifecycle);
        if let Lifecycle::Crashed { error, .. } = lifecycle {
            let ours = ["driver panicked: crash drill", "killed", "stopped"];
            if !ours.contains(&error.as_str()) {
                trace.complain(format_args!("a shard crashed that was not asked to: {error}"));
            }
        }
    }
}
