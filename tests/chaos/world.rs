//! What the parts of a run share: Discord, the way there, the processes of the bot, and what the checkers know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use shardkeeper::identify_gate::LocalGate;
use shardkeeper::{Dispatch, Intents, Shardkeeper};
use shardkeeper_sim::{SimConfig, Simulator};
use shardkeeper_tests::wall_clock;

use crate::calm::Calm;
use crate::checkers::answers::Answers;
use crate::checkers::delivery::{Excuses, Ledger};
use crate::network::Network;
use crate::plan::{Habit, Plan};
use crate::process::Process;
use crate::shelf::Shelf;
use crate::trace::Trace;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) simulator: Simulator,
    pub(crate) network: Network,
    pub(crate) gate: LocalGate,
    /// The stores of the places, if there are any.
    pub(crate) shelves: [Shelf; 2],
    /// By how many seconds the time of day is ahead.
    wall_ahead: Arc<AtomicI64>,
    pub(crate) trace: Trace,
    pub(crate) answers: Answers,
    /// From now on every subscriber reads at once.
    pub(crate) calm: Calm,
    state: Mutex<State>,
}

/// All of it is behind one lock, held for moments.
#[derive(Default)]
pub(crate) struct State {
    /// In each place a process, unless one is just being replaced.
    pub(crate) processes: [Option<Process>; 2],
    /// Processes that were ever started.
    pub(crate) started: usize,
    /// In which place each shard runs.
    pub(crate) owners: BTreeMap<u32, usize>,
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) excuses: Excuses,
    /// Processes that have said that their store does not work, and not yet that it does again.
    pub(crate) storeless: BTreeSet<usize>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        let mut config = SimConfig::default();
        config.seed = plan.seed;
        config.shards = plan.shards;
        config.max_concurrency = plan.max_concurrency;
        config.identify_remaining = plan.identify_remaining;
        config.guilds = plan.guilds;
        config.large_guild_members = plan.large_guild_members;
        config.events_per_second = plan.events_per_second;
        config.mix = plan.mix;
        config.replay_limit = plan.replay_limit;
        config.split_frames = plan.split_frames;
        let simulator = Simulator::in_memory(config);
        let network = Network::new(simulator.clone(), plan.latency, plan.seed);
        let trace = Trace::new();
        let ledgers = plan
            .subscribers
            .iter()
            .enumerate()
            .map(|(number, habit)| Ledger::new(format!("subscriber {number}"), *habit));
        let here = plan.shards - plan.elsewhere;
        let owners = (0..plan.shards).map(|shard| (shard, usize::from(shard >= here))).collect();
        let state = State { ledgers: ledgers.collect(), owners, ..State::default() };
        Arc::new(Self {
            simulator,
            network,
            gate: LocalGate::default(),
            shelves: [0, 1].map(|place| Shelf::new(Rng::with_seed(plan.seed << 1 | place))),
            wall_ahead: Arc::default(),
            answers: Answers::new(trace.clone()),
            trace,
            calm: Calm::default(),
            state: Mutex::new(state),
            plan,
        })
    }

    pub(crate) fn set_wall_clock(&self, seconds_ahead: i64) {
        self.wall_ahead.store(seconds_ahead, Ordering::Relaxed);
    }

    /// The time of day, as every process has it.
    pub(crate) fn wall_clock(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let ahead = Arc::clone(&self.wall_ahead);
        move || {
            let seconds = ahead.load(Ordering::Relaxed);
            let off = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { wall_clock() - off } else { wall_clock() + off }
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn intents(&self) -> Intents {
        Intents::all()
    }

    /// In which places there are processes.
    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        0..if self.plan.elsewhere > 0 { 2 } else { 1 }
    }

    /// The process in this place, unless it is being replaced.
    pub(crate) fn keeper(&self, place: usize) -> Option<Shardkeeper> {
        self.state().processes[place].as_ref().map(|process| process.keeper.clone())
    }

    /// Whether the process in this place has said last that its store does not work.
    pub(crate) fn lacks_store(&self, place: usize) -> bool {
        let state = self.state();
        state.processes[place].as_ref().is_some_and(|process| state.storeless.contains(&process.number))
    }

    /// The process that runs this shard.
    pub(crate) fn keeper_of(&self, shard: u32) -> Option<Shardkeeper> {
        let place = *self.state().owners.get(&shard)?;
        self.keeper(place)
    }

    /// The shards in this place.
    pub(crate) fn shards_of(&self, place: usize) -> Vec<u32> {
        self.state().owners.iter().filter(|(_, owner)| **owner == place).map(|(shard, _)| *shard).collect()
    }

    /// The shards left a process before everything was acknowledged there.
    pub(crate) fn torn(&self, shards: &[u32]) {
        let mut state = self.state();
        shards.iter().for_each(|shard| state.excuses.torn(*shard));
    }

    /// A ledger for a subscription that is not there from the beginning.
    pub(crate) fn open_ledger(&self, who: String, habit: Habit) -> usize {
        let mut state = self.state();
        state.ledgers.push(Ledger::new(who, habit));
        state.ledgers.len() - 1
    }

    /// A subscriber is done with a dispatch.
    pub(crate) fn observe(&self, ledger: usize, process: usize, dispatch: &Dispatch) {
        let mut state = self.state();
        let State { ledgers, excuses, .. } = &mut *state;
        let facts = ledgers[ledger].observe(process, dispatch, excuses);
        drop(state);
        if let Some([process, shard, session, number]) = facts {
            self.trace.observed([(ledger as u64) << 32 | process, shard, session, number]);
        }
    }
}
