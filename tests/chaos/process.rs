//! A process of the bot: a manager and those who listen to it. It starts, goes with its sessions, or dies.

use std::sync::Arc;

use shardkeeper::{
    Event, Lifecycle, Session, ShardId, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use tokio::task::AbortHandle;

use crate::checkers::answers::{AT_ONCE, ENDING};
use crate::plan::Kind;
use crate::subscriber::Listener;
use crate::world::World;

pub(crate) struct Process {
    /// Counted over the run.
    pub(crate) number: usize,
    pub(crate) keeper: Shardkeeper,
    listeners: Vec<AbortHandle>,
}

/// Starts a process in this place, for the shards that run there.
pub(crate) async fn start(world: &Arc<World>, place: usize, sessions: Vec<Session>) {
    let plan = &world.plan;
    let shards = world.shards_of(place);
    let number = {
        let mut state = world.state();
        state.started += 1;
        state.started
    };
    let (compression, encoding) = plan.wire;
    let mut builder = Shardkeeper::builder("sim-token", world.intents())
        .api_url(world.simulator.api_url())
        .dialer(Arc::new(world.network.clone()))
        .seed(plan.seed.wrapping_add(number as u64))
        .compression(compression)
        .encoding(encoding)
        .sessions(sessions);
    if plan.elsewhere > 0 {
        builder = builder.shard_ids(shards.iter().copied(), plan.shards);
    }
    let shelf = &world.shelves[place];
    if plan.store {
        builder = builder.session_store(Arc::new(shelf.open(number))).wall_clock(world.wall_clock());
        world.trace.note(format_args!("store {place}"), format_args!("holds {:?}", shelf.sessions()));
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
            for listener in all {
                listeners.push(tokio::spawn(listener.join(keeper.clone())).abort_handle());
            }
            world.state().processes[place] = Some(Process { number, keeper, listeners });
        }
        Err(error) => world.trace.complain(format_args!("process {number} does not start: {error}")),
    }
}

/// Writes down what a process says of its shards.
async fn report(world: Arc<World>, number: usize, mut lifecycle: Subscription) {
    while let Some(delivery) = lifecycle.next().await {
        let Event::Lifecycle(lifecycle) = &*delivery else { continue };
        world.trace.note(format_args!("process {number}"), lifecycle);
        match lifecycle {
            Lifecycle::StoreFailed { .. } => drop(world.state().storeless.insert(number)),
            Lifecycle::StoreRecovered => drop(world.state().storeless.remove(&number)),
            _ => {}
        }
        if let Lifecycle::Crashed { error, .. } = lifecycle {
            let ours = ["driver panicked: crash drill", "killed", "stopped"];
            if !ours.contains(&error.as_str()) {
                world.trace.complain(format_args!("a shard crashed that was not told to: {error}"));
            }
        }
    }
}

impl Process {
    fn note(&self, world: &World, what: &str) {
        world.trace.note(format_args!("process {}", self.number), what);
    }

    /// Goes, and leaves its sessions.
    pub(crate) async fn detach(self, world: &World, place: usize) -> Vec<Session> {
        self.note(world, "detaches");
        let (shards, begun) = (world.shards_of(place), tokio::time::Instant::now());
        let sessions = world.answers.within(ENDING, "detach", self.keeper.detach()).await.unwrap_or_default();
        if begun.elapsed().as_secs() >= 10 {
            // Somebody was not done with everything by the deadline.
            world.torn(&shards);
        }
        self.note(world, &format!("has detached, with sessions of {:?}", ids(&sessions)));
        if !world.plan.store {
            return sessions;
        }
        let stored = world.shelves[place].sessions();
        for left in ids(&sessions).into_iter().filter(|left| !stored.contains(left)) {
            // The store did not take the last word on it.
            if begun.elapsed().as_secs() < 10 && !world.shelves[place].has_failed() {
                world.trace.complain(format_args!("{left:?} is not stored: {stored:?}"));
            }
            world.torn(&[left.0]);
        }
        Vec::new()
    }

    /// Goes for good.
    pub(crate) async fn stop(self, world: &World) {
        self.note(world, "stops");
        let _ = world.answers.within(ENDING, "stop", self.keeper.stop()).await;
    }

    /// Dies between two instructions, as with SIGKILL: nobody is told, nothing is closed properly. Returns the sessions
    /// as they stood, unless the next one finds them in the store.
    pub(crate) async fn kill(self, world: &World, place: usize) -> Vec<Session> {
        let shards = world.shards_of(place);
        let manager = self.keeper.manager().get_cell();
        let mut actors = Vec::new();
        for shard in &shards {
            actors.extend(self.keeper.shard(ShardId(*shard)).await);
        }
        let sessions = match world.plan.store {
            true => Vec::new(),
            false => {
                let sessions = self.keeper.sessions();
                world.answers.within(AT_ONCE, "sessions", sessions).await.unwrap_or_default()
            }
        };
        manager.kill();
        // One after the other: the order in which a manager that dies takes its children along is not always the same.
        actors.iter().for_each(|actor| actor.kill());
        self.listeners.iter().for_each(AbortHandle::abort);
        world.shelves[place].break_off();
        world.torn(&shards);
        self.note(world, &format!("is killed, with sessions of {:?}", ids(&sessions)));
        sessions
    }
}

fn ids(sessions: &[Session]) -> Vec<(u32, u64)> {
    sessions.iter().map(|session| (session.shard.0, session.sequence)).collect()
}
