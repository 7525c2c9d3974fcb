//! A process of the bot: a manager and its subscribers. It starts, detaches, stops or is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorRef, ActorStatus};
use shardkeeper::actor::ShardMessage;
use shardkeeper::dispatch::Service;
use shardkeeper::status::Change;
use shardkeeper::{
    Event, Lifecycle, Session, ShardId, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::checkers::answers::{AT_ONCE, ENDING};
use crate::checkers::storing::{self, Entry, GRACE};
use crate::plan::Kind;
use crate::subscriber::Listener;
use crate::world::World;

pub(crate) struct Process {
    /// The number of the process, counted over the run.
    pub(crate) number: usize,
    place: usize,
    pub(crate) keeper: Shardkeeper,
    listeners: Vec<AbortHandle>,
}

/// Starts a process in this place, for the shards that run there, with these sessions or with the store of
/// the place.
pub(crate) async fn start(world: &Arc<World>, place: usize, sessions: Vec<Session>) {
    let plan = &world.plan;
    let shards = world.shards_of(place);
    let number = {
        let mut state = world.state();
        state.started += 1;
        let number = state.started;
        shards.iter().for_each(|shard| state.excuses.begun(number, *shard));
        number
    };
    let (compression, encoding) = plan.wire;
    let mut builder = Shardkeeper::builder("sim-token", world.intents())
        .api_url(world.simulator.api_url())
        .dialer(world.pace.dialer(world.network.clone()))
        .timings(world.pace.timings())
        .restart_policy(world.pace.restart_policy())
        .shutdown_timeout(world.pace.shutdown_timeout())
        .seed(plan.seed.wrapping_add(number as u64))
        .compression(compression)
        .encoding(encoding)
        .wall_clock({
            let clock = world.clocks[place].clone();
            move || clock.now()
        });
    let given = sessions.clone();
    let newest = world.newest_session_ids();
    if plan.store.is_used {
        builder = builder.session_store(world.stores[place].open(number));
    } else {
        builder = builder.sessions(sessions);
    }
    if plan.elsewhere > 0 {
        builder = builder.shard_ids(shards.iter().copied(), plan.shards);
    }
    if plan.gate {
        builder = builder.identify_gate(Arc::new(world.gate.clone()));
    }
    let mut listeners = Vec::new();
    let topic = SubscriptionOptions { capacity: 4096, ..SubscriptionOptions::default() };
    let lifecycle = builder.subscribe_with(Topic::lifecycle(), topic);
    listeners.push(tokio::spawn(report(Arc::clone(world), number, lifecycle)).abort_handle());
    let listener = |(number_of, habit): (usize, _)| Listener {
        world: Arc::clone(world),
        habit,
        number: number_of,
        process: number,
    };
    let all: Vec<Listener> = plan.subscribers.iter().copied().enumerate().map(listener).collect();
    for listener in all.iter().filter(|listener| listener.habit.kind == Kind::Steady).cloned() {
        let subscription = builder.subscribe_with(listener.habit.topic(), listener.habit.options());
        let reading = async move { listener.read(listener.number, subscription).await };
        listeners.push(tokio::spawn(reading).abort_handle());
    }
    world.trace.note(format_args!("process {number}"), format_args!("starts for {shards:?}"));
    match builder.start().await {
        Ok(keeper) => {
            world.trace.note(format_args!("process {number}"), "has started");
            expect_logins(world, (place, number), &shards, (&given, &newest));
            for listener in all {
                listeners.push(tokio::spawn(listener.join(keeper.clone())).abort_handle());
            }
            world.state().processes[place] = Some(Process { number, place, keeper, listeners });
        }
        Err(error) => world.trace.complain(format_args!("process {number} does not start: {error}")),
    }
}

/// Records the lifecycle changes that a process reports of its shards.
async fn report(world: Arc<World>, number: usize, mut lifecycle: Subscription) {
    while let Some(delivery) = lifecycle.next().await {
        let Event::Lifecycle(lifecycle) = &*delivery else { continue };
        world.trace.note(format_args!("process {number}"), lifecycle);
        if let Lifecycle::Shard { shard, change, .. } = lifecycle {
            world.state().logins.note(number, shard.0, change);
        }
        match lifecycle {
            Lifecycle::StoreFailed { .. } => world.log.note(number, Entry::ToldFailed),
            Lifecycle::StoreRecovered => world.log.note(number, Entry::ToldRecovered),
            Lifecycle::ServiceCrashed { service: Service::SessionKeeper, restart_after, .. } => {
                world.log.note(number, Entry::KeeperGone);
                world.keeper_died(number, *restart_after);
            }
            Lifecycle::Shard { shard, change: Change::Queued, .. } => {
                world.state().logins.see(number, shard.0, false);
            }
            Lifecycle::Shard { shard, change: Change::Connecting { resuming }, .. } => {
                world.state().logins.see(number, shard.0, *resuming);
            }
            _ => {}
        }
        if let Lifecycle::Crashed { error, shard, .. } = lifecycle {
            if world.pace.is_real() {
                // The shard may have begun another session since the crash was ordered.
                world.crashed(shard.0);
            }
            let ours = ["driver panicked: crash drill", "killed", "stopped"];
            if !ours.contains(&error.as_str()) {
                world.trace.complain(format_args!("a shard crashed that was not asked to: {error}"));
            }
        }
    }
}

/// Determines which shards of a process have a session to resume, given or loaded. `newest` names the last
/// session that Discord had begun for each shard when the process started.
fn expect_logins(
    world: &World,
    (place, number): (usize, usize),
    shards: &[u32],
    (given, newest): (&[Session], &BTreeMap<u32, String>),
) {
    let clock = &world.clocks[place];
    let loaded = world.stores[place].loaded();
    let mut state = world.state();
    for shard in shards {
        let resumes = match &loaded {
            _ if !world.plan.store.is_used => Some(given.iter().any(|session| session.shard.0 == *shard)),
            None => Some(false),
            Some(loaded) => {
                let usable =
                    [loaded.at_ms, clock.now_ms()].map(|now_ms| storing::is_usable(loaded, *shard, now_ms));
                // If the clock has jumped, nobody knows which time the process read.
                (usable[0] == usable[1] && clock.jumps() == loaded.jumps).then_some(usable[0])
            }
        };
        if let Some(resumes) = resumes {
            state.logins.expect(number, *shard, resumes);
        }
        let mut known: Vec<&Session> = given.iter().collect();
        if world.plan.store.is_used {
            known = loaded
                .iter()
                .flat_map(|loaded| &loaded.stored.sessions)
                .map(|record| &record.session)
                .collect();
        }
        // A store that failed, or was killed before it saved, holds only a session that has ended; then
        // nobody has the newest one.
        let is_newest =
            known.iter().any(|session| session.shard.0 == *shard && newest.get(shard) == Some(&session.id));
        if resumes != Some(true) || !is_newest {
            state.logins.begins_again(*shard);
        }
    }
}

impl Process {
    fn note(&self, world: &World, what: &str) {
        world.trace.note(format_args!("process {}", self.number), what);
    }

    /// Detaches the process, and returns its sessions.
    pub(crate) async fn detach(self, world: &Arc<World>, shards: &[u32]) -> Vec<Session> {
        self.note(world, "detaches");
        let begun = Instant::now();
        let sessions = world.answers.within(ENDING, "detach", self.keeper.detach()).await;
        let sessions = sessions.and_then(Result::ok).unwrap_or_default();
        self.is_over(world);
        if begun.elapsed() >= world.pace.shutdown_timeout() {
            // Some subscriber had unfinished deliveries when the time was over.
            world.torn(shards);
        } else {
            self.has_flushed(world, begun, shards, &sessions);
        }
        self.note(world, &format!("has detached, with sessions of {:?}", ids(&sessions)));
        sessions
    }

    /// Stops the process for good.
    pub(crate) async fn stop(self, world: &Arc<World>, shards: &[u32]) {
        self.note(world, "stops");
        let begun = Instant::now();
        let _ = world.answers.within(ENDING, "stop", self.keeper.stop()).await;
        self.is_over(world);
        if begun.elapsed() < world.pace.shutdown_timeout() {
            self.has_flushed(world, begun, shards, &[]);
        }
    }

    /// Kills the process between two instructions, as SIGKILL does: nothing is reported and nothing is closed
    /// properly. Returns the sessions of that moment.
    ///
    /// If `watched`, the store is compared with the sessions of the moment before.
    pub(crate) async fn kill(self, world: &Arc<World>, shards: &[u32], watched: bool) -> Vec<Session> {
        let (store, clock) = (&world.stores[self.place], &world.clocks[self.place]);
        let before = match watched && world.plan.store.is_used {
            true => Some((Instant::now(), clock.jumps(), self.sessions(world).await)),
            false => None,
        };
        if before.is_some() {
            sleep(GRACE + world.pace.late_by()).await;
        }
        let manager = self.keeper.manager().get_cell();
        let mut actors = Vec::new();
        for shard in shards {
            actors.extend(self.keeper.shard(ShardId(*shard)).await);
        }
        // In this order, because events that are acknowledged in between may be stored at once.
        let stored = store.sessions();
        let sessions = self.sessions(world).await;
        storing::not_ahead(&stored, &sessions, &world.trace);
        if let Some((since, jumps, before)) = &before
            && store.was_well_since(*since)
            && world.keeper_lives_since(self.number, *since)
        {
            let gone = world.given_away_before(self.number, *since);
            storing::gone(&stored, &gone, &world.trace);
            // The clock may have been set just before; then the age of the sessions is unknown.
            let now_ms = (clock.jumps() == *jumps).then(|| clock.now_ms());
            storing::not_behind(&stored, (before, &sessions), now_ms, &world.trace);
        }
        self.is_over(world);
        manager.kill();
        // Each is killed here, because the order in which a killed manager ends its children varies.
        actors.iter().for_each(|actor| actor.kill());
        self.listeners.iter().for_each(AbortHandle::abort);
        if world.pace.is_real() {
            self.is_dead(&manager, &actors).await;
        }
        world.torn(shards);
        self.note(world, &format!("is killed, with sessions of {:?}", ids(&sessions)));
        sessions
    }

    async fn sessions(&self, world: &World) -> Vec<Session> {
        let sessions = world.answers.within(AT_ONCE, "sessions", self.keeper.sessions()).await;
        sessions.and_then(Result::ok).unwrap_or_default()
    }

    /// Waits until all of the process's actors have ended: on several threads they end one after the other.
    async fn is_dead(&self, manager: &ActorCell, actors: &[ActorRef<ShardMessage>]) {
        let runs = |actor: &ActorCell| actor.get_status() != ActorStatus::Stopped;
        while runs(manager)
            || actors.iter().any(|actor| runs(actor))
            || self.listeners.iter().any(|listener| !listener.is_finished())
        {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Records that the process does nothing more.
    fn is_over(&self, world: &World) {
        world.stores[self.place].sever();
        world.log.note(self.number, Entry::End);
        world.state().logins.judge(self.number, &world.trace);
    }

    /// Checks, after an end within the time limit, that a working store holds these sessions.
    fn has_flushed(&self, world: &Arc<World>, begun: Instant, shards: &[u32], sessions: &[Session]) {
        let store = &world.stores[self.place];
        if !world.plan.store.is_used {
            return;
        }
        let stale = storing::stale(&store.sessions(), shards, sessions);
        // A session that the process could not load is not removed by it either.
        let had_its_say = |shard: &&u32| {
            store.loaded().is_some() || sessions.iter().any(|session| session.shard.0 == **shard)
        };
        let unsaid: Vec<&u32> = stale.iter().filter(had_its_say).collect();
        if store.was_well_since(begun) && !unsaid.is_empty() {
            world.trace.complain(format_args!("the last word of {unsaid:?} was not stored"));
        }
        world.torn(&stale);
    }
}

fn ids(sessions: &[Session]) -> Vec<(u32, u64)> {
    sessions.iter().map(|session| (session.shard.0, session.sequence)).collect()
}
